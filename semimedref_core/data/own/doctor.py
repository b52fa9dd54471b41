"""Checks a folder of your own data. Reports its contents, all problems and all contradictions at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from semimedref_core.config import MaskValue
from semimedref_core.config import mask_values as values_of
from semimedref_core.data.own.folder import OwnData, OwnEntry
from semimedref_core.data.own.zones import better_layout
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.agreement import Share
from semimedref_core.data.real.contradictions import Contents, between_splits, of_split
from semimedref_core.data.real.diagnosis import Diagnosis, SplitDiagnosis
from semimedref_core.data.real.files import in_threads
from semimedref_core.data.real.pictures import depth_of, orientation
from semimedref_core.errors import ConfigError
from semimedref_core.networks import build_texts
from semimedref_core.networks.vocabulary import require_room, told_in_training

_FINDINGS = (
    r"(?:findings?|abnormalit(?:y|ies)|lesions?|infections?|diseases?|opacit(?:y|ies)|consolidations?|infiltrates?"
    r"|pneumonia)"
)
_DENIAL = re.compile(
    r"(?!.*\b(?:left|right|but|except|other|new|change|longer|upper|middle|lower|with)\b)"
    rf"(?:(?:there (?:is|are|was|were) )?(?:no|without|negative for)\b[^,]*\b{_FINDINGS}\b[^,]*"
    rf"|(?!.*\b{_FINDINGS}\b)[^,]*\b(?:normal|clear|unremarkable)\b[^,]*)"
)
"""A sentence that denies a finding anywhere. "No change", "no other lesion" and "no effusion" do not."""
_FEWEST_SIDES = 5
"""Pairs with a side from which on the doctor says that most of them disagree. A single one may be a slip."""


def examine_own(
    folder: str | Path,
    positions: str = "lung",
    text_sides: str = "image",
    mask_values: str = "",
    text_length: int = 24,
) -> Diagnosis:
    """Reads every listed file of a folder. Bad data never raises an error.

    Args:
        folder, positions, text_sides: as in :meth:`.folder.OwnData.find`.
        mask_values: the mask values that mean lesion; see :func:`semimedref_core.config.mask_values`.
        text_length: largest number of tokens of a text, with the vocabulary of the training texts.
    """
    try:
        own = OwnData.find(folder, positions, text_sides)
    except DataError as error:
        return Diagnosis(str(folder), problems=[str(error)])
    diagnosis = Diagnosis(f"own data, {own.table.path}, positions {positions}", problems=list(own.problems))
    parts: dict[str, dict[str, Contents]] = {}
    for split, entries in own.splits.items():
        parts |= _examine_split(own, split, entries, values_of(mask_values), diagnosis)
    diagnosis.contradictions |= between_splits(parts)
    seen = {name: contents for part in parts.values() for name, contents in part.items()}
    diagnosis.warnings += [*_shared_groups(own), *_shared_masks(own, seen), *_depths(own), *own.table.remarks]
    if own.table.unread:
        diagnosis.warnings.append(f"columns that are not read: {', '.join(own.table.unread)}")
    every = [entry.text for entries in own.splits.values() for entry in entries]
    if not diagnosis.problems and (hint := better_layout(every, own.layout)):
        diagnosis.warnings.append(hint)
    diagnosis.problems += [*_not_trainable(own), *_too_long(own, text_length)]
    diagnosis.patients = "; ".join(own.notes)
    return diagnosis


@dataclass(frozen=True)
class _Look:
    """The compared contents of a pair's files; an unlabelled pair has no lesion here.

    Attributes:
        contents: contents of image and mask.
        square: whether the image is a square.
        inside: the share of the lesion in the named zones, and in their mirror images; None if the question does not
            apply.
    """

    contents: Contents
    square: bool
    inside: tuple[float, float] | None


def _examine_split(
    own: OwnData, split: str, entries: Sequence[OwnEntry], lesion: Mapping[MaskValue, bool], diagnosis: Diagnosis
) -> dict[str, dict[str, Contents]]:
    """Adds the findings to the diagnosis; returns the contents of the readable pairs, with and without masks."""

    def look(entry: OwnEntry) -> tuple[_Look | None, list[str]]:
        return _look(entry, entry.name not in own.unmasked, lesion)

    looks, kinds = {}, diagnosis.contradictions
    for entry, (seen, wrong) in zip(entries, in_threads(look, entries, f"doctor {split}"), strict=True):
        diagnosis.problems += wrong
        if seen:
            looks[entry.name] = seen
            if seen.contents.constant:
                diagnosis.problems.append(f"{entry.image}: picture of one value, so it shows nothing")
        if differ := entry.contradiction(entry.free):
            kinds.setdefault(
                f"{split}: the zones of the table and of the text differ; the table's are taken", []
            ).append(differ)
    masked = {name: seen.contents for name, seen in looks.items() if name not in own.unmasked}
    bare = {name: seen.contents for name, seen in looks.items() if name in own.unmasked}
    found = SplitDiagnosis(split, len(entries), sum(entry.name not in own.unmasked for entry in entries))
    diagnosis.splits.append(found)
    wrong, of_masks = of_split(masked, {})
    diagnosis.problems += [f"{split}: {problem}" for problem in wrong]
    kinds |= {f"{split}: {kind}": names for kind, names in of_masks.items()}
    reports = {entry.name: entry.free for entry in entries}
    turned = [
        entry.name for entry in entries if entry.name in masked and orientation(entry.image) != orientation(entry.mask)
    ]
    for kind, names in {
        "texts that name no zone, so T-PatchMix and PosAug leave them alone": [
            name for name, report in reports.items() if not report.located and own.layout.words[0]
        ],
        "never mirrored, since left or right in the text is not understood": [
            name for name, report in reports.items() if not report.mirrors
        ],
        "the text names a zone, the mask shows no lesion": [
            name for name in masked if reports[name].located and not masked[name].lesions.count
        ],
        "the text denies any finding, the mask shows a lesion": [
            entry.name
            for entry in entries
            if entry.name in masked and masked[entry.name].lesions.count and _denies(entry.text)
        ],
        "EXIF data turn picture and mask differently; is the mask drawn on the picture as viewers show it?": turned,
        "more of the lesion in the mirror image of the named zones than in them": _off_side(looks),
    }.items():
        if names:
            kinds[f"{split}: {kind}"] = names
    _compare_sides(split, looks, diagnosis, found)
    if without := sum(not seen.lesions.count for seen in masked.values()):
        found.labelled.append(f"  {without} of {len(masked)} masks show no lesion")
    if crooked := sum(not seen.square for seen in looks.values()):
        found.labelled.append(f"  {crooked} of {len(looks)} pictures are no squares, and are stretched to one")
    return {name: part for name, part in ((split, masked), (f"{split} without masks", bare)) if part}


def _denies(text: str) -> bool:
    """Whether each sentence denies a finding, or says that all is normal, and none names a side or an exception."""
    sentences = [sentence for sentence in re.split(r"[.;!?\n]+", text.lower()) if sentence.strip()]
    return bool(sentences) and all(_DENIAL.fullmatch(sentence.strip()) for sentence in sentences)


def _look(entry: OwnEntry, masked: bool, lesion: Mapping[MaskValue, bool]) -> tuple[_Look | None, list[str]]:
    pictures, problems = entry.pictures(masked, lesion)
    if problems:
        return None, problems
    image = pictures[0]
    mask = pictures[1] if masked else np.zeros(image.shape, bool)
    report, inside = entry.free, None
    mirrored = tuple(report.zones[k] for k in report.layout.swapped)
    if mask.any() and mirrored != report.zones:
        inside = tuple(
            _share_in(mask, report.layout.boxes(*mask.shape)[np.flatnonzero(z)]) for z in (report.zones, mirrored)
        )
    return _Look(Contents.of(image, mask), image.shape[0] == image.shape[1], inside), []


def _share_in(mask: np.ndarray, boxes: np.ndarray) -> float:
    inside = np.zeros(mask.shape, bool)
    for y0, x0, y1, x1 in boxes:
        inside[y0:y1, x0:x1] = True
    return float((mask & inside).sum() / mask.sum())


def _off_side(looks: Mapping[str, _Look]) -> list[str]:
    return [name for name, seen in looks.items() if seen.inside and seen.inside[1] > seen.inside[0]]


def _compare_sides(split: str, looks: Mapping[str, _Look], diagnosis: Diagnosis, found: SplitDiagnosis) -> None:
    """Reports how often masks and texts agree on the side. It is a problem if most of at least five pairs disagree."""
    share = Share()
    for seen in looks.values():
        if seen.inside:
            share.add(seen.inside[0])
    if share.total:
        found.labelled.append(
            f"  texts of one side: {share.percent} of the lesion in the named zones (mean of {share.total})"
        )
    if share.total >= _FEWEST_SIDES and 2 * len(_off_side(looks)) > share.total:
        diagnosis.problems.append(
            f"{split}: left and right disagree with most masks; is 'left' in the texts the patient's (--text-sides "
            "patient) or, if you gave that, the image's? Zones would be looked for in the wrong half"
        )


def _shared_groups(own: OwnData) -> list[str]:
    """A warning for every two splits with a group in common."""
    warnings = []
    for (earlier, known), (later, entries) in combinations(own.splits.items(), 2):
        names = {own.groups[entry.name] for entry in known}
        shared = [entry.name for entry in entries if own.groups[entry.name] in names]
        if shared:
            warnings.append(
                f"{later}: {len(shared)} of {len(entries)} pairs are of a group that also occurs in {earlier}, so "
                f"{later} does not show how well new ones are segmented; the first is {shared[0]}"
            )
    return warnings


def _shared_masks(own: OwnData, seen: Mapping[str, Contents]) -> list[str]:
    """A warning for each mask file with a lesion that several pairs have; an empty one may be shared."""
    pairs: dict[Path, list[str]] = {}
    for entry in (entry for entries in own.splits.values() for entry in entries):
        if entry.name in seen and seen[entry.name].lesions.count:
            pairs.setdefault(entry.mask, []).append(entry.name)
    return [
        f"{mask}: the mask of {len(names)} pairs, {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}; does it "
        "show the lesion of each?"
        for mask, names in pairs.items()
        if len(names) > 1
    ]


def _not_trainable(own: OwnData) -> list[str]:
    """Why training refuses the splits, although each pair may be right."""
    train, problems = own.splits.get("train", []), []
    if train and not own.splits.get("valid"):
        given = any(row.split for row in own.table.rows)
        problems.append(
            "no pair for validation; "
            + (
                "write valid in the column split of some pairs with masks"
                if given
                else "it is drawn from pairs with masks of at least two groups, so add such pairs, or a column split"
            )
        )
    if train and all(entry.name in own.unmasked for entry in train):
        problems.append("no training pair has a mask; fill in mask_file_name of some")
    return problems


def _depths(own: OwnData) -> list[str]:
    """A warning if deep pictures are scaled by different depths."""
    entries = [entry for entries in own.splits.values() for entry in entries]
    first, counts = {}, Counter()
    for entry, bits in zip(entries, in_threads(lambda entry: depth_of(entry.image), entries, "depths"), strict=True):
        if bits:
            first.setdefault(bits, entry.name)
            counts[bits] += 1
    if len(counts) < 2:
        return []
    told = ", ".join(f"{counts[bits]} by {bits} bits (such as {first[bits]})" for bits in sorted(counts))
    return [
        f"pictures of more than 8 bits are scaled by their own brightest value: {told}; so the same value has a "
        "different grey in them. If they are of one device, save all with the same scale, as grey of 8 bits"
    ]


def _too_long(own: OwnData, text_length: int) -> list[str]:
    train = [entry for entry in own.splits.get("train", []) if entry.text]
    if not train:
        return ["no pair for training"]
    every = [entry for entries in own.splits.values() for entry in entries if entry.text]
    texts = build_texts(length=text_length, words_of=told_in_training([entry.free for entry in train]))
    try:
        require_room(texts, [entry.free for entry in every], [entry.name for entry in every])
    except ConfigError as error:
        return [str(error)]
    return []
