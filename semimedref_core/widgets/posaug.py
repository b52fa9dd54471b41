"""The PosAug explorer: choose or type a report, and see the text that the student reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from semimedref_core.figures.posaug import reading
from semimedref_core.networks.text import Texts
from semimedref_core.posaug import MODES, Stretch, apply_hits, draw_hits, stretches
from semimedref_core.reports import ZONES, Report
from semimedref_core.widgets.base import Explorer


@dataclass(frozen=True)
class StudentText:
    """The result of one draw of PosAug on a report.

    Attributes:
        before: the untouched report.
        after: the text that the student reads.
        tokens: its tokens, each with its id and the kind of its part.
        length: number of tokens that the network allows.
        zones: six 0/1, the zones that ITCL uses, from the untouched report.
    """

    before: tuple[Stretch, ...]
    after: tuple[Stretch, ...]
    tokens: tuple[tuple[Stretch, int], ...]
    length: int
    zones: tuple[int, ...]


def read(report: Report, hits: dict[str, str], texts: Texts) -> StudentText:
    """The text and the tokens for the student if the phrases of these sides are hit (see ``posaug.draw_hits``)."""
    after = stretches(apply_hits(report, hits))
    kinds = ["special"]  # [CLS], which the tokenizer adds in front
    for part in after:
        kinds += [part.kind] * len(texts.tokenizer.tokenize(part.text))
    ids = texts.tokenizer("".join(part.text for part in after))["input_ids"]
    words = texts.tokenizer.convert_ids_to_tokens(ids)
    tokens = tuple((Stretch(word, kind), i) for word, kind, i in zip(words, kinds, ids, strict=True))
    return StudentText(stretches(report.render()), after, tokens, texts.length, report.zones)


def answer(text: str, p: float, mode: str, seed: int, texts: Texts) -> StudentText:
    """One draw of PosAug on a typed report.

    Args:
        text: the report, in any letter case.
        p, mode: see ``posaug.draw_hits``.
        seed: seed of the draw.
        texts: the tokenizer.

    Raises:
        ReportError: if the text cannot be read; says what was expected.
    """
    return read(Report.parse(text), draw_hits(np.random.default_rng(seed), p, mode), texts)


def posaug_explorer(choices: Mapping[str, str], texts: Texts) -> Explorer:
    """The widget: a report of ``choices`` (label -> text) or one typed below it, p, mode and seed.

    A typed report has priority over the chosen one. The widget says if it cannot be read.
    """

    def answered(chosen: str, typed: str, p: float, mode: str, seed: int) -> tuple[Figure, str]:
        got = answer(typed or chosen, p, mode, seed, texts)
        named = ", ".join(zone for zone, bit in zip(ZONES, got.zones, strict=True) if bit) or "none"
        student = "".join(part.text for part in got.after)
        line = f"The student reads: {student} ({len(got.tokens)} of {got.length} tokens). Zones for ITCL: {named}."
        return reading(got.before, got.after, got.tokens, got.zones), line

    controls = {
        "chosen": ipywidgets.Dropdown(options=list(choices.items()), description="report"),
        "typed": ipywidgets.Text(
            description="or your own", placeholder="type a report, then Enter", continuous_update=False,
            layout={"width": "640px"},
        ),
        "p": ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.05, description="p", continuous_update=False),
        "mode": ipywidgets.ToggleButtons(options=MODES, value="mix", description="mode"),
        "seed": ipywidgets.IntSlider(0, min=0, max=99, description="seed", continuous_update=False),
    }  # fmt: skip
    return Explorer(controls, answered, "the report, the text that the student reads, its tokens, and its zones")
