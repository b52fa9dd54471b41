"""Notebook 07: training."""

from __future__ import annotations

import numpy as np

from semimedref_core.config import Config
from semimedref_core.data.phantom import COUNTS
from semimedref_core.evaluation import scores
from semimedref_core.presets import preset
from semimedref_core.step import schedule

TUTORIAL = Config(**preset("tutorial"))
LEAD = 0.1  # of Dice, in exercise 07.2
HALF, FULL = 100, 150  # steps of exercise 07.3


def times_seen(answer) -> str:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "Give two numbers: (labelled, unlabelled)."
    pairs, batch, steps = COUNTS["train"], TUTORIAL.batch_size, TUTORIAL.steps
    labelled = round(TUTORIAL.label_ratio * pairs)
    mixing = sum(schedule(TUTORIAL, t).w_u > 0 for t in range(steps))
    told = [float(value) for value in answer]
    if abs(told[0] - steps * batch / labelled) > 1:
        return "Labelled: how many pairs do all batches have together, and how many different pairs are there?"
    if abs(told[1] - steps * batch / (pairs - labelled)) < 0.1:
        return "Unlabelled: remember the burn-in, in which the student learns only from labelled pairs."
    if abs(told[1] - mixing * batch / (pairs - labelled)) > 0.1:
        return "The labelled number is right. Unlabelled: count the steps after the burn-in."
    return ""


def half_and_full(answer) -> str:
    config = Config(**preset("tutorial") | answer)
    weights = {t: schedule(config, t).w_u for t in (HALF, FULL - 1, FULL)}
    told = f"With these settings w_u is {weights[HALF]:.2f} in step {HALF} and {weights[FULL]:.2f} in step {FULL}."
    if abs(weights[HALF] - 0.5) > 0.005 or abs(weights[FULL] - 1) > 0.005:
        return f"{told} Both settings are shares of all steps."
    return "" if weights[FULL - 1] < 1 else f"{told} But it is already full before step {FULL}."


def two_winners(answer) -> str:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return "Give two tables: (A, B)."
    a, b = (np.asarray(table) for table in answer)
    if a.shape != (3, 3) or b.shape != (3, 3):
        return "Each table has a row for each of the three images, and in it (common, predicted, true)."
    if not np.array_equal(a[:, 2], b[:, 2]):
        return "Both networks see the same images, so the true pixels of both tables are the same."
    for common, predicted, true in (*a, *b):
        if not 0 <= common <= min(predicted, true) or true == 0:
            return "In each row common is at most predicted and at most true, and each image has a lesion."
    found = {name: scores(table) for name, table in (("A", a), ("B", b))}
    told = "; ".join(
        f"{name}: micro {100 * s['dice_micro']:.0f} %, per image {100 * s['dice_image']:.0f} %"
        for name, s in found.items()
    )
    micro, image = (found["A"][metric] - found["B"][metric] for metric in ("dice_micro", "dice_image"))
    return (
        "" if micro >= LEAD and image <= -LEAD else f"{told}. A must lead in the first by 10 points, B in the second."
    )


EXERCISES = {"07.1": times_seen, "07.2": two_winners, "07.3": half_and_full}
