"""The soft-positive contrastive loss in Triton; symbols as in :mod:`~semimedref_kernels.soft_contrastive_plain`.

There are two cases. A training batch (N and M up to 64) uses the launches of
:mod:`~semimedref_kernels.soft_contrastive_small`. For more embeddings (gathered or queued), z would need most of the
memory. So tiles of z are computed, used and dropped; a tile gives the sums of its rows and of its columns together.
Backward computes the tiles again, one square block of the matrix at a time. It writes the part for both gradients to
one buffer, which stays in the GPU's cache for two matrix products. The tiles do not contain P. Its part comes from the
class sums of the plain form, which are computed once and kept for backward. No two programs write to the same place,
and partial results are added in a fixed order. So there are no atomics, and the bits are always the same.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from semimedref_kernels import soft_contrastive_small as small
from semimedref_kernels.choices import Choice, Table, choice, options_of
from semimedref_kernels.launch import Launch
from semimedref_kernels.soft_contrastive_plain import CODES, safe, shares_of
from semimedref_kernels.soft_contrastive_tiles import (
    EPS,
    dot,
    exact,
    load_codes,
    load_rows,
    number,
    shared,
    store_rows,
    width,
)

LOG2E = tl.constexpr(1.4426950408889634)
GROUP = 8  # rows of tiles in a group: programs that run at the same time share rows and columns in the cache
SPANS = 32  # largest number of parts of the class sums
BLOCK_BYTES = 2**25  # size of the backward buffer: 4096 x 4096 in bfloat16, which fits into 50 MB of cache


@triton.jit
def tile_of(n, m, ROWS: tl.constexpr, COLS: tl.constexpr, GROUP: tl.constexpr):
    """The tile of this program, in groups of GROUP rows of tiles."""
    down, across = tl.cdiv(n, ROWS), tl.cdiv(m, COLS)
    group = tl.program_id(0) // (GROUP * across)
    size = tl.minimum(down - group * GROUP, GROUP)
    within = tl.program_id(0) % (GROUP * across)
    return group * GROUP + within % size, within // size


@triton.jit
def similarities(
    u, v, i, n, j, m,
    D: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """``u_i . v_j`` for a tile ``[ROWS, COLS]``, in steps of CHUNK columns. Places outside get values of existing
    rows."""
    d = tl.arange(0, CHUNK)[None, :]
    u += tl.where(i < n, i, 0).to(tl.int64)[:, None] * D + d
    v += tl.where(j < m, j, 0).to(tl.int64)[:, None] * D + d
    z = tl.zeros((ROWS, COLS), dtype=tl.float32)
    for start in range(0, D, CHUNK):
        if D % CHUNK == 0:
            u_part, v_part = tl.load(u + start), tl.load(v + start)
        else:
            u_part = tl.load(u + start, mask=start + d < D, other=0.0)
            v_part = tl.load(v + start, mask=start + d < D, other=0.0)
        z = dot(u_part, v_part.T, z, PRECISION)
    return z


@triton.jit
def sums_of_exp(
    u, v, tau, row_parts, column_parts, n, m,
    D: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr, SAFE: tl.constexpr,
):  # fmt: skip
    """The sums of ``exp(z_ij)`` over each row and each column of one tile.

    SAFE: ``exp(z)`` cannot overflow or vanish, so rows and columns share one exponential. Otherwise each row and column
    subtracts its largest z, and stores the logarithm (to base 2) of its sum.
    """
    tile_i, tile_j = tile_of(n, m, ROWS, COLS, GROUP)
    i, j = tile_i * ROWS + tl.arange(0, ROWS), tile_j * COLS + tl.arange(0, COLS)
    z = similarities(u, v, i, n, j, m, D, ROWS, COLS, CHUNK, PRECISION) * (LOG2E / number(tau))
    inside = (i[:, None] < n) & (j[None, :] < m)
    if SAFE:
        e = tl.where(inside, tl.exp2(z), 0.0)
        of_row, of_column = tl.sum(e, 1), tl.sum(e, 0)
    else:
        z = tl.where(inside, z, float("-inf"))
        top_i, top_j = tl.where(i < n, tl.max(z, 1), 0.0), tl.where(j < m, tl.max(z, 0), 0.0)
        of_row = top_i + tl.log2(tl.sum(tl.exp2(z - top_i[:, None]), 1))
        of_column = top_j + tl.log2(tl.sum(tl.exp2(z - top_j[None, :]), 0))
    tl.store(row_parts + tile_j.to(tl.int64) * n + i, of_row, mask=i < n)
    tl.store(column_parts + tile_i.to(tl.int64) * m + j, of_column, mask=j < m)


@triton.jit
def pushes(
    u, v, tau, lse_u, lse_v, weight_u, weight_v, push, n, m, share_u, share_v,
    D: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, CHUNK: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr, SAFE: tl.constexpr,
):  # fmt: skip
    """A tile of ``push_ij = r_i softmax_j z + c_j softmax_i z``, ``[N, M]`` in the embeddings' type.

    SAFE as in :func:`sums_of_exp`: ``exp(z) (r_i exp(-lse_i) + c_j exp(-lse_j))``.
    """
    tile_i, tile_j = tile_of(n, m, ROWS, COLS, GROUP)
    i, j = tile_i * ROWS + tl.arange(0, ROWS), tile_j * COLS + tl.arange(0, COLS)
    z = similarities(u, v, i, n, j, m, D, ROWS, COLS, CHUNK, PRECISION) * (LOG2E / number(tau))
    r = tl.where(tl.load(weight_u + i, mask=i < n, other=0.0) > 0, share_u, 0.0)
    c = tl.where(tl.load(weight_v + j, mask=j < m, other=0.0) > 0, share_v, 0.0)
    lse_i = tl.load(lse_u + i, mask=i < n, other=float("inf")) * LOG2E
    lse_j = tl.load(lse_v + j, mask=j < m, other=float("inf")) * LOG2E
    if SAFE:
        tile = tl.exp2(z) * ((r * tl.exp2(-lse_i))[:, None] + (c * tl.exp2(-lse_j))[None, :])
    else:
        tile = r[:, None] * tl.exp2(z - lse_i[:, None]) + c[None, :] * tl.exp2(z - lse_j[None, :])
    inside = (i[:, None] < n) & (j[None, :] < m)
    tl.store(push + i.to(tl.int64)[:, None] * m + j[None, :], tile.to(push.dtype.element_ty), mask=inside)


@triton.jit
def unit_kernel(u, v, unit_u, unit_v, n, m, D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """Rows of norm 1, in their type; on axis 1 first the images, then the texts."""
    i, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    if tl.program_id(1) == 0:
        x = load_rows(u, i, n, d, D).to(tl.float32)
        store_rows(unit_u, x / tl.maximum(tl.sqrt(tl.sum(x * x, 1)), EPS)[:, None], i, n, d, D)
    else:
        x = load_rows(v, i, m, d, D).to(tl.float32)
        store_rows(unit_v, x / tl.maximum(tl.sqrt(tl.sum(x * x, 1)), EPS)[:, None], i, m, d, D)


@triton.jit
def _class_sums(
    x, codes, others, out, weight, n, m, offset, share, span, weighted,
    D: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, CODES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums of x, or of ``weight_i x_i``, by code over the rows of a span, ``[CODES, CHUNK]``; and sums of the
    weights."""
    c, d = tl.arange(0, CODES), tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    counts = tl.zeros((CODES,), tl.float32)
    for start in range(0, m, 1024):
        k = start + tl.arange(0, 1024)
        counts += tl.histogram(load_codes(others, k, m), CODES, mask=k < m).to(tl.float32)
    total = tl.zeros((CODES, CHUNK), tl.float32)
    first = tl.program_id(1) * span
    for start in range(first, tl.minimum(first + span, n), ROWS):
        i = start + tl.arange(0, ROWS)
        code = load_codes(codes, i, n)
        matched = (i < n) & (i + offset >= 0) & (i + offset < m)
        own = tl.where(matched, 1.0 - shared(code, load_codes(others, i + offset, m)), 0.0)
        sums = own + tl.sum(shared(code[:, None], c[None, :]) * counts[None, :], 1)
        w = tl.where((i < n) & (sums > 0), share / tl.where(sums > 0, sums, 1.0), 0.0)
        factor = tl.where(i < n, tl.where(weighted, w, 1.0), 0.0)
        factors = tl.where(code[None, :] == c[:, None], factor[None, :], 0.0)
        total = dot(factors, load_rows(x, i, n, d, D).to(tl.float32), total, PRECISION)
        if weighted & (tl.program_id(0) == 0):
            tl.store(weight + i, w, mask=i < n)
    store_rows(out, total, c, CODES, d, D)


@triton.jit
def class_sums_kernel(
    u, v, codes, codes_v, parts, weight_u, weight_v, n, m, offset, share_u, share_v, span,
    D: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, CODES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Each program has some columns of D and a span of rows; axis 2 has plain and weighted sums of images and of
    texts."""
    which = tl.program_id(2)
    out = parts + (which * tl.num_programs(1) + tl.program_id(1)) * CODES * D
    if which < 2:
        _class_sums(
            u, codes, codes_v, out, weight_u, n, m, offset, share_u, span, which == 1,
            D, ROWS, CHUNK, CODES, PRECISION,
        )  # fmt: skip
    else:
        _class_sums(
            v, codes_v, codes, out, weight_v, m, n, -offset, share_v, span, which == 3,
            D, ROWS, CHUNK, CODES, PRECISION,
        )  # fmt: skip


@triton.jit
def tables_kernel(
    parts, tables, spans, D: tl.constexpr, CHUNK: tl.constexpr, CODES: tl.constexpr, PRECISION: tl.constexpr
):
    """``tables[axis 1]``: for each code, the class sums of all codes, weighted by their Jaccard index with it."""
    c, d = tl.arange(0, CODES), tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    parts += tl.program_id(1) * spans * CODES * D
    total = tl.zeros((CODES, CHUNK), tl.float32)
    for span in range(spans):
        total += load_rows(parts + span * CODES * D, c, CODES, d, D)
    table = shared(c[:, None], c[None, :])
    nothing = tl.zeros((CODES, CHUNK), tl.float32)
    store_rows(tables + tl.program_id(1) * CODES * D, dot(table, total, nothing, PRECISION), c, CODES, d, D)


@triton.jit
def pulled(
    other, codes, codes_v, weight_u, weight_v, tables, i, n, m, offset, d,
    D: tl.constexpr, CODES: tl.constexpr,
):  # fmt: skip
    """``(W other)_i`` of some rows; ``tables`` belong to the other side."""
    code = load_codes(codes, i, n)
    w = tl.load(weight_u + i, mask=i < n, other=0.0)
    plain, weighted = load_rows(tables, code, CODES, d, D), load_rows(tables + CODES * D, code, CODES, d, D)
    pair = i + offset
    matched = (i < n) & (pair >= 0) & (pair < m)
    own = tl.where(matched, 1.0 - shared(code, load_codes(codes_v, pair, m)), 0.0)
    own *= w + tl.load(weight_v + pair, mask=matched, other=0.0)
    partner = load_rows(other, tl.where(matched & (own != 0), pair, m), m, d, D).to(tl.float32)
    return plain * w[:, None] + weighted + partner * own[:, None]


@triton.jit
def _log_sums(parts, count, i, n, SAFE: tl.constexpr):
    """The log-sum-exps of rows i from the parts of their tiles."""
    if SAFE:
        total = tl.zeros(i.shape, tl.float32)
        for _ in range(count):
            total += tl.load(parts + i, mask=i < n, other=1.0)
            parts += n
        return tl.log(total)
    else:
        top = tl.full(i.shape, float("-inf"), tl.float32)
        total = tl.zeros(i.shape, tl.float32)
        for _ in range(count):
            one = tl.load(parts + i, mask=i < n, other=0.0)
            parts += n
            higher = tl.maximum(top, one)
            total = total * tl.exp2(top - higher) + tl.exp2(one - higher)
            top = higher
        return (top + tl.log2(total)) / LOG2E


@triton.jit
def finish_kernel(
    u, v, codes, codes_v, tau, row_parts, column_parts, lse_u, lse_v, weight_u, weight_v, tables, losses,
    n, m, offset, share_u, share_v, row_count, column_count,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, SAFE: tl.constexpr,
):  # fmt: skip
    """Log-sum-exps of ROWS images or texts (axis 1), and their part of the loss."""
    i, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    if tl.program_id(1) == 0:
        lse = _log_sums(row_parts, row_count, i, n, SAFE)
        tl.store(lse_u + i, lse, mask=i < n)
        counts = tl.load(weight_u + i, mask=i < n, other=0.0) > 0
        pull = pulled(
            v, codes, codes_v, weight_u, weight_v, tables + 2 * CODES * D, i, n, m, offset, d, D, CODES
        )  # fmt: skip
        along = tl.sum(load_rows(u, i, n, d, D).to(tl.float32) * pull, 1) / number(tau)
        loss = tl.sum(tl.where(counts, share_u * lse, 0.0) - along, 0)
    else:
        lse = _log_sums(column_parts, column_count, i, m, SAFE)
        tl.store(lse_v + i, lse, mask=i < m)
        counts = tl.load(weight_v + i, mask=i < m, other=0.0) > 0
        loss = tl.sum(tl.where(counts, share_v * lse, 0.0), 0)
    tl.store(losses + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), loss)


@triton.jit
def _gradient_rows(
    pushed, mine, other, out, codes, codes_v, weight_u, weight_v, tables, scale, n, m, offset,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, NORMALIZE: tl.constexpr,
):  # fmt: skip
    i, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    pull = pulled(other, codes, codes_v, weight_u, weight_v, tables, i, n, m, offset, d, D, CODES)
    grad = (load_rows(pushed, i, n, d, D) - pull) * scale
    if NORMALIZE:  # what lies along the embedding does not come through
        x = load_rows(mine, i, n, d, D).to(tl.float32)
        one_over = 1.0 / tl.maximum(tl.sqrt(tl.sum(x * x, 1)), EPS)[:, None]
        x *= one_over
        grad = (grad - tl.sum(grad * x, 1)[:, None] * x) * one_over
    store_rows(out, grad, i, n, d, D)


@triton.jit
def gradients_kernel(
    grad, tau, u, v, unit_u, unit_v, pushed_u, pushed_v, grad_u, grad_v, codes, codes_v, weight_u, weight_v, tables,
    n, m, offset,
    D: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, NORMALIZE: tl.constexpr,
    NEEDS_U: tl.constexpr, NEEDS_V: tl.constexpr,
):  # fmt: skip
    """The gradients from ``push v`` and ``push^T u``: subtracts W v and W^T u, divides by tau, and applies the
    normalisation."""
    scale = tl.load(grad).to(tl.float32) / number(tau)
    if NEEDS_U and tl.program_id(1) == 0:
        _gradient_rows(
            pushed_u, u, unit_v, grad_u, codes, codes_v, weight_u, weight_v, tables + 2 * CODES * D, scale,
            n, m, offset, D, WIDTH, ROWS, CODES, NORMALIZE,
        )  # fmt: skip
    if NEEDS_V and tl.program_id(1) == 1:
        _gradient_rows(
            pushed_v, v, unit_u, grad_v, codes_v, codes, weight_v, weight_u, tables, scale,
            m, n, -offset, D, WIDTH, ROWS, CODES, NORMALIZE,
        )  # fmt: skip


def tile_sizes(u: Tensor, chosen: Choice | None = None) -> dict[str, int]:
    """Rows and columns of a tile, and columns of D at a time. ``chosen`` replaces built-in sizes. These are the largest
    that do not spill; float32 needs three products, so its tiles are smaller. The columns of D are 128 bytes, one line
    of memory."""
    sizes = {"ROWS": 64 if u.dtype == torch.float32 else 128, "COLS": 128}
    sizes |= {name: chosen[name] for name in sizes if chosen and name in chosen}
    return sizes | {"CHUNK": width(u.shape[1], 128 // u.element_size())}


def row_sizes(D: int) -> dict[str, int]:
    """Sizes for whole rows of D: about 2048 numbers for each program."""
    columns = width(D, 2**20)
    return {"WIDTH": columns, "ROWS": max(1, 2048 // columns)}


def tile_launch(
    kernel: triton.JITFunction, precision: str, safe: bool, table: Table | None = None, **args: Tensor | float
) -> Launch:
    """:func:`sums_of_exp` or :func:`pushes` over all tiles of u and v; ``table`` replaces the device's choices."""
    (n, D), m = args["u"].shape, len(args["v"])
    chosen = choice(kernel.__name__, args["u"], table)
    sizes = tile_sizes(args["u"], chosen)
    constants = {"D": D, **sizes, "GROUP": GROUP, "PRECISION": precision, "SAFE": safe}
    programs = triton.cdiv(n, sizes["ROWS"]) * triton.cdiv(m, sizes["COLS"])
    named = args | {"n": n, "m": m}
    ordered = {name: named[name] for name in kernel.arg_names if name in named}
    return Launch(kernel, (programs,), ordered, constants, {"num_warps": 8} | options_of(chosen))


class Large:
    """The forward and backward launches for more than 64 images or texts, in their order.

    Arguments as in :func:`forward`; all tensors are contiguous. ``table`` replaces the device's choices.
    """

    def __init__(self, u, v, codes, codes_v, tau, normalize, offset, rows_only, precision, table=None):
        self.u, self.v, self.tau, self.normalize, self.offset = u, v, tau, normalize, offset
        self.codes, self.codes_v, self.precision, self.table = codes, codes_v, precision, table
        (self.n, self.D), self.m = u.shape, len(v)
        self.shares = shares_of(self.n, self.m, rows_only)
        self.safe = safe(tau, normalize)
        self.unit_u, self.unit_v = (torch.empty_like(u), torch.empty_like(v)) if normalize else (u, v)

    def split(self, kept: Tensor) -> dict[str, Tensor]:
        """The values for backward: name -> tensor."""
        n, m = self.n, self.m
        parts = kept.split((4 * CODES * self.D, n, m, n, m))  # tables first: aligned for 16-byte reads
        return dict(zip(("tables", "lse_u", "lse_v", "weight_u", "weight_v"), parts, strict=True))

    def unit(self) -> list[Launch]:
        if not self.normalize:
            return []
        sizes = row_sizes(self.D)
        args = {"u": self.u, "v": self.v, "unit_u": self.unit_u, "unit_v": self.unit_v, "n": self.n, "m": self.m}
        return [Launch(unit_kernel, self.rows_grid(sizes), args, {"D": self.D, **sizes})]

    def rows_grid(self, sizes: dict[str, int]) -> tuple[int, int]:
        return triton.cdiv(max(self.n, self.m), sizes["ROWS"]), 2

    def forward(self, kept: Tensor) -> tuple[list[Launch], Tensor]:
        """The launches, and the parts of the loss, whose sum is the loss."""
        n, m, D, float32 = self.n, self.m, self.D, {"dtype": torch.float32, "device": self.u.device}
        found, rows = self.split(kept), row_sizes(D)
        sizes = tile_sizes(self.u, choice("sums_of_exp", self.u, self.table))
        down, across = triton.cdiv(n, sizes["ROWS"]), triton.cdiv(m, sizes["COLS"])
        chunk = width(D, 64)
        span = triton.cdiv(triton.cdiv(max(n, m), 64), SPANS) * 64
        spans = triton.cdiv(max(n, m), span)
        parts = torch.empty(4 * spans * CODES * D, **float32)
        row_parts, column_parts = torch.empty(across * n, **float32), torch.empty(down * m, **float32)
        grid = self.rows_grid(rows)
        losses = torch.empty(grid[0] * 2, **float32)
        embeddings, codes = {"u": self.unit_u, "v": self.unit_v}, {"codes": self.codes, "codes_v": self.codes_v}
        weights = {name: found[name] for name in ("weight_u", "weight_v")}
        about = {"offset": self.offset, "share_u": self.shares[0], "share_v": self.shares[1]}
        constants = {"D": D, "CODES": CODES, "PRECISION": self.precision}
        sums = {"tau": self.tau, "row_parts": row_parts, "column_parts": column_parts}
        log_sums = {"lse_u": found["lse_u"], "lse_v": found["lse_v"]}
        counts = {"row_count": across, "column_count": down}
        return [
            *self.unit(),
            Launch(
                class_sums_kernel,
                (triton.cdiv(D, chunk), spans, 4),
                embeddings | codes | {"parts": parts} | weights | {"n": n, "m": m} | about | {"span": span},
                constants | {"ROWS": 32, "CHUNK": chunk},
                {"num_warps": 8},
            ),
            Launch(
                tables_kernel,
                (triton.cdiv(D, chunk), 4),
                {"parts": parts, "tables": found["tables"], "spans": spans},
                constants | {"CHUNK": chunk},
            ),
            tile_launch(sums_of_exp, self.precision, self.safe, self.table, **embeddings, **sums),
            Launch(
                finish_kernel,
                grid,
                embeddings | codes | sums | log_sums | weights | {"tables": found["tables"], "losses": losses}
                | {"n": n, "m": m} | about | counts,
                {"D": D, **rows, "CODES": CODES, "SAFE": self.safe},
            ),
        ], losses  # fmt: skip

    def push(self, kept: Tensor, rows: slice, columns: slice, buffer: Tensor) -> tuple[Launch, Tensor]:
        """The launch for a block of the matrix, and the block in the buffer."""
        found = self.split(kept)
        n, m = rows.stop - rows.start, columns.stop - columns.start
        block = buffer[: n * m].view(n, m)
        own = {name: found[f"{name}_u"][rows] for name in ("lse", "weight")}
        others = {name: found[f"{name}_v"][columns] for name in ("lse", "weight")}
        args = {"u": self.unit_u[rows], "v": self.unit_v[columns], "tau": self.tau, "push": block}
        args |= {"lse_u": own["lse"], "lse_v": others["lse"], "weight_u": own["weight"], "weight_v": others["weight"]}
        args |= {"share_u": self.shares[0], "share_v": self.shares[1]}
        return tile_launch(pushes, self.precision, self.safe, self.table, **args), block

    def blocks(self) -> list[tuple[slice, slice]]:
        """The matrix in blocks of at most :data:`BLOCK_BYTES`, as square as tiles of 128 allow."""
        columns = 4096
        rows = max(128, BLOCK_BYTES // self.u.element_size() // columns // 128 * 128)
        return [
            (slice(i, min(i + rows, self.n)), slice(j, min(j + columns, self.m)))
            for i in range(0, self.n, rows)
            for j in range(0, self.m, columns)
        ]

    def gradients(
        self, grad: Tensor, kept: Tensor, pushed: tuple[Tensor | None, ...], out: tuple[Tensor | None, ...]
    ) -> Launch:
        found, rows = self.split(kept), row_sizes(self.D)
        absent = self.u  # a placeholder for gradients that are not needed; it is not touched
        args = {"grad": grad, "tau": self.tau, "u": self.u, "v": self.v, "unit_u": self.unit_u, "unit_v": self.unit_v}
        args |= {"pushed_u": absent if pushed[0] is None else pushed[0]}
        args |= {"pushed_v": absent if pushed[1] is None else pushed[1]}
        args |= {"grad_u": absent if out[0] is None else out[0], "grad_v": absent if out[1] is None else out[1]}
        args |= {"codes": self.codes, "codes_v": self.codes_v}
        args |= {name: found[name] for name in ("weight_u", "weight_v", "tables")}
        args |= {"n": self.n, "m": self.m, "offset": self.offset}
        constants = {"D": self.D, **rows, "CODES": CODES, "NORMALIZE": self.normalize}
        constants |= {"NEEDS_U": out[0] is not None, "NEEDS_V": out[1] is not None}
        return Launch(gradients_kernel, self.rows_grid(rows), args, constants)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """``total += a @ b`` in float32, also for bfloat16, since rounded sums of blocks would lose digits. Products of
    float32 follow ``torch.set_float32_matmul_precision``."""
    if a.dtype == torch.bfloat16 and a.is_cuda and not torch.version.hip:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)  # torch has this only for CUDA
    else:
        total.addmm_(a.float(), b.float())


def kept_size(n: int, m: int, D: int) -> int:
    """The number of values that forward keeps for backward."""
    return small.kept_size(n, m, D) if max(n, m) <= small.SMALL else 2 * (n + m) + 4 * CODES * D


def forward(
    u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: Tensor | float, normalize: bool, offset: int = 0,
    rows_only: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss ``[]`` and the values for backward in float32, for float32 or bfloat16 embeddings."""
    u, v, codes, codes_v = (x.contiguous() for x in (u, v, codes, codes_v))
    n, m = len(u), len(v)
    if max(n, m) <= small.SMALL:
        shares = shares_of(n, m, rows_only)
        launches, loss, kept = small.forward_launches(
            u, v, codes, codes_v, tau, normalize, offset, shares, exact()
        )  # fmt: skip
        for launch in launches:
            launch.run()
        return loss, kept
    kept = u.new_empty(kept_size(n, m, u.shape[1]), dtype=torch.float32)
    launches, losses = Large(u, v, codes, codes_v, tau, normalize, offset, rows_only, exact()).forward(kept)
    for launch in launches:
        launch.run()
    return losses.sum(), kept


def backward(
    grad: Tensor, u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: Tensor | float, normalize: bool,
    kept: Tensor, offset: int = 0, rows_only: bool = False, needs: tuple[bool, bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients for u ``[N, D]`` and v ``[M, D]``, in their types; None if not needed."""
    u, v, codes, codes_v = (x.contiguous() for x in (u, v, codes, codes_v))
    out = tuple(torch.empty_like(x) if needed else None for x, needed in zip((u, v), needs, strict=True))
    if max(len(u), len(v)) <= small.SMALL:
        small.backward_launch(grad, u, v, kept, normalize, *out, exact()).run()
        return out
    large = Large(u, v, codes, codes_v, tau, normalize, offset, rows_only, exact())
    for launch in large.unit():
        launch.run()
    pushed = tuple(None if x is None else torch.zeros_like(x, dtype=torch.float32) for x in out)
    blocks = large.blocks()
    buffer = u.new_empty(max((i.stop - i.start) * (j.stop - j.start) for i, j in blocks))
    for rows, columns in blocks:
        launch, block = large.push(kept, rows, columns, buffer)
        launch.run()
        if needs[0]:
            add_product(pushed[0][rows], block, large.unit_v[columns])
        if needs[1]:
            add_product(pushed[1][columns], block.T, large.unit_u[rows])
    large.gradients(grad, kept, pushed, out).run()
    return out


def aot_configurations(precision: str, D: int, table: Table | None = None) -> dict[str, Launch]:
    """The kernels to compile ahead of time: name -> launch of tensors without memory (device ``meta``).

    There is each kernel for float32 and bfloat16 with normalisation, the small kernels for each size of tile, and the
    tile kernels also with a running maximum.

    Args:
        precision: "tf32x3" for NVIDIA, "ieee" for AMD.
        D: width of the embeddings. It is how often loops run, and how wide the kernels are that take whole rows.
        table: replaces a device's choices.
    """
    found = {}
    for dtype, short in ((torch.float32, "fp32"), (torch.bfloat16, "bf16")):
        for n in (16, 32, small.SMALL):
            u, codes = torch.empty(n, D, dtype=dtype, device="meta"), torch.empty(n, dtype=torch.int64, device="meta")
            shares = shares_of(n, n, False)
            ahead, loss, kept = small.forward_launches(u, u, codes, codes, 0.07, True, 0, shares, precision, table)
            for launch in (*ahead, small.backward_launch(loss, u, u, kept, True, u, u, precision, table)):
                found[f"{launch.kernel.__name__} {short} N={n} D={D}"] = launch
        n = 4096
        u, codes = torch.empty(n, D, dtype=dtype, device="meta"), torch.empty(n, dtype=torch.int64, device="meta")
        kept = torch.empty(kept_size(n, n, D), device="meta")
        for normalize in (True, False):
            large = Large(u, u, codes, codes, 0.07, normalize, 0, False, precision, table)
            whole, wide = slice(0, n), torch.empty(n, D, device="meta")
            launches = [*large.forward(kept)[0], large.push(kept, whole, whole, u.new_empty(n * n))[0]]
            launches.append(large.gradients(kept[:1], kept, (wide, wide), (u, u)))
            for launch in launches:
                if normalize or launch.kernel in (sums_of_exp, pushes):
                    maximum = "" if normalize else " maximum"
                    found[f"{launch.kernel.__name__} {short} D={D}{maximum}"] = launch
    return found
