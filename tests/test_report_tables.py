"""Tables of reports: names are text whatever they look like, and a broken table is named without its contents."""

import datetime
import json

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.report_tables import ReportTable

TEXT = "Unilateral pulmonary infection, one infected area, lower left lung."
LIKE_NUMBERS = "0001 1e5 1E-3 007.png 2020-03-01 3/4 1_000 NA nan null None TRUE +5 1.0 -0 0x10 inf 98765432109".split()


def csv_table(path, names):
    path.write_text("Image,Description\n" + "".join(f'"{name}","{TEXT}"\n' for name in names), encoding="utf-8")
    return path


def sheet(path, cells, formats=None):
    book = openpyxl.Workbook()
    book.active.append(["Image", "Description"])
    for number, cell in enumerate(cells, 2):
        if cell is not None:
            book.active.append([cell, TEXT])
            if cell in (formats or {}):
                book.active.cell(number, 1).number_format = formats[cell]
        else:
            book.active.append([])
    book.save(path)
    return path


def names(path) -> list[str]:
    return [name for name, _, _ in ReportTable(path, "train").rows()]


def test_names_that_look_like_numbers_are_kept_in_every_kind_of_table(tmp_path):
    for path in (csv_table(tmp_path / "a.csv", LIKE_NUMBERS), sheet(tmp_path / "a.xlsx", LIKE_NUMBERS)):
        assert names(path) == LIKE_NUMBERS
    entries = [{"image_path": name, "caption": TEXT} for name in LIKE_NUMBERS]
    (tmp_path / "annotation.json").write_text(json.dumps({"train": entries}))
    assert names(tmp_path / "annotation.json") == LIKE_NUMBERS


def test_numbers_of_a_spreadsheet_are_names_as_its_cells_show_them(tmp_path):
    """Also beside an empty row, which would turn whole numbers into broken ones."""
    cells = [1, None, 2.0, 17, 100000, 2.5]
    assert names(sheet(tmp_path / "a.xlsx", cells, {17: "0000"})) == ["1", "2", "0017", "100000", "2.5"]


@pytest.mark.parametrize("cell", [datetime.date(2020, 3, 1), datetime.datetime(2020, 3, 1, 9), True])
def test_a_cell_that_is_no_text_any_more_is_refused_by_its_place(tmp_path, cell):
    with pytest.raises(DataError, match=r"a.xlsx: the cell A3 holds a (date|truth value), not a text"):
        names(sheet(tmp_path / "a.xlsx", ["1", cell]))


@given(
    st.lists(st.text("abcXYZ0123456789eE.-_+äß 日", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=6)
)
def test_any_name_is_kept_by_csv_and_spreadsheet(tmp_path_factory, given_names):
    folder, expected = tmp_path_factory.mktemp("table"), [name.strip() for name in given_names]
    expected = [name for name in expected if ".." not in name.split("/")]
    if expected:
        assert names(csv_table(folder / "a.csv", expected)) == expected
        assert names(sheet(folder / "a.xlsx", [name.replace("=", "") for name in expected])) == expected


ESCAPES = ["/etc/passwd", "../../secret.png", "a/../../b.png", "..", "C:\\secret.png", "..\\secret.png", "//host/x",
           "\\\\host\\x.png", "x\x1b[2J.png", "x\ny.png", "x\x00.png", "\u202egnp.x"]  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_that_leads_elsewhere_or_changes_a_terminal_is_refused(tmp_path, name):
    for entry in ({"image_path": name, "caption": TEXT}, name):
        (tmp_path / "split.json").write_text(json.dumps({"train": ["a", entry]}))
        with pytest.raises(DataError, match="row 2 names .*inside the dataset's folder") as error:
            names(tmp_path / "split.json")
        assert str(error.value).isprintable()


SECRET = "Jane Doe, born in 1970"
BROKEN = {
    "no UTF-8": ("t.csv", f"Image,Description\n{SECRET},".encode() + b"\xff\xfe\x00", "line 2 is not in UTF-8"),
    "too many cells": ("t.csv", f"Image,Description\na.png,{SECRET}, two areas\n".encode(), "row 2 has 4 cells"),
    "a quote that is left open": ("t.csv", f'Image,Description\na.png,"{SECRET}\n'.encode(), "no readable table"),
    "no zip": ("t.xlsx", SECRET.encode(), "no readable table"),
    "an empty file": ("t.xlsx", b"", "no readable table"),
    "cut JSON": ("t.json", f'{{"train": [{{"image_path": "{SECRET}"'.encode(), "JSONDecodeError"),
    "a list": ("t.json", f'["{SECRET}"]'.encode(), "expected splits, each with a list"),
    "a number": ("t.json", b"7", "expected splits, each with a list"),
    "nothing": ("t.json", b"null", "expected splits, each with a list"),
    "a text for a list": ("t.json", f'{{"train": "{SECRET}"}}'.encode(), "expected splits, each with a list"),
    "another key": ("t.json", f'{{"train": [{{"name": "{SECRET}"}}]}}'.encode(), "entry 1 of"),
    "a number for a name": ("t.json", b'{"train": [{"image_path": 7, "caption": ""}]}', "has no image_path"),
    "a list for a text": ("t.json", b'{"train": [{"image_path": "a", "caption": [1]}]}', "has no"),
    "nested very deeply": ("t.json", b"[" * 100_000, "RecursionError"),
    "UTF-16": ("t.json", json.dumps({"train": [SECRET]}).encode("utf-16"), "UnicodeDecodeError"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_table_is_named_and_none_of_it_is_shown(tmp_path, case):
    name, data, message = BROKEN[case]
    (tmp_path / name).write_bytes(data)
    assert isinstance(ReportTable(tmp_path / name, "train").is_about_split(), bool)
    with pytest.raises(DataError, match=message) as error:
        names(tmp_path / name)
    assert name in str(error.value) and SECRET.split(",")[0] not in str(error.value)


def test_a_table_with_a_bom_and_blank_lines_is_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f'\ufeffImage,Description\n\na.png,"{TEXT}"\n,\n\nb.png,"{TEXT}"\n', encoding="utf-8")
    assert names(path) == ["a.png", "b.png"]
