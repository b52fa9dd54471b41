"""The soft-positive contrastive loss in Triton; symbols as in :mod:`~semimedref_kernels.soft_contrastive_plain`.

Two regimes. A training batch (N and M up to 64) takes the two launches of
:mod:`~semimedref_kernels.soft_contrastive_small`. For more (gathered or queued embeddings) z would be the memory, so
tiles of z are computed, used and forgotten: forward keeps a running log-sum-exp for each row, backward computes the
tiles again. P stays out of the tiles; its part is the class sums of the plain form. Each direction is a launch of its
own with rows and columns swapped, so no program ever writes where another does: no atomics, the same bits every time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from semimedref_kernels.launch import Launch
from semimedref_kernels.soft_contrastive_plain import across, class_sums, combine, lengths, wide
from semimedref_kernels.soft_contrastive_small import SMALL, small_backward, small_forward, small_launch
from semimedref_kernels.soft_contrastive_tiles import dot, exact, load_rows, number, similarities, store_rows, width


@triton.jit
def log_sum_exp(
    u, v, tau, lse, n, m,
    D: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``lse_i = log sum_j exp(z_ij)`` for ROWS of the u, over all of the v, COLS at a time.

    The running maximum is needed: the bound ``z <= 1 / tau`` would let every term underflow once tau is 0.01.
    """
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    scale = 1.0 / number(tau)
    top = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, m, COLS):
        j = start + tl.arange(0, COLS)
        z = similarities(u, v, i, n, j, m, u.dtype.element_ty, D, ROWS, COLS, CHUNK, PRECISION) * scale
        z = tl.where(j[None, :] < m, z, float("-inf"))
        higher = tl.maximum(top, tl.max(z, 1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(z - higher[:, None]), 1)
        top = higher
    tl.store(lse + i, top + tl.log(total), mask=i < n)


@triton.jit
def gradient(
    grad, u, v, tau, lse_u, lse_v, share_u, share_v, pull_u, grad_u, z_mean, n, m,
    D: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """``dL/du = (push v - pull_u) / tau`` for ROWS of the u and WIDTH of their D columns.

    ``push_ij = r_i softmax_j z + c_j softmax_i z``; ``z_mean_i = sum_j push_ij z_ij`` is what dL/dtau needs.
    """
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    scale = 1.0 / number(tau)
    lse_i = tl.load(lse_u + i, mask=i < n, other=0.0)
    share_i = tl.load(share_u + i, mask=i < n, other=0.0)
    pushed = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    mean = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(0, m, COLS):
        j = start + tl.arange(0, COLS)
        z = similarities(u, v, i, n, j, m, u.dtype.element_ty, D, ROWS, COLS, CHUNK, PRECISION) * scale
        # Outside, an infinite log-sum-exp makes the softmax 0.
        lse_j = tl.load(lse_v + j, mask=j < m, other=float("inf"))
        share_j = tl.load(share_v + j, mask=j < m, other=0.0)
        softmax_i = tl.where(j[None, :] < m, tl.exp(z - lse_i[:, None]), 0.0)
        push = share_i[:, None] * softmax_i + share_j[None, :] * tl.exp(z - lse_j[None, :])
        mean += tl.sum(push * z, 1)
        v_part = load_rows(v, j, m, d, D)
        pushed = dot(push.to(v_part.dtype), v_part, pushed, PRECISION)
    pull = load_rows(pull_u, i, n, d, D)
    store_rows(grad_u, (pushed - pull) * (tl.load(grad) * scale), i, n, d, D)
    if tl.program_id(1) == 0:
        tl.store(z_mean + i, mean, mask=i < n)


def large_launch(kernel: triton.JITFunction, precision: str, **args: Tensor | float) -> Launch:
    """One of the large kernels with its sizes, the largest without spills: float32's three products take more."""
    u, v = args["u"], args["v"]
    (n, D), m = u.shape, len(v)
    chunk = width(D, 128 // u.dtype.itemsize)  # rows of a chunk are 128 bytes, one line of memory
    constants = {"D": D, "ROWS": 64, "COLS": 128, "CHUNK": chunk, "PRECISION": precision}
    grid = (triton.cdiv(n, 64),)
    if kernel is gradient:
        cols, most = (32, 128) if u.dtype == torch.float32 else (128, 256)
        constants |= {"COLS": cols, "WIDTH": width(D, most)}
        grid = (*grid, triton.cdiv(D, constants["WIDTH"]))
    return Launch(kernel, grid, args | {"n": n, "m": m}, constants, {"num_warps": 8})


def forward(
    u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: float | Tensor, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss ``[]`` and log-sum-exps ``[N]``, ``[M]``, float32, of float32 or bfloat16 embeddings.

    Normalisation is fused where launches are all that counts; beside N x M numbers, N x D cost nothing.
    """
    u, v, codes, codes_v = (x.contiguous() for x in (u, v, codes, codes_v))
    lse_u, lse_v = (x.new_empty(len(x), dtype=torch.float32) for x in (u, v))
    if max(len(u), len(v)) <= SMALL:
        loss = u.new_empty((), dtype=torch.float32)
        outputs = {"loss": loss, "lse_u": lse_u, "lse_v": lse_v}
        small_launch(
            small_forward, exact(), normalize, u=u, v=v, codes=codes, codes_v=codes_v, tau=tau, **outputs
        ).run()
        return loss, lse_u, lse_v
    if normalize:
        u, v = unit(u), unit(v)
    large_launch(log_sum_exp, exact(), u=u, v=v, tau=tau, lse=lse_u).run()
    large_launch(log_sum_exp, exact(), u=v, v=u, tau=tau, lse=lse_v).run()
    u, v = wide(u), wide(v)
    return combine(u, class_sums(u, v, codes, codes_v), lse_u, lse_v, tau), lse_u, lse_v


def backward(
    grad: Tensor, u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: float | Tensor, normalize: bool,
    lse_u: Tensor, lse_v: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients for u and v, in their types, and for tau, float32."""
    u, v, codes, codes_v = (x.contiguous() for x in (u, v, codes, codes_v))
    given = {"grad": grad, "tau": tau}
    if max(len(u), len(v)) <= SMALL:
        inputs = given | {"u": u, "v": v, "codes": codes, "codes_v": codes_v, "lse_u": lse_u, "lse_v": lse_v}
        outputs = {"grad_u": torch.empty_like(u), "grad_v": torch.empty_like(v), "grad_tau": torch.empty_like(grad)}
        small_launch(small_backward, exact(), normalize, **inputs, **outputs).run()
        return tuple(outputs.values())
    if normalize:
        long_u, long_v = lengths(wide(u)), lengths(wide(v))
        u, v = unit(u), unit(v)
    grad_u, grad_v = (x.new_empty(x.shape, dtype=torch.float32) for x in (u, v))  # normalisation goes on with them
    p = class_sums(wide(u), wide(v), codes, codes_v)
    z_mean_u, z_mean_v = torch.empty_like(lse_u), torch.empty_like(lse_v)
    names = ("u", "v", "lse_u", "lse_v", "share_u", "share_v", "pull_u", "grad_u", "z_mean")
    for_u = (u, v, lse_u, lse_v, p.share_u, p.share_v, p.pull_u, grad_u, z_mean_u)
    for_v = (v, u, lse_v, lse_u, p.share_v, p.share_u, p.pull_v, grad_v, z_mean_v)
    for side in (for_u, for_v):
        large_launch(gradient, exact(), **given, **dict(zip(names, side, strict=True))).run()
    attraction = (wide(u) * p.pull_u).sum() / tau
    if normalize:
        grad_u, grad_v = across(grad_u, wide(u)) / long_u, across(grad_v, wide(v)) / long_v
    return grad_u.to(u.dtype), grad_v.to(v.dtype), -(z_mean_u.sum() - attraction) * grad / tau


def unit(x: Tensor) -> Tensor:
    """The rows at length 1, in the type of x, which is the type that the tiles are multiplied in."""
    return (wide(x) / lengths(wide(x))).to(x.dtype)


def aot_configurations(precision: str = "tf32x3") -> dict[str, Launch]:
    """What to compile ahead of time, by name, as launches of tensors without memory (device ``meta``).

    Each kernel for float32 and bfloat16 at the widths of common projections, the small ones for each size of tile and
    with normalisation; ``unit`` marks those that take embeddings of length 1.

    Args:
        precision: "tf32x3" for NVIDIA, "ieee" for AMD.
    """
    found = {}
    for dtype, short in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        for D in (256, 512, 768):

            def arguments(kernel: triton.JITFunction, n: int, dtype: torch.dtype = dtype, D: int = D) -> dict:
                args = dict.fromkeys(kernel.arg_names, torch.empty(n, device="meta"))
                for name in ("u", "v", "grad_u", "grad_v"):
                    wide_one = kernel is gradient and name == "grad_u"
                    args[name] = torch.empty(n, D, dtype=torch.float32 if wide_one else dtype, device="meta")
                codes = torch.empty(n, dtype=torch.int64, device="meta")
                args |= {"codes": codes, "codes_v": codes, "tau": 0.07}
                return {name: args[name] for name in kernel.arg_names if not name.isupper() and name not in "nm"}

            for kernel in (small_forward, small_backward):
                for n in (16, 32, 64):
                    launch = small_launch(kernel, precision, True, **arguments(kernel, n))
                    found[f"{kernel.__name__} {short} N={n} D={D}"] = launch
                # Without normalisation it is the same and less: its largest stands for all.
                launch = small_launch(kernel, precision, False, **arguments(kernel, SMALL))
                found[f"{kernel.__name__} {short} N={SMALL} D={D} unit"] = launch
            for kernel in (log_sum_exp, gradient):
                found[f"{kernel.__name__} {short} D={D}"] = large_launch(kernel, precision, **arguments(kernel, 4096))
    return found
