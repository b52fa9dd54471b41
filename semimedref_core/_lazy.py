"""Lazy loading: a package loads a name at its first use, so its import is quick. Optional packages are checked too."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping

from semimedref_core.errors import MissingPackageError


def require(package: str, extra: str, what: str) -> None:
    """Checks that an optional package is installed, without loading it.

    Args:
        package: the name by which it is imported.
        extra: the extra of this project that installs it.
        what: the feature that needs it, in words.

    Raises:
        MissingPackageError: if it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f"{what} needs {package}, which is not installed; install the extra `{extra}`: in the checkout "
            f'`pip install -e ".[{extra}]"`'
        )


def by_module(modules: Mapping[str, str]) -> dict[str, str]:
    """Inverts a table: from module -> names (separated by spaces) to name -> module."""
    return {name: module for module, names in modules.items() for name in names.split()}


def exports(
    package: str, places: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """The ``__getattr__``, ``__dir__`` (PEP 562) and ``__all__`` of a package.

    Args:
        package: its ``__name__``.
        places: name -> module of the package that defines it. A name must differ from all modules of the package.
            Otherwise a user would get one or the other, depending on what was loaded before.
    """

    def load(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{places[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted({*vars(sys.modules[package]), *places}), list(places)
