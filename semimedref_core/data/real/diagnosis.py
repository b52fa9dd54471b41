"""What the doctor found in a data folder, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from semimedref_core.data.real.agreement import Agreement, Share
from semimedref_core.data.real.sources import SPLITS


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
        problems: everything missing, corrupt, unparsable or without content, by name.
        contradictions: kind -> names of what can be read but contradicts something else.
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
