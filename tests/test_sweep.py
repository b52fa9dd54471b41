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
import pandas as pd
import psutil
import pytest
import submitit
import torch
from papermill.iorw import papermill_io

from semimedref_core import notebooks, runs, sweep
from semimedref_core.plans import read_plan
from semimedref_core.records import read_metrics
from semimedref_core.sweep_run import LOG, STATE, Job, Requeued, State, execute, state_of
from semimedref_core.training import train

PLAN = runs.NOTEBOOKS / "plans" / "phantom.yaml"
RUNS = {run.name: run for run in read_plan(PLAN).runs}
PATIENCE = 900  # seconds after which a sweep counts as hung; a slow machine does not


def in_a_process(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "semimedref_core", "sweep", PLAN, "--output", folder, "--jobs", "2"]
    with open(folder.with_suffix(".txt"), "w") as output:
        return subprocess.Popen(command, start_new_session=True, stdout=output, stderr=output)


def half_way(folder: Path) -> list[str]:
    """The runs that have a checkpoint and steps to do."""
    begun = [path.parent for path in folder.glob("*/checkpoint.safetensors")]
    return [
        run.name
        for run in begun
        if state_of(run).state == "running" and read_metrics(run / "metrics.jsonl")[-1]["step"] < 6
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
    names = [name for name in RUNS if state_of(folder / name).state == "finished"]
    return {name: (folder / name / "results.json").stat().st_mtime_ns for name in names}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A sweep that got SIGKILL, all processes at once, and was started again: what was found in between, and the end.

    Its notebooks are frozen for a moment first, so that what is half-way stays so.
    """
    folder = tmp_path_factory.mktemp("sweep") / "phantom"
    first, deadline = in_a_process(folder), time.monotonic() + PATIENCE
    while len(finished_in(folder)) < 4 or not half_way(folder):
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
    assert len(RUNS) == 12 and set(finished_in(folder)) == set(RUNS)
    assert found["half-way"] and 4 <= len(found["finished"]) < 12
    assert f"12 runs, {len(found['finished'])} of them finished before" in told
    assert {name: finished_in(folder)[name] for name in found["finished"]} == found["finished"], "left alone"
    interrupted = set(found["begun"]) - set(found["finished"])
    assert {name: state_of(folder / name).attempts for name in RUNS} == {
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
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


def test_a_run_s_folder_holds_notebook_metrics_settings_and_environment(killed):
    folder, _, _ = killed
    for name, run in RUNS.items():
        assert json.loads((folder / name / "config.json").read_text()) == run.config.to_dict()
        about = json.loads((folder / name / "environment.json").read_text())
        assert about["threads"] == 1 and about["packages"]["torch"].startswith(torch.__version__.split("+")[0])
        assert about["python"] and about["platform"] and about["cpu_cores"]
        executed = nbformat.read(folder / name / "06_train.ipynb", as_version=4)
        assert notebooks.output_problems(executed, nbformat.v4.new_notebook(cells=executed.cells)) == []
        assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
        assert (folder / name / "teacher" / "model.safetensors").exists() and (folder / name / "valid.npz").exists()
        said = str([cell.outputs for cell in executed.cells if cell.cell_type == "code"])
        assert ("patches proposed" in said) == (run.config.method == "semi_medref")


def test_the_sweep_ends_with_a_tidy_table_and_the_results_notebook_on_it(killed):
    folder, _, _ = killed
    table = pd.read_csv(folder / "runs.csv", keep_default_na=False)
    assert len(table) == 24 and set(table["run"]) == set(RUNS) and set(table["network"]) == {"student", "teacher"}
    assert {"variant", "method", "label_ratio", "seed", "posaug_p", "dice_image", "miou_micro", "seconds"} <= set(table)
    assert set(table["variant"]) == {"", "without PosAug", "hard positives"}
    row = table[(table["run"] == "phantom-0.02-supervised-seed1") & (table["network"] == "teacher")].iloc[0]
    results = json.loads((folder / row["run"] / "results.json").read_text())
    assert row["dice_image"] == pytest.approx(results["teacher"]["dice_image"])
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "runs.parquet"), table, check_dtype=False)
    executed = nbformat.read(folder / "07_results.ipynb", as_version=4)
    assert notebooks.output_problems(executed, nbformat.v4.new_notebook(cells=executed.cells)) == []
    assert "12 finished runs" in str(executed)


def test_tasks_of_submitit_do_what_is_left_and_a_broken_run_is_tried_twice_and_reported(killed, tmp_path, command_line):
    """submitit's local executor; the broken run's checkpoint cannot be read, and the other is not affected."""
    folder = tmp_path / "phantom"
    shutil.copytree(killed[0], folder)
    before = finished_in(folder)
    lost, broken = "phantom-0.02-supervised-seed0", "phantom-0.05-supervised-seed1"
    shutil.rmtree(folder / lost)
    (folder / broken / STATE).unlink()
    (folder / broken / "checkpoint.safetensors").write_bytes(b"no checkpoint")
    told = command_line("sweep", PLAN, "--output", folder, "--engine", "local", "--store", tmp_path / "store")
    assert told.status == 1
    assert f"failed   {folder / broken}: " in told.errors and "damaged checkpoint" in told.errors
    assert state_of(folder / broken).attempts == 2 and state_of(folder / lost) == State("finished", 1)
    after = finished_in(folder)
    assert after.keys() == before.keys() - {broken}
    assert {name: after[name] for name in after if name != lost} == {
        name: before[name] for name in after if name != lost
    }
    table = pd.read_csv(folder / "runs.csv")
    assert set(table["run"]) == set(RUNS) - {broken}
    stored = {str(path.relative_to(tmp_path / "store/phantom")) for path in (tmp_path / "store").rglob("*.*")}
    assert {f"{lost}/06_train.ipynb", f"{lost}/results.json", f"{broken}/log.txt", "runs.csv", "plan.yaml"} <= stored


def test_a_dry_run_lists_the_runs_and_their_cost_and_leaves_nothing(command_line, tmp_path):
    told = command_line("sweep", PLAN, "--output", tmp_path / "new", "--jobs", "2", "--dry-run")
    assert told.status == 0 and not (tmp_path / "new").exists()
    assert all(name in told.text for name in RUNS)
    assert "12 of 12 runs to do, 72 steps: about" in told.text and "2 at a time" in told.text


def test_a_second_process_waits_for_a_run_that_is_under_way_and_does_not_repeat_it(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with open(run / LOG, "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        job = json.dumps({"folder": str(run), "parameters": {}})
        waiting = subprocess.Popen([sys.executable, "-m", "semimedref_core.sweep_run", job])
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2)
        (run / "results.json").write_text("{}")
        (run / STATE).write_text('{"state": "finished", "attempts": 1, "error": ""}')
    assert waiting.wait(PATIENCE) == 0
    assert state_of(run) == State("finished", 1) and (run / LOG).read_text() == ""


def test_a_run_whose_process_cannot_even_start_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (tmp_path / "run").mkdir()
    assert execute(Job(str(tmp_path / "run"), {})) == State("failed", 0, "ended with status 1")


def test_a_run_that_somebody_stops_is_not_tried_again_and_its_ending_is_told(tmp_path, monkeypatch):
    """As ``scancel`` does, which stops the processes of a task but not the task itself."""
    stopped = tmp_path / "stopped"
    stopped.write_text("#!/bin/sh\necho begun >> $0.txt\nkill -TERM $$\n")
    stopped.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stopped))
    state = execute(Job(str(tmp_path / "run"), {}))
    assert state == State("failed", 0, "was stopped from outside (SIGTERM); the same command goes on with it")
    assert stopped.with_suffix(".txt").read_text() == "begun\n"


def test_a_task_that_its_cluster_interrupts_is_queued_again_and_goes_on(killed, tmp_path):
    """submitit's local executor, with the signal that SLURM sends before it takes a machine away."""
    name = "phantom-0.02-supervised-seed0"
    parameters = sweep.notebook_parameters(RUNS[name].config, runs.parameters_of("06_train"))
    task = submitit.LocalExecutor(tmp_path / "submitit").submit(Requeued(), Job(str(tmp_path / name), parameters))
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / name / "checkpoint.safetensors").exists():
        assert not task.done() and time.monotonic() < deadline, task.stderr()
        time.sleep(0.02)
    for process in psutil.Process().children(recursive=True):
        if "submitit.core._submit" in process.cmdline():
            process.send_signal(signal.SIGUSR2)
    assert task.result() == State("finished", 2)
    last = pd.read_csv(killed[0] / "runs.csv").query("run == @name and network == 'teacher'")
    results = json.loads((tmp_path / name / "results.json").read_text())
    assert results["teacher"]["dice_image"] == last["dice_image"].item(), "it went on from its checkpoint"


@pytest.mark.parametrize("content, told", [
    ("runs: [{method: [supervised, nobody]}]", "plan.yaml: block 1 of runs, method nobody: unknown method 'nobody'"),
    ("runs: [{method: supervised, patch_sise: 0.3}]", "unknown setting 'patch_sise'"),
    ("runs: [{dataset: qata}]", "no data folder: give --data or set SEMIMEDREF_DATA"),
])  # fmt: skip
def test_a_plan_that_cannot_work_is_refused_before_anything_runs(command_line, tmp_path, monkeypatch, content, told):
    monkeypatch.delenv("SEMIMEDREF_DATA", raising=False)
    (tmp_path / "plan.yaml").write_text(content)
    outcome = command_line("sweep", tmp_path / "plan.yaml", "--output", tmp_path / "out")
    assert outcome.status == 1 and told in outcome.errors
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


@pytest.mark.parametrize("cluster, installed, told", [
    ({"colour": "red"}, True, "engine local: Parameter 'colour'"),
    ({}, False, "needs submitit, which is not installed: pip install -c constraints.txt -e '.[cluster]'"),
])  # fmt: skip
def test_what_submitit_lacks_is_told(command_line, tmp_path, monkeypatch, cluster, installed, told):
    if not installed:
        monkeypatch.setitem(sys.modules, "submitit", None)
    (tmp_path / "plan.yaml").write_text(json.dumps({"runs": [{"method": "supervised"}], "cluster": cluster}))
    outcome = command_line("sweep", tmp_path / "plan.yaml", "--output", tmp_path / "out", "--engine", "local")
    assert outcome.status == 1 and told in outcome.errors
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
    runs.put("shelf://top/", run, ["results.json", "not there.json"])
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
    jobs = [Job(str(tmp_path / run.name), {}) for run in plan.runs]
    with sweep.ENGINES["slurm"](plan, tmp_path, 3) as submit:
        assert [task.job_id for task in submit(jobs)] == [f"7_{i}" for i in range(12)]
    asked = (tmp_path / "script").read_text()
    for option in ("array=0-11%3", "cpus-per-task=2", "mem=4GB", "partition=short", "job-name=semimedref-phantom"):
        assert f"#SBATCH --{option}\n" in asked
