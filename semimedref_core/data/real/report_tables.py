"""Tables of reports: spreadsheets, csv, and two kinds of JSON. Names and texts are read unchanged."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import openpyxl
import pandas as pd

from semimedref_core.data.pairs import DataError

ALL, FIRST_FOUR, LAST = (0, 5), (0, 4), (4, 5)  # fifths of a table's rows
TEXT_COLUMNS = ("description", "text")
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}  # between the cells of a CSV file
Row = tuple[str, str, tuple[int, ...] | None]
"""Name of the image, text, and pseudo-label or None."""


def is_whole(text: str) -> bool:
    """Whether an encoding can write a text. JSON may hold half a character (a lone surrogate, as ``\\ud83d``)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class ReportTable:
    """A file with reports, and the fifths of its rows that form the split.

    The file is a spreadsheet ``.xlsx`` or ``.csv``, or a ``.json``. The ``.json`` maps each split to a list of entries
    with ``image_path``, ``caption`` and perhaps ``pseudo_label``. Or it maps each split to a list of names whose texts
    are in ``reports/NAME.txt`` beside it.
    """

    path: Path
    split: str
    fifths: tuple[int, int] = ALL

    def rows(self) -> list[Row]:
        """All entries, in the order of the file.

        Raises:
            DataError: for a broken or empty table, or a name that is not a text or points outside the dataset's folder.
        """
        try:
            about = self.path.stat()  # the same table is needed several times, and a spreadsheet takes seconds
            rows = _table_rows(self, about.st_size, about.st_mtime_ns)
        except DataError:
            raise
        except Exception as error:  # errors of zip, XML, CSV, JSON and encodings share no base class
            raise DataError(
                f"{self.path}: no readable table of reports ({reason_of(error)}); get the file again"
            ) from None
        start, stop = (len(rows) * fifth // 5 for fifth in self.fifths)
        if start == stop:
            raise DataError(f"{self.path}: empty split, nothing is listed for {self.split!r}")
        return rows[start:stop]

    def is_about_split(self) -> bool:
        """Whether the file lists its split; a ``.json`` of all splits may not. True for a broken file, since reading it
        reports the problem."""
        try:
            if self.path.suffix.lower() != ".json":
                return True
            content = self._json()
            return not isinstance(content, dict) or _of_split(content, self.split) is not None
        except (OSError, ValueError, RecursionError):
            return True

    def _json(self):
        return json.loads(self.path.read_text(encoding="utf-8-sig"), object_pairs_hook=once(str(self.path)))

    def _json_rows(self) -> list[Row]:
        content = self._json()
        entries = _of_split(content, self.split)
        if not isinstance(entries, list):
            raise DataError(
                f"{self.path}: no readable table of reports (expected splits, each with a list, as "
                '{"train": [{"image_path": ..., "caption": ...}, ...], ...}); get the file again'
            )
        return [self._json_row(number, entry) for number, entry in enumerate(entries, 1)]

    def _json_row(self, number: int, entry) -> Row:
        if isinstance(entry, str):
            self._require_safe(entry, number)
            report = self.path.parent / "reports" / f"{Path(entry).stem}.txt"
            return entry, report.read_text(encoding="utf-8-sig").strip() if report.is_file() else "", None
        name = entry.get("image_path") if isinstance(entry, dict) else None
        caption = entry.get("caption") or "" if isinstance(entry, dict) else ""
        if not isinstance(name, str) or not isinstance(caption, str):
            raise DataError(
                f"{self.path}: no readable table of reports (entry {number} of {self.split!r} has no image_path and "
                "caption that are texts); get the file again"
            )
        self._require_safe(name, number)
        return name, caption, _bits(entry.get("pseudo_label") or "")

    def _sheet_rows(self) -> list[Row]:
        sheet = read_table(self.path).rename(columns=lambda name: str(name).strip().lower())
        text = next((column for column in TEXT_COLUMNS if column in sheet.columns), None)
        if "image" not in sheet.columns or text is None:
            raise DataError(f"{self.path}: has columns {list(sheet.columns)}, expected Image and Description (or text)")
        twice = sorted({name for name in ("image", text) if list(sheet.columns).count(name) > 1})
        if twice:
            raise DataError(f"{self.path}: has the column {twice[0]} more than once; keep one")
        names = sheet["image"].astype(str).str.strip()
        if (names == "").any():
            rows = [index + 2 for index in sheet.index[names == ""]]  # 1-based, below the header
            raise DataError(f"{self.path}: rows {rows} name no image; fill in the column Image")
        for index, name in names.items():
            self._require_safe(name, index + 2)
        zones = sheet["pseudo_label"] if "pseudo_label" in sheet.columns else [""] * len(sheet)
        return [(name, words, _bits(label)) for name, words, label in zip(names, sheet[text], zones, strict=True)]

    def _require_safe(self, name: str, row: int) -> None:
        """Refuses a name that points outside the dataset's folder or has control characters."""
        if not is_safe(name):
            raise DataError(
                f"{self.path}: row {row} names {name!r}; a name must mean a file inside the dataset's folder, without "
                "control characters"
            )


def once(where: str) -> Callable[[list[tuple[str, object]]], dict]:
    """A hook for ``json.loads``, which otherwise takes the last of several values with the same name.

    The hook raises a DataError for such a name; ``where`` begins the message.
    """

    def read(pairs: list[tuple[str, object]]) -> dict:
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1:
                raise DataError(f"{where}: has {name!r} {count} times in one entry; keep one")
        return dict(pairs)

    return read


def is_safe(name: str) -> bool:
    """Whether a name means a file inside a folder and has no control characters."""
    parts = re.split(r"[\\/]", name)
    return not (".." in parts or parts[0] == "" or ":" in parts[0]) and name.isprintable()


@lru_cache(maxsize=8)
def _table_rows(table: ReportTable, size: int, changed: int) -> list[Row]:
    """All rows of a table; the file is read again only if it changed."""
    return table._json_rows() if table.path.suffix.lower() == ".json" else table._sheet_rows()


def _of_split(content, split: str):
    """The part of a table for one split; None if there is none. The valid split may be called val."""
    if not isinstance(content, dict):
        return None
    return content.get(split, content.get("val") if split == "valid" else None)


def read_table(path: Path) -> pd.DataFrame:
    """A spreadsheet ``.xlsx`` or a CSV file. All cells are unchanged text: ``0001``, ``1e5`` and ``NA`` are names.

    Raises:
        DataError: if rows do not fit the header, or a cell or the file's encoding cannot be read as text.
    """
    return _spreadsheet(path) if path.suffix.lower() == ".xlsx" else _csv(path)


def _csv(path: Path) -> pd.DataFrame:
    """Cells separated by commas; or by semicolons or tabs, as spreadsheet programs of many countries write them, if the
    header has these and no comma."""
    text = text_of(path)
    there = [mark for mark in _SEPARATORS if mark in text.partition("\n")[0]]
    mark = there[0] if len(there) == 1 else ","
    return _table(list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)), path, mark)


def text_of(path: Path) -> str:
    """The text of a file in UTF-8; or in UTF-16, if the file begins with the mark of this encoding.

    Raises:
        DataError: names the first line that is no such text.
    """
    data = path.read_bytes()
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line} is not in {'UTF-16' if marked else 'UTF-8'}; save the file in the encoding UTF-8 "
            '(spreadsheet programs offer "CSV UTF-8"), or a table as .xlsx'
        ) from None


def _spreadsheet(path: Path) -> pd.DataFrame:
    """The first sheet, with all cells as text; numbers are written as the cells show them."""
    book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
    try:
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # the size in the file may be wrong
        rows = [[_shown(cell, path) for cell in row] for row in sheet.iter_rows()]
    finally:
        book.close()
    return _table([_trimmed(row) for row in rows], path, whole=False)


def _table(rows: list[list[str]], path: Path, mark: str = ",", whole: bool = True) -> pd.DataFrame:
    """The rows below the header, without empty rows. The index counts from the first row after the header.

    Raises:
        DataError: if a row has more cells than the header; or fewer, unless ``whole`` is false.
    """
    header = rows[0] if rows else []
    long = [number for number, row in enumerate(rows, 1) if len(row) > len(header)]
    if long:
        raise DataError(
            f"{path}: row {long[0]} has {len(rows[long[0] - 1])} cells and the header {len(header)}; put texts with "
            f"{_SEPARATORS[mark]} in quotes"
        )
    if whole and (short := [number for number, row in enumerate(rows, 1) if any(row) and len(row) < len(header)]):
        raise DataError(
            f"{path}: {len(short)} row(s) have fewer cells than the header, the first is row {short[0]} with "
            f"{len(rows[short[0] - 1])} of {len(header)}, so cells may be lost; separate empty cells by "
            f"{_SEPARATORS[mark]} too, or save the table as .xlsx"
        )
    table = pd.DataFrame([row + [""] * (len(header) - len(row)) for row in rows[1:]], columns=header, dtype=str)
    return table[(table != "").any(axis=1)] if len(table) else table


def _trimmed(row: list[str]) -> list[str]:
    """A row without the empty cells at its end; spreadsheets may have such cells."""
    while row and not row[-1]:
        row = row[:-1]
    return row


def _shown(cell, path: Path) -> str:
    value = cell.value
    if value is None or isinstance(value, str):
        return value or ""
    if cell.is_date or isinstance(value, bool):
        raise DataError(
            f"{path}: the cell {cell.coordinate} holds a {'truth value' if isinstance(value, bool) else 'date'}, not a "
            "text; give its column the format Text and type the cell again"
        )
    whole = str(int(value)) if float(value).is_integer() else repr(value)
    zeros = re.fullmatch(r"0+", cell.number_format or "")  # a format such as 0000 shows 1 as 0001
    return whole.zfill(len(zeros[0])) if zeros and "." not in whole else whole


def _bits(label) -> tuple[int, ...] | None:
    """A pseudo-label, from a list or its text, as integers; None for an empty one. A malformed one does not have
    six."""
    return tuple(int(bit) for bit in re.findall(r"\d+", str(label))) if label else None


def reason_of(error: Exception) -> str:
    """The reason of an error, without the contents of the file, which some errors include."""
    told = isinstance(error, UnicodeError | OSError | json.JSONDecodeError)  # these name a place, but no contents
    return f"{type(error).__name__}: {error}" if told else type(error).__name__
