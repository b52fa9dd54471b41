"""A picture of any depth is read with its grey levels, or refused by name."""

import numpy as np
import pytest
from PIL import Image

from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.files import read_grey

RAMP = np.linspace(0, 1, 256, dtype=np.float64).reshape(16, 16)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_deep_picture_keeps_its_grey_levels(tmp_path, bits, ending):
    """Twelve bits in a file of sixteen too, as many X-ray detectors write them."""
    path = tmp_path / f"deep.{ending}"
    Image.fromarray(np.rint(RAMP * (2**bits - 1)).astype(np.uint16)).save(path)
    grey = read_grey(path)
    assert grey.dtype == np.uint8 and len(np.unique(grey)) == 256
    assert np.abs(grey.astype(int) - np.rint(RAMP * 255)).max() <= 1


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_integers_of_32_bits_and_floats_from_0_to_1_are_grey_values_too(tmp_path, kind):
    path = tmp_path / "deep.tif"
    Image.fromarray((RAMP * (4095 if kind is np.int32 else 1)).astype(kind)).save(path)
    assert len(np.unique(read_grey(path))) >= 255


@pytest.mark.parametrize("low, high, kind", [(-1024, 3071, np.int32), (0, 10**6, np.int32), (-0.5, 1, np.float32)])
def test_values_that_have_no_place_between_black_and_white_are_refused_by_name(tmp_path, low, high, kind):
    path = tmp_path / "hounsfield.tif"
    Image.fromarray((low + RAMP * (high - low)).astype(kind)).save(path)
    with pytest.raises(
        DataError, match=rf"hounsfield.tif: holds values from {low:g} to .*; save it as grey of 8 or 16"
    ):
        read_grey(path)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_pictures_of_8_bits_are_read_as_before(tmp_path, mode):
    path = tmp_path / "picture.png"
    picture = Image.fromarray(np.rint(RAMP * 255).astype(np.uint8)).convert(mode)
    picture.save(path)
    assert np.array_equal(read_grey(path), np.asarray(picture.convert("L")))


def test_a_mask_of_16_bits_is_a_mask(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(((RAMP > 0.5) * 65535).astype(np.uint16)).save(path)
    assert np.array_equal(read_grey(path), (RAMP > 0.5) * 255)
