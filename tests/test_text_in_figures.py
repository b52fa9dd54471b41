"""Reports, names of methods, variants and settings are text in every figure, whatever they hold."""

import numpy as np
import pandas as pd
import pytest

from semimedref_core.data.pairs import Pairs
from semimedref_core.data.phantom import phantom
from semimedref_core.experiments.results import finished_runs
from semimedref_core.experiments.statistics import learning_curves
from semimedref_core.figures import canvas, dataset, differences, mixing, prediction_panel, results, training
from semimedref_core.figures.pairs import image_row, prediction_gallery, prediction_overlay, sample_gallery

BAD = r"100 $ of $\frac{a_{b$ {x}^^ $$ \$ $"  # matplotlib cannot read it as a formula
IMAGE = np.zeros((16, 16))
SCORES = {name: 0.5 for name in ("dice_image", "dice_micro", "miou_image", "miou_micro")}


class Said:
    """A report that says what it likes."""

    zones = (1, 0, 0, 0, 0, 0)

    def render(self):
        return BAD

    __str__ = render


def pair() -> Pairs:
    return Pairs(IMAGE[None].astype(np.uint8), np.ones((1, 16, 16), np.uint8), (Said(),), (BAD,))


def curves(run):
    """Of two methods with names of somebody's own."""
    for seed in (1, 2):
        for ratio in (0.05, 0.5):
            run(0.5, method="supervised", seed=seed, label_ratio=ratio, image_encoder=BAD if ratio == 0.5 else "")
            run(0.6, method="fixmatch", variant_of=BAD, seed=seed, label_ratio=ratio)
    return learning_curves(finished_runs(run.folders))


LOG = [{"step": 1, "loss_labelled": 1.0}, {"step": 1, "valid": {name: SCORES for name in ("student", "teacher")}}]
FIGURES = {
    "samples": lambda run: sample_gallery(pair()),
    "images": lambda run: image_row({BAD: IMAGE}),
    "predictions": lambda run: prediction_gallery(pair(), {BAD: IMAGE[None]}),
    "an overlay": lambda run: prediction_overlay(IMAGE, IMAGE, BAD),
    "an explorer": lambda run: prediction_panel.prediction_panel(IMAGE, None, IMAGE, IMAGE, np.zeros((0, 4)), BAD),
    "a mixture": lambda run: training.mixing_gallery(*(IMAGE[None],) * 4, [(0, 0, 2, 2)], [(BAD, BAD)]),
    "reports side by side": lambda run: mixing.rewritten_reports([(Said(), BAD, Said())]),
    "curves of a training": lambda run: training.training_curves({BAD: LOG}),
    "phrases": lambda run: dataset.phrase_bars(pd.DataFrame({"a": [0.5], "b": [0.4]}, index=[BAD])),
    "learning curves": lambda run: results.score_panels(curves(run)),
    "sizes": lambda run: differences.size_bars({BAD: pd.DataFrame({"ours": [0.5], "theirs": [0.4]}, index=["small"])}),
}  # fmt: skip


@pytest.mark.parametrize("what", FIGURES)
def test_what_comes_from_elsewhere_is_text_in_a_figure(run, what):
    """Were it read as a formula, drawing would fail."""
    figure = FIGURES[what](run)
    figure.canvas.draw()
    texts = [text.get_text().replace(r"\$", "$") for text in figure.findobj(canvas.plt.Text)]
    assert "$" in "".join(texts)


def test_formulas_of_our_own_stay_formulas():
    figure = mixing.mixed_pair(
        (IMAGE, IMAGE), (IMAGE, IMAGE), IMAGE, IMAGE, (0, 0, 4, 4), phantom("valid", 3, size=32).reports, True
    )
    figure.canvas.draw()
    assert {"$p_i$", "receiver $s_i$"} <= {ax.get_title() for ax in figure.axes}
