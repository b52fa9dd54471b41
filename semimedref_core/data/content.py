"""Checks that pairs have something to learn and to score."""

from __future__ import annotations

import numpy as np

from semimedref_core.data.pairs import DataError, Pairs


def nothing_to_learn(images: np.ndarray, masks: np.ndarray) -> str:
    """The reason why nothing can be learnt from pictures ``[N, H, W]`` or ``[N, H, W, 3]`` and masks ``[N, H, W]``. The
    text is empty if something can be learnt."""
    if not masks.any():
        return "no mask shows a lesion"
    if masks.all():
        return "every mask is lesion from edge to edge"
    if (images == images[:, :1, :1]).all():
        return "every picture has one grey value"
    if len(masks) > 1 and (masks == masks[0]).all():
        return "all masks are the same"
    return ""


def require_content(pairs: Pairs, label: str) -> None:
    """Refuses pairs with masks from which a network can learn nothing, and whose scores mean nothing.

    Args:
        pairs: pairs with masks.
        label: the name of the pairs in the message.

    Raises:
        DataError: if nothing can be learnt; gives the reason.
    """
    if why := nothing_to_learn(pairs.images, pairs.masks):
        size = pairs.images.shape[1]
        raise DataError(
            f"{label}: {why} ({len(pairs)} pair(s) at {size} px); so nothing can be learnt and a score "
            "means nothing. Check the files with `semimedref doctor`"
        )
