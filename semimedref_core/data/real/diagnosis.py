"""The findings of the doctor in a data folder, and their text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from semimedref_core.data.real.agreement import Agreement, Share
from semimedref_core.data.real.sources import SPLITS


@dataclass(kw_only=True)
class TextCheck(Agreement):
    """Compares one text version of a split with its masks, at full resolution.

    Attributes:
        source: the report table.
        listed: number of entries.
        published: number of pairs in the published split; some may be missing.
        zones: texts whose zones equal the pseudo-label in the table.
    """

    source: Path
    listed: int
    published: int
    zones: Share = field(default_factory=Share)

    def report(self, version: str) -> list[str]:
        """The lines of the diagnosis for this text version."""
        lines = self.lines()
        if self.zones.total:
            lines.append(f"zones = pseudo_label: {self.zones}")
        listed = f"{self.listed} listed{'' if self.listed == self.published else f' ({self.published} published)'}"
        return [f"  {version} texts ({self.source.name}): {listed}", *(f"    {line}" for line in lines)]


@dataclass
class SplitDiagnosis:
    """One split: its files, its text versions, the listed names, and notes on the labelled subset."""

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
    """The findings of :func:`examine`. ``ok`` decides the exit status of ``semimedref doctor``.

    Attributes:
        title: folder and layout.
        splits: findings for each split.
        patients: number of patients in each split, according to file names.
        warnings: facts to know before comparing or trusting numbers; not faults of the files.
        problems: all files and reports that are missing, corrupt, unparsable or empty, by name.
        contradictions: kind -> names of readable entries that contradict something else.
    """

    title: str
    splits: list[SplitDiagnosis] = field(default_factory=list)
    patients: str = ""
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    contradictions: dict[str, list[str]] = field(default_factory=dict)

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
        if count := sum(map(len, self.contradictions.values())):
            lines += ["", f"{count} contradiction(s), with which numbers may mislead:"]
            for kind, names in self.contradictions.items():
                lines += [f"{kind}: {len(names)}", *(f"  {name}" for name in names)]
        if self.problems:
            lines += ["", f"{len(self.problems)} problem(s):", *self.problems]
        elif self.splits:
            lines += ["", "every file can be read, but look at the contradictions" if count else "no problems"]
        return "\n".join(lines)
