"""Notebook 06: one step of teacher and student."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from semimedref_core.config import Config
from semimedref_core.itcl import itcl
from semimedref_core.networks import build_network, build_texts
from semimedref_core.pseudo_labels import teacher_probabilities
from semimedref_core.step import schedule
from semimedref_core.teacher import Teacher
from semimedref_core.tools import HostReads, gradient_norms

REPORTS = (
    "unilateral pulmonary infection, one infected area, lower left lung.",
    "bilateral pulmonary infection, two infected areas, lower left lung and upper right lung.",
)
CODES = (0b000100, 0b001100)
SIDE = 32  # px


def _seen():
    """A network, two random images, and the tokens of two reports."""
    generator = torch.Generator().manual_seed(0)
    return build_network("compact"), torch.randn(2, 1, SIDE, SIDE, generator=generator), build_texts()(REPORTS)


def untouched_by_itcl(answer) -> str:
    network, images, tokens = _seen()
    named, parts = {answer} if isinstance(answer, str) else set(answer), list(network.parts)
    if not named <= set(parts):
        return f"The parts are {', '.join(parts)}."
    seen = network(images, tokens)
    loss = itcl(seen.image_embedding, seen.text_embedding, torch.tensor(CODES))
    row = gradient_norms({"ITCL": loss}, network).loc["ITCL"]
    right = set(row.index[row.isna()])
    if named == right:
        return ""
    trained, missing = len(named - right), len(right - named)
    return (
        f"{trained} of the parts that you name are trained by ITCL, and {missing} untrained parts are missing. "
        "Go back from the two embeddings: which parts compute them?"
    )


def waiting_label(answer) -> str:
    network, images, tokens = _seen()
    unlabelled, config, teacher = SimpleNamespace(input_ids=tokens), Config(), Teacher(network)
    with HostReads() as found:
        p = answer(teacher, images, unlabelled, config)
    right = teacher_probabilities(teacher, images, unlabelled, config)
    if not isinstance(p, torch.Tensor) or p.shape != right.shape or not torch.allclose(p, right):
        return "The step needs the teacher's p from this function, unchanged: a wait costs time and changes no number."
    hint = "HostReads saw no read of a value. Which kinds of Python lines need a tensor as a number?"
    return "" if found.reads else hint


def no_burn_in(answer) -> str:
    config = Config(steps=60, **answer)
    w_u = schedule(config, 0).w_u
    if w_u == Config().unsupervised_weight:
        return ""
    return f"With these settings w_u is {w_u:g} in step 0. What does `ramp` give at its very start, and when not?"


EXERCISES = {"06.1": untouched_by_itcl, "06.2": waiting_label, "06.3": no_burn_in}
