"""The CSV file of ``evaluate --csv``: one table for many networks, each scored by a command of its own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from semimedref_core.errors import FileError
from semimedref_core.experiments.results import METRICS
from semimedref_core.runtime.atomic import atomic, own_folder
from semimedref_core.runtime.locks import locked


def add_rows(path: Path, table: pd.DataFrame, scored: dict[str, str]) -> None:
    """Adds a table to a CSV file of ``evaluate --csv``. Evaluations that end at the same time wait for each other.

    Args:
        path, scored: as in :func:`other_rows`.
        table: of :func:`semimedref_core.tools.positions.reports_table`.
    """
    # The folder is locked, because each writer replaces the file.
    with locked(own_folder(path.parent), wait=True), atomic(path) as temporary:
        others = other_rows(path, scored)
        pd.concat([others, table.assign(**scored)]).round(4).to_csv(temporary, index=False)


def other_rows(path: Path, scored: dict[str, str]) -> pd.DataFrame | None:
    """The rows of a CSV file of ``evaluate --csv`` that a new table does not replace; None if there is no such file.

    Args:
        path: the file. Older ones have fewer columns: their rows are of a teacher, in any folder and split.
        scored: columns that say what the new table is of. It replaces the rows with the same values.

    Raises:
        FileError: if the file is not such a table.
    """
    if not path.exists():
        return None
    columns = ["reports", "removal_rate", *METRICS, "run"]
    try:
        kept = pd.read_csv(path, dtype=dict.fromkeys(["reports", *scored], str), keep_default_na=False)
    except (ValueError, OSError) as error:  # errors of pandas and of encodings are ValueErrors
        raise FileError(f"{path}: no readable table ({type(error).__name__}); give another --csv") from None
    if missing := [name for name in columns if name not in kept]:
        raise FileError(f"{path}: no table of `evaluate --csv`, it has no column {missing[0]}; give another --csv")
    older = {"network": "teacher", "folder": "", "split": ""}
    kept = kept.assign(**{name: value for name, value in older.items() if name not in kept})
    same = (kept["run"] == scored["run"]) & (kept["network"] == scored["network"])
    for name in ("folder", "split"):  # empty in older rows
        same &= kept[name].isin([scored[name], ""])
    return kept[~same]
