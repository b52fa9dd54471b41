"""Notebook 01: image, report, mask."""

from __future__ import annotations

import numpy as np

from semimedref_core.anatomy import QATA, THIRDS
from semimedref_core.data.phantom import phantom
from semimedref_core.reports import ZONES, Report

TEXT = "Bilateral pulmonary infection, three infected areas, upper lower left lung and all right lung."
LOWER_LEFT, MIDDLE_LEFT = (
    tuple(int(k == ZONES.index(zone)) for k in range(6)) for zone in ("left lower", "left middle")
)
SIDE = 96  # px


def six_bits(answer) -> str:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "Give two things: (a, number)."
    zones, number = answer
    if len(zones) != 6:
        return f"a has six bits, in the order {', '.join(ZONES)}."
    if tuple(zones) != Report.parse(TEXT).zones:
        return "These bits are wrong. Left comes first, each side from top to bottom, and `all` names three zones."
    right = Report.of(Report.parse(TEXT).zones, style="release").lesions
    return "" if number == right else "The bits are right. In the style `release` the word counts the named zones."


def mirrored(answer) -> str:
    if not callable(answer):
        return f"The answer must be a function mirrored(image, mask, report), but this is a {type(answer).__name__}."
    pairs = phantom("train", 6, 32)
    for image, mask, report in zip(pairs.images, pairs.masks, pairs.reports, strict=True):
        given_image, given_mask, given = answer(image.copy(), mask.copy(), report)
        if np.array_equal(given_image, image[::-1]):
            return "The image is upside down. Left and right change places along the second axis."
        if not np.array_equal(given_image, image[:, ::-1]):
            return "The image is not the mirror image."
        if not np.array_equal(given_mask, mask[:, ::-1]):
            return "The mask no longer lies on the lesion of the mirrored image."
        if given != report.flip():
            return f"The image is mirrored, and {report.render()!r} has become {str(given)!r}. Which side is it now?"
    return ""


def seen_as_middle(answer) -> str:
    mask = np.asarray(answer)
    if mask.shape != (SIDE, SIDE) or not np.isin(mask, (0, 1)).all():
        return f"The answer must be a mask of 0 and 1, {SIDE} by {SIDE}."
    calibrated, thirds = QATA.zones_shown(mask), THIRDS.zones_shown(mask)
    if calibrated != LOWER_LEFT:
        shown = ", ".join(zone for zone, bit in zip(ZONES, calibrated, strict=True) if bit) or "no zone"
        return f"In the calibrated grid this lesion shows {shown}, and not only left lower."
    if thirds != MIDDLE_LEFT:
        shown = ", ".join(zone for zone, bit in zip(ZONES, thirds, strict=True) if bit) or "no zone"
        return f"In thirds this lesion shows {shown}, and not only left middle."
    return ""


EXERCISES = {"01.1": six_bits, "01.2": mirrored, "01.3": seen_as_middle}
