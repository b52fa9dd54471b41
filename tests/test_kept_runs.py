"""What the pages say of the runs that come with the notebooks is what these runs say."""

import re

import pandas as pd
import pytest
import yaml

from semimedref_core.config import Config
from semimedref_core.experiments.pages import page_parts
from semimedref_core.experiments.plan import read_plan
from semimedref_core.experiments.results import METRICS, WITHOUT_HELP, counts_of, finished_runs
from semimedref_core.experiments.shipped import notebooks_folder
from semimedref_core.experiments.tables import write_between
from semimedref_core.experiments.verdict import verdict
from semimedref_core.runtime.checkpoints import CheckpointError


def test_the_pages_say_what_the_committed_runs_say():
    """``semimedref compare notebooks/results --markdown docs/results.md`` (and README.md)"""
    runs = finished_runs([notebooks_folder() / "results"])
    parts = page_parts(runs, verdict(runs))
    assert list(parts) == ["verdict", "claims", "results", "pretrained"]
    root = notebooks_folder().parent
    for page, names in ((root / "README.md", ["verdict"]), (root / "docs" / "results.md", list(parts))):
        for name in names:
            found = re.search(rf"<!-- {name} -->\n(.*)\n<!-- /{name} -->", page.read_text(), re.DOTALL)
            assert found[1] == parts[name], f"{name} in {page.name}: run the command above"


def test_the_page_of_results_tells_the_runs_of_the_pretrained_network():
    runs = pd.read_csv(notebooks_folder() / "results" / "lite.csv", keep_default_na=False)
    page = (notebooks_folder().parent / "docs" / "results.md").read_text()
    section = page.partition("## Where labels matter")[2].partition("\n## ")[0]
    budgets, _, trials = section.partition("### The trials")
    told = {tuple(map(float, pair)) for pair in re.findall(r"(\d\d\.\d) / (\d\d\.\d)", budgets)}
    kept = {(round(100 * a, 1), round(100 * b, 1)) for a, b in zip(runs["dice_image"], runs["dice_micro"], strict=True)}
    assert len(told) == 13 and told <= kept
    tried = runs[(runs["plan"] == "qata_lite_trials") & (runs["steps"] == 750)]
    rows = dict(re.findall(r"\| `(\w+)` \| (.* \| .*) \| .* \|", trials))
    assert set(rows) == set(tried["method"])
    for method, row in rows.items():
        best = tried[tried["method"] == method].nlargest(1, "dice_image").iloc[0]
        dice = f"{100 * best['dice_image']:.1f} / {100 * best['dice_micro']:.1f}"
        assert row == f"{best['variant'] or 'untuned'} | {dice}", method
    dice = runs.set_index(["method", "label_ratio", "image_size", "steps", "encoder_lr", "lr"])["dice_image"]
    at = 64, 1500, 0.3, 1e-3
    share = dice["semi_medref", 0.01, *at] / dice["supervised", 1.0, *at]
    assert f"{100 * share:.1f} % of all masks" in section


def test_the_page_of_results_tells_what_more_masks_give_the_pretrained_network():
    runs = finished_runs([notebooks_folder() / "results"])
    runs = runs[(runs["architecture"] == "lite") & (runs["network"] == "teacher") & (runs["method"] == "supervised")]
    page = (notebooks_folder().parent / "docs" / "results.md").read_text()
    section = " ".join(page.partition("## Where labels matter")[2].partition("\n### ")[0].split())
    assert f"as {len(read_plan(notebooks_folder() / 'plans' / 'qata_lite.yaml').runs)} runs" in section
    dice = 100 * runs[runs["steps"] == 1500].groupby("label_ratio")["dice_image"].mean()
    assert "gains from 1 to 15 % of the masks. From 15 to 100 % its mean does not change in 1500 steps" in section
    assert dice[0.15] - dice[0.05] > 1 and dice[0.05] - dice[0.01] > 1 and abs(dice[1.0] - dice[0.15]) < 0.05


def test_the_page_of_results_tells_how_close_the_methods_are_with_more_masks():
    runs = pd.read_csv(notebooks_folder() / "results" / "lite.csv", keep_default_na=False)
    runs = runs[(runs["plan"] == "qata_lite") & (runs["label_ratio"] == 0.05) & (runs["seed"] == 1)]
    dice = 100 * runs.set_index(["method", "variant"])["dice_image"]
    ours, few = dice["semi_medref"], dice.xs("", level="variant")
    others = few.drop(["bcp", "supervised"])
    assert len(others) == 10 and few["bcp"] < few["supervised"]
    spread, low, high = others.max() - others.min(), *(others - few["supervised"]).agg(["min", "max"])
    page = " ".join((notebooks_folder().parent / "docs" / "results.md").read_text().split())
    assert f"lie within {spread:.1f} points of each other, {low:.1f} to {high:.1f} above supervised training" in page
    assert min(ours["without all three parts"], ours["without our help"]) >= ours[""]


def test_the_page_of_results_tells_what_twice_the_steps_change():
    runs = finished_runs([notebooks_folder() / "results"])
    runs = runs[(runs["plan"] == "qata_lite_longer") & (runs["network"] == "teacher")].set_index(
        ["method", "label_ratio"]
    )
    page = (notebooks_folder().parent / "docs" / "results.md").read_text()
    section = " ".join(page.partition("## Where labels matter")[2].partition("\n### ")[0].split())
    few, all_masks, ours = (
        f"{100 * run.dice_image:.1f} / {100 * run.dice_micro:.1f}"
        for run in (runs.loc["supervised", 0.15], runs.loc["supervised", 1.0], runs.loc["semi_medref", 0.01])
    )
    share = runs.loc[("semi_medref", 0.01), "dice_image"] / runs.loc[("supervised", 1.0), "dice_image"]
    assert f"supervised training has {few} with 15 % of the masks, and {all_masks} with all." in section
    assert f"Semi-MedRef with 1 % has {ours} there, which is {100 * share:.1f} %" in section


def test_the_page_of_results_tells_the_runs_that_looked_for_a_reason():
    runs = pd.read_csv(notebooks_folder() / "results" / "lite.csv", keep_default_na=False)
    page = (notebooks_folder().parent / "docs" / "results.md").read_text()
    section = " ".join(page.partition("### Two explanations")[2].partition("\n## ")[0].split())
    tried = runs[runs["plan"] == "qata_lite_why"]
    assert len(tried) == 4
    for row in tried.itertuples():
        name = "`flip_sync`" if row.method == "flip_sync" else ", ".join(["Semi-MedRef", *filter(None, [row.variant])])
        assert f"| {name} | {100 * row.dice_image:.1f} / {100 * row.dice_micro:.1f} |" in section
    dice = (
        100
        * runs[(runs["plan"] == "qata_lite") & (runs["label_ratio"] == 0.01)].set_index(["method", "variant", "seed"])[
            "dice_image"
        ]
    )
    bare, flip = (
        [f"{dice[*name, seed]:.1f}" for seed in (1, 2)]
        for name in (("semi_medref", "without all three parts"), ("flip_sync", ""))
    )
    assert f"Semi-MedRef has {' and '.join(bare)} per image with seeds 1 and 2" in section
    assert f"`flip_sync` has {' and '.join(flip)}." in section
    of = runs[(runs["label_ratio"] == 0.01) & (runs["variant"] == "") & (runs["steps"] == 1500)]
    of = of[of["plan"].isin(["qata_lite", "qata_lite_why"])].set_index(["method", "seed"])["dice_image"]
    ahead = 100 * (of["semi_medref"] - of["flip_sync"])
    low = " and ".join(", ".join(f"{-ahead[seed]:.1f}" for seed in (1, 2, 3)).rsplit(", ", 1))
    assert f"{ahead[0]:.1f} points above `flip_sync`" in section and f"it is {low} points below" in section


def test_the_comparison_takes_what_the_trials_chose():
    plans = notebooks_folder() / "plans"
    blocks = yaml.safe_load((plans / "qata_lite_trials.yaml").read_text())["runs"]
    settings = {name: what for block in blocks for name, what in block.get("variants", {}).items()}
    runs = pd.read_csv(notebooks_folder() / "results" / "lite.csv", keep_default_na=False)
    tried = runs[(runs["plan"] == "qata_lite_trials") & (runs["steps"] == 750)].sort_values("dice_image")
    best = tried.groupby("method")["variant"].last()
    chosen = {method: settings[name] for method, name in best.items() if name}
    assert yaml.safe_load((plans / "qata_lite.yaml").read_text())["tuned"] == chosen


def test_texts_go_between_their_marks_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    write_between(page, {"verdict": "no place for it", "results": "| new |"})
    assert page.read_text() == "before\n<!-- results -->\n| new |\n<!-- /results -->\nafter\n"
    for text, said in (
        ("no marks", "page.md: no place for the results; add the lines <!-- results -->"),
        ("<!-- results -->\nhalf", "has only one of the lines <!-- results --> and <!-- /results -->"),
    ):
        page.write_text(text)
        with pytest.raises(CheckpointError, match=said):
            write_between(page, {"results": "| new |"})
        assert page.read_text() == text


def test_the_committed_runs_say_what_they_are():
    runs = finished_runs([notebooks_folder() / "results"])
    kept = set(runs["plan"])
    assert kept == {"qata", "qata_ablations", "qata_224px", "phantom_methods", "qata_lite", "qata_lite_longer"}
    lite = pd.read_csv(notebooks_folder() / "results" / "lite.csv", keep_default_na=False)
    plans = ["qata_lite", "qata_lite_longer"]
    lite = lite[lite["plan"].isin(plans)]["dice_image"]
    of_lite = runs[runs["plan"].isin(plans) & (runs["network"] == "teacher")]["dice_image"].round(4)
    assert sorted(lite) == sorted(of_lite) and len(runs) == 652 + 2 * len(lite)
    assert {"", "without PosAug", WITHOUT_HELP} <= set(runs["variant"])
    assert not runs[METRICS].isna().any(axis=None) and set(Config().to_dict()) - {"network"} <= set(runs)
    assert counts_of(runs["folder"].iloc[0], "teacher").shape == (1429, 3)


def test_the_page_of_own_data_tells_how_many_samples_were_mixed_in_our_runs():
    runs = finished_runs([notebooks_folder() / "results"])
    whole = runs[(runs["method"] == "semi_medref") & (runs["variant"] == "") & (runs["network"] == "teacher")]
    page = " ".join((notebooks_folder().parent / "docs" / "own_data.md").read_text().split())
    shares = 100 * whole.groupby("dataset")["accepted"].agg(["min", "max"])
    qata, phantom = ("{:.0f} to {:.0f} %".format(*shares.loc[name]) for name in ("qata", "phantom"))
    assert f"{qata} in our runs on QaTa-COV19, {phantom} on the phantom" in page
