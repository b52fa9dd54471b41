"""One step of training: what changes from step to step, the method's loss, the optimiser, and the teacher."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.profiler import record_function

from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.data.chance import torch_seed
from semimedref_core.methods import method_named
from semimedref_core.runtime.devices import average_over_processes
from semimedref_core.runtime.graphed import Learn
from semimedref_core.runtime.run_state import RunState
from semimedref_core.teacher import ema_decay, ramp


def training_step(
    state: RunState, batch: Batch, config: Config, accelerator: Accelerator, learn: Learn | None = None
) -> dict[str, Tensor]:
    """One step: the host computes the schedule and seeds the random numbers, then :func:`learned` does the rest.

    Args:
        state: changed in place; its ``step`` goes up by one.
        batch: the pairs of this step.
        config: the run's settings.
        accelerator: of this process.
        learn: replaces :func:`learned`; see :class:`semimedref_core.preparing.Prepared`.

    Returns:
        The loss terms: scalars without a gradient.
    """
    now = schedule(config, state.step)
    # Random numbers on the device (noise, dropout) depend only on seed, step and process. So a resumed run draws the
    # same numbers, and each process draws its own.
    torch.manual_seed(torch_seed("device", config.seed, state.step, accelerator.process_index))
    losses = learn(batch, now) if learn else learned(state, config, accelerator, batch, now)
    state.step += 1
    return losses


def learned(
    state: RunState, config: Config, accelerator: Accelerator, batch: Batch, now: Schedule
) -> dict[str, Tensor]:
    """The part of a step that runs on the device: the loss, its gradient, the optimiser, then the teacher's update.

    Gradients and the statistics of batch norm are averaged over all processes. Only the gradient scaler of float16
    reads a value from the device. Without it, a CUDA graph can record the step.

    Args:
        state: its networks and optimiser are changed in place. If a group of weights in the optimiser has a ``scale``,
            the learning rate is multiplied by it.
        config, accelerator: of the run.
        batch: the pairs of this step.
        now: the schedule of this step: numbers, or scalars on the device.

    Returns:
        The loss terms: scalars without a gradient.
    """
    capturing = accelerator.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    for group in state.optimizer.param_groups:
        group["lr"] = now.lr * group.get("scale", 1.0)
        group["capturable"] = capturing  # if set at other times, AdamW warns that it is slow
    losses = method_named(config.method).step(state.student, state.teacher, batch, now.w_u, config)
    state.optimizer.zero_grad()
    with record_function("backward"):
        accelerator.backward(state.scaler.scale(losses["loss"]) if state.scaler else losses["loss"])
        average_over_processes(accelerator, state.student)
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

    The values are numbers. If a CUDA graph records the step, those that are not 0 are scalars on the device.
    """

    lr: float | Tensor
    w_u: float | Tensor
    decay: float | Tensor


def schedule(config: Config, step: int) -> Schedule:
    """The schedule of one step: ``w_u`` by Eq. 15 and the decay by Eq. 16. Both use the same ramp."""
    burn_in, length = config.burn_in * config.steps, config.ramp * config.steps
    return Schedule(
        learning_rate(config, step),
        config.unsupervised_weight * ramp(step, burn_in, length),
        ema_decay(step, burn_in, length, config.ema_decay, config.ema_decay_last),
    )


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up over the first tenth of the steps, then half a cosine down to 0."""
    warm_up = max(1, config.steps // 10)
    if step < warm_up:
        return config.lr * (step + 1) / warm_up
    return config.lr * (1 + math.cos(math.pi * (step - warm_up) / (config.steps - warm_up))) / 2
