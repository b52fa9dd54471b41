"""Your own folder as a dataset: it assigns pairs to splits and reads them.

Without a column ``split``, about a fifth of the pairs with masks becomes the validation split, in whole groups. Groups
(patients) are taken in the order of a digest of their names. So a table is always divided in the same way, with any
seed of the run. A group is skipped if the share would become more than two fifths with it; if this skips all groups,
the smallest is taken. A validation pair needs a mask, so groups with unlabelled pairs are taken last. The unlabelled
pairs of such a group are left out of both splits.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar

import numpy as np

from semimedref_core.config import mask_values as values_of
from semimedref_core.data.own.metadata import Metadata, Row, read_metadata
from semimedref_core.data.own.zones import layout_named, zones_listed
from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.data.real.files import SHOWN, Entry, decode
from semimedref_core.data.real.pictures import COLOURED, may_have_colours
from semimedref_core.free_reports import FreeReport
from semimedref_core.positions import Positions

VALID_SHARE = 0.2  # share of the pairs with masks, if the table has no splits


@dataclass(frozen=True)
class OwnEntry(Entry):
    """A pair of the folder; its report is free text."""

    free: FreeReport = field(kw_only=True)

    differing: ClassVar[str] = "listed zones differ from those of the text; the listed ones are taken"

    def report(self, style: str) -> FreeReport:
        """The report; free text has only one style."""
        return self.free

    def against_itself(self, report: FreeReport) -> list[str]:
        """Nothing: the number and the laterality of a free text are not read."""
        return []

    def contradiction(self, report: FreeReport) -> str | None:
        """How the zones of the table differ from those of the text, if both are known. The zones of the table are
        used."""
        read = FreeReport.of(self.text, report.layout).zones
        if self.zones is None or not any(read) or read == self.zones:
            return None
        told, said = (", ".join(report.layout.named(zones)) or "none" for zones in (self.zones, read))
        return f"{self.name}: zones {told}, but its text names {said}"


@dataclass(frozen=True)
class OwnData:
    """A folder's pairs.

    Attributes:
        folder: the folder of the pairs.
        table: the table that lists the pairs.
        layout: the zones that the texts may name.
        splits: the entries of each split; :attr:`unmasked` lists those without a mask.
        unmasked: images without a mask.
        notes: decisions that were made for the user.
        problems: problems of the table.
        groups: group of each image; the image itself if the table names none.
    """

    folder: Path
    table: Metadata
    layout: Positions
    splits: dict[str, list[OwnEntry]]
    unmasked: frozenset[str]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    groups: dict[str, str]

    @classmethod
    def find(cls, folder: str | Path, positions: str | Positions = "lung", text_sides: str = "image") -> OwnData:
        """Reads the table of a folder; no picture is opened.

        Args:
            folder: a folder with ``metadata.csv``, ``.xlsx``, ``.jsonl`` or ``.parquet``.
            positions, text_sides: as in :func:`.zones.layout_named`.

        Raises:
            DataError: if there is no readable table or no such layout. ``problems`` lists the faults of single lines.
        """
        folder, layout = Path(folder).expanduser(), layout_named(positions, text_sides)
        table = read_metadata(folder)
        problems = list(table.problems)
        entries = {row.number: _entry(folder, row, layout, problems) for row in table.rows}
        rows = table.rows
        given = any(row.split for row in rows)
        splits, notes, left_out = (_listed(rows), [], []) if given else _drawn(rows)
        problems += [
            f"{row.image}: no mask, and a {split} pair needs one"
            for split in ("valid", "test")
            for row in splits.get(split, [])
            if not row.mask
        ]
        if left_out:
            notes.append(f"{len(left_out)} pair(s) without masks are left out: others of their group are in valid")
        return cls(
            folder=folder,
            table=table,
            layout=layout,
            splits={split: [entries[row.number] for row in listed] for split, listed in splits.items()},
            unmasked=frozenset(row.image for row in rows if not row.mask),
            notes=tuple(notes),
            problems=tuple(problems),
            groups={row.image: row.group or row.image for row in rows},
        )

    def entries(self, split: str) -> list[OwnEntry]:
        """The pairs of a split, in the order of the table.

        Raises:
            DataError: if the table has problems, which are all listed, or if the split is empty.
        """
        if self.problems:
            more = len(self.problems) - SHOWN
            raise DataError(
                f"{self.table.path}: {len(self.problems)} problem(s) (`semimedref doctor` names all):\n"
                + "\n".join([*self.problems[:SHOWN], *([f"... and {more} more"] if more > 0 else [])])
            )
        if not self.splits.get(split):
            raise DataError(f"{self.table.path}: no pair in split {split!r}, only in {', '.join(self.splits)}")
        return self.splits[split]

    def load(self, entries: list[OwnEntry], size: int, masks: bool, label: str, mask_values: str = "") -> Pairs:
        """Decodes pairs. They get three channels if their files can hold colours (:func:`grey_if_it_is`).

        Raises:
            DataError: names all problems of the files, in one message. Also if pairs without a mask are to be loaded
                with masks.
        """
        if masks and (bare := [entry.name for entry in entries if entry.name in self.unmasked]):
            raise DataError(
                f"{self.table.path}: {len(bare)} of {len(entries)} pairs of {label} have no mask, the first is "
                f"{bare[0]}, so they cannot be loaded with masks or scored; load_training loads them as unlabelled "
                "pairs, and the split valid has masks"
            )
        colours = any(may_have_colours(entry.image) for every in self.splits.values() for entry in every)
        return decode(entries, size, "free", masks, label, values_of(mask_values), colours)


def grey_if_it_is(*parts: Pairs | None) -> list[Pairs | None]:
    """The parts of a dataset. They get one channel if no picture of any part has a colour; otherwise they do not
    change."""
    pictures = (image for part in parts if part is not None and part.channels == 3 for image in part.images)
    coloured = any(np.ptp(image, axis=2).max() >= COLOURED for image in pictures)
    return list(parts) if coloured else [part and part.with_channels(1) for part in parts]


def _entry(folder: Path, row: Row, layout: Positions, problems: list[str]) -> OwnEntry:
    try:
        zones = zones_listed(row.zones, layout)
    except DataError as error:
        problems.append(f"line {row.number}: {error}")
        zones = None
    free = FreeReport.of(row.text, layout, zones)
    return OwnEntry(row.image, row.text, zones, folder / row.image, folder / row.mask, free=free)


def _listed(rows: list[Row]) -> dict[str, list[Row]]:
    splits = defaultdict(list)
    for row in rows:
        splits[row.split].append(row)
    return dict(splits)


def _drawn(rows: list[Row]) -> tuple[dict[str, list[Row]], list[str], list[Row]]:
    """The splits of a table that has none, notes about them, and the rows that are in no split."""
    groups = defaultdict(list)
    for row in rows:
        groups[row.group or row.image].append(row)

    def order(name: str) -> tuple[bool, bytes]:
        return any(not row.mask for row in groups[name]), blake2b(name.encode(), digest_size=8).digest()

    counts = {name: count for name in sorted(groups, key=order) if (count := sum(bool(r.mask) for r in groups[name]))}
    masked = sum(counts.values())
    chosen, found = set(), 0
    for name, count in counts.items():
        if found < VALID_SHARE * masked and found + count <= 2 * VALID_SHARE * masked:
            chosen.add(name)
            found += count
    if not chosen and len(counts) > 1:  # training needs masks too, so a single group stays there
        chosen.add(min(counts, key=counts.get))
    train = [row for row in rows if (row.group or row.image) not in chosen]
    valid = [row for row in rows if (row.group or row.image) in chosen and row.mask]
    left_out = [row for row in rows if (row.group or row.image) in chosen and not row.mask]
    how = "by group" if any(row.group for row in rows) else "by name"
    note = f"the table has no splits: {len(train)} pairs for training and {len(valid)} for validation, drawn {how}"
    return {name: listed for name, listed in (("train", train), ("valid", valid)) if listed}, [note], left_out
