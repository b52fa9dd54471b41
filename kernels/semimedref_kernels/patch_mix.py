"""Patch mixing: paste a box of the partner's image and target, where the teacher is sure of the partner's lesion.

Plain PyTorch form; vectorised over the batch, no Python loop over samples and no host synchronisation.
"""

from __future__ import annotations

import torch
from torch import Tensor


def patch_mix(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixes each sample with its partner inside one box, in image and target alike, or not at all.

    With m the box of sample i and j = partner[i]: the gate accepts if the mean of p_j over the box is at least
    ``threshold``; then image ``m s_j + (1 - m) s_i`` and target ``m p_j + (1 - m) p_i``, else both stay as they were.

    Args:
        images: ``[B, C, H, W]`` strong views s.
        probs: ``[B, 1, H, W]`` teacher probabilities p, 0 to 1.
        partner: ``[B]`` int64, a permutation (values 0 to B - 1).
        boxes: ``[B, 4]`` int64 (y0, x0, y1, x1), ends exclusive; the part outside the image does not count, and an
            empty box is refused by the gate.
        threshold: smallest mean probability that the gate accepts.

    Returns:
        Mixed images ``[B, C, H, W]``, mixed probabilities ``[B, 1, H, W]``, accepted ``[B]`` bool.

    Raises:
        ValueError: if the shapes do not fit together.
    """
    batch, _, height, width = images.shape
    if probs.shape != (batch, 1, height, width) or partner.shape != (batch,) or boxes.shape != (batch, 4):
        raise ValueError(
            f"patch_mix: images {tuple(images.shape)} need probs [B, 1, H, W], partner [B] and boxes [B, 4]; got "
            f"{tuple(probs.shape)}, {tuple(partner.shape)} and {tuple(boxes.shape)}"
        )
    y = torch.arange(height, device=images.device)
    x = torch.arange(width, device=images.device)
    y0, x0, y1, x1 = boxes[:, :, None].unbind(1)
    box = ((y >= y0) & (y < y1))[:, None, :, None] & ((x >= x0) & (x < x1))[:, None, None, :]
    donor = probs[partner]
    area = box.sum((1, 2, 3))
    accepted = ((donor * box).sum((1, 2, 3)) >= threshold * area) & (area > 0)
    box = box & accepted[:, None, None, None]
    return torch.where(box, images[partner], images), torch.where(box, donor, probs), accepted
