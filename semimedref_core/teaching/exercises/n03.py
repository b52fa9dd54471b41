"""Notebook 03: PosAug."""

from __future__ import annotations

from collections import Counter

import numpy as np

from semimedref_core.posaug import FUZZY_PHRASE, MASK_TOKEN, apply_hits
from semimedref_core.reports import SIDES, Report
from semimedref_core.teaching.answers import about

TWO_PHRASES, ONE_PHRASE = Report.of([1, 1, 1, 0, 1, 1]), Report.of([0, 0, 1, 0, 0, 0])
DRAWS, P = 600, 0.3


def half_left_whole(answer) -> str:
    hint = "Each of the two phrases has its own draw, and none may be hit. What is the probability of that at your p?"
    return about(answer, 1 - 0.5**0.5, 0.005, hint)


def all_or_none(answer) -> str:
    if not callable(answer):
        return f"The answer must be a function together(report, rng, p), but this is a {type(answer).__name__}."
    for report in (TWO_PHRASES, ONE_PHRASE):
        rng = np.random.default_rng(0)
        texts = Counter(answer(report, rng, P) for _ in range(DRAWS))
        hidden = apply_hits(report, dict.fromkeys(SIDES, MASK_TOKEN))
        others = [text for text in texts if text not in (report.render(), hidden)]
        if others:
            return f"It also gives {others[0]!r}, which is neither the report nor the report without its phrases."
        share = texts[hidden] / DRAWS
        if abs(share - P) > 0.08:  # four standard deviations
            return f"Of {report.render()!r} it hides the phrases in {100 * share:.0f} % of the draws at p = {P}."
    return ""


def same_text(answer) -> str:
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        return "Give three things: (a, b, hits)."
    *zones, hits = answer
    a, b = (Report.of(each) for each in zones)
    if a.zones == b.zones:
        return "Both reports name the same zones, so their masks need not differ."
    if not (any(a.zones) and any(b.zones)):
        return "A report without infection has no phrase that could be hidden. Name a zone in both."
    if not isinstance(hits, dict) or not set(hits) <= set(SIDES):
        return f"hits is a dict from a side ({' or '.join(SIDES)}) to what replaces its phrase."
    if not set(hits.values()) <= {MASK_TOKEN, FUZZY_PHRASE}:
        return f"PosAug replaces a phrase only with {MASK_TOKEN!r} or {FUZZY_PHRASE!r}."
    texts = apply_hits(a, hits), apply_hits(b, hits)
    return "" if texts[0] == texts[1] else f"The texts still differ: {texts[0]!r} and {texts[1]!r}."


EXERCISES = {"03.1": half_left_whole, "03.2": all_or_none, "03.3": same_text}
