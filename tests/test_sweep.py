"""A sweep that is killed half-way and started again is complete, with no run done twice and none lost."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import own_folders
import pandas as pd
import psutil
import pytest
import submitit
import torch
from papermill.iorw import papermill_io

from semimedref_core.experiments import papermill_run, sweep
from semimedref_core.experiments.job import LOG, STATE, Job, State, Task, run_state
from semimedref_core.experiments.plan import read_plan
from semimedref_core.experiments.shipped import notebooks_folder
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.tools import notebook_checks
from semimedref_core.training import train

PLAN = notebooks_folder() / "plans" / "phantom.yaml"
RUNS = {run.name: run for run in read_plan(PLAN).runs}
PATIENCE = 900  # seconds after which a sweep counts as hung; a slow machine does not


def in_a_process(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "semimedref_core", "sweep", PLAN, "--output", folder, "--jobs", "2"]
    with open(folder.with_suffix(".txt"), "w") as output:
        return subprocess.Popen(
            command, start_new_session=True, stdout=output, stderr=output, preexec_fn=listen_to_ctrl_c
        )


def listen_to_ctrl_c():
    """A shell tells what it starts in the background to ignore Ctrl-C, and the tests may have been started so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def half_way(folder: Path) -> list[str]:
    """The runs that have a checkpoint and steps to do."""
    begun = [path.parent for path in folder.glob("*/checkpoint.safetensors")]
    return [
        run.name
        for run in begun
        if run_state(run).state == "running" and read_metrics(run / "metrics.jsonl")[-1]["step"] < 6
    ]


def locked(folder: Path) -> bool:
    with open(folder / LOG, "a") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def finished_in(folder: Path) -> dict[str, int]:
    """The finished runs, and when their results were written."""
    names = [name for name in RUNS if run_state(folder / name).state == "finished"]
    return {name: (folder / name / "results.json").stat().st_mtime_ns for name in names}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A sweep that got SIGKILL, all processes at once, and was started again: what was found in between, and the end.

    Its notebooks are frozen for a moment first, so that what is half-way stays so.
    """
    folder = tmp_path_factory.mktemp("sweep") / "phantom"
    first, deadline = in_a_process(folder), time.monotonic() + PATIENCE
    while len(finished_in(folder)) < 2 or not half_way(folder):
        assert first.poll() is None and time.monotonic() < deadline, folder.with_suffix(".txt").read_text()
        time.sleep(0.02)
    kernels = [p for p in psutil.Process(first.pid).children(recursive=True) if "ipykernel_launcher" in p.cmdline()]
    for kernel in kernels:
        kernel.suspend()
    found = {"half-way": half_way(folder), "finished": finished_in(folder)}
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    found["locked while a kernel lives"] = [name for name in RUNS if (folder / name).exists() and locked(folder / name)]
    for kernel in kernels:
        kernel.kill()
    found["begun"] = [name for name in RUNS if (folder / name / STATE).exists()]
    second = in_a_process(folder)
    assert second.wait(PATIENCE) == 0, folder.with_suffix(".txt").read_text()
    return folder, found, folder.with_suffix(".txt").read_text()


def test_a_sweep_killed_half_way_and_started_again_is_complete_with_no_run_done_twice_and_none_lost(killed):
    folder, found, told = killed
    assert len(RUNS) == 7 and set(finished_in(folder)) == set(RUNS)
    assert found["half-way"] and 2 <= len(found["finished"]) < 7
    assert f"7 runs, {len(found['finished'])} of them finished before" in told
    assert {name: finished_in(folder)[name] for name in found["finished"]} == found["finished"], "left alone"
    interrupted = set(found["begun"]) - set(found["finished"])
    assert {name: run_state(folder / name).attempts for name in RUNS} == {
        name: 2 if name in interrupted else 1 for name in RUNS
    }
    for name in RUNS:
        steps = [line["step"] for line in read_metrics(folder / name / "metrics.jsonl") if "valid" in line]
        assert steps == [2, 4, 6], name


def test_a_run_belongs_to_its_notebook_until_the_last_process_of_it_is_gone(killed):
    _, found, _ = killed
    assert set(found["half-way"]) <= set(found["locked while a kernel lives"])
    assert not set(found["finished"]) & set(found["locked while a kernel lives"])


def test_a_run_that_was_killed_half_way_ends_with_the_numbers_of_one_that_was_never_stopped(killed, tmp_path):
    folder, found, _ = killed
    name, threads = found["half-way"][0], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(RUNS[name].config, tmp_path, device="cpu")
    finally:
        torch.set_num_threads(threads)
    for kept in ("config.json", "metrics.jsonl"):
        assert (tmp_path / kept).read_bytes() == (folder / name / kept).read_bytes()
    ours, theirs = (json.loads((run / "results.json").read_text()) for run in (folder / name, tmp_path))
    said = {"plan": "phantom", "variant": RUNS[name].variant, "variant_of": RUNS[name].method}
    assert {**ours, "seconds": 0} == {**theirs, **said, "seconds": 0}


def test_a_run_s_folder_holds_notebook_metrics_settings_and_environment(killed):
    folder, _, _ = killed
    for name, run in RUNS.items():
        assert json.loads((folder / name / "config.json").read_text()) == run.config.to_dict()
        results = json.loads((folder / name / "results.json").read_text())
        assert (results["plan"], results["variant"], results["variant_of"]) == ("phantom", run.variant, run.method)
        about = results["environment"]
        assert about["packages"]["torch"].startswith(torch.__version__.split("+")[0])
        assert about["python"] and about["platform"] and about["cpu_cores"] and "commit" in about
        executed = nbformat.read(folder / name / "07_train.ipynb", as_version=4)
        assert notebook_checks.output_problems(executed, nbformat.v4.new_notebook(cells=executed.cells)) == []
        assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
        assert (folder / name / "teacher" / "model.safetensors").exists() and (folder / name / "valid.npz").exists()
        said = str([cell.outputs for cell in executed.cells if cell.cell_type == "code"])
        assert ("patches proposed" in said) == (run.config.method == "semi_medref")


def test_the_sweep_ends_with_a_tidy_table_and_the_results_notebook_on_it(killed):
    folder, _, _ = killed
    table = pd.read_csv(folder / "runs.csv", keep_default_na=False, na_values={"accepted": [""]})
    assert len(table) == 14 and set(table["run"]) == set(RUNS) and set(table["network"]) == {"student", "teacher"}
    assert {"variant", "method", "label_ratio", "seed", "posaug_p", "dice_image", "miou_micro", "seconds"} <= set(table)
    assert set(table["variant"]) == {"", "without PosAug", "hard positives"}
    row = table[(table["run"] == "phantom-0.05-supervised-seed0") & (table["network"] == "teacher")].iloc[0]
    results = json.loads((folder / row["run"] / "results.json").read_text())
    assert row["dice_image"] == pytest.approx(results["teacher"]["dice_image"])
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "runs.parquet"), table, check_dtype=False)
    executed = nbformat.read(folder / "08_results.ipynb", as_version=4)
    assert notebook_checks.output_problems(executed, nbformat.v4.new_notebook(cells=executed.cells)) == []
    assert "7 finished runs" in str(executed)


def test_what_is_left_is_done_and_a_broken_run_is_tried_twice_and_reported(killed, tmp_path, command_line):
    """The broken run's checkpoint cannot be read, and the other is not affected."""
    folder = tmp_path / "phantom"
    shutil.copytree(killed[0], folder)
    before = finished_in(folder)
    lost, broken = "phantom-0.02-supervised-seed0", "phantom-0.05-supervised-seed0"
    shutil.rmtree(folder / lost)
    (folder / broken / STATE).unlink()
    (folder / broken / "results.json").unlink()
    (folder / broken / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    told = command_line("sweep", PLAN, "--output", folder, "--store", tmp_path / "store")
    assert told.status == 1
    assert f"failed   {folder / broken}: " in told.errors and "damaged checkpoint" in told.errors
    assert run_state(folder / broken).attempts == 2 and run_state(folder / lost) == State("finished", 1)
    after = finished_in(folder)
    assert after.keys() == before.keys() - {broken}
    assert {name: after[name] for name in after if name != lost} == {
        name: before[name] for name in after if name != lost
    }
    table = pd.read_csv(folder / "runs.csv")
    assert set(table["run"]) == set(RUNS) - {broken}
    stored = {str(path.relative_to(tmp_path / "store/phantom")) for path in (tmp_path / "store").rglob("*.*")}
    assert {f"{lost}/07_train.ipynb", f"{lost}/results.json", f"{broken}/log.txt", "runs.csv", "plan.yaml"} <= stored


def test_a_dry_run_lists_the_runs_and_their_cost_and_leaves_nothing(command_line, tmp_path):
    told = command_line("sweep", PLAN, "--output", tmp_path / "new", "--jobs", "2", "--dry-run")
    assert told.status == 0 and not (tmp_path / "new").exists()
    assert all(name in told.text for name in RUNS)
    assert "7 of 7 runs to do, 42 steps: about" in told.text and "2 at a time" in told.text
    assert all(part in told.text for part in ("steps ", "validation ", "starts and figures ", "table "))


def test_a_second_process_waits_for_a_run_that_is_under_way_and_does_not_repeat_it(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    program = (
        "import sys; from semimedref_core.experiments.job import Job, Task; Task()([Job(sys.argv[1], {}, {}, False)])"
    )
    with open(run / LOG, "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        waiting = subprocess.Popen([sys.executable, "-c", program, run])
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2)
        (run / "results.json").write_text("{}")
        (run / STATE).write_text('{"state": "finished", "attempts": 1, "error": ""}')
    assert waiting.wait(PATIENCE) == 0
    assert run_state(run) == State("finished", 1) and (run / LOG).read_text() == ""


class Interrupted:
    """In the place of a task: stops as the process of a run does that somebody kills."""

    def done(self):
        return True

    def result(self):
        raise RuntimeError("a long story of submitit's, with all that was printed")


def test_a_run_whose_process_ends_half_way_is_reported_in_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STATE).write_text('{"state": "running", "attempts": 1, "error": ""}')
    states = sweep._outcome(Interrupted(), ["run", "next"], tmp_path, {"run": 0, "next": 0})
    reason = "its process ended half-way; was it stopped or killed, perhaps without memory? The same command continues"
    assert states == {"run": State("failed", 1, reason)}, "the next run waits for another process"


def test_processes_that_end_before_they_begin_a_run_do_not_go_round_for_ever(tmp_path):
    states = sweep._outcome(Interrupted(), ["run", "next"], tmp_path, {"run": 0, "next": 0})
    assert states == {"run": State("failed", 0, sweep.HALF_WAY)}


def test_ctrl_c_stops_the_runs_and_does_not_wait_for_them(tmp_path):
    folder = tmp_path / "phantom"
    sweeping, deadline = in_a_process(folder), time.monotonic() + PATIENCE
    while not list(folder.glob("*/metrics.jsonl")):
        assert sweeping.poll() is None and time.monotonic() < deadline, folder.with_suffix(".txt").read_text()
        time.sleep(0.05)
    children = psutil.Process(sweeping.pid).children(recursive=True)
    sweeping.send_signal(signal.SIGINT)
    assert sweeping.wait(120) == 130
    assert "stopped; the same command continues it" in folder.with_suffix(".txt").read_text()
    _, alive = psutil.wait_procs(children, 120)
    assert alive == [] and len(finished_in(folder)) < 7


def test_a_task_that_its_cluster_interrupts_is_queued_again_and_goes_on(killed, tmp_path):
    """submitit's local executor, with the signal that SLURM sends before it takes a machine away."""
    name = "phantom-0.02-supervised-seed0"
    job = Job(str(tmp_path / name), RUNS[name].config.to_dict(), {})
    task = submitit.LocalExecutor(tmp_path / "submitit").submit(Task(), [job])
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / name / "checkpoint.safetensors").exists():
        assert not task.done() and time.monotonic() < deadline, task.stderr()
        time.sleep(0.02)
    for process in psutil.Process().children(recursive=True):
        if "submitit.core._submit" in process.cmdline():
            process.send_signal(signal.SIGUSR2)
    assert task.result() == [State("finished", 2)]
    last = pd.read_csv(killed[0] / "runs.csv").query("run == @name and network == 'teacher'")
    results = json.loads((tmp_path / name / "results.json").read_text())
    assert results["teacher"]["dice_image"] == last["dice_image"].item(), "it went on from its checkpoint"


@pytest.mark.parametrize("content, told", [
    (
        "runs: [{method: [supervised, nobody]}]",
        "plan.yaml: block 1 of runs, method nobody: method: unknown value 'nobody'",
    ),
    ("runs: [{method: supervised, patch_sise: 0.3}]", "unknown setting 'patch_sise'"),
    ("runs: [{dataset: qata}]", "no data folder: set SEMIMEDREF_DATA"),
])  # fmt: skip
def test_a_plan_that_cannot_work_is_refused_before_anything_runs(command_line, tmp_path, monkeypatch, content, told):
    monkeypatch.delenv("SEMIMEDREF_DATA", raising=False)
    (tmp_path / "plan.yaml").write_text(content)
    outcome = command_line("sweep", tmp_path / "plan.yaml", "--output", tmp_path / "out")
    assert outcome.status == 1 and told in outcome.errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings, told", [
    ("positions: gone.csv", "gone.csv: no such table of positions"),
    ("positions: lung", "1 problem(s)"),
])  # fmt: skip
def test_a_plan_on_own_data_with_faults_is_refused_before_anything_runs(command_line, tmp_path, settings, told):
    mine = own_folders.chest(tmp_path / "mine", zones=["left toe", *[""] * 11])
    (tmp_path / "plan.yaml").write_text(f"runs: [{{dataset: folder, data: {mine}, {settings}}}]")
    outcome = command_line("sweep", tmp_path / "plan.yaml", "--output", tmp_path / "out")
    assert outcome.status == 1 and told in outcome.errors, outcome.errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("left, settings, told", [
    ("phantom-0.02-supervised-seed0", {"lr": 0.5}, r"the run there has other settings (lr 0.5 is now 0.001"),
    ("another", {}, "holds runs that the plan does not name (another)"),
])  # fmt: skip
def test_a_folder_with_runs_of_another_plan_is_refused(command_line, tmp_path, left, settings, told):
    config = RUNS["phantom-0.02-supervised-seed0"].config.to_dict()
    (tmp_path / left).mkdir()
    (tmp_path / left / "config.json").write_text(json.dumps({**config, **settings}))
    outcome = command_line("sweep", PLAN, "--output", tmp_path)
    assert outcome.status == 1 and told in outcome.errors
    assert [path.name for path in tmp_path.rglob("*")] == [left, "config.json"]


def test_what_submitit_does_not_know_is_told(command_line, tmp_path):
    (tmp_path / "plan.yaml").write_text(json.dumps({"runs": [{"method": "supervised"}], "cluster": {"colour": "red"}}))
    outcome = command_line("sweep", tmp_path / "plan.yaml", "--output", tmp_path / "out")
    assert outcome.status == 1 and "engine local: Parameter 'colour'" in outcome.errors
    assert not list((tmp_path / "out").glob("phantom*"))


def test_a_run_is_copied_to_any_store_that_papermill_knows(tmp_path, monkeypatch):
    kept = {}

    class Shelf:
        def write(self, text, path):
            kept[path] = text

    monkeypatch.setattr(papermill_io, "_handlers", list(papermill_io._handlers))
    papermill_io.register("shelf://", Shelf())
    run = tmp_path / "run"
    run.mkdir()
    (run / "results.json").write_text("{}")
    papermill_run.put("shelf://top/", run, ["results.json", "not there.json"])
    assert kept == {"shelf://top/run/results.json": "{}"}


def test_a_store_that_cannot_be_written_to_is_refused_before_anything_runs(command_line, tmp_path):
    outcome = command_line("sweep", PLAN, "--output", tmp_path / "out", "--store", "nowhere://bucket")
    assert outcome.status == 1 and "nowhere://bucket/out: cannot be written" in outcome.errors
    assert not list((tmp_path / "out").glob("phantom*"))


def test_slurm_gets_one_array_job_with_so_many_tasks_at_a_time(tmp_path, monkeypatch):
    """A made-up ``sbatch`` keeps the script that it is given."""
    for name, script in (("sbatch", f"cp $1 {tmp_path}/script; echo Submitted batch job 7"), ("srun", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    plan = replace(read_plan(PLAN), threads=2, cluster={"mem_gb": 4, "slurm_partition": "short"})
    jobs = [[Job(str(tmp_path / run.name), {}, {})] for run in plan.runs]
    executor = sweep.open_executor(plan, tmp_path, "slurm", 3)
    assert [task.job_id for task in executor.map_array(Task(), jobs)] == [f"7_{i}" for i in range(7)]
    asked = (tmp_path / "script").read_text()
    for option in ("array=0-6%3", "cpus-per-task=2", "mem=4GB", "partition=short", "job-name=semimedref-phantom"):
        assert f"#SBATCH --{option}\n" in asked
