"""RESMatch-style: image and text are perturbed independently, and confident pseudo-labels have more weight.

After Zang et al., "RESMatch: Referring expression segmentation in a semi-supervised manner", 2024 (arXiv 2402.05589),
which uses photographs and free texts. Written from its abstract, so it follows only the style of the paper:

============================================ ==========================================================================
the paper                                    here
============================================ ==========================================================================
strong perturbation revised for referring    the strong views of all methods: only grey values change, and a mirrored
expressions                                  picture has a flipped text (:mod:`semimedref_core.views`)
text augmentation of free text               PosAug, which fits this grammar of reports, hides each position phrase
                                             with probability :data:`TEXT_P`
adjustments for the quality of pseudo-labels :func:`quality`, a weight for each sample; the formula is ours
adjustments of strong-weak supervision       none: the student learns only on the strong view
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

TEXT_P = 0.5  # ours; the same as in Semi-MedRef's release


def plan(
    rng: np.random.Generator, reports: list[AnyReport], boxes: np.ndarray, config: Config, texts: Texts | ReadTexts
) -> tuple[Tensor, Proposal]:
    """The plan of T-PatchMix with :data:`TEXT_P` as the probability of PosAug. Its first text is the sample's own."""
    return plan_mixing(rng, reports, boxes, replace(config, posaug_p=TEXT_P), texts)


def quality(p: Tensor) -> Tensor:
    """The confidence of pseudo-labels, ``[B]`` from 0 (p = 0.5) to 1: the mean of ``|2p - 1|`` over the lesion. If no
    lesion is found, the mean is over the whole image.

    Args:
        p: ``[B, 1, H, W]`` probabilities.
    """
    lesion = (p >= 0.5).float()
    counts = lesion.maximum(1 - lesion.amax((1, 2, 3), keepdim=True))  # all pixels of an image without lesion
    return ((2 * p - 1).abs() * counts).sum((1, 2, 3)) / counts.sum((1, 2, 3))


def resmatch(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """The student sees the strong view, reads the report after PosAug and learns the teacher's rounded map.

    The DiceCE of each sample is weighted by :func:`quality` of its map. The mean is over samples, so a batch of poor
    maps has a smaller loss.
    """
    unlabelled = batch.unlabelled
    weak, p = pseudo_labels(teacher, unlabelled, config)
    logits = student(strong_view(weak, **unlabelled.photometry), unlabelled.text_choices[:, 0]).logits
    target = (p >= 0.5).float()
    found = found_images(target, unlabelled.codes, config)
    return average(quality(p) * dice_ce_of_images(logits, target), found)
