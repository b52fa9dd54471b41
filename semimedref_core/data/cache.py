"""Decoded pictures kept on disk, so that a dataset is decoded once and not at each start.

One file holds the pictures of one folder at one size, as a table of rows that is mapped into memory. A row is one image
(with its mask, if that was wanted) and knows of which files it was made: their names, sizes and times of change. A row
whose files have changed, or whose bytes are not those that were written, is not used, and its files are decoded anew.
Only pictures without a fault are kept.

Files go to ``$SEMIMEDREF_CACHE``, by default ``~/.cache/semimedref``; if the variable is set to nothing, none are
written or read. They hold patients' pictures: delete them with the data.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import PIL

FORMAT = 1  # counts up when rows, or the way pictures are made, change
LEFT_OVER = 24 * 60 * 60  # seconds after which an unfinished file was left by a process that is gone


def cache_folder() -> Path | None:
    """Where decoded pictures are kept; None if nowhere."""
    folder = os.environ.get("SEMIMEDREF_CACHE")
    if folder is None:
        return Path.home() / ".cache" / "semimedref"
    return Path(folder) if folder else None


class PictureCache:
    """The kept pictures of one folder at one size.

    Safe with any number of processes: a file is never changed, only replaced by a whole one, and a row says itself
    whether it is valid. Of two processes that write at once the later one wins, which costs the other's rows, no more.

    Args:
        folder: the folder of the images.
        size: height and width, px.
        planes: 1 for images alone, 2 with masks.
    """

    def __init__(self, folder: Path, size: int, planes: int):
        self.row = np.dtype(
            [("files", "V16"), ("state", "V16"), ("sum", "<u4"), ("pictures", "u1", (planes, size, size))]
        )
        place = cache_folder()
        about = (FORMAT, PIL.__version__, os.path.abspath(folder), size, planes)
        name = f"{folder.parent.name}-{folder.name}-{size}px-{'masks' if planes == 2 else 'images'}"
        self.path = place and place / f"{name}-{_digest(about).hex()[:12]}.npy"

    def get(self, states: Sequence[bytes | None]) -> dict[int, np.ndarray]:
        """What is kept and valid: position in ``states`` -> pictures ``[planes, size, size]`` uint8.

        Args:
            states: of each row's files, as :func:`state_of` tells it now.
        """
        rows = self._rows()
        where = {state: k for k, state in enumerate(rows["state"].tolist())}
        found = {}
        for i, state in enumerate(states):
            k = where.get(state)
            if k is not None and zlib.crc32(rows["pictures"][k]) == rows["sum"][k]:
                found[i] = rows["pictures"][k]
        return found

    def add(self, files: Sequence[tuple[Path, ...]], states: Sequence[bytes], pictures: np.ndarray) -> None:
        """Keeps rows ``pictures`` [n, planes, size, size] beside those there are, in place of older ones of the files.

        A folder that cannot be written to is told in a warning; nothing else is lost.

        Args:
            files: of each row the image, or image and mask.
            states: what :func:`state_of` told of them before they were read.
            pictures: the rows.
        """
        if self.path is None or not len(files):
            return
        new = np.zeros(len(files), self.row)
        new["files"] = [np.void(_digest([str(path) for path in each])) for each in files]
        new["state"] = [np.void(state) for state in states]
        new["pictures"] = pictures
        new["sum"] = [zlib.crc32(row) for row in new["pictures"]]
        old = self._rows()
        replaced = set(new["files"].tolist())
        kept = [k for k, name in enumerate(old["files"].tolist()) if name not in replaced]
        try:
            self._write(np.concatenate([old[kept], new]))
        except OSError as error:
            warnings.warn(
                f"{self.path}: decoded pictures cannot be kept ({error}), so they are decoded at each start; "
                "set SEMIMEDREF_CACHE to a folder with room, or to nothing",
                stacklevel=2,
            )

    def _rows(self) -> np.ndarray:
        """The rows there are, mapped; none if the file is missing, cut short or not ours."""
        if self.path is not None:
            try:
                rows = np.load(self.path, mmap_mode="r", allow_pickle=False)
                if rows.dtype == self.row and rows.ndim == 1:
                    return rows
            except Exception:  # a damaged header makes numpy raise OSError, ValueError, TokenError and others
                pass
        return np.zeros(0, self.row)

    def _write(self, rows: np.ndarray) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for left in self.path.parent.glob(".*.partial"):
            if time.time() - left.stat().st_mtime > LEFT_OVER:
                left.unlink(missing_ok=True)
        handle, temporary = tempfile.mkstemp(".partial", f".{self.path.stem}-", self.path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, rows)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            Path(temporary).unlink(missing_ok=True)


def state_of(files: Sequence[Path]) -> bytes | None:
    """What tells these files from any changed or other ones, 16 bytes; None if one is missing.

    That is: names, sizes, and times of the last change of contents and of the file's entry, so that a copy that takes
    over the old time is noticed too.
    """
    try:
        found = [(os.path.abspath(path), path.stat()) for path in files]
    except OSError:
        return None
    return _digest([(name, about.st_size, about.st_mtime_ns, about.st_ctime_ns) for name, about in found])


def _digest(value) -> bytes:
    return blake2b(repr(value).encode(), digest_size=16).digest()
