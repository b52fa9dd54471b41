"""Progress of runs that another process makes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semimedref_core._progress import progress
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.runtime.files import METRICS_LOG


@contextmanager
def follow(folder: Path, steps: int) -> Iterator[None]:
    """Shows the progress of the runs below a folder while the body runs. The runs start one after the other.

    Each run has a bar with the name of its folder. Its step and its loss come from its ``metrics.jsonl``.

    Args:
        folder: the folder above the runs' folders, which may not exist yet.
        steps: number of steps of each run.
    """
    folder = folder.resolve()  # papermill changes the working directory while a notebook runs
    done, bars = threading.Event(), {}

    def look() -> None:
        for path in sorted(folder.glob(f"*/{METRICS_LOG}"), key=lambda path: path.stat().st_ctime_ns):
            lines = [line for line in read_metrics(path) if "loss" in line]
            if lines:
                if path not in bars:
                    for earlier in bars.values():
                        earlier.close()
                    bars[path] = progress(steps, path.parent.name)
                bars[path].set_postfix(loss=f"{lines[-1]['loss']:.3f}")
                bars[path].update(lines[-1]["step"] - bars[path].n)

    def watch() -> None:
        while not done.wait(1.0):
            look()
        look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        for bar in bars.values():
            bar.close()
