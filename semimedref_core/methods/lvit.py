"""The semi-supervised learning of LViT, without its network.

Li et al., "LViT: Language meets Vision Transformer in medical image segmentation", IEEE TMI 2023 (arXiv 2206.14718).
Written from the paper's description. Two parts:

- *Exponential pseudo-label iteration (EPI)*: ``P_t = beta P_(t-1) + (1 - beta) P``, with beta = 0.99, is a running
  average of the network's predictions for each unlabelled image. **Here we average weights, not maps**: the EMA teacher
  of all methods gives the pseudo-label. A stored map of each image would have to be moved to every new weak view. So
  this part is Mean Teacher with rounded labels and without a strong view.
- *Language-vision (LV) loss*: the labelled pair with the most similar text lends its mask, the contrastive label. The
  loss raises the cosine similarity of the prediction with this mask, since similar texts name similar places. The paper
  compares embedded texts of its whole data set. Here we compare the zones that the reports of a batch name.
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
    """Cosine similarity of the zones that reports name, with "none" as a seventh zone: ``[B, N]`` from 0 to 1.

    Args:
        codes, others: ``[B]`` and ``[N]`` zone codes.
    """

    def named(codes: Tensor) -> Tensor:
        zones = (codes[:, None] >> torch.arange(len(ZONES), device=codes.device)) & 1
        return torch.cat([zones, (codes == 0)[:, None]], 1).float()

    return cosine_similarity(named(codes)[:, None], named(others)[None], 2)


def lv_loss(p: Tensor, codes: Tensor, masks: Tensor, labelled_codes: Tensor) -> Tensor:
    """``1 - cos(p, contrastive label)``, the mean over images that share at least one zone with a labelled text.

    Args:
        p: ``[B, 1, H, W]`` the student's lesion probabilities.
        codes: ``[B]`` zone codes of the reports.
        masks: ``[N, 1, H, W]`` masks of labelled pairs, placed like their views.
        labelled_codes: ``[N]`` zone codes of the labelled pairs.
    """
    similarity, nearest = text_similarity(codes, labelled_codes).max(1)
    return average(1 - cosine_similarity(p.flatten(1), masks[nearest].flatten(1)), (similarity > 0).float())


def lvit(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """DiceCE against the teacher's rounded map, plus the LV loss; the student sees the weak view."""
    labelled, unlabelled = batch.labelled, batch.unlabelled
    weak, p = pseudo_labels(teacher, unlabelled, config)
    logits = student(weak, unlabelled.input_ids).logits
    masks = place_masks(labelled.masks, labelled.affine)
    of_language = lv_loss(logits.sigmoid(), unlabelled.codes, masks, labelled.codes)
    return rounded_dice_ce(logits, p, teaching(p, unlabelled.codes, config)) + LV_WEIGHT * of_language
