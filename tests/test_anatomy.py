"""Zones are boxes of the image, and a grid can be read off labelled masks."""

import numpy as np
import pytest

from semimedref_core.anatomy import QATA, THIRDS, Grid, estimate_grid, lesion_rows
from semimedref_core.data.datasets import load_training
from semimedref_core.data.phantom import phantom
from semimedref_core.reports import ZONES, Report


def test_thirds_cut_the_image_into_six_equal_boxes_left_half_first():
    boxes = THIRDS.boxes(90, 60)
    assert dict(zip(ZONES, boxes.tolist(), strict=True)) == {
        "left upper": [0, 0, 30, 30],
        "left middle": [30, 0, 60, 30],
        "left lower": [60, 0, 90, 30],
        "right upper": [0, 30, 30, 60],
        "right middle": [30, 30, 60, 60],
        "right lower": [60, 30, 90, 60],
    }


@pytest.mark.parametrize("cuts", [(0, 0.5, 0.4, 1), (0, 0.3, 0.6, 1.1), (-0.1, 0.3, 0.6, 1), (0, 0.3, 0.6)])
def test_cuts_that_are_no_grid_are_refused(cuts):
    with pytest.raises(ValueError, match="four increasing fractions"):
        Grid(cuts)


def made_up_pairs(cuts, count, rng):
    """Masks whose lesions fill parts of the named zones of a grid, for reports with one or two zones a side."""
    boxes, masks, reports = Grid(cuts).boxes(100, 80), np.zeros((count, 100, 80), np.uint8), []
    for mask in masks:
        zones = np.concatenate(
            [np.eye(3, dtype=int)[rng.integers(3)] | np.eye(3, dtype=int)[rng.integers(3)] for _ in "lr"]
        )
        for (y0, x0, y1, x1), named in zip(boxes, zones, strict=True):
            if named:
                mask[y0:y1, x0 + 5 : x1 - 5] = 1
        reports.append(Report.of(zones))
    return masks, reports


@pytest.mark.parametrize("cuts", [(0.1, 0.37, 0.57, 0.9), (0.0, 0.33, 0.66, 1.0), (0.2, 0.3, 0.7, 0.8)])
def test_the_estimated_grid_finds_the_cuts_that_made_the_lesions(cuts):
    grid = estimate_grid(*made_up_pairs(cuts, 40, np.random.default_rng(0)))
    np.testing.assert_allclose(grid.cuts, cuts, atol=0.02)


def test_without_lesions_the_estimate_is_thirds():
    assert estimate_grid(np.zeros((2, 30, 30), np.uint8), [Report.of([0] * 6)] * 2) == THIRDS


@pytest.mark.parametrize("height", [1, 2])
def test_lesions_of_too_few_rows_for_three_bands_give_thirds(height):
    masks = np.zeros((2, 32, 32), np.uint8)
    masks[:, 20 : 20 + height, 4:12] = 1
    assert estimate_grid(masks, [Report.of([0, 0, 1, 0, 0, 0])] * 2) is THIRDS


def pairs_of(*bands):
    """Two pairs for each set of bands of the left side, with lesions that fill these bands of the grid of QaTa."""
    zones = [(*named, 0, 0, 0) for named in bands for _ in range(2)]
    masks = np.zeros((len(zones), 100, 40), np.uint8)
    for mask, named in zip(masks, zones, strict=True):
        for (top, _, end, _), is_named in zip(QATA.boxes(100, 40), named, strict=True):
            mask[top:end, 2:18] |= is_named
    return masks, [Report.of(named) for named in zones]


UPPER, MIDDLE, LOWER = np.eye(3, dtype=int).tolist()


@pytest.mark.parametrize("bands, cuts", [
    ([UPPER, MIDDLE, LOWER], QATA.cuts),
    ([UPPER, [0, 1, 1], LOWER], (0.10, 0.37, 2 / 3, 1)),
    ([UPPER, MIDDLE], (0.10, 0.37, 2 / 3, 1)),
    ([MIDDLE, LOWER], (0, 1 / 3, 0.57, 0.90)),
    ([UPPER, LOWER], THIRDS.cuts),
    ([LOWER], THIRDS.cuts),
    ([UPPER, [0, 1, 1]], (0.10, 0.37, 2 / 3, 1)),
    ([[0, 1, 1]], THIRDS.cuts),
    ([[1, 1, 0], [0, 1, 1]], THIRDS.cuts),
])  # fmt: skip
def test_a_band_that_no_labelled_pair_tells_keeps_its_third(bands, cuts):
    """It became a single row, into which T-PatchMix pasted the lesions of "lower"."""
    np.testing.assert_allclose(estimate_grid(*pairs_of(*bands)).cuts, cuts, atol=0.02)


def test_57_labelled_pairs_of_real_qata_give_nearly_the_grid_of_the_whole_train_split(real_data):
    pairs = load_training("qata", 0.01, data=str(real_data), unlabelled=False).labelled
    np.testing.assert_allclose(estimate_grid(pairs.masks, pairs.reports).cuts, QATA.cuts, atol=0.06)


def test_a_report_lets_lesions_be_in_its_zones_and_a_little_around_them():
    region = THIRDS.region([0, 0, 0, 1, 0, 0], 90, 60, margin=0.1)
    assert region[:39, 30:].all(), "right upper, and a tenth of the height below it"
    assert not region[39:].any() and not region[:, :28].any()
    assert THIRDS.region([0] * 6, 90, 60).sum() == 0
    assert THIRDS.region([1] * 6, 90, 60).all()


def test_nearly_all_of_each_real_lesion_lies_where_its_report_lets_it_be(real_data):
    """Read off the labelled 1 %, held against the valid split."""
    pairs = load_training("qata", 0.01, data=str(real_data), unlabelled=False)
    grid = estimate_grid(pairs.labelled.masks, pairs.labelled.reports)
    regions = np.stack([grid.region(report.zones, 96, 96) for report in pairs.valid.reports])
    inside = (pairs.valid.masks * regions).sum((1, 2)) / pairs.valid.masks.sum((1, 2)).clip(1)
    assert inside.mean() > 0.94
    assert regions.mean() < 0.75, "or it says nothing"


def test_lesion_rows_are_counted_for_the_phrase_of_their_own_side():
    """Left side "upper lower" (entry 1 + 4), right side unnamed (entry 0)."""
    mask = np.zeros((1, 10, 8), np.uint8)
    mask[0, 2, :3] = mask[0, 7, 5:] = 1
    rows = lesion_rows(mask, [Report.of([1, 0, 1, 0, 0, 0])])
    assert rows.shape == (8, 10) and rows.sum() == 6
    assert rows[5, 2] == 3 and rows[0, 7] == 3


def test_the_share_of_lesion_rows_inside_their_band():
    rows = np.zeros((3, 90))
    rows[0, 10] = rows[1, 30] = 4  # the first row of middle, in thirds
    rows[2, 59], rows[2, 60] = 3, 1
    np.testing.assert_allclose(THIRDS.inside(rows), [1, 1, 0.25])
    np.testing.assert_allclose(THIRDS.inside(np.zeros((3, 90))), 0)


def test_a_phantom_mask_shows_the_zones_that_its_report_names():
    """Eq. 1 from the other end: nearly all bits can be read off the mask, far fewer by a mask of another pair."""
    pairs = phantom("train", 80)
    said = np.array([report.zones for report in pairs.reports])
    shown = np.array([QATA.zones_shown(mask) for mask in pairs.masks])
    assert np.mean(said == shown) > 0.99
    assert np.mean(said == np.roll(shown, 1, axis=0)) < 0.8


def test_thirds_miss_lower_and_the_estimated_grid_does_not():
    """Ledger 8, on pairs that the estimate has not seen."""
    seen, others = phantom("train", 40), phantom("valid", 100)
    rows = lesion_rows(others.masks, others.reports)[[1, 2, 4]]
    estimated = estimate_grid(seen.masks, seen.reports)
    assert THIRDS.inside(rows)[2] < 0.6 < 0.9 < estimated.inside(rows)[2]


def test_on_real_qata_thirds_miss_most_of_lower(real_data):
    """Ledger 8: about a quarter of its pixels in the lowest third, about half in the calibrated band."""
    pairs = load_training("qata", 0.05, data=str(real_data), unlabelled=False).valid
    rows = lesion_rows(pairs.masks, pairs.reports)[[1, 2, 4]]
    assert THIRDS.inside(rows)[2] < 0.35 < 0.5 < QATA.inside(rows)[2]
