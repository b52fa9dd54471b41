"""The doctor: what a data folder holds, what is wrong with it, and whether reports and masks agree."""

import shutil

import numpy as np
import pytest
from PIL import Image

from semimedref_core.data.real.doctor import examine
from semimedref_core.data.real.sources import SPLITS

LAYOUTS = ("release", "lvit", "languide")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_healthy_folder_of_any_layout_is_ok(qata_folder, layout):
    """Layout, text versions and counts are told; every lesion lies where its report says."""
    diagnosis = examine(qata_folder(layout))
    text = diagnosis.render()
    assert diagnosis.ok and diagnosis.problems == []
    assert f"layout {layout}" in text and text.endswith("no problems")
    assert [split.name for split in diagnosis.splits] == list(SPLITS)
    assert [split.texts["lvit"].listed for split in diagnosis.splits] == [8, 2, 2]
    for split in diagnosis.splits:
        lvit, release = split.texts["lvit"], split.texts["release"]
        assert lvit.counts.part == lvit.counts.total == lvit.listed
        assert release.zones.part == release.zones.total == lvit.zones.total == lvit.listed
        assert lvit.off_side == release.off_side == []


@pytest.mark.parametrize("option, value", [("positions", "quadrants"), ("text_sides", "patient"), ("text_length", 9)])
def test_an_option_for_own_data_is_not_ignored_on_other_data(semimedref, qata_folder, option, value):
    root, name = qata_folder(), f"--{option.replace('_', '-')}"
    semimedref("doctor", data=root, **{option: value}).one_error("doctor", root, f"{name} has no effect on other data")
    assert semimedref("doctor", data=root, positions="lung", text_sides="image", text_length=24).status == 0


def test_files_in_the_folders_are_counted_apart_from_the_list(qata_folder):
    root = qata_folder()
    (root / "train/images/stray.png").write_bytes(b"no picture")
    diagnosis = examine(root)
    assert diagnosis.ok, "what is not listed does not matter"
    assert "train: 9 image files, 8 mask files" in diagnosis.render()


def test_all_faults_are_named_and_nothing_is_raised(faulty_qata):
    root, faults = faulty_qata
    diagnosis = examine(root)
    text = diagnosis.render()
    assert not diagnosis.ok
    assert [fault for fault, name in faults.items() if name not in text] == []
    assert len(diagnosis.problems) == 9
    assert "9 problem(s):" in text
    assert [split.name for split in diagnosis.splits] == list(SPLITS), "the other splits are examined all the same"


def test_no_list_of_problems_is_cut(qata_folder):
    """Loading names the first 20; the doctor names all 24."""
    root = qata_folder()
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    diagnosis = examine(root)
    assert len(diagnosis.problems) == 24
    assert all(problem in diagnosis.render() for problem in diagnosis.problems)


def test_reports_on_the_wrong_side_are_listed(qata_folder):
    """Mirroring one picture and its mask leaves the folder usable, and the doctor names the contradiction."""
    root = qata_folder()
    mirror(root / "train/images/covid_1.png")
    mirror(root / "train/masks/mask_covid_1.png")
    diagnosis = examine(root)
    assert diagnosis.splits[0].texts["lvit"].off_side == ["mask_covid_1.png"]
    assert "most of the lesion in the other half: 1\n      mask_covid_1.png" in diagnosis.render()
    assert diagnosis.ok


def test_a_mirrored_data_set_is_a_problem(qata_folder):
    root = qata_folder()
    for path in (root / "train").rglob("*.png"):
        mirror(path)
    problems = examine(root, ["train"]).problems
    assert len(problems) == 2, "one for each text version"
    assert all("left and right disagree with the masks; are pictures mirrored?" in problem for problem in problems)


def mirror(path):
    Image.fromarray(np.asarray(Image.open(path))[:, ::-1]).save(path)


def test_lateral_views_are_counted_apart(qata_folder):
    """The made-up train split holds one-sided reports of frontal views and of one lateral view (vp-ll)."""
    root = qata_folder()
    before = examine(root, ["train"]).splits[0].texts["lvit"]
    assert before.on_side["lateral"].total == 1
    mirror(root / "train/images/sub-s4_vp-ll.png")
    mirror(root / "train/masks/mask_sub-s4_vp-ll.png")
    after = examine(root, ["train"]).splits[0].texts["lvit"]
    assert after.on_side["lateral"].part == 0 and after.off_side == []
    assert after.on_side["left"] == before.on_side["left"] and after.on_side["right"] == before.on_side["right"]


def test_count_words_are_compared_with_connected_lesions(qata_folder):
    """Ledger 10. Two squares that touch at a corner are one lesion; a third one apart makes two."""
    root = qata_folder()
    mask = np.zeros((64, 64), np.uint8)
    mask[2:6, 2:6] = mask[6:10, 6:10] = 255  # the report of covid_0 says: one infected area, upper left lung
    Image.fromarray(mask).save(root / "train/masks/mask_covid_0.png")
    assert examine(root, ["train"]).splits[0].texts["lvit"].counts.part == 8
    mask[12:15, 20:25] = 255
    Image.fromarray(mask).save(root / "train/masks/mask_covid_0.png")
    assert examine(root, ["train"]).splits[0].texts["lvit"].counts.part == 7


def test_a_broken_report_table_does_not_stop_the_rest(qata_folder):
    root = qata_folder()
    (root / "Train_text.xlsx").write_bytes(b"no table")
    diagnosis = examine(root)
    assert len(diagnosis.problems) == 1 and "Train_text.xlsx" in diagnosis.problems[0]
    assert list(diagnosis.splits[0].texts) == ["release"] and diagnosis.splits[0].texts["release"].listed == 8


def test_a_split_without_any_report_table_is_a_problem(qata_folder):
    root = qata_folder("languide", texts=("lvit",))
    (root / "prompt/test.csv").unlink()
    problems = examine(root).problems
    assert len(problems) == 1 and "no report table for split 'test'" in problems[0]


def test_a_missing_split_is_no_problem_but_said(qata_folder):
    root = qata_folder("lvit", texts=("lvit",))
    shutil.rmtree(root / "Test_Folder")
    diagnosis = examine(root)
    assert diagnosis.ok and "not here: test" in diagnosis.render()


def test_listed_pictures_whose_folder_is_missing_are_problems(qata_folder):
    root = qata_folder()
    shutil.rmtree(root / "valid")
    diagnosis = examine(root)
    assert len(diagnosis.problems) == 4 and all("(as is its folder)" in problem for problem in diagnosis.problems)


def test_a_folder_without_data_is_one_problem_with_its_cure(tmp_path):
    diagnosis = examine(tmp_path / "nowhere")
    assert not diagnosis.ok
    assert "is not a folder" in diagnosis.render() and "set SEMIMEDREF_DATA or --data" in diagnosis.render()


def test_the_labelled_subset_is_compared_with_the_release(qata_folder):
    text = examine(qata_folder()).render()
    assert "labelled at 1 %: 1 of 8" in text and "not the release's (3bfd491d7d9bffe4)" in text


def test_the_real_valid_split(real_data):
    """LViT's texts know the masks: count words always right, sides to 99 %; the release's counts are zones."""
    diagnosis = examine(real_data, ["valid"])
    assert diagnosis.ok
    (valid,) = diagnosis.splits
    assert (valid.images, valid.masks) == (1429, 1429)
    lvit, release = valid.texts["lvit"], valid.texts["release"]
    assert lvit.counts.part == lvit.counts.total == 1429
    assert lvit.on_side["left"].part / lvit.on_side["left"].total > 0.98
    assert lvit.on_side["right"].part / lvit.on_side["right"].total > 0.99
    assert len(lvit.off_side) == 3 and len(release.off_side) == 16
    assert release.zones.part == release.zones.total == 1429
    assert (lvit.zones.part, lvit.zones.total) == (1194, 1429)
    assert release.counts.part == 768
