"""Counts the GPU launches of a training step without a GPU: ``python -m semimedref_core.tools.launches``.

The step runs on PyTorch's device ``meta``, where tensors have shapes but no values. Each operation that computes
something is counted; on a GPU it is one launch or a few. On this device, a step fails if it reads a value or copies one
from the host. A CUDA graph could not record such a step.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from semimedref_core.batch import each_tensor
from semimedref_core.config import Config
from semimedref_core.data.datasets import Training
from semimedref_core.preparing import Prepared, prepare
from semimedref_core.runtime.graphed import WARM_UP, Graphed
from semimedref_core.step import learned, schedule
from semimedref_core.tools.profiling import run_step

OPTIMISER = 2  # launches for each group of weights: fused AdamW and its step counter
_NO_LAUNCH = ("_unsafe_view", "empty", "new_empty", "empty_like", "empty_strided", "alias")


class Operations(TorchDispatchMode):
    """Counts the operations of the body that compute something. Operations that only make a view are not counted.

    Attributes:
        counts: name of an operation -> its number.
        bytes: bytes that the operations read and write; each tensor counts once for each operation.
    """

    def __init__(self):
        super().__init__()
        self.counts, self.bytes = Counter(), 0

    @property
    def total(self) -> int:
        """The number of operations."""
        return self.counts.total()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        schema = operation._schema
        looks = any(value.alias_info and not value.alias_info.is_write for value in schema.returns)
        name = schema.name.split("::")[1]
        result = operation(*args, **(kwargs or {}))
        if not looks and name not in _NO_LAUNCH and operation.namespace != "profiler":
            self.counts[name] += 1
            leaves = tree_leaves((args, kwargs, result))
            self.bytes += sum(min(x.nbytes, x.untyped_storage().nbytes()) for x in leaves if isinstance(x, Tensor))
        return result


def on_meta(prepared: Prepared, config: Config, step: int) -> Callable[[], dict[str, Tensor]]:
    """Prepares :func:`semimedref_core.step.learned` of a step to run without values. The networks lose their weights.

    The optimiser is left out, because the device ``meta`` does not have its fused form. The returned function raises
    RuntimeError or NotImplementedError if the step reads a value or uses a tensor of the host.
    """
    state, now = prepared.state, schedule(config, step)
    batch = each_tensor(prepared.batches(step), lambda value: value.to("meta"))
    for network in state.networks.values():
        network.to("meta")
    nothing = SimpleNamespace(param_groups=[], zero_grad=lambda: None, step=lambda: None)
    changing = {name: torch.zeros((), device="meta") for name, value in vars(now).items() if value != 0}
    state = replace(state, optimizer=nothing)
    return partial(learned, state, config, prepared.accelerator, batch, replace(now, **changing))


def operations(config: Config, step: int, pairs: Training | None = None) -> Operations:
    """The operations of a step; the bytes are for float32 and without the optimiser.

    Args:
        config: the run's settings.
        step: index of the step; during burn-in it has no unlabelled pairs.
        pairs: use these; by default the pairs that the settings name.
    """
    prepared = prepare(config, "cpu", pairs)
    groups = len(prepared.state.optimizer.param_groups)
    work = on_meta(prepared, config, step)
    with Operations() as found:
        work()
    found.counts["_fused_adamw_"] += OPTIMISER * groups
    return found


def operations_of_replay(config: Config, step: int, pairs: Training | None = None) -> Operations:
    """The operations of a step that is one CUDA graph: copies of the batch, scalars, the graph, its results."""
    prepared = prepare(config, "cpu", pairs)
    graph, batch, now = _replayed(prepared, config, step), prepared.batches(step), schedule(config, step)
    with Operations() as found:
        graph(batch, now)
    found.counts["graph"] += 1
    found.counts["fill_"] += 2  # PyTorch sets seed and offset of the random numbers
    return found


def host_seconds(config: Config, step: int, count: int, pairs: Training | None = None) -> tuple[float, float]:
    """CPU time of a plain step and of a replayed step in seconds, each the smallest of ``count``; the batch is ready
    before.

    If the pictures are tiny, this is nearly the work of the host, since there is little to compute.
    """
    prepared = prepare(config, "cpu", pairs)
    batch, now = prepared.batches(step), schedule(config, step)

    def least(work) -> float:
        taken = []
        for _ in range(count):
            started = time.process_time()
            work()
            taken.append(time.process_time() - started)
        return min(taken)

    whole = partial(run_step, prepared, batch, config, step)
    whole()
    plain = least(whole)
    graph = _replayed(prepared, config, step)
    graph(batch, now)
    return plain, least(lambda: whole(graph))


def _replayed(prepared: Prepared, config: Config, step: int) -> Graphed:
    """A step whose graph does nothing."""
    losses = torch.zeros(6)

    def replay() -> dict[str, Tensor]:
        return dict(enumerate(losses.clone().unbind()))

    graph = Graphed(lambda batch, now: {}, None, lambda work: replay)
    for _ in range(WARM_UP):
        graph(prepared.batches(step), schedule(config, step))
    return graph


NETWORKS = "compact", "lite", "mmi_unet"


def main() -> None:
    """Prints the number of operations of a step of each network, with and without a graph.

    The number of pairs does not change the numbers. The size of the pictures changes only those of ``mmi_unet``: below
    128 px the deepest maps that it fuses with the words have one pixel, for which PyTorch needs fewer copies and
    additions.
    """
    torch.set_num_threads(1)
    tiny = Config(image_size=32, batch_size=2)
    for name in NETWORKS:
        config = replace(tiny, network=name)
        burn_in, after = (operations(config, step).total for step in (0, config.steps - 1))
        left = operations_of_replay(config, config.steps - 1).total
        print(f"{name}: {burn_in} in burn-in, {after} after it, {left} as a graph", flush=True)
    plain, graph = host_seconds(tiny, tiny.steps - 1, 20)
    print(f"the host's part, compact, 32 px, 2 + 2: {1000 * plain:.1f} ms, as a graph {1000 * graph:.2f} ms")


if __name__ == "__main__":
    main()
