"""Whether pairs hold anything that can be learnt, or that a score could be about."""

from __future__ import annotations

import numpy as np

from semimedref_core.data.pairs import DataError, Pairs


def nothing_to_learn(images: np.ndarray, masks: np.ndarray) -> str:
    """Why nothing can be learnt from pictures ``[N, H, W]`` or ``[N, H, W, 3]`` and masks ``[N, H, W]``; an empty
    text if something can."""
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
    """Refuses pairs with masks on which a network learns nothing and a score means nothing.

    Args:
        pairs: with masks.
        label: what they are, in the message.

    Raises:
        DataError: telling why.
    """
    if why := nothing_to_learn(pairs.images, pairs.masks):
        size = pairs.images.shape[1]
        raise DataError(
            f"{label}: {why}, looking at all {len(pairs)} pair(s) at {size} px; so nothing can be learnt and a score "
            "means nothing. Look at the files with `semimedref doctor`"
        )
