"""ITCL: soft positives from zones, and the loss against a reference written out pair by pair."""

import math

import pytest
import torch

from semimedref_core.itcl import ITCL, itcl
from semimedref_core.reports import Report
from semimedref_kernels import jaccard, soft_contrastive_loss


def by_hand(u, v, codes, tau):
    """The paper's definition, one pair after the other, in plain Python floats."""
    n = len(codes)

    def positive(i, j):
        if i == j:
            return 1.0
        union = bin(codes[i] | codes[j]).count("1")
        return bin(codes[i] & codes[j]).count("1") / union if union else 0.0

    def direction(a, b):
        total = 0.0
        for i in range(n):
            z = [sum(x * y for x, y in zip(a[i], b[j], strict=True)) / tau for j in range(n)]
            log_sum = math.log(sum(math.exp(value - max(z)) for value in z)) + max(z)
            p = [positive(i, j) for j in range(n)]
            total -= sum(w * (value - log_sum) for w, value in zip(p, z, strict=True)) / sum(p)
        return total / n

    return (direction(u, v) + direction(v, u)) / 2


@pytest.mark.parametrize("codes", [[63, 36, 32, 4, 0], [7, 7, 7, 7, 7], [0, 0, 0, 0, 0], [1, 2, 4, 8, 16]])
@pytest.mark.parametrize("tau", [0.07, 0.01, 1.0])
def test_the_loss_is_the_one_computed_by_hand(codes, tau):
    """Eq. 10 and Eq. 11."""
    torch.manual_seed(0)
    u, v = (torch.nn.functional.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    expected = by_hand(u.tolist(), v.tolist(), codes, tau)
    assert soft_contrastive_loss(u, v, torch.tensor(codes), tau).item() == pytest.approx(expected, rel=1e-5)


def test_soft_positives_are_shared_zones_over_named_zones():
    """Eq. 9."""
    left = Report.parse("Unilateral pulmonary infection, one infected area, middle lower left lung.")
    both = Report.parse("Bilateral pulmonary infection, two infected areas, lower left lung and lower right lung.")
    nothing = Report.of([0] * 6)
    codes = torch.tensor([report.code for report in (left, both, nothing, nothing)])
    expected = [[1, 1 / 3, 0, 0], [1 / 3, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    torch.testing.assert_close(jaccard(codes), torch.tensor(expected))


def test_with_distinct_zones_it_is_the_usual_contrastive_loss():
    torch.manual_seed(0)
    u, v = (torch.nn.functional.normalize(torch.randn(6, 16), dim=1) for _ in range(2))
    z, labels = u @ v.T / 0.07, torch.arange(6)
    expected = (torch.nn.functional.cross_entropy(z, labels) + torch.nn.functional.cross_entropy(z.T, labels)) / 2
    torch.testing.assert_close(soft_contrastive_loss(u, v, 1 << labels, 0.07), expected)


def test_the_length_of_an_embedding_does_not_matter_and_descent_pulls_pairs_together():
    torch.manual_seed(0)
    u, v = torch.randn(6, 16, requires_grad=True), torch.randn(6, 16, requires_grad=True)
    codes = torch.tensor([1, 2, 4, 8, 16, 32])
    torch.testing.assert_close(itcl(u, v, codes), itcl(3 * u, 0.1 * v, codes))
    optimizer = torch.optim.Adam([u, v], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        itcl(u, v, codes).backward()
        optimizer.step()
    similarity = torch.nn.functional.normalize(u, dim=1) @ torch.nn.functional.normalize(v, dim=1).T
    others = similarity.masked_fill(torch.eye(6, dtype=torch.bool), -1)
    assert similarity.diag().min() > others.max() + 0.3


def test_wrong_shapes_and_temperatures_are_refused():
    u = torch.randn(4, 8)
    with pytest.raises(ValueError, match="codes"):
        soft_contrastive_loss(u, u, torch.zeros(3, dtype=torch.long), 0.07)
    with pytest.raises(ValueError, match="tau must be above 0"):
        soft_contrastive_loss(u, u, torch.zeros(4, dtype=torch.long), 0.0)


def test_positives_that_are_none_are_refused():
    u, codes = torch.randn(4, 8), torch.zeros(4, dtype=torch.long)
    for use in (ITCL, lambda positives: itcl(u, u, codes, positives=positives)):
        with pytest.raises(ValueError, match="unknown positives 'sof'; choose one of soft, hard"):
            use(positives="sof")
