"""Ctrl-C during a run: the run ends where nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a run, and its state was saved. The message says how to continue."""


@contextmanager
def interrupts_noted(wanted: bool = True) -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C was pressed during the body. A second Ctrl-C ends the body at once.

    It does nothing outside the main thread, or if Ctrl-C is ignored or has another handler.

    Args:
        wanted: ``False`` switches this off.
    """
    pressed = False

    def note(number, frame):
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        os.write(2, b"\nstopping after this step; Ctrl-C once more stops at once\n")

    in_main = threading.current_thread() is threading.main_thread()
    if not wanted or not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
