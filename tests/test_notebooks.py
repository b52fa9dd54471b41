"""Every notebook: source and executed pair in step, run from top to bottom by papermill, its numbers asserted."""

import json
import re
import time
from pathlib import Path

import jupytext
import nbformat
import pytest
from jupytext.compare import compare_notebooks

from semimedref_core import runs
from semimedref_core.__main__ import main

SOURCES = sorted(runs.NOTEBOOKS.glob("*.py"))
TRAINING = "06_train"  # takes minutes, so the tutorial's test is its only full run
STEPPED = [source for source in SOURCES if source.stem != TRAINING]
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?")
SMALL = {"steps": 12, "image_size": 32, "batch_size": 4}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_executed_notebook_is_of_this_source_and_holds_outputs(source):
    executed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    compare_notebooks(jupytext.read(source), executed, fmt="py:percent")
    cells = [
        cell
        for cell in executed.cells
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", [])
    ]
    assert all(cell.execution_count for cell in cells)
    assert sum(bool(cell.outputs) for cell in cells) > len(cells) / 2
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    assert source.with_suffix(".ipynb").stat().st_size < 1_000_000


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_parameters_are_literals_in_one_cell_and_cells_are_short(source):
    cells = [cell for cell in jupytext.read(source).cells if cell.cell_type == "code"]
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    scope = {}
    exec(compile(tagged[0].source, str(source), "exec"), {"__builtins__": {}}, scope)  # no name but literals
    assert scope and all(isinstance(value, str | int | float | bool | list) for value in scope.values())
    lengths = sorted(len(cell.source.splitlines()) for cell in cells)
    assert lengths[-1] <= 25 and lengths[len(lengths) // 2] <= 8


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_every_notebook_opens_and_ends_alike(source):
    cells = jupytext.read(source).cells
    assert re.match(rf"# {source.stem[:2]} · .+\n\n\*\*What you will see\.\*\*", cells[0].source)
    assert "parameters" in cells[1].metadata.get("tags", [])
    assert "versions(" in cells[2].source and "import" in cells[2].source
    assert any("**To remember" in cell.source for cell in cells[-3:])


@pytest.mark.parametrize("source", STEPPED, ids=lambda path: path.stem)
def test_running_the_notebook_prints_what_the_committed_one_shows(source, tmp_path):
    """Words exactly, numbers up to another machine's rounding; cells that tell of this machine are tagged."""
    executed = nbformat.read(runs.run_notebook(source.stem, tmp_path, {}), as_version=4)
    assert widget_errors(executed) == []
    compared = 0
    for cell, wanted in zip(
        code(executed), code(nbformat.read(source.with_suffix(".ipynb"), as_version=4)), strict=True
    ):
        if "nbval-ignore-output" in wanted.metadata.get("tags", []):
            continue
        here, there = printed(cell), printed(wanted)
        assert NUMBER.sub("#", here) == NUMBER.sub("#", there), cell.source
        numbers, expected = ([float(n) for n in NUMBER.findall(text)] for text in (here, there))
        assert numbers == pytest.approx(expected, rel=0.03, abs=0.03), cell.source
        compared += len(numbers)
    assert compared >= 3


@pytest.mark.parametrize(
    "source", [source for source in STEPPED if "dataset = " in source.read_text()], ids=lambda path: path.stem
)
def test_the_notebook_runs_on_real_qata(source, tmp_path, real_data, monkeypatch):
    monkeypatch.setenv("SEMIMEDREF_DATA", str(real_data.resolve()))
    executed = nbformat.read(runs.run_notebook(source.stem, tmp_path, {"dataset": "qata"}), as_version=4)
    assert widget_errors(executed) == []


def code(notebook) -> list:
    """The code cells, without the one that papermill adds for parameters."""
    cells = (cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", []))
    return [cell for cell in cells if cell.cell_type == "code"]


def printed(cell) -> str:
    """What a cell wrote and returned as text; a figure's own name is none."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
        if output.get("name") != "stderr" and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
    ]
    # Nothing between them: what a slow cell prints may arrive as one piece or as several.
    return "".join(text for text in texts if not text.startswith("<Figure"))


def widget_errors(notebook) -> list[str]:
    """Errors inside widget callbacks, which leave the cell itself in order."""
    states = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    outputs = (output for model in states.values() for output in model["state"].get("outputs", []))
    return [output["evalue"] for output in outputs if output["output_type"] == "error"]


def test_the_tutorial_command_trains_both_methods_and_its_numbers_are_those_of_the_committed_notebook(tmp_path, capsys):
    """The README's main job, as it is. Another machine rounds differently, hence the few points of tolerance."""
    folder = tmp_path / "tutorial"
    assert main(["tutorial", "--output", str(folder)]) == 0
    told = capsys.readouterr().out
    for path in ("06_train.ipynb", "supervised/metrics.jsonl", "semi_medref/metrics.jsonl", "semi_medref/teacher"):
        assert (folder / path).exists() and Path(path).name in told
    assert {path.name for path in folder.glob("*.png")} == {"pairs.png", "curves.png", "teacher.png", "predictions.png"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["semi_medref"] > summary["supervised"]
    assert summary["semi_medref"] - summary["semi_medref_without_text"] > 0.10
    assert 0.1 < summary["accepted"] < 0.9
    assert summary == pytest.approx(committed_summary(), abs=0.04)
    executed = nbformat.read(folder / "06_train.ipynb", as_version=4)
    assert not any(
        output.output_type == "error" for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs
    )


def committed_summary() -> dict[str, float]:
    """The numbers that the last cell of the committed 06_train printed, as shares."""
    executed = nbformat.read(runs.NOTEBOOKS / "06_train.ipynb", as_version=4)
    printed = executed.cells[-1].outputs[-1].text.splitlines()
    return {name: float(value) / 100 for name, value, _ in (line.split() for line in printed)}


def test_06_runs_on_real_qata(tmp_path, real_data, monkeypatch):
    monkeypatch.setenv("SEMIMEDREF_DATA", str(real_data.resolve()))
    runs.run_notebook("06_train", tmp_path, {**SMALL, "dataset": "qata", "label_ratio": 0.01, "output": "."})
    assert tmp_path.name not in (tmp_path / "06_train.ipynb").read_text(), "no path in a notebook people share"
    results = json.loads((tmp_path / "semi_medref" / "results.json").read_text())
    assert (results["labelled"], results["unlabelled"], results["dataset"]) == (57, 5659, "qata")


def test_a_misspelt_parameter_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(runs.NotebookError, match="unknown parameters label_ration; it has .*label_ratio"):
        runs.run_notebook("06_train", tmp_path / "run", {"label_ration": 0.01})
    assert not (tmp_path / "run").exists()


def test_a_cell_that_fails_is_told_with_its_error_and_the_notebook_up_to_it_is_kept(tmp_path):
    with pytest.raises(runs.NotebookError, match="failed with ValueError: dataset: unknown value 'mnist'"):
        runs.run_notebook("06_train", tmp_path, {**SMALL, "dataset": "mnist", "output": "."})
    assert tmp_path.name not in (tmp_path / "06_train.ipynb").read_text(), "no path in a notebook people share"


def test_a_second_tutorial_does_not_write_over_the_first(tmp_path, capsys):
    (tmp_path / "06_train.ipynb").touch()
    assert main(["tutorial", "--output", str(tmp_path)]) == 1
    assert "delete it or give another --output" in capsys.readouterr().err


def test_the_progress_bar_follows_a_relative_folder_although_the_working_directory_changes(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "semi_medref"
    run.mkdir(parents=True)
    with runs.follow(Path("runs"), 1000, "tutorial"):
        monkeypatch.chdir(run)
        (run / "metrics.jsonl").write_text('{"step": 730, "loss": 0.5}\n')
        told, deadline = "", time.monotonic() + 60
        while "730/1000" not in told and time.monotonic() < deadline:
            time.sleep(0.1)
            told += capsys.readouterr().err
    assert "730/1000" in told and "loss=0.500" in told
