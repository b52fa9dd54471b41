"""Names of a package that are loaded when they are first asked for, so that importing the package is quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping


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
