"""From listed files to pairs, for all datasets that are folders of pictures with a table of reports."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from semimedref_core._progress import progress
from semimedref_core.config import MaskValue
from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.data.real.cache import keep, kept_at, read_kept
from semimedref_core.data.real.pictures import NO_VALUES, read_colour, read_grey, read_mask
from semimedref_core.data.real.wording import against_itself, counted
from semimedref_core.positions import AnyReport
from semimedref_core.reports import Report, ReportError

THREADS = 4  # Pillow decodes without the interpreter lock
QUIET = 500  # fewer files show no progress
SHOWN = 20  # largest number of problems in one error message
JUNK = ("thumbs.db", "desktop.ini", "__macosx")  # left in folders by other systems, besides dot files


@dataclass(frozen=True)
class Entry:
    """One line of a report table, with its files, which may be missing.

    Attributes:
        name: the name in the table.
        text: the report; empty if the table has none.
        zones: the table's own positional pseudo-label, if it has one.
        image, mask: the two files.
    """

    name: str
    text: str
    zones: tuple[int, ...] | None
    image: Path
    mask: Path

    differing: ClassVar[str] = "pseudo-label(s) contradict their text; the text is taken"

    def report(self, style: str) -> AnyReport:
        """The parsed report. Raises a DataError that names the entry and the text."""
        if not self.text.strip():
            raise DataError(f"{self.name}: listed without a report")
        try:
            return Report.parse(self.text, style)
        except ReportError as error:
            raise DataError(f"{self.name}: {error}") from None

    def contradiction(self, report: AnyReport) -> str | None:
        """How the pseudo-label differs from the zones of the text; None if they are equal. The zones of the text are
        used."""
        if self.zones in (None, report.zones):
            return None
        return f"{self.name}: pseudo-label {list(self.zones)}, but the text {self.text!r} gives {list(report.zones)}"

    def against_itself(self, report: AnyReport) -> list[str]:
        """The contradictions of the report with itself; see :func:`.wording.against_itself`."""
        return against_itself(report)

    def pictures(
        self, masks: bool = True, lesion: Mapping[MaskValue, bool] = NO_VALUES, colours: bool = False
    ) -> tuple[list[np.ndarray], list[str]]:
        """Image ``[H, W]`` uint8 and (on request) mask ``[H, W]`` bool at full size, and all their problems.

        Args:
            masks: whether to read the mask.
            lesion: the mask values that mean lesion, and those that do not; see :func:`.pictures.read_mask`.
            colours: whether the image is ``[H, W, 3]``, red, green and blue.
        """
        pictures, problems = [], []
        read_image = read_colour if colours else read_grey
        for read in (lambda: read_image(self.image), lambda: read_mask(self.mask, lesion))[: 1 + masks]:
            try:
                pictures.append(read())
            except DataError as error:
                problems.append(str(error))
        if masks and not problems:
            image, mask = pictures
            if image.shape[:2] != mask.shape:
                problems.append(f"{self.mask}: mask of {_size(mask)} pixels for an image of {_size(image)}")
        return pictures, problems


def decode(
    entries: Sequence[Entry],
    size: int,
    style: str,
    masks: bool,
    label: str,
    lesion: Mapping[MaskValue, bool] = NO_VALUES,
    colours: bool = False,
) -> Pairs:
    """Reads all entries into memory. One message reports the problems of all entries.

    Images become grey (or keep their ``colours``) and are resized with antialiasing. A mask pixel is lesion if at least
    half of its area is lesion. Files that were decoded before come from the :mod:`cache
    <semimedref_core.data.real.cache>`.

    Args:
        entries: entries to read, in this order.
        size: height and width of the result in pixels.
        style: style of the reports, ``lvit`` or ``release``.
        masks: ``False`` neither needs nor reads the masks.
        label: name of the data in the progress bar and the message.
        lesion: the mask values that mean lesion, and those that do not; see :func:`.pictures.read_mask`.
        colours: whether images keep their colours.

    It warns of pseudo-labels that contradict their text, with all names, and of reports that contradict themselves.

    Raises:
        DataError: lists the first 20 problems and their number.
    """
    if size < 1:
        raise DataError(f"size must be at least 1 pixel, got {size}")
    shape = (len(entries), size, size)
    images = np.zeros((*shape, 3) if colours else shape, np.uint8)
    lesions = np.zeros(shape, np.uint8) if masks else None

    def read(i: int) -> tuple[AnyReport | None, list[str]]:
        report, problems = None, []
        places = [
            kept_at(entries[i].image, "colours" if colours else "image", size),
            *([kept_at(entries[i].mask, f"mask {dict(lesion)}" if lesion else "mask", size)] if masks else []),
        ]
        pictures = [read_kept(place, size) for place in places]
        fresh = any(picture is None for picture in pictures)
        if fresh:
            pictures, problems = entries[i].pictures(masks, lesion, colours)
        try:
            report = entries[i].report(style)
        except DataError as error:
            problems.append(str(error))
        if problems:
            return report, problems
        if fresh:
            pictures[0] = _resize(pictures[0], size, Image.Resampling.BILINEAR)
            if masks:
                area = _resize(pictures[1].astype(np.float32), size, Image.Resampling.BOX)
                pictures[1] = (area >= 0.5).astype(np.uint8)
            for place, picture in zip(places, pictures, strict=True):
                keep(place, picture)
        images[i] = pictures[0]
        if masks:
            lesions[i] = pictures[1]
        return report, []

    done = in_threads(read, range(len(entries)), label)
    problems = repeated(entries) + [problem for _, found in done for problem in found]
    if problems:
        more = len(problems) - SHOWN
        raise DataError(
            f"{label}: {len(problems)} problem(s); get these files again or take them off the list "
            "(`semimedref doctor` names all):\n"
            + "\n".join([*problems[:SHOWN], *([f"... and {more} more"] if more > 0 else [])])
        )
    reports = tuple(report for report, _ in done)
    if differ := [
        said for entry, report in zip(entries, reports, strict=True) if (said := entry.contradiction(report))
    ]:
        differ.insert(0, f"{label}: {len(differ)} {entries[0].differing}")
        warnings.warn("\n".join(differ), stacklevel=3)
    itself = [entry.against_itself(report) for entry, report in zip(entries, reports, strict=True)]
    if told := counted(itself):
        warnings.warn(
            f"{label}: {told}; the zones of the phrases are taken, and `semimedref doctor` names all", stacklevel=3
        )
    return Pairs(images, lesions, reports, tuple(entry.name for entry in entries))


def repeated(entries: Sequence[Entry]) -> list[str]:
    """A problem for each image that is listed more than once."""
    counts = Counter(str(entry.image) for entry in entries)
    return [f"{image}: listed {count} times" for image, count in counts.items() if count > 1]


def in_threads(function, items: Sequence, label: str) -> list:
    """``[function(item) for item in items]`` in a few threads; shows the progress of long lists."""
    results = []
    with (
        ThreadPoolExecutor(THREADS) as pool,
        progress(len(items), label, shown=len(items) >= QUIET, unit="pair") as bar,
    ):
        for result in pool.map(function, items):
            results.append(result)
            bar.update()
    return results


def locate(folder: Path, relative: str) -> Path | None:
    """The file or folder at a relative path, matched without letter case; None if there is none."""
    for part in relative.lower().split("/"):
        folder = by_name(folder).get(part)
        if folder is None:
            return None
    return folder


def by_name(folder: Path) -> dict[str, Path]:
    """The contents of a folder by lower-case name, without :data:`JUNK`; empty if it is not a folder.

    Raises:
        DataError: if two names differ only in letter case, so that a table could mean both.
    """
    found: dict[str, Path] = {}
    for path in listed(folder):
        name = path.name.lower()
        if name in found:
            raise DataError(f"{folder}: holds {found[name].name} and {path.name}, which differ in case alone; keep one")
        found[name] = path
    return found


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, without :data:`JUNK`; none if the folder cannot be read."""
    try:
        return [path for path in listed(folder) if path.is_dir()]
    except DataError:
        return []


def listed(folder: Path) -> list[Path]:
    """The contents of a folder, sorted, without dot files and :data:`JUNK`; empty if it is not a folder.

    Raises:
        DataError: if the folder cannot be read.
    """
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise DataError(f"{folder}: cannot be looked into ({error.strerror}); check its rights") from None
    return [path for path in paths if not path.name.startswith(".") and path.name.lower() not in JUNK]


def _resize(picture: np.ndarray, size: int, how: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((size, size), how))


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
