"""Weak and strong views, made in batches on the device. The CPU draws the random numbers, so no step waits for them.

The weak view moves the picture and its mask; if it mirrors them, it also flips the report. The strong view changes only
grey values, so teacher and student see the same place.

=============== ===========================================================================================
weak, release   zoom 0.95 to 1.2 with probability 0.1 (the released code's)
weak, strong    zoom 0.8 to 1.25, rotation to 12 degrees, shift to 8 % of the side, mirror with probability
                0.5 (the report then swaps "left" and "right")
strong, release brightness and contrast jitter of 0.2 with probability 0.8, Gaussian blur (7x7, sigma 0.1 to 2)
                with probability 0.5 (the released code's)
strong, clamped as the released code runs: brightness multiplies, and each change clips the grey values to 0 to 1,
                although they are already normalised (Ledger 16)
strong, strong  jitter of 0.5, the same blur, and with probability 0.5 each smooth shading and white noise
=============== ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import record_function

from semimedref_core.config import StrongView, WeakView

WEAK_VIEWS, STRONG_VIEWS = get_args(WeakView), get_args(StrongView)


@dataclass(frozen=True)
class Geometry:
    """The placement of B weak views.

    Attributes:
        affine: ``[B, 2, 3]`` float32, maps a place of the view to the place of the picture that it shows (both -1 to
            1).
        mirrored: ``[B]`` bool, true for left-right mirrored views; their reports must be flipped.
    """

    affine: np.ndarray
    mirrored: np.ndarray

    def upright_where(self, keep: np.ndarray) -> Geometry:
        """The same placement, but views with ``keep`` ``[B]`` bool are not mirrored. Everything else stays."""
        turn = np.where(keep & self.mirrored, np.float32(-1), np.float32(1))[:, None]
        affine = self.affine.copy()
        affine[:, :, 0] *= turn
        return Geometry(affine, self.mirrored & ~keep)

    def zone_boxes(
        self, boxes: np.ndarray, height: int, width: int, swapped: Sequence[int] = (3, 4, 5, 0, 1, 2)
    ) -> np.ndarray:
        """The zone boxes in each view: ``[n, 4]`` -> ``[B, n, 4]`` int64 (y0, x0, y1, x1) px.

        Centre and size of a box follow the view. Its sides stay upright, and the view's edge clips it. In a mirrored
        view the zones swap sides, like the words of its report: box k is where the view shows zone k.

        Args:
            boxes: the boxes of n zones in the picture, px.
            height, width: size of the picture, px.
            swapped: for each zone, the zone that it becomes in the mirror image; by default for the six zones of the
                lungs.
        """
        size = np.array([height, width], dtype=np.float64)
        linear, shift = self.affine[:, :, :2].astype(np.float64), self.affine[:, :, 2].astype(np.float64)
        low, high = boxes[:, :2] / size * 2 - 1, boxes[:, 2:] / size * 2 - 1
        centre = (low + high) / 2
        inverse = np.linalg.inv(linear)  # [B, 2, 2], in (x, y) order as affine is
        moved = np.einsum("bij,bkj->bki", inverse, centre[None, :, ::-1] - shift[:, None])[:, :, ::-1]
        half = (high - low)[None] / 2 * np.sqrt(np.abs(np.linalg.det(inverse)))[:, None, None]
        corners = (np.concatenate([moved - half, moved + half], axis=2) + 1) / 2 * np.tile(size, 2)
        pixels = np.clip(np.rint(corners).astype(np.int64), 0, [height, width, height, width])
        return np.where(self.mirrored[:, None, None], pixels[:, list(swapped)], pixels)


def draw_geometry(rng: np.random.Generator, batch: int, weak_view: str) -> Geometry:
    """Draws the placement of a batch of weak views; see the module's table.

    Raises:
        ValueError: if the weak view is unknown.
    """
    zeros = np.zeros(batch)
    if weak_view == "release":
        zoom = np.where(rng.random(batch) < 0.1, rng.uniform(0.95, 1.2, batch), 1.0)
        angle, shift, mirrored = zeros, np.zeros((batch, 2)), zeros.astype(bool)
    elif weak_view == "strong":
        zoom = np.exp(rng.uniform(np.log(0.8), np.log(1.25), batch))
        angle = np.deg2rad(rng.uniform(-12, 12, batch))
        shift = rng.uniform(-0.16, 0.16, (batch, 2))  # of the half side
        mirrored = rng.random(batch) < 0.5
    else:
        raise ValueError(f"unknown weak view {weak_view!r}; choose one of {', '.join(WEAK_VIEWS)}")
    flip = np.where(mirrored, -1.0, 1.0)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    affine = np.stack([flip * cos, -sin, shift[:, 0], flip * sin, cos, shift[:, 1]], axis=1)
    return Geometry(affine.reshape(batch, 2, 3).astype(np.float32), mirrored)


@record_function("views")
def weak_view(images: Tensor, affine: Tensor) -> Tensor:
    """Normalises the grey values of pictures, then places the pictures. So the grey values of a place do not depend on
    the placement.

    Outside the picture a view is 0, the mean grey value of the picture.

    Args:
        images: ``[B, C, H, W]`` uint8, grey values or colours; the channels of a picture are normalised together.
        affine: ``[B, 2, 3]`` of :class:`Geometry`.

    Returns:
        ``[B, C, H, W]`` float32; before the placement, each picture has mean 0 and standard deviation 1.
    """
    x = images.float()
    mean, std = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
    return _place((x - mean) / (std + 1e-6), affine)


@record_function("views")
def place_masks(masks: Tensor, affine: Tensor) -> Tensor:
    """Places masks ``[B, 1, H, W]`` (0/1) like their images; float32 0/1."""
    return (_place(masks.float(), affine) >= 0.5).float()


def _place(images: Tensor, affine: Tensor) -> Tensor:
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@dataclass(frozen=True)
class Photometry:
    """Grey-value changes of B strong views, drawn independently.

    Attributes:
        contrast, brightness: ``[B]``, ``x -> contrast x + brightness`` on normalised grey values.
        kernels: ``[B, 7]`` Gaussian blur, the same along both axes; each sums to 1.
        shading: ``[B, 1, 3, 3]`` a coarse map that is enlarged bilinearly and added, like uneven exposure.
        noise: ``[B]`` standard deviation of white noise.
    """

    contrast: np.ndarray
    brightness: np.ndarray
    kernels: np.ndarray
    shading: np.ndarray
    noise: np.ndarray


@dataclass(frozen=True)
class ClampedPhotometry(Photometry):
    """What the release's ColorJitter does to pictures whose grey values are not 0 to 1 (Ledger 16).

    Attributes:
        gain: ``[B]``, factor of the grey values; 1 without jitter.
        spread: ``[B]``, factor of their distances from their mean; 1 without jitter.
        gain_first: ``[B]`` bool, whether ``gain`` is applied before ``spread``.
        jitter: ``[B]`` bool, whether the sample is changed and clipped at all.
    """

    gain: np.ndarray
    spread: np.ndarray
    gain_first: np.ndarray
    jitter: np.ndarray


def draw_photometry(rng: np.random.Generator, batch: int, strong_view: str) -> Photometry:
    """Draws the grey-value changes of a batch of strong views; see the module's table.

    Raises:
        ValueError: if the strong view is unknown.
    """
    if strong_view not in STRONG_VIEWS:
        raise ValueError(f"unknown strong view {strong_view!r}; choose one of {', '.join(STRONG_VIEWS)}")
    strength, extras = (0.5, 1.0) if strong_view == "strong" else (0.2, 0.0)
    jitter = rng.random(batch) < 0.8
    contrast = np.where(jitter, rng.uniform(1 - strength, 1 + strength, batch), 1.0)
    brightness = np.where(jitter, rng.uniform(-strength, strength, batch), 0.0)
    sigma = np.where(rng.random(batch) < 0.5, rng.uniform(0.1, 2.0, batch), 1e-3)
    kernels = np.exp(-0.5 * (np.arange(-3, 4) / sigma[:, None]) ** 2)
    kernels /= kernels.sum(1, keepdims=True)
    shading = extras * (rng.random(batch) < 0.5)[:, None, None, None] * rng.uniform(-0.6, 0.6, (batch, 1, 3, 3))
    noise = extras * np.where(rng.random(batch) < 0.5, rng.uniform(0, 0.25, batch), 0.0)
    drawn = [a.astype(np.float32) for a in (contrast, brightness, kernels, shading, noise)]
    if strong_view != "clamped":
        return Photometry(*drawn)
    none = np.ones_like(drawn[0]), np.zeros_like(drawn[1])
    return ClampedPhotometry(*none, *drawn[2:], 1 + drawn[1], drawn[0], rng.random(batch) < 0.5, jitter)


@record_function("views")
def strong_view(
    weak: Tensor,
    contrast: Tensor,
    brightness: Tensor,
    kernels: Tensor,
    shading: Tensor,
    noise: Tensor,
    **clamped: Tensor,
) -> Tensor:
    """The strong views of weak views ``[B, C, H, W]``. The other arguments are the fields of :class:`Photometry` or
    :class:`ClampedPhotometry` as tensors."""
    x = clamped_jitter(weak, **clamped) if clamped else weak
    x = x * contrast[:, None, None, None] + brightness[:, None, None, None]
    x = x + F.interpolate(shading, weak.shape[2:], mode="bilinear", align_corners=True)
    x = x.transpose(0, 1)  # one channel for each sample, so a grouped convolution blurs each sample with its own kernel
    batch = x.shape[1]
    x = F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), kernels[:, None, :, None], groups=batch)
    x = F.conv2d(x, kernels[:, None, None, :], groups=batch).transpose(0, 1)
    return x + noise[:, None, None, None] * torch.randn_like(x)


def clamped_jitter(weak: Tensor, gain: Tensor, spread: Tensor, gain_first: Tensor, jitter: Tensor) -> Tensor:
    """Changes brightness and contrast of weak views ``[B, C, H, W]`` and clips to 0 to 1 after each, as the release
    does (Ledger 16).

    The other arguments are the fields of :class:`ClampedPhotometry` as tensors.
    """
    gain, spread, gain_first, jitter = (value[:, None, None, None] for value in (gain, spread, gain_first, jitter))

    def brighten(x: Tensor) -> Tensor:
        return (x * gain).clamp(0, 1)

    def stretch(x: Tensor) -> Tensor:
        return (x * spread + (1 - spread) * x.mean((1, 2, 3), keepdim=True)).clamp(0, 1)

    return torch.where(jitter, torch.where(gain_first, stretch(brighten(weak)), brighten(stretch(weak))), weak)
