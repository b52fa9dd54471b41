"""Measures times: candidates in turn, on the CPU or on a GPU, with medians and percentiles."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

LEAST_FLUSH = 2**28  # bytes; reading them takes long enough to hide the launch of a graph


@dataclass(frozen=True)
class Run:
    """A timed run: only ``fn`` is timed. ``prepare`` makes its argument before each run."""

    fn: Callable[[Any], Any]
    prepare: Callable[[], Any] | None = None

    def __call__(self) -> None:
        self.fn(self.prepare() if self.prepare else None)


@dataclass(frozen=True)
class Times:
    """Milliseconds: the median, and the 20th and 80th percentile."""

    median: float
    p20: float
    p80: float
    runs: int

    @classmethod
    def of(cls, times: list[float]) -> Times:
        quantiles = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
        p20, median, p80 = torch.tensor(times, dtype=torch.float64).quantile(quantiles)
        return cls(float(median), float(p20), float(p80), len(times))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Switches garbage collection off, so that the garbage of one form does not cost time of another."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Timer:
    """Times on the CPU.

    Args:
        seconds: approximate time of a comparison.
        least, most: bounds of the number of rounds.
    """

    device = torch.device("cpu")

    def __init__(self, seconds: float = 1.0, least: int = 5, most: int = 50):
        self.seconds, self.least, self.most = seconds, least, most

    def once(self, run: Run) -> float:
        """Milliseconds of one run.

        The same run comes directly before it and is not timed. Otherwise a candidate would pay for the caches that the
        candidate before it has filled with other data.
        """
        run()
        state = run.prepare() if run.prepare else None
        with uninterrupted():
            start = time.perf_counter_ns()
            run.fn(state)
            return (time.perf_counter_ns() - start) / 1e6

    def time(self, run: Run) -> Times:
        return self.in_turn({"": run})[""]

    def in_turn(self, runs: dict[str, Run]) -> dict[str, Times]:
        """Runs each candidate once in each round, in the same order. So a temporary slowdown of the machine affects all
        of them.

        Two rounds come first: they compile and allocate, and they show how many rounds fit into the time.
        """
        for run in runs.values():
            self.once(run)
        start = time.perf_counter()
        for run in runs.values():
            self.once(run)
        round_seconds = max(time.perf_counter() - start, 1e-9)
        rounds = int(min(self.most, max(self.least, self.seconds / round_seconds)))
        found = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                found[name].append(self.once(run))
        return {name: Times.of(times) for name, times in found.items()}

    def captured(self, run: Run) -> Run | None:
        """The same as a CUDA graph; None on the CPU."""
        return None

    def peak_bytes(self, run: Run) -> int | None:
        """Peak of the memory allocated during the run; None on the CPU, which does not count it."""
        return None

    def free_bytes(self) -> float:
        """Memory that may still be had; the CPU's sizes are small enough not to ask."""
        return float("inf")

    def clean(self) -> None:
        """Gives back what the last case held; the CPU's memory is given back at once."""


class CudaTimer(Timer):
    """Times on a GPU by CUDA events, each run with a cold L2 cache: a buffer at least as large is read before.

    Written, it would leave lines that the run has to write back, at its own cost.
    """

    def __init__(self, seconds: float = 0.2, least: int = 10, most: int = 100):
        super().__init__(seconds, least, most)
        self.device = torch.device("cuda", torch.cuda.current_device())
        cache = torch.cuda.get_device_properties(self.device).L2_cache_size
        self.flush = torch.zeros(max(cache, LEAST_FLUSH) // 4, dtype=torch.int32, device=self.device)

    def once(self, run: Run) -> float:
        """Milliseconds of one run. The host waits for the flush to end, so that what it takes to launch the run counts;
        not where the run is a CUDA graph, which is launched during the flush."""
        state = run.prepare() if run.prepare else None
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush.sum()
        if not isinstance(run, Graph):
            torch.cuda.synchronize(self.device)
        with uninterrupted():
            start.record()
            run.fn(state)
            end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def captured(self, run: Run) -> Run:
        """The same from CUDA graphs: ``prepare`` in one, ``fn`` in another that reads the first one's memory.

        The run must have run before: what compiles or autotunes cannot be captured.

        Raises:
            RuntimeError: if something in it cannot be captured.
        """
        state, prepare, pool = None, None, None
        if run.prepare:
            first = torch.cuda.CUDAGraph()
            with torch.cuda.graph(first):
                state = run.prepare()
            prepare, pool = first.replay, first.pool()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            result = run.fn(state)
        return Graph(lambda _: graph.replay(), prepare, (state, result))

    def peak_bytes(self, run: Run) -> int:
        self.clean()
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        run()
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device) - before

    def free_bytes(self) -> float:
        self.clean()
        return torch.cuda.mem_get_info(self.device)[0]

    def clean(self) -> None:
        gc.collect()
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Graph(Run):
    """A run from CUDA graphs; ``kept`` are the tensors in their memory."""

    kept: Any = None
