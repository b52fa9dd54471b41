"""Exercises that check an answer: they say "right" or give a hint, without revealing the solution.

A notebook has the question and a folded solution. A module for each notebook (``exercises/n05.py``) has the checks,
which use the core wherever possible.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from semimedref_core.teaching import exercises

Judge = Callable[[object], str]
"""An answer -> a hint on its fault; the text is empty for a right answer."""


def check(name: str, answer: object) -> None:
    """Prints whether an answer to an exercise is right, and otherwise a hint.

    Args:
        name: name of the exercise, such as ``"05.1"``, the first one of notebook 05.
        answer: the reader's answer; ``None`` means no answer yet.

    Raises:
        KeyError: if there is no such exercise. It names those that there are.

    >>> from semimedref_core.teaching import check
    >>> check("05.1", None)
    05.1: no answer yet. Replace None, and run the cell again.
    """
    judges = exercises_of(name.split(".")[0])
    if name not in judges:
        raise KeyError(f"there is no exercise {name}; this notebook has {', '.join(judges)}")
    if answer is None:
        print(f"{name}: no answer yet. Replace None, and run the cell again.")
        return
    try:
        wrong = judges[name](answer)
    except Exception as error:  # an answer may be anything, even a function that fails
        wrong = f"this answer cannot be judged ({type(error).__name__}: {error})."
    print(f"{name}: {f'not yet. {wrong}' if wrong else 'right.'}")


def exercises_of(notebook: str) -> dict[str, Judge]:
    """The exercises of a notebook by name.

    Args:
        notebook: its number, such as ``"05"``.

    Raises:
        KeyError: if this notebook has no exercises.
    """
    numbers = [module.name.removeprefix("n") for module in pkgutil.iter_modules(exercises.__path__)]
    if notebook not in numbers:
        raise KeyError(f"there are no exercises of notebook {notebook}, only of {', '.join(numbers)}")
    return importlib.import_module(f"semimedref_core.teaching.exercises.n{notebook}").EXERCISES


def about(value: object, right: float, tolerance: float, hint: str) -> str:
    """Checks a number: empty if the value is close enough, otherwise the hint."""
    if isinstance(value, bool) or (not isinstance(value, int | float) and not hasattr(value, "__float__")):
        return f"The answer must be a number, but this is a {type(value).__name__}."
    return "" if abs(float(value) - right) <= tolerance else hint
