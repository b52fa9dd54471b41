"""RESMatch-style: image and text are perturbed, each for itself, and sure pseudo-labels weigh more.

After Zang et al., "RESMatch: Referring expression segmentation in a semi-supervised manner", 2024 (arXiv 2402.05589),
which works on photographs and free texts. Written from what its abstract says, so only in its style:

============================================ ==========================================================================
the paper                                    here
============================================ ==========================================================================
strong perturbation revised for referring    the strong views that all methods share: grey values alone, and what
expressions                                  mirrors a picture changes its text (:mod:`semimedref_core.views`)
text augmentation of free text               PosAug, the augmentation that this grammar of reports allows, hides each
                                             position phrase with probability :data:`TEXT_P`
adjustments for the quality of pseudo-labels :func:`quality`, a weight for each sample; the formula is ours
adjustments of strong-weak supervision       none: the student learns on the strong view alone
============================================ ==========================================================================
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.data.batches import plan_mixing
from semimedref_core.losses import average, dice_ce_of_images
from semimedref_core.methods.baselines import pseudo_labels
from semimedref_core.methods.reported_places import found_images
from semimedref_core.networks.text import Texts
from semimedref_core.networks.text_cache import ReadTexts
from semimedref_core.patchmix import Proposal
from semimedref_core.positions import AnyReport
from semimedref_core.teacher import Teacher
from semimedref_core.views import strong_view

TEXT_P = 0.5  # ours; as often as Semi-MedRef's paper hides a phrase


def plan(
    rng: np.random.Generator, reports: list[AnyReport], boxes: np.ndarray, config: Config, texts: Texts | ReadTexts
) -> tuple[Tensor, Proposal]:
    """T-PatchMix's plan, whose first text is the sample's own after PosAug, with :data:`TEXT_P` for the setting's."""
    return plan_mixing(rng, reports, boxes, replace(config, posaug_p=TEXT_P), texts)


def quality(p: Tensor) -> Tensor:
    """How sure pseudo-labels are, ``[B]`` from 0 (a toss of a coin) to 1: the mean of ``|2p - 1|`` over the lesion.

    Where no lesion is found, over the whole image.

    Args:
        p: ``[B, 1, H, W]`` probabilities.
    """
    lesion = (p >= 0.5).float()
    counts = lesion.maximum(1 - lesion.amax((1, 2, 3), keepdim=True))  # all pixels of an image without lesion
    return ((2 * p - 1).abs() * counts).sum((1, 2, 3)) / counts.sum((1, 2, 3))


def resmatch(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """The student sees the strong view, reads the report after PosAug and learns the teacher's rounded map.

    DiceCE of each sample is weighted by :func:`quality` of its map; the mean is over samples, so that a batch of poor
    maps teaches less.
    """
    unlabelled = batch.unlabelled
    weak, p = pseudo_labels(teacher, unlabelled, config)
    logits = student(strong_view(weak, **unlabelled.photometry), unlabelled.text_choices[:, 0]).logits
    target = (p >= 0.5).float()
    found = found_images(target, unlabelled.codes, config)
    return average(quality(p) * dice_ce_of_images(logits, target), found)
