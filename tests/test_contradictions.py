"""What can be read but cannot all be true: the doctor names and counts it, and training needs something to learn."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from qata_folders import edited_table, write_png

from semimedref_core.data.content import nothing_to_learn
from semimedref_core.data.datasets import load_training
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.doctor import examine
from semimedref_core.data.real.qata import load_qata


def told(root) -> str:
    """What the doctor says of a folder whose files can all be read."""
    diagnosis = examine(root)
    assert diagnosis.ok, diagnosis.problems
    text = diagnosis.render()
    assert text.endswith("every file can be read, but look at the contradictions") and "no problems" not in text
    return text


def pixels(path):
    return np.asarray(Image.open(path)).copy()


def test_a_lesion_on_the_other_side_than_the_report_is_no_longer_followed_by_no_problems(qata_folder):
    root = qata_folder()
    for path in (root / "train/images/covid_1.png", root / "train/masks/mask_covid_1.png"):
        write_png(path, pixels(path)[:, ::-1])
    text = told(root)
    assert "2 contradiction(s)" in text, "one for each text version"
    assert "most of the lesion on the other side than the report names: 1\n  mask_covid_1.png" in text


@pytest.mark.parametrize("text, kind", [
    ("Bilateral pulmonary infection, two infected areas, lower left lung.", "names another number of sides"),
    ("Unilateral pulmonary infection, two infected areas, left lung and right lung.", "names another number of sides"),
    ("No pulmonary infection, zero infected areas.", "the report names no infection, but the mask shows one"),
])  # fmt: skip
def test_a_report_that_contradicts_itself_or_its_mask_is_named(qata_folder, text, kind):
    root = qata_folder(texts=("lvit",))
    with edited_table(root / "Train_text.xlsx") as table:
        table.loc[4, "Description"] = text
    assert f"{kind}: 1\n  mask_sub-s4_vp-ll.png" in told(root) or f"{kind}: 1\n  mask_covid_5.png" in told(root)


def test_a_report_of_an_infection_that_the_mask_does_not_show_is_named(qata_folder):
    root = qata_folder()
    write_png(root / "train/masks/mask_covid_5.png", np.zeros((64, 64), np.uint8))
    assert "the report names an infection, but the mask shows none: 1\n  mask_covid_5.png" in told(root)


def test_a_report_of_the_release_that_counts_other_than_its_zones_is_named(qata_folder):
    root = qata_folder()
    path = root / "annotation.json"
    content = json.loads(path.read_text())
    content["train"][0]["caption"] = content["train"][0]["caption"].replace("one infected area", "nine infected areas")
    path.write_text(json.dumps(content))
    assert "the report counts other than the zones that it names: 1\n  mask_covid_0.png" in told(root)


def test_an_inverted_mask_and_a_picture_that_is_its_mask_are_named(qata_folder):
    root = qata_folder()
    mask = pixels(root / "train/masks/mask_covid_5.png")
    write_png(root / "train/masks/mask_covid_5.png", 255 - mask)
    shutil.copy(root / "train/masks/mask_covid_6.png", root / "train/images/covid_6.png")
    text = told(root)
    assert "is it inverted?: 1\n  mask_covid_5.png" in text and "its own mask: 1\n  mask_covid_6.png" in text


def test_the_same_picture_in_two_splits_or_twice_in_one_is_named_whatever_its_file(qata_folder):
    root = qata_folder()
    picture = Image.open(root / "train/images/covid_0.png").convert("RGB")
    picture.save(root / "train/images/covid_6.png")
    picture.save(root / "valid/images/covid_8.png", compress_level=0)
    text = told(root)
    assert "train: pictures that are the same, pixel by pixel: 1\n  mask_covid_0.png = mask_covid_6.png" in text
    assert "train and valid: pictures that are the same, pixel by pixel: 1\n" in text and "= mask_covid_8.png" in text


def test_the_same_name_in_two_splits_is_named(qata_folder):
    root = qata_folder(texts=("lvit",))
    for name in ("images/covid_8.png", "masks/mask_covid_8.png"):
        path = root / "valid" / name
        path.rename(path.with_name(path.name.replace("8", "0")))
    with edited_table(root / "Val_text.xlsx") as table:
        table["Image"] = table["Image"].str.replace("covid_8", "covid_0")
    assert "train and valid: the same name for other pictures: 1\n  mask_covid_0.png" in told(root)


def test_text_versions_that_list_other_pictures_are_named(qata_folder):
    root = qata_folder()
    path = root / "Val_text.xlsx"
    pd.read_excel(path)[1:].to_excel(path, index=False)
    assert "valid: listed with release texts and not with lvit texts: 1\n" in told(root)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_one_grey_value_is_a_problem(qata_folder, value):
    root = qata_folder()
    write_png(root / "train/images/covid_0.png", np.full((64, 64), value, np.uint8))
    (problem,) = examine(root).problems
    assert "covid_0.png: picture of one grey value, so it shows nothing" in problem


def every(root, folder, change):
    for path in root.glob(f"{folder}/*.png"):
        write_png(path, change(pixels(path)))


USELESS = {
    "no mask shows a lesion": ("*/masks", lambda mask: mask * 0),
    "every mask is lesion from edge to edge": ("*/masks", lambda mask: mask * 0 + 255),
    "every picture has one grey value": ("*/images", lambda image: image * 0 + 7),
    "all masks are the same": ("*/masks", lambda mask: np.pad(mask[:40, :40] * 0 + 255, ((0, 24), (24, 0)))),
}


@pytest.mark.parametrize("why", USELESS)
def test_training_and_scoring_refuse_pairs_in_which_nothing_can_be_learnt(
    qata_folder, train, semimedref, of_qata, tmp_path, why
):
    root = qata_folder()
    every(root, *USELESS[why])
    outcome = train(output=tmp_path / "run", dataset="qata", data=root, label_ratio=0.5)
    assert (
        outcome.status == 1
        and f"qata train, labelled: {why}" in outcome.errors
        and "semimedref doctor" in outcome.errors
    )
    assert not (tmp_path / "run").exists()
    scored = semimedref("evaluate", checkpoint=of_qata, data=root)
    assert scored.status == 1 and f"qata valid: {why}" in scored.errors and "%" not in scored.text
    assert not examine(root).ok or "inverted" in told(root)


def test_the_valid_split_needs_content_too(qata_folder):
    root = qata_folder()
    every(root, "valid/masks", lambda mask: mask * 0)
    with pytest.raises(DataError, match="qata valid: no mask shows a lesion .2 pair"):
        load_training("qata", 0.5, 32, data=str(root))


def test_one_pair_and_slices_without_a_lesion_beside_others_can_be_learnt_from():
    images, masks = np.arange(2 * 64, dtype=np.uint8).reshape(2, 8, 8), np.zeros((2, 8, 8), np.uint8)
    masks[0, 2:4] = 1
    assert nothing_to_learn(images[:1], masks[:1]) == nothing_to_learn(images, masks) == ""


def test_loading_for_training_says_how_many_reports_contradict_themselves(qata_folder, recwarn):
    """The zones of the phrases are taken; nothing is said where all agree."""
    root = qata_folder()
    load_qata(root, "train", 32)
    assert not [told for told in recwarn if "contradict" in str(told.message)]
    table = pd.read_excel(root / "Train_text.xlsx")
    for row, text in enumerate(
        (
            "Bilateral pulmonary infection, two infected areas, lower left lung.",
            "Unilateral pulmonary infection, two infected areas, left lung and right lung.",
        )
    ):
        table.loc[row, "Description"] = text  # fmt: skip
    table.to_excel(root / "Train_text.xlsx", index=False)
    with pytest.warns(
        UserWarning, match=r"2 report\(s\) contradict themselves \(2 times .* another number of sides"
    ) as all:
        pairs = load_qata(root, "train", 32)
    assert len([told for told in all if "contradict" in str(told.message)]) == 1
    assert pairs.reports[0].zones == (0, 0, 1, 0, 0, 0) and sum(pairs.reports[1].zones) == 6
