"""PosAug: positional phrases of the report are masked or made fuzzy, so the student does not lean on them alone.

Eq. 3: each phrase r_s, one a side s, is hit independently, ``h_s ~ Bernoulli(p)``; the student reads the replacement
where ``h_s = 1`` and r_s where ``h_s = 0``.
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


def draw_hits(rng: np.random.Generator, p: float = 0.5, mode: str = "mix", vague: str = FUZZY_PHRASE) -> dict[str, str]:
    """Which sides' phrases are hit (h_s of Eq. 3), and what stands in their place.

    Args:
        rng: source of chance.
        p: probability of each phrase to be hit, independently.
        mode: ``mask`` (:data:`MASK_TOKEN`), ``fuzz`` (the vague phrase) or ``mix`` (one of the two, evenly).
        vague: the vague phrase, that of the layout.

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
            hits[side] = vague if mode == "fuzz" or (mode == "mix" and fuzzy) else MASK_TOKEN
    return hits


def apply_hits(report: AnyReport, hits: dict[str, str]) -> str:
    """The report's text with the phrases of the hit sides replaced; the rest is untouched."""
    phrases = zip(report.phrase_sides, report.phrases, strict=True)
    return report.render(tuple(hits.get(side, phrase) for side, phrase in phrases))


def posaug(report: AnyReport, rng: np.random.Generator, p: float = 0.5, mode: str = "mix") -> str:
    """The augmented text of one report. The zones used by ITCL stay those of the untouched report."""
    return apply_hits(report, draw_hits(rng, p, mode, report.layout.vague))


@dataclass(frozen=True)
class PosAug:
    """:func:`posaug` with its settings: ``PosAug(p, mode)(report, rng)``.

    >>> import numpy as np
    >>> from semimedref_core import PosAug, Report
    >>> report = Report.of([0, 0, 1, 0, 0, 0])
    >>> PosAug(p=1, mode="mask")(report, np.random.default_rng(0))
    'unilateral pulmonary infection, one infected area, [UNK_POS].'
    """

    p: float = 0.5
    mode: PosAugMode = "mix"

    def __call__(self, report: AnyReport, rng: np.random.Generator) -> str:
        """The augmented text of one report."""
        return posaug(report, rng, self.p, self.mode)


@dataclass(frozen=True)
class Stretch:
    """A stretch of a text; ``kind`` is ``frame`` (outside the phrases), ``position`` (a phrase as the report has it),
    ``mask`` or ``fuzz`` (what stands in its place)."""

    text: str
    kind: str


def stretches(text: str) -> tuple[Stretch, ...]:
    """A report or an augmented text, cut where its phrases begin and end, to be shown; joined it is that text."""
    match = _PHRASES.fullmatch(text)
    if not match:  # without infection, or with its positions taken out
        return (Stretch(text, "frame"),)
    pieces = enumerate(re.split("( and )", match["phrases"]))
    kinds = {MASK_TOKEN: "mask", FUZZY_PHRASE: "fuzz"}
    phrases = [Stretch(words, "frame" if i % 2 else kinds.get(words, "position")) for i, words in pieces]
    return (Stretch(match["head"], "frame"), *phrases, Stretch(match["end"], "frame"))
