"""The training loop: steps, logging, validation, checkpoints, resuming."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate.tracking import GeneralTracker
from torch import Tensor, nn

from semimedref_core.config import Config, Device
from semimedref_core.data.batches import made_ahead
from semimedref_core.data.pairs import Pairs
from semimedref_core.errors import TrainingError
from semimedref_core.evaluation import image_counts
from semimedref_core.evaluation import scores as metrics
from semimedref_core.networks import Texts, each_network
from semimedref_core.preparing import Prepared, prepare
from semimedref_core.runtime.atomic import own_folder, write_json
from semimedref_core.runtime.checkpoints import save_pretrained, write_arrays
from semimedref_core.runtime.environment import environment
from semimedref_core.runtime.interrupts import Interrupted, interrupts_noted
from semimedref_core.runtime.progress import progress
from semimedref_core.runtime.run_state import (
    BEST,
    CHECKPOINT,
    RESULTS,
    VALID,
    MetricsLog,
    RunState,
    claim,
    drop_checkpoints,
    finished,
    held,
    require_free,
    require_there,
)
from semimedref_core.runtime.tracking import Tracker, require_tracker, tracked
from semimedref_core.step import schedule, training_step

LOG_EVERY = 10  # steps between log lines; a line costs one host sync


def train(
    config: Config,
    folder: str | Path,
    *,
    resume: bool = False,
    device: Device = "auto",
    note: dict | None = None,
    track: Tracker | GeneralTracker | None = None,
) -> dict:
    """Trains one network as the settings say and leaves everything about it in a folder.

    Written: ``config.json``; ``metrics.jsonl`` (a line every ten steps and at each validation);
    ``checkpoint.safetensors`` (to resume from, at each validation); at the end ``student/`` and ``teacher/`` (the
    networks; where ``patience`` is set, as they were at the best validation), ``valid.npz`` (for either network the
    pixels of each reported validation image that :func:`semimedref_core.evaluation.overlap` counts) and
    ``results.json``. Then the checkpoint, which only resuming needs, is deleted.

    Where ``patience`` is set, every other validation pair chooses the weights and the rest is reported: a score on the
    pairs that chose would be too good.

    Args:
        config: the run's settings.
        folder: where it goes; made if missing.
        resume: go on from the folder's checkpoint, or start where there is none; a finished run is left as it is. The
            numbers are those of a run that was never interrupted, bit for bit on the same CPU.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        note: what else the run is, for ``results.json``: a sweep gives its ``plan``, and the ``variant`` of the method.
        track: who is told each line of ``metrics.jsonl`` as well: ``tensorboard``, ``wandb``, ``trackio``, or any
            tracker of accelerate's.

    Returns:
        The contents of ``results.json``: metrics of student and teacher on the valid split, the cost, and what the run
        was made with.

    Raises:
        TrainingError: the loss or a weight is no longer finite, or the method learns from unlabelled pairs and none is
            left.
        DeviceError: the device is not there, or cannot do what the settings ask.
        FileError: no room or no rights to write; what was saved before is whole.
        Interrupted: Ctrl-C; the step is ended and a checkpoint saved, a second Ctrl-C ends at once without.
        TrackingError, MissingPackageError: the tracker is not known or not installed.
        EncoderError, DataError, CheckpointError: what is wrong with a pretrained encoder, the data, the folder or its
            checkpoint.

    >>> import tempfile
    >>> from semimedref_core import Config, train
    >>> config = Config(method="supervised", image_size=32, steps=2, batch_size=2)
    >>> results = train(config, tempfile.mkdtemp())
    >>> results["step"], results["labelled"], sorted(results["teacher"])
    (2, 40, ['dice_image', 'dice_micro', 'miou_image', 'miou_micro'])
    """
    folder = Path(folder)
    if resume and (results := finished(folder, config)) is not None:
        drop_checkpoints(folder)  # it may have been killed before it did
        return results
    require_tracker(track)
    environment()  # what runs is what is there now; a checkout may change meanwhile
    main = int(os.environ.get("RANK", 0)) == 0  # of several processes, one looks at the folder
    if main:
        require_free(folder, config, resume)  # before any data are read
    prepared = prepare(config, device)
    if main:
        own_folder(folder)
    with (
        held(folder) if prepared.accelerator.is_main_process else nullcontext(),
        tracked(prepared.accelerator, track, folder, config) as tell,
    ):
        return _run(prepared, config, folder, resume, note, tell)


def _run(
    prepared: Prepared, config: Config, folder: Path, resume: bool, note: dict | None, tell: Callable[[dict], None]
) -> dict:
    """The steps of :func:`train` in a folder that is this run's alone; ``tell`` is given each line of the log."""
    accelerator, pairs, state = prepared.accelerator, prepared.pairs, prepared.state
    state.data = pairs.digest()
    if accelerator.is_main_process:
        claim(folder, config, resume)
        for told in pairs.notes:
            print(f"note: {told}.")
    if resume and (folder / CHECKPOINT).exists():
        state.restore(folder / CHECKPOINT)
    batches = made_ahead(prepared.batches, range(state.step, config.steps))
    log = MetricsLog(folder / "metrics.jsonl", state.step) if accelerator.is_main_process else None

    choosing, reported = _validation_pairs(pairs.valid, config)

    def validation(on: Pairs) -> dict[str, np.ndarray]:
        return {
            name: image_counts(network, on, prepared.batches.texts, accelerator.device)
            for name, network in state.networks.items()
        }

    started, counts = time.perf_counter() - state.seconds, None

    def save(name: str) -> None:
        require_there(folder)
        state.seconds = time.perf_counter() - started
        state.save(folder / name)

    bar = progress(config.steps, f"{config.method}, seed {config.seed}", state.step, shown=accelerator.is_main_process)
    with closing(batches), bar, interrupts_noted(accelerator.num_processes == 1) as stop:
        while state.step < config.steps and not (config.patience and state.stale >= config.patience):
            now = schedule(config, state.step)
            state.since_log.append(training_step(state, next(batches), config, accelerator, prepared.learn))
            every = config.eval_every or config.steps
            validate = state.step == config.steps or state.step % every == 0
            if validate or state.step % LOG_EVERY == 0:
                means, state.since_log = _means(state.since_log, state.step), []
                bar.set_postfix(loss=f"{means['loss']:.3f}")
                line = {"step": state.step, "lr": now.lr, "w_u": now.w_u, **means}
                tell(line)
                if log:
                    log.write(line)
            bar.update()
            if validate:
                _check_weights(state.student, state.step)
                counts = validation(choosing)
                scores = {name: metrics(pixels) for name, pixels in counts.items()}
                best = state.judge(scores, config.choose_by, config.steps)
                tell({"step": state.step, "valid": scores})
                if log:
                    log.write({"step": state.step, "valid": scores})
                    if best and config.patience:
                        save(BEST)
                    save(CHECKPOINT)
            if stop() and state.step < config.steps:
                _check_weights(state.student, state.step)
                save(CHECKPOINT)
                raise Interrupted(
                    f"{folder}: stopped after step {state.step} of {config.steps}, and saved; the same command with "
                    "--resume goes on from there (in Python: resume=True)"
                )
    if config.patience:
        accelerator.wait_for_everyone()
        state.restore(folder / BEST)
    if config.patience or counts is None:
        counts = validation(reported)

    about = {
        "labelled": len(pairs.labelled),
        "unlabelled": len(pairs.unlabelled) if pairs.unlabelled else 0,
        "images": len(reported),
        "grid": prepared.batches.grid.numbers,
        "seconds": round(time.perf_counter() - started, 1),
        "device": str(accelerator.device),
    }
    if accelerator.is_main_process:
        require_there(folder)
        write_arrays(folder / VALID, counts)
    about = {**about, **(note or {}), "environment": environment()}
    scores = {name: metrics(pixels) for name, pixels in counts.items()}
    return _write_results(folder, config, state, prepared.texts, about, scores, accelerator.is_main_process)


def _validation_pairs(valid: Pairs, config: Config) -> tuple[Pairs, Pairs]:
    """The pairs that choose the weights, and those that are reported: all for both, but where ``patience`` is set.

    Raises:
        TrainingError: if there are too few for halves.
    """
    if not config.patience:
        return valid, valid
    if len(valid) < 2:
        raise TrainingError("patience needs two validation pairs, one to choose by and one to report; set it to 0")
    return valid.subset(range(0, len(valid), 2)), valid.subset(range(1, len(valid), 2))


def _write_results(
    folder: Path, config: Config, state: RunState, texts: Texts, about: dict, scores: dict, write: bool
) -> dict:
    """Puts the networks and ``results.json`` into the run's folder; returns the latter's contents."""
    networks = {name: each_network(net)[0] for name, net in state.networks.items()}
    results = {
        **{name: getattr(config, name) for name in ("dataset", "method", "label_ratio", "seed")},
        "variant": "",
        "split": "valid",
        "step": state.step,
        "parameters": sum(parameter.numel() for parameter in networks["student"].parameters()),
        **about,
        **scores,
    }
    if write:
        for name, network in networks.items():
            note = {"image_size": config.image_size, "axes": config.axes, "trained_on": config.dataset}
            note |= {"text_version": config.texts, "mask_values": config.mask_values}
            if config.dataset == "folder":
                note |= {"positions": config.positions, "text_sides": config.text_sides}
            note["valid"] = scores[name]
            save_pretrained(folder / name, network, texts, **note)
        write_json(folder / RESULTS, results)
        drop_checkpoints(folder)
    return results


def _means(losses: list[dict[str, Tensor]], step: int) -> dict[str, float]:
    """The mean of each loss term over the steps since the last log line, brought to the host at once.

    A term counts only the steps that had it: burn-in has no unlabelled ones.

    Raises:
        TrainingError: if a loss was not finite.
    """
    table = {name: torch.stack([line[name] for line in losses if name in line]) for name in losses[-1]}
    means = dict(zip(table, torch.stack([values.mean() for values in table.values()]).tolist(), strict=True))
    if not all(math.isfinite(value) for value in means.values()):
        bad = ", ".join(name for name, value in means.items() if not math.isfinite(value))
        raise TrainingError(
            f"{bad} is not finite between steps {step - len(losses) + 1} and {step}; nothing was saved since the last "
            "validation. Lower --lr, or look at the images with `semimedref doctor`"
        )
    return means


def _check_weights(network: nn.Module, step: int) -> None:
    """Keeps a network that a step has just spoilt from being saved: the loss tells of it only one step later.

    Raises:
        TrainingError: if a weight is not finite.
    """
    bad = [name for name, value in network.named_parameters() if not value.isfinite().all()]
    if bad:
        raise TrainingError(
            f"{len(bad)} weights (the first: {bad[0]}) are not finite after step {step}; nothing was saved since the "
            "last validation. Lower --lr, or look at the images with `semimedref doctor`"
        )
