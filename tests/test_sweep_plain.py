"""A sweep without notebooks: several runs in one process, which may be killed, alone or with the sweep."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
import torch

from semimedref_core.config import Config
from semimedref_core.experiments import estimate, job, sweep
from semimedref_core.experiments.job import STATE, Job, State, Task, run_state
from semimedref_core.experiments.plan import read_plan
from semimedref_core.runtime.atomic import write_json
from semimedref_core.training import train

PATIENCE = 900  # seconds after which a sweep counts as hung
PLAN = {
    "notebook": False,
    "settings": {"image_size": 32, "steps": 6, "batch_size": 4, "eval_every": 2, "label_ratio": 0.05},
    "runs": [{"method": ["supervised", "semi_medref"], "seed": 0}, {"method": "supervised", "seed": 1}],
}
KILLED, ORPHANED, NEXT = (
    f"phantom-0.05-{name}" for name in ("supervised-seed0", "semi_medref-seed0", "supervised-seed1")
)


def started(plan: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "semimedref_core", "sweep", plan, "--output", plan.parent / "out", "--jobs", "1"]
    with open(plan.parent / "log.txt", "a") as output:
        return subprocess.Popen(command, start_new_session=True, stdout=output, stderr=output)


def wait_until(said, sweeping: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not said():
        assert sweeping.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A sweep whose process of runs was killed in the first run; then the sweep alone was killed, in the second run;
    then it was started again. What was found in between, and the end."""
    plan = tmp_path_factory.mktemp("plain") / "plan.yaml"
    plan.write_text(json.dumps(PLAN))
    folder, log, found = plan.parent / "out", plan.parent / "log.txt", {}
    first = started(plan)
    wait_until((folder / KILLED / "checkpoint.safetensors").exists, first, log)
    (making,) = [
        process
        for process in psutil.Process(first.pid).children(recursive=True)
        if "submitit.core._submit" in process.cmdline()
    ]
    making.kill()
    found["killed"] = run_state(folder / KILLED)
    wait_until((folder / ORPHANED / "checkpoint.safetensors").exists, first, log)
    others = psutil.Process(first.pid).children(recursive=True)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    _, found["alive"] = psutil.wait_procs(others, 60)
    found["orphaned"] = run_state(folder / ORPHANED)
    found["told"] = log.read_text()
    assert started(plan).wait(PATIENCE) == 0, log.read_text()
    return folder, found


def test_the_runs_of_a_sweep_that_is_killed_end_with_it(killed):
    _, found = killed
    assert found["alive"] == [] and found["orphaned"] == State("running", 1)


def test_a_process_that_is_killed_costs_its_own_run_alone(killed):
    folder, found = killed
    assert found["killed"] == State("running", 1)
    assert f"{KILLED}: failed at attempt 1: {sweep.HALF_WAY}" in found["told"]
    assert run_state(folder / NEXT) == State("finished", 1)


@pytest.mark.parametrize("name", [KILLED, ORPHANED])
def test_after_the_kills_the_numbers_are_those_of_a_run_that_was_never_stopped(killed, tmp_path, name):
    folder, _ = killed
    assert run_state(folder / name) == State("finished", 2)
    config = {run.name: run.config for run in read_plan(folder / "plan.yaml").runs}[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(config, tmp_path, device="cpu")
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (folder / name / "metrics.jsonl").read_bytes()
    ours, theirs = (json.loads((run / "results.json").read_text()) for run in (folder / name, tmp_path))
    assert ours["plan"] == "plan" and ours["variant_of"] == config.method
    assert all(ours[key] == theirs[key] for key in ("student", "teacher", "step", "labelled", "environment"))


def test_without_notebooks_a_run_s_folder_holds_what_train_writes_and_its_log(killed):
    folder, _ = killed
    names = {path.name for path in (folder / NEXT).iterdir()}
    trained = {"config.json", "metrics.jsonl", "results.json", "student", "teacher", "valid.npz"}
    assert names == trained | {"log.txt", "state.json"}
    assert (folder / "08_results.ipynb").is_file() and (folder / "runs.parquet").is_file()


def test_a_notebook_can_be_had_later_without_training_again(killed, tmp_path):
    """By ``notebook: true`` in the plan, which is what the job below says."""
    folder, _ = killed
    run, done = folder / NEXT, (folder / NEXT / "results.json").stat().st_mtime_ns
    assert run_state(run).finished and not run_state(run, notebook=True).finished
    config = json.loads((run / "config.json").read_text())
    program = (
        "import json, sys; from semimedref_core.experiments.job import Job, Task;"
        "Task()([Job(sys.argv[1], json.loads(sys.argv[2]), {})])"
    )
    subprocess.run([sys.executable, "-c", program, run, json.dumps(config)], check=True)
    assert run_state(run, notebook=True).finished, (run / "log.txt").read_text()
    assert (run / "results.json").stat().st_mtime_ns == done
    assert "## The numbers" in str(nbformat.read(run / "07_train.ipynb", as_version=4))


def test_a_task_leaves_the_rest_of_its_runs_to_others_once_its_time_is_up(monkeypatch):
    made = []
    monkeypatch.setattr(job, "_prepare_process", lambda job: None)
    monkeypatch.setattr(job, "_make", lambda one: made.append(one.folder) or State("finished", 1))
    jobs = [Job(name, {}, {}, False) for name in "abc"]
    assert len(Task()(jobs)) == 3 and made == ["a", "b", "c"]
    monkeypatch.setattr(job, "SHIFT", -1)
    assert Task()(jobs) == [State("finished", 1)], "one at least"


@pytest.mark.parametrize("name, content, told", [
    (STATE, '{"state": "fin', "cannot be read"),
    (STATE, '{"state": "asleep"}', "state 'asleep'"),
    (STATE, '["finished"]', "holds a list"),
    ("results.json", '{"step": 6, "stu', "cannot be read"),
    ("results.json", "[]", "holds a list"),
])  # fmt: skip
def test_a_damaged_record_is_named_before_anything_runs(command_line, tmp_path, name, content, told):
    (tmp_path / "plan.yaml").write_text(json.dumps(PLAN))
    run = tmp_path / "out" / NEXT
    run.mkdir(parents=True)
    (run / name).write_text(content)
    outcome = command_line("sweep", tmp_path / "plan.yaml", "--output", tmp_path / "out")
    assert outcome.status == 1 and outcome.errors.count("\n") == 1
    assert f"{run / name}: {told}" in outcome.errors and "damaged: delete it" in outcome.errors
    assert not (tmp_path / "out/submitit").exists()


def test_no_cell_of_a_run_s_notebook_has_a_time_limit_of_its_own(tmp_path, monkeypatch):
    """The plan's timeout_min is the limit; an hour for the cell that trains ended long runs."""
    from semimedref_core.experiments import papermill_run

    limits = []
    monkeypatch.setattr(papermill_run.papermill, "execute_notebook", lambda *_, **how: limits.append(how))
    assert job._attempt(Job(str(tmp_path), read_plan_of(tmp_path).config.to_dict(), {}), tmp_path).state == "finished"
    assert [how["execution_timeout"] for how in limits] == [None]


def read_plan_of(folder: Path):
    (folder / "plan.yaml").write_text(json.dumps(PLAN))
    return read_plan(folder / "plan.yaml").runs[0]


class Submitted:
    """A task of submitit that ends at once, with all its runs finished."""

    def __init__(self, jobs: list[Job]):
        self.jobs = jobs
        for one in jobs:
            Path(one.folder).mkdir(parents=True)
            write_json(Path(one.folder) / "results.json", {})

    def done(self) -> bool:
        return True

    def result(self) -> list[State]:
        return [State("finished", 1) for _ in self.jobs]


@pytest.mark.parametrize("cluster, seen", [({}, ["2", "3"]), ({"gpus_per_node": 1}, [None, None])], ids=str)
def test_runs_at_the_same_time_get_a_gpu_each_of_those_that_the_sweep_sees(tmp_path, monkeypatch, cluster, seen):
    """If the plan asks for GPUs, submitit gives them out."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    (tmp_path / "plan.yaml").write_text(json.dumps(PLAN | {"cluster": cluster}))
    tasks = []
    executor = SimpleNamespace(submit=lambda task, jobs: tasks.append(Submitted(jobs)) or tasks[-1])
    monkeypatch.setattr(sweep, "open_executor", lambda *about: executor)
    monkeypatch.setattr(sweep, "_line", lambda name, *about: name)
    sweep.sweep(read_plan(tmp_path / "plan.yaml"), tmp_path / "out", "local", jobs=2)
    assert [sorted({run.gpus for run in task.jobs}, key=str) for task in tasks] == [[gpu] for gpu in seen]


def test_an_estimate_counts_starts_validations_and_what_each_network_costs(monkeypatch, tmp_path):
    """Here each step takes a second, two with ISPG, each validated image 0.01 s, and each start a multiple of 10 s."""
    monkeypatch.setattr(estimate, "_measure", lambda config: (2.0 if config.ispg == "on" else 1.0, 0.01))
    monkeypatch.setattr(estimate, "_draw_seconds", lambda size: 0.0)
    monkeypatch.setattr(estimate, "probe_seconds", lambda threads, together: 10.0)
    run = read_plan_of(tmp_path).config  # six steps, three validations of 200 images
    runs = [replace(run, seed=seed) for seed in range(12)]
    cost = estimate.estimate(runs, 1, 2)
    assert cost.steps == 12 * 6 and cost.validation == pytest.approx(12 * 3 * 200 * 0.01)
    assert cost.starts > 12 * 20 and cost.table > 0
    assert cost.elapsed == pytest.approx((cost.steps + cost.validation + cost.starts) / 2 + cost.table)
    assert estimate.estimate(runs, 1, 2, notebook=False).starts < cost.starts / 3
    assert estimate.estimate([replace(run, method="semi_medref", ispg="on")], 1, 2).steps == 12
    assert estimate.estimate([], 1, 2).elapsed == 0


def test_an_estimate_counts_the_validation_pairs_of_one_s_own_data(monkeypatch):
    class Table:
        def entries(self, split):
            return {"valid": ["one", "two"]}[split]

    monkeypatch.setattr(estimate.OwnData, "find", lambda *_: Table())
    config = Config(dataset="folder", data="here", steps=10, eval_every=4)
    assert estimate._validated(config) == 2 * 3, "after steps 4, 8 and 10"
