"""One run of a sweep, as a task of submitit: the training notebook in the run's folder, once and for all.

What the folder holds beside the run itself (see :func:`semimedref_core.training.train`): the executed notebook and its
figures, ``log.txt`` and ``state.json``. This module and what it imports do without torch, so that a run that has
nothing left to do ends at once.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from semimedref_core.runtime.atomic import write_json

NOTEBOOK = "06_train"
ATTEMPTS = 2  # of a run that fails, each time the sweep is started
LOG, STATE = "log.txt", "state.json"
KEPT = (f"{NOTEBOOK}.ipynb", "config.json", "results.json", "metrics.jsonl", LOG)  # in a store


@dataclass(frozen=True)
class Job:
    """What a process must know of its run; plain values, so that it travels to other machines.

    Attributes:
        folder: the run's, absolute.
        parameters: of the notebook.
        threads: of the CPU.
        store: where papermill copies the run's texts to (``""``: nowhere).
    """

    folder: str
    parameters: dict
    threads: int = 1
    store: str = ""


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


def run_state(folder: str | Path) -> State:
    """What a run's ``state.json`` says. A finished run is finished only while its ``results.json`` is there."""
    folder = Path(folder)
    if not (folder / STATE).is_file():
        return State()
    state = State(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    if state.state == "finished" and not (folder / "results.json").is_file():
        return State("running", state.attempts)
    return state


class Task:
    """What submitit calls in a process of its own: makes a run, and once more if it fails.

    When a cluster takes the machine away, or the task's time runs out, it is queued again, and the run goes on from its
    last checkpoint.
    """

    def __call__(self, job: Job) -> State:
        """Makes the run; a finished one is left as it is. All output goes to the run's log."""
        folder = Path(job.folder)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["OMP_NUM_THREADS"], os.environ["TOKENIZERS_PARALLELISM"] = str(job.threads), "false"
        if data := os.environ.get("SEMIMEDREF_DATA"):
            os.environ["SEMIMEDREF_DATA"] = os.path.abspath(data)  # a notebook works in its run's folder
        with open(folder / LOG, "a", encoding="utf-8") as log:
            # The lock belongs to the open file. That is standard output and error from here on, also of the notebook's
            # kernel, which outlives this process by a moment if it is killed: the lock lasts until the last one is
            # gone.
            _wait_for(log)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        for _ in range(ATTEMPTS):
            state = _attempt(job, folder)
            if state.state == "finished":
                break
        return state

    def checkpoint(self, job: Job):
        """What submitit queues instead of the interrupted task."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


def _attempt(job: Job, folder: Path) -> State:
    state = run_state(folder)
    if state.state == "finished":
        return state
    attempts = state.attempts + 1
    print(f"--- attempt {attempts}, {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)
    write_json(folder / STATE, asdict(State("running", attempts)))
    from semimedref_core.experiments import papermill_run  # takes seconds that a finished run need not wait for

    error = ""
    try:
        papermill_run.run_notebook(NOTEBOOK, folder, job.parameters)
    except Exception as failure:  # whatever it is, it is told in one line, and the other runs go on
        error = " ".join(str(failure).split()) or type(failure).__name__
        print(error, flush=True)
    if job.store:
        try:
            papermill_run.put(job.store, folder, KEPT)
        except papermill_run.NotebookError as failure:
            error = error or str(failure)
    state = State("failed" if error else "finished", attempts, error)
    write_json(folder / STATE, asdict(state))
    return state


def _wait_for(log: TextIO) -> None:
    """Waits until no other process on this machine holds the file, and holds it until this process ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        from filelock import FileLock

        _wait_for.held = FileLock(f"{log.name}.lock")
        _wait_for.held.acquire()
    else:
        fcntl.flock(log, fcntl.LOCK_EX)
