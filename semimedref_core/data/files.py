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

from semimedref_core.data.cache import PictureCache, state_of
from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.reports import Report, ReportError

THREADS = 4  # Pillow decodes outside the interpreter lock
QUIET = 500  # fewer files than this need no progress bar
SHOWN = 20  # problems written out in one error message
LESION = 127  # mask values above this are lesion


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
    """A picture of any mode as ``[H, W]`` uint8 grey values. Raises DataError if missing or corrupt."""
    if not path.is_file():
        raise DataError(f"{path}: listed but missing{'' if path.parent.is_dir() else ' (as is its folder)'}")
    try:
        data = path.read_bytes()
        Image.open(io.BytesIO(data)).verify()  # checksums, which decoding alone does not look at
        return np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and others for broken files
        raise DataError(f"{path}: corrupt picture ({error})") from error


def decode(entries: Sequence[Entry], size: int, style: str, masks: bool, label: str) -> Pairs:
    """Reads all entries into memory; what is wrong with any of them is told in one message.

    Images become grey and are resized with antialiasing; a mask pixel is lesion where half its area is. What was
    decoded before, from the same files, comes from the :mod:`cache <semimedref_core.data.cache>`.

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
    files = [(entry.image, entry.mask)[: 1 + masks] for entry in entries]
    states = [state_of(each) for each in files]
    cache = PictureCache(files[0][0].parent if files else Path(), size, 1 + masks)
    kept = cache.get(states)

    def read(i: int) -> tuple[Report | None, list[str]]:
        report = None
        pictures, problems = entries[i].pictures(masks) if i not in kept else ([], [])
        try:
            report = entries[i].report(style)
        except DataError as error:
            problems.append(str(error))
        if i in kept:
            images[i] = kept[i][0]
            if masks:
                lesions[i] = kept[i][1]
        elif not problems:
            images[i] = _resize(pictures[0], size, Image.Resampling.BILINEAR)
            if masks:
                area = _resize((pictures[1] > LESION).astype(np.float32), size, Image.Resampling.BOX)
                lesions[i] = area >= 0.5
        return report, problems

    done = in_threads(read, range(len(entries)), label)
    problems = repeated(entries) + [problem for _, found in done for problem in found]
    if problems:
        more = len(problems) - SHOWN
        raise DataError(
            f"{label}: {len(problems)} problem(s); get these files again or take them off the list "
            "(`semimedref doctor` names all):\n"
            + "\n".join([*problems[:SHOWN], *([f"... and {more} more"] if more > 0 else [])])
        )
    if fresh := [i for i in range(len(entries)) if i not in kept]:
        planes = (images[fresh], lesions[fresh]) if masks else (images[fresh],)
        cache.add([files[i] for i in fresh], [states[i] for i in fresh], np.stack(planes, 1))
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
