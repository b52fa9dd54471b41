"""The phantom dataset: the same cases every time, and picture, mask and report that agree."""

import importlib

import numpy as np
import pytest
from scipy import ndimage

from semimedref_core.anatomy import QATA
from semimedref_core.data.phantom import COUNTS, MODALITIES, ZONE_CODES, decoys, phantom
from semimedref_core.reports import ZONES, Report

module = importlib.import_module("semimedref_core.data.phantom")
EIGHT_CONNECTED = np.ones((3, 3))


@pytest.fixture(scope="module", params=MODALITIES)
def pairs(request):
    """120 cases of each modality."""
    return phantom("train", count=120, size=96, modality=request.param)


def zone_shares(mask):
    """The share of the mask's pixels that lies in each zone's box, and their number."""
    areas = np.array([mask[y0:y1, x0:x1].sum() for y0, x0, y1, x1 in QATA.boxes(*mask.shape)])
    return areas / mask.sum(), areas


def test_the_same_seed_gives_the_same_bytes(pairs):
    """Two calls agree bit for bit, whatever was drawn from NumPy's global generator in between."""
    np.random.default_rng().random(7)
    again = phantom("train", count=120, size=96, modality=pairs.names[0].split("_")[1])
    np.testing.assert_array_equal(again.images, pairs.images)
    np.testing.assert_array_equal(again.masks, pairs.masks)
    assert again.reports == pairs.reports and again.names == pairs.names


def test_a_smaller_count_gives_the_first_pairs_of_a_larger_one(pairs):
    """So an example can look at three cases of the very dataset that training sees."""
    few = phantom("train", count=3, size=96, modality=pairs.names[0].split("_")[1])
    np.testing.assert_array_equal(few.images, pairs.images[:3])
    assert few.reports == pairs.reports[:3] and few.names == pairs.names[:3]


@pytest.mark.parametrize("other", [{"seed": 1}, {"split": "valid"}, {"modality": "ct"}])
def test_seed_split_and_modality_each_give_other_cases(other):
    """No case of one split occurs in another."""
    asked = {"split": "train", "count": 20, "size": 32}
    first, second = phantom(**asked), phantom(**(asked | other))
    assert [r.code for r in first.reports] != [r.code for r in second.reports]
    assert not any(np.array_equal(a, b) for a in first.images for b in second.images)


def test_default_counts_names_and_types():
    """800, 200 and 200 pairs; grey images, 0/1 masks, numbered names."""
    assert COUNTS == {"train": 800, "valid": 200, "test": 200}
    test = phantom("test", size=32)
    assert len(test) == 200
    assert test.images.shape == test.masks.shape == (200, 32, 32)
    assert test.images.dtype == test.masks.dtype == np.uint8
    assert set(np.unique(test.masks)) == {0, 1}
    assert test.names[0] == "phantom_xray_test_0000.png" and test.names[-1] == "phantom_xray_test_0199.png"


def test_every_named_zone_holds_a_visible_part_of_a_lesion(pairs):
    """At least 0.3 % of the image, in each zone of each report."""
    for mask, report, name in zip(pairs.masks, pairs.reports, pairs.names, strict=True):
        _, areas = zone_shares(mask)
        for zone, named, area in zip(ZONES, report.zones, areas, strict=True):
            assert not named or area >= 0.003 * mask.size, f"{name}: {report} but {area} pixels in {zone}"


def test_zones_that_no_report_names_hold_next_to_nothing(pairs):
    """The mask's share in an unnamed zone is 5 % at most, and mostly nothing."""
    unnamed = [
        share
        for mask, report in zip(pairs.masks, pairs.reports, strict=True)
        for share, named in zip(zone_shares(mask)[0], report.zones, strict=True)
        if not named
    ]
    assert max(unnamed) <= 0.05
    assert np.mean(unnamed) <= 0.002


def test_the_count_word_counts_the_lesions_of_the_mask(pairs):
    """On every pair, as in the LViT texts; and the text reads back as the report."""
    for mask, report in zip(pairs.masks, pairs.reports, strict=True):
        assert report.lesions == ndimage.label(mask, EIGHT_CONNECTED)[1]
        assert 1 <= report.lesions <= 9
        assert report.style == "lvit"
        assert Report.parse(report.render()) == report


def test_three_zones_of_a_side_are_mostly_one_lesion(pairs):
    """As in real data, ``all left lung and all right lung`` is two large lesions, seldom more."""
    counts = [report.lesions for report in pairs.reports if report.code == 63]
    assert min(counts) == 2
    assert np.mean(np.equal(counts, 2)) > 0.85


def test_decoys_are_in_the_picture_but_in_no_text_and_no_mask(pairs, monkeypatch):
    """The same cases without decoys: the zones that reports leave out look otherwise, masks and reports stay."""
    modality = pairs.names[0].split("_")[1]
    marked = decoys("train", 120, 96, modality=modality) == 1
    drawn = []  # the zones of each call: lesions, decoys, lesions, decoys, ...
    lesions_of = module._lesions

    def lesions_only(rng, chest, zones):
        drawn.append(zones)
        area = lesions_of(rng, chest, zones)
        return area if len(drawn) % 2 else np.zeros_like(area)

    monkeypatch.setattr(module, "_lesions", lesions_only)
    clean = phantom("train", count=120, size=96, modality=modality)
    np.testing.assert_array_equal(clean.masks, pairs.masks)
    assert clean.reports == pairs.reports

    chosen = np.array(drawn[1::2])
    named = np.array([report.zones for report in pairs.reports])
    assert not (chosen & named).any()
    free = named.sum(1) < 6
    number = chosen.sum(1)[free]
    assert number.max() <= 3
    assert np.mean(number >= 1) > 0.7
    change = np.abs(clean.images.astype(int) - pairs.images.astype(int))
    for zones, difference in zip(chosen, change, strict=True):
        for decoy, (y0, x0, y1, x1) in zip(zones, QATA.boxes(96, 96), strict=True):
            brighter = (difference[y0:y1, x0:x1] > 8).sum()
            assert not decoy or brighter > 10, "a decoy that nobody can see"
    assert change[marked].mean() > 10 * change[~marked].mean(), "`decoys` marks where the pictures differ"
    assert not (marked & (pairs.masks == 1)).any()


@pytest.mark.parametrize("modality", MODALITIES)
def test_six_of_ten_pictures_hold_decoys_and_none_where_all_zones_are_named(modality):
    """Notebooks say so: 62 % of the X-rays of the train split."""
    held = decoys("train", size=48, modality=modality).any((1, 2))
    everywhere = np.array([min(report.zones) for report in phantom("train", 800, 32, modality=modality).reports]) == 1
    assert held.mean() == pytest.approx({"xray": 0.62, "ct": 0.65}[modality], abs=0.01)
    assert not held[everywhere].any() and 0.28 < everywhere.mean() < 0.32
    assert 0.9 < held[~everywhere].mean() < 0.92


def test_lesions_can_be_seen(pairs, monkeypatch):
    """The same cases without opacities are darker where the mask is: a few grey values at least, in nearly all."""
    monkeypatch.setattr(ndimage, "gaussian_filter", lambda outline, sigma: np.zeros_like(outline))
    clear = phantom("train", count=120, size=96, modality=pairs.names[0].split("_")[1])
    added = pairs.images.astype(float) - clear.images
    inside = np.array([difference[mask == 1].mean() for difference, mask in zip(added, pairs.masks, strict=True)])
    assert inside.min() > 0
    assert np.mean(inside > 10) > 0.95


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("size", [32, 57, 224])
def test_any_size_shows_the_same_cases(modality, size):
    """Zones agree exactly, picture and mask up to resampling."""
    small, large = phantom("train", 12, 96, modality=modality), phantom("train", 12, size, modality=modality)
    assert large.images.shape == (12, size, size)
    assert [r.zones for r in small.reports] == [r.zones for r in large.reports]
    zoom = (1, 96 / size, 96 / size)
    back = ndimage.zoom(large.masks.astype(float), zoom, order=1, grid_mode=True, mode="nearest") >= 0.5
    overlap = 2 * (back & (small.masks == 1)).sum((1, 2)) / (back.sum((1, 2)) + small.masks.sum((1, 2)))
    assert overlap.min() > 0.85
    pictures = ndimage.zoom(large.images.astype(float), zoom, order=1, grid_mode=True, mode="nearest")
    for one, other in zip(small.images, pictures, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9


def test_reports_are_as_frequent_as_in_real_data():
    """Both lungs entirely, the commonest report, is 31 % of QaTa-COV19's; here within four standard errors."""
    assert sum(ZONE_CODES.values()) == 7145
    codes = [report.code for report in phantom("train", size=32).reports]
    for code in (63, 36):
        share = ZONE_CODES[code] / 7145
        error = np.sqrt(share * (1 - share) / len(codes))
        assert abs(np.mean(np.equal(codes, code)) - share) < 4 * error
    assert len(set(codes)) > 20


def test_pictures_use_the_grey_range_and_differ_in_exposure(pairs):
    """Dark lungs and bright bones in each, and mean grey values that vary between cases."""
    low, high = np.percentile(pairs.images, (1, 99), axis=(1, 2))
    assert np.all(high - low > 80)
    assert pairs.images.mean((1, 2)).std() > 5


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"split": "training"}, "training.*train, valid, test"),
        ({"modality": "mri"}, "mri.*xray, ct"),
        ({"size": 31}, "size.*32.*31"),
        ({"count": 0}, "count.*1.*0"),
        ({"seed": -1}, "seed.*0.*-1"),
    ],
)
def test_an_argument_out_of_range_is_named_with_what_is_allowed(wrong, named):
    """One clear error instead of a strange picture."""
    with pytest.raises(ValueError, match=named):
        phantom(**({"split": "train", "count": 2} | wrong))
