"""Checks of every notebook, for tests and contributors: style, agreement of the pair, and correct outputs.

Each function returns a list of problems in words; the list is empty if there are none.
"""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
from jupytext.compare import NotebookDifference, compare_notebooks

LONGEST, MEDIAN = 25, 8  # largest allowed lines of a code cell, and median
MOST_BYTES = 1_000_000
APPENDIX = "## Appendix"
OF_THIS_MACHINE = "nbval-ignore-output"  # tag of cells that print versions or times
RELATIVE, ABSOLUTE = 0.03, 0.03  # allowed differences of printed numbers on another machine
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?")


def style_problems(source: Path) -> list[str]:
    """Checks opening, ending, parameters and cell lengths of a ``.py`` notebook. Appendices come after the ending."""
    cells = jupytext.read(source).cells
    found = []
    walk = next((k for k, cell in enumerate(cells) if cell.source.startswith(APPENDIX)), len(cells))
    if not re.match(rf"# {source.stem[:2]} · .+\n\n\*\*What you will see\.\*\*", cells[0].source):
        found.append("the first cell is no title with 'What you will see'")
    if "versions(" not in cells[2].source or OF_THIS_MACHINE not in _tags(cells[2]):
        found.append(f"the third cell does not import and print versions(), tagged {OF_THIS_MACHINE}")
    last = [cell.source for cell in cells[:walk][-4:]]
    if not any("**To remember" in source for source in last):
        found.append("the end, before any appendix, does not say what to remember")
    else:
        parts = "## What to take away\n", "**Further on:**"
        found += [f"the end has no {part.strip()!r}" for part in parts if part not in "\n".join(last)]
    if open_folds := [cell for cell in cells if cell.source.count("<details") != cell.source.count("</details>")]:
        found.append(f"{len(open_folds)} cells open <details> without closing it; a page would hide all that follows")
    tagged = [cell for cell in cells if "parameters" in _tags(cell)]
    if tagged != cells[1:2]:
        found.append("the second cell, and no other, must be tagged parameters")
    for cell in tagged:
        values = {}
        try:
            exec(compile(cell.source, str(source), "exec"), {"__builtins__": {}}, values)
        except NameError as error:
            found.append(f"parameters are literals, but {error}")
        found += [
            f"parameter {name} is a {type(value).__name__}, which papermill does not read"
            for name, value in values.items()
            if not isinstance(value, str | int | float | bool | list | dict)
        ]
    lengths = sorted(len(cell.source.splitlines()) for cell in cells if cell.cell_type == "code")
    if lengths[-1] > LONGEST or lengths[len(lengths) // 2] > MEDIAN:
        middle = lengths[len(lengths) // 2]
        found.append(f"code cells have up to {lengths[-1]} lines, median {middle}; at most {LONGEST} and {MEDIAN}")
    return found


def pair_problems(source: Path) -> list[str]:
    """Checks that the ``.ipynb`` beside a ``.py`` notebook has the same source, is executed, has pictures, and is
    small."""
    pair = source.with_suffix(".ipynb")
    if not pair.is_file():
        return [f"{pair.name} is missing; semimedref notebooks {source.stem}"]
    executed, found = nbformat.read(pair, as_version=4), []
    try:
        compare_notebooks(jupytext.read(source), executed, fmt="py:percent")
    except NotebookDifference as error:
        found.append(f"{pair.name} is not of this source: {error}")
    cells = [cell for cell in executed.cells if cell.cell_type == "code" and "parameters" not in _tags(cell)]
    if not all(cell.execution_count for cell in cells):
        found.append(f"{pair.name} holds cells that were not executed")
    if sum(bool(cell.outputs) for cell in cells) <= len(cells) / 2:
        found.append(f"{pair.name} has outputs in fewer than half of its cells")
    if not any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs):
        found.append(f"{pair.name} shows no picture")
    if any(output.get("name") == "stderr" for cell in cells for output in cell.outputs):
        found.append(f"{pair.name} holds warnings, which name folders of this machine")
    if pair.stat().st_size >= MOST_BYTES:
        found.append(f"{pair.name} has {pair.stat().st_size} bytes, at most {MOST_BYTES} are allowed")
    return found


def output_problems(executed: nbformat.NotebookNode, committed: nbformat.NotebookNode) -> list[str]:
    """Errors in an executed notebook, and differences between its prints and those of the committed notebook.

    Words must be equal, numbers may differ by 3 % or 0.03, and cells with the tag ``nbval-ignore-output`` are skipped.
    Prints are not compared if the numbers of code cells differ.
    An error inside a widget's ``Output`` does not fail the cell, so the states of widgets are searched too.
    """
    found = [
        f"error in {_head(cell)}: {o.evalue}"
        for cell in _code(executed)
        for o in cell.outputs
        if o.output_type == "error"
    ]
    states = executed.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    outputs = [output for model in states.values() for output in model["state"].get("outputs", [])]
    found += [f"error in a widget: {output['evalue']}" for output in outputs if output["output_type"] == "error"]
    ran, kept = _code(executed), _code(committed)
    if len(ran) != len(kept):
        cells = f"the committed notebook has {len(kept)} code cells, this one {len(ran)}"
        return [*found, f"{cells}; run semimedref notebooks with the name of this notebook"]
    for cell, wanted in zip(ran, kept, strict=True):
        if OF_THIS_MACHINE in _tags(wanted):
            continue
        here, there = printed(cell), printed(wanted)
        numbers, expected = ([float(number) for number in _NUMBER.findall(text)] for text in (here, there))
        if _NUMBER.sub("#", here) != _NUMBER.sub("#", there) or not all(
            abs(a - b) <= max(ABSOLUTE, RELATIVE * abs(b)) for a, b in zip(numbers, expected, strict=True)
        ):
            found.append(f"{_head(cell)} prints\n{here}\ninstead of\n{there}")
    return found


def printed(cell: nbformat.NotebookNode) -> str:
    """The text that a cell printed and returned. All pieces are joined, because slow output may be split anywhere."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
        if output.get("name") != "stderr" and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
    ]
    return "".join(text for text in texts if not text.startswith("<Figure"))


def _code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The code cells, without the one that papermill adds for parameters."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and "injected-parameters" not in _tags(cell)]


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _head(cell: nbformat.NotebookNode) -> str:
    return f"the cell that begins {cell.source.splitlines()[0]!r}"
