"""Finds the places in a sentence, whatever the sentence says about them.

Words of one place may come in any order, and places may share words: "upper and middle zones of the left lung". If
they can be shared in two ways ("lower left and right lung"), the reader is not sure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product, takewhile

from semimedref_core.positions import SIDES, Grammar, Positions

_BESIDE = frozenset("below above beneath under underneath behind between beside adjacent towards toward".split())
"""Words before a place that change its meaning to another place."""
_JOINS = frozenset({"and", ",", "&", "+", "/", "plus"})
_LINKS = frozenset({"the", "of", "in", "on", "at", "-", "within", "both"})
_BOTH = frozenset("both bilateral bilaterally bibasal bibasilar biapical".split())
_ALL = frozenset({"all", "entire", "whole"})
_BODY = frozenset(
    "arm arms leg legs limb limbs extremity extremities rib ribs abdomen abdominal lid lids eyelid eyelids tooth teeth "
    "hand foot knee shoulder quadrant quadrants".split()
)
"""Nouns that put a side and a height elsewhere on the body, as in "left upper arm". A layout may use some of them."""


@dataclass(frozen=True)
class Phrase:
    """A part of a text that names these zones: from ``start`` up to ``end``, exclusive."""

    start: int
    end: int
    zones: frozenset[int]


@dataclass(frozen=True)
class Token:
    """A word or a sign, from ``start`` up to ``end``, exclusive."""

    text: str
    start: int
    end: int


class NotSureError(Exception):
    """The text can be understood in two ways."""


def places_in(part: str, tokens: Sequence[Token], layout: Positions) -> list[list[Phrase]]:
    """The places that a part of a text names. Places with shared or joined words form one group.

    Raises:
        NotSureError: if the words can be understood in two ways.
    """
    return list(_by_grammar(tokens, layout.grammar) if layout.grammar else _by_list(part, tokens, layout))


def _by_list(part: str, tokens: Sequence[Token], layout: Positions) -> Iterator[list[Phrase]]:
    """Each place in the text with words for zones; longer words come first."""
    meant, pattern = _phrases_of(layout)
    for found in pattern.finditer(part):
        before = [token.text for token in tokens if token.end <= found.start()]
        after = [token.text for token in tokens if token.start >= found.end()]
        _require_plain(before)
        if not after or after[0] not in _BODY:
            yield [Phrase(found.start(), found.end(), meant[found[0]])]


@lru_cache(maxsize=8)
def _phrases_of(layout: Positions) -> tuple[dict[str, frozenset[int]], re.Pattern]:
    """A table from words of a layout to the zones that they name, and a pattern that finds these words."""
    words = {each for known in layout.words for each in known}
    meant = {each: frozenset(k for k, known in enumerate(layout.words) if each in known) for each in words}
    any_of = "|".join(re.escape(each) for each in sorted(words, key=lambda each: (-len(each), each)))
    return meant, re.compile(rf"(?<!\w)(?:{any_of})(?!\w)" if words else r"(?!)")


def _require_plain(before: Sequence[str]) -> None:
    """Refuses a place that is only a landmark, because of the words before it."""
    close = [word for word in before if word not in ("the", "of", "to")][-1:]
    if _BESIDE & set(close):
        raise NotSureError


@dataclass
class _Item:
    """The words of one place in a run, between two joining words."""

    sides: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    both: bool = False
    alone: bool = False
    whole: bool = False
    all: bool = False
    noun: bool = False
    start: int = -1
    end: int = -1


def _by_grammar(tokens: Sequence[Token], grammar: Grammar) -> Iterator[list[Phrase]]:
    """The places of each run of words of the grammar."""
    at, stray_height, whole_side = 0, False, False
    while at < len(tokens):
        stop = at
        while stop < len(tokens) and tokens[stop].text in _known(grammar):
            stop += 1
        if stop > at:
            following = tokens[stop].text if stop < len(tokens) else ""
            items = _items(tokens[at:stop], grammar)
            found = _places(items, grammar)
            if found and following not in _BODY:
                _require_plain([token.text for token in tokens[:at]])
                whole_side |= any(not item.rows for item in items)
                yield found
            stray_height |= not found and any(item.rows for item in items)
        at = stop + 1
    if stray_height and whole_side:
        raise NotSureError  # "the right lung (lower)": not all of it


@lru_cache(maxsize=8)
def _rows(grammar: Grammar) -> dict[str, int]:
    """Words for heights and their plurals -> the row that each names."""
    rows = {word: k for k, words in enumerate(grammar.rows) for word in words}
    return {f"{word}s": k for word, k in rows.items()} | rows


@lru_cache(maxsize=8)
def _known(grammar: Grammar) -> frozenset[str]:
    """All words that may be part of a place."""
    words = {*SIDES, *_BOTH, *_ALL, *_JOINS, *_LINKS, *_rows(grammar)}
    return frozenset(words | grammar.whole | grammar.nouns | grammar.short.keys())


def _items(tokens: Sequence[Token], grammar: Grammar) -> list[_Item]:
    """Splits the run at its joining words. Items without a word for a place are left out."""
    items = [_Item()]
    for token in tokens:
        item, word = items[-1], token.text
        row = _rows(grammar).get(word)
        if word in _JOINS:
            items.append(_Item())
            continue
        if word in _LINKS - _BOTH:
            continue
        if word in grammar.short:
            side, short_row = grammar.short[word]
            item.sides.append(grammar.sides.index(side))
            item.rows.append(short_row)
        item.sides += [grammar.sides.index(word)] if word in SIDES else []
        item.both |= word in _BOTH
        item.rows += [] if row is None else [row]
        item.alone |= word.removesuffix("s") in grammar.alone
        item.whole |= word in grammar.whole
        item.all |= word in _ALL
        item.noun |= word in grammar.nouns | grammar.whole
        item.start, item.end = token.start if item.start < 0 else item.start, token.end
    return [item for item in items if item.start >= 0]


def _places(items: list[_Item], grammar: Grammar) -> list[Phrase]:
    """The phrases that the items of a run form.

    Raises:
        NotSureError: if the items can be understood in two ways.
    """
    for item in items:
        if item.both:
            if len({*item.sides}) == 1:
                raise NotSureError
            item.sides = [0, 1]
        elif len({*item.sides}) > 1 or (item.alone and len(item.rows) > 1):
            raise NotSureError
    if not any(item.rows or item.whole for item in items):
        return []  # a side needs a noun or a height to be a place
    if not any(item.sides for item in items):
        if any(item.rows and item.noun for item in items):
            raise NotSureError  # a place without its side
        return []
    own = [bool(item.sides and (item.rows or item.whole)) for item in items]
    for k, item in enumerate(items):
        if own[k] and not item.rows and not item.all and any(other.rows for other in items[:k]):
            raise NotSureError  # "lower left and right lung"
    as_written = [replace(item) for item in items]
    for k, item in enumerate(items):
        if not own[k]:
            _share(item, as_written[:k], as_written[k + 1 :])
    named = [
        frozenset(
            side * len(grammar.rows) + row for side, row in product(item.sides, item.rows or range(len(grammar.rows)))
        )
        for item in items
    ]
    if all(own):
        return [Phrase(item.start, item.end, zones) for item, zones in zip(items, named, strict=True)]
    return [Phrase(items[0].start, items[-1].end, frozenset().union(*named))]


def _share(item: _Item, before: list[_Item], after: list[_Item]) -> None:
    """Adds the words that an item shares with a neighbour, as in "left and right lower lobes".

    Raises:
        NotSureError: if not exactly one neighbour can share its words.
    """
    if item.sides and after and after[0].sides and (after[0].rows or after[0].whole):
        item.rows = after[0].rows  # a side alone, before a whole place
        return
    givers = []
    if item.rows and not item.noun:  # "upper and middle left lung", "left upper, middle and lower"
        givers = [other.sides for other in after if other.sides][:1]
        givers += [other.sides for other in reversed(before) if other.sides and not other.noun][:1]
    elif item.rows:  # "left upper and middle lobes": both have the noun
        sharing = list(takewhile(lambda other: not other.noun, reversed(before)))
        givers = [other.sides for other in sharing if other.sides][:1]
    if len(givers) != 1:
        raise NotSureError
    item.sides = givers[0]
