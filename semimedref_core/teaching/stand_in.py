"""A stand-in teacher without training, made from true masks: it is uncertain and sometimes wrong."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def stand_in_teacher(masks: Tensor, rng: np.random.Generator) -> Tensor:
    """Probabilities of an imperfect teacher. They show how the parts of the method work, not how well.

    They are blurred masks. Each has its own confidence and places where lesions are half missed, and about every third
    picture has a false prediction.

    Args:
        masks: ``[B, 1, H, W]`` 0/1, square.
        rng: random generator.

    Returns:
        ``[B, 1, H, W]`` float32 in 0 to 1.
    """
    batch, _, size, _ = masks.shape

    def blur(maps: np.ndarray, share: float) -> np.ndarray:
        return ndimage.gaussian_filter(maps, (0, 0, share * size, share * size))

    confidence = rng.beta(12, 1.2, (batch, 1, 1, 1))
    blind = np.clip(1.8 + 25 * blur(rng.standard_normal(masks.shape, np.float32) * size / 96, 0.08), 0.2, 1)
    false = np.zeros(masks.shape, np.float32)
    false[range(batch), 0, rng.integers(size // 4, 3 * size // 4, batch), rng.integers(0, size, batch)] = 1
    false = blur(false, 0.06) * (2 * np.pi * (0.06 * size) ** 2) * (rng.random((batch, 1, 1, 1)) < 1 / 3)
    p = confidence * np.maximum(blur(masks.numpy(), 0.02) * blind, false)
    return torch.from_numpy(np.clip(p, 0, 1)).float()
