"""GuideDecoder (LanGuideMedSeg): an image encoder without text, and a decoder whose levels all read the words."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from semimedref_core.networks.blocks import SubPixelHead, TwoEncoders, as_map, pixels

WINDOW = 24  # number of words that are condensed together: the text length of the release


class GuideDecoder(TwoEncoders):
    """The first of the paper's two networks. Arguments and errors: see :class:`.blocks.TwoEncoders`.

    As in the release, the image encoder reads no words, and three decoder levels read 24, 12 and 9 condensed words.
    Unlike the release, attention ignores padding (Ledger 18), and a text may have any length (Ledger 19).
    """

    parts: ClassVar = {
        "image encoder": ("image_encoder",),
        "text encoder": ("text_encoder",),
        "decoder": ("level32", "level16", "level8", "head"),
        "ITCL projections": ("image_projection", "text_projection"),
    }
    """Part -> its modules; each module belongs to one part."""

    def __init__(self, vocabulary: int, *, embedding: int = 768, **encoders):
        super().__init__(vocabulary, embedding=embedding, **encoders)
        a, b, c, d = self.image_encoder.widths
        self.level32 = GuideLevel(d, c, self.text_encoder.width, condensed=24)
        self.level16 = GuideLevel(c, b, self.text_encoder.width, condensed=12)
        self.level8 = GuideLevel(b, a, self.text_encoder.width, condensed=9)
        self.head = SubPixelHead(a)
        self.image_projection = nn.Linear(d, embedding)

    def see(self, images: Tensor, words: Tensor, padding: Tensor) -> tuple[list[Tensor], Tensor]:
        """The encoder's maps, which do not depend on the words, and its pooled output."""
        x, features = images, []
        for k in range(4):
            x = self.image_encoder.stage(k, x)
            features.append(x)
        return features, self.image_encoder.pool(x)

    def segment(self, features: list[Tensor], words: Tensor, padding: Tensor) -> Tensor:
        """Three decoder levels, from stride 32 to stride 4, then the head."""
        stride4, stride8, stride16, x = features
        x = self.level32(x, stride16, words, padding)
        x = self.level16(x, stride8, words, padding)
        x = self.level8(x, stride4, words, padding)
        return self.head(x)


class GuideLevel(nn.Module):
    """One decoder level: self-attention of pixels, cross-attention to words, then upsampling to twice the size.

    As in the release, there is a layer norm before each attention and another one after it: ``x <- x +
    norm(self_attention(norm(x)))``, ``x <- x + s norm(cross_attention(norm(x), words))``. The scalar s is learnt and
    starts at 0.01, so in an untrained level the words hardly change the map. Position codes are sines of a pixel's
    index in the flattened map, row after row. They ignore columns: the next pixel below is a whole row away.

    Args:
        inputs, outputs: channels before and after; the skip has ``outputs`` channels too.
        text_width: width of the words.
        condensed: number of tokens for each window of 24 words.
    """

    def __init__(self, inputs: int, outputs: int, text_width: int, condensed: int):
        super().__init__()
        self.words = CondensedWords(text_width, inputs, condensed)
        self.self_norm, self.self_attention = nn.LayerNorm(inputs), Attention(inputs, heads=1)
        self.self_answer_norm = nn.LayerNorm(inputs)
        self.cross_norm, self.cross_attention = nn.LayerNorm(inputs), Attention(inputs, heads=4)
        self.cross_answer_norm = nn.LayerNorm(inputs)
        self.scale = nn.Parameter(torch.tensor(0.01))
        self.up = UpBlock(inputs, outputs)

    def forward(self, x: Tensor, skip: Tensor, words: Tensor, padding: Tensor) -> Tensor:
        """x ``[B, inputs, h, w]``, skip ``[B, outputs, 2h, 2w]``, words ``[B, L, text_width]``, padding ``[B, L]``."""
        words, padding = self.words(words, padding)
        tokens = pixels(x)
        place, order = (line_codes(each.shape[1], each.shape[2], x.device) for each in (tokens, words))
        asking = self.self_norm(tokens)
        tokens = tokens + self.self_answer_norm(self.self_attention(asking, asking, place, place))
        asking = self.cross_norm(tokens)
        answer = self.cross_answer_norm(self.cross_attention(asking, words, place, order, padding))
        tokens = tokens + self.scale * answer
        return self.up(as_map(tokens, like=x), skip)


class CondensedWords(nn.Module):
    """Condenses words to fewer tokens: a 1x1 convolution over the word axis, GELU, Linear, LeakyReLU.

    As in the release, the convolution has a weight for each of 24 word positions. The release needs exactly 24 tokens.
    Here a text is split into windows of 24 words, which share the weights. So a text may have any length and is never
    clipped (Ledger 19). Padding counts as zeros, so its length changes nothing (Ledger 18).
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


class Attention(nn.Module):
    """Multi-head attention. Position codes are added to queries and keys, not to values."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, asking, answering, asking_codes, answering_codes, padding=None) -> Tensor:
        """asking ``[B, N, C]``, answering ``[B, M, C]``, codes ``[N, C]`` and ``[M, C]``, to ``[B, N, C]``.

        padding: ``[B, M]``, true for padding tokens.
        """
        answer, _ = self.attention(
            asking + asking_codes,
            answering + answering_codes,
            answering,
            key_padding_mask=padding,
            need_weights=False,
        )
        return answer


class UpBlock(nn.Module):
    """Upsampling as in UNETR: transposed convolution, concatenation with the skip, then a residual block with batch
    norm."""

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


def line_codes(length: int, channels: int, device) -> Tensor:
    """Sine position codes ``[length, channels]``: sines and cosines of the index at wavelengths 2 pi to 20000 pi."""
    rates = 10_000.0 ** -(torch.arange(0, channels, 2, device=device) / channels)
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
