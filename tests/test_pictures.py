"""A picture of any depth is read with its grey levels, or refused by name."""

import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.pictures import read_colour, read_grey, read_mask

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


@pytest.mark.parametrize("high", [1.0001, 1.02, 1.9, 3.7, 254.5])
def test_fractions_beyond_1_are_refused_as_nobody_knows_which_value_is_white(tmp_path, high):
    """A picture that was scaled to 0 to 1 and then sharpened became black, with grey values of 0 and 1."""
    path = tmp_path / "sharp.tif"
    Image.fromarray((RAMP * high).astype(np.float32)).save(path)
    with pytest.raises(DataError, match=rf"sharp.tif: holds values from 0 to {high:g} with fractions; .* from 0 to 1"):
        read_grey(path)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_whole_numbers_in_a_file_of_floats_are_read_as_those_in_one_of_integers(tmp_path, bits):
    values = np.rint(RAMP * (2**bits - 1))
    for kind in (np.float32, np.uint16):
        Image.fromarray(values.astype(kind)).save(tmp_path / f"{np.dtype(kind)}.tif")
    assert np.array_equal(read_grey(tmp_path / "float32.tif"), read_grey(tmp_path / "uint16.tif"))


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


def saved(path, picture, **options):
    picture.save(path, **options)
    return path


GREY = Image.fromarray(np.rint(RAMP * 255).astype(np.uint8))
COLOURS = Image.merge("RGB", [GREY, GREY.rotate(90), GREY.rotate(180)])


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_data_say(tmp_path, ending, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"turned.{ending}", GREY, exif=exif)
    how = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
           7: "TRANSVERSE", 8: "ROTATE_90"}.get(orientation)  # fmt: skip
    upright = np.asarray(GREY.transpose(Image.Transpose[how]) if how else GREY).astype(int)
    assert np.abs(read_grey(path) - upright).max() <= (8 if ending == "jpg" else 0)


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_printers_colours_are_read_as_the_colours_that_they_show(tmp_path, ending):
    path = saved(tmp_path / f"print.{ending}", COLOURS.convert("CMYK"))
    assert np.abs(read_grey(path).astype(int) - np.asarray(COLOURS.convert("L"))).max() <= 8


def test_a_palette_shows_its_colours_and_not_its_numbers(tmp_path):
    picture = Image.fromarray(np.tile(np.arange(3, dtype=np.uint8), (4, 1))).convert("P")
    picture.putpalette([0, 0, 0, 90, 90, 90, 255, 255, 255])
    assert read_grey(saved(tmp_path / "palette.png", picture))[0].tolist() == [0, 90, 255]


def transparent(mode):
    picture = GREY.convert(mode)
    alpha = Image.new("L", picture.size, 255)
    alpha.putpixel((3, 3), 128)
    picture.putalpha(alpha)
    return picture, {}


REFUSED = {
    "transparent grey": ("png", *transparent("L"), "partly transparent"),
    "transparent colours": ("png", *transparent("RGB"), "partly transparent"),
    "a transparent grey value": ("png", GREY, {"transparency": 17}, "partly transparent"),
    "a transparent colour of a palette": ("png", GREY.convert("P"), {"transparency": 3}, "partly transparent"),
    "two pages": ("tif", GREY, {"save_all": True, "append_images": [COLOURS]}, "holds 2 pictures; save the"),
    "a film": ("png", GREY, {"save_all": True, "append_images": [GREY.rotate(90)]}, "holds 2 pictures; save the"),
    "white is 0": ("tif", Image.fromarray(np.rint(RAMP * 65535).astype(np.uint16)), {"tiffinfo": {262: 0}}, "0 is"),
    "colours that nobody shows": ("tif", COLOURS.convert("LAB"), {}, "colours of the kind LAB; save it as grey or RGB"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_viewers_show_in_different_ways_is_refused_by_name(tmp_path, case):
    ending, picture, options, message = REFUSED[case]
    with pytest.raises(DataError, match=rf"case\.{ending}: .*{message}"):
        read_grey(saved(tmp_path / f"case.{ending}", picture, **options))


def write_16_bits(path, values):
    """A PNG of 16 bits a value, which Pillow cannot write: grey and transparency, RGB or RGBA."""
    height, width, channels = values.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)), (b"IDAT", zlib.compress(rows)),
             (b"IEND", b"")]  # fmt: skip
    chunks = [struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
              for name, data in parts]  # fmt: skip
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def write_16_bits_tiff(path, values):
    """An RGB TIFF of 16 bits a value, which Pillow cannot write either."""
    (height, width, _), data = values.shape, values.astype("<u2").tobytes()
    tags = [(256, width), (257, height), (258, 16), (259, 1), (262, 2), (273, 8), (277, 3), (278, height),
            (279, len(data))]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    entries = entries.replace(struct.pack("<HHII", 258, 4, 1, 16), struct.pack("<HHII", 258, 3, 3, 8 + len(data)))
    depths, start = struct.pack("<HHH", 16, 16, 16), 8 + len(data) + 6
    head = b"II*\0" + struct.pack("<I", start)
    path.write_bytes(head + data + depths + struct.pack("<H", len(tags)) + entries + b"\0" * 4)


@pytest.mark.parametrize("write, channels", [
    (write_16_bits, 2), (write_16_bits, 3), (write_16_bits, 4), (write_16_bits_tiff, 3),
], ids=["grey and alpha", "RGB", "RGBA", "RGB TIFF"])  # fmt: skip
@pytest.mark.parametrize("read", [read_grey, read_colour, read_mask])
@pytest.mark.parametrize("brightest", [255, 4095])
def test_colours_of_16_bits_are_refused_since_half_of_each_value_would_be_lost(
    tmp_path, write, channels, read, brightest
):
    """A detector's 12 bits would be grey values from 0 to 15, and a mask of 0 and 255 would be empty."""
    values = np.repeat(np.rint(RAMP * brightest)[..., None], channels, axis=2)
    if channels != 3:
        values[..., -1] = 65535  # opaque
    path = tmp_path / ("picture.tif" if write is write_16_bits_tiff else "picture.png")
    write(path, values)
    with pytest.raises(DataError, match=r"picture\.\w+: holds colours or transparency of 16 bits .* as RGB of 8"):
        read(path)


def test_a_bmp_of_16_bits_a_pixel_is_read(tmp_path):
    """It has 5 or 6 bits for each colour, and Pillow reads them all."""
    pixels = np.arange(0, 64, dtype="<u2") * 31
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + 128, 0, 0, 54, 40, 8, 8, 1, 16, 0, 128, 0, 0, 0, 0)
    (tmp_path / "picture.bmp").write_bytes(head + pixels.tobytes())
    assert read_colour(tmp_path / "picture.bmp").shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "EPS", "PPM", "ICO", "PDF"])
def test_other_formats_are_refused_whatever_the_name_says(tmp_path, kind, monkeypatch):
    """Pillow would start a program, Ghostscript, for one of them."""
    monkeypatch.setattr("subprocess.check_call", pytest.fail)
    path = saved(tmp_path / "picture", COLOURS, format=kind).rename(tmp_path / "picture.png")
    with pytest.raises(DataError, match=r"picture.png: corrupt picture, or no PNG, JPEG, TIFF, BMP"):
        read_grey(path)


def test_a_file_that_may_not_be_read_is_named_with_the_reason(tmp_path, monkeypatch):
    path = saved(tmp_path / "picture.png", GREY)
    monkeypatch.setattr(type(path), "read_bytes", lambda path: os.listdir(path))
    with pytest.raises(DataError, match="picture.png: cannot be read .*check its rights"):
        read_grey(path)


@given(values=arrays(np.uint16, (5, 7), elements=st.integers(0, 65535)), ending=st.sampled_from(["png", "tif"]))
def test_any_picture_of_16_bits_keeps_the_order_of_its_grey_levels(tmp_path_factory, values, ending):
    path = tmp_path_factory.mktemp("deep") / f"picture.{ending}"
    Image.fromarray(values).save(path)
    grey, order = read_grey(path).ravel(), np.argsort(values.ravel(), kind="stable")
    assert (np.diff(grey[order].astype(int)) >= 0).all()
    assert values.max() < 128 or grey.max() >= 63, "the brightest value is not lost"
