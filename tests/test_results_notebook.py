"""What 08_results shows of a folder of runs: of a whole one, and of one that has barely begun."""

import jupytext
import matplotlib.pyplot as plt
import numpy as np
import own_folders
import pytest
import torch
from PIL import Image

from semimedref_core.data import phantom
from semimedref_core.evaluation import dice_and_iou, overlap
from semimedref_core.experiments.examples import gains_and_losses
from semimedref_core.experiments.results import finished_runs
from semimedref_core.experiments.shipped import notebooks_folder
from semimedref_core.experiments.statistics import ablations, learning_curves, method_differences
from semimedref_core.figures.differences import ablation_bars, difference_forest
from semimedref_core.figures.results import cost_and_accuracy, score_panels, spread, timed
from semimedref_core.runtime.checkpoints import CheckpointError, from_pretrained


@pytest.fixture
def notebook(monkeypatch, capsys):
    """``notebook(folder)`` runs all code of 08 in this process and returns what it printed and its figures."""
    monkeypatch.setattr(plt, "show", lambda: None)
    monkeypatch.setitem(plt.rcParams, "figure.dpi", 70)

    def run(folder):
        plt.close("all")
        names = {}
        for cell in jupytext.read(notebooks_folder() / "08_results.py").cells:
            if cell.cell_type == "code":
                exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names["folder"] = str(folder)
        return capsys.readouterr().out, [plt.figure(number) for number in plt.get_fignums()]

    yield run
    plt.close("all")


@pytest.fixture(scope="module")
def trained(train, finished_run, tmp_path_factory):
    """A folder of two finished small runs with their networks: supervised and semi_medref."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "semi_medref").symlink_to(finished_run)
    outcome = train(output=folder / "supervised", method="supervised")
    assert outcome.status == 0, outcome.errors
    return folder


def test_a_whole_comparison_has_every_figure_but_the_pictures(run, notebook):
    rng = np.random.default_rng(0)
    masks = rng.integers(20, 400, 40)
    runs = [
        {"method": method, "label_ratio": ratio, "seed": seed}
        for method in ("supervised", "cutmix", "semi_medref")
        for ratio in (0.05, 0.2)
        for seed in range(3)
    ]
    runs += [{"posaug_p": 0.0, "variant": "without PosAug", "seed": seed} for seed in range(3)] + [
        {"method": "supervised", "label_ratio": 1.0}
    ]
    plain = {"pseudo_labels": "teacher", "teacher_view": "same", "unfound": "image", "variant": "without our help"}
    runs += [{"method": method, "seed": seed, **plain} for method in ("cutmix", "semi_medref") for seed in range(3)]
    for settings in runs:
        share = rng.uniform(0.5, 0.6) + 0.2 * (settings.get("method") != "supervised")
        run(share, counts=np.stack([(share * masks).astype(int), masks, masks], 1), **settings)
    told, figures = notebook(run.folders[0].parent)
    assert len(figures) == 7
    said = [
        "28 finished runs, 9 of them variants",
        "without PosAug",
        "without our help",
        "seeds and images",
        "% of it",
        "not distinguishable: ",
    ]
    said += ["no method lacks a seed", "none of these runs kept its networks"]
    assert [words for words in said if words not in told] == []


def test_a_comparison_that_has_barely_begun_says_what_it_lacks(run, notebook):
    run(0.7, seed=0)
    run(0.6, seed=1, method="cutmix")
    told, figures = notebook(run.folders[0].parent)
    assert "phantom, 5 % labels: semi_medref (seed 1); cutmix (seed 0)" in told
    assert "no seed for which semi_medref and another method both ran" in told and "no ablations" in told
    assert "no runs of semi_medref and another method without our help" in told
    assert "left out: phantom" in told and len(figures) == 1


def test_runs_with_their_networks_are_shown_on_images_from_the_largest_gain_to_the_largest_loss(
    trained, notebook, monkeypatch
):
    monkeypatch.setitem(phantom.COUNTS, "valid", 6)
    told, figures = notebook(trained)
    assert "from the largest gain (left) to the largest loss (right)" in told
    methods = ["supervised", "semi_medref"]
    pairs, predictions = gains_and_losses(finished_runs([trained]), methods, count=3)
    assert len(figures[-1].axes) == 2 * 4 and set(pairs.names) <= set(phantom.phantom("valid", size=32).names)
    dice = np.array([dice_and_iou(_overlaps(predictions[method], pairs.masks))[0] for method in methods])
    with np.load(trained / "supervised/valid.npz") as a, np.load(trained / "semi_medref/valid.npz") as b:
        gains = dice_and_iou(b["teacher"])[0] - dice_and_iou(a["teacher"])[0]
    found = dice[1] - dice[0]
    assert (found[0], found[-1]) == pytest.approx((gains.max(), gains.min())) and (np.diff(found) <= 0).all()


def assert_as_scored(folder, methods):
    """The predictions have the Dice that the runs reported, image by image."""
    runs = finished_runs([folder])
    pairs, predictions = gains_and_losses(runs, methods, count=100)
    for method in methods:
        (run,) = {row.folder for row in runs.itertuples() if row.method == method}
        with np.load(f"{run}/valid.npz") as counts:
            reported = dice_and_iou(counts["teacher"])[0]
        found = dice_and_iou(_overlaps(predictions[method], pairs.masks))[0]
        assert sorted(found) == pytest.approx(sorted(reported)), method
    return pairs


def test_a_network_that_reads_pictures_on_their_side_is_shown_as_it_was_scored(trained, train, tmp_path, monkeypatch):
    monkeypatch.setitem(phantom.COUNTS, "valid", 6)
    (tmp_path / "upright").symlink_to(trained / "semi_medref")
    told = train(output=tmp_path / "on its side", method="supervised", axes="transposed", steps=30)
    assert told.status == 0, told.errors
    pairs = assert_as_scored(tmp_path, ["supervised", "semi_medref"])
    assert set(map(bytes, pairs.images)) == set(map(bytes, phantom.phantom("valid", size=32).images)), "upright"


def test_networks_of_one_s_own_data_are_shown_with_their_positions_and_colours(train, tmp_path):
    """All validation pictures are grey, but the network learnt from colours."""
    about = {"zones": ["near", "far"] * 6, "split": ["train"] * 8 + ["valid"] * 4}
    mine, table = own_folders.skin(tmp_path / "mine", **about), tmp_path / "pos.csv"
    for k in range(8, 12):
        path = mine / f"images/{k:03}.png"
        Image.open(path).convert("L").save(path)
    table.write_text("words,left,top,right,bottom\nnear,0,0,1,0.5\nfar,0,0.5,1,1\n")
    for method in ("supervised", "fixmatch"):
        own = {"dataset": "folder", "data": mine, "positions": table, "label_ratio": 0.5, "method": method}
        told = train(output=tmp_path / "runs" / method, **own)
        assert told.status == 0, told.errors
    assert from_pretrained(tmp_path / "runs/fixmatch")[0].channels == 3
    assert assert_as_scored(tmp_path / "runs", ["supervised", "fixmatch"]).channels == 1


def _overlaps(probs, masks):
    return overlap(*(torch.from_numpy(array)[:, None] >= 0.5 for array in (probs, masks))).numpy()


def test_runs_without_networks_are_told_as_such(run):
    runs = finished_runs([run(0.7), run(0.6, method="supervised")])
    with pytest.raises(CheckpointError, match="supervised, semi_medref all have trained networks"):
        gains_and_losses(runs, ["supervised", "semi_medref"])


def test_labels_beside_curves_do_not_touch_and_stay_near_their_curve():
    assert spread([1.0, 5.0, 9.0], 1.0).tolist() == [1.0, 5.0, 9.0]
    assert spread([1.0, 1.0, 1.2, 9.0], 1.0) == pytest.approx([1.0667 - 1, 1.0667, 1.0667 + 1, 9.0], abs=1e-3)


def test_training_with_all_masks_is_a_line_beside_others_and_a_mark_alone(run):
    for ratio in (0.05, 0.2, 1.0):
        run(0.5 + 0.1 * ratio, method="supervised", label_ratio=ratio)
    curves = learning_curves(finished_runs(run.folders))
    figure = score_panels(curves)
    (ax,) = figure.axes
    assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"] == [pytest.approx(60)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["5 % labels", "20 % labels"]
    (ax,) = score_panels(curves[curves["label_ratio"] == 1]).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["supervised"]
    assert not [line for line in ax.lines if line.get_linestyle() == "--"]


def test_a_single_seed_has_a_small_mark_and_no_interval(run):
    for seed in range(3):
        run(0.6 + 0.01 * seed, seed=seed), run(0.5, seed=seed, method="supervised")
    run(0.55, method="cps", counts=np.tile([22, 40, 40], (5, 1)))
    runs = finished_runs(run.folders)
    (ax,) = score_panels(learning_curves(runs)).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["supervised", "cps", "semi_medref"]
    assert {line.get_ydata()[0]: line.get_markersize() for line in ax.lines} == {0: 7, 1: 4, 2: 7}
    assert sorted(bar.get_segments()[0][0][1] for bar in ax.collections) == [0, 2]
    (ax,) = difference_forest(method_differences(runs)).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["supervised", "cps, 1 seed"]
    assert {line.get_ydata()[0] for line in ax.lines if line.get_linewidth() == 1.2 and len(line.get_xdata()) == 2} == {
        0
    }


def test_times_are_shown_only_where_supervised_training_is_the_fastest(run):
    for size in (32, 64):
        run(0.5, method="supervised", image_size=size), run(0.6, image_size=size)
    runs = finished_runs(run.folders)
    runs.loc[runs["method"] == "semi_medref", "seconds"] = 90
    runs.loc[(runs["method"] == "supervised") & (runs["image_size"] == 64), "seconds"] = 600
    curves = learning_curves(runs)
    assert set(timed(curves)["setting"]) == {"phantom, 32 px"} and len(timed(curves)) == 2
    assert len(cost_and_accuracy(timed(curves)).axes) == 1


def test_a_variant_far_below_the_others_does_not_hide_small_differences(run):
    (
        run(0.7),
        run(0.69, posaug_p=0.0, variant="a"),
        run(0.68, gate=0.0, variant="b"),
        run(0.71, positives="hard", variant="c"),
    )
    assert len(ablation_bars(ablations(finished_runs(run.folders))).axes) == 1
    run(0.4, report_text="none", variant="without reports")
    whole, near = ablation_bars(ablations(finished_runs(run.folders))).axes
    assert whole.get_xlim()[0] < -30 and -10 < near.get_xlim()[0] < -1 < 1 < near.get_xlim()[1] < 10
    assert near.get_title() == "the same, near zero"
