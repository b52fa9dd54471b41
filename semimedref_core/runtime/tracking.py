"""Trackers of a run, through accelerate: what ``metrics.jsonl`` holds, also sent to TensorBoard, W&B or Trackio."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from semimedref_core._lazy import require
from semimedref_core.config import Config
from semimedref_core.errors import SemiMedRefError

Tracker = Literal["tensorboard", "wandb", "trackio"]
TRACKERS = get_args(Tracker)
PROJECT = "semimedref"  # as W&B and Trackio show it


class TrackingError(SemiMedRefError, RuntimeError):
    """A tracker that is not known; the message names those that are."""


@contextmanager
def tracked(accelerator: Accelerator, track: Tracker | GeneralTracker | None, folder: Path, config: Config) -> Iterator:
    """Opens a run's tracker, tells it the settings, and closes it after the body, however that ends.

    TensorBoard's files go into ``folder/tensorboard``. W&B and Trackio keep the run under the folder's name, where
    their own settings say.

    Args:
        accelerator: of the run.
        track: one of :data:`TRACKERS`, or any tracker of accelerate's; ``None``: nothing is tracked.
        folder: of the run.
        config: its settings.

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
    """Looks whether a tracker can be used, before anything else happens.

    Raises:
        TrackingError: if it is not known.
        MissingPackageError: if its package is missing.
    """
    if not isinstance(track, str):
        return
    if track not in TRACKERS:
        raise TrackingError(f"unknown tracker {track!r}; choose one of {', '.join(TRACKERS)}")
    require(track, track, f"--track {track}")


def _flat(values: dict, above: str = "") -> dict[str, float]:
    """Nested values by names such as ``valid/teacher/dice_image``."""
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{above}{name}/") if isinstance(value, dict) else {f"{above}{name}": value}
    return flat
