"""Dice and mIoU, micro and per image. The two differ by up to ten points, so each number has its own name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from semimedref_core.data.batches import channels_first
from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.networks.text import Texts
from semimedref_core.networks.text_cache import ReadTexts
from semimedref_core.views import weak_view


def overlap(predicted: Tensor, target: Tensor) -> Tensor:
    """Pixel counts of each image: intersection, predicted, target; ``[B, 1, H, W]`` bool -> ``[B, 3]`` int64."""
    counts = [a.sum((1, 2, 3)) for a in (predicted & target, predicted, target)]
    return torch.stack(counts, 1)


def dice_and_iou(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dice and Jaccard index of pixel counts ``[..., 3]`` (intersection, predicted, target), ``[...]`` each, 0 to 1.

    For an image without lesion both are 1 if nothing was predicted, else 0.
    """
    both, predicted, target = np.moveaxis(counts, -1, 0)
    total = predicted + target
    dice = np.where(total == 0, 1.0, 2 * both / np.maximum(total, 1))
    return dice, np.where(total == 0, 1.0, both / np.maximum(total - both, 1))


def scores(counts: np.ndarray) -> dict[str, float]:
    """Metrics (Eq. 18) of a split from the counts of :func:`overlap`; all are between 0 and 1.

    ``dice_micro`` and ``miou_micro`` first add the pixels of all images, as the released code does (Ledger 11).
    ``dice_image`` and ``miou_image`` average over images, as LViT does. mIoU is the Jaccard index of the foreground. An
    image without lesion scores 1 if nothing was predicted, else 0.

    >>> import numpy as np
    >>> from semimedref_core import scores
    >>> counts = np.array([[8, 10, 10], [0, 0, 2]])  # both, predicted, target: one lesion found well, one missed
    >>> {name: round(value, 2) for name, value in scores(counts).items()}
    {'dice_image': 0.4, 'miou_image': 0.33, 'dice_micro': 0.73, 'miou_micro': 0.57}
    """
    (dice, iou), (dice_micro, iou_micro) = dice_and_iou(counts), dice_and_iou(counts.sum(0))
    return {
        "dice_image": float(dice.mean()),
        "miou_image": float(iou.mean()),
        "dice_micro": float(dice_micro),
        "miou_micro": float(iou_micro),
    }


def recovery(reached: float, full: float, removed: float) -> float:
    """The share of the positions' gain that is recovered without them: ``(reached - removed) / (full - removed)``.

    Args:
        reached: a score with other positions filled in.
        full, removed: the same score with complete reports, and without positions.

    Returns:
        1 if the whole gain is recovered, 0 if nothing is; NaN if there is no gain to recover.
    """
    return (reached - removed) / (full - removed) if full != removed else float("nan")


def network_inputs(
    pairs: Pairs, texts: Texts | ReadTexts, device="cpu", batch_size: int = 32, told: Sequence[str] | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The inputs of a network for all pairs, batch by batch: images ``[b, C, H, W]`` without augmentation, and their
    texts.

    The arguments are those of :func:`predict`.

    Raises:
        ConfigError: if a text is too long for the network; names the pair of the longest one.
    """
    told = [report.render() for report in pairs.reports] if told is None else told
    texts.require_fit(told, pairs.names)
    for start in range(0, len(pairs), batch_size):
        part = slice(start, start + batch_size)
        images = channels_first(pairs.images[part]).to(device)
        identity = torch.eye(2, 3, device=device).expand(len(images), -1, -1)
        yield weak_view(images, identity), texts(told[part]).to(device)


def device_of(network: nn.Module) -> torch.device:
    """The device of a network's weights; the CPU if it has none."""
    return next((weight.device for weight in network.parameters()), torch.device("cpu"))


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Puts a network in eval mode while the body runs. Afterwards each of its modules has its former mode again, also
    after an error."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def predict(
    network: nn.Module,
    pairs: Pairs,
    texts: Texts | ReadTexts,
    device: torch.device | str | None = None,
    batch_size: int = 32,
    told: Sequence[str] | None = None,
) -> Iterator[Tensor]:
    """Yields the lesion probabilities of all pairs, batch by batch: ``[b, 1, H, W]`` float32 on the device.

    Args:
        network: runs in eval mode. After each batch it has its former mode again, also if it failed there.
        pairs: N, with or without masks.
        texts: turns texts into the network's input.
        device: the device of the network; by default the one that has its weights.
        batch_size: number of images in a batch.
        told: the N texts for the network, for example from :func:`semimedref_core.missing_positions.texts_at_hand`; by
            default the complete reports.

    Raises:
        ConfigError: if a text is longer than ``texts`` allows.

    >>> from semimedref_core import build_network, build_texts, predict, load_split
    >>> pairs = load_split("phantom", "valid", image_size=32).subset(range(3))
    >>> [probs.shape for probs in predict(build_network("compact"), pairs, build_texts(), batch_size=2)]
    [torch.Size([2, 1, 32, 32]), torch.Size([1, 1, 32, 32])]
    """
    device = device_of(network) if device is None else device
    for images, ids in network_inputs(pairs, texts, device, batch_size, told):
        with eval_mode(network):  # not around the yield, because the caller may train before it asks for more
            probs = network(images, ids).logits.float().sigmoid()
        yield probs


def image_counts(
    network: nn.Module,
    pairs: Pairs,
    texts: Texts | ReadTexts,
    device: torch.device | str | None = None,
    batch_size: int = 32,
    told: Sequence[str] | None = None,
) -> np.ndarray:
    """The pixel counts of each image for :func:`scores`: ``[N, 3]`` int64, see :func:`overlap`; predicted is p >= 0.5.

    The arguments are those of :func:`predict`.

    Raises:
        DataError: if there are no pairs, or they have no masks.
        ConfigError: if a text is longer than ``texts`` allows.
    """
    if not len(pairs) or pairs.masks is None:
        raise DataError(f"nothing to score: {len(pairs)} pairs{'' if len(pairs) == 0 else ' without masks'}")
    masks = torch.from_numpy(pairs.masks)[:, None].bool().split(batch_size)
    counts = [
        overlap(probs >= 0.5, mask.to(probs.device))
        for probs, mask in zip(predict(network, pairs, texts, device, batch_size, told), masks, strict=True)
    ]
    return torch.cat(counts).cpu().numpy()


def evaluate(
    network: nn.Module,
    pairs: Pairs,
    texts: Texts | ReadTexts,
    device: torch.device | str | None = None,
    batch_size: int = 32,
    told: Sequence[str] | None = None,
) -> dict[str, float]:
    """The metrics of :func:`scores` for a network on pairs with masks, at probability 0.5 and the size of the pairs.

    The arguments are those of :func:`predict`, and the errors those of :func:`image_counts`.

    >>> from semimedref_core import build_network, build_texts, evaluate, load_split
    >>> pairs = load_split("phantom", "valid", image_size=32).subset(range(3))
    >>> sorted(evaluate(build_network("compact"), pairs, build_texts()))
    ['dice_image', 'dice_micro', 'miou_image', 'miou_micro']
    """
    return scores(image_counts(network, pairs, texts, device, batch_size, told))
