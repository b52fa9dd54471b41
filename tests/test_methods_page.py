"""The page on methods: it lists every one, no two of them are described alike, and no two of them learn alike."""

import re
from itertools import combinations
from pathlib import Path

import pytest
import torch

from semimedref_core.anatomy import THIRDS
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches
from semimedref_core.data.datasets import load_training
from semimedref_core.methods import METHODS
from semimedref_core.networks import build_texts

PAGE = (Path(__file__).parent.parent / "docs" / "methods.md").read_text(encoding="utf-8")
PAPERS = set(METHODS) - {"supervised", "semi_medref", "semi_medref_release"}


def rows(heading):
    """The rows of the first table below a heading, cell by cell."""
    table = re.search(r"^\|(?:.*\n\|)*.*$", PAGE.split(f"## {heading}\n")[1], re.MULTILINE)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_it_lists_every_method_once_and_describes_no_two_alike():
    described = rows("What each is")
    assert [name.strip("`") for name, *_ in described] == list(METHODS)
    for (one, _, *first), (other, _, *second) in combinations(described, 2):
        assert first != second, f"{one} and {other}"
    titles = {name.strip("`"): title for name, title, *_ in described}
    assert titles["resmatch"] == "RESMatch-style" and len(set(titles.values())) == len(METHODS)


def test_of_every_baseline_it_says_what_the_papers_setting_is_and_where_ours_differs():
    assert {name.strip("`") for name, *_ in rows("Without our help")} == {"all", *PAPERS}


def test_every_neighbour_in_its_list_is_a_method_and_every_baseline_has_one():
    named = re.findall(r"^\| `(\w+)`, `(\w+)` \|", PAGE, re.MULTILINE)
    assert {name for pair in named for name in pair} == set(METHODS) - {"supervised"}


@pytest.mark.parametrize("helped", [False, True])
def test_no_two_methods_have_the_same_loss_of_the_same_batch(helped):
    """Without our help, and with it: what all are given does not make one method of two."""
    help_ = {} if helped else {"pseudo_labels": "teacher", "teacher_view": "same"}
    pairs, losses = load_training("phantom", 0.05, 32), {}
    for name, method in METHODS.items():
        config = Config(image_size=32, batch_size=4, patch_p=1.0, gate=0.0, confidence=0.5, method=name, **help_)
        torch.manual_seed(0)
        student = method.build("compact")
        for parameter_name, parameter in student.named_parameters():
            if "fuse" in parameter_name and "out_proj.weight" in parameter_name:
                parameter.data *= 100  # an untrained network hardly minds what it reads
        teacher = method.teacher(student)
        for parameter in teacher.network.parameters():  # as after some steps: nobody says what another one says
            parameter += 0.1 * torch.randn_like(parameter)
        batches = Batches(pairs.labelled, pairs.unlabelled, config, build_texts(), THIRDS, plan=method.plan)
        torch.manual_seed(1)
        losses[name] = method.step(student, teacher, batches(0), 1.0, config)["loss"].item()
    for (one, a), (other, b) in combinations(losses.items(), 2):
        assert abs(a - b) > 1e-5, f"{one} and {other}"
