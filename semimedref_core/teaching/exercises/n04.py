"""Notebook 04: T-PatchMix."""

from __future__ import annotations

import numpy as np
import torch

from semimedref_core.patchmix import compatible_zones
from semimedref_core.reports import ZONES, Report
from semimedref_kernels import patch_mix

GATE, CUT = 0.3, 0.5
OFFERS = {"A": [0.0] * 5 + [0.4] * 3 + [0.6] * 2, "B": [0.4] * 6 + [0.6] * 4}
"""Mode -> the mean p_j of each of its ten patches, all of one size."""
SIDE, PATCH = 16, (4, 4, 12, 12)


def passed_and_pure(answer) -> str:
    if not isinstance(answer, dict) or set(answer) != set(OFFERS):
        return "The answer must be a dict with an entry for A and one for B."
    for mode, means in OFFERS.items():
        passed = [mean for mean in means if mean >= GATE]
        share, pure = 100 * len(passed) / len(means), 100 * sum(passed) / len(passed)
        told_share, told_pure = (float(value) for value in answer[mode])
        if abs(told_share - share) > 1:
            return f"Mode {mode}: count the patches whose mean reaches {GATE}, out of {len(means)}. Answer in per cent."
        if abs(told_pure - pure) > 1:
            return f"Mode {mode}: average p_j only over the patches that pass. Answer in per cent."
    return ""


def news_only(answer) -> str:
    if not callable(answer):
        return f"The answer must be a function new_zones(own, donor), but this is a {type(answer).__name__}."
    rng = np.random.default_rng(0)
    pairs = [[Report.of(zones) for zones in rng.random((2, len(ZONES))) < 0.3] for _ in range(200)]
    for own, donor in pairs:
        wanted = [zone for zone in compatible_zones(own, donor, "donor") if not own.zones[zone]]
        given = sorted(answer(own, donor))
        if given != wanted:
            return f"Sample {own.zones} and donor {donor.zones}: {given} is not what the rule allows."
    return ""


def lying_teacher(answer) -> str:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "Give two maps: (p, y)."
    p, y = (torch.as_tensor(np.asarray(each, dtype=np.float32)) for each in answer)
    if p.shape != (SIDE, SIDE) or y.shape != (SIDE, SIDE):
        return f"Both maps are {SIDE} by {SIDE}."
    if not (((p >= 0) & (p <= 1)).all() and ((y == 0) | (y == 1)).all()):
        return "p lies between 0 and 1, and y holds only 0 and 1."
    y0, x0, y1, x1 = PATCH
    if y[y0:y1, x0:x1].any():
        return "There is a lesion in the patch, so the gate is right to accept it. It should be wrong."
    if not y.any():
        return "The donor has no lesion at all. It needs one outside the patch."
    found = p >= CUT
    dice = 2 * (found & (y == 1)).sum() / (found.sum() + y.sum())
    if dice < 1:
        return f"The teacher's Dice is {dice:.2f}: with the threshold {CUT}, p must be exactly y."
    empty, box = torch.zeros(2, 1, SIDE, SIDE), torch.tensor([PATCH, PATCH])
    maps = torch.stack([torch.zeros_like(p), p])[:, None]
    accepted = patch_mix(empty, maps, torch.tensor([1, 0]), box, GATE)[2][0]
    return "" if accepted else f"The gate refuses: the mean of p in the patch is {p[y0:y1, x0:x1].mean():.2f}."


EXERCISES = {"04.1": passed_and_pure, "04.2": news_only, "04.3": lying_teacher}
