"""The soft-positive contrastive loss in Triton; symbols as in :mod:`~semimedref_kernels.soft_contrastive_plain`.

Two regimes, two pairs of kernels:

- **Small** (N and M up to 64, a training batch): waiting for launches is all there is to save, so there is one forward
  and one backward. The whole z fits in the registers of one program, and so does P, computed in place from the codes by
  counting bits. All is multiplied as float32.
- **Large** (gathered or queued embeddings): z would be the memory. Tiles of z are computed, used and forgotten: forward
  keeps a running log-sum-exp for each row, backward computes the tiles again. P stays out of the tiles; its part is the
  class sums of the plain form. Each direction is a launch of its own with rows and columns swapped, so no program ever
  writes where another does: no atomics, the same bits every time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from semimedref_kernels.launch import Launch
from semimedref_kernels.soft_contrastive_plain import class_sums, combine, wide

SMALL = 64  # the most images or texts that one program holds
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def number(x):
    """A scalar argument: a number, or a pointer to one, which spares the host from waiting for it."""
    x = tl.to_tensor(x)
    if x.dtype.is_ptr():
        return tl.load(x).to(tl.float32)
    else:
        return x


@triton.jit
def dot(a, b, c, PRECISION: tl.constexpr):
    """``a @ b + c``, summed in float32; the interpreter multiplies the bit patterns of bfloat16, hence the cast."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, c, input_precision=PRECISION)


@triton.jit
def load_rows(x, rows, n, columns, D: tl.constexpr):
    """``x[rows, columns]`` of a contiguous ``[n, D]``, 0 outside."""
    inside = (rows[:, None] < n) & (columns[None, :] < D)
    return tl.load(x + rows.to(tl.int64)[:, None] * D + columns[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(x, values, rows, n, columns, D: tl.constexpr):
    """``x[rows, columns] = values`` in the type of x, where inside."""
    inside = (rows[:, None] < n) & (columns[None, :] < D)
    tl.store(x + rows.to(tl.int64)[:, None] * D + columns[None, :], values.to(x.dtype.element_ty), mask=inside)


@triton.jit
def similarities(
    u, v, rows, n, cols, m, TYPE: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``z_ij tau = u_i . v_j`` for a tile ``[ROWS, COLS]``, D taken CHUNK numbers at a time, multiplied as TYPE."""
    z = tl.zeros((ROWS, COLS), dtype=tl.float32)
    for start in range(0, D, CHUNK):
        d = start + tl.arange(0, CHUNK)
        u_part, v_part = load_rows(u, rows, n, d, D).to(TYPE), load_rows(v, cols, m, d, D).to(TYPE)
        z = dot(u_part, v_part.T, z, PRECISION)
    return z


# ---------------------------------------------------------------------------------------------------- small: one tile
@triton.jit
def count_bits(x):
    """How many of the lowest six bits are set: pairs, then the sum of the three pairs."""
    x = (x & 0x15) + ((x >> 1) & 0x15)
    return (x & 3) + ((x >> 2) & 3) + ((x >> 4) & 3)


@triton.jit
def soft_positives(codes, codes_v, i, n, j, m):
    """P in the tile form: ``[i, j]``, 0 outside."""
    a = tl.load(codes + i, mask=i < n, other=0).to(tl.int32)[:, None]
    b = tl.load(codes_v + j, mask=j < m, other=0).to(tl.int32)[None, :]
    p = count_bits(a & b).to(tl.float32) / tl.maximum(count_bits(a | b), 1).to(tl.float32)
    p = tl.where(i[:, None] == j[None, :], 1.0, p)
    return tl.where((i[:, None] < n) & (j[None, :] < m), p, 0.0)


@triton.jit
def small_forward(
    u, v, codes, codes_v, tau, loss, lse_u, lse_v, n, m,
    D: tl.constexpr, SIDE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Loss and both log-sum-exps, N and M up to SIDE, by one program."""
    i, j = tl.arange(0, SIDE), tl.arange(0, SIDE)
    z = similarities(u, v, i, n, j, m, tl.float32, D, SIDE, SIDE, CHUNK, PRECISION) / number(tau)
    inside = (i[:, None] < n) & (j[None, :] < m)
    z_or_none = tl.where(inside, z, float("-inf"))
    # Rows and columns outside have no maximum: 0 in its place keeps them finite until they are masked.
    top_u = tl.where(i < n, tl.max(z_or_none, 1), 0.0)
    top_v = tl.where(j < m, tl.max(z_or_none, 0), 0.0)
    sum_u = tl.sum(tl.exp(z_or_none - top_u[:, None]), 1)
    sum_v = tl.sum(tl.exp(z_or_none - top_v[None, :]), 0)
    log_sum_u = top_u + tl.log(tl.where(i < n, sum_u, 1.0))
    log_sum_v = top_v + tl.log(tl.where(j < m, sum_v, 1.0))
    tl.store(lse_u + i, log_sum_u, mask=i < n)
    tl.store(lse_v + j, log_sum_v, mask=j < m)

    p = soft_positives(codes, codes_v, i, n, j, m)
    p_u, p_v = tl.sum(p, 1), tl.sum(p, 0)
    of_u = tl.sum(tl.where(inside, p * (log_sum_u[:, None] - z), 0.0), 1) / tl.where(p_u > 0, p_u, 1.0)
    of_v = tl.sum(tl.where(inside, p * (log_sum_v[None, :] - z), 0.0), 0) / tl.where(p_v > 0, p_v, 1.0)
    tl.store(loss, (tl.sum(of_u, 0) / n + tl.sum(of_v, 0) / m) / 2)


@triton.jit
def small_backward(
    grad, u, v, codes, codes_v, tau, lse_u, lse_v, grad_u, grad_v, grad_tau, n, m,
    D: tl.constexpr, SIDE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """All gradients. Each program computes z anew, which is cheap, and gives CHUNK of the D columns."""
    i, j = tl.arange(0, SIDE), tl.arange(0, SIDE)
    temperature = number(tau)
    z = similarities(u, v, i, n, j, m, tl.float32, D, SIDE, SIDE, CHUNK, PRECISION) / temperature
    inside = (i[:, None] < n) & (j[None, :] < m)
    p = soft_positives(codes, codes_v, i, n, j, m)
    p_u, p_v = tl.sum(p, 1), tl.sum(p, 0)
    weight_u = tl.where(p_u > 0, 0.5 / (n * tl.where(p_u > 0, p_u, 1.0)), 0.0)  # r_i / R_i
    weight_v = tl.where(p_v > 0, 0.5 / (m * tl.where(p_v > 0, p_v, 1.0)), 0.0)
    share_u, share_v = tl.where(p_u > 0, 0.5 / n, 0.0), tl.where(p_v > 0, 0.5 / m, 0.0)  # r_i
    softmax_u = tl.exp(z - tl.load(lse_u + i, mask=i < n, other=0.0)[:, None])
    softmax_v = tl.exp(z - tl.load(lse_v + j, mask=j < m, other=0.0)[None, :])
    grad_z = share_u[:, None] * softmax_u + share_v[None, :] * softmax_v - p * (weight_u[:, None] + weight_v[None, :])
    grad_z = tl.where(inside, grad_z, 0.0) * (tl.load(grad) / temperature)

    d = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    u_part, v_part = load_rows(u, i, n, d, D).to(tl.float32), load_rows(v, j, m, d, D).to(tl.float32)
    nothing = tl.zeros((SIDE, CHUNK), dtype=tl.float32)
    store_rows(grad_u, dot(grad_z, v_part, nothing, PRECISION), i, n, d, D)
    store_rows(grad_v, dot(grad_z.T, u_part, nothing, PRECISION), j, m, d, D)
    if tl.program_id(0) == 0:
        tl.store(grad_tau, -tl.sum(tl.sum(tl.where(inside, grad_z * z, 0.0), 1), 0))


# ------------------------------------------------------------------------------------------------ large: tiles of z
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


# ------------------------------------------------------------------------------------------------------- launching
def exact() -> str:
    """How float32 is multiplied: three TF32 products keep float32's digits on NVIDIA; AMD has float32 matrix units."""
    return "ieee" if torch.version.hip else "tf32x3"


def width(D: int, most: int) -> int:
    """Columns taken at once: a power of two, at least the 16 that a matrix unit needs."""
    return max(16, min(most, triton.next_power_of_2(D)))


def small_launch(kernel: triton.JITFunction, precision: str, **args: Tensor | float) -> Launch:
    """One of the small kernels with its sizes, which follow from ``u`` and ``v``."""
    (n, D), m = args["u"].shape, len(args["v"])
    side, chunk = width(max(n, m), SMALL), width(D, 32)
    programs = 1 if kernel is small_forward else triton.cdiv(D, chunk)
    constants = {"D": D, "SIDE": side, "CHUNK": chunk, "PRECISION": precision}
    return Launch(kernel, (programs,), args | {"n": n, "m": m}, constants, {"num_warps": 8 if side == SMALL else 4})


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


def forward(u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss ``[]`` and log-sum-exps ``[N]``, ``[M]``, float32, of float32 or bfloat16 embeddings."""
    u, v, codes, codes_v = (x.contiguous() for x in (u, v, codes, codes_v))
    lse_u, lse_v = (x.new_empty(len(x), dtype=torch.float32) for x in (u, v))
    if max(len(u), len(v)) <= SMALL:
        loss = u.new_empty((), dtype=torch.float32)
        outputs = {"loss": loss, "lse_u": lse_u, "lse_v": lse_v}
        small_launch(small_forward, exact(), u=u, v=v, codes=codes, codes_v=codes_v, tau=tau, **outputs).run()
        return loss, lse_u, lse_v
    large_launch(log_sum_exp, exact(), u=u, v=v, tau=tau, lse=lse_u).run()
    large_launch(log_sum_exp, exact(), u=v, v=u, tau=tau, lse=lse_v).run()
    u, v = wide(u), wide(v)
    return combine(u, class_sums(u, v, codes, codes_v), lse_u, lse_v, tau), lse_u, lse_v


def backward(
    grad: Tensor, u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: float | Tensor,
    lse_u: Tensor, lse_v: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients for u and v, in their types, and for tau, float32."""
    u, v, codes, codes_v = (x.contiguous() for x in (u, v, codes, codes_v))
    grad_u, grad_v, grad_tau = (torch.empty_like(x) for x in (u, v, grad))
    given = {"grad": grad, "tau": tau}
    if max(len(u), len(v)) <= SMALL:
        inputs = given | {"u": u, "v": v, "codes": codes, "codes_v": codes_v, "lse_u": lse_u, "lse_v": lse_v}
        outputs = {"grad_u": grad_u, "grad_v": grad_v, "grad_tau": grad_tau}
        small_launch(small_backward, exact(), **inputs, **outputs).run()
        return grad_u, grad_v, grad_tau
    p = class_sums(wide(u), wide(v), codes, codes_v)
    z_mean_u, z_mean_v = torch.empty_like(lse_u), torch.empty_like(lse_v)
    names = ("u", "v", "lse_u", "lse_v", "share_u", "share_v", "pull_u", "grad_u", "z_mean")
    for_u = (u, v, lse_u, lse_v, p.share_u, p.share_v, p.pull_u, grad_u, z_mean_u)
    for_v = (v, u, lse_v, lse_u, p.share_v, p.share_u, p.pull_v, grad_v, z_mean_v)
    for side in (for_u, for_v):
        large_launch(gradient, exact(), **given, **dict(zip(names, side, strict=True))).run()
    attraction = (wide(u) * p.pull_u).sum() / tau
    return grad_u, grad_v, -(z_mean_u.sum() - attraction) * grad / tau


def aot_configurations(precision: str = "tf32x3") -> dict[str, Launch]:
    """What to compile ahead of time, by name, as launches of tensors without memory (device ``meta``).

    Each kernel for float32 and bfloat16 at the widths of common projections, the small ones for each size of tile.

    Args:
        precision: "tf32x3" for NVIDIA, "ieee" for AMD.
    """
    shapes = [(small_launch, kernel, n) for n in (16, 32, 64) for kernel in (small_forward, small_backward)]
    shapes += [(large_launch, log_sum_exp, 4096), (large_launch, gradient, 4096)]
    found = {}
    for dtype, short in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        for launch, kernel, n in shapes:
            for D in (256, 512, 768):
                args = dict.fromkeys(kernel.arg_names, torch.empty(n, device="meta"))
                for name in ("u", "v", "grad_u", "grad_v"):
                    args[name] = torch.empty(n, D, dtype=dtype, device="meta")
                codes = torch.empty(n, dtype=torch.int64, device="meta")
                args |= {"codes": codes, "codes_v": codes, "tau": 0.07}
                args = {name: args[name] for name in kernel.arg_names if not name.isupper() and name not in "nm"}
                found[f"{kernel.__name__} {short} N={n} D={D}"] = launch(kernel, precision, **args)
    return found
