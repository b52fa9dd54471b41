"""The verdict says what the runs say: each claim, on runs whose answer is known."""

import pytest

from semimedref_core.experiments.results import finished_runs
from semimedref_core.experiments.verdict import ALL_PARTS, WATERFALL, main_result, verdict, waterfall

ABOVE_SUPERVISED = "better than supervised training, with our additions"
ABOVE_BASELINES = "better than the best semi-supervised baseline, with our additions"
BARE_ABOVE_SUPERVISED = "better than supervised training, without our additions"
BARE_ABOVE_BASELINES = "better than the best semi-supervised baseline, without our additions"
POSAUG_HELPS = "PosAug helps, with whole reports"


def judged(runs) -> dict:
    claims = verdict(runs).claims
    return {(row.claim, row.labels): row.verdict for row in claims.itertuples()}


def test_a_claim_is_supported_contradicted_or_left_open_by_its_runs(run):
    for seed, noise in enumerate((-0.001, 0.0, 0.001)):
        run(0.70 + noise, seed=seed, label_ratio=0.01)
        run(0.60, seed=seed, label_ratio=0.01, method="supervised")
        run(0.65, seed=seed, label_ratio=0.01, method="cutmix")
        run(0.70, seed=seed, label_ratio=0.05)
        run(0.72 + noise, seed=seed, label_ratio=0.05, method="supervised")
        run(0.70 + 20 * noise, seed=seed, label_ratio=0.05, method="cps")
    said = judged(finished_runs(run.folders))
    assert said[ABOVE_SUPERVISED, "1 %"] == said[ABOVE_BASELINES, "1 %"] == "supported"
    assert said[ABOVE_SUPERVISED, "5 %"] == "contradicted"
    assert said[ABOVE_BASELINES, "5 %"] == "not distinguishable"
    assert said["T-PatchMix helps", ""] == "untested", "no run without it"


def test_the_best_baseline_is_no_other_form_of_the_method_and_not_supervised_training(run):
    for seed in range(2):
        run(0.7, seed=seed)
        run(0.9, seed=seed, method="supervised")
        run(0.8, seed=seed, method="semi_medref_release")
        run(0.6 + 0.001 * seed, seed=seed, method="cutmix")
        run(0.5, seed=seed, method="cps")
    claims = verdict(finished_runs(run.folders)).claims.set_index("claim")
    assert "over cutmix" in claims.loc[ABOVE_BASELINES, "measured"]


def test_one_seed_tests_nothing(run):
    run(0.7, label_ratio=0.01)
    run(0.6, label_ratio=0.01, method="cutmix")
    run(0.5, label_ratio=0.01, method="supervised")
    runs = finished_runs(run.folders)
    assert set(judged(runs).values()) == {"untested"}
    claims = verdict(runs).claims.set_index("claim")["measured"]
    assert claims[ABOVE_BASELINES] == "per image +10.0 over cutmix; micro +10.0 over cutmix; 1 seed", (
        "no interval, no p"
    )


def test_a_claim_tells_holm_s_p_and_whose_it_is(run):
    for seed in range(3):
        run(0.7 + 0.01 * seed, seed=seed, label_ratio=0.01)
        run(0.6, seed=seed, label_ratio=0.01, method="supervised")
        run(0.8, seed=seed, label_ratio=1.0, method="supervised")
    said = verdict(finished_runs(run.folders))
    claims = said.claims.set_index("claim")
    assert claims.loc[ABOVE_SUPERVISED, "measured"].startswith(
        "per image +11.0 [+8.5, +13.5] over supervised, p 0.003; "
    )
    assert set(claims.loc[claims["whose"] == "ours"].index) == {
        ABOVE_SUPERVISED, ABOVE_BASELINES, "the fewest masks reach 97 % of all masks' Dice per image",
    }  # fmt: skip
    assert {BARE_ABOVE_SUPERVISED, BARE_ABOVE_BASELINES} <= set(claims.loc[claims["whose"] == "paper"].index)
    assert "| claim | whose | labels |" in said.table


def test_a_part_is_told_as_what_it_adds(run):
    for seed in range(3):
        run(0.70, seed=seed, label_ratio=0.01)
        run(0.68 + 0.001 * seed, seed=seed, label_ratio=0.01, variant="without ITCL")
        run(0.73 + 0.001 * seed, seed=seed, label_ratio=0.01, variant="without PosAug")
    runs = finished_runs(run.folders)
    said, claims = judged(runs), verdict(runs).claims.set_index("claim")
    assert said["ITCL helps", "1 %"] == "supported" and said[POSAUG_HELPS, "1 %"] == "contradicted"
    assert "per image +1.9 [+1.7, +2.1]" in claims.loc["ITCL helps", "measured"]
    assert "per image -3.1" in claims.loc[POSAUG_HELPS, "measured"]


@pytest.mark.parametrize(("dice", "said"), [(0.79, "supported"), (0.7, "contradicted")])
def test_the_fewest_masks_are_held_against_all_masks(run, dice, said):
    run(0.8, method="supervised", label_ratio=1.0)
    for seed in range(2):
        run(dice, seed=seed, label_ratio=0.01)
        run(0.81, seed=seed, label_ratio=0.05)
    claim = "the fewest masks reach 97 % of all masks' Dice per image"
    assert judged(finished_runs(run.folders))[claim, "1 %"] == said


def test_the_setting_that_compares_most_methods_comes_first_and_the_others_follow_with_what_they_say(run):
    for seed in range(2):
        for method in ("semi_medref", "supervised", "cps"):
            run(0.6, seed=seed, label_ratio=0.01, method=method, network="lite")
        for method in ("semi_medref", "supervised"):
            for ratio in (0.01, 0.05):
                run(0.7, seed=seed, label_ratio=ratio, method=method)
    said = verdict(finished_runs(run.folders))
    assert "network lite" in said.lines[-1]
    assert list(dict.fromkeys(said.claims["setting"])) == ["phantom, lite", "phantom, compact", ""]
    of_second = said.claims[said.claims["setting"] == "phantom, compact"]
    assert set(of_second["claim"]) == {ABOVE_SUPERVISED}, "without what it has no runs for"
    assert said.table.index("**phantom, lite**") < said.table.index("**phantom, compact**")


def test_what_no_run_can_say_is_in_the_table(run):
    lines = verdict(finished_runs([run(0.7)])).table
    assert "| all of it on MosMedData+ |" in lines and "**untested**" in lines


def test_the_box_has_five_lines_and_says_so_where_the_method_has_not_run(run):
    other = finished_runs([run(0.7, method="cps")])
    assert verdict(other).lines == ("No finished runs of semi_medref: nothing can be said.",)
    run(0.6, method="supervised", seed=1)
    run(0.8, seed=1)
    lines = verdict(finished_runs(run.folders)).lines
    assert len(lines) == 4 and "Against supervised training: 20.0 better at 5 % (one seed)." in lines
    run(0.75, seed=1, variant=ALL_PARTS)
    lines = verdict(finished_runs(run.folders)).lines
    assert len(lines) == 5


def test_the_waterfall_adds_up_over_the_seeds_that_all_steps_have(run):
    for seed in range(3):
        for number, (_, method, variant) in enumerate(WATERFALL):
            if (seed, number) != (2, 3):
                run(0.5 + 0.05 * number, seed=seed, method=method, variant=variant, label_ratio=0.01)
    steps = waterfall(finished_runs(run.folders), 0.01)
    assert steps["step"].tolist()[::5] == ["supervised", "ITCL"]
    assert steps["difference"][1:].tolist() == pytest.approx([0.05] * 5) and set(steps["seeds"][1:]) == {2}
    assert steps["mean"].iloc[0] + steps["difference"][1:].sum() == pytest.approx(steps["mean"].iloc[-1])
    assert waterfall(finished_runs(run.folders), 0.05).empty


def test_a_step_that_nobody_ran_is_part_of_the_next_one_and_named(run):
    for seed in range(3):
        for number, (_, method, variant) in enumerate(WATERFALL):
            if number not in (1, 3):
                run(0.5 + 0.05 * number, seed=seed, method=method, variant=variant, label_ratio=0.01)
    steps = waterfall(finished_runs(run.folders), 0.01)
    assert steps["step"].tolist() == ["supervised", "shared recipe, our additions", "PosAug, T-PatchMix", "ITCL"]
    assert steps["difference"][1:].tolist() == pytest.approx([0.1, 0.1, 0.05])
    assert steps["missing"].tolist() == [
        "", "semi_medref without our help, without all three parts", "semi_medref PosAug alone", "",
    ]  # fmt: skip
    runs = finished_runs(run.folders)
    assert waterfall(runs[runs["variant"] != ALL_PARTS], 0.01).empty, "nothing parts the recipe from the three parts"


@pytest.mark.parametrize(
    ("without", "said"),
    [
        (
            0.69,
            "nearly all of the gain over supervised training (+10.0, 3 seeds) comes from the shared recipe and our "
            "additions (+9.0).",
        ),
        (0.66, "most of the gain over supervised training"),
        (0.61, "less than half of the gain over supervised training"),
        (0.71, "all of the gain over supervised training"),
    ],
)
def test_where_the_gain_comes_from_is_one_computed_sentence(run, without, said):
    for seed, noise in enumerate((-0.02, 0.0, 0.02)):
        run(0.7, seed=seed, label_ratio=0.01)
        run(without + noise, seed=seed, label_ratio=0.01, variant=ALL_PARTS)
        run(0.6, seed=seed, label_ratio=0.01, method="supervised")
    runs = finished_runs(run.folders)
    told = main_result(runs)
    assert told.startswith(f"With the network compact, 600 steps and 1 % of the masks, {said}")
    assert told == verdict(runs).lines[-2]
    assert f"the paper's three parts give {100 * (0.7 - without):+.1f} [" in told
    assert told.endswith(" (may be chance)." if abs(0.7 - without) < 0.05 else " (sure).")


def test_without_a_gain_the_sentence_says_so_and_one_seed_has_no_interval(run):
    run(0.5, label_ratio=0.01)
    run(0.49, label_ratio=0.01, variant=ALL_PARTS)
    assert main_result(finished_runs(run.folders)) == ""
    run(0.6, label_ratio=0.01, method="supervised")
    assert main_result(finished_runs(run.folders)) == (
        "With the network compact, 600 steps and 1 % of the masks, recipe, additions and parts give no gain over "
        "supervised training (-10.0). Added last, the paper's three parts give +1.0 (one seed)."
    )


def test_the_sentence_is_of_the_first_setting_with_two_seeds(run):
    for seed in range(2):
        for dice, settings in ((0.7, {}), (0.69, {"variant": ALL_PARTS}), (0.6, {"method": "supervised"})):
            run(dice + 0.001 * seed, seed=seed, label_ratio=0.01, **settings)
            if seed == 0:
                run(dice, label_ratio=0.01, network="lite", **settings)
    run(0.65, label_ratio=0.01, network="lite", method="cps")
    runs = finished_runs(run.folders)
    assert runs["architecture"].iloc[0] == "lite" and "network compact, 600 steps and 1 %" in main_result(runs)


def test_a_part_with_fewer_seeds_than_another_says_so(run):
    for seed in range(3):
        run(0.7 + 0.01 * seed, seed=seed, label_ratio=0.01)
        run(0.6, seed=seed, label_ratio=0.01, method="supervised")
        run(0.69 + 0.01 * seed, seed=seed, label_ratio=0.01, variant="without T-PatchMix")
        if seed < 2:
            run(0.68 + 0.01 * seed, seed=seed, label_ratio=0.01, variant="without PosAug")
    (line,) = [line for line in verdict(finished_runs(run.folders)).lines if line.startswith("What each part")]
    assert (
        "T-PatchMix +1.0 at 1 % (sure);" in line
        and "PosAug, with whole reports (see notebook 03), +2.0 at 1 % (2 seeds, sure)" in line
    )


def test_the_box_says_better_worse_or_level_and_how_sure(run):
    for seed, noise in enumerate((0.0, 0.0002, 0.0001)):
        run(0.7 + noise, seed=seed, label_ratio=0.01)
        run(0.6, seed=seed, label_ratio=0.01, method="supervised")
        run(0.71, seed=seed, label_ratio=0.01, method="unimatch")
        run(0.75, seed=seed, label_ratio=0.05)
        run((0.7, 0.8, 0.75)[seed], seed=seed, label_ratio=0.05, method="cps")
    box = verdict(finished_runs(run.folders)).box
    assert "Against supervised training: 10.0 better at 1 % (sure)." in box
    assert "1.0 worse than unimatch at 1 % (sure); 0.0 against cps at 5 % (may be chance)." in box


def test_where_nothing_is_ours_the_parts_are_judged_too(run):
    """Added last they are worth less than in the paper's place, so the verdict tells both."""
    for seed in range(2):
        for dice, settings in (
            (0.7, {}),
            (0.69, {"variant": ALL_PARTS}),
            (0.6, {"method": "supervised"}),
            (0.66, {"variant": "without our help"}),
            (0.63, {"variant": "without our help", "method": "cps"}),
        ):
            run(dice, seed=seed, label_ratio=0.01, **settings)
    runs = finished_runs(run.folders)
    told = main_result(runs)
    assert told.endswith(
        "If no method gets our additions to the pseudo-labels, semi_medref is 3.0 better than cps at 1 % (sure), and "
        "6.0 better than supervised training at 1 % (sure)."
    )
    claims = verdict(runs).claims.set_index("claim")
    of_paper = claims.loc[[BARE_ABOVE_SUPERVISED, BARE_ABOVE_BASELINES]]
    assert of_paper["whose"].tolist() == ["paper"] * 2 and of_paper["verdict"].tolist() == ["supported"] * 2
    for seed in range(2):
        run(0.67, seed=seed, label_ratio=0.01, variant=f"without our help, {ALL_PARTS}")
    runs = finished_runs(run.folders)
    assert main_result(runs).endswith(" There the three parts give -1.0 [-1.0, -1.0] (sure).")
    claims = verdict(runs).claims.set_index("claim")
    assert claims.loc["the three parts together help, without our additions", "verdict"] == "contradicted"


def test_main_runs_without_our_additions_test_the_papers_claims(run):
    bare = {"pseudo_labels": "teacher", "teacher_view": "same", "unfound": "image"}
    for seed in range(2):
        run(0.7, seed=seed, label_ratio=0.01, **bare)
        run(0.6, seed=seed, label_ratio=0.01, method="supervised", **bare)
    claims = verdict(finished_runs(run.folders)).claims.set_index("claim")
    assert claims.loc[BARE_ABOVE_SUPERVISED, ["whose", "verdict"]].tolist() == ["paper", "supported"]
    assert not any(claim.endswith("with our additions") for claim in claims.index)


def test_a_claim_that_one_metric_contradicts_says_which(run):
    for seed in range(3):
        run(0.7, seed=seed, label_ratio=0.01, micro=0.8 + 0.01 * seed)
        run(0.75, seed=seed, label_ratio=0.01, method="cps", micro=0.81)
    runs = finished_runs(run.folders)
    assert judged(runs)[ABOVE_BASELINES, "1 %"] == "contradicted per image"
    assert "5.0 worse than cps at 1 % (sure; micro 0.0, may be chance)." in verdict(runs).box


def test_the_share_of_all_masks_stands_beside_that_of_supervised_training(run):
    for ratio, ours, theirs in ((0.01, 0.76, 0.68), (0.05, 0.78, 0.76)):
        run(ours, label_ratio=ratio)
        run(theirs, label_ratio=ratio, method="supervised")
    run(0.8, label_ratio=1.0, method="supervised")
    assert (
        verdict(finished_runs(run.folders))
        .lines[0]
        .endswith(
            "Of the Dice of supervised training with all masks (1 seed, as many steps), the method reaches 95.0 % with "
            "1 % of them (supervised training with as many: 85.0 %) and 97.5 % with 5 % (95.0 %)."
        )
    )


def test_where_only_another_setting_has_runs_with_nothing_of_ours_its_network_is_named(run):
    for seed in range(2):
        for network in ("lite", "compact"):
            run(0.7, seed=seed, label_ratio=0.01, network=network)
            run(0.69, seed=seed, label_ratio=0.01, network=network, variant=ALL_PARTS)
            run(0.6, seed=seed, label_ratio=0.01, network=network, method="supervised")
        run(0.66, seed=seed, label_ratio=0.01, variant="without our help")
        run(0.63, seed=seed, label_ratio=0.01, variant="without our help", method="cps")
        for method in ("cps", "fixmatch"):
            run(0.65, seed=seed, label_ratio=0.01, network="lite", method=method)
    told = main_result(finished_runs(run.folders))
    assert told.startswith("With the network lite,") and told.endswith(
        "With compact, if no method gets our additions to the pseudo-labels, semi_medref is 3.0 better than cps at 1 % "
        "(sure), and 6.0 better than supervised training at 1 % (sure)."
    )
