"""``train --track`` and ``sweep --track``: a tracker gets what metrics.jsonl holds; a missing one is told before any
data are read."""

import sys
from typing import Literal

import pytest
from accelerate.tracking import GeneralTracker

from semimedref_core import training
from semimedref_core.commands import parser
from semimedref_core.config import Config
from semimedref_core.errors import TrainingError
from semimedref_core.experiments import papermill_run, sweep
from semimedref_core.experiments.job import Job, State, _attempt
from semimedref_core.runtime import tracking
from semimedref_core.runtime.atomic import read_metrics

pytestmark = pytest.mark.usefixtures("small_phantom", "one_thread")
CONFIG = Config(image_size=32, steps=4, batch_size=2, label_ratio=0.25, eval_every=2, method="supervised")


class Notebook(GeneralTracker):
    """A tracker as anyone may write one for accelerate."""

    name, requires_logging_directory = "notebook", False

    def __init__(self):
        super().__init__()
        self.settings, self.lines, self.closed = {}, [], False

    @property
    def tracker(self):
        return self.lines

    def store_init_configuration(self, values):
        self.settings = values

    def log(self, values, step, **_):
        self.lines.append({"step": step, **values})

    def finish(self):
        self.closed = True


def test_a_tracker_gets_the_settings_and_every_line_of_the_metrics(tmp_path):
    told = Notebook()
    training.train(CONFIG, tmp_path, device="cpu", track=told)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert told.settings == CONFIG.to_dict() and told.closed
    assert [line["step"] for line in told.lines] == [line["step"] for line in lines] == [2, 2, 4, 4]
    assert told.lines[0] == lines[0], "losses under their own names"
    assert told.lines[1]["valid/teacher/dice_image"] == lines[1]["valid"]["teacher"]["dice_image"]
    assert len(told.lines[1]) == 1 + 2 * 4, "four metrics of both networks, one number each"


def test_a_tracker_is_closed_when_training_fails_and_numbers_do_not_depend_on_it(tmp_path, monkeypatch):
    training.train(CONFIG, tmp_path / "without", device="cpu")
    told = Notebook()
    training.train(CONFIG, tmp_path / "with", device="cpu", track=told)
    assert (tmp_path / "with/metrics.jsonl").read_bytes() == (tmp_path / "without/metrics.jsonl").read_bytes()

    def fail(*_):
        raise TrainingError("stopped here")

    monkeypatch.setattr(training, "training_step", fail)
    told = Notebook()
    with pytest.raises(TrainingError, match="stopped here"):
        training.train(CONFIG, tmp_path / "failed", device="cpu", track=told)
    assert told.closed


def test_the_command_writes_what_tensorboard_reads(train, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    outcome = train(output=tmp_path, method="supervised", track="tensorboard")
    assert outcome.status == 0, outcome.errors
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    loss, dice = (found.Scalars(name) for name in ("loss", "valid/teacher/dice_image"))
    assert [(one.step, one.value) for one in loss] == [
        (line["step"], pytest.approx(line["loss"])) for line in lines if "loss" in line
    ]
    assert dice[-1].step == 4 and dice[-1].value == pytest.approx(lines[-1]["valid"]["teacher"]["dice_image"])


def test_a_tracker_that_is_not_installed_is_told_with_its_extra_before_anything_is_written(
    train, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(training, "prepare", None)  # would read the data
    outcome = train(output=tmp_path / "run", track="wandb")
    assert outcome.status == 1 and not (tmp_path / "run").exists()
    assert "--track wandb needs wandb, which is not installed" in outcome.errors
    assert 'pip install -e ".[wandb]"' in outcome.errors


def test_a_sweep_hands_the_tracker_to_each_run(command_line, tmp_path, monkeypatch):
    class Executor:
        def submit(self, task, jobs):
            handed.extend(jobs)
            raise KeyboardInterrupt

    handed, plan = [], tmp_path / "plan.yaml"
    plan.write_text("notebook: false\nruns: [{method: supervised, seed: [0, 1]}]\n")
    monkeypatch.setattr(sweep, "open_executor", lambda *_: Executor())
    how = ("--output", tmp_path / "out", "--jobs", 1)
    assert command_line("sweep", plan, "--track", "tensorboard", *how).status == 130
    assert [job.track for job in handed] == ["tensorboard"] * 2
    monkeypatch.setitem(sys.modules, "wandb", None)
    outcome = command_line("sweep", plan, "--track", "wandb", *how)
    assert outcome.status == 1 and "--track wandb needs wandb, which is not installed" in outcome.errors


def test_a_tracked_run_of_a_sweep_is_trained_before_its_notebook_tells_of_it(tmp_path, monkeypatch):
    ended, results = [], tmp_path / "results.json"
    monkeypatch.setattr(papermill_run, "run_notebook", lambda *_, **__: ended.append(results.is_file()))
    job = Job(str(tmp_path), CONFIG.to_dict(), {"plan": "mine"}, track="tensorboard")
    assert _attempt(job, tmp_path) == State("finished", 1) and ended == [True]
    assert list((tmp_path / "tensorboard").rglob("events*"))
    assert '"plan": "mine"' in results.read_text()


def test_a_tracker_that_nobody_knows_is_refused(tmp_path):
    with pytest.raises(tracking.TrackingError, match="unknown tracker 'notes'; choose one of tensorboard, wandb"):
        training.train(CONFIG, tmp_path / "run", device="cpu", track="notes")


@pytest.mark.parametrize("track", tracking.TRACKERS)
def test_the_command_line_takes_each_tracker_that_training_takes(track, monkeypatch):
    assert parser.parser().parse_args(["train", "--track", track]).track == track
    monkeypatch.setattr(parser, "Tracker", Literal["another"])  # the parser has no second list
    with pytest.raises(SystemExit):
        parser.parser().parse_args(["train", "--track", track])
