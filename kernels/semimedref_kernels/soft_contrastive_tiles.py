"""What the contrastive loss's Triton kernels share: tiles of rows, and tiles of ``u_i . v_j``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


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


def exact() -> str:
    """How float32 is multiplied: three TF32 products keep float32's digits on NVIDIA; AMD has float32 matrix units."""
    return "ieee" if torch.version.hip else "tf32x3"


def width(D: int, most: int) -> int:
    """Columns taken at once: a power of two, at least the 16 that a matrix unit needs."""
    return max(16, min(most, triton.next_power_of_2(D)))
