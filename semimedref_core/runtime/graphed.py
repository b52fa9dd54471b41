"""A training step as one CUDA graph: the kernels of a step are recorded once, and then one launch starts them all.

A recorded step reads and writes the same memory each time. So each batch is copied to the memory of the recorded batch.
Numbers that change from step to step (learning rate, w_u, the teacher's decay) are scalars on the device. Random
numbers need no special care: a replay uses torch's seed of that moment.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from semimedref_core.batch import Batch, each_tensor

WARM_UP = 3  # plain steps before one is recorded: first calls choose kernels, compile and allocate

Learn = Callable[[Batch, Any], dict[str, Tensor]]
"""The part of a step on the device: a batch and a dataclass of numbers -> named scalars."""
Record = Callable[[Callable[[], dict[str, Tensor]]], Callable[[], dict[str, Tensor]]]
"""Records work on tensors, and returns a function that repeats it on the same tensors."""


def why_not(accelerator: Accelerator, scaler: torch.amp.GradScaler | None) -> str | None:
    """The reason why this run cannot record its steps; None if it can."""
    if accelerator.device.type != "cuda":
        return "CUDA graphs need a GPU of NVIDIA or AMD, and this run is on the CPU"
    if accelerator.num_processes > 1:
        return "several processes exchange their gradients in each step"
    if scaler:
        return "fp16 leaves out steps whose gradients overflow; bf16 does not"
    return None


class Graphed:
    """Runs steps: the first few as plain steps, then it records one, and from then on it replays the recording.

    A number 0 switches something off (w_u: the unlabelled loss), so it is recorded as the number 0. If other numbers
    become 0, or a shape changes, the recording is dropped and a new one is made. If recording fails, this step and all
    later ones run as plain steps, and one line says why.

    Args:
        learn: the step. It must not read the value of a tensor or copy one from the host.
        stream: the CUDA stream of all its work; None for the current one.
        record: records the graph.
    """

    def __init__(self, learn: Learn, stream: torch.cuda.Stream | None, record: Record):
        self.learn, self.stream, self.record = learn, stream, record
        self.kind, self.failed = None, False

    def __call__(self, batch: Batch, numbers: Any) -> dict[str, Tensor]:
        """Runs one step; later steps do not change its results."""
        if self.failed:
            return self.learn(batch, numbers)
        changing = {name: value for name, value in vars(numbers).items() if value != 0}
        kind = [(tensor.shape, tensor.dtype) for tensor in tensors_of(batch)], changing.keys()
        if kind != self.kind:
            self._begin(batch, numbers, changing)
            self.kind = kind
        _copy(tensors_of(batch), self.inputs)
        for name, value in changing.items():
            self.scalars[name].fill_(value)
        if self.done < WARM_UP:
            self.done += 1
            with _inside(self.stream):
                return self._work()
        if self.replay is None:
            try:
                self.replay = self.record(self._work)
            except RuntimeError as error:
                self.failed = True
                print(f"note: compile 'graph': steps run without a graph ({str(error).splitlines()[0]}).")
                return self.learn(batch, numbers)
        return self.replay()

    def _begin(self, batch: Batch, numbers: Any, changing: dict[str, float]) -> None:
        self.done, self.replay = 0, None
        self.batch = each_tensor(batch, torch.clone)
        self.inputs = tensors_of(self.batch)
        self.scalars = {name: torch.zeros((), device=self.inputs[0].device) for name in changing}
        self.numbers = dataclasses.replace(numbers, **self.scalars)

    def _work(self) -> dict[str, Tensor]:
        return self.learn(self.batch, self.numbers)


def on_gpu(learn: Learn) -> Graphed:
    """A step on the current GPU, recorded by :class:`torch.cuda.CUDAGraph`."""
    stream = torch.cuda.Stream()

    def record(work: Callable[[], dict[str, Tensor]]) -> Callable[[], dict[str, Tensor]]:
        graph = torch.cuda.CUDAGraph()
        # Meanwhile a thread makes the next batch. The graph must not record the work of that thread.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            losses = work()
            together = torch.stack(list(losses.values()))

        def replay() -> dict[str, Tensor]:
            graph.replay()
            return dict(zip(losses, together.clone().unbind(), strict=True))

        return replay

    return Graphed(learn, stream, record)


def tensors_of(batch: Batch) -> list[Tensor]:
    """All tensors of a batch, always in the same order."""
    found = []
    each_tensor(batch, found.append)
    return found


def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    """Copies each tensor to its target, with one launch for all tensors of a type."""
    of_type = defaultdict(lambda: ([], []))
    for source, target in zip(sources, targets, strict=True):
        for side, tensor in zip(of_type[source.dtype], (target, source), strict=True):
            side.append(tensor)
    for theirs, ours in of_type.values():
        torch._foreach_copy_(theirs, ours)


@contextmanager
def _inside(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Queues the work of the body in this stream, after all earlier work and before all later work."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)
