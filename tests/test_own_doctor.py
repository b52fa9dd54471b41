"""``semimedref doctor`` on your own data: it passes a healthy folder and names all faults at once."""

import re

import numpy as np
import own_folders
import pytest
from own_folders import change, table_of
from PIL import Image

from semimedref_core.data.own.doctor import examine_own
from semimedref_core.data.real.pictures import read_grey


def test_the_doctor_passes_a_healthy_folder(semimedref, mine):
    told = semimedref("doctor", data=mine)
    assert told.status == 0 and told.text.endswith("no problems\n"), told.text
    assert "texts of one side: " in told.text


def test_positions_that_read_more_are_hinted_at_by_doctor_and_training(semimedref, train, tmp_path):
    skin = own_folders.skin(tmp_path / "skin")
    for row, text in enumerate(table_of(skin)["text"]):
        change(skin, row, text=text.replace("corner", "quadrant"))
    hint = "12 of these 12 texts name a zone with --positions quadrants"
    assert f"WARNING {hint}" in semimedref("doctor", data=skin).text
    assert hint not in semimedref("doctor", data=skin, positions="quadrants").text
    assert hint not in semimedref("doctor", data=own_folders.chest(tmp_path / "chest")).text
    told = train(dataset="folder", data=skin, output=tmp_path / "run", label_ratio=0.5)
    assert "9 of these 9 texts name a zone with --positions quadrants" in told.text


def test_the_doctor_names_all_faults_of_the_files_at_once(semimedref, tmp_path):
    mine = own_folders.chest(tmp_path / "mine")
    images = mine / "images"
    (images / "000.png").unlink()
    (images / "001.png").write_bytes(b"no picture")
    Image.new("L", (8, 8)).save(images / "002_mask.png")
    classes = np.zeros((64, 64), np.uint8)
    classes[:20, :20], classes[30:50, 30:50] = 255, 100
    Image.fromarray(classes).save(images / "003_mask.png")
    (images / "004_mask.png").unlink()
    change(mine, 5, text="haze " * 30)
    told = semimedref("doctor", data=mine)
    assert told.status == 1
    for fault in ("000.png: listed but missing", "001.png: corrupt picture", "002_mask.png: mask of 8 x 8 pixels for",
                  "003_mask.png: mask with areas of the values 100", "004_mask.png: listed but missing",
                  "of images/005.png, needs", "--text-length"):  # fmt: skip
        assert fault in told.text, fault
    assert "texts that name no zone, so T-PatchMix and PosAug leave them alone: 1\n  images/005.png" in told.text


def test_the_doctor_says_whose_left_the_texts_mean(semimedref, mine):
    told = semimedref("doctor", data=mine, text_sides="patient")
    assert told.status == 1 and "left and right disagree with most masks" in told.text
    table = table_of(mine)
    swap = {"left": "right", "right": "left"}
    table["text"] = table["text"].str.replace("left|right", lambda found: swap[found[0]], regex=True)
    table.to_csv(mine / "metadata.csv", index=False)
    assert semimedref("doctor", data=mine, text_sides="patient").status == 0
    assert "--text-sides patient" in semimedref("doctor", data=mine).text


def test_the_doctor_passes_a_folder_whose_only_pair_with_a_side_is_on_the_other(semimedref, mine):
    """A single pair may be a slip. It is listed."""
    change(mine, range(12), text="Haze")
    change(mine, 3, text="Haze in the left middle zone")
    told = semimedref("doctor", data=mine)
    assert told.status == 0, told.text
    assert "more of the lesion in the mirror image of the named zones than in them: 1\n  images/003.png" in told.text


def test_the_doctor_finds_groups_and_pictures_in_two_splits(mine):
    change(mine, range(12), split=["train"] * 8 + ["valid"] * 4, group=[f"patient{k // 3}" for k in range(12)])
    Image.open(mine / "images/000.png").save(mine / "images/011.png")
    told = examine_own(mine).render()
    assert "valid: 1 of 4 pairs are of a group that also occurs in train" in told and "first is images/008.png" in told
    assert "train and valid: pictures that are the same, pixel by pixel: 1\n  images/000.png = images/011.png" in told


def test_the_doctor_names_pictures_that_exif_data_turn_and_their_masks_not(mine):
    """A mask that was drawn on the stored pixels would be upside down."""
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("000.png", "001.png", "001_mask.png"):
        Image.open(mine / "images" / name).save(mine / "images" / name, exif=exif)
    told = examine_own(mine, positions="none").render()
    assert re.findall("EXIF data turn picture and mask differently.*: (1\n  .*)\n", told) == ["1\n  images/000.png"]


def test_the_doctor_tells_that_pictures_of_one_device_get_different_scales(mine):
    """12-bit pictures whose brightest values are 1000 and 1030 differ in grey by a factor of 4."""
    for k in range(12):
        grey = read_grey(mine / f"images/{k:03}.png").astype(float)
        deep = np.rint(grey * ((1000 if k % 3 else 1030) / grey.max())).astype(np.uint16)
        Image.fromarray(deep).save(mine / f"images/{k:03}.png")
    told = examine_own(mine).render()
    assert "brightest value: 8 by 10 bits (such as images/" in told and ", 4 by 12 bits (such as images/" in told
    assert "save all with the same scale, as grey of 8 bits" in told
    for k in range(0, 12, 3):
        values = np.asarray(Image.open(mine / f"images/{k:03}.png"))
        Image.fromarray(np.minimum(values, 1000)).save(mine / f"images/{k:03}.png")
    assert "brightest value" not in examine_own(mine).render()


@pytest.mark.parametrize("cells, problem", [
    ({"split": "train"}, "no pair for validation; write valid in the column split of some pairs with masks"),
    ({"group": "one"}, "no pair for validation; it is drawn from pairs with masks of at least two groups"),
    ({"split": ["train"] * 10 + ["valid"] * 2,
      "mask_file_name": [""] * 10 + ["images/010_mask.png", "images/011_mask.png"]},
     "no training pair has a mask; fill in mask_file_name of some"),
])  # fmt: skip
def test_the_doctor_fails_a_folder_that_training_refuses(semimedref, train, mine, tmp_path, cells, problem):
    change(mine, range(12), **cells)
    told = semimedref("doctor", data=mine)
    assert told.status == 1 and f"1 problem(s):\n{problem}" in told.text, told.text
    assert train(dataset="folder", data=mine, output=tmp_path / "run", label_ratio=0.5).status == 1


def test_the_doctor_warns_of_a_lesion_that_several_pairs_share(semimedref, mine):
    """Such as a cell that was dragged down. An empty mask may serve all healthy pairs."""
    change(mine, range(6), mask_file_name="images/000_mask.png")
    Image.new("L", (64, 64)).save(mine / "images/empty.png")
    change(mine, range(8, 11), mask_file_name="images/empty.png")
    told = semimedref("doctor", data=mine, positions="none").text
    (warning,) = [line for line in told.splitlines() if "the mask of" in line]
    assert warning.startswith(f"WARNING {mine / 'images/000_mask.png'}: the mask of 6 pairs, images/00")


@pytest.mark.parametrize("text, denied", [
    ("No finding.", True),
    ("No evidence of pneumonia or consolidation. Heart size normal.", True),
    ("Normal chest radiograph", True),
    ("The lungs are clear.", True),
    ("No opacity in the left lung.", False),
    ("No new opacity.", False),
    ("No effusion.", False),
    ("Patchy opacity, heart size normal.", False),
    ("Opacity without evidence of infection.", False),
    ("The left lung is clear. Haze on the other side.", False),
    ("No pneumothorax. Patchy opacity.", False),
])  # fmt: skip
def test_the_doctor_names_a_lesion_beside_a_text_that_denies_it(mine, text, denied):
    change(mine, 3, text=text)
    kind = "the text denies any finding, the mask shows a lesion: 1\n  images/003.png"
    assert (kind in examine_own(mine).render()) == denied
