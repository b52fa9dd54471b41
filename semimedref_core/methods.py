"""What one training step does: supervised, and Semi-MedRef. Each reads from top to bottom as the data flow.

A method takes the student, the teacher, a batch and the step's unsupervised weight, and returns the loss terms. It
never brings a value back to the host, so on a GPU nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from semimedref_core.config import Config
from semimedref_core.data.batches import Batch, Unlabelled
from semimedref_core.data.views import place_masks, strong_view, weak_view
from semimedref_core.itcl import itcl
from semimedref_core.patchmix import t_patchmix
from semimedref_core.teacher import Teacher

_dice = DiceLoss(sigmoid=True, reduction="none")


def dice_ce(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Eq. 13: Dice loss of each image plus its binary cross-entropy, averaged over images.

    Args:
        logits, target: ``[B, 1, H, W]``; the target 0 to 1.
        weight: ``[B]`` weights of the images in the average; evenly if left out. All zero gives 0.
    """
    each = _dice(logits, target).flatten(1).mean(1)
    each = each + binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2, 3))
    return each.mean() if weight is None else (each * weight).sum() / weight.sum().clamp(min=1)


@dataclass(frozen=True)
class Method:
    """A method by name: its step, and whether it reads unlabelled pairs."""

    step: Callable[[nn.Module, Teacher, Batch, float, Config], dict[str, Tensor]]
    unlabelled: bool


def supervised(student: nn.Module, teacher: Teacher, batch: Batch, w_u: float, config: Config) -> dict[str, Tensor]:
    """``L = DiceCE(labelled)``. The teacher follows along as an average of the student's weights and gives nothing."""
    labelled = batch.labelled
    x, y = weak_view(labelled.images, labelled.theta), place_masks(labelled.masks, labelled.theta)
    loss = dice_ce(student(x, labelled.input_ids).logits, y)
    return {"loss": loss, "loss_labelled": loss}


@torch.no_grad()
def pseudo_labels(teacher: Teacher, unlabelled: Unlabelled, config: Config) -> tuple[Tensor, Tensor]:
    """The weak views ``[B, 1, H, W]`` and the teacher's lesion probabilities p on them, from one look of the teacher.

    The partners' maps are these, permuted. Where the settings say ``reported``, p is 0 outside the zones that the
    report names: the text is the one truth known of an unlabelled pair. The paper has no such cut (Ledger 5), and the
    release runs the teacher once more to get the partners' maps (Ledger 6).
    """
    weak = weak_view(unlabelled.images, unlabelled.theta)
    p = teacher(weak, unlabelled.input_ids).logits.sigmoid()
    if config.pseudo_labels == "reported":
        p = p * place_masks(unlabelled.regions, unlabelled.theta)
    return weak, p


def trust(target: Tensor, codes: Tensor, config: Config) -> Tensor:
    """Weights ``[B]``, 0 or 1, of the mixed samples in the loss, from their targets ``[B, 1, H, W]`` and zone codes.

    All 1 where the settings say ``teacher``, as in the release (Ledger 5). Where they say ``reported``, an infection
    that is reported but not found has weight 0: its empty target would teach the student not to find it.
    """
    if config.pseudo_labels == "teacher":
        return torch.ones_like(target[:, 0, 0, 0])
    return target.amax((1, 2, 3)).maximum((codes == 0).float())


def semi_medref(student: nn.Module, teacher: Teacher, batch: Batch, w_u: float, config: Config) -> dict[str, Tensor]:
    """Eq. 17, the paper's loss.

    ``L = DiceCE(labelled) + w_l ITCL(labelled) + w_u [ DiceCE(student(mixed strong view), mixed target)
    + w_c ITCL(unlabelled weak view) ]``

    During burn-in (``w_u`` = 0) the unlabelled half is left out.
    """
    labelled, unlabelled = batch.labelled, batch.unlabelled
    x, y = weak_view(labelled.images, labelled.theta), place_masks(labelled.masks, labelled.theta)

    if w_u == 0:
        seen = student(x, labelled.input_ids)
        loss_labelled = dice_ce(seen.logits, y)
        loss_itcl = itcl(seen.image_embedding, seen.text_embedding, labelled.codes, config.tau)
        loss = loss_labelled + config.itcl_weight * loss_itcl
        return {"loss": loss, "loss_labelled": loss_labelled, "loss_itcl": loss_itcl}

    weak, p = pseudo_labels(teacher, unlabelled, config)

    # Image, pseudo-label and text are mixed as one.
    strong = strong_view(weak, **unlabelled.photometry)
    mixed, target, input_ids, accepted = t_patchmix(
        strong, p, unlabelled.text_choices, unlabelled.proposal, config.block, config.patch_mode, config.gate
    )
    target = (target >= 0.5).float()  # Eq. 7
    trusted = trust(target, unlabelled.codes, config)

    # The student looks once too: at labelled and mixed samples whole, at weak views with its encoders only, for ITCL.
    images = torch.cat([x, mixed, weak])
    texts = torch.cat([labelled.input_ids, input_ids, unlabelled.input_ids])
    seen = student(images, texts, decode=len(x) + len(mixed))
    logits_labelled, logits_mixed = seen.logits.split([len(x), len(mixed)])
    parts = [len(x), len(mixed), len(weak)]
    image, _, image_weak = seen.image_embedding.split(parts)
    text, _, text_weak = seen.text_embedding.split(parts)

    loss_labelled = dice_ce(logits_labelled, y)
    loss_itcl = itcl(image, text, labelled.codes, config.tau)
    loss_mixed = dice_ce(logits_mixed, target, trusted)
    loss_itcl_u = itcl(image_weak, text_weak, unlabelled.codes, config.tau)
    loss = (
        loss_labelled
        + config.itcl_weight * loss_itcl
        + w_u * (loss_mixed + config.itcl_unlabelled_weight * loss_itcl_u)
    )
    return {
        "loss": loss,
        "loss_labelled": loss_labelled,
        "loss_itcl": loss_itcl,
        "loss_mixed": loss_mixed,
        "loss_itcl_unlabelled": loss_itcl_u,
        "accepted": accepted.float().mean(),
    }


METHODS = {"supervised": Method(supervised, unlabelled=False), "semi_medref": Method(semi_medref, unlabelled=True)}


def method_named(name: str) -> Method:
    """The method of this name.

    Raises:
        ValueError: if there is none; names those there are.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
