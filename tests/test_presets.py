"""Presets: settings by name, each value with its source, from the command line and from Python."""

import tomllib
from pathlib import Path

import jupytext
import papermill
import pytest

from semimedref_core.config import Config
from semimedref_core.experiments.shipped import notebooks_folder
from semimedref_core.presets import PRESETS, about, preset, sources
from semimedref_core.step import schedule
from semimedref_core.tools.two_presets import settings_table

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_valid_run_and_tells_the_source_of_each_value(name):
    Config(**preset(name))
    assert preset(name).keys() == sources(name).keys()
    assert all(source.split(":")[0].split(";")[0] in ("paper", "release", "here") for source in sources(name).values())
    assert about(name)


def test_compact_is_what_is_run_without_a_preset():
    assert Config(**preset("compact")) == Config()


def test_compact_names_every_setting_and_paper_differs_from_it_in_the_method_alone():
    assert set(preset("compact")) == set(Config().to_dict())
    budget = "dataset network image_size steps batch_size lr weight_decay seed data label_ratio eval_every".split()
    assert [name for name in budget if preset("paper")[name] != preset("compact")[name]] == []
    assert PRESETS[0] == "paper"


def test_the_table_of_two_presets_has_each_difference_with_both_values_and_a_reason():
    rows = [line.strip("| ").split(" | ") for line in settings_table().splitlines()[2:]]
    a, b = preset("paper"), preset("compact")
    assert {row[0].split("`")[1] for row in rows} == {name for name in b if a[name] != b[name]}
    gate = next(row for row in rows if row[0].startswith("`gate`"))
    assert gate[1:3] == ["0.55", "0.3"] and "larger patch" in gate[3]


@pytest.mark.parametrize("name", ["paper", "paper-qata", "paper-mosmed"])
def test_the_papers_presets_have_none_of_our_additions(name):
    additions = {"teacher_view": "same", "pseudo_labels": "teacher", "unfound": "image"}
    assert {setting: preset(name)[setting] for setting in additions} == additions
    assert all(sources(name)[setting].split(":")[0] in ("paper", "release") for setting in additions)


def test_tutorial_is_what_the_training_notebook_runs():
    settings = preset("tutorial")
    notebook = papermill.inspect_notebook(jupytext.read(notebooks_folder() / "07_train.py"))
    same = settings.keys() & notebook.keys()
    assert same >= {"dataset", "label_ratio", "steps", "seed"}
    assert all(notebook[name]["default"].strip("\"'") == str(settings[name]) for name in same)


@pytest.mark.parametrize("name, pairs", [("paper-qata", 5659), ("paper-mosmed", 2162)])
def test_the_papers_presets_count_the_releases_epochs_in_steps(name, pairs):
    """Burn-in of 5 epochs, ramp of 15; an epoch goes once through the unlabelled pairs."""
    config = Config(**preset(name))
    epoch = config.eval_every
    assert epoch == round(pairs / config.batch_size) and config.steps == 100 * epoch
    weights = [schedule(config, step).w_u for step in (5 * epoch, 5 * epoch + 15 * epoch // 2, 20 * epoch)]
    assert weights == pytest.approx([0, 0.15, 0.3], abs=1e-3)
    assert config.block == 16 and schedule(config, config.steps - 1).decay == pytest.approx(0.999, abs=1e-3)


def test_an_unknown_preset_is_refused_by_name(semimedref):
    with pytest.raises(ValueError, match="'papr'; choose one of paper, paper-qata"):
        preset("papr")
    outcome = semimedref("train", preset="papr")
    assert outcome.status == 2 and "'papr'" in outcome.errors and "paper-mosmed" in outcome.errors


def test_the_presets_are_installed_with_the_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "presets.toml" in settings["package-data"]["semimedref_core"]
