"""LViT's way of learning from unlabelled pairs, without its network.

Li et al., "LViT: Language meets Vision Transformer in medical image segmentation", IEEE TMI 2023 (arXiv 2206.14718).
Written from the paper's description. Two parts:

- *Exponential pseudo-label iteration (EPI)*: ``P_t = beta P_(t-1) + (1 - beta) P``, with beta = 0.99, a running average
  of what the network has said of each unlabelled image. **Here the average is one of weights, not of maps**: the EMA
  teacher that all methods have says what the pseudo-label is. A map kept for each image would have to follow every weak
  view, which lies elsewhere each time. So this part is Mean Teacher's idea with rounded labels, and no strong view.
- *Language-vision (LV) loss*: of the labelled pairs, the one whose text is most similar lends its mask, the contrastive
  label; the prediction's cosine similarity with it is to be high, since similar texts tell of similar places. The paper
  compares embedded texts over its whole set, here it is the zones that two reports name, over the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.losses import average
from semimedref_core.methods.baselines import pseudo_labels, rounded_dice_ce, teaching
from semimedref_core.reports import ZONES
from semimedref_core.teacher import Teacher
from semimedref_core.views import place_masks

LV_WEIGHT = 0.1  # the paper's alpha


def text_similarity(codes: Tensor, others: Tensor) -> Tensor:
    """Cosine similarity of what reports name, ``[B, N]`` from 0 to 1: of the six zones, and "none" as a seventh.

    Args:
        codes, others: ``[B]`` and ``[N]`` zone codes.
    """

    def named(codes: Tensor) -> Tensor:
        zones = (codes[:, None] >> torch.arange(len(ZONES), device=codes.device)) & 1
        return torch.cat([zones, (codes == 0)[:, None]], 1).float()

    return cosine_similarity(named(codes)[:, None], named(others)[None], 2)


def lv_loss(p: Tensor, codes: Tensor, masks: Tensor, labelled_codes: Tensor) -> Tensor:
    """``1 - cos(p, contrastive label)``, the mean over images for which a labelled text names at least one zone alike.

    Args:
        p: ``[B, 1, H, W]`` the student's lesion probabilities.
        codes: ``[B]`` zone codes of their reports.
        masks: ``[N, 1, H, W]`` of labelled pairs, placed as their views.
        labelled_codes: ``[N]`` zone codes of these.
    """
    similarity, nearest = text_similarity(codes, labelled_codes).max(1)
    return average(1 - cosine_similarity(p.flatten(1), masks[nearest].flatten(1)), (similarity > 0).float())


def lvit(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """DiceCE against the teacher's rounded map, plus the LV loss; the student looks at the weak view too."""
    labelled, unlabelled = batch.labelled, batch.unlabelled
    weak, p = pseudo_labels(teacher, unlabelled, config)
    logits = student(weak, unlabelled.input_ids).logits
    masks = place_masks(labelled.masks, labelled.affine)
    of_language = lv_loss(logits.sigmoid(), unlabelled.codes, masks, labelled.codes)
    return rounded_dice_ce(logits, p, teaching(p, unlabelled.codes, config)) + LV_WEIGHT * of_language
