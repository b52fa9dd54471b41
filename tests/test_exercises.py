"""Exercises: right answers are called right, wrong ones are not, and a hint does not give the answer away."""

import math
import re

import pytest

from semimedref_core import posaug
from semimedref_core.experiments.papermill_run import notebooks_folder
from semimedref_core.reports import SIDES
from semimedref_core.teaching import check, source_of
from semimedref_core.teaching.answers import exercises_of


def together(report, rng, p):
    hit = rng.random() < p
    return posaug.apply_hits(report, dict.fromkeys(SIDES, posaug.MASK_TOKEN) if hit else {})


MASKED = dict.fromkeys(SIDES, posaug.MASK_TOKEN)
LEFT, RIGHT, BOTH = [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 1]
ANSWERS = {  # exercise -> right answers, wrong answers
    "02.1": ([1 - math.sqrt(1 / 2), 0.29], [0.5, 0.25, 0.707, "half"]),
    "02.2": (
        [together],
        [
            0.3,
            posaug.posaug,
            lambda report, rng, p: posaug.posaug(report, rng, p, "mask"),
            lambda report, rng, p: report.render(),
            lambda report, rng, p: together(report, rng, 1 - p),
            lambda report: report.render(),
        ],
    ),
    "02.3": (
        [
            (LEFT, RIGHT, MASKED),
            [[1, 0, 0, 1, 0, 0], BOTH, MASKED],
            (LEFT, [1, 0, 0, 0, 0, 0], {"left": posaug.FUZZY_PHRASE}),
        ],
        [
            (LEFT, LEFT, MASKED),
            (LEFT, RIGHT, {"left": posaug.MASK_TOKEN}),
            (LEFT, BOTH, MASKED),
            ([0] * 6, [0] * 6, {}),
            ([0] * 6, LEFT, MASKED),
            (LEFT, RIGHT),
            (LEFT, RIGHT, "both"),
            (LEFT, RIGHT, {"left": "here", "right": "here"}),
            (LEFT, RIGHT, {"below": posaug.MASK_TOKEN}),
            ([1, 2], RIGHT, MASKED),
        ],
    ),
    "04.1": ([2 / 3 * (math.log(3) - 2 / 3 * math.log(2)), 0.42], [0, 1.0986, "two", True, [1]]),
    "09.1": ([4704], [196, 4705, 38416, "many"]),
    "09.2": ([-19, -20.5], [19, 0, -30, "up", True]),
    "09.3": ([True], [False, 1, "yes"]),
}
NOTEBOOKS = sorted({name.split(".")[0] for name in ANSWERS})


def said(capsys, name, answer) -> str:
    check(name, answer)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ANSWERS)
def test_a_right_answer_is_right_and_a_wrong_one_gets_a_hint(name, capsys):
    right, wrong = ANSWERS[name]
    assert {said(capsys, name, answer) for answer in right} == {f"{name}: right.\n"}
    for answer in wrong:
        assert said(capsys, name, answer).startswith(f"{name}: not yet. "), answer
    assert "no answer yet" in said(capsys, name, None)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_a_notebook_poses_each_of_its_exercises_and_folds_the_solution(number):
    [notebook] = notebooks_folder().glob(f"{number}_*.py")
    text = notebook.read_text()
    names = list(exercises_of(number))
    assert names == [name for name in ANSWERS if name.startswith(number)]
    assert re.findall(r'^check\("([\d.]+)"', text, re.MULTILINE) == names
    assert text.count("<details><summary>Solution") == len(names)


def test_source_is_shown_as_it_runs_without_its_docstring():
    from semimedref_core.itcl import itcl

    shown = source_of(itcl).data
    assert "def itcl(" in shown and '"""' not in shown and "soft_contrastive_loss" in shown
    compile(shown, "shown", "exec")
