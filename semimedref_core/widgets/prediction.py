"""The prediction explorer: a reader edits a report, and a trained network predicts the contour."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import ipywidgets
import numpy as np
import torch
from torch import Tensor, nn

from semimedref_core.anatomy import Grid
from semimedref_core.data.pairs import Pairs
from semimedref_core.evaluation import network_inputs, overlap, predict, scores
from semimedref_core.figures.prediction_panel import prediction_panel
from semimedref_core.networks import Texts
from semimedref_core.reports import ZONES, Report
from semimedref_core.tools.attention import NoAttentionError, word_attention
from semimedref_core.widgets.base import Explorer

TYPED, NO_WORD = "as typed", "no word"
CHOICES = ("its own", "sides swapped", "all zones", *ZONES, TYPED)


@dataclass(frozen=True)
class Answer:
    """The prediction of a network for one image and one report.

    Attributes:
        report: the report that the network read.
        boxes: ``[n, 4]`` boxes (y0, x0, y1, x1) in pixels of the n zones that the report names.
        probs: ``[H, W]`` lesion probabilities.
        predicted: ``[H, W]`` bool, true if the probability reaches the threshold.
        inside: number of predicted pixels in the named zones.
        mask: ``[H, W]`` 0/1, or ``None`` if there is none.
        dice, dice_own: Dice with this report and with the pair's own report, at the same threshold; ``None`` without a
            mask.
    """

    report: Report
    boxes: np.ndarray
    probs: np.ndarray
    predicted: np.ndarray
    inside: int
    mask: np.ndarray | None
    dice: float | None
    dice_own: float | None

    def line(self) -> str:
        """The result in one line."""
        pixels = int(self.predicted.sum())
        where = f", {self.inside} of them ({100 * self.inside / pixels:.0f} %) in the named zones" if pixels else ""
        parts = [f"{pixels} lesion pixels predicted{where}"]
        if self.mask is not None:
            parts.append(f"mask: {int(self.mask.sum())} pixels")
            parts.append(f"Dice {self.dice:.2f} ({self.dice_own:.2f} with its own report)")
        return "; ".join(parts) + "."


def chosen_report(own: Report, choice: str) -> Report:
    """The report of one of the :data:`CHOICES` (except ``as typed``), in the style of the pair's own report."""
    if choice == "its own":
        return own
    if choice == "sides swapped":
        return own.flip()
    zones = [choice in ("all zones", zone) for zone in ZONES]
    return Report.of(zones, style=own.style)


def read_with(
    network: nn.Module, texts: Texts, grid: Grid, pairs: Pairs, index: int, text: str, threshold: float
) -> Answer:
    """Predicts the lesion of one pair's image with another report.

    Args:
        network, texts: the network and its tokenizer.
        grid: the zone grid.
        pairs, index: the pair; its mask is used only for the Dice.
        text: the report to read instead of the pair's own.
        threshold: smallest probability that counts as lesion, 0 to 1.

    Raises:
        ReportError: if the text is not a report.
    """
    own, report = pairs.reports[index], Report.parse(text)
    twice = replace(pairs.subset([index, index], masks=False), reports=(report, own))
    probs = torch.cat(list(predict(network, twice, texts)))
    predicted = probs >= threshold
    boxes = grid.boxes(*probs.shape[2:])[np.flatnonzero(report.zones)]
    named = np.zeros(probs.shape[2:], bool)
    for y0, x0, y1, x1 in boxes:
        named[y0:y1, x0:x1] = True
    mask = dice = dice_own = None
    if pairs.masks is not None:
        mask = pairs.masks[index]
        counts = overlap(predicted, torch.from_numpy(mask).bool().expand_as(predicted)).numpy()
        dice, dice_own = (scores(count[None])["dice_image"] for count in counts)
    drawn = predicted[0, 0].numpy()
    return Answer(report, boxes, probs[0, 0].numpy(), drawn, int((drawn & named).sum()), mask, dice, dice_own)


def words_of(texts: Texts, report: str) -> dict[str, int]:
    """The words of a report as the network reads them -> the position of each. A repeated word has a number."""
    ids = texts([report])[0]
    words, found = texts.tokenizer.convert_ids_to_tokens(ids[ids != texts.tokenizer.pad_token_id]), {}
    for k, word in enumerate(words):
        before = words[:k].count(word)
        found[f"{word} ({before + 1})" if before else word] = k
    return found


def attention_to_words(network: nn.Module, texts: Texts, pairs: Pairs, index: int, report: Report) -> Tensor:
    """The attention of each place of a pair's image to each word of a report, at stride 8.

    Returns:
        ``[L, H / 8, W / 8]`` shares of attention, 0 for padding.

    Raises:
        NoAttentionError: if the network has no such attention.
    """
    pair = replace(pairs.subset([index], masks=False), reports=(report,))
    [(image, ids)] = network_inputs(pair, texts)
    return word_attention(network, image, ids)[8][0]


def prediction_explorer(network: nn.Module, texts: Texts, grid: Grid, pairs: Pairs) -> Explorer:
    """The widget: choose a pair, edit its report, move the threshold, and see the predicted contour change.

    A quick choice fills the text box. A text that is typed there stays if the pair changes, so one report can be tried
    on many images. If a word of the report is chosen, the image shows the attention to it.

    Args:
        network, texts, grid, pairs: as in :func:`read_with`; the network is on the CPU.
    """
    controls = {
        "index": ipywidgets.IntSlider(0, 0, len(pairs) - 1, description="pair", continuous_update=False),
        "choice": ipywidgets.Dropdown(options=CHOICES, description="report"),
        "text": ipywidgets.Text(
            pairs.reports[0].render(), description="text", continuous_update=False, layout={"width": "48em"}
        ),
        "threshold": ipywidgets.FloatSlider(
            0.5, min=0.05, max=0.95, step=0.05, description="threshold", continuous_update=False
        ),
        "word": ipywidgets.Dropdown(description="attention to"),
    }
    index, choice, text, _, word = controls.values()

    def words(chosen: str | None) -> None:
        found = words_of(texts, Report.parse(text.value).render())
        word.options = {NO_WORD: -1, **found}.items()
        word.value = found.get(chosen, -1)

    words(None)

    def fill(_):
        if choice.value != TYPED:
            text.value = chosen_report(pairs.reports[index.value], choice.value).render()

    def typed(_):
        if choice.value != TYPED and text.value != chosen_report(pairs.reports[index.value], choice.value).render():
            choice.value = TYPED

    def follow(_):
        with contextlib.suppress(ValueError), explorer.as_one():  # the explorer tells what cannot be read
            words(word.label)

    # Registered before the explorer watches the controls, so a choice and its text are one change.
    index.observe(fill, "value")
    choice.observe(fill, "value")
    text.observe(typed, "value")
    text.observe(follow, "value")

    def answer(index, choice, text, threshold, word):
        reading, heard, told = read_with(network, texts, grid, pairs, index, text, threshold), None, ""
        if word >= 0:
            name = controls["word"].label
            try:
                weights = attention_to_words(network, texts, pairs, index, reading.report)[word]
                heard = name, weights.numpy()
                told = f" {name!r} gets {100 * weights.mean():.0f} % of a place's attention on the mean, "
                told += f"{100 * weights.max():.0f} % at most."
            except NoAttentionError as error:
                told = f" No map of {name!r}: {error}."
        drawn = (reading.mask, reading.probs, reading.predicted, reading.boxes, reading.report.render(), heard)
        return prediction_panel(pairs.images[index], *drawn), reading.line() + told

    explorer = Explorer(
        controls,
        answer,
        "the image with mask, prediction and named zones, and with the attention to a word if one is chosen; "
        "the map of lesion probabilities",
    )
    return explorer
