"""Reports with positions that are complete, removed, hidden, vague or wrong.

A network that was trained on complete reports may later read others. Each mode makes the text that the network reads:

========== ============================================================================================
full       the unchanged report
removed    the position phrases are removed; the words of laterality and count stay
masked     each phrase becomes ``[UNK_POS]``, the mask of PosAug
fuzzy      each phrase becomes ``a region of the lung``, the vague phrase of PosAug (or that of the layout)
wrong-side the phrases of the mirrored report: a negative control. Equal phrases on both sides stay the same
none       the sentence that names all zones, as with the setting ``report_text = none``
========== ============================================================================================

``unilateral`` and ``bilateral`` say how many lungs are infected, not where. So they are no position phrases. A report
without infection has no phrase; only the mode ``none`` changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from semimedref_core.config import ReportsAtHand
from semimedref_core.posaug import MASK_TOKEN
from semimedref_core.positions import AnyReport
from semimedref_core.reports import ZONES, Report

MODES = get_args(ReportsAtHand)
EVERYWHERE = Report.of([1] * len(ZONES)).render()
"""The sentence that names all zones. It says nothing about a single image."""


def text_at_hand(report: AnyReport, mode: ReportsAtHand) -> str:
    """The text that the network reads of one report.

    Raises:
        ValueError: if the mode is unknown.

    >>> from semimedref_core.reports import Report
    >>> text_at_hand(Report.of([0, 0, 1, 0, 0, 0]), "removed")
    'unilateral pulmonary infection, one infected area.'
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r} of reports; choose one of {', '.join(MODES)}")
    if mode == "none":
        return EVERYWHERE
    phrases = {
        "full": report.phrases,
        "removed": (),
        "masked": (MASK_TOKEN,) * len(report.phrases),
        "fuzzy": (report.layout.vague,) * len(report.phrases),
        "wrong-side": report.flip().phrases,
    }
    return report.render(phrases[mode])


def draw_changed(rng: np.random.Generator, count: int, rate: float) -> np.ndarray:
    """Draws which of ``count`` reports are changed: ``[count]`` bool, each true with probability ``rate``.

    Each report gets one random number, and the rate does not change it. So with equal seeds, a larger rate changes all
    reports that a smaller rate changes.
    """
    return rng.random(count) < rate


def texts_at_hand(
    reports: Sequence[AnyReport], mode: ReportsAtHand, rate: float, rng: np.random.Generator
) -> list[str]:
    """The texts of reports. The mode changes a share of them, the removal rate; the others stay complete."""
    changed = draw_changed(rng, len(reports), rate)
    return [text_at_hand(report, mode if hit else "full") for report, hit in zip(reports, changed, strict=True)]


def filled_in(report: Report, zones: Sequence[int]) -> str:
    """Replaces the phrases of a report by those of other zones; laterality and count stay.

    Args:
        report: a report without infection is not changed.
        zones: six 0/1, for example predicted from the image. If all are 0, the text has no phrase.
    """
    return report.render(Report.of(zones, style=report.style).phrases) if any(report.zones) else report.render()
