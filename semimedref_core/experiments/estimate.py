"""What runs will take on this machine: the time of a step, measured before they are started."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from semimedref_core.config import Config
from semimedref_core.data.datasets import Training
from semimedref_core.data.phantom import MIN_SIZE, phantom
from semimedref_core.tools.profiling import profile

MEASURED = 3  # steps of each kind
PAIRS = 8
COSTLY = "method network image_encoder text_encoder image_size batch_size report_text precision compile".split()


def estimated_seconds(configs: Iterable[Config], threads: int) -> float:
    """What the steps of these runs take, one run after the other; validation and figures come on top.

    Steps are measured on a few pairs of the phantom, since no picture takes longer than another. Burn-in steps, which
    are cheaper, count as the others.

    Args:
        configs: of the runs; of those that agree in :data:`COSTLY` one is measured.
        threads: of the CPU, as the runs will have.
    """
    before, measured, total = torch.get_num_threads(), {}, 0.0
    torch.set_num_threads(threads)
    try:
        for config in configs:
            kind = tuple(getattr(config, name) for name in COSTLY)
            if kind not in measured:
                sample = replace(config, dataset="phantom", label_ratio=0.5, seed=0, steps=100)
                measured[kind] = profile(sample, "auto", MEASURED, few_pairs(config.image_size)).running / 1000
            total += config.steps * measured[kind]
    finally:
        torch.set_num_threads(before)
    return total


def few_pairs(size: int) -> Training:
    """Pairs to time steps with, of any size: a corner of larger pictures where the phantom has none so small."""
    pairs = phantom("train", 2 * PAIRS, max(size, MIN_SIZE))
    pairs = replace(pairs, images=pairs.images[:, :size, :size], masks=pairs.masks[:, :size, :size])
    labelled, rest = range(PAIRS), range(PAIRS, 2 * PAIRS)
    return Training(pairs.subset(labelled), pairs.subset(labelled), pairs.subset(rest, masks=False))
