"""The baselines of the two operations: usual implementations without this package.

All forms of an operation have the same arguments and results, and are differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

from semimedref_kernels.soft_contrastive import jaccard

CHUNK = 2**25  # largest number of logits in a chunk of rows: 128 MiB in float32


def patch_mix_where(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """All samples at once, with a mask of each box of the size of the image. No value is copied to the host."""
    height, width = images.shape[2:]
    y0, x0, y1, x1 = (edge[:, None, None, None] for edge in boxes.unbind(1))
    y, x = torch.arange(height, device=boxes.device)[:, None], torch.arange(width, device=boxes.device)
    box = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
    donor = probs.index_select(0, partner)  # its gradient is faster on a GPU than that of probs[partner]
    with torch.no_grad():
        total = torch.where(box, donor, 0).sum((1, 2, 3), dtype=torch.float32)
        accepted = total >= threshold * box.sum((1, 2, 3))
    box = box & accepted[:, None, None, None]
    mixed = torch.where(box, images.index_select(0, partner), images)
    return mixed, torch.where(box, donor, probs), accepted


def patch_mix_masks_loop(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample by sample, each with its own mask."""
    own, maps = images.unbind(), probs.unbind()
    mixed, target, accepted = [], [], []
    for i, (j, (y0, x0, y1, x1)) in enumerate(zip(partner.tolist(), boxes.tolist(), strict=True)):
        mask = torch.zeros(images.shape[2:], dtype=torch.bool, device=images.device)
        mask[y0:y1, x0:x1] = True
        accepted.append(bool(maps[j].detach()[0][mask].mean(dtype=torch.float32) >= threshold))
        mixed.append(torch.where(mask, own[j], own[i]) if accepted[-1] else own[i])
        target.append(torch.where(mask, maps[j], maps[i]) if accepted[-1] else maps[i])
    return torch.stack(mixed), torch.stack(target), torch.tensor(accepted, device=images.device)


class _Slices(torch.autograd.Function):
    """Defines the gradient by hand, because autograd would copy the whole batch for every assigned slice."""

    @staticmethod
    def forward(ctx, images, probs, partner, boxes, threshold):
        mixed, target, ctx.pasted, accepted = images.clone(), probs.clone(), [], []
        for i, (j, (y0, x0, y1, x1)) in enumerate(zip(partner.tolist(), boxes.tolist(), strict=True)):
            patch = (slice(None), slice(y0, y1), slice(x0, x1))
            donor = probs[j][patch]
            accepted.append(donor.mean(dtype=torch.float32).item() >= threshold)
            if accepted[-1]:
                mixed[i][patch], target[i][patch] = images[j][patch], donor
                ctx.pasted.append((i, j, patch))
        accepted = torch.tensor(accepted, device=images.device)
        ctx.mark_non_differentiable(accepted)
        return mixed, target, accepted

    @staticmethod
    def backward(ctx, *grads):
        returned = []
        for grad in grads[:2]:
            total = grad.clone()
            for i, _, patch in ctx.pasted:
                total[i][patch] = 0
            for i, j, patch in ctx.pasted:
                total[j][patch] += grad[i][patch]
            returned.append(total)
        return *returned, None, None, None


def patch_mix_slices_loop(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample by sample, with each box as a slice: no masks, and besides the returned copies only boxes are touched."""
    return _Slices.apply(images, probs, partner, boxes, threshold)


def unit(x: Tensor) -> Tensor:
    """Rows of norm 1, normalised in float32 or wider, returned in the type of x, which is multiplied fastest."""
    return normalize(x if x.dtype == torch.float64 else x.float(), dim=1).to(x.dtype)


def loss_dense(u: Tensor, v: Tensor, codes: Tensor, tau: float) -> tuple[Tensor]:
    """The loss as in Eq. 9, 10 and 11, with N x N matrices of positives and of logits."""
    p = jaccard(codes)
    z = (unit(u) @ unit(v).T).float() / tau
    rows = (p * z.log_softmax(1)).sum(1) / p.sum(1)
    columns = (p * z.log_softmax(0)).sum(0) / p.sum(0)
    return (-(rows.mean() + columns.mean()) / 2,)


def loss_chunks(u: Tensor, v: Tensor, codes: Tensor, tau: float, chunk: int = CHUNK) -> tuple[Tensor]:
    """The loss in chunks of rows with at most ``chunk`` logits at a time. Each chunk is computed again for its
    gradient.

    float64 embeddings are computed in float64; at any N, this is the reference for the others.
    """
    u, v = unit(u), unit(v)
    n = len(codes)
    rows = max(1, min(n, chunk // n))
    total = 0
    for own, other in ((u, v), (v, u)):
        for start in range(0, n, rows):
            part = checkpoint(
                _rows_loss, own[start : start + rows], other, codes, start, tau,
                use_reentrant=False, preserve_rng_state=False,
            )  # fmt: skip
            total = total + part
    return (total / (2 * n),)


def _rows_loss(own: Tensor, other: Tensor, codes: Tensor, start: int, tau: float) -> Tensor:
    """The sum of the losses of some rows, from row ``start`` on."""
    z = own @ other.T
    z = (z if z.dtype == torch.float64 else z.float()) / tau
    p = _positives(codes, start, len(own), z.dtype)
    return -((p * z.log_softmax(1)).sum(1) / p.sum(1)).sum()


def _positives(codes: Tensor, start: int, rows: int, dtype: torch.dtype) -> Tensor:
    """Some rows of P, from row ``start`` on."""
    sets = ((codes[:, None] >> torch.arange(6, device=codes.device)) & 1).to(dtype)
    mine = sets[start : start + rows]
    both = mine @ sets.T
    p = both / (mine.sum(1)[:, None] + sets.sum(1) - both).clamp(min=1)
    p.diagonal(start).fill_(1)
    return p


class _AtOnce(torch.autograd.Function):
    """One direction of the loss with its gradients, chunk by chunk of rows. No logits are kept."""

    @staticmethod
    def forward(ctx, own, other, codes, tau, chunk):
        n = len(codes)
        rows, total = max(1, min(n, chunk // n)), 0
        grad_own, grad_other = torch.empty_like(own), torch.zeros_like(other, dtype=_sums(own))
        for start in range(0, n, rows):
            at = slice(start, start + rows)
            z = (own[at] @ other.T).to(_sums(own)) / tau
            p = _positives(codes, start, len(z), z.dtype)
            p /= p.sum(1, keepdim=True)
            log_softmax = z.log_softmax(1)
            total = total - (p * log_softmax).sum()
            grad = log_softmax.exp_().sub_(p).div_(tau).to(own.dtype)
            grad_own[at] = grad @ other
            grad_other += grad.T @ own[at]
        ctx.save_for_backward(grad_own, grad_other.to(other.dtype))
        return total

    @staticmethod
    def backward(ctx, grad):
        return *((grad * x).to(x.dtype) for x in ctx.saved_tensors), None, None, None


def loss_at_once(u: Tensor, v: Tensor, codes: Tensor, tau: float, chunk: int = CHUNK) -> tuple[Tensor]:
    """The loss in chunks of rows, with gradients in the forward pass and library products. This is the way of Liger's
    fused losses (arXiv:2410.10989), here with soft positives and both directions."""
    u, v = unit(u), unit(v)
    return ((_AtOnce.apply(u, v, codes, tau, chunk) + _AtOnce.apply(v, u, codes, tau, chunk)) / (2 * len(codes)),)


def loss_cross_entropy(u: Tensor, v: Tensor, codes: Tensor, tau: float) -> tuple[Tensor]:
    """The usual loss with hard positives, which ignores codes, as in Inf-CL (arXiv:2410.17243)."""
    z = (unit(u) @ unit(v).T).to(_sums(u)) / tau
    own = torch.arange(len(u), device=u.device)
    return ((cross_entropy(z, own) + cross_entropy(z.T, own)) / 2,)


def _sums(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def loss_pairs_loop(u: Tensor, v: Tensor, codes: Tensor, tau: float) -> tuple[Tensor]:
    """The loss pair by pair in Python."""
    images, texts, sets = unit(u).unbind(), unit(v).unbind(), codes.tolist()
    z = [[(image @ text).float() / tau for text in texts] for image in images]
    total = 0
    for lines in (z, list(zip(*z, strict=True))):
        for i, line in enumerate(lines):
            log_sum = torch.stack(list(line)).logsumexp(0)
            pull, positives = 0, 0
            for j, logit in enumerate(line):
                share = 1.0 if i == j else (sets[i] & sets[j]).bit_count() / max(1, (sets[i] | sets[j]).bit_count())
                if share:
                    pull, positives = pull + share * (logit - log_sum), positives + share
            total = total - pull / positives
    return (total / (2 * len(sets)),)
