"""What goes wrong in the first ten minutes, and the one answer to each."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semimedref_core._progress import progress
from semimedref_core.config import Config
from semimedref_core.data import datasets
from semimedref_core.data.datasets import load_split, load_training
from semimedref_core.data.real.files import QUIET, in_threads
from semimedref_core.errors import ConfigError
from semimedref_core.runtime.checkpoints import load_tensors
from semimedref_core.runtime.progress import follow

REPORT = "Unilateral pulmonary infection, one infected area, lower left lung."


# The command line


def test_without_a_command_there_is_help(command_line):
    bare, helped = command_line(), command_line("--help")
    assert bare == helped and bare.status == 0 and "semimedref tutorial" in bare.text


def test_the_version_is_told(command_line):
    outcome = command_line("--version")
    assert outcome.status == 0 and re.fullmatch(r"semimedref \d+\.\d+\S*\n", outcome.text)


@pytest.mark.parametrize("arguments, meant", [
    (["trian"], "train"), (["evalute"], "evaluate"), (["Tutorial"], "tutorial"), (["comparison"], "compare"),
    (["train", "--label-ration", "0.1"], "--label-ratio"), (["train", "--label_ratio", "0.1"], "--label-ratio"),
    (["train", "--batchsize", "4"], "--batch-size"), (["evaluate", "--checkpoint", "x", "--splits", "test"], "--split"),
    (["train", "--method", "semimedref"], "semi_medref"), (["train", "--dataset", "quata"], "qata"),
    (["train", "--preset", "paperqata"], "paper-qata"), (["evaluate", "--checkpoint", "x", "--split", "val"], "valid"),
    (["sweep", "plan.yaml", "--engine", "slrum"], "slurm"),
])  # fmt: skip
def test_a_name_that_is_close_to_a_known_one_gets_a_hint(command_line, arguments, meant):
    outcome = command_line(*arguments)
    assert outcome.status == 2 and f"(did you mean {meant}?)" in outcome.errors


@pytest.mark.parametrize("arguments", [["xyz"], ["train", "--xyz", "1"], ["train", "--method", "xyz"]])
def test_a_name_that_is_close_to_none_gets_no_hint(command_line, arguments):
    outcome = command_line(*arguments)
    assert outcome.status == 2 and "did you mean" not in outcome.errors


@pytest.mark.parametrize("command, choices", [
    ("train", "{auto,cpu,cuda}"), ("evaluate", "{train,valid,test}"), ("evaluate", "{full,removed,masked,fuzzy,"),
    ("evaluate", "{phantom,phantom-ct,qata,mosmed,folder}"), ("mixing", "{train,valid,test}"),
    ("sweep", "{local,slurm}"),
])  # fmt: skip
def test_help_shows_what_an_option_may_be(command_line, command, choices):
    assert choices in command_line(command, "--help").text.replace(" ", "").replace("\n", "")


@pytest.mark.parametrize("load", [
    lambda **given: load_split(split="valid", **given), lambda **given: load_training(label_ratio=0.5, **given),
], ids=["load_split", "load_training"])  # fmt: skip
@pytest.mark.parametrize("given, meant", [
    ({"dataset": "QaTa"}, "qata"), ({"dataset": "phantom_ct"}, "phantom-ct"),
    ({"dataset": "qata", "texts": "LViT"}, "lvit"), ({"dataset": "folder", "text_sides": "patients"}, "patient"),
])  # fmt: skip
def test_a_misspelt_name_in_a_program_is_no_other_data(load, given, meant):
    """Not the phantom, and not the sides of the image."""
    with pytest.raises(ConfigError, match=rf"did you mean {meant}\?"):
        load(**given)


@pytest.mark.parametrize("dataset, given, acts_on", [
    ("phantom", {"positions": "quadrants"}, "folder"), ("qata", {"text_sides": "patient"}, "folder"),
    ("phantom-ct", {"mask_values": "1"}, "qata, mosmed, folder"),
])  # fmt: skip
def test_a_setting_without_an_effect_on_the_data_is_refused(dataset, given, acts_on):
    (name,) = given
    for use in (Config, lambda **asked: load_split(split="valid", **asked)):
        with pytest.raises(ConfigError, match=f"{name} .* has no effect on the dataset {dataset}, only on {acts_on};"):
            use(dataset=dataset, **given)


# Checkpoints


def test_a_run_stands_for_its_teacher(semimedref, finished_run):
    whole = semimedref("evaluate", checkpoint=finished_run)
    assert whole.status == 0 and whole == semimedref("evaluate", checkpoint=finished_run / "teacher")


def test_a_run_that_has_not_ended_has_no_teacher_yet(semimedref, stopped, tmp_path):
    stopped(output=tmp_path / "run")
    outcome = semimedref("evaluate", checkpoint=tmp_path / "run")
    assert outcome.status == 1 and f"{tmp_path / 'run'}: the run has not finished" in outcome.errors


@pytest.mark.parametrize("options, message", [
    ({"dataset": "phantom"}, "was trained with dataset qata, not phantom; remove --dataset"),
    ({"texts": "release"}, "was trained with texts lvit, not release; remove --texts"),
])  # fmt: skip
def test_a_network_is_not_scored_on_what_it_was_not_trained_for(semimedref, of_qata, qata_folder, options, message):
    data = qata_folder()
    assert "2 pairs of qata valid" in semimedref("evaluate", checkpoint=of_qata, data=data, dataset="qata").text
    outcome = semimedref("evaluate", checkpoint=of_qata, data=data, **options)
    assert outcome.status == 1 and message in outcome.errors and outcome.text == ""


def test_a_network_of_before_is_known_by_its_run(semimedref, finished_run, tmp_path):
    """The first checkpoints told neither data set nor texts; their run does. Alone they have to be told."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    about = json.loads((run / "student/config.json").read_text())
    for name in ("trained_on", "text_version", "mask_values", "image_size"):
        del about[name]
    (run / "student/config.json").write_text(json.dumps(about))
    told = semimedref("evaluate", checkpoint=run / "student")
    assert told.status == 0 and told == semimedref("evaluate", checkpoint=finished_run / "student")
    alone = shutil.copytree(run / "student", tmp_path / "alone")
    outcome = semimedref("evaluate", checkpoint=alone)
    assert outcome.status == 1 and "has no image_size" in outcome.errors
    (alone / "config.json").write_text(json.dumps({**about, "image_size": 32}))
    outcome = semimedref("evaluate", checkpoint=alone)
    assert outcome.status == 1 and "has no record of its training data; give --dataset" in outcome.errors
    assert semimedref("evaluate", checkpoint=alone, dataset="phantom") == told


# Run folders


def test_an_occupied_folder_is_noticed_before_any_data_are_read(train, stopped, finished_run, tmp_path, monkeypatch):
    stopped(output=tmp_path / "stopped")

    def read(*_, **__):
        raise AssertionError("data were read")

    monkeypatch.setattr(datasets, "load_split", read)
    assert "holds a run already; give --resume" in train(output=finished_run).errors
    assert "lr 0.001 is now 0.5" in train(output=finished_run, resume=True, lr=0.5).errors
    (tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / "stopped" / "checkpoint.safetensors", tmp_path / "alone")
    for resume in ({}, {"resume": True}):
        outcome = train(output=tmp_path / "alone", **resume)
        assert outcome.status == 1 and "holds a checkpoint without its config.json" in outcome.errors


def test_a_finished_run_does_not_take_another_variant_without_a_word(train, finished_run, tmp_path):
    """``compare`` asks for a name of twins, and a finished run keeps the name that it has."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    again = train(output=run, resume=True, variant="without PosAug")
    again.one_error(
        "train", run, "finished without a variant, not as 'without PosAug'; edit variant in its results.json"
    )
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**results, "variant": "without PosAug"}))
    for variant in ({"variant": "without PosAug"}, {}):
        assert "already finished" in train(output=run, resume=True, **variant).text
    train(output=run, resume=True, variant="x").one_error("train", "finished as variant 'without PosAug', not as 'x'")


# Ctrl-C

PROGRAM = """
import sys
import torch
from semimedref_core import training
from semimedref_core.commands.parser import main
from semimedref_core.data.phantom import COUNTS

torch.set_num_threads(1)
COUNTS.update(train=24, valid=6)
step = training.training_step

def told(state, *about):
    losses = step(state, *about)
    print("done", state.step, flush=True)
    if state.step == 13:
        input()
    return losses

training.training_step = told
sys.exit(main(sys.argv[1:]))
"""


def listen_to_ctrl_c():
    """A shell tells what it starts in the background to ignore Ctrl-C, and the tests may have been started so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
def test_ctrl_c_saves_what_was_learnt_and_the_run_goes_on_as_if_never_stopped(train, one_thread, tmp_path):
    """Stopped between two validations, and between two log lines."""
    settings = {"image_size": 32, "steps": 25, "eval_every": 10, "batch_size": 2, "label_ratio": 0.25, "device": "cpu"}
    command = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    stopped = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "train", *command, "--burn-in", "0.25", "--output", tmp_path / "run"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_ctrl_c,
    )  # fmt: skip
    while stopped.stdout.readline() != "done 13\n":
        assert stopped.poll() is None, stopped.stderr.read()
    stopped.send_signal(signal.SIGINT)
    _, errors = stopped.communicate("\n", timeout=120)
    assert stopped.returncode == 130 and "Traceback" not in errors
    assert f"{tmp_path / 'run'}: stopped after step 13 of 25, and saved; give the same command with --resume" in errors
    assert load_tensors(tmp_path / "run/checkpoint.safetensors")[1]["state"]["step"] == 13
    for folder, resume in (("run", {"resume": True}), ("whole", {})):
        assert train(output=tmp_path / folder, **settings, **resume).status == 0
    for name in ("metrics.jsonl", "student/model.safetensors", "teacher/model.safetensors", "valid.npz"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("command, action", [("evaluate", "evaluate"), ("doctor", "doctor")])
def test_ctrl_c_in_any_command_is_told_without_a_traceback(semimedref, monkeypatch, command, action):
    from semimedref_core.commands import actions

    def stop(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(actions, action, stop)
    options = {"checkpoint": "x"} if command == "evaluate" else {}
    assert semimedref(command, **options) == (130, "", f"semimedref {command}: stopped\n")


# Progress


class Terminal:
    """Standard error of somebody who looks at it."""

    def __init__(self):
        self.told = ""

    def write(self, text):
        self.told += text

    def flush(self):
        pass

    def isatty(self):
        return True


def shown(count: int) -> None:
    with progress(count, "supervised, seed 0") as bar:
        for step in range(1, count + 1):
            bar.set_postfix(loss=f"{1 / step:.3f}")
            bar.update()


def test_a_log_gets_plain_lines_and_a_terminal_a_bar(capsys, monkeypatch):
    shown(200)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and "\r" not in "".join(lines)
    assert lines[4].startswith("supervised, seed 0: step 100 of 200, loss 0.010, 00:00 so far, about 00:00 left")
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown(200)
    assert "200/200" in sys.stderr.told and "\r" in sys.stderr.told and " of " not in sys.stderr.told


def test_a_log_of_a_run_that_goes_on_counts_from_there(capsys):
    with progress(10, "x", initial=8) as bar:
        bar.update()
        bar.update()
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "x: step 9 of 10",
        "x: step 10 of 10",
    ]
    with progress(10, "x", shown=False) as bar:
        bar.update(10)
    assert capsys.readouterr().err == ""


def test_reading_many_files_puts_no_bar_into_a_log(capsys, monkeypatch):
    numbers = range(QUIET)
    assert in_threads(lambda number: -number, numbers, "qata train") == [-number for number in numbers]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 and "\r" not in "".join(lines) and lines[4].startswith("qata train: pair 250 of 500, ")
    monkeypatch.setattr(sys, "stderr", Terminal())
    in_threads(abs, numbers, "qata train")
    assert "500/500" in sys.stderr.told and "\r" in sys.stderr.told
    sys.stderr.told = ""
    in_threads(abs, numbers[1:], "qata train")
    assert sys.stderr.told == ""


def test_each_training_of_the_tutorial_has_a_bar_of_its_own(tmp_path, monkeypatch):
    """Also with a relative folder, although the working directory changes meanwhile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with follow(Path("runs"), 1000):
        for name, loss in (("supervised", 0.25), ("semi_medref", 0.75)):
            run = tmp_path / "runs" / name
            run.mkdir(parents=True)
            monkeypatch.chdir(run)
            (run / "metrics.jsonl").write_text(json.dumps({"step": 1000, "loss": loss}) + "\n")
            deadline = time.monotonic() + 60
            while f"{name}: 100%" not in sys.stderr.told and time.monotonic() < deadline:
                time.sleep(0.05)
    bars = [line for line in re.split(r"[\r\n]", sys.stderr.told) if "1000/1000" in line]
    assert any("supervised" in bar and "loss=0.250" in bar for bar in bars)
    assert any("semi_medref" in bar and "loss=0.750" in bar for bar in bars)
    assert not any("2000" in bar for bar in bars)
