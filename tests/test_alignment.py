"""What is counted when image, target and text are compared: each kind of disagreement is told, and nothing else."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from semimedref_core import Config, build_texts, load_split, views
from semimedref_core.anatomy import QATA, THIRDS
from semimedref_core.reports import Report
from semimedref_core.tools.known_truth import batches_with_truth, mix_as_released, mix_ours
from semimedref_core.tools.mixing_audit import (
    FAULTS,
    broken_by_mixing,
    count_lesions,
    faults,
    outcomes,
    sum_in_boxes,
    zone_of_patch,
)

BOXES = torch.from_numpy(THIRDS.boxes(12, 12))


def test_sums_are_taken_inside_each_box_and_empty_boxes_sum_to_zero():
    maps = torch.rand(2, 1, 12, 12)
    boxes = torch.tensor([[[0, 0, 4, 6], [3, 2, 3, 9]], [[5, 1, 12, 12], [0, 0, 12, 12]]])
    sums = sum_in_boxes(maps, boxes)
    for b in range(2):
        for k, (y0, x0, y1, x1) in enumerate(boxes[b].tolist()):
            torch.testing.assert_close(sums[b, k], maps[b, 0, y0:y1, x0:x1].sum())


def test_only_what_mixing_did_counts_as_broken():
    named = torch.tensor([[1, 1, 0, 0, 0, 0]] * 4).bool()
    before = torch.tensor([[9, 9, 0, 0, 0, 0], [9, 9, 0, 0, 0, 0], [9, 0, 0, 0, 0, 9], [9, 9, 0, 0, 0, 0]])
    after = torch.tensor([[9, 9, 0, 9, 0, 0], [9, 0, 0, 0, 0, 0], [9, 0, 0, 0, 0, 9], [5, 9, 0, 4, 0, 0]])
    unnamed, lost = broken_by_mixing(before, after, named, least=5)
    assert unnamed.tolist() == [True, False, False, False], (
        "what was wrong before, or is a speck, is no fault of mixing"
    )
    assert lost.tolist() == [False, True, False, False]


def test_lesions_that_touch_at_a_corner_are_one():
    masks = torch.zeros(3, 6, 6)
    masks[0, [0, 1], [0, 1]] = 1
    masks[1, [0, 2, 5], [0, 2, 5]] = 1
    assert count_lesions(masks).tolist() == [1, 3, 0]


def test_each_fault_of_a_mix_is_told_and_nothing_else():
    """One sample for each fault, then one with none: a lesion is pasted, and the text names its zone and the number."""
    before, boxes = torch.zeros(6, 1, 12, 12), BOXES.expand(6, -1, -1)
    before[:, 0, 1:3, 1:3] = 1  # in zone 0
    after = before.clone()
    after[[0, 2, 4, 5], 0, 1:3, 9:11] = 1  # a second lesion in zone 3
    after[1] = 0
    after[2, 0, 1, 1] = 0
    one, two = Report.of([1, 0, 0, 0, 0, 0], 1), Report.of([1, 0, 0, 1, 0, 0], 2)
    uncounted, miscounted = one.without_count(), Report((1, 0, 0, 0, 0, 0), 3, "unilateral", "lvit")
    own = [one, one, one, miscounted, one, uncounted]
    told = [uncounted, uncounted, two, one, Report((1, 0, 0, 1, 0, 0), 3, "bilateral", "lvit"), two]
    found = faults(before, after, boxes, own, told, least=2)
    said = [[name for name, wrong in zip(FAULTS, row, strict=True) if wrong] for row in found.tolist()]
    assert said == [[FAULTS[0]], list(FAULTS[1:3]), [FAULTS[2]], [FAULTS[3]], [FAULTS[4]], []]


def test_a_patch_belongs_to_the_zone_that_holds_its_centre():
    patches = torch.tensor([[0, 0, 4, 4], [2, 5, 8, 12], [9, 0, 12, 2], [4, 4, 4, 8]])
    assert zone_of_patch(patches, BOXES).tolist() == [0, 4, 2, -1]


def test_outcomes_are_read_off_the_tensors():
    images = torch.zeros(5, 1, 4, 4)
    mixed = images.clone()
    mixed[[0, 1, 2, 3], 0, 1, 1] = 1
    accepted = torch.tensor([True, True, True, False, False])
    whole = Report.of([1, 0, 0, 0, 0, 0], style="release")
    miscounted = Report((1, 0, 0, 0, 0, 0), 2, "unilateral", "release")
    told = [whole, whole, miscounted, whole, whole]
    became = outcomes(images, mixed, accepted, told, zones=[0, 4, 0, 0, 0])
    assert became.tolist() == ["aligned", "text wrong", "text wrong", "image only", "left alone"]


@pytest.fixture(scope="module")
def pairs():
    return load_split("phantom", "valid", 32).subset(range(24))


def made(pairs, count=4, **settings):
    """The first batches of training, each with the truth of its views."""
    config = Config(image_size=32, batch_size=8, posaug_p=0.0, teacher_view="same", **settings)
    texts = build_texts(length=40)
    return config, texts, list(islice(batches_with_truth(pairs, pairs, config, texts, QATA), count))


def test_a_second_channel_with_the_truth_shows_what_a_mixed_image_shows(pairs):
    config, texts, batches = made(pairs)
    accepted = 0
    for batch, truth in batches:
        s = torch.cat([views.weak_view(batch.images, batch.affine), truth], 1)
        mix = mix_ours(batch, s, truth, config)
        for k in mix.accepted.nonzero()[:, 0].tolist():
            y0, x0, y1, x1 = mix.patches[k].tolist()
            assert torch.equal(mix.images[k, :, y0:y1, x0:x1], s[batch.proposal["partner"][k], :, y0:y1, x0:x1])
            assert mix.reports(texts)[k].zones[mix.zones[k]] == 1
        accepted += int(mix.accepted.sum())
        assert torch.equal(mix.images[~mix.accepted], s[~mix.accepted])
    assert accepted > 5


def test_without_the_receivers_box_patches_are_at_least_as_large(pairs):
    def area(**how):
        config, _, batches = made(pairs)
        patches = torch.cat([mix_ours(batch, truth, truth, config, **how).patches for batch, truth in batches])
        return (patches[:, 2:] - patches[:, :2]).prod(1)

    cut, whole = area(), area(donors_box_alone=True)
    assert (whole >= cut).all() and (whole > cut).any()


def test_the_released_order_leaves_refused_patches_in_the_image(pairs):
    restyled = replace(pairs, reports=tuple(Report.of(each.zones, style="release") for each in pairs.reports))
    config, texts, batches = made(restyled, gate=0.55, patch_size=0.5)
    rng, pasted_alone = np.random.default_rng(0), 0
    for batch, truth in batches:
        mix = mix_as_released(batch, truth, truth, config, texts, rng)
        changed = (mix.images != truth).flatten(1).any(1)
        pasted_alone += int((changed & ~mix.accepted).sum())
        assert (mix.zones[mix.accepted] >= 0).all()
    assert pasted_alone > 0
