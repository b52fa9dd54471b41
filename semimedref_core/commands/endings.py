"""Ends every command with a few lines and an exit status, also after errors of the machine or the user."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TextIO

from semimedref_core.errors import SemiMedRefError, printable

INTERRUPTED, PIPE_CLOSED = 130, 141  # exit statuses of a shell after SIGINT and SIGPIPE


class OutputError(SemiMedRefError):
    """The output of a command cannot be written."""


def carried_out(action: Callable[[argparse.Namespace], int | None], options: argparse.Namespace) -> int:
    """Runs a command, and prints the user's errors in a few lines. A bug shows its traceback.

    Only their owner can read the files that the command writes, since they may have pictures of patients.

    Returns:
        The exit status of the action; 1 after an error; 130 after Ctrl-C; 141 if nobody reads the output.
    """
    rights = os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # For terminals that lack some letters; and a log must have each line at once, even if we are killed.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        return action(options) or 0
    except SemiMedRefError as error:
        return _told(options.name, str(error))
    except KeyboardInterrupt as stop:
        return _told(options.name, str(stop) or "stopped", INTERRUPTED)
    except BrokenPipeError:
        _forget(sys.stdout)
        return PIPE_CLOSED
    except MemoryError:
        return _told(options.name, "not enough memory; use a smaller --batch-size or --image-size")
    except OSError as error:
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return _told(
            options.name, f"{place}{error.strerror or error}; check that it exists, its rights, and the free space"
        )
    finally:
        os.umask(rights)


def say(text: str) -> None:
    """Prints the output of a command, as :func:`semimedref_core.errors.printable` text.

    Raises:
        OutputError: if the output cannot be written.
    """
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _forget(sys.stdout)
        raise OutputError(f"the output cannot be written ({error.strerror})") from None


def _told(name: str, message: str, status: int = 1) -> int:
    try:
        print(printable(f"semimedref {name}: {message}"), file=sys.stderr)
    except OSError:
        _forget(sys.stderr)
    return status


def _forget(stream: TextIO) -> None:
    """Keeps Python from writing the failed output again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
