"""What runs will take on this machine: the time of a step, measured before they are started."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import replace

import torch
from accelerate import Accelerator

from semimedref_core.anatomy import QATA
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches
from semimedref_core.data.phantom import phantom
from semimedref_core.methods import method_named
from semimedref_core.networks import build_texts
from semimedref_core.runstate import RunState
from semimedref_core.teacher import Teacher
from semimedref_core.training import training_step

MEASURED = 3  # steps, after one that warms up


def step_seconds(config: Config) -> float:
    """The median time of a step of this network and method, after burn-in, on this device, on phantom pairs."""
    method = method_named(config.method)
    timed = replace(config, burn_in=0.0, ramp=0.0, steps=1 + MEASURED)
    pairs = phantom("train", 2 * config.batch_size, config.image_size)
    labelled = pairs.subset(range(config.batch_size))
    others = pairs.subset(range(config.batch_size, 2 * config.batch_size), masks=False) if method.unlabelled else None
    accelerator = Accelerator()
    student = method.build(config.network).to(accelerator.device, memory_format=torch.channels_last)
    state = RunState(student, Teacher(student), torch.optim.AdamW(student.parameters()))
    batches = Batches(labelled, others, timed, build_texts(config.report_text), QATA, accelerator.device)
    times = []
    for step in range(timed.steps):
        started = time.perf_counter()
        losses = training_step(state, batches(step), timed, accelerator)
        losses["loss"].item()  # waits for the device
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def estimated_seconds(configs: Iterable[Config], threads: int) -> float:
    """What the steps of these runs take, one run after the other; validation and figures come on top.

    Burn-in steps, which are cheaper, count as the others.

    Args:
        configs: of the runs; each kind (method, network, sizes) is measured once.
        threads: of the CPU, as the runs will have.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    measured, total = {}, 0.0
    try:
        for config in configs:
            kind = config.method, config.network, config.image_size, config.batch_size, config.report_text
            if kind not in measured:
                measured[kind] = step_seconds(config)
            total += config.steps * measured[kind]
    finally:
        torch.set_num_threads(before)
    return total
