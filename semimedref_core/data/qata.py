"""QaTa-COV19 from a folder, in whichever of its layouts and with whichever of its texts it comes.

======== ============================================== ==========================================
layout   image and mask folders                         where it is from
======== ============================================== ==========================================
release  ``{train,valid,test}/{images,masks}``          SGSeg and the Semi-MedRef release
lvit     ``{Train,Val,Test}_Folder/{img,labelcol}``     LViT
languide ``Images/``, ``GTs/`` for all splits           LanGuideMedSeg
======== ============================================== ==========================================

Reports are looked for in all their usual places, whatever the layout. A split is what its report table lists;
the folders may hold more files. File names are matched without case.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from semimedref_core.data.files import Entry, by_name, decode, locate
from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.reports import STYLES

SPLITS = ("train", "valid", "test")
CURE = "set SEMIMEDREF_DATA or --data to the folder that holds QaTa/ with all its splits"

_LVIT = {"train": "Train", "valid": "Val", "test": "Test"}
_FOLDERS = {  # layout: split: image folder, mask folder
    "release": {split: (f"{split}/images", f"{split}/masks") for split in SPLITS},
    "lvit": {split: (f"{name}_Folder/img", f"{name}_Folder/labelcol") for split, name in _LVIT.items()},
    "languide": {split: ("Images", "GTs") for split in SPLITS},
}
_ALL, _FIRST_FOUR, _LAST = (0, 5), (0, 4), (4, 5)
_PROMPTS = {"train": ("train.csv", _FIRST_FOUR), "valid": ("train.csv", _LAST), "test": ("test.csv", _ALL)}
_TABLES = {  # split: text version, file, which fifths of its rows; the first one found counts
    split: (
        ("lvit", f"{name}_text.xlsx", _ALL),
        ("lvit", f"{name}_Folder/{name}_text.xlsx", _ALL),
        ("lvit", f"prompt/{_PROMPTS[split][0]}", _PROMPTS[split][1]),
        ("release", "annotation.json", _ALL),
    )
    for split, name in _LVIT.items()
}


@dataclass(frozen=True)
class ReportTable:
    """A file with reports (``.xlsx``, ``.csv`` or ``.json``), and which fifths of its rows are the split."""

    path: Path
    split: str
    fifths: tuple[int, int]

    def rows(self) -> list[tuple[str, str | None, tuple[int, ...] | None]]:
        """(name, text, pseudo-label) of each entry. Raises DataError for a broken or empty table."""
        try:
            rows = self._json_rows() if self.path.suffix.lower() == ".json" else self._sheet_rows()
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
            (str(entry["image_path"]), str(entry.get("caption") or ""), _bits(entry.get("pseudo_label")))
            for entry in entries
        ]

    def _sheet_rows(self):
        excel = self.path.suffix.lower() == ".xlsx"
        sheet = pd.read_excel(self.path) if excel else pd.read_csv(self.path)
        sheet = sheet.rename(columns=lambda name: str(name).strip().lower()).dropna(how="all")
        if not {"image", "description"} <= set(sheet.columns):
            raise DataError(f"{self.path}: has columns {list(sheet.columns)}, expected Image and Description")
        if sheet["image"].isna().any():
            rows = [index + 2 for index in sheet.index[sheet["image"].isna()]]  # 1-based, below the header
            raise DataError(f"{self.path}: rows {rows} name no image; fill in the column Image")
        return [
            (str(name).strip(), str(text), None)
            for name, text in zip(sheet["image"], sheet["description"].fillna(""), strict=True)
        ]


@dataclass(frozen=True)
class SplitFiles:
    """Where one split lies: image folder, mask folder, report table by text version."""

    images: Path
    masks: Path
    tables: dict[str, ReportTable]


@dataclass(frozen=True)
class Layout:
    """A QaTa-COV19 folder as it was found.

    Attributes:
        name: ``release``, ``lvit`` or ``languide``.
        root: the folder itself.
        splits: what is there of ``train``, ``valid`` and ``test``.
    """

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
            raise DataError(f"{self.root}: no split {split!r} here, only {there}; {CURE}")
        files = self.splits[split]
        if texts not in files.tables:
            wanted = " or ".join(name for version, name, _ in _TABLES[split] if version == texts)
            there = ", ".join(files.tables) or "none"
            raise DataError(
                f"{self.root}: no {texts} texts for split {split!r} (there are: {there}); add {wanted}, or "
                "choose another text version"
            )
        images, masks = by_name(files.images), by_name(files.masks)
        entries = []
        for name, text, zones in files.tables[texts].rows():
            plain = name[5:] if name.lower().startswith("mask_") else name
            marked = f"mask_{plain}"
            image = images.get(plain.lower()) or images.get(marked.lower()) or files.images / plain
            mask = masks.get(marked.lower()) or masks.get(plain.lower()) or files.masks / marked
            entries.append(Entry(name, text, zones, image, mask))
        return entries


def find_qata(root: str | Path) -> Layout:
    """Looks which layout a folder has.

    Args:
        root: the QaTa folder, or the one that holds ``QaTa/``.

    Raises:
        DataError: no such folder, or none of the layouts in it.
    """
    for base in (locate(Path(root), "QaTa"), Path(root)):
        for name, folders in _FOLDERS.items():
            if base and any(locate(base, images) for images, _ in folders.values()):
                return Layout(name, base, _find_splits(base, folders))
    what = "holds no QaTa-COV19" if Path(root).is_dir() else "is no folder"
    known = ", or ".join(" and ".join(folders["train"]) for folders in _FOLDERS.values())
    raise DataError(f"{root}: {what} (looked for {known}); {CURE}")


def load_qata(
    root: str | Path,
    split: str,
    size: int,
    texts: str = "lvit",
    indices: Sequence[int] | None = None,
    masks: bool = True,
) -> Pairs:
    """Decodes a split, or the listed pairs at ``indices``, into memory (how: see ``files.decode``).

    Args:
        root: see :func:`find_qata`.
        split: ``train``, ``valid`` or ``test``.
        size: height and width of the result in pixels.
        texts: ``lvit`` or ``release``.
        indices: positions in the list; default all.
        masks: ``False`` neither needs nor reads the masks.

    Raises:
        DataError: everything that is wrong with the listed files and reports, in one message.
    """
    entries = find_qata(root).entries(split, texts)
    if indices is not None:
        if outside := [i for i in indices if not 0 <= i < len(entries)]:
            raise DataError(f"indices {outside} are outside the {len(entries)} entries of split {split!r}")
        entries = [entries[i] for i in indices]
    return decode(entries, size, texts, masks, f"QaTa {split}")


def _find_splits(base: Path, folders: dict[str, tuple[str, str]]) -> dict[str, SplitFiles]:
    splits = {}
    for split, (images, masks) in folders.items():
        tables: dict[str, ReportTable] = {}
        for version, place, fifths in _TABLES[split]:
            path = locate(base, place)
            if path and version not in tables and _is_about(path, split):
                tables[version] = ReportTable(path, split, fifths)
        if tables or locate(base, images):
            splits[split] = SplitFiles(
                locate(base, images) or base / images, locate(base, masks) or base / masks, tables
            )
    return splits


def _is_about(path: Path, split: str) -> bool:
    """Whether a table lists this split; annotation.json may not. A broken one counts: reading it tells."""
    try:
        return path.suffix.lower() != ".json" or split in json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError):
        return True


def _bits(zones) -> tuple[int, ...] | None:
    return tuple(int(bit) for bit in zones) if zones else None
