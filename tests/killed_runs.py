"""A program for the tests of resuming: trains small runs, kills each where it is told to, and resumes it.

``python killed_runs.py PLAN FOLDER``: PLAN is JSON, ``{run: {"settings": {...}, "kills": [[place, call], ...]}}``. Each
attempt is a forked child, so that torch and what a first training imports are imported once. The i-th attempt gets
SIGKILL at the given call of the i-th place; one more attempt runs to the end. Printed as JSON: for each run, what every
kill left behind.

``python killed_runs.py PLAN FOLDER COUNT SEED``: the first run of the plan, again and again until COUNT attempts were
killed, each at a random moment. The folders are ``random0`` and so on.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

from semimedref_core import training
from semimedref_core.config import Config
from semimedref_core.data.phantom import COUNTS
from semimedref_core.runtime import checkpoints
from semimedref_core.runtime.checkpoints import load_tensors
from semimedref_core.runtime.files import CHECKPOINT
from semimedref_core.runtime.run_state import MetricsLog, RunState
from semimedref_core.teacher import Teacher

BEST_STEP = 4  # where runs with patience find their best teacher: twelve steps of training are no judge of that


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def instead(owner, name: str, call: int, last_act=die, when=lambda *args: True) -> None:
    """Puts ``last_act``, with the same arguments, in the place of one call of a function; counts calls ``when``."""
    function, calls = getattr(owner, name), 0

    def counted(*args, **kwargs):
        nonlocal calls
        if when(*args):
            calls += 1
            if calls == call:
                last_act(*args)
                die()
        return function(*args, **kwargs)

    setattr(owner, name, counted)


def half_tensors(tensors, path, metadata) -> None:
    save_file(tensors, path, metadata)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def half_line(log, line) -> None:
    with open(log.path, "a") as file:
        file.write(json.dumps(line)[:25])


def writes(name: str):
    return lambda tensors, path, *_: path.name.startswith(f".{name}.") and path.suffix == ".partial"


def replaces(name: str):
    return lambda _, path: Path(path).name == name


save_file = checkpoints.save_file
PLACES = {
    "optimiser step": lambda call: instead(torch.optim.AdamW, "step", call),
    "teacher update": lambda call: instead(Teacher, "update", call),
    "validation": lambda call: instead(training, "image_counts", call),
    "verdict on a validation": lambda call: instead(RunState, "judge", call),
    "log line": lambda call: instead(MetricsLog, "write", call),
    "half a log line": lambda call: instead(MetricsLog, "write", call, half_line),
    "saving": lambda call: instead(RunState, "save", call),
    "half a checkpoint": lambda call: instead(checkpoints, "save_file", call, half_tensors, writes(CHECKPOINT)),
    "checkpoint into place": lambda call: instead(os, "replace", call, die, replaces(CHECKPOINT)),
    "half the best": lambda call: instead(checkpoints, "save_file", call, half_tensors, writes("best.safetensors")),
    "half a network": lambda call: instead(checkpoints, "save_file", call, half_tensors, writes("model.safetensors")),
    "settings into place": lambda call: instead(os, "replace", call, die, replaces("config.json")),
    "results into place": lambda call: instead(os, "replace", call, die, replaces("results.json")),
}


def attempt(settings: dict, folder: Path, resume: bool, kill: list | None = None, after: float | None = None) -> int:
    """Trains in a forked child; returns its exit status, negative for a signal.

    Args:
        kill: place and call at which the child kills itself.
        after: seconds after which it is killed from outside.
    """
    child = os.fork()
    if child:
        if after is not None:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        if kill:
            place, call = kill
            PLACES[place](call)
        training.train(Config(**settings), folder, resume=resume, device="cpu")
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def left_in(folder: Path) -> dict:
    """Also keeps the checkpoint, which a finished run drops, beside the run's folder."""
    path = folder / CHECKPOINT
    if path.exists():
        shutil.copy(path, folder.with_suffix(".safetensors"))
    return {
        "files": sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()),
        "step": load_tensors(path)[1]["state"]["step"] if path.exists() else None,
    }


def killed_at_random(settings: dict, folder: Path, count: int, seed: int) -> dict:
    """Runs, each killed at random moments and resumed until it ends: what every kill left behind, by run."""
    chance, report, started = random.Random(seed), {}, time.monotonic()
    attempt(settings, folder / "timed", False)
    whole = time.monotonic() - started
    while sum(map(len, report.values())) < count:
        run = f"random{len(report)}"
        report[run] = []
        while (status := attempt(settings, folder / run, bool(report[run]), after=chance.uniform(0.0, whole))) < 0:
            report[run].append(left_in(folder / run))
        if status:
            sys.exit(f"{run}: attempt {len(report[run])} ended with status {status}")
    return report


def judge_by_step(state: RunState, scores: dict, *how) -> bool:
    scores["teacher"]["dice_image"] = 1 - abs(state.step - BEST_STEP) / 100
    return judge(state, scores, *how)


judge = RunState.judge

if __name__ == "__main__":
    out, sys.stdout = sys.stdout, sys.stderr  # only the report goes to standard output; training prints notes
    plan, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    torch.set_num_threads(1)  # also: a child of a process with busy threads hangs
    COUNTS.update(train=24, valid=6)
    training.train(Config(image_size=32, steps=1, batch_size=2, label_ratio=0.25), folder / "warm-up", device="cpu")
    if sys.argv[3:]:
        count, seed = map(int, sys.argv[3:])
        print(json.dumps(killed_at_random(next(iter(plan.values()))["settings"], folder, count, seed)), file=out)
        sys.exit()
    report = {}
    for run, about in plan.items():
        RunState.judge = judge_by_step if about["settings"].get("patience") else judge
        report[run] = []
        for i, kill in enumerate([*about["kills"], None]):
            status = attempt(about["settings"], folder / run, i > 0, kill)
            if status != (-signal.SIGKILL if kill else 0):
                sys.exit(f"{run}: attempt {i} ended with status {status} and was to be killed at {kill}")
            if kill:
                report[run].append(left_in(folder / run))
    print(json.dumps(report), file=out)
