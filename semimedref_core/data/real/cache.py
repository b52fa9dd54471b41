"""A disk cache of decoded pictures, so that a dataset is decoded once and not at each start.

Each picture is a small PNG file. Its name is a digest of its source (path, size and times of the file) and of the way
it was made. So a changed source gets another name. PNG has checksums, so damaged files are detected.

Files go to ``$SEMIMEDREF_CACHE``, by default ``~/.cache/semimedref``. If the variable is empty, no files are written or
read. The files hold patients' pictures. Only their owner can read them, and ``semimedref cache --clear`` deletes them.
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

FORMAT = 4  # rises when the way of making pictures changes
_OURS = re.compile(r"[0-9a-f]{32}\.png|\.[0-9a-f]{32}-\w+\.partial")


def cache_folder() -> Path | None:
    """The folder of the cache; None if there is no cache."""
    folder = os.environ.get("SEMIMEDREF_CACHE")
    if folder is None:
        return Path.home() / ".cache" / "semimedref"
    return Path(folder).expanduser() if folder else None


def kept_at(source: Path, kind: str, size: int) -> Path | None:
    """The path of a file's decoded picture in the cache, which may not exist yet.

    Args:
        source: the file.
        kind: ``image``, ``colours``, ``mask``, or ``mask`` with the values that mean lesion.
        size: height and width, px.

    Returns:
        A path; None if the file is missing or there is no cache.
    """
    folder = cache_folder()
    try:
        about = source.stat()
    except OSError:
        return None
    # Both times: of the contents and of the file's entry. So a copy with the old time of the contents is detected too.
    state = os.path.abspath(source), about.st_size, about.st_mtime_ns, about.st_ctime_ns
    name = blake2b(repr((FORMAT, PIL.__version__, kind, size, state)).encode(), digest_size=16).hexdigest()
    return folder and folder / f"{size}px" / name[:2] / f"{name}.png"


def read_kept(path: Path | None, size: int) -> np.ndarray | None:
    """The picture ``[size, size]`` or ``[size, size, 3]`` uint8 at this path; None if it is missing or damaged."""
    if path is None:
        return None
    try:
        data = path.read_bytes()
        Image.open(io.BytesIO(data)).verify()  # checks the checksums, which decoding does not
        picture = np.asarray(Image.open(io.BytesIO(data)))
    except Exception:  # Pillow raises OSError, SyntaxError, struct.error and others for broken files
        return None
    sound = picture.shape in ((size, size), (size, size, 3)) and picture.dtype == np.uint8
    return picture if sound else None


def keep(path: Path | None, picture: np.ndarray) -> None:
    """Stores a picture ``[H, W]`` or ``[H, W, 3]`` uint8. If the folder cannot be written, it gives a warning; nothing
    is lost."""
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
            f"{cache_folder()}: decoded pictures cannot be stored ({error.strerror}), so each start decodes them; "
            "set SEMIMEDREF_CACHE to a folder with free space, or to an empty value",
            stacklevel=2,
        )


def room_taken(folder: Path) -> tuple[int, int]:
    """The number of files in a cache folder, and their total size in bytes."""
    sizes = [path.stat().st_size for path in _kept(folder)]
    return len(sizes), sum(sizes)


def clear(folder: Path) -> None:
    """Deletes the pictures of a cache folder, and folders that are then empty. Other files stay."""
    paths = list(_kept(folder))
    for path in paths:
        path.unlink(missing_ok=True)
    for place in sorted({parent for path in paths for parent in path.parents[:2]}, reverse=True):
        if not any(place.iterdir()):
            place.rmdir()


def _kept(folder: Path) -> Iterator[Path]:
    """The files that :func:`keep` wrote, also those that a kill cut short."""
    for path in folder.glob("*px/*/*"):
        if _OURS.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            yield path
