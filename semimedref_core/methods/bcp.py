"""Bidirectional copy-paste: a box of an unlabelled image is pasted into a labelled one, and a labelled box into an
unlabelled one.

Bai et al., "Bidirectional copy-paste for semi-supervised medical image segmentation", CVPR 2023 (arXiv 2305.00673).
Written from the paper's description. The student learns both mixed images: labelled pixels from masks, other pixels
from the teacher's rounded map, with half the weight. As in the paper, images are mixed without a strong view. The box
is a square of side 2/3 (:data:`.boxes.square`), so each source has about half of each image.

Three points differ from the paper:

- The paper keeps the largest connected part of a pseudo-label. Finding it would make the host wait for the device, and
  an infection often has several parts. So we keep all parts.
- The paper first trains on copy-paste among labelled images. Here burn-in is the same as for all methods, and so is the
  additional loss of unmixed labelled pairs.
- The paper has no text. Here the text of a mixed image is the report of its background. **This report does not describe
  the lesions in the box.**
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
    """DiceCE of both mixed images on their labelled pixels, plus :data:`PSEUDO_WEIGHT` times the DiceCE on the other
    pixels."""
    labelled, unlabelled = batch.labelled, batch.unlabelled
    weak, p = pseudo_labels(teacher, unlabelled, config)
    x, y = weak_view(labelled.images, labelled.affine), place_masks(labelled.masks, labelled.affine)
    has_mask = torch.cat([torch.ones_like(y), torch.zeros_like(p)])
    teaches = torch.cat([torch.ones_like(y), teaching(p, unlabelled.codes, config)])
    maps = torch.cat([torch.cat([x, weak]), has_mask, teaches], 1)
    # The labelled samples come first, then the unlabelled ones. Each sample has its partner in the other half.
    partner = torch.arange(2 * len(x), device=x.device).roll(len(x))
    boxes = unlabelled.proposal["boxes"][0].repeat(2, 1)
    maps, target, _ = patch_mix(maps, torch.cat([y, (p >= 0.5).float()]), partner, boxes, 0.0)
    mixed, has_mask, teaches = maps.split([x.shape[1], 1, 1], 1)
    logits = student(mixed, torch.cat([labelled.input_ids, unlabelled.input_ids])).logits
    of_masks = dice_ce(logits, target, has_mask)
    # The paper adds the losses of both directions; dice_ce is the mean over both.
    return 2 * (of_masks + PSEUDO_WEIGHT * dice_ce(logits, target, (1 - has_mask) * teaches))
