"""The network and pictures that come with the package."""

import re

import pytest

from semimedref_core import evaluate, example, from_pretrained, load_split, load_texts
from semimedref_core.tools import make_example


def test_the_network_is_as_good_as_its_card_says():
    (network, about), texts = from_pretrained(example.MODEL), load_texts(example.MODEL)
    valid = load_split("phantom", "valid", about["image_size"])
    scores = evaluate(network, valid, texts)
    card = (example.MODEL / "README.md").read_text()
    told = [float(number) for number in re.search(r"Dice ([\d.]+) % per image, ([\d.]+) % micro", card).groups()]
    assert [100 * scores[name] for name in ("dice_image", "dice_micro")] == pytest.approx(told, abs=0.2)
    assert f"{sum(p.numel() for p in network.parameters()):,} weights" in card
    assert "not a medical device" in card


def test_the_command_makes_network_card_and_pictures_anew(tmp_path):
    make_example.make(tmp_path, image_size=32, steps=2, batch_size=2)
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    kept = {path.relative_to(example.FOLDER) for path in example.FOLDER.rglob("*") if path.is_file()}
    assert made == {path for path in kept if path.suffix not in (".py", ".pyc")}
    for picture in example.pictures():
        assert (tmp_path / picture.name).read_bytes() == picture.read_bytes()
    assert (tmp_path / example.REPORTS).read_text() == (example.FOLDER / example.REPORTS).read_text()
