"""Weak views move picture, mask, report and zones alike; strong views change grey values only."""

import numpy as np
import pytest
import torch

from semimedref_core.anatomy import THIRDS
from semimedref_core.views import (
    Geometry,
    draw_geometry,
    draw_photometry,
    place_masks,
    strong_view,
    weak_view,
)

SIZE = 96
BOXES = THIRDS.boxes(SIZE, SIZE)


def geometry(affine, mirrored=False):
    return Geometry(np.array([affine], np.float32), np.array([mirrored]))


def test_the_identity_view_is_the_picture_with_mean_0_and_deviation_1():
    images = torch.randint(0, 256, (3, 1, SIZE, SIZE), dtype=torch.uint8)
    view = weak_view(images, torch.eye(2, 3).expand(3, -1, -1))
    torch.testing.assert_close(view.mean((1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(view.std((1, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)
    x = images.float()
    expected = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)
    torch.testing.assert_close(view, expected, atol=1e-4, rtol=0)


def test_a_moved_view_shows_the_same_grey_values_and_the_mean_outside():
    """A picture pushed half out of its frame: its bright left half is as bright as in the view at rest."""
    images = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
    images[..., : SIZE // 2] = 200
    rest = weak_view(images, torch.eye(2, 3)[None])
    pushed = weak_view(images, torch.tensor([[[1.0, 0, -1.0], [0, 1.0, 0]]]))  # half a side to the right
    torch.testing.assert_close(pushed[..., SIZE // 2 + 1 :], rest[..., 1 : SIZE // 2], atol=1e-4, rtol=0)
    assert not pushed[..., : SIZE // 2 - 1].any()


def test_the_release_view_only_zooms_and_only_one_in_ten():
    drawn = draw_geometry(np.random.default_rng(0), 5000, "release")
    moved = np.abs(drawn.affine - np.eye(2, 3, dtype=np.float32)).max((1, 2)) > 0
    assert abs(moved.mean() - 0.1) < 0.02
    zoom = 1 / drawn.affine[moved, 0, 0]
    assert zoom.min() > 0.95 and zoom.max() < 1.2
    assert not drawn.mirrored.any() and not drawn.affine[:, 0, 1].any() and not drawn.affine[:, :, 2].any()


def test_the_strong_view_zooms_turns_shifts_and_mirrors_half():
    drawn = draw_geometry(np.random.default_rng(0), 5000, "strong")
    zoom = 1 / np.sqrt(np.abs(np.linalg.det(drawn.affine[:, :, :2].astype(float))))
    assert 0.79 < zoom.min() < 0.82 and 1.22 < zoom.max() < 1.26
    assert abs(drawn.mirrored.mean() - 0.5) < 0.03
    assert ((np.linalg.det(drawn.affine[:, :, :2]) < 0) == drawn.mirrored).all()
    assert np.abs(drawn.affine[:, :, 2]).max() <= 0.16


@pytest.mark.parametrize("view", ["release", "strong"])
@pytest.mark.parametrize("zone", range(6))
def test_a_lesion_in_a_zone_lies_in_the_zone_box_of_its_view_also_when_mirrored(view, zone):
    """What the picture shows in a zone, the view shows in the box of the zone that the view's report names."""
    drawn = draw_geometry(np.random.default_rng(zone), 64, view)
    boxes = drawn.zone_boxes(BOXES, SIZE, SIZE)
    y0, x0, y1, x1 = BOXES[zone]
    mask = torch.zeros(64, 1, SIZE, SIZE, dtype=torch.uint8)
    mask[:, :, y0 + 8 : y1 - 8, x0 + 8 : x1 - 8] = 1
    placed = place_masks(mask, torch.from_numpy(drawn.affine))[:, 0]
    named = np.where(drawn.mirrored, (zone + 3) % 6, zone)
    for lesion, (y0, x0, y1, x1) in zip(placed, boxes[np.arange(64), named], strict=True):
        assert lesion[y0:y1, x0:x1].sum() >= 0.9 * lesion.sum()


def test_an_unmoved_view_keeps_the_zone_boxes_and_a_mirrored_one_too():
    identity = geometry([[1, 0, 0], [0, 1, 0]])
    mirror = geometry([[-1, 0, 0], [0, 1, 0]], mirrored=True)
    assert (identity.zone_boxes(BOXES, SIZE, SIZE) == BOXES).all()
    assert (mirror.zone_boxes(BOXES, SIZE, SIZE) == BOXES).all(), "the zones are places of the view, mirrored or not"


def test_masks_stay_0_or_1():
    drawn = draw_geometry(np.random.default_rng(0), 16, "strong")
    masks = torch.randint(0, 2, (16, 1, 32, 32), dtype=torch.uint8)
    assert set(place_masks(masks, torch.from_numpy(drawn.affine)).unique().tolist()) <= {0.0, 1.0}


def drawn_photometry(view):
    return draw_photometry(np.random.default_rng(0), 2000, view)


def test_the_release_strong_view_jitters_eight_in_ten_by_a_fifth_and_blurs_half():
    drawn = drawn_photometry("release")
    assert abs((drawn.contrast != 1).mean() - 0.8) < 0.03
    assert drawn.contrast.min() > 0.79 and drawn.contrast.max() < 1.21 and np.abs(drawn.brightness).max() < 0.21
    assert 0.45 < (drawn.kernels[:, 3] > 0.999).mean() < 0.6
    np.testing.assert_allclose(drawn.kernels.sum(1), 1, rtol=1e-5)
    assert not drawn.noise.any() and not drawn.shading.any()


def test_the_strong_strong_view_adds_more_jitter_shading_and_noise():
    drawn = drawn_photometry("strong")
    assert drawn.contrast.min() < 0.55 and drawn.contrast.max() > 1.45
    assert abs((drawn.noise > 0).mean() - 0.5) < 0.04
    assert abs(drawn.shading.any((1, 2, 3)).mean() - 0.5) < 0.04


def test_a_strong_view_changes_grey_values_as_told_and_moves_nothing():
    weak = torch.randn(3, 1, 16, 16)
    kernels = torch.zeros(3, 7)
    kernels[:, 3] = 1
    kernels[1] = 1 / 7
    strong = strong_view(
        weak,
        contrast=torch.tensor([1.2, 1.0, 1.0]),
        brightness=torch.tensor([0.1, 0.0, 0.0]),
        kernels=kernels,
        shading=torch.tensor([0.0, 0.0, 0.5])[:, None, None, None].expand(-1, 1, 3, 3),
        noise=torch.zeros(3),
    )
    torch.testing.assert_close(strong[0], weak[0] * 1.2 + 0.1)
    torch.testing.assert_close(strong[1, 0, 8, 8], weak[1, 0, 5:12, 5:12].mean())
    torch.testing.assert_close(strong[2], weak[2] + 0.5)


def test_an_unknown_strong_view_is_refused_by_name():
    with pytest.raises(ValueError, match="'harsh'.*release, strong"):
        draw_photometry(np.random.default_rng(0), 2, "harsh")


def test_an_unknown_weak_view_is_refused_by_name():
    with pytest.raises(ValueError, match="'gentle'.*release, strong"):
        draw_geometry(np.random.default_rng(0), 2, "gentle")
