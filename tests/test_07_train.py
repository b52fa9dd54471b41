"""Notebook 07 as the tutorial runs it, and on real data by the paper's preset; it takes longest, so it comes first."""

import json
import re
import shlex
from pathlib import Path

import nbformat
import pytest

from semimedref_core.commands.parser import main
from semimedref_core.config import Config
from semimedref_core.experiments import papermill_run
from semimedref_core.experiments.shipped import notebooks_folder
from semimedref_core.presets import preset
from semimedref_core.runtime.atomic import read_metrics

SMALL = {"steps": 12, "image_size": 32, "batch_size": 4}


def test_the_tutorial_command_trains_both_methods_and_its_numbers_are_those_of_the_committed_notebook(tmp_path, capsys):
    """The README's main job, as it is. Another machine rounds differently, hence the few points of tolerance."""
    folder = tmp_path / "tutorial"
    assert main(["tutorial", "--output", str(folder)]) == 0
    told = capsys.readouterr().out
    for path in ("07_train.ipynb", "supervised/metrics.jsonl", "semi_medref/metrics.jsonl", "semi_medref/teacher"):
        assert (folder / path).exists() and Path(path).name in told
    assert {path.name for path in folder.glob("*.png")} == {"pairs.png", "curves.png", "teacher.png", "predictions.png"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["semi_medref"] > summary["supervised"]
    assert summary["semi_medref"] - summary["semi_medref_all_zones"] > 0.10
    assert 0.1 < summary["accepted"] < 0.9
    assert summary == pytest.approx(committed_summary(), abs=0.04)
    assert_what_the_notebook_says_of_the_curves(folder)
    assert main(shlex.split(told.splitlines()[-1])[1:]) == 0, "the last line is a command that works"
    assert (folder / "first_overlay.png").exists()


def assert_what_the_notebook_says_of_the_curves(folder: Path) -> None:
    """Supervised training ends with the lower loss and the lower Dice; student and teacher end within a point."""
    lines = {name: read_metrics(folder / name / "metrics.jsonl") for name in ("supervised", "semi_medref")}
    loss = {name: [line["loss_labelled"] for line in of if "loss" in line][-1] for name, of in lines.items()}
    assert loss["supervised"] < loss["semi_medref"]
    for of in lines.values():
        found = [line["valid"] for line in of if "valid" in line][-1]
        assert abs(found["student"]["dice_image"] - found["teacher"]["dice_image"]) < 0.01


def test_the_committed_student_ends_as_far_ahead_of_its_teacher_as_the_text_says():
    executed = nbformat.read(notebooks_folder() / "07_train.ipynb", as_version=4)
    printed = "".join(output.get("text", "") for cell in executed.cells for output in cell.get("outputs", []))
    student, teacher = re.search(r"semi_medref: .* student ([\d.]+) %, teacher ([\d.]+) %", printed).groups()
    told = next(cell.source for cell in executed.cells if "At the end it is" in cell.source)
    assert f"At the end it is {float(student) - float(teacher):.1f} points" in told.replace("\n", " ")


def committed_summary() -> dict[str, float]:
    """The numbers that the last code cell of the committed 07_train printed, as shares."""
    executed = nbformat.read(notebooks_folder() / "07_train.ipynb", as_version=4)
    printed = [cell for cell in executed.cells if cell.cell_type == "code"][-1].outputs[-1].text
    return {name: float(value) / 100 for name, value in re.findall(r"^(\w+) +([\d.]+) %$", printed, re.MULTILINE)}


def test_07_runs_on_real_qata_by_the_papers_preset(tmp_path, real_data, monkeypatch):
    monkeypatch.setenv("SEMIMEDREF_DATA", str(real_data.resolve()))
    settings = {**SMALL, "network": "compact", "eval_every": 12, "burn_in": 0.5}
    papermill_run.run_notebook("07_train", tmp_path, {"preset": "paper-qata", "settings": settings, "output": "."})
    assert tmp_path.name not in (tmp_path / "07_train.ipynb").read_text(), "no path in a notebook people share"
    config = json.loads((tmp_path / "semi_medref" / "config.json").read_text())
    assert config == Config(**preset("paper-qata") | settings).to_dict()
    results = json.loads((tmp_path / "semi_medref" / "results.json").read_text())
    assert (results["labelled"], results["unlabelled"], results["dataset"]) == (57, 5659, "qata")


def test_a_second_tutorial_does_not_write_over_the_first(tmp_path, capsys):
    (tmp_path / "07_train.ipynb").touch()
    assert main(["tutorial", "--output", str(tmp_path)]) == 1
    assert "delete it or give another --output" in capsys.readouterr().err


def test_a_cell_that_fails_is_told_with_its_error_and_the_notebook_up_to_it_is_kept(tmp_path):
    with pytest.raises(papermill_run.NotebookError, match="failed with ConfigError: dataset: unknown value 'mnist'"):
        papermill_run.run_notebook("07_train", tmp_path, {**SMALL, "dataset": "mnist", "output": "."})
    assert tmp_path.name not in (tmp_path / "07_train.ipynb").read_text(), "no path in a notebook people share"


def test_07_shows_what_is_there_where_fewer_than_four_pairs_validate(tmp_path, qata_folder):
    settings = {"data": str(qata_folder()), "label_ratio": 0.5, "image_size": 32, "batch_size": 2}
    parameters = {"methods": ["supervised"], "dataset": "qata", "steps": 2, "settings": settings, "output": "."}
    papermill_run.run_notebook("07_train", tmp_path / "run", parameters)
    assert {"predictions.png", "results.json", "summary.json"} <= {path.name for path in (tmp_path / "run").iterdir()}
