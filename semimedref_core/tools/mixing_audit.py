"""Do image, target and text of a mixed sample still say the same? Counted zone by zone, from masks that are known.

Training never looks here: this needs the true masks, of unlabelled pairs too. It is how notebooks and tests judge a way
of mixing from outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from semimedref_core.reports import Report

OUTCOMES = ("aligned", "text wrong", "image only", "left alone")
"""What may become of a sample: patch in image, target and text; in image and target, but the text does not name its
zone or contradicts itself; in the image alone; or no patch at all."""


def sum_in_boxes(maps: Tensor, boxes: Tensor) -> Tensor:
    """What a map adds up to inside each box: lesion pixels of a mask, or probability.

    Args:
        maps: ``[B, 1, H, W]``.
        boxes: ``[B, K, 4]`` int64 px (y0, x0, y1, x1), ends exclusive.

    Returns:
        ``[B, K]`` float32.
    """
    height, width = maps.shape[2:]
    y, x = torch.arange(height), torch.arange(width)
    rows = (y >= boxes[..., :1]) & (y < boxes[..., 2:3])  # [B, K, H]
    columns = (x >= boxes[..., 1:2]) & (x < boxes[..., 3:])  # [B, K, W]
    return torch.einsum("bkh,bhw,bkw->bk", rows.float(), maps[:, 0].float(), columns.float())


def broken_by_mixing(before: Tensor, after: Tensor, named: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Where mixing, not the data, set image and text against each other.

    Args:
        before, after: ``[B, 6]`` lesion pixels in each zone of the picture before and after mixing.
        named: ``[B, 6]`` bool, the zones that the text after mixing names.
        least: so many pixels make a lesion.

    Returns:
        ``[B]`` bool each: a lesion came into a zone that the text does not name; a zone that it names lost its lesion.
    """
    before, after = before >= least, after >= least
    return (after & ~before & ~named).any(1), (before & ~after & named).any(1)


def zone_of_patch(patches: Tensor, boxes: Tensor) -> Tensor:
    """The zone whose box holds a patch's centre, ``[B, 4]`` and ``[6, 4]`` px -> ``[B]``; -1 where the patch is empty
    or lies in no zone."""
    y, x = (patches[:, :2] + patches[:, 2:] - 1).float().div(2).unbind(1)
    inside = (y[:, None] >= boxes[:, 0]) & (y[:, None] < boxes[:, 2])
    inside &= (x[:, None] >= boxes[:, 1]) & (x[:, None] < boxes[:, 3])
    full = (patches[:, 2:] > patches[:, :2]).all(1)
    return torch.where(full & inside.any(1), inside.int().argmax(1), -1)


def outcomes(
    images: Tensor, mixed: Tensor, accepted: Tensor, told: Sequence[Report], zones: Sequence[int]
) -> np.ndarray:
    """What became of each sample, judged by what is in the tensors and not by what was meant.

    Args:
        images, mixed: ``[B, C, H, W]`` before and after mixing.
        accepted: ``[B]`` bool, the target was mixed.
        told: B reports that the student reads, in style ``release``: its count word, if there is one, says how many
            zones are named.
        zones: ``[B]``, in which zone the patch lies.

    Returns:
        ``[B]`` of :data:`OUTCOMES`.
    """
    pasted = (images != mixed).flatten(1).any(1)
    found = []
    for changed, marked, report, zone in zip(pasted.tolist(), accepted.tolist(), told, zones, strict=True):
        whole = Report.of(report.zones, style="release")
        agrees = zone >= 0 and report.zones[zone] == 1 and report in (whole, whole.without_count())
        found.append(("aligned" if agrees else "text wrong") if marked else ("image only" if changed else "left alone"))
    return np.array(found)
