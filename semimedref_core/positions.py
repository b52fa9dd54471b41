"""Layouts of positions: the zones of a picture, their places, and the words that name them.

The paper has six zones of the lungs (Eq. 1). The method needs three facts: which zones a report names, where they lie
in the picture, and which zone each becomes in the mirror image. A layout (:class:`Positions`) gives the last two for
any organ, and an :class:`AnyReport` gives the first. The rest of the method does not depend on the organ.

=========== ================================================================================= =================
layout      zones                                                                             for
=========== ================================================================================= =================
lung        upper, middle and lower left and right; the bands are those of a zone grid        chest pictures
quadrants   upper and lower left and right                                                    any picture
sides       left, centre, right                                                               any picture
none        no text names a zone                                                              texts without places
=========== ================================================================================= =================

"left" is the left half of the image, unless :meth:`Positions.of_the_patient` swaps the words.
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
"""The largest number of zones of a layout: ITCL's codes have six bits
(:func:`semimedref_kernels.soft_contrastive_loss`)."""


@dataclass(frozen=True, eq=False)
class Grammar:
    """Words that name zones together: one for a side and one for a height, in any order, as in "left lower lobe".

    A side and a row name the zone ``side * len(rows) + row``.

    Attributes:
        rows: words of each row, from top to bottom; plurals are recognised too.
        alone: words for a height (without the plural s) that exclude another height beside them. An example is "base":
            "the base of the upper lobe" is neither lower nor upper.
        whole: nouns that make a side name all of its zones, as in "left lung".
        nouns: other nouns for a place, as in "left lower lobe".
        short: abbreviation -> the side and the row that it means.
        sides: the side of the image that "left" and "right" each mean.
        closed: whether the reader knows the words of such texts. Then it reads a place only in a sentence of known
            words.
    """

    rows: tuple[tuple[str, ...], ...]
    alone: frozenset[str]
    whole: frozenset[str]
    nouns: frozenset[str]
    short: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    sides: tuple[str, str] = SIDES
    closed: bool = False


@dataclass(frozen=True, eq=False)
class Positions:
    """The zones of a picture.

    Attributes:
        names: readable names of the zones.
        shares: the box of each zone, as shares of the picture: top, left, bottom, right.
        words: the words that name each zone; new texts use the first ones. Words that belong to several zones name all
            of them.
        vague: the vague phrase of PosAug.
        grammar: a second way in which words name zones; see :class:`Grammar`.
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
        """For each zone, the zone that it becomes in the mirror image. None if the mirror image of a zone is not a
        zone."""
        found = []
        for top, left, bottom, right in self.shares:
            image = np.array([top, 1 - right, bottom, 1 - left])
            found.append([k for k, box in enumerate(self.shares) if np.allclose(image, box, atol=1e-3)])
        sure = all(len(same) == 1 for same in found)
        return tuple(same[0] for same in found) if sure else None

    @property
    def numbers(self) -> list[float]:
        """The shares as plain numbers, zone after zone, for a record."""
        return [float(value) for share in self.shares for value in share]

    @property
    def swapped(self) -> tuple[int, ...]:
        """:attr:`mirror`; without one, each zone itself. Then pictures with a named zone are never mirrored."""
        return self.mirror or tuple(range(len(self)))

    @property
    def built_in(self) -> bool:
        """Whether this is one of :data:`LAYOUTS`, also from the patient's view. Otherwise a user's table gave it."""
        known = [seen for each in LAYOUTS.values() for seen in (each, each.of_the_patient())]
        return any((self.names, self.shares, self.words) == (each.names, each.shares, each.words) for each in known)

    def named(self, zones: Sequence[int]) -> list[str]:
        """The names of the zones that are 1."""
        return [name for name, bit in zip(self.names, zones, strict=True) if bit]

    def sides_of(self, zones: Sequence[int]) -> tuple[str, ...]:
        """The halves of the image that hold named zones, left before right. A zone across the middle lies in both."""
        named = [share for share, bit in zip(self.shares, zones, strict=True) if bit]
        lies = any(left < 0.5 for _, left, _, _ in named), any(right > 0.5 for _, _, _, right in named)
        return tuple(side for side, there in zip(SIDES, lies, strict=True) if there)

    def boxes(self, height: int, width: int) -> np.ndarray:
        """The boxes of the zones in pixels, ``[n, 4]`` int64 of (y0, x0, y1, x1), ends exclusive."""
        return np.rint(np.array(self.shares) * [height, width, height, width]).astype(np.int64)

    def region(self, zones: Sequence[int], height: int, width: int, margin: float = 0.12) -> np.ndarray:
        """The region where a lesion may lie if a report names these zones: ``[H, W]`` uint8, 1 inside. It is the boxes
        of the named zones, enlarged at each edge by ``margin`` of the picture's side."""
        allowed = np.zeros((height, width), np.uint8)
        above, over = round(margin * height), round(margin * width)
        for (y0, x0, y1, x1), named in zip(self.boxes(height, width), zones, strict=True):
            if named:
                allowed[max(0, y0 - above) : y1 + above, max(0, x0 - over) : x1 + over] = 1
        return allowed

    def of_the_patient(self) -> Positions:
        """The same zones, named from the patient's view: the left half of the image is called right.

        Raises:
            ValueError: if the layout has no mirror image.
        """
        if self.mirror is None:
            raise ValueError("a layout without a mirror image has no sides to swap")
        grammar = self.grammar and replace(self.grammar, sides=self.grammar.sides[::-1])
        return replace(self, words=tuple(self.words[k] for k in self.mirror), grammar=grammar)


class AnyReport(Protocol):
    """The interface of all reports, with or without a fixed grammar: what training needs of them.

    Attributes:
        layout: the layout of its zones.
        zones: 0 or 1 for each zone, the vector a of the paper.
        code: the zones as one integer; zone k is bit k.
        sides: the halves of the image that hold its zones.
        located: whether the text says where the lesions are. If not, the zones are unknown and nothing is mixed.
        mirrors: whether :meth:`flip` gives a true text of the mirror image.
        phrases: the position phrases; PosAug replaces them.
        phrase_sides: the side of each phrase; PosAug draws by side.
        style: what distinguishes the report from another one with the same text.
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
        """The text; ``phrases`` replaces its own phrases, and ``()`` removes them."""

    def flip(self) -> AnyReport:
        """The report of the mirror image."""

    def merge(self, other: AnyReport) -> AnyReport:
        """The report of a picture with the lesions of both reports."""

    def naming(self, zones: Sequence[int]) -> AnyReport:
        """A report of one lesion in each of these zones, in the style of this report."""

    def counting_zones(self) -> AnyReport:
        """This report; if its grammar gives a number of lesions, it is now the number of zones."""

    def without_count(self) -> AnyReport:
        """This report without its number of lesions, if its grammar gives one."""


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
            ("upper", "apical", "apex", "apice", "biapical", "superior"),
            ("middle", "mid", "midzone", "midlung"),
            ("lower", "basal", "bibasal", "base", "basilar", "bibasilar", "inferior"),
        ),
        alone=frozenset(
            "apical apex apice biapical basal bibasal base basilar bibasilar superior inferior".split(),
        ),
        whole=frozenset({"lung", "lungs", "hemithorax"}),
        nouns=frozenset("lobe lobes zone zones field fields region regions part portion third half".split()),
        short={
            f"{side[0]}{row[0]}l": (side, k) for side in SIDES for k, row in enumerate(("upper", "middle", "lower"))
        },
        closed=True,
    ),
)
"""The six zones of the paper. A :class:`.anatomy.Grid` says where its bands begin and end; the shares here are
thirds."""
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
"""One zone that no text ever names, for texts without places."""
LAYOUTS = {"lung": LUNGS, "quadrants": QUADRANTS, "sides": LEFT_TO_RIGHT, "none": NOWHERE}
"""The built-in layouts: value of the setting ``positions`` -> layout."""
