"""The method's own source, shown in a notebook where it is explained, so that what is read is what runs."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

from IPython.display import Code


def source_of(*functions: Callable | type) -> Code:
    """The source of functions, methods or classes, without docstrings, for a cell to show.

    A notebook that shows a function that has changed since is stale, and `semimedref notebooks --run` says so.

    Args:
        functions: of a Python file; kernels of Triton too.

    Raises:
        OSError, TypeError: of :func:`inspect.getsource`, for what has no source.

    >>> from semimedref_core.teaching import source_of
    >>> from semimedref_core.teacher import ramp
    >>> print(source_of(ramp).data.splitlines()[0])
    def ramp(step: int, start: float, length: float) -> float:
    """
    return Code("\n\n".join(map(_without_docstrings, functions)), language="python")


def _without_docstrings(function: Callable | type) -> str:
    lines = textwrap.dedent(inspect.getsource(getattr(function, "fn", function))).splitlines()
    said = [
        node.body[0]
        for node in ast.walk(ast.parse("\n".join(lines)))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None
    ]
    for docstring in sorted(said, key=lambda node: -node.lineno):
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "\n".join(lines).replace("\n\n\n", "\n\n")
