"""Progress of long work: a bar in a terminal or a notebook, plain lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from semimedref_core.runtime.atomic import read_metrics

PARTS = 10  # number of lines for a whole run
QUIET = 60.0  # seconds after which a line is printed in any case


def progress(total: int, label: str, initial: int = 0, shown: bool = True) -> tqdm | Lines:
    """A bar over the steps of one run if it can be drawn, otherwise plain lines on standard error.

    Args:
        total: number of steps.
        label: the name of the work.
        initial: number of steps that are already done.
        shown: ``False`` shows nothing.
    """
    if shown and not (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")):
        return Lines(total, label, initial)
    return tqdm(total=total, initial=initial, desc=label, unit="step", disable=not shown)


class Lines:
    """Replaces a tqdm bar by lines: one for each tenth of the steps, and at least one each minute."""

    def __init__(self, total: int, label: str, initial: int = 0):
        self.total, self.label, self.n = total, label, initial
        self._first, self._told, self._loss = initial, initial, ""
        self._started = self._last = time.monotonic()

    def update(self, steps: int = 1) -> None:
        """Adds finished steps."""
        self.n += steps
        part = self.n * PARTS // self.total > self._told * PARTS // self.total
        if self.n > self._told and (part or time.monotonic() - self._last > QUIET):
            self._tell()

    def set_postfix(self, loss: str) -> None:
        """Sets the loss for the next line."""
        self._loss = f", loss {loss}"

    def _tell(self) -> None:
        self._told, self._last = self.n, time.monotonic()
        taken = self._last - self._started
        left = taken / max(1, self.n - self._first) * (self.total - self.n)
        times = f"{tqdm.format_interval(taken)} so far, about {tqdm.format_interval(left)} left"
        print(f"{self.label}: step {self.n} of {self.total}{self._loss}, {times}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Does nothing; a tqdm bar needs it."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_) -> None:
        self.close()


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
        for path in sorted(folder.glob("*/metrics.jsonl"), key=lambda path: path.stat().st_ctime_ns):
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
