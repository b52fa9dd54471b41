"""Reports in free text: one or more sentences without a fixed grammar.

A :class:`FreeReport` provides what training needs (:class:`.positions.AnyReport`), like :class:`.reports.Report` for
the texts of QaTa-COV19 and MosMedData+:

======== =============================================================================================================
render   the unchanged text
zones    from a table, or from the reader (:mod:`.reading`), which names none if it is not sure
flip     swaps the words of mirrored zones, and "left" with "right" anywhere in the text
PosAug   hides the phrases that the reader found, or makes them vague
mixing   appends a short sentence that names the zone of the pasted lesion
======== =============================================================================================================

If a text has a word for a side that we do not understand, we cannot write the text of its mirror image. Then its
picture is never mirrored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from semimedref_core.places import Phrase
from semimedref_core.positions import Positions
from semimedref_core.reading import read_positions

_SIDE = re.compile(r"(?<![^\W_])(left|right)(?![^\W_])", re.IGNORECASE)
_SHORT = re.compile(r"\b([lr])(?=[uml][lzq]\b)", re.IGNORECASE)
_NOT_UNDERSTOOD = re.compile(
    r"\b(?:l|r|lt|rt|lhs|rhs|[lr][uml][lzq]|left\w+|right\w+|dext\w*|sinist\w*|clock|o.?clock"
    r"|right (?:above|at|away|behind|below|beside|in|next|now|over|under)|all right"
    r"|left (?:alone|behind|out|over|unchanged)|(?:be|been|is|are|was|were) left(?=\W*$|\s+(?:of|to))"
    r"|gauche|droite?|links|rechts|linke\w*|rechte\w*|izquierd\w*|derech\w*|esquerd\w*|direit\w*|destr[ao])\b|左|右",
    re.IGNORECASE,
)
"""Words that we do not swap: they mean a side in a way that we do not understand, or no side at all."""
_GONE = "\0"  # where a phrase stood
_WHERE = re.compile(rf"(?:\b(?:in|of|at|on|within|near|over|to) )?(?:\bthe )?{_GONE}", re.IGNORECASE)
_ARTICLE = re.compile(r"\b(?:the|an?) $", re.IGNORECASE)  # goes if a replacement has its own article
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


@dataclass(frozen=True)
class FreeReport:
    """A free text and the zones of a layout that it names. :meth:`of` makes it.

    Attributes:
        text: the unchanged text.
        zones: 0 or 1 for each zone of the layout.
        found: the phrases of the text that name zones.
        mirrors: whether :meth:`flip` gives a true text.
        layout: the layout of the zones.

    >>> from semimedref_core import FreeReport
    >>> from semimedref_core.positions import LUNGS
    >>> report = FreeReport.of("Patchy opacity in the right lower lobe.", LUNGS)
    >>> report.zones, report.phrases
    ((0, 0, 0, 0, 0, 1), ('right lower lobe',))
    >>> print(report.flip())
    Patchy opacity in the left lower lobe.
    >>> print(report.merge(report.naming([1, 0, 0, 0, 0, 0])))
    Patchy opacity in the right lower lobe. Also upper left lung.
    """

    text: str
    zones: tuple[int, ...]
    found: tuple[Phrase, ...] = ()
    mirrors: bool = True
    layout: Positions = field(kw_only=True, compare=False, repr=False)

    @classmethod
    def of(cls, text: str, layout: Positions, zones: Sequence[int] | None = None) -> FreeReport:
        """The report of a text.

        Args:
            text: any.
            layout: the zones that it may name.
            zones: 0 or 1 for each zone, if they are known; by default the zones that the reader finds.
        """
        found = read_positions(text, layout)
        named = frozenset().union(*(phrase.zones for phrase in found))
        bits = tuple(int(k in named) for k in range(len(layout))) if zones is None else tuple(int(bit) for bit in zones)
        report = cls(text, bits, found, layout=layout)
        return report if report._has_mirror_image() else replace(report, mirrors=False)

    @property
    def code(self) -> int:
        """The zones as one integer; zone k is bit k."""
        return sum(bit << k for k, bit in enumerate(self.zones))

    @property
    def located(self) -> bool:
        """Whether the text says where the lesions are."""
        return any(self.zones)

    @property
    def sides(self) -> tuple[str, ...]:
        """The halves of the image in which named zones lie."""
        return self.layout.sides_of(self.zones)

    @property
    def phrases(self) -> tuple[str, ...]:
        """The phrases that name zones, with the words of the text."""
        return tuple(self.text[phrase.start : phrase.end] for phrase in self.found)

    @property
    def phrase_sides(self) -> tuple[str, ...]:
        """The side of each phrase; left if a phrase names both sides."""
        return tuple(self.layout.sides_of(self._bits(phrase.zones))[0] for phrase in self.found)

    @property
    def style(self) -> str:
        """What the text does not say: the zones, if they come from a table."""
        return f"free, zones {self.code}"

    def render(self, phrases: tuple[str, ...] | None = None) -> str:
        """The text; ``phrases`` replaces the phrases that were found, and ``()`` removes them."""
        if phrases is None:
            return self.text
        if phrases:
            return self._with_phrases(phrases)
        return re.sub(r"\s+(?=[\s.,;:!?]|$)", "", _WHERE.sub("", self._with_phrases([_GONE] * len(self.found))))

    __str__ = render

    def flip(self) -> FreeReport:
        """The report of the left-right mirrored image; this report if the mirror image has no true text."""
        if not self.mirrors:
            return self
        text, found = _flipped(self.text, self.found, self.layout)
        return replace(self, text=text, found=found, zones=tuple(self.zones[k] for k in self.layout.swapped))

    def merge(self, other: FreeReport) -> FreeReport:
        """The report of a picture with the lesions of both reports: both texts, or this text alone if the other adds no
        zone."""
        zones = tuple(a | b for a, b in zip(self.zones, other.zones, strict=True))
        if zones == self.zones:
            return self
        start = self.text.rstrip() + (" " if self.text.rstrip().endswith((".", "!", "?")) else ". ")
        moved = [Phrase(one.start + len(start), one.end + len(start), one.zones) for one in other.found]
        mirrors = self.mirrors and other.mirrors
        return replace(self, text=start + other.text, zones=zones, found=(*self.found, *moved), mirrors=mirrors)

    def naming(self, zones: Sequence[int]) -> FreeReport:
        """A short sentence about a lesion in each of these zones, in the layout's words."""
        text, found = "Also ", []
        for k in [k for k, bit in enumerate(zones) if bit]:
            text += " and " if found else ""
            words = self.layout.words[k][0]
            found.append(Phrase(len(text), len(text) + len(words), frozenset({k})))
            text += words
        return replace(self, text=f"{text}.", zones=tuple(int(bit) for bit in zones), found=tuple(found))

    def counting_zones(self) -> FreeReport:
        """This report: a number in a free text is left unchanged."""
        return self

    without_count = counting_zones

    def _bits(self, zones: frozenset[int]) -> list[int]:
        return [int(k in zones) for k in range(len(self.layout))]

    def _with_phrases(self, phrases: Sequence[str]) -> str:
        pieces, at = [], 0
        for phrase, words in zip(self.found, phrases, strict=True):
            before = self.text[at : phrase.start]
            pieces += [_ARTICLE.sub("", before) if words.startswith(("a ", "an ")) else before, words]
            at = phrase.end
        return "".join([*pieces, self.text[at:]])

    def _has_mirror_image(self) -> bool:
        if self.located and self.layout.mirror is None:
            return False
        outside = self._with_phrases(["."] * len(self.found))
        if _NOT_UNDERSTOOD.search(outside) or _unswapped(self.layout).search(outside.lower()):
            return False
        text, found = _flipped(self.text, self.found, self.layout)
        return [phrase.zones for phrase in read_positions(text, self.layout)] == [phrase.zones for phrase in found]


@lru_cache(maxsize=2**16)
def _flipped(text: str, found: tuple[Phrase, ...], layout: Positions) -> tuple[str, tuple[Phrase, ...]]:
    """The text of the mirror image, and its phrases."""
    told, at, phrases = "", 0, []
    for phrase in found:
        told += _swap(text[at : phrase.start])
        zones = frozenset(layout.swapped[k] for k in phrase.zones)
        words = _mirrored(text[phrase.start : phrase.end], phrase.zones, layout)
        phrases.append(Phrase(len(told), len(told) + len(words), zones))
        told += words
        at = phrase.end
    return told + _swap(text[at:]), tuple(phrases)


def _mirrored(words: str, zones: frozenset[int], layout: Positions) -> str:
    """A phrase for the mirrored zones: if possible, the same words with the sides swapped."""
    wanted = [layout.swapped[k] for k in sorted(zones)]
    swapped = _SHORT.sub(_opposite, _swap(words))
    if frozenset().union(*(phrase.zones for phrase in read_positions(swapped, layout))) == frozenset(wanted):
        return swapped
    same = next((known.index(words.lower()) for known in layout.words if words.lower() in known), 0)
    return " and ".join(layout.words[k][min(same, len(layout.words[k]) - 1)] for k in wanted)


def _swap(text: str) -> str:
    """The text with "left" and "right" swapped."""
    return _SIDE.sub(_opposite, text)


def _opposite(found: re.Match) -> str:
    """The word of the other side, in the letter case of the word that was found."""
    word, other = found[1], _OTHER[found[1].lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other


@lru_cache(maxsize=16)
def _unswapped(layout: Positions) -> re.Pattern:
    """The words of a layout that do not name the mirrored zones after "left" and "right" are swapped."""
    meant = {
        words: {k for k, known in enumerate(layout.words) if words in known} for each in layout.words for words in each
    }
    wrong = [
        words
        for words, zones in meant.items()
        if layout.mirror is None or meant.get(_swap(words)) != {layout.mirror[k] for k in zones}
    ]
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, wrong))})(?!\w)" if wrong else r"(?!)")
