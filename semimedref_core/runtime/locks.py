"""Locks on files and folders, for one process at a time. The end of the process releases the lock, even if it was
killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: Path, *, wait: bool, file: IO | None = None) -> Iterator[None]:
    """Locks a file or a folder while the body runs. Only processes that ask for the lock have to wait or fail.

    Args:
        path: an existing file or folder. Windows cannot lock folders, so there a lock file is used, beside the file or
            in the folder.
        wait: whether to wait until the lock is free.
        file: the open file at ``path``, if the lock should belong to it. Then the lock lasts until all processes that
            inherited the file have closed it. (On Windows it lasts until the end of the body.)

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
