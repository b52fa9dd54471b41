"""Reports held against masks: left is the image's left, and the count word counts connected lesions."""

import numpy as np
import pytest

from semimedref_core.data.pairs import Pairs
from semimedref_core.data.phantom import MODALITIES, phantom
from semimedref_core.data.real.agreement import Lesions, agreement
from semimedref_core.reports import Report


def one_pair(mask, report, name="frontal.png"):
    return Pairs(mask[None], mask[None], (report,), (name,))


def test_a_lesion_has_pixels_in_two_halves_and_touching_corners_join():
    mask = np.zeros((8, 8), np.uint8)
    mask[0:2, 0:2] = mask[2:4, 2:4] = mask[6, 3:6] = 1
    assert Lesions.of(mask) == Lesions(pixels=(9, 2), count=2)


@pytest.mark.parametrize("modality", MODALITIES)
def test_on_the_phantom_every_report_agrees_until_the_masks_are_mirrored(modality):
    pairs = phantom("train", 60, 64, modality=modality)
    found = agreement(pairs)
    assert found.counts.part == found.counts.total == 60
    assert all(found.on_side[side].part == found.on_side[side].total > 2 for side in ("left", "right"))
    assert not found.mirrored and found.off_side == []
    mirrored = agreement(Pairs(pairs.images, pairs.masks[:, :, ::-1], pairs.reports, pairs.names))
    assert mirrored.mirrored and mirrored.on_side["left"].part == 0


def test_a_lateral_view_on_the_other_side_is_no_contradiction():
    mask = np.zeros((8, 8), np.uint8)
    mask[2, 5:7] = 1
    report = Report.of([1, 0, 0, 0, 0, 0])
    assert agreement(one_pair(mask, report)).off_side == ["frontal.png"]
    lateral = agreement(one_pair(mask, report, "sub_VP-LL.png"))
    assert lateral.off_side == [] and lateral.on_side["lateral"].total == 1 and lateral.on_side["left"].total == 0
