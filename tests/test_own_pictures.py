"""Your own pictures: colours, grey values and DICOM are read as a viewer shows them, or refused."""

import numpy as np
import own_folders
import pytest
import torch
from own_folders import change
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

from semimedref_core.data.asked import picture_asked
from semimedref_core.data.datasets import load_split, load_training
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.pictures import read_colour, read_grey
from semimedref_core.networks import build_network, build_texts
from semimedref_core.views import weak_view


def test_pictures_in_colours_are_read_as_a_viewer_shows_them(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (9, 12, 3), np.uint8)
    picture = Image.fromarray(colours)
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    saved = {
        "rgb.png": (picture, {}),
        "palette.png": (picture.quantize(16), {}),
        "cmyk.tif": (picture.convert("CMYK"), {}),
        "opaque.png": (picture.convert("RGBA"), {}),
        "turned.png": (picture, {"exif": exif}),
    }
    for name, (each, options) in saved.items():
        each.save(tmp_path / name, **options)
        shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / name)).convert("RGB"))
        assert np.array_equal(read_colour(tmp_path / name), shown), name
    assert read_colour(tmp_path / "turned.png").shape == (12, 9, 3)
    deep = (np.arange(108).reshape(9, 12) * 600).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(
        read_colour(tmp_path / "deep.png"), np.repeat(read_grey(tmp_path / "deep.png")[..., None], 3, 2)
    )
    colours_seen = Image.fromarray(np.dstack([colours, rng.integers(0, 255, (9, 12), np.uint8)]))
    colours_seen.save(tmp_path / "see_through.png")
    with pytest.raises(DataError, match="partly transparent"):
        read_colour(tmp_path / "see_through.png")


def test_grey_pictures_saved_as_rgb_are_grey(mine):
    before = load_split("folder", "valid", 32, str(mine))
    for path in mine.glob("images/???.png"):
        Image.open(path).convert("RGB").save(path)
    assert load_split("folder", "valid", 32, str(mine)).digest() == before.digest() and before.channels == 1


def test_one_coloured_picture_makes_a_dataset_coloured(mine):
    Image.fromarray(np.dstack([read_grey(mine / "images/000.png")] * 2 + [np.zeros((64, 64), np.uint8)])).save(
        mine / "images/000.png"
    )
    pairs = load_training("folder", 0.5, 32, str(mine))
    assert {part.channels for part in (pairs.labelled, pairs.unlabelled, pairs.valid)} == {3}


def test_colours_become_grey_as_pillow_makes_them(tmp_path):
    pairs = load_split("folder", "valid", 32, str(own_folders.skin(tmp_path / "mine")), positions="quadrants")
    grey = pairs.with_channels(1)
    assert pairs.channels == 3 and grey.channels == 1 and grey.with_channels(1) is grey
    assert np.array_equal(grey.images[0], np.asarray(Image.fromarray(pairs.images[0]).convert("L")))
    assert np.array_equal(grey.with_channels(3).with_channels(1).images, grey.images)


def test_a_view_keeps_the_colours_of_a_picture_together():
    """One mean and one deviation for all channels: a red picture stays redder than blue."""
    tint = torch.tensor([100, 50, 0], dtype=torch.uint8)[:, None, None]
    images = torch.randint(0, 100, (2, 3, 16, 16), dtype=torch.uint8) + tint
    view = weak_view(images, torch.eye(2, 3).expand(2, -1, -1))
    torch.testing.assert_close(view.mean((1, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    red, green, blue = view.mean((2, 3)).unbind(1)
    assert (red > green + 0.5).all() and (green > blue + 0.5).all()


@pytest.mark.parametrize("name", ["compact", "lite"])
def test_small_networks_see_colours(name):
    torch.manual_seed(0)
    network = build_network(name, channels=3).eval()
    images, ids = torch.randn(1, 3, 32, 32), build_texts()(["no pulmonary infection."])
    assert (network(images, ids).logits - network(images.flip(1), ids).logits).abs().max() > 1e-4


def test_pairs_are_a_dataset_for_a_dataloader(tmp_path):
    pairs = load_split("folder", "train", 32, str(own_folders.skin(tmp_path / "mine")), positions="quadrants")
    assert repr(pairs) == f"Pairs({len(pairs)} of 32 x 32 px, colour, with masks)"
    batch = next(iter(DataLoader(pairs, batch_size=3)))
    assert batch["image"].shape == (3, 3, 32, 32) and batch["mask"].shape == (3, 1, 32, 32)
    assert batch["text"] == [report.render() for report in pairs.reports[:3]] and batch["name"] == list(pairs.names[:3])
    assert np.array_equal(batch["image"][0], np.moveaxis(pairs.images[0], -1, 0))
    assert [pair["name"] for pair in pairs] == list(pairs.names) and pairs[-1]["name"] == pairs.names[-1]
    assert "mask" not in pairs.subset([0], masks=False)[0]
    with pytest.raises(IndexError):
        pairs[len(pairs)]


# DICOM


def write_dicom(path, values, kind="MONOCHROME2", **tags):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    file = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    file.Rows, file.Columns = values.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, kind
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = values.astype(np.uint16).tobytes()
    file.save_as(path, enforce_file_format=True)


def test_a_dicom_file_is_read_through_its_window_and_with_white_as_white(tmp_path):
    ramp = np.arange(64).reshape(8, 8) * 60  # 0 to 3780
    path = tmp_path / "chest.dcm"
    write_dicom(path, ramp)
    whole = picture_asked(path, 1)
    assert (
        whole.dtype == np.uint8
        and whole[0, 0] == 0
        and whole[-1, -1] == 255
        and (np.diff(whole.ravel().astype(int)) >= 0).all()
    )
    write_dicom(path, ramp, WindowCenter=1000, WindowWidth=1000)
    window = picture_asked(path, 3)
    assert window.shape == (8, 8, 3) and (window[ramp < 490] == 0).all() and (window[ramp > 1510] == 255).all()
    assert 110 < window[..., 0][ramp == 1020] < 150
    write_dicom(path, ramp, "MONOCHROME1")
    assert np.array_equal(picture_asked(path, 1), 255 - whole)
    write_dicom(path, ramp, "PALETTE COLOR")
    with pytest.raises(DataError, match="colours of the kind PALETTE COLOR"):
        picture_asked(path, 1)


def test_padding_of_a_dicom_file_is_black_and_takes_no_grey_levels(tmp_path):
    """As one value or a range: otherwise the whole picture shares a few levels beside the padding."""
    ramp = 100 + np.arange(64).reshape(8, 8)
    padded = ramp.copy()
    padded[0] = 4000
    path = tmp_path / "chest.dcm"
    write_dicom(path, ramp[1:])
    alone = picture_asked(path, 1)
    for kind in ("MONOCHROME2", "MONOCHROME1"):
        write_dicom(path, padded, kind, PixelPaddingValue=4000)
        inside = picture_asked(path, 1)
        assert not inside[0].any() and np.array_equal(inside[1:], alone if kind == "MONOCHROME2" else 255 - alone)
    padded[0, ::2] = 3990
    write_dicom(path, padded, PixelPaddingValue=4000, PixelPaddingRangeLimit=3980)
    assert np.array_equal(picture_asked(path, 1)[1:], alone) and not picture_asked(path, 1)[0].any()


@pytest.mark.parametrize("tags, told", [
    ({"PatientOrientation": ["R", "F"]}, r"is stored mirrored \(PatientOrientation R.F\); turn it in a viewer"),
    ({"PatientOrientation": ["L", "H"]}, r"is stored upside down \(PatientOrientation L.H\); turn it in a viewer"),
    ({"PresentationLUTShape": "INVERSE"}, "both that small values are black .* and that they are white"),
    ({"WindowCenter": 30000, "WindowWidth": 10}, "has one grey value, so it shows nothing; look at its window"),
    ({"RescaleSlope": 0, "RescaleIntercept": 5}, "has one grey value, so it shows nothing; .*RescaleSlope"),
    ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}, "has one grey value"),
])  # fmt: skip
def test_a_dicom_file_that_would_be_shown_wrong_is_refused_by_name(tmp_path, tags, told):
    path = tmp_path / "chest.dcm"
    write_dicom(path, np.arange(64).reshape(8, 8) * 60, **tags)
    with pytest.raises(DataError, match=rf"chest.dcm: .*{told}"):
        picture_asked(path, 1)


@pytest.mark.parametrize("tags", [
    {"PatientOrientation": ["L", "F"]}, {"PatientOrientation": ["A", "F"]}, {"PatientOrientation": ["P", "L"]},
    {"PatientOrientation": ""}, {"PixelPaddingValue": 4000}, {"PresentationLUTShape": "IDENTITY"},
])  # fmt: skip
def test_usual_tags_change_nothing(tmp_path, tags):
    path, ramp = tmp_path / "chest.dcm", np.arange(64).reshape(8, 8) * 60
    write_dicom(path, ramp)
    plain = picture_asked(path, 1)
    write_dicom(path, ramp, **tags)
    assert np.array_equal(picture_asked(path, 1), plain)
    write_dicom(path, ramp, "MONOCHROME1", PresentationLUTShape="INVERSE")
    assert np.array_equal(picture_asked(path, 1), 255 - plain)


def test_a_dicom_file_in_the_table_is_a_picture_but_no_mask(mine, semimedref):
    grey = read_grey(mine / "images/000.png")
    write_dicom(mine / "images/000.dcm", grey * 16)
    change(mine, 0, file_name="images/000.dcm")
    pairs = load_split("folder", "train", 32, str(mine))
    assert {"images/000.dcm"} <= set(pairs.names) and semimedref("doctor", data=mine).status == 0
    assert np.array_equal(read_grey(mine / "images/000.dcm"), picture_asked(mine / "images/000.dcm", 1))
    write_dicom(mine / "images/001_mask.dcm", grey * 16)
    change(mine, 1, mask_file_name="images/001_mask.dcm")
    told = semimedref("doctor", data=mine)
    assert "001_mask.dcm: is a DICOM file, which may be a picture but not a mask; save the mask as PNG" in told.text


def test_a_file_that_is_no_picture_is_told_without_the_words_of_a_library(tmp_path):
    (tmp_path / "000.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="000.png: corrupt picture, or no PNG, JPEG, TIFF, BMP$"):
        read_grey(tmp_path / "000.png")


def test_a_dicom_file_without_pydicom_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    (tmp_path / "chest.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(DataError, match="chest.dcm: is a DICOM file, .* run `pip install pydicom`"):
        picture_asked(tmp_path / "chest.dcm", 1)
