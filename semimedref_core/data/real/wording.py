"""Contradictions inside a report: its words for sides and number against the sides and zones that it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from semimedref_core.reports import Report

_SIDES = {"no": 0, "unilateral": 1, "bilateral": 2}


def against_itself(report: Report) -> list[str]:
    """The kinds of contradiction of a report with itself. Its zones are the ones that its phrases name."""
    kinds = []
    if _SIDES[report.laterality] != len(report.sides):
        kinds.append("the report says unilateral or bilateral and names another number of sides")
    if report.style == "release" and report.lesions not in (None, sum(report.zones)):
        kinds.append("the report counts other than the zones that it names")
    return kinds


def counted(each: Iterable[Sequence[str]]) -> str:
    """How many reports contradict themselves, and in which ways, from the kinds of each; empty if none does."""
    found = [kinds for kinds in each if kinds]
    counts = Counter(kind for kinds in found for kind in kinds)
    told = "; ".join(f"{count} times {kind}" for kind, count in counts.items())
    return f"{len(found)} report(s) contradict themselves ({told})" if found else ""
