"""What CONTRIBUTING says of a new method and a new network is enough to train them."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from semimedref_core import Config, Prediction, config, from_pretrained, train
from semimedref_core.losses import average
from semimedref_core.methods import METHODS, registry
from semimedref_core.methods.baselines import pseudo_labels
from semimedref_core.networks import NETWORKS
from semimedref_core.networks.encoders import TEXT_POSITIONS

PAGE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
TINY = {"image_size": 32, "steps": 2, "batch_size": 2, "burn_in": 0.0, "ramp": 0.0}


def mine(student, teacher, batch, config):
    """The squared difference of student and teacher on the weak view: Mean Teacher without a strong view."""
    weak, p = pseudo_labels(teacher, batch.unlabelled, config)
    seen = student(weak, batch.unlabelled.input_ids).logits.sigmoid()
    return average((seen - p).square().mean((1, 2, 3)), torch.ones(len(p)))


class Mine(nn.Module):
    parts = {"picture": ("see", "head"), "text": ("read",), "ITCL projections": ("project",)}  # noqa: RUF012

    def __init__(self, vocabulary, channels=1, text_positions=TEXT_POSITIONS):
        super().__init__()
        self.channels = channels
        self.see, self.head = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
        self.read, self.project = nn.Embedding(vocabulary, 8, padding_idx=0), nn.Linear(8, 4)

    def forward(self, images, input_ids, decode=None, perturb=None):
        text = self.read(input_ids).sum(1) / (input_ids > 0).sum(1, keepdim=True)  # padding changes nothing
        seen = self.see(images) + text[:, :, None, None]
        features = seen[:decode] if perturb is None else perturb(seen[:decode])
        return Prediction(self.head(features), self.project(seen.mean((2, 3))), self.project(text))


def test_a_method_written_as_the_page_says_trains(monkeypatch, tmp_path, small_phantom):
    monkeypatch.setitem(METHODS, "mine", registry._baseline(mine))
    monkeypatch.setitem(config._TYPES, "method", Literal["mine"])
    results = train(Config(method="mine", **TINY), tmp_path, device="cpu")
    assert results["method"] == "mine" and '"loss_unlabelled"' in (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.parametrize("method", ["semi_medref", "unimatch"])
def test_a_network_written_as_the_page_says_trains_and_loads(monkeypatch, tmp_path, small_phantom, method):
    monkeypatch.setitem(NETWORKS, "mine", Mine)
    monkeypatch.setitem(config._TYPES, "network", Literal["mine"])
    monkeypatch.setitem(config.STRIDE, "mine", 1)
    train(Config(network="mine", method=method, **TINY), tmp_path, device="cpu")
    network, about = from_pretrained(tmp_path / "teacher")
    assert isinstance(network, Mine) and about["network"] == "mine"


def test_the_page_names_what_is_there():
    for name in ("METHODS", "NETWORKS", "STRIDE", "`Method`", "`Network`", "`Prediction`", "test_methods_page"):
        assert name in PAGE
