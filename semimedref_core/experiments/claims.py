"""The claims on a method, and what finished runs say about each.

A claim is *supported* if both differences, per image and micro, have the claimed sign and a Holm p below 5 %. It is
*contradicted* if one of them has the other sign and a Holm p below 5 %; if it is only one, the verdict names it. It is
*untested* if there are no runs with two seeds, and otherwise *not distinguishable*. The claim on the share of all
masks' Dice has no p: the mean of two seeds or more is at least :data:`NEAR_FULL`, or the claim is contradicted.

Runs with our additions do not test the paper's own claims, because the paper's methods do not have them. So a claim
against other methods is the paper's only in runs without our additions.
"""

from __future__ import annotations

import pandas as pd

from semimedref_core.experiments.in_words import METRIC_WORDS, percent, seeds_in_words, signed
from semimedref_core.experiments.results import without_help
from semimedref_core.experiments.statistics import ablations, in_points, method_differences

ALL_PARTS = "without all three parts"
NO_RUNS = "no runs"
SUPPORTED, OPEN, CONTRADICTED, UNTESTED = "supported", "not distinguishable", "contradicted", "untested"
JUDGED_BY = ("dice_image", "dice_micro")
NO_BASELINE = ("supervised", "semi_medref_release")
"""Methods that are not semi-supervised baselines: one has no unlabelled pairs, the other is the released method."""

OF_PARTS = {
    "without T-PatchMix": "T-PatchMix helps",
    "without PosAug": "PosAug helps, with whole reports",
    "without ITCL": "ITCL helps",
    ALL_PARTS: "the three parts together help",
    "hard positives": "soft positives are better than hard ones",
    "mixed, but own text": "the text must follow the patch",
}
"""Variant of the method -> the claim that it tests: the method without a part should be worse."""

NEAR_FULL = 0.97
PAPERS, OURS = "paper", "ours"
"""Whose a claim is. A claim of the paper is about its method or a part of it. Ours are the claims on a method with our
additions, and the share of all masks' Dice, a goal that this project has set itself."""
WITH_OURS, WITHOUT_OURS = "with our additions", "without our additions"

UNSEEN = {
    "all of it on MosMedData+": "its pictures could not be had; its texts are read and tested",
    "all of it with the paper's pretrained encoders": "their weights could not be had; the code loads and tests them",
}
"""Claim -> the reason why no run tests it."""


def claims_of(runs: pd.DataFrame, method: str, against: pd.DataFrame, parts: pd.DataFrame) -> list[dict[str, str]]:
    """The claims on a method in one setting.

    Args:
        runs: of one setting, or none.
        method: the method of the claims.
        against, parts: of these runs and :data:`JUDGED_BY`, from :func:`.statistics.method_differences` and
            :func:`.statistics.ablations`.

    Returns:
        A row for each claim and label ratio, with the columns of :class:`.verdict.Verdict` except ``setting``.
    """
    bare = without_help(runs)
    bare_parts = ablations(bare, method, metrics=JUDGED_BY)
    helped = _helped(runs, method)
    return [
        *(_others(method_differences(bare, method, metrics=JUDGED_BY), WITHOUT_OURS, PAPERS) if helped else []),
        *_others(against, *((WITH_OURS, OURS) if helped else (WITHOUT_OURS, PAPERS))),
        *_part(f"{OF_PARTS[ALL_PARTS]}, {WITHOUT_OURS}", bare_parts[bare_parts["variant"] == ALL_PARTS]),
        *(row for variant, claim in OF_PARTS.items() for row in _part(claim, parts[parts["variant"] == variant])),
        *_near_full(runs, method),
    ]


def _helped(runs: pd.DataFrame, method: str) -> bool:
    """Whether the main runs of the method have our additions to its pseudo-labels."""
    mains = runs[(runs["method"] == method) & (runs["variant"] == "")]
    return bool(((mains["pseudo_labels"] == "reported") | (mains["teacher_view"] == "mirrored")).any())


def with_interval(row: pd.Series) -> str:
    """``+0.8 [+0.0, +1.6]``; a single seed has no interval."""
    interval = in_points(pd.DataFrame([row]))["95 %"].iloc[0] if row["seeds"] > 1 else ""
    return f"{signed(row['difference'])} {interval}".strip()


def best_baseline(differences: pd.DataFrame) -> pd.DataFrame:
    """For each ratio and metric, the baseline with the best mean among those with the most seeds."""
    others = differences[~differences["against"].isin(NO_BASELINE)]
    order = others.assign(fewer=-others["seeds"]).sort_values(["label_ratio", "fewer", "difference"], kind="stable")
    return order.drop_duplicates(["label_ratio", "metric"])


def _others(differences: pd.DataFrame, how: str, whose: str) -> list[dict]:
    """The rows against supervised training and against the best baseline."""
    supervised = differences[differences["against"] == "supervised"]
    return [
        *_against(f"better than supervised training, {how}", whose, supervised),
        *_against(f"better than the best semi-supervised baseline, {how}", whose, best_baseline(differences)),
    ]


def _against(claim: str, whose: str, differences: pd.DataFrame) -> list[dict]:
    """A row for each label ratio; the difference should be above zero."""
    if differences.empty:
        return [{"claim": claim, "whose": whose, "labels": "", "measured": NO_RUNS, "verdict": UNTESTED}]
    groups = differences.groupby("label_ratio")
    return [
        {
            "claim": claim,
            "whose": whose,
            "labels": percent(ratio),
            "measured": _told(group, "against"),
            "verdict": _judge(group, "above"),
        }
        for ratio, group in groups
    ]


def _part(claim: str, ablated: pd.DataFrame) -> list[dict]:
    """A row for each label ratio. The method without the part should be worse; the row shows the gain of the part."""
    if ablated.empty:
        return [{"claim": claim, "labels": "", "measured": NO_RUNS, "verdict": UNTESTED}]
    return [
        {
            "claim": claim,
            "labels": percent(ratio),
            "measured": _told(turned(group)),
            "verdict": _judge(group, "below"),
        }
        for ratio, group in ablated.groupby("label_ratio")
    ]


def turned(differences: pd.DataFrame) -> pd.DataFrame:
    """The same differences with the opposite sign."""
    return differences.assign(difference=-differences["difference"], low=-differences["high"], high=-differences["low"])


def _near_full(runs: pd.DataFrame, method: str) -> list[dict]:
    """Whether the fewest masks reach a share of the score of supervised training with all masks and as many steps."""
    chosen = runs[(runs["network"] == "teacher") & (runs["variant"] == "")]
    full = chosen.loc[(chosen["method"] == "supervised") & (chosen["label_ratio"] == 1), "dice_image"]
    ours = chosen[chosen["method"] == method]
    ours = ours.loc[ours["label_ratio"] == ours["label_ratio"].min(), ["label_ratio", "dice_image"]]
    claim = f"the fewest masks reach {100 * NEAR_FULL:g} % of all masks' Dice per image"
    if full.empty or ours.empty:
        return [{"claim": claim, "whose": OURS, "labels": "", "measured": NO_RUNS, "verdict": UNTESTED}]
    reached = ours["dice_image"].to_numpy() / full.mean()
    ratio = percent(ours["label_ratio"].iloc[0])
    spread = f" ± {100 * reached.std(ddof=1):.1f}" if len(reached) > 1 else ""
    judged = UNTESTED if len(reached) < 2 else SUPPORTED if reached.mean() >= NEAR_FULL else CONTRADICTED
    measured = f"{100 * reached.mean():.1f}{spread} %, {seeds_in_words(len(reached))}"
    return [{"claim": claim, "whose": OURS, "labels": ratio, "measured": measured, "verdict": judged}]


def _told(group: pd.DataFrame, whose: str = "") -> str:
    """``per image +1.2 [+0.4, +2.0] over unimatch, p 0.012; micro ...; 5 seeds``. One seed: no interval, no p."""
    parts = []
    for _, row in group.sort_values("metric").iterrows():  # per image first
        other = f" over {row[whose]}" if whose else ""
        p = f", p {row['p_holm']:.3f}" if row["seeds"] > 1 else ""
        parts.append(f"{METRIC_WORDS[row['metric']]} {with_interval(row)}{other}{p}")
    return "; ".join([*parts, seeds_in_words(group["seeds"].min())])


def _judge(group: pd.DataFrame, wanted: str) -> str:
    if (group["seeds"] < 2).any() or set(group["metric"]) != set(JUDGED_BY):
        return UNTESTED
    against = group.loc[group["verdict"] == {"above": "below", "below": "above"}[wanted], "metric"]
    if len(against):
        return CONTRADICTED if len(against) == len(group) else f"{CONTRADICTED} {METRIC_WORDS[against.iloc[0]]}"
    return SUPPORTED if (group["verdict"] == wanted).all() else OPEN
