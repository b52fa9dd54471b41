"""The measured cases: inputs of each size, the forms, the reference, and the necessary work.

**Bytes that must move**, with item size s. patch_mix forward: each element of image and target is written once and its
source is read once, ``2 (C + 1) B H W s``; this includes the reads of the gate. Backward: the same for the two
gradients. Loss forward: ``2 N D s``, u and v are read. Loss backward: ``4 N D s``, u and v are read and their gradients
written. The few bytes of partners, boxes, flags and codes are added.

**Operations that must be done.** Loss forward ``2 N^2 D``, one product u v^T; backward ``4 N^2 D``, one product for
each gradient. Repeated computations that save memory do not count, so a larger rate always means less time. patch_mix
forward: one selection for each written element, one addition for each pixel of a box; backward: one addition for each
element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from semimedref_kernels.benchmark import baselines
from semimedref_kernels.patch_mix import patch_mix, plain_patch_mix
from semimedref_kernels.soft_contrastive import soft_contrastive_loss

OURS = "ours"
CHANNELS = 3
THRESHOLD = 0.55
TAU = 0.07
DENSE_BUFFERS = 5  # N x N in float32 at once, at the least: P, the logits, their two log-softmaxes, a product
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Form = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    Attributes:
        op: "patch_mix" or "loss".
        sizes: symbol -> size.
        dtype: "fp32" or "bf16".
        inputs: arguments of the forms by position.
        differentiated: number of inputs, from the first on, that get gradients.
        upstream: the incoming gradients of the first outputs; other outputs have none.
        forms: name -> function of the inputs, ours first.
        reference: a form that computes in float64 for float64 inputs.
        limits: largest correct errors of outputs and of gradients, relative to the largest value.
        needs: smallest number of bytes that a form needs, if it may exceed the memory.
    """

    op: str
    sizes: dict[str, int]
    dtype: str
    inputs: tuple[Tensor | float, ...]
    differentiated: int
    upstream: tuple[Tensor, ...]
    forms: dict[str, Form]
    reference: Form
    limits: tuple[float, float]
    needs: dict[str, int]


def cases(device: torch.device, only: str | None = None, quick: bool = False) -> Iterator[Case]:
    """Yields the cases for a device one by one, so that only one is in memory.

    Args:
        only: "patch_mix" or "loss"; both if None.
        quick: a few small ones.
    """
    gpu = device.type == "cuda"
    dtypes = ["fp32", "bf16"] if gpu else ["fp32"]
    if only != "loss":
        for B, side, box in patch_mix_sizes(gpu, quick):
            for dtype in dtypes:
                yield patch_mix_case(B, side, box, dtype, device)
    if only != "patch_mix":
        for N, D in loss_sizes(gpu, quick):
            for dtype in dtypes:
                yield loss_case(N, D, dtype, device)
        for N, D in hard_sizes(gpu, quick):
            for dtype in dtypes:
                yield loss_case(N, D, dtype, device, hard=True)


def patch_mix_sizes(gpu: bool, quick: bool) -> list[tuple[int, int, int]]:
    """Batch, side of the image, side of the box."""
    if quick:
        return [(4, 64, 21)]
    if gpu:
        return [(B, side, side // 3) for B in (8, 32, 128) for side in (224, 512)]
    return [(B, side, box) for B, side in ((8, 224), (32, 224), (8, 512)) for box in (16, side // 3, side // 2)]


def loss_sizes(gpu: bool, quick: bool) -> list[tuple[int, int]]:
    """Number of pairs, width of the embeddings."""
    if quick:
        return [(32, 64), (256, 64)]
    if gpu:
        return [(N, D) for N in (32, 64, 1024, 4096, 16384, 65536) for D in (256, 768)]
    return [(N, D) for N in (32, 64, 1024) for D in (256, 768)] + [(4096, 256)]


def hard_sizes(gpu: bool, quick: bool) -> list[tuple[int, int]]:
    """The same sizes for codes that are all 0: hard positives, as in Inf-CL."""
    if quick:
        return [(32, 64)]
    return [(32, 768), (1024, 256), (16384, 256)] if gpu else [(32, 256), (1024, 256)]


def patch_mix_case(B: int, side: int, box: int, dtype: str, device: torch.device) -> Case:
    """Square images and boxes. The gate clearly accepts every second donor."""
    random = torch.Generator().manual_seed(0)
    kind, gpu = DTYPES[dtype], device.type == "cuda"
    images = torch.randn(B, CHANNELS, side, side, generator=random)
    sure = torch.arange(B) % 2 == 0
    probs = torch.rand(B, 1, side, side, generator=random) * 0.4 + 0.6 * sure[:, None, None, None]
    low = torch.randint(0, side - box + 1, (B, 2), generator=random)
    partner, boxes = torch.randperm(B, generator=random), torch.cat([low, low + box], 1)
    upstream = torch.randn(images.shape, generator=random), torch.randn(probs.shape, generator=random)
    forms = {OURS: patch_mix}
    if (
        gpu
    ):  # on the CPU, the plain form is ours; called by itself, its gradient holds for windows as large as the image
        forms |= {"plain form": plain_patch_mix, "where": baselines.patch_mix_where}
        forms["where, compiled"] = compiled(baselines.patch_mix_where)
    else:
        forms |= {"where": baselines.patch_mix_where, "loop, masks": baselines.patch_mix_masks_loop}
        forms["loop, slices"] = baselines.patch_mix_slices_loop
    return Case(
        "patch_mix",
        {"B": B, "C": CHANNELS, "side": side, "box": box},
        dtype,
        (images.to(device, kind), probs.to(device, kind), partner.to(device), boxes.to(device), THRESHOLD),
        2,
        tuple(grad.to(device, kind) for grad in upstream),
        forms,
        baselines.patch_mix_slices_loop,
        (0.0, 4 * torch.finfo(kind).eps),  # pixels are copied; a gradient adds two numbers
        {},
    )


def loss_case(N: int, D: int, dtype: str, device: torch.device, hard: bool = False) -> Case:
    """Embeddings of any norm, which the loss normalises; texts are close to their images, as after training.

    hard: all codes are 0, so no zones are shared.
    """
    random = torch.Generator().manual_seed(0)
    kind, gpu = DTYPES[dtype], device.type == "cuda"
    u = torch.randn(N, D, generator=random)
    v = u + 2 * torch.randn(N, D, generator=random)
    codes = torch.zeros(N, dtype=torch.int64) if hard else torch.randint(1, 64, (N,), generator=random)
    name, written = ("cross entropy", baselines.loss_cross_entropy) if hard else ("dense", baselines.loss_dense)
    dense = {name: written}
    if gpu:
        dense[f"{name}, compiled"] = compiled(written)
    forms = {OURS: loss_ours} | dense
    if N >= 4096:
        forms["gradients at once"] = baselines.loss_at_once
    if gpu and N >= 4096:
        forms["row chunks"] = baselines.loss_chunks
    if not gpu and N <= 64 and not hard:
        forms["loop, pairs"] = baselines.loss_pairs_loop
    return Case(
        "loss",
        {"N": N, "D": D} | ({"codes": 0} if hard else {}),
        dtype,
        (u.to(device, kind), v.to(device, kind), codes.to(device), TAU),
        2,
        (torch.ones((), device=device),),
        forms,
        baselines.loss_chunks,
        (1e-5, 1e-4) if dtype == "fp32" else (1e-2, 5e-2),  # sums of D rounded products, in units of 1 / TAU
        dict.fromkeys(dense, DENSE_BUFFERS * 4 * N * N),
    )


def loss_ours(u: Tensor, v: Tensor, codes: Tensor, tau: float) -> tuple[Tensor]:
    return (soft_contrastive_loss(u, v, codes, tau, normalize=True),)


def compiled(form: Form) -> Form:
    """Compiles a form with torch.compile for this size only. Earlier compilations are dropped, because after a few
    sizes of one function torch.compile silently gives up."""
    torch._dynamo.reset()
    return torch.compile(form, dynamic=False)


def work(op: str, sizes: dict[str, int], item: int) -> dict[str, tuple[int, int]]:
    """Bytes that must move and operations that must be done, by pass: "forward", "backward", "both".

    Args:
        item: bytes of a number.
    """
    if op == "patch_mix":
        B, elements = sizes["B"], sizes["B"] * (sizes["C"] + 1) * sizes["side"] ** 2
        each = 2 * elements * item + (8 + 32 + 1) * B  # partner, box and flag of each sample
        forward, backward = (each, elements + B * sizes["box"] ** 2), (each, elements)
    else:
        N, D = sizes["N"], sizes["D"]
        forward = 2 * N * D * item + 8 * N + 4, 2 * N * N * D
        backward = 4 * N * D * item + 8 * N + 4, 4 * N * N * D
    return {"forward": forward, "backward": backward, "both": (forward[0] + backward[0], forward[1] + backward[1])}
