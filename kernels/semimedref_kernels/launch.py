"""A kernel launch as data, so that the ahead-of-time check compiles exactly the code that runs on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Launch:
    """A Triton kernel with all its arguments.

    Attributes:
        kernel: the ``triton.jit`` function.
        grid: number of programs along each axis.
        args: parameter -> value, in the kernel's order: tensors, integers and floats.
        constants: name -> value of the ``tl.constexpr`` parameters.
        options: compiler options such as ``num_warps``.
    """

    kernel: Any
    grid: tuple[int, ...]
    args: dict[str, Tensor | int | float]
    constants: dict[str, Any]
    options: dict[str, int] = field(default_factory=lambda: {"num_warps": 4})

    def run(self) -> None:
        """Starts the kernel on the device that holds its tensors; does not wait for it."""
        device = next(iter(self.args.values())).device
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(
                device
            ):  # Triton launches on the current device, which may not be that of its arguments
                self._start()
        else:
            self._start()

    def _start(self) -> None:
        self.kernel.run(*self.args.values(), grid=self.grid, warmup=False, **self.constants, **self.options)
