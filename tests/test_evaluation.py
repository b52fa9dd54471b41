"""Dice and mIoU, micro and per image, against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.data.phantom import phantom
from semimedref_core.evaluation import evaluate, overlap, predict, scores
from semimedref_core.figures.pairs import prediction_gallery
from semimedref_core.networks import build_network, build_texts


def by_definition(predicted, target):
    """Pixel sets of each image, and of all images at once."""

    def of(a, b):
        either = np.logical_or(a, b).sum()
        both = np.logical_and(a, b).sum()
        return (1.0, 1.0) if either == 0 else (2 * both / (a.sum() + b.sum()), both / either)

    images = np.array([of(a, b) for a, b in zip(predicted, target, strict=True)])
    dice, miou = of(predicted, target)
    return {
        "dice_image": images[:, 0].mean(), "miou_image": images[:, 1].mean(), "dice_micro": dice, "miou_micro": miou,
    }  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_eq_18_the_four_metrics_are_those_of_the_definition(images, predicted_share, target_share, seed):
    rng = np.random.default_rng(seed)
    predicted, target = (rng.random((images, 1, 6, 6)) < share for share in (predicted_share, target_share))
    found = scores(overlap(torch.from_numpy(predicted), torch.from_numpy(target)).numpy())
    assert found == pytest.approx(by_definition(predicted, target))


def test_ledger_11_a_missed_small_lesion_costs_half_per_image_and_next_to_nothing_micro():
    target = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    target[0, :, 4:24, 4:24] = target[1, :, 4:7, 4:7] = True
    predicted = target.clone()
    predicted[1] = False
    found = scores(overlap(predicted, target).numpy())
    assert found["dice_image"] == 0.5 and found["dice_micro"] > 0.98


def test_an_image_without_lesion_scores_1_if_nothing_is_predicted_else_0():
    empty, one_pixel = torch.zeros(1, 1, 4, 4, dtype=torch.bool), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    one_pixel[0, 0, 0, 0] = True
    assert set(scores(overlap(empty, empty).numpy()).values()) == {1.0}
    assert set(scores(overlap(one_pixel, empty).numpy()).values()) == {0.0}


def test_a_gallery_tells_the_dice_that_the_evaluation_gives():
    """Also for a picture without a lesion in which nothing is found."""
    empty, lesion = np.zeros((2, 8, 8), np.uint8)
    lesion[2:5, 2:5] = 1
    reports = phantom("valid", 4, 32).reports
    pairs = Pairs(np.zeros((4, 8, 8), np.uint8), np.stack([empty, empty, lesion, lesion]), reports, tuple("abcd"))
    found = np.stack([empty, lesion, empty, lesion]) * 0.9
    figure = prediction_gallery(pairs, {"ours": found})
    told = [text.get_text().rpartition("Dice ")[2] for ax in figure.axes for text in ax.texts]
    masks = torch.from_numpy(pairs.masks)[:, None] > 0
    counts = overlap(torch.from_numpy(found)[:, None] >= 0.5, masks).numpy()
    expected = [f"{100 * scores(count[None])['dice_image']:.0f} %" for count in counts]
    assert told == expected == ["100 %", "0 %", "0 %", "100 %"]


def test_the_size_of_a_batch_changes_no_metric():
    pairs = phantom("valid", 7, 32)
    torch.manual_seed(0)
    network, texts = build_network("compact"), build_texts()
    assert evaluate(network, pairs, texts, batch_size=3) == pytest.approx(evaluate(network, pairs, texts), abs=1e-6)


def modes(network):
    return {name: module.training for name, module in network.named_modules()}


@pytest.mark.parametrize("asked", ["one batch", "all batches", "a failing batch"])
def test_a_network_in_training_is_in_training_again_after_each_prediction(asked):
    """Also if only the first batch is wanted, or a later one fails; and a part that is frozen stays frozen."""
    network, pairs, texts = build_network("compact").train(), phantom("valid", 4, 32), build_texts()
    network.text.eval()
    before = modes(network)
    probs = predict(network, pairs, texts, batch_size=2)
    first = next(probs)
    assert first.shape == (2, 1, 32, 32) and not first.requires_grad
    assert modes(network) == before, "between two batches too"
    if asked == "all batches":
        assert len(list(probs)) == 1
    if asked == "a failing batch":
        network.register_forward_hook(lambda *_: {}["a fault"])
        with pytest.raises(KeyError):
            next(probs)
    assert modes(network) == before


def test_a_network_that_fails_is_left_in_its_former_mode():
    network = build_network("compact").train()
    network.register_forward_hook(lambda *_: {}["a fault"])
    with pytest.raises(KeyError):
        evaluate(network, phantom("valid", 2, 32), build_texts())
    assert all(modes(network).values())


def test_what_cannot_be_scored_is_said():
    pairs = phantom("train", 2, size=32)
    cases = {"2 pairs without masks": pairs.subset(range(2), masks=False), "0 pairs": pairs.subset(range(0))}
    for message, part in cases.items():
        with pytest.raises(DataError, match=f"nothing to score: {message}$"):
            evaluate(build_network("compact"), part, build_texts())
