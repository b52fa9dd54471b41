"""A sweep: all runs of a plan through the training notebook, as many at a time as there are cores, then one table.

It can be stopped at any moment, by any means, and started again: finished runs are left alone, the others go on from
their last checkpoint, with the same numbers. submitit makes the runs: as processes of this machine, or as tasks of an
array job on SLURM.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import submitit
import torch
from tqdm.auto import tqdm

from semimedref_core.config import Config
from semimedref_core.data.datasets import SOURCES, data_folder
from semimedref_core.errors import SemiMedRefError
from semimedref_core.experiments import papermill_run
from semimedref_core.experiments.estimate import estimated_seconds
from semimedref_core.experiments.job import LOG, NOTEBOOK, Job, State, Task, run_state
from semimedref_core.experiments.plan import Plan, PlannedRun, read_plan
from semimedref_core.experiments.results import finished_runs
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.runtime.environment import usable_cores
from semimedref_core.runtime.run_state import CONFIG, require_same_settings

RESULTS = "07_results"
POLL = 0.5  # seconds between two looks at the runs
LOGGED_EVERY = 60  # seconds between two progress lines where nobody watches


class SweepError(SemiMedRefError, RuntimeError):
    """A sweep that cannot be started; the message says why and what to do."""


def carry_out(
    source: str | Path, output: Path | None, engine: str, jobs: int | None, *, store: str = "", dry_run: bool = False
) -> int:
    """The command ``semimedref sweep``, from the plan's file to the table.

    Returns:
        The exit status: 0, 1 if a run failed, 130 if somebody stopped it.
    """
    plan = read_plan(source)
    folder = (output or Path("runs") / plan.name).resolve()
    jobs = jobs or default_jobs(plan.threads)
    check(plan, folder)
    if dry_run:
        print(preview(plan, folder, jobs))
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yaml").write_text(Path(source).read_text(encoding="utf-8"), encoding="utf-8")
    if store:
        store = store if "://" in store else str(Path(store).resolve())
        papermill_run.put(store, folder, ["plan.yaml"])  # before anything runs, so that a wrong address costs nothing
    try:
        states = sweep(plan, folder, engine, jobs, store)
    except KeyboardInterrupt:
        print("stopped; the same command goes on with it", file=sys.stderr)
        return 130
    failed = {name: state.error for name, state in states.items() if state.state != "finished"}
    for name, error in failed.items():
        print(f"failed   {folder / name}: {error}", file=sys.stderr)
    for path in write_results(plan, folder, store) if len(failed) < len(states) else ():
        print(f"written  {path}")
    return 1 if failed else 0


def check(plan: Plan, folder: Path) -> None:
    """Everything that can be known to go wrong, before anything runs.

    Raises:
        SweepError: if the folder holds runs that the plan does not name.
        CheckpointError: if a run there has other settings than the plan gives it.
        DataError: if real data are wanted and their tables are not there.
    """
    named = {run.name for run in plan.runs}
    strangers = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}") if path.parent.name not in named)
    if strangers:
        raise SweepError(
            f"{folder}: holds runs that the plan does not name ({', '.join(strangers)}); move or delete them, or give "
            "another --output, so that the table is of this plan"
        )
    for run in plan.runs:
        if (folder / run.name / CONFIG).is_file():
            require_same_settings(folder / run.name / CONFIG, run.config)
    for dataset, data, texts in {(run.config.dataset, run.config.data, run.config.texts) for run in plan.runs}:
        if source := SOURCES.get(dataset):
            layout = source.find(data_folder(data))
            for split in ("train", "valid"):
                layout.entries(split, texts)


def default_jobs(threads: int) -> int:
    """How many runs at a time: one on a machine with a GPU, else as many as the cores that this process may use."""
    return 1 if torch.cuda.is_available() else max(1, usable_cores() // threads)


def sweep(plan: Plan, folder: Path, engine: str, jobs: int, store: str = "") -> dict[str, State]:
    """Makes all runs of a plan that are not finished yet, showing how far they are.

    Args:
        plan: what to run.
        folder: of the sweep; each run has a folder of its own in it.
        engine: ``local`` or ``slurm``.
        jobs: most runs at a time.
        store: where every run's texts are copied to as well (see
            :func:`semimedref_core.experiments.papermill_run.put`).

    Returns:
        The state of every run by name.

    Raises:
        KeyboardInterrupt: somebody stopped it. Runs on this machine are stopped; tasks on SLURM go on.
    """
    executor = open_executor(plan, folder, engine, jobs)
    known = papermill_run.parameters_of(NOTEBOOK)
    states = {run.name: run_state(folder / run.name) for run in plan.runs}
    todo = [run for run in plan.runs if states[run.name].state != "finished"]
    place = f"{store}/{folder.name}" if store else ""
    waiting = {
        run.name: Job(str(folder / run.name), notebook_parameters(run, plan.name, known), plan.threads, place)
        for run in todo
    }
    print(f"{len(plan.runs)} runs, {len(plan.runs) - len(todo)} of them finished before; everything goes to {folder}/")
    pending: dict[str, submitit.Job] = {}
    if engine == "slurm" and waiting:  # one array, which keeps to `jobs` itself
        pending = dict(zip(waiting, executor.map_array(Task(), list(waiting.values())), strict=True))
        waiting = {}
    steps = {run.name: 0 if run in todo else run.config.steps for run in plan.runs}
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
                for name in list(waiting)[: jobs - len(pending)]:
                    pending[name] = executor.submit(Task(), waiting.pop(name))
                ended = [name for name, task in pending.items() if task.done()]
                states |= {name: _outcome(pending.pop(name), folder / name) for name in ended}
                begun = [name for name in pending if run_state(folder / name).state == "running"]
                running = {name: steps_done(folder / name) for name in begun}
                steps |= running | {name: total[name] for name in ended}
                done, failed = (sum(s.state == what for s in states.values()) for what in ("finished", "failed"))
                shown = "".join(f", {name} at {n}" for name, n in running.items())
                bar.set_postfix_str(f"{done} of {len(states)} runs done, {failed} failed{shown}", refresh=False)
                bar.update(sum(steps.values()) - bar.n)
                for name in ended:
                    bar.write(_line(name, states[name], folder))
                time.sleep(0 if ended else POLL)
    except KeyboardInterrupt:
        if engine == "local":
            for task in pending.values():
                task.cancel()
        raise
    return states


def open_executor(plan: Plan, folder: Path, engine: str, jobs: int) -> submitit.AutoExecutor:
    """What makes the runs.

    Raises:
        SweepError: for a parameter of ``cluster`` that submitit does not know, or if there is no SLURM.
    """
    about = {"name": f"semimedref-{plan.name}", "cpus_per_task": plan.threads, "timeout_min": 24 * 60, **plan.cluster}
    try:
        executor = submitit.AutoExecutor(folder / "submitit", cluster=engine)
        executor.update_parameters(slurm_array_parallelism=jobs, **about)
    except Exception as error:  # submitit has errors of its own
        raise SweepError(f"engine {engine}: {' '.join(str(error).split())}; look at 'cluster' in the plan") from None
    return executor


def preview(plan: Plan, folder: Path, jobs: int) -> str:
    """The runs of a plan, how far each is, and what the rest will cost on this machine."""
    states = {run.name: run_state(folder / run.name).state for run in plan.runs}
    width = max(map(len, states))
    lines = [f"{run.name:{width}}  {run.config.steps:6} steps  {states[run.name]}" for run in plan.runs]
    todo = [run.config for run in plan.runs if states[run.name] != "finished"]
    minutes = estimated_seconds(todo, plan.threads) / min(jobs, max(1, len(todo))) / 60
    return "\n".join(lines) + (
        f"\n{len(todo)} of {len(plan.runs)} runs to do, {sum(config.steps for config in todo)} steps: about "
        f"{minutes:.1f} min here, {jobs} at a time, and validation and figures on top"
    )


def notebook_parameters(run: PlannedRun, plan: str, known: Sequence[str]) -> dict:
    """A run's settings as parameters of the notebook: those it has by name, others in ``settings`` if no defaults."""
    defaults, settings = Config().to_dict(), run.config.to_dict()
    method = settings.pop("method")
    named = {name: settings.pop(name) for name in known if name in settings}
    others = {name: value for name, value in settings.items() if value != defaults[name]}
    note = {"plan": plan, "variant": run.variant, "variant_of": run.method}
    return {"methods": [method], **named, "settings": others, "note": note, "output": ".", "resume": True}


def steps_done(folder: Path) -> int:
    """The last step that a run has logged."""
    path = folder / "metrics.jsonl"
    lines = read_metrics(path) if path.is_file() else []
    return lines[-1]["step"] if lines else 0


def table_of(plan: Plan, folder: Path) -> pd.DataFrame:
    """The finished runs as :func:`.results.finished_runs` tells them, by their names in the plan.

    Returns:
        One row a run and network; ``run`` comes first and stands for ``folder``.
    """
    table = finished_runs([folder / run.name for run in plan.runs if run_state(folder / run.name).state == "finished"])
    table.insert(0, "run", table.pop("folder").map(lambda path: Path(path).name))
    return table


def write_results(plan: Plan, folder: Path, store: str = "") -> list[Path]:
    """Writes ``runs.csv`` and ``runs.parquet`` into the sweep's folder, and runs the results notebook on it.

    Returns:
        The files written.

    Raises:
        NotebookError: if the notebook fails or the store cannot be written to; the tables are there.
    """
    table = table_of(plan, folder)
    table.to_csv(folder / "runs.csv", index=False)
    table.to_parquet(folder / "runs.parquet", index=False)
    notebook = papermill_run.run_notebook(RESULTS, folder, {"folder": "."})
    if store:
        papermill_run.put(store, folder, ["plan.yaml", "runs.csv", notebook.name])
    return [folder / "runs.csv", folder / "runs.parquet", notebook]


def _outcome(task: submitit.Job, folder: Path) -> State:
    """The state that a task ended with; a task that did not come to its end counts as failed."""
    try:
        return task.result()
    except Exception:  # submitit's own, with all that the task printed
        reason = "its process ended half-way; was it stopped, or killed for want of memory? The same command goes on"
        return State("failed", run_state(folder).attempts, reason)


def _line(name: str, state: State, folder: Path) -> str:
    if state.state != "finished":
        return f"{name}: {state.state} at attempt {state.attempts}: {state.error}\n    see {folder / name / LOG}"
    rows = finished_runs([folder / name]).set_index("network")
    dice = ", ".join(f"{network} {100 * rows.loc[network, 'dice_image']:.1f} %" for network in rows.index)
    return f"{name}: finished, Dice per image {dice}, {rows['seconds'].iloc[0]:.0f} s"
