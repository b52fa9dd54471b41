"""A mask is read as it was meant, or refused by name: soft rims pass, classes and colours need a setting."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from semimedref_core.config import Config, mask_values
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.pictures import read_mask
from semimedref_core.data.real.qata import load_qata
from semimedref_core.errors import ConfigError

Y, X = np.mgrid[:96, :96]
LARGE = ((X - 30) / 20) ** 2 + ((Y - 40) / 25) ** 2 < 1
SMALL = ((X - 70) / 9) ** 2 + ((Y - 60) / 7) ** 2 < 1
BOTH = Image.fromarray(((LARGE | SMALL) * 255).astype(np.uint8))


def classes(large, small) -> np.ndarray:
    """Both spots, each with a value of its own, a grey one or a colour."""
    shape = (*LARGE.shape, *np.shape(large))
    mask = np.zeros(shape, np.uint8)
    mask[LARGE], mask[SMALL] = large, small
    return mask


@pytest.fixture
def saved(tmp_path):
    """``saved(picture, "png")`` writes a mask and gives its path."""

    def save(picture, ending="png", **options):
        path = tmp_path / f"mask.{ending}"
        (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
        return path

    return save


SOFT = {
    "blurred": (BOTH.filter(ImageFilter.GaussianBlur(2)), "png", {}),
    "made smaller": (BOTH.resize((60, 60), Image.Resampling.BILINEAR), "png", {}),
    "made larger": (BOTH.resize((384, 384), Image.Resampling.BICUBIC), "png", {}),
    "a good JPEG": (BOTH, "jpg", {"quality": 90}),
    "a poor JPEG": (BOTH, "jpg", {"quality": 50}),
    "a JPEG with colours": (BOTH.convert("RGB"), "jpg", {"quality": 75}),
}


@pytest.mark.parametrize("case", SOFT)
def test_soft_rims_pass_and_are_cut_at_half(saved, case):
    picture, ending, options = SOFT[case]
    mask = read_mask(saved(picture, ending, **options))
    plain = np.asarray(picture.convert("L")) > 127
    assert mask.dtype == bool and mask.any() and np.mean(mask != plain) < 0.005


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_mask_of_one_class_may_have_any_mode(saved, mode):
    assert np.array_equal(read_mask(saved(BOTH.convert(mode))), LARGE | SMALL)


@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_one_class_of_another_bright_value_is_lesion(saved, ending):
    assert np.array_equal(read_mask(saved(classes(200, 200), ending)), LARGE | SMALL)


def test_a_mask_without_lesion_is_empty(saved):
    assert not read_mask(saved(classes(0, 0))).any()


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize(
    "one, other", [(85, 255), (255, 85), (60, 255), (128, 255), (255, 127), (200, 255), (255, 100)]
)
def test_two_classes_are_named(saved, ending, one, other):
    """Read at the brightest value alone, half of the lesion would be gone."""
    with pytest.raises(DataError, match=r"mask with (areas|spots) of the values .*mask_values"):
        read_mask(saved(classes(one, other), ending))


def test_a_small_spot_of_another_class_is_named_too(saved):
    mask = classes(255, 0)
    mask[80:82, 10:13] = 100
    with pytest.raises(DataError, match="mask with isolated spots of the values 100, which would be lost"):
        read_mask(saved(mask))


@pytest.mark.parametrize("value", [1, 2, 50, 127])
def test_a_mask_that_is_dark_all_over_is_named(saved, value):
    with pytest.raises(DataError, match=f"brightest value {value}; save it with lesion 255"):
        read_mask(saved(classes(value, 0)))


@pytest.mark.parametrize("one, other", [
    ((255, 0, 0), (255, 255, 0)), ((0, 255, 0), (0, 0, 255)), ((255, 255, 255), (255, 0, 0)),
    ((255, 255, 0), (0, 0, 0)),
])  # fmt: skip
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_colours_are_named_whatever_their_hue(saved, one, other, mode):
    """By brightness yellow would be lesion and red would not."""
    with pytest.raises(DataError, match=r"mask with colours \(#[0-9a-f]{6}.*mask_values"):
        read_mask(saved(Image.fromarray(classes(one, other)).convert(mode)))


@pytest.mark.parametrize(
    "text, lesion",
    [("85,255", LARGE | SMALL), ("85", LARGE), (" 255 ", SMALL), ("85,255=0", LARGE), ("7,85=0", LARGE & SMALL)],
)
def test_a_setting_says_which_values_are_lesion(saved, text, lesion):
    assert np.array_equal(read_mask(saved(classes(85, 255)), mask_values(text)), lesion)


def test_a_setting_names_colours_too_and_values_of_16_bits(saved):
    path = saved(classes((255, 0, 0), (255, 255, 0)))
    assert np.array_equal(read_mask(path, mask_values("#ff0000")), LARGE)
    assert np.array_equal(read_mask(path, mask_values("#FFFF00, #ff0000")), LARGE | SMALL)
    assert np.array_equal(read_mask(saved(classes(1, 2).astype(np.uint16) * 500), mask_values("1000")), SMALL)


@pytest.mark.parametrize(
    "text", ["red", "85;255", "-1", "0", "70000", "85,,255", "1.5", "85=1", "85==0", "#ff00", "1e2", "٣"]
)
def test_a_setting_that_names_no_value_is_refused(text):
    with pytest.raises(ConfigError, match="mask_values: .* is no mask value"):
        Config(mask_values=text)


ONE = LARGE * np.uint8(255)
OTHERS = {
    "0 and 255": (Image.fromarray(ONE), "255"),
    "black and white, 1 bit": (Image.fromarray(ONE).convert("1"), "255"),
    "a palette": (Image.fromarray(ONE).quantize(2), "255"),
    "16 bits": (Image.fromarray(ONE.astype(np.uint16) * 257), "65535"),
    "red": (Image.fromarray(classes((255, 0, 0), (0, 0, 0))), "#ff0000"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_mask_of_values_that_the_setting_does_not_list_is_refused_and_not_emptied(saved, case):
    """Some masks of a folder hold 0 and 1, so their cure is ``--mask-values 1``; the others hold something else."""
    picture, value = OTHERS[case]
    path = saved(picture)
    with pytest.raises(
        DataError, match=rf"mask.png: holds the values {value} and none .*; add {value} to .* {value}=0"
    ):
        read_mask(path, mask_values("1"))
    assert np.array_equal(read_mask(path, mask_values(f"1,{value}")), LARGE)
    assert not read_mask(path, mask_values(f"1,{value}=0")).any()
    assert not read_mask(saved(classes(0, 0)), mask_values("1")).any(), "an empty mask is one"


def test_a_mask_of_another_class_may_have_a_soft_rim(saved):
    rim = BOTH.filter(ImageFilter.GaussianBlur(2))
    assert not read_mask(saved(rim), mask_values("#ff0000,255=0")).any()


def test_a_setting_needs_a_lesion_value():
    with pytest.raises(ConfigError, match="mask_values: '85=0' names no lesion value"):
        Config(mask_values="85=0")


def test_the_setting_reaches_training_evaluation_and_the_doctor(semimedref, train, qata_folder, tmp_path):
    """All masks get a second class; without the setting each file is named, with it everything runs."""
    root = qata_folder()
    for path in root.glob("*/masks/*.png"):
        mask = np.asarray(Image.open(path)).copy()
        mask[:, :32] = np.minimum(mask[:, :32], 85)
        Image.fromarray(mask).save(path)
    options = {"dataset": "qata", "data": root}
    refused = train(output=tmp_path / "run", label_ratio=0.5, **options)
    assert refused.status == 1 and "mask_values" in refused.errors and not (tmp_path / "run").exists()
    assert semimedref("doctor", data=root).status == 1
    options["mask_values"] = "85,255"
    done = train(output=tmp_path / "run", label_ratio=0.5, **options)
    assert done.status == 0, done.errors
    assert semimedref("evaluate", checkpoint=tmp_path / "run/student", **options).status == 0
    told = semimedref("doctor", data=root, mask_values="85,255")
    assert told.status == 0, told.text


def test_the_cache_keeps_masks_of_other_values_apart(qata_folder):
    root = qata_folder()
    path = root / "train/masks/mask_covid_0.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[40:60, 40:60] = 85
    Image.fromarray(mask).save(path)
    both, one = (load_qata(root, "train", 64, indices=[0], mask_values=text).masks[0] for text in ("85,255", "255"))
    assert both[50, 50] == 1 and one[50, 50] == 0 and (both >= one).all()


def test_a_mask_in_another_format_is_refused(tmp_path):
    data = io.BytesIO()
    BOTH.save(data, "GIF")
    (tmp_path / "mask.png").write_bytes(data.getvalue())
    with pytest.raises(DataError, match="no PNG, JPEG, TIFF, BMP"):
        read_mask(tmp_path / "mask.png")
