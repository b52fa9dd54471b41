"""How a method stands in one setting, as a list of sentences: how many runs there are, which methods it is above or
below in every seed, what each variant changes, and for which lesions the best other method is better.

The verdict says what is sure. These sentences describe the runs that there are, also single ones. They are computed, so
that they stay true if runs are added.
"""

from __future__ import annotations

import pandas as pd

from semimedref_core.experiments.in_words import METRIC_WORDS, percent, seeds_in_words, signed
from semimedref_core.experiments.statistics import ablations, by_lesion_size, method_differences
from semimedref_core.experiments.verdict import JUDGED_BY, NO_BASELINE


def standing(runs: pd.DataFrame, method: str = "semi_medref") -> list[str]:
    """Sentences in Markdown on one setting.

    Args:
        runs: of :func:`.results.finished_runs`, of one setting.
        method: the method that is compared with all others.

    Returns:
        One text for each item of a list. Without runs, a single one that says so.
    """
    teachers = runs[runs["network"] == "teacher"]
    if teachers.empty:
        return ["No run has finished."]
    mains = teachers[teachers["variant"] == ""]
    differences = method_differences(runs, method, metrics=JUDGED_BY)
    differences = differences[~differences["against"].isin(NO_BASELINE)]
    changed = len(teachers) - len(mains)
    said = [f"**{len(teachers)} runs** are kept, {changed or 'none'} of them variants, with changed settings."]
    for ratio, here in differences.groupby("label_ratio"):
        said.append(f"**Against other methods, {percent(ratio)} of the masks.** {_ranks(here, method)}")
    for ratio, here in ablations(runs, method, metrics=("dice_image",)).groupby("label_ratio"):
        changes = "; ".join(_change(row) for _, row in here.iterrows())
        said.append(f"**Variants, {percent(ratio)} of the masks.** Dice per image changes by {changes}.")
    of_images = differences[differences["best"] & (differences["metric"] == "dice_image")]
    for row in of_images.itertuples():
        here = mains[mains["label_ratio"] == row.label_ratio]
        sizes = by_lesion_size(*(here[here["method"] == name] for name in (method, row.against)))
        if len(sizes):
            said.append(f"**By the size of the lesion, {percent(row.label_ratio)} of the masks.** {_sizes(sizes, row)}")
    return said


def as_list(sentences: list[str]) -> str:
    """The sentences as a list in Markdown."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _ranks(differences: pd.DataFrame, method: str) -> str:
    """Which others the method is above, below or neither, in each common seed; for each metric."""
    said = []
    for metric, rows in differences.groupby("metric"):
        groups: dict[str, list[str]] = {"above": [], "below": [], "neither above nor below": []}
        for row in rows.itertuples():
            sign = "above" if min(row.by_seed) > 0 else "below" if max(row.by_seed) < 0 else "neither above nor below"
            groups[sign].append(f"`{row.against}` ({seeds_in_words(row.seeds)})")
        told = "; it is ".join(f"{sign} {', '.join(names)}" for sign, names in groups.items() if names)
        said.append(f"{METRIC_WORDS[metric].capitalize()}, in every common seed, `{method}` is {told}.")
    return " ".join(said)


def _change(row: pd.Series) -> str:
    """``-0.3 to +0.4 points (without ITCL, 3 seeds)``."""
    low, high = (signed(bound) for bound in (min(row["by_seed"]), max(row["by_seed"])))
    span = low if low == high else f"{low} to {high}"
    return f"{span} ({row['variant']}, {seeds_in_words(row['seeds'])})"


def _sizes(sizes: pd.DataFrame, row) -> str:
    lesions = sizes.drop(index="no lesion", errors="ignore")
    points = ", ".join(
        f"{signed(of.ours - of.theirs)} for {name} lesions"
        for name, of in zip(lesions.index, lesions.itertuples(), strict=True)
    )
    return f"Points above `{row.against}`, by thirds of the images: {points} ({seeds_in_words(row.seeds)})."
