"""The contrastive loss at small N in Triton: two launches forward, one backward.

For a training batch (N and M up to 64), only waiting time can be saved. In the first launch, each program multiplies
some of the D columns. In the second, one program adds these results. All of z and P fit into its registers, so it also
stores the gradient for z. Backward is then two products with this gradient. The same kernels do the L2 normalisation of
the embeddings.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from semimedref_kernels.choices import Table, choice, options_of
from semimedref_kernels.launch import Launch
from semimedref_kernels.soft_contrastive_tiles import (
    EPS,
    dot,
    load_codes,
    load_rows,
    number,
    shared,
    store_rows,
    width,
)

SMALL = 64  # largest number of images or texts in one program
SPAN = 64  # columns of D that a program multiplies: 12 programs at 768


@triton.jit
def small_products(
    u, v, kept, n, m,
    D: tl.constexpr, SIDE: tl.constexpr, SPAN: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``u_i . v_j`` and the squared norms over SPAN of the D columns, multiplied in the embeddings' type."""
    i, j = tl.arange(0, SIDE), tl.arange(0, SIDE)
    z = tl.zeros((SIDE, SIDE), tl.float32)
    of_u, of_v = tl.zeros((SIDE,), tl.float32), tl.zeros((SIDE,), tl.float32)
    for start in tl.static_range(0, SPAN, CHUNK):
        d = tl.program_id(0) * SPAN + start + tl.arange(0, CHUNK)
        u_part, v_part = load_rows(u, i, n, d, D), load_rows(v, j, m, d, D)
        z = dot(u_part, v_part.T, z, PRECISION)
        u_part, v_part = u_part.to(tl.float32), v_part.to(tl.float32)
        of_u += tl.sum(u_part * u_part, 1)
        of_v += tl.sum(v_part * v_part, 1)
    here = kept + SIDE * SIDE + 4 * SIDE + tl.program_id(0) * (SIDE * SIDE + 2 * SIDE)  # behind what backward needs
    tl.store(here + i[:, None] * SIDE + j[None, :], z)
    tl.store(here + SIDE * SIDE + i, of_u)
    tl.store(here + SIDE * SIDE + SIDE + j, of_v)


@triton.jit
def soft_positives(codes, codes_v, i, n, j, m, offset):
    """P as a tile ``[i, j]``, 0 outside."""
    p = shared(load_codes(codes, i, n)[:, None], load_codes(codes_v, j, m)[None, :])
    p = tl.where(i[:, None] + offset == j[None, :], 1.0, p)
    return tl.where((i[:, None] < n) & (j[None, :] < m), p, 0.0)


@triton.jit
def small_forward(
    kept, codes, codes_v, tau, loss, n, m, offset, share_u, share_v,
    SIDE: tl.constexpr, PARTS: tl.constexpr, NORMALIZE: tl.constexpr,
):  # fmt: skip
    """The loss, and the values for backward: the gradient g for ``u_i . v_j`` of the (normalised) embeddings, its parts
    along u and along v, and the inverse norms."""
    i, j = tl.arange(0, SIDE), tl.arange(0, SIDE)
    at = i[:, None] * SIDE + j[None, :]
    cosine = tl.zeros((SIDE, SIDE), tl.float32)
    squares_u, squares_v = tl.zeros((SIDE,), tl.float32), tl.zeros((SIDE,), tl.float32)
    for part in range(PARTS):
        here = kept + SIDE * SIDE + 4 * SIDE + part * (SIDE * SIDE + 2 * SIDE)
        cosine += tl.load(here + at)
        squares_u += tl.load(here + SIDE * SIDE + i)
        squares_v += tl.load(here + SIDE * SIDE + SIDE + j)
    if NORMALIZE:
        scale_u, scale_v = 1.0 / tl.maximum(tl.sqrt(squares_u), EPS), 1.0 / tl.maximum(tl.sqrt(squares_v), EPS)
        cosine = cosine * scale_u[:, None] * scale_v[None, :]
        tl.store(kept + SIDE * SIDE + 2 * SIDE + i, scale_u)
        tl.store(kept + SIDE * SIDE + 3 * SIDE + j, scale_v)

    z = cosine / number(tau)
    inside = (i[:, None] < n) & (j[None, :] < m)
    z_or_none = tl.where(inside, z, float("-inf"))
    # Rows and columns outside have no maximum. 0 replaces it and keeps them finite until they are masked.
    top_u = tl.where(i < n, tl.max(z_or_none, 1), 0.0)
    top_v = tl.where(j < m, tl.max(z_or_none, 0), 0.0)
    soft_u, soft_v = tl.exp(z_or_none - top_u[:, None]), tl.exp(z_or_none - top_v[None, :])
    sum_u, sum_v = tl.where(i < n, tl.sum(soft_u, 1), 1.0), tl.where(j < m, tl.sum(soft_v, 0), 1.0)
    lse_u, lse_v = top_u + tl.log(sum_u), top_v + tl.log(sum_v)

    p = soft_positives(codes, codes_v, i, n, j, m, offset)
    p_u, p_v = tl.sum(p, 1), tl.sum(p, 0)
    share_u, share_v = tl.where(p_u > 0, share_u, 0.0), tl.where(p_v > 0, share_v, 0.0)  # r_i, c_j
    w = p * ((share_u / tl.where(p_u > 0, p_u, 1.0))[:, None] + (share_v / tl.where(p_v > 0, p_v, 1.0))[None, :])
    pulled = tl.sum(tl.sum(tl.where(inside, w * z, 0.0), 1), 0)
    tl.store(loss, tl.sum(share_u * lse_u, 0) + tl.sum(share_v * lse_v, 0) - pulled)

    g = soft_u * (share_u / sum_u)[:, None] + soft_v * (share_v / sum_v)[None, :] - w
    g = tl.where(inside, g, 0.0) / number(tau)
    tl.store(kept + at, g)
    along = tl.where(inside, g * cosine, 0.0)
    tl.store(kept + SIDE * SIDE + i, tl.sum(along, 1))
    tl.store(kept + SIDE * SIDE + SIDE + j, tl.sum(along, 0))


@triton.jit
def _gradient(
    upstream, g, mine, others, out, along, scale, scale_others, i, n, j, m, d,
    D: tl.constexpr, SIDE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr, NORMALIZE: tl.constexpr,
):  # fmt: skip
    """Columns d of one side's gradient from ``g [i, j]``.

    Let ``x = |u_i|``, and let h be the gradient for ``u_i / x``. Then the gradient for ``u_i`` is ``(h - (h . u_i / x)
    u_i / x) / x``. Its inner product needs no pass over D: ``h . u_i / x = sum_j g_ij cosine_ij``.
    """
    part = load_rows(others, j, m, d, D).to(tl.float32)
    if NORMALIZE:
        part *= tl.load(scale_others + j)[:, None]
    total = dot(g, part, tl.zeros((SIDE, CHUNK), tl.float32), PRECISION)
    if NORMALIZE:
        one_over = tl.load(scale + i)[:, None]
        total = (total - tl.load(along + i)[:, None] * load_rows(mine, i, n, d, D).to(tl.float32) * one_over) * one_over
    store_rows(out, total * upstream, i, n, d, D)


@triton.jit
def small_backward(
    grad, u, v, kept, grad_u, grad_v, n, m,
    D: tl.constexpr, SIDE: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr, NORMALIZE: tl.constexpr,
    FIRST: tl.constexpr,
):  # fmt: skip
    """A program computes CHUNK of the D columns of one gradient: from FIRST on first for the images, then for the
    texts."""
    i, j = tl.arange(0, SIDE), tl.arange(0, SIDE)
    d = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    upstream = tl.load(grad).to(tl.float32)
    along_u, along_v = kept + SIDE * SIDE, kept + SIDE * SIDE + SIDE
    scale_u, scale_v = kept + SIDE * SIDE + 2 * SIDE, kept + SIDE * SIDE + 3 * SIDE
    if FIRST + tl.program_id(1) == 0:
        g = tl.load(kept + i[:, None] * SIDE + j[None, :])
        _gradient(
            upstream, g, u, v, grad_u, along_u, scale_u, scale_v, i, n, j, m, d, D, SIDE, CHUNK, PRECISION, NORMALIZE
        )
    else:
        g = tl.load(kept + i[None, :] * SIDE + j[:, None])
        _gradient(
            upstream, g, v, u, grad_v, along_v, scale_v, scale_u, j, m, i, n, d, D, SIDE, CHUNK, PRECISION, NORMALIZE
        )


def side_of(n: int, m: int) -> int:
    return width(max(n, m), SMALL)


def warps_of(side: int) -> dict[str, int]:
    return {"num_warps": 8 if side == SMALL else 4}


def kept_size(n: int, m: int, D: int) -> int:
    """The number of values for backward, followed by the parts that forward's second launch adds."""
    side = side_of(n, m)
    return side * side + 4 * side + triton.cdiv(D, SPAN) * (side * side + 2 * side)


def forward_launches(
    u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: Tensor | float, normalize: bool, offset: int,
    shares: tuple[float, float], precision: str, table: Table | None = None,
) -> tuple[list[Launch], Tensor, Tensor]:  # fmt: skip
    """The two launches, and the loss and ``kept`` that they fill; ``table`` replaces the device's choices."""
    (n, D), m = u.shape, len(v)
    side, spans = side_of(n, m), triton.cdiv(D, SPAN)
    loss = torch.empty((), dtype=torch.float32, device=u.device)
    kept = torch.empty(kept_size(n, m, D), dtype=torch.float32, device=u.device)
    of_products, of_sums = choice("small_products", u, table, side), choice("small_forward", kept, table, side)
    products = Launch(
        small_products,
        (spans,),
        {"u": u, "v": v, "kept": kept, "n": n, "m": m},
        {"D": D, "SIDE": side, "SPAN": SPAN, "CHUNK": width(D, of_products.get("CHUNK", 32)), "PRECISION": precision},
        warps_of(side) | options_of(of_products),
    )
    sums = Launch(
        small_forward,
        (1,),
        {"kept": kept, "codes": codes, "codes_v": codes_v, "tau": tau, "loss": loss, "n": n, "m": m}
        | {"offset": offset, "share_u": shares[0], "share_v": shares[1]},
        {"SIDE": side, "PARTS": spans, "NORMALIZE": normalize},
        warps_of(side) | options_of(of_sums),
    )
    return [products, sums], loss, kept


def backward_launch(
    grad: Tensor, u: Tensor, v: Tensor, kept: Tensor, normalize: bool, grad_u: Tensor | None, grad_v: Tensor | None,
    precision: str, table: Table | None = None,
) -> Launch:  # fmt: skip
    """The launch that fills those gradients that are not None; ``table`` replaces the device's choices."""
    (n, D), m = u.shape, len(v)
    side = side_of(n, m)
    chosen = choice("small_backward", u, table, side)
    chunk = width(D, chosen.get("CHUNK", 32))
    filled = {"grad_u": u if grad_u is None else grad_u, "grad_v": v if grad_v is None else grad_v}
    constants = {"D": D, "SIDE": side, "CHUNK": chunk, "PRECISION": precision, "NORMALIZE": normalize}
    constants["FIRST"] = int(grad_u is None)
    args = {"grad": grad, "u": u, "v": v, "kept": kept, **filled, "n": n, "m": m}
    gradients = (grad_u is not None) + (grad_v is not None)
    options = warps_of(side) | options_of(chosen)
    return Launch(small_backward, (triton.cdiv(D, chunk), gradients), args, constants, options)
