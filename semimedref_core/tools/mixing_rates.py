"""Measures how often T-PatchMix offers a patch, accepts it and is correct, on the reports and masks of a dataset.

``semimedref mixing`` prints the result for our three zone rules and for the released code. The true masks replace the
teacher, so the errors come from the rules and not from a network.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from semimedref_core import views
from semimedref_core.anatomy import QATA, THIRDS
from semimedref_core.config import Config
from semimedref_core.data.pairs import Pairs
from semimedref_core.methods import release
from semimedref_core.networks import build_texts
from semimedref_core.patchmix import MIX_COUNTS, PATCH_ZONES, mixed_reports, patch_boxes
from semimedref_core.reports import Report
from semimedref_core.tools.known_truth import batches_with_truth
from semimedref_core.tools.mixing_audit import broken_by_mixing, count_lesions, miscounted, sum_in_boxes
from semimedref_kernels import patch_mix

LEAST = 4  # smallest number of lesion pixels in a zone
OF_MIXES = ["mask true", "zones true", *(f"number right, {way}" for way in MIX_COUNTS), "number right before"]
"""The checks of an accepted mix."""


def zone_rules(pairs: Pairs, config: Config, proposals: int = 1000) -> pd.DataFrame:
    """The outcomes of proposals for each of the three zone rules, in per cent.

    Args:
        pairs: with masks.
        config: settings of views and T-PatchMix; every sample is offered a patch. The zone grid is thirds if the
            settings say so, otherwise the grid of QaTa; it is never estimated here.
        proposals: number of samples for each rule, rounded up to whole batches.

    Returns:
        One column for each rule, one row for each share. ``offered`` is a share of all samples. ``shows a lesion`` and
        ``accepted`` (by the gate) are shares of the offers. The others are shares of the accepted mixes: the ``mask``
        marks what the image shows; the ``zones`` of the text agree with the image at least as well as before mixing;
        the number of lesions in the text, if it has one, is right, for each way to count. A share of nothing is NaN.

    Raises:
        ConfigError: if the batch size is 1.
    """
    return pd.DataFrame({rule: _zone_rule(pairs, replace(config, patch_zones=rule), proposals) for rule in PATCH_ZONES})


def _zone_rule(pairs: Pairs, config: Config, proposals: int) -> dict[str, float]:
    config = replace(config, method="semi_medref", patch_p=1.0, posaug_p=0.0)
    texts, grid = build_texts(length=40), THIRDS if config.grid == "thirds" else QATA
    samples, offers, lesions, mixes = 0, 0, 0, []
    for batch, truth in islice(
        batches_with_truth(pairs, pairs, config, texts, grid), -(-proposals // config.batch_size)
    ):
        how = {"block": config.block, "mode": config.patch_mode, "gate": config.gate}
        patches, zones = patch_boxes(truth, **batch.proposal, **how)
        partner = batch.proposal["partner"]
        shown, target, accepted = patch_mix(truth, truth, partner, patches, config.gate)
        offered = zones >= 0
        samples, offers = samples + len(zones), offers + int(offered.sum())
        lesions += int((sum_in_boxes(truth[partner], patches[:, None])[:, 0] >= LEAST)[offered].sum())
        own = [Report.parse(text) for text in texts.decode(batch.input_ids)]
        mixes += _true_in(truth, shown, target, own, zones, batch.zone_boxes)[accepted].tolist()
    of_mixes = pd.DataFrame(mixes, columns=OF_MIXES, dtype=float).mean()
    shares = {"offered": offers / samples, "shows a lesion": _share(lesions, offers)}
    shares |= {"accepted": _share(len(mixes), offers), **of_mixes}
    return {name: 100 * share for name, share in shares.items()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else np.nan


def _true_in(before: Tensor, after: Tensor, target: Tensor, own: list[Report], zones: Tensor, boxes: Tensor) -> Tensor:
    """The checks of each sample, ``[B, 6]`` bool in the order of :data:`OF_MIXES`; ``before`` and ``after`` are the
    lesions in the image."""
    places = zones.add(1).tolist()
    told = {
        way: [mixed_reports(report, mix_count=way)[place] for report, place in zip(own, places, strict=True)]
        for way in MIX_COUNTS
    }
    agrees = ((target >= 0.5) == (after > 0)).flatten(1).all(1)
    named = torch.tensor([report.zones for report in told["none"]]).bool()
    unnamed, lost = broken_by_mixing(sum_in_boxes(before, boxes), sum_in_boxes(after, boxes), named, LEAST)
    lesions = count_lesions(before[:, 0]), count_lesions(after[:, 0])
    wrong = [unnamed | lost, *(miscounted(told[way], lesions[1]) for way in MIX_COUNTS), miscounted(own, lesions[0])]
    return torch.stack([agrees, *(~each for each in wrong)], 1)


def release_rates(pairs: Pairs, image_size: int, proposals: int = 1000, seed: int = 0) -> pd.DataFrame:
    """The offers of the released code on these reports, in its own wording, in per cent.

    Args:
        pairs: with masks.
        image_size: height and width, px.
        proposals: number of samples, rounded up to whole batches of 32; every sample is offered a patch.
        seed: seed of all random numbers.

    Returns:
        Columns ``as one expects`` and ``as it runs``. Rows: ``offered``, the samples with a patch, and ``on the
        right``, the share of these on the right side; phrases are read before or after PosAug (Ledger 13). ``lower
        left``: for reports that name only this zone, the share of lesion pixels in its box as a mean over images, for
        upright and transposed pictures (Ledger 14). ``cut``, the clipped pixels of the
        strong view, and ``variance``, the remaining variance of the view, for samples with jitter (Ledger 16). A share
        of nothing is NaN.
    """
    rng = np.random.default_rng(seed)
    told = [Report.of(report.zones, style="release").render() for report in pairs.reports]
    posaug_p = {"as one expects": 0.0, "as it runs": 0.5}
    table = {name: _offers(rng, told, p, image_size, proposals) for name, p in posaug_p.items()}
    one = [report.phrases == ("lower left lung",) for report in pairs.reports]
    alone = pairs.masks[np.array(one) & pairs.masks.any((1, 2))]
    y0, x0, y1, x1 = release.phrase_box("lower left lung", image_size, image_size)
    chosen = rng.choice(len(pairs), min(len(pairs), proposals), replace=False)
    images = torch.from_numpy(pairs.images[chosen])[:, None]
    weak = views.weak_view(images, torch.eye(2, 3).expand(len(images), -1, -1))
    for name, masks, strong_view in (
        ("as one expects", alone, "release"),
        ("as it runs", alone.swapaxes(1, 2), "clamped"),
    ):
        inside = masks[:, y0:y1, x0:x1].sum((1, 2)) / masks.sum((1, 2))
        drawn = views.draw_photometry(np.random.default_rng(seed), len(weak), strong_view)
        sharp = replace(drawn, kernels=np.eye(7, dtype=np.float32)[np.full(len(weak), 3)])  # no blur
        strong = views.strong_view(weak, **{key: torch.as_tensor(value) for key, value in vars(sharp).items()})
        acts = (strong != weak).flatten(1).any(1)
        low, high = strong[acts].amin((1, 2, 3), keepdim=True), strong[acts].amax((1, 2, 3), keepdim=True)
        ends = (strong[acts] == low) | (strong[acts] == high)  # values clipped first may move from 0 later
        variance = strong[acts].var((1, 2, 3)).sum() / weak[acts].var((1, 2, 3)).sum()
        table[name] |= {
            "lower left, in its box": 100 * float(inside.mean()) if len(inside) else np.nan,
            "pixels cut": 100 * float(ends.float().mean()),
            "variance left": 100 * float(variance),
        }
    return pd.DataFrame(table)


def _offers(
    rng: np.random.Generator, told: list[str], posaug_p: float, image_size: int, proposals: int
) -> dict[str, float]:
    """The share of samples with an offered patch, and the share of these patches on the right side."""
    offered, right, samples = 0, 0, 0
    while samples < proposals:
        batch = [told[k] for k in rng.choice(len(told), min(32, len(told)), replace=False)]
        read = [release.hide_phrases(rng, text, posaug_p) for text in batch]
        plan = release.propose(rng, read, image_size, image_size, p=1.0)
        given = plan.zones >= 0
        samples, offered = samples + len(batch), offered + int(given.sum())
        right += int((plan.boxes[given, 0, 1] >= image_size // 2).sum())
    return {"offered": 100 * _share(offered, samples), "on the right": 100 * _share(right, offered)}
