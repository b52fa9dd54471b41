"""Your own pictures, masks and sentences: from a folder to a predicted mask."""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import own_folders
import pandas as pd
import pytest
import torch
from own_folders import change, table_of
from PIL import Image

import semimedref_core
from semimedref_core.anatomy import THIRDS
from semimedref_core.batch import Unlabelled
from semimedref_core.config import STRICT, Config, ConfigError
from semimedref_core.data.datasets import load_split, load_training
from semimedref_core.data.own.folder import OwnData
from semimedref_core.data.own.zones import layout_named
from semimedref_core.data.pairs import DataError
from semimedref_core.demo.answer import Demo
from semimedref_core.experiments.shipped import notebooks_folder
from semimedref_core.free_reports import FreeReport
from semimedref_core.inference import SemiMedRef
from semimedref_core.methods import METHODS, reported_places
from semimedref_core.networks import build_texts
from semimedref_core.networks.vocabulary import free_tokenizer, tokens_needed, told_in_training
from semimedref_core.patchmix import mixed_reports
from semimedref_core.posaug import PosAug, apply_hits
from semimedref_core.positions import LUNGS, SIDES
from semimedref_core.preparing import prepare
from semimedref_core.runtime.checkpoints import from_pretrained, load_texts
from semimedref_core.step import training_step

DOCS = Path(__file__).parent.parent / "docs" / "own_data.md"
SMALL = {"dataset": "folder", "image_size": 32, "steps": 4, "batch_size": 2, "burn_in": 0.25, "label_ratio": 0.5}


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


@pytest.mark.parametrize("sizes, valid", [
    ((19, 1), 1), ((1, 19), 1), ((11, 9), 9), ((20,), 0), ((16, 2, 2), 4), ((1, 1), 1),
], ids=str)  # fmt: skip
def test_a_large_group_does_not_become_the_validation_split(tmp_path, sizes, valid):
    """Whatever the names of the groups, which decide on their order."""
    folder = own_folders.chest(tmp_path / "mine", sum(sizes), 32)
    for names in ("abc", "xyz", "321"):
        change(folder, range(sum(sizes)), group=list(np.repeat(list(names[: len(sizes)]), sizes)))
        drawn = {split: len(entries) for split, entries in OwnData.find(folder).splits.items()}
        assert drawn.get("valid", 0) == valid and sum(drawn.values()) == sum(sizes)


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
    assert scored.status == 1 and re.search(f"the text of images/{row:03}.png {cure}", scored.errors), scored.errors
    assert not any("and more of the same" in each for each in (scored.errors, outcome.errors)), "a patient's data"


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
