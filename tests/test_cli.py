"""The command line: help, options, a run from training to a prediction, the doctor, and early stopping."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from semimedref_core.config import FIELDS, Config, choices_of
from semimedref_core.data.phantom import phantom
from semimedref_core.evaluation import evaluate, scores
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.runtime.checkpoints import from_pretrained, load_texts
from semimedref_core.runtime.run_state import RunState
from semimedref_core.teacher import Teacher

OPTIONS = {
    "tutorial": ["steps", "seed", "output"],
    "train": ["preset", *FIELDS, "device", "output", "resume", "variant", "track"],
    "evaluate": [
        "checkpoint",
        "dataset",
        "data",
        "texts",
        "mask_values",
        "split",
        "reports",
        "removal-rate",
        "csv",
        "device",
    ],
    "predict": ["checkpoint", "image", "report", "output", "device"],
    "demo": ["checkpoint", "port", "no-browser", "device"],
    "doctor": ["data", "mask_values", "positions", "text_sides", "text_length"],
    "cache": ["clear"],
    "sweep": ["jobs", "output", "engine", "store", "track", "dry-run"],
}


@pytest.mark.parametrize("command", OPTIONS)
def test_the_help_of_a_command_lists_its_options(command_line, command):
    status, text, _ = command_line(command, "--help")
    assert status == 0
    listed = set(re.findall(r"^  (?:-h, )?--([\w-]+)", text, re.MULTILINE))
    assert listed == {"help", *(name.replace("_", "-") for name in OPTIONS[command])}


def test_the_help_of_the_program_lists_its_commands(command_line):
    status, text, _ = command_line("--help")
    assert status == 0
    assert all(re.search(rf"^ +{command} +\w", text, re.MULTILINE) for command in OPTIONS)


def test_the_help_of_train_tells_meaning_choices_and_default_of_every_setting(command_line):
    text = " ".join(command_line("train", "--help").text.split())
    for field in FIELDS.values():
        assert " ".join(field.metadata["meaning"].split()) in text, field.name
        assert not choices_of(field) or f"{{{','.join(choices_of(field))}}}" in text.replace(" ", ""), field.name
        assert field.default == "" or f"(default {field.default})" in text, field.name


def test_the_help_of_train_shows_what_matters_first(command_line):
    text = command_line("train", "--help").text
    options = re.findall(r"^  --([\w-]+)", text, re.MULTILINE)
    assert options.index("method") < options.index("steps") < options.index("weight-decay") < options.index("compile")
    assert re.findall(r"^([a-zA-Z- ]+):$", text, re.MULTILINE)[1:3] == ["what to run", "data"]


@pytest.mark.parametrize("arguments, message", [
    (["fly"], "invalid choice: 'fly'"),
    (["train", "--learning-rate", "1"], "unrecognized arguments: --learning-rate"),
    (["train", "--steps", "many"], "invalid int value: 'many'"),
    (["evaluate"], "required: --checkpoint"),
])  # fmt: skip
def test_a_mistyped_command_is_a_usage_error(command_line, arguments, message):
    status, _, errors = command_line(*arguments)
    assert status == 2 and message in errors


def test_every_setting_arrives_in_the_run(train, tmp_path):
    """Written to the run's config.json: what was given, and the default of what was not."""
    given = {"seed": 3, "image_size": 32, "steps": 1, "batch_size": 2, "label_ratio": 0.5, "gate": 0.1, "grid": "qata"}
    given |= {"method": "supervised", "dataset": "phantom-ct", "eval_every": 0, "burn_in": 0.5}
    assert train(output=tmp_path, **given).status == 0
    assert json.loads((tmp_path / "config.json").read_text()) == Config(**given).to_dict()


def test_a_run_is_put_where_its_settings_say(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = train(method="supervised", steps=1, seed=2)
    assert outcome.status == 0 and "Written to runs/phantom-0.25-supervised-32px-1steps-seed2/" in outcome.text
    assert (tmp_path / "runs/phantom-0.25-supervised-32px-1steps-seed2/results.json").is_file()


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_evaluate_prints_what_train_did(train, semimedref, finished_run, tmp_path, network):
    trained = train(output=finished_run, resume=True)  # nothing left to do; prints again
    (line,) = [line for line in trained.text.splitlines() if line.startswith(network)]
    evaluated = semimedref("evaluate", checkpoint=finished_run / network)
    assert evaluated.status == 0
    assert evaluated.text == f"{line.removeprefix(network).strip()} on 6 pairs of phantom valid\n"
    dice = json.loads((finished_run / "results.json").read_text())[network]["dice_image"]
    assert 0 < dice < 1 and f"dice_image {100 * dice:.1f} %" in line


def test_a_run_keeps_what_its_scores_were_counted_from_image_by_image(finished_run):
    results, counts = json.loads((finished_run / "results.json").read_text()), np.load(finished_run / "valid.npz")
    assert set(counts) == {"student", "teacher"} and counts["student"].shape == (6, 3)
    for network in counts:
        assert scores(counts[network]) == pytest.approx(results[network])


def test_evaluate_takes_another_split_and_the_data_set_that_the_network_was_trained_on(
    semimedref, finished_run, of_qata, qata_folder
):
    test = semimedref("evaluate", checkpoint=finished_run / "teacher", split="test")
    assert test.status == 0 and "on 6 pairs of phantom test" in test.text
    real = semimedref("evaluate", checkpoint=of_qata, data=qata_folder())
    assert real.status == 0 and "on 2 pairs of qata valid" in real.text


def test_a_method_that_learns_from_unlabelled_pairs_is_refused_where_none_is_left(train, tmp_path):
    outcome = train(output=tmp_path, label_ratio=1)
    assert outcome.status == 1 and "leaves no unlabelled pair, and semi_medref learns from them" in outcome.errors
    assert not list(tmp_path.iterdir())


def test_training_runs_on_a_folder_of_real_data(train, qata_folder, tmp_path):
    outcome = train(output=tmp_path / "run", dataset="qata", data=qata_folder(), label_ratio=0.5)
    assert outcome.status == 0
    assert "qata, valid split, 4 labelled pairs, seed 0" in outcome.text


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A phantom X-ray as a picture of 80 x 48 pixels, and its report."""
    pair = phantom("valid", 1, size=64)
    path = tmp_path_factory.mktemp("picture") / "chest.png"
    Image.fromarray(pair.images[0]).resize((80, 48)).save(path)
    return path, pair.reports[0].render()


def test_predict_writes_a_mask_of_the_images_size_and_an_overlay(semimedref, finished_run, picture, tmp_path):
    image, report = picture
    stem = tmp_path / "new" / "case"
    outcome = semimedref("predict", checkpoint=finished_run / "teacher", image=image, report=report, output=stem)
    assert (outcome.status, outcome.errors) == (0, "")
    assert sorted(path.name for path in stem.parent.iterdir()) == ["case_mask.png", "case_overlay.png"]
    mask = Image.open(tmp_path / "new/case_mask.png")
    assert (mask.mode, mask.size) == ("L", (80, 48))
    values = np.asarray(mask)
    assert set(np.unique(values)) <= {0, 255}
    assert f"lesion on {100 * (values == 255).mean():.1f} % of the image" in outcome.text
    overlay = Image.open(tmp_path / "new/case_overlay.png")
    assert overlay.format == "PNG" and overlay.width > 80


def test_predict_names_its_files_after_the_image(semimedref, finished_run, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image, report = picture
    assert semimedref("predict", checkpoint=finished_run / "student", image=image, report=report).status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chest_mask.png", "chest_overlay.png"]


def test_the_doctor_passes_a_healthy_folder(semimedref, qata_folder, monkeypatch):
    """Given as an option, or by the environment."""
    root = qata_folder()
    given = semimedref("doctor", data=root)
    assert given.status == 0 and given.text.endswith("no problems\n")
    monkeypatch.setenv("SEMIMEDREF_DATA", str(root))
    assert semimedref("doctor") == given


def test_the_doctor_names_the_files_of_a_broken_folder(semimedref, faulty_qata):
    root, faults = faulty_qata
    outcome = semimedref("doctor", data=root)
    assert outcome.status == 1
    assert [fault for fault, name in faults.items() if name not in outcome.text] == []


def test_early_stopping_keeps_the_best_weights(train, tmp_path, monkeypatch):
    """The teacher is said to be best at step 2: with patience 1 the run ends at step 4, with the weights of step 2.

    Every other of the six validation pairs chooses; the others are reported.
    """
    judge, update, at_step = RunState.judge, Teacher.update, []

    def judge_by_step(state, scores, *how):
        scores["teacher"]["dice_image"] = 1 - abs(state.step - 2) / 100
        return judge(state, scores, *how)

    def watched(teacher, student, decay):
        update(teacher, student, decay)
        networks = {"student": student, "teacher": teacher.network}
        at_step.append({k: {n: v.clone() for n, v in net.state_dict().items()} for k, net in networks.items()})

    monkeypatch.setattr(RunState, "judge", judge_by_step)
    monkeypatch.setattr(Teacher, "update", watched)
    assert train(output=tmp_path, steps=8, patience=1).status == 0
    assert len(at_step) == 4
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl") if "valid" in line] == [2, 4]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["step"] == 2 and results["images"] == 3
    network, _ = from_pretrained(tmp_path / "teacher")
    reported = phantom("valid", 6, size=32).subset([1, 3, 5])
    found = evaluate(network, reported, load_texts(tmp_path / "teacher"))
    assert found == pytest.approx(results["teacher"]) and found["dice_image"] < 1
    assert np.load(tmp_path / "valid.npz")["teacher"].shape == (3, 3)
    for network in ("student", "teacher"):
        kept = load_file(tmp_path / network / "model.safetensors")
        assert all(kept[name].equal(value) for name, value in at_step[1][network].items())
        assert not all(kept[name].equal(value) for name, value in at_step[3][network].items())


def test_without_patience_all_steps_are_taken(train, tmp_path):
    assert train(output=tmp_path, steps=3, eval_every=1, lr=1e-12).status == 0
    assert json.loads((tmp_path / "results.json").read_text())["step"] == 3
    assert not (tmp_path / "best.safetensors").exists()


def test_compare_averages_runs_that_differ_in_the_seed_and_refuses_an_unfinished_one(command_line, tmp_path):
    for seed, dice in ((0, 0.5), (1, 0.7)):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(Config(seed=seed).to_dict()))
        scores = {"dice_image": dice, "miou_image": 0.4, "dice_micro": 0.8, "miou_micro": 0.6}
        (folder / "results.json").write_text(
            json.dumps({"seconds": 60.0, "device": "cpu", "student": scores, "teacher": scores})
        )
    told = command_line("compare", str(tmp_path / "seed0"), str(tmp_path / "seed1"))
    assert told.status == 0 and "60.0 ± 14.1" in told.text and "80.0 ± 0.0" in told.text
    (tmp_path / "seed1" / "results.json").unlink()
    told = command_line("compare", str(tmp_path / "seed0"), str(tmp_path / "seed1"))
    assert told.status == 1 and "seed1: no finished run" in told.errors
