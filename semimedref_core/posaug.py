"""PosAug masks position phrases of the report or makes them vague, so that the student does not rely on them alone.

Eq. 3: each side s has one phrase r_s, and each phrase is hit independently, ``h_s ~ Bernoulli(p)``. The student reads
the replacement if ``h_s = 1`` and r_s if ``h_s = 0``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

import numpy as np

from semimedref_core.config import PosAugMode
from semimedref_core.positions import LUNGS, SIDES, AnyReport

MASK_TOKEN = "[UNK_POS]"
FUZZY_PHRASE = LUNGS.vague
MODES = get_args(PosAugMode)
_PHRASES = re.compile(
    r"(?P<head>.* infection, (\w+ infected areas?, )?)(?P<phrases>(?!\w+ infected areas?\.*$).+?)(?P<end>\.*)",
    re.IGNORECASE,
)


def _require(p: float, mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"unknown PosAug mode {mode!r}; choose one of {', '.join(MODES)}")
    if not 0 <= p <= 1:
        raise ValueError(f"PosAug's p is a probability, 0 to 1, got {p!r}")


def draw_hits(rng: np.random.Generator, p: float = 0.5, mode: str = "mix", vague: str = FUZZY_PHRASE) -> dict[str, str]:
    """Draws the sides whose phrases are hit (h_s of Eq. 3), and the replacements.

    Args:
        rng: source of chance, a ``numpy.random.Generator``.
        p: probability that a phrase is hit; phrases are independent.
        mode: ``mask`` (:data:`MASK_TOKEN`), ``fuzz`` (the vague phrase) or ``mix`` (one of the two, with equal
            probability).
        vague: the vague phrase of the layout.

    Returns:
        Side -> replacement, for the sides that are hit. Both sides are drawn, whatever the report names. So one draw
        serves a report and its mixtures.

    Raises:
        ValueError: if the mode is unknown, or p is no probability.
    """
    _require(p, mode)
    hits = {}
    for side in SIDES:
        hit, fuzzy = rng.random() < p, rng.random() < 0.5
        if hit:
            hits[side] = vague if mode == "fuzz" or (mode == "mix" and fuzzy) else MASK_TOKEN
    return hits


def apply_hits(report: AnyReport, hits: dict[str, str]) -> str:
    """The report's text, in which the phrases of the hit sides are replaced (r'_s of Eq. 3)."""
    phrases = zip(report.phrase_sides, report.phrases, strict=True)
    return report.render(tuple(hits.get(side, phrase) for side, phrase in phrases))


def posaug(report: AnyReport, rng: np.random.Generator, p: float = 0.5, mode: str = "mix") -> str:
    """The augmented text of one report; errors as in :func:`draw_hits`. ITCL still uses the zones of the original
    report."""
    return apply_hits(report, draw_hits(rng, p, mode, report.layout.vague))


@dataclass(frozen=True)
class PosAug:
    """:func:`posaug` with its settings: ``PosAug(p, mode)(report, rng)``.

    The mask is the word ``[UNK_POS]``: add it to a tokenizer of your own, or replace it. A free text
    (``FreeReport.of(text, LUNGS)``) in which the reader finds no place is returned as it is. The default p is the
    release's; the settings of a training have 0.1.

    Raises:
        ValueError: if the mode is unknown, or p is no probability.

    >>> import numpy as np
    >>> from semimedref_core import PosAug, Report
    >>> report = Report.of([0, 0, 1, 0, 0, 0])
    >>> PosAug(p=1, mode="mask")(report, np.random.default_rng(0))
    'unilateral pulmonary infection, one infected area, [UNK_POS].'
    """

    p: float = 0.5
    mode: PosAugMode = "mix"

    def __post_init__(self):
        _require(self.p, self.mode)

    def __call__(self, report: AnyReport, rng: np.random.Generator) -> str:
        """The augmented text of one report."""
        return posaug(report, rng, self.p, self.mode)


@dataclass(frozen=True)
class Stretch:
    """A part of a text. ``kind`` is ``frame`` (outside the phrases), ``position`` (a phrase of the report), ``mask`` or
    ``fuzz`` (its replacement)."""

    text: str
    kind: str


def stretches(text: str) -> tuple[Stretch, ...]:
    """Splits a report or an augmented text at its phrases, for display. The joined parts are the text again."""
    match = _PHRASES.fullmatch(text)
    if not match:  # the report has no infection, or its positions were removed
        return (Stretch(text, "frame"),)
    pieces = enumerate(re.split("( and )", match["phrases"]))
    kinds = {MASK_TOKEN: "mask", FUZZY_PHRASE: "fuzz"}
    phrases = [Stretch(words, "frame" if i % 2 else kinds.get(words, "position")) for i, words in pieces]
    return (Stretch(match["head"], "frame"), *phrases, Stretch(match["end"], "frame"))
