"""Pictures that lie on the GPU: a step brings the numbers of those that it wants, and picks them there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from semimedref_core.data.pairs import Pairs

SHARE = 0.1
"""Of the memory that is free before the first step, what pictures may take. Nobody knows what a step needs before it
has run, and it needs far more: 90 % stay for it. A tenth of 16 GB holds 30,000 grey pictures of 224 px."""


class Stack:
    """N arrays of one shape, of which a step wants some.

    Args:
        arrays: ``[N, ...]``; they stay as they are, bytes as bytes.
        place: where all of them are kept, and picked; ``None``: on the host, from where each step copies its own.
    """

    def __init__(self, arrays: np.ndarray, place: torch.device | None = None):
        self.arrays = arrays if place is None else torch.from_numpy(np.ascontiguousarray(arrays)).to(place)

    def __getitem__(self, numbers: Sequence[int]) -> Tensor:
        """Those with these numbers, ``[B, ...]``, where the stack is; a GPU is not waited for."""
        if isinstance(self.arrays, Tensor):
            return self.arrays.index_select(0, moved(torch.tensor(numbers), self.arrays.device))
        return torch.from_numpy(self.arrays[numbers])


def moved(value: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device: itself if it is there; a copy, from pinned memory, so that nobody waits for it."""
    return value if value.device.type == device.type else value.pin_memory().to(device, non_blocking=True)


def fit(sets: Sequence[Pairs], device: torch.device, tell: bool = True) -> bool:
    """Whether pictures and masks of these pairs may lie on a device: if it is a GPU, and they take at most
    :data:`SHARE` of its free memory. If they take more, one line says so (``tell``).

    The regions of the reports come on top: one for each set of zones, of which the lungs have 64.
    """
    if device.type != "cuda":
        return False
    wanted = sum(each.images.nbytes + (0 if each.masks is None else each.masks.nbytes) for each in sets)
    free = torch.cuda.mem_get_info(device)[0]
    if wanted <= SHARE * free:
        return True
    if tell:
        print(
            f"note: each step copies its pictures to the GPU (together they take {wanted / 2**20:.0f} MB, and of "
            f"{free / 2**20:.0f} MB of free memory they may take {SHARE:.0%})."
        )
    return False
