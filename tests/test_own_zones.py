"""The zones of your own pictures: tables of positions, and the column of zones."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from own_folders import change, table_of

from semimedref_core.data.datasets import load_split
from semimedref_core.data.own.doctor import examine_own
from semimedref_core.data.own.folder import OwnData
from semimedref_core.data.own.zones import layout_named, layout_of
from semimedref_core.data.pairs import DataError
from semimedref_core.demo.answer import Demo
from semimedref_core.errors import ConfigError
from semimedref_core.free_reports import FreeReport
from semimedref_core.inference import SemiMedRef


def test_a_table_of_positions_is_read_and_its_faults_are_told_at_once(tmp_path):
    path = tmp_path / "retina.csv"
    path.write_text("words,left,top,right,bottom\nnasal; nasally,0,0,0.5,1\ntemporal,0.5,0,1,1\n")
    layout = layout_named(str(path))
    assert layout.mirror == (1, 0) and FreeReport.of("Bleeding nasally", layout).zones == (1, 0)
    with pytest.raises(ConfigError, match=r"did you mean patient\?"):
        layout_named("lung", "patients")
    with pytest.raises(DataError, match="leave text_sides at image"):
        layout_named(str(path), "patient")
    path.write_text("words,left,top,right,bottom\nnasal,0.5,0,0.5,1\n,0,0,1,x\nnasal,0,0,1,1\n")
    with pytest.raises(DataError, match="3 problem.*\n.*row 2.*\n.*row 3.*\n.*row 4: begins with the same words"):
        layout_named(str(path))
    path.write_text("words,left,top,right\nnasal,0,0,1\n")
    with pytest.raises(DataError, match="columns of a table of positions are words, left, top, right, bottom"):
        layout_named(str(path))
    path.write_text("words,left,top,right,bottom\n" + "".join(f"w{k},0,0,1,0.{k + 1}\n" for k in range(7)))
    with pytest.raises(DataError, match="lists 7 zones; .* 1 to 6, as ITCL's kernels tell 64 sets of zones apart"):
        layout_named(str(path))


def test_a_table_of_positions_may_be_written_as_many_countries_do(tmp_path):
    """With semicolons and decimal commas, or in a spreadsheet; and an error says its own reason."""
    path, sheet = tmp_path / "retina.csv", tmp_path / "retina.xlsx"
    path.write_text('words;left;top;right;bottom\n"nasal; nasally";0;0;0,5;1\ntemporal;0,5;0;1;1\n')
    rows = [("nasal; nasally", 0, 0, 0.5, 1), ("temporal", 0.5, 0, 1, 1)]
    pd.DataFrame(rows, columns=["words", "left", "top", "right", "bottom"]).to_excel(sheet, index=False)
    for table in (path, sheet):
        layout = layout_named(str(table))
        assert layout.words == (("nasal", "nasally"), ("temporal",))
        assert layout.shares == ((0, 0, 1, 0.5), (0, 0.5, 1, 1))
    path.write_text("words;left;top;right;bottom\nnasal; nasally;0;0;0,5;1\n")
    with pytest.raises(DataError, match="row 2 has 6 cells and the header 5; put texts with semicolons in quotes"):
        layout_named(str(path))


def test_zones_of_the_table_are_taken_and_contradictions_told(mine):
    change(mine, 0, zones="right lower; left middle")
    change(mine, 1, zones="[0, 0, 0, 1, 0, 0]")
    reports = {entry.name: entry.free for entries in OwnData.find(mine).splits.values() for entry in entries}
    assert reports["images/000.png"].zones == (0, 1, 0, 0, 0, 1)
    assert reports["images/001.png"].zones == (0, 0, 0, 1, 0, 0)
    differ = "images/000.png: zones left middle, right lower, but its text names left upper"
    assert differ in examine_own(mine).render()
    with pytest.warns(UserWarning, match=rf"the listed ones are taken(.|\n)*{differ}"):
        load_split("folder", "train", 32, str(mine))


@pytest.mark.parametrize("kind, cell, zones", [
    ("jsonl", [], (0,) * 6), ("parquet", [], (0,) * 6), ("csv", "[]", (0,) * 6),
    ("jsonl", None, None), ("parquet", None, None), ("csv", "", None), ("parquet", ["left lower"], (0, 0, 1, 0, 0, 0)),
])  # fmt: skip
def test_an_empty_list_of_zones_is_no_zone_and_an_empty_cell_is_what_the_text_names(mine, kind, cell, zones):
    table = table_of(mine).assign(zones=[cell] * 12)
    (mine / "metadata.csv").unlink()
    write = {"jsonl": table.to_json, "parquet": table.to_parquet, "csv": table.to_csv}[kind]
    write(mine / f"metadata.{kind}", **({"orient": "records", "lines": True} if kind == "jsonl" else {"index": False}))
    own = OwnData.find(mine)
    (first,) = [entry for entries in own.splits.values() for entry in entries if entry.name == "images/000.png"]
    assert own.problems == () and first.zones == zones
    assert first.free.zones == ((1, 0, 0, 0, 0, 0) if zones is None else zones)
    differ = "zones none, but its text names left upper"
    assert (differ in examine_own(mine).render()) == (zones == (0,) * 6)


def test_a_cell_none_may_be_a_missing_value_and_is_refused_with_what_to_write(mine):
    change(mine, 0, zones="None")
    cure = "line 2: 'none' is no zone; choose of left upper, .*right lower, or \\[\\] for none"
    assert re.fullmatch(cure, *OwnData.find(mine).problems)


@pytest.mark.parametrize("cell, problem", [("anywhere", "no words for zones; leave the cell empty"), ("[]", "")])
def test_without_positions_a_cell_lists_no_zone(mine, cell, problem):
    """No report could name it when a mix adds a lesion there."""
    table_of(mine).assign(zones=cell).to_csv(mine / "metadata.csv", index=False)
    problems = OwnData.find(mine, "none").problems
    assert len(problems) == (12 if problem else 0) and all(problem in told for told in problems)


def test_a_network_keeps_the_table_of_positions_that_it_was_trained_with(
    train, semimedref, mine, tmp_path, monkeypatch
):
    """The table may be named by a relative path, move, or stay on another machine."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("pos.csv").write_text("words,left,top,right,bottom\nleft; l,0,0,0.5,1\nright,0.5,0,1,1\n")
    run, told = tmp_path / "run", {"dataset": "folder", "data": mine, "label_ratio": 0.5, "positions": "pos.csv"}
    outcome = train(output=run, method="supervised", **told)
    assert outcome.status == 0, outcome.errors
    layout = layout_named("pos.csv")
    Path("pos.csv").unlink()
    monkeypatch.chdir("elsewhere")
    path = run / "teacher" / "config.json"
    about = json.loads(path.read_text())
    kept = layout_of(about)
    assert (kept.names, kept.shares, kept.words) == (layout.names, layout.shares, layout.words)
    scored = semimedref("evaluate", checkpoint=run, data=mine, reports="removed")
    assert scored.status == 0, scored.errors
    demo = Demo(SemiMedRef.from_pretrained(run), {})
    assert (demo.layout.names, demo.note) == (("left", "right"), "")

    def refused(**entries):
        path.write_text(json.dumps({**about, **entries}))
        outcome = semimedref("evaluate", checkpoint=run, data=mine)
        assert outcome.status == 1
        return outcome.errors

    damaged = [7, {"words": [["a"]]}, {"words": 3, "boxes": 3}, {"words": [["a"]], "boxes": []},
               {"words": [["a"]], "boxes": [[0, 0, 0, 1]]}, {"words": [["a"]] * 7, "boxes": [[0, 0, 1, 1]] * 7},
               {"words": [["a"]], "boxes": [[0, 0, 1, None]]}]  # fmt: skip
    for table in damaged:
        assert "layout in the network's config.json: " in refused(layout=table), table
    assert "gone/pos.csv: no such table of positions" in refused(layout=None, positions="gone/pos.csv"), "an older one"
