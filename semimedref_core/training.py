"""The training loop: steps, logging, validation, checkpoints, resuming."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from torch import Tensor, nn
from torch.profiler import record_function

from semimedref_core.batch import Batch
from semimedref_core.config import Config, Device
from semimedref_core.data.batches import Batches, made_ahead
from semimedref_core.data.chance import torch_seed
from semimedref_core.data.datasets import Training
from semimedref_core.data.pairs import Pairs
from semimedref_core.errors import SemiMedRefError
from semimedref_core.evaluation import image_counts
from semimedref_core.evaluation import scores as metrics
from semimedref_core.methods import method_named
from semimedref_core.networks import Texts, build_texts, each_network
from semimedref_core.networks.text_cache import read_once
from semimedref_core.preparing import run_pairs, run_texts, zone_grid
from semimedref_core.runtime import graphed
from semimedref_core.runtime.atomic import own_folder, write_json
from semimedref_core.runtime.checkpoints import save_pretrained, write_arrays
from semimedref_core.runtime.devices import adamw, average_gradients, grad_scaler, open_device, set_forward
from semimedref_core.runtime.environment import environment
from semimedref_core.runtime.graphed import Learn
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
from semimedref_core.teacher import ema_decay, ramp

LOG_EVERY = 10  # steps between log lines; a line costs one host sync


class TrainingError(SemiMedRefError, RuntimeError):
    """Training cannot go on; the message says at which step, why and what to change."""


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


@dataclass(frozen=True)
class Prepared:
    """All that a run's steps need, before the first of them; ``texts`` give token ids, whatever the batches read, and
    ``learn`` is what a step does on the device."""

    accelerator: Accelerator
    pairs: Training
    state: RunState
    texts: Texts
    batches: Batches
    learn: Learn


def prepare(config: Config, device: Device = "auto", pairs: Training | None = None) -> Prepared:
    """Loads the pairs and builds networks, optimiser and batches, on the device. Errors: see :func:`train`.

    Args:
        config, device: as in :func:`train`.
        pairs: to take in place of those that the settings name.
    """
    accelerator = open_device(device, config.precision, config.compile)
    place = accelerator.device
    method = method_named(config.method)
    if config.dataset == "folder":  # its texts are the vocabulary, and its pictures may have colours
        pairs = pairs or run_pairs(config)
        texts, arguments = run_texts(config, pairs)
    else:
        texts, arguments = build_texts(config.report_text, config.text_encoder, config.text_length), {}
    arguments |= {"ispg": True} if config.ispg == "on" else {}
    torch.manual_seed(config.seed)
    # Before any file of the known datasets is read.
    student = method.build(config.network, config.image_encoder, config.text_encoder, **arguments)
    pairs = pairs or run_pairs(config)
    if method.unlabelled and pairs.unlabelled is None:
        raise TrainingError(
            f"label ratio {config.label_ratio:g} leaves no unlabelled pair, and {config.method} learns from them; "
            "choose a smaller --label-ratio, or --method supervised"
        )
    if config.axes == "transposed":
        pairs = pairs.transposed()
    grid = zone_grid(config, pairs)
    student.to(place, memory_format=torch.channels_last)
    optimizer = adamw(student, place, config.lr, config.weight_decay, config.encoder_lr)
    state = RunState(student, method.teacher(student), optimizer, grad_scaler(place, config.precision))
    for network in state.networks.values():
        set_forward(network, place, config.precision, config.compile)
    processes = accelerator.process_index, accelerator.num_processes
    known = read_once(student, texts)
    batches = Batches(pairs.labelled, pairs.unlabelled, config, known, grid, place, *processes, method.plan)
    learn = _as_graphs(partial(learned, state, config, accelerator), state, config, accelerator)
    return Prepared(accelerator, pairs, state, texts, batches, learn)


def _as_graphs(learn: Learn, state: RunState, config: Config, accelerator: Accelerator) -> Learn:
    """The step as CUDA graphs, where the settings ask for it and it can be; else as it is, and a line says why."""
    if config.compile != "graph":
        return learn
    if reason := graphed.why_not(accelerator, state.scaler):
        if accelerator.is_main_process:
            print(f"note: compile 'graph': steps run without a graph ({reason}).")
        return learn
    return graphed.on_gpu(learn)


def training_step(
    state: RunState, batch: Batch, config: Config, accelerator: Accelerator, learn: Learn | None = None
) -> dict[str, Tensor]:
    """One step: what is drawn and scheduled for it on the host, and :func:`learned`.

    Args:
        state: changed in place; its ``step`` goes up by one.
        batch: of this step.
        accelerator: of this process.
        learn: in place of :func:`learned`: :attr:`Prepared.learn`.

    Returns:
        The loss terms, scalars without a graph.
    """
    now = schedule(config, state.step)
    # What is drawn on the device (noise, dropout) depends on seed, step and process alone, so a resumed run draws the
    # same and no two processes do.
    torch.manual_seed(torch_seed("device", config.seed, state.step, accelerator.process_index))
    losses = learn(batch, now) if learn else learned(state, config, accelerator, batch, now)
    state.step += 1
    return losses


def learned(
    state: RunState, config: Config, accelerator: Accelerator, batch: Batch, now: Schedule
) -> dict[str, Tensor]:
    """The method's loss, its gradient, the optimiser, and the teacher moved after the student.

    All that a step does on the device; but for float16's scaler it asks the device for nothing, so a graph can record
    it. Gradients are averaged over all processes.

    Args:
        state: networks and optimiser are changed in place. The learning rate is multiplied by the ``scale`` of each
            group of weights in the optimiser, if the group has one.
        config, accelerator: of the run.
        batch: of this step.
        now: of this step, numbers or scalars on the device.

    Returns:
        The loss terms, scalars without a graph.
    """
    capturing = accelerator.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    for group in state.optimizer.param_groups:
        group["lr"] = now.lr * group.get("scale", 1.0)
        group["capturable"] = capturing  # if set at other times, AdamW warns that it is slow
    losses = method_named(config.method).step(state.student, state.teacher, batch, now.w_u, config)
    state.optimizer.zero_grad()
    with record_function("backward"):
        accelerator.backward(state.scaler.scale(losses["loss"]) if state.scaler else losses["loss"])
        average_gradients(accelerator, state.student)
    with record_function("optimiser"):
        if state.scaler:
            state.scaler.step(state.optimizer)
            state.scaler.update()
        else:
            state.optimizer.step()
    state.teacher.update(state.student, now.decay)
    return {name: value.detach() for name, value in losses.items()}


@dataclass(frozen=True)
class Schedule:
    """What changes from step to step: learning rate, weight of the unsupervised loss, decay of the teacher.

    Numbers; for a step that a graph records, scalars on the device, save those that are 0.
    """

    lr: float | Tensor
    w_u: float | Tensor
    decay: float | Tensor


def schedule(config: Config, step: int) -> Schedule:
    """The settings of one step: ``w_u`` by Eq. 15, the decay by Eq. 16, both over the same ramp."""
    burn_in, length = config.burn_in * config.steps, config.ramp * config.steps
    return Schedule(
        learning_rate(config, step),
        config.unsupervised_weight * ramp(step, burn_in, length),
        ema_decay(step, burn_in, length, config.ema_decay, config.ema_decay_last),
    )


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up over a tenth of the steps, then half a cosine down to 0."""
    warm_up = max(1, config.steps // 10)
    if step < warm_up:
        return config.lr * (step + 1) / warm_up
    return config.lr * (1 + math.cos(math.pi * (step - warm_up) / (config.steps - warm_up))) / 2


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
