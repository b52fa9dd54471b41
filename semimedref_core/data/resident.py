"""Pictures that are stored on the GPU: a step sends the numbers of its pictures and picks them there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from semimedref_core.data.pairs import Pairs

SHARE = 0.1
"""The share of the free memory that pictures may take, before the first step. The need of a step is unknown before it
has run, and it is far larger, so 90 % are left for it. A tenth of 16 GB holds 30,000 grey pictures of 224 px."""


class Stack:
    """N arrays of one shape. A step picks some of them.

    Args:
        arrays: ``[N, ...]``; their type does not change, so bytes stay bytes.
        place: the device that stores them all, where a step picks its own. With ``None`` they stay on the host, and
            each step copies its own.
    """

    def __init__(self, arrays: np.ndarray, place: torch.device | None = None):
        self.arrays = arrays if place is None else torch.from_numpy(np.ascontiguousarray(arrays)).to(place)

    def __getitem__(self, numbers: Sequence[int]) -> Tensor:
        """The arrays with these numbers, ``[B, ...]``, on the device of the stack. The host does not wait for a GPU."""
        if isinstance(self.arrays, Tensor):
            return self.arrays.index_select(0, moved(torch.tensor(numbers), self.arrays.device))
        return torch.from_numpy(self.arrays[numbers])


def moved(value: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device: the same tensor if it is there already, otherwise a copy. The copy starts from pinned
    memory, so the host does not wait for it."""
    return value if value.device.type == device.type else value.pin_memory().to(device, non_blocking=True)


def fit(sets: Sequence[Pairs], device: torch.device, tell: bool = True) -> bool:
    """Whether a device may store the pictures and masks of these pairs. It may if it is a GPU and they take at most
    :data:`SHARE` of its free memory. If they take more, one line says so (``tell``).

    The regions of the reports need memory too, which is not counted: one region for each set of zones. The lungs have
    64 sets.
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
