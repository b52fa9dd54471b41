"""Reports as a reader may have them: the positions are all there, taken out, hidden, vague or wrong.

A network that is trained on whole reports may meet others. Each mode turns a report into the text that is read:

========== ============================================================================================
full       the report as it is
removed    the position phrases are taken out; the words of laterality and count stay
masked     each phrase becomes ``[UNK_POS]``, the mask of PosAug
fuzzy      each phrase becomes ``a region of the lung``, the vague phrase of PosAug (or that of the layout)
wrong-side the phrases of the mirrored report: a negative control. Sides that say the same are the same
none       no text: the sentence of all zones that the setting ``report_text = none`` reads too
========== ============================================================================================

``unilateral`` and ``bilateral`` say how many lungs are infected and not where, so they are no position phrase. A report
without infection has no phrase; only ``none`` changes it.
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
"""The sentence of all zones, which tells nothing about one image."""


def text_at_hand(report: AnyReport, mode: ReportsAtHand) -> str:
    """What is read of one report.

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
    """Which of ``count`` reports are changed, ``[count]`` bool, each with probability ``rate``.

    One number is drawn for each report, whatever the rate. So from equal sources of chance the reports that a smaller
    rate changes are among those that a larger rate changes.
    """
    return rng.random(count) < rate


def texts_at_hand(
    reports: Sequence[AnyReport], mode: ReportsAtHand, rate: float, rng: np.random.Generator
) -> list[str]:
    """The texts of reports of which a share, the removal rate, is changed as the mode says; the others are whole."""
    changed = draw_changed(rng, len(reports), rate)
    return [text_at_hand(report, mode if hit else "full") for report, hit in zip(reports, changed, strict=True)]


def filled_in(report: Report, zones: Sequence[int]) -> str:
    """The report with the phrases of other zones in the place of its own; laterality and count stay.

    Args:
        report: one without infection is left as it is.
        zones: six 0/1, such as those that a network predicts from the image. If all are 0, no phrase is written.
    """
    return report.render(Report.of(zones, style=report.style).phrases) if any(report.zones) else report.render()
