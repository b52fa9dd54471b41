"""Trackers of a run, through accelerate: TensorBoard, W&B or Trackio get the lines of ``metrics.jsonl`` too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from semimedref_core._lazy import require
from semimedref_core.config import Config, Tracker
from semimedref_core.errors import SemiMedRefError

TRACKERS = get_args(Tracker)
PROJECT = "semimedref"  # the name in W&B and Trackio


class TrackingError(SemiMedRefError, RuntimeError):
    """The tracker is unknown. The message lists the known ones."""


@contextmanager
def tracked(accelerator: Accelerator, track: Tracker | GeneralTracker | None, folder: Path, config: Config) -> Iterator:
    """Opens a run's tracker, sends it the settings, and closes it after the body, even after an error.

    TensorBoard's files go into ``folder/tensorboard``. W&B and Trackio use the folder's name as the name of the run;
    their own settings say where they store it.

    Args:
        accelerator: the accelerator of the run.
        track: one of :data:`TRACKERS`, or any tracker of accelerate; ``None``: no tracking.
        folder: the folder of the run.
        config: the settings of the run.

    Yields:
        A function that takes a line of ``metrics.jsonl``.
    """
    if track is None:
        yield lambda line: None
        return
    own = Accelerator(cpu=accelerator.device.type == "cpu", mixed_precision="no", log_with=track, project_dir=folder)
    about = {"wandb": {"name": folder.name, "dir": str(folder)}, "trackio": {"name": folder.name}}
    own.init_trackers("tensorboard" if track == "tensorboard" else PROJECT, config.to_dict(), about)
    try:
        yield lambda line: own.log(_flat({name: line[name] for name in line if name != "step"}), step=line["step"])
    finally:
        for tracker in own.trackers:
            tracker.finish()


def require_tracker(track: Tracker | GeneralTracker | None) -> None:
    """Checks that a tracker can be used, before anything else happens.

    Raises:
        TrackingError: if the tracker is unknown.
        MissingPackageError: if its package is missing.
    """
    if not isinstance(track, str):
        return
    if track not in TRACKERS:
        raise TrackingError(f"unknown tracker {track!r}; choose one of {', '.join(TRACKERS)}")
    require(track, track, f"--track {track}")


def _flat(values: dict, above: str = "") -> dict[str, float]:
    """Flattens nested values, with names such as ``valid/teacher/dice_image``."""
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{above}{name}/") if isinstance(value, dict) else {f"{above}{name}": value}
    return flat
