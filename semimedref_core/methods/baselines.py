"""The baselines. Each function is the unlabelled loss ``L_u`` of one of them, as in its paper.

All have the loss ``L = DiceCE(labelled) + w_u L_u``. They share with Semi-MedRef the network, the reports as input, the
order of the data, the views, burn-in and ramp, the evaluated EMA teacher, and our additions for pseudo-labels
(:mod:`.reported_places`). The preset ``paper`` switches these additions off for all methods. :func:`cps` has no
mirrored teacher, because its networks label each other. None has ITCL. ``docs/methods.md`` lists how they differ from
each other and from their papers.
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
from semimedref_core.teacher import Teacher, burning_in
from semimedref_core.views import place_masks, strong_view, weak_view
from semimedref_kernels import patch_mix


def labelled_loss(network: nn.Module, labelled: Labelled) -> Tensor:
    """DiceCE of labelled pairs on their weak views."""
    x, y = weak_view(labelled.images, labelled.affine), place_masks(labelled.masks, labelled.affine)
    return dice_ce(network(x, labelled.input_ids).logits, y)


def supervised(
    student: nn.Module, teacher: Teacher, batch: Batch, w_u: float | Tensor, config: Config
) -> dict[str, Tensor]:
    """``L = DiceCE(labelled)``. The teacher is an average of the student's weights and adds nothing to the loss."""
    loss = labelled_loss(student, batch.labelled)
    return {"loss": loss, "loss_labelled": loss}


def semi_supervised(
    unlabelled_loss: Callable[[nn.Module, Teacher, Batch, Config], Tensor],
    student: nn.Module,
    teacher: Teacher,
    batch: Batch,
    w_u: float | Tensor,
    config: Config,
) -> dict[str, Tensor]:
    """``L = DiceCE(labelled) + w_u L_u``; during burn-in (``w_u`` = 0) only the first term."""
    if burning_in(w_u):
        return supervised(student, teacher, batch, w_u, config)
    loss_labelled = labelled_loss(student, batch.labelled)
    loss_unlabelled = unlabelled_loss(student, teacher, batch, config)
    loss = loss_labelled + w_u * loss_unlabelled
    return {"loss": loss, "loss_labelled": loss_labelled, "loss_unlabelled": loss_unlabelled}


def pseudo_labels(teacher: Teacher | nn.Module, unlabelled: Unlabelled, config: Config) -> tuple[Tensor, Tensor]:
    """The weak views ``[B, C, H, W]`` and the teacher's probabilities ``[B, 1, H, W]`` on them, from one pass."""
    weak = weak_view(unlabelled.images, unlabelled.affine)
    return weak, label(teacher, weak, unlabelled, config)


def teaching(p: Tensor, codes: Tensor, config: Config) -> Tensor:
    """:func:`.found_images` of ``1[p >= 0.5]`` as a map ``[B, 1, H, W]``: all 0 for an image that is left out, else all
    1. So it can be mixed like an image."""
    return found_images((p >= 0.5).float(), codes, config)[:, None, None, None].expand_as(p)


def paste(images: Tensor, p: Tensor, teaches: Tensor, proposal: dict[str, Tensor], view: int = 0) -> list[Tensor]:
    """Pastes the partner's boxes of one view into images ``[B, C, H, W]``, pseudo-labels and the map of used pixels,
    both ``[B, 1, H, W]``.

    A pixel's confidence depends only on its probability, so it is mixed with it.

    Args:
        images, p, teaches: images, probabilities and :func:`teaching` of the samples.
        proposal: the fields of :class:`.boxes.Boxes` as tensors.
        view: index of the view, below V.
    """
    maps, p, _ = patch_mix(torch.cat([images, teaches], 1), p, proposal["partner"], proposal["boxes"][view], 0.0)
    return [maps[:, :-1], p, maps[:, -1:]]


def rounded_dice_ce(logits: Tensor, p: Tensor, teaches: Tensor, confidence: float = 0.0) -> Tensor:
    """DiceCE against ``1[p >= 0.5]``; pixels with ``max(p, 1 - p) < confidence`` are left out.

    Args:
        logits, p, teaches: ``[B, 1, H, W]``: logits, probabilities, and the map of :func:`teaching`.
        confidence: 0 to 1. At 0.5 or less all pixels count, because ``max(p, 1 - p)`` is never below 0.5.

    Returns:
        The mean over images that are not left out, also those without a confident pixel.
    """
    sure = teaches * (torch.maximum(p, 1 - p) >= confidence)
    return average(dice_ce_of_images(logits, (p >= 0.5).float(), sure), teaches.amax((1, 2, 3)))


def mean_teacher(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017 (arXiv 1703.01780).

    The mean squared difference between the student's probabilities on the strong view and the teacher's on the weak
    view, which are not rounded.
    """
    unlabelled = batch.unlabelled
    weak, p = pseudo_labels(teacher, unlabelled, config)
    seen = student(strong_view(weak, **unlabelled.photometry), unlabelled.input_ids).logits.sigmoid()
    return average((seen - p).square().mean((1, 2, 3)), found_images((p >= 0.5).float(), unlabelled.codes, config))


def fixmatch(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """Sohn et al., "FixMatch", NeurIPS 2020 (arXiv 2001.07685), for pixels.

    The student itself, not its average, labels the weak view. On the strong view it learns the rounded labels of
    confident pixels (0.95 in the paper). The teacher is only evaluated, as in the paper.
    """
    unlabelled = batch.unlabelled
    weak, p = pseudo_labels(student, unlabelled, config)
    logits = student(strong_view(weak, **unlabelled.photometry), unlabelled.input_ids).logits
    return rounded_dice_ce(logits, p, teaching(p, unlabelled.codes, config), config.confidence)


def unimatch(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """Yang et al., "Revisiting weak-to-strong consistency in semi-supervised semantic segmentation", CVPR 2023
    (arXiv 2208.09910).

    FixMatch with three student views, of weights 1/4, 1/4 and 1/2: two strong views, and the weak view with half of the
    channels dropped between encoder and decoder. The second strong view uses the grey-value changes of a neighbouring
    sample in the batch. Each strong view gets a box of the partner pasted in (CutMix), each its own box; pseudo-label
    and confidence are mixed with it. The plan chooses the boxes and the text of a mixed view. With
    :data:`.boxes.unimatch` the text stays the sample's own (``unimatch``; the paper has no text). With
    :data:`.boxes.with_text` it follows the pasted box (``unimatch_text``; ours).
    """
    unlabelled = batch.unlabelled
    weak, p = pseudo_labels(student, unlabelled, config)
    teaches = teaching(p, unlabelled.codes, config)

    def strong_loss(view: int) -> Tensor:
        photometry = {name: value.roll(view, 0) for name, value in unlabelled.photometry.items()}
        mixed, *target = paste(strong_view(weak, **photometry), p, teaches, unlabelled.proposal, view)
        return rounded_dice_ce(student(mixed, unlabelled.text_choices[:, view]).logits, *target, config.confidence)

    of_strong = (strong_loss(0) + strong_loss(1)) / 4
    dropped = student(weak, unlabelled.input_ids, perturb=lambda features: dropout2d(features, 0.5)).logits
    return of_strong + rounded_dice_ce(dropped, p, teaches, config.confidence) / 2


def cutmix(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """French et al., "Semi-supervised semantic segmentation needs strong, varied perturbations", BMVC 2020
    (arXiv 1906.01916).

    Pastes a box of the partner into the strong view and the teacher's map of every sample. The box covers half of the
    picture (:data:`.boxes.half`). There are no zones and no gate, and **the text stays the sample's own**. So it may
    say less or more than the image shows. The map is rounded, as in Semi-MedRef but unlike the paper.
    """
    unlabelled = batch.unlabelled
    weak, p = pseudo_labels(teacher, unlabelled, config)
    strong = strong_view(weak, **unlabelled.photometry)
    mixed, *target = paste(strong, p, teaching(p, unlabelled.codes, config), unlabelled.proposal)
    return rounded_dice_ce(student(mixed, unlabelled.input_ids).logits, *target)


def flip_sync(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """A synchronised augmentation without mixing: image, pseudo-label and text are mirrored together. It is not from a
    single paper.

    The teacher sees the mirror image of the student's weak view and reads the flipped report
    (:meth:`semimedref_core.reports.Report.flip`). The setting ``teacher_view`` has no effect here. The student learns
    the rounded map, mirrored back, on the strong view. It does not matter which of the two views is the mirrored one,
    because weak views are mirrored at random.
    """
    unlabelled = batch.unlabelled
    weak, p = pseudo_labels(teacher, unlabelled, replace(config, teacher_view="mirrored"))
    logits = student(strong_view(weak, **unlabelled.photometry), unlabelled.input_ids).logits
    return rounded_dice_ce(logits, p, teaching(p, unlabelled.codes, config))


def cps(student: Twins, teacher: Teacher, batch: Batch, w_u: float | Tensor, config: Config) -> dict[str, Tensor]:
    """Chen et al., "Semi-supervised semantic segmentation with cross pseudo supervision", CVPR 2021 (arXiv 2106.01226).

    Two networks with different initial weights see the same weak views. Each learns the other's rounded labels, without
    a threshold of confidence, on unlabelled and labelled images. ``L_u`` is the sum of both, as in the paper. All terms
    are summed over both networks. The first network is the student. The teacher is its average and is only evaluated.
    """
    labelled, unlabelled = batch.labelled, batch.unlabelled
    x, y = weak_view(labelled.images, labelled.affine), place_masks(labelled.masks, labelled.affine)
    pair = student.first, student.second
    of_labelled = [network(x, labelled.input_ids).logits for network in pair]
    loss_labelled = sum(dice_ce(logits, y) for logits in of_labelled)
    if burning_in(w_u):
        return {"loss": loss_labelled, "loss_labelled": loss_labelled}

    def cross(logits: list[Tensor], p: list[Tensor], codes: Tensor) -> Tensor:
        each = zip(logits, reversed(p), strict=True)
        return sum(rounded_dice_ce(learns, tells, teaching(tells, codes, config)) for learns, tells in each)

    weak = weak_view(unlabelled.images, unlabelled.affine)
    logits = [network(weak, unlabelled.input_ids).logits for network in pair]
    reported = [where_reported(each.detach().sigmoid(), unlabelled, config) for each in logits]
    told = [each.detach().sigmoid() for each in of_labelled]
    loss_unlabelled = cross(logits, reported, unlabelled.codes) + cross(of_labelled, told, labelled.codes)
    loss = loss_labelled + w_u * loss_unlabelled
    return {"loss": loss, "loss_labelled": loss_labelled, "loss_unlabelled": loss_unlabelled}
