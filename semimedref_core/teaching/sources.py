"""Shows the source of the method in a notebook, so that readers see the code that runs."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable

from IPython.display import Code


def source_of(*functions: Callable | type) -> Code:
    """The source of functions, methods or classes without docstrings, as the output of a cell.

    If a shown function changes later, the notebook is stale, and `semimedref notebooks --run` reports it.

    Args:
        functions: from a Python file; Triton kernels are allowed too.

    Raises:
        OSError, TypeError: from :func:`inspect.getsource`, for objects without a source.

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
