"""What Semi-MedRef is compared with; each function is the unlabelled loss ``L_u`` of a baseline, from its paper.

The loss is ``L = DiceCE(labelled) + w_u L_u`` for all. They share with Semi-MedRef the network, the reports as input,
the order of the data, the views, burn-in and ramp, the EMA teacher that is evaluated, and what our additions make of
pseudo-labels (:mod:`.reported_places`), which the preset ``paper`` takes from all methods. :func:`cps` has no mirrored
teacher: its networks label each other. None has ITCL or a mixed text, and only :func:`resmatch` has PosAug.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout2d

from semimedref_core.batch import Batch, Labelled, Unlabelled
from semimedref_core.config import Config
from semimedref_core.losses import average, dice_ce, dice_ce_of_images
from semimedref_core.methods.reported_places import found_images, label, where_reported
from semimedref_core.networks import Twins
from semimedref_core.teacher import Teacher
from semimedref_core.views import place_masks, strong_view, weak_view
from semimedref_kernels import patch_mix


def labelled_loss(network: nn.Module, labelled: Labelled) -> Tensor:
    """DiceCE of labelled pairs on their weak views."""
    x, y = weak_view(labelled.images, labelled.affine), place_masks(labelled.masks, labelled.affine)
    return dice_ce(network(x, labelled.input_ids).logits, y)


def supervised(student: nn.Module, teacher: Teacher, batch: Batch, w_u: float, config: Config) -> dict[str, Tensor]:
    """``L = DiceCE(labelled)``. The teacher follows along as an average of the student's weights and gives nothing."""
    loss = labelled_loss(student, batch.labelled)
    return {"loss": loss, "loss_labelled": loss}


def semi_supervised(
    unlabelled_loss: Callable[..., Tensor],
    student: nn.Module,
    teacher: Teacher,
    batch: Batch,
    w_u: float,
    config: Config,
) -> dict[str, Tensor]:
    """``L = DiceCE(labelled) + w_u L_u``; during burn-in (``w_u`` = 0) supervised. Of :class:`.Twins` each learns."""
    each = (student.first, student.second) if isinstance(student, Twins) else (student,)
    loss_labelled = sum(labelled_loss(network, batch.labelled) for network in each)
    if w_u == 0:
        return {"loss": loss_labelled, "loss_labelled": loss_labelled}
    loss_unlabelled = unlabelled_loss(student, teacher, batch.unlabelled, config)
    loss = loss_labelled + w_u * loss_unlabelled
    return {"loss": loss, "loss_labelled": loss_labelled, "loss_unlabelled": loss_unlabelled}


def pseudo_labels(teacher: Teacher | nn.Module, unlabelled: Unlabelled, config: Config) -> tuple[Tensor, Tensor]:
    """The weak views ``[B, 1, H, W]`` and the probabilities on them, of one look of the teacher."""
    weak = weak_view(unlabelled.images, unlabelled.affine)
    return weak, label(teacher, weak, unlabelled, config)


def rounded_dice_ce(logits: Tensor, p: Tensor, unlabelled: Unlabelled, config: Config, confidence: float = 0.0):
    """DiceCE against ``1[p >= 0.5]``; pixels where ``max(p, 1 - p) < confidence`` teach nothing.

    Args:
        logits, p: ``[B, 1, H, W]``; p are probabilities.
        unlabelled, config: what :func:`.found_images` asks.
        confidence: 0 to 1; at 0 each pixel teaches.
    """
    target = (p >= 0.5).float()
    sure = (torch.maximum(p, 1 - p) >= confidence).float() if confidence else None
    return average(dice_ce_of_images(logits, target, sure), found_images(target, unlabelled.codes, config))


def mean_teacher(student: nn.Module, teacher: Teacher, unlabelled: Unlabelled, config: Config) -> Tensor:
    """Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017 (arXiv 1703.01780).

    The mean squared difference of probabilities: the student's on the strong view, and the teacher's on the weak view,
    not rounded.
    """
    weak, p = pseudo_labels(teacher, unlabelled, config)
    seen = student(strong_view(weak, **unlabelled.photometry), unlabelled.input_ids).logits.sigmoid()
    return average((seen - p).square().mean((1, 2, 3)), found_images((p >= 0.5).float(), unlabelled.codes, config))


def fixmatch(student: nn.Module, teacher: Teacher, unlabelled: Unlabelled, config: Config) -> Tensor:
    """Sohn et al., "FixMatch", NeurIPS 2020 (arXiv 2001.07685), for pixels.

    The student itself, not its average, labels the weak view; where it is confident, the strong view learns the rounded
    label. The teacher is only evaluated, as in the paper.
    """
    weak, p = pseudo_labels(student, unlabelled, config)
    logits = student(strong_view(weak, **unlabelled.photometry), unlabelled.input_ids).logits
    return rounded_dice_ce(logits, p, unlabelled, config, config.confidence)


def unimatch(student: nn.Module, teacher: Teacher, unlabelled: Unlabelled, config: Config) -> Tensor:
    """Yang et al., "Revisiting weak-to-strong consistency in semi-supervised semantic segmentation", CVPR 2023
    (arXiv 2208.09910).

    FixMatch with three views of the student, of weights 1/4, 1/4 and 1/2: two strong ones, and the weak one with half
    of the channels dropped between encoder and decoder. The second strong view takes the grey-value changes drawn for
    the neighbour in the batch. The paper's CutMix of the strong views is left out, since the text would not follow; see
    :func:`cutmix` for it alone.
    """
    weak, p = pseudo_labels(student, unlabelled, config)
    photometry = unlabelled.photometry
    strong = strong_view(weak, **photometry)
    another = strong_view(weak, **{name: value.roll(1, 0) for name, value in photometry.items()})

    def loss(view: Tensor, perturb: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        logits = student(view, unlabelled.input_ids, perturb=perturb).logits
        return rounded_dice_ce(logits, p, unlabelled, config, config.confidence)

    return (loss(strong) + loss(another)) / 4 + loss(weak, lambda features: dropout2d(features, 0.5)) / 2


def cutmix(student: nn.Module, teacher: Teacher, unlabelled: Unlabelled, config: Config) -> Tensor:
    """French et al., "Semi-supervised semantic segmentation needs strong, varied perturbations", BMVC 2020
    (arXiv 1906.01916).

    A square of the partner, of side ``patch_size`` and anywhere in the image, is pasted into strong view and teacher's
    map of every sample: no zones, no gate, and **the text stays the sample's own**, so it may say less than the image
    shows. The map is rounded, as for Semi-MedRef (the paper's is not).
    """
    weak, p = pseudo_labels(teacher, unlabelled, config)
    strong = strong_view(weak, **unlabelled.photometry)
    partner, centres = unlabelled.proposal["partner"], unlabelled.proposal["centres"]
    corner = (centres * (weak.shape[3] - config.block + 1)).floor().long()
    mixed, target, _ = patch_mix(strong, p, partner, torch.cat([corner, corner + config.block], 1), 0.0)
    return rounded_dice_ce(student(mixed, unlabelled.input_ids).logits, target, unlabelled, config)


def flip_sync(student: nn.Module, teacher: Teacher, unlabelled: Unlabelled, config: Config) -> Tensor:
    """A synchronised augmentation without mixing, of no single paper: image, pseudo-label and text are mirrored as one.

    The teacher always sees the mirror image of the student's weak view and reads the report with its sides swapped
    (:meth:`semimedref_core.reports.Report.flip`), whatever the setting ``teacher_view`` says; the student learns the
    rounded map, mirrored back, on the strong view. Which of the two is called mirrored makes no difference: weak views
    are mirrored at random.
    """
    weak, p = pseudo_labels(teacher, unlabelled, replace(config, teacher_view="mirrored"))
    logits = student(strong_view(weak, **unlabelled.photometry), unlabelled.input_ids).logits
    return rounded_dice_ce(logits, p, unlabelled, config)


def resmatch(student: nn.Module, teacher: Teacher, unlabelled: Unlabelled, config: Config) -> Tensor:
    """In the style of Zang et al., "RESMatch: Referring expression segmentation in a semi-supervised manner", 2024
    (arXiv 2402.05589): image and text are perturbed, each for itself, and nothing is mixed.

    The student sees the strong view and reads the report after PosAug; it learns the teacher's rounded map. The
    paper's own text augmentation and its care for the quality of pseudo-labels are left out.
    """
    weak, p = pseudo_labels(teacher, unlabelled, config)
    logits = student(strong_view(weak, **unlabelled.photometry), unlabelled.text_choices[:, 0]).logits
    return rounded_dice_ce(logits, p, unlabelled, config)


def cps(twins: Twins, teacher: Teacher, unlabelled: Unlabelled, config: Config) -> Tensor:
    """Chen et al., "Semi-supervised semantic segmentation with cross pseudo supervision", CVPR 2021 (arXiv 2106.01226).

    Two networks of different first weights see the same weak views; each learns the other's rounded labels, however
    sure it is of them. All terms of the loss are summed over both. The first network is the student; the teacher, which
    is only evaluated, is its average. The paper lets the two label the labelled images too; here these have their masks
    alone.
    """
    weak = weak_view(unlabelled.images, unlabelled.affine)
    first, second = (network(weak, unlabelled.input_ids).logits for network in (twins.first, twins.second))

    def loss(learns: Tensor, tells: Tensor) -> Tensor:
        return rounded_dice_ce(learns, where_reported(tells.detach().sigmoid(), unlabelled, config), unlabelled, config)

    return loss(first, second) + loss(second, first)
