"""Boxes that are pasted from one picture into another. The CPU draws them ahead. A plan sets their size and the text.

=========== ======================================================================= ==============================
plan        a box                                                                   text
=========== ======================================================================= ==============================
half        half of the picture, of any aspect ratio that fits (French et al.)      the sample's own
unimatch    2 to 40 % of the picture, sides 0.3 to 3.3 as 1, for one view in two     the sample's own
            (the settings that UniMatch's authors use)
with_text   as ``unimatch``                                                         follows what was pasted
square      a square of side 2/3 (Bai et al.)                                       the sample's own
=========== ======================================================================= ==============================

A box lies inside the picture; all such places are equally likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from semimedref_core.config import Config
from semimedref_core.networks.text import Texts
from semimedref_core.networks.text_cache import ReadTexts
from semimedref_core.patchmix import common_boxes
from semimedref_core.positions import AnyReport
from semimedref_core.reports import Report


@dataclass(frozen=True)
class Boxes:
    """The boxes for V strong views of B samples.

    Attributes:
        partner: ``[B]`` int64, the donor j of each sample i, the same for all views. It may be i itself.
        boxes: ``[V, B, 4]`` int64 px (y0, x0, y1, x1); (0, 0, 0, 0) if nothing is pasted.
    """

    partner: np.ndarray
    boxes: np.ndarray


def draw_boxes(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    side: int,
    share: tuple[float, float],
    ratio: float = np.inf,
    p: float = 1.0,
) -> np.ndarray:
    """Draws boxes in a square picture: ``[*shape, 4]`` int64 px.

    Args:
        rng: source of chance.
        shape: leading shape of the result.
        side: side of the picture, px.
        share: smallest and largest area as a share of the picture's area; drawn uniformly.
        ratio: largest ratio of height to width and of width to height; drawn log-uniformly, within the limits of the
            picture.
        p: probability that a box is not empty.
    """
    area = rng.uniform(*share, shape)
    most = np.log(np.minimum(ratio, 1 / area))
    height = np.sqrt(area * np.exp(rng.uniform(-1, 1, shape) * most))
    size = np.stack([height, area / height], -1)
    size = np.rint(size * side).astype(np.int64).clip(1, side)
    low = np.floor(rng.random((*shape, 2)) * (side - size + 1)).astype(np.int64)
    pasted = rng.random((*shape, 1)) < p
    return np.where(pasted, np.concatenate([low, low + size], -1), 0)


def report_of_mix(own: Report, donor: Report, box: np.ndarray, zones: np.ndarray, donor_zones: np.ndarray) -> Report:
    """The report of a picture after a box of the donor was pasted into it, estimated from the two reports.

    A zone of the own report stays if the box covers less than half of it. A zone of the donor's report is added if at
    least half of it is in the box. The true number of lesions is unknown: the report counts one for each side (style
    ``release``: the zones).

    Args:
        own, donor: the reports of the views.
        box: ``[4]`` px; empty for no patch.
        zones, donor_zones: ``[6, 4]`` px, the zone boxes in the two views.
    """
    if not box[2]:
        return own

    def covered(zones: np.ndarray) -> np.ndarray:
        inside, whole = ((each[:, 2:] - each[:, :2]).prod(1) for each in (common_boxes(zones, box), zones))
        return inside * 2 >= np.maximum(whole, 1)

    stays = np.array(own.zones, bool) & ~covered(zones)
    return Report.of(stays | (np.array(donor.zones, bool) & covered(donor_zones)), None, own.style)


def plan_boxes(
    rng: np.random.Generator,
    reports: list[AnyReport],
    zones: np.ndarray,
    config: Config,
    texts: Texts | ReadTexts,
    *,
    views: int,
    share: tuple[float, float],
    ratio: float = np.inf,
    p: float = 1.0,
    follow: bool = False,
) -> tuple[Tensor, Boxes]:
    """Replaces :func:`semimedref_core.data.batches.plan_mixing`, for ``views`` strong views of each sample.

    Args:
        rng, reports, zones, config, texts: as in that function.
        views: V.
        share, ratio, p: as in :func:`draw_boxes`.
        follow: whether the text comes from :func:`report_of_mix`; otherwise it is the sample's own.

    Returns:
        ``[B, V, L]`` token ids of the text of each view, and the boxes.
    """
    partner = rng.permutation(len(reports))
    boxes = draw_boxes(rng, (views, len(reports)), config.image_size, share, ratio, p)

    def told(view: int, i: int, j: int) -> str:
        if not follow or i == j:
            return reports[i].render()
        return report_of_mix(reports[i], reports[j], boxes[view, i], zones[i], zones[j]).render()

    read = [texts([told(view, i, j) for i, j in enumerate(partner)]) for view in range(views)]
    return torch.stack(read, 1), Boxes(partner, boxes)


half = partial(plan_boxes, views=1, share=(0.5, 0.5))
square = partial(plan_boxes, views=1, share=(4 / 9, 4 / 9), ratio=1.0)
unimatch = partial(plan_boxes, views=2, share=(0.02, 0.4), ratio=1 / 0.3, p=0.5)
with_text = partial(unimatch, follow=True)
