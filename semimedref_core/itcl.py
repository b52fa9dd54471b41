"""ITCL: the position-guided image-text contrastive loss. Its soft positives are shared anatomical zones.

Two pairs whose reports share zones are partly positives of each other. Their weight is the Jaccard index of their zone
vectors (Eq. 9; paper: 9), ``P_ij = |a_i and a_j| / |a_i or a_j|``, ``P_ii = 1``. The loss (Eq. 10 and 11; paper: 9) is
:func:`semimedref_kernels.soft_contrastive_loss`. If all codes are 0, no zones are shared and ``P`` is the identity.
Then the loss is the usual contrastive loss with hard positives (InfoNCE).

The loss compares each pair with all others of the batch. If several processes share a batch, each process gathers the
embeddings of all of them (:func:`whole_batch`).
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, distributed, nn
from torch.profiler import record_function

from semimedref_core.config import Positives
from semimedref_kernels import jaccard, soft_contrastive_loss


@record_function("losses")
def itcl(
    image_embedding: Tensor, text_embedding: Tensor, codes: Tensor, tau: float = 0.07, positives: Positives = "soft"
) -> Tensor:
    """The loss of a batch of projected embeddings (Eq. 11; paper: 9).

    If several processes share a batch, each calls this function with its part and gets the loss of the whole batch.

    Args:
        image_embedding, text_embedding: ``[N, D]``; this function normalises their lengths.
        codes: ``[N]`` zone codes 0 to 63 (:attr:`semimedref_core.reports.Report.code`).
        tau: temperature.
        positives: ``soft``, or ``hard`` for an ablation in which pairs share no zones.

    Returns:
        Scalar loss, at least 0.

    Raises:
        ValueError: if ``positives`` is unknown.
    """
    _require_positives(positives)
    codes = codes if positives == "soft" else torch.zeros_like(codes)
    u, v, codes = whole_batch(image_embedding.float(), text_embedding.float(), codes)
    return soft_contrastive_loss(u, v, codes, tau, normalize=True)


def _require_positives(positives: str) -> None:
    if positives not in get_args(Positives):
        raise ValueError(f"unknown positives {positives!r}; choose one of {', '.join(get_args(Positives))}")


def whole_batch(image_embedding: Tensor, text_embedding: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings and codes of all processes, in the order of the processes. A single process gets its arguments back.

    In the backward pass the gradients of the processes are summed. All processes have the same loss of the whole batch.
    So the mean of their gradients for a weight is the gradient that one process with the whole batch would get.

    Args:
        image_embedding, text_embedding: ``[N, D]``, with the same N in each process.
        codes: ``[N]``.

    Returns:
        The same tensors with ``N`` times the number of processes rows.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return image_embedding, text_embedding, codes
    both = _Gathered.apply(torch.cat([image_embedding, text_embedding], 1))  # one message
    return *both.split([image_embedding.shape[1], text_embedding.shape[1]], 1), _gathered(codes)


def _gathered(own: Tensor) -> Tensor:
    parts = own.new_empty(distributed.get_world_size() * len(own), *own.shape[1:])
    distributed.all_gather_into_tensor(parts, own.contiguous())
    return parts


class _Gathered(torch.autograd.Function):
    """Stacks ``[N, D]`` of all processes. The gradient is the sum of the gradients of all processes."""

    @staticmethod
    def forward(ctx, own: Tensor) -> Tensor:
        ctx.own = len(own)
        return _gathered(own)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        total = grad.clone()
        distributed.all_reduce(total)
        first = distributed.get_rank() * ctx.own
        return total[first : first + ctx.own]


class ITCL(nn.Module):
    """:func:`itcl` as a module: ``ITCL(tau)(image_embedding, text_embedding, codes)``.

    >>> import torch
    >>> from semimedref_core import ITCL, Report
    >>> reports = [Report.of([0, 0, 1, 0, 0, 0]), Report.of([0, 0, 1, 0, 0, 1])]
    >>> codes = torch.tensor([report.code for report in reports])
    >>> round(ITCL(tau=0.07)(torch.eye(2), torch.eye(2), codes).item(), 2)
    4.76
    """

    def __init__(self, tau: float = 0.07, positives: Positives = "soft"):
        super().__init__()
        _require_positives(positives)
        self.tau, self.positives = tau, positives

    def forward(self, image_embedding: Tensor, text_embedding: Tensor, codes: Tensor) -> Tensor:
        """Arguments and loss as in :func:`itcl`."""
        return itcl(image_embedding, text_embedding, codes, self.tau, self.positives)


def loss_floor(codes: Tensor) -> Tensor:
    """The smallest possible loss: the mean entropy of the rows of P, each divided by its sum.

    The loss minus this floor is the mean Kullback-Leibler divergence of the softmax from these rows. If the softmax
    over N pairs is uniform, the loss is log N. So the gap between log N and the floor is what can be learnt.

    Args:
        codes: ``[N]`` zone codes 0 to 63; all 0 for hard positives, whose floor is 0.

    Returns:
        Scalar, 0 to log N.
    """
    p = jaccard(codes)
    return torch.special.entr(p / p.sum(1, keepdim=True)).sum(1).mean()
