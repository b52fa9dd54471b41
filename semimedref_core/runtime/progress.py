"""How far a long piece of work has come: a bar in a terminal or a notebook, plain lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from semimedref_core.runtime.atomic import read_metrics

PARTS = 10  # lines for a whole run
QUIET = 60.0  # seconds after which there is a line in any case


def progress(total: int, label: str, initial: int = 0, shown: bool = True) -> tqdm | Lines:
    """A bar over the steps of one run where it can be drawn, else plain lines on standard error.

    Args:
        total: number of steps.
        label: what is going on.
        initial: steps that were done before.
        shown: ``False`` shows nothing.
    """
    if shown and not (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")):
        return Lines(total, label, initial)
    return tqdm(total=total, initial=initial, desc=label, unit="step", disable=not shown)


class Lines:
    """What of a tqdm bar is used here, as lines: one for each tenth of the steps, and one a minute."""

    def __init__(self, total: int, label: str, initial: int = 0):
        self.total, self.label, self.n = total, label, initial
        self._first, self._told, self._loss = initial, initial, ""
        self._started = self._last = time.monotonic()

    def update(self, steps: int = 1) -> None:
        """Counts steps that were done."""
        self.n += steps
        part = self.n * PARTS // self.total > self._told * PARTS // self.total
        if self.n > self._told and (part or time.monotonic() - self._last > QUIET):
            self._tell()

    def set_postfix(self, loss: str) -> None:
        """Takes in what the next line says of the loss."""
        self._loss = f", loss {loss}"

    def _tell(self) -> None:
        self._told, self._last = self.n, time.monotonic()
        taken = self._last - self._started
        left = taken / max(1, self.n - self._first) * (self.total - self.n)
        times = f"{tqdm.format_interval(taken)} so far, about {tqdm.format_interval(left)} left"
        print(f"{self.label}: step {self.n} of {self.total}{self._loss}, {times}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is left to tell."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_) -> None:
        self.close()


@contextmanager
def follow(folder: Path, steps: int) -> Iterator[None]:
    """Shows the progress of the runs below a folder, which come one after the other, while the body runs.

    Each has a bar of its own under the name of its folder. How far it is and its loss are read off its
    ``metrics.jsonl``.

    Args:
        folder: where the runs' folders are or will be.
        steps: of each run.
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
