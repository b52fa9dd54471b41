"""Small files that survive a kill: they are there whole or not at all, and a line cut short is not read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Gives a temporary name to write to, and puts the finished file in place of ``path`` in one step.

    Whoever looks, at whatever moment, finds the old file or the new one, whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:12]}.partial")  # two processes may write one file
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value) -> None:
    """Writes indented JSON atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a ``metrics.jsonl``; a last line that a kill cut short is left out."""
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
