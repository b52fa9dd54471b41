"""Radiology reports as data: parse, render, flip and merge them, and get the six anatomical zones that they name.

The reports of QaTa-COV19 and MosMedData+ follow one small grammar::

    <Uni|Bi>lateral pulmonary infection, <count> infected area(s), <phrase>[ and <phrase>].
    phrase = (all | any of: upper middle lower) (left | right) lung

or ``No pulmonary infection, zero infected areas.`` A mixed report may omit the number. A :class:`Report` holds the
content of such a text. Its zones are the *positional pseudo-label* of the paper, a multi-hot vector over :data:`ZONES`
(Eq. 1). **"left" is the left half of the image**, that is, the patient's right lung.

There are two versions of the texts, with different styles:

======== ===================================== ============================================
style    three zones of one side are written   the count word counts
======== ===================================== ============================================
lvit     ``all left lung``                     connected lesions in the mask (it leaks them)
release  ``upper middle lower left lung``      zones named (Ledger 10)
======== ===================================== ============================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, get_args

from semimedref_core.config import Texts
from semimedref_core.errors import SemiMedRefError
from semimedref_core.positions import HEIGHTS, LUNGS, SIDES, Positions

ZONES = LUNGS.names
"""The six zones in the order of the paper's multi-hot vector; zone k is bit k of :attr:`Report.code`."""

NO_ZONES = (0,) * 6
STYLES = get_args(Texts)
COUNT_WORDS = (
    "zero one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
).split()
_PHRASE_WORDS = (*SIDES, *HEIGHTS, "all", "lung")
_PATTERN = re.compile(
    r"(?P<laterality>no|unilateral|bilateral) pulmonary infection"
    r"(?:, (?P<count>\w+) infected areas?)?(?:, (?P<phrases>.+))?"
)


class ReportError(SemiMedRefError, ValueError):
    """A text does not follow the grammar of reports. The message contains the text and what was expected."""


@dataclass(frozen=True)
class Report:
    """The content of one report.

    Attributes:
        zones: six 0/1 integers in the order of :data:`ZONES`, the vector a (Eq. 1).
        lesions: the number that the count word gives, 0 to 20; ``None`` if the text has no count word.
        laterality: ``no``, ``unilateral`` or ``bilateral`` as written. Some real reports say unilateral although they
            name both sides.
        style: how the report is written and what the count word counts (``lvit`` or ``release``). Ignored by ``==``.

    Raises:
        ReportError: if the parts contradict each other (zones without infection, a count out of range).

    >>> from semimedref_core import Report
    >>> report = Report.parse("Unilateral pulmonary infection, one infected area, lower left lung.")
    >>> report.zones, report.code
    ((0, 0, 1, 0, 0, 0), 4)
    >>> print(report.flip())
    unilateral pulmonary infection, one infected area, lower right lung.
    >>> print(report.merge(report.flip()))
    bilateral pulmonary infection, two infected areas, lower left lung and lower right lung.
    """

    zones: tuple[int, ...]
    lesions: int | None
    laterality: str
    style: str = field(default="lvit", compare=False)

    layout: ClassVar[Positions] = LUNGS
    located: ClassVar[bool] = True  # a report without zones says that there is no infection
    mirrors: ClassVar[bool] = True

    def __post_init__(self):
        if len(self.zones) != 6 or any(bit not in (0, 1) for bit in self.zones):
            raise ReportError(f"zones must be six 0/1 values, got {self.zones!r}")
        counted = self.lesions is not None
        if counted and not 0 <= self.lesions < len(COUNT_WORDS):
            raise ReportError(f"the lesion count must be 0 to {len(COUNT_WORDS) - 1}, got {self.lesions}")
        if self.style not in STYLES:
            raise ReportError(f"unknown report style {self.style!r}; choose one of {', '.join(STYLES)}")
        infected = self.laterality in ("unilateral", "bilateral")
        if not infected and self.laterality != "no":
            raise ReportError(f"laterality must be no, unilateral or bilateral, got {self.laterality!r}")
        if infected != any(self.zones) or (counted and infected != (self.lesions > 0)):
            raise ReportError(
                f"laterality {self.laterality!r}, count {self.lesions} and zones {self.zones} contradict each other"
            )

    @classmethod
    def of(cls, zones, lesions: int | None = None, style: str = "lvit") -> Report:
        """Makes the report of these zones, with a count and a laterality that agree with them.

        Args:
            zones: six 0/1 values.
            lesions: number of connected lesions (style ``lvit``; by default one for each side). Style ``release``
                counts zones.
        """
        zones = tuple(int(bit) for bit in zones)
        sides = any(zones[:3]) + any(zones[3:])
        if style == "release":
            lesions = sum(zones)
        elif lesions is None:
            lesions = sides
        return cls(zones, min(lesions, len(COUNT_WORDS) - 1), ("no", "unilateral", "bilateral")[sides], style)

    @classmethod
    def parse(cls, text: str, style: str | None = None) -> Report:
        """Reads one report, in any letter case and with the usual mistakes of real reports.

        It also accepts ``left lung`` and ``all lower left lung`` (all three zones), ``all lung and all right lung``
        (the missing side is the other side), misspelt heights (``lowerl left lung``), ``areas`` after ``one``, and
        repeated full stops.

        Args:
            text: the report.
            style: ``lvit`` or ``release``; by default the style of the text (``lvit`` if it fits both).

        Raises:
            ReportError: names the text and the part that was not understood.
        """
        normal = re.sub(r"\s+", " ", text).strip().rstrip(". ").lower()
        match = _PATTERN.fullmatch(normal)
        if not match:
            raise ReportError(
                f"cannot read the report {text!r}: expected '<Uni|Bi>lateral pulmonary infection, <count> infected "
                "areas, <positions>.' or 'No pulmonary infection, zero infected areas.'"
            )
        if match["count"] not in (*COUNT_WORDS, None):
            raise ReportError(f"cannot read the report {text!r}: {match['count']!r} is no count word (zero to twenty)")
        zones, spelt_out = _parse_phrases(match["phrases"], text)
        try:
            return cls(
                zones,
                COUNT_WORDS.index(match["count"]) if match["count"] else None,
                match["laterality"],
                style or ("release" if spelt_out else "lvit"),
            )
        except ReportError as error:
            raise ReportError(f"cannot read the report {text!r}: {error}") from None

    @property
    def code(self) -> int:
        """The zones as one integer, 0 to 63; zone k is bit k."""
        return sum(bit << k for k, bit in enumerate(self.zones))

    @property
    def phrases(self) -> tuple[str, ...]:
        """The position phrases, left before right: none, one or two strings such as ``middle lower right lung``."""
        return tuple(self._phrase(side, self.side(side)) for side in self.sides)

    @property
    def phrase_sides(self) -> tuple[str, ...]:
        """The side of each phrase; a side has at most one phrase."""
        return self.sides

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides with at least one zone, left before right."""
        return tuple(side for side in SIDES if any(self.side(side)))

    def side(self, side: str) -> tuple[int, ...]:
        """The three zones of one side, upper to lower."""
        start = 3 * SIDES.index(side)
        return self.zones[start : start + 3]

    def _phrase(self, side: str, heights) -> str:
        if all(heights) and self.style == "lvit":
            return f"all {side} lung"
        return " ".join([*(name for name, bit in zip(HEIGHTS, heights, strict=True) if bit), side, "lung"])

    def render(self, phrases: tuple[str, ...] | None = None) -> str:
        """The canonical text of the report, in lower case; ``phrases`` replaces the position phrases (see PosAug)."""
        text = f"{self.laterality} pulmonary infection"
        if self.lesions is not None:
            text += f", {COUNT_WORDS[self.lesions]} infected area{'' if self.lesions == 1 else 's'}"
        positions = " and ".join(self.phrases if phrases is None else phrases)
        return f"{text}, {positions}." if positions else f"{text}."

    __str__ = render

    def flip(self) -> Report:
        """The report of the left-right mirrored image: the two sides are swapped."""
        return replace(self, zones=self.zones[3:] + self.zones[:3])

    def merge(self, other: Report) -> Report:
        """The report of a picture with the lesions of both reports.

        It unites the zones, adds the numbers of lesions (style ``release``: counts the zones), and takes the laterality
        from the zones. The style is the style of this report. If one of the two has no number, the result has none.

        The sum is right only if no lesion of one report touches or hides a lesion of the other.
        """
        zones = tuple(a | b for a, b in zip(self.zones, other.zones, strict=True))
        if self.lesions is None or other.lesions is None:
            return Report.of(zones, style=self.style).without_count()
        return Report.of(zones, self.lesions + other.lesions, self.style)

    def naming(self, zones: Sequence[int]) -> Report:
        """The report of one lesion in these zones, in the style of this report."""
        return Report.of(zones, 1, self.style)

    def counting_zones(self) -> Report:
        """This report with the number of its zones as the number of lesions."""
        return replace(self, lesions=sum(self.zones))

    def without_count(self) -> Report:
        """This report without the number of lesions."""
        return replace(self, lesions=None)


def _parse_phrases(phrases: str | None, text: str) -> tuple[tuple[int, ...], bool]:
    """Zones of ``a left lung and b right lung`` (Eq. 1), and whether all three zones of a side are written out."""
    zones = list(NO_ZONES)
    spelt_out = False
    parsed = [_parse_phrase(phrase, text) for phrase in phrases.split(" and ")] if phrases else []
    named = {side for side, _ in parsed if side}
    for side, heights in parsed:
        if side is None:
            if len(parsed) != 2 or len(named) != 1:
                raise ReportError(
                    f"cannot read the report {text!r}: a phrase names neither the left nor the right lung"
                )
            side = next(other for other in SIDES if other not in named)
        chosen = HEIGHTS if "all" in heights or not heights else heights
        spelt_out |= set(heights) == set(HEIGHTS)
        for height in chosen:
            zones[3 * SIDES.index(side) + HEIGHTS.index(height)] = 1
    return tuple(zones), spelt_out


def _parse_phrase(phrase: str, text: str) -> tuple[str | None, list[str]]:
    """Side (None if missing) and height words of one position phrase."""
    words = []
    for word in phrase.split():
        meant = word if word in _PHRASE_WORDS else next((height for height in HEIGHTS if _slip(word, height)), None)
        if meant is None:
            raise ReportError(f"cannot read the report {text!r}: {word!r} is no position word in {phrase!r}")
        words.append(meant)
    sides = [word for word in words if word in SIDES]
    if len(sides) > 1 or words[-1] != "lung":
        raise ReportError(f"cannot read the report {text!r}: {phrase!r} is no position such as 'lower left lung'")
    return (sides[0] if sides else None), [word for word in words if word not in SIDES and word != "lung"]


def _slip(word: str, meant: str) -> bool:
    """Whether ``word`` is a misspelling of ``meant``: one letter added, missing, or two letters swapped. The first
    letter must be right.

    Only height words are corrected. For a side, one letter could change the meaning, and we never guess a side.
    """
    if word[0] != meant[0]:
        return False
    without = {meant[:i] + meant[i + 1 :] for i in range(len(meant))}
    swapped = {meant[:i] + meant[i + 1] + meant[i] + meant[i + 2 :] for i in range(len(meant) - 1)}
    return word in without | swapped or meant in {word[:i] + word[i + 1 :] for i in range(len(word))}
