"""Names for the parts of a training step, and a stopwatch that times them.

A part is named where it is written, ``@part("views")`` or ``with part("backward"):``, and costs next to nothing unless
a :class:`Stopwatch` is running.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ContextDecorator

_running: Stopwatch | None = None


class part(ContextDecorator):
    """What a function, or the lines of a ``with``, do in a step. Of parts in one another, each has its own time."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        if _running and _running.thread == threading.get_ident():
            _running.enter(self.name)

    def __exit__(self, *error) -> None:
        if _running and _running.thread == threading.get_ident():
            _running.leave()


class Stopwatch:
    """Seconds of each part between ``with`` and its end, without the parts inside it; one at a time in a process.

    Only what its own thread does counts.

    Args:
        wait: called at every change of parts; on a GPU, waits until all work is done.

    Attributes:
        seconds: of each part so far, by name.
    """

    def __init__(self, wait: Callable[[], object] = lambda: None):
        self.wait = wait
        self.thread = threading.get_ident()
        self.seconds: dict[str, float] = {}
        self._inside: list[str] = []
        self._since = 0.0

    def __enter__(self) -> Stopwatch:
        global _running
        if _running:
            raise RuntimeError("a stopwatch is running already")
        _running = self
        self.enter("other")
        return self

    def __exit__(self, *error) -> None:
        global _running
        self.leave()
        _running = None

    def enter(self, name: str) -> None:
        """From now on time counts for this part."""
        self._lap()
        self._inside.append(name)

    def leave(self) -> None:
        """From now on time counts for the part around."""
        self._lap()
        self._inside.pop()

    def _lap(self) -> None:
        self.wait()
        now = time.perf_counter()
        if self._inside:
            name = self._inside[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now
