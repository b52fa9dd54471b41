"""The kernels of patch_mix, in Triton's interpreter if TRITON_INTERPRET is 1, else on a GPU; run by
test_patch_mix_triton.py in a process of its own."""

import os

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from semimedref_kernels import choices
from semimedref_kernels.choices import CANDIDATES
from semimedref_kernels.eager import wide
from semimedref_kernels.patch_mix import plain_patch_mix, plain_returned
from semimedref_kernels.patch_mix_triton import patch_mix_fused, returned_fused

LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.mT.contiguous().mT,
    "every second column": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "rows of a larger channels-last image": lambda x: LAYOUTS["channels last"](torch.cat([x, x], 2))[
        :, :, : x.shape[2]
    ],
    "one sample for all": lambda x: x[:1].expand_as(x),
}
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def same_bits(mine, reference):
    return [torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(mine, reference, strict=True)] == [True] * 3


@settings(max_examples=45, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(
    batch=st.integers(1, 4),
    channels=st.sampled_from([1, 2, 3]),
    height=st.sampled_from([1, 5, 16, 19]),
    width=st.sampled_from([1, 7, 16, 70, 259]),  # the gate's tile is 128 wide, a program takes 4096 pixels
    image_layout=st.sampled_from(list(LAYOUTS)),
    probs_layout=st.sampled_from(list(LAYOUTS)),
    image_dtype=st.sampled_from(FLOATS),
    probs_dtype=st.sampled_from(FLOATS),
    boxes=st.sampled_from(["small", "any", "whole image"]),
    threshold=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_the_kernels_give_the_bits_of_the_plain_form(
    batch, channels, height, width, image_layout, probs_layout, image_dtype, probs_dtype, boxes, threshold, seed
):
    random = torch.Generator().manual_seed(seed)
    images = LAYOUTS[image_layout](
        torch.randn(batch, channels, height, width, generator=random).to(DEVICE, image_dtype)
    )
    probs = torch.randint(0, 9, (batch, 1, height, width), generator=random) / 8  # so that the gate meets ties
    probs = LAYOUTS[probs_layout](probs.to(DEVICE, probs_dtype))
    partner = torch.randint(0, batch, (batch,), generator=random)
    low = (torch.rand(batch, 2, generator=random) * torch.tensor([height + 2, width + 2])).long() - 2
    spans = {
        "small": torch.randint(0, 4, (batch, 2), generator=random),
        "any": torch.randint(-2, max(height, width) + 3, (batch, 2), generator=random),
        "whole image": torch.tensor([height, width]) - low,
    }
    low = torch.zeros_like(low) if boxes == "whole image" else low
    box = torch.cat([low, low + spans[boxes]], 1)
    arguments = images, probs, partner.to(DEVICE), box.to(DEVICE), threshold
    mine, reference = patch_mix_fused(*arguments), plain_patch_mix(*arguments)
    assert same_bits(mine, reference)
    assert [x.stride() for x in mine] == [x.stride() for x in reference]
    grads = [torch.randn(x.shape, generator=random).to(DEVICE, x.dtype) for x in mine[:2]]
    grads = [LAYOUTS[layout](x) for layout, x in zip((image_layout, probs_layout), grads, strict=True)]
    about = *arguments[2:4], mine[2]
    for back, grad in zip(returned_fused(*grads, *about), grads, strict=True):
        summed = plain_returned(wide(grad), *about).to(grad.dtype)  # rounded once, however many gradients meet
        last = torch.finfo(grad.dtype).eps if grad.dtype == torch.bfloat16 else 0  # which the interpreter cuts off
        torch.testing.assert_close(back, summed, rtol=last, atol=0)
        assert back.dtype == grad.dtype and back.stride() == torch.empty_like(grad).stride()


@pytest.mark.parametrize("number", range(len(CANDIDATES["mix_kernel 32 bit"])))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whatever_a_device_chooses_the_bits_are_the_same(number, dtype, monkeypatch):
    random = torch.Generator().manual_seed(number)
    images, probs = torch.randn(2, 1, 40, 64, generator=random), torch.rand(2, 1, 40, 64, generator=random)
    partner, boxes = torch.tensor([1, 0]), torch.tensor([[3, 5, 38, 60], [0, 0, 9, 64]])
    arguments = *(x.to(DEVICE) for x in (images.to(dtype), probs.to(dtype), partner, boxes)), 0.5
    found = []
    for table in ({}, {name: each[number] for name, each in CANDIDATES.items() if number < len(each)}):
        monkeypatch.setattr(choices, "in_use", lambda device, table=table: table)
        mixed = patch_mix_fused(*arguments)
        found.append([*mixed, *returned_fused(*arguments[:2], *arguments[2:4], mixed[2])])
    assert all(map(torch.equal, *found)) and same_bits(found[0][:3], plain_patch_mix(*arguments))


def two_samples(width=8):
    images = torch.arange(2 * 8 * width, dtype=torch.float32, device=DEVICE).reshape(2, 1, 8, width)
    boxes = torch.tensor([[0, 0, 3, 3]] * 2, device=DEVICE)
    return images, torch.ones_like(images), torch.tensor([1, 0], device=DEVICE), boxes


@pytest.mark.parametrize("stranger", [-1, 2, 2**40])
def test_a_donor_that_does_not_exist_is_refused_and_never_read(stranger):
    images, probs, partner, boxes = two_samples()
    partner[0] = stranger
    mixed, target, accepted = patch_mix_fused(images, probs, partner, boxes, 0.5)
    assert accepted.tolist() == [False, True]
    assert torch.equal(mixed[0], images[0]) and torch.equal(target, probs)


def test_nan_in_the_box_refuses_and_elsewhere_does_not_matter():
    images, probs, partner, boxes = two_samples()
    probs[0, 0, 1, 1], probs[1, 0, 5, 5] = torch.nan, torch.nan
    accepted = patch_mix_fused(images, probs, partner, boxes, 0.5)[2]
    assert accepted.tolist() == [True, False]  # the first takes from the second, whose NaN lies outside the box
    assert torch.equal(accepted, plain_patch_mix(images, probs, partner, boxes, 0.5)[2])


def test_boxes_far_outside_are_empty_and_huge_ones_cover_the_image():
    images, probs, partner, boxes = two_samples()
    far = 2**62
    boxes = torch.tensor([[far, far, far + 1, far + 1], [-far, -far, far, far]], device=DEVICE)
    mixed, _, accepted = patch_mix_fused(images, probs, partner, boxes, 0.5)
    assert accepted.tolist() == [False, True] and torch.equal(mixed[1], images[0])
    assert same_bits(
        patch_mix_fused(images, probs, partner, boxes, 0.5), plain_patch_mix(images, probs, partner, boxes, 0.5)
    )


def test_samples_may_lie_more_than_two_to_the_31_elements_apart():
    memory = torch.empty(2**31 + 64, dtype=torch.float16, device=DEVICE)  # only the pages that are touched become real
    images = memory.as_strided((2, 1, 8, 8), (2**31, 64, 8, 1))
    images.copy_(two_samples()[0])
    _, probs, partner, boxes = two_samples()
    assert same_bits(
        patch_mix_fused(images, probs, partner, boxes, 0.5), plain_patch_mix(images, probs, partner, boxes, 0.5)
    )


def test_what_is_empty_stays_empty():
    for batch, channels, height in ((0, 3, 8), (2, 3, 0), (2, 0, 8)):
        images, probs = torch.zeros(batch, channels, height, 8), torch.zeros(batch, 1, height, 8)
        partner, boxes = torch.arange(batch), torch.tensor([0, 0, 2, 2]).repeat(batch, 1)
        arguments = *(x.to(DEVICE) for x in (images, probs, partner, boxes)), 0.0
        assert same_bits(patch_mix_fused(*arguments), plain_patch_mix(*arguments))


def test_a_gradient_that_nobody_needs_is_left_out_and_the_other_is_as_before():
    _, _, partner, boxes = two_samples()
    accepted = torch.tensor([True, True], device=DEVICE)
    grads = torch.randn(2, 1, 8, 8, device=DEVICE), torch.randn(2, 1, 8, 8, device=DEVICE)
    both = returned_fused(*grads, partner, boxes, accepted)
    assert torch.equal(returned_fused(grads[0], None, partner, boxes, accepted)[0], both[0])
    assert torch.equal(returned_fused(None, grads[1], partner, boxes, accepted)[1], both[1])
    assert returned_fused(None, None, partner, boxes, accepted) == (None, None)


@pytest.mark.parametrize("side", [3, 7, 13, 33, 74])
def test_a_tie_at_the_gate_is_decided_as_on_every_device(side):
    """0.55 as float32 lies above 0.55, as float16 below it: whatever the order of the sum."""
    for dtype, taken in ((torch.float32, True), (torch.float16, False), (torch.bfloat16, True), (torch.float64, True)):
        maps = torch.full((1, 1, side, side), 0.55, dtype=dtype, device=DEVICE)
        arguments = maps, maps, torch.tensor([0], device=DEVICE), torch.tensor([[0, 0, side, side]], device=DEVICE)
        decided = [form(*arguments, 0.55)[2].item() for form in (patch_mix_fused, plain_patch_mix)]
        assert decided == [taken, taken], dtype


def test_two_runs_give_the_same_bits():
    random = torch.Generator().manual_seed(0)
    images, probs = torch.randn(2, 1, 20, 70, generator=random), torch.rand(2, 1, 20, 70, generator=random)
    partner, boxes = torch.tensor([1, 0]), torch.tensor([[0, 0, 20, 70]] * 2)
    arguments = *(x.to(DEVICE) for x in (images, probs, partner, boxes)), 0.5
    assert same_bits(patch_mix_fused(*arguments), patch_mix_fused(*arguments))
