"""Runs, checkpoints, plans and predictions: what would quietly give wrong numbers or lose data is refused by name."""

import json
import shutil
import subprocess
import sys

import numpy as np
import own_folders
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from semimedref_core.data.datasets import load_training
from semimedref_core.experiments import papermill_run  # before a test replaces the folder of notebooks
from semimedref_core.experiments.plan import PlanError, read_plan
from semimedref_core.experiments.tables import markdown_table
from semimedref_core.runtime.atomic import atomic, write_json
from semimedref_core.runtime.checkpoints import CheckpointError, from_pretrained
from semimedref_core.runtime.run_state import held

REPORT = "Unilateral pulmonary infection, one infected area, lower left lung."


@pytest.fixture
def student(finished_run, tmp_path):
    """A copy of a trained network, to break."""
    return shutil.copytree(finished_run / "student", tmp_path / "student")


@pytest.mark.parametrize("change, message", [
    (lambda value: value * torch.nan, "weights that are not finite"),
    (lambda value: value / 0, "weights that are not finite"),
    (lambda value: value.to(torch.int64), "is torch.int64, not torch.float32"),
    (lambda value: value.to(torch.complex64), "is torch.complex64, not torch.float32"),
    (lambda value: value.half(), "is torch.float16, not torch.float32"),
])  # fmt: skip
def test_weights_that_mean_nothing_are_refused(student, change, message):
    path = student / "model.safetensors"
    tensors = load_file(path)
    tensors["head.0.weight"] = change(tensors["head.0.weight"])
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=f"model.safetensors: .*({message})"):
        from_pretrained(student)


ABOUT = {
    "a list": [], "nothing": None, "a text": "compact", "a number": 7,
    "widths too large": {"arguments": {"widths": [10**9] * 4}}, "a text of 10^12": {"arguments": {"embedding": 10**12}},
    "a negative vocabulary": {"arguments": {"vocabulary": -5}},
    "a word as vocabulary": {"arguments": {"vocabulary": "x"}},
    "no widths": {"arguments": {"widths": None}}, "one width": {"arguments": {"widths": 3}},
    "arguments that are a list": {"arguments": [1]}, "an unknown argument": {"arguments": {"colour": 1}},
    "a size of 0": {"image_size": 0}, "a size of 10^9": {"image_size": 10**9}, "half a size": {"image_size": 1.5},
    "a size in words": {"image_size": "large"}, "a size that is true": {"image_size": True},
    "no text": {"text_length": 0}, "a long text": {"text_length": 10**9}, "a list of lengths": {"text_length": [24]},
    "a part of reports that is none": {"report_text": "nocount"}, "axes that are none": {"axes": "transpose"},
    "mask values that are none": {"mask_values": "red"}, "texts that are none": {"text_version": "lvitt"},
    "sides that are none": {"text_sides": "patients"},
    "an infinite number": {"arguments": {"embedding": float("inf")}}, "no number": {"arguments": {"x": float("nan")}},
}  # fmt: skip


@pytest.mark.parametrize("case", ABOUT)
def test_a_config_that_no_network_has_is_refused_before_anything_is_built(semimedref, student, case):
    path = student / "config.json"
    change = ABOUT[case]
    path.write_text(json.dumps({**json.loads(path.read_text()), **change} if isinstance(change, dict) else change))
    outcome = semimedref("evaluate", checkpoint=student)
    assert outcome.status == 1 and f"{path}: not a network's config.json" in outcome.errors, outcome.errors
    assert len(outcome.errors) < 600


def test_a_config_nested_very_deeply_is_one_line(student):
    (student / "config.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="config.json: not a network's config.json"):
        from_pretrained(student)


HOLD = """
import sys, time
from pathlib import Path
from semimedref_core.runtime.run_state import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")
def test_a_second_run_in_a_folder_is_refused_until_the_first_is_gone_even_if_killed(train, tmp_path):
    folder = tmp_path / "run"
    first = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "held\n"
        outcome = train(output=folder)
        assert outcome.status == 1 and f"{folder}: another run uses this folder" in outcome.errors
        assert list(folder.iterdir()) == []
    finally:
        first.kill()
        first.wait()
    assert train(output=folder, method="supervised", steps=1, eval_every=0).status == 0


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path):
    left = [tmp_path / name for name in (".checkpoint.safetensors.0123456789ab.partial", ".tmpAb12Cd")]
    kept = [tmp_path / name for name in ("checkpoint.safetensors", "notes.partial.txt")]
    for path in left + kept:
        path.write_bytes(b"x")
    with held(tmp_path):
        assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_two_writers_of_one_file_do_not_share_a_temporary_name(tmp_path):
    path = tmp_path / "a.json"
    with atomic(path) as one, atomic(path) as other:
        one.write_text("1"), other.write_text("2")
    assert one != other and path.read_text() == "1" and list(tmp_path.iterdir()) == [path]
    write_json(path, [])
    assert path.read_text() == "[]\n"


def change_report(root):
    path = root / "Train_text.xlsx"
    table = pd.read_excel(path)
    table.loc[0, "Description"] = "Unilateral pulmonary infection, one infected area, upper right lung."
    table.to_excel(path, index=False)


def change_picture(root):
    path = root / "train/images/covid_5.png"
    Image.fromarray(np.asarray(Image.open(path))[::-1]).save(path)


def change_order(root):
    path = root / "Train_text.xlsx"
    pd.read_excel(path)[::-1].to_excel(path, index=False)


@pytest.mark.parametrize("change", [change_report, change_picture, change_order])
def test_a_run_goes_on_with_the_data_that_it_began_with_alone(train, stopped, qata_folder, tmp_path, change):
    root = qata_folder()
    options = {"output": tmp_path / "run", "dataset": "qata", "label_ratio": 0.5, "resume": True}
    stopped(data=root, **options)
    moved = shutil.copytree(root, tmp_path / "elsewhere/QaTa")
    stopped(data=moved, **options)  # the same data under another path
    change(moved)
    outcome = train(data=moved, **options)
    assert outcome.status == 1 and "learnt from other pictures, masks, reports" in outcome.errors


def test_a_run_goes_on_with_the_table_of_positions_that_it_began_with_alone(train, stopped, tmp_path):
    """Its boxes and words say where patches go and which texts ITCL pulls together."""
    data, table, moved = own_folders.chest(tmp_path / "mine"), tmp_path / "pos.csv", tmp_path / "elsewhere/pos.csv"
    table.write_text("words,left,top,right,bottom\nleft,0,0,0.5,1\nright,0.5,0,1,1\n")
    options = {"output": tmp_path / "run", "dataset": "folder", "data": data, "label_ratio": 0.5, "resume": True}
    stopped(positions=table, **options)
    moved.parent.mkdir()
    shutil.copy(table, moved)
    stopped(positions=moved, **options)  # the same table under another path
    sides_swapped, one_moved = "left,0.5,0,1,1\nright,0,0,0.5,1", "left,0,0,0.5,1\nright,0.4,0,1,1"
    for changed in (sides_swapped, one_moved, "left; on,0,0,0.5,1\nright,0.5,0,1,1"):
        moved.write_text(f"words,left,top,right,bottom\n{changed}\n")
        outcome = train(positions=moved, **options)
        told = "learnt from other pictures, masks, reports, positions"
        assert outcome.status == 1 and told in outcome.errors, changed


def test_a_digest_is_of_all_that_pairs_hold():
    pairs = load_training("phantom", 0.05, 32).labelled
    others = [pairs.subset(range(1, len(pairs))), pairs.subset(range(len(pairs))[::-1]), pairs.transposed(),
              pairs.subset(range(len(pairs)), masks=False)]  # fmt: skip
    assert len({one.digest() for one in (pairs, *others)}) == 5
    assert pairs.digest() == pairs.subset(range(len(pairs))).digest()


def test_predict_replaces_its_own_pictures_and_no_others(semimedref, finished_run, tmp_path, monkeypatch):
    """Beside ``chest.png`` its true mask is often called ``chest_mask.png``."""
    monkeypatch.chdir(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    picture.save("chest.png"), picture.save("chest_mask.png")
    options = {"checkpoint": finished_run / "student", "image": "chest.png", "report": REPORT}
    before = (tmp_path / "chest_mask.png").read_bytes()
    outcome = semimedref("predict", **options)
    assert outcome.status == 1 and "chest_mask.png: exists already and was not written by predict" in outcome.errors
    assert (tmp_path / "chest_mask.png").read_bytes() == before and not (tmp_path / "chest_overlay.png").exists()
    for _ in range(2):
        assert semimedref("predict", output="out/chest", **options).status == 0
    outcome = semimedref("predict", output="chest.png/x", **options)
    assert outcome.status == 1 and "chest.png: is not a folder; give another --output" in outcome.errors


@pytest.mark.parametrize("name, value", [
    ("output", "."), ("output", "/"), ("output", "out/.."), ("image", "."), ("image", ""),
])  # fmt: skip
def test_a_prediction_whose_files_would_have_no_name_is_refused(semimedref, finished_run, name, value):
    given = {"checkpoint": finished_run, "image": "chest.png", "report": REPORT, name: value}
    outcome = semimedref("predict", **given)
    cure = "gives the files no name; give --output a name, such as results/case"
    assert (outcome.status, outcome.errors) == (1, f"semimedref predict: --{name} {value}: {cure}\n")


@pytest.mark.parametrize("text, message", [
    ("runs: [{method: supervised}]\nruns: [{method: fixmatch}]", "the key 'runs' occurs twice below line 1"),
    ("runs:\n- method: supervised\n  seed: 1\n  seed: 2", "the key 'seed' occurs twice below line 2"),
    ("name: ..\nruns: [{method: supervised}]", "name '..' is not a valid folder name"),
    ("name: .\nruns: [{method: supervised}]", "name '.' is not a valid folder name"),
    ("[" * 5000, "nested too deeply|is not YAML"),
])  # fmt: skip
def test_a_plan_that_says_two_things_or_leaves_its_folder_is_refused(tmp_path, text, message):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(PlanError, match=f"plan.yaml: .*({message})"):
        read_plan(path)


def test_a_path_as_an_axis_of_a_plan_makes_names_of_plain_folders(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("runs: [{method: supervised, data: [/a/b one, ../c, ''], seed: 1}]")
    names = [run.name for run in read_plan(path).runs]
    assert names == [f"phantom-0.05-supervised-data{end}-seed1" for end in ("b_one", "c", "")]


def test_names_of_runs_are_text_in_a_readme(run):
    from semimedref_core.experiments.results import finished_runs

    run(0.5, method="supervised", variant_of="<img src=x onerror=alert(1)>")
    run(0.6, method="fixmatch", variant_of="a|b\nc")
    table = markdown_table(finished_runs(run.folders))
    assert "<img" not in table and "&lt;img src=x onerror=alert(1)&gt;" in table and "a\\|b c" in table
    assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1


def test_checking_no_notebook_is_no_success(semimedref, command_line, tmp_path, monkeypatch):
    from semimedref_core.experiments import shipped

    monkeypatch.setattr(shipped, "notebooks_folder", lambda: tmp_path)
    outcome = command_line("notebooks", "--check")
    assert outcome.status == 1 and f"{tmp_path}: no notebooks here, so nothing was done" in outcome.errors
    outcome = command_line("notebooks", "--check", "07_train")
    assert outcome.status == 1 and "no notebook 07_train, so nothing was checked" in outcome.errors


@pytest.mark.parametrize("arguments", [
    ("sweep", "plan.yaml", "--jobs", "-1"), ("sweep", "plan.yaml", "--jobs", "0"), ("mixing", "--count", "0"),
    ("profile", "--count", "-5"), ("profile", "--count", "99999999999"), ("tutorial", "--steps", "0"),
    ("tutorial", "--seed", "-1"), ("tutorial", "--seed", str(2**70)),
])  # fmt: skip
def test_numbers_that_cannot_be_are_a_usage_error(command_line, arguments):
    outcome = command_line(*arguments)
    assert outcome.status == 2 and "must be a whole number from" in outcome.errors


def test_a_home_that_the_shell_left_as_a_tilde_is_the_home(tmp_path, monkeypatch):
    from semimedref_core.data.datasets import data_folder
    from semimedref_core.data.real.cache import cache_folder

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SEMIMEDREF_CACHE", "~/cache")
    monkeypatch.setenv("SEMIMEDREF_DATA", "~/data")
    assert cache_folder() == tmp_path / "cache" and data_folder() == str(tmp_path / "data") == data_folder("~/data")


def test_a_notebook_runs_in_a_folder_with_braces(tmp_path, monkeypatch):
    source = papermill_run.jupytext.reads("# %% tags=['parameters']\nseed = 1\n# %%\nseed", fmt="py:percent")
    source.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    monkeypatch.setattr(papermill_run, "_source", lambda name: source)
    written = papermill_run.run_notebook("x", tmp_path / "{seed} {other}", {})
    assert written == tmp_path / "{seed} {other}/x.ipynb" and written.is_file()


def test_a_kernel_of_another_python_is_refused(tmp_path, monkeypatch):
    """Its notebook would tell of other packages than those of the record beside it."""
    spec = tmp_path / "kernels/python3/kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/opt/other/python", "-m", "x"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(papermill_run.NotebookError, match="starts /opt/other/python, but .*ipykernel install"):
        papermill_run.run_notebook("07_train", tmp_path / "run", {})
    assert not (tmp_path / "run").exists()


def test_a_dollar_in_a_name_is_text_in_a_figure():
    import matplotlib.pyplot as plt

    from semimedref_core.figures.results import panel_title

    figure, ax = plt.subplots()
    ax.set_title(panel_title("qata, image encoder $a_{b$ $\\frac$"))
    figure.canvas.draw()
