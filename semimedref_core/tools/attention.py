"""The weights of the cross-attention from pixels to words: they show which pixels attend to a word."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semimedref_core.errors import SemiMedRefError
from semimedref_core.evaluation import eval_mode
from semimedref_core.networks.compact import TextCrossAttention


class NoAttentionError(SemiMedRefError, ValueError):
    """A network without the cross-attention whose weights were asked for."""


@torch.no_grad()
def word_attention(network: nn.Module, images: Tensor, input_ids: Tensor) -> dict[int, Tensor]:
    """The attention of each pixel to each word, at both strides with cross-attention.

    Args:
        network: ``compact`` or ``lite``. It keeps its mode, training or eval.
        images: ``[B, C, H, W]``, inputs of the network.
        input_ids: ``[B, L]`` token ids.

    Returns:
        Stride (16, then 8) -> ``[B, L, H / stride, W / stride]``, the mean over the heads. At each pixel the weights of
        the words sum to 1; padding has weight 0.

    Raises:
        NoAttentionError: if the network is of another kind.

    >>> import torch
    >>> from semimedref_core import build_network, build_texts
    >>> from semimedref_core.tools.attention import word_attention
    >>> network, texts = build_network("compact"), build_texts()
    >>> found = word_attention(network, torch.zeros(1, 1, 64, 64), texts(["no pulmonary infection."]))
    >>> {stride: tuple(weights.shape) for stride, weights in found.items()}
    {16: (1, 24, 4, 4), 8: (1, 24, 8, 8)}
    """
    found: list[Tensor] = []
    hooks = []
    for module in network.modules():
        if isinstance(module, TextCrossAttention):
            ask = module.attention.register_forward_pre_hook(_ask_for_weights, with_kwargs=True)
            hooks += [ask, module.attention.register_forward_hook(lambda _, __, answer: found.append(answer[1]))]
    if not hooks:
        raise NoAttentionError("this network does not tell how pixels attend to words; `compact` and `lite` do")
    try:
        with eval_mode(network):
            network(images, input_ids)
    finally:
        for hook in hooks:
            hook.remove()
    sides = [(images.shape[2] // stride, images.shape[3] // stride) for stride in (16, 8)]
    return {
        stride: weights.transpose(1, 2).unflatten(2, side)
        for stride, side, weights in zip((16, 8), sides, found, strict=True)
    }


def _ask_for_weights(module, arguments: tuple, keywords: dict) -> tuple[tuple, dict]:
    return arguments, {**keywords, "need_weights": True}
