"""Tables of reports: spreadsheets, csv, and two kinds of JSON. Names and texts are taken as they stand there."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import openpyxl
import pandas as pd

from semimedref_core.data.pairs import DataError

ALL, FIRST_FOUR, LAST = (0, 5), (0, 4), (4, 5)  # fifths of a table's rows
TEXT_COLUMNS = ("description", "text")
Row = tuple[str, str, tuple[int, ...] | None]
"""Name of the image, text, pseudo-label if there is one."""


@dataclass(frozen=True)
class ReportTable:
    """A file with reports, and which fifths of its rows are the split.

    A spreadsheet ``.xlsx`` or ``.csv``; a ``.json`` that maps splits to lists of entries with ``image_path``,
    ``caption`` and maybe ``pseudo_label``; or one that maps them to lists of names, whose texts are in
    ``reports/NAME.txt`` beside it.
    """

    path: Path
    split: str
    fifths: tuple[int, int] = ALL

    def rows(self) -> list[Row]:
        """Each entry, in the order of the file.

        Raises:
            DataError: for a broken or empty table, or a name that is no text or leads out of the dataset's folder.
        """
        try:
            about = self.path.stat()  # a load asks for the same table several times, and a spreadsheet takes seconds
            rows = _table_rows(self, about.st_size, about.st_mtime_ns)
        except DataError:
            raise
        except Exception as error:  # zip, XML, CSV, JSON and encoding errors share no base class
            raise DataError(
                f"{self.path}: no readable table of reports ({reason_of(error)}); get the file again"
            ) from None
        start, stop = (len(rows) * fifth // 5 for fifth in self.fifths)
        if start == stop:
            raise DataError(f"{self.path}: empty split, nothing is listed for {self.split!r}")
        return rows[start:stop]

    def is_about_split(self) -> bool:
        """Whether it lists its split; a ``.json`` of all splits may not. A broken one counts: reading it tells."""
        try:
            if self.path.suffix.lower() != ".json":
                return True
            content = self._json()
            return not isinstance(content, dict) or _of_split(content, self.split) is not None
        except (OSError, ValueError, RecursionError):
            return True

    def _json(self):
        return json.loads(self.path.read_text(encoding="utf-8-sig"))

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
        excel = self.path.suffix.lower() == ".xlsx"
        sheet = _spreadsheet(self.path) if excel else read_csv(self.path)
        sheet = sheet.rename(columns=lambda name: str(name).strip().lower())
        text = next((column for column in TEXT_COLUMNS if column in sheet.columns), None)
        if "image" not in sheet.columns or text is None:
            raise DataError(f"{self.path}: has columns {list(sheet.columns)}, expected Image and Description (or text)")
        twice = sorted({name for name in ("image", text) if list(sheet.columns).count(name) > 1})
        if twice:
            raise DataError(f"{self.path}: has the column {twice[0]} more than once; leave one")
        names = sheet["image"].astype(str).str.strip()
        if (names == "").any():
            rows = [index + 2 for index in sheet.index[names == ""]]  # 1-based, below the header
            raise DataError(f"{self.path}: rows {rows} name no image; fill in the column Image")
        for index, name in names.items():
            self._require_safe(name, index + 2)
        zones = sheet["pseudo_label"] if "pseudo_label" in sheet.columns else [""] * len(sheet)
        return [(name, words, _bits(label)) for name, words, label in zip(names, sheet[text], zones, strict=True)]

    def _require_safe(self, name: str, row: int) -> None:
        """Refuses a name that leads out of the dataset's folder, or would change a terminal."""
        if not is_safe(name):
            raise DataError(
                f"{self.path}: row {row} names {name!r}; a name must be of a file inside the dataset's folder, without "
                "control characters"
            )


def is_safe(name: str) -> bool:
    """Whether a name is of a file inside a folder, and does not change a terminal."""
    parts = re.split(r"[\\/]", name)
    return not (".." in parts or parts[0] == "" or ":" in parts[0]) and name.isprintable()


@lru_cache(maxsize=8)
def _table_rows(table: ReportTable, size: int, changed: int) -> list[Row]:
    """All rows of a table, read once for each state of its file."""
    return table._json_rows() if table.path.suffix.lower() == ".json" else table._sheet_rows()


def _of_split(content, split: str):
    """What a table of all splits holds for one; None if nothing. The valid split may be called val."""
    if not isinstance(content, dict):
        return None
    return content.get(split, content.get("val") if split == "valid" else None)


def read_csv(path: Path) -> pd.DataFrame:
    """All cells as they stand there: ``0001``, ``1e5`` and ``NA`` are names."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        return _table(list(csv.reader(file, strict=True)), path)


def _spreadsheet(path: Path) -> pd.DataFrame:
    """The first sheet, all cells as text; a number is written as its cell shows it."""
    book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
    try:
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # what a file says of its size may be wrong
        rows = [[_shown(cell, path) for cell in row] for row in sheet.iter_rows()]
    finally:
        book.close()
    return _table([_trimmed(row) for row in rows], path)


def _table(rows: list[list[str]], path: Path) -> pd.DataFrame:
    """Rows below a header, without those that hold nothing; its index counts from the row after the header."""
    header = rows[0] if rows else []
    long = [number for number, row in enumerate(rows, 1) if len(row) > len(header)]
    if long:
        raise DataError(
            f"{path}: row {long[0]} has {len(rows[long[0] - 1])} cells and the header {len(header)}; put texts with "
            "commas in quotes"
        )
    table = pd.DataFrame([row + [""] * (len(header) - len(row)) for row in rows[1:]], columns=header, dtype=str)
    return table[(table != "").any(axis=1)] if len(table) else table


def _trimmed(row: list[str]) -> list[str]:
    """Without the empty cells at its end, which a spreadsheet may have anywhere."""
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
    """A pseudo-label, a list or one written out, as integers (malformed: other than six); None for an empty one."""
    return tuple(int(bit) for bit in re.findall(r"\d+", str(label))) if label else None


def reason_of(error: Exception) -> str:
    """What went wrong, without the contents of the file, which some errors hold."""
    told = isinstance(error, UnicodeError | OSError | json.JSONDecodeError)  # these tell a place and no contents
    return f"{type(error).__name__}: {error}" if told else type(error).__name__
