"""Contrastive loss with soft positives given by sets: the Jaccard index of two multi-hot codes.

One public op, two forms of it: plain PyTorch (:mod:`~semimedref_kernels.soft_contrastive_plain`: CPU, float64, and
wherever there is no Triton) and Triton kernels (:mod:`~semimedref_kernels.soft_contrastive_triton`: GPU).
"""

from __future__ import annotations

import importlib.util
from types import ModuleType

import torch
from torch import Tensor

from semimedref_kernels import soft_contrastive_plain
from semimedref_kernels.soft_contrastive_plain import CODES, jaccard

__all__ = ["jaccard", "soft_contrastive_loss"]

NAME = "soft_contrastive_loss"
HAS_TRITON = importlib.util.find_spec("triton") is not None


def soft_contrastive_loss(
    u: Tensor,
    v: Tensor,
    codes: Tensor,
    tau: float,
    *,
    codes_v: Tensor | None = None,
    normalize: bool = False,
) -> Tensor:
    """Symmetric cross-entropy between the softmax over similarities and the normalised soft positives.

    ``L = 1/2 [ mean_i ( - sum_j P_ij log softmax_j z_ij / sum_j P_ij ) + the same on z^T ]`` with
    ``z_ij = u_i . v_j / tau`` and ``P_ij = |a_i & b_j| / |a_i | b_j|``, ``P_ii = 1``.

    The numbers of images and texts may differ (gathered or queued negatives): the first ``min(N, M)`` are matched,
    image i with text i, and have ``P_ii = 1``; the rest have no partner of their own. Among those, one whose code
    shares nothing with any other has no positive at all: it adds 0 to the mean, and is still a negative for others.

    Sums are float32 (float64 for float64 inputs), also under autocast. Two runs give the same bits. Products of float32
    embeddings keep float32's digits, but for gradients of more than 64 images or texts on a GPU, and everything on a
    CPU, which do as ``torch.set_float32_matmul_precision`` says ("highest" by default). Gradients for u and v, first
    order only. Codes of CPU tensors are checked; on a GPU that would make the host wait, so bits above the sixth are
    ignored there. Embeddings with NaN or infinity give a NaN loss.

    Args:
        u: ``[N, D]`` image embeddings, L2-normalised, or of any length with ``normalize``; float64, float32, bfloat16,
            or float16 (computed in float32).
        v: ``[M, D]`` text embeddings, likewise, of the same type.
        codes: ``[N]`` integers 0 to 63, bit k says whether set i holds element k.
        tau: temperature, a number above 0.
        codes_v: ``[M]`` the texts' codes; those of the images if left out.
        normalize: brings u and v to length 1 first (a row shorter than 1e-12 is divided by that); for up to 64 images
            and texts on a GPU inside the same two launches; above, bfloat16 rows are rounded once more on a GPU.

    Returns:
        Scalar loss: float64 for float64 embeddings, else float32.

    Raises:
        ValueError: if shapes, types or devices do not fit, tau is no number above 0, or a code is not 0 to 63.
    """
    codes_v = codes if codes_v is None else codes_v
    _check(u, v, codes, codes_v, tau)
    if u.dtype == torch.float16:
        u, v = u.float(), v.float()
    return _forward(u, v, codes, codes_v, float(tau), normalize)[0]


def _check(u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: float) -> None:
    """What the host knows without asking the device for a value."""
    if u.dim() != 2 or v.dim() != 2 or u.shape[1] != v.shape[1] or 0 in (*u.shape, *v.shape):
        raise ValueError(f"{NAME}: embeddings {tuple(u.shape)} and {tuple(v.shape)}; need [N, D] and [M, D], none 0")
    if codes.shape != u.shape[:1] or codes_v.shape != v.shape[:1]:
        raise ValueError(
            f"{NAME}: embeddings {tuple(u.shape)} and {tuple(v.shape)} with codes {tuple(codes.shape)} and "
            f"{tuple(codes_v.shape)}; need [N] and [M] (codes_v= where they differ from the images')"
        )
    if u.dtype != v.dtype or u.dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"{NAME}: embeddings of type {u.dtype} and {v.dtype}; need one floating-point type")
    for each in (codes, codes_v):
        if each.dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
            raise ValueError(f"{NAME}: codes of type {each.dtype}; need integers")
    devices = [str(x.device) for x in (u, v, codes, codes_v)]
    if len(set(devices)) > 1:
        raise ValueError(f"{NAME}: tensors on {', '.join(devices)}; need one device")
    if isinstance(tau, Tensor):
        raise ValueError(f"{NAME}: tau must be a number, got a tensor; no gradient is computed for it")
    if not tau > 0:
        raise ValueError(f"{NAME}: tau must be above 0, got {tau}")


def _check_values(codes: Tensor, codes_v: Tensor) -> None:
    """What costs a look at the data: for CPU tensors only."""
    for each in (codes, codes_v):
        low, high = (int(x) for x in each.aminmax())
        if low < 0 or high >= CODES:
            raise ValueError(f"{NAME}: codes must be 0 to {CODES - 1}, got {low if low < 0 else high}")


def _form(u: Tensor) -> ModuleType:
    if not (u.is_cuda and HAS_TRITON) or u.dtype == torch.float64:
        return soft_contrastive_plain
    from semimedref_kernels import soft_contrastive_triton  # here, so that a CPU never loads the compiler

    return soft_contrastive_triton


# Autocast is off inside the ops: their sums stay float32 whatever surrounds the call.
@torch.library.custom_op("semimedref::soft_contrastive", mutates_args=())
def _forward(
    u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: float, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if u.device.type == "cpu":
        _check_values(codes, codes_v)
    with torch.autocast(u.device.type, enabled=False):
        return _form(u).forward(u, v, codes, codes_v, tau, normalize)


@torch.library.custom_op("semimedref::soft_contrastive_backward", mutates_args=())
def _backward(
    grad: Tensor,
    u: Tensor,
    v: Tensor,
    codes: Tensor,
    codes_v: Tensor,
    tau: float,
    normalize: bool,
    lse_u: Tensor,
    lse_v: Tensor,
) -> tuple[Tensor, Tensor]:
    with torch.autocast(u.device.type, enabled=False):
        return _form(u).backward(grad, u, v, codes, codes_v, tau, normalize, lse_u, lse_v)


@_forward.register_fake
def _(u, v, codes, codes_v, tau, normalize):
    dtype = torch.promote_types(u.dtype, torch.float32)
    return u.new_empty((), dtype=dtype), u.new_empty(u.shape[:1], dtype=dtype), u.new_empty(v.shape[:1], dtype=dtype)


@_backward.register_fake
def _(grad, u, v, codes, codes_v, tau, normalize, lse_u, lse_v):
    return u.new_empty(u.shape), v.new_empty(v.shape)


def _save(ctx, inputs, output):
    *tensors, ctx.tau, ctx.normalize = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad, *_):
    if grad is None:
        return (None,) * 6
    *inputs, lse_u, lse_v = ctx.saved_tensors
    grad_u, grad_v = _backward(grad, *inputs, ctx.tau, ctx.normalize, lse_u, lse_v)
    return grad_u, grad_v, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
