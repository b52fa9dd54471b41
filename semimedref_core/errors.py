"""What can go wrong for a user: one base class, so that a program can tell a user's error from a bug."""


class SemiMedRefError(Exception):
    """A setting, file or command that cannot be used as it is.

    The message names the file, the value and the cure. The command line prints it without a traceback. Every other
    exception is a bug, and shows its traceback.

    >>> from semimedref_core import Config, SemiMedRefError
    >>> try:
    ...     Config(label_ratio=2)
    ... except SemiMedRefError as error:
    ...     print(error)
    label_ratio must be at most 1, got 2
    """


class ConfigError(SemiMedRefError, ValueError):
    """A setting with a value that it cannot have."""


class FileError(SemiMedRefError):
    """A file that cannot be written, or does not hold what it should; the message names it and the cure."""


class TrainingError(SemiMedRefError, RuntimeError):
    """Training cannot start or go on. The message says why, at which step, and what to change."""


def printable(text: str) -> str:
    r"""A text as a terminal may show it: what would move its cursor, colour it or hide something is written out.

    Names of files and what a foreign file holds may have such characters, also ones that no encoding knows.

    >>> from semimedref_core.errors import printable
    >>> print(printable("a\x1b[2Jb\nc"))
    a\x1b[2Jb
    c
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)
