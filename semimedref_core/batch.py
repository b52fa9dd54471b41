"""The input of one training step: a batch of labelled pairs and a batch of unlabelled pairs, on the device.

:mod:`semimedref_core.data.batches` makes the batches; a step only reads them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Labelled:
    """B pairs of D_L.

    Attributes:
        images: ``[B, 1, H, W]`` uint8 grey values, or ``[B, 3, H, W]`` red, green and blue.
        masks: ``[B, 1, H, W]`` uint8, 1 where the lesion is.
        affine: ``[B, 2, 3]`` placement of the weak view.
        input_ids: ``[B, L]`` tokens of the report r; or ``[B, 1 + L, width]``, the output of a frozen text encoder for
            it.
        codes: ``[B]`` zone codes, the vector a of the report as bits.
    """

    images: Tensor
    masks: Tensor
    affine: Tensor
    input_ids: Tensor
    codes: Tensor


@dataclass(frozen=True)
class Unlabelled:
    """B pairs of D_U.

    Attributes:
        images, affine, input_ids, codes: as in :class:`Labelled`.
        photometry: grey-value changes of the strong view, see :class:`semimedref_core.views.Photometry`.
        text_choices: ``[B, K, L]`` tokens of the K texts that the student may read. The method's plan makes them; for
            T-PatchMix, PosAug is already applied. ``None`` for methods that mix nothing.
        proposal: who may give a patch to whom, and where; see :class:`semimedref_core.patchmix.Proposal`, or
            :class:`semimedref_core.methods.boxes.Boxes` for other plans. ``None`` for methods that mix nothing.
        mirrored_ids: ``[B, L]`` tokens of the report of the mirror image: left and right are swapped. ``None`` if no
            teacher sees mirror images.
        regions: ``[B, 1, H, W]`` uint8, 1 where a lesion may lie according to the report.
        zone_boxes: ``[B, 6, 4]`` int64, the boxes of the zones in the weak view (y0, x0, y1, x1; px); another layout of
            positions has n zones instead of six.
        mirrors: ``[B]`` bool, true for pairs whose mirror image has a true text.
    """

    images: Tensor
    affine: Tensor
    input_ids: Tensor
    codes: Tensor
    photometry: dict[str, Tensor]
    text_choices: Tensor | None
    proposal: dict[str, Tensor] | None
    mirrored_ids: Tensor | None
    regions: Tensor
    zone_boxes: Tensor
    mirrors: Tensor


@dataclass(frozen=True)
class Batch:
    """The input of one step; ``unlabelled`` is ``None`` for methods without unlabelled pairs."""

    labelled: Labelled
    unlabelled: Unlabelled | None


def each_tensor(value: Any, do: Callable[[Tensor], Tensor]) -> Any:
    """Applies ``do`` to each tensor of a batch or of a part of one, and returns a value of the same type."""
    if isinstance(value, Tensor):
        return do(value)
    if isinstance(value, dict):
        return {name: each_tensor(item, do) for name, item in value.items()}
    if dataclasses.is_dataclass(value):
        return type(value)(*(each_tensor(getattr(value, field.name), do) for field in dataclasses.fields(value)))
    return value
