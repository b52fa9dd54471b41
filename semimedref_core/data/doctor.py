"""What is in a data folder, what is wrong with it, and how far its reports and masks agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semimedref_core.data.agreement import Agreement, Lesions, Share
from semimedref_core.data.files import LESION, Entry, by_name, in_threads, repeated
from semimedref_core.data.pairs import DataError
from semimedref_core.data.qata import SPLITS, Layout, find_qata
from semimedref_core.data.splits import PUBLISHED, digest, labelled_indices


@dataclass(kw_only=True)
class TextCheck(Agreement):
    """One text version of one split against its masks, at full resolution.

    Attributes:
        source: the report table.
        listed: number of entries.
        zones: texts whose zones are the release's pseudo-label.
    """

    source: Path
    listed: int
    zones: Share = field(default_factory=Share)

    def report(self, version: str) -> list[str]:
        """The lines of the diagnosis that are about this text version."""
        lines = self.lines()
        if self.zones.total:
            lines.append(f"zones = pseudo_label of annotation.json: {self.zones}")
        return [f"  {version} texts ({self.source.name}): {self.listed} listed", *(f"    {line}" for line in lines)]


@dataclass
class SplitDiagnosis:
    """One split: files in its folders, its text versions, and notes on the labelled subset."""

    name: str
    images: int
    masks: int
    texts: dict[str, TextCheck] = field(default_factory=dict)
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
        problems: everything missing, corrupt, unparsable or contradictory, by name.
    """

    title: str
    splits: list[SplitDiagnosis] = field(default_factory=list)
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
        if self.ok:
            return "\n".join([*lines, "", "no problems"])
        return "\n".join([*lines, "", f"{len(self.problems)} problem(s):", *self.problems])


def examine(root: str | Path, splits: Sequence[str] = SPLITS) -> Diagnosis:
    """Reads every listed file of a QaTa folder and says what is there, what is wrong and what agrees.

    Never raises for bad data: problems are listed in the diagnosis.

    Args:
        root: the QaTa folder, or the one that holds ``QaTa/``.
        splits: which splits to read, where they are there.
    """
    try:
        layout = find_qata(root)
    except DataError as error:
        return Diagnosis(str(root), problems=[str(error)])
    diagnosis = Diagnosis(f"QaTa-COV19 in {layout.root}, layout {layout.name}")
    for split in splits:
        if split in layout.splits:
            found, problems = _examine_split(layout, split)
            diagnosis.splits.append(found)
            diagnosis.problems += problems
    return diagnosis


def _examine_split(layout: Layout, split: str) -> tuple[SplitDiagnosis, list[str]]:
    files = layout.splits[split]
    found = SplitDiagnosis(split, len(by_name(files.images)), len(by_name(files.masks)))
    versions: dict[str, list[Entry]] = {}
    problems = [] if files.tables else [f"{layout.root}: no report table for split {split!r}"]
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
    pseudo_labels = {entry.image: entry.zones for entry in versions.get("release", ()) if entry.zones}
    for version, entries in versions.items():
        check = TextCheck(source=files.tables[version].path, listed=len(entries))
        found.texts[version] = check
        problems += [f"{version} texts: {problem}" for problem in repeated(entries)]
        for entry in entries:
            try:
                report = entry.report(version)
            except DataError as error:
                problems.append(f"{version} texts: {error}")
                continue
            if entry.image in pseudo_labels:
                check.zones.add(report.zones == pseudo_labels[entry.image])
            if lesions[entry.image]:
                check.add(entry.name, report, lesions[entry.image])
        if check.mirrored:
            problems.append(f"{check.source}: left and right disagree with the masks; are pictures mirrored?")
    if split == "train" and versions:
        found.labelled = _labelled([entry.name for entry in next(iter(versions.values()))])
    return found, problems


def _look_at(entry: Entry) -> tuple[Lesions | None, list[str]]:
    pictures, problems = entry.pictures()
    if problems:
        return None, problems
    return Lesions.of(pictures[1] > LESION), []


def _labelled(names: list[str]) -> list[str]:
    """For the ratios whose labelled subset is known from the release: is it ours?"""
    lines = []
    for ratio, published in PUBLISHED.items():
        chosen = [names[i] for i in labelled_indices(names, ratio)]
        ours = digest(chosen)
        verdict = "as in the release" if ours == published else f"not the release's ({published})"
        lines.append(f"  labelled at {100 * ratio:g} %: {len(chosen)} of {len(names)}, sha256 {ours}, {verdict}")
    return lines
