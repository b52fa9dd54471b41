"""Small files that survive a kill: they are there whole or not at all, and a line cut short is not read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from semimedref_core.errors import FileError

OWNER_ALONE = 0o700, 0o600  # of a folder and of a file that may hold patients' data
LARGEST_JSON = 10**7  # bytes; the largest that is written here has a few thousand


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Gives a temporary name to write to, and puts the finished file in place of ``path`` in one step.

    Whoever looks, at whatever moment, finds the old file or the new one, whole. A new file is for its owner alone; one
    that takes another's place has its rights.

    Raises:
        FileError: if it cannot be written: no room, no rights, no such folder.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:12]}.partial")  # two processes may write one file
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
    """What to tell of a file that could not be written."""
    return FileError(
        f"{path}: cannot be written ({error.strerror or error}); make room there, or check its folder and rights"
    )


def own_folder(folder: Path) -> Path:
    """Makes a folder that its owner alone can look into, if it is missing; one that is there stays as it is.

    Raises:
        FileError: if it cannot be made.
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
    """What :func:`write_json` wrote of names with values.

    Raises:
        FileError: if it is missing, damaged, far too large, or holds something else. What it holds is not told.
    """
    try:
        if (size := path.stat().st_size) > LARGEST_JSON:
            raise FileError(f"{path}: has {size} bytes, so it is no such file; leave it out")
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
    """The lines of a ``metrics.jsonl``; a last line that a kill cut short is left out.

    Raises:
        FileError: if it cannot be read, or a line is no log line; names the first such one.
    """
    found = []
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: is no log of a run ({error}); put the right file back, or train again") from None
    for number, text in enumerate(lines[:-1], 1):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict) or isinstance(line.get("step"), bool) or not isinstance(line.get("step"), int):
            raise FileError(
                f"{path}: line {number} is no log line of a run; put the right file back, or train again"
            ) from None
        found.append(line)
    return found
