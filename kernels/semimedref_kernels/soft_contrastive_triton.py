"""The soft-positive contrastive loss in Triton; symbols as in :mod:`~semimedref_kernels.soft_contrastive_plain`.

Two regimes. A training batch (N and M up to 64) takes the two launches of
:mod:`~semimedref_kernels.soft_contrastive_small`. For more (gathered or queued embeddings) z would be the memory, so
tiles of z are computed, used and forgotten: forward keeps a running log-sum-exp for each row, backward computes the
tiles again and leaves what both gradients need of them, a strip of some rows at a time, to two matrix products. P stays
out of the tiles; its part is the class sums of the plain form. No program ever writes where another does, and what
programs find is added up in a fixed order: no atomics, the same bits every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from semimedref_kernels.launch import Launch
from semimedref_kernels.soft_contrastive_plain import across, class_sums, combine, lengths, wide
from semimedref_kernels.soft_contrastive_small import SMALL, small_backward, small_forward, small_launch
from semimedref_kernels.soft_contrastive_tiles import exact, similarities, width

ROWS, COLS = 64, 128  # of a tile: the largest that does not spill, as float32's three products take more
PROGRAMS = 256  # that a launch should have at the least, for a GPU of some 130 multiprocessors
STRIP = 2**26  # bytes of push at a time: enough for products at full speed, little beside all of z


@triton.jit
def log_sum_exp(
    u, v, tau, lse, n, m, span,
    D: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``lse_si = log sum_j exp(z_ij)`` for ROWS of the u, over the v of span s, COLS at a time.

    The running maximum is needed: the bound ``z <= 1 / tau`` would let every term underflow once tau is 0.01.
    """
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(1) * span
    end = tl.minimum(first + span, m)
    scale = 1.0 / tau
    top = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(first, end, COLS):
        j = start + tl.arange(0, COLS)
        z = similarities(u, v, i, n, j, m, u.dtype.element_ty, D, ROWS, COLS, CHUNK, PRECISION) * scale
        z = tl.where(j[None, :] < end, z, float("-inf"))
        higher = tl.maximum(top, tl.max(z, 1))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(z - higher[:, None]), 1)
        top = higher
    tl.store(lse + tl.program_id(1).to(tl.int64) * n + i, top + tl.log(total), mask=i < n)


@triton.jit
def pushes(
    u, v, tau, lse_u, lse_v, share_u, share_v, push, n, m,
    D: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of ``push_ij = r_i softmax_j z + c_j softmax_i z``, ``[N, M]`` in the embeddings' type."""
    i, j = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * COLS + tl.arange(0, COLS)
    z = similarities(u, v, i, n, j, m, u.dtype.element_ty, D, ROWS, COLS, CHUNK, PRECISION) * (1.0 / tau)
    of_u = tl.exp(z - tl.load(lse_u + i, mask=i < n, other=0.0)[:, None])
    of_v = tl.exp(z - tl.load(lse_v + j, mask=j < m, other=0.0)[None, :])
    share_i = tl.load(share_u + i, mask=i < n, other=0.0)[:, None]
    share_j = tl.load(share_v + j, mask=j < m, other=0.0)[None, :]
    inside = (i[:, None] < n) & (j[None, :] < m)
    tile = tl.where(inside, share_i * of_u + share_j * of_v, 0.0)
    tl.store(push + i.to(tl.int64)[:, None] * m + j[None, :], tile.to(push.dtype.element_ty), mask=inside)


def large_launch(kernel: triton.JITFunction, precision: str, **args: Tensor | float) -> Launch:
    """One of the large kernels with its sizes."""
    u, v = args["u"], args["v"]
    (n, D), m = u.shape, len(v)
    chunk = width(D, 128 // u.dtype.itemsize)  # rows of a chunk are 128 bytes, one line of memory
    constants = {"D": D, "ROWS": ROWS, "COLS": COLS, "CHUNK": chunk, "PRECISION": precision}
    grid, args = tiles(n, m), args | {"n": n, "m": m}
    if kernel is log_sum_exp:
        span, spans = spans_of(n, m)
        grid, args = (grid[0], spans), args | {"span": span}
    return Launch(kernel, grid, args, constants, {"num_warps": 8})


def tiles(n: int, m: int) -> tuple[int, int]:
    return triton.cdiv(n, ROWS), triton.cdiv(m, COLS)


def spans_of(n: int, m: int) -> tuple[int, int]:
    """How many columns a program of :func:`log_sum_exp` takes, and in how many spans they are all taken.

    One, if the rows alone make programs enough.
    """
    down, across = tiles(n, m)
    span = triton.cdiv(across, triton.cdiv(PROGRAMS, down)) * COLS
    return span, triton.cdiv(m, span)


def strips(n: int, row_bytes: int) -> Iterator[slice]:
    """Rows 0 to n in parts of whole tiles, of :data:`STRIP` bytes at the most if a row of tiles is no more."""
    rows = max(1, STRIP // (ROWS * row_bytes)) * ROWS
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in float32, of bfloat16 too: rounded, sums of strips would lose digits. Float32 numbers are multiplied
    as ``torch.set_float32_matmul_precision`` says."""
    if a.dtype == torch.bfloat16 and a.is_cuda and not torch.version.hip:
        return torch.mm(a, b, out_dtype=torch.float32)  # which torch has for CUDA alone
    return a.float() @ b.float()


def log_sum_exps(u: Tensor, v: Tensor, tau: float) -> Tensor:
    """``log sum_j exp(u_i . v_j / tau)``: ``[N]``, float32."""
    found = u.new_empty(spans_of(len(u), len(v))[1], len(u), dtype=torch.float32)
    large_launch(log_sum_exp, exact(), u=u, v=v, tau=tau, lse=found).run()
    return found.logsumexp(0)


def forward(
    u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: float, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss ``[]`` and log-sum-exps ``[N]``, ``[M]``, float32, of float32 or bfloat16 embeddings.

    Normalisation is fused where launches are all that counts; beside N x M numbers, N x D cost nothing.
    """
    u, v, codes, codes_v = (x.contiguous() for x in (u, v, codes, codes_v))
    if max(len(u), len(v)) <= SMALL:
        lse_u, lse_v = (x.new_empty(len(x), dtype=torch.float32) for x in (u, v))
        loss = u.new_empty((), dtype=torch.float32)
        outputs = {"loss": loss, "lse_u": lse_u, "lse_v": lse_v}
        small_launch(
            small_forward, exact(), normalize, u=u, v=v, codes=codes, codes_v=codes_v, tau=tau, **outputs
        ).run()
        return loss, lse_u, lse_v
    if normalize:
        u, v = unit(u), unit(v)
    lse_u, lse_v = log_sum_exps(u, v, tau), log_sum_exps(v, u, tau)
    u, v = wide(u), wide(v)
    return combine(u, class_sums(u, v, codes, codes_v), lse_u, lse_v, tau), lse_u, lse_v


def backward(
    grad: Tensor, u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: float, normalize: bool,
    lse_u: Tensor, lse_v: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients for u ``[N, D]`` and v ``[M, D]``, in their types."""
    u, v, codes, codes_v = (x.contiguous() for x in (u, v, codes, codes_v))
    if max(len(u), len(v)) <= SMALL:
        inputs = {"u": u, "v": v, "codes": codes, "codes_v": codes_v, "lse_u": lse_u, "lse_v": lse_v}
        outputs = {"grad_u": torch.empty_like(u), "grad_v": torch.empty_like(v)}
        small_launch(small_backward, exact(), normalize, grad=grad, tau=tau, **inputs, **outputs).run()
        return tuple(outputs.values())
    if normalize:
        long_u, long_v = lengths(wide(u)), lengths(wide(v))
        u, v = unit(u), unit(v)
    p = class_sums(wide(u), wide(v), codes, codes_v)
    grad_u, grad_v = p.pull_u.neg_(), p.pull_v.neg_()  # (push - W) v, with W v in place
    for at in strips(len(u), len(v) * u.dtype.itemsize):
        mine = {"u": u[at], "lse_u": lse_u[at], "share_u": p.share_u[at]}
        theirs = {"v": v, "lse_v": lse_v, "share_v": p.share_v}
        push = u.new_empty(len(u[at]), len(v))
        large_launch(pushes, exact(), **mine, **theirs, tau=tau, push=push).run()
        grad_u[at] += product(push, v)
        grad_v += product(push.T, u[at])
    grad_u, grad_v = grad_u * (grad / tau), grad_v * (grad / tau)
    if normalize:
        grad_u, grad_v = across(grad_u, wide(u)) / long_u, across(grad_v, wide(v)) / long_v
    return grad_u.to(u.dtype), grad_v.to(v.dtype)


def unit(x: Tensor) -> Tensor:
    """The rows at length 1, in the type of x, which is the type that the tiles are multiplied in."""
    return (wide(x) / lengths(wide(x))).to(x.dtype)


def aot_configurations(precision: str = "tf32x3", widths: Sequence[int] = (256, 512, 768)) -> dict[str, Launch]:
    """What to compile ahead of time, by name, as launches of tensors without memory (device ``meta``).

    Each kernel for float32 and bfloat16 at the widths of common projections, the small ones for each size of tile and
    with normalisation; ``unit`` marks those that take embeddings of length 1.

    Args:
        precision: "tf32x3" for NVIDIA, "ieee" for AMD.
        widths: D of the embeddings. It is how often loops run, so what a kernel takes hardly depends on it.
    """
    found = {}
    for dtype, short in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        for D in widths:

            def arguments(kernel: triton.JITFunction, n: int, dtype: torch.dtype = dtype, D: int = D) -> dict:
                args = dict.fromkeys(kernel.arg_names, torch.empty(n, device="meta"))
                for name in ("u", "v", "grad_u", "grad_v"):
                    args[name] = torch.empty(n, D, dtype=dtype, device="meta")
                codes = torch.empty(n, dtype=torch.int64, device="meta")
                args |= {"codes": codes, "codes_v": codes, "tau": 0.07}
                args |= {"push": torch.empty(n, n, dtype=dtype, device="meta")}
                own = ("n", "m", "span")  # filled in by the launch
                return {name: args[name] for name in kernel.arg_names if not name.isupper() and name not in own}

            for kernel in (small_forward, small_backward):
                for n in (16, 32, 64):
                    launch = small_launch(kernel, precision, True, **arguments(kernel, n))
                    found[f"{kernel.__name__} {short} N={n} D={D}"] = launch
                # Without normalisation it is the same and less: its largest stands for all.
                launch = small_launch(kernel, precision, False, **arguments(kernel, SMALL))
                found[f"{kernel.__name__} {short} N={SMALL} D={D} unit"] = launch
            for kernel in (log_sum_exp, pushes):
                found[f"{kernel.__name__} {short} D={D}"] = large_launch(kernel, precision, **arguments(kernel, 4096))
    return found
