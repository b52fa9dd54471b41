"""Checks zone by zone, with true masks, whether image, target and text of a mixed sample still agree.

Training never uses this module, because it needs the true masks of unlabelled pairs too. Notebooks and tests use it to
judge ways of mixing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from semimedref_core.reports import Report

OUTCOMES = ("aligned", "text wrong", "image only", "left alone")
"""The possible outcomes of a sample: patch in image, target and text; patch in image and target, but the text does not
name its zone or contradicts itself; patch only in the image; no patch."""

FAULTS = (
    "a lesion in a zone that the text does not name", "a zone that the text names lost its lesion",
    "covers part of the sample's own lesion", "count word wrong before mixing", "count word wrong after mixing",
)  # fmt: skip
"""What may be wrong with a mixed sample, see :func:`faults`."""


def sum_in_boxes(maps: Tensor, boxes: Tensor) -> Tensor:
    """The sum of a map inside each box: lesion pixels of a mask, or probability.

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
    """Finds samples in which mixing, not the data, made image and text disagree.

    Args:
        before, after: ``[B, 6]`` lesion pixels in each zone of the picture before and after mixing.
        named: ``[B, 6]`` bool, the zones that the text after mixing names.
        least: smallest number of pixels of a lesion.

    Returns:
        Two ``[B]`` bool: whether a zone that the text does not name got a lesion, and whether a named zone lost its
        lesion.
    """
    before, after = before >= least, after >= least
    return (after & ~before & ~named).any(1), (before & ~after & named).any(1)


def count_lesions(masks: Tensor) -> Tensor:
    """The number of connected lesions in each mask: ``[B, H, W]`` -> ``[B]``. Pixels that touch at a corner are
    connected."""
    return torch.tensor([ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks.numpy()])


def faults(
    before: Tensor, after: Tensor, boxes: Tensor, own: Sequence[Report], told: Sequence[Report], least: float
) -> Tensor:
    """What is wrong with each sample.

    Args:
        before, after: ``[B, 1, H, W]`` 0/1, the lesions in the image before and after mixing.
        boxes: ``[B, 6, 4]`` int64 px (y0, x0, y1, x1), the zones in each view.
        own, told: B reports each, before and after mixing.
        least: smallest number of pixels of a lesion in a zone.

    Returns:
        ``[B, 5]`` bool, in the order of :data:`FAULTS`.
    """
    named = torch.tensor([report.zones for report in told]).bool()
    unnamed, lost = broken_by_mixing(sum_in_boxes(before, boxes), sum_in_boxes(after, boxes), named, least)
    covered = ((before > 0) & (after == 0)).flatten(1).any(1)
    counts = (miscounted(said, count_lesions(masks[:, 0])) for said, masks in ((own, before), (told, after)))
    return torch.stack([unnamed, lost, covered, *counts], 1)


def miscounted(reports: Sequence[Report], lesions: Tensor) -> Tensor:
    """Whether the number of a report is wrong. A report without a number is not.

    Args:
        reports: B reports.
        lesions: ``[B]``, the true numbers, see :func:`count_lesions`.

    Returns:
        ``[B]`` bool.
    """
    pairs = zip(reports, lesions.tolist(), strict=True)
    return torch.tensor([report.lesions not in (count, None) for report, count in pairs], dtype=torch.bool)


def zone_of_patch(patches: Tensor, boxes: Tensor) -> Tensor:
    """The zone whose box holds the centre of a patch: ``[B, 4]`` and ``[6, 4]`` px -> ``[B]``; -1 if the patch is empty
    or in no zone."""
    y, x = (patches[:, :2] + patches[:, 2:] - 1).float().div(2).unbind(1)
    inside = (y[:, None] >= boxes[:, 0]) & (y[:, None] < boxes[:, 2])
    inside &= (x[:, None] >= boxes[:, 1]) & (x[:, None] < boxes[:, 3])
    full = (patches[:, 2:] > patches[:, :2]).all(1)
    return torch.where(full & inside.any(1), inside.int().argmax(1), -1)


def outcomes(
    images: Tensor, mixed: Tensor, accepted: Tensor, told: Sequence[Report], zones: Sequence[int]
) -> np.ndarray:
    """The outcome of each sample, from the tensors and not from the intention.

    Args:
        images, mixed: ``[B, C, H, W]`` before and after mixing.
        accepted: ``[B]`` bool, whether the target was mixed.
        told: B reports that the student reads, in style ``release``: the count word, if there is one, is the number of
            named zones.
        zones: ``[B]``, the zone of the patch.

    Returns:
        ``[B]`` entries of :data:`OUTCOMES`.
    """
    pasted = (images != mixed).flatten(1).any(1)
    found = []
    for changed, marked, report, zone in zip(pasted.tolist(), accepted.tolist(), told, zones, strict=True):
        whole = Report.of(report.zones, style="release")
        agrees = zone >= 0 and report.zones[zone] == 1 and report in (whole, whole.without_count())
        found.append(("aligned" if agrees else "text wrong") if marked else ("image only" if changed else "left alone"))
    return np.array(found)
