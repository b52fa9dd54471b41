"""The verdict of finished runs on each claim: a box of five lines, a table, and the steps of one figure.

Every number here is computed from the runs. :mod:`.claims` says when a claim is supported.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from semimedref_core.experiments.claims import (
    ALL_PARTS,
    JUDGED_BY,
    NO_RUNS,
    OF_PARTS,
    PAPERS,
    UNSEEN,
    UNTESTED,
    best_baseline,
    claims_of,
    turned,
    with_interval,
)
from semimedref_core.experiments.in_words import percent, seeds_in_words, signed
from semimedref_core.experiments.results import WITHOUT_HELP, without_help
from semimedref_core.experiments.statistics import (
    ablations,
    learning_curves,
    method_differences,
    paired_difference,
)

WATERFALL = (
    ("supervised", "supervised", ""),
    ("shared recipe", "semi_medref", f"{WITHOUT_HELP}, {ALL_PARTS}"),
    ("our additions", "semi_medref", ALL_PARTS),
    ("PosAug", "semi_medref", "PosAug alone"),
    ("T-PatchMix", "semi_medref", "without ITCL"),
    ("ITCL", "semi_medref", ""),
)
"""What each bar adds to the previous one, with its method and variant."""

NETWORK_WORDS = {"lite": "lite (EfficientNet-Lite0 from ImageNet)", "compact": "compact (from scratch)"}
SURE = {"above": "sure", "below": "sure", "not distinguishable": "may be chance"}
"""Verdict of a difference -> how sure it is, in words; ``one seed`` stays as it is."""
SHARES = ((1.0, "all"), (0.85, "nearly all"), (0.5, "most"), (-float("inf"), "less than half"))
"""From this share of a gain on -> its name."""


@dataclass(frozen=True)
class Verdict:
    """The verdict of the runs.

    Attributes:
        lines: five lines to read first. The last one names the setting of the others; the one before it names its own.
        claims: a row for each setting, claim and label ratio: ``setting`` (empty where no run can say), ``claim``,
            ``whose`` (paper, or ours), ``labels``, ``measured``, ``verdict``.
    """

    lines: tuple[str, ...]
    claims: pd.DataFrame

    @property
    def box(self) -> str:
        """The lines as a list in Markdown."""
        return "\n".join(f"- {line}" for line in self.lines)

    @property
    def table(self) -> str:
        """The claims in Markdown: a table for each setting."""
        names = "claim", "whose", "labels", "what we measured (points of Dice, 95 % interval, Holm's p)", "verdict"
        head = f"| {' | '.join(names)} |\n" + "| --- " * len(names) + "|"
        tables = []
        for setting, claims in self.claims.groupby("setting", sort=False):
            rows = [
                f"| {r.claim} | {r.whose} | {r.labels} | {r.measured} | **{r.verdict}** |" for r in claims.itertuples()
            ]
            tables.append("\n".join([f"**{setting or 'What could not be run'}**\n", head, *rows]))
        return "\n\n".join(tables)


def verdict(runs: pd.DataFrame, method: str = "semi_medref") -> Verdict:
    """The verdict on a method, in every setting in which it ran beside another one.

    Args:
        runs: from :func:`.results.finished_runs`, whose order says which setting comes first.
        method: the method of the claims.

    Returns:
        The lines and the claims. Without runs of the method, all claims are untested.
    """
    mains = runs[(runs["network"] == "teacher") & (runs["method"] == method) & (runs["variant"] == "")]
    settings = [runs[runs["setting"] == setting] for setting in dict.fromkeys(mains["setting"])] or [runs.iloc[:0]]
    (lines, rows), *others = (_of_setting(here, method) for here in settings)
    if not runs.empty and (told := main_result(runs, method)):
        lines = (*lines[:-1], told, lines[-1])
    rows += [row for _, more in others for row in more if row["measured"] != NO_RUNS]
    rows += [{"claim": claim, "measured": why, "verdict": UNTESTED} for claim, why in UNSEEN.items()]
    columns = ["setting", "claim", "whose", "labels", "measured", "verdict"]
    return Verdict(lines, pd.DataFrame(rows, columns=columns).fillna({"whose": PAPERS}).fillna(""))


def _of_setting(runs: pd.DataFrame, method: str) -> tuple[tuple[str, ...], list[dict]]:
    """The lines and the rows of one setting, or of no runs."""
    against = method_differences(runs, method, metrics=JUDGED_BY)
    parts = ablations(runs, method, metrics=JUDGED_BY)
    rows = claims_of(runs, method, against, parts)
    setting = "" if runs.empty else runs["setting"].iloc[0]
    return _lines(runs, method, against, parts, learning_curves(runs)), [{"setting": setting, **row} for row in rows]


def waterfall(runs: pd.DataFrame, ratio: float, metric: str = "dice_image") -> pd.DataFrame:
    """The gain of each step from supervised training to the whole method, at one label ratio.

    A step without runs is part of the next one, and the table says which run is missing.

    Args:
        runs: as in :func:`verdict`, of one setting.
        ratio: the label ratio.

    Returns:
        A row for each step of :data:`WATERFALL` that has runs: ``step`` (what it adds), ``mean``, ``missing`` (the runs
        before it that are not there), and the columns of :func:`.statistics.paired_difference` to the previous step,
        over the seeds that all steps have. Empty without runs of the first step, of the last one and of the method
        without all three parts, or without a common seed.
    """
    chosen = runs[(runs["network"] == "teacher") & (runs["label_ratio"] == ratio)]
    found, added, missing = [], [], []
    for name, method, variant in WATERFALL:
        step = chosen[(chosen["method"] == method) & (chosen["variant"] == variant)]
        added.append(name)
        if step.empty:
            if variant in ("", ALL_PARTS):
                return pd.DataFrame()
            missing.append(f"{method} {variant}")
            continue
        found.append((", ".join(added), "; ".join(missing), step))
        added, missing = [], []
    seeds = set.intersection(*(set(step["seed"]) for _, _, step in found))
    if not seeds:
        return pd.DataFrame()
    rows, before = [], None
    for name, lacking, step in found:
        step = step[step["seed"].isin(seeds)]
        gain = {} if before is None else paired_difference(step, before, metric)
        rows.append({"step": name, "mean": step[metric].mean(), "missing": lacking, **gain})
        before = step
    return pd.DataFrame(rows)


def main_result(runs: pd.DataFrame, method: str = "semi_medref", metric: str = "dice_image") -> str:
    """Where the gain over supervised training comes from, at the fewest masks, in two or three sentences.

    The parts added last are worth less than the parts added to a recipe without our additions. So the third sentence,
    if there are such runs, compares methods without our additions. If the setting of the others has no such runs, it is
    about the first one that has, and names its network.

    The others are about the first setting that has at least two seeds of supervised training, of the method without all
    three parts, and of the whole method; else about the first one with a single seed. Whether the parts together are
    sure is Holm's verdict among all variants of the setting.

    Returns:
        The sentences; empty if no setting has all of these runs.
    """
    told, bare = [], {}
    teachers = runs[runs["network"] == "teacher"].sort_values("label_ratio", kind="stable")
    for (setting, ratio), here in teachers.groupby(["setting", "label_ratio"], sort=False):
        network, steps = here[["architecture", "steps"]].iloc[0]
        if best := _bare(here, method, metric):
            bare.setdefault(setting, (network, best))
        supervised = here[(here["method"] == "supervised") & (here["variant"] == "")]
        without = here[(here["method"] == method) & (here["variant"] == ALL_PARTS)]
        if not set(supervised["seed"]) & set(without["seed"]):
            continue
        parts = ablations(here, method, metrics=(metric,))
        parts = turned(parts[parts["variant"] == ALL_PARTS])
        if len(parts):
            recipe, part = paired_difference(without, supervised, metric), parts.iloc[0]
            where = f"network {network}, {steps} steps and {percent(ratio)} of the masks"
            seeds = min(recipe["seeds"], part["seeds"])
            told.append((seeds < 2, setting, _origin(recipe["difference"], part, where, seeds)))
    if not told:
        return ""
    _, setting, sentences = min(told, key=lambda each: each[0])
    if setting in bare:
        return f"{sentences} If no method gets our additions to the pseudo-labels, {bare[setting][1]}"
    if bare:
        network, best = next(iter(bare.values()))
        return f"{sentences} With {network}, if no method gets our additions to the pseudo-labels, {best}"
    return sentences


def _origin(recipe: float, part: pd.Series, where: str, seeds: int) -> str:
    """Two sentences of :func:`main_result`: the gain before the three parts, and the gain of the parts."""
    whole, of = recipe + part["difference"], f", {seeds_in_words(seeds)}" if seeds > 1 else ""
    if whole <= 0:
        first = f"recipe, additions and parts give no gain over supervised training ({signed(whole)}{of})"
    else:
        most = next(word for least, word in SHARES if recipe / whole >= least)
        first = (
            f"{most} of the gain over supervised training ({signed(whole)}{of}) comes from the shared recipe and "
            f"our additions ({signed(recipe)})"
        )
    judged = f" ({SURE.get(part['verdict'], part['verdict'])})"
    return f"With the {where}, {first}. Added last, the paper's three parts give {with_interval(part)}{judged}."


def _bare(here: pd.DataFrame, method: str, metric: str) -> str:
    """The method against the best baseline and supervised training where no method has our additions, and what its
    three parts add there; empty without a baseline."""
    runs = without_help(here)
    against, parts = method_differences(runs, method, metrics=(metric,)), ablations(runs, method, metrics=(metric,))
    best, supervised = best_baseline(against), against[against["against"] == "supervised"]
    if best.empty:
        return ""
    also = f", and {_by_ratio(supervised, named=True)}" if len(supervised) else ""
    parts = turned(parts[parts["variant"] == ALL_PARTS])
    added = ""
    if len(parts):
        part = parts.iloc[0]
        added = f" There the three parts give {with_interval(part)} ({SURE.get(part['verdict'], part['verdict'])})."
    return f"{method} is {_by_ratio(best, named=True)}{also}.{added}"


def _lines(
    runs: pd.DataFrame, method: str, against: pd.DataFrame, parts: pd.DataFrame, curves: pd.DataFrame
) -> tuple[str, ...]:
    if runs.empty:
        return (f"No finished runs of {method}: nothing can be said.",)
    about = runs.iloc[0]
    seeds = runs[(runs["method"] == method) & (runs["variant"] == "")].groupby("label_ratio")["seed"].nunique()
    of_images = against[against["metric"] == "dice_image"]
    supervised = of_images[of_images["against"] == "supervised"]
    best = best_baseline(of_images)
    micro = against[against["metric"] == "dice_micro"]
    return (
        f"Against supervised training: {_by_ratio(supervised, micro)}.{_of_all_masks(curves, method)}",
        f"Against the best semi-supervised baseline: {_by_ratio(best, micro, named=True)}.",
        "What each part adds: " + _parts(parts[parts["metric"] == "dice_image"]) + ".",
        f"The runs behind these lines, where no other network is named: {about['dataset']}, network "
        f"{NETWORK_WORDS.get(about['architecture'], about['architecture'])}, {about['image_size']} px, "
        f"{about['steps']} steps of {about['batch_size']} labelled and {about['batch_size']} unlabelled pairs; "
        "teacher, valid split, Dice per image; seeds: "
        + ", ".join(f"{count} at {percent(ratio)}" for ratio, count in seeds.items())
        + ".",
    )


def _of_all_masks(curves: pd.DataFrame, method: str) -> str:
    """A sentence: which share of the Dice of supervised training with all masks the method reaches with fewer, and
    supervised training with as few. Empty without a run with all masks."""
    supervised = curves[curves["method"] == "supervised"].set_index("label_ratio")
    ours = curves[(curves["method"] == method) & curves["of_full"].notna() & (curves["label_ratio"] < 1)]
    if ours.empty:
        return ""
    shares, words = [], " of them (supervised training with as many: "  # the words stand once
    for row in ours.itertuples():
        shares.append(f"{100 * row.of_full:.1f} % with {percent(row.label_ratio)}")
        if row.label_ratio in supervised.index:
            shares[-1] += f"{words}{100 * supervised['of_full'][row.label_ratio]:.1f} %)"
            words = " ("
    *first, last = shares
    listed = f"{', '.join(first)} and {last}" if first else last
    seeds = seeds_in_words(supervised["seeds"][1.0])
    return f" Of the Dice of supervised training with all masks ({seeds}, as many steps), the method reaches {listed}."


def _by_ratio(differences: pd.DataFrame, micro: pd.DataFrame | None = None, named: bool = False) -> str:
    """``1.0 worse than unimatch at 1 % (sure; micro 0.0, may be chance); 0.1 better than cps at 5 % (one seed)``

    Args:
        differences: per image, a row for each label ratio.
        micro: the same against all methods, in the other metric. It is told where it is not as sure, or has the other
            sign.
        named: whether to name the other method.
    """
    said = []
    for row in differences.sort_values("label_ratio").itertuples():
        size = signed(abs(row.difference)).lstrip("+")
        worth = "0.0" if size == "0.0" else f"{size} {'better' if row.difference > 0 else 'worse'}"
        other = "supervised training" if row.against == "supervised" else row.against
        than = f" {'against' if size == '0.0' else 'than'} {other}" if named else ""
        notes = [SURE.get(row.verdict, row.verdict)]
        if micro is not None:
            same = micro[(micro["label_ratio"] == row.label_ratio) & (micro["against"] == row.against)]
            notes += [
                f"micro {signed(also.difference)}, {SURE.get(also.verdict, also.verdict)}"
                for also in same.itertuples()
                if also.verdict != row.verdict
            ]
        said.append(f"{worth}{than} at {percent(row.label_ratio)} ({'; '.join(notes)})")
    return "; ".join(said) or NO_RUNS


def _parts(parts: pd.DataFrame) -> str:
    said, names = [], list(OF_PARTS)[:3]
    parts = parts[parts["variant"].isin(names)]
    most = parts.groupby("label_ratio")["seeds"].max()
    all_alike = len(parts) > 1 and set(parts["verdict"]) == {"not distinguishable"}

    def notes(row) -> str:
        """In brackets: the number of seeds if it is one or below that of another part, and how sure the difference is
        if this is not said once for all."""
        seeds = [seeds_in_words(row.seeds)] if 1 < row.seeds < most[row.label_ratio] else []
        sure = [] if all_alike else [SURE.get(row.verdict, row.verdict)]
        return f" ({', '.join(seeds + sure)})" if seeds or sure else ""

    for variant in names:
        rows = parts[parts["variant"] == variant].sort_values("label_ratio")
        if len(rows):
            worth = ", ".join(
                f"{signed(-row.difference)} at {percent(row.label_ratio)}{notes(row)}" for row in rows.itertuples()
            )
            name = variant.removeprefix("without ")
            reports = ", with whole reports (see notebook 03)," if name == "PosAug" else ""
            said.append(f"{name}{reports} {worth}")
    return "; ".join(said) + (" (all may be chance)" if all_alike else "") or NO_RUNS
