"""One run of a sweep, in a process of its own: the training notebook in the run's folder, once and for all.

What the folder holds beside the run itself (see :func:`semimedref_core.training.train`): the executed notebook and its
figures, ``environment.json``, ``log.txt`` and ``state.json``. This module and what it imports do without torch, so that
a run that has nothing left to do ends at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import semimedref_core
from semimedref_core.records import write_json

NOTEBOOK = "06_train"
ATTEMPTS = 2  # of a run that fails, each time the sweep is started
STOPPED = (-signal.SIGINT, -signal.SIGTERM)  # exit statuses of a run that somebody wanted to stop
ENDINGS = {-signal.SIGKILL: "was killed; is there memory enough for so many runs at a time?"}
LOG, STATE, ENVIRONMENT = "log.txt", "state.json", "environment.json"
KEPT = (f"{NOTEBOOK}.ipynb", "config.json", "results.json", "metrics.jsonl", ENVIRONMENT, LOG)  # in a store
PACKAGES = "torch triton transformers accelerate numpy scipy pandas papermill jupytext ipykernel".split()


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


def state_of(folder: str | Path) -> State:
    """What a run's ``state.json`` says. A finished run is finished only while its ``results.json`` is there."""
    folder = Path(folder)
    if not (folder / STATE).is_file():
        return State()
    state = State(**json.loads((folder / STATE).read_text()))
    if state.state == "finished" and not (folder / "results.json").is_file():
        return State("running", state.attempts)
    return state


def execute(job: Job) -> State:
    """Makes a run, in a process of its own, and once more if it fails; a finished one is left as it is.

    One that somebody stopped is not tried again here, and only the returned state says so: its file stays ``running``.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "TOKENIZERS_PARALLELISM": "false"}
    if data := environment.get("SEMIMEDREF_DATA"):
        environment["SEMIMEDREF_DATA"] = os.path.abspath(data)  # a notebook works in its run's folder
    command = [sys.executable, "-m", __name__, json.dumps(asdict(job))]
    for _ in range(ATTEMPTS):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment)
        state = state_of(job.folder)
        if state.state == "finished":
            break
        if done.returncode in STOPPED:
            by = signal.Signals(-done.returncode).name
            return State("failed", state.attempts, f"was stopped from outside ({by}); the same command goes on with it")
        if done.returncode:
            reason = ENDINGS.get(done.returncode, f"ended with status {done.returncode}")
            state = State("failed", state.attempts, reason)
            write_json(Path(job.folder) / STATE, asdict(state))
    return state


class Requeued:
    """:func:`execute` as a task of submitit.

    When the cluster takes the machine away, or the task's time runs out, it is queued again, and the run goes on from
    its last checkpoint.
    """

    def __call__(self, job: Job) -> State:
        return execute(job)

    def checkpoint(self, job: Job):
        """What submitit queues instead of the interrupted task."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


def attempt(job: Job) -> None:
    """One attempt at a run. No other process makes the same run meanwhile, on this machine; a second one waits."""
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, "a") as log:
        # The lock belongs to the open file. That is standard output and error from here on, also of the notebook's
        # kernel, which outlives this process by a moment if it is killed: the lock lasts until the last one is gone.
        fcntl.flock(log, fcntl.LOCK_EX)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    state = state_of(folder)
    if state.state == "finished":
        return
    attempts = state.attempts + 1
    print(f"--- attempt {attempts}, {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)
    write_json(folder / STATE, asdict(State("running", attempts)))
    write_json(folder / ENVIRONMENT, environment(job.threads))
    from semimedref_core import runs  # papermill takes seconds that a finished run need not wait for

    error = ""
    try:
        runs.run_notebook(NOTEBOOK, folder, job.parameters)
    except Exception as failure:  # whatever it is, it is told in one line, and the other runs go on
        error = " ".join(str(failure).split()) or type(failure).__name__
        print(error, flush=True)
    if job.store:
        try:
            runs.put(job.store, folder, KEPT)
        except runs.NotebookError as failure:
            error = error or str(failure)
    write_json(folder / STATE, asdict(State("failed" if error else "finished", attempts, error)))


def environment(threads: int) -> dict:
    """What a result was made with: versions, the commit of a checkout, machine, CPU cores and threads."""
    here = Path(semimedref_core.__file__).parent
    about = {"semimedref": semimedref_core.__version__}
    if _git(here, "ls-files", "__init__.py"):  # else it is not this project's checkout
        about["commit"] = _git(here, "rev-parse", "HEAD")
        about["changed_since"] = bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    machine = {"platform": platform.platform(), "machine": platform.machine(), "cpu_cores": os.cpu_count()}
    return {**about, "python": platform.python_version(), **machine, "threads": threads, "packages": found}


def _git(folder: Path, *arguments: str) -> str:
    """What git prints in a folder, or nothing where there is no git or no checkout."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    attempt(Job(**json.loads(sys.argv[1])))
