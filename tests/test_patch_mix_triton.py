"""patch_mix as an operation of PyTorch, and its kernels in Triton's interpreter."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from semimedref_kernels import patch_mix
from semimedref_kernels.patch_mix import _by_masks, _returned_by_masks, plain_patch_mix, plain_returned

OP = torch.ops.semimedref.patch_mix.default


def samples(dtype=torch.float32, requires_grad=False, batch=3, channels=2):
    """Images, maps, partners and boxes: the first takes a patch, the second is refused, the third's box is empty."""
    random = torch.Generator().manual_seed(1)
    images = torch.randn(batch, channels, 6, 8, generator=random).to(dtype)
    probs = torch.rand(batch, 1, 6, 8, generator=random).to(dtype) / 4
    probs[1] += 0.7
    boxes = torch.tensor([[1, 1, 4, 5], [2, -2, 9, 3], [5, 5, 5, 8]])
    images.requires_grad_(requires_grad), probs.requires_grad_(requires_grad)
    return images, probs, torch.tensor([1, 2, 0]), boxes


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is for Linux alone")
@pytest.mark.parametrize("interpreted", ["1", pytest.param("0", marks=pytest.mark.gpu)], ids=["interpreter", "GPU"])
def test_the_kernels(interpreted):
    """In a process of its own: Triton decides at import whether kernels are interpreted."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "patch_mix_kernels.py"],
        env=os.environ | {"TRITON_INTERPRET": interpreted},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


def test_the_package_works_where_triton_is_not_installed():
    program = (
        "import sys; sys.modules['triton'] = None; import torch; from semimedref_kernels import patch_mix\n"
        "x = torch.ones(2, 1, 4, 4)\n"
        "print(patch_mix(x, x, torch.tensor([1, 0]), torch.tensor([[0, 0, 2, 2]] * 2), 0.5)[2].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/", check=True)
    assert done.stdout.strip() == "[True, True]"


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck_finds_nothing(memory_format, requires_grad):
    images, probs, partner, boxes = samples(requires_grad=requires_grad)
    images = images.detach().contiguous(memory_format=memory_format).requires_grad_(requires_grad)
    torch.library.opcheck(OP, (images, probs, partner, boxes, 0.5))


@pytest.mark.parametrize("layout", [lambda x: x.mT, lambda x: x[..., ::2], lambda x: x[:1].expand(3, -1, -1, -1)])
def test_opcheck_finds_nothing_at_other_strides(layout):
    images, probs, partner, boxes = samples()
    torch.library.opcheck(OP, (layout(images), layout(probs), partner, boxes, 0.5))


def test_torch_compile_takes_it_whole_with_its_gradient():
    images, probs, partner, boxes = samples(requires_grad=True)

    def step(images, probs):
        mixed, target, accepted = patch_mix(images * 2, probs, partner, boxes, 0.5)
        return (mixed**2).sum() + (target**3).sum() + accepted.sum()

    loss = torch.compile(step, fullgraph=True, backend="aot_eager")(images, probs)
    compiled = torch.autograd.grad(loss, (images, probs))
    eager = torch.autograd.grad(step(images, probs), (images, probs))
    assert all(torch.equal(a, b) for a, b in zip(compiled, eager, strict=True))


def test_torch_compile_takes_batches_of_any_size():
    compiled = torch.compile(patch_mix, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch in (3, 2):
        images, probs, _, boxes = (x[:batch] for x in samples())
        arguments = images, probs, torch.arange(batch).flip(0), boxes, 0.5
        for mine, reference in zip(compiled(*arguments), patch_mix(*arguments), strict=True):
            assert torch.equal(mine, reference)


def test_the_plain_form_waits_for_no_other_device():
    """On the meta device tensors have no values, so whatever asks for a value on the host fails."""
    mixed, target, accepted = plain_patch_mix(*(x.to("meta") for x in samples()), 0.5)
    assert (mixed.shape, target.shape, accepted.shape) == ((3, 2, 6, 8), (3, 1, 6, 8), (3,))


def test_gradients_for_images_and_maps_are_right():
    images, probs, partner, boxes = samples(torch.float64, requires_grad=True)
    assert patch_mix(images, probs, partner, boxes, 0.5)[2].tolist() == [True, False, False]
    assert torch.autograd.gradcheck(
        lambda images, probs: patch_mix(images, probs, partner, boxes, 0.5)[:2], (images, probs)
    )


def test_a_gradient_comes_back_from_every_place_where_a_pixel_was_shown():
    """The first sample took the patch of the second: its own pixels there are seen nowhere, the second's twice."""
    images, probs, partner, boxes = samples(requires_grad=True)
    mixed = patch_mix(images, probs, partner, boxes, 0.5)[0]
    mixed.sum().backward()
    patch = images.grad[:, :, 1:4, 1:5]
    assert (patch[0] == 0).all() and (patch[1] == 2).all() and (patch[2] == 1).all()


def test_one_sample_may_give_to_several_and_gets_a_gradient_back_from_each():
    images, probs, _, _ = samples(torch.float64, requires_grad=True)
    partner, boxes = torch.tensor([1, 1, 1]), torch.tensor([[0, 0, 2, 2], [1, 1, 3, 3], [0, 1, 4, 8]])

    def mixed(images, probs):
        return patch_mix(images, probs, partner, boxes, 0.5)[:2]

    assert patch_mix(images, probs, partner, boxes, 0.5)[2].all()
    assert torch.autograd.gradcheck(mixed, (images, probs))
    everywhere = images.detach().to("meta"), probs.detach().to("meta"), partner.to("meta"), boxes.to("meta")
    assert plain_patch_mix(*everywhere, 0.5)[0].shape == images.shape


def test_the_two_plain_forms_agree():
    """The one for other devices runs here too."""
    images, probs, _, boxes = samples()
    probs[2, 0, 0, 0], boxes[0] = torch.nan, torch.tensor([0, 0, 1, 1])
    for partner in (torch.tensor([1, 2, 0]), torch.tensor([1, 1, 2]), torch.tensor([2, 2, 2])):
        arguments = images, probs, partner, boxes, 0.5
        for mine, reference in zip(_by_masks(*arguments), plain_patch_mix(*arguments), strict=True):
            torch.testing.assert_close(mine, reference, rtol=0, atol=0, equal_nan=True)
        grad, accepted = torch.randn(3, 2, 6, 8), torch.tensor([True, True, False])
        about = partner, boxes, accepted
        torch.testing.assert_close(_returned_by_masks(grad, *about), plain_returned(grad, *about))


def test_a_gradient_that_nobody_needs_is_not_computed():
    images, probs, partner, boxes = samples()
    for leaf in (images, probs):
        leaf.requires_grad_()
        mixed, target, _ = patch_mix(images, probs, partner, boxes, 0.5)
        (mixed.sum() + target.sum()).backward()
        assert leaf.grad is not None
        leaf.requires_grad_(False)
        leaf.grad = None


def test_forward_mode_is_refused():
    images, probs, partner, boxes = samples()
    with pytest.raises(NotImplementedError, match="patch_mix has no forward-mode derivative.*autograd.grad"):
        torch.func.jvp(lambda x: patch_mix(x, probs, partner, boxes, 0.5)[0], (images,), (images,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_averaged_in_float32(dtype):
    """4096 pixels near 0.6: summed in float16 or bfloat16, their mean would be off by far more than 1e-5."""
    probs = torch.full((1, 1, 64, 64), 0.6).to(dtype)
    mean = probs.double().mean().item()
    arguments = torch.zeros(1, 1, 64, 64, dtype=dtype), probs, torch.tensor([0]), torch.tensor([[0, 0, 64, 64]])
    assert patch_mix(*arguments, mean - 1e-5)[2].item() and not patch_mix(*arguments, mean + 1e-5)[2].item()


def test_autocast_leaves_each_dtype_as_it_is():
    images, probs, partner, boxes = samples()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, target, _ = patch_mix(images, probs.bfloat16(), partner, boxes, 0.5)
    assert (mixed.dtype, target.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(mixed, patch_mix(images, probs, partner, boxes, 0.5)[0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": torch.zeros(3, 6, 8)}, r"images must be \[B, C, H, W\], got \(3, 6, 8\)"),
        ({"images": torch.zeros(3, 2, 6, 8, dtype=torch.uint8)}, "images is torch.uint8, need torch.float32"),
        ({"probs": torch.zeros(3, 2, 6, 8)}, r"probs is \(3, 2, 6, 8\), need \(3, 1, 6, 8\)"),
        ({"partner": torch.tensor([0, 1])}, r"partner is \(2,\), need \(3,\)"),
        ({"partner": torch.tensor([0.0, 1.0, 2.0])}, "partner is torch.float32, need torch.int64"),
        ({"boxes": torch.zeros(3, 4)}, "boxes is torch.float32, need torch.int64"),
        (
            {"boxes": torch.zeros(3, 4, dtype=torch.int64, device="meta")},
            "boxes is on meta, move it to the images' cpu",
        ),
        ({"partner": torch.tensor([0, 1, 3])}, r"partners must be 0 to 2, got \[0, 1, 3\]"),
        ({"partner": torch.tensor([-1, 0, 1])}, r"partners must be 0 to 2, got \[-1, 0, 1\]"),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(wrong, message):
    arguments = dict(zip(("images", "probs", "partner", "boxes"), samples(), strict=True)) | wrong
    with pytest.raises(ValueError, match=message):
        patch_mix(**arguments, threshold=0.5)


def test_all_that_does_not_fit_is_named_at_once():
    images, _, partner, _ = samples()
    with pytest.raises(ValueError, match="probs.*boxes"):
        patch_mix(images, torch.zeros(1), partner, torch.zeros(1), 0.5)
