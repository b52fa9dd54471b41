"""Contrastive loss with soft positives: the weight of a pair is the Jaccard index of two multi-hot codes.

One public operation with two forms: plain PyTorch (:mod:`~semimedref_kernels.soft_contrastive_plain`: for the CPU, for
float64, and without Triton) and Triton kernels (:mod:`~semimedref_kernels.soft_contrastive_triton`: for a GPU).
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import torch
from torch import Tensor

from semimedref_kernels import soft_contrastive_plain
from semimedref_kernels.eager import direct, refuse_forward_mode
from semimedref_kernels.soft_contrastive_plain import CODES, jaccard

__all__ = ["jaccard", "soft_contrastive_loss"]

NAME = "soft_contrastive_loss"
EMBEDDINGS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
HAS_TRITON = importlib.util.find_spec("triton") is not None


def soft_contrastive_loss(
    u: Tensor,
    v: Tensor,
    codes: Tensor,
    tau: float | Tensor,
    *,
    codes_v: Tensor | None = None,
    normalize: bool = False,
    offset: int = 0,
    rows_only: bool = False,
) -> Tensor:
    """Symmetric cross-entropy between the softmax over similarities and the normalised soft positives.

    ``L = 1/2 [ mean_i ( - sum_j P_ij log softmax_j z_ij / sum_j P_ij ) + the same on z^T ]`` with
    ``z_ij = u_i . v_j / tau`` and ``P_ij = |a_i & b_j| / |a_i | b_j|``, ``P_ii = 1``.

    The numbers of images and texts may differ (gathered or queued negatives). Image i is matched with text ``i +
    offset``, if it exists, with ``P = 1``; the others have no partner. If such an embedding shares nothing with any
    other code, it has no positive. Then it adds 0 to the mean, and it is still a negative for others.

    With several processes, each gathers the texts of all and computes only the direction of its own images
    (``rows_only``), with the position of its texts (``offset``). The mean over the processes of ``(loss(own u, all v) +
    loss(own v, all u)) / 2`` is the loss of the whole batch.

    Sums are float32 (float64 for float64 inputs), also under autocast. Two runs give the same bits. Products of float32
    embeddings keep float32's digits. There are two exceptions, which follow ``torch.set_float32_matmul_precision``
    ("highest" by default): gradients of more than 64 images or texts on a GPU, and all products on a CPU. There are
    gradients for u and v, only of first order and in reverse mode; a gradient that is not needed is not computed. Codes
    of CPU tensors are checked. On a GPU a check would make the host wait, so bits above the sixth are ignored.
    Embeddings with NaN or infinity give a NaN loss.

    Args:
        u: ``[N, D]`` image embeddings, L2-normalised, or of any norm with ``normalize``; float64, float32, bfloat16, or
            float16 (computed in float32).
        v: ``[M, D]`` text embeddings, as ``u``, of the same type.
        codes: ``[N]`` integers 0 to 63; bit k says whether set i contains element k. So there are at most six elements.
        tau: temperature, a number above 0. torch.compile makes one graph for the first number and one for all others.
            It makes only one for a tensor of one element without gradient, on the CPU or on the embeddings' device (not
            checked on a GPU). To learn it, multiply normalised images by ``1 / tau`` and give 1 here.
        codes_v: ``[M]`` codes of the texts; by default those of the images.
        normalize: first scales u and v to norm 1 (a row with a norm below 1e-12 is divided by 1e-12). On a GPU, the
            same launches do this for up to 64 images and texts; above that, bfloat16 rows are rounded once more.
        offset: index of the text of the first image.
        rows_only: leaves out the softmax over images. The loss is then the mean over images, without the factor 1/2.

    Returns:
        Scalar loss: float64 for float64 embeddings, else float32.

    Raises:
        ValueError: if shapes, types or devices do not match, tau is not above 0, or a code is not in 0 to 63.
        NotImplementedError: under forward-mode differentiation such as ``torch.func.jvp``.
    """
    codes_v = codes if codes_v is None else codes_v
    _check(u, v, codes, codes_v, tau, offset)
    refuse_forward_mode(NAME, u, v)
    if u.dtype == torch.float16:
        u, v = u.float(), v.float()
    if direct(u, v, codes, codes_v):
        return _Loss.apply(u, v, codes, codes_v, _plain(tau), normalize, offset, rows_only)
    return _forward(u, v, codes, codes_v, _as_tensor(tau, u), normalize, offset, rows_only)[0]


def _check(u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: float | Tensor, offset: int) -> None:
    """Checks everything that the host knows without a value of the device."""
    if u.dim() != 2 or v.dim() != 2 or u.shape[1] != v.shape[1] or 0 in (*u.shape, *v.shape):
        raise ValueError(f"{NAME}: embeddings {tuple(u.shape)} and {tuple(v.shape)}; need [N, D] and [M, D], none 0")
    if codes.shape != u.shape[:1] or codes_v.shape != v.shape[:1]:
        raise ValueError(
            f"{NAME}: embeddings {tuple(u.shape)} and {tuple(v.shape)} with codes {tuple(codes.shape)} and "
            f"{tuple(codes_v.shape)}; need [N] and [M] (codes_v= where they differ from the images')"
        )
    if u.dtype != v.dtype or u.dtype not in EMBEDDINGS:
        raise ValueError(f"{NAME}: embeddings of type {u.dtype} and {v.dtype}; need one floating-point type")
    for each in (codes, codes_v):
        if each.dtype not in INTEGERS:
            raise ValueError(f"{NAME}: codes of type {each.dtype}; need integers")
    if not u.device == v.device == codes.device == codes_v.device:
        devices = ", ".join(str(x.device) for x in (u, v, codes, codes_v))
        raise ValueError(f"{NAME}: tensors on {devices}; need one device")
    if offset < 0:
        raise ValueError(f"{NAME}: offset must be 0 or more, got {offset}")
    if isinstance(tau, Tensor):
        _check_tensor(tau, u.device)
    elif not tau > 0:
        raise ValueError(f"{NAME}: tau must be above 0, got {tau}")


def _check_tensor(tau: Tensor, device: torch.device) -> None:
    if tau.numel() != 1 or tau.requires_grad or (tau.device.type != "cpu" and tau.device != device):
        raise ValueError(
            f"{NAME}: tau is a tensor of shape {tuple(tau.shape)} on {tau.device}, "
            f"{'with' if tau.requires_grad else 'without'} gradient; need one element, without, on the CPU or {device}"
        )
    if tau.device.type == "cpu" and not torch.compiler.is_compiling() and type(tau) is Tensor and not tau.item() > 0:
        raise ValueError(f"{NAME}: tau must be above 0, got {tau.item()}")


def _check_values(codes: Tensor, codes_v: Tensor) -> None:
    """Checks values, only of CPU tensors."""
    for each in (codes,) if codes_v is codes else (codes, codes_v):
        low, high = (int(x) for x in each.aminmax())
        if low < 0 or high >= CODES:
            raise ValueError(f"{NAME}: codes must be 0 to {CODES - 1}, got {low if low < 0 else high}")


def _plain(tau: float | Tensor) -> float | Tensor:
    """tau as a number, if the host knows it."""
    return float(tau) if not isinstance(tau, Tensor) or tau.device.type == "cpu" else tau


def _as_tensor(tau: float | Tensor, u: Tensor) -> Tensor:
    """tau as the operation of ``torch.library`` takes it."""
    if isinstance(tau, Tensor):
        return tau
    return torch.full((), tau, dtype=torch.promote_types(u.dtype, torch.float32), device=u.device)


def _form(u: Tensor) -> ModuleType:
    if not (u.is_cuda and HAS_TRITON) or u.dtype == torch.float64:
        return soft_contrastive_plain
    from semimedref_kernels import soft_contrastive_triton  # imported here, so that CPU users never load the compiler

    return soft_contrastive_triton


def _compute(u, v, codes, codes_v, tau, normalize, offset, rows_only) -> tuple[Tensor, Tensor]:
    """The loss, and the tensors for backward. Autocast is off inside, so sums are always float32."""
    if u.is_cpu and len(u) * len(v) > soft_contrastive_plain.WHOLE:
        _check_values(codes, codes_v)
    try:
        with _no_autocast(u.device.type):
            return _form(u).forward(u, v, codes, codes_v, _plain(tau), normalize, offset, rows_only)
    except (IndexError, RuntimeError):  # of few pairs on the CPU, a code is the index of a row
        if u.is_cpu:
            _check_values(codes, codes_v)
        raise


def _differentiate(grad, u, v, codes, codes_v, tau, normalize, kept, offset, rows_only, needs):
    with _no_autocast(u.device.type):
        return _form(u).backward(
            grad, u, v, codes, codes_v, _plain(tau), normalize, kept, offset, rows_only, needs
        )  # fmt: skip


def _no_autocast(device: str) -> AbstractContextManager:
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


class _Loss(torch.autograd.Function):
    """The operation without the dispatcher."""

    @staticmethod
    def forward(ctx, u, v, codes, codes_v, tau, normalize, offset, rows_only):
        loss, kept = _compute(u, v, codes, codes_v, tau, normalize, offset, rows_only)
        ctx.save_for_backward(u, v, codes, codes_v, kept)
        ctx.about = tau, normalize, offset, rows_only
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        u, v, codes, codes_v, kept = ctx.saved_tensors
        tau, normalize, offset, rows_only = ctx.about
        needs = tuple(ctx.needs_input_grad[:2])
        if direct(grad, u, v):
            grads = _differentiate(grad, u, v, codes, codes_v, tau, normalize, kept, offset, rows_only, needs)
        else:  # the incoming gradient may be watched, although the inputs were not
            about = _as_tensor(tau, u), normalize, kept, offset, rows_only
            found = _backward(grad, u, v, codes, codes_v, *about, *needs)
            grads = (x if needed else None for x, needed in zip(found, needs, strict=True))
        return *grads, None, None, None, None, None, None


@torch.library.custom_op("semimedref::soft_contrastive", mutates_args=())
def _forward(
    u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: Tensor, normalize: bool, offset: int, rows_only: bool
) -> tuple[Tensor, Tensor]:
    return _compute(u, v, codes, codes_v, tau, normalize, offset, rows_only)


@torch.library.custom_op("semimedref::soft_contrastive_backward", mutates_args=())
def _backward(
    grad: Tensor,
    u: Tensor,
    v: Tensor,
    codes: Tensor,
    codes_v: Tensor,
    tau: Tensor,
    normalize: bool,
    kept: Tensor,
    offset: int,
    rows_only: bool,
    needs_u: bool,
    needs_v: bool,
) -> tuple[Tensor, Tensor]:
    needs = needs_u, needs_v
    found = _differentiate(grad, u, v, codes, codes_v, tau, normalize, kept, offset, rows_only, needs)
    return tuple(u.new_empty(0) if x is None else _alone(x) for x in found)


def _alone(x: Tensor) -> Tensor:
    """A tensor that does not share its memory, as an operator's outputs must not. Below autograd, views cannot be
    recognised."""
    return x if x.untyped_storage().nbytes() == x.nbytes else x.clone()


@_forward.register_fake
def _(u, v, codes, codes_v, tau, normalize, offset, rows_only):
    dtype = torch.promote_types(u.dtype, torch.float32)
    kept = _form(u).kept_size(u.shape[0], v.shape[0], u.shape[1])
    return u.new_empty((), dtype=dtype), u.new_empty(kept, dtype=dtype)


@_backward.register_fake
def _(grad, u, v, codes, codes_v, tau, normalize, kept, offset, rows_only, needs_u, needs_v):
    return u.new_empty(u.shape if needs_u else 0), v.new_empty(v.shape if needs_v else 0)


def _save(ctx, inputs, output):
    *tensors, ctx.normalize, ctx.offset, ctx.rows_only = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.set_materialize_grads(False)


def _through_op(ctx, grad, _):
    if grad is None:
        return (None,) * 8
    u, v, codes, codes_v, tau, kept = ctx.saved_tensors
    needs = ctx.needs_input_grad[:2]
    grads = _backward(grad, u, v, codes, codes_v, tau, ctx.normalize, kept, ctx.offset, ctx.rows_only, *needs)
    found = (x if needed else None for x, needed in zip(grads, needs, strict=True))
    return *found, None, None, None, None, None, None


_forward.register_autograd(_through_op, setup_context=_save)
