"""What one training step does: Semi-MedRef, from top to bottom as the data flow, and the table of all methods.

What methods share, and the supervised step, is in :mod:`.supervision`; what Semi-MedRef is compared with in
:mod:`.baselines`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from semimedref_core import release
from semimedref_core.baselines import BASELINES
from semimedref_core.config import Config
from semimedref_core.data.batches import Batch
from semimedref_core.data.views import strong_view
from semimedref_core.itcl import itcl
from semimedref_core.patchmix import t_patchmix
from semimedref_core.supervision import Method, dice_ce, labelled_views, pseudo_labels, supervised, trust, unfound_zones
from semimedref_core.teacher import Teacher


def positives(codes: Tensor, config: Config) -> Tensor:
    """The zone codes ``[B]`` as ITCL gets them: all 0, so that nothing is shared, where the positives are hard."""
    return codes if config.positives == "soft" else torch.zeros_like(codes)


def semi_medref(
    student: nn.Module, teacher: Teacher, batch: Batch, w_u: float, config: Config, mix: Callable = t_patchmix
) -> dict[str, Tensor]:
    """Eq. 17, the paper's loss.

    ``L = DiceCE(labelled) + w_l ITCL(labelled) + w_u [ DiceCE(student(mixed strong view), mixed target)
    + w_c ITCL(unlabelled weak view) ]``

    During burn-in (``w_u`` = 0) the unlabelled half is left out. ``mix`` is T-PatchMix, or what stands in its place.
    """
    labelled, unlabelled = batch.labelled, batch.unlabelled
    x, y = labelled_views(labelled)

    if w_u == 0:
        seen = student(x, labelled.input_ids)
        loss_labelled = dice_ce(seen.logits, y)
        loss_itcl = itcl(seen.image_embedding, seen.text_embedding, positives(labelled.codes, config), config.tau)
        loss = loss_labelled + config.itcl_weight * loss_itcl
        return {"loss": loss, "loss_labelled": loss_labelled, "loss_itcl": loss_itcl}

    weak, p = pseudo_labels(teacher, unlabelled, config)

    # Image, pseudo-label and text are mixed as one.
    strong = strong_view(weak, **unlabelled.photometry)
    mixed, target, input_ids, accepted = mix(
        strong, p, unlabelled.text_choices, unlabelled.proposal, config.block, config.patch_mode, config.gate
    )
    target = (target >= 0.5).float()  # Eq. 7
    trusted = trust(target, unlabelled.codes, config)
    left_out = None
    if config.unfound == "zone":
        left_out = unfound_zones(target, unlabelled.codes, unlabelled.zone_boxes)

    # The student looks once too: at labelled and mixed samples whole, at weak views with its encoders only, for ITCL.
    images = torch.cat([x, mixed, weak])
    texts = torch.cat([labelled.input_ids, input_ids, unlabelled.input_ids])
    seen = student(images, texts, decode=len(x) + len(mixed))
    logits_labelled, logits_mixed = seen.logits.split([len(x), len(mixed)])
    parts = [len(x), len(mixed), len(weak)]
    image, _, image_weak = seen.image_embedding.split(parts)
    text, _, text_weak = seen.text_embedding.split(parts)

    loss_labelled = dice_ce(logits_labelled, y)
    loss_itcl = itcl(image, text, positives(labelled.codes, config), config.tau)
    loss_mixed = dice_ce(logits_mixed, target, trusted, left_out)
    loss_itcl_u = itcl(image_weak, text_weak, positives(unlabelled.codes, config), config.tau)
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


def semi_medref_release(
    student: nn.Module, teacher: Teacher, batch: Batch, w_u: float, config: Config
) -> dict[str, Tensor]:
    """The same loss of what the released code shows the student: the variant to compare with, see :mod:`.release`.

    Its pseudo-labels are those of :data:`.release.PSEUDO_LABELS`, whatever the settings say.
    """
    config = replace(config, **release.PSEUDO_LABELS)
    return semi_medref(student, teacher, batch, w_u, config, release.paste_then_gate)


OF_SEMI_MEDREF = ("itcl_weight", "itcl_unlabelled_weight", "tau", "positives", "unfound", "gate")
"""Settings that no other method reads, so that they tell no runs of another method apart."""

METHODS = {
    "supervised": Method(supervised, unlabelled=False),
    "semi_medref": Method(semi_medref, unlabelled=True),
    "semi_medref_release": Method(semi_medref_release, unlabelled=True, plan=release.plan_mixing),
    **BASELINES,
}


def method_named(name: str) -> Method:
    """The method of this name.

    Raises:
        ValueError: if there is none; names those there are.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
