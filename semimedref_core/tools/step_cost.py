"""Compares the time of a training step with a recipe of more passes: ``python -m semimedref_core.tools.step_cost``.

Our step runs the teacher once and permutes its output. It runs only the encoders on weak views, which is enough for
ITCL, and stores the output of a frozen text encoder. The recipe runs the teacher again for the partners, segments the
weak views too, and encodes every text again. Both compute the same loss. They are timed in turn, in one process, on one
batch. The first step is not timed, so all texts are known: a run has a few hundred distinct texts in thousands of
steps. On a CPU, the time of one core is counted, which other work on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import BertConfig

from semimedref_core.anatomy import THIRDS
from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches
from semimedref_core.data.datasets import load_training
from semimedref_core.networks import build_network, build_texts
from semimedref_core.networks.compact import Prediction
from semimedref_core.networks.text import grammar_tokenizer
from semimedref_core.networks.text_cache import read_once
from semimedref_core.semi_medref import semi_medref
from semimedref_core.teacher import Teacher

FROZEN_BERT = {**BertConfig().to_dict(), "vocab_size": len(grammar_tokenizer())}  # the shape of BERT-base
CASES = {
    "compact, 96 px": (Config(batch_size=16), {}),
    "mmi_unet, 224 px": (
        Config(network="mmi_unet", image_size=224, batch_size=2),
        {"text": FROZEN_BERT, "frozen_text": True},
    ),
}
"""Settings and the arguments of the network. Its weights are random, which takes the same time as pretrained ones."""


class InSeparatePasses:
    """The recipe's student: labelled, mixed and weak samples run through the whole network separately."""

    def __init__(self, network: nn.Module):
        self.network = network

    def __call__(self, images: Tensor, texts: Tensor, decode: int | None = None) -> Prediction:
        """Like the network, but in three parts of equal size. Masks beyond ``decode`` are dropped."""
        seen = [self.network(*part) for part in zip(images.chunk(3), texts.chunk(3), strict=True)]
        parts = zip(*((each.logits, each.image_embedding, each.text_embedding) for each in seen), strict=True)
        logits, image, text = (torch.cat(part) for part in parts)
        return Prediction(logits[:decode], image, text)


class AskedTwice:
    """The recipe's teacher: runs on a batch, and again on the partners in their order."""

    def __init__(self, teacher: Teacher, partner: Tensor):
        self.teacher, self.partner = teacher, partner

    def __call__(self, images: Tensor, texts: Tensor) -> Prediction:
        """Like the teacher. The second output is a permutation of the first, so it changes nothing."""
        self.teacher(images[self.partner], texts[self.partner])
        return self.teacher(images, texts)


def ours(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """The loss after burn-in, from :func:`semimedref_core.semi_medref.semi_medref`."""
    return semi_medref(student, teacher, batch, config.unsupervised_weight, config)["loss"]


def recipe(student: nn.Module, teacher: Teacher, batch: Batch, config: Config) -> Tensor:
    """The same loss with the passes of the recipe."""
    twice = AskedTwice(teacher, batch.unlabelled.proposal["partner"])
    return ours(InSeparatePasses(student), twice, batch, config)


@dataclass(frozen=True)
class Way:
    """One way to run a step: the function of its loss, and whether the output of a frozen text encoder is stored."""

    loss: Callable[[nn.Module, Teacher, Batch, Config], Tensor]
    kept: bool


WAYS = {
    "recipe": Way(recipe, kept=False),
    "ours, texts read in each step": Way(ours, kept=False),
    "ours": Way(ours, kept=True),
}


def step_costs(config: Config, arguments: dict, steps: int, device: str = "cpu") -> pd.DataFrame:
    """Times whole steps (batch, loss, gradient, optimiser, teacher) of each way, in turn.

    Args:
        config: settings of data and step.
        arguments: arguments of the network.
        steps: timed steps of each way, after one untimed step.
        device: the device of the steps.

    Returns:
        One row for each way: the median ``seconds`` of a step, the fastest and the slowest, and ``times as fast`` as
        the recipe, from the medians. Equal ways (without a frozen text encoder) have one row.
    """
    torch.manual_seed(config.seed)
    pairs = load_training(config.dataset, config.label_ratio, config.image_size)
    student = build_network(config.network, **arguments).to(device)
    teacher, optimizer, texts = Teacher(student), torch.optim.AdamW(student.parameters(), lr=1e-5), build_texts()
    read = {False: texts, True: read_once(student, texts)}
    ways = {name: way for name, way in WAYS.items() if way.kept or way.loss is recipe or read[True] is not texts}
    batches = {kept: Batches(pairs.labelled, pairs.unlabelled, config, read[kept], THIRDS, device) for kept in read}
    seconds = {name: [] for name in ways}
    for _ in range(steps + 1):
        for name, way in ways.items():
            started = _now(device)
            loss = way.loss(student, teacher, batches[way.kept](0), config)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            teacher.update(student, 0.99)
            seconds[name].append(_now(device) - started)
    rows = {
        name: {"seconds": statistics.median(taken[1:]), "fastest": min(taken[1:]), "slowest": max(taken[1:])}
        for name, taken in seconds.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table["times as fast"] = table.loc["recipe", "seconds"] / table["seconds"]
    return table


def _now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Prints the table of each case."""
    parser = argparse.ArgumentParser(description="Times a training step against the recipe with more passes.")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each way (default %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for title, (config, arguments) in CASES.items():
        print(f"{title}, batch {config.batch_size} + {config.batch_size}, {options.steps} steps, {options.device}")
        print(step_costs(config, arguments, options.steps, options.device).round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
