"""PosAug: positional phrases of the report are masked or made fuzzy, so the student does not lean on them alone."""

from __future__ import annotations

import numpy as np

from semimedref_core.reports import SIDES, Report

MASK_TOKEN = "[UNK_POS]"
FUZZY_PHRASE = "a region of the lung"
MODES = ("mask", "fuzz", "mix")


def draw_hits(rng: np.random.Generator, p: float = 0.5, mode: str = "mix") -> dict[str, str]:
    """Which sides' phrases are hit, and what stands in their place.

    Args:
        rng: source of chance.
        p: probability of each phrase to be hit, independently.
        mode: ``mask`` (:data:`MASK_TOKEN`), ``fuzz`` (:data:`FUZZY_PHRASE`) or ``mix`` (one of the two, evenly).

    Returns:
        Side -> replacement, for the sides that are hit. Drawn for both sides whatever a report names, so that one draw
        serves a report and its mixtures.
    """
    if mode not in MODES:
        raise ValueError(f"unknown PosAug mode {mode!r}; choose one of {', '.join(MODES)}")
    hits = {}
    for side in SIDES:
        hit, fuzzy = rng.random() < p, rng.random() < 0.5
        if hit:
            hits[side] = FUZZY_PHRASE if mode == "fuzz" or (mode == "mix" and fuzzy) else MASK_TOKEN
    return hits


def apply_hits(report: Report, hits: dict[str, str]) -> str:
    """The report's text with the phrases of the hit sides replaced; the rest is untouched."""
    sides = [side for side in SIDES if any(report.side(side))]
    return report.render(tuple(hits.get(side, phrase) for side, phrase in zip(sides, report.phrases, strict=True)))


def posaug(report: Report, rng: np.random.Generator, p: float = 0.5, mode: str = "mix") -> str:
    """The augmented text of one report. The zones used by ITCL stay those of the untouched report."""
    return apply_hits(report, draw_hits(rng, p, mode))
