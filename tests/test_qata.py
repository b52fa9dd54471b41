"""QaTa-COV19 from a folder: every layout in use, both text versions, and clear errors for what is broken."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semimedref_core import load_split
from semimedref_core.anatomy import QATA, THIRDS, lesion_rows
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.agreement import Lesions, agreement
from semimedref_core.data.real.qata import find_qata, load_qata
from semimedref_core.data.real.sources import SPLITS
from semimedref_core.reports import STYLES, Report

ROOT = Path(__file__).parent.parent
LAYOUTS = ("release", "lvit", "languide")
COUNTS = {"train": 8, "valid": 2, "test": 2}


def overwrite(path, picture):
    Image.fromarray(picture).save(path)


@pytest.mark.parametrize("texts", STYLES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_pairs(qata_folder, layout, texts):
    """The layout is found by looking, and makes no difference to what is loaded."""
    expected, root = qata_folder("release"), qata_folder(layout)
    assert find_qata(root).name == layout
    for split in SPLITS:
        pairs, reference = load_qata(root, split, 64, texts), load_qata(expected, split, 64, texts)
        assert len(pairs) == COUNTS[split]
        assert pairs.names == reference.names and pairs.reports == reference.reports
        np.testing.assert_array_equal(pairs.images, reference.images)
        np.testing.assert_array_equal(pairs.masks, reference.masks)
        assert {report.style for report in pairs.reports} == {texts}


def test_image_mask_and_report_of_a_pair_belong_together(qata_folder):
    """In the made-up data the mask holds one lesion in the centre of each zone that the report names."""
    centres = [(10 + 21 * height, 16 + 32 * side) for side in range(2) for height in range(3)]
    pairs = load_qata(qata_folder(), "train", 64)
    for image, mask, report in zip(pairs.images, pairs.masks, pairs.reports, strict=True):
        assert tuple(int(mask[y, x]) for y, x in centres) == report.zones
        assert image[mask == 1].mean() > image[mask == 0].mean() + 40


def test_names_are_those_of_the_list_in_its_order(qata_folder):
    root = qata_folder("release")
    listed = [item["image_path"] for item in json.loads((root / "annotation.json").read_text())["train"]]
    assert load_qata(root, "train", 16).names == tuple(listed)
    assert listed[3] == "mask_sub-s3_ses-e7_vp-ap.png", "spelt in lower case in the list,"
    assert (root / "train/images/sub-S3_ses-E7_vp-AP.png").exists(), "and otherwise in the folder"


def test_the_holder_of_the_qata_folder_will_do(qata_folder):
    root = qata_folder("release")
    assert find_qata(root) == find_qata(root.parent) == find_qata(str(root))


def test_files_that_are_not_listed_are_left_alone(qata_folder):
    root = qata_folder("release")
    (root / "train/images/stray.png").write_bytes(b"no picture")
    assert len(load_qata(root, "train", 16)) == 8


def test_lvit_tables_may_lie_beside_the_split_folders(qata_folder):
    root = qata_folder("lvit", texts=("lvit",))
    shutil.move(root / "Train_Folder/Train_text.xlsx", root / "Train_text.xlsx")
    assert len(load_qata(root, "train", 16)) == 8


def test_languide_takes_the_last_fifth_of_its_train_list_for_validation(qata_folder):
    root = qata_folder("languide", texts=("lvit",))
    rows = (root / "prompt/train.csv").read_text(encoding="utf-8-sig").splitlines()[1:]
    listed = [row.split(",")[0] for row in rows]
    layout = find_qata(root)
    assert [entry.name for entry in layout.entries("train")] == listed[:8]
    assert [entry.name for entry in layout.entries("valid")] == listed[8:]


def test_masks_may_have_the_name_of_the_image(qata_folder):
    root = qata_folder("release")
    expected = load_qata(root, "train", 64).masks
    for path in (root / "train/masks").iterdir():
        path.rename(path.with_name(path.name.removeprefix("mask_")))
    np.testing.assert_array_equal(load_qata(root, "train", 64).masks, expected)


def test_pictures_may_be_rgb(qata_folder):
    root = qata_folder("release")
    expected = load_qata(root, "test", 64)
    for path in (root / "test").rglob("*.png"):
        overwrite(path, np.asarray(Image.open(path).convert("RGB")))
    pairs = load_qata(root, "test", 64)
    np.testing.assert_array_equal(pairs.images, expected.images)
    np.testing.assert_array_equal(pairs.masks, expected.masks)


def test_a_mask_pixel_is_lesion_where_half_of_its_area_is(qata_folder):
    root = qata_folder("release")
    mask = np.zeros((64, 64), np.uint8)
    mask[0, 0], mask[0, 2:4], mask[2:4, 0:2] = 255, 255, 128
    mask[2:4, 2:4] = 127
    overwrite(root / "train/masks/mask_covid_0.png", mask)
    small = load_qata(root, "train", 32, indices=[0]).masks[0]
    assert small[:2, :2].tolist() == [[0, 1], [1, 0]], "a quarter, a half, all, all but too dark"
    assert small.sum() == 2


def test_images_are_resized_with_antialiasing(qata_folder):
    """Stripes of one pixel become even grey; picking every fourth pixel would give black or white."""
    root = qata_folder("release")
    overwrite(root / "train/images/covid_0.png", np.tile(np.array([0, 255], np.uint8), (64, 32)))
    image = load_qata(root, "train", 16, indices=[0]).images[0]
    assert abs(image[:, 1:-1].astype(int) - 127).max() <= 2


def test_only_the_asked_indices_are_read_in_their_order(qata_folder):
    root = qata_folder("release")
    everything = load_qata(root, "train", 16)
    (root / "train/images/covid_0.png").unlink()
    some = load_qata(root, "train", 16, indices=[5, 2])
    assert some.names == (everything.names[5], everything.names[2])
    np.testing.assert_array_equal(some.images, everything.images[[5, 2]])
    assert len(load_qata(root, "train", 16, indices=[])) == 0


def test_unlabelled_pairs_need_no_masks(qata_folder):
    root = qata_folder("release")
    shutil.rmtree(root / "train/masks")
    pairs = load_qata(root, "train", 16, masks=False)
    assert pairs.masks is None and len(pairs) == 8
    with pytest.raises(DataError, match=r"(?s)8 problem.*mask_covid_0.png: listed but missing \(as is its folder\)"):
        load_qata(root, "train", 16)


def test_everything_that_is_wrong_is_told_at_once(faulty_qata):
    """One message with all nine faults and the cure, not one fault per run."""
    root, faults = faulty_qata
    with pytest.raises(DataError) as error:
        load_qata(root, "train", 32)
    message = str(error.value)
    assert [fault for fault, name in faults.items() if name not in message] == []
    assert "10 problem(s)" in message, "the twice listed image is corrupt both times"
    assert "get these files again or take them off the list" in message
    assert "48 x 32 pixels for an image of 64 x 64" in message
    assert len(load_qata(root, "valid", 32)) == 2


def decoded(data):
    """Grey values of a PNG's bytes, ``None`` if it cannot be decoded."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)))
    except Exception:
        return None


def test_a_changed_byte_is_found_even_where_the_picture_can_be_decoded(qata_folder):
    """Some damage only changes grey values when decoded; the file's checksums tell."""
    root = qata_folder("release")
    path = root / "train/images/covid_0.png"
    data = path.read_bytes()
    damaged = (data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :] for i in range(len(data) - 1, 40, -1))
    silent = next(d for d in damaged if decoded(d) is not None and (decoded(d) != decoded(data)).any())
    path.write_bytes(silent)
    with pytest.raises(DataError, match=r"covid_0\.png: corrupt picture"):
        load_qata(root, "train", 32)


def test_a_long_list_of_problems_is_cut_and_counted(qata_folder):
    root = qata_folder("release")
    for path in (root / "train").rglob("*.png"):
        path.unlink()
    annotation = json.loads((root / "annotation.json").read_text())
    for item in annotation["train"]:
        item["caption"] = ""
    (root / "annotation.json").write_text(json.dumps(annotation))
    with pytest.raises(DataError) as error:
        load_qata(root, "train", 32, texts="release")
    lines = str(error.value).splitlines()
    assert "24 problem(s)" in lines[0]
    assert len(lines) == 22 and lines[-1] == "... and 4 more"


def break_columns(root):
    (root / "prompt/train.csv").write_text("Image,Words\na.png,b\n")


def break_blank_name(root):
    (root / "prompt/train.csv").write_text("Image,Description\na.png,b\n,c\n")


def break_empty(root):
    (root / "prompt/train.csv").write_text("Image,Description\n")


def break_encoding(root):
    (root / "prompt/train.csv").write_bytes(b"Image,Description\n\xff\xfe\x00,a\n")


def remove_table(root):
    (root / "prompt/train.csv").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_columns, r"train.csv: has columns \['image', 'words'\], expected Image and Description"),
        (break_blank_name, r"train.csv: rows \[3\] name no image"),
        (break_empty, "train.csv: empty split"),
        (break_encoding, "train.csv: line 2 is not in UTF-8; save the file in the encoding UTF-8"),
        (remove_table, r"no lvit texts for split 'train' \(there are: release\); add Train_text.xlsx or .*train.csv"),
    ],
)
def test_a_broken_or_missing_report_table_is_named(qata_folder, damage, message):
    root = qata_folder("languide")
    damage(root)
    with pytest.raises(DataError, match=message):
        load_qata(root, "train", 32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "annotation.json: no readable table"),
        ("7", "annotation.json: no readable table"),
        ('{"train": [{"caption": "no name"}]}', "annotation.json: no readable table"),
        ('{"train": []}', "annotation.json: empty split"),
        ('{"valid": []}', "no release texts for split 'train'"),
    ],
)
def test_a_broken_annotation_file_is_named(qata_folder, content, message):
    root = qata_folder("release", texts=("release",))
    (root / "annotation.json").write_text(content)
    with pytest.raises(DataError, match=message):
        load_qata(root, "train", 32, texts="release")


def test_a_broken_xlsx_is_named(qata_folder):
    root = qata_folder("release")
    (root / "Train_text.xlsx").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"Train_text\.xlsx: no readable table"):
        load_qata(root, "train", 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "unknown split 'dev'; choose one of train, valid, test"),
        ({"texts": "sgseg"}, "unknown text version 'sgseg'; choose one of lvit, release"),
        ({"indices": [0, 8, -1]}, r"indices \[8, -1\] are outside the 8 entries of split 'train'"),
        ({"size": 0}, "size must be at least 1 pixel, got 0"),
    ],
)
def test_wrong_arguments_are_named(qata_folder, arguments, message):
    with pytest.raises(DataError, match=message):
        load_qata(qata_folder(), **({"split": "train", "size": 32} | arguments))


def test_a_split_that_is_not_there_and_a_folder_without_data_say_what_to_set(qata_folder, tmp_path):
    root = qata_folder("release", texts=("lvit",))
    shutil.rmtree(root / "test")
    (root / "Test_text.xlsx").unlink()
    with pytest.raises(DataError, match=r"no split 'test' here, only train, valid; set SEMIMEDREF_DATA or --data"):
        load_qata(root, "test", 32)
    (tmp_path / "empty").mkdir()
    for folder, why in ((tmp_path / "empty", "holds no QaTa-COV19"), (tmp_path / "nowhere", "is not a folder")):
        with pytest.raises(DataError, match=f"{why}.*train/images and train/masks.*set SEMIMEDREF_DATA or --data"):
            find_qata(folder)


def test_real_qata_loads(real_data):
    """All of the valid split, both text versions, and the whole train list."""
    pairs = load_qata(real_data, "valid", 32)
    assert len(pairs) == 1429 and pairs.images.shape == pairs.masks.shape == (1429, 32, 32)
    assert set(np.unique(pairs.masks)) == {0, 1}
    assert 0.05 < pairs.masks.mean() < 0.15
    layout = find_qata(real_data)
    for texts in STYLES:
        entries = layout.entries("train", texts)
        assert len(entries) == 5716
        assert all(isinstance(entry.report(texts), Report) for entry in entries)


def test_the_first_notebook_tells_what_the_real_masks_and_texts_show(real_data):
    pairs = load_split("qata", "valid", 224, data=str(real_data))
    found, rows = agreement(pairs), lesion_rows(pairs.masks, pairs.reports)[[1, 2, 4]]
    release = {entry.name: entry.report("release").zones for entry in find_qata(real_data).entries("valid", "release")}
    said = {"lvit": [report.zones for report in pairs.reports], "release": [release[name] for name in pairs.names]}
    said = {style: np.array(zones) for style, zones in said.items()}
    differs, shown = (
        (said["lvit"] != said["release"]).any(1),
        np.array([QATA.zones_shown(mask) for mask in pairs.masks]),
    )
    agree = {style: 100 * (zones == shown)[differs].mean() for style, zones in said.items()}
    counted = [
        Lesions.of(mask).count == report.lesions for mask, report in zip(pairs.masks, pairs.reports, strict=True)
    ]
    left = 100 * found.on_side["left"].part / found.on_side["left"].total
    told = (ROOT / "notebooks" / "01_data.py").read_text().replace("\n# ", " ")
    lowest, calibrated = (f"{100 * grid.inside(rows)[2]:.0f} %" for grid in (THIRDS, QATA))
    for fact in (
        f"left-only lesions lie there (QaTa: {left:.1f} %)",
        f"of the texts (QaTa: {100 * np.mean(counted):.0f} %)",
        f"(QaTa: {lowest}, and {calibrated} in the calibrated band)",
        f"On QaTa's validation pairs {100 * differs.mean():.0f} % of the zone vectors differ too",
        f"versions differ, {agree['lvit']:.0f} % of the bits of `lvit` and {agree['release']:.0f} % of the bits",
        f'only {lowest} of the pixels of "lower" lie in the lowest third, and {calibrated} in the calibrated band',
        f"On average {left:.1f} % of the lesion lies in the left half of the image",
    ):
        assert fact in told


def test_the_notebook_on_posaug_tells_what_the_simpler_pattern_misses(real_data):
    texts = [entry.text for entry in find_qata(real_data).entries("train", "lvit")]
    pattern = re.compile(r"((upper|middle|lower)\s+)+(left|right)\s+lung", re.IGNORECASE)
    found = np.array([len(pattern.findall(text)) for text in texts])
    phrases = np.array([len(re.findall(r"\blung\b", text, re.IGNORECASE)) for text in texts])
    nothing, side = (f"{100 * share:.0f} %" for share in ((found == 0).mean(), (found < phrases).mean()))
    told = (ROOT / "notebooks" / "03_posaug.py").read_text().replace("\n# ", " ")
    assert f"In the {len(texts)} training texts of this style the pattern finds nothing in {nothing}" in told
    assert f"and misses a side in {side}." in told
