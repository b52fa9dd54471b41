"""The objective of Semi-MedRef for one training step, from top to bottom, in the paper's symbols.

=================== ===================================================
x_l, y_l, r_l       weak views of labelled pairs, their masks and reports
x_u, r_u            weak views of unlabelled pairs, and their reports
p                   the teacher's lesion probabilities on x_u
s                   strong views of unlabelled pairs
s_mix, y_mix, r_mix strong views, targets and reports after T-PatchMix
u, v                image and text embeddings
a_l, a_mix, a_u     zones that the reports of x_l and x_u name, and zones that s_mix shows (ISPG)
=================== ===================================================
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.itcl import itcl
from semimedref_core.losses import dice_ce, with_zone_loss
from semimedref_core.patchmix import mixed_codes, t_patchmix
from semimedref_core.pseudo_labels import Label, Weigh, every_pixel, teacher_probabilities
from semimedref_core.teacher import Teacher, burning_in
from semimedref_core.views import place_masks, strong_view, weak_view


def semi_medref(
    student: nn.Module,
    teacher: Teacher,
    batch: Batch,
    w_u: float | Tensor,
    config: Config,
    label: Label = teacher_probabilities,
    weigh: Weigh = every_pixel,
    mix: Callable = t_patchmix,
    mask_loss: Callable = dice_ce,
) -> dict[str, Tensor]:
    """The paper's loss of a step (Eq. 17; paper: 3 to 5).

    ``L = DiceCE(labelled) + w_l ITCL(labelled) + w_u [ DiceCE(student(mixed strong view), mixed target)
    + w_c ITCL(unlabelled weak view) ]``

    The function copies nothing to the host, so a GPU never waits.

    Args:
        student, teacher: networks of one kind.
        batch: labelled and unlabelled pairs, on the networks' device.
        w_u: weight of the unlabelled loss at this step; the number 0 means burn-in, which leaves out the unlabelled
            pairs.
        config: w_l, w_c, tau, and the settings of T-PatchMix.
        label, weigh: make pseudo-labels and the weights of their pixels; by default those that follow the release.
        mix, mask_loss: T-PatchMix and DiceCE, or functions that replace them.

    Returns:
        Scalars by name: ``loss`` is L, ``accepted`` is the share of mixed samples, and the others are the terms of L.
        With ISPG, L has one more term, for the zones that the network predicts.
    """
    labelled, unlabelled = batch.labelled, batch.unlabelled
    w_l, w_c = config.itcl_weight, config.itcl_unlabelled_weight

    x_l, y_l = weak_view(labelled.images, labelled.affine), place_masks(labelled.masks, labelled.affine)
    r_l = labelled.input_ids

    if burning_in(w_u):
        seen = student(x_l, r_l)
        L_seg = mask_loss(seen.logits, y_l)
        L_itcl = itcl(seen.image_embedding, seen.text_embedding, labelled.codes, config.tau, config.positives)
        losses = {"loss": L_seg + w_l * L_itcl, "loss_labelled": L_seg, "loss_itcl": L_itcl}
        return with_zone_loss(losses, seen.zones, labelled.codes)

    # The teacher runs once, on weak views.
    x_u, r_u = weak_view(unlabelled.images, unlabelled.affine), unlabelled.input_ids
    p = label(teacher, x_u, unlabelled, config)

    # T-PatchMix mixes image, pseudo-label and text together, or not at all.
    s = strong_view(x_u, **unlabelled.photometry)
    how = unlabelled.proposal, config.block, config.patch_mode, config.gate
    s_mix, p_mix, r_mix, accepted = mix(s, p, unlabelled.text_choices, *how)
    y_mix = (p_mix >= 0.5).float()  # Eq. 7

    # The student runs once too. It decodes labelled and mixed samples; for the weak views it runs only its encoders,
    # for ITCL.
    sizes = [len(x_l), len(s_mix), len(x_u)]
    seen = student(torch.cat([x_l, s_mix, x_u]), torch.cat([r_l, r_mix, r_u]), decode=sizes[0] + sizes[1])
    logits_l, logits_mix = seen.logits.split(sizes[:2])
    u_l, _, u_u = seen.image_embedding.split(sizes)
    v_l, _, v_u = seen.text_embedding.split(sizes)

    L_seg = mask_loss(logits_l, y_l)
    L_itcl = itcl(u_l, v_l, labelled.codes, config.tau, config.positives)
    L_mix = mask_loss(logits_mix, y_mix, weigh(y_mix, unlabelled, config))
    L_itcl_u = itcl(u_u, v_u, unlabelled.codes, config.tau, config.positives)
    losses = {
        "loss": L_seg + w_l * L_itcl + w_u * (L_mix + w_c * L_itcl_u),
        "loss_labelled": L_seg,
        "loss_itcl": L_itcl,
        "loss_mixed": L_mix,
        "loss_itcl_unlabelled": L_itcl_u,
        "accepted": accepted.float().mean(),
    }
    if seen.zones is None:
        return losses
    # ISPG: the mixed image also has the zone of the pasted patch.
    a_l, a_mix, a_u = labelled.codes, mixed_codes(unlabelled.codes, accepted, p, *how), unlabelled.codes
    return with_zone_loss(losses, seen.zones, torch.cat([a_l, a_mix, a_u]))
