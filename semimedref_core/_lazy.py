"""What is loaded only when it is asked for: names of a package, so that importing it is quick; optional packages."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping

from semimedref_core.errors import SemiMedRefError


class MissingPackageError(SemiMedRefError, ImportError):
    """What was asked for needs a package that is not installed; the message names it and the extra that has it."""


def require(package: str, extra: str, what: str) -> None:
    """Looks whether an optional package is installed, without loading it.

    Args:
        package: as it is imported.
        extra: of this project, which installs it.
        what: needs it, in words.

    Raises:
        MissingPackageError: if it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f"{what} needs {package}, which is not installed; it is in the extra `{extra}`: in the checkout "
            f'`pip install -e ".[{extra}]"`'
        )


def by_module(modules: Mapping[str, str]) -> dict[str, str]:
    """Module -> its names, as words, turned round: name -> module."""
    return {name: module for module, names in modules.items() for name in names.split()}


def exports(
    package: str, places: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """The ``__getattr__``, ``__dir__`` (PEP 562) and ``__all__`` of a package.

    Args:
        package: its ``__name__``.
        places: name -> module below the package that holds it. No name may be that of a module of the package: which
            of the two a user gets would depend on what was loaded before.
    """

    def load(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{places[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *places}), list(places)
