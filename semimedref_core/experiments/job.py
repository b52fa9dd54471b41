"""Runs of a sweep as a task of submitit. Each run has its folder and is made once.

Besides the files of :func:`semimedref_core.training.train`, a run's folder holds ``log.txt`` and ``state.json``. If the
plan asks for it, it also holds the executed training notebook with its figures. This module does not import torch, so a
finished run ends at once.
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
from semimedref_core.runtime.files import CONFIG, METRICS_LOG, RESULTS
from semimedref_core.runtime.locks import locked

NOTEBOOK = "07_train"
ATTEMPTS = 2  # attempts for a failing run at each start of the sweep
SHIFT = 60  # CPU seconds after which a task starts no further run, so that other tasks can take the rest
LOG, STATE = "log.txt", "state.json"
KEPT = (f"{NOTEBOOK}.ipynb", CONFIG, RESULTS, METRICS_LOG, LOG)  # the files that a store gets
WATCHED_EVERY = 1  # seconds between two checks that the sweep is alive


class SweepError(SemiMedRefError, RuntimeError):
    """A sweep cannot be started or continued. The message says why and what to do."""


@dataclass(frozen=True)
class Job:
    """All that a process needs for its run, as plain values, so that it can be sent to other machines.

    Attributes:
        folder: absolute path of the run's folder.
        config: all settings of the run.
        note: more entries for the run's ``results.json``.
        notebook: whether the training notebook makes the run and is kept; otherwise
            :func:`semimedref_core.training.train` makes it.
        threads: number of CPU threads.
        store: address to which papermill copies the run's text files (``""``: none).
        sweep: process id of the sweep on this machine; the run ends with this process (``None``: it does not).
        gpus: value of CUDA_VISIBLE_DEVICES (``None``: unchanged). On this machine a sweep gives each run one GPU, and
            submitit would hide all that the plan does not request.
        track: a tracker, as in :func:`semimedref_core.training.train` (``None``: none).
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
    """The progress of a run.

    Attributes:
        state: ``new``, ``running`` (or interrupted: the file does not distinguish them), ``finished`` or ``failed``.
        attempts: number of starts.
        error: why the last attempt failed.
    """

    state: str = "new"
    attempts: int = 0
    error: str = ""

    @property
    def finished(self) -> bool:
        """Whether the run is finished."""
        return self.state == "finished"


def run_state(folder: str | Path, notebook: bool = False) -> State:
    """Reads a run's ``state.json``. A run counts as finished only while its results exist.

    Args:
        folder: the run's folder.
        notebook: whether the executed notebook must exist too.

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
        raise SweepError(f"{said}; it is damaged: delete it, and the same command continues the run") from None
    wanted = (RESULTS, *([f"{NOTEBOOK}.ipynb"] if notebook else []))
    if state.finished and not all((path.parent / name).is_file() for name in wanted):
        return State("running", state.attempts)
    return state


class Task:
    """The task that submitit calls in a separate process. It makes runs one after the other, and repeats a failed run
    once.

    If a cluster stops the machine, or the task's time runs out, the task is queued again. The current run then
    continues from its last checkpoint.
    """

    def __call__(self, jobs: Sequence[Job]) -> list[State]:
        """Makes the runs; finished ones are not changed. All output goes to the log of the run.

        Returns:
            The states of the first runs, at least one. No run starts after :data:`SHIFT` CPU seconds.
        """
        begun, states = _cpu_seconds(), []
        _prepare_process(jobs[0])
        for job in jobs:
            if states and _cpu_seconds() - begun > SHIFT:
                break
            states.append(_make(job))
        return states

    def checkpoint(self, jobs: Sequence[Job]):
        """The task that submitit queues after an interruption."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, jobs)


def _cpu_seconds() -> float:
    """CPU seconds of this process and of its finished notebook kernels."""
    return sum(os.times()[:4])


def _prepare_process(job: Job) -> None:
    """Sets up the environment of the process before torch is loaded, and ends the process with the sweep."""
    os.environ["OMP_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"] = str(job.threads), "false"
    if job.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpus
    if data := os.environ.get("SEMIMEDREF_DATA"):
        os.environ["SEMIMEDREF_DATA"] = os.path.abspath(data)  # a notebook runs in the folder of its run
    if job.sweep is not None:
        threading.Thread(target=_end_with, args=(job.sweep,), daemon=True).start()


def _end_with(sweep: int) -> None:
    """Ends this process and its children when the sweep has ended. Submitit would let them run unnoticed."""
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
        # From here on, standard output and error go to the log, also those of the notebook's kernel. If this process is
        # killed, the kernel lives a moment longer. The lock lasts until both have ended.
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
    # These imports take seconds, and a finished run should not wait for them.
    error = ""
    try:
        if job.track or not job.notebook:
            from semimedref_core.training import train

            train(Config(**job.config), folder, resume=True, note=job.note, track=job.track)
        if job.notebook:  # the notebook does not change a finished run
            from semimedref_core.experiments.papermill_run import parameters_of, run_notebook

            run_notebook(NOTEBOOK, folder, notebook_parameters(job, parameters_of(NOTEBOOK)), timeout=None)
    except Exception as failure:  # any error becomes one line, and the other runs continue
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
    """A run's settings as parameters of the notebook: known names directly, others in ``settings`` if not the
    default."""
    defaults, settings = Config().to_dict(), dict(job.config)
    method = settings.pop("method")
    named = {name: settings.pop(name) for name in known if name in settings}
    others = {name: value for name, value in settings.items() if value != defaults[name]}
    return {"methods": [method], **named, "settings": others, "note": job.note, "output": ".", "resume": True}
