"""Your own pictures, masks and sentences: from a folder to a predicted mask, and every fault by name."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import own_folders
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

import semimedref_core
from semimedref_core.anatomy import THIRDS
from semimedref_core.batch import Unlabelled
from semimedref_core.config import STRICT, Config, ConfigError
from semimedref_core.data.asked import picture_asked
from semimedref_core.data.datasets import load_split, load_training
from semimedref_core.data.own.doctor import examine_own
from semimedref_core.data.own.folder import OwnData
from semimedref_core.data.own.zones import layout_named, layout_of
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.pictures import read_colour, read_grey
from semimedref_core.demo.answer import Demo
from semimedref_core.experiments.papermill_run import notebooks_folder
from semimedref_core.free_reports import FreeReport
from semimedref_core.inference import SemiMedRef
from semimedref_core.methods import METHODS, reported_places
from semimedref_core.networks import build_network, build_texts
from semimedref_core.networks.vocabulary import free_tokenizer, tokens_needed, told_in_training
from semimedref_core.patchmix import mixed_reports
from semimedref_core.posaug import PosAug, apply_hits
from semimedref_core.positions import LUNGS, SIDES
from semimedref_core.preparing import prepare
from semimedref_core.runtime.checkpoints import from_pretrained, load_texts
from semimedref_core.step import training_step
from semimedref_core.views import weak_view

DOCS = Path(__file__).parent.parent / "docs" / "own_data.md"
SMALL = {"dataset": "folder", "image_size": 32, "steps": 4, "batch_size": 2, "burn_in": 0.25, "label_ratio": 0.5}


@pytest.fixture
def mine(tmp_path):
    """A folder of twelve chest pictures, all with masks."""
    return own_folders.chest(tmp_path / "mine")


def table_of(folder):
    return pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False)


def change(folder, row, **cells):
    """Writes other cells into a line of the table."""
    table = table_of(folder)
    for name, value in cells.items():
        table.loc[row, name] = value
    table.to_csv(folder / "metadata.csv", index=False)


# From a folder to a mask


@pytest.mark.parametrize("make, options, channels", [
    (own_folders.chest, {}, 1),
    (own_folders.skin, {"positions": "quadrants"}, 3),
    (lambda folder: own_folders.chest(folder, 24, masks=10), {"label_ratio": 0.3}, 1),
], ids=["chest", "skin in colours", "ten labelled beside many"])  # fmt: skip
def test_a_folder_is_trained_evaluated_and_predicted_on(train, semimedref, tmp_path, make, options, channels):
    data, run = make(tmp_path / "mine"), tmp_path / "run"
    told = train(**{"dataset": "folder", "data": data, "output": run, "label_ratio": 0.5, **options})
    assert told.status == 0, told.errors
    about = json.loads((run / "teacher" / "config.json").read_text())
    assert about["trained_on"] == "folder" and about["positions"] == options.get("positions", "lung")
    assert about["text_sides"] == "image" and from_pretrained(run / "teacher")[0].channels == channels
    (line,) = [line for line in told.text.splitlines() if line.startswith("teacher")]
    scored = semimedref("evaluate", checkpoint=run / "teacher", dataset="folder", data=data)
    assert scored.status == 0 and scored.text.startswith(line.removeprefix("teacher").strip())
    asked = {"image": data / "images/001.png", "report": "Anything one may say, 2 of it", "output": tmp_path / "found"}
    found = semimedref("predict", checkpoint=run / "teacher", **asked)
    assert (found.status, found.errors) == (0, "")
    assert Image.open(tmp_path / "found_mask.png").size == Image.open(data / "images/001.png").size


def test_the_page_on_own_data_can_be_followed_line_by_line(command_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, *lines = re.search(r"```bash\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1].strip().splitlines()
    assert first.split() == ["python", "tests/own_folders.py", "chest", "mine"]
    own_folders.chest(Path("mine"))
    for line in lines:
        words = [quoted or word for quoted, word in re.findall(r'"([^"]*)"|(\S+)', line)]
        told = command_line(*words[1:])
        assert words[0] == "semimedref" and told.status == 0, told.errors
    assert Path("haze_mask.png").is_file() and Path("haze_overlay.png").is_file()
    code = "".join(re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL))
    exec(code.replace("steps=40", "steps=1"), {})
    retina, clock = re.findall(r"```csv\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    Path("retina.csv").write_text(retina)
    assert layout_named("retina.csv").names == ("nasal", "temporal")
    Path("clock.csv").write_text(clock)
    layout = layout_named("clock.csv")
    for hour, mirrored in enumerate((11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 12), 1):
        report = FreeReport.of(f"Mass at {hour} o'clock, 3 cm from the nipple", layout)
        assert report.mirrors and report.flip().render() == f"Mass at {mirrored} o'clock, 3 cm from the nipple"
        assert sum(report.zones) == 1 + (hour in (6, 12)) and (hour in range(6, 13)) == any(report.zones[3:])


def test_what_free_text_costs_is_what_the_kept_runs_say():
    runs = pd.read_csv(notebooks_folder() / "results" / "free_text.csv").groupby("method")[["dice_image", "dice_micro"]]
    page = DOCS.read_text(encoding="utf-8")
    for method, title in (("supervised", "supervised"), ("semi_medref", "Semi-MedRef")):
        mean, spread = (100 * frame.loc[method] for frame in (runs.mean(), runs.std()))
        told = " / ".join(f"{mean[name]:.1f} ± {spread[name]:.1f}" for name in mean.index)
        assert re.search(rf"\| {title} \| .* \| {re.escape(told)} \|", page), told


def test_the_same_folder_gives_the_same_run(tmp_path, mine):
    digests = [load_training("folder", 0.5, 32, str(mine)).digest() for _ in range(2)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(STRICT)))
def test_every_method_takes_a_step_on_pictures_in_colours(tmp_path, method):
    pairs = load_training("folder", 0.5, 32, str(own_folders.skin(tmp_path / "mine")), positions="quadrants")
    config = Config(**{**SMALL, "method": method, "positions": "quadrants", "burn_in": 0.0, "ramp": 0.0})
    prepared = prepare(config, "cpu", pairs)
    prepared.state.step = 2
    losses = training_step(prepared.state, prepared.batches(2), config, prepared.accelerator)
    assert losses["loss"].isfinite() and prepared.batches(2).labelled.images.shape == (2, 3, 32, 32)


def test_masks_of_tiny_lesions_are_trained_on_and_the_grid_is_told(train, mine, tmp_path):
    """At 32 px they are two rows high, too few for the three bands of a zone grid."""
    for k, path in enumerate(mine.glob("images/*_mask.png")):
        mask = np.zeros((64, 64), np.uint8)
        mask[44:48, 4 : 10 + 2 * k] = 255
        Image.fromarray(mask).save(path)
    change(mine, range(12), text="Haze in the left lower zone")
    about = {"dataset": "folder", "data": mine, "label_ratio": 0.5}
    told = train(output=tmp_path / "run", **about)
    assert told.status == 0, told.errors
    assert "note: the labelled masks show too little to estimate where the bands of the zones lie" in told.text
    assert json.loads((tmp_path / "run/results.json").read_text())["grid"] == list(THIRDS.cuts)
    assert "bands" not in train(output=tmp_path / "asked", grid="thirds", method="supervised", **about).text


def test_a_band_that_no_labelled_text_names_is_a_third_and_is_told(train, mine, tmp_path):
    keep = [k for k in range(12) if k // 2 % 3 < 2]  # upper and middle
    table_of(mine).iloc[keep].assign(split=["train"] * 6 + ["valid"] * 2).to_csv(mine / "metadata.csv", index=False)
    told = train(dataset="folder", data=mine, output=tmp_path / "run", label_ratio=1.0, method="supervised")
    assert told.status == 0, told.errors
    assert "note: no labelled pair tells where lower lies, so its edges are those of thirds" in told.text
    grid = json.loads((tmp_path / "run/results.json").read_text())["grid"]
    assert grid[2:] == list(THIRDS.cuts[2:]) and 0.2 < grid[1] < 0.5


# The table


@pytest.mark.parametrize("index", ["file_name", "patient", None])
def test_a_table_of_parquet_may_have_any_index(mine, index):
    """Also an index of names, as pandas writes it beside the columns."""
    table = table_of(mine).assign(patient=[f"p{k}" for k in range(12)])
    table = table.set_index(index) if index else table.set_axis(list("abcdefghijkl"))
    table.to_parquet(mine / "metadata.parquet")
    (mine / "metadata.csv").unlink()
    own = OwnData.find(mine)
    assert own.problems == () and own.table.unread == ["patient"]
    assert [row.number for row in own.table.rows] == list(range(2, 14))
    assert own.table.rows[3].image == "images/003.png"


@pytest.mark.parametrize("letter", ["\u2028", "\u2029", "\x85"])
def test_a_text_may_hold_any_letter_that_json_allows(mine, letter):
    """JSON may write a line separator as it is, and programs that write readable JSON do so. Only \\n ends a line."""
    own_folders.as_jsonl(mine)
    path = mine / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    rows[0]["text"] = f"Patchy opacity{letter}in the left upper zone."
    path.write_bytes("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    own = OwnData.find(mine)
    assert own.problems == () and sum(map(len, own.splits.values())) == 12
    told = {entry.image.name: entry.text for split in own.splits.values() for entry in split}
    assert told["000.png"] == rows[0]["text"]


@pytest.mark.parametrize("write", [own_folders.as_jsonl, own_folders.as_parquet, own_folders.as_xlsx])
def test_the_table_may_be_jsonl_parquet_or_a_spreadsheet(mine, write):
    before = load_split("folder", "train", 32, str(mine))
    write(mine)
    assert load_split("folder", "train", 32, str(mine)).digest() == before.digest()


@pytest.mark.parametrize("separator, encoding", [(";", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-16"), ("\t", "utf-8")])
@pytest.mark.parametrize("name", ["metadata.csv", "Metadata.CSV"])
def test_a_csv_is_read_as_spreadsheet_programs_of_many_countries_write_it(mine, separator, encoding, name):
    change(mine, 0, text="Übergang, left upper zone, no effusion", file_name="images/000.png")
    before = load_training("folder", 0.5, 32, str(mine))
    table = table_of(mine)
    (mine / "metadata.csv").unlink()
    table.to_csv(mine / name, index=False, sep=separator, encoding=encoding)
    assert load_training("folder", 0.5, 32, str(mine)).digest() == before.digest()


def test_a_semicolon_table_with_a_semicolon_in_a_text_says_what_to_quote(mine):
    table = table_of(mine).replace(" zone", "; zone", regex=True)
    (mine / "metadata.csv").write_text("\n".join(";".join(row) for row in [table.columns, *table.to_numpy()]))
    with pytest.raises(DataError, match="row 2 has 4 cells and the header 3; put texts with semicolons in quotes"):
        OwnData.find(mine)


def test_a_table_in_another_encoding_or_of_another_program_gets_its_cure(mine, semimedref):
    change(mine, 1, text="Kein Übergang")
    table = table_of(mine)
    table.to_csv(mine / "metadata.csv", index=False, encoding="latin-1")
    told = semimedref("doctor", data=mine)
    assert told.status == 1 and "metadata.csv: line 3 is not in UTF-8; save the file in the encoding UTF-8" in told.text
    assert "Decode" not in told.text and "bergang" not in told.text
    (mine / "metadata.csv").rename(mine / "metadata.tsv")
    told = semimedref("doctor", data=mine)
    assert told.status == 1 and "metadata.tsv is of another kind, save it as .xlsx or .csv" in told.text


def test_a_row_that_lost_its_last_cells_is_refused_by_its_place(mine):
    """Else its mask is lost, and the pair counts as unlabelled. Some programs leave out empty cells at the end."""
    lines = table_of(mine)[["file_name", "text", "mask_file_name"]].to_csv(index=False).splitlines()
    for row in (4, 8):
        lines[row] = lines[row].rpartition(",")[0]
    (mine / "metadata.csv").write_text("\n".join([*lines, "", ",,"]))
    with pytest.raises(DataError, match=r"2 row\(s\) have fewer cells than the header, the first is row 5 with 2 of 3"):
        OwnData.find(mine)


def test_a_line_with_two_texts_is_refused(mine):
    own_folders.as_jsonl(mine)
    path = mine / "metadata.jsonl"
    path.write_text(path.read_text().replace('"text":', '"text": "Haze in the left lower zone.", "text":', 1))
    with pytest.raises(DataError, match="line 1: has 'text' 2 times in one entry; keep one"):
        OwnData.find(mine)


def test_a_patient_written_in_two_ways_is_remarked_by_doctor_and_training(semimedref, train, tmp_path):
    """Else pictures of one patient may be in both splits without a word."""
    splits = ["train"] * 8 + ["valid"] * 4
    groups = [f"Patient {k % 8:02}" for k in range(8)] + ["patient 00", "Patient  01", "Patient 20", "Patient 21"]
    folder = own_folders.chest(tmp_path / "mine", split=splits, group=groups)
    alike = "2 group(s) are written in several ways, which count as different groups, so pairs of one may be in two"
    told = semimedref("doctor", data=folder)
    assert f"WARNING {alike}" in told.text and "'Patient 00' and 'patient 00'" in told.text
    outcome = train(dataset="folder", data=folder, output=tmp_path / "run", label_ratio=0.5, steps=1)
    assert f"note: {alike}" in outcome.text
    assert (
        "written in several ways"
        not in examine_own(own_folders.chest(tmp_path / "plain", group=groups[:4] * 3)).render()
    )


def test_cells_that_a_program_wrote_are_remarked(mine):
    """A formula that failed, and missing values that became words."""
    for row, text in ((0, "#NAME?"), (2, "nan"), (5, "None")):
        change(mine, row, text=text)
    assert (
        "WARNING lines 2, 4, 7: #NAME?, nan, None, which a program writes for a missing value"
        in examine_own(mine).render()
    )


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


def test_names_that_windows_wrote_are_read(mine):
    before = load_training("folder", 0.5, 32, str(mine))
    table = table_of(mine)
    table[["file_name", "mask_file_name"]] = table[["file_name", "mask_file_name"]].replace("/", r"\\", regex=True)
    table.to_csv(mine / "metadata.csv", index=False)
    assert "images\\000.png" in (mine / "metadata.csv").read_text()
    assert load_training("folder", 0.5, 32, str(mine)).digest() == before.digest()


def test_a_name_in_another_letter_case_is_asked_about(mine, semimedref):
    (mine / "images/000.png").rename(mine / "images/000.PNG")
    told = semimedref("doctor", data=mine)
    assert told.status == 1 and "000.png: listed but missing (did you mean 000.PNG? Letter case" in told.text


def test_names_are_texts(tmp_path):
    folder = own_folders.chest(tmp_path / "mine", group=["0001", "1e5", "NA"] * 4)
    rows = OwnData.find(folder).table.rows
    assert {row.group for row in rows} == {"0001", "1e5", "NA"}


def test_faults_of_the_table_are_told_all_at_once(mine, semimedref):
    change(mine, 0, text="")
    change(mine, 1, file_name="../outside.png")
    change(mine, 2, file_name="images/003.png")
    change(mine, 4, split="learn")
    change(mine, 5, zones="left toe")
    told = semimedref("doctor", data=mine)
    assert told.status == 1
    for fault in (
        "line 2: no text",
        "line 3: file_name '../outside.png' must be",
        "images/003.png: listed 2 times",
        "line 6: split 'learn' is none of train",
        "line 7: 'left toe' is no zone; choose of left upper",
    ):
        assert fault in told.text, fault
    with pytest.raises(DataError, match=r"6 problem\(s\) .*\n.*\n.*line 3"):
        load_training("folder", 0.5, 32, str(mine))


def test_a_column_that_is_nearly_right_is_asked_about(mine):
    table_of(mine).rename(columns={"mask_file_name": "mask_filename"}).to_csv(mine / "metadata.csv", index=False)
    with pytest.raises(DataError, match=r"column mask_filename \(did you mean mask_file_name"):
        OwnData.find(mine)


def test_a_folder_without_a_table_is_told_what_it_takes(tmp_path):
    with pytest.raises(DataError, match="holds none of metadata.csv, .*metadata.parquet; .* file_name, text"):
        OwnData.find(tmp_path)


# Splits and labels


def test_without_splits_a_fifth_is_drawn_and_no_group_crosses(tmp_path):
    folder = own_folders.chest(tmp_path / "mine", 40, 32, group=[f"patient{k // 3}" for k in range(40)])
    own = OwnData.find(folder)
    groups = {split: {own.groups[entry.name] for entry in entries} for split, entries in own.splits.items()}
    assert not groups["train"] & groups["valid"]
    assert 8 <= len(own.splits["valid"]) <= 10 and len(own.splits["train"]) + len(own.splits["valid"]) == 40
    assert "no splits: " in own.notes[0] and "by group" in own.notes[0]
    change(folder, 0, text="another text")
    assert [entry.name for entry in OwnData.find(folder).splits["valid"]] == [e.name for e in own.splits["valid"]]


def test_pairs_without_masks_of_a_validation_group_are_left_out_and_told(tmp_path):
    """Each patient has one picture with a mask and one without."""
    folder = own_folders.chest(tmp_path / "mine", 20, 32, group=[f"patient{k // 2}" for k in range(20)])
    table = table_of(folder)
    table.loc[table.index % 2 == 1, "mask_file_name"] = ""
    table.to_csv(folder / "metadata.csv", index=False)
    own = OwnData.find(folder)
    assert not own.problems and len(own.splits["valid"]) == 2 and len(own.splits["train"]) == 16
    assert "2 pair(s) without masks are left out" in own.notes[1]


def test_a_validation_pair_needs_a_mask(mine):
    change(mine, range(12), split="train")
    change(mine, 3, split="valid", mask_file_name="")
    assert OwnData.find(mine).problems == ("images/003.png: no mask, and a valid pair needs one",)


def test_labelled_pairs_are_drawn_from_those_with_masks(tmp_path):
    folder = own_folders.chest(tmp_path / "mine", 24, 32, masks=10)
    for ratio in (0.1, 0.25):
        pairs = load_training("folder", ratio, 32, str(folder))
        assert len(pairs.labelled) == round(ratio * 22) and len(pairs.valid) == 2
        assert len(pairs.labelled) + len(pairs.unlabelled) == 22 and pairs.unlabelled.masks is None
    with pytest.raises(DataError, match=r"label ratio 1 of 22 .* are 22 with masks, and 8 .*label ratio of 0.3636"):
        load_training("folder", 1.0, 32, str(folder))
    assert len(load_training("folder", 0.3636, 32, str(folder)).labelled) == 8


def test_a_split_with_unlabelled_pairs_cannot_be_scored_and_the_error_says_what_can(train, semimedref, tmp_path):
    """An empty cell of mask_file_name is no missing file."""
    folder = own_folders.chest(tmp_path / "mine", 24, masks=10)
    with pytest.raises(DataError) as error:
        load_split("folder", "train", 32, str(folder))
    assert "14 of 22 pairs of folder train have no mask, the first is images/010.png" in str(error.value)
    assert "load_training loads them as unlabelled pairs" in str(error.value) and "missing" not in str(error.value)
    assert train(dataset="folder", data=folder, output=tmp_path / "run", label_ratio=0.3, steps=1).status == 0
    scored = {"checkpoint": tmp_path / "run", "data": folder}
    told = semimedref("evaluate", split="train", **scored)
    assert told.status == 1 and "have no mask" in told.errors and "the split valid has masks" in told.errors
    assert semimedref("evaluate", split="valid", **scored).status == 0


# Pictures


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


# Texts


def test_training_says_what_it_does_without(train, tmp_path):
    folder = own_folders.chest(tmp_path / "mine")
    change(folder, range(12), split=["train"] * 10 + ["valid"] * 2)
    change(folder, 0, text="an opacity")
    change(folder, 2, text="leftward shift, right upper zone")  # the reader does not know the word: no zone, no mirror
    told = train(dataset="folder", data=folder, output=tmp_path / "run", label_ratio=0.5, steps=1)
    assert told.status == 0, told.errors
    assert "note: 5 of the 10 masks of training pairs are used; --label-ratio 1 uses all" in told.text
    assert "note: 2 of 10 training texts name no zone, so with them no patch is mixed" in told.text
    assert "note: 1 of 10 training pairs are never mirrored" in told.text


def test_without_positions_every_text_names_none_and_training_goes_on(train, mine, tmp_path):
    told = train(dataset="folder", data=mine, output=tmp_path / "run", label_ratio=0.5, positions="none")
    assert told.status == 0 and "name no zone" in told.text
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {line.get("accepted", 0.0) for line in log} == {0.0}


def test_a_pair_whose_text_has_no_mirror_image_is_never_mirrored(tmp_path):
    folder = own_folders.chest(tmp_path / "mine")
    change(folder, range(12), text="leftward haze, right upper zone")
    pairs = load_training("folder", 0.5, 32, str(folder))
    prepared = prepare(Config(**SMALL), "cpu", pairs)
    for step in range(4):
        batch = prepared.batches(step).unlabelled
        assert not batch.mirrors.any() and (torch.linalg.det(batch.affine[:, :, :2]) > 0).all()
        assert torch.equal(batch.input_ids, batch.mirrored_ids)


def test_the_mirrored_teacher_looks_at_such_a_pair_as_it_lies():
    """A teacher that says how bright each column is."""

    class Bright(torch.nn.Module):
        def forward(self, images, ids):
            seen.append(images)
            return type("Seen", (), {"logits": images})

    seen, weak = [], torch.randn(2, 1, 4, 4)
    fields = dict.fromkeys(Unlabelled.__dataclass_fields__)
    unlabelled = Unlabelled(**{**fields, "mirrors": torch.tensor([True, False])})
    p = reported_places.label(Bright(), weak, unlabelled, Config(pseudo_labels="teacher", teacher_view="mirrored"))
    assert torch.equal(seen[0][0], weak[0].flip(2)) and torch.equal(seen[0][1], weak[1])
    torch.testing.assert_close(p, weak.sigmoid())


def test_a_text_that_is_too_long_tells_the_length_that_would_do(train, mine, tmp_path):
    change(mine, 5, text="Haze in the left lower zone, " + "and more of the same " * 20)
    outcome = train(dataset="folder", data=mine, output=tmp_path / "run", label_ratio=0.5)
    assert outcome.status == 1 and "of images/005.png, needs" in outcome.errors
    length = int(re.search(r"set --text-length (\d+)", outcome.errors)[1])
    assert length > 64, "more than the small BERT has by itself"
    told = train(dataset="folder", data=mine, output=tmp_path / "run", label_ratio=0.5, text_length=length)
    assert told.status == 0, told.errors
    assert load_texts(tmp_path / "run" / "teacher").length == length


def test_a_sentence_too_long_for_a_trained_network_is_to_be_shortened(train, command_line, mine, tmp_path):
    """Commands that use a network have no setting for its length, so no error may ask for one."""
    run, told = tmp_path / "run", "Haze in the left lower zone, " + "and more of the same " * 20
    assert train(dataset="folder", data=mine, output=run, label_ratio=0.5).status == 0
    cure = r"has \d+ tokens, but this network reads at most 24; shorten it, or train a network with text_length \d+"
    asked = ["--image", mine / "images/000.png", "--report", told, "--output", tmp_path / "found"]
    outcome = command_line("predict", "--checkpoint", run, *asked)
    assert outcome.status == 1 and re.search(cure, outcome.errors), outcome.errors
    demo = Demo(SemiMedRef.from_pretrained(run), {})
    with pytest.raises(ConfigError, match=cure):
        demo.answer(mine / "images/000.png", told)
    (row,) = np.flatnonzero(table_of(mine)["file_name"] == load_split("folder", "valid", 32, str(mine)).names[0])
    change(mine, row, text=told)
    scored = command_line("evaluate", "--checkpoint", run, "--data", mine)
    assert scored.status == 1 and re.search(cure, scored.errors), scored.errors


def test_a_network_trained_at_the_smallest_size_can_be_used(train, semimedref, mine, tmp_path):
    run, smallest = tmp_path / "run", {"dataset": "folder", "data": mine, "label_ratio": 0.5, "image_size": 16}
    told = train(output=run, method="supervised", **smallest)
    assert told.status == 0, told.errors
    found = SemiMedRef.from_pretrained(run).predict(mine / "images/000.png", "Haze")
    assert found.probability.shape == (64, 64)
    assert semimedref("evaluate", checkpoint=run, data=mine).status == 0


def test_the_length_that_is_told_holds_whatever_training_makes_of_a_text():
    """Mirrored, with a pasted lesion's sentence, and with the vague phrase, which may be longer, on any side."""
    told = ("Infiltrate, upper zone of the right lung. Left lung hazy. Heart normal", "Haze: RLL, left base.", "Haze")
    reports = [FreeReport.of(text, LUNGS) for text in told]
    texts = build_texts(words_of=told_in_training(reports))
    for report, needed in zip(reports, tokens_needed(texts, reports), strict=True):
        hits = product(*2 * [(None, LUNGS.vague, texts.tokenizer.mask_token)])
        hidden = [{side: hit for side, hit in zip(SIDES, both, strict=True) if hit} for both in hits]
        mixed = [mixed for turned in (report, report.flip()) for mixed in mixed_reports(turned)]
        made = [apply_hits(each, hit) for each in mixed for hit in hidden]
        assert 0 <= needed - max(len(ids) for ids in texts.tokenizer(made)["input_ids"]) <= 1


def test_a_network_of_the_pieces_reads_whatever_mixing_and_posaug_make_of_free_texts(mine):
    """With the public names alone: the vocabulary has their words, and the network has the vocabulary's size."""
    reports = load_split("folder", "train", 32, str(mine)).reports
    texts = semimedref_core.build_texts(length=70, words_of=semimedref_core.told_in_training(reports))
    network = semimedref_core.build_network("compact", texts, channels=3)
    vague, hidden = PosAug(1, "fuzz"), PosAug(1, "mask")
    mixed = [mixed for report in reports for mixed in mixed_reports(report)]
    told = [augmented(each, np.random.default_rng(0)) for each in mixed for augmented in (vague, hidden)]
    assert network(torch.zeros(len(told), 3, 32, 32), texts(told)).logits.isfinite().all()
    assert not any(piece.startswith("##") for piece in texts.tokenizer.tokenize(f"Also upper left lung. {LUNGS.vague}"))
    assert network.arguments == {"vocabulary": len(texts.tokenizer), "text_positions": 70, "channels": 3}


def test_a_vocabulary_reads_any_sentence_and_does_not_depend_on_the_order_of_texts():
    texts = [f"patchy opacity in the {side} lower lobe, {k} of them" for side in ("left", "right") for k in range(9)]
    tokenizer = free_tokenizer(texts)
    assert tokenizer.get_vocab() == free_tokenizer(texts[::-1]).get_vocab()
    assert tokenizer.tokenize("Patchy left lobe") == ["patchy", "left", "lobe"]
    assert tokenizer.unk_token not in tokenizer.tokenize("a quiz on vexing jumbled proficiency: 98 %")
    assert tokenizer.tokenize("[MASK]") == ["[MASK]"] and tokenizer.pad_token_id == 0


@pytest.mark.parametrize("options, told", [
    ({"positions": "lungs"}, r"positions must be one of lung, .*\(did you mean lung\?\)"),
    ({"method": "semi_medref_release"}, "method 'semi_medref_release' needs reports in the grammar"),
    ({"method": "unimatch_text"}, "choose semi_medref or unimatch"),
    ({"report_text": "no_count"}, "report_text 'no_count'"),
    ({"ispg": "on"}, "ispg 'on'"),
    ({"axes": "transposed"}, "axes 'transposed'"),
])  # fmt: skip
def test_settings_of_the_strict_grammar_are_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        Config(dataset="folder", **options)


def test_a_table_of_positions_is_read_and_its_faults_are_told_at_once(tmp_path):
    path = tmp_path / "retina.csv"
    path.write_text("words,left,top,right,bottom\nnasal; nasally,0,0,0.5,1\ntemporal,0.5,0,1,1\n")
    layout = layout_named(str(path))
    assert layout.mirror == (1, 0) and FreeReport.of("Bleeding nasally", layout).zones == (1, 0)
    with pytest.raises(DataError, match="leave text_sides at image"):
        layout_named(str(path), "patient")
    path.write_text("words,left,top,right,bottom\nnasal,0.5,0,0.5,1\n,0,0,1,x\nnasal,0,0,1,1\n")
    with pytest.raises(DataError, match="3 problem.*\n.*row 2.*\n.*row 3.*\n.*row 4: begins with the same words"):
        layout_named(str(path))
    path.write_text("words,left,top,right\nnasal,0,0,1\n")
    with pytest.raises(DataError, match="columns of a table of positions are words, left, top, right, bottom"):
        layout_named(str(path))
    path.write_text("words,left,top,right,bottom\n" + "".join(f"w{k},0,0,1,0.{k + 1}\n" for k in range(7)))
    with pytest.raises(DataError, match="lists 7 zones; .* 1 to 6, as ITCL's kernels tell 64 sets of zones apart"):
        layout_named(str(path))


def test_a_table_of_positions_may_be_written_as_many_countries_do(tmp_path):
    """With semicolons and decimal commas, or in a spreadsheet; and an error says its own reason."""
    path, sheet = tmp_path / "retina.csv", tmp_path / "retina.xlsx"
    path.write_text('words;left;top;right;bottom\n"nasal; nasally";0;0;0,5;1\ntemporal;0,5;0;1;1\n')
    rows = [("nasal; nasally", 0, 0, 0.5, 1), ("temporal", 0.5, 0, 1, 1)]
    pd.DataFrame(rows, columns=["words", "left", "top", "right", "bottom"]).to_excel(sheet, index=False)
    for table in (path, sheet):
        layout = layout_named(str(table))
        assert layout.words == (("nasal", "nasally"), ("temporal",))
        assert layout.shares == ((0, 0, 1, 0.5), (0, 0.5, 1, 1))
    path.write_text("words;left;top;right;bottom\nnasal; nasally;0;0;0,5;1\n")
    with pytest.raises(DataError, match="row 2 has 6 cells and the header 5; put texts with semicolons in quotes"):
        layout_named(str(path))


def test_zones_of_the_table_are_taken_and_contradictions_told(mine):
    change(mine, 0, zones="right lower; left middle")
    change(mine, 1, zones="[0, 0, 0, 1, 0, 0]")
    reports = {entry.name: entry.free for entries in OwnData.find(mine).splits.values() for entry in entries}
    assert reports["images/000.png"].zones == (0, 1, 0, 0, 0, 1) and reports["images/001.png"].zones == (
        0,
        0,
        0,
        1,
        0,
        0,
    )
    differ = "images/000.png: zones left middle, right lower, but its text names left upper"
    assert differ in examine_own(mine).render()
    with pytest.warns(UserWarning, match=rf"the listed ones are taken(.|\n)*{differ}"):
        load_split("folder", "train", 32, str(mine))


def test_a_network_keeps_the_table_of_positions_that_it_was_trained_with(
    train, semimedref, mine, tmp_path, monkeypatch
):
    """The table may be named by a relative path, move, or stay on another machine."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("pos.csv").write_text("words,left,top,right,bottom\nleft; l,0,0,0.5,1\nright,0.5,0,1,1\n")
    run, told = tmp_path / "run", {"dataset": "folder", "data": mine, "label_ratio": 0.5, "positions": "pos.csv"}
    outcome = train(output=run, method="supervised", **told)
    assert outcome.status == 0, outcome.errors
    layout = layout_named("pos.csv")
    Path("pos.csv").unlink()
    monkeypatch.chdir("elsewhere")
    path = run / "teacher" / "config.json"
    about = json.loads(path.read_text())
    kept = layout_of(about)
    assert (kept.names, kept.shares, kept.words) == (layout.names, layout.shares, layout.words)
    scored = semimedref("evaluate", checkpoint=run, data=mine, reports="removed")
    assert scored.status == 0, scored.errors
    demo = Demo(SemiMedRef.from_pretrained(run), {})
    assert (demo.layout.names, demo.note) == (("left", "right"), "")

    def refused(**entries):
        path.write_text(json.dumps({**about, **entries}))
        outcome = semimedref("evaluate", checkpoint=run, data=mine)
        assert outcome.status == 1
        return outcome.errors

    damaged = [7, {"words": [["a"]]}, {"words": 3, "boxes": 3}, {"words": [["a"]], "boxes": []},
               {"words": [["a"]], "boxes": [[0, 0, 0, 1]]}, {"words": [["a"]] * 7, "boxes": [[0, 0, 1, 1]] * 7},
               {"words": [["a"]], "boxes": [[0, 0, 1, None]]}]  # fmt: skip
    for table in damaged:
        assert "layout in the network's config.json: " in refused(layout=table), table
    assert "gone/pos.csv: no such table of positions" in refused(layout=None, positions="gone/pos.csv"), "an older one"


# The doctor


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
