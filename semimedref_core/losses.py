"""DiceCE, the loss of a predicted mask (Eq. 13; paper: 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.profiler import record_function

SURELY_NOT = -30.0  # a logit whose probability and loss against 0 are less than what float32 can tell from 0
# ISPG's, from the release as described: it has these three terms, and each is small. The values are ours.
ZONE_WEIGHT = 0.1  # of the whole zone loss; no other loss trains the zone encoder
NUMBER_WEIGHT = 0.1  # of the term on the number of zones
FOCUS = 2  # power of the probability that weighs zones without lesion
SMOOTH = 1e-5  # added above and below the line, so that an empty image that is found empty has loss 0


@record_function("losses")
def dice_ce_of_images(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Dice loss plus binary cross-entropy of each image (Eq. 13; paper: 2).

    The Dice loss of probabilities p and target y is ``1 - (2 sum p y + s) / (sum p + sum y + s)``, s = :data:`SMOOTH`.

    Args:
        logits, target: ``[B, 1, H, W]``; the target is 0 to 1.
        weight: ``[B, 1, H, W]``, 0 for pixels that teach nothing, else 1. Such a pixel counts as background that is
            found: it adds no loss and has no gradient. Cross-entropy is still averaged over all pixels.

    Returns:
        ``[B]`` losses.
    """
    if weight is not None:
        logits, target = logits.masked_fill(weight == 0, SURELY_NOT), target * weight
    cross_entropy = binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2, 3))
    return dice_of_images(logits, target) + cross_entropy


def dice_of_images(logits: Tensor, target: Tensor) -> Tensor:
    """The Dice loss alone of each image, ``[B, 1, H, W]`` twice to ``[B]``."""
    p, pixels = logits.sigmoid(), (1, 2, 3)
    both = (p * target).sum(pixels)
    missed, wrong = target.sum(pixels) - both, p.sum(pixels) - both
    return 1 - (2 * both + SMOOTH) / (2 * (both + wrong * 0.5 + missed * 0.5) + SMOOTH)


def dice_ce(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """DiceCE of a batch (Eq. 13; paper: 2): the mean of :func:`dice_ce_of_images` over images that teach something.

    Args:
        logits, target, weight: as in :func:`dice_ce_of_images`.

    Returns:
        Scalar; 0 where no pixel of the batch teaches anything.

    >>> import torch
    >>> from semimedref_core import dice_ce
    >>> mask = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    >>> logits = 20 * (2 * mask - 1)
    >>> round(dice_ce(logits, mask).item(), 3), round(dice_ce(-logits, mask).item(), 3)
    (0.0, 21.0)
    """
    each = dice_ce_of_images(logits, target, weight)
    return each.mean() if weight is None else average(each, weight.amax((1, 2, 3)))


def zone_loss(zones: Tensor, codes: Tensor) -> Tensor:
    """The loss of ISPG's predicted zones (paper: 10), against the zones that the reports name.

    With probabilities p and targets a of the six zones, the mean over samples and zones of
    ``-a log p - (1 - a) p^f log(1 - p)``, f = :data:`FOCUS`: a zone that is easily seen to be free counts little. Added
    is :data:`NUMBER_WEIGHT` times the mean of ``((sum p - sum a) / 6)^2``: as many zones are to be predicted as named.

    Args:
        zones: ``[B, 6]`` logits.
        codes: ``[B]`` zone codes.

    Returns:
        Scalar.
    """
    bits = torch.arange(zones.shape[1], device=zones.device)
    target, p = ((codes[:, None] >> bits) & 1).float(), zones.sigmoid()
    easy = torch.where(target > 0, 1.0, p**FOCUS)
    each = easy * binary_cross_entropy_with_logits(zones, target, reduction="none")
    number = (p.mean(1) - target.mean(1)).square()
    return each.mean() + NUMBER_WEIGHT * number.mean()


def with_zone_loss(losses: dict[str, Tensor], zones: Tensor | None, codes: Tensor) -> dict[str, Tensor]:
    """The terms of a step's loss, with :func:`zone_loss` among them and in ``loss``; as they are without ISPG."""
    if zones is None:
        return losses
    L_zones = zone_loss(zones, codes)
    return {**losses, "loss": losses["loss"] + ZONE_WEIGHT * L_zones, "loss_zones": L_zones}


def average(each: Tensor, weight: Tensor) -> Tensor:
    """The mean of ``each`` [B] by weights [B], 0 or 1; 0 where all weights are 0."""
    return (each * weight).sum() / weight.sum().clamp(min=1)
