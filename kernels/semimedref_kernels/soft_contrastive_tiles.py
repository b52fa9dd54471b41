"""The common parts of the contrastive loss's Triton kernels: rows, tiles of ``u_i . v_j``, soft positives from
codes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from semimedref_kernels.soft_contrastive_plain import CODES, SHORTEST

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
ALL_BITS = tl.constexpr(CODES - 1)
EPS = tl.constexpr(SHORTEST)


@triton.jit
def dot(a, b, c, PRECISION: tl.constexpr):
    """``a @ b + c``, summed in float32. The cast is for the interpreter, which multiplies the bit patterns of
    bfloat16."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, c, input_precision=PRECISION)


@triton.jit
def number(x):
    """A float32 from a number, or from a tensor of one element if its value may not be known before."""
    x = tl.to_tensor(x)
    if x.dtype.is_ptr():
        return tl.load(x).to(tl.float32)
    else:
        return x


@triton.jit
def load_rows(x, rows, n, columns, D: tl.constexpr):
    """``x[rows, columns]`` of a contiguous ``[n, D]``, 0 outside."""
    inside = (rows[:, None] < n) & (columns[None, :] < D)
    return tl.load(x + rows.to(tl.int64)[:, None] * D + columns[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(x, values, rows, n, columns, D: tl.constexpr):
    """``x[rows, columns] = values`` in the type of x, inside the bounds."""
    inside = (rows[:, None] < n) & (columns[None, :] < D)
    tl.store(x + rows.to(tl.int64)[:, None] * D + columns[None, :], values.to(x.dtype.element_ty), mask=inside)


@triton.jit
def count_bits(x):
    """The number of set bits among the lowest six: counts pairs of bits, then sums the three pairs."""
    x = (x & 0x15) + ((x >> 1) & 0x15)
    return (x & 3) + ((x >> 2) & 3) + ((x >> 4) & 3)


@triton.jit
def shared(a, b):
    """The Jaccard index of two codes, 0 for two empty sets."""
    return count_bits(a & b).to(tl.float32) / tl.maximum(count_bits(a | b), 1).to(tl.float32)


@triton.jit
def load_codes(codes, i, n):
    """Codes i, 0 outside."""
    return tl.load(codes + i, mask=(i >= 0) & (i < n), other=0).to(tl.int32) & ALL_BITS


def exact() -> str:
    """The mode of float32 products: on NVIDIA, three TF32 products keep float32's digits; AMD has float32 matrix
    units."""
    return "ieee" if torch.version.hip else "tf32x3"


def width(D: int, most: int) -> int:
    """The number of columns of a step: a power of two, at least the 16 that a matrix unit needs."""
    return max(16, min(most, triton.next_power_of_2(D)))
