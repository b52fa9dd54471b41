"""Patch mixing: pastes a box of the partner's image and target if the teacher is confident of the partner's lesion
there.

This file has the public operation, its plain PyTorch forms and its gradient. GPU tensors use the kernels of
``patch_mix_triton.py``.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from semimedref_kernels.eager import direct, refuse_forward_mode, wide

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
HAS_TRITON = importlib.util.find_spec("triton") is not None
CLEAR = 1e-3  # distance of mean and threshold, far above the error of a float32 mean
UNIT = 2**30  # steps of the gate from 0 to 1; sums of whole numbers do not depend on their order


def patch_mix(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixes image and target of each sample with its partner inside one box, or leaves both unchanged.

    Let m be the box of sample i and j = partner[i]. The gate accepts if the mean of p_j over the box is at least
    ``threshold``. Then the image becomes ``m s_j + (1 - m) s_i`` and the target ``m p_j + (1 - m) p_i``. Otherwise both
    stay unchanged. The gate counts p and threshold in whole steps of 2^-30, so that all devices decide a tie in the
    same way. It refuses a box with NaN. Gradients reach images and probs, but not the gate; only first order and
    reverse mode. Nothing is cast, not even under autocast. No value is copied to the host, except for CPU tensors.

    Args:
        images: ``[B, C, H, W]`` strong views s, and any other maps that are to be mixed alike; float32, float16,
            bfloat16 or float64, any strides.
        probs: ``[B, 1, H, W]`` teacher probabilities p, 0 to 1 (not checked), one of these dtypes, any strides.
        partner: ``[B]`` int64, 0 to B - 1; several samples may have the same partner. Only CPU tensors are checked; on
            a GPU the gate refuses a partner that does not exist.
        boxes: ``[B, 4]`` int64 (y0, x0, y1, x1), ends exclusive. Parts outside the image are ignored, and the gate
            refuses an empty box.
        threshold: smallest mean probability that the gate accepts.

    Returns:
        Mixed images ``[B, C, H, W]``, mixed probabilities ``[B, 1, H, W]``, accepted ``[B]`` bool.

    Raises:
        ValueError: if shapes, dtypes or devices do not match, or a partner does not exist.
        NotImplementedError: under forward-mode differentiation such as ``torch.func.jvp``.
    """
    _check(images, probs, partner, boxes)
    refuse_forward_mode("patch_mix", images, probs)
    if direct(images, probs, partner, boxes):
        return _PatchMix.apply(images, probs, partner, boxes, threshold)
    return _patch_mix(images, probs, partner, boxes, threshold)


def _check(images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"patch_mix: images must be [B, C, H, W], got {tuple(images.shape)}")
    batch, _, height, width = images.shape
    wanted = (
        ("images", images, images.shape, FLOATS),
        ("probs", probs, (batch, 1, height, width), FLOATS),
        ("partner", partner, (batch,), (torch.int64,)),
        ("boxes", boxes, (batch, 4), (torch.int64,)),
    )
    wrong = []
    for name, tensor, shape, dtypes in wanted:
        if tensor.shape != shape:
            wrong.append(f"{name} is {tuple(tensor.shape)}, need {tuple(shape)}")
        if tensor.dtype not in dtypes:
            wrong.append(f"{name} is {tensor.dtype}, need {' or '.join(map(str, dtypes))}")
        if tensor.device != images.device:
            wrong.append(f"{name} is on {tensor.device}, move it to the images' {images.device}")
    if wrong:
        raise ValueError(f"patch_mix with images {tuple(images.shape)}: {'; '.join(wrong)}")


def _mix(images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float) -> tuple[Tensor, ...]:
    if images.is_cuda and HAS_TRITON:
        from semimedref_kernels.patch_mix_triton import patch_mix_fused  # imported late, because it takes a second

        return patch_mix_fused(images, probs, partner, boxes, threshold)
    return plain_patch_mix(images, probs, partner, boxes, threshold)


def _return(
    grad_mixed: Tensor | None, grad_target: Tensor | None, partner: Tensor, boxes: Tensor, accepted: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    if partner.is_cuda and HAS_TRITON:
        from semimedref_kernels.patch_mix_triton import returned_fused

        return returned_fused(grad_mixed, grad_target, partner, boxes, accepted)
    return tuple(
        None if grad is None else plain_returned(grad, partner, boxes, accepted) for grad in (grad_mixed, grad_target)
    )


class _PatchMix(torch.autograd.Function):
    """The operation without the dispatcher."""

    @staticmethod
    def forward(ctx, images, probs, partner, boxes, threshold):
        mixed, target, accepted = _mix(images, probs, partner, boxes, threshold)
        ctx.save_for_backward(partner, boxes, accepted)
        ctx.mark_non_differentiable(accepted)
        ctx.set_materialize_grads(False)
        return mixed, target, accepted

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads):
        return _backward(ctx, *grads)


def _backward(ctx, grad_mixed, grad_target, _):
    """Each sample gets the gradient of the pixels that it kept, and of the pixels that it gave to other samples."""
    partner, boxes, accepted = ctx.saved_tensors
    grads = [
        grad if needed else None for grad, needed in zip((grad_mixed, grad_target), ctx.needs_input_grad, strict=False)
    ]
    if direct(partner, *(grad for grad in grads if grad is not None)):
        return *_return(*grads, partner, boxes, accepted), None, None, None
    found = _patch_mix_backward(*grads, partner, boxes, accepted)
    return *(None if grad is None else x for grad, x in zip(grads, found, strict=True)), None, None, None


@torch.library.custom_op(
    "semimedref::patch_mix",
    mutates_args=(),
    schema="(Tensor images, Tensor probs, Tensor partner, Tensor boxes, float threshold) -> (Tensor, Tensor, Tensor)",
)
def _patch_mix(images, probs, partner, boxes, threshold):
    return _mix(images, probs, partner, boxes, threshold)


@_patch_mix.register_fake
def _(images, probs, partner, boxes, threshold):
    return torch.empty_like(images), torch.empty_like(probs), torch.empty_like(partner, dtype=torch.bool)


def _keep_for_backward(ctx, inputs, output):
    _, _, partner, boxes, _ = inputs
    ctx.save_for_backward(partner, boxes, output[2])
    ctx.set_materialize_grads(False)


_patch_mix.register_autograd(_backward, setup_context=_keep_for_backward)


@torch.library.custom_op(
    "semimedref::patch_mix_backward",
    mutates_args=(),
    schema="(Tensor? grad_mixed, Tensor? grad_target, Tensor partner, Tensor boxes, Tensor accepted)"
    " -> (Tensor, Tensor)",
)
def _patch_mix_backward(grad_mixed, grad_target, partner, boxes, accepted):
    found = _return(grad_mixed, grad_target, partner, boxes, accepted)
    return tuple(accepted.new_empty(0) if x is None else x for x in found)


@_patch_mix_backward.register_fake
def _(grad_mixed, grad_target, partner, boxes, accepted):
    return tuple(
        accepted.new_empty(0) if grad is None else torch.empty_like(grad) for grad in (grad_mixed, grad_target)
    )


def plain_patch_mix(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`patch_mix` in plain PyTorch: box by box on the CPU, where the host knows the boxes; all samples at once on
    other devices.

    Do not differentiate it: the operation has its own gradient.

    Raises:
        ValueError: on the CPU, if a partner does not exist.
    """
    if images.device.type == "cpu":
        return _by_boxes(images, probs, partner, boxes, threshold)
    return _by_masks(images, probs, partner, boxes, threshold)


def _by_boxes(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Touches only the boxes, apart from the two returned copies."""
    mixed, target, accepted = images.clone(), probs.clone(), [False] * len(images)
    of_image, of_map, into, onto = (_window(x) for x in (images, probs, mixed, target))
    for i, j, box in _pasted(partner, boxes, *images.shape[2:]):
        donor = of_map(j, box)
        accepted[i] = _reaches(donor, threshold)
        if accepted[i]:
            into(i, box).copy_(of_image(j, box))
            onto(i, box).copy_(donor)
    return mixed, target, torch.tensor(accepted, dtype=torch.bool)


def _reaches(donor: Tensor, threshold: float) -> bool:
    """The gate: uses the mean if that is clear, otherwise whole steps, which are exact in float64."""
    mean = donor.sum(dtype=torch.float32).item() / donor.numel()
    if abs(mean - threshold) > CLEAR:
        return mean > threshold
    return (wide(donor) * UNIT).floor().sum(dtype=torch.float64).item() >= math.floor(threshold * UNIT) * donor.numel()


def _pasted(
    partner: Tensor, boxes: Tensor, height: int, width: int
) -> Iterator[tuple[int, int, tuple[int, int, int, int]]]:
    """Sample, donor and box (y0, x0, height, width) of all boxes that are not empty."""
    partners = partner.tolist()
    for i, (j, (y0, x0, y1, x1)) in enumerate(zip(partners, boxes.tolist(), strict=True)):
        if not 0 <= j < len(partners):
            raise ValueError(f"patch_mix: partners must be 0 to {len(partners) - 1}, got {partners}")
        y0, x0, y1, x1 = max(y0, 0), max(x0, 0), min(y1, height), min(x1, width)
        if y0 < y1 and x0 < x1:
            yield i, j, (y0, x0, y1 - y0, x1 - x0)


def _window(x: Tensor) -> Callable[[int, tuple[int, int, int, int]], Tensor]:
    """Returns a function for the box of a sample, ``[C, h, w]``, as one strided view; indexing would make three
    views."""
    (b, *strides), channels, start = x.stride(), x.shape[1], x.storage_offset()

    def window(i: int, box: tuple[int, int, int, int]) -> Tensor:
        y, x0, height, width = box
        return x.as_strided(
            (channels, height, width), strides, start + i * b + y * strides[1] + x0 * strides[2]
        )  # fmt: skip

    return window


def _by_masks(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Copies no value to the host: each box is a mask of the size of the image."""
    box, area = _masks(boxes, *images.shape[2:])
    exists = (partner >= 0) & (partner < len(images))
    donors = torch.where(exists, partner, 0)
    donor = probs[donors]
    steps = torch.where(box, wide(donor) * UNIT, 0).floor()
    reached = steps.long().sum((1, 2, 3)) >= math.floor(threshold * UNIT) * area
    accepted = reached & (area > 0) & exists & ~steps.isnan().any(1).any(1).any(1)
    box = box & accepted[:, None, None, None]
    mixed, target = torch.empty_like(images), torch.empty_like(probs)
    torch.where(box, images[donors], images, out=mixed), torch.where(box, donor, probs, out=target)
    return mixed, target, accepted


def _masks(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The pixels inside the box, ``[B, 1, H, W]`` bool, and their number, ``[B]``."""
    y0, x0, y1, x1 = boxes.unbind(1)
    y, x = (torch.arange(size, device=boxes.device) for size in (height, width))
    rows, columns = (y >= y0[:, None]) & (y < y1[:, None]), (x >= x0[:, None]) & (x < x1[:, None])
    return rows[:, None, :, None] & columns[:, None, None, :], rows.sum(1) * columns.sum(1)


def plain_returned(grad: Tensor, partner: Tensor, boxes: Tensor, accepted: Tensor) -> Tensor:
    """The gradient for images or probs ``[B, C, H, W]`` from the gradient of their mixture, in plain PyTorch."""
    if grad.device.type == "cpu":
        total, taken = grad.clone(), accepted.tolist()
        given, onto = _window(grad), _window(total)
        pasted = [one for one in _pasted(partner, boxes, *grad.shape[2:]) if taken[one[0]]]
        for i, _, box in pasted:
            onto(i, box).zero_()
        for i, j, box in pasted:
            onto(j, box).add_(given(i, box))
        return total
    return _returned_by_masks(grad, partner, boxes, accepted)


def _returned_by_masks(grad: Tensor, partner: Tensor, boxes: Tensor, accepted: Tensor) -> Tensor:
    box = _masks(boxes, *grad.shape[2:])[0] & accepted[:, None, None, None]
    given = torch.where(box, grad, 0)
    takes = partner == torch.arange(len(grad), device=grad.device)[:, None]  # [donor, taker]: no order, no atomics
    summed = takes.to(wide(grad).dtype) @ wide(given).flatten(1)
    return torch.empty_like(grad).copy_(wide(grad - given) + summed.view_as(grad))
