"""Folders as other people's pages describe them, and as unzipping leaves them, are found, or named."""

import json
import shutil

import numpy as np
import pytest

from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.doctor import examine, examine_all
from semimedref_core.data.real.mosmed import find_mosmed
from semimedref_core.data.real.qata import find_qata, load_qata
from semimedref_core.reports import Report


def moved(root, pairs) -> None:
    for source, target in pairs:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(root / source, root / target, dirs_exist_ok=True)
    for source, _ in pairs:
        shutil.rmtree(root / source.split("/")[0], ignore_errors=True)


def as_lvit(root):
    """The tree in LViT's README: ``datasets/QaTa-Covid19``."""
    return root.rename(root.with_name("QaTa-Covid19")).parent


def as_builders_on_lvit(root):
    for name in ("Train", "Val", "Test"):
        (root / f"{name}_Folder/img").rename(root / f"{name}_Folder/images")
        (root / f"{name}_Folder/labelcol").rename(root / f"{name}_Folder/labels")
    return root


def as_kaggle(root):
    """``archive/QaTa-COV19/QaTa-COV19-v2/Train Set/Images``; LViT's tables beside the sets."""
    places = [("train", "Train Set"), ("valid", "Train Set"), ("test", "Test Set")]
    moved(
        root,
        [(f"{a}/{c}", f"{b}/{d}") for a, b in places for c, d in (("images", "Images"), ("masks", "Ground-truths"))],
    )
    target = root.parent / "archive/QaTa-COV19/QaTa-COV19-v2"
    target.parent.mkdir(parents=True)
    root.rename(target)
    return root.parent / "archive"


def as_mmi_unet(root):
    """``data/QaTa-COV19-v2/{Train,Test}/{Images,GTs}`` and ``prompt/``."""
    for folder in ("Images", "GTs"):
        for split in ("Train", "Test"):
            shutil.copytree(root / folder, root / split / folder)
        shutil.rmtree(root / folder)
    return root.rename(root.with_name("QaTa-COV19-v2")).parent


def as_prolearn(root):
    """``images/``, ``masks/`` with the names of the images, ``reports/NAME.txt`` and ``split.json``."""
    lists = {split: load_qata(root, split, 64) for split in ("train", "valid", "test")}
    for split in lists:
        shutil.copytree(root / split / "images", root / "images", dirs_exist_ok=True)
        for path in (root / split / "masks").iterdir():
            (root / "masks").mkdir(exist_ok=True)
            path.rename(root / "masks" / path.name.removeprefix("mask_"))
        shutil.rmtree(root / split)
    for path in root.glob("*_text.xlsx"):
        path.unlink()
    (root / "reports").mkdir()
    names = {}
    for split, pairs in lists.items():
        names[split] = [name.removeprefix("mask_").removesuffix(".png") for name in pairs.names]
        for name, report in zip(names[split], pairs.reports, strict=True):
            (root / "reports" / f"{name}.txt").write_text(f"{report}\n")
    (root / "split.json").write_text(json.dumps(names))
    return root


def as_unzipped(root):
    """Nested once more, beside what macOS and Windows leave."""
    target = root.parent / "QaTa download/data/QaTa set"
    target.parent.mkdir(parents=True)
    root.rename(target)
    (root.parent / "QaTa download/__MACOSX/data/QaTa").mkdir(parents=True)
    return root.parent / "QaTa download"


WAYS = {
    "LViT": ("lvit", as_lvit, "lvit"),
    "builders on LViT": ("lvit", as_builders_on_lvit, "lvit"),
    "Kaggle": ("release", as_kaggle, "kaggle"),
    "MMI-UNet": ("languide", as_mmi_unet, "kaggle"),
    "ProLearn": ("release", as_prolearn, "languide"),
    "unzipped": ("release", as_unzipped, "release"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_as_others_describe_it_gives_the_same_pairs(qata_folder, way):
    layout, change, found = WAYS[way]
    root = qata_folder(layout, ("lvit",))
    expected = {split: load_qata(root, split, 64) for split in ("train", "valid", "test")}
    root = change(root)
    assert find_qata(root).name == found
    for split, reference in expected.items():
        pairs = load_qata(root, split, 64)
        assert pairs.reports == reference.reports
        np.testing.assert_array_equal(pairs.images, reference.images)
        np.testing.assert_array_equal(pairs.masks, reference.masks)
    assert examine(root).ok


@pytest.mark.parametrize("junk", ["Thumbs.db", "._covid_0.png", ".DS_Store", "desktop.ini", "__MACOSX"])
def test_what_other_systems_leave_beside_the_files_is_left_alone(qata_folder, junk):
    root = qata_folder()
    for folder in (root, root / "train", root / "train/images", root / "train/masks"):
        (folder / junk).write_bytes(b"junk")
    diagnosis = examine(root)
    assert diagnosis.ok and diagnosis.splits[0].images == diagnosis.splits[0].masks == 8
    (root / "train/images/covid_0.png").unlink()
    assert "covid_0.png: listed but missing" in examine(root).problems[0]


def test_kaggles_pictures_without_tables_are_found_and_their_tables_are_missed(qata_folder):
    root = as_kaggle(qata_folder("release", ()))
    (diagnosis,) = examine_all(root)
    assert any("no report table for split 'train'" in problem for problem in diagnosis.problems)


def test_several_folders_that_could_be_meant_are_named(qata_folder):
    root = qata_folder()
    holder = root.parent
    shutil.copytree(root, holder / "copies/one"), shutil.copytree(root, holder / "copies/two")
    with pytest.raises(DataError, match="holds QaTa-COV19 more than once .*one and .*two.*name one of these folders"):
        find_qata(holder / "copies")


def test_a_folder_that_is_not_known_is_told_with_what_is_in_it(tmp_path):
    for name in ("pictures", "labels", "__MACOSX", ".git"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="holds no QaTa-COV19 .*folders there: labels, pictures\\)"):
        find_qata(tmp_path)


def test_qata_in_a_folder_that_nobody_named_is_not_taken_for_mosmed(qata_folder):
    root = qata_folder("lvit")
    root.rename(root.with_name("something"))
    with pytest.raises(DataError, match=r"holds no MosMedData\+"):
        find_mosmed(root.parent)


def test_names_that_differ_in_case_alone_are_named(qata_folder):
    root = qata_folder()
    shutil.copy(root / "train/images/covid_0.png", root / "train/images/COVID_0.png")
    with pytest.raises(DataError, match="holds COVID_0.png and covid_0.png, which differ in case alone"):
        load_qata(root, "train", 32)
    assert not examine(root).ok


def test_a_report_of_prolearn_that_is_missing_is_named(qata_folder):
    root = as_prolearn(qata_folder(texts=("lvit",)))
    (root / "reports/covid_0.txt").unlink()
    with pytest.raises(DataError, match="covid_0: listed without a report"):
        load_qata(root, "train", 32)
    assert all(isinstance(entry.report("lvit"), Report) for entry in find_qata(root).entries("valid"))
