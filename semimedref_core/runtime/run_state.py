"""The state of a run and how it is saved: networks, optimiser, and the progress of validation."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from semimedref_core.config import ChooseBy, Config
from semimedref_core.errors import FileError
from semimedref_core.runtime import checkpoints
from semimedref_core.runtime.atomic import atomic, not_written, read_json, read_metrics, write_json
from semimedref_core.runtime.checkpoints import CheckpointError
from semimedref_core.runtime.files import BEST, CHECKPOINT, CONFIG, RESULTS
from semimedref_core.runtime.locks import locked
from semimedref_core.teacher import Teacher

SAVED = {"step": int, "scores": dict, "best": float, "stale": int, "seconds": float, "data": str, "since_log": list}
"""The saved entries of a run's state, apart from its tensors, with their types."""
PATHS = ("image_encoder", "text_encoder", "positions")
"""Settings that may be the path of a folder or a file. A run may be resumed after the file has moved."""
_OF_OPTIMIZER = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class RunState:
    """The state of a run between two steps.

    Attributes:
        student, teacher, optimizer: networks and optimiser as trained so far.
        scaler: the gradient scaler for float16; None for other precisions.
        step: number of finished steps.
        scores: metrics of the last validation, by network; empty before the first.
        best: the best validation Dice so far; the argument ``choose_by`` of :meth:`judge` says which Dice.
        stale: number of validations since the best one.
        seconds: time until the last checkpoint, summed over the first run and all resumed ones.
        data: :meth:`.Training.digest` of the training pairs, and :meth:`.Texts.digest` of a pretrained tokenizer; a run
            resumes only with the same ones.
        since_log: the loss terms of each step since the last log line.
    """

    student: nn.Module
    teacher: Teacher
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None
    step: int = 0
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    best: float = -1.0
    stale: int = 0
    seconds: float = 0.0
    data: str = ""
    since_log: list[dict[str, Tensor]] = field(default_factory=list)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Student and teacher by name."""
        return {"student": self.student, "teacher": self.teacher.network}

    def judge(self, scores: dict[str, dict[str, float]], choose_by: ChooseBy = "teacher", steps: int = 0) -> bool:
        """Stores the scores of a validation and says whether they are the best so far.

        Args:
            scores: metrics by network.
            choose_by: ``teacher`` uses the teacher's Dice per image. ``student`` uses the student's micro Dice. As the
                release does, it ignores the first fifth of the steps and needs a gain of 0.001 (Ledger 17).
            steps: number of steps of the whole run.
        """
        self.scores = scores
        by_student = choose_by == "student"
        if by_student and self.step < steps / 5:
            return False
        dice = scores["student"]["dice_micro"] if by_student else scores["teacher"]["dice_image"]
        improved = dice > self.best + (1e-3 if by_student else 0)
        self.best = dice if improved else self.best
        self.stale = 0 if improved else self.stale + 1
        return improved

    def save(self, path: Path) -> None:
        """Writes the whole state to one file, atomically."""
        tensors = {
            f"{name}.{key}": value
            for name, network in self.networks.items()
            for key, value in network.state_dict().items()
        }
        for name, parameter in self.student.named_parameters():
            for entry, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{entry}.{name}"] = value
        about = {name: getattr(self, name) for name in SAVED}
        about["since_log"] = [{name: value.item() for name, value in line.items()} for line in self.since_log]
        scaler = self.scaler.state_dict() if self.scaler else {}
        checkpoints.save_tensors(path, tensors, state=about, scaler=scaler)

    def restore(self, path: Path) -> None:
        """Restores the whole state from a file of :meth:`save`.

        Raises:
            CheckpointError: if the file is missing, damaged, of another network, or of a run on other pairs.
        """
        networks = sum(map(checkpoints.bytes_of, self.networks.values()))
        tensors, metadata = checkpoints.load_tensors(path, 4 * networks)  # the moments are twice the student
        known = _checked(metadata, path)
        # Older checkpoints have no digest of the tokenizer at the end.
        if self.data and not f"{self.data} ".startswith(f"{known.get('data', self.data)} "):
            raise CheckpointError(
                f"{path}: the run there learnt from other pictures, masks, reports, positions or tokens; put "
                "those back, or train in another folder"
            )
        for name, network in self.networks.items():
            own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            checkpoints.load_weights(network, own, path)
        parameters = dict(self.student.named_parameters())
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, entry, name = key.split(".", 2)
                fits = name in parameters and entry in _OF_OPTIMIZER
                if not fits or value.shape != (torch.Size() if entry == "step" else parameters[name].shape):
                    raise CheckpointError(f"{path}: damaged checkpoint ({key} fits no weight); train in another folder")
                # AdamW keeps its step count on the CPU, unless it is fused; the moments follow their parameter.
                stays = entry == "step" and not self.optimizer.defaults["fused"]
                device = value.device if stays else parameters[name].device
                self.optimizer.state[parameters[name]][entry] = value.to(device)
        if self.scaler:
            self.scaler.load_state_dict(metadata["scaler"])
        for name, value in known.items():
            setattr(self, name, value)
        device = next(iter(parameters.values())).device  # where the next steps put theirs
        self.since_log = [
            {name: torch.tensor(value, device=device) for name, value in line.items()} for line in self.since_log
        ]


def _checked(metadata: dict, path: Path) -> dict:
    """The state of a run in a checkpoint: the known names, each with a value of its type.

    Raises:
        CheckpointError: if there is no state, or a value has another type.
    """
    state = metadata.get("state")
    if not isinstance(state, dict) or not isinstance(metadata.get("scaler", {}), dict):
        raise CheckpointError(f"{path}: damaged checkpoint (no state); delete it and train again")
    known = {name: value for name, value in state.items() if name in SAVED}
    for name, value in known.items():
        kinds = (int, float) if SAVED[name] is float else SAVED[name]
        if isinstance(value, bool) or not isinstance(value, kinds) or (name in ("step", "stale") and value < 0):
            raise CheckpointError(f"{path}: damaged checkpoint ({name} has a wrong value); delete it and train again")
    lines = known.get("since_log", [])
    numbers = [value for line in lines for value in (line.values() if isinstance(line, dict) else [None])]
    if not all(isinstance(value, float) for value in numbers):
        raise CheckpointError(f"{path}: damaged checkpoint (since_log holds no losses); delete it and train again")
    return known


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Locks a run's folder while the body runs, so that no second run starts in it. If the process is killed, the lock
    is released.

    Raises:
        CheckpointError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, wait=False))
        except BlockingIOError:
            raise CheckpointError(
                f"{folder}: another run uses this folder; wait for its end, or use another folder"
            ) from None
        for place in (folder, folder / "student", folder / "teacher"):
            for left in (*place.glob(".*.partial"), *place.glob(".tmp??????")):  # left by a run that was killed
                left.unlink(missing_ok=True)
        yield


def finished(folder: Path, config: Config, variant: str = "") -> dict | None:
    """The ``results.json`` of a finished run with these settings; None if the run is not finished.

    Args:
        folder: the folder of the run.
        config: its settings.
        variant: the name that the run should have; if empty, any.

    Raises:
        CheckpointError: if the file is damaged, or the run there has other settings or another variant.
    """
    if not (folder / RESULTS).is_file():
        return None
    require_same_settings(folder / CONFIG, config)
    results = read_results(folder)
    if variant and variant != (named := results.get("variant", "")):
        raise CheckpointError(
            f"{folder}: the run finished {f'as variant {named!r:.80}' if named else 'without a variant'}, not as "
            f"{variant!r}; edit variant in its {RESULTS}, or train it in another folder"
        )
    return results


def read_results(folder: Path) -> dict:
    """The ``results.json`` of a run.

    Raises:
        CheckpointError: if it is damaged.
    """
    try:
        return read_json(folder / RESULTS)
    except FileError as error:
        raise CheckpointError(f"{error}; it is damaged: delete it, and give the same command with --resume") from None


def drop_checkpoints(folder: Path) -> None:
    """Deletes the checkpoints of a finished run, which only resuming needs."""
    for name in (CHECKPOINT, BEST):
        (folder / name).unlink(missing_ok=True)


def require_free(folder: Path, config: Config, resume: bool) -> None:
    """Checks that a run with these settings may use a folder; writes nothing.

    Raises:
        CheckpointError: if the folder holds a run and ``resume`` is not set, if that run has other settings, or if a
            checkpoint has no ``config.json``.
    """
    if not (folder / CONFIG).exists():
        if (folder / CHECKPOINT).exists():
            raise CheckpointError(
                f"{folder}: holds a checkpoint without its {CONFIG}; put it back, or use another folder"
            )
        return
    if not resume:
        raise CheckpointError(f"{folder}: holds a run already; give --resume to go on with it, or another folder")
    require_same_settings(folder / CONFIG, config)


def claim(folder: Path, config: Config, resume: bool) -> None:
    """Claims a folder for this run: writes ``config.json``, or checks that it has the same settings when resuming.

    Raises:
        CheckpointError: as in :func:`require_free`.
    """
    require_free(folder, config, resume)
    if not (folder / CONFIG).exists():
        write_json(folder / CONFIG, config.to_dict())


def require_there(folder: Path) -> None:
    """Checks that a run's folder still exists, before a write would create it again.

    Raises:
        CheckpointError: if the folder is gone.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder}: is gone, although the run was going on; put it back and resume, or train again"
        )


def require_same_settings(path: Path, config: Config) -> None:
    """Checks that a run's ``config.json`` has these settings. The files that they name may have moved.

    Raises:
        CheckpointError: if the file is damaged or has other settings; names each one with both values.
    """
    settings = config.to_dict()
    try:
        found = read_json(path)
    except FileError as error:
        raise CheckpointError(f"{error}; it is damaged: delete the folder and train again") from None
    changed = [name for name in settings if without_place(name, found.get(name)) != without_place(name, settings[name])]
    if changed:
        was = ", ".join(f"{name} {found.get(name)!r:.80} is now {settings[name]!r}" for name in changed)
        raise CheckpointError(
            f"{path}: the run there has other settings ({was}); resume with the same settings, or use another folder"
        )


def without_place(name: str, value):
    """A setting without the places of files: the data folder, and the place of an encoder or a table of positions.

    The last part of such a path stays.
    """
    if name == "data":
        return ""
    return Path(value).name if name in PATHS and isinstance(value, str) else value


class MetricsLog:
    """``metrics.jsonl``: one JSON object on each line, in the order of steps.

    Args:
        path: the file.
        step: lines of later steps are dropped, and also a line that a kill cut short. The resumed run writes them
            again.
    """

    def __init__(self, path: Path, step: int = 0):
        self.path = path
        kept = [line for line in read_metrics(path) if line["step"] <= step] if path.exists() else []
        with atomic(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def write(self, line: dict) -> None:
        """Appends one line. Raises FileError if the disk is full or the file is gone."""
        try:
            with open(os.open(self.path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except FileNotFoundError:
            require_there(self.path.parent)
            raise FileError(
                f"{self.path}: is gone, although the run was going on; resume the run, or train again"
            ) from None
        except OSError as error:
            raise not_written(self.path, error) from error
