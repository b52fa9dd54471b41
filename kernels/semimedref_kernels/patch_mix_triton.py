"""Patch mixing in Triton: one launch forward and one backward. Each is a copy that reads a second source inside boxes.

The plain forms in ``patch_mix.py`` define the result; these kernels move few bytes for it. A plane is read as one long
line of any width. Only tiles that touch a box compute the gate, each tile separately, since the donor's map is in the
cache then. Only these tiles read the donor besides their own sample.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from semimedref_kernels.choices import Choice, Table, choice, options_of
from semimedref_kernels.launch import Launch
from semimedref_kernels.patch_mix import UNIT

BLOCK = 4096  # pixels of a program
BLOCK_64 = 1024  # of float64: more would spill in the backward pass
THREAD = 64  # bytes of them that a thread holds, four loads of 16 bytes: more would spill in the backward pass
GATE = {"GATE_Y": 16, "GATE_X": 128}
STEPS = tl.constexpr(UNIT)


@triton.jit
def _clipped_box(boxes, i, height, width):
    """Box i clipped to the image; the ends of an empty box may be before its starts."""
    y0 = tl.minimum(tl.maximum(tl.load(boxes + 4 * i), 0), height).to(tl.int32)
    x0 = tl.minimum(tl.maximum(tl.load(boxes + 4 * i + 1), 0), width).to(tl.int32)
    y1 = tl.maximum(tl.minimum(tl.load(boxes + 4 * i + 2), height), 0).to(tl.int32)
    x1 = tl.maximum(tl.minimum(tl.load(boxes + 4 * i + 3), width), 0).to(tl.int32)
    return y0, x0, y1, x1


@triton.jit
def _touched(y0, x0, y1, x1, start, columns, BLOCK: tl.constexpr):
    """Whether a tile of a plane contains a row of the box."""
    return (y0 <= (start + BLOCK - 1) // columns) & (y1 > start // columns) & (x0 < x1)


@triton.jit
def _accepted(
    probs, j, y0, x0, y1, x1, least, stride_b, stride_y, stride_x, GATE_Y: tl.constexpr, GATE_X: tl.constexpr
):
    """1 if the mean of p_j over the box reaches the threshold, else 0. It sums whole numbers, which float64 does
    exactly."""
    total = tl.zeros((GATE_Y, GATE_X), tl.float64)
    top = y0
    while top < y1:
        left = x0
        while left < x1:
            y = top + tl.arange(0, GATE_Y)[:, None]
            x = left + tl.arange(0, GATE_X)[None, :]
            in_box = (y < y1) & (x < x1)
            p = tl.load(probs + j * stride_b + y * stride_y + x * stride_x, mask=in_box, other=0.0)
            p = p if p.dtype == tl.float64 else p.to(tl.float32)
            total += tl.floor(p * STEPS).to(tl.float64)
            left += GATE_X
        top += GATE_Y
    area = tl.maximum(y1 - y0, 0) * tl.maximum(x1 - x0, 0)
    reached = tl.sum(total) >= (least * area.to(tl.int64)).to(tl.float64)
    return tl.where(reached & (area > 0), 1, 0)


@triton.jit
def _places(start, columns, stride_y, stride_x, FLAT: tl.constexpr, BLOCK: tl.constexpr):
    """Pixels of a tile, as indices in their plane and as offsets in memory. Both are equal if the plane is one line."""
    at = start + tl.arange(0, BLOCK)
    if FLAT:  # noqa: SIM108  # a choice of types, made by the compiler
        offset = at
    else:
        offset = (at // columns).to(tl.int64) * stride_y + (at % columns).to(tl.int64) * stride_x
    return at, offset


@triton.jit
def _in_box(at, columns, y0, x0, y1, x1, VECTOR: tl.constexpr):
    """Which pixels lie in the box, and which share a 16-byte load with such a pixel."""
    group = at // VECTOR * VECTOR
    y, x = group // columns, group % columns
    rows = (y >= y0) & (y < y1)
    near = rows & (x + VECTOR > x0) & (x < x1)
    x += at - group
    return rows & (x >= x0) & (x < x1), near


@triton.jit
def _mix_tile(
    source, out, i, j, mix, y0, x0, y1, x1, start, size, columns,
    stride_b, stride_y, stride_x, out_stride_b, out_stride_y, out_stride_x,
    FLAT: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One tile of one plane: own pixels outside the box, the donor's inside."""
    at, offset = _places(start, columns, stride_y, stride_x, FLAT, BLOCK)
    at, out_offset = _places(start, columns, out_stride_y, out_stride_x, FLAT, BLOCK)
    inside = at < size
    value = tl.load(source + i * stride_b + offset, mask=inside, other=0.0)
    if mix:
        box, near = _in_box(at, columns, y0, x0, y1, x1, VECTOR)
        donor = tl.load(source + j * stride_b + offset, mask=near & inside, other=0.0)
        value = tl.where(box, donor, value)
    tl.store(out + i * out_stride_b + out_offset, value, mask=inside)


@triton.jit
def mix_kernel(
    images, mixed, probs, target, partner, boxes, accepted, least, batch, height, width,
    image_stride_b, image_stride_c, image_stride_y, image_stride_x,
    mixed_stride_b, mixed_stride_c, mixed_stride_y, mixed_stride_x,
    probs_stride_b, probs_stride_y, probs_stride_x,
    target_stride_b, target_stride_y, target_stride_x,
    PLANES: tl.constexpr, PER_PIXEL: tl.constexpr, FLAT: tl.constexpr, VECTOR: tl.constexpr,
    BLOCK: tl.constexpr, GATE_Y: tl.constexpr, GATE_X: tl.constexpr,
):  # fmt: skip
    """One program for each tile. On axis 1 the planes of the image come first, then the target.

    Channels are separate planes, or lie beside each other in a row (channels_last). Then a row has ``width *
    PER_PIXEL`` columns, and the box is scaled in the same way.
    """
    tiles = tl.cdiv(height * width * PER_PIXEL, BLOCK)
    tile, plane = tl.program_id(0) % tiles, tl.program_id(1).to(tl.int64)
    i, start = (tl.program_id(0) // tiles).to(tl.int64), tile * BLOCK
    columns = tl.where(plane < PLANES, width * PER_PIXEL, width)
    j = tl.load(partner + i)
    y0, x0, y1, x1 = _clipped_box(boxes, i, height, width)
    mix = _touched(y0, x0, y1, x1, start, columns, BLOCK)
    tells = (tile == 0) & (plane == 0)
    if mix | tells:
        exists = (j >= 0) & (j < batch)  # a donor that does not is never read: its box is empty
        reached = _accepted(
            probs, j, y0, x0, tl.where(exists, y1, y0), x1, least, probs_stride_b, probs_stride_y, probs_stride_x,
            GATE_Y, GATE_X,
        )  # fmt: skip
        if tells:
            tl.store(accepted + i, reached == 1)
        mix = mix & (reached == 1)
    if plane < PLANES:
        _mix_tile(
            images + plane * image_stride_c, mixed + plane * mixed_stride_c, i, j, mix,
            y0, x0 * PER_PIXEL, y1, x1 * PER_PIXEL, start, height * columns, columns,
            image_stride_b, image_stride_y, image_stride_x, mixed_stride_b, mixed_stride_y, mixed_stride_x,
            FLAT, VECTOR, BLOCK,
        )  # fmt: skip
    elif start < height * width:
        _mix_tile(
            probs, target, i, j, mix, y0, x0, y1, x1, start, height * width, width,
            probs_stride_b, probs_stride_y, probs_stride_x, target_stride_b, target_stride_y, target_stride_x,
            FLAT, VECTOR, BLOCK,
        )  # fmt: skip


@triton.jit
def _returned_tile(
    source, out, i, partner, boxes, accepted, start, batch, height, width,
    stride_b, stride_y, stride_x, out_stride_b, out_stride_y, out_stride_x,
    PER_PIXEL: tl.constexpr, FLAT: tl.constexpr, VECTOR: tl.constexpr, BLOCK: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    """One tile of one plane: the gradient of the pixels that sample i kept, plus those of its takers, in their
    order."""
    columns = width * PER_PIXEL
    at, offset = _places(start, columns, stride_y, stride_x, FLAT, BLOCK)
    at, out_offset = _places(start, columns, out_stride_y, out_stride_x, FLAT, BLOCK)
    inside = at < height * columns
    value = tl.load(source + i * stride_b + offset, mask=inside, other=0.0)
    total = value if value.dtype == tl.float64 else value.to(tl.float32)
    y0, x0, y1, x1 = _clipped_box(boxes, i, height, width)
    if (tl.load(accepted + i) != 0) & _touched(y0, x0, y1, x1, start, columns, BLOCK):
        box, near = _in_box(at, columns, y0, x0 * PER_PIXEL, y1, x1 * PER_PIXEL, VECTOR)
        total = tl.where(box, 0.0, total)
    k = tl.arange(0, BATCH)
    takes = (tl.load(partner + k, mask=k < batch, other=-1) == i) & (
        tl.load(accepted + k, mask=k < batch, other=0) != 0
    )
    taker = tl.min(tl.where(takes, k, BATCH))
    while taker < BATCH:
        y0, x0, y1, x1 = _clipped_box(boxes, taker, height, width)
        if _touched(y0, x0, y1, x1, start, columns, BLOCK):
            box, near = _in_box(at, columns, y0, x0 * PER_PIXEL, y1, x1 * PER_PIXEL, VECTOR)
            back = tl.load(source + taker.to(tl.int64) * stride_b + offset, mask=near & inside, other=0.0)
            total += tl.where(box, back, 0.0).to(total.dtype)
        taker = tl.min(tl.where(takes & (k > taker), k, BATCH))
    tl.store(out + i * out_stride_b + out_offset, total.to(value.dtype), mask=inside)


@triton.jit
def returned_kernel(
    grad_mixed, grad_images, grad_target, grad_probs, partner, boxes, accepted, batch, height, width,
    mixed_stride_b, mixed_stride_c, mixed_stride_y, mixed_stride_x,
    image_stride_b, image_stride_c, image_stride_y, image_stride_x,
    target_stride_b, target_stride_y, target_stride_x,
    probs_stride_b, probs_stride_y, probs_stride_x,
    PLANES: tl.constexpr, PER_PIXEL: tl.constexpr, FLAT: tl.constexpr, VECTOR: tl.constexpr,
    BLOCK: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    """Both gradients, with the grid of :func:`mix_kernel`. If one is not needed, its planes are left out."""
    tiles = tl.cdiv(height * width * PER_PIXEL, BLOCK)
    tile, plane = tl.program_id(0) % tiles, tl.program_id(1).to(tl.int64)
    i, start = (tl.program_id(0) // tiles).to(tl.int64), tile * BLOCK
    if plane < PLANES:
        _returned_tile(
            grad_mixed + plane * mixed_stride_c, grad_images + plane * image_stride_c, i, partner, boxes, accepted,
            start, batch, height, width,
            mixed_stride_b, mixed_stride_y, mixed_stride_x, image_stride_b, image_stride_y, image_stride_x,
            PER_PIXEL, FLAT, VECTOR, BLOCK, BATCH,
        )  # fmt: skip
    elif start < height * width:
        _returned_tile(
            grad_target, grad_probs, i, partner, boxes, accepted, start, batch, height, width,
            target_stride_b, target_stride_y, target_stride_x, probs_stride_b, probs_stride_y, probs_stride_x,
            1, FLAT, VECTOR, BLOCK, BATCH,
        )  # fmt: skip


def _layout(maps: tuple[Tensor, ...], single: tuple[Tensor, ...]) -> tuple[int, int, bool]:
    """The number of planes of the maps, the numbers of each pixel in a plane, and whether all planes are lines without
    gaps.

    Args:
        maps: ``[B, C, H, W]``, read and written.
        single: ``[B, 1, H, W]``, read and written; both arguments may be empty.
    """
    channels = maps[0].shape[1] if maps else 0

    def lines(tensors: tuple[Tensor, ...], per_pixel: int = 1) -> bool:
        return all(x.stride(3) == per_pixel and x.stride(2) == per_pixel * x.shape[3] for x in tensors)

    if lines(single):
        if lines(maps):
            return channels, 1, True
        if lines(maps, channels) and all(x.stride(1) == 1 for x in maps):
            return 1, channels, True
    return channels, 1, False


def _grid(
    maps: Tensor, planes: int, per_pixel: int, flat: bool, chosen: Choice
) -> tuple[int, dict[str, Any], dict[str, int]]:
    """The number of programs on axis 0, the constants of both kernels, and compiler options."""
    batch, _, height, width = maps.shape
    item = maps.element_size()
    vector, block = 16 // item, chosen.get("BLOCK", BLOCK_64 if item == 8 else BLOCK)
    constants = {"PLANES": planes, "PER_PIXEL": per_pixel, "FLAT": flat}
    constants |= {"VECTOR": 1 if width * per_pixel % vector or width % vector else vector, "BLOCK": block}
    options = {"num_warps": min(8, block * item // THREAD // 32)} | options_of(chosen)
    return batch * triton.cdiv(height * width * per_pixel, block), constants, options


def mix_launch(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float, table: Table | None = None
) -> tuple[Launch, tuple[Tensor, Tensor, Tensor]]:
    """The launch that fills the outputs, and the outputs.

    Arguments as in :func:`semimedref_kernels.patch_mix`, which checks them. All strides work. Loads of 16 bytes need
    planes without gaps whose starts are multiples of 16 elements apart. ``table`` replaces the device's choices.
    """
    batch, _, height, width = images.shape
    mixed, target = torch.empty_like(images), torch.empty_like(probs)
    accepted = torch.empty(batch, dtype=torch.bool, device=images.device)
    planes, per_pixel, flat = _layout((images, mixed), (probs, target))
    programs, constants, options = _grid(images, planes, per_pixel, flat, choice("mix_kernel", images, table))
    args = {"images": images, "mixed": mixed, "probs": probs, "target": target, "partner": partner.contiguous()}
    args |= {"boxes": boxes.contiguous(), "accepted": accepted, "least": math.floor(threshold * UNIT)}
    args |= {"batch": batch, "height": height, "width": width}
    args |= _strides("image", images, planes) | _strides("mixed", mixed, planes)
    args |= _strides("probs", probs) | _strides("target", target)
    return Launch(mix_kernel, (programs, planes + 1), args, constants | GATE, options), (mixed, target, accepted)


def _strides(name: str, x: Tensor, planes: int | None = None) -> dict[str, int]:
    """Strides with the kernels' names, with the plane stride if there may be several planes.

    The plane stride of a single plane is 0. The compiler cannot know that only the first plane is read, and would lose
    the alignment of its rows.
    """
    b, c, y, x_ = x.stride()
    found = {f"{name}_stride_b": b, f"{name}_stride_y": y, f"{name}_stride_x": x_}
    return found if planes is None else {f"{name}_stride_b": b, f"{name}_stride_c": c if planes > 1 else 0} | found


def patch_mix_fused(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`semimedref_kernels.patch_mix` with the kernel, on a GPU or in Triton's interpreter on the CPU."""
    launch, outputs = mix_launch(images, probs, partner, boxes, threshold)
    if launch.grid[0]:
        launch.run()
    else:
        outputs[2].zero_()
    return outputs


def returned_launch(
    grad_mixed: Tensor | None, grad_target: Tensor | None, partner: Tensor, boxes: Tensor, accepted: Tensor,
    table: Table | None = None,
) -> tuple[Launch, tuple[Tensor | None, Tensor | None]]:  # fmt: skip
    """The launch that fills the gradients for images and probs, and these gradients; None if the incoming gradient is
    None. ``table`` replaces the device's choices."""
    first = grad_target if grad_mixed is None else grad_mixed
    batch, _, height, width = first.shape
    found = tuple(None if grad is None else torch.empty_like(grad) for grad in (grad_mixed, grad_target))
    maps, single = (() if grad is None else (grad, x) for grad, x in zip((grad_mixed, grad_target), found, strict=True))
    planes, per_pixel, flat = _layout(maps, single)
    programs, constants, options = _grid(first, planes, per_pixel, flat, choice("returned_kernel", first, table))
    maps, single = maps or (first, first), single or (first, first)  # tensors that are not needed are not touched
    args = {"grad_mixed": maps[0], "grad_images": maps[1], "grad_target": single[0], "grad_probs": single[1]}
    args |= {"partner": partner.contiguous(), "boxes": boxes.contiguous(), "accepted": accepted}
    args |= {"batch": batch, "height": height, "width": width}
    args |= _strides("mixed", maps[0], planes) | _strides("image", maps[1], planes)
    args |= _strides("target", single[0]) | _strides("probs", single[1])
    constants["BATCH"] = max(2, triton.next_power_of_2(batch))
    return Launch(returned_kernel, (programs, planes + (grad_target is not None)), args, constants, options), found


def returned_fused(
    grad_mixed: Tensor | None, grad_target: Tensor | None, partner: Tensor, boxes: Tensor, accepted: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients for images and probs with the kernel, as in
    :func:`~semimedref_kernels.patch_mix.plain_returned`."""
    if grad_mixed is None and grad_target is None:
        return None, None
    launch, found = returned_launch(grad_mixed, grad_target, partner, boxes, accepted)
    if launch.grid[0] and launch.grid[1]:
        launch.run()
    return found
