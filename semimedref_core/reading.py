"""Reads positions in a free text, without guessing.

The reader looks for the zones of a layout that a text names as affected. If it is not sure, it returns no zone for the
whole text. A method can learn without a place, but it would learn a wrong place.

- The reader never guesses a side. "Lower lobe opacity" names no zone, also if the text names other places.
- A sentence affirms its places, denies them ("no opacity in the left lung", "the left lung is clear", "the opacity in
  the left lung has resolved"), or speaks of surgery and devices. If none of this is certain, the text names nothing.
- About the lungs (:attr:`.positions.Grammar.closed`) a sentence affirms a place only if the reader knows all of its
  words (:mod:`.reading_words`) and one of them is a finding. A place alone counts too, as in "left lower lung", unless
  a sentence beside it denies something. With any other layout a word that the reader does not know may be a finding.
- A place that one sentence affirms and another denies leaves the text open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from semimedref_core.places import NotSureError, Phrase, Token, places_in
from semimedref_core.positions import SIDES, Positions
from semimedref_core.reading_words import kind_of

_END = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bcf)(?<!\bdr)(?<!\bapprox)\.(?=\s|$)|[!?;]"
    r"|\n(?=\s*(?:\n|[-*•]|\d+[.)]|$))",
    re.IGNORECASE,
)
_LINE = re.compile(r"(?<![,:])[ \t]*\n(?=\s*[A-Z][a-z])")
_BUT = re.compile(r",?\s*\b(?:but|however|although|though|whereas|while)\b")
_TOKEN = re.compile(r"[^\W_]+(?:(?<=\d)\.\d+)?|[^\w\s]")
_HEADING = re.compile(
    r"^.*?\b(?:indications?|history|clinical(?: \w+)?|reason(?: \w+){0,3}|comparison|technique|exam(?:ination)?)\s*:"
    r".*?\b(?:findings?|report)\s*:",
    re.DOTALL,
)
"""What stands before the findings: why the patient came, and what was known."""
_EARLIER = re.compile(
    r",?\s*\b(?:(?:when |as |in )?(?:compared|comparison) (?:to|with)|since|from) (?:the |an? )?"
    r"(?:prior|previous|last|earlier|old|most recent) "
    r"(?:study|exam|examination|film|radiograph|x-ray|ct|scan|image|imaging|chest x-ray)\b"
    r"(?: (?:of|from|dated) [\d/.-]*\d)?,?"
)
_MAY_BE = re.compile(r"\b(?:may|might|could) (?:also )?(?=(?:represent|reflect)\b)")
_ALL_BUT = re.compile(
    r"^\s*(?:the |both )?(?:lungs?|lung fields|chest) (?:are |is |appears? )?(?:otherwise )?"
    r"(?:clear|normal|unremarkable)"
    r",? (?:except|apart|aside) (?:for|from)\b"
)
"""The start of a sentence whose places are affected: "the lungs are clear except for ..."."""
_MINUS = re.compile(r"\([-–−]\)")
_NO_LONGER = re.compile(r"\b(?:no longer|no more)\b")
_ELSE_ABSENT = re.compile(r"[,]*[&w]?n[rt]*[az]*E(?:[,o&]*(?:n[rt]*)?[az]*E)*,*$")
"""The end of a sentence that says that something else is absent. "opacity in the left lower lobe, no effusion" affirms
the place."""
_TAIL = re.compile(r"(?<!i)w[^Pngsmopi]*$")
_ABSENT = re.compile(r"[tkv]*n[rt]*[a]*(?:[az]*[FE][,o&rt]*)*[az]*[FE][tev]*(?:P(?:,*oP)*)[ev]*,*")
_SOUND = (
    re.compile(r"[tq]*P,*[vb]*s[bs,&]*(?:[tn][tnr]*[az]*[FE](?:[,o&]+a*[FE])*)?,*"),
    re.compile(r"[tqb]*s+[tb]*P,*"),
    re.compile(r"[tq]*P,*v*n[rt]*(?:[az]*[FE][,o&]*)+e*,*"),
    re.compile(r"[tq]*P,*[vb]*N[b]*F,*"),
)
_NOT_HERE = re.compile(r"(?:[tk]*[qz][tkqza]*|[t]*a(?=b*vb+s|b*vb*s))[vb]*s[bs&]*[tz]*|[tb]*s[tb]*[qz]+")
"""A clause without a place that calls something normal: "contralateral lung clear", "heart normal"."""
_RESTRICTED = frozenset("otherwise remaining rest remainder elsewhere other".split())
_NOT_IN_A_ZONE = frozenset(
    "lingula lingular hilar hilum hila perihilar parahilar suprahilar infrahilar retrocardiac paracardiac paratracheal "
    "paramediastinal costophrenic cardiophrenic".split()
)
"""Places in a chest that are no zone and no part of one zone."""


@dataclass
class _Claims:
    """What a text says: the phrases that it affirms, with the zones of lesions and of other findings apart."""

    phrases: list[Phrase] = field(default_factory=list)
    lesions: set[int] = field(default_factory=set)
    others: set[int] = field(default_factory=set)
    denied: set[int] = field(default_factory=set)
    sides: set[int] = field(default_factory=set)


def read_positions(text: str, layout: Positions) -> tuple[Phrase, ...]:
    """The phrases of a text that name zones of a layout, in the order of the text; none if the reader is not sure.

    >>> from semimedref_core.positions import LUNGS
    >>> text = "Patchy opacity in the right lower lobe. The left lung is clear."
    >>> [(text[phrase.start : phrase.end], sorted(phrase.zones)) for phrase in read_positions(text, LUNGS)]
    [('right lower lobe', [5])]
    """
    claims = _Claims()
    try:
        parts = [_Part(*part, layout) for part in _parts(text)]
        for k, part in enumerate(parts):
            part.add_to(claims, [other for other in parts[max(0, k - 1) : k + 2] if other is not part])
        _require_consistent(claims, layout)
    except NotSureError:
        return ()
    return tuple(sorted(claims.phrases, key=lambda phrase: phrase.start))


def _parts(text: str) -> Iterator[tuple[str, int, bool]]:
    """Sentences and parts of sentences in small letters: each with its start in the text, and whether it is asked."""
    small = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
    broken = {line.start() for line in _LINE.finditer(text)} | {found.start() for found in _END.finditer(text)}
    small = _HEADING.sub(_blank, small)
    for known in (_EARLIER, _MAY_BE):
        small = known.sub(_blank, small)
    start = 0
    for end in (*sorted(broken), len(text)):
        sentence = small[start:end]
        asked = small[end : end + 1] == "?" or re.search(r"(?:^|[\s(])\?\s*$", small[:start]) is not None
        at = 0
        for found in (*_BUT.finditer(sentence), None):
            stop = found.start() if found else len(sentence)
            if sentence[at:stop].strip():
                yield sentence[at:stop], start + at, asked
            at = found.end() if found else stop
        start = end + 1


def _blank(found: re.Match) -> str:
    """Spaces in place of the words, so that all others stay where they are."""
    return " " * len(found[0])


class _Part:
    """A part of a text, the places in it, and a letter for each word and each group of places (:data:`KINDS`).

    Two more letters are "l" for a side and "h" for a height that belong to no place.
    """

    def __init__(self, text: str, start: int, asked: bool, layout: Positions):
        self.text, self.start, self.asked, self.layout = _ALL_BUT.sub(_blank, text), start, asked, layout
        self.closed = layout.grammar is not None and layout.grammar.closed
        self.tokens = [Token(found[0], found.start(), found.end()) for found in _TOKEN.finditer(self.text)]
        self.words = {token.text for token in self.tokens}
        self.negative = bool(set("nNosgmpD") & {kind_of(word) for word in self.words})

    def add_to(self, claims: _Claims, beside: Sequence[_Part]) -> None:
        """Adds what this part says.

        Raises:
            NotSureError: if that is not certain.
        """
        clauses, rest = self._clauses()
        for clause in clauses:
            clause._deny(claims)
        rest._affirm_or_deny(claims, [*clauses, *beside])

    def _clauses(self) -> tuple[list[_Part], _Part]:
        """Clauses at the end or start that deny their places for certain, and the rest."""
        clauses, rest = [], self
        for join in reversed([token for token in self.tokens if token.text in (",", "and", "with")]):
            head, last = rest._between(0, join.start), rest._between(join.end, len(rest.text))
            if last._is_denial(listed=True) and not (join.text == "and" and head._ends_with_a_place()):
                clauses.append(last)
                rest = head
        comma = next((token for token in rest.tokens if token.text == ","), None)
        if comma:
            first = rest._between(0, comma.start)
            if first._is_denial(listed=True, absent=False):
                clauses.append(first)
                rest = rest._between(comma.end, len(rest.text))
        return clauses, rest

    def _between(self, start: int, end: int) -> _Part:
        words = re.match(r"\s*(?:and |with )?", self.text[start:end])
        start += words.end()
        return _Part(self.text[start:end], self.start + start, self.asked, self.layout)

    def _ends_with_a_place(self) -> bool:
        """Whether a place ends the part, or it is unclear: then "and" may list another place."""
        try:
            return self._read[1].endswith("P")
        except NotSureError:
            return True

    @cached_property
    def _read(self) -> tuple[list[list[Phrase]], str]:
        """The groups of places, and the letters."""
        groups = places_in(self.text, self.tokens, self.layout)
        spans = [(group[0].start, group[-1].end) for group in groups]
        longer = {at for found in _NO_LONGER.finditer(self.text) for at in (found.start(), found.end())}
        letters, inside = "", None
        for token in self.tokens:
            span = next((span for span in spans if span[0] <= token.start < span[1]), None)
            if span is None or span != inside:
                letters += "P" if span else self._letter(token, longer)
            inside = span
        return groups, letters

    def _letter(self, token: Token, longer: set[int]) -> str:
        if token.start in longer:
            return "g"
        if token.end in longer:
            return "b"
        grammar = self.layout.grammar
        if grammar and token.text in SIDES:
            return "l"
        if grammar and any(token.text.removesuffix("s") in row for row in grammar.rows):
            return "h"
        kind = kind_of(token.text)
        return "u" if not self.closed and kind in "xzm" else kind

    def _is_denial(self, listed: bool = False, absent: bool = True) -> bool:
        """Whether the part denies all of its places. In a list of clauses it must deny lesions, and name a place or
        something outside the lungs."""
        try:
            groups, letters = self._read
        except NotSureError:
            return False
        if self.asked or (listed and not groups):
            return not self.asked and _NOT_HERE.fullmatch(letters) is not None
        if not self.closed:
            letters = letters.replace("u", "F")
        if not groups:
            return False
        if any(sound.fullmatch(letters) for sound in _SOUND):
            return True
        if absent and _ABSENT.fullmatch(letters) and not self.words & {"change", "changes", "process"}:
            return not (listed and "E" in letters)
        return not listed and len(groups) == 1 and "g" in letters and not set(letters) - set("PgtveFEapbr,")

    def _deny(self, claims: _Claims) -> None:
        groups, letters = self._read
        if not self.words & _RESTRICTED and ("E" not in letters or "F" in letters):
            claims.denied |= _zones(groups)

    def _affirm_or_deny(self, claims: _Claims, beside: Sequence[_Part]) -> None:
        groups, letters = self._read
        if not groups:
            self._note_incomplete(letters, claims)
            return
        if self._is_denial():
            self._deny(claims)
            return
        if self.asked or _MINUS.search(self.text):
            raise NotSureError
        if self.closed and "m" in letters and not set(letters) - set("PmtavebcpkglhN&,"):
            return  # surgery or a device
        before, _, after = letters.partition("P")
        if not self.closed and re.match(r"vb*u", after) and not set("FEu") & set(before):
            raise NotSureError  # "the upper left corner is ..."
        letters = re.sub(r"z+(?=E)", "a", self._without_what_is_absent(letters))  # "pleural effusion"
        letters = self._with_tolerated(letters) if self.closed else letters.replace("u", "F")
        if set(letters) - set("PFEvetacbrwikhl&,"):
            raise NotSureError
        phrases = [phrase for group in groups for phrase in group]
        lesion, other = "F" in letters, "E" in letters
        if lesion and other and len(phrases) > 1:
            raise NotSureError
        if not lesion and not other:
            alone = not set(letters) - set("Ptk&,") and not self.text.rstrip().endswith((":", "-", ","))
            if not alone or any(part.negative for part in beside):
                raise NotSureError
        if self.closed:
            self._note_incomplete(letters, claims)
        named = _zones(groups)
        claims.lesions |= named if lesion or not other else set()
        claims.others |= named if other and not lesion else set()
        claims.phrases += [Phrase(self.start + one.start, self.start + one.end, one.zones) for one in phrases]

    def _without_what_is_absent(self, letters: str) -> str:
        found = _ELSE_ABSENT.search(letters)
        seen = letters[: found.start()] if found else ""
        return seen if "F" in seen or ("u" in seen and not self.closed) else letters

    @staticmethod
    def _with_tolerated(letters: str) -> str:
        """An unknown word before a finding describes it, and so does one after "with" (but not "consistent with")."""
        before, place, after = letters.partition("P")
        before = re.sub(r"u{1,2}(?=a*F)", lambda found: "a" * len(found[0]), before)
        whole = before + place + after
        tail = _TAIL.search(whole, whole.rindex("P"))
        if tail and not set("ND") & set(tail[0]):
            whole = whole[: tail.start()] + tail[0].replace("u", "a").replace("E", "a")
        return whole

    def _note_incomplete(self, letters: str, claims: _Claims) -> None:
        """Notes the sides of a lesion without a height: the zones of the text must lie there.

        Raises:
            NotSureError: for a lesion at a height without a side.
        """
        if not self.closed or "F" not in letters or set("nNosgmpD") & set(letters):
            return
        if "h" in letters or self.words & _NOT_IN_A_ZONE:
            raise NotSureError
        sides = self.layout.grammar.sides
        words = [token.text for token in self.tokens if token.text in SIDES] if "l" in letters else []
        claims.sides |= {sides.index(word) for word in words}


def _zones(groups: Sequence[Sequence[Phrase]]) -> frozenset[int]:
    return frozenset().union(*(phrase.zones for group in groups for phrase in group))


def _require_consistent(claims: _Claims, layout: Positions) -> None:
    """Refuses a text whose sentences do not fit together.

    Raises:
        NotSureError: if a zone is affirmed and denied, if other findings lie elsewhere than the lesions (a mask may
            show either), or if a lesion is on a side of which no zone is named.
    """
    named = claims.lesions | claims.others
    if named & claims.denied or (claims.lesions and claims.others - claims.lesions):
        raise NotSureError
    if claims.sides and claims.sides - {zone // len(layout.grammar.rows) for zone in named}:
        raise NotSureError
