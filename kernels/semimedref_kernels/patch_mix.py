"""Patch mixing: paste a box of the partner's image and target, where the teacher is sure of the partner's lesion.

The public operation, its plain PyTorch form and its gradient. GPU tensors take the kernels of ``patch_mix_triton.py``.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def patch_mix(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixes each sample with its partner inside one box, in image and target alike, or not at all.

    With m the box of sample i and j = partner[i]: the gate accepts if the mean of p_j over the box is at least
    ``threshold``; then image ``m s_j + (1 - m) s_i`` and target ``m p_j + (1 - m) p_i``, else both stay as they were.
    The mean is taken in float32 for every dtype; NaN in the box refuses. Gradients reach images and probs, not the
    gate. Nothing is cast, under autocast neither, and no value is brought to the host unless all lies on the CPU.

    Args:
        images: ``[B, C, H, W]`` strong views s, float32, float16, bfloat16 or float64, any strides.
        probs: ``[B, 1, H, W]`` teacher probabilities p, 0 to 1 (not checked), one of these dtypes, any strides.
        partner: ``[B]`` int64, a permutation of 0 to B - 1. Checked on the CPU alone; on a GPU a donor that does not
            exist is refused by the gate.
        boxes: ``[B, 4]`` int64 (y0, x0, y1, x1), ends exclusive; the part outside the image does not count, and an
            empty box is refused by the gate.
        threshold: smallest mean probability that the gate accepts.

    Returns:
        Mixed images ``[B, C, H, W]``, mixed probabilities ``[B, 1, H, W]``, accepted ``[B]`` bool.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit together, or partner is no permutation.
    """
    _check(images, probs, partner, boxes)
    return _patch_mix(images, probs, partner, boxes, threshold)


def _check(images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"patch_mix: images must be [B, C, H, W], got {tuple(images.shape)}")
    batch, _, height, width = images.shape
    wanted = {
        "images": (images, images.shape, FLOATS),
        "probs": (probs, (batch, 1, height, width), FLOATS),
        "partner": (partner, (batch,), (torch.int64,)),
        "boxes": (boxes, (batch, 4), (torch.int64,)),
    }
    wrong = []
    for name, (tensor, shape, dtypes) in wanted.items():
        if tensor.shape != shape:
            wrong.append(f"{name} is {tuple(tensor.shape)}, need {tuple(shape)}")
        if tensor.dtype not in dtypes:
            wrong.append(f"{name} is {tensor.dtype}, need {' or '.join(map(str, dtypes))}")
        if tensor.device != images.device:
            wrong.append(f"{name} is on {tensor.device}, move it to the images' {images.device}")
    if wrong:
        raise ValueError(f"patch_mix with images {tuple(images.shape)}: {'; '.join(wrong)}")


@torch.library.custom_op(
    "semimedref::patch_mix",
    mutates_args=(),
    schema="(Tensor images, Tensor probs, Tensor partner, Tensor boxes, float threshold) -> (Tensor, Tensor, Tensor)",
)
def _patch_mix(images, probs, partner, boxes, threshold):
    return plain_patch_mix(images, probs, partner, boxes, threshold)


if importlib.util.find_spec("triton") is not None:

    @_patch_mix.register_kernel("cuda")
    def _(images, probs, partner, boxes, threshold):
        from semimedref_kernels.patch_mix_triton import patch_mix_fused  # not before it is needed: takes a second

        return patch_mix_fused(images, probs, partner, boxes, threshold)


@_patch_mix.register_fake
def _(images, probs, partner, boxes, threshold):
    return torch.empty_like(images), torch.empty_like(probs), torch.empty_like(partner, dtype=torch.bool)


def plain_patch_mix(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`patch_mix` in plain PyTorch, vectorised over the batch.

    Every sample is looked at through a window as large as the largest box, which holds its box: apart from the two
    copies that are returned, only windows are read and written. Only the CPU knows the largest box without waiting;
    elsewhere the window is the whole image. Not to be differentiated itself, since windows overlap: the operation has a
    gradient of its own.

    Raises:
        ValueError: on the CPU, if partner is no permutation.
    """
    batch, _, height, width = images.shape
    on_cpu = images.device.type == "cpu"
    if on_cpu and not torch.equal(partner.sort().values, torch.arange(batch)):
        raise ValueError(f"patch_mix: partner must be a permutation of 0 to {batch - 1}, got {partner.tolist()}")
    mixed, target = images.clone(), probs.clone()
    low, high = _clipped(boxes, height, width)
    area = (high - low).prod(1)
    if target.numel() == 0:
        return mixed, target, area > 0
    h, w = (high - low).amax(0).clamp(min=1).tolist() if on_cpu else (height, width)

    def windows(maps: Tensor) -> Tensor:  # [B, C, H - h + 1, W - w + 1, h, w], a view: all windows of all samples
        return maps.unfold(2, h, 1).unfold(3, w, 1)

    y, x = low[:, 0].clamp(max=height - h), low[:, 1].clamp(max=width - w)  # window corners [B]
    own, down, across = (torch.arange(n, device=images.device) for n in (batch, h, w))
    box = _inside(low, high, y[:, None] + down, x[:, None] + across)
    donor = windows(probs)[partner, :, y, x]  # [B, 1, h, w]
    total = torch.where(box, donor, 0).sum((1, 2, 3), dtype=torch.float32)
    accepted = (total >= threshold * area) & (area > 0)
    box = box & accepted[:, None, None, None]
    windows(mixed)[own, :, y, x] = torch.where(box, windows(images)[partner, :, y, x], windows(images)[own, :, y, x])
    windows(target)[own, :, y, x] = torch.where(box, donor, windows(probs)[own, :, y, x])
    return mixed, target, accepted


def _clipped(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Upper left corners and exclusive ends ``[B, 2]`` of the boxes inside the image; equal where a box is empty."""
    low = boxes[:, :2].clamp(min=0)
    low = torch.stack([low[:, 0].clamp(max=height), low[:, 1].clamp(max=width)], 1)
    high = torch.stack([boxes[:, 2].clamp(max=height), boxes[:, 3].clamp(max=width)], 1)
    return low, torch.maximum(low, high)


def _inside(low: Tensor, high: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """``[B, 1, h, w]`` bool: which of rows y ``[B, h]`` and columns x ``[B, w]`` lie in the box."""
    rows = (y >= low[:, :1]) & (y < high[:, :1])
    columns = (x >= low[:, 1:]) & (x < high[:, 1:])
    return rows[:, None, :, None] & columns[:, None, None, :]


def _keep_for_backward(ctx, inputs, output):
    _, _, partner, boxes, _ = inputs
    ctx.save_for_backward(partner, boxes, output[2])


def _backward(ctx, grad_mixed, grad_target, _):
    """What a sample kept comes back to it, what it gave comes back from the sample it gave it to."""
    partner, boxes, accepted = ctx.saved_tensors
    height, width = grad_mixed.shape[2:]
    y, x = (torch.arange(size, device=boxes.device)[None] for size in (height, width))
    box = _inside(*_clipped(boxes, height, width), y, x) & accepted[:, None, None, None]
    taker = partner.argsort()  # the inverse permutation

    def returned(grad: Tensor) -> Tensor:
        return torch.where(box, 0, grad) + torch.where(box[taker], grad[taker], 0)

    return returned(grad_mixed), returned(grad_target), None, None, None


_patch_mix.register_autograd(_backward, setup_context=_keep_for_backward)
