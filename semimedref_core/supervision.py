"""What the methods share: the loss of a mask, pseudo-labels and how far they are trusted, and the supervised step.

A method takes the student, the teacher, a batch and the step's unsupervised weight, and returns the loss terms. It
never brings a value back to the host, so on a GPU nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from semimedref_core.config import Config
from semimedref_core.data.batches import Batch, Labelled, Plan, Unlabelled, plan_mixing
from semimedref_core.data.views import place_masks, weak_view
from semimedref_core.networks import build_pretrained
from semimedref_core.stopwatch import part
from semimedref_core.teacher import Teacher


@dataclass(frozen=True)
class Method:
    """A method: its step, whether it reads unlabelled pairs, what builds that which it trains, from the name of the
    network and its pretrained encoders, and what may become of unlabelled samples and their texts."""

    step: Callable[[nn.Module, Teacher, Batch, float, Config], dict[str, Tensor]]
    unlabelled: bool
    build: Callable[..., nn.Module] = build_pretrained
    plan: Plan = plan_mixing


SURELY_NOT = -30.0  # a logit whose probability and loss against 0 are less than what float32 can tell from 0
SMOOTH = 1e-5  # added above and below the line, so that an empty image that is found empty has loss 0


@part("losses")
def dice_ce(logits: Tensor, target: Tensor, weight: Tensor | None = None, left_out: Tensor | None = None) -> Tensor:
    """Eq. 13: Dice loss of each image plus its binary cross-entropy, averaged over images.

    The Dice loss of probabilities p and target y is ``1 - (2 sum p y + s) / (sum p + sum y + s)``, s = :data:`SMOOTH`.

    Args:
        logits, target: ``[B, 1, H, W]``; the target 0 to 1.
        weight: ``[B]`` weights of the images in the average; evenly if not given. All zero gives 0.
        left_out: ``[B, 1, H, W]`` bool, pixels that teach nothing. They count as background that is found: they add no
            loss and have no gradient. Cross-entropy is averaged over all pixels still.
    """
    if left_out is not None:
        logits, target = logits.masked_fill(left_out, SURELY_NOT), target * ~left_out
    p, pixels = logits.sigmoid(), (1, 2, 3)
    both = (p * target).sum(pixels)
    missed, wrong = target.sum(pixels) - both, p.sum(pixels) - both
    each = 1 - (2 * both + SMOOTH) / (2 * (both + wrong * 0.5 + missed * 0.5) + SMOOTH)
    each = each + binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2, 3))
    return each.mean() if weight is None else average(each, weight)


def average(each: Tensor, weight: Tensor) -> Tensor:
    """The mean of ``each`` [B] by weights [B], 0 or 1; 0 where all weights are 0."""
    return (each * weight).sum() / weight.sum().clamp(min=1)


def labelled_views(labelled: Labelled) -> tuple[Tensor, Tensor]:
    """The weak views ``[B, 1, H, W]`` of labelled pairs and their masks, placed alike."""
    return weak_view(labelled.images, labelled.theta), place_masks(labelled.masks, labelled.theta)


def supervised(student: nn.Module, teacher: Teacher, batch: Batch, w_u: float, config: Config) -> dict[str, Tensor]:
    """``L = DiceCE(labelled)``. The teacher follows along as an average of the student's weights and gives nothing."""
    x, y = labelled_views(batch.labelled)
    loss = dice_ce(student(x, batch.labelled.input_ids).logits, y)
    return {"loss": loss, "loss_labelled": loss}


@torch.no_grad()
def pseudo_labels(teacher: Teacher | nn.Module, unlabelled: Unlabelled, config: Config) -> tuple[Tensor, Tensor]:
    """The weak views ``[B, 1, H, W]`` and the teacher's lesion probabilities p on them, from one look of the teacher.

    The partners' maps are these, permuted. Where the settings say ``reported``, p is 0 outside the zones that the
    report names: the text is the one truth known of an unlabelled pair. The paper has no such cut (Ledger 5), and the
    release runs the teacher once more to get the partners' maps (Ledger 6).

    Where they say ``mirrored``, the teacher looks at the mirror image and reads the report with its sides swapped, and
    its map is mirrored back. So the student learns another answer to the same question, not an echo of its own. This is
    not in the paper either.
    """
    weak = weak_view(unlabelled.images, unlabelled.theta)
    if config.teacher_view == "mirrored":
        p = teacher(weak.flip(3), unlabelled.mirrored_ids).logits.sigmoid().flip(3)
    else:
        p = teacher(weak, unlabelled.input_ids).logits.sigmoid()
    return weak, where_reported(p, unlabelled, config)


def where_reported(p: Tensor, unlabelled: Unlabelled, config: Config) -> Tensor:
    """Lesion probabilities p ``[B, 1, H, W]`` on weak views, cut to the reported zones where the settings say so."""
    return p * place_masks(unlabelled.regions, unlabelled.theta) if config.pseudo_labels == "reported" else p


def trust(target: Tensor, codes: Tensor, config: Config) -> Tensor:
    """Weights ``[B]``, 0 or 1, of the mixed samples in the loss, from their targets ``[B, 1, H, W]`` and zone codes.

    All 1 where the settings say ``teacher``, as in the release (Ledger 5). Where they say ``reported``, an infection
    that is reported but not found has weight 0: its empty target would teach the student not to find it.
    """
    if config.pseudo_labels == "teacher":
        return torch.ones_like(target[:, 0, 0, 0])
    return target.amax((1, 2, 3)).maximum((codes == 0).float())


def unfound_zones(target: Tensor, codes: Tensor, zone_boxes: Tensor) -> Tensor:
    """Pixels of the zones that a report names and in which the target shows no lesion: ``[B, 1, H, W]`` bool.

    The report says that something is there, the teacher did not find it: what an empty zone would teach is wrong.

    Args:
        target: ``[B, 1, H, W]`` 0 or 1.
        codes: ``[B]`` zone codes, bit k for zone k.
        zone_boxes: ``[B, 6, 4]`` int64, where the zones lie in the view (y0, x0, y1, x1, px); they may overlap.
    """
    y, x = (torch.arange(side, device=target.device) for side in target.shape[2:])
    y0, x0, y1, x1 = zone_boxes[..., None].unbind(2)
    inside = ((y >= y0) & (y < y1))[..., :, None] & ((x >= x0) & (x < x1))[..., None, :]  # [B, 6, H, W]
    named = (codes[:, None] >> torch.arange(zone_boxes.shape[1], device=codes.device)) & 1 > 0
    unfound = named & ~(inside & (target > 0)).flatten(2).any(2)
    return (inside & unfound[..., None, None]).any(1, keepdim=True) & (target == 0)
