"""Notebook 09: the network."""

from __future__ import annotations

import functools

import torch

from semimedref_core import example
from semimedref_core.data.datasets import load_split
from semimedref_core.evaluation import network_inputs
from semimedref_core.runtime.checkpoints import from_pretrained, load_texts
from semimedref_core.teaching.answers import about

SHOWN, SIZE = 11, 96
LOWER = "unilateral pulmonary infection, one infected area, lower right lung."


def attention_numbers(answer) -> str:
    return about(answer, (224 // 16) ** 2 * 24, 0, "Count the places of the map first, then how many tokens each asks.")


@functools.cache
def third_of(text: str = LOWER) -> int:
    """The third of the picture, 1 to 3 from the top, in which the network predicts most for this text."""
    (network, _), texts = from_pretrained(example.MODEL), load_texts(example.MODEL)
    pair = load_split("phantom", "valid", SIZE).subset([SHOWN])
    [(image, _)] = network_inputs(pair, texts)
    with torch.no_grad():
        found = (network(image, texts([text])).logits[0, 0] >= 0).sum(1)
    return int(found.reshape(3, -1).sum(1).argmax()) + 1


def third(answer) -> str:
    return about(answer, third_of(), 0, "Ask the network with the changed text, and sum the pixels above 0.5 by rows.")


def padding(answer) -> str:
    if not isinstance(answer, bool):
        return "Answer True or False."
    return "" if answer else "Look for `padding` in the forward pass: who is told where no word is?"


EXERCISES = {"09.1": attention_numbers, "09.2": third, "09.3": padding}
