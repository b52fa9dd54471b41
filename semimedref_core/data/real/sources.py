"""Datasets that are folders of pictures with tables of reports: finds, lists and decodes them.

A :class:`Source` says where a dataset keeps its files; :mod:`qata <semimedref_core.data.real.qata>` and :mod:`mosmed
<semimedref_core.data.real.mosmed>` define one each. File names are matched without letter case, and tables may omit the
ending ``.png``. The table of a split lists its pairs; the folders may hold more files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from semimedref_core.config import mask_values as values_of
from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.data.real.files import Entry, by_name, decode, folders_in, locate
from semimedref_core.data.real.report_tables import ReportTable
from semimedref_core.reports import STYLES

SPLITS = ("train", "valid", "test")
LVIT_NAMES = {"train": "Train", "valid": "Val", "test": "Test"}
MARK = "mask_"  # prefix of a mask's name, before the image's name
DEPTH = 3  # depth of nested folders that are searched for a dataset


def lvit_folders(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Folders of images and of masks of a split in LViT's layout, which later projects share."""
    return (f"{name}_Folder/img", f"{name}_Folder/images"), (f"{name}_Folder/labelcol", f"{name}_Folder/labels")


@dataclass(frozen=True)
class SplitFiles:
    """The places of one split: image folder, mask folder, and text version -> report table."""

    images: Path
    masks: Path
    tables: dict[str, ReportTable]


@dataclass(frozen=True)
class Layout:
    """A dataset's folder with its layout.

    Attributes:
        source: the dataset.
        name: name of the layout, such as ``lvit``.
        root: the folder itself.
        splits: the existing ones of ``train``, ``valid`` and ``test``.
    """

    source: Source
    name: str
    root: Path
    splits: dict[str, SplitFiles]

    def entries(self, split: str, texts: str = "lvit") -> list[Entry]:
        """The entries of the split's report table, in file order. No picture is opened.

        Raises:
            DataError: for an unknown or absent split or text version, an unreadable table, or an empty split.
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
    """A dataset: its name, and all known places of its files.

    Attributes:
        key: its name in settings.
        title: its name in messages.
        holders: possible names of its folder.
        folders: layout -> split -> folders of images and folders of masks; the first existing one of each is used.
        tables: split -> (text version, file, fifths of its rows); the first existing file of each version is used.
        marked_masks: whether masks are called ``mask_<image name>``; otherwise they have the names of the images.
        sizes: published number of pairs by split.
        patient: a pattern for the start of file names; its only group is the patient.
        left_is_left_half: whether "left" in its reports is known to mean the left half of the image.
        stand_in: the phantom that looks like this dataset.
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
        """What to do if its files are missing."""
        return (
            f"set SEMIMEDREF_DATA or --data to the folder that holds {self.holders[0]}/ with all its splits; "
            f"the dataset {self.stand_in} needs no files and can stand in"
        )

    def find(self, root: str | Path) -> Layout:
        """Finds the layout of a folder.

        Args:
            root: the dataset's folder, or the one that holds it.

        A nested folder, as unzipping makes it, is found too if it is the only one.

        Raises:
            DataError: if there is no such folder, no known layout in it, or more than one dataset.
        """
        root = Path(root)
        for base in (*(locate(root, holder) for holder in self.holders), root):
            if base and (layout := self._layout(base)):
                return layout
        level = [root]
        for _ in range(DEPTH):
            level = [folder for above in level for folder in folders_in(above)]
            found = [layout for folder in level if (layout := self._sure_layout(folder))]
            if len(found) > 1:
                which = " and ".join(str(layout.root) for layout in found)
                raise DataError(f"{root}: holds {self.title} more than once ({which}); name one of these folders")
            if found:
                return found[0]
        what = f"holds no {self.title}" if root.is_dir() else "is not a folder"
        known = ", or ".join(
            " and ".join("|".join(places) for places in folders["train"]) for folders in self.folders.values()
        )
        there = [folder.name for folder in folders_in(root)]
        seen = f"; folders there: {', '.join(there[:8])}{', ...' if len(there) > 8 else ''}" if there else ""
        raise DataError(f"{root}: {what} (looked for {known}{seen}); {self.cure}")

    def _layout(self, base: Path) -> Layout | None:
        """The layout of this folder itself; a layout with masks is preferred."""
        there = [name for name, folders in self.folders.items() if any(_first(base, i) for i, _ in folders.values())]
        whole = [name for name in there if any(_first(base, m) for _, m in self.folders[name].values())]
        for name in (*whole, *there):
            layout = Layout(self, name, base, self._splits(base, self.folders[name]))
            if self.marked_masks or not _marked(layout):
                return layout
        return None

    def _sure_layout(self, base: Path) -> Layout | None:
        """The layout of a folder that was found by searching, if its contents can only be this dataset."""
        try:
            layout = self._layout(base)
        except DataError:
            return None
        sure = _marked if self.marked_masks else lambda found: any(files.tables for files in found.splits.values())
        return layout if layout and sure(layout) else None

    def load(
        self,
        root: str | Path,
        split: str,
        size: int,
        texts: str = "lvit",
        indices: Sequence[int] | None = None,
        masks: bool = True,
        mask_values: str = "",
    ) -> Pairs:
        """Decodes a split, or the listed pairs at ``indices``, into memory; see ``files.decode``.

        Args:
            root: see :meth:`find`.
            split: ``train``, ``valid`` or ``test``.
            size: height and width of the result in pixels.
            texts: ``lvit`` or ``release``.
            indices: positions in the list; by default all.
            masks: ``False`` neither needs nor reads the masks.
            mask_values: the mask values that mean lesion; see :func:`semimedref_core.config.mask_values`.

        Raises:
            DataError: names all problems of the listed files and reports, in one message.
        """
        entries = self.find(root).entries(split, texts)
        if indices is not None:
            if outside := [i for i in indices if not 0 <= i < len(entries)]:
                raise DataError(f"indices {outside} are outside the {len(entries)} entries of split {split!r}")
            entries = [entries[i] for i in indices]
        return decode(entries, size, texts, masks, f"{self.title} {split}", values_of(mask_values))

    def patient_of(self, name: str) -> str | None:
        """The patient in a file name, in lower case; None if the name has none."""
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


def _first(base: Path, places: Sequence[str]) -> Path | None:
    """The first of these folders or files that exists."""
    return next((path for place in places if (path := locate(base, place))), None)


def _marked(layout: Layout) -> bool:
    """Whether the names of masks begin with ``mask_``."""
    folders = {files.masks for files in layout.splits.values()}
    return any(name.startswith(MARK) for folder in folders for name in by_name(folder))


def _file(files: Mapping[str, Path], name: str) -> Path | None:
    return files.get(name.lower()) or files.get(f"{name.lower()}.png")
