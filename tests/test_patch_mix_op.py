"""The patch_mix operation against a loop over samples, and at its edges."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semimedref_kernels import patch_mix


def one_by_one(images, probs, partner, boxes, threshold):
    """The definition, sample by sample, on clipped slices."""
    height, width = images.shape[2:]
    mixed, target, accepted = images.clone(), probs.clone(), []
    for i, (j, box) in enumerate(zip(partner.tolist(), boxes.tolist(), strict=True)):
        y0, x0, y1, x1 = (max(0, min(edge, limit)) for edge, limit in zip(box, (height, width) * 2, strict=True))
        patch = (slice(None), slice(y0, max(y0, y1)), slice(x0, max(x0, x1)))
        donor = probs[j][patch]
        accepted.append(donor.numel() > 0 and donor.sum().item() >= threshold * donor.numel())
        if accepted[-1]:
            mixed[i][patch], target[i][patch] = images[j][patch], donor
    return mixed, target, torch.tensor(accepted)


@given(
    batch=st.integers(1, 5),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 10_000),
    threshold=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_it_equals_the_loop_over_samples_bit_for_bit(batch, channels, height, width, seed, threshold):
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, channels, height, width, generator=random)
    # Eighths, so that sums are exact and the gate cannot depend on the order of summation.
    probs = torch.randint(0, 9, (batch, 1, height, width), generator=random) / 8
    partner = torch.randperm(batch, generator=random)
    boxes = torch.randint(-3, 12, (batch, 4), generator=random)
    for mine, reference in zip(
        patch_mix(images, probs, partner, boxes, threshold),
        one_by_one(images, probs, partner, boxes, threshold),
        strict=True,
    ):
        assert torch.equal(mine, reference)


def test_inputs_are_left_alone_and_wrong_shapes_are_refused():
    images, probs = torch.randn(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    before = images.clone()
    mixed, _, accepted = patch_mix(images, probs, torch.tensor([1, 0]), torch.tensor([[0, 0, 2, 2]] * 2), 0.5)
    assert accepted.all() and torch.equal(images, before) and not torch.equal(mixed, before)
    with pytest.raises(ValueError, match="boxes"):
        patch_mix(images, probs, torch.tensor([1, 0]), torch.zeros(2, 3, dtype=torch.long), 0.5)
