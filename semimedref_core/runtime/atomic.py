"""Small files that survive a kill: a file is complete or absent, and readers skip a line that was cut short."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from semimedref_core.errors import FileError

OWNER_ALONE = 0o700, 0o600  # rights of folders and files that may hold patients' data
LARGEST_JSON = 10**7  # bytes; our own files have at most a few thousand


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, then replaces ``path`` by the finished file in one step.

    A reader always finds the complete old file or the complete new one. Only the owner may read a new file. A file that
    replaces another one keeps its rights.

    Raises:
        FileError: if the file cannot be written: no space, no rights, or no such folder.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:12]}.partial")  # two processes may write the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else OWNER_ALONE[1])
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def not_written(path: Path, error: OSError) -> FileError:
    """The error for a file that could not be written."""
    return FileError(
        f"{path}: cannot be written ({error.strerror or error}); free some space, or check its folder and rights"
    )


def own_folder(folder: Path) -> Path:
    """Creates a folder that only its owner can read. An existing folder is not changed.

    Raises:
        FileError: if the folder cannot be created.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=OWNER_ALONE[0], exist_ok=True)
    except OSError as error:
        raise not_written(folder, error) from error
    return folder


def write_json(path: Path, value) -> None:
    """Writes indented JSON atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    """Reads the names with values that :func:`write_json` wrote.

    Raises:
        FileError: if the file is missing, damaged, far too large, or holds something else. The message does not show
            the contents.
    """
    try:
        if (size := path.stat().st_size) > LARGEST_JSON:
            raise FileError(f"{path}: has {size} bytes, far more than such a file; remove it")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise FileError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise FileError(f"{path}: cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise FileError(f"{path}: holds a {type(value).__name__} instead of names with values")
    return value


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a ``metrics.jsonl``, without a last line that a kill cut short.

    Raises:
        FileError: if the file cannot be read or a line is not a log line; names the first such line.
    """
    found = []
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: is not the log of a run ({error}); restore the right file, or train again") from None
    for number, text in enumerate(lines[:-1], 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict) or isinstance(line.get("step"), bool) or not isinstance(line.get("step"), int):
            raise FileError(
                f"{path}: line {number} is not a log line of a run; restore the right file, or train again"
            ) from None
        found.append(line)
    return found
