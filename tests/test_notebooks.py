"""Every notebook: source and executed pair in step, run from top to bottom by papermill, its numbers asserted."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from semimedref_core import notebooks, runs
from semimedref_core.__main__ import main
from semimedref_core.config import Config
from semimedref_core.presets import preset

SOURCES = sorted(runs.NOTEBOOKS.glob("*.py"))
TRAINING = "06_train"  # takes minutes, so the tutorial's test is its only full run
STEPPED = [source for source in SOURCES if source.stem != TRAINING]
SMALL = {"steps": 12, "image_size": 32, "batch_size": 4}


each_notebook = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)


@each_notebook
def test_the_notebook_has_the_common_style(source):
    assert notebooks.style_problems(source) == []


@each_notebook
def test_the_executed_notebook_is_of_this_source_and_holds_outputs(source):
    assert notebooks.pair_problems(source) == []


@pytest.mark.parametrize("source", STEPPED, ids=lambda path: path.stem)
def test_running_the_notebook_prints_what_the_committed_one_shows(source, tmp_path):
    executed, committed = runs.run_notebook(source.stem, tmp_path, {}), source.with_suffix(".ipynb")
    assert notebooks.output_problems(*(nbformat.read(path, as_version=4) for path in (executed, committed))) == []


@pytest.mark.parametrize(
    "source", [source for source in STEPPED if "dataset = " in source.read_text()], ids=lambda path: path.stem
)
def test_the_notebook_runs_on_real_qata(source, tmp_path, real_data, monkeypatch):
    monkeypatch.setenv("SEMIMEDREF_DATA", str(real_data.resolve()))
    executed = nbformat.read(runs.run_notebook(source.stem, tmp_path, {"dataset": "qata"}), as_version=4)
    assert notebooks.output_problems(executed, nbformat.v4.new_notebook(cells=executed.cells)) == []


@pytest.mark.parametrize("name", ["00_start_here", "07_results"])
def test_a_reader_can_check_a_light_notebook_with_nbval(name):
    """``pytest --nbval``, strict: stored outputs letter by letter, in a run of its own."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--nbval",
        "-p",
        "no:cacheprovider",
        f"{runs.NOTEBOOKS / name}.ipynb",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=runs.NOTEBOOKS.parent)
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d+ passed", done.stdout) and "failed" not in done.stdout


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


def committed_summary() -> dict[str, float]:
    """The numbers that the last cell of the committed 06_train printed, as shares."""
    executed = nbformat.read(runs.NOTEBOOKS / "06_train.ipynb", as_version=4)
    printed = executed.cells[-1].outputs[-1].text.splitlines()
    return {name: float(value) / 100 for name, value, _ in (line.split() for line in printed)}


def test_06_runs_on_real_qata_by_the_papers_preset(tmp_path, real_data, monkeypatch):
    monkeypatch.setenv("SEMIMEDREF_DATA", str(real_data.resolve()))
    settings = {**SMALL, "network": "compact", "eval_every": 4, "burn_in": 0.5}
    runs.run_notebook("06_train", tmp_path, {"preset": "paper-qata", "settings": settings, "output": "."})
    assert tmp_path.name not in (tmp_path / "06_train.ipynb").read_text(), "no path in a notebook people share"
    config = json.loads((tmp_path / "semi_medref" / "config.json").read_text())
    assert config == Config(**preset("paper-qata") | settings).to_dict()
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
