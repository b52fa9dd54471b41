"""A sweep makes all runs of a plan, one for each core at a time, and then one table.

You can stop it at any moment and start it again. Finished runs are not changed, and the others continue from their last
checkpoint, with the same numbers. Submitit makes the runs: in processes of this machine, each with several short runs,
or as tasks of an array job on SLURM.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import submitit
import torch
from tqdm.auto import tqdm

from semimedref_core.data.datasets import SOURCES, data_folder
from semimedref_core.data.own.folder import OwnData
from semimedref_core.experiments import papermill_run
from semimedref_core.experiments.estimate import estimate
from semimedref_core.experiments.job import LOG, Job, State, SweepError, Task, run_state
from semimedref_core.experiments.plan import Plan, PlannedRun, find_plan, read_plan
from semimedref_core.experiments.results import finished_runs
from semimedref_core.experiments.shipped import notebooks_folder
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.runtime.environment import usable_cores
from semimedref_core.runtime.files import CONFIG, METRICS_LOG, RESULTS
from semimedref_core.runtime.run_state import read_results, require_same_settings
from semimedref_core.runtime.tracking import Tracker, require_tracker

RESULTS_NOTEBOOK = "08_results"
POLL = 0.5  # seconds between two checks of the runs
LOGGED_EVERY = 60  # seconds between two progress lines in a log
HALF_WAY = "its process ended half-way; was it stopped or killed, perhaps without memory? The same command continues"


def carry_out(
    source: str | Path,
    output: Path | None,
    engine: str,
    jobs: int | None,
    *,
    store: str = "",
    track: Tracker | None = None,
    dry_run: bool = False,
) -> int:
    """The command ``semimedref sweep``, from the plan's file to the table.

    Returns:
        The exit status: 0, 1 if a run failed, 130 if somebody stopped it.
    """
    source = find_plan(source, notebooks_folder() / "plans")
    plan = read_plan(source)
    folder = (output or Path("runs") / plan.name).resolve()
    jobs = jobs or default_jobs(plan.threads)
    check(plan, folder)
    require_tracker(track)
    if dry_run:
        print(preview(plan, folder, jobs))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yaml").write_text(Path(source).read_text(encoding="utf-8"), encoding="utf-8")
    if store:
        store = store if "://" in store else str(Path(store).resolve())
        papermill_run.put(store, folder, ["plan.yaml"])  # before any run, so that a wrong address costs nothing
    try:
        states = sweep(plan, folder, engine, jobs, store, track)
    except KeyboardInterrupt:
        print("stopped; the same command continues it", file=sys.stderr)
        return 130
    failed = {name: state.error for name, state in states.items() if not state.finished}
    for name, error in failed.items():
        print(f"failed   {folder / name}: {error}", file=sys.stderr)
    for path in write_results(plan, folder, store) if len(failed) < len(states) else ():
        print(f"written  {path}")
    return 1 if failed else 0


def check(plan: Plan, folder: Path) -> None:
    """Checks everything that can be checked before a run starts.

    Raises:
        SweepError: if the folder has runs that are not in the plan, or a damaged state of a run.
        CheckpointError: if a run there has other settings than in the plan, or damaged results.
        DataError: if the plan needs real or own data, and their tables are missing or have problems.
    """
    named = {run.name for run in plan.runs}
    strangers = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}") if path.parent.name not in named)
    if strangers:
        raise SweepError(
            f"{folder}: holds runs that the plan does not name ({', '.join(strangers)}); move or delete them, or give "
            "another --output, so that the table has only this plan's runs"
        )
    for run in plan.runs:
        if (folder / run.name / CONFIG).is_file():
            require_same_settings(folder / run.name / CONFIG, run.config)
        if run_state(folder / run.name).finished or (folder / run.name / RESULTS).is_file():
            read_results(folder / run.name)
    needed = ("dataset", "data", "texts", "positions", "text_sides")
    for dataset, data, texts, *zones in {tuple(getattr(run.config, name) for name in needed) for run in plan.runs}:
        for split in ("train", "valid"):
            if source := SOURCES.get(dataset):
                source.find(data_folder(data)).entries(split, texts)
            if dataset == "folder":
                OwnData.find(data_folder(data), *zones).entries(split)


def default_jobs(threads: int) -> int:
    """The number of runs at a time: one for each GPU; without a GPU, one for each ``threads`` usable CPU cores."""
    return torch.cuda.device_count() or max(1, usable_cores() // threads)


def sweep(
    plan: Plan, folder: Path, engine: str, jobs: int, store: str = "", track: Tracker | None = None
) -> dict[str, State]:
    """Makes all unfinished runs of a plan and shows their progress.

    Args:
        plan: the plan.
        folder: the folder of the sweep; each run has a subfolder.
        engine: ``local`` or ``slurm``.
        jobs: largest number of runs at a time.
        store: address that also gets the text files of every run (see
            :func:`semimedref_core.experiments.papermill_run.put`).
        track: a tracker for the metrics of every run (see :func:`semimedref_core.training.train`).

    Returns:
        The state of every run by name.

    Raises:
        KeyboardInterrupt: if the user stops it. Runs on this machine are stopped; tasks on SLURM continue.
    """
    executor = open_executor(plan, folder, engine, jobs)
    states = {run.name: run_state(folder / run.name, plan.notebook) for run in plan.runs}
    before = {name: state.attempts for name, state in states.items()}
    left = [run for run in plan.runs if not states[run.name].finished]
    todo = {run.name: _job(run, plan, folder, engine, store, track) for run in left}
    waiting, pending = dict(todo), []  # pending: tasks of submitit, each with the names of its runs and its GPU
    gpus = visible_gpus() if engine == "local" and "gpus_per_node" not in plan.cluster else [None]
    print(f"{len(plan.runs)} runs, {len(plan.runs) - len(todo)} of them finished before; everything goes to {folder}/")
    if engine == "slurm" and waiting:  # one array that respects `jobs`; each run is a separate task
        tasks = executor.map_array(Task(), [[job] for job in waiting.values()])
        waiting, pending = {}, [(task, [name], None) for task, name in zip(tasks, waiting, strict=True)]
    steps = {run.name: 0 if run.name in todo else run.config.steps for run in plan.runs}
    total = {run.name: run.config.steps for run in plan.runs}
    try:
        with tqdm(
            total=sum(total.values()),
            initial=sum(steps.values()),
            desc=plan.name,
            unit="step",
            mininterval=POLL if sys.stderr.isatty() else LOGGED_EVERY,
        ) as bar:
            while waiting or pending:
                while waiting and len(pending) < jobs:
                    names = list(waiting)[: math.ceil(len(waiting) / (jobs - len(pending)))]
                    gpu = min(gpus, key=[used for *_, used in pending].count)  # the one with the fewest runs
                    jobs_now = [replace(waiting.pop(name), gpus=gpu) for name in names]
                    pending.append((executor.submit(Task(), jobs_now), names, gpu))
                ended = {}
                for task, names, gpu in [one for one in pending if one[0].done()]:
                    pending.remove((task, names, gpu))
                    told = _outcome(task, names, folder, before)
                    ended |= told
                    waiting = {name: todo[name] for name in names if name not in told} | waiting
                states |= ended
                names = [name for _, names, _ in pending for name in names]
                now = {name: run_state(folder / name) for name in names}
                states |= {name: state for name, state in now.items() if state.attempts > before[name]}
                running = {name: steps_done(folder / name) for name in names if states[name].state == "running"}
                steps |= running | {name: total[name] for name in todo if states[name].state in ("finished", "failed")}
                done, failed = (sum(s.state == what for s in states.values()) for what in ("finished", "failed"))
                shown = "".join(f", {name} at {n}" for name, n in running.items())
                bar.set_postfix_str(f"{done} of {len(states)} runs done, {failed} failed{shown}", refresh=False)
                bar.update(sum(steps.values()) - bar.n)
                for name in ended:
                    bar.write(_line(name, states[name], folder))
                time.sleep(0 if ended else POLL)
    except KeyboardInterrupt:
        if engine == "local":
            for task, *_ in pending:
                task.cancel()
        raise
    return states


def open_executor(plan: Plan, folder: Path, engine: str, jobs: int) -> submitit.AutoExecutor:
    """Opens the executor that makes the runs.

    Raises:
        SweepError: for a parameter of ``cluster`` that submitit does not know, or if there is no SLURM.
    """
    about = {"name": f"semimedref-{plan.name}", "cpus_per_task": plan.threads, "timeout_min": 24 * 60, **plan.cluster}
    try:
        executor = submitit.AutoExecutor(folder / "submitit", cluster=engine)
        executor.update_parameters(slurm_array_parallelism=jobs, **about)
    except Exception as error:  # submitit raises different errors
        raise SweepError(f"engine {engine}: {' '.join(str(error).split())}; check 'cluster' in the plan") from None
    return executor


def preview(plan: Plan, folder: Path, jobs: int) -> str:
    """The runs of a plan, the progress of each, and the estimated time of the rest on this machine."""
    states = {run.name: run_state(folder / run.name, plan.notebook).state for run in plan.runs}
    width = max(map(len, states))
    lines = [f"{run.name:{width}}  {run.config.steps:6} steps  {states[run.name]}" for run in plan.runs]
    todo = [run.config for run in plan.runs if states[run.name] != "finished"]
    cost = estimate(todo, plan.threads, jobs, plan.notebook)
    return "\n".join(lines) + (
        f"\n{len(todo)} of {len(plan.runs)} runs to do, {sum(config.steps for config in todo)} steps: about "
        f"{cost.elapsed / 60:.1f} min here, {jobs} at a time\n{cost.render()}"
    )


def _job(run: PlannedRun, plan: Plan, folder: Path, engine: str, store: str = "", track: Tracker | None = None) -> Job:
    """The job for the process of a run."""
    return Job(
        str(folder / run.name),
        run.config.to_dict(),
        {"plan": plan.name, "variant": run.variant, "variant_of": run.method},
        plan.notebook,
        plan.threads,
        f"{store}/{folder.name}" if store else "",
        os.getpid() if engine == "local" else None,
        track=track,
    )


def visible_gpus() -> list[str]:
    """The numbers or names of the GPUs that runs on this machine may use, as CUDA_VISIBLE_DEVICES; one empty name if
    there are none."""
    here = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))
    return [name.strip() for name in here.split(",")]


def steps_done(folder: Path) -> int:
    """The last logged step of a run."""
    path = folder / METRICS_LOG
    lines = read_metrics(path) if path.is_file() else []
    return lines[-1]["step"] if lines else 0


def table_of(plan: Plan, folder: Path) -> pd.DataFrame:
    """The finished runs as in :func:`.results.finished_runs`, with their names in the plan.

    Returns:
        One row for each run and network. The first column ``run`` replaces ``folder``.
    """
    table = finished_runs([folder / run.name for run in plan.runs if run_state(folder / run.name).finished])
    table.insert(0, "run", table.pop("folder").map(lambda path: Path(path).name))
    return table


def write_results(plan: Plan, folder: Path, store: str = "") -> list[Path]:
    """Writes ``runs.csv`` and ``runs.parquet`` into the sweep's folder, and runs the results notebook on it.

    Returns:
        The files written.

    Raises:
        NotebookError: if the notebook fails or the store cannot be written; the tables exist even then.
    """
    table = table_of(plan, folder)
    table.to_csv(folder / "runs.csv", index=False)
    table.to_parquet(folder / "runs.parquet", index=False)
    notebook = papermill_run.run_notebook(RESULTS_NOTEBOOK, folder, {"folder": "."})
    if store:
        papermill_run.put(store, folder, ["plan.yaml", "runs.csv", notebook.name])
    return [folder / "runs.csv", folder / "runs.parquet", notebook]


def _outcome(task: submitit.Job, names: list[str], folder: Path, before: Mapping[str, int]) -> dict[str, State]:
    """The states of the runs that a task finished. Its other runs are still to be made.

    If a run was in progress when the task's process ended, it counts as failed.
    """
    try:
        return dict(zip(names, task.result(), strict=False))
    except Exception:  # an error of submitit, with the output of the task
        now = {name: run_state(folder / name) for name in names}
        begun = [name for name in names if now[name].attempts > before[name]] or names[:1]
        return {
            name: now[name] if now[name].finished else State("failed", now[name].attempts, HALF_WAY) for name in begun
        }


def _line(name: str, state: State, folder: Path) -> str:
    if not state.finished:
        return f"{name}: {state.state} at attempt {state.attempts}: {state.error}\n    see {folder / name / LOG}"
    rows = finished_runs([folder / name]).set_index("network")
    dice = ", ".join(f"{network} {100 * rows.loc[network, 'dice_image']:.1f} %" for network in rows.index)
    return f"{name}: finished, Dice per image {dice}, {rows['seconds'].iloc[0]:.0f} s"
