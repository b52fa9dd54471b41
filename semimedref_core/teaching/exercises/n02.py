"""Notebook 02: the network."""

from __future__ import annotations

import functools

import torch

from semimedref_core import example
from semimedref_core.data.datasets import load_split
from semimedref_core.evaluation import network_inputs
from semimedref_core.runtime.checkpoints import from_pretrained, load_texts
from semimedref_core.teaching.answers import about

SHOWN, SIZE = 11, 96
TEXT = "unilateral pulmonary infection, one infected area, {} right lung."


def attention_numbers(answer) -> str:
    return about(
        answer, (224 // 16) ** 2 * 24, 0, "First count the places of the map, then the tokens to which each attends."
    )


@functools.cache
def centre(height: str) -> float:
    """The mean row of the network's prediction if the text names this height."""
    (network, _), texts = from_pretrained(example.MODEL), load_texts(example.MODEL)
    pair = load_split("phantom", "valid", SIZE).subset([SHOWN])
    [(image, _)] = network_inputs(pair, texts)
    with torch.no_grad():
        found = network(image, texts([TEXT.format(height)])).logits[0, 0] >= 0
    return float(found.nonzero()[:, 0].float().mean())


def rows(answer) -> str:
    right = centre("upper") - centre("middle")
    if isinstance(answer, int | float) and not isinstance(answer, bool) and answer * right < 0:
        return "The other way: rows are counted from the top, so up is negative."
    return about(
        answer, right, 3, "Run the network with the changed text, and take the mean row of the predicted pixels."
    )


def padding(answer) -> str:
    if not isinstance(answer, bool):
        return "Answer True or False."
    return "" if answer else "Look for `padding` in the forward pass: which modules get it?"


EXERCISES = {"02.1": attention_numbers, "02.2": rows, "02.3": padding}
