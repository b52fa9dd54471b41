"""Progress of long work: a bar in a terminal or a notebook, plain lines in a log."""

from __future__ import annotations

import sys
import time

from tqdm.auto import tqdm

PARTS = 10  # number of lines for a whole run
QUIET = 60.0  # seconds after which a line is printed in any case


def progress(total: int, label: str, initial: int = 0, shown: bool = True, unit: str = "step") -> tqdm | Lines:
    """A bar if it can be drawn, otherwise plain lines on standard error.

    Args:
        total: number of steps.
        label: the name of the work.
        initial: number of steps that are already done.
        shown: ``False`` shows nothing.
        unit: the name of a step.
    """
    if shown and not (sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")):
        return Lines(total, label, initial, unit)
    return tqdm(total=total, initial=initial, desc=label, unit=unit, disable=not shown)


class Lines:
    """Replaces a tqdm bar by lines: one for each tenth of the steps, and at least one each minute."""

    def __init__(self, total: int, label: str, initial: int = 0, unit: str = "step"):
        self.total, self.label, self.n, self.unit = total, label, initial, unit
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
        print(f"{self.label}: {self.unit} {self.n} of {self.total}{self._loss}, {times}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Does nothing; a tqdm bar needs it."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_) -> None:
        self.close()
