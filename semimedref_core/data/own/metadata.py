"""The table of your own folder: ``metadata.csv``, ``.jsonl`` or ``.parquet``, as in Hugging Face's image folders, or
``metadata.xlsx``.

============== =========================================================================================================
file_name      the picture, as a path inside the folder
text           its sentence
mask_file_name its mask; empty for an unlabelled pair
split          train, valid (or validation, val, dev) or test; without this column, splits are drawn
zones          the zones that the text names, to replace the reader's result: ``left lower; right upper``; ``[]``
               (in JSON and Parquet an empty list) for no zone; an empty cell keeps the reader's result
group          pairs of a group stay in one split; for example the patient. In each line, or in none
============== =========================================================================================================

Names, groups and texts are read as text: ``0001`` and ``1e5`` do not change.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from semimedref_core.config import did_you_mean
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.files import listed
from semimedref_core.data.real.report_tables import is_safe, is_whole, once, read_table, reason_of, text_of

FILES = ("metadata.csv", "metadata.xlsx", "metadata.jsonl", "metadata.parquet")
UNREAD = ("metadata.tsv", "metadata.txt", "metadata.xls", "metadata.xlsm", "metadata.ods")
NEEDED, OPTIONAL = ("file_name", "text"), ("mask_file_name", "split", "zones", "group")
CELLS = ("file_name", "mask_file_name", "text", "split", "zones", "group")  # of a Row, in its order
SPLIT_NAMES = {
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
}

_FAILED = frozenset("#NAME? #N/A #REF! #VALUE! #DIV/0! #NULL! #NUM! #SPILL! #CALC!".split())
"""What spreadsheets show for a failed formula."""
_MISSING = frozenset("nan none null na n/a <na> nat undefined".split())
"""What programs write for a missing value, in small letters."""


@dataclass(frozen=True)
class Row:
    """A line of the table; an empty cell is an empty text.

    Attributes:
        number: number of the line in an editor or a spreadsheet, from 1.
        image, mask, text, split, zones, group: its cells; ``split`` has its main name.
    """

    number: int
    image: str
    mask: str
    text: str
    split: str
    zones: str
    group: str


@dataclass(frozen=True)
class Metadata:
    """The contents of a table.

    Attributes:
        path: path of the file.
        rows: all lines.
        unread: columns that are not used.
        problems: all problems of the cells.
        remarks: what can be read but is likely a mistake.
    """

    path: Path
    rows: list[Row]
    unread: list[str]
    problems: list[str]
    remarks: list[str]


def read_metadata(folder: Path) -> Metadata:
    """The table of a folder.

    Raises:
        DataError: if there is no table, or more than one, or if it cannot be read or lacks a column.
    """
    path = find_metadata(folder)
    if path is None:
        what = "is not a folder" if not folder.is_dir() else f"holds none of {', '.join(FILES)}"
        if others := _among(folder, UNREAD):
            what += f"; {others[0].name} is of another kind, save it as .xlsx or .csv"
        raise DataError(
            f"{folder}: {what}; the table of your own data has the columns {', '.join(NEEDED)} and, where there are "
            f"any, {', '.join(OPTIONAL)}; see docs/own_data.md"
        )
    try:
        table = _READERS[path.suffix.lower()](path)
    except DataError:
        raise
    except Exception as error:  # errors of CSV, JSON, Parquet and encodings share no base class
        raise DataError(f"{path}: no readable table ({reason_of(error)})") from None
    table.columns = [str(name).strip() for name in table.columns]
    _require_columns(path, list(table.columns))
    first = 1 if path.suffix.lower() == ".jsonl" else 2  # below a header
    problems: list[str] = []
    cells = {name: _texts(table, name, first, problems) for name in CELLS}
    rows = [
        Row(int(index) + first, *values)
        for index, *values in zip(table.index, *(cells[name] for name in CELLS), strict=True)
    ]
    rows = [_checked(row, problems) for row in rows]
    images = Counter(row.image for row in rows)
    problems += [f"{name}: listed {count} times" for name, count in images.items() if count > 1 and name]
    if not rows:
        problems.append("lists no pair")
    if rows and any(row.split for row in rows) and (bare := [row.number for row in rows if not row.split]):
        problems.append(f"{_lines(bare)}: no split, and others have one; fill in the column, or leave it out")
    remarks = [*_alike_groups(rows), *_of_no_person(rows)]
    if any(row.group for row in rows) and (bare := [row.number for row in rows if not row.group]):
        told = remarks if any(row.split for row in rows) else problems  # splits that are drawn would divide a group
        told.append(
            f"{_lines(bare)}: no group, and others have one; fill in each line (merged cells hold only their first)"
        )
    unread = [name for name in table.columns if name not in (*NEEDED, *OPTIONAL)]
    return Metadata(path, rows, unread, problems, remarks)


def find_metadata(folder: Path) -> Path | None:
    """The only table of a folder; None if it has none.

    Raises:
        DataError: if there is more than one table.
    """
    found = _among(folder, FILES)
    if len(found) > 1:
        raise DataError(f"{folder}: holds {' and '.join(path.name for path in found)}; keep one")
    return found[0] if found else None


def is_own(folder: str | Path) -> bool:
    """Whether a folder has such a table, or one of a kind that is not read."""
    return bool(_among(Path(folder), (*FILES, *UNREAD)))


def _among(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of a folder with one of these names, in any letter case."""
    return [path for path in listed(folder) if path.name.lower() in names and path.is_file()]


def _require_columns(path: Path, columns: list[str]) -> None:
    known = (*NEEDED, *OPTIONAL)
    if twice := [name for name in known if columns.count(name) > 1]:
        raise DataError(f"{path}: has the column {twice[0]} more than once; keep one")
    for missing in (name for name in NEEDED if name not in columns):
        raise DataError(f"{path}: has no column {missing}{did_you_mean(missing, columns)}, only {', '.join(columns)}")
    for name in columns:
        if name not in known and (meant := did_you_mean(name, [each for each in OPTIONAL if each not in columns])):
            raise DataError(f"{path}: has a column {name}{meant}; rename it, or give it a name that is not so close")


def _jsonl(path: Path) -> pd.DataFrame:
    lines = text_of(path).split("\n")  # splitlines() would cut texts at U+2028 and others
    read = {
        number: json.loads(line, object_pairs_hook=once(f"{path}: line {number + 1}"))
        for number, line in enumerate(lines)
        if line.strip()
    }
    for number, entry in read.items():
        if not isinstance(entry, dict):
            raise DataError(f"{path}: line {number + 1} is no object with names and values")
    return pd.DataFrame(list(read.values()), index=list(read), dtype=object)


def _parquet(path: Path) -> pd.DataFrame:
    """The table, with lines counted from 0. A named index of pandas is a column of the file like any other."""
    table = pd.read_parquet(path)
    named = [name for name in table.index.names if name is not None]
    return table.reset_index(level=named).reset_index(drop=True)


_READERS = {".csv": read_table, ".xlsx": read_table, ".jsonl": _jsonl, ".parquet": _parquet}


def _alike_groups(rows: list[Row]) -> list[str]:
    """A remark for groups whose names differ only in letter case or spaces: they count as different groups."""
    names: dict[str, list[str]] = {}
    for name in dict.fromkeys(row.group for row in rows if row.group):
        names.setdefault("".join(name.casefold().split()), []).append(name)
    alike = [" and ".join(map(repr, same)) for same in names.values() if len(same) > 1]
    if not alike:
        return []
    return [
        f"{len(alike)} group(s) are written in several ways, which count as different groups, so pairs of one may be "
        f"in two splits: {', '.join(alike[:5])}{', ...' if len(alike) > 5 else ''}; write each in one way"
    ]


def _of_no_person(rows: list[Row]) -> list[str]:
    """A remark for texts and groups that a program wrote for a missing value or a failed formula."""
    found = [row for row in rows if row.text.lower() in _MISSING or {row.text, row.group} & _FAILED]
    if not found:
        return []
    shown = ", ".join(dict.fromkeys(row.text if row.group not in _FAILED else row.group for row in found))
    return [
        f"{_lines([row.number for row in found])}: {shown}, which a program writes for a missing value or a failed "
        "formula; fill in the text or group"
    ]


def _texts(table: pd.DataFrame, name: str, first: int, problems: list[str]) -> list[str]:
    """A column as texts. Whole numbers and lists of them or of texts become text; any other value is a problem.

    An empty list of zones becomes ``[]``, because it says that there is no zone; an empty text says nothing.
    """
    if name not in table.columns:
        return [""] * len(table)
    texts = []
    for index, value in table[name].items():
        cell = value.tolist() if isinstance(value, np.ndarray) else value  # Parquet has arrays as lists
        several = isinstance(cell, list | tuple)
        cells = cell if several else [] if pd.api.types.is_scalar(cell) and pd.isna(cell) else [cell]
        if wrong := [each for each in cells if isinstance(each, bool) or not isinstance(each, str | int | np.integer)]:
            # A value of another type may be long, and may hold what the report says.
            told = repr(wrong[0]) if isinstance(wrong[0], bool | float) else f"of type {type(wrong[0]).__name__}"
            how = "lists a value that is" if several else "is"
            problems.append(f"line {index + first}: {name} {how} {told}, not a text")
        text = "" if wrong else "; ".join(str(each).strip() for each in cells)
        if not is_whole(text):
            problems.append(f"line {index + first}: {name} holds half a character (a lone surrogate); write it anew")
            text = text.encode(errors="replace").decode()
        texts.append("[]" if name == "zones" and several and not cells else text)
    return texts


def _checked(row: Row, problems: list[str]) -> Row:
    """The row with the main name of its split and ``/`` between folders. Its faults are added to ``problems``."""
    for what, name in (("file_name", row.image), ("mask_file_name", row.mask)):
        if name and not is_safe(name):
            problems.append(f"line {row.number}: {what} {name!r} must be of a file inside the folder")
    if not row.image:
        problems.append(f"line {row.number}: no file_name")
    if not row.text:
        problems.append(f"line {row.number}: no text")
    split = SPLIT_NAMES.get(row.split.lower(), "") if row.split else ""
    if row.split and not split:
        problems.append(f"line {row.number}: split {row.split!r} is none of {', '.join(SPLIT_NAMES)}")
        split = row.split
    image, mask = (name.replace("\\", "/") for name in (row.image, row.mask))  # names that Windows wrote
    return replace(row, image=image, mask=mask, split=split)


def _lines(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return f"line{'s' if len(numbers) > 1 else ''} {shown}{', ...' if len(numbers) > 5 else ''}"
