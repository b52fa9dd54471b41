"""Finds contradictions in readable data: between report and mask, mask and picture, and two lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations

import numpy as np

from semimedref_core.config import MaskValue
from semimedref_core.data.real.agreement import Lesions
from semimedref_core.data.real.files import Entry
from semimedref_core.data.real.pictures import NO_VALUES
from semimedref_core.data.real.wording import against_itself
from semimedref_core.reports import Report


@dataclass(frozen=True)
class Contents:
    """The compared contents of a pair's two files.

    Attributes:
        lesions: lesions of the mask.
        picture, mask: digests of the pixels.
        constant: whether the picture has only one grey value.
        inverted: whether all four corners and most of the mask are lesion.
        drawn: whether the picture equals the mask.
    """

    lesions: Lesions
    picture: bytes
    mask: bytes
    constant: bool
    inverted: bool
    drawn: bool

    @classmethod
    def of(cls, image: np.ndarray, mask: np.ndarray) -> Contents:
        """The contents of an image ``[H, W]`` uint8 and a mask ``[H, W]`` bool."""
        corners = mask[[0, 0, -1, -1], [0, -1, 0, -1]]
        return cls(
            lesions=Lesions.of(mask),
            picture=_digest(image),
            mask=_digest(mask),
            constant=bool(image.min() == image.max()),
            inverted=bool(corners.all() and mask.mean() > 0.5),
            drawn=bool(mask.any() and (image[mask] == 255).all() and (image[~mask] == 0).all()),
        )


def look_at(entry: Entry, lesion: Mapping[MaskValue, bool] = NO_VALUES) -> tuple[Contents | None, list[str]]:
    """The contents of a pair's files (None if they cannot be read), and all their problems."""
    pictures, problems = entry.pictures(lesion=lesion)
    if problems:
        return None, problems
    contents = Contents.of(*pictures)
    return contents, [f"{entry.image}: picture of one grey value, so it shows nothing"] if contents.constant else []


def of_report(report: Report, lesions: Lesions) -> list[str]:
    """The kinds of contradiction of a report with itself and with its mask, except the side of the lesion."""
    kinds = against_itself(report)
    if any(report.zones) and not lesions.count:
        kinds.append("the report names an infection, but the mask shows none")
    if lesions.count and not any(report.zones):
        kinds.append("the report names no infection, but the mask shows one")
    return kinds


def of_split(
    contents: Mapping[str, Contents], versions: Mapping[str, Sequence[Entry]]
) -> tuple[list[str], dict[str, list[str]]]:
    """Problems of a split as a whole, and its contradictions: kind -> names.

    Args:
        contents: name -> contents, for the readable pairs.
        versions: the entries of each text version.
    """
    problems, kinds = [], {}
    if contents and not any(one.lesions.count for one in contents.values()):
        problems.append("no mask shows a lesion, so nothing can be learnt and a score means nothing")
    elif len(contents) > 1 and len({one.mask for one in contents.values()}) == 1:
        problems.append("all masks are the same, so nothing can be learnt")
    kinds["lesion in all four corners of the mask; is it inverted?"] = _names(contents, "inverted")
    kinds["the picture is its own mask"] = _names(contents, "drawn")
    kinds["pictures that are the same, pixel by pixel"] = [" = ".join(names) for names in _same(contents)]
    for (one, entries), (other, others) in combinations(versions.items(), 2):
        names = [{_plain(entry.name) for entry in listed} for listed in (entries, others)]
        kinds[f"listed with {one} texts and not with {other} texts"] = sorted(names[0] - names[1])
        kinds[f"listed with {other} texts and not with {one} texts"] = sorted(names[1] - names[0])
    return problems, {kind: names for kind, names in kinds.items() if names}


def between_splits(contents: Mapping[str, Mapping[str, Contents]]) -> dict[str, list[str]]:
    """Contents that occur in two splits, which must not share any: kind -> names.

    Args:
        contents: split -> name -> contents of the pair's files.
    """
    kinds = {}
    for (one, pairs), (other, others) in combinations(contents.items(), 2):
        pictures = {held.picture: name for name, held in pairs.items()}
        same = [f"{pictures[held.picture]} = {name}" for name, held in others.items() if held.picture in pictures]
        kinds[f"{one} and {other}: pictures that are the same, pixel by pixel"] = same
        named = {_plain(name) for name in pairs}
        again = [name for name, held in others.items() if _plain(name) in named and held.picture not in pictures]
        kinds[f"{one} and {other}: the same name for other pictures"] = again
    return {kind: names for kind, names in kinds.items() if names}


def _names(contents: Mapping[str, Contents], what: str) -> list[str]:
    return [name for name, one in contents.items() if getattr(one, what)]


def _same(contents: Mapping[str, Contents]) -> list[list[str]]:
    names: dict[bytes, list[str]] = {}
    for name, one in contents.items():
        names.setdefault(one.picture, []).append(name)
    return [same for same in names.values() if len(same) > 1]


def _plain(name: str) -> str:
    """A name without its ending and letter case, which differ between the two text versions."""
    return name.lower().removesuffix(".png")


def _digest(picture: np.ndarray) -> bytes:
    return blake2b(repr(picture.shape).encode() + np.ascontiguousarray(picture).tobytes(), digest_size=16).digest()
