"""MosMedData+ from a folder: its layouts and tables, its pseudo-labels, its patients, and clear errors."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from semimedref_core.data.datasets import load_split, load_training
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.doctor import examine, examine_all
from semimedref_core.data.real.mosmed import MOSMED_PLUS, find_mosmed, load_mosmed
from semimedref_core.data.real.qata import QATA_COV19, find_qata
from semimedref_core.data.real.report_tables import ReportTable
from semimedref_core.data.real.sources import SPLITS
from semimedref_core.data.splits import labelled_indices
from semimedref_core.evaluation import overlap, scores
from semimedref_core.reports import Report

NAMES = {
    "train": [f"Morozov_study_0255_{number}" for number in (1, 2, 10)]
    + ["Jun_coronacases_case1_7", "Jun_radiopaedia_10_85902_3_case12_60", "bjorke_1", "study_0300_4", "study_0300_5"],
    "valid": ["Morozov_study_0256_3", "bjorke_2"],
    "test": ["Morozov_study_0255_4", "Jun_coronacases_case1_9", "Jun_coronacases_case10_9"],
}
EMPTY = "study_0300_4"  # a slice without a lesion
WAYS = {  # layout, image folder, mask folder, table, column of the texts
    "frames": ("flat", "frames", "masks", "prompt/{split}.csv", "text"),
    "images": ("flat", "Images", "GTs", "{split}.csv", "Description"),
    "sheets": ("flat", "frames", "masks", "{Name}_text.xlsx", "text"),
    "lvit": ("lvit", "{Name}_Folder/img", "{Name}_Folder/labelcol", "{Name}_Folder/{Name}_text.xlsx", "Description"),
}


@pytest.fixture
def mosmed_folder(tmp_path, write_pair):
    """``make(way="frames", holder="MosMedData+")`` writes a small MosMedData+ and returns its folder.

    8 + 2 + 3 slices of 64 x 64 pixels, the same in every way of :data:`WAYS`, with one ellipse for each named zone.
    Csv tables begin with a BOM and hold pseudo-labels; masks are RGB in ``frames``.
    """

    def make(way: str = "frames", holder: str = "MosMedData+"):
        _, images, masks, table, column = WAYS[way]
        root = tmp_path / way / holder
        rng = np.random.default_rng(0)
        codes = iter([3, 24, *rng.integers(1, 64, 11)])  # the first shows the left side only, the second the right
        for split, name in {"train": "Train", "valid": "Val", "test": "Test"}.items():
            rows = []
            for stem in NAMES[split]:
                code = 0 if stem == EMPTY else int(next(codes))
                zones = [code >> k & 1 for k in range(6)]
                image, mask = (root / folder.format(Name=name) / f"{stem}.png" for folder in (images, masks))
                write_pair(rng, zones, image, mask)
                if way == "frames":
                    Image.open(mask).convert("RGB").save(mask)
                rows.append((f"{stem}.png", Report.of(zones, sum(zones)).render().capitalize(), str(zones)))
            sheet = pd.DataFrame(rows, columns=["Image", column, "pseudo_label"])
            path = root / table.format(split=split, Name=name)
            path.parent.mkdir(exist_ok=True)
            if path.suffix == ".csv":
                sheet.to_csv(path, index=False, encoding="utf-8-sig")
            else:
                sheet.drop(columns="pseudo_label").to_excel(path, index=False)
        return root

    return make


class edited:
    """``with edited(path) as table: ...`` changes a csv table in place."""

    def __init__(self, path):
        self.path = path

    def __enter__(self) -> pd.DataFrame:
        self.table = pd.read_csv(self.path, encoding="utf-8-sig")
        return self.table

    def __exit__(self, *error):
        self.table.to_csv(self.path, index=False)


# Layouts


@pytest.mark.parametrize("way", WAYS)
def test_every_layout_gives_the_same_pairs(mosmed_folder, way):
    expected, root = mosmed_folder("frames"), mosmed_folder(way)
    assert find_mosmed(root).name == WAYS[way][0]
    for split in SPLITS:
        pairs, reference = load_mosmed(root, split, 64), load_mosmed(expected, split, 64)
        assert pairs.names == reference.names == tuple(f"{stem}.png" for stem in NAMES[split])
        assert pairs.reports == reference.reports
        np.testing.assert_array_equal(pairs.images, reference.images)
        np.testing.assert_array_equal(pairs.masks, reference.masks)


def test_image_mask_and_report_of_a_pair_belong_together(mosmed_folder):
    """In the made-up data the mask holds one lesion in the centre of each zone that the report names."""
    centres = [(10 + 21 * height, 16 + 32 * side) for side in range(2) for height in range(3)]
    pairs = load_mosmed(mosmed_folder(), "train", 64)
    for image, mask, report in zip(pairs.images, pairs.masks, pairs.reports, strict=True):
        assert tuple(int(mask[y, x]) for y, x in centres) == report.zones
        assert not mask.any() or image[mask == 1].mean() > image[mask == 0].mean() + 40


@pytest.mark.parametrize("holder", ["MosMedData+", "mosmed", "MOSMEDDATAPLUS"])
def test_the_holder_of_the_folder_will_do_in_any_case(mosmed_folder, holder):
    root = mosmed_folder(holder=holder)
    assert find_mosmed(root) == find_mosmed(root.parent) == find_mosmed(str(root))


def test_names_match_without_case_and_without_their_ending(mosmed_folder):
    root = mosmed_folder()
    expected = load_mosmed(root, "train", 32)
    with edited(root / "prompt/train.csv") as table:
        table["Image"] = table["Image"].str.removesuffix(".png").str.upper()
    pairs = load_mosmed(root, "train", 32)
    assert pairs.names[0] == "MOROZOV_STUDY_0255_1"
    np.testing.assert_array_equal(pairs.masks, expected.masks)


def test_the_valid_list_may_be_called_val(mosmed_folder):
    root = mosmed_folder()
    shutil.move(root / "prompt/valid.csv", root / "prompt/val.csv")
    assert len(load_mosmed(root, "valid", 32)) == 2


def test_unlabelled_pairs_need_no_masks_and_indices_are_taken_in_their_order(mosmed_folder):
    root = mosmed_folder()
    shutil.rmtree(root / "masks")
    pairs = load_mosmed(root, "train", 32, indices=[5, 2], masks=False)
    assert pairs.masks is None and pairs.names == ("bjorke_1.png", "Morozov_study_0255_10.png")


def test_a_slice_without_a_lesion_is_data_and_finding_nothing_there_is_right(mosmed_folder):
    pairs = load_mosmed(mosmed_folder(), "train", 32, indices=[NAMES["train"].index(EMPTY)])
    assert pairs.reports[0].laterality == "no" and not pairs.masks.any()
    mask = torch.from_numpy(pairs.masks)[:, None].bool()
    for predicted, score in ((torch.zeros_like(mask), 1), (torch.ones_like(mask), 0)):
        assert scores(overlap(predicted, mask).numpy())["dice_image"] == score


def test_qata_is_not_taken_for_mosmed(qata_folder):
    """LViT keeps both in the same folders; QaTa's masks are called ``mask_...``."""
    root = qata_folder("lvit")
    with pytest.raises(DataError, match=r"holds no MosMedData\+"):
        find_mosmed(root)
    assert [diagnosis.title.split()[0] for diagnosis in examine_all(root)] == ["QaTa-COV19"]


# Datasets by name


def test_training_takes_the_labelled_pairs_of_the_releases_rule(mosmed_folder):
    """Eq. 2 with sorted names and rounding down: 2 of 8 at 30 %."""
    root = mosmed_folder()
    training = load_training("mosmed", 0.3, 32, data=str(root.parent))
    names = [f"{stem}.png" for stem in NAMES["train"]]
    expected = {names[i] for i in labelled_indices(names, 0.3, "mosmed")}
    assert set(training.labelled.names) == expected and len(expected) == 2
    assert set(training.unlabelled.names) == set(names) - expected and training.unlabelled.masks is None
    assert len(training.valid) == 2 and len(load_split("mosmed", "test", 32, data=str(root))) == 3


def test_a_run_trains_on_mosmed_and_the_doctor_looks_at_it(train, semimedref, mosmed_folder, tmp_path):
    root = mosmed_folder()
    outcome = train(output=tmp_path / "run", dataset="mosmed", data=root.parent, label_ratio=0.3)
    assert outcome.status == 0, outcome.errors
    assert "mosmed, valid split, 2 labelled pairs, seed 0" in outcome.text
    doctor = semimedref("doctor", data=root.parent)
    assert doctor.status == 0 and doctor.text.startswith(f"MosMedData+ in {root}, layout flat")


def test_absent_data_name_what_to_set_and_the_phantom_that_stands_in(train, tmp_path):
    outcome = train(output=tmp_path / "run", dataset="mosmed", data=tmp_path)
    assert outcome.status == 1
    assert f"{tmp_path}: holds no MosMedData+ (looked for frames|Images and masks|GTs, or Train_Folder/img|" in (
        outcome.errors
    )
    assert "set SEMIMEDREF_DATA or --data to the folder that holds MosMedData+/" in outcome.errors
    assert "phantom-ct needs no files and can stand in" in outcome.errors


# Faults


@pytest.fixture
def faulty_mosmed(mosmed_folder):
    """A train split with one fault of each kind, and for each what a message about it must hold."""
    root = mosmed_folder()
    (root / "masks/Morozov_study_0255_1.png").unlink()
    Image.new("L", (48, 32)).save(root / "masks/Morozov_study_0255_2.png")
    cut = root / "frames/Morozov_study_0255_10.png"
    cut.write_bytes(cut.read_bytes()[:300])
    with edited(root / "prompt/train.csv") as table:
        table.loc[3, "text"] = "ground glass on the left"
        table.loc[8] = table.loc[5]
    return root, {
        "mask missing": "Morozov_study_0255_1.png: listed but missing",
        "mask of another size": "48 x 32 pixels for an image of 64 x 64",
        "corrupt image": "Morozov_study_0255_10.png: corrupt picture",
        "unreadable text": "ground glass on the left",
        "listed twice": "bjorke_1.png: listed 2 times",
    }


def test_everything_that_is_wrong_is_told_at_once(faulty_mosmed):
    root, faults = faulty_mosmed
    with pytest.raises(DataError) as error:
        load_mosmed(root, "train", 32)
    assert [fault for fault, words in faults.items() if words not in str(error.value)] == []
    assert "MosMedData+ train: 5 problem(s)" in str(error.value)
    diagnosis = examine(root, source=MOSMED_PLUS)
    assert [fault for fault, words in faults.items() if words not in diagnosis.render()] == []
    assert len(diagnosis.problems) == 5 and not diagnosis.ok


def test_a_table_with_the_wrong_columns_is_told_together_with_the_faults_of_other_splits(faulty_mosmed):
    root, faults = faulty_mosmed
    (root / "prompt/valid.csv").write_text("File,Text\na.png,b\n")
    with pytest.raises(DataError) as error:
        load_training("mosmed", 1, 32, data=str(root), unlabelled=False)
    assert "valid.csv: has columns ['file', 'text'], expected Image and Description (or text)" in str(error.value)
    assert [fault for fault, words in faults.items() if words not in str(error.value)] == []


def test_another_text_version_and_a_split_without_a_table_are_named(mosmed_folder):
    root = mosmed_folder()
    with pytest.raises(DataError, match=r"no release texts .*\(there are: lvit\); choose another text version"):
        load_mosmed(root, "train", 32, "release")
    (root / "prompt/test.csv").unlink()
    with pytest.raises(DataError, match=r"no lvit texts for split 'test' .*add Test_text.xlsx or .*prompt/test.csv"):
        load_mosmed(root, "test", 32)


# Pseudo-labels


def test_every_pseudo_label_that_contradicts_its_text_is_named(mosmed_folder):
    """Another zone, a label cut short, and one that is no list; the text is what counts. Blank ones are not held."""
    root = mosmed_folder()
    expected = load_mosmed(root, "train", 32).reports
    with edited(root / "prompt/train.csv") as table:
        wrong = [1 - bit for bit in expected[0].zones]
        table.loc[:3, "pseudo_label"] = [str(wrong), "[0, 1]", "none", None]
    with pytest.warns(UserWarning, match=r"MosMedData\+ train: 3 pseudo-label") as told:
        pairs = load_mosmed(root, "train", 32)
    assert pairs.reports == expected
    diagnosis = examine(root, source=MOSMED_PLUS)
    for text in (str(told[0].message), diagnosis.render()):
        for stem, label in zip(NAMES["train"], (wrong, [0, 1], []), strict=False):
            assert f"{stem}.png: pseudo-label {label}, but the text" in text
        assert f"{NAMES['train'][3]}.png: pseudo-label" not in text
    assert len(diagnosis.problems) == 3
    zones = diagnosis.splits[0].texts["lvit"].zones
    assert (zones.part, zones.total) == (4, 7)


def test_the_real_texts_can_be_read_and_agree_with_their_pseudo_labels(real_data, mosmed_folder, write_pair):
    """35 texts, 27 of them with a pseudo-label; pictures are drawn here, from the zones."""
    table = real_data / "MosMed" / "texts_sample.csv"
    if not table.exists():
        pytest.skip("no MosMed/texts_sample.csv beside QaTa")
    root = mosmed_folder()
    shutil.copy(table, root / "prompt/train.csv")
    rng = np.random.default_rng(0)
    rows = ReportTable(table, "train").rows()
    for name, text, _ in rows:
        write_pair(rng, Report.parse(text).zones, root / "frames" / name, root / "masks" / name)
    with pytest.warns(UserWarning, match=r"6 report\(s\) contradict themselves") as told:
        pairs = load_mosmed(root, "train", 32)
    assert len(told) == 1, "no pseudo-label contradicts its text"
    assert len(pairs) == 35 and sum(zones is not None for _, _, zones in rows) == 27
    assert all(Report.parse(report.render()) == report for report in pairs.reports)
    check = examine(root, ["train"], MOSMED_PLUS).splits[0].texts["lvit"]
    assert check.zones.part == check.zones.total == 27
    assert {MOSMED_PLUS.patient_of(name) for name, _, _ in rows} >= {
        None, "morozov_study_0255", "jun_coronacases_case10", "jun_radiopaedia_14_85914_0_case13"
    }  # fmt: skip


# What the doctor tells


@pytest.mark.parametrize("way", WAYS)
def test_a_healthy_folder_of_any_layout_is_ok(mosmed_folder, way):
    diagnosis = examine(mosmed_folder(way), source=MOSMED_PLUS)
    text = diagnosis.render()
    assert diagnosis.ok and text.endswith("no problems")
    assert text.startswith("MosMedData+ in ") and f"layout {WAYS[way][0]}" in text
    assert [split.texts["lvit"].listed for split in diagnosis.splits] == [8, 2, 3]
    for listed, published in ((8, 2183), (2, 273), (3, 273)):
        assert f"{listed} listed ({published} published)" in text
    assert "labelled at 1 %: 1 of 8, sha256 " in text and "the release" not in text
    for split in diagnosis.splits:
        assert split.texts["lvit"].off_side == []


def test_left_and_right_are_measured_but_which_is_which_is_not_known(mosmed_folder):
    """Where QaTa would be refused, a mirrored MosMedData+ is told."""
    root = mosmed_folder()
    told = examine(root, source=MOSMED_PLUS)
    assert "left-only texts: 100.00 % of the lesion in the left half (mean of" in told.render()
    assert "lateral" not in told.render()
    assert not [warning for warning in told.warnings if "left and right" in warning]
    for path in root.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path))[:, ::-1]).save(path)
    mirrored = examine(root, source=MOSMED_PLUS)
    assert mirrored.ok
    assert "left-only texts: 0.00 % of the lesion" in mirrored.render()
    assert "WARNING" in mirrored.render() and "left and right disagree with the masks" in mirrored.render()


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("Morozov_study_0297_14.png", "morozov_study_0297"),
        ("study_0297_14", "study_0297"),
        ("Jun_radiopaedia_10_85902_3_case12_113.png", "jun_radiopaedia_10_85902_3_case12"),
        ("bjorke_40.png", None),
    ],
)
def test_a_file_name_tells_the_study(name, patient):
    assert MOSMED_PLUS.patient_of(name) == patient


def test_a_qata_name_tells_the_patient_or_not():
    assert QATA_COV19.patient_of("mask_sub-S03044_ses-E06155_run-1_bp-chest_vp-ap_cr.png") == "sub-s03044"
    assert QATA_COV19.patient_of("mask_covid_1.png") is None


def test_ledger_12_the_doctor_counts_patients_in_two_splits(mosmed_folder):
    """Two of the three test studies have slices in train; slices that tell no study are no evidence."""
    root = mosmed_folder()
    diagnosis = examine(root, source=MOSMED_PLUS)
    assert diagnosis.ok, "the splits are kept as they are"
    assert diagnosis.patients == "patients told by file names: train 4, valid 1, test 3; 2 file(s) tell none"
    (warning,) = diagnosis.warnings
    assert warning.startswith("test: 2 of 3 patients, with 2 of 3 images, also occur in train")
    assert f"WARNING {warning}" in diagnosis.render()
    lines = (root / "prompt/test.csv").read_text(encoding="utf-8-sig").splitlines()
    (root / "prompt/test.csv").write_text("\n".join([lines[0], *lines[3:]]))
    assert examine(root, source=MOSMED_PLUS).warnings == []


def test_in_real_qata_no_named_patient_is_in_two_splits(real_data):
    layout = find_qata(real_data)
    known = [
        {QATA_COV19.patient_of(entry.name) for entry in layout.entries(split)} - {None} for split in ("train", "valid")
    ]
    assert all(known) and not known[0] & known[1]
