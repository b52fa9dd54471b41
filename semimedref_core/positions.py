"""Layouts of positions: which zones a picture has, where they lie, and the words that name them.

The paper's zones are six of the lungs (Eq. 1), and its parts need little of them: which zones a report names, where in
the picture they lie, and which zone each becomes in the mirror image. A layout (:class:`Positions`) says this for any
organ, and an :class:`AnyReport` which of its zones are named. The rest of the method does not ask which organ it is.

=========== ================================================================================= =================
layout      zones                                                                             for
=========== ================================================================================= =================
lung        upper, middle and lower left and right; the bands are those of a zone grid        chest pictures
quadrants   upper and lower left and right                                                    any picture
sides       left, centre, right                                                               any picture
none        no text names a zone                                                              texts without places
=========== ================================================================================= =================

"left" is the left half of the image, unless :meth:`Positions.of_the_patient` turns the words round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np

SIDES = ("left", "right")
HEIGHTS = ("upper", "middle", "lower")
MOST_ZONES = 6
"""Zones that a layout may have: ITCL's codes have six bits (:func:`semimedref_kernels.soft_contrastive_loss`)."""


@dataclass(frozen=True, eq=False)
class Grammar:
    """Words that name zones together: one of a side and one of a height, in any order, as in "left lower lobe".

    Zone ``side * len(rows) + row`` is the one of a side and a row.

    Attributes:
        rows: words of each row, from top to bottom; their plurals are known too.
        alone: words of a height (without the s of a plural) that never stand beside another height, such as "base":
            "the base of the upper lobe" is neither lower nor upper.
        whole: nouns with which a side alone names all of its zones, as in "left lung".
        nouns: other nouns of a place, as in "left lower lobe".
        short: abbreviations, with the side and the row that they mean.
        sides: what "left" and "right" mean, as sides of the image.
    """

    rows: tuple[tuple[str, ...], ...]
    alone: frozenset[str]
    whole: frozenset[str]
    nouns: frozenset[str]
    short: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    sides: tuple[str, str] = SIDES


@dataclass(frozen=True, eq=False)
class Positions:
    """The zones of a picture.

    Attributes:
        names: of the zones, for people.
        shares: where each lies, as shares of the picture: top, left, bottom, right.
        words: the words that name each; the first are those that are written. Words of several zones name them all.
        vague: what PosAug writes in the place of a phrase.
        grammar: how else words name zones together.
    """

    names: tuple[str, ...]
    shares: tuple[tuple[float, float, float, float], ...]
    words: tuple[tuple[str, ...], ...]
    vague: str = "a region of the image"
    grammar: Grammar | None = None

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def mirror(self) -> tuple[int, ...] | None:
        """Which zone each becomes in the mirror image; None where a zone's mirror image is no zone."""
        found = []
        for top, left, bottom, right in self.shares:
            image = np.array([top, 1 - right, bottom, 1 - left])
            found.append([k for k, box in enumerate(self.shares) if np.allclose(image, box, atol=1e-3)])
        sure = all(len(same) == 1 for same in found)
        return tuple(same[0] for same in found) if sure else None

    @property
    def numbers(self) -> list[float]:
        """Where the zones lie, as plain numbers for a record: the shares, one zone after the other."""
        return [float(value) for share in self.shares for value in share]

    @property
    def swapped(self) -> tuple[int, ...]:
        """:attr:`mirror`, or each zone itself where there is none: then no picture with a named zone is mirrored."""
        return self.mirror or tuple(range(len(self)))

    def named(self, zones: Sequence[int]) -> list[str]:
        """The names of the zones that are 1."""
        return [name for name, bit in zip(self.names, zones, strict=True) if bit]

    def sides_of(self, zones: Sequence[int]) -> tuple[str, ...]:
        """The halves of the image in which named zones lie, left before right; a zone over the middle lies in both."""
        named = [share for share, bit in zip(self.shares, zones, strict=True) if bit]
        lies = any(left < 0.5 for _, left, _, _ in named), any(right > 0.5 for _, _, _, right in named)
        return tuple(side for side, there in zip(SIDES, lies, strict=True) if there)

    def boxes(self, height: int, width: int) -> np.ndarray:
        """The boxes of the zones in pixels, ``[n, 4]`` int64 of (y0, x0, y1, x1), ends exclusive."""
        return np.rint(np.array(self.shares) * [height, width, height, width]).astype(np.int64)

    def region(self, zones: Sequence[int], height: int, width: int, margin: float = 0.12) -> np.ndarray:
        """Where a report that names these zones lets a lesion be, ``[H, W]`` uint8, 1 there: the boxes of the named
        zones, wider by ``margin`` of the picture's side at each edge."""
        allowed = np.zeros((height, width), np.uint8)
        above, over = round(margin * height), round(margin * width)
        for (y0, x0, y1, x1), named in zip(self.boxes(height, width), zones, strict=True):
            if named:
                allowed[max(0, y0 - above) : y1 + above, max(0, x0 - over) : x1 + over] = 1
        return allowed

    def of_the_patient(self) -> Positions:
        """The same zones, named as the patient sees them: what is left in the image is called right.

        Raises:
            ValueError: if the layout has no mirror image.
        """
        if self.mirror is None:
            raise ValueError("a layout without a mirror image has no sides to swap")
        grammar = self.grammar and replace(self.grammar, sides=self.grammar.sides[::-1])
        return replace(self, words=tuple(self.words[k] for k in self.mirror), grammar=grammar)


class AnyReport(Protocol):
    """What training asks of a report, of whatever grammar or of none.

    Attributes:
        layout: whose zones it names.
        zones: 0 or 1 for each of them, the vector a of the paper.
        code: the zones as one integer; zone k is bit k.
        sides: the halves of the image in which they lie.
        located: whether the text says where; if it does not, nothing is known of the zones, and nothing is mixed.
        mirrors: whether :meth:`flip` gives a true text of the mirror image.
        phrases: the position phrases; PosAug replaces them.
        phrase_sides: the side of each phrase, by which PosAug draws.
        style: what else tells the report from one with the same text.
    """

    layout: Positions
    zones: tuple[int, ...]
    code: int
    sides: tuple[str, ...]
    located: bool
    mirrors: bool
    phrases: tuple[str, ...]
    phrase_sides: tuple[str, ...]
    style: str

    def render(self, phrases: tuple[str, ...] | None = None) -> str:
        """The text, with other phrases in the place of its own, or with none (``()``)."""

    def flip(self) -> AnyReport:
        """The report of the mirror image."""

    def merge(self, other: AnyReport) -> AnyReport:
        """The report of a picture that shows what both describe."""

    def naming(self, zones: Sequence[int]) -> AnyReport:
        """A report of one lesion in each of these zones, in the manner of this one."""

    def counting_zones(self) -> AnyReport:
        """This report; if it can give a number of lesions, that of the zones."""

    def without_count(self) -> AnyReport:
        """This report; if it can give a number of lesions, without it."""


def _thirds(side: str) -> list[tuple[float, float, float, float]]:
    left = 0.0 if side == "left" else 0.5
    return [(row / 3, left, (row + 1) / 3, left + 0.5) for row in range(3)]


LUNGS = Positions(
    names=tuple(f"{side} {height}" for side in SIDES for height in HEIGHTS),
    shares=tuple(share for side in SIDES for share in _thirds(side)),
    words=tuple((f"{height} {side} lung",) for side in SIDES for height in HEIGHTS),
    vague="a region of the lung",
    grammar=Grammar(
        rows=(
            ("upper", "apical", "apex", "apice", "superior"),
            ("middle", "mid", "midzone", "midlung"),
            ("lower", "basal", "base", "basilar", "inferior"),
        ),
        alone=frozenset({"apical", "apex", "apice", "basal", "base", "basilar", "superior", "inferior"}),
        whole=frozenset({"lung", "lungs", "hemithorax"}),
        nouns=frozenset("lobe lobes zone zones field fields region regions part portion third half".split()),
        short={
            f"{side[0]}{row[0]}l": (side, k) for side in SIDES for k, row in enumerate(("upper", "middle", "lower"))
        },
    ),
)
"""The six zones of the paper. Where its bands begin and end is a matter of a :class:`.anatomy.Grid`; the shares here
are thirds."""
QUADRANTS = Positions(
    names=tuple(f"{side} {height}" for side in SIDES for height in ("upper", "lower")),
    shares=((0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1)),
    words=tuple((f"{height} {side}",) for side in SIDES for height in ("upper", "lower")),
    grammar=Grammar(
        rows=(("upper", "top", "superior"), ("lower", "bottom", "inferior")),
        alone=frozenset(),
        whole=frozenset({"half", "side"}),
        nouns=frozenset("quadrant quadrants corner corners region regions part parts portion area".split()),
    ),
)
LEFT_TO_RIGHT = Positions(
    names=("left", "centre", "right"),
    shares=((0, 0, 1, 1 / 3), (0, 1 / 3, 1, 2 / 3), (0, 2 / 3, 1, 1)),
    words=(
        ("left", "both sides", "bilateral", "bilaterally"),
        ("centre", "center", "central", "centrally", "middle", "midline"),
        ("right", "both sides", "bilateral", "bilaterally"),
    ),
)
NOWHERE = Positions(names=("anywhere",), shares=((0, 0, 1, 1),), words=((),))
"""One zone that no text names: what is asked for zones finds none named."""
LAYOUTS = {"lung": LUNGS, "quadrants": QUADRANTS, "sides": LEFT_TO_RIGHT, "none": NOWHERE}
"""The built-in layouts, by the names of the setting ``positions``."""
