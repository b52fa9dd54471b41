"""Paired differences: the intervals hold what they say, on cases with a known answer."""

import numpy as np
import pandas as pd
import pytest

from semimedref_core.evaluation import dice_and_iou, scores
from semimedref_core.experiments.results import METRICS, finished_runs
from semimedref_core.experiments.statistics import (
    DRAWS,
    ablations,
    by_lesion_size,
    holm,
    in_points,
    interval,
    learning_curves,
    method_differences,
    p_value,
    paired_difference,
    paired_scores,
    resampled_difference,
)
from semimedref_core.runtime.checkpoints import CheckpointError


def counts_of(dice, size=100):
    """Counts ``[N, 3]`` of images with these Dice: predicted and target both have ``size`` pixels."""
    both = np.round(np.asarray(dice) * size)
    return np.stack([both, np.full_like(both, size), np.full_like(both, size)], 1).astype(int)


@pytest.mark.parametrize("metric", METRICS)
def test_a_resample_scores_as_the_images_drawn_would(metric):
    rng = np.random.default_rng(0)
    counts = np.sort(rng.integers(0, 50, (20, 3)), 1)
    counts[:3] = 0  # no lesion, nothing found
    nothing = counts * [0, 0, 1]
    found = resampled_difference(np.stack([[counts, nothing]]))[metric]
    assert found.shape == (DRAWS,)
    drawn = np.random.default_rng(0).integers(0, 20, (50, 20))  # scipy's own first draws, batch by batch
    theirs = [scores(counts[chosen])[metric] - scores(nothing[chosen])[metric] for chosen in drawn]
    assert found[:50] == pytest.approx(theirs)


@pytest.mark.parametrize(("of_images", "of_seeds"), [(1.0, 0.02), (0.02, 1.0)])
def test_the_interval_over_seeds_and_images_holds_the_truth_as_often_as_it_says(of_images, of_seeds):
    """Three seeds, 50 images of skewed difficulty; the true difference is 0. Images alone, or a plain bootstrap that
    draws the three seeds anew, hold it too rarely once seeds matter."""
    rng, seeds, images, trials = np.random.default_rng(0), 3, 50, 300
    held = {"both": 0, "images": 0, "seeds drawn anew": 0}
    for _ in range(trials):
        d = of_images * (rng.exponential(size=images) - 1) + of_seeds * rng.normal(size=(seeds, 1))
        d = d + 0.1 * of_images * rng.normal(size=(seeds, images))
        by_draw = rng.multinomial(images, np.full(images, 1 / images), size=DRAWS) @ d.T / images  # [draws, seeds]
        drawn = rng.integers(0, seeds, (500, seeds))
        found = {
            "both": interval(d.mean(1), by_draw.mean(1)),
            "images": interval(d.mean(1)[:1], by_draw.mean(1)),
            "seeds drawn anew": np.quantile(np.take_along_axis(by_draw[:500], drawn, 1).mean(1), [0.025, 0.975]),
        }
        for name, (low, high) in found.items():
            held[name] += low <= 0 <= high
    shares = {name: count / trials for name, count in held.items()}
    assert 0.92 <= shares["both"] <= 0.995
    if of_seeds == 1.0:
        assert shares["images"] < 0.2 and shares["seeds drawn anew"] < 0.8


def test_without_counts_the_interval_is_student_s_over_seeds():
    low, high = interval(np.array([1.0, 2.0, 3.0]))
    assert (low, high) == pytest.approx((2 - 4.3027 / np.sqrt(3), 2 + 4.3027 / np.sqrt(3)), abs=1e-3)
    assert np.isnan(interval(np.array([1.0]))).all()


def test_holm_s_rule_on_a_worked_example():
    assert holm([0.01, 0.04, 0.03, np.nan]) == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0] and holm([0.02]).tolist() == [0.02]


@pytest.mark.parametrize("drawn", [False, True], ids=["seeds", "seeds and images"])
def test_a_p_value_is_below_5_percent_just_where_the_interval_leaves_out_zero(drawn):
    rng = np.random.default_rng(0)
    for mean in np.linspace(-2, 2, 21):
        by_seed = mean + rng.standard_normal(5)
        by_draw = by_seed.mean() + 0.3 * rng.standard_normal(2000) if drawn else None
        low, high = interval(by_seed, by_draw)
        if min(abs(low), abs(high)) > 0.02:  # so near to zero the number of draws decides
            assert (p_value(by_seed, by_draw) < 0.05) == (low > 0 or high < 0)
    assert np.isnan(p_value(np.array([1.0]))), "one seed says nothing of others"


def test_of_many_equal_methods_holm_s_rule_seldom_calls_one_different():
    """With ten others, an uncorrected verdict at 5 % would be wrong somewhere in about a third of the comparisons."""
    rng, found = np.random.default_rng(0), {"single": 0, "corrected": 0}
    for _ in range(300):
        p = [p_value(seeds) for seeds in rng.standard_normal((10, 5))]
        found["single"] += min(p) < 0.05
        found["corrected"] += holm(p).min() < 0.05
    assert found["single"] > 90 and found["corrected"] <= 25


def test_images_are_paired_so_that_their_difficulty_drops_out(run):
    hard = np.random.default_rng(0).uniform(0.1, 0.9, 200)
    for seed in range(2):
        run(0.5, seed=seed, counts=counts_of(hard + 0.05))
        run(0.5, seed=seed, method="cutmix", counts=counts_of(hard))
    rows = method_differences(finished_runs(run.folders)).set_index("metric")
    row = rows.loc["dice_image"]
    assert row["difference"] == pytest.approx(0.05, abs=1e-3)
    assert row["high_images"] - row["low_images"] < 0.004, "unpaired, it would be 0.07"
    assert rows.loc["dice_micro", "difference"] == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize("masks", [[9, 9, 8], [9, 9]])
def test_runs_that_were_scored_on_other_masks_are_not_compared(run, masks):
    """Older runs do not tell their pairs; the sizes of the true lesions do."""
    one = run(0.5, counts=np.array([[5, 9, 9]] * 3))
    two = run(0.5, method="cutmix", counts=np.array([[5, 9, size] for size in masks]))
    runs = finished_runs(run.folders)
    with pytest.raises(CheckpointError, match=f"{one}, {two}: were scored on different validation masks"):
        method_differences(runs)
    with pytest.raises(CheckpointError, match="compare only runs on the same data"):
        by_lesion_size(
            *(runs[(runs["method"] == name) & (runs["network"] == "teacher")] for name in ("semi_medref", "cutmix"))
        )


def test_only_seeds_that_both_have_are_compared_and_the_row_says_over_what_its_interval_goes(run):
    folders = [run(0.7, seed=0), run(0.8, seed=1), run(0.9, seed=2), run(0.6, method="supervised")]
    folders += [run(0.65, seed=1, method="supervised"), run(0.1, seed=2, method="supervised", steps=7)]
    rows = method_differences(finished_runs(folders), metrics=("dice_image",))
    assert len(rows) == 1 and rows.loc[0, "seeds"] == 2, "seed 2 has no partner of as many steps"
    assert rows.loc[0, "by_seed"] == pytest.approx([0.1, 0.15])
    assert (rows.loc[0, "over"], rows.loc[0, "verdict"]) == ("seeds", "not distinguishable")
    told = in_points(rows).loc[0]
    assert (told["points"], told["smallest seed"], told["images alone"]) == ("+12.5", "+10.0", "")


def test_one_seed_with_counts_has_an_interval_over_images_and_no_verdict_on_the_methods(run):
    run(0.5, counts=counts_of([0.9, 0.8, 0.7]))
    run(0.5, method="cutmix", counts=counts_of([0.5, 0.6, 0.5]))
    row = method_differences(finished_runs(run.folders), metrics=("dice_image",)).loc[0]
    assert (row["over"], row["verdict"]) == ("images", "one seed")
    assert row["low"] == pytest.approx(0.2) and row["high"] == pytest.approx(0.4), "worst and best of three images"


def test_a_clear_difference_is_called_one_in_either_direction(run):
    for seed in range(3):
        run(0.70 + 0.001 * seed, seed=seed)
        run(0.60, seed=seed, method="cutmix")
        run(0.80, seed=seed, method="cps")
    rows = method_differences(finished_runs(run.folders), metrics=("dice_image",)).set_index("against")
    assert dict(rows["verdict"]) == {"cutmix": "above", "cps": "below"}


def test_the_best_other_method_is_picked_for_each_ratio_among_those_with_the_most_seeds(run):
    for seed in range(2):
        run(0.9, seed=seed)
        run(0.7, seed=seed, method="cutmix")
        run(0.6, seed=seed, method="cps")
        run(0.9, seed=seed, label_ratio=0.5)
        run(0.7, seed=seed, method="cps", label_ratio=0.5)
        run(0.6, seed=seed, method="cutmix", label_ratio=0.5)
    run(0.8, seed=0, method="unimatch")
    rows = method_differences(finished_runs(run.folders), metrics=("dice_image",))
    assert rows[rows["best"]].set_index("label_ratio")["against"].to_dict() == {0.05: "cutmix", 0.5: "cps"}


def test_an_ablation_is_the_variant_minus_the_whole_method(run):
    for seed in range(3):
        run(0.7, seed=seed)
        run(0.66 + 0.001 * seed, seed=seed, patch_p=0.0, variant="without T-PatchMix")
    run(0.2, method="cutmix", patch_p=0.0)
    rows = ablations(finished_runs(run.folders), metrics=("dice_image",))
    assert rows["variant"].tolist() == ["without T-PatchMix"] and rows["verdict"].tolist() == ["below"]
    assert rows.loc[0, "difference"] == pytest.approx(-0.039)


def test_learning_curves_say_what_share_of_training_with_all_masks_is_reached(run):
    for seed in range(2):
        run(0.6, seed=seed)
        run(0.5, seed=seed, method="supervised")
        run(0.1, seed=seed, gate=0.9, variant="strict gate")  # a variant is no point of the curve
    run(0.8, method="supervised", label_ratio=1.0)
    curves = learning_curves(finished_runs(run.folders)).set_index(["method", "label_ratio"])
    assert curves["of_full"].to_dict() == pytest.approx(
        {("semi_medref", 0.05): 0.75, ("supervised", 0.05): 0.625, ("supervised", 1.0): 1.0}
    )
    assert np.isnan(curves.loc[("supervised", 1.0), "low"]), "one seed has no interval"


def test_a_difference_is_found_where_it_is_by_the_size_of_the_lesion(run):
    target = np.repeat([0, 10, 50, 200], 10)
    even, better = target // 2, np.where(target == 200, 180, target // 2)
    for method, both in (("cutmix", even), ("semi_medref", better)):
        run(0.5, method=method, image_size=32, counts=np.stack([both, target, target], 1))
    runs = finished_runs(run.folders).query("network == 'teacher'").set_index("method", drop=False)
    table = by_lesion_size(*(runs[runs["method"] == method] for method in ("semi_medref", "cutmix")))
    assert table["images"].tolist() == [10, 10, 10, 10]
    assert (table["ours"] - table["theirs"]).to_dict() == pytest.approx(
        {"no lesion": 0, "small": 0, "middle": 0, "large": 0.4}
    )
    assert table.loc["large", "lesion"] == pytest.approx(200 / 32**2)
    assert table.loc["large", "area_ours"] == 1 and np.isnan(table.loc["no lesion", "area_ours"])


def test_runs_without_counts_have_no_sizes_and_methods_that_never_met_no_difference(run):
    runs = finished_runs([run(0.7), run(0.6, method="cutmix", seed=1)])
    ours, theirs = (runs[(runs["method"] == m) & (runs["network"] == "teacher")] for m in ("semi_medref", "cutmix"))
    assert by_lesion_size(ours, theirs.assign(seed=0)).empty
    assert method_differences(runs).empty and "best" in method_differences(runs)
    row = paired_difference(ours, theirs.assign(seed=0), "dice_image")
    assert (
        row["over"] == "nothing" and np.isnan(row["low"]) and isinstance(in_points(pd.DataFrame([row])), pd.DataFrame)
    )


def test_student_and_teacher_of_one_run_are_not_taken_for_two_seeds(run):
    """The table of runs has two rows for each, so a table that is not filtered would pair each with each."""
    run(0.7, image_size=32), run(0.6, method="cutmix", image_size=32)
    runs = finished_runs(run.folders)
    ours, theirs = (runs[runs["method"] == method] for method in ("semi_medref", "cutmix"))
    teachers = ours[ours["network"] == "teacher"]
    for pair in ((ours, theirs), (teachers, theirs), (ours, teachers)):
        with pytest.raises(ValueError, match="several rows have one seed; keep one network and one row for each seed"):
            paired_difference(*pair, "dice_image")
        with pytest.raises(ValueError, match="several rows have one seed"):
            by_lesion_size(*pair)


def test_a_student_may_be_compared_with_its_teacher(run):
    folder = run(0.5, counts=counts_of([0.5, 0.6, 0.7]))
    np.savez(folder / "valid.npz", student=counts_of([0.2, 0.3, 0.4]), teacher=counts_of([0.5, 0.6, 0.7]))
    student, teacher = (finished_runs([folder]).query(f"network == '{name}'") for name in ("student", "teacher"))
    row = paired_difference(teacher, student, "dice_image")
    assert (row["low"], row["high"]) == pytest.approx((0.3, 0.3)), "of the images of the two, as counted"


def test_scores_of_one_s_own_are_compared_as_runs_are(run):
    rng = np.random.default_rng(0)
    counts = {
        method: [counts_of((rng.uniform(0.2, 0.8, 50) + better).clip(0, 1)) for _ in range(3)]
        for method, better in (("semi_medref", 0.1), ("cutmix", 0))
    }
    for method, of_seeds in counts.items():
        for seed, of_images in enumerate(of_seeds):
            run(0.5, seed=seed, method=method, counts=of_images)
    teachers = finished_runs(run.folders).query("network == 'teacher'")
    expected = paired_difference(*(teachers[teachers["method"] == method] for method in counts), "dice_image")
    found = paired_scores(*(dice_and_iou(np.array(of_seeds))[0] for of_seeds in counts.values()))
    assert list(found) == list(expected) and found["by_seed"] == pytest.approx(expected.pop("by_seed"))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert paired_scores([[0.5, 0.6]], [[0.4, 0.4]])["verdict"] == "one seed"


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (np.ones(5), np.ones(5), r"got shapes \(5,\) and \(5,\); give two tables of one shape"),
        (np.ones((3, 5)), np.ones((3, 4)), r"\(3, 5\) and \(3, 4\)"),
        (np.ones((3, 1)), np.ones((3, 1)), "at least two images"),
        (np.ones((0, 5)), np.ones((0, 5)), "a row for each seed"),
        (np.ones((2, 2)), np.array([[1, np.nan], [1, 1]]), "theirs has a score that is not finite"),
    ],
)
def test_scores_that_are_no_table_of_seeds_and_images_are_refused(ours, theirs, told):
    with pytest.raises(ValueError, match=told):
        paired_scores(ours, theirs)
