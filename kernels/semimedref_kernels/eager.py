"""What both operations share: their first steps, which skip the dispatcher if nothing needs it and refuse forward-mode
derivatives, and the type of their sums.

A call through ``torch.library`` takes the host longer than a small kernel takes on a GPU. Only torch.compile, tracing,
transforms and tensor subclasses need it. A plain call uses one ``torch.autograd.Function``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

PLAIN = (Tensor, torch.nn.Parameter)


def direct(*tensors: Tensor) -> bool:
    """Whether only autograd watches this call. Then the operation may run its kernels directly."""
    if (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
    ):
        return False
    for x in tensors:  # noqa: SIM110  # a generator would cost as much as the rest
        if type(x) not in PLAIN or not (x.is_cuda or x.is_cpu):
            return False
    return True


def refuse_forward_mode(name: str, *tensors: Tensor) -> None:
    """Raises NotImplementedError if one of the tensors has a tangent, which would otherwise be lost silently.

    torch.compile cannot trace this check, but it does not trace forward mode either.
    """
    if torch.compiler.is_compiling():
        return
    for x in tensors:
        if forward_ad.unpack_dual(x).tangent is not None:
            raise NotImplementedError(
                f"{name} has no forward-mode derivative (torch.func.jvp, forward_ad); use torch.autograd.grad instead"
            )


def wide(x: Tensor) -> Tensor:
    """Converts to the type of sums: float32, or float64 for float64."""
    return x if x.dtype == torch.float64 else x.float()
