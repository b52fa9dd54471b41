"""Runs side by side: only repetitions are averaged, and differences are taken seed by seed."""

import json

import pytest

from semimedref_core.checkpoints import CheckpointError
from semimedref_core.comparison import finished_runs, paired_differences, results_table, validation_curves
from semimedref_core.config import Config


@pytest.fixture
def run(tmp_path):
    """Writes a finished run with this teacher's Dice; its student is 0.1 below."""

    def write(dice, **settings):
        config = Config(**settings)
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        scores = {
            network: dict.fromkeys(("dice_image", "miou_image", "dice_micro", "miou_micro"), value)
            for network, value in (("student", dice - 0.1), ("teacher", dice))
        }
        (folder / "config.json").write_text(json.dumps(config.to_dict()))
        (folder / "results.json").write_text(json.dumps({"seconds": 60.0, **scores}))
        lines = [{"step": 10, "loss": 1.0}, {"step": 10, "valid": scores}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return write


def test_runs_that_differ_in_the_seed_are_averaged_and_others_are_not(run):
    folders = [run(0.7, seed=0), run(0.8, seed=1), run(0.6, seed=0, gate=0.5)]
    table = results_table(finished_runs(folders)).reset_index()
    teacher = table[table["network"] == "teacher"].set_index("gate")
    assert list(teacher["seeds"]) == [2, 1]
    assert teacher.loc[0.3, "dice_image"] == "75.0 ± 7.1" and teacher.loc[0.5, "dice_image"].startswith("60.0")


def test_differences_are_between_runs_of_the_same_seed_and_settings(run):
    folders = [run(0.7, seed=0), run(0.8, seed=1), run(0.9, seed=2)]
    folders += [run(0.6, seed=0, method="supervised"), run(0.65, seed=1, method="supervised")]
    folders += [run(0.1, seed=2, method="supervised", steps=7)]
    gains = paired_differences(finished_runs(folders))["dice_image"]
    assert list(gains.index.get_level_values("seed")) == [0, 1]  # seed 2 has no partner of as many steps
    assert list(gains) == pytest.approx([0.1, 0.15])


def test_validations_on_the_way_keep_their_step_and_network(run):
    curves = validation_curves(finished_runs([run(0.7)]))
    assert list(curves["at_step"]) == [10, 10]
    assert dict(zip(curves["network"], curves["dice_image"], strict=True)) == pytest.approx(
        {"student": 0.6, "teacher": 0.7}
    )


def test_folders_without_a_finished_run_are_all_named(run, tmp_path):
    with pytest.raises(CheckpointError, match="one.*two.*results.json is missing"):
        finished_runs([run(0.7), tmp_path / "one", tmp_path / "two"])
    with pytest.raises(CheckpointError, match="no folder given"):
        finished_runs([])
