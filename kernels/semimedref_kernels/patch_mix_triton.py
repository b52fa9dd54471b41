"""Patch mixing in two Triton kernels: the gate reads the boxes, then one pass over memory writes image and target.

The plain form in ``patch_mix.py`` says what is computed; here is how few bytes it takes. Each output byte is written
once and each input byte read once, but for the tiles that a box's edge crosses: those read own and donor.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from semimedref_kernels.launch import Launch

# A tile of the mixing pass: a program's 128 threads hold 32 elements each, so a thread has several 16-byte loads in
# flight. 256 columns take a row of 224 px in one tile and one of 512 px in two.
TILE = {"BLOCK_Y": 16, "BLOCK_X": 256}
GATE_TILE = {"BLOCK_Y": 16, "BLOCK_X": 64}


@triton.jit
def _clipped_box(boxes, i, height, width):
    """Box i cut to the image; empty boxes may come back with ends before their starts."""
    y0 = tl.maximum(tl.load(boxes + 4 * i), 0)
    x0 = tl.maximum(tl.load(boxes + 4 * i + 1), 0)
    y1 = tl.minimum(tl.load(boxes + 4 * i + 2), height)
    x1 = tl.minimum(tl.load(boxes + 4 * i + 3), width)
    return y0, x0, y1, x1


@triton.jit
def _read(source, sample, y, x, mask, stride_b, stride_y, stride_x):
    """The pixels (y, x) of a sample, 0 outside the mask."""
    return tl.load(source + sample * stride_b + y * stride_y + x * stride_x, mask=mask, other=0.0)


@triton.jit
def gate_kernel(
    probs, partner, boxes, accepted, threshold, batch, height, width,
    probs_stride_b, probs_stride_y, probs_stride_x,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """accepted[i] = the mean of p_j over box i reaches the threshold. One program a sample, summing in fixed order."""
    i = tl.program_id(0).to(tl.int64)
    j = tl.load(partner + i)
    y0, x0, y1, x1 = _clipped_box(boxes, i, height, width)
    if (j < 0) | (j >= batch):  # no such donor: nothing is read, and an empty box is refused
        y1 = y0
    total = tl.zeros((BLOCK_Y, BLOCK_X), tl.float32)
    top = y0
    while top < y1:
        left = x0
        while left < x1:
            y = top + tl.arange(0, BLOCK_Y)[:, None]
            x = left + tl.arange(0, BLOCK_X)[None, :]
            in_box = (y < y1) & (x < x1)
            donor = _read(probs, j, y, x, in_box, probs_stride_b, probs_stride_y, probs_stride_x)
            total += donor.to(tl.float32)
            left += BLOCK_X
        top += BLOCK_Y
    area = tl.maximum(y1 - y0, 0) * tl.maximum(x1 - x0, 0)
    mean_reached = tl.sum(total) >= threshold * area.to(tl.float32)
    tl.store(accepted + i, mean_reached & (area > 0))


@triton.jit
def _mix_tile(
    source, out, i, j, accepted, y0, x0, y1, x1, top, left, height, width,
    stride_b, stride_y, stride_x, out_stride_b, out_stride_y, out_stride_x,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """One tile of one plane: own pixels outside the box, the donor's inside."""
    y = top + tl.arange(0, BLOCK_Y)[:, None].to(tl.int64)  # int64: a batch may hold more than 2^31 elements
    x = left + tl.arange(0, BLOCK_X)[None, :].to(tl.int64)
    in_image = (y < height) & (x < width)
    bottom, right = tl.minimum(top + BLOCK_Y, height), tl.minimum(left + BLOCK_X, width)
    touched = accepted & (y0 < bottom) & (y1 > top) & (x0 < right) & (x1 > left)
    covered = accepted & (y0 <= top) & (y1 >= bottom) & (x0 <= left) & (x1 >= right)
    # Interior path: the whole tile comes from one sample, so it is a plain copy in vectors of 16 bytes.
    value = _read(source, tl.where(covered, j, i), y, x, in_image, stride_b, stride_y, stride_x)
    if touched & (covered == 0):
        donor = _read(source, j, y, x, in_image, stride_b, stride_y, stride_x)
        value = tl.where((y >= y0) & (y < y1) & (x >= x0) & (x < x1), donor, value)
    tl.store(out + i * out_stride_b + y * out_stride_y + x * out_stride_x, value, mask=in_image)


@triton.jit
def mix_kernel(
    images, mixed, probs, target, partner, boxes, accepted, height, width,
    image_stride_b, image_stride_c, image_stride_y, image_stride_x,
    mixed_stride_b, mixed_stride_c, mixed_stride_y, mixed_stride_x,
    probs_stride_b, probs_stride_y, probs_stride_x,
    target_stride_b, target_stride_y, target_stride_x,
    PLANES: tl.constexpr, PER_PIXEL: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """One program a tile; the planes of the image come first on axis 1, the target is the last.

    Channels are either planes of their own, or lie beside each other in a row (channels_last): then a row has
    ``width * PER_PIXEL`` columns and so has the box.
    """
    columns = width * PER_PIXEL
    tiles_x = tl.cdiv(columns, BLOCK_X)
    tiles = tl.cdiv(height, BLOCK_Y) * tiles_x
    tile = tl.program_id(0) % tiles
    top, left = tile // tiles_x * BLOCK_Y, tile % tiles_x * BLOCK_X
    i = (tl.program_id(0) // tiles).to(tl.int64)
    j = tl.load(partner + i)
    mix = tl.load(accepted + i)
    y0, x0, y1, x1 = _clipped_box(boxes, i, height, width)
    plane = tl.program_id(1).to(tl.int64)
    if plane < PLANES:
        _mix_tile(
            images + plane * image_stride_c, mixed + plane * mixed_stride_c, i, j, mix,
            y0, x0 * PER_PIXEL, y1, x1 * PER_PIXEL, top, left, height, columns,
            image_stride_b, image_stride_y, image_stride_x, mixed_stride_b, mixed_stride_y, mixed_stride_x,
            BLOCK_Y, BLOCK_X,
        )  # fmt: skip
    elif left < width:
        _mix_tile(
            probs, target, i, j, mix, y0, x0, y1, x1, top, left, height, width,
            probs_stride_b, probs_stride_y, probs_stride_x, target_stride_b, target_stride_y, target_stride_x,
            BLOCK_Y, BLOCK_X,
        )  # fmt: skip


def _strides(name: str, tensor: Tensor, axes: str) -> dict[str, int]:
    return {f"{name}_stride_{axis}": tensor.stride("bcyx".index(axis)) for axis in axes}


def launches(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Launch, Launch, tuple[Tensor, Tensor, Tensor]]:
    """The two launches that fill the outputs, in their order, and the outputs.

    Arguments as in :func:`semimedref_kernels.patch_mix`, checked there. Any strides will do; 16-byte loads need rows
    whose elements lie side by side and whose starts are 16 elements apart or a multiple (a width such as 224).
    """
    batch, channels, height, width = images.shape
    mixed, target = torch.empty_like(images), torch.empty_like(probs)
    accepted = torch.empty(batch, dtype=torch.bool, device=images.device)
    partner, boxes = partner.contiguous(), boxes.contiguous()
    gate = Launch(
        gate_kernel,
        (batch,),
        {"probs": probs, "partner": partner, "boxes": boxes, "accepted": accepted}
        | {"threshold": float(threshold), "batch": batch, "height": height, "width": width}
        | _strides("probs", probs, "byx"),
        GATE_TILE,
    )
    interleaved = channels > 1 and all(t.stride(1) == 1 and t.stride(3) == channels for t in (images, mixed))
    planes, per_pixel = (1, channels) if interleaved else (channels, 1)
    strides = _strides("image", images, "bcyx") | _strides("mixed", mixed, "bcyx")
    if interleaved:  # one plane; a stride of 0 tells the compiler that all rows start at multiples of 16 elements
        strides |= {"image_stride_c": 0, "image_stride_x": 1, "mixed_stride_c": 0, "mixed_stride_x": 1}
    tiles = triton.cdiv(height, TILE["BLOCK_Y"]) * triton.cdiv(width * per_pixel, TILE["BLOCK_X"])
    mix = Launch(
        mix_kernel,
        (batch * tiles, planes + 1),
        {"images": images, "mixed": mixed, "probs": probs, "target": target, "partner": partner, "boxes": boxes}
        | {"accepted": accepted, "height": height, "width": width}
        | strides
        | _strides("probs", probs, "byx")
        | _strides("target", target, "byx"),
        {"PLANES": planes, "PER_PIXEL": per_pixel, **TILE},
    )
    return gate, mix, (mixed, target, accepted)


def patch_mix_fused(
    images: Tensor, probs: Tensor, partner: Tensor, boxes: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`semimedref_kernels.patch_mix` by the kernels, on a GPU or in Triton's interpreter on the CPU."""
    gate, mix, outputs = launches(images, probs, partner, boxes, threshold)
    gate.run()
    mix.run()
    return outputs
