"""A run that is killed, anywhere, and resumed ends with the numbers and the weights of one that was never stopped."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from semimedref_core import training
from semimedref_core.evaluation import scores
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.runtime.checkpoints import CheckpointError
from semimedref_core.runtime.files import CHECKPOINT
from semimedref_core.runtime.run_state import held

PLAIN = {"image_size": 32, "steps": 12, "eval_every": 4, "batch_size": 2, "label_ratio": 0.25, "burn_in": 0.25}
PATIENT = {**PLAIN, "eval_every": 2, "patience": 2}  # best at step 4, so it stops at step 8
KILLED = {  # where: kills one after the other (see killed_runs.PLACES), each with the step of the checkpoint it leaves
    "at the start": [("settings into place", 1, None), ("teacher update", 3, None), ("half a checkpoint", 1, None)],
    "inside a step": [("optimiser step", 6, 4), ("teacher update", 2, 4)],
    "around a validation": [("validation", 4, 4), ("verdict on a validation", 1, 4), ("saving", 1, 4)],
    "halfway through a log line": [("half a log line", 4, 4), ("half a log line", 3, 8)],
    "halfway through a checkpoint": [("half a checkpoint", 2, 4), ("half a checkpoint", 1, 4)],
    "with a checkpoint written but not in place": [("checkpoint into place", 2, 4), ("checkpoint into place", 2, 8)],
    "at the end": [("half a network", 2, 12), ("results into place", 1, 12)],
}
TWINS = {**PLAIN, "method": "cps"}  # its second network must survive too
KILLED_TWINS = {
    "with two networks": [("optimiser step", 6, 4), ("half a checkpoint", 2, 8), ("results into place", 1, 12)]
}
KILLED_PATIENT = {
    "around the best so far": [("half the best", 2, 2), ("checkpoint into place", 1, 2)],
    "after the best so far": [("teacher update", 7, 6), ("results into place", 1, 8)],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders of all runs of this module, by name, and what each kill left behind."""
    folder = tmp_path_factory.mktemp("runs")
    plan = {
        "never stopped": {"settings": PLAIN, "kills": []},
        "once more": {"settings": PLAIN, "kills": []},
        "another seed": {"settings": {**PLAIN, "seed": 1}, "kills": []},
        "patient": {"settings": PATIENT, "kills": []},
        **{name: {"settings": PLAIN, "kills": [kill[:2] for kill in kills]} for name, kills in KILLED.items()},
        "twins": {"settings": TWINS, "kills": []},
        **{name: {"settings": TWINS, "kills": [kill[:2] for kill in kills]} for name, kills in KILLED_TWINS.items()},
        **{
            name: {"settings": PATIENT, "kills": [kill[:2] for kill in kills]} for name, kills in KILLED_PATIENT.items()
        },
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder, killed_runs(folder / "plan.json", folder)


def killed_runs(*arguments) -> dict:
    """What ``killed_runs.py`` prints."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed_runs.py"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("where", KILLED)
def test_a_run_killed_and_resumed_ends_as_if_never_stopped(runs, where):
    folder, left = runs
    assert [found["step"] for found in left[where]] == [step for *_, step in KILLED[where]], "killed as planned"
    assert_same_run(folder / where, folder / "never stopped")


def test_a_run_killed_at_random_moments_ends_as_if_never_stopped(runs, tmp_path):
    """Eight kills over several runs, wherever they are just then; by hand with other seeds, as often as one likes."""
    folder, _ = runs
    (tmp_path / "plan.json").write_text(json.dumps({"random": {"settings": PLAIN, "kills": []}}))
    left = killed_runs(tmp_path / "plan.json", tmp_path, "8", "0")
    assert sum(map(len, left.values())) >= 8
    for run in left:
        assert_same_run(tmp_path / run, folder / "never stopped")


@pytest.mark.parametrize("where", KILLED_PATIENT)
def test_a_run_with_early_stopping_killed_and_resumed_ends_as_if_never_stopped(runs, where):
    folder, left = runs
    assert [found["step"] for found in left[where]] == [step for *_, step in KILLED_PATIENT[where]], "killed as planned"
    assert_same_run(folder / where, folder / "patient")


@pytest.mark.parametrize("where", KILLED_TWINS)
def test_a_run_of_two_networks_killed_and_resumed_ends_as_if_never_stopped(runs, where):
    folder, left = runs
    assert [found["step"] for found in left[where]] == [step for *_, step in KILLED_TWINS[where]], "killed as planned"
    assert_same_run(folder / where, folder / "twins")
    checkpoint = load_file(folder / f"{where}.safetensors")  # of its last kill
    first, second = (checkpoint[f"student.{which}.head.0.weight"] for which in ("first", "second"))
    assert not first.equal(second) and "optimizer.exp_avg.second.head.0.weight" in checkpoint
    assert load_file(folder / where / "student/model.safetensors")["head.0.weight"].equal(first)


def test_the_runs_here_reach_every_part_of_training(runs):
    """Else the tests above could pass without having seen unlabelled pairs, an early stop, or learning at all."""
    folder, _ = runs
    lines = read_metrics(folder / "never stopped/metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [4, 8, 10, 12]
    assert [line["step"] for line in lines if "loss_mixed" in line] == [8, 10, 12]
    assert [line["step"] for line in lines if "valid" in line] == [4, 8, 12]
    assert json.loads((folder / "never stopped/results.json").read_text())["unlabelled"] == 18
    patient = read_metrics(folder / "patient/metrics.jsonl")
    assert [line["step"] for line in patient if "valid" in line] == [2, 4, 6, 8]
    best = json.loads((folder / "patient/results.json").read_text())
    assert best["step"] == 4
    assert scores(np.load(folder / "patient/valid.npz")["student"]) == pytest.approx(best["student"])


def without_chance(files):
    """Names of temporary files without the part that makes them unique."""
    return [re.sub(r"\.[0-9a-f]{12}\.partial$", ".partial", name) for name in files]


def test_a_half_written_checkpoint_is_not_taken_for_one(runs):
    """It lies under another name, until the resumed run writes it anew."""
    _, left = runs
    settings, _, checkpoint = (without_chance(found["files"]) for found in left["at the start"])
    assert settings == [".config.json.partial"]
    assert checkpoint == [".checkpoint.safetensors.partial", "config.json", "metrics.jsonl"]
    assert {".best.safetensors.partial", "best.safetensors"} < set(
        without_chance(left["around the best so far"][0]["files"])
    )


def test_the_same_seed_gives_the_same_run_bit_for_bit(runs):
    folder, _ = runs
    assert_same_run(folder / "once more", folder / "never stopped")


def test_another_seed_gives_another_run(runs):
    folder, _ = runs
    one, other = folder / "never stopped", folder / "another seed"
    assert (one / "metrics.jsonl").read_bytes() != (other / "metrics.jsonl").read_bytes()
    for network in ("student", "teacher"):
        a, b = (load_file(run / network / "model.safetensors") for run in (one, other))
        assert not a["head.0.weight"].equal(b["head.0.weight"])


def assert_same_run(run: Path, expected: Path) -> None:
    """Same files, and the same bytes in each; ``results.json`` may differ in the time it took."""
    names = sorted(str(path.relative_to(expected)) for path in expected.rglob("*") if path.is_file())
    assert sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()) == names
    for name in names:
        if name == "results.json":
            ours, theirs = (json.loads((folder / name).read_text()) for folder in (run, expected))
            assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
        else:
            assert (run / name).read_bytes() == (expected / name).read_bytes(), name


def test_a_folder_that_holds_a_run_is_not_overwritten(train, finished_run):
    before = contents(finished_run)
    outcome = train(output=finished_run)
    assert outcome.status == 1
    assert f"{finished_run}: holds a run already; give --resume to go on with it, or another folder" in outcome.errors
    assert contents(finished_run) == before


def test_a_run_is_not_resumed_with_other_settings(train, finished_run):
    """The message names each setting that changed, with its old and its new value."""
    before = contents(finished_run)
    outcome = train(output=finished_run, resume=True, lr=0.5, seed=7)
    assert outcome.status == 1
    assert "seed 0 is now 7" in outcome.errors and "lr 0.001 is now 0.5" in outcome.errors
    assert str(finished_run / "config.json") in outcome.errors and "resume with the same" in outcome.errors
    assert contents(finished_run) == before


def test_a_run_goes_on_after_its_data_have_moved(train, qata_folder, tmp_path):
    root, moved = qata_folder(), tmp_path / "elsewhere"
    about = {"output": tmp_path / "run", "dataset": "qata", "label_ratio": 0.5, "method": "supervised"}
    assert train(data=root, **about).status == 0
    root.rename(moved)
    again = train(data=moved, resume=True, **about)
    assert again.status == 0, again.errors


def test_a_damaged_config_is_named_when_resuming(train, tmp_path):
    (tmp_path / "config.json").write_text('{"dataset": "pha')
    outcome = train(output=tmp_path, resume=True)
    assert outcome.status == 1
    assert str(tmp_path / "config.json") in outcome.errors and "damaged" in outcome.errors


def test_resuming_a_finished_run_says_so_and_changes_nothing(train, finished_run, tmp_path):
    """Also: ``--resume`` in a folder without a run starts one."""
    run = tmp_path / "run"
    first = train(output=run, resume=True)
    before = contents(run)
    again = train(output=run, resume=True)
    assert (first.status, again.status) == (0, 0)
    results = "".join(line for line in first.text.splitlines(keepends=True) if not line.startswith("note: "))
    assert again.text == f"{run}: this run was already finished; its results:\n{results}"
    assert contents(run) == before
    assert_same_run(run, finished_run)


def test_a_run_that_another_process_finishes_meanwhile_is_not_trained_again(
    train, finished_run, stopped_run, tmp_path, monkeypatch
):
    run, prepare = shutil.copytree(stopped_run, tmp_path / "run"), training.prepare

    def late(*given):
        shutil.copytree(finished_run, run, dirs_exist_ok=True)
        return prepare(*given)

    monkeypatch.setattr(training, "prepare", late)
    outcome = train(output=run, resume=True)
    assert outcome.status == 0, outcome.errors
    assert {path.relative_to(run): text for path, text in contents(run).items()} == {
        path.relative_to(finished_run): text for path, text in contents(finished_run).items()
    }


def test_a_finished_run_keeps_no_checkpoint_to_resume_from(train, tmp_path):
    """Also one that was killed between its results and the end."""
    assert train(output=tmp_path, patience=1).status == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "results.json", "student", "teacher", "valid.npz"}
    (tmp_path / CHECKPOINT).write_bytes(b"left")
    assert train(output=tmp_path, patience=1, resume=True).status == 0 and not (tmp_path / CHECKPOINT).exists()


def test_damaged_results_of_a_finished_run_are_named(train, finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "results.json").write_text('{"dataset": "pha')
    outcome = train(output=run, resume=True)
    assert outcome.status == 1 and str(run / "results.json") in outcome.errors and "damaged" in outcome.errors
    assert "delete it" in outcome.errors


def test_where_folders_cannot_be_locked_a_file_stands_for_the_lock(tmp_path, monkeypatch):
    """As on Windows."""
    import filelock  # noqa: F401 - before its own look for fcntl

    monkeypatch.setitem(sys.modules, "fcntl", None)
    with held(tmp_path):
        with pytest.raises(CheckpointError, match="another run uses this folder"), held(tmp_path):
            raise AssertionError("two at a time")
        assert (tmp_path / ".lock").is_file()
    with held(tmp_path):
        pass


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
