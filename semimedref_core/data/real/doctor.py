"""Checks a data folder: its contents, its problems and its contradictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from semimedref_core.config import MaskValue
from semimedref_core.config import mask_values as values_of
from semimedref_core.data.datasets import SOURCES
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.contradictions import Contents, between_splits, look_at, of_report, of_split
from semimedref_core.data.real.diagnosis import Diagnosis, SplitDiagnosis, TextCheck
from semimedref_core.data.real.files import Entry, by_name, in_threads, repeated
from semimedref_core.data.real.qata import QATA_COV19
from semimedref_core.data.real.sources import SPLITS, Layout, Source
from semimedref_core.data.splits import PUBLISHED, digest, labelled_indices


def examine_all(root: str | Path, mask_values: str = "") -> list[Diagnosis]:
    """Examines all datasets in a folder. If there is none, the result is a single problem that lists what was
    expected."""
    sources, absent, errors = {}, [], []
    for source in SOURCES.values():
        try:
            sources[source.find(root).root] = source  # MosMedData+ is found only if its masks have no names as in QaTa
        except DataError as error:
            errors.append(str(error))
            if any((Path(root) / holder).is_dir() for holder in source.holders):
                absent.append(Diagnosis(f"not looked at: {error}"))
    if not sources:
        return [Diagnosis(str(root), problems=errors)]
    return [*(examine(root, source=source, mask_values=mask_values) for source in sources.values()), *absent]


def examine(
    root: str | Path, splits: Sequence[str] = SPLITS, source: Source = QATA_COV19, mask_values: str = ""
) -> Diagnosis:
    """Reads every listed file of a dataset's folder. Reports contents, problems and agreements.

    Bad data never raises an error; the diagnosis lists the problems.

    Args:
        root: the dataset's folder, or the folder above it.
        splits: the splits to read, if they exist.
        source: the dataset.
        mask_values: the mask values that mean lesion; see :func:`semimedref_core.config.mask_values`.
    """
    try:
        layout = source.find(root)
    except DataError as error:
        return Diagnosis(str(root), problems=[str(error)])
    diagnosis = Diagnosis(f"{source.title} in {layout.root}, layout {layout.name}")
    contents: dict[str, dict[str, Contents]] = {}
    for split in splits:
        if split in layout.splits:
            try:
                contents[split] = _examine_split(layout, split, diagnosis, values_of(mask_values))
            except DataError as error:  # the folder cannot be read
                diagnosis.problems.append(str(error))
    diagnosis.contradictions |= between_splits(contents)
    patients = {found.name: list(map(source.patient_of, found.listed)) for found in diagnosis.splits}
    diagnosis.patients = _count_patients(patients)
    diagnosis.warnings += _shared_patients(patients)
    return diagnosis


def _count_patients(patients: Mapping[str, Sequence[str | None]]) -> str:
    counts = ", ".join(f"{split} {len({*names} - {None})}" for split, names in patients.items())
    unknown = sum(name is None for names in patients.values() for name in names)
    return f"patients told by file names: {counts}; {unknown} file(s) tell none"


def _shared_patients(patients: Mapping[str, Sequence[str | None]]) -> list[str]:
    """A warning for each two splits that share a patient (Ledger 12), with counts.

    Args:
        patients: split -> patient of each listed image; None if unknown.
    """
    warnings = []
    for (earlier, known), (later, names) in combinations(patients.items(), 2):
        if shared := {*known} & {*names} - {None}:
            files = sum(name in shared for name in names)
            warnings.append(
                f"{later}: {len(shared)} of {len({*names} - {None})} patients, with {files} of {len(names)} images, "
                f"also occur in {earlier}, so {later} does not show how well new patients are segmented"
            )
    return warnings


def _examine_split(
    layout: Layout, split: str, diagnosis: Diagnosis, lesion: Mapping[MaskValue, bool]
) -> dict[str, Contents]:
    """Adds the findings to the diagnosis; returns the contents of the readable pairs, by name."""
    files, problems = layout.splits[split], diagnosis.problems
    found = SplitDiagnosis(split, len(by_name(files.images)), len(by_name(files.masks)))
    diagnosis.splits.append(found)
    if not files.tables:
        problems.append(f"{layout.root}: no report table for split {split!r}")
    versions: dict[str, list[Entry]] = {}
    for version in files.tables:
        try:
            versions[version] = layout.entries(split, version)
        except DataError as error:
            problems.append(str(error))
    listed = {entry.image: entry for entries in versions.values() for entry in entries}
    seen: dict[Path, Contents] = {}
    looked_at = in_threads(lambda entry: look_at(entry, lesion), list(listed.values()), f"doctor {split}")
    for image, (contents, wrong) in zip(listed, looked_at, strict=True):
        problems += wrong
        if contents:
            seen[image] = contents
    pseudo_labels = {entry.image: entry.zones for entry in listed.values() if entry.zones is not None}
    for version, entries in versions.items():
        check = TextCheck(source=files.tables[version].path, listed=len(entries), published=layout.source.sizes[split])
        found.texts[version] = check
        problems += [f"{version} texts: {problem}" for problem in repeated(entries)]
        for entry in entries:
            try:
                report = entry.report(version)
            except DataError as error:
                problems.append(f"{version} texts: {error}")
                continue
            if differ := entry.contradiction(report):
                problems.append(f"{version} texts: {differ}")
            if entry.image in pseudo_labels:
                check.zones.add(report.zones == pseudo_labels[entry.image])
            if contents := seen.get(entry.image):
                check.add(entry.name, report, contents.lesions)
                for kind in of_report(report, contents.lesions):
                    diagnosis.contradictions.setdefault(f"{split}, {version} texts: {kind}", []).append(entry.name)
        if check.mirrored:
            told = problems if layout.source.left_is_left_half else diagnosis.warnings
            told.append(
                f"{check.source}: left and right disagree with the masks; are pictures mirrored? Zones would be "
                "looked for in the wrong half"
            )
        elif check.off_side:
            kind = f"{split}, {version} texts: most of the lesion on the other side than the report names"
            diagnosis.contradictions[kind] = check.off_side
    by_file_name = {listed[image].name: contents for image, contents in seen.items()}
    wrong, contradictions = of_split(by_file_name, versions)
    problems += [f"{layout.root}, {split}: {problem}" for problem in wrong]
    diagnosis.contradictions |= {f"{split}: {kind}": names for kind, names in contradictions.items()}
    if versions:
        found.listed = [entry.name for entry in next(iter(versions.values()))]
        if split == "train":
            found.labelled = _labelled(found.listed, layout.source)
    return by_file_name


def _labelled(names: list[str], source: Source) -> list[str]:
    """Lines on the labelled subset at two ratios. For QaTa-COV19 they say whether it equals the release's subset."""
    lines = []
    for ratio, published in PUBLISHED.items():
        chosen = [names[i] for i in labelled_indices(names, ratio, source.key)]
        ours = digest(chosen)
        verdict = ", as in the release" if ours == published else f", not the release's ({published})"
        lines.append(
            f"  labelled at {100 * ratio:g} %: {len(chosen)} of {len(names)}, sha256 {ours}"
            f"{verdict if source is QATA_COV19 else ''}"
        )
    return lines
