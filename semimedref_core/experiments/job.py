"""Runs of a sweep, as a task of submitit: each in its folder, once and for all.

What a run's folder holds beside the run itself (see :func:`semimedref_core.training.train`): ``log.txt`` and
``state.json``, and where the plan wants it, the executed training notebook with its figures. This module and what it
imports do without torch, so that a run that has nothing left to do ends at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from semimedref_core.config import Config
from semimedref_core.errors import FileError, SemiMedRefError
from semimedref_core.runtime.atomic import read_json, write_json
from semimedref_core.runtime.locks import locked

NOTEBOOK = "07_train"
ATTEMPTS = 2  # of a run that fails, each time the sweep is started
SHIFT = 60  # CPU seconds after which a task begins no further run, so that others may take those that are left
LOG, STATE = "log.txt", "state.json"
KEPT = (f"{NOTEBOOK}.ipynb", "config.json", "results.json", "metrics.jsonl", LOG)  # in a store
WATCHED_EVERY = 1  # seconds between two looks whether the sweep is alive


class SweepError(SemiMedRefError, RuntimeError):
    """A sweep that cannot be started or gone on with; the message says why and what to do."""


@dataclass(frozen=True)
class Job:
    """What a process must know of its run; plain values, so that it travels to other machines.

    Attributes:
        folder: the run's, absolute.
        config: all settings of the run.
        note: what else the run is, for its ``results.json``.
        notebook: whether it is made by the training notebook, which is kept; else by
            :func:`semimedref_core.training.train` alone.
        threads: of the CPU.
        store: where papermill copies the run's texts to (``""``: nowhere).
        sweep: the process that wants the run, on this machine; when it ends, so does the run (``None``: never).
        gpus: value of CUDA_VISIBLE_DEVICES (``None``: as the task finds it). On this machine submitit hides all GPUs
            that the plan does not ask for.
        track: who is told the metrics too, as in :func:`semimedref_core.training.train` (``None``: nobody).
    """

    folder: str
    config: dict
    note: dict
    notebook: bool = True
    threads: int = 1
    store: str = ""
    sweep: int | None = None
    gpus: str | None = None
    track: str | None = None


@dataclass(frozen=True)
class State:
    """How far a run is.

    Attributes:
        state: ``new``, ``running`` (or interrupted, nobody can tell from the file), ``finished`` or ``failed``.
        attempts: how often it was begun.
        error: why the last attempt failed.
    """

    state: str = "new"
    attempts: int = 0
    error: str = ""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state == "finished"


def run_state(folder: str | Path, notebook: bool = False) -> State:
    """What a run's ``state.json`` says. A finished run is finished only while what it has made is there.

    Args:
        folder: the run's.
        notebook: whether the executed notebook is wanted too.

    Raises:
        SweepError: if the file is damaged.
    """
    path = Path(folder) / STATE
    if not path.is_file():
        return State()
    try:
        state = State(**read_json(path))
        if state.state not in ("new", "running", "finished", "failed") or not isinstance(state.attempts, int):
            raise FileError(f"{path}: state {state.state!r:.40}, attempts {state.attempts!r:.40}")
    except (FileError, TypeError) as error:
        said = error if isinstance(error, FileError) else f"{path}: holds other names"
        raise SweepError(f"{said}; it is damaged: delete it, and the same command goes on with the run") from None
    wanted = ("results.json", *([f"{NOTEBOOK}.ipynb"] if notebook else []))
    if state.finished and not all((path.parent / name).is_file() for name in wanted):
        return State("running", state.attempts)
    return state


class Task:
    """What submitit calls in a process of its own: makes runs, one after the other, and each once more if it fails.

    When a cluster takes the machine away, or the task's time runs out, it is queued again, and the run that is under
    way goes on from its last checkpoint.
    """

    def __call__(self, jobs: Sequence[Job]) -> list[State]:
        """Makes the runs; finished ones are left as they are. All output goes to each run's log.

        Returns:
            The states of the first runs, one at least; no run is begun later than after :data:`SHIFT` CPU seconds.
        """
        begun, states = _cpu_seconds(), []
        _prepare_process(jobs[0])
        for job in jobs:
            if states and _cpu_seconds() - begun > SHIFT:
                break
            states.append(_make(job))
        return states

    def checkpoint(self, jobs: Sequence[Job]):
        """What submitit queues instead of the interrupted task."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, jobs)


def _cpu_seconds() -> float:
    """Of this process and of the notebooks' kernels that it has ended."""
    return sum(os.times()[:4])


def _prepare_process(job: Job) -> None:
    """The environment and the life of the process that makes runs, before anything loads torch."""
    os.environ["OMP_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"] = str(job.threads), "false"
    if job.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpus
    if data := os.environ.get("SEMIMEDREF_DATA"):
        os.environ["SEMIMEDREF_DATA"] = os.path.abspath(data)  # a notebook works in its run's folder
    if job.sweep is not None:
        threading.Thread(target=_end_with, args=(job.sweep,), daemon=True).start()


def _end_with(sweep: int) -> None:
    """Ends this process and all that it has started, once the sweep has gone: submitit would let them go on unseen."""
    import psutil

    try:
        process = psutil.Process(sweep)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(WATCHED_EVERY)
    except psutil.NoSuchProcess:
        pass
    this = psutil.Process()
    for one in (*this.children(recursive=True), this):
        one.kill()


def _make(job: Job) -> State:
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "a", encoding="utf-8") as log, locked(folder / LOG, wait=True, file=log):
        # The log is standard output and error from here on, also of the notebook's kernel, which outlives this process
        # by a moment if it is killed: the lock lasts until the last one is gone.
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        for _ in range(ATTEMPTS):
            state = _attempt(job, folder)
            if state.finished:
                break
    return state


def _attempt(job: Job, folder: Path) -> State:
    state = run_state(folder, job.notebook)
    if state.finished:
        return state
    attempts = state.attempts + 1
    print(f"--- attempt {attempts}, {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)
    write_json(folder / STATE, asdict(State("running", attempts)))
    # What follows loads packages for seconds that a finished run need not wait for.
    error = ""
    try:
        if job.track or not job.notebook:
            from semimedref_core.training import train

            train(Config(**job.config), folder, resume=True, note=job.note, track=job.track)
        if job.notebook:  # which leaves a finished run as it is
            from semimedref_core.experiments.papermill_run import parameters_of, run_notebook

            run_notebook(NOTEBOOK, folder, notebook_parameters(job, parameters_of(NOTEBOOK)), timeout=None)
    except Exception as failure:  # whatever it is, it is told in one line, and the other runs go on
        error = " ".join(str(failure).split()) or type(failure).__name__
        print(error, flush=True)
    if job.store:
        from semimedref_core.experiments import papermill_run

        try:
            papermill_run.put(job.store, folder, KEPT)
        except papermill_run.NotebookError as failure:
            error = error or str(failure)
    state = State("failed" if error else "finished", attempts, error)
    write_json(folder / STATE, asdict(state))
    return state


def notebook_parameters(job: Job, known: Sequence[str]) -> dict:
    """A run's settings as parameters of the notebook: those it has by name, others in ``settings`` if no defaults."""
    defaults, settings = Config().to_dict(), dict(job.config)
    method = settings.pop("method")
    named = {name: settings.pop(name) for name in known if name in settings}
    others = {name: value for name, value in settings.items() if value != defaults[name]}
    return {"methods": [method], **named, "settings": others, "note": job.note, "output": ".", "resume": True}
