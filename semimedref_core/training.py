"""The training loop: steps, logging, validation, checkpoints, resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate.tracking import GeneralTracker
from accelerate.utils import broadcast_object_list
from torch import Tensor

from semimedref_core._progress import progress
from semimedref_core.config import Config, Device
from semimedref_core.data.batches import made_ahead
from semimedref_core.data.own.zones import recorded
from semimedref_core.data.pairs import Pairs
from semimedref_core.errors import TrainingError
from semimedref_core.evaluation import image_counts
from semimedref_core.evaluation import scores as metrics
from semimedref_core.networks import Texts, each_network
from semimedref_core.positions import Positions
from semimedref_core.preparing import Prepared, prepare
from semimedref_core.runtime.atomic import own_folder, write_json
from semimedref_core.runtime.checkpoints import save_pretrained, write_arrays
from semimedref_core.runtime.environment import environment, first_process
from semimedref_core.runtime.files import BEST, CHECKPOINT, METRICS_LOG, RESULTS, VALID
from semimedref_core.runtime.interrupts import Interrupted, interrupts_noted
from semimedref_core.runtime.run_state import (
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
    """Trains one network with these settings and writes all results to a folder.

    During the run it writes ``config.json``, ``metrics.jsonl`` (a line every ten steps and at each validation) and
    ``checkpoint.safetensors`` (at each validation, for resuming). At the end it writes ``student/`` and ``teacher/``
    (the networks; with ``patience``, those of the best validation), ``valid.npz`` (for both networks, the pixel counts
    of :func:`semimedref_core.evaluation.overlap` for each reported validation image) and ``results.json``. Then it
    deletes the checkpoint.

    With ``patience``, every other validation pair chooses the weights, and scores are reported on the rest. A score on
    the pairs that chose would be too high.

    Args:
        config: the run's settings.
        folder: the folder of the run; created if missing.
        resume: continue from the folder's checkpoint, or start if there is none. A finished run is not changed. On the
            same CPU the numbers equal those of an uninterrupted run, bit for bit.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        note: more entries for ``results.json``: a sweep adds its ``plan`` and the ``variant`` of the method.
        track: a tracker that also gets each line of ``metrics.jsonl``: ``tensorboard``, ``wandb``, ``trackio``, or any
            tracker of accelerate.

    Returns:
        The contents of ``results.json``: metrics of student and teacher on the valid split, the cost, digests of the
        pairs (``valid_pairs``, ``labelled_pairs``), and the environment of the run.

    Raises:
        TrainingError: the loss or a weight is not finite, or the method needs unlabelled pairs and there are none.
        DeviceError: the device is missing or does not support the settings.
        FileError: the disk is full or not writable; files that were saved before are intact.
        Interrupted: the user pressed Ctrl-C; the step was completed and a checkpoint saved. A second Ctrl-C ends at
            once, without a checkpoint.
        TrackingError, MissingPackageError: the tracker is unknown or not installed.
        EncoderError, DataError, CheckpointError: a pretrained encoder, the data, or the folder with its checkpoint
            cannot be used.

    >>> import tempfile
    >>> from semimedref_core import Config, train
    >>> config = Config(method="supervised", image_size=32, steps=2, batch_size=2)
    >>> results = train(config, tempfile.mkdtemp())
    >>> results["step"], results["labelled"], sorted(results["teacher"])
    (2, 40, ['dice_image', 'dice_micro', 'miou_image', 'miou_micro'])
    """
    folder = Path(folder)
    variant = (note or {}).get("variant", "")
    if resume and (results := _already_finished(folder, config, variant)) is not None:
        return results
    require_tracker(track)
    environment()  # recorded now, because the checkout may change during the run
    if first_process():  # only one of several processes checks the folder
        require_free(folder, config, resume)  # before it reads any data
    prepared = prepare(config, device)
    if first_process():
        own_folder(folder)
    with held(folder) if prepared.accelerator.is_main_process else nullcontext():
        prepared.accelerator.wait_for_everyone()  # from here on nobody else finishes the run, so all see the same
        if resume and (results := _already_finished(folder, config, variant)) is not None:  # meanwhile
            return results
        with tracked(prepared.accelerator, track, folder, config) as tell:
            return _run(prepared, config, folder, resume, note, tell)


def _already_finished(folder: Path, config: Config, variant: str) -> dict | None:
    """:func:`.run_state.finished`, without the checkpoints that a run killed at its very end has left."""
    results = finished(folder, config, variant)
    if results is not None:
        drop_checkpoints(folder)
    return results


def _run(
    prepared: Prepared, config: Config, folder: Path, resume: bool, note: dict | None, tell: Callable[[dict], None]
) -> dict:
    """The steps of :func:`train`, in a folder that only this run uses; ``tell`` gets each line of the log."""
    accelerator, pairs, state = prepared.accelerator, prepared.pairs, prepared.state
    state.data = pairs.digest()
    if config.text_encoder:  # the setting names a folder, and other files may lie there when the run is resumed
        state.data += f" {prepared.texts.digest()}"
    if accelerator.is_main_process:
        claim(folder, config, resume)
        for told in pairs.notes:
            print(f"note: {told}.")
    if resume and (folder / CHECKPOINT).exists():
        state.restore(folder / CHECKPOINT)
    batches = made_ahead(prepared.batches, range(state.step, config.steps))
    log = MetricsLog(folder / METRICS_LOG, state.step) if accelerator.is_main_process else None

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
                _check_weights(state)
                counts = validation(choosing)
                scores = {name: metrics(pixels) for name, pixels in counts.items()}
                best = state.judge(scores, config.choose_by, config.steps)
                if accelerator.num_processes > 1:  # one of them decides when to stop, or the others would wait for it
                    state.best, state.stale = broadcast_object_list([state.best, state.stale])
                tell({"step": state.step, "valid": scores})
                if log:
                    log.write({"step": state.step, "valid": scores})
                    if best and config.patience:
                        save(BEST)
                    save(CHECKPOINT)
            if stop() and state.step < config.steps:
                _check_weights(state)
                save(CHECKPOINT)
                raise Interrupted(
                    f"{folder}: stopped after step {state.step} of {config.steps}, and saved; give the same command "
                    "with --resume to go on (in Python: resume=True)"
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
        "valid_pairs": _identity(reported, config),
        "labelled_pairs": _identity(pairs.labelled, config),
        "grid": prepared.batches.grid.numbers,
        "seconds": round(time.perf_counter() - started, 1),
        "device": str(accelerator.device),
    }
    if accelerator.is_main_process:
        require_there(folder)
        write_arrays(folder / VALID, counts)
    about = {**about, **(note or {}), "environment": environment()}
    scores = {name: metrics(pixels) for name, pixels in counts.items()}
    layout = pairs.labelled.reports[0].layout
    return _write_results(folder, config, state, prepared.texts, layout, about, scores, accelerator.is_main_process)


def _validation_pairs(valid: Pairs, config: Config) -> tuple[Pairs, Pairs]:
    """The pairs that choose the weights, and the pairs that are reported. Without ``patience`` both are all pairs.

    Raises:
        TrainingError: if there are too few pairs for two halves.
    """
    if not config.patience:
        return valid, valid
    if len(valid) < 2:
        raise TrainingError("patience needs two validation pairs, one to choose and one to report; set it to 0")
    return valid.subset(range(0, len(valid), 2)), valid.subset(range(1, len(valid), 2))


def _identity(pairs: Pairs, config: Config) -> str:
    """:meth:`.pairs.Pairs.identity` of the pairs as they are in their files, so that all methods have the same."""
    return (pairs.transposed() if config.axes == "transposed" else pairs).identity()


def _write_results(
    folder: Path,
    config: Config,
    state: RunState,
    texts: Texts,
    layout: Positions,
    about: dict,
    scores: dict,
    write: bool,
) -> dict:
    """Writes the networks and ``results.json`` to the run's folder; returns the contents of ``results.json``."""
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
                note |= recorded(config.positions, config.text_sides, layout)
            note["valid"] = scores[name]
            save_pretrained(folder / name, network, texts, **note)
        write_json(folder / RESULTS, results)
        drop_checkpoints(folder)
    return results


def _means(losses: list[dict[str, Tensor]], step: int) -> dict[str, float]:
    """The mean of each loss term over the steps since the last log line, copied to the host in one transfer.

    The mean of a term is over the steps that have it; steps of burn-in have no unlabelled terms.

    Raises:
        TrainingError: if a loss was not finite.
    """
    table = {name: torch.stack([line[name] for line in losses if name in line]) for name in losses[-1]}
    means = dict(zip(table, torch.stack([values.mean() for values in table.values()]).tolist(), strict=True))
    if not all(math.isfinite(value) for value in means.values()):
        bad = ", ".join(name for name, value in means.items() if not math.isfinite(value))
        raise TrainingError(
            f"{bad} is not finite between steps {step - len(losses) + 1} and {step}; nothing was saved since the last "
            "validation. Lower --lr, or check the images with `semimedref doctor`"
        )
    return means


def _check_weights(state: RunState) -> None:
    """Checks student and teacher before they are validated or saved: the loss shows bad weights only one step later,
    and bad running statistics of batch norm never, because training does not use them.

    Raises:
        TrainingError: if a number of them is not finite.
    """
    bad = [
        f"{name}.{key}"
        for name, network in state.networks.items()
        for key, value in network.state_dict().items()
        if not value.isfinite().all()
    ]
    if bad:
        raise TrainingError(
            f"{len(bad)} tensors (the first: {bad[0]}) are not finite after step {state.step}; nothing was saved since "
            "the last validation. Lower --lr, or check the images with `semimedref doctor`"
        )
