"""What is in a data folder, what is wrong with it, and how far its reports and masks agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from semimedref_core.data.datasets import SOURCES
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.agreement import Agreement, Lesions, Share
from semimedref_core.data.real.files import LESION, Entry, by_name, in_threads, locate, repeated
from semimedref_core.data.real.qata import QATA_COV19
from semimedref_core.data.real.sources import SPLITS, Layout, Source
from semimedref_core.data.splits import PUBLISHED, digest, labelled_indices


@dataclass(kw_only=True)
class TextCheck(Agreement):
    """One text version of one split against its masks, at full resolution.

    Attributes:
        source: the report table.
        listed: number of entries.
        published: number of pairs of the published split, which need not be there.
        zones: texts whose zones are the pseudo-label that a table gives for their image.
    """

    source: Path
    listed: int
    published: int
    zones: Share = field(default_factory=Share)

    def report(self, version: str) -> list[str]:
        """The lines of the diagnosis that are about this text version."""
        lines = self.lines()
        if self.zones.total:
            lines.append(f"zones = pseudo_label: {self.zones}")
        listed = f"{self.listed} listed{'' if self.listed == self.published else f' ({self.published} published)'}"
        return [f"  {version} texts ({self.source.name}): {listed}", *(f"    {line}" for line in lines)]


@dataclass
class SplitDiagnosis:
    """One split: files in its folders, its text versions, the names listed, and notes on the labelled subset."""

    name: str
    images: int
    masks: int
    texts: dict[str, TextCheck] = field(default_factory=dict)
    listed: list[str] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        lines = [f"{self.name}: {self.images} image files, {self.masks} mask files"]
        for version, check in self.texts.items():
            lines += check.report(version)
        return lines + self.labelled


@dataclass
class Diagnosis:
    """What :func:`examine` found. ``ok`` decides the exit status of ``semimedref doctor``.

    Attributes:
        title: folder and layout.
        splits: what was found of each split.
        patients: how many patients the file names of each split tell.
        warnings: what to know before comparing or trusting numbers; no fault of the files.
        problems: everything missing, corrupt, unparsable or contradictory, by name.
    """

    title: str
    splits: list[SplitDiagnosis] = field(default_factory=list)
    patients: str = ""
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def render(self) -> str:
        """The whole diagnosis as text, every problem by name."""
        lines = [self.title]
        for split in self.splits:
            lines += ["", *split.lines()]
        if self.splits and (absent := [name for name in SPLITS if name not in {s.name for s in self.splits}]):
            lines += ["", f"not looked at or not here: {', '.join(absent)}"]
        for line in filter(None, (self.patients, *(f"WARNING {warning}" for warning in self.warnings))):
            lines += ["", line]
        if self.ok:
            return "\n".join([*lines, "", "no problems"] if self.splits else lines)
        return "\n".join([*lines, "", f"{len(self.problems)} problem(s):", *self.problems])


def examine_all(root: str | Path) -> list[Diagnosis]:
    """Every dataset that a folder holds, examined; a single problem with all that was looked for if it holds none."""
    sources, absent, errors = {}, [], []
    for source in SOURCES.values():
        try:
            sources[source.find(root).root] = source  # MosMedData+ is found only where masks are not named as QaTa's
        except DataError as error:
            errors.append(str(error))
            if any(locate(Path(root), holder) for holder in source.holders):
                absent.append(Diagnosis(f"not looked at: {error}"))
    if not sources:
        return [Diagnosis(str(root), problems=errors)]
    return [*(examine(root, source=source) for source in sources.values()), *absent]


def examine(root: str | Path, splits: Sequence[str] = SPLITS, source: Source = QATA_COV19) -> Diagnosis:
    """Reads every listed file of a dataset's folder and says what is there, what is wrong and what agrees.

    Never raises for bad data: problems are listed in the diagnosis.

    Args:
        root: the dataset's folder, or the one that holds it.
        splits: which splits to read, where they are there.
        source: the dataset.
    """
    try:
        layout = source.find(root)
    except DataError as error:
        return Diagnosis(str(root), problems=[str(error)])
    diagnosis = Diagnosis(f"{source.title} in {layout.root}, layout {layout.name}")
    for split in splits:
        if split in layout.splits:
            found, warnings, problems = _examine_split(layout, split)
            diagnosis.splits.append(found)
            diagnosis.warnings += warnings
            diagnosis.problems += problems
    patients = {found.name: list(map(source.patient_of, found.listed)) for found in diagnosis.splits}
    diagnosis.patients = _count_patients(patients)
    diagnosis.warnings += _shared_patients(patients)
    return diagnosis


def _count_patients(patients: Mapping[str, Sequence[str | None]]) -> str:
    counts = ", ".join(f"{split} {len({*names} - {None})}" for split, names in patients.items())
    unknown = sum(name is None for names in patients.values() for name in names)
    return f"patients told by file names: {counts}; {unknown} file(s) tell none"


def _shared_patients(patients: Mapping[str, Sequence[str | None]]) -> list[str]:
    """A warning for every two splits with a patient in common (Ledger 12), with counts.

    Args:
        patients: of each listed image, by split; None where unknown.
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


def _examine_split(layout: Layout, split: str) -> tuple[SplitDiagnosis, list[str], list[str]]:
    files = layout.splits[split]
    found = SplitDiagnosis(split, len(by_name(files.images)), len(by_name(files.masks)))
    versions: dict[str, list[Entry]] = {}
    warnings, problems = [], [] if files.tables else [f"{layout.root}: no report table for split {split!r}"]
    for version in files.tables:
        try:
            versions[version] = layout.entries(split, version)
        except DataError as error:
            problems.append(str(error))
    listed = {entry.image: entry for entries in versions.values() for entry in entries}
    lesions: dict[Path, Lesions | None] = {}
    looked_at = in_threads(_look_at, list(listed.values()), f"doctor {split}")
    for image, (seen, wrong) in zip(listed, looked_at, strict=True):
        lesions[image] = seen
        problems += wrong
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
            if lesions[entry.image]:
                check.add(entry.name, report, lesions[entry.image])
        if check.mirrored:
            told = problems if layout.source.left_is_left_half else warnings
            told.append(
                f"{check.source}: left and right disagree with the masks; are pictures mirrored? Zones would be "
                "looked for in the wrong half"
            )
    if versions:
        found.listed = [entry.name for entry in next(iter(versions.values()))]
        if split == "train":
            found.labelled = _labelled(found.listed, layout.source)
    return found, warnings, problems


def _look_at(entry: Entry) -> tuple[Lesions | None, list[str]]:
    pictures, problems = entry.pictures()
    if problems:
        return None, problems
    return Lesions.of(pictures[1] > LESION), []


def _labelled(names: list[str], source: Source) -> list[str]:
    """The labelled subset at two ratios; for QaTa-COV19 the release's is known: is it ours?"""
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
