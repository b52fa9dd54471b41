"""The prediction explorer: what a network makes of a report that a reader edits, counted and told."""

import numpy as np
import pytest
import torch
from torch import nn

from semimedref_core.anatomy import THIRDS
from semimedref_core.data.pairs import Pairs
from semimedref_core.networks import build_network, build_texts
from semimedref_core.networks.compact import Prediction
from semimedref_core.reports import ZONES, Report, ReportError
from semimedref_core.widgets.prediction import (
    CHOICES,
    NO_WORD,
    attention_to_words,
    chosen_report,
    prediction_explorer,
    read_with,
    words_of,
)

LEFT = Report.of([0, 0, 1, 0, 0, 0])
RIGHT_UPPER = Report.of([0, 0, 0, 1, 0, 0])


class BelievesTheReport(nn.Module):
    """A network that marks the whole left half (probability 0.9) where the report says left, and so for right."""

    def __init__(self, texts):
        super().__init__()
        self.sides = texts.tokenizer.convert_tokens_to_ids(["left", "right"])

    def forward(self, images, input_ids, decode=None):
        logits = torch.full_like(images, -10.0)
        half = images.shape[3] // 2
        for part, side in zip((logits[..., :half], logits[..., half:]), self.sides, strict=True):
            part[(input_ids == side).any(1)] = float(np.log(9))
        return Prediction(logits, None, None)


@pytest.fixture(scope="module")
def pairs():
    """Two pairs of 48 px: the lesion is the left half, then the lower third of the left half."""
    images = np.random.default_rng(0).integers(0, 255, (2, 48, 48)).astype(np.uint8)
    masks = np.zeros_like(images)
    masks[0, :, :24] = 1
    masks[1, 32:, :24] = 1
    return Pairs(images, masks, (LEFT, RIGHT_UPPER.flip()), ("a.png", "b.png"))


@pytest.fixture(scope="module")
def reading(pairs):
    texts = build_texts()

    def read(text, index=0, threshold=0.5, of=pairs):
        return read_with(BelievesTheReport(texts), texts, THIRDS, of, index, text, threshold)

    return read


@pytest.fixture
def explorer(pairs):
    texts = build_texts()
    return prediction_explorer(BelievesTheReport(texts), texts, THIRDS, pairs)


def test_the_quick_choices_are_the_reports_they_say():
    own = Report.of([0, 1, 1, 0, 0, 0], style="release")
    assert chosen_report(own, "its own") == own
    assert chosen_report(own, "sides swapped").zones == (0, 0, 0, 0, 1, 1)
    assert chosen_report(own, "all zones").zones == (1,) * 6
    for k, zone in enumerate(ZONES):
        assert zone in CHOICES and chosen_report(own, zone).zones == tuple(int(j == k) for j in range(6))
    assert chosen_report(own, "all zones").style == "release"


def test_pixels_in_the_named_zones_and_dice_are_those_of_the_report_that_was_read(reading):
    own = reading(LEFT.render())
    assert own.predicted[:, :24].all() and not own.predicted[:, 24:].any()
    assert own.inside == 16 * 24, "the left half is predicted, its lower third is named"
    assert own.dice == own.dice_own == 1
    assert np.array_equal(own.boxes, [[32, 0, 48, 24]])
    swapped = reading(LEFT.flip().render())
    assert not swapped.predicted[:, :24].any() and swapped.inside == 16 * 24
    assert (swapped.dice, swapped.dice_own) == (0, 1)
    assert "1152 lesion pixels predicted, 384 of them (33 %)" in swapped.line() and "Dice 0.00 (1.00" in swapped.line()
    third = reading(LEFT.render(), index=1)
    assert third.dice == pytest.approx(2 * 384 / (1152 + 384))


def test_the_threshold_cuts_the_prediction_and_no_lesion_is_told_without_a_share(reading):
    assert reading(LEFT.render(), threshold=0.85).predicted.sum() == 48 * 24
    nothing = reading(LEFT.render(), threshold=0.95)
    assert nothing.predicted.sum() == nothing.inside == 0 and nothing.dice == 0
    assert nothing.line().startswith("0 lesion pixels predicted;")


def test_pairs_without_masks_have_no_dice(reading, pairs):
    alone = reading(LEFT.render(), of=pairs.subset([0, 1], masks=False))
    assert alone.mask is alone.dice is alone.dice_own is None
    assert "Dice" not in alone.line() and "mask" not in alone.line()


def test_a_text_that_is_no_report_is_refused(reading):
    with pytest.raises(ReportError, match="both lungs"):
        reading("both lungs")


def test_the_text_follows_pair_and_choice_until_a_reader_types(explorer):
    index, choice, text, *_ = explorer.controls.values()
    assert text.value == LEFT.render()
    choice.value = "sides swapped"
    assert text.value == LEFT.flip().render() and "Dice 0.00 (1.00" in explorer.said.value
    index.value = 1
    assert (choice.value, text.value) == ("sides swapped", RIGHT_UPPER.render())
    text.value = "Bilateral pulmonary infection, two infected areas, all left lung and all right lung."
    assert choice.value == "as typed" and "2304 lesion pixels" in explorer.said.value
    index.value = 0
    assert choice.value == "as typed" and text.value.startswith("Bilateral")
    choice.value = "its own"
    assert text.value == LEFT.render() and "Dice 1.00" in explorer.said.value


def test_an_unreadable_report_is_told_in_the_widget_and_the_threshold_is_answered_again_after_it(explorer):
    picture = explorer.picture.value
    explorer.controls["text"].value = "both lungs"
    assert "cannot read the report" in explorer.said.value and explorer.picture.value == picture
    explorer.controls["choice"].value = "all zones"
    explorer.controls["threshold"].value = 0.95
    assert explorer.said.value.startswith("0 lesion pixels") and explorer.picture.value != picture


@pytest.fixture
def listening(pairs):
    """An explorer of a network whose pixels attend to words."""
    torch.manual_seed(0)
    return prediction_explorer(build_network("compact"), build_texts(), THIRDS, pairs)


def test_each_word_that_the_network_reads_can_be_chosen_also_one_that_returns():
    words = words_of(
        build_texts(), "bilateral pulmonary infection, two infected areas, all left lung and all right lung."
    )
    assert list(words)[:5] == ["[CLS]", "bilateral", "pulmonary", "infection", ","]
    assert words["all (2)"] > words["all"] and list(words.values()) == list(range(len(words)))


def test_a_chosen_word_is_laid_over_the_picture_and_its_share_is_told(listening, pairs):
    word, plain = listening.controls["word"], listening.picture.value
    assert word.label == NO_WORD and "attention" not in listening.said.value
    word.label = "left"
    left = listening.picture.value
    assert left != plain and "&#x27;left&#x27; gets" in listening.said.value
    word.label = "lower"
    assert listening.picture.value not in (left, plain)
    word.label = NO_WORD
    assert listening.picture.value == plain


def test_the_shares_are_those_of_the_network_as_it_predicts(pairs):
    network = build_network("compact").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = attention_to_words(network, build_texts(), pairs, 0, LEFT)
    assert weights.shape == (24, 6, 6) and torch.allclose(weights.sum(0), torch.ones(6, 6))
    assert network.training and all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_chosen_word_stays_while_the_report_has_it_and_one_change_is_one_answer(listening):
    pictures = []
    listening.controls["word"].label = "left"
    listening.picture.observe(lambda _: pictures.append(listening.controls["word"].label), "value")
    listening.controls["choice"].value = "all zones"
    assert pictures == ["left"] and "&#x27;left&#x27; gets" in listening.said.value
    listening.controls["text"].value = "both lungs"
    assert listening.controls["word"].label == "left" and "cannot read the report" in listening.said.value
    listening.controls["choice"].value = "right upper"
    assert pictures == ["left", NO_WORD] and "attention" not in listening.said.value


def test_a_network_that_does_not_tell_its_attention_says_so_beside_its_prediction(explorer):
    picture = explorer.picture.value
    explorer.controls["word"].label = "left"
    assert "No map of &#x27;left&#x27;: this network does not tell how pixels attend" in explorer.said.value
    assert "Dice" in explorer.said.value and explorer.picture.value == picture
