"""How a method stands in one setting, as a list of sentences: how many runs there are, what each variant changes, and
for which lesions the best other method is better.

The verdict says what is sure. These sentences describe the runs that there are, also single ones. They are computed, so
that they stay true if runs are added.
"""

from __future__ import annotations

import pandas as pd

from semimedref_core.experiments.claims import NO_BASELINE
from semimedref_core.experiments.in_words import percent, seeds_in_words, signed
from semimedref_core.experiments.statistics import ablations, by_lesion_size, method_differences


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
    differences = method_differences(runs, method, metrics=("dice_image",))
    changed = len(teachers) - len(mains)
    said = [f"**{len(teachers)} runs** are kept, {changed or 'none'} of them variants, with changed settings."]
    for ratio, here in ablations(runs, method, metrics=("dice_image",)).groupby("label_ratio"):
        changes = "; ".join(_change(row) for _, row in here.iterrows())
        said.append(f"**Variants, {percent(ratio)} of the masks.** Dice per image changes by {changes}.")
    for row in differences[differences["best"] & ~differences["against"].isin(NO_BASELINE)].itertuples():
        here = mains[mains["label_ratio"] == row.label_ratio]
        sizes = by_lesion_size(*(here[here["method"] == name] for name in (method, row.against)))
        if len(sizes):
            said.append(f"**By the size of the lesion, {percent(row.label_ratio)} of the masks.** {_sizes(sizes, row)}")
    return said


def as_list(sentences: list[str]) -> str:
    """The sentences as a list in Markdown."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


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
