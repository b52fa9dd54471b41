"""The soft-positive contrastive loss in plain PyTorch, for all devices. Read it beside the Triton kernels.

Notation: image embeddings ``u [N, D]`` with codes ``a [N]``, text embeddings ``v [M, D]`` with codes ``b [M]``,
``z_ij = u_i . v_j / tau``, soft positives ``P_ij = J(a_i, b_j)`` (Jaccard), ``P_ii = 1``, row sums ``R_i`` and column
sums ``C_j`` of P. Written over pairs, the loss is

    ``L = sum_i r_i lse_i + sum_j c_j lse_j - sum_ij W_ij z_ij``,  ``r_i = 1/2N``, ``c_j = 1/2M``,
    ``W_ij = P_ij (r_i / R_i + c_j / C_j)``.

**The class-sum identity.** Off the diagonal, ``P_ij`` depends only on the two codes, and there are 64 codes. So ``(W
v)_i = sum_j W_ij v_j`` needs only 64 sums over the texts. Each image uses the sum of its code, plus a correction for
its own text. And ``sum_ij W_ij z_ij = sum_i u_i . (W v)_i / tau``. P is never formed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from semimedref_kernels.eager import wide

BITS = 6
CODES = 2**BITS
WHOLE = 2**20  # largest number of pairs for which backward gets z from forward: 1024 x 1024, 4 MiB in float32
ROWS = 256  # rows of z that are processed together: 1 MiB, which fits into the cache of a core
SAFE_TAU = 1 / 40  # above it, exp(+-1 / tau) is 1e-18 to 1e17, so float32 can sum a million of them
SHORTEST = 1e-12  # smallest divisor of an embedding, as in torch.nn.functional.normalize


def jaccard(codes: Tensor, bits: int = BITS) -> Tensor:
    """Soft positives ``P_ij = |a_i & a_j| / |a_i | a_j|`` (0 where the union is empty), P_ii = 1 (Eq. 9; paper: 9).

    Args:
        codes: ``[N]`` integers; bit k of a code says whether the set contains element k.
        bits: number of elements.

    Returns:
        ``[N, N]`` float32, symmetric, 0 to 1.
    """
    return shared(codes, bits, torch.float32).fill_diagonal_(1.0)


def shared(codes: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """The Jaccard index ``[N, N]`` without a fixed diagonal: it is 0 there for an empty set."""
    sets = ((codes[:, None] >> torch.arange(bits, device=codes.device)) & 1).to(dtype)
    both = sets @ sets.T
    sizes = sets.sum(1)
    either = sizes[:, None] + sizes - both
    return both / either.clamp(min=1)


class Positives(NamedTuple):
    """The parts of P and W for the loss; none has the size N x M."""

    share_u: Tensor  # [N]: r_i, or 0 for an image without any positive
    share_v: Tensor  # [M]: c_j, likewise
    pull_u: Tensor  # [N, D]: W v, what draws the images
    pull_v: Tensor  # [M, D]: W^T u, what draws the texts


def shares_of(n: int, m: int, rows_only: bool) -> tuple[float, float]:
    """The weights of an image's and a text's log-sum-exp: ``r_i`` and ``c_j``."""
    return (1 / n, 0.0) if rows_only else (0.5 / n, 0.5 / m)


@lru_cache(maxsize=8)
def table_of(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The Jaccard index of each pair of codes, ``[64, 64]``, computed once."""
    return shared(torch.arange(CODES, device=device), BITS, dtype)


def class_sums(
    u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, offset: int = 0, rows_only: bool = False
) -> Positives:
    """The positive part of the loss from 64 class sums (Eq. 12), with O((N + M) D) memory, no atomics, and the same
    bits each time.

    Args:
        u, v: ``[N, D]`` and ``[M, D]``, float32 or float64.
        codes, codes_v: ``[N]`` and ``[M]`` integers; only the lowest six bits count.
        offset: image i is matched with text ``i + offset``.
        rows_only: only the direction from images to texts.
    """
    codes, codes_v = codes.long() & (CODES - 1), codes_v.long() & (CODES - 1)
    table = shared(torch.arange(CODES, device=u.device), BITS, u.dtype)
    to_v, to_u = table[:, codes_v], table[:, codes]  # [64, M] and [64, N]: J of every code with every sample
    matched = max(0, min(len(codes), len(codes_v) - offset))
    at_u, at_v = slice(0, matched), slice(offset, offset + matched)
    own = 1 - table[codes[at_u], codes_v[at_v]]  # the difference between P = 1 and J

    def weights(others: Tensor, mine: Tensor, at: slice, share: float) -> tuple[Tensor, Tensor]:
        sums = others.sum(1)[mine]
        sums[at] += own
        share = (sums > 0).to(u.dtype) * share
        return share, share / sums.where(sums > 0, 1)

    of_u, of_v = shares_of(len(codes), len(codes_v), rows_only)
    share_u, weight_u = weights(to_v, codes, at_u, of_u)
    share_v, weight_v = weights(to_u, codes_v, at_v, of_v)
    correction = (own * (weight_u[at_u] + weight_v[at_v]))[:, None]

    def pull(mine: Tensor, weight: Tensor, others: Tensor, table: Tensor, weight_others: Tensor) -> Tensor:
        return (table @ others)[mine] * weight[:, None] + ((table * weight_others) @ others)[mine]

    pull_u, pull_v = pull(codes, weight_u, v, to_v, weight_v), pull(codes_v, weight_v, u, to_u, weight_u)
    pull_u[at_u] += correction * v[at_v]
    pull_v[at_v] += correction * u[at_u]
    return Positives(share_u, share_v, pull_u, pull_v)


def kept_size(n: int, m: int, D: int) -> int:
    """The number of values that forward keeps for backward."""
    return (n * m if n * m <= WHOLE else 0) + 2 * (n + m)


def forward(
    u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: Tensor | float, normalize: bool, offset: int = 0,
    rows_only: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Loss ``[]`` (Eq. 11; paper: 9) and the tensors for backward; float64 for float64 inputs.

    The log-sum-exps over texts ``[N]`` and over images ``[M]`` are taken of the similarities z (Eq. 10; paper: 9).
    """
    u, v = embeddings(u, v, normalize)[0].split((len(u), len(v)))
    if len(u) * len(v) <= WHOLE:
        return whole_forward(u, v, codes, codes_v, tau, normalize, offset, rows_only)
    positives = class_sums(u, v, codes, codes_v, offset, rows_only)
    z = (u @ v.T).div_(tau)
    lse_u, lse_v = torch.logsumexp(z, 1), torch.logsumexp(z, 0)
    attraction = (u * positives.pull_u).sum() / tau
    loss = positives.share_u @ lse_u + positives.share_v @ lse_v - attraction
    return loss, torch.cat([lse_u, lse_v, positives.share_u, positives.share_v])


def backward(
    grad: Tensor, u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: Tensor | float, normalize: bool,
    kept: Tensor, offset: int = 0, rows_only: bool = False, needs: tuple[bool, bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients for u ``[N, D]`` and v ``[M, D]``, in their types, None if not needed: ``dL/du = (dL/dz v) / tau`` with
    ``dL/dz = r_i softmax_j z + c_j softmax_i z - W``.

    For many pairs, z is computed again, which is cheaper than storing N x M numbers.
    """
    n, dtype = len(u), u.dtype
    both, long = embeddings(u, v, normalize)
    u, v = both.split((n, len(v)))
    scale, gradients = grad / tau, torch.empty_like(both)
    grad_u, grad_v = gradients.split((n, len(v)))
    if len(u) * len(v) <= WHOLE:
        about = tau, normalize, kept, offset, rows_only, scale
        whole_backward(u, v, codes, codes_v, *about, grad_u if needs[0] else None, grad_v if needs[1] else None)
    else:
        positives = class_sums(u, v, codes, codes_v, offset, rows_only)
        lse_u, lse_v, share_u, share_v = kept.split((n, len(v)) * 2)
        z = (u @ v.T).div_(tau)
        push = (z - lse_u[:, None]).exp_().mul_(share_u[:, None])
        push += z.sub_(lse_v).exp_().mul_(share_v)
        push *= scale
        if needs[0]:
            torch.addmm(positives.pull_u.mul_(-scale), push, v, out=grad_u)
        if needs[1]:
            torch.addmm(positives.pull_v.mul_(-scale), push.T, u, out=grad_v)
    at = slice(0 if needs[0] else n, None if needs[1] else n)
    gradients = gradients[at]
    if normalize:
        gradients = across(gradients, both[at]).div_(long[at])
    gradients = gradients.to(dtype)
    return gradients[:n] if needs[0] else None, gradients[n if needs[0] else 0 :] if needs[1] else None


def embeddings(u: Tensor, v: Tensor, normalize: bool) -> tuple[Tensor, Tensor | None]:
    """Images and texts stacked, ``[N + M, D]``, in the type for products, and their norms if they are normalised. This
    takes half as many operations as separate calls."""
    both = wide(torch.cat([u, v]))
    if not normalize:
        return both, None
    long = lengths(both)
    return both.div_(long), long


def positives_of(codes: Tensor, to_v: Tensor, first: int, offset: int) -> Tensor:
    """Rows of P from image ``first`` on, for these codes."""
    p = to_v.index_select(0, codes)
    if first + offset < p.shape[1]:
        p.diagonal(first + offset).fill_(1)
    return p


def to_texts(codes: Tensor, codes_v: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Codes of six bits, and J of all codes with all texts ``[64, M]``."""
    if codes.device.type != "cpu":  # codes of CPU tensors were checked
        codes, codes_v = codes & (CODES - 1), codes_v & (CODES - 1)
    return codes.long(), table_of(dtype, codes.device).index_select(1, codes_v.long())


def whole_forward(
    u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: Tensor | float, normalize: bool, offset: int,
    rows_only: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Forward for few pairs, so that z may be stored. It forms P and uses as few operations as possible.

    It keeps z and its log-sum-exps, or, if :func:`safe`, ``exp(z)`` and the weights of its rows and columns. It also
    keeps the weights of the rows and columns of P.
    """
    n, m = len(u), len(v)
    codes_u, to_v = to_texts(codes, codes_v, u.dtype)
    p = positives_of(codes_u, to_v, 0, offset)
    sums = torch.cat([p.sum(1), p.sum(0)])
    if n == m and not offset and not rows_only:
        share = 0.5 / n  # each has a positive, its own
    else:
        of_u, of_v = shares_of(n, m, rows_only)
        share = (sums > 0).to(u.dtype)
        share[:n] *= of_u
        share[n:] *= of_v
        sums.clamp_(min=1 / BITS)
    weights = share / sums
    kept = u.new_empty(kept_size(n, m, 0))
    z = torch.mm(u / tau, v.T, out=kept[: n * m].view(n, m))
    p.mul_(z)
    attraction = weights @ torch.cat([p.sum(1), p.sum(0)])
    del p  # before the next matrix
    if safe(tau, normalize):
        e = z.exp_()
        totals = torch.cat([e.sum(1), e.sum(0)])
        log_sums, first = totals.log(), share / totals
    else:
        log_sums = first = torch.cat([torch.logsumexp(z, 1), torch.logsumexp(z, 0)])
    torch.cat([first, weights], out=kept[n * m :])
    return (log_sums * share).sum() - attraction, kept


def whole_backward(
    u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: Tensor | float, normalize: bool, kept: Tensor,
    offset: int, rows_only: bool, scale: Tensor, grad_u: Tensor | None, grad_v: Tensor | None,
) -> None:  # fmt: skip
    """Writes the scaled ``dL/dz v`` and ``dL/dz^T u``, some rows at a time, so that they stay in the cache."""
    n, m = len(u), len(v)
    plain = safe(tau, normalize)
    of_u, of_v, weight_u, weight_v = kept[n * m :].split((n, m, n, m))
    if plain:
        of_u, of_v, weight_u, weight_v = (kept[n * m :] * scale).split((n, m, n, m))
    else:
        shares = shares_of(n, m, rows_only)
        share_u, share_v = ((w > 0) * (share * scale) for w, share in zip((weight_u, weight_v), shares, strict=True))
        weight_u, weight_v = weight_u * scale, weight_v * scale
    z = kept[: n * m].view(n, m)
    codes_u, to_v = to_texts(codes, codes_v, u.dtype)
    for first in range(0, n, ROWS):
        at = slice(first, first + ROWS)
        w = positives_of(codes_u[at], to_v, first, offset)
        w.mul_(weight_u[at, None] + weight_v)
        if plain:
            g = (of_u[at, None] + of_v).mul_(z[at]).sub_(w)
        else:
            g = (z[at] - of_u[at, None]).exp_().mul_(share_u[at, None])
            g.add_((z[at] - of_v).exp_().mul_(share_v)).sub_(w)
        if grad_u is not None:
            torch.mm(g, v, out=grad_u[at])
        if grad_v is not None:
            torch.addmm(grad_v, g.T, u[at], beta=0 if first == 0 else 1, out=grad_v)


def safe(tau: Tensor | float, normalize: bool) -> bool:
    """Whether ``exp(z)`` cannot overflow or vanish, so that no maximum is needed. This holds for rows of norm 1 if tau
    is not too small."""
    return normalize and isinstance(tau, float) and tau > SAFE_TAU


def lengths(x: Tensor) -> Tensor:
    """The norms of the rows ``[N, 1]``, at least :data:`SHORTEST`."""
    return torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_(min=SHORTEST)


def across(grad: Tensor, unit: Tensor) -> Tensor:
    """The part of a gradient that is orthogonal to a unit vector; normalisation removes the parallel part."""
    return torch.addcmul(grad, (grad * unit).sum(1, keepdim=True), unit, value=-1)
