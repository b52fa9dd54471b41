"""The contrastive loss at small N in Triton: one launch forward, one backward.

N and M up to 64, a training batch: waiting for launches is all there is to save. The whole z fits in the registers of
one program, and so does P, computed in place from the codes by counting bits. The embeddings' L2 normalisation is part
of the same kernels, which spares some twenty launches more. All is multiplied as float32.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from semimedref_kernels.launch import Launch
from semimedref_kernels.soft_contrastive_plain import SHORTEST
from semimedref_kernels.soft_contrastive_tiles import dot, load_rows, similarities, width

SMALL = 64  # the most images or texts that one program holds
EPS = tl.constexpr(SHORTEST)


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
def one_over_norm(x, rows, n, D: tl.constexpr, SIDE: tl.constexpr, CHUNK: tl.constexpr):
    """``1 / max(|x_i|, EPS)`` of SIDE rows. x is read once more, by now from the cache."""
    squares = tl.zeros((SIDE,), dtype=tl.float32)
    for start in range(0, D, CHUNK):
        part = load_rows(x, rows, n, start + tl.arange(0, CHUNK), D).to(tl.float32)
        squares += tl.sum(part * part, 1)
    return 1.0 / tl.maximum(tl.sqrt(squares), EPS)


@triton.jit
def cosines(
    u, v, i, n, j, m, D: tl.constexpr, SIDE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
    NORMALIZE: tl.constexpr,
):  # fmt: skip
    """``u_i . v_j`` and the factors that bring u and v to length 1: ones if they come so."""
    scale_u, scale_v = tl.full((SIDE,), 1.0, tl.float32), tl.full((SIDE,), 1.0, tl.float32)
    cosine = similarities(u, v, i, n, j, m, tl.float32, D, SIDE, SIDE, CHUNK, PRECISION)
    if NORMALIZE:
        scale_u, scale_v = one_over_norm(u, i, n, D, SIDE, CHUNK), one_over_norm(v, j, m, D, SIDE, CHUNK)
        cosine = cosine * scale_u[:, None] * scale_v[None, :]
    return cosine, scale_u, scale_v


@triton.jit
def small_forward(
    u, v, codes, codes_v, tau, loss, lse_u, lse_v, n, m,
    D: tl.constexpr, SIDE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr, NORMALIZE: tl.constexpr,
):  # fmt: skip
    """Loss and both log-sum-exps, N and M up to SIDE, by one program."""
    i, j = tl.arange(0, SIDE), tl.arange(0, SIDE)
    cosine, _, _ = cosines(u, v, i, n, j, m, D, SIDE, CHUNK, PRECISION, NORMALIZE)
    z = cosine / tau
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
def store_rows(x, values, rows, n, columns, D: tl.constexpr):
    """``x[rows, columns] = values`` in the type of x, where inside."""
    inside = (rows[:, None] < n) & (columns[None, :] < D)
    tl.store(x + rows.to(tl.int64)[:, None] * D + columns[None, :], values.to(x.dtype.element_ty), mask=inside)


@triton.jit
def small_backward(
    grad, u, v, codes, codes_v, tau, lse_u, lse_v, grad_u, grad_v, n, m,
    D: tl.constexpr, SIDE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr, NORMALIZE: tl.constexpr,
):  # fmt: skip
    """Both gradients. Each program computes z anew, which is cheap, and gives CHUNK of the D columns.

    With ``x = |u_i|`` and the gradient g for ``u_i / x``, that for ``u_i`` is ``(g - (g . u_i / x) u_i / x) / x``. Its
    inner product needs no second pass over D: ``g . u_i / x = sum_j dL/dcosine_ij cosine_ij``.
    """
    i, j = tl.arange(0, SIDE), tl.arange(0, SIDE)
    cosine, scale_u, scale_v = cosines(u, v, i, n, j, m, D, SIDE, CHUNK, PRECISION, NORMALIZE)
    z = cosine / tau
    inside = (i[:, None] < n) & (j[None, :] < m)
    p = soft_positives(codes, codes_v, i, n, j, m)
    p_u, p_v = tl.sum(p, 1), tl.sum(p, 0)
    weight_u = tl.where(p_u > 0, 0.5 / (n * tl.where(p_u > 0, p_u, 1.0)), 0.0)  # r_i / R_i
    weight_v = tl.where(p_v > 0, 0.5 / (m * tl.where(p_v > 0, p_v, 1.0)), 0.0)
    share_u, share_v = tl.where(p_u > 0, 0.5 / n, 0.0), tl.where(p_v > 0, 0.5 / m, 0.0)  # r_i
    softmax_u = tl.exp(z - tl.load(lse_u + i, mask=i < n, other=0.0)[:, None])
    softmax_v = tl.exp(z - tl.load(lse_v + j, mask=j < m, other=0.0)[None, :])
    grad_z = share_u[:, None] * softmax_u + share_v[None, :] * softmax_v - p * (weight_u[:, None] + weight_v[None, :])
    grad_cosine = tl.where(inside, grad_z, 0.0) * (tl.load(grad) / tau)

    d = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    u_part = load_rows(u, i, n, d, D).to(tl.float32) * scale_u[:, None]
    v_part = load_rows(v, j, m, d, D).to(tl.float32) * scale_v[:, None]
    along = tl.where(inside, grad_cosine * cosine, 0.0)
    along_u, along_v = tl.sum(along, 1), tl.sum(along, 0)  # summed before the products: after them, a register spills
    nothing = tl.zeros((SIDE, CHUNK), dtype=tl.float32)
    of_u, of_v = dot(grad_cosine, v_part, nothing, PRECISION), dot(grad_cosine.T, u_part, nothing, PRECISION)
    if NORMALIZE:
        of_u = (of_u - along_u[:, None] * u_part) * scale_u[:, None]
        of_v = (of_v - along_v[:, None] * v_part) * scale_v[:, None]
    store_rows(grad_u, of_u, i, n, d, D)
    store_rows(grad_v, of_v, j, m, d, D)


def small_launch(kernel: triton.JITFunction, precision: str, normalize: bool, **args: Tensor | float) -> Launch:
    """One of the small kernels with its sizes, which follow from ``u`` and ``v``."""
    (n, D), m = args["u"].shape, len(args["v"])
    side, chunk = width(max(n, m), SMALL), width(D, 32)
    programs = 1 if kernel is small_forward else triton.cdiv(D, chunk)
    constants = {"D": D, "SIDE": side, "CHUNK": chunk, "PRECISION": precision, "NORMALIZE": normalize}
    return Launch(kernel, (programs,), args | {"n": n, "m": m}, constants, {"num_warps": 8 if side == SMALL else 4})
