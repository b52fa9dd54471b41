"""Where the time of a training step goes: ``semimedref profile``.

The parts of a step are named where they are written, by ``torch.profiler.record_function``.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from statistics import median

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, record_function

from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.data.batches import made_ahead
from semimedref_core.data.datasets import Training
from semimedref_core.errors import ConfigError
from semimedref_core.networks import each_network
from semimedref_core.preparing import Prepared, prepare
from semimedref_core.runtime import graphed
from semimedref_core.runtime.graphed import Learn
from semimedref_core.step import training_step

WARM_UP = graphed.WARM_UP + 1  # steps before any is timed; in the last a graph is recorded, if there is to be one
PARTS = (  # in the order of a step
    "batch",
    "views",
    "teacher forward",
    "student forward",
    "mixing",
    "losses",
    "backward",
    "optimiser",
    "teacher update",
    "other",
)


@dataclass(frozen=True)
class Profile:
    """What a step takes.

    Attributes:
        device: its name.
        parameters: of the student; of both networks for a method that trains two.
        milliseconds: of each part of :data:`PARTS`, median over the timed steps: on a GPU of its kernels, on the CPU of
            all that it does. Of parts in one another, each has its own time.
        step: the whole step so, its batch included, median; not the sum of the medians.
        running: a step as training runs it, ms: nothing is waited for, and a thread makes the next batch meanwhile.
        peak_memory: MB, of the GPU's allocator, or of this whole process on the CPU; None where it is not known.
    """

    device: str
    parameters: int
    milliseconds: dict[str, float]
    step: float
    running: float
    peak_memory: float | None

    def to_dict(self) -> dict:
        """All of it as plain values, for JSON."""
        return asdict(self)

    def render(self) -> str:
        """A table for people."""
        lines = [f"{'part':16} {'ms':>9} {'share':>7}"]
        for name, value in self.milliseconds.items():
            lines.append(f"{name:16} {value:9.2f} {value / self.step:7.1%}")
        lines.append(f"{'whole step':16} {self.step:9.2f}")
        lines.append(f"{'as training runs':16} {self.running:9.2f}   (the next batch is made meanwhile)")
        memory = "not known" if self.peak_memory is None else f"{self.peak_memory:.0f} MB"
        return "\n".join([*lines, f"{self.parameters:,} parameters on {self.device}, peak memory {memory}"])


def profile(config: Config, device: str = "auto", count: int = 20, pairs: Training | None = None) -> Profile:
    """Times the parts of a step of a run, and the run's steps as they are.

    The step is the first one after the ramp, so that all that the method does is in it; it is done again and again,
    with batches of the steps that follow. Nothing is written.

    Args:
        config: the run's settings.
        device: as for :func:`semimedref_core.training.train`.
        count: of steps that are timed, at least 1.
        pairs: to take in place of those that the settings name.

    Raises:
        ConfigError: if the count is not above 0; else as :func:`semimedref_core.training.train`.
    """
    if count < 1:
        raise ConfigError(f"count must be at least 1, got {count}")
    prepared = prepare(config, device, pairs)
    running = step_seconds(prepared, config, count)
    place = prepared.accelerator.device
    on_gpu = place.type == "cuda"
    step = _whole_step(config)
    hooks = _name_forwards(prepared)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    taken = []
    for number in range(step, step + count):
        with torch.profiler.profile(activities=activities) as profiler, record_function("other"):
            _do(prepared, prepared.batches(number), config, step)
            if on_gpu:
                torch.cuda.synchronize()
        taken.append(_own_milliseconds(profiler.events(), on_gpu))
    for hook in hooks:
        hook.remove()
    return Profile(
        torch.cuda.get_device_name(place) if on_gpu else f"CPU, {torch.get_num_threads()} thread(s)",
        sum(parameter.numel() for parameter in prepared.state.student.parameters()),
        {name: median(each[name] for each in taken) for name in PARTS},
        median(sum(each.values()) for each in taken),
        1000 * running,
        torch.cuda.max_memory_allocated(place) / 2**20 if on_gpu else _process_peak(),
    )


def step_seconds(prepared: Prepared, config: Config, count: int, warm_up: int = WARM_UP) -> float:
    """What a step takes as training runs it, in seconds, the mean of ``count`` steps after ``warm_up``."""
    wait = torch.cuda.synchronize if prepared.accelerator.device.type == "cuda" else lambda: None
    step = _whole_step(config)
    with closing(made_ahead(prepared.batches, range(step, step + warm_up + count))) as stream:
        for batch in islice(stream, warm_up):
            _do(prepared, batch, config, step, prepared.learn)
        wait()
        started = time.perf_counter()
        for batch in stream:
            _do(prepared, batch, config, step, prepared.learn)
        wait()
    return (time.perf_counter() - started) / count


def _whole_step(config: Config) -> int:
    """The first step after the ramp, or the last one."""
    return min(config.steps - 1, math.ceil((config.burn_in + config.ramp) * config.steps))


def _do(prepared: Prepared, batch: Batch, config: Config, step: int, learn: Learn | None = None) -> None:
    prepared.state.step = step
    training_step(prepared.state, batch, config, prepared.accelerator, learn)


def _name_forwards(prepared: Prepared) -> list:
    """Makes the forward passes of student and teacher parts of their own, as long as the hooks are there."""
    hooks = []
    for name, network in prepared.state.networks.items():
        for one in each_network(network):
            forward = record_function(f"{name} forward")
            hooks.append(one.register_forward_pre_hook(lambda *_, forward=forward: forward.__enter__() and None))
            hooks.append(
                one.register_forward_hook(
                    lambda *_, forward=forward: forward.__exit__(None, None, None), always_call=True
                )
            )
    return hooks


def _own_milliseconds(events: list[FunctionEvent], on_gpu: bool) -> dict[str, float]:
    """What each part of a step took, without the parts inside it."""
    parts = [event for event in events if event.name in PARTS and event.device_type.name == "CPU"]
    own = dict.fromkeys(PARTS, 0.0)
    for event in parts:
        total = event.device_time_total if on_gpu else event.cpu_time_total
        own[event.name] += total / 1000
        around = event.cpu_parent
        while around is not None and around.name not in PARTS:
            around = around.cpu_parent
        if around is not None:
            own[around.name] -= total / 1000
    return own


def _process_peak() -> float | None:
    """The most memory that this process ever held, in MB; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
