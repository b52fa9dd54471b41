"""Runs side by side: only repetitions are averaged, every ablation has a name, and what is missing is said."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from semimedref_core.checkpoints import CheckpointError
from semimedref_core.comparison import (
    finished_runs,
    keep_metrics,
    mean_logged,
    missing_runs,
    run_folders,
    without_help,
)
from semimedref_core.records import read_metrics
from semimedref_core.runs import NOTEBOOKS
from semimedref_core.tables import markdown_table, methods_by_ratio, results_table, write_table


def test_runs_that_differ_in_the_seed_are_averaged_and_others_are_not(run):
    folders = [run(0.7, seed=0), run(0.8, seed=1), run(0.6, seed=0, gate=0.5)]
    table = results_table(finished_runs(folders)).reset_index()
    teacher = table[table["network"] == "teacher"].set_index("variant")
    assert dict(teacher["seeds"]) == {"": 2, "gate=0.5": 1}
    assert teacher.loc["", "dice_image"] == "75.0 ± 7.1" and teacher.loc["gate=0.5", "dice_image"] == "60.0"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"posaug_p": 0.0}, "without PosAug"),
        ({"itcl_weight": 0.0, "itcl_unlabelled_weight": 0.0}, "without ITCL"),
        (
            {"itcl_weight": 0.0, "itcl_unlabelled_weight": 0.0, "posaug_p": 0.0, "patch_p": 0.0},
            "without all three parts",
        ),
        ({"posaug_p": 0.0, "patch_p": 0.0}, "ITCL alone"),
        ({"itcl_weight": 0.0, "itcl_unlabelled_weight": 0.0, "patch_p": 0.0}, "PosAug alone"),
        ({"itcl_weight": 0.0, "itcl_unlabelled_weight": 0.0, "posaug_p": 0.0}, "T-PatchMix alone"),
        ({"itcl_weight": 0.0}, "itcl_weight=0.0"),
        ({"pseudo_labels": "teacher", "teacher_view": "same", "unfound": "image"}, "without our help"),
        ({"pseudo_labels": "teacher"}, "pseudo-labels not cut to zones"),
        ({"patch_p": 0.0, "positives": "hard", "tau": 0.2}, "without T-PatchMix, hard positives, tau=0.2"),
    ],
)
def test_an_ablation_is_named_by_what_is_changed(run, settings, name):
    runs = finished_runs([run(0.7), run(0.6, **settings)])
    assert list(dict.fromkeys(runs["variant"])) == ["", name]


def test_the_main_run_of_a_method_is_the_one_that_most_runs_share(run):
    folders = [run(0.7, seed=seed, gate=0.5) for seed in (0, 1)] + [run(0.6, gate=0.3), run(0.5, method="supervised")]
    runs = finished_runs(folders)
    found = {key: set(rows["variant"]) for key, rows in runs.groupby(["method", "gate"])}
    main = {("semi_medref", 0.5): {""}, ("semi_medref", 0.3): {"gate=0.3"}}
    assert found == {**main, ("supervised", 0.3): {""}}, "another method has a main run of its own"


def test_runs_of_another_method_are_not_told_apart_by_settings_of_semi_medref(run):
    runs = finished_runs([run(0.6, method="fixmatch", tau=0.1), run(0.7, method="fixmatch", seed=1)])
    assert set(runs["variant"]) == {""}


def test_mixing_as_the_release_does_is_a_variant_and_one_that_has_none_of_our_help(run):
    bare = {"pseudo_labels": "teacher", "teacher_view": "same", "unfound": "image"}
    released = run(0.5, method="semi_medref_release", gate=0.3)
    assert set(finished_runs([released])["method"]) == {"semi_medref_release"}, "nothing to be a variant of"
    runs = finished_runs([run(0.7), run(0.6, **bare), released])
    assert set(runs["method"]) == {"semi_medref"}
    assert list(dict.fromkeys(runs["variant"])) == ["", "without our help", "without our help, mixed as by the release"]
    assert list(dict.fromkeys(without_help(runs)["variant"])) == ["", "mixed as by the release"]


def test_settings_are_told_apart_only_by_what_differs_on_the_same_data(run):
    folders = [run(0.7, steps=10), run(0.7, steps=20), run(0.7, dataset="qata", steps=30, label_ratio=0.01)]
    folders += [run(0.7, dataset="qata", steps=30, label_ratio=0.02)]
    assert list(dict.fromkeys(finished_runs(folders)["setting"])) == ["qata", "phantom, 10 steps", "phantom, 20 steps"]


def test_what_was_run_most_widely_stands_first(run):
    run(0.7, label_ratio=0.01), run(0.7, dataset="qata", label_ratio=0.01), run(0.7, dataset="qata", method="cutmix")
    assert list(dict.fromkeys(finished_runs(run.folders)["setting"])) == ["qata", "phantom"], "more label ratios"
    run(0.7, label_ratio=0.02), run(0.7, dataset="qata", label_ratio=0.01, seed=1)
    assert list(dict.fromkeys(finished_runs(run.folders)["setting"])) == ["qata", "phantom"], "as many, of more runs"


def test_a_run_on_another_device_is_no_further_seed(run):
    folders = [run(0.7), run(0.8, seed=1, device="cuda"), run(0.8, seed=2, device="cuda:1")]
    assert list(dict.fromkeys(finished_runs(folders)["setting"])) == ["phantom, cuda", "phantom, cpu"]


@pytest.mark.parametrize(
    ("setting", "value"), [("mix_text", "rewrite"), ("teacher_view", "same"), ("unfound", "image")]
)
def test_a_run_of_an_older_version_stands_at_what_that_version_did(run, setting, value):
    old = run(0.7, seed=1)
    config = json.loads((old / "config.json").read_text())
    del config[setting]
    (old / "config.json").write_text(json.dumps(config))
    assert set(finished_runs([run(0.6, **{setting: value}), old])["variant"]) == {""}


def test_what_a_full_comparison_lacks_is_said(run):
    folders = [run(0.7, seed=seed, method=method) for seed in (0, 1) for method in ("supervised", "semi_medref")]
    folders += [run(0.8, method="supervised", label_ratio=1.0), run(0.8, label_ratio=0.5), run(0.6, posaug_p=0.0)]
    assert missing_runs(finished_runs(folders[:5])) == []
    assert missing_runs(finished_runs(folders)) == ["phantom, 50 % labels: supervised (seed 0)"], "one ablation, whole"
    folders += [run(0.6, gate=0.0, seed=1), run(0.6, gate=0.9, seed=1), run(0.7, seed=2)]
    assert missing_runs(finished_runs(folders))[0] == (
        "phantom, 5 % labels: supervised (seed 2); semi_medref without PosAug (seed 1); "
        "semi_medref without the gate, semi_medref gate=0.9 (seed 0)"
    )


def test_a_method_with_fewer_seeds_is_marked_and_one_that_did_not_run_has_an_empty_cell(run):
    folders = [
        run(0.7, seed=0),
        run(0.8, seed=1),
        run(0.6, method="cutmix"),
        run(0.9, method="cutmix", label_ratio=0.5),
    ]
    table = methods_by_ratio(finished_runs(folders))
    assert table.loc["cutmix"].tolist() == ["60.0 (1 of 2 seeds)", "90.0"]
    assert table.loc["semi_medref"].tolist() == ["75.0 ± 7.1", ""]


def test_the_readme_table_has_both_metrics_and_the_best_of_each_in_bold(run):
    lines = markdown_table(finished_runs([run(0.7), run(0.6, method="supervised")])).splitlines()
    assert lines[0] == "|  | supervised | semi_medref |"
    assert lines[2:] == ["| phantom, 5 % | 60.0<br>60.0 | **70.0**<br>**70.0** |"]


def test_a_cell_of_the_readme_table_says_how_many_seeds_where_others_of_the_row_have_more(run):
    folders = [run(0.7, seed=0), run(0.8, seed=1), run(0.6, method="supervised")]
    last = markdown_table(finished_runs(folders)).splitlines()[-1]
    assert last == "| phantom, 5 % | 60.0<br>60.0<br>1 of 2 seeds | **75.0 ± 7.1**<br>**75.0 ± 7.1** |"


def test_runs_without_our_help_are_a_comparison_and_a_row_of_their_own(run):
    bare = {"pseudo_labels": "teacher", "teacher_view": "same"}
    run(0.8), run(0.7, method="cutmix"), run(0.5, method="supervised"), run(0.9, method="supervised", label_ratio=1.0)
    run(0.6, **bare, unfound="image"), run(0.4, **bare, method="cutmix")
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
    assert last == ["semi_medref |", "--- |", "60.0<br>60.0 |", "80.0<br>80.0 |", " |"]
    assert without_help(finished_runs(run.folders[:3])).empty
    assert without_help(finished_runs(run.folders[4:])).empty, "then they are the comparison itself"


def test_the_table_in_the_readme_is_that_of_the_committed_runs():
    """``semimedref compare notebooks/results --markdown README.md --figure notebooks/pictures/results.png``"""
    readme = (NOTEBOOKS.parent / "README.md").read_text()
    table = re.search(r"<!-- results -->\n(.*)\n<!-- /results -->", readme, re.DOTALL)[1]
    assert table == markdown_table(finished_runs(run_folders([NOTEBOOKS / "results"])))


def test_a_table_goes_between_its_marks_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    write_table(page, "| new |")
    assert page.read_text() == "before\n<!-- results -->\n| new |\n<!-- /results -->\nafter\n"
    page.write_text("no marks")
    with pytest.raises(CheckpointError, match="page.md: no place for the table; add the lines <!-- results -->"):
        write_table(page, "| new |")
    assert page.read_text() == "no marks"


def test_a_folder_of_runs_stands_for_all_of_them(run, tmp_path):
    one, two = run(0.7), run(0.8, seed=1)
    (tmp_path / "runs" / "unfinished").mkdir()
    assert run_folders([tmp_path / "runs"]) == run_folders([one, two]) == [one, two]


def test_folders_without_a_finished_run_are_all_named(run, tmp_path):
    with pytest.raises(CheckpointError, match="one.*two.*results.json is missing"):
        finished_runs([run(0.7), tmp_path / "one", tmp_path / "two"])
    with pytest.raises(CheckpointError, match="no folder given"):
        finished_runs([])


def test_a_damaged_run_and_the_same_run_twice_are_named(run):
    one, two = run(0.7), run(0.8)
    with pytest.raises(CheckpointError, match=f"{one}, {two}: the same run more than once"):
        finished_runs([one, two])
    (two / "results.json").write_text('{"seconds": 1')
    with pytest.raises(CheckpointError, match="results.json: cannot be read"):
        finished_runs([one, two])


def test_kept_metrics_compare_as_the_run_itself_and_are_small(run, tmp_path):
    source, target = (
        run(0.7, counts=np.full((5, 3), 9), data="/home/someone/data", text_encoder="/home/someone/bert"),
        tmp_path / "kept" / "a",
    )
    lines = [{"step": step, "loss": 1 / 3} for step in range(10, 101, 10)]
    lines.insert(2, {"step": 20, "valid": {"teacher": {"dice_image": 2 / 3}}})
    (source / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    keep_metrics(source, target)
    kept, same = (
        finished_runs([folder]).drop(columns=["folder", "data", "text_encoder"]) for folder in (target, source)
    )
    assert kept.equals(same)
    assert read_metrics(target / "metrics.jsonl") == [
        {"step": 20, "valid": {"teacher": {"dice_image": 0.66667}}},
        {"step": 50, "loss": 0.33333},
        {"step": 100, "loss": 0.33333},
    ]
    with np.load(source / "valid.npz") as whole, np.load(target / "valid.npz") as counts:
        assert all(np.array_equal(whole[name], counts[name]) for name in ("student", "teacher"))
    assert json.loads((target / "config.json").read_text())["text_encoder"] == "bert"
    assert "someone" not in "".join(path.read_text() for path in target.glob("*.json*")), "a path of this machine"
    keep_metrics(source, target)  # again: the same run
    with pytest.raises(CheckpointError, match="holds another run than"):
        keep_metrics(run(0.7, seed=1), target)


def test_the_mean_of_a_logged_quantity_is_over_the_lines_that_have_it(run):
    one, two = run(0.7), run(0.7, seed=1)
    (one / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20, "accepted": 0.2}\n')
    (two / "metrics.jsonl").write_text('{"step": 20, "accepted": 0.4}\n')
    assert mean_logged([one, two], "accepted") == pytest.approx(0.3)
    assert np.isnan(mean_logged([one], "no such thing"))


def test_compare_keeps_metrics_and_renews_table_and_figure(run, command_line, tmp_path):
    folders = [run(0.7), run(0.6, method="supervised")]
    page, figure = tmp_path / "page.md", tmp_path / "curves.png"
    page.write_text("<!-- results -->\n<!-- /results -->\n")
    told = command_line(
        "compare", folders[0].parent, "--keep", tmp_path / "kept", "--markdown", page, "--figure", figure
    )
    assert told.status == 0, told.errors
    assert "| **70.0**<br>**70.0** |" in page.read_text() and figure.stat().st_size > 5000
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [Path(folder).name for folder in folders]
