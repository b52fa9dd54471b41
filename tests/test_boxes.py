"""Boxes of CutMix: their sizes and places, and the text that follows what was pasted."""

import numpy as np
import pytest

from semimedref_core.anatomy import THIRDS
from semimedref_core.config import Config
from semimedref_core.methods.boxes import half, report_of_mix, square, unimatch, with_text
from semimedref_core.networks import build_texts
from semimedref_core.reports import Report

SIDE = 208
ZONES = THIRDS.boxes(60, 60)  # upper left is rows 0 to 20 and columns 0 to 30, and so on
NONE, UPPER_LEFT, LOWER_RIGHT = (Report.of(zones) for zones in ([0] * 6, [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]))


def drawn(plan, count=2000):
    """The boxes of a plan that are not empty, as corners and sizes in shares of the picture's side, and how many."""
    zones = np.tile(ZONES, (count, 1, 1))
    _, found = plan(np.random.default_rng(0), [UPPER_LEFT] * count, zones, Config(image_size=SIDE), build_texts())
    box = found.boxes.reshape(-1, 4)
    box = box[box[:, 2] > 0] / SIDE
    return box[:, :2], box[:, 2:] - box[:, :2], len(box) / found.boxes[..., 0].size


@pytest.mark.parametrize(
    ("plan", "share", "ratio", "p"),
    [(half, (0.5, 0.5), 2.0, 1.0), (square, (4 / 9, 4 / 9), 1.0, 1.0), (unimatch, (0.02, 0.4), 1 / 0.3, 0.5)],
    ids=["half", "square", "unimatch"],
)
def test_boxes_are_as_large_and_as_long_as_the_papers_and_lie_anywhere_in_the_picture(plan, share, ratio, p):
    low, size, offered = drawn(plan)
    area, long = size.prod(1), size[:, 0] / size[:, 1]
    assert abs(offered - p) < 0.05
    assert share[0] - 0.01 < area.min() and area.max() < share[1] + 0.01
    assert abs(area.mean() - sum(share) / 2) < 0.01
    assert abs(np.log(long).max() - np.log(ratio)) < 0.15 and abs(np.log(long).min() + np.log(ratio)) < 0.15
    assert (low >= 0).all() and (low + size <= 1).all()
    room = 1 - size
    place = low[room > 0.1] / room[room > 0.1]
    assert abs(place.mean() - 0.5) < 0.02 and place.min() < 0.02 and place.max() > 0.98


def test_a_box_of_half_the_picture_has_each_height_from_half_to_whole():
    """Log-evenly: a quarter of the boxes is less than 2^-3/4 of the picture high, half less than 2^-1/2."""
    _, size, _ = drawn(half)
    shares = [(size[:, 0] < 2**-power).mean() for power in (0.75, 0.5, 0.25)]
    assert np.allclose(shares, [0.25, 0.5, 0.75], atol=0.03)


@pytest.mark.parametrize(
    ("own", "donor", "box", "told"),
    [
        (UPPER_LEFT, LOWER_RIGHT, (0, 0, 0, 0), UPPER_LEFT),
        (UPPER_LEFT, LOWER_RIGHT, (40, 30, 60, 60), Report.of([1, 0, 0, 0, 0, 1])),  # the whole zone comes
        (UPPER_LEFT, LOWER_RIGHT, (50, 30, 60, 60), Report.of([1, 0, 0, 0, 0, 1])),  # half of it
        (UPPER_LEFT, LOWER_RIGHT, (51, 30, 60, 60), UPPER_LEFT),  # less
        (UPPER_LEFT, LOWER_RIGHT, (0, 0, 20, 30), NONE),  # its own is covered by what holds nothing
        (UPPER_LEFT, LOWER_RIGHT, (0, 0, 60, 60), LOWER_RIGHT),
        (NONE, UPPER_LEFT, (0, 0, 30, 60), UPPER_LEFT),
        (UPPER_LEFT, NONE, (0, 0, 9, 30), UPPER_LEFT),
    ],
)
def test_the_text_names_the_zones_that_are_mostly_to_be_seen(own, donor, box, told):
    assert report_of_mix(own, donor, np.array(box), ZONES, ZONES) == told


def test_a_zone_outside_the_donors_view_does_not_come():
    outside = np.where(np.arange(6)[:, None] == 5, 0, ZONES)
    assert report_of_mix(UPPER_LEFT, LOWER_RIGHT, np.array([30, 0, 60, 60]), ZONES, outside) == UPPER_LEFT


def test_the_text_of_each_view_follows_its_own_box():
    reports = [UPPER_LEFT, LOWER_RIGHT, NONE, Report.of([0, 1, 1, 0, 1, 0])]
    zones, config, texts = np.tile(THIRDS.boxes(96, 96), (4, 1, 1)), Config(image_size=96), build_texts()
    for seed in range(20):
        ids, found = with_text(np.random.default_rng(seed), reports, zones, config, texts)
        for view in range(2):
            told = texts.decode(ids[:, view])
            for i, j in enumerate(found.partner):
                mixed = report_of_mix(reports[i], reports[j], found.boxes[view, i], zones[i], zones[j])
                assert told[i] == (reports[i] if i == j else mixed).render()
