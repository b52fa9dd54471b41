"""Measures the time of the parts of a training step: ``semimedref profile``.

``torch.profiler.record_function`` names the parts in the code of the step.
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

WARM_UP = graphed.WARM_UP + 1  # untimed steps; the last one records a graph, if the settings ask for one
PARTS = (  # in their order in a step
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
    """The cost of a step.

    Attributes:
        device: name of the device.
        parameters: number of parameters of the student, or of both networks if the method trains two.
        milliseconds: time of each part of :data:`PARTS`, median over the timed steps: of its kernels on a GPU, of all
            its work on the CPU. The time of a nested part is not counted in the outer part.
        step: median time of the whole step with its batch, in ms; not the sum of the medians.
        running: time of a step in training, in ms: nothing waits, and a thread makes the next batch at the same time.
        peak_memory: MB of the GPU's allocator, or of this process on the CPU; None if unknown.
    """

    device: str
    parameters: int
    milliseconds: dict[str, float]
    step: float
    running: float
    peak_memory: float | None

    def to_dict(self) -> dict:
        """The profile as plain values, for JSON."""
        return asdict(self)

    def render(self) -> str:
        """A readable table."""
        lines = [f"{'part':16} {'ms':>9} {'share':>7}"]
        for name, value in self.milliseconds.items():
            lines.append(f"{name:16} {value:9.2f} {value / self.step:7.1%}")
        lines.append(f"{'whole step':16} {self.step:9.2f}")
        lines.append(f"{'as training runs':16} {self.running:9.2f}   (the next batch is made meanwhile)")
        memory = "not known" if self.peak_memory is None else f"{self.peak_memory:.0f} MB"
        return "\n".join([*lines, f"{self.parameters:,} parameters on {self.device}, peak memory {memory}"])


def profile(config: Config, device: str = "auto", count: int = 20, pairs: Training | None = None) -> Profile:
    """Times the parts of a step of a run, and the steps in normal training.

    The step is the first one after the ramp, so it has all parts of the method. It is repeated with the batches of the
    following steps. No file is written.

    Args:
        config: the run's settings.
        device: as in :func:`semimedref_core.training.train`.
        count: number of timed steps, at least 1.
        pairs: use these; by default the pairs that the settings name.

    Raises:
        ConfigError: if the count is below 1. Other errors are those of :func:`semimedref_core.training.train`.
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
            run_step(prepared, prepared.batches(number), config, step)
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
    """The seconds of a step in training: the mean of ``count`` steps after ``warm_up`` steps."""
    wait = torch.cuda.synchronize if prepared.accelerator.device.type == "cuda" else lambda: None
    step = _whole_step(config)
    with closing(made_ahead(prepared.batches, range(step, step + warm_up + count))) as stream:
        for batch in islice(stream, warm_up):
            run_step(prepared, batch, config, step, prepared.learn)
        wait()
        started = time.perf_counter()
        for batch in stream:
            run_step(prepared, batch, config, step, prepared.learn)
        wait()
    return (time.perf_counter() - started) / count


def _whole_step(config: Config) -> int:
    """The first step after the ramp, or the last one."""
    return min(config.steps - 1, math.ceil((config.burn_in + config.ramp) * config.steps))


def run_step(prepared: Prepared, batch: Batch, config: Config, step: int, learn: Learn | None = None) -> None:
    """Makes one training step of any index, whatever the last one was; ``learn`` replaces the plain one."""
    prepared.state.step = step
    training_step(prepared.state, batch, config, prepared.accelerator, learn)


def _name_forwards(prepared: Prepared) -> list:
    """Makes the forward passes of student and teacher separate parts, until the hooks are removed."""
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
    """The time of each part of a step, without the parts inside it."""
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
    """The peak memory of this process in MB; None if the system does not report it."""
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
