"""Contrastive loss with soft positives given by sets: the Jaccard index of two multi-hot codes. Plain PyTorch form."""

from __future__ import annotations

import torch
from torch import Tensor


def jaccard(codes: Tensor, bits: int = 6) -> Tensor:
    """Soft positives ``P_ij = |a_i & a_j| / |a_i | a_j|`` (0 where the union is empty), the diagonal forced to 1.

    Args:
        codes: ``[N]`` integers, bit k of a code says whether the set holds element k.
        bits: number of elements.

    Returns:
        ``[N, N]`` float32, symmetric, 0 to 1.
    """
    sets = (codes[:, None] >> torch.arange(bits, device=codes.device)) & 1
    sets = sets.float()
    both = sets @ sets.T
    sizes = sets.sum(1)
    either = sizes[:, None] + sizes - both
    return (both / either.clamp(min=1)).fill_diagonal_(1.0)


def soft_contrastive_loss(u: Tensor, v: Tensor, codes: Tensor, tau: float) -> Tensor:
    """Symmetric cross-entropy between the softmax over similarities and the normalised soft positives.

    ``L = 1/2 [ mean_i ( - sum_j P_ij log softmax_j z_ij / sum_j P_ij ) + the same on z^T ]`` with
    ``z_ij = u_i . v_j / tau``.

    Args:
        u, v: ``[N, D]`` image and text embeddings, L2-normalised.
        codes: ``[N]`` integers, see :func:`jaccard`.
        tau: temperature, above 0.

    Returns:
        Scalar loss.

    Raises:
        ValueError: if shapes do not fit or the temperature is not positive.
    """
    if u.shape != v.shape or codes.shape != u.shape[:1]:
        raise ValueError(
            f"soft_contrastive_loss: embeddings {tuple(u.shape)} and {tuple(v.shape)} with codes {tuple(codes.shape)}; "
            "need [N, D], [N, D] and [N]"
        )
    if not tau > 0:
        raise ValueError(f"soft_contrastive_loss: tau must be above 0, got {tau}")
    z = u.float() @ v.float().T / tau
    positives = jaccard(codes)
    positives = positives / positives.sum(1, keepdim=True)  # P is symmetric, so rows serve both directions
    image_to_text = -(positives * z.log_softmax(1)).sum(1).mean()
    text_to_image = -(positives * z.T.log_softmax(1)).sum(1).mean()
    return (image_to_text + text_to_image) / 2
