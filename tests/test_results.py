"""Runs side by side: only repetitions are averaged, every ablation has a name, and what is missing is said."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import own_folders
import pandas as pd
import pytest
from PIL import Image

from semimedref_core.config import FIELDS
from semimedref_core.experiments.results import (
    COUNTS,
    TABLE,
    WITHOUT_HELP,
    counts_of,
    finished_runs,
    keep,
    missing_runs,
    run_folders,
    settings_of,
    without_help,
)
from semimedref_core.experiments.seed_by_seed import standing
from semimedref_core.experiments.statistics import method_differences
from semimedref_core.experiments.tables import markdown_table, methods_by_ratio, results_table
from semimedref_core.runtime.checkpoints import CheckpointError
from semimedref_core.runtime.run_state import PATHS

BARE = {"pseudo_labels": "teacher", "teacher_view": "same", "unfound": "image", "variant": WITHOUT_HELP}


def test_runs_that_differ_in_the_seed_are_averaged_and_variants_are_not(run):
    folders = [run(0.7, seed=0), run(0.8, seed=1), run(0.6, seed=0, gate=0.5, variant="strict gate")]
    table = results_table(finished_runs(folders)).reset_index()
    teacher = table[table["network"] == "teacher"].set_index("variant")
    assert dict(teacher["seeds"]) == {"": 2, "strict gate": 1}
    assert teacher.loc["", "dice_image"] == "75.0 ± 7.1" and teacher.loc["strict gate", "dice_image"] == "60.0"


@pytest.mark.parametrize(
    "setting, value", [("gate", 0.5), ("posaug_p", 0.0), ("unfound", "image"), ("report_text", "none")]
)
def test_runs_of_one_name_whose_settings_differ_are_refused_and_not_averaged(run, setting, value):
    """A run says what it is; nobody guesses it from its settings."""
    one, two = run(0.7), run(0.6, seed=1, **{setting: value})
    with pytest.raises(CheckpointError, match=rf"{one}, {two}: both are semi_medref, but {setting} is .*--variant"):
        finished_runs([one, two])
    assert len(finished_runs([one, run(0.6, seed=1, variant="another", **{setting: value})])) == 4


def test_another_method_may_have_other_settings(run):
    runs = finished_runs([run(0.6, method="fixmatch", tau=0.1), run(0.7)])
    assert set(runs["variant"]) == {""}


def test_mixing_as_the_release_does_may_be_shown_as_a_variant_without_our_help(run):
    released = {"method": "semi_medref_release", "variant": f"{WITHOUT_HELP}, mixed as by the release"}
    folders = [run(0.7), run(0.6, **BARE), run(0.5, **released, variant_of="semi_medref")]
    runs = finished_runs(folders)
    assert set(runs["method"]) == {"semi_medref"}
    assert list(dict.fromkeys(runs["variant"])) == ["", "without our help", "without our help, mixed as by the release"]
    assert list(dict.fromkeys(without_help(runs)["variant"])) == ["", "mixed as by the release"]
    assert set(finished_runs([run(0.5, method="semi_medref_release")])["method"]) == {"semi_medref_release"}


def test_settings_are_told_apart_only_by_what_differs_on_the_same_data(run):
    folders = [run(0.7, steps=10), run(0.7, steps=20), run(0.7, dataset="qata", steps=30, label_ratio=0.01)]
    folders += [run(0.7, dataset="qata", steps=30, label_ratio=0.02)]
    assert list(dict.fromkeys(finished_runs(folders)["setting"])) == ["qata", "phantom, 10 steps", "phantom, 20 steps"]


def test_the_encoders_learning_rate_is_told_where_an_encoder_is_pretrained(run):
    folders = [run(0.7, encoder_lr=0.3), run(0.8, network="lite", encoder_lr=0.1)]
    assert set(finished_runs(folders)["setting"]) == {"phantom, compact", "phantom, lite"}
    folders.append(run(0.8, network="lite", encoder_lr=0.3))
    rates = {"phantom, lite, encoder's lr 0.1", "phantom, lite, encoder's lr 0.3"}
    assert set(finished_runs(folders)["setting"]) == {"phantom, compact", *rates}


def test_a_setting_of_zero_is_told_as_zero(run):
    folders = [run(0.7, weight_decay=0.0, encoder_lr=0.0, network="lite"), run(0.8, patience=5, network="lite")]
    decay = f"{FIELDS['weight_decay'].default:g}"
    assert set(finished_runs(folders)["setting"]) == {
        "phantom, encoder's lr 0, weight decay 0, patience 0",
        f"phantom, encoder's lr 0.3, weight decay {decay}, patience 5",
    }


OF_MINE, OF_OTHERS = ({"valid_pairs": letter * 16, "labelled_pairs": "f" * 16} for letter in "ab")


def test_runs_on_two_folders_of_ones_own_are_two_settings_and_are_not_averaged(run):
    """Both are called ``folder``, and the folders may have moved, so only the pairs tell them apart."""
    own = {"dataset": "folder", "data": "mine"}
    folders = [run(0.7, **own, method="supervised", pairs=OF_MINE), run(0.9, **own, pairs=OF_OTHERS, seed=1)]
    folders += [run(0.8, **own, pairs=OF_MINE, seed=0), run(0.6, **{**own, "data": "moved"}, pairs=OF_MINE, seed=1)]
    runs = finished_runs(folders)
    assert set(runs["setting"]) == {"folder, valid pairs aaaaaaaa", "folder, valid pairs bbbbbbbb"}
    assert method_differences(runs, metrics=("dice_image",))["seeds"].tolist() == [1]
    table = results_table(runs).reset_index()
    ours = table[(table["network"] == "teacher") & (table["method"] == "semi_medref")]
    assert dict(zip(ours["valid_pairs"], ours["dice_image"], strict=True)) == {
        "aaaaaaaa": "70.0 ± 14.1",
        "bbbbbbbb": "90.0",
    }


def test_runs_that_learnt_from_other_pairs_are_told_apart_too_at_one_label_ratio(run):
    other = {**OF_MINE, "labelled_pairs": "e" * 16}
    folders = [run(0.7, pairs=OF_MINE), run(0.6, label_ratio=0.5, pairs=other)]
    assert set(finished_runs(folders)["setting"]) == {"phantom"}
    folders += [run(0.8, seed=1, pairs=other)]
    runs = finished_runs(folders).set_index(["label_ratio", "seed"])["setting"]
    assert set(runs) == {"phantom, labelled pairs ffffffff", "phantom, labelled pairs eeeeeeee", "phantom"}
    assert set(runs[0.5, 0]) == {"phantom"}


def test_pairs_are_no_news_where_another_setting_tells_the_runs_apart(run):
    folders = [run(0.7, image_size=64, pairs=OF_MINE), run(0.7, image_size=96, pairs=OF_OTHERS)]
    runs = finished_runs(folders)
    assert (
        set(runs["setting"]) == {"phantom, 64 px", "phantom, 96 px"}
        and "valid_pairs" not in results_table(runs).index.names
    )


def test_older_runs_tell_no_pairs_and_are_compared_as_before(run, tmp_path):
    folders = [run(0.7), run(0.8, seed=1, pairs=OF_MINE)]
    runs = finished_runs(folders)
    assert set(runs["setting"]) == {"phantom"} and set(runs["valid_pairs"]) == {"", "a" * 16}
    keep(runs.drop(columns=["valid_pairs", "labelled_pairs"]), tmp_path / "older")
    kept = finished_runs([tmp_path / "older", run(0.6, seed=2, pairs=OF_MINE)])
    assert set(kept["setting"]) == {"phantom"} and kept["valid_pairs"].value_counts().to_dict() == {"": 4, "a" * 16: 2}
    runs = finished_runs([*folders, run(0.6, seed=2, pairs=OF_OTHERS)]).set_index("seed")["setting"]
    assert set(runs[0]) == {"phantom, valid pairs unknown"}, "it is not guessed to which of the two it belongs"


def test_a_real_run_tells_its_pairs_whatever_its_method_and_its_folder(train, tmp_path):
    mine = own_folders.chest(tmp_path / "mine")
    moved = shutil.copytree(mine, tmp_path / "moved")
    others = shutil.copytree(mine, tmp_path / "others")
    for path in (others / "images").glob("???.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    given = {"dataset": "folder", "steps": 1, "label_ratio": 0.5}
    for name, data, how in (
        ("one", mine, {"method": "supervised"}),
        ("two", moved, {"method": "fixmatch"}),
        ("three", others, {"method": "fixmatch"}),
    ):
        outcome = train(output=tmp_path / "runs" / name, data=data, **given, **how)
        assert outcome.status == 0, outcome.errors
    runs = finished_runs([tmp_path / "runs"])
    of_run = runs.assign(run=[Path(folder).name for folder in runs["folder"]]).drop_duplicates("run").set_index("run")
    for name in ("valid_pairs", "labelled_pairs"):
        assert re.fullmatch(r"[0-9a-f]{16}", of_run.loc["one", name])
        assert of_run.loc["one", name] == of_run.loc["two", name]
    assert of_run.loc["one", "setting"] == of_run.loc["two", "setting"] != of_run.loc["three", "setting"]


def test_pictures_that_a_method_reads_on_their_side_are_the_same_pairs(train, finished_run, tmp_path):
    assert train(output=tmp_path / "run", axes="transposed").status == 0
    one, two = (json.loads((folder / "results.json").read_text()) for folder in (finished_run, tmp_path / "run"))
    assert one["valid_pairs"] == two["valid_pairs"] != one["labelled_pairs"] == two["labelled_pairs"]


def test_what_was_run_most_widely_stands_first(run):
    run(0.7, label_ratio=0.01), run(0.7, dataset="qata", label_ratio=0.01), run(0.7, dataset="qata", method="cutmix")
    assert list(dict.fromkeys(finished_runs(run.folders)["setting"])) == ["qata", "phantom"], "more label ratios"
    run(0.7, label_ratio=0.02), run(0.7, dataset="qata", label_ratio=0.01, seed=1)
    assert list(dict.fromkeys(finished_runs(run.folders)["setting"])) == ["qata", "phantom"], "as many, of more runs"


def test_a_run_on_another_device_is_no_further_seed(run):
    folders = [run(0.7), run(0.8, seed=1, device="cuda"), run(0.8, seed=2, device="cuda:1")]
    assert list(dict.fromkeys(finished_runs(folders)["setting"])) == ["phantom, cuda", "phantom, cpu"]


def test_what_a_full_comparison_lacks_is_said(run):
    folders = [run(0.7, seed=seed, method=method) for seed in (0, 1) for method in ("supervised", "semi_medref")]
    folders += [run(0.8, method="supervised", label_ratio=1.0), run(0.8, label_ratio=0.5)]
    folders += [run(0.6, posaug_p=0.0, variant="without PosAug")]
    assert missing_runs(finished_runs(folders[:5])) == []
    assert missing_runs(finished_runs(folders)) == ["phantom, 50 % labels: supervised (seed 0)"], "one ablation, whole"
    folders += [run(0.6, gate=0.0, seed=1, variant="without the gate"), run(0.7, seed=2)]
    folders += [run(0.6, gate=0.9, seed=1, variant="strict gate")]
    assert missing_runs(finished_runs(folders))[0] == (
        "phantom, 5 % labels: supervised (seed 2); semi_medref without PosAug (seed 1); "
        "semi_medref without the gate, semi_medref strict gate (seed 0)"
    )


def test_a_method_with_fewer_seeds_is_marked_and_one_that_did_not_run_has_an_empty_cell(run):
    folders = [
        run(0.7, seed=0),
        run(0.8, seed=1),
        run(0.6, method="cutmix"),
        run(0.9, method="cutmix", label_ratio=0.5),
    ]
    table = methods_by_ratio(finished_runs(folders))
    assert table.loc["cutmix"].tolist() == ["60.0 (1 of 2 seeds)", "90.0 (1 seed)"]
    assert table.loc["semi_medref"].tolist() == ["75.0 ± 7.1", ""]


def test_the_readme_table_has_both_metrics_and_the_best_of_each_in_bold(run):
    lines = markdown_table(finished_runs([run(0.7), run(0.6, method="supervised")])).splitlines()
    assert lines[0] == "|  | supervised | semi_medref |"
    assert lines[2:] == ["| phantom, 5 % | 60.0<br>60.0<br>1 seed | **70.0**<br>**70.0**<br>1 seed |"]


def test_a_cell_of_the_readme_table_says_how_many_seeds_where_others_of_the_row_have_more(run):
    folders = [run(0.7, seed=0), run(0.8, seed=1), run(0.6, method="supervised")]
    last = markdown_table(finished_runs(folders)).splitlines()[-1]
    assert last == "| phantom, 5 % | 60.0<br>60.0<br>1 of 2 seeds | **75.0 ± 7.1**<br>**75.0 ± 7.1** |"


def test_runs_without_our_help_are_a_comparison_and_a_row_of_their_own(run):
    run(0.8), run(0.7, method="cutmix"), run(0.5, method="supervised"), run(0.9, method="supervised", label_ratio=1.0)
    run(0.6, **BARE), run(0.4, **BARE, method="cutmix")
    runs = finished_runs(run.folders)
    assert set(runs.loc[runs["variant"] != "", "variant"]) == {"without our help"}
    found = without_help(runs).query("network == 'teacher'").set_index("method")
    assert found["dice_image"].to_dict() == pytest.approx({"supervised": 0.5, "semi_medref": 0.6, "cutmix": 0.4})
    assert set(found["variant"]) == {""}, "the main runs of this comparison"
    lines = [line.replace("**", "") for line in markdown_table(runs).splitlines()]
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| phantom, 5 %, without our help",
        "| phantom, 5 %",
        "| phantom, 100 %",
    ]
    last = [line.rpartition(" | ")[2] for line in lines]
    assert last == ["semi_medref |", "--- |", "60.0<br>60.0<br>1 seed |", "80.0<br>80.0<br>1 seed |", " |"]
    assert without_help(finished_runs(run.folders[:3])).empty
    assert without_help(finished_runs(run.folders[4:])).empty, "there is nothing to compare them with"


def test_supervised_training_that_ran_with_and_without_our_help_counts_once(run):
    for seed in range(3):
        for method, dice in (("supervised", 0.5), ("semi_medref", 0.7), ("cutmix", 0.6)):
            run(dice + seed / 100, seed=seed, method=method)
            run(dice + seed / 200, seed=seed, method=method, **BARE)
    bare = without_help(finished_runs(run.folders))
    assert not bare.duplicated(["method", "variant", "seed", "network"]).any() and len(bare) == 18
    assert set(bare["variant"]) == {""} and set(bare["pseudo_labels"]) == {"teacher"}
    assert set(method_differences(bare)["seeds"]) == {3}


def test_how_a_method_stands_is_told_seed_by_seed(run):
    targets = np.repeat([10, 50, 200], 10)
    for seed in range(2):
        worse = np.where(targets == 10, 0, targets)
        for dice, counts, settings in (
            (0.6, worse, {}),
            (0.7, targets, {"method": "cutmix"}),
            (0.5 + 0.2 * seed, targets, {"method": "cps"}),
            (0.61 + 0.01 * seed, targets, {"patch_p": 0.0, "variant": "without T-PatchMix"}),
        ):
            run(dice, seed=seed, counts=np.stack([counts, targets, targets], 1), **settings)
    run(0.5, method="fixmatch"), run(0.4, method="supervised")
    runs = finished_runs(run.folders)
    # as told, and not as counted
    for (method, seed), dice in {("cps", 0): 0.5, ("cps", 1): 0.7, ("cutmix", 0): 0.7, ("cutmix", 1): 0.7}.items():
        runs.loc[(runs["method"] == method) & (runs["seed"] == seed), "dice_image"] = (
            dice  # as told, and not as counted
        )
    runs.loc[(runs["method"] == "semi_medref") & (runs["variant"] == ""), "dice_image"] = 0.6
    runs.loc[runs["variant"] != "", "dice_image"] = 0.61 + 0.01 * runs["seed"]
    count, changes, sizes = standing(runs)
    assert count == "**10 runs** are kept, 2 of them variants, with changed settings."
    assert "+1.0 to +2.0 (without T-PatchMix, 2 seeds)" in changes
    assert "above `cutmix`, by thirds of the images: -100.0 for small lesions, 0.0 for middle" in sizes
    assert standing(runs.iloc[:0]) == ["No run has finished."]


def test_a_folder_of_runs_stands_for_all_of_them(run, tmp_path):
    one, two = run(0.7), run(0.8, seed=1)
    (tmp_path / "runs" / "unfinished").mkdir()
    assert run_folders([tmp_path / "runs"]) == run_folders([one, two]) == [one, two]


def test_folders_without_a_finished_run_are_all_named(run, tmp_path):
    with pytest.raises(CheckpointError, match="one.*two.*results.json is missing"):
        finished_runs([run(0.7), tmp_path / "one", tmp_path / "two"])
    with pytest.raises(CheckpointError, match="no folder given"):
        finished_runs([])


NEVER_NEW = {"dataset", "label_ratio", "method", "network", "seed"}


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in NEVER_NEW])
def test_a_run_that_is_older_than_a_setting_has_its_default(run, name):
    folders = [run(0.7), run(0.8, seed=1)]
    whole, settings = finished_runs(folders), settings_of(folders[0])
    config = json.loads((folders[0] / "config.json").read_text())
    del config[name]
    (folders[0] / "config.json").write_text(json.dumps(config))
    pd.testing.assert_frame_equal(finished_runs(folders), whole, check_like=True)
    assert settings_of(folders[0]) == settings


def test_kept_runs_that_are_older_than_settings_have_their_defaults(run, tmp_path):
    keep(finished_runs([run(0.7), run(0.8, seed=1)]), tmp_path)
    kept, table = finished_runs([tmp_path]), pd.read_parquet(tmp_path / TABLE)
    new = [name for name in FIELDS if name not in NEVER_NEW]
    for older in (table.drop(columns=new), table.assign(**table[new].where(table["seed"] == 1))):
        older.to_parquet(tmp_path / TABLE)
        pd.testing.assert_frame_equal(finished_runs([tmp_path]), kept, check_like=True)
    assert results_table(kept)["seeds"].tolist() == [2, 2]


@pytest.mark.parametrize("name", sorted(NEVER_NEW))
def test_a_run_that_does_not_say_what_it_is_is_named(run, name):
    config = json.loads((run(0.7) / "config.json").read_text())
    del config[name]
    (run.folders[0] / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"config.json: the setting {name} is missing; remove this run"):
        finished_runs(run.folders)


def test_a_damaged_run_and_the_same_run_twice_are_named(run):
    one, two = run(0.7), run(0.8)
    with pytest.raises(CheckpointError, match=f"{one}, {two}: the same run more than once"):
        finished_runs([one, two])
    (two / "results.json").write_text('{"seconds": 1')
    with pytest.raises(CheckpointError, match="results.json: cannot be read"):
        finished_runs([one, two])


def test_kept_runs_are_two_files_that_compare_as_the_runs_themselves(run, tmp_path):
    counts = np.random.default_rng(0).integers(0, 900, (5, 3))
    encoder = {"data": "/home/someone/data", "text_encoder": "/home/someone/bert"}
    folders = [run(0.7, counts=counts, **encoder), run(0.6, seed=1, counts=counts // 2, **encoder)]
    folders += [run(0.5, method="cutmix", text_encoder="/home/someone/bert")]
    lines = [{"step": step, "loss": 1 / 3, "accepted": step / 1000} for step in range(10, 101, 10)]
    lines.insert(2, {"step": 20, "valid": {"teacher": {"dice_image": 2 / 3}}})
    (folders[0] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    target = tmp_path / "kept"
    runs = finished_runs(folders)
    keep(runs, target)
    assert sorted(path.name for path in target.iterdir()) == [COUNTS, TABLE]
    kept = finished_runs([target])
    ours = ["folder", "data", "text_encoder", "log"]
    pd.testing.assert_frame_equal(kept.drop(columns=ours), runs.drop(columns=ours[:3]), check_like=True)
    for folder, name in zip(runs["folder"], kept["folder"], strict=True):
        for network in ("student", "teacher"):
            before, after = counts_of(folder, network), counts_of(name, network)
            assert (before is None) == (after is None) and (before is None or np.array_equal(before, after))
    assert json.loads(kept["log"].iloc[0]) == [
        {"step": 20, "valid": {"teacher": {"dice_image": 0.66667}}},
        {"step": 50, "loss": 0.33333, "accepted": 0.05},
        {"step": 100, "loss": 0.33333, "accepted": 0.1},
    ]
    assert set(kept["text_encoder"]) == {"bert"} and "someone" not in kept.drop(columns="folder").to_string()


def test_kept_runs_and_run_folders_are_read_together_and_can_be_kept_together(run, tmp_path):
    keep(finished_runs([run(0.7, counts=np.ones((5, 3), int))]), tmp_path / "kept")
    both = finished_runs([tmp_path / "kept", run(0.8, seed=1, counts=np.ones((5, 3), int))])
    assert sorted(both["seed"]) == [0, 0, 1, 1]
    keep(both, tmp_path / "kept")
    again = finished_runs([tmp_path / "kept"])
    assert sorted(again["seed"]) == [0, 0, 1, 1] and all(
        counts_of(name, "teacher") is not None for name in again["folder"]
    )


@pytest.mark.parametrize("name", PATHS)
def test_kept_runs_and_a_new_seed_with_the_same_file_are_one_setting(run, tmp_path, name):
    data = "folder" if name == "positions" else "phantom"  # tables of positions are for own data

    def trained(seed, path):
        return run(0.7, seed=seed, dataset=data, **{name: path})

    keep(finished_runs([trained(seed, "/first/place/mine.csv") for seed in (0, 1)]), tmp_path / "kept")
    runs = finished_runs([tmp_path / "kept", trained(2, "/other/place/mine.csv"), trained(3, "beside/mine.csv")])
    assert set(runs["setting"]) == {data} and results_table(runs)["seeds"].tolist() == [4, 4]
    assert set(runs[name]) == {"mine.csv"}


@pytest.mark.parametrize("held", ["runs", "a plan", "a run"])
def test_runs_are_not_kept_in_a_folder_of_runs(run, command_line, tmp_path, held):
    """They would be read in place of the runs there, and a sweep's own table would be lost."""
    one = run(0.7)
    target = {"runs": one.parent, "a plan": tmp_path / "sweep", "a run": one}[held]
    target.mkdir(exist_ok=True)
    (target / TABLE).write_bytes(b"the table of the sweep")
    if held == "a plan":
        (target / "plan.yaml").write_text("runs: []")
    told = command_line("compare", one, "--keep", target)
    told.one_error("compare", f"{target}: holds runs (", "keep them in a folder of their own")
    assert told.text == "" and (target / TABLE).read_bytes() == b"the table of the sweep"
    assert not (target / COUNTS).exists()
    with pytest.raises(CheckpointError, match="which kept runs would hide"):
        keep(finished_runs([one]), target)


def test_runs_of_two_sweeps_that_have_one_name_keep_counts_of_their_own(run, tmp_path):
    sweeps = {steps: tmp_path / f"of {steps} steps" for steps in (100, 200)}
    for steps, sweep in sweeps.items():
        sweep.mkdir()
        run(0.7, steps=steps, counts=np.full((5, 3), steps)).rename(sweep / "qata-0.01-semi_medref-seed0")
    keep(finished_runs(sweeps.values()), tmp_path / "kept")
    for _ in range(2):
        kept = finished_runs([tmp_path / "kept"])
        assert kept["folder"].nunique() == 2
        for row in kept.itertuples():
            assert (counts_of(row.folder, row.network) == row.steps).all()
        keep(kept, tmp_path / "kept")  # kept runs can be kept again


def test_the_mean_share_of_mixed_samples_is_over_the_lines_that_have_it(run):
    one, two = run(0.7), run(0.7, seed=1)
    (one / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20, "accepted": 0.2}\n{"step": 30, "accepted": 0.4}\n')
    accepted = finished_runs([one, two]).set_index("seed")["accepted"]
    assert accepted[0].tolist() == pytest.approx([0.3, 0.3]) and accepted[1].isna().all()


def test_a_figure_of_an_unknown_kind_is_refused_before_anything_is_written(run, command_line, tmp_path):
    told = command_line("compare", run(0.7), "--keep", tmp_path / "kept", "--figure", tmp_path / "curves.word")
    assert told.status == 1 and "curves.word: figures are not written as word, only as" in told.errors
    assert not (tmp_path / "kept").exists()


def test_compare_keeps_metrics_and_renews_table_and_figure(run, command_line, tmp_path):
    folders = [run(0.7), run(0.6, method="supervised")]
    page, figure = tmp_path / "page.md", tmp_path / "curves.png"
    page.write_text("<!-- results -->\n<!-- /results -->\n")
    told = command_line(
        "compare", folders[0].parent, "--keep", tmp_path / "kept", "--markdown", page, "--figure", figure
    )
    assert told.status == 0, told.errors
    assert "| **70.0**<br>**70.0**<br>1 seed |" in page.read_text() and figure.stat().st_size > 5000
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [COUNTS, TABLE]
