"""Bad input: one clear error that names the file or value and the cure, exit status 1, and nothing half-written."""

import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from semimedref_core.methods.registry import METHODS, Method
from semimedref_core.runtime.checkpoints import load_tensors

REPORT = "Unilateral pulmonary infection, one infected area, lower left lung."


@pytest.fixture
def refused(train, tmp_path):
    """``refused(dataset=..., ...)``: training with these options fails, and leaves no folder; gives the message."""

    def run(**options) -> str:
        outcome = train(output=tmp_path / "runs" / "run", **options)
        assert outcome.status == 1
        assert outcome.text == "" and outcome.errors.startswith("semimedref train: ")
        assert not (tmp_path / "runs").exists()
        return outcome.errors

    return run


# Data


def test_all_bad_files_of_a_split_are_told_at_once(faulty_qata, refused):
    """Nine faults; the corrupt image that is listed twice counts twice."""
    root, faults = faulty_qata
    errors = refused(dataset="qata", data=root, label_ratio=1)
    assert [fault for fault, name in faults.items() if name not in errors] == []
    assert "QaTa-COV19 train: 10 problem(s); get these files again or take them off the list" in errors


def test_bad_files_of_all_parts_are_told_at_once(qata_folder, refused):
    """With half the masks in use: a labelled pair, an unlabelled pair and a validation pair are bad."""
    root = qata_folder()
    for path in (*root.glob("train/images/*.png"), *root.glob("valid/images/*.png")):
        path.write_bytes(b"no picture")
    errors = refused(dataset="qata", data=root, label_ratio=0.5)
    assert errors.count("corrupt picture") == 8 + 2
    assert all(str(path) in errors for path in root.glob("[tv][ra]*/images/*.png"))


@pytest.mark.parametrize("options, value, cure", [
    ({"dataset": "qata"}, "no data folder", "set SEMIMEDREF_DATA (or the setting `data`)"),
    ({"dataset": "qata", "data": "nowhere"}, "nowhere: is not a folder", "set SEMIMEDREF_DATA or --data to the folder"),
    ({"label_ratio": 0}, "got 0.0", "label_ratio must be above 0"),
    ({"label_ratio": 1.5}, "got 1.5", "label_ratio must be at most 1"),
    ({"label_ratio": "nan"}, "got nan", "label_ratio must be a finite number"),
    ({"lr": "inf"}, "got inf", "lr must be a finite number"),
    ({"steps": 0}, "got 0", "steps must be above 0"),
    ({"steps": 10**9}, "got 1000000000", "steps must be at most 1000000"),
    ({"batch_size": 10**9}, "got 1000000000", "batch_size must be at most 1024"),
    ({"text_length": 10**6}, "got 1000000", "text_length must be at most 512"),
    ({"image_size": 9600}, "got 9600", "image_size must be at most 4096"),
    ({"image_size": 40}, "got 40", "image_size must be a multiple of 16"),
    ({"image_size": 16}, "got 16", "size must be at least 32"),
])  # fmt: skip
def test_values_that_cannot_be_are_named_with_what_can(refused, monkeypatch, options, value, cure):
    monkeypatch.delenv("SEMIMEDREF_DATA", raising=False)
    errors = refused(**options)
    assert value in errors and cure in errors


@pytest.mark.parametrize("option, value, cure", [
    ("dataset", "mnist", "'phantom', 'phantom-ct', 'qata', 'mosmed'"),
    ("network", "resnet", "'compact', 'lite', 'guide_decoder', 'mmi_unet'"),
    ("method", "magic", "'supervised', 'semi_medref'"),
])  # fmt: skip
def test_an_unknown_choice_is_a_usage_error_with_those_there_are(train, tmp_path, option, value, cure):
    outcome = train(output=tmp_path / "run", **{option: value})
    assert outcome.status == 2 and f"invalid choice: '{value}' (choose from {cure}" in outcome.errors
    assert not (tmp_path / "run").exists()


def test_an_empty_split_is_named_by_its_table(qata_folder, refused):
    root = qata_folder()
    pd.DataFrame(columns=["Image", "Description"]).to_excel(root / "Val_text.xlsx", index=False)
    assert f"{root / 'Val_text.xlsx'}: empty split" in refused(dataset="qata", data=root)


def test_a_missing_split_is_named_with_those_there_are(qata_folder, refused):
    root = qata_folder("lvit", texts=("lvit",))
    shutil.rmtree(root / "Val_Folder")
    errors = refused(dataset="qata", data=root)
    assert "no split 'valid' here, only train, test" in errors and "with all its splits" in errors


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_a_gpu_that_is_not_there_is_said_before_anything_is_loaded(refused):
    assert "torch finds no GPU; use --device auto or cpu" in refused(device="cuda")


# Losses and weights that are no longer finite


def failing_at(step, spoil):
    """The supervised method, whose losses ``spoil(loss, student)`` takes over at one step, counted from 1."""
    counter = itertools.count(1)

    def spoilt(student, teacher, batch, w_u, config):
        losses = METHODS["semi_medref"].step(student, teacher, batch, 0.0, config)
        return {"loss": spoil(losses["loss"], student) if next(counter) == step else losses["loss"]}

    return Method(spoilt, unlabelled=False)


def nan_loss(loss, student):
    return loss * torch.nan


def finite_loss_nan_gradient(loss, student):
    """The root of 0 has no slope."""
    return loss + sum((parameter * 0).sqrt().sum() for parameter in student.parameters())


def statistics_of_a_float16_overflow(loss, student):
    """Training does not use the running statistics, so the loss and the weights stay finite."""
    student.image_encoder.stem.norm.running_var.data.fill_(torch.inf)
    return loss


@pytest.mark.parametrize("network, step, spoil, message", [
    ("compact", 5, nan_loss, "loss is not finite between steps 5 and 6"),
    ("compact", 6, finite_loss_nan_gradient, "are not finite after step 6"),
    ("lite", 6, statistics_of_a_float16_overflow, "student.image_encoder.stem.norm.running_var) are not finite after"),
])  # fmt: skip
def test_nan_stops_the_run_and_leaves_the_last_good_checkpoint(
    train, tmp_path, monkeypatch, network, step, spoil, message
):
    """Validations are at steps 2, 4 and 6. Resuming into NaN does not spoil the checkpoint either."""
    monkeypatch.setitem(METHODS, "supervised", failing_at(step, spoil))
    settings = {"output": tmp_path, "method": "supervised", "network": network, "steps": 8}
    outcome = train(**settings)
    assert outcome.status == 1
    assert message in outcome.errors and "Lower --lr" in outcome.errors
    checkpoint = tmp_path / "checkpoint.safetensors"
    tensors, metadata = load_tensors(checkpoint)
    assert metadata["state"]["step"] == 4
    assert all(value.isfinite().all() for value in tensors.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == [checkpoint.name, "config.json", "metrics.jsonl"]

    good = checkpoint.read_bytes()
    monkeypatch.setitem(METHODS, "supervised", failing_at(step - 4, spoil))
    again = train(**settings, resume=True)
    assert again.status == 1 and message in again.errors
    assert checkpoint.read_bytes() == good

    monkeypatch.setitem(METHODS, "supervised", failing_at(0, spoil))
    assert train(**settings, resume=True).status == 0


def test_a_learning_rate_far_too_large_is_stopped(train, tmp_path):
    outcome = train(output=tmp_path, lr=1e30, steps=6, eval_every=0)
    assert outcome.status == 1 and "not finite" in outcome.errors and "Lower --lr" in outcome.errors
    assert not list(tmp_path.rglob("*.safetensors"))


# Checkpoints


@pytest.fixture
def student(finished_run, tmp_path):
    """A copy of a trained network, to break."""
    return shutil.copytree(finished_run / "student", tmp_path / "student")


def missing(folder):
    (folder / "model.safetensors").unlink()
    return "model.safetensors: no such checkpoint"


def no_config(folder):
    (folder / "config.json").unlink()
    return "config.json: no trained network here; give the folder 'student' or 'teacher' of a finished run"


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return "model.safetensors: damaged checkpoint"


def emptied(folder):
    (folder / "model.safetensors").write_bytes(b"")
    return "model.safetensors: damaged checkpoint"


def other_shapes(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["head.0.bias"] = tensors["head.0.bias"][:5].clone()
    save_file(tensors, folder / "model.safetensors")
    return "head.0.bias has shape (5,), not (128,)"


def other_weights(folder):
    save_file({**load_file(folder / "model.safetensors"), "a.weight": torch.zeros(3)}, folder / "model.safetensors")
    return "weights of another network (a.weight is unexpected); choose the network it was trained with"


def other_name(folder):
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "network": "unet"}))
    return "unknown network 'unet'; choose one of compact, lite, guide_decoder, mmi_unet"


def half_a_config(folder):
    (folder / "config.json").write_text('{"network": "comp')
    return "config.json: not a network's config.json"


@pytest.mark.parametrize(
    "damage",
    [missing, no_config, truncated, emptied, other_shapes, other_weights, other_name, half_a_config],
    ids=lambda damage: damage.__name__,
)
def test_networks_that_cannot_be_loaded_are_named(semimedref, student, damage):
    expected = damage(student)
    outcome = semimedref("evaluate", checkpoint=student)
    assert outcome.status == 1 and outcome.text == ""
    assert expected in outcome.errors and str(student) in outcome.errors


@pytest.mark.parametrize("damage", [truncated, emptied, other_shapes], ids=lambda damage: damage.__name__)
def test_a_run_is_not_resumed_from_a_bad_checkpoint(train, stopped, tmp_path, damage):
    run = tmp_path / "run"
    stopped(output=run)
    checkpoint = run / "checkpoint.safetensors"
    if damage is other_shapes:
        tensors, metadata = load_tensors(checkpoint)
        tensors["student.head.0.bias"] = torch.zeros(5)
        save_file(tensors, checkpoint, {name: json.dumps(value) for name, value in metadata.items()})
        expected = "weights of another network (head.0.bias has shape (5,), not (128,))"
    else:
        checkpoint.rename(run / "model.safetensors")
        damage(run)
        (run / "model.safetensors").rename(checkpoint)
        expected = "damaged checkpoint"
    before = checkpoint.read_bytes()
    outcome = train(output=run, resume=True)
    assert outcome.status == 1
    assert f"{checkpoint}: {expected}" in outcome.errors
    assert checkpoint.read_bytes() == before


# Prediction


def noise(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    return path.read_bytes()


def cut_short(path):
    path.write_bytes(noise(path)[:2000])


def broken_chunk(path):
    path.write_bytes(noise(path).replace(b"IDAT", b"I\x12AT"))


def short_header(path):
    """A header of 0 instead of 13 bytes."""
    data = bytearray(noise(path))
    data[11] = 0
    path.write_bytes(data)


@pytest.mark.parametrize(
    "write",
    [lambda path: None, lambda path: path.write_text("no picture"), cut_short, broken_chunk, short_header],
    ids=["missing", "no picture", "cut short", "broken chunk", "short header"],
)
def test_an_image_that_cannot_be_read_is_named(semimedref, finished_run, tmp_path, write):
    image = tmp_path / "image.png"
    write(image)
    outcome = semimedref(
        "predict", checkpoint=finished_run / "teacher", image=image, report=REPORT, output=tmp_path / "out" / "x"
    )
    assert outcome.status == 1
    assert f"{image}: cannot be read as an image" in outcome.errors and "give a PNG or JPEG" in outcome.errors
    assert not (tmp_path / "out").exists()


def test_a_report_that_cannot_be_read_is_quoted(semimedref, finished_run, tmp_path):
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(image)
    outcome = semimedref(
        "predict", checkpoint=finished_run / "teacher", image=image, report="all clear", output=tmp_path / "out" / "x"
    )
    assert outcome.status == 1
    assert "cannot read the report 'all clear'" in outcome.errors and "pulmonary infection" in outcome.errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["doctor", "evaluate"])
def test_a_data_folder_that_is_not_given_is_asked_for(semimedref, of_qata, monkeypatch, command):
    monkeypatch.delenv("SEMIMEDREF_DATA", raising=False)
    options = {"checkpoint": of_qata} if command == "evaluate" else {}
    outcome = semimedref(command, **options)
    assert outcome.status == 1
    assert f"semimedref {command}: no data folder: set SEMIMEDREF_DATA (or the setting `data`)" in outcome.errors
