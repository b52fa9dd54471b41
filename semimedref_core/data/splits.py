"""Selects the labelled pairs of a train list exactly as the release does (Eq. 2), so that numbers can be compared."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence

from semimedref_core.data.pairs import DataError

PUBLISHED = {0.01: "3bfd491d7d9bffe4", 0.02: "d1f9039037a93160"}
"""Label ratio -> :func:`digest` of the release's labelled QaTa-COV19 names."""


def labelled_indices(
    names: Sequence[str],
    ratio: float,
    dataset: str = "qata",
    seed: int = 42,
    with_mask: Sequence[bool] | None = None,
) -> list[int]:
    """Positions of the labelled pairs, D_L; all other pairs are unlabelled, D_U (Eq. 2).

    ``qata`` and ``phantom``: the list in file order is shuffled, and its first ``max(1, round(n * ratio))`` names are
    labelled. ``mosmed``: the same with the sorted unique names and ``max(1, floor(n * ratio))``; a name that is listed
    twice is labelled in both places. ``folder``: as ``qata``, but only names with a mask are drawn. A larger ratio
    contains the set of a smaller one.

    Args:
        names: the train list in file order, with the dataset's spelling (QaTa: ``mask_...``).
        ratio: share of labelled pairs, above 0 up to 1.
        dataset: ``qata``, ``mosmed``, ``phantom`` or ``folder``.
        seed: seed of the shuffle; 42 in the release.
        with_mask: whether each name has a mask; by default all have one.

    Returns:
        Positions into ``names``, in shuffled order.

    Raises:
        DataError: for an empty list, a ratio out of range, an unknown dataset, or too few masks.
    """
    if not names:
        raise DataError("empty split: the train list has no names, so none can be labelled")
    if not 0 < ratio <= 1:
        why = "gives no labelled sample" if ratio <= 0 else "is not a share"
        raise DataError(f"label ratio {ratio} {why} of n = {len(names)}: choose {1 / len(names):.2g} (one) to 1 (all)")
    if dataset in ("qata", "phantom", "folder"):
        order = [[position] for position in range(len(names)) if with_mask is None or with_mask[position]]
        count = round(len(names) * ratio)
        _require_masks(len(order), max(1, count), len(names), ratio)
    elif dataset == "mosmed":
        places: dict[str, list[int]] = {}
        for position, name in enumerate(names):
            places.setdefault(name, []).append(position)
        order = [places[name] for name in sorted(places)]
        count = math.floor(len(order) * ratio)
    else:
        raise DataError(f"unknown dataset {dataset!r}; choose one of qata, mosmed, phantom, folder")
    random.Random(seed).shuffle(order)
    return [position for positions in order[: max(1, count)] for position in positions]


def _require_masks(masks: int, wanted: int, pairs: int, ratio: float) -> None:
    if masks < wanted:
        cure = f"all of them are a label ratio of {masks / pairs:.4g}" if masks else "give some of them masks"
        raise DataError(
            f"label ratio {ratio:g} of {pairs} training pairs are {wanted} with masks, and {masks} have one; {cure}"
        )


def digest(names: Sequence[str]) -> str:
    """Fingerprint of a set of names: 16 hex digits of the sha256 of the sorted names, joined by newlines."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]
