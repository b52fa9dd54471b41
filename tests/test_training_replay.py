"""The training replay: a finished run at each of its logged steps."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from semimedref_core.figures.training import replay_panels
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.widgets.replay import curves, moment_at, training_replay


def scores(student, teacher):
    return {"student": {"dice_image": student}, "teacher": {"dice_image": teacher}}


BURN_IN = {"loss": 2.0, "loss_labelled": 1.5, "loss_itcl": 2.5}
MIXING = {"loss": 1.0, "loss_labelled": 0.5, "loss_itcl": 2.0, "loss_mixed": 0.75}
LINES = [
    {"step": 10, "lr": 1e-3, "w_u": 0.0, **BURN_IN},
    {"step": 20, "lr": 8e-4, "w_u": 0.1, "accepted": 0.25, **MIXING},
    {"step": 20, "valid": scores(0.4, 0.3)},
    {"step": 30, "lr": 4e-4, "w_u": 0.5, "accepted": 0.5, **MIXING},
    {"step": 40, "lr": 1e-4, "w_u": 0.5, "accepted": 0.75, **MIXING},
    {"step": 40, "valid": scores(0.6, 0.7)},
]


def test_a_moment_tells_what_was_known_by_then():
    """Eq. 15: nothing unlabelled during burn-in, then w_u rises to its full weight."""
    first, second, third, last = (moment_at(LINES, step) for step in (10, 20, 30, 40))
    assert (first.phase, first.accepted, first.dice) == ("labelled pairs alone", None, None)
    assert "Dice" not in first.line() and "mixed" not in first.line()
    assert second.phase.startswith("unlabelled pairs come in") and second.dice == {"student": 0.4, "teacher": 0.3}
    assert third.phase == last.phase == "unlabelled pairs at full weight"
    assert (third.validated, third.dice) == (20, second.dice), "the last validation so far, none of the future"
    assert "step 40 of 40" in last.line() and "75 % of the samples were mixed" in last.line()
    assert "Dice at step 40: student 60.0 %, teacher 70.0 %" in last.line()
    rates = [moment.line().split("learning rate at ")[1].split(";")[0] for moment in (first, second, third, last)]
    assert [rate.split(" of")[0].rstrip(".") for rate in rates] == ["100 %", "80 %", "40 %", "10 %"]


def test_the_curves_are_the_logged_numbers_and_schedules_are_shares_of_their_largest():
    drawn = curves(LINES)
    assert np.array_equal(drawn["DiceCE, mixed"], [(20, 0.75), (30, 0.75), (40, 0.75)])
    assert np.array_equal(drawn["samples mixed"], [(20, 0.25), (30, 0.5), (40, 0.75)])
    assert drawn["w_u"] == pytest.approx(np.array([(10, 0), (20, 0.2), (30, 1), (40, 1)]))
    assert drawn["learning rate"][:, 1] == pytest.approx([1, 0.8, 0.4, 0.1])
    assert drawn["teacher"] == pytest.approx(np.array([(20, 30), (40, 70)]))


def test_nothing_later_than_the_step_is_drawn_and_the_axes_stay_those_of_the_whole_run():
    early, late = (replay_panels(curves(LINES), step) for step in (20, 40))
    drawn = [line for ax in early.axes for line in ax.lines if line.get_label()[0] != "_"]
    assert len(drawn) == 8 and all(max(line.get_xdata(), default=0) <= 20 for line in drawn)
    for before, after in zip(early.axes, late.axes, strict=True):
        assert (before.get_xlim(), before.get_ylim()) == (after.get_xlim(), after.get_ylim())
    *_, dice = late.axes
    assert 0 < dice.get_ylim()[0] < 30 and dice.get_ylabel() == "validation Dice per image (%)"
    plt.close("all")


def test_the_slider_holds_each_logged_step_of_a_real_run_and_opens_at_the_end(finished_run):
    metrics = finished_run / "metrics.jsonl"
    replay = training_replay(metrics)
    slider = replay.controls["step"]
    assert list(slider.options) == [line["step"] for line in read_metrics(metrics) if "loss" in line] == [2, 4]
    assert "step 4 of 4" in replay.said.value
    picture = replay.picture.value
    slider.value = 2
    assert "step 2 of 4" in replay.said.value and replay.picture.value != picture
    assert plt.get_fignums() == []


def test_a_supervised_run_has_no_phase_but_labelled_pairs_alone(tmp_path):
    """It logs the schedule of w_u too, but never mixes."""
    lines = [{"step": step, "lr": 1e-3, "w_u": step / 20, "loss": 1.0, "loss_labelled": 1.0} for step in (10, 20)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    replay = training_replay(path)
    for step in (10, 20):
        replay.controls["step"].value = step
        assert "labelled pairs alone" in replay.said.value and replay.picture.value.startswith("<img")


def test_a_run_without_a_logged_step_is_told_with_its_file(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="metrics.jsonl: holds no step yet"):
        training_replay(tmp_path / "metrics.jsonl")
