"""Decoded pictures kept on disk, so that a dataset is decoded once and not at each start.

Each is a small PNG of its own. Its name is a digest of what it was made from: path, size and times of the file, and how
it was made. So a changed file has another name, and a damaged picture is noticed, as PNG holds checksums.

Files go to ``$SEMIMEDREF_CACHE``, by default ``~/.cache/semimedref``; if the variable is set to nothing, none are
written or read. They hold patients' pictures: what is made here can be read by its owner alone, and ``semimedref cache
--clear`` deletes it.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

FORMAT = 3  # counts up when the way pictures are made changes
_OURS = re.compile(r"[0-9a-f]{32}\.png|\.[0-9a-f]{32}-\w+\.partial")


def cache_folder() -> Path | None:
    """Where decoded pictures are kept; None if nowhere."""
    folder = os.environ.get("SEMIMEDREF_CACHE")
    if folder is None:
        return Path.home() / ".cache" / "semimedref"
    return Path(folder).expanduser() if folder else None


def kept_at(source: Path, kind: str, size: int) -> Path | None:
    """Where the decoded picture of a file is kept, or would be.

    Args:
        source: the file.
        kind: ``image``, ``colours``, ``mask``, or ``mask`` with the values that are lesion: each is made in its own
            way.
        size: height and width, px.

    Returns:
        A path; None if the file is missing or nothing is kept.
    """
    folder = cache_folder()
    try:
        about = source.stat()
    except OSError:
        return None
    # Times of the contents and of the file's entry: a copy that takes over the old time is noticed too.
    state = os.path.abspath(source), about.st_size, about.st_mtime_ns, about.st_ctime_ns
    name = blake2b(repr((FORMAT, PIL.__version__, kind, size, state)).encode(), digest_size=16).hexdigest()
    return folder and folder / f"{size}px" / name[:2] / f"{name}.png"


def read_kept(path: Path | None, size: int) -> np.ndarray | None:
    """The picture ``[size, size]`` or ``[size, size, 3]`` uint8 that is kept there; None if there is none or it is
    damaged."""
    if path is None:
        return None
    try:
        data = path.read_bytes()
        Image.open(io.BytesIO(data)).verify()  # checksums, which decoding alone does not look at
        picture = np.asarray(Image.open(io.BytesIO(data)))
    except Exception:  # Pillow raises OSError, SyntaxError, struct.error and others for broken files
        return None
    sound = picture.shape in ((size, size), (size, size, 3)) and picture.dtype == np.uint8
    return picture if sound else None


def keep(path: Path | None, picture: np.ndarray) -> None:
    """Keeps a picture ``[H, W]`` or ``[H, W, 3]`` uint8. A folder that cannot be written to is told in a
    warning; nothing is lost."""
    if path is None:
        return
    try:
        for folder in (path.parents[2], path.parents[1], path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(".partial", f".{path.stem}-", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                Image.fromarray(picture).save(file, "PNG", compress_level=1)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"{cache_folder()}: decoded pictures cannot be kept ({error.strerror}), so they are decoded at each start; "
            "set SEMIMEDREF_CACHE to a folder with room, or to nothing",
            stacklevel=2,
        )


def room_taken(folder: Path) -> tuple[int, int]:
    """The number of files that are kept in a cache folder, and their bytes."""
    sizes = [path.stat().st_size for path in _kept(folder)]
    return len(sizes), sum(sizes)


def clear(folder: Path) -> None:
    """Deletes what is kept in a cache folder, and its folders if they are then empty; whatever else is there stays."""
    paths = list(_kept(folder))
    for path in paths:
        path.unlink(missing_ok=True)
    for place in sorted({parent for path in paths for parent in path.parents[:2]}, reverse=True):
        if not any(place.iterdir()):
            place.rmdir()


def _kept(folder: Path) -> Iterator[Path]:
    """The files that :func:`keep` has written, whole or cut short by a kill."""
    for path in folder.glob("*px/*/*"):
        if _OURS.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            yield path
