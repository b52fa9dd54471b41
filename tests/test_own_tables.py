"""The table of your own data: every kind that programs write is read, and every fault is named by its place."""

import json
from datetime import date

import openpyxl
import own_folders
import pytest
from own_folders import change, table_of

from semimedref_core.data.datasets import load_split, load_training
from semimedref_core.data.own.doctor import examine_own
from semimedref_core.data.own.folder import OwnData
from semimedref_core.data.pairs import DataError


@pytest.mark.parametrize("index", ["file_name", "patient", None])
def test_a_table_of_parquet_may_have_any_index(mine, index):
    """Also an index of names, as pandas writes it beside the columns."""
    table = table_of(mine).assign(patient=[f"p{k}" for k in range(12)])
    table = table.set_index(index) if index else table.set_axis(list("abcdefghijkl"))
    table.to_parquet(mine / "metadata.parquet")
    (mine / "metadata.csv").unlink()
    own = OwnData.find(mine)
    assert own.problems == () and own.table.unread == ["patient"]
    assert [row.number for row in own.table.rows] == list(range(2, 14))
    assert own.table.rows[3].image == "images/003.png"


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85"])
def test_a_text_may_hold_any_letter_that_json_allows(mine, letter):
    """JSON may write a line separator as it is, and programs that write readable JSON do so. Only \\n ends a line."""
    own_folders.as_jsonl(mine)
    path = mine / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    rows[0]["text"] = f"Patchy opacity{letter}in the left upper zone."
    path.write_bytes("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    own = OwnData.find(mine)
    assert own.problems == () and sum(map(len, own.splits.values())) == 12
    told = {entry.image.name: entry.text for split in own.splits.values() for entry in split}
    assert told["000.png"] == rows[0]["text"]


@pytest.mark.parametrize("write", [own_folders.as_jsonl, own_folders.as_parquet, own_folders.as_xlsx])
def test_the_table_may_be_jsonl_parquet_or_a_spreadsheet(mine, write):
    before = load_split("folder", "train", 32, str(mine))
    write(mine)
    assert load_split("folder", "train", 32, str(mine)).digest() == before.digest()


@pytest.mark.parametrize("separator, encoding", [(";", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-16"), ("\t", "utf-8")])
@pytest.mark.parametrize("name", ["metadata.csv", "Metadata.CSV"])
def test_a_csv_is_read_as_spreadsheet_programs_of_many_countries_write_it(mine, separator, encoding, name):
    change(mine, 0, text="Übergang, left upper zone, no effusion", file_name="images/000.png")
    before = load_training("folder", 0.5, 32, str(mine))
    table = table_of(mine)
    (mine / "metadata.csv").unlink()
    table.to_csv(mine / name, index=False, sep=separator, encoding=encoding)
    assert load_training("folder", 0.5, 32, str(mine)).digest() == before.digest()


def test_a_semicolon_table_with_a_semicolon_in_a_text_says_what_to_quote(mine):
    table = table_of(mine).replace(" zone", "; zone", regex=True)
    (mine / "metadata.csv").write_text("\n".join(";".join(row) for row in [table.columns, *table.to_numpy()]))
    with pytest.raises(DataError, match="row 2 has 4 cells and the header 3; put texts with semicolons in quotes"):
        OwnData.find(mine)


def test_a_table_in_another_encoding_or_of_another_program_gets_its_cure(mine, semimedref):
    change(mine, 1, text="Kein Übergang")
    table = table_of(mine)
    table.to_csv(mine / "metadata.csv", index=False, encoding="latin-1")
    told = semimedref("doctor", data=mine)
    assert told.status == 1 and "metadata.csv: line 3 is not in UTF-8; save the file in the encoding UTF-8" in told.text
    assert "Decode" not in told.text and "bergang" not in told.text
    (mine / "metadata.csv").rename(mine / "metadata.tsv")
    told = semimedref("doctor", data=mine)
    assert told.status == 1 and "metadata.tsv is of another kind, save it as .xlsx or .csv" in told.text


def test_a_row_that_lost_its_last_cells_is_refused_by_its_place(mine):
    """Else its mask is lost, and the pair counts as unlabelled. Some programs leave out empty cells at the end."""
    lines = table_of(mine)[["file_name", "text", "mask_file_name"]].to_csv(index=False).splitlines()
    for row in (4, 8):
        lines[row] = lines[row].rpartition(",")[0]
    (mine / "metadata.csv").write_text("\n".join([*lines, "", ",,"]))
    with pytest.raises(DataError, match=r"2 row\(s\) have fewer cells than the header, the first is row 5 with 2 of 3"):
        OwnData.find(mine)


def test_a_line_with_two_texts_is_refused(mine):
    own_folders.as_jsonl(mine)
    path = mine / "metadata.jsonl"
    path.write_text(path.read_text().replace('"text":', '"text": "Haze in the left lower zone.", "text":', 1))
    with pytest.raises(DataError, match="line 1: has 'text' 2 times in one entry; keep one"):
        OwnData.find(mine)


def test_a_patient_written_in_two_ways_is_remarked_by_doctor_and_training(semimedref, train, tmp_path):
    """Else pictures of one patient may be in both splits without a word."""
    splits = ["train"] * 8 + ["valid"] * 4
    groups = [f"Patient {k % 8:02}" for k in range(8)] + ["patient 00", "Patient  01", "Patient 20", "Patient 21"]
    folder = own_folders.chest(tmp_path / "mine", split=splits, group=groups)
    alike = "2 group(s) are written in several ways, which count as different groups, so pairs of one may be in two"
    told = semimedref("doctor", data=folder)
    assert f"WARNING {alike}" in told.text and "'Patient 00' and 'patient 00'" in told.text
    outcome = train(dataset="folder", data=folder, output=tmp_path / "run", label_ratio=0.5, steps=1)
    assert f"note: {alike}" in outcome.text
    assert (
        "written in several ways"
        not in examine_own(own_folders.chest(tmp_path / "plain", group=groups[:4] * 3)).render()
    )


def test_a_group_that_merged_cells_name_once_is_refused_by_its_lines(mine, semimedref):
    """Merged cells of a spreadsheet hold their value in the first line only. Else one patient is in both splits."""
    table = table_of(mine).assign(group=[f"patient{k // 4}" for k in range(12)])
    book = openpyxl.Workbook()
    for row in [list(table.columns), *table.to_numpy().tolist()]:
        book.active.append(row)
    column = "ABCD"[table.columns.get_loc("group")]
    for first in (2, 6, 10):
        book.active.merge_cells(f"{column}{first}:{column}{first + 3}")
    (mine / "metadata.csv").unlink()
    book.save(mine / "metadata.xlsx")
    bare = "lines 3, 4, 5, 7, 8, ...: no group, and others have one; fill in each line (merged cells hold only their"
    told = semimedref("doctor", data=mine)
    assert told.status == 1 and f"1 problem(s):\n{bare}" in told.text
    with pytest.raises(DataError, match="no group, and others have one"):
        load_training("folder", 0.5, 32, str(mine))
    (mine / "metadata.xlsx").unlink()
    groups = ["a", "", "", ""] * 3
    table.assign(split=["train"] * 8 + ["valid"] * 4, group=groups).to_csv(mine / "metadata.csv", index=False)
    own = OwnData.find(mine)
    assert own.problems == () and own.table.remarks[0].startswith(bare), "with splits of the table it is a remark"


@pytest.mark.parametrize("name", ["text", "group"])
def test_half_a_character_is_a_problem_of_its_line(mine, name):
    """JSON can hold it, and no encoding can write it."""
    own_folders.as_jsonl(mine)
    lines = [json.dumps({**json.loads(line), "group": f"p{k}"}) for k, line in enumerate(_lines_of(mine))]
    lines[3] = json.dumps({**json.loads(lines[3]), name: "haze \ud83d"})
    (mine / "metadata.jsonl").write_text("\n".join(lines))
    assert OwnData.find(mine).problems == (f"line 4: {name} holds half a character (a lone surrogate); write it anew",)
    assert "line 4" in examine_own(mine).render()


def _lines_of(folder):
    return (folder / "metadata.jsonl").read_text().splitlines()


def test_cells_that_a_program_wrote_are_remarked(mine):
    """A formula that failed, and missing values that became words."""
    for row, text in ((0, "#NAME?"), (2, "nan"), (5, "None")):
        change(mine, row, text=text)
    assert (
        "WARNING lines 2, 4, 7: #NAME?, nan, None, which a program writes for a missing value"
        in examine_own(mine).render()
    )


def test_names_that_windows_wrote_are_read(mine):
    before = load_training("folder", 0.5, 32, str(mine))
    table = table_of(mine)
    table[["file_name", "mask_file_name"]] = table[["file_name", "mask_file_name"]].replace("/", r"\\", regex=True)
    table.to_csv(mine / "metadata.csv", index=False)
    assert "images\\000.png" in (mine / "metadata.csv").read_text()
    assert load_training("folder", 0.5, 32, str(mine)).digest() == before.digest()


def test_a_name_in_another_letter_case_is_asked_about(mine, semimedref):
    (mine / "images/000.png").rename(mine / "images/000.PNG")
    told = semimedref("doctor", data=mine)
    assert told.status == 1 and "000.png: listed but missing (did you mean 000.PNG? Letter case" in told.text


def test_names_are_texts(tmp_path):
    folder = own_folders.chest(tmp_path / "mine", group=["0001", "1e5", "NA"] * 4)
    rows = OwnData.find(folder).table.rows
    assert {row.group for row in rows} == {"0001", "1e5", "NA"}


def test_faults_of_the_table_are_told_all_at_once(mine, semimedref):
    change(mine, 0, text="")
    change(mine, 1, file_name="../outside.png")
    change(mine, 2, file_name="images/003.png")
    change(mine, 4, split="learn")
    change(mine, 5, zones="left toe")
    told = semimedref("doctor", data=mine)
    assert told.status == 1
    for fault in (
        "line 2: no text",
        "line 3: file_name '../outside.png' must be",
        "images/003.png: listed 2 times",
        "line 6: split 'learn' is none of train",
        "line 7: 'left toe' is no zone; choose of left upper",
    ):
        assert fault in told.text, fault
    with pytest.raises(DataError, match=r"6 problem\(s\) .*\n.*\n.*line 3"):
        load_training("folder", 0.5, 32, str(mine))


@pytest.mark.parametrize("kind, name, value, told", [
    ("jsonl", "text", {"en": "left lower"}, "is of type dict"),
    ("parquet", "text", {"en": "left lower"}, "is of type dict"),
    ("parquet", "text", b"left lower", "is of type bytes"),
    ("parquet", "group", date(2020, 1, 2), "is of type date"),
    ("jsonl", "text", 1.5, "is 1.5"),
    ("jsonl", "text", ["left", {"en": "lower"}], "lists a value that is of type dict"),
    ("jsonl", "text", ["left lower", None], "lists a value that is of type NoneType"),
    ("jsonl", "zones", [["left lower"]], "lists a value that is of type list"),
    ("parquet", "zones", [True, False], "lists a value that is True"),
])  # fmt: skip
def test_a_value_that_is_no_text_is_told_by_its_place_and_not_shown(mine, kind, name, value, told):
    """Else ``{"en": "left lower"}`` becomes the report "{'en': 'left lower'}"."""
    table = table_of(mine)
    table[name] = [value] * 12
    (mine / "metadata.csv").unlink()
    if kind == "parquet":
        table.to_parquet(mine / "metadata.parquet")
    else:
        lines = [json.dumps(row) + "\n" for row in table.to_dict("records")]
        (mine / "metadata.jsonl").write_text("".join(lines))
    problem = OwnData.find(mine).problems[0]
    assert problem == f"line {1 if kind == 'jsonl' else 2}: {name} {told}, not a text"


def test_a_column_that_is_nearly_right_is_asked_about(mine):
    table_of(mine).rename(columns={"mask_file_name": "mask_filename"}).to_csv(mine / "metadata.csv", index=False)
    with pytest.raises(DataError, match=r"column mask_filename \(did you mean mask_file_name"):
        OwnData.find(mine)


def test_a_folder_without_a_table_is_told_what_it_takes(tmp_path):
    with pytest.raises(DataError, match="holds none of metadata.csv, .*metadata.parquet; .* file_name, text"):
        OwnData.find(tmp_path)
