"""Bidirectional copy-paste: a box of an unlabelled image in a labelled one, and the other way round.

Bai et al., "Bidirectional copy-paste for semi-supervised medical image segmentation", CVPR 2023 (arXiv 2305.00673).
Written from the paper's description. The student learns both mixed images, from masks where they are labelled and from
the teacher's rounded map elsewhere, which weighs half as much. As in the paper images are mixed without a strong view,
and the box is a square of side 2/3 (:data:`.boxes.square`), so that either source has about half of each image.

What is not the paper's:

- Of a pseudo-label it keeps the largest connected part. That cannot be found without waiting for the device, and an
  infection often has several parts; so all of them stay.
- It first trains on copy-paste among labelled images alone. Here burn-in is as for all methods, and so is the loss of
  labelled pairs as they are, which stays.
- It has no text. Here a mixed image is read with the report of its background, whichever that is; **of what is in the
  box that report does not tell.**
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.losses import dice_ce
from semimedref_core.methods.baselines import pseudo_labels, teaching
from semimedref_core.teacher import Teacher
from semimedref_core.views import place_masks, weak_view
from semimedref_kernels import patch_mix

PSEUDO_WEIGHT = 0.5  # the paper's alpha


def bcp(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """DiceCE of both mixed images on their labelled pixels, plus :data:`PSEUDO_WEIGHT` times that on the others."""
    labelled, unlabelled = batch.labelled, batch.unlabelled
    weak, p = pseudo_labels(teacher, unlabelled, config)
    x, y = weak_view(labelled.images, labelled.affine), place_masks(labelled.masks, labelled.affine)
    has_mask = torch.cat([torch.ones_like(y), torch.zeros_like(p)])
    teaches = torch.cat([torch.ones_like(y), teaching(p, unlabelled.codes, config)])
    maps = torch.cat([torch.cat([x, weak]), has_mask, teaches], 1)
    # All labelled samples stand before all unlabelled ones, and each has its partner in the other half.
    partner = torch.arange(2 * len(x), device=x.device).roll(len(x))
    boxes = unlabelled.proposal["boxes"][0].repeat(2, 1)
    maps, target, _ = patch_mix(maps, torch.cat([y, (p >= 0.5).float()]), partner, boxes, 0.0)
    mixed, has_mask, teaches = maps.split([x.shape[1], 1, 1], 1)
    logits = student(mixed, torch.cat([labelled.input_ids, unlabelled.input_ids])).logits
    of_masks = dice_ce(logits, target, has_mask)
    # The paper adds the losses of both ways; dice_ce is the mean over both.
    return 2 * (of_masks + PSEUDO_WEIGHT * dice_ce(logits, target, (1 - has_mask) * teaches))
