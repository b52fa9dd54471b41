"""What runs will take on this machine: the time of a step, measured before they are started."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from semimedref_core.config import Config
from semimedref_core.profiling import profile

MEASURED = 3  # steps of each kind
COSTLY = "method network image_encoder text_encoder image_size batch_size report_text precision compile".split()


def estimated_seconds(configs: Iterable[Config], threads: int) -> float:
    """What the steps of these runs take, one run after the other; validation and figures come on top.

    Steps are measured on the phantom, since no picture takes longer than another. Burn-in steps, which are cheaper,
    count as the others.

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
                measured[kind] = profile(sample, "auto", MEASURED).running / 1000
            total += config.steps * measured[kind]
    finally:
        torch.set_num_threads(before)
    return total
