"""Estimates the time of runs on this machine. Short parts of the runs are measured before the start."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from semimedref_core.config import Config
from semimedref_core.data.datasets import SOURCES, Training, data_folder
from semimedref_core.data.own.folder import OwnData
from semimedref_core.data.phantom import COUNTS, MIN_SIZE, phantom
from semimedref_core.evaluation import image_counts
from semimedref_core.experiments.job import SHIFT
from semimedref_core.preparing import prepare
from semimedref_core.tools.profiling import step_seconds

MEASURED = 2  # number of measured steps of each kind
PAIRS = 8
PHANTOMS = ("phantom", "phantom-ct")
COSTLY = "method network ispg image_encoder text_encoder image_size batch_size report_text precision compile".split()
PROBE = "import matplotlib.pyplot, semimedref_core.training"  # the imports of every process of a run
# Other costs of a start, as multiples of the probe's time; measured on the plan phantom.yaml, in CPU seconds.
PROCESS = {True: 0.9, False: 1.8}  # a process that runs notebooks, which needs no torch; a process that trains
NOTEBOOK = 2.2  # a notebook's kernel, its figures and its other cells
FILES = 0.2  # the network and the files of a run


@dataclass(frozen=True)
class Estimate:
    """The time of runs in seconds, summed over the runs.

    Attributes:
        runs: number of runs.
        jobs: number of runs at a time.
        steps: time of the training steps.
        validation: time of validating both networks of each run.
        starts: time to start processes and notebook kernels, with their imports, the phantom's pictures, and figures.
        table: time of the results notebook at the end.
    """

    runs: int
    jobs: int
    steps: float
    validation: float
    starts: float
    table: float

    @property
    def elapsed(self) -> float:
        """Seconds from the start of the first run to the end of the last, if nothing else runs."""
        return (self.steps + self.validation + self.starts) / max(1, min(self.jobs, self.runs)) + self.table

    def render(self) -> str:
        """The parts as readable text."""
        parts = {"steps": self.steps, "validation": self.validation, "starts and figures": self.starts}
        parts["table"] = self.table
        return "one after the other: " + ", ".join(f"{name} {value / 60:.1f} min" for name, value in parts.items())


def estimate(configs: Sequence[Config], threads: int, jobs: int, notebook: bool = True) -> Estimate:
    """Estimates the time of these runs on this machine.

    Steps and validation are measured on a few pairs of the phantom, since all pictures take the same time. Burn-in
    steps are cheaper but count like the others. The time of a start is measured with new processes that do the imports
    of a run. The times of a kernel and of the cells besides training are fixed multiples of it, which were measured
    once. Decoding real pictures that are not in the cache is not included.

    Args:
        configs: settings of the runs; runs that agree in :data:`COSTLY` are measured once.
        threads: number of CPU threads of each run.
        jobs: number of runs at a time.
        notebook: whether each run is an executed notebook.
    """
    if not configs:
        return Estimate(0, jobs, 0.0, 0.0, 0.0, 0.0)
    before, measured = torch.get_num_threads(), {}
    torch.set_num_threads(threads)
    try:
        for config in configs:
            measured[_kind(config)] = measured.get(_kind(config)) or _measure(config)
        drawn = {size: _draw_seconds(size) for size in {config.image_size for config in configs}}
    finally:
        torch.set_num_threads(before)
    steps = sum(config.steps * measured[_kind(config)][0] for config in configs)
    validation = sum(_validated(config) * measured[_kind(config)][1] for config in configs)
    probe = probe_seconds(threads, min(jobs, len(configs)))
    starts = len(configs) * probe * (FILES + (NOTEBOOK if notebook else 0))
    of_phantom = [config for config in configs if config.dataset in PHANTOMS]
    starts += sum(drawn[config.image_size] for config in of_phantom) * (2 if notebook else 1)  # the notebook draws too
    processes = max(jobs, math.ceil((steps + validation + starts) / SHIFT))
    starts += min(len(configs), processes) * probe * PROCESS[notebook]
    return Estimate(len(configs), jobs, steps, validation, starts, probe * (1 + NOTEBOOK))


def few_pairs(size: int) -> Training:
    """Pairs of any size for timing steps. If the size is too small for the phantom, they are corners of larger
    pictures."""
    pairs = phantom("train", 2 * PAIRS, max(size, MIN_SIZE))
    pairs = replace(pairs, images=pairs.images[:, :size, :size], masks=pairs.masks[:, :size, :size])
    labelled, rest = range(PAIRS), range(PAIRS, 2 * PAIRS)
    return Training(pairs.subset(labelled), pairs, pairs.subset(rest, masks=False))


def probe_seconds(threads: int, together: int) -> float:
    """The seconds that new processes need for the imports of a run, with so many processes at a time."""
    about = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    probes = [subprocess.Popen([sys.executable, "-c", PROBE], env=about) for _ in range(together)]
    for probe in probes:
        probe.wait()
    return time.perf_counter() - started


def _kind(config: Config) -> tuple:
    return tuple(getattr(config, name) for name in COSTLY)


def _measure(config: Config) -> tuple[float, float]:
    """The seconds of one step, and of validating one image with both networks."""
    sample = replace(config, dataset="phantom", label_ratio=0.5, seed=0, steps=100)
    prepared = prepare(sample, "auto", few_pairs(config.image_size))
    step = step_seconds(prepared, sample, MEASURED, warm_up=1)
    started = time.perf_counter()
    for network in prepared.state.networks.values():
        image_counts(network, prepared.pairs.valid, prepared.batches.texts, prepared.accelerator.device)
    return step, (time.perf_counter() - started) / len(prepared.pairs.valid)


def _validated(config: Config) -> int:
    """The number of images that a run validates in total."""
    if config.dataset in PHANTOMS:
        images = COUNTS["valid"]
    elif source := SOURCES.get(config.dataset):
        images = len(source.find(data_folder(config.data)).entries("valid", config.texts))
    else:
        own = OwnData.find(data_folder(config.data), config.positions, config.text_sides)
        images = len(own.entries("valid"))
    return images * math.ceil(config.steps / (config.eval_every or config.steps))


def _draw_seconds(size: int) -> float:
    """The seconds for drawing the phantom's pictures."""
    started = time.perf_counter()
    phantom("train", PAIRS, max(size, MIN_SIZE))
    return (time.perf_counter() - started) / PAIRS * (COUNTS["train"] + COUNTS["valid"])
