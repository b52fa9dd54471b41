"""What one training step sees: a batch of labelled pairs, and one of unlabelled pairs, on the device.

How batches are made is in :mod:`semimedref_core.data.batches`; a step only reads them.
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
        input_ids: ``[B, L]`` tokens of the report r; or ``[B, 1 + L, width]``, what a frozen text encoder has read in
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
        text_choices: ``[B, K, L]`` tokens of the K texts that the student may read, as the method's plan has it; for
            T-PatchMix with PosAug applied.
        proposal: who may give a patch to whom, and where, see :class:`semimedref_core.patchmix.Proposal`, and for other
            plans :class:`semimedref_core.methods.boxes.Boxes`.
        mirrored_ids: ``[B, L]`` tokens of the mirror image's report, with its sides swapped.
        regions: ``[B, 1, H, W]`` uint8, where in the picture the report lets a lesion be.
        zone_boxes: ``[B, 6, 4]`` int64, where the zones lie in the weak view (y0, x0, y1, x1; px); n instead of six
            for another layout of positions.
        mirrors: ``[B]`` bool, which pairs have a true text of their mirror image.
    """

    images: Tensor
    affine: Tensor
    input_ids: Tensor
    codes: Tensor
    photometry: dict[str, Tensor]
    text_choices: Tensor
    proposal: dict[str, Tensor]
    mirrored_ids: Tensor
    regions: Tensor
    zone_boxes: Tensor
    mirrors: Tensor


@dataclass(frozen=True)
class Batch:
    """What one step sees; ``unlabelled`` is ``None`` for methods that do without."""

    labelled: Labelled
    unlabelled: Unlabelled | None


def each_tensor(value: Any, do: Callable[[Tensor], Tensor]) -> Any:
    """A batch, or a part of one, of the same kind, with what ``do`` makes of each of its tensors."""
    if isinstance(value, Tensor):
        return do(value)
    if isinstance(value, dict):
        return {name: each_tensor(item, do) for name, item in value.items()}
    if dataclasses.is_dataclass(value):
        return type(value)(*(each_tensor(getattr(value, field.name), do) for field in dataclasses.fields(value)))
    return value
