"""DiceCE, the loss of a predicted mask (Eq. 13; paper: 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.profiler import record_function

SURELY_NOT = -30.0  # a logit so low that its probability, and its loss against the target 0, count as 0
# Settings of ISPG. The release has these three terms; the values are ours.
ZONE_WEIGHT = 0.1  # weight of the zone loss; no other loss trains the zone encoder
NUMBER_WEIGHT = 0.1  # weight of the term on the number of zones
FOCUS = 2  # zones without lesion are weighted by the probability to this power
SMOOTH = 1e-5  # added to numerator and denominator, so that an empty prediction of an empty image has loss 0


@record_function("losses")
def dice_ce_of_images(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Dice loss plus binary cross-entropy of each image (Eq. 13; paper: 2).

    The Dice loss of probabilities p and target y is ``1 - (2 sum p y + s) / (sum p + sum y + s)``, s = :data:`SMOOTH`.

    Args:
        logits, target: ``[B, 1, H, W]``; the target is 0 to 1.
        weight: ``[B, 1, H, W]``, 0 for pixels that are left out, else 1. A pixel that is left out counts as correctly
            predicted background: it adds no loss and has no gradient. Cross-entropy is still averaged over all pixels.

    Returns:
        ``[B]`` losses.
    """
    if weight is not None:
        logits, target = logits.masked_fill(weight == 0, SURELY_NOT), target * weight
    cross_entropy = binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2, 3))
    return dice_of_images(logits, target) + cross_entropy


def dice_of_images(logits: Tensor, target: Tensor) -> Tensor:
    """The Dice loss of each image, without cross-entropy: two ``[B, 1, H, W]`` -> ``[B]``."""
    p, pixels = logits.sigmoid(), (1, 2, 3)
    both = (p * target).sum(pixels)
    missed, wrong = target.sum(pixels) - both, p.sum(pixels) - both
    return 1 - (2 * both + SMOOTH) / (2 * (both + wrong * 0.5 + missed * 0.5) + SMOOTH)


def dice_ce(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """DiceCE of a batch (Eq. 13; paper: 2): the mean of :func:`dice_ce_of_images` over images with weighted pixels.

    Args:
        logits, target, weight: as in :func:`dice_ce_of_images`.

    Returns:
        Scalar; 0 if all pixels of the batch have weight 0.

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
    """The loss of ISPG, in our form: predicted zones against the zones that the reports name.

    For probabilities p and targets a of the six zones, it is the mean over samples and zones of ``-a log p - (1 - a)
    p^f log(1 - p)``, f = :data:`FOCUS`. So a zone that is clearly free counts little. A second term is
    :data:`NUMBER_WEIGHT` times the mean of ``((sum p - sum a) / 6)^2``. It asks for as many predicted zones as named
    ones.

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
    """Adds :func:`zone_loss` to the loss terms and to ``loss``. Without ISPG (``zones`` is None) nothing changes."""
    if zones is None:
        return losses
    L_zones = zone_loss(zones, codes)
    return {**losses, "loss": losses["loss"] + ZONE_WEIGHT * L_zones, "loss_zones": L_zones}


def average(each: Tensor, weight: Tensor) -> Tensor:
    """The mean of ``each`` [B] over the entries whose ``weight`` [B] is 1, not 0; 0 if all weights are 0."""
    return (each * weight).sum() / weight.sum().clamp(min=1)
