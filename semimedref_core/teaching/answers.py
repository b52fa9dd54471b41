"""Exercises that answer: right, or why not, without giving the solution away.

A notebook poses the question and keeps its solution folded; what is right is known here, in a module for each notebook
(``exercises/n05.py``), computed from the core wherever it can be.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

Judge = Callable[[object], str]
"""From an answer to what is wrong with it, as a hint; an empty text for a right one."""


def check(name: str, answer: object) -> None:
    """Says whether an answer to an exercise is right, and if not, why.

    Args:
        name: such as ``"05.1"``, the first exercise of notebook 05.
        answer: what the reader thinks; ``None`` is no answer yet.

    Raises:
        KeyError: if there is no such exercise.

    >>> from semimedref_core.teaching import check
    >>> check("05.1", None)
    04.1: no answer yet. Replace None, and run the cell again.
    """
    judge = exercises_of(name.split(".")[0])[name]
    if answer is None:
        print(f"{name}: no answer yet. Replace None, and run the cell again.")
        return
    try:
        wrong = judge(answer)
    except Exception as error:  # an answer may be anything, also a function that fails
        wrong = f"this answer cannot be judged ({type(error).__name__}: {error})."
    print(f"{name}: {f'not yet. {wrong}' if wrong else 'right.'}")


def exercises_of(notebook: str) -> dict[str, Judge]:
    """The exercises of a notebook by name.

    Args:
        notebook: its number, such as ``"05"``.
    """
    return importlib.import_module(f"semimedref_core.teaching.exercises.n{notebook}").EXERCISES


def about(value: object, right: float, tolerance: float, hint: str) -> str:
    """A judge's help for numbers: empty if the value is near enough, else the hint."""
    if isinstance(value, bool) or (not isinstance(value, int | float) and not hasattr(value, "__float__")):
        return f"A number is asked for, and this is a {type(value).__name__}."
    return "" if abs(float(value) - right) <= tolerance else hint
