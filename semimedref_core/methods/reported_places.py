"""Our additions to the paper: the report says where a lesion is, and pseudo-labels must agree with it.

The text is the only ground truth of an unlabelled pair. Three settings use it, in the same way for every method. The
preset ``paper`` switches all three off, ``compact`` switches all on.

============================ ==========================================================================================
``teacher_view = mirrored``  the teacher sees the mirror image and reads the flipped report; so the student learns
                             from another view of the same pair, not from an echo of its own prediction
``pseudo_labels = reported`` pseudo-labels lie only inside the zones that the report names (Ledger 5); an image whose
                             reported infection is not found is left out, since its empty target would be wrong
``unfound = zone``           a zone that the report names but in which the target shows no lesion is left out too
============================ ==========================================================================================
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from semimedref_core.batch import Unlabelled
from semimedref_core.config import Config
from semimedref_core.pseudo_labels import teacher_probabilities
from semimedref_core.teacher import Teacher
from semimedref_core.views import place_masks


@torch.no_grad()
def label(teacher: Teacher | nn.Module, weak: Tensor, unlabelled: Unlabelled, config: Config) -> Tensor:
    """Replaces :func:`semimedref_core.pseudo_labels.teacher_probabilities`, with the same arguments."""
    if config.teacher_view == "mirrored":
        mirror_image = replace(unlabelled, input_ids=unlabelled.mirrored_ids)
        p = _mirrored(teacher_probabilities(teacher, _mirrored(weak, unlabelled), mirror_image, config), unlabelled)
    else:
        p = teacher_probabilities(teacher, weak, unlabelled, config)
    return where_reported(p, unlabelled, config)


def _mirrored(maps: Tensor, unlabelled: Unlabelled) -> Tensor:
    """Mirrors the maps ``[B, C, H, W]`` of pairs whose mirror image has a true text."""
    return torch.where(unlabelled.mirrors[:, None, None, None], maps.flip(3), maps)


def where_reported(p: Tensor, unlabelled: Unlabelled, config: Config) -> Tensor:
    """Lesion probabilities p ``[B, 1, H, W]`` on weak views. If the settings say so, they are 0 outside the reported
    zones."""
    return p * place_masks(unlabelled.regions, unlabelled.affine) if config.pseudo_labels == "reported" else p


def weigh(target: Tensor, unlabelled: Unlabelled, config: Config) -> Tensor:
    """Replaces :func:`semimedref_core.pseudo_labels.every_pixel`: a weight for each pixel of a target.

    Args:
        target: ``[B, 1, H, W]`` of 0 and 1.
        unlabelled: the batch, with the zones of its reports.
        config: the settings.

    Returns:
        ``[B, 1, H, W]``, 1 for pixels that are used, 0 for pixels that are left out.
    """
    weight = found_images(target, unlabelled.codes, config)[:, None, None, None].expand_as(target)
    if config.unfound == "zone":
        weight = weight * ~unfound_zones(target, unlabelled.codes, unlabelled.zone_boxes)
    return weight


def found_images(target: Tensor, codes: Tensor, config: Config) -> Tensor:
    """Weights ``[B]`` of the images: 0 if the report names an infection but the target shows none, else 1.

    All weights are 1 if the settings use unchanged pseudo-labels of the teacher.

    Args:
        target: ``[B, 1, H, W]`` 0 or 1.
        codes: ``[B]`` zone codes.
        config: the settings.
    """
    if config.pseudo_labels == "teacher":
        return torch.ones_like(target[:, 0, 0, 0])
    return target.amax((1, 2, 3)).maximum((codes == 0).float())


def unfound_zones(target: Tensor, codes: Tensor, zone_boxes: Tensor) -> Tensor:
    """The pixels of zones that the report names but in which the target shows no lesion: ``[B, 1, H, W]`` bool.

    Args:
        target: ``[B, 1, H, W]`` 0 or 1.
        codes: ``[B]`` zone codes, bit k for zone k.
        zone_boxes: ``[B, 6, 4]`` int64, the boxes of the zones in the view (y0, x0, y1, x1, px); they may overlap.
    """
    y, x = (torch.arange(side, device=target.device) for side in target.shape[2:])
    y0, x0, y1, x1 = zone_boxes[..., None].unbind(2)
    inside = ((y >= y0) & (y < y1))[..., :, None] & ((x >= x0) & (x < x1))[..., None, :]  # [B, 6, H, W]
    named = (codes[:, None] >> torch.arange(zone_boxes.shape[1], device=codes.device)) & 1 > 0
    unfound = named & ~(inside & (target > 0)).flatten(2).any(2)
    return (inside & unfound[..., None, None]).any(1, keepdim=True) & (target == 0)
