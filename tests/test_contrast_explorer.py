"""The ITCL explorer: what it shows is what the loss computes, and moving a control changes it."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from semimedref_core.data.phantom import phantom
from semimedref_core.itcl import itcl, loss_floor
from semimedref_core.networks import build_network, build_texts
from semimedref_core.widgets.contrast import contrast, contrast_explorer


@pytest.fixture(scope="module")
def batch():
    """Reports of 20 pairs with embeddings of no meaning, and their zone codes."""
    reports = phantom("valid", 20, 32).reports
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(20, 8, generator=generator) for _ in range(2))
    return reports, u, v, torch.tensor([report.code for report in reports])


def test_eq_11_the_loss_is_the_cross_entropy_of_the_two_tables_it_shows(batch):
    _, u, v, codes = batch
    shown, turned = contrast(u, v, codes, 0.5), contrast(v, u, codes, 0.5)
    by_hand = sum(-(side.wanted * side.given.log()).sum(1).mean() for side in (shown, turned)) / 2
    assert shown.loss == pytest.approx(by_hand.item(), rel=1e-5)
    torch.testing.assert_close(shown.wanted.sum(1), torch.ones(20))


def test_hard_positives_are_the_usual_contrastive_loss_and_have_the_floor_0(batch):
    _, u, v, codes = batch
    shown, own = contrast(u, v, codes, 0.07, "hard"), torch.arange(20)
    z = normalize(u, dim=1) @ normalize(v, dim=1).T / 0.07
    assert shown.loss == pytest.approx(((cross_entropy(z, own) + cross_entropy(z.T, own)) / 2).item(), rel=1e-5)
    assert shown.floor == 0 and torch.equal(shown.wanted, torch.eye(20))


def test_no_embeddings_get_below_the_floor_and_descent_comes_close(batch):
    _, u, v, codes = batch
    u, v = u.clone().requires_grad_(), v.clone().requires_grad_()
    optimizer = torch.optim.Adam([u, v], 0.2)
    losses = []
    for _ in range(50):
        loss = itcl(u, v, codes, 0.3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    floor = loss_floor(codes).item()
    assert 0 < floor < math.log(20)
    assert floor <= min(losses) < floor + 0.05 < losses[0]


def test_every_control_changes_what_is_said_or_shown(batch):
    reports, u, v, _ = batch
    explorer = contrast_explorer(reports, {"before": (u, v), "after": (v, u)})
    for name, value in {"seed": 3, "size": 8, "tau": 0.5, "positives": "hard", "network": "before"}.items():
        before = explorer.said.value, explorer.picture.value
        explorer.controls[name].value = value
        assert (explorer.said.value, explorer.picture.value) != before, name
    assert "hard positives, tau 0.500" in explorer.said.value


def test_a_kind_of_positives_that_is_none_is_refused(batch):
    _, u, v, codes = batch
    with pytest.raises(ValueError, match="unknown positives 'fuzzy'; choose one of soft, hard"):
        contrast(u, v, codes, 0.07, "fuzzy")


def test_a_network_asked_to_segment_none_gives_embeddings_only():
    network, ids = build_network("compact").eval(), build_texts()(["No pulmonary infection, zero infected areas."] * 3)
    images = torch.randn(3, 1, 32, 32)
    some, none = network(images, ids), network(images, ids, decode=0)
    assert none.logits.shape == (0, 1, 32, 32)
    torch.testing.assert_close(none.image_embedding, some.image_embedding)
