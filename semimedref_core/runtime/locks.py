"""One process at a time: a lock on a file or a folder, which the end of the process lets go, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path, *, wait: bool, file: IO | None = None) -> Iterator[None]:
    """Holds a file or a folder while the body runs. Only processes that ask for the lock are kept out.

    Args:
        path: of a file or a folder that is there. On Windows, where folders cannot be locked, a file beside the file or
            in the folder stands for it.
        wait: until the lock is free.
        file: the open file at ``path``, if the lock shall belong to it. Then it lasts until the last process that has
            inherited the file has closed it. (Windows lets it go after the body.)

    Raises:
        BlockingIOError: if another process holds the lock and ``wait`` is not set.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        from filelock import FileLock, Timeout

        lock = FileLock(path / ".lock" if path.is_dir() else f"{path}.lock")
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            raise BlockingIOError(f"{path} is held by another process") from None
        try:
            yield
        finally:
            lock.release()
        return
    handle = os.open(path, os.O_RDONLY) if file is None else file.fileno()
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        if file is None:
            os.close(handle)
