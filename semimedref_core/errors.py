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
