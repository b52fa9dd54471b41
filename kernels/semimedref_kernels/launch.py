"""One kernel launch as data, so that what runs on a GPU is exactly what the ahead-of-time check compiles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """A Triton kernel with all it is started with.

    Attributes:
        kernel: the ``triton.jit`` function.
        grid: number of programs along each axis.
        args: values by parameter name: tensors, integers and floats.
        constants: the ``tl.constexpr`` parameters by name.
        options: compiler options such as ``num_warps``.
    """

    kernel: Any
    grid: tuple[int, ...]
    args: dict[str, Tensor | int | float]
    constants: dict[str, Any]
    options: dict[str, int] = field(default_factory=lambda: {"num_warps": 4})

    def run(self) -> None:
        """Starts the kernel on the device that holds its tensors; does not wait for it."""
        first = next(value for value in self.args.values() if isinstance(value, Tensor))
        with torch.cuda.device_of(first):  # Triton launches on the current device, whatever its arguments live on
            self.kernel[self.grid](**self.args, **self.constants, **self.options)
