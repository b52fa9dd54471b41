"""Ctrl-C in the middle of a run: it ends where nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a run in good order; the message says what was saved and how to go on."""


@contextmanager
def interrupts_noted(wanted: bool = True) -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether Ctrl-C was pressed while the body ran; the second Ctrl-C ends it at once.

    Nothing changes where Ctrl-C is ignored or handled by somebody else, and outside the main thread.

    Args:
        wanted: ``False`` changes nothing.
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
