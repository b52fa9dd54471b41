"""From listed files to pairs: shared by all datasets that are folders of pictures and a table of reports."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.data.real.cache import keep, kept_at, read_kept
from semimedref_core.reports import Report, ReportError

THREADS = 4  # Pillow decodes outside the interpreter lock
QUIET = 500  # fewer files than this need no progress bar
SHOWN = 20  # problems written out in one error message
LESION = 127  # mask values above this are lesion
DEPTHS = (8, 10, 12, 14, 16)  # bits of a grey value


@dataclass(frozen=True)
class Entry:
    """One line of a report table, with the files it means (which need not be there).

    Attributes:
        name: as the table spells it.
        text: the report; empty where the table has none.
        zones: the table's own positional pseudo-label, if it has one.
        image, mask: the two files.
    """

    name: str
    text: str
    zones: tuple[int, ...] | None
    image: Path
    mask: Path

    def report(self, style: str) -> Report:
        """The parsed report. Raises DataError naming the entry and the text."""
        if not self.text.strip():
            raise DataError(f"{self.name}: listed without a report")
        try:
            return Report.parse(self.text, style)
        except ReportError as error:
            raise DataError(f"{self.name}: {error}") from None

    def contradiction(self, report: Report) -> str | None:
        """How the pseudo-label differs from the zones of the text, which are the ones used; None if it does not."""
        if self.zones in (None, report.zones):
            return None
        return f"{self.name}: pseudo-label {list(self.zones)}, but the text {self.text!r} gives {list(report.zones)}"

    def pictures(self, masks: bool = True) -> tuple[list[np.ndarray], list[str]]:
        """Image and (if wanted) mask at full size, ``[H, W]`` uint8 each, and all that is wrong with them."""
        pictures, problems = [], []
        for path in (self.image, self.mask)[: 1 + masks]:
            try:
                pictures.append(read_grey(path))
            except DataError as error:
                problems.append(str(error))
        if masks and not problems:
            image, mask = pictures
            if image.shape != mask.shape:
                problems.append(f"{self.mask}: mask of {_size(mask)} pixels for an image of {_size(image)}")
            if 0 < mask.max() <= LESION:
                problems.append(f"{self.mask}: brightest value {mask.max()}; lesion must be 255, background 0")
        return pictures, problems


def read_grey(path: Path) -> np.ndarray:
    """A picture of any mode as ``[H, W]`` uint8 grey values.

    A picture of more than 8 bits is scaled from the fewest bits that hold its brightest value, so that 12 bits in a
    file of 16 keep their grey levels.

    Raises:
        DataError: if it is missing or corrupt, or holds values that have no place between black and white.
    """
    if not path.is_file():
        raise DataError(f"{path}: listed but missing{'' if path.parent.is_dir() else ' (as is its folder)'}")
    try:
        data = path.read_bytes()
        Image.open(io.BytesIO(data)).verify()  # checksums, which decoding alone does not look at
        picture = Image.open(io.BytesIO(data))
        deep = picture.mode.startswith(("I", "F"))  # other modes have 8 bits a channel
        values = np.asarray(picture if deep else picture.convert("L"))
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and others for broken files
        raise DataError(f"{path}: corrupt picture ({error})") from error
    return _to_8_bits(values, path) if deep else values


def _to_8_bits(values: np.ndarray, path: Path) -> np.ndarray:
    low, high = values.min(), values.max()
    if np.issubdtype(values.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    depth = next((bits for bits in DEPTHS if high < 2**bits), None)
    if not np.isfinite([low, high]).all() or low < 0 or depth is None:
        raise DataError(
            f"{path}: holds values from {low:g} to {high:g}; save it as grey of 8 or 16 bits, or as numbers from 0 to 1"
        )
    return np.rint(values.astype(np.float64) * (255 / (2**depth - 1))).astype(np.uint8)


def decode(entries: Sequence[Entry], size: int, style: str, masks: bool, label: str) -> Pairs:
    """Reads all entries into memory; what is wrong with any of them is told in one message.

    Images become grey and are resized with antialiasing; a mask pixel is lesion where half its area is. What was
    decoded before, from the same files, comes from the :mod:`cache <semimedref_core.data.real.cache>`.

    Args:
        entries: what to read, in this order.
        size: height and width of the result in pixels.
        style: of the reports, ``lvit`` or ``release``.
        masks: ``False`` neither needs nor reads the masks.
        label: of the progress bar and the message.

    Warns of pseudo-labels that contradict their text, all by name.

    Raises:
        DataError: naming the first 20 problems and their number.
    """
    if size < 1:
        raise DataError(f"size must be at least 1 pixel, got {size}")
    shape = (len(entries), size, size)
    images, lesions = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8) if masks else None

    def read(i: int) -> tuple[Report | None, list[str]]:
        report, problems = None, []
        places = [
            kept_at(entries[i].image, "image", size),
            *([kept_at(entries[i].mask, "mask", size)] if masks else []),
        ]
        pictures = [read_kept(place, size) for place in places]
        fresh = any(picture is None for picture in pictures)
        if fresh:
            pictures, problems = entries[i].pictures(masks)
        try:
            report = entries[i].report(style)
        except DataError as error:
            problems.append(str(error))
        if problems:
            return report, problems
        if fresh:
            pictures[0] = _resize(pictures[0], size, Image.Resampling.BILINEAR)
            if masks:
                area = _resize((pictures[1] > LESION).astype(np.float32), size, Image.Resampling.BOX)
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
        differ.insert(0, f"{label}: {len(differ)} pseudo-label(s) contradict their text; the text is taken")
        warnings.warn("\n".join(differ), stacklevel=3)
    return Pairs(images, lesions, reports, tuple(entry.name for entry in entries))


def repeated(entries: Sequence[Entry]) -> list[str]:
    """A problem for each image that is listed more than once."""
    counts = Counter(str(entry.image) for entry in entries)
    return [f"{image}: listed {count} times" for image, count in counts.items() if count > 1]


def in_threads(function, items: Sequence, label: str) -> list:
    """``[function(item) for item in items]`` on a few threads, with a progress bar for long lists."""
    with ThreadPoolExecutor(THREADS) as pool:
        done = pool.map(function, items)
        return list(tqdm(done, label, len(items), unit="pair", disable=len(items) < QUIET))


def locate(folder: Path, relative: str) -> Path | None:
    """The file or folder at a relative path, matched without case; None if there is none."""
    for part in relative.lower().split("/"):
        folder = by_name(folder).get(part)
        if folder is None:
            return None
    return folder


def by_name(folder: Path) -> dict[str, Path]:
    """What a folder holds, by lower-case name; nothing if it is no folder."""
    return {path.name.lower(): path for path in folder.iterdir()} if folder.is_dir() else {}


def _resize(picture: np.ndarray, size: int, how: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((size, size), how))


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
