"""The soft-positive contrastive loss in plain PyTorch, for any device: the form to read the Triton kernels beside.

Notation: image embeddings ``u [N, D]`` with codes ``a [N]``, text embeddings ``v [M, D]`` with codes ``b [M]``,
``z_ij = u_i . v_j / tau``, soft positives ``P_ij = J(a_i, b_j)`` (Jaccard), ``P_ii = 1``, row sums ``R_i`` and column
sums ``C_j`` of P. Written over pairs, the loss is

    ``L = sum_i r_i lse_i + sum_j c_j lse_j - sum_ij W_ij z_ij``,  ``r_i = 1/2N``, ``c_j = 1/2M``,
    ``W_ij = P_ij (r_i / R_i + c_j / C_j)``.

**The class-sum identity.** Off the diagonal, ``P_ij`` depends on the two codes alone, and there are 64 codes. So
``(W v)_i = sum_j W_ij v_j`` needs 64 sums over the texts, from which every image picks the one of its code, plus a
correction for its own text; ``sum_ij W_ij z_ij = sum_i u_i . (W v)_i / tau``. P is never formed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BITS = 6
CODES = 2**BITS
SHORTEST = 1e-12  # length that a shorter embedding is divided by, as torch.nn.functional.normalize does


def jaccard(codes: Tensor, bits: int = BITS) -> Tensor:
    """Soft positives ``P_ij = |a_i & a_j| / |a_i | a_j|`` (0 where the union is empty), P_ii = 1 (Eq. 9; paper: 9).

    Args:
        codes: ``[N]`` integers, bit k of a code says whether the set holds element k.
        bits: number of elements.

    Returns:
        ``[N, N]`` float32, symmetric, 0 to 1.
    """
    return shared(codes, bits, torch.float32).fill_diagonal_(1.0)


def shared(codes: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """The Jaccard index alone, ``[N, N]``, its diagonal left as it comes: 0 for an empty set."""
    sets = ((codes[:, None] >> torch.arange(bits, device=codes.device)) & 1).to(dtype)
    both = sets @ sets.T
    sizes = sets.sum(1)
    either = sizes[:, None] + sizes - both
    return both / either.clamp(min=1)


class Positives(NamedTuple):
    """What the loss needs to know of P and W: nothing of size N x M."""

    share_u: Tensor  # [N]: r_i, or 0 for an image without any positive
    share_v: Tensor  # [M]: c_j, likewise
    pull_u: Tensor  # [N, D]: W v, what draws the images
    pull_v: Tensor  # [M, D]: W^T u, what draws the texts


def class_sums(u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor) -> Positives:
    """The positive side of the loss by 64 class sums (Eq. 12): O((N + M) D) memory, no atomics, always the same bits.

    Args:
        u, v: ``[N, D]`` and ``[M, D]``, float32 or float64.
        codes, codes_v: ``[N]`` and ``[M]`` integers, of which the lowest six bits count.
    """
    codes, codes_v = codes.long() & (CODES - 1), codes_v.long() & (CODES - 1)
    table = shared(torch.arange(CODES, device=u.device), BITS, u.dtype)
    to_v, to_u = table[:, codes_v], table[:, codes]  # [64, M] and [64, N]: J of every code with every sample
    matched = min(len(codes), len(codes_v))
    own = 1 - table[codes[:matched], codes_v[:matched]]  # what forcing P_ii to 1 adds to J

    def weights(others: Tensor, mine: Tensor) -> tuple[Tensor, Tensor]:
        sums = others.sum(1)[mine]
        sums[:matched] += own
        share = (sums > 0).to(u.dtype) / (2 * len(mine))
        return share, share / sums.where(sums > 0, 1)

    share_u, weight_u = weights(to_v, codes)
    share_v, weight_v = weights(to_u, codes_v)

    def pull(mine: Tensor, weight: Tensor, others: Tensor, table: Tensor, weight_others: Tensor) -> Tensor:
        pulled = (table @ others)[mine] * weight[:, None] + ((table * weight_others) @ others)[mine]
        correction = own * (weight[:matched] + weight_others[:matched])
        pulled[:matched] += correction[:, None] * others[:matched]
        return pulled

    return Positives(
        share_u, share_v, pull(codes, weight_u, v, to_v, weight_v), pull(codes_v, weight_v, u, to_u, weight_u)
    )


def forward(
    u: Tensor, v: Tensor, codes: Tensor, codes_v: Tensor, tau: float, normalize: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss ``[]`` (Eq. 11; paper: 9), and the log-sum-exp over texts ``[N]`` and over images ``[M]`` of the
    similarities z (Eq. 10; paper: 9); float64 if the inputs are."""
    u, v = wide(u), wide(v)
    if normalize:
        u, v = u / lengths(u), v / lengths(v)
    positives = class_sums(u, v, codes, codes_v)
    z = (u @ v.T).div_(tau)
    lse_u, lse_v = torch.logsumexp(z, 1), torch.logsumexp(z, 0)
    return combine(u, positives, lse_u, lse_v, tau), lse_u, lse_v


def combine(u: Tensor, positives: Positives, lse_u: Tensor, lse_v: Tensor, tau: float) -> Tensor:
    """``sum_i r_i lse_i + sum_j c_j lse_j - sum_i u_i . (W v)_i / tau``."""
    attraction = (u * positives.pull_u).sum() / tau
    return (positives.share_u @ lse_u + positives.share_v @ lse_v - attraction).to(u.dtype)


def backward(
    grad: Tensor,
    u: Tensor,
    v: Tensor,
    codes: Tensor,
    codes_v: Tensor,
    tau: float,
    normalize: bool,
    lse_u: Tensor,
    lse_v: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients for u ``[N, D]`` and v ``[M, D]``, in their types: ``dL/du = (dL/dz v) / tau`` with
    ``dL/dz = r_i softmax_j z + c_j softmax_i z - W``.

    z is computed a second time: cheaper than to keep N x M numbers until now.
    """
    dtype = u.dtype
    u, v = wide(u), wide(v)
    if normalize:
        long_u, long_v = lengths(u), lengths(v)
        u, v = u / long_u, v / long_v
    positives = class_sums(u, v, codes, codes_v)
    z = (u @ v.T).div_(tau)
    push = (z - lse_u[:, None]).exp_().mul_(positives.share_u[:, None])
    push += z.sub_(lse_v).exp_().mul_(positives.share_v)
    scale = grad / tau
    grad_u = (push @ v - positives.pull_u) * scale
    grad_v = (push.T @ u - positives.pull_v) * scale
    if normalize:
        grad_u, grad_v = across(grad_u, u) / long_u, across(grad_v, v) / long_v
    return grad_u.to(dtype), grad_v.to(dtype)


def lengths(x: Tensor) -> Tensor:
    """The rows' lengths ``[N, 1]``, at least :data:`SHORTEST`."""
    return x.norm(dim=1, keepdim=True).clamp(min=SHORTEST)


def across(grad: Tensor, unit: Tensor) -> Tensor:
    """The part of a gradient that is across a unit vector: along it, normalisation lets nothing through."""
    return grad - (grad * unit).sum(1, keepdim=True) * unit


def wide(x: Tensor) -> Tensor:
    """The type that sums are kept in: float32, or float64 for float64."""
    return x if x.dtype == torch.float64 else x.float()
