"""Datasets that are folders of pictures with tables of reports: found by looking, listed, decoded.

A :class:`Source` says where a dataset keeps its files; :mod:`qata <semimedref_core.data.real.qata>` and
:mod:`mosmed <semimedref_core.data.real.mosmed>` are one each. File names are matched without case, and the ending
``.png`` may be missing in a table. A split is what its table lists; the folders may hold more files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.data.real.files import Entry, by_name, decode, locate
from semimedref_core.reports import STYLES

SPLITS = ("train", "valid", "test")
LVIT_NAMES = {"train": "Train", "valid": "Val", "test": "Test"}
ALL, FIRST_FOUR, LAST = (0, 5), (0, 4), (4, 5)  # fifths of a table's rows
MARK = "mask_"  # before the image's name, in the name of a mask
_TEXT_COLUMNS = ("description", "text")


@dataclass(frozen=True)
class ReportTable:
    """A file with reports (``.xlsx``, ``.csv`` or ``.json``), and which fifths of its rows are the split."""

    path: Path
    split: str
    fifths: tuple[int, int] = ALL

    def rows(self) -> list[tuple[str, str, tuple[int, ...] | None]]:
        """(name, text, pseudo-label) of each entry. Raises DataError for a broken or empty table."""
        try:
            about = self.path.stat()  # a load asks for the same table several times, and a spreadsheet takes seconds
            rows = _table_rows(self, about.st_size, about.st_mtime_ns)
        except DataError:
            raise
        except Exception as error:  # zip, XML, CSV, JSON and encoding errors share no base class
            raise DataError(f"{self.path}: no readable table of reports ({error!r}); get the file again") from error
        start, stop = (len(rows) * fifth // 5 for fifth in self.fifths)
        if start == stop:
            raise DataError(f"{self.path}: empty split, nothing is listed for {self.split!r}")
        return rows[start:stop]

    def _json_rows(self):
        entries = json.loads(self.path.read_text(encoding="utf-8"))[self.split]
        return [
            (str(entry["image_path"]), str(entry.get("caption") or ""), _bits(entry.get("pseudo_label") or ""))
            for entry in entries
        ]

    def _sheet_rows(self):
        excel = self.path.suffix.lower() == ".xlsx"
        sheet = pd.read_excel(self.path) if excel else pd.read_csv(self.path, encoding="utf-8-sig")
        sheet = sheet.rename(columns=lambda name: str(name).strip().lower()).dropna(how="all")
        text = next((column for column in _TEXT_COLUMNS if column in sheet.columns), None)
        if "image" not in sheet.columns or text is None:
            raise DataError(f"{self.path}: has columns {list(sheet.columns)}, expected Image and Description (or text)")
        if sheet["image"].isna().any():
            rows = [index + 2 for index in sheet.index[sheet["image"].isna()]]  # 1-based, below the header
            raise DataError(f"{self.path}: rows {rows} name no image; fill in the column Image")
        zones = sheet["pseudo_label"].fillna("") if "pseudo_label" in sheet.columns else [""] * len(sheet)
        return [
            (str(name).strip(), str(text), _bits(label))
            for name, text, label in zip(sheet["image"], sheet[text].fillna(""), zones, strict=True)
        ]

    def is_about_split(self) -> bool:
        """Whether it lists its split; a ``.json`` of all splits may not. A broken one counts: reading it tells."""
        try:
            return self.path.suffix.lower() != ".json" or self.split in json.loads(
                self.path.read_text(encoding="utf-8")
            )
        except (ValueError, TypeError):
            return True


@dataclass(frozen=True)
class SplitFiles:
    """Where one split lies: image folder, mask folder, report table by text version."""

    images: Path
    masks: Path
    tables: dict[str, ReportTable]


@dataclass(frozen=True)
class Layout:
    """A dataset's folder as it was found.

    Attributes:
        source: the dataset.
        name: of the layout, such as ``lvit``.
        root: the folder itself.
        splits: what is there of ``train``, ``valid`` and ``test``.
    """

    source: Source
    name: str
    root: Path
    splits: dict[str, SplitFiles]

    def entries(self, split: str, texts: str = "lvit") -> list[Entry]:
        """What the split's report table lists, in file order; no picture is opened.

        Raises:
            DataError: unknown or absent split or text version, unreadable table, empty split.
        """
        if texts not in STYLES:
            raise DataError(f"unknown text version {texts!r}; choose one of {', '.join(STYLES)}")
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
        if split not in self.splits:
            there = ", ".join(self.splits)
            raise DataError(f"{self.root}: no split {split!r} here, only {there}; {self.source.cure}")
        files = self.splits[split]
        if texts not in files.tables:
            wanted = " or ".join(place for version, place, _ in self.source.tables[split] if version == texts)
            there = ", ".join(files.tables) or "none"
            raise DataError(
                f"{self.root}: no {texts} texts for split {split!r} (there are: {there}); "
                f"{f'add {wanted}, or ' if wanted else ''}choose another text version"
            )
        images, masks = by_name(files.images), by_name(files.masks)
        entries = []
        for name, text, zones in files.tables[texts].rows():
            plain = name[len(MARK) :] if name.lower().startswith(MARK) else name
            mask = MARK + plain if self.source.marked_masks else plain
            entries.append(
                Entry(
                    name,
                    text,
                    zones,
                    _file(images, plain) or _file(images, MARK + plain) or files.images / plain,
                    _file(masks, mask) or _file(masks, plain) or files.masks / mask,
                )
            )
        return entries


@dataclass(frozen=True)
class Source:
    """A dataset: its name, and all places where its files have been met.

    Attributes:
        key: its name as a setting.
        title: its name in messages.
        holders: names that its folder may have.
        folders: layout -> split -> folders of images and folders of masks; of each, the first one found counts.
        tables: split -> (text version, file, which fifths of its rows); of each version, the first one found counts.
        marked_masks: whether masks are called ``mask_<image name>``, or as the images.
        sizes: published number of pairs by split.
        patient: what comes first in the file names of one patient, as a pattern with one group.
        left_is_left_half: whether it is known that "left" in its reports is the left half of the image.
        stand_in: the phantom that looks like it.
    """

    key: str
    title: str
    holders: tuple[str, ...]
    folders: Mapping[str, Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]]
    tables: Mapping[str, tuple[tuple[str, str, tuple[int, int]], ...]]
    marked_masks: bool
    sizes: Mapping[str, int]
    patient: str
    left_is_left_half: bool
    stand_in: str

    @property
    def cure(self) -> str:
        """What to do where its files are not there."""
        return (
            f"set SEMIMEDREF_DATA or --data to the folder that holds {self.holders[0]}/ with all its splits; "
            f"the dataset {self.stand_in} needs no files and can stand in"
        )

    def find(self, root: str | Path) -> Layout:
        """Looks which layout a folder has.

        Args:
            root: the dataset's folder, or the one that holds it.

        Raises:
            DataError: no such folder, or none of the layouts in it.
        """
        for base in (*(locate(Path(root), holder) for holder in self.holders), Path(root)):
            for name, folders in self.folders.items():
                if base and any(_first(base, images) for images, _ in folders.values()):
                    layout = Layout(self, name, base, self._splits(base, folders))
                    if self.marked_masks or not _marked(layout):
                        return layout
        what = f"holds no {self.title}" if Path(root).is_dir() else "is no folder"
        known = ", or ".join(
            " and ".join("|".join(places) for places in folders["train"]) for folders in self.folders.values()
        )
        raise DataError(f"{root}: {what} (looked for {known}); {self.cure}")

    def load(
        self,
        root: str | Path,
        split: str,
        size: int,
        texts: str = "lvit",
        indices: Sequence[int] | None = None,
        masks: bool = True,
    ) -> Pairs:
        """Decodes a split, or the listed pairs at ``indices``, into memory (how: see ``files.decode``).

        Args:
            root: see :meth:`find`.
            split: ``train``, ``valid`` or ``test``.
            size: height and width of the result in pixels.
            texts: ``lvit`` or ``release``.
            indices: positions in the list; default all.
            masks: ``False`` neither needs nor reads the masks.

        Raises:
            DataError: everything that is wrong with the listed files and reports, in one message.
        """
        entries = self.find(root).entries(split, texts)
        if indices is not None:
            if outside := [i for i in indices if not 0 <= i < len(entries)]:
                raise DataError(f"indices {outside} are outside the {len(entries)} entries of split {split!r}")
            entries = [entries[i] for i in indices]
        return decode(entries, size, texts, masks, f"{self.title} {split}")

    def patient_of(self, name: str) -> str | None:
        """The patient that a file name tells, in lower case; None where it tells none."""
        match = re.match(self.patient, name.lower().removeprefix(MARK))
        return match.group(1) if match else None

    def _splits(self, base: Path, folders) -> dict[str, SplitFiles]:
        splits = {}
        for split, (images, masks) in folders.items():
            tables: dict[str, ReportTable] = {}
            for version, place, fifths in self.tables[split]:
                path = locate(base, place)
                if path and version not in tables and (table := ReportTable(path, split, fifths)).is_about_split():
                    tables[version] = table
            if tables or _first(base, images):
                splits[split] = SplitFiles(
                    _first(base, images) or base / images[0], _first(base, masks) or base / masks[0], tables
                )
        return splits


@lru_cache(maxsize=8)
def _table_rows(table: ReportTable, size: int, changed: int) -> list[tuple[str, str, tuple[int, ...] | None]]:
    """All rows of a table, read once for each state of its file."""
    return table._json_rows() if table.path.suffix.lower() == ".json" else table._sheet_rows()


def _first(base: Path, places: Sequence[str]) -> Path | None:
    """The first of these folders or files that is there."""
    return next((path for place in places if (path := locate(base, place))), None)


def _marked(layout: Layout) -> bool:
    """Whether a mask's name begins with ``mask_``."""
    folders = {files.masks for files in layout.splits.values()}
    return any(name.startswith(MARK) for folder in folders for name in by_name(folder))


def _file(files: Mapping[str, Path], name: str) -> Path | None:
    return files.get(name.lower()) or files.get(f"{name.lower()}.png")


def _bits(label) -> tuple[int, ...] | None:
    """A pseudo-label, a list or one written out, as integers (malformed: other than six); None for an empty one."""
    return tuple(int(bit) for bit in re.findall(r"\d+", str(label))) if label else None
