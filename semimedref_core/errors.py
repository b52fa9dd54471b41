"""Errors that a user can mend. They have one base class, so a program can distinguish them from bugs."""


class SemiMedRefError(Exception):
    """A setting, file or command that cannot be used.

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
    """A setting has a value that is not allowed."""


class FileError(SemiMedRefError):
    """A file cannot be written or has wrong contents. The message names the file and the cure."""


class TrainingError(SemiMedRefError, RuntimeError):
    """Training cannot start or go on. The message says why, at which step, and what to change."""


class MissingPackageError(SemiMedRefError, ImportError):
    """A feature needs a package that is not installed. The message names the package and says how to install it."""


def printable(text: str) -> str:
    r"""Makes a text safe for a terminal: characters that move the cursor, set colours or hide text are escaped.

    File names and the contents of files from elsewhere may hold such characters, even ones that no encoding knows.

    >>> from semimedref_core.errors import printable
    >>> print(printable("a\x1b[2Jb\nc"))
    a\x1b[2Jb
    c
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)
