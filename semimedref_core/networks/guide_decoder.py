"""GuideDecoder (LanGuideMedSeg): a plain image encoder, and a decoder that the words guide at each of its levels."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from semimedref_core.networks.blocks import (
    Attention,
    SubPixelHead,
    TwoEncoders,
    as_map,
    line_codes,
    pixels,
    plane_codes,
)

WINDOW = 24  # words that are condensed at once: the text length of the paper


class GuideDecoder(TwoEncoders):
    """The first of the paper's two networks. Arguments and errors: see :class:`.blocks.TwoEncoders`."""

    parts: ClassVar = {
        "image encoder": ("image_encoder",),
        "text encoder": ("text_encoder",),
        "decoder": ("level32", "level16", "level8", "head"),
        "ITCL projections": ("image_projection", "text_projection"),
    }
    """What its modules are for; each belongs to one part."""

    def __init__(self, vocabulary: int, *, embedding: int = 768, **encoders):
        super().__init__(vocabulary, embedding=embedding, **encoders)
        a, b, c, d = self.image_encoder.widths
        self.level32 = GuideLevel(d, c, self.text_encoder.width, condensed=24)
        self.level16 = GuideLevel(c, b, self.text_encoder.width, condensed=12)
        self.level8 = GuideLevel(b, a, self.text_encoder.width, condensed=9)
        self.head = SubPixelHead(a)
        self.image_projection = nn.Linear(d, embedding)

    def see(self, images: Tensor, words: Tensor, padding: Tensor) -> tuple[list[Tensor], Tensor]:
        """The encoder's plain maps, which no word has touched, and its pooled output."""
        x, features = images, []
        for k in range(4):
            x = self.image_encoder.stage(k, x)
            features.append(x)
        return features, self.image_encoder.pool(x)

    def segment(self, features: list[Tensor], words: Tensor, padding: Tensor) -> Tensor:
        """Three levels up, from stride 32 to stride 4, then the head."""
        stride4, stride8, stride16, x = features
        x = self.level32(x, stride16, words, padding)
        x = self.level16(x, stride8, words, padding)
        x = self.level8(x, stride4, words, padding)
        return self.head(x)


class GuideLevel(nn.Module):
    """One level of the decoder: pixels look at each other, then at the words, and go up to twice the size.

    ``x <- x + self_attention(norm(x))``, ``x <- x + s cross_attention(norm(x), words)`` with a learnt scalar s that
    starts at 0.01, so that an untrained level hardly disturbs the encoder's features.

    Args:
        inputs, outputs: channels before and after; the skip has ``outputs`` channels too.
        text_width: of the words.
        condensed: tokens that each window of 24 words becomes.
    """

    def __init__(self, inputs: int, outputs: int, text_width: int, condensed: int):
        super().__init__()
        self.words = CondensedWords(text_width, inputs, condensed)
        self.self_norm, self.self_attention = nn.LayerNorm(inputs), Attention(inputs, heads=1)
        self.cross_norm, self.cross_attention = nn.LayerNorm(inputs), Attention(inputs, heads=4)
        self.scale = nn.Parameter(torch.tensor(0.01))
        self.up = UpBlock(inputs, outputs)

    def forward(self, x: Tensor, skip: Tensor, words: Tensor, padding: Tensor) -> Tensor:
        """x ``[B, inputs, h, w]``, skip ``[B, outputs, 2h, 2w]``, words ``[B, L, text_width]``, padding ``[B, L]``."""
        words, padding = self.words(words, padding)
        _, channels, height, width = x.shape
        place = plane_codes(height, width, channels, x.device)
        order = line_codes(words.shape[1], channels, x.device)
        tokens = pixels(x)
        asking = self.self_norm(tokens)
        tokens = tokens + self.self_attention(asking, asking, place, place)
        asking = self.cross_norm(tokens)
        tokens = tokens + self.scale * self.cross_attention(asking, words, place, order, padding)
        return self.up(as_map(tokens, like=x), skip)


class CondensedWords(nn.Module):
    """Words to fewer, denser tokens: a 1x1 convolution over the word axis, GELU, Linear, LeakyReLU.

    The convolution has a weight for each of 24 word places. A longer text is read 24 words at a time, each window by
    the same weights, so nothing is clipped; padding is read as zeros, so its length changes nothing.
    """

    def __init__(self, text_width: int, channels: int, condensed: int):
        super().__init__()
        self.condense = nn.Conv1d(WINDOW, condensed, 1)
        self.project = nn.Sequential(nn.GELU(), nn.Linear(text_width, channels), nn.LeakyReLU())

    def forward(self, words: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        """words ``[B, L, text_width]`` and padding ``[B, L]``, to ``[B, M, channels]`` and ``[B, M]``."""
        extra = -words.shape[1] % WINDOW
        words = pad(words.masked_fill(padding.unsqueeze(2), 0.0), (0, 0, 0, extra)).unflatten(1, (-1, WINDOW))
        empty = pad(padding, (0, extra), value=True).unflatten(1, (-1, WINDOW)).all(2)
        condensed = self.condense(words.flatten(0, 1)).unflatten(0, words.shape[:2]).flatten(1, 2)
        return self.project(condensed), empty.repeat_interleave(self.condense.out_channels, dim=1)


class UpBlock(nn.Module):
    """Up as in UNETR: transposed convolution, the skip beside it, then a residual block with batch norm."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False)
        self.body = nn.Sequential(
            nn.Conv2d(2 * outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(2 * outputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.activation = nn.LeakyReLU(inplace=True)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``[B, inputs, h, w]`` and ``[B, outputs, 2h, 2w]`` to ``[B, outputs, 2h, 2w]``."""
        x = torch.cat([self.up(x), skip], 1)
        return self.activation(self.body(x) + self.shortcut(x))
