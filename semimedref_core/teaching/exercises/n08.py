"""Notebook 08: results."""

from __future__ import annotations

import numpy as np

from semimedref_core.experiments.statistics import interval
from semimedref_core.teaching.kept import kept_comparison

AGAINST = "supervised"
NORMAL = 1.96


def surely_above(answer) -> str:
    kept = kept_comparison()
    named = {answer} if isinstance(answer, str) else set(answer)
    if unknown := named - set(kept.index):
        return f"{', '.join(map(str, unknown))}: not in the table. Its methods are {', '.join(kept.index)}."
    if named == set(kept.index[kept["p_holm"] < 0.05]):
        return ""
    if named == set(kept.index[kept["p"] < 0.05]):
        return "These are below 5 % without correction. How many comparisons were made at once?"
    return "Order the p values. The smallest is multiplied by their number, the next one by one less, and so on."


def by_hand(answer) -> str:
    row = kept_comparison().loc[AGAINST]
    ours, theirs = 100 * row["ours"], 100 * row["theirs"]
    right = ((ours - theirs).mean(), *interval(ours - theirs))
    given = np.asarray(answer, float)
    if given.shape != (3,):
        return "Give three numbers: the difference, and the two ends of its interval, in points."
    if np.allclose(given, right, atol=0.06):
        return ""
    if np.allclose(100 * given, right, atol=0.06):
        return "These are shares. The question asks for points, which are per cent."
    if not np.isclose(given[0], right[0], atol=0.06):
        return "The first number is not the mean of the three differences in points."
    error = (ours - theirs).std(ddof=1) / np.sqrt(len(ours))
    half = (given[2] - given[1]) / 2
    hint = "The difference is right. The interval is t times s over the root of S, on both sides."
    if np.isclose(half, NORMAL * error, atol=0.06):
        hint = f"{NORMAL} is for many seeds. With three seeds t is much larger."
    elif np.isclose(half, (right[2] - right[1]) / 2 * np.sqrt(2 / 3), atol=0.06):
        hint = "The difference is right. s divides the squares by S - 1, not by S: `np.std(..., ddof=1)`."
    elif np.isclose(half, (right[2] - right[1]) / 2 * np.sqrt(3), atol=0.06):
        hint = "The difference is right. The mean of S seeds varies less than one seed: divide s by the root of S."
    return hint


def pooled(answer) -> str:
    differences = 0.3 + np.random.default_rng(0).normal(size=(3, 1)) + np.random.default_rng(1).normal(size=(3, 40))
    found = np.asarray(answer(differences), float)
    if found.shape != (2,):
        return "The function must return two numbers, the low and the high end."
    pile = differences.ravel()
    half = NORMAL * pile.std(ddof=1) / np.sqrt(pile.size)
    if np.allclose(found, (pile.mean() - half, pile.mean() + half), rtol=0.02):
        return ""
    if np.allclose(found, interval(differences.mean(1)), rtol=0.02):
        return "This is the right interval over seeds. The exercise asks for the mistake: all differences in one pile."
    if not np.isclose(found.mean(), pile.mean()):
        return "The middle of the interval is not the mean of all differences."
    return "The middle is right. How many numbers lie in the pile, and what is their standard deviation?"


EXERCISES = {"08.1": surely_above, "08.2": by_hand, "08.3": pooled}
