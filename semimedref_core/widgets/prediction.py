"""The prediction explorer: a reader edits a report, and a trained network predicts the contour."""

from __future__ import annotations

from dataclasses import dataclass, replace

import ipywidgets
import numpy as np
import torch
from torch import nn

from semimedref_core.anatomy import Grid
from semimedref_core.data.pairs import Pairs
from semimedref_core.evaluation import overlap, predict, scores
from semimedref_core.figures.prediction_panel import prediction_panel
from semimedref_core.networks import Texts
from semimedref_core.reports import ZONES, Report
from semimedref_core.widgets.base import Explorer

TYPED = "as typed"
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


def prediction_explorer(network: nn.Module, texts: Texts, grid: Grid, pairs: Pairs) -> Explorer:
    """The widget: choose a pair, edit its report, move the threshold, and see the predicted contour change.

    A quick choice fills the text box. A text that is typed there stays if the pair changes, so one report can be tried
    on many images.

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
    }
    index, choice, text, _ = controls.values()

    def fill(_):
        if choice.value != TYPED:
            text.value = chosen_report(pairs.reports[index.value], choice.value).render()

    def typed(_):
        if choice.value != TYPED and text.value != chosen_report(pairs.reports[index.value], choice.value).render():
            choice.value = TYPED

    # Registered before the explorer watches the controls, so a choice and its text are one change.
    index.observe(fill, "value")
    choice.observe(fill, "value")
    text.observe(typed, "value")

    def answer(index, choice, text, threshold):
        reading = read_with(network, texts, grid, pairs, index, text, threshold)
        drawn = (reading.mask, reading.probs, reading.predicted, reading.boxes, reading.report.render())
        return prediction_panel(pairs.images[index], *drawn), reading.line()

    return Explorer(
        controls, answer, "the image with mask, prediction and named zones; the map of lesion probabilities"
    )
