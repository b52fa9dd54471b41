"""MMI-UNet: image and text are fused inside the encoder, after each of its four stages; a plain decoder follows."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from semimedref_core.networks.blocks import Attention, SubPixelHead, TwoEncoders, as_map, pixels


class MMIUNet(TwoEncoders):
    """The second of the paper's two networks. Arguments and errors: see :class:`.blocks.TwoEncoders`.

    The text changed by the last fusion would go nowhere, so that half of the last block is not built.
    """

    parts: ClassVar = {
        "image encoder": ("image_encoder",),
        "text encoder": ("text_encoder",),
        "text-image fusion": ("fuse4", "fuse8", "fuse16", "fuse32"),
        "decoder": ("up16", "up8", "up4", "head"),
        "ITCL projections": ("image_projection", "text_projection"),
    }
    """What its modules are for; each belongs to one part."""

    def __init__(self, vocabulary: int, *, embedding: int = 768, **encoders):
        super().__init__(vocabulary, embedding=embedding, **encoders)
        self.image_encoder.backbone.layernorm = nn.Identity()  # of the pooled output, which is not used here
        a, b, c, d = self.image_encoder.widths
        self.fuse4 = Fusion(a, self.text_encoder.width)
        self.fuse8 = Fusion(b, self.text_encoder.width)
        self.fuse16 = Fusion(c, self.text_encoder.width)
        self.fuse32 = Fusion(d, self.text_encoder.width, last=True)
        self.up16, self.up8, self.up4 = Up(d, c), Up(c, b), Up(b, a)
        self.head = SubPixelHead(a)
        self.image_projection = nn.Sequential(nn.Linear(d, embedding), nn.LayerNorm(embedding))

    def see(self, images: Tensor, words: Tensor, padding: Tensor) -> tuple[list[Tensor], Tensor]:
        """The fused maps, and the global mean of the last. A fusion reads the original words plus the last update."""
        x, text, features = images, words, []
        for k, fuse in enumerate((self.fuse4, self.fuse8, self.fuse16, self.fuse32)):
            x, update = fuse(self.image_encoder.stage(k, x), text, padding)
            text = words + update if update is not None else words
            features.append(x)
        return features, x.mean((2, 3))

    def segment(self, features: list[Tensor], words: Tensor, padding: Tensor) -> Tensor:
        """From stride 32 up to stride 4 over the fused maps, then the head; the words have had their say already."""
        stride4, stride8, stride16, x = features
        x = self.up16(x, stride16)
        x = self.up8(x, stride8)
        x = self.up4(x, stride4)
        return self.head(x)


class Fusion(nn.Module):
    """Two-way fusion after a stage: pixels read the words, words read the pixels, both at half the map's size.

    Args:
        channels: of the stage.
        text_width: of the words.
        last: no fusion follows, so the words are not changed.
    """

    def __init__(self, channels: int, text_width: int, last: bool = False):
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.image_norm = nn.LayerNorm(channels)
        self.words = nn.Linear(text_width, channels)
        self.text_norm = nn.LayerNorm(channels)
        self.image_reads = Reader(channels)
        self.restore = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1)
        self.text_reads = None if last else Reader(channels)
        self.text_update = None if last else nn.Linear(channels, text_width)

    def forward(self, x: Tensor, words: Tensor, padding: Tensor) -> tuple[Tensor, Tensor | None]:
        """x ``[B, C, h, w]``, words ``[B, L, text_width]``, padding ``[B, L]`` true where there is no word.

        Returns:
            The map plus what the words say of it, and the update of the words (none from the last).
        """
        small = self.reduce(x)
        image, text = self.image_norm(pixels(small)), self.text_norm(self.words(words))
        # The size is told, since 7 and 8 both halve to 4.
        fused = self.restore(as_map(self.image_reads(image, text, padding), like=small), output_size=x.shape[2:])
        update = None if self.text_reads is None else self.text_update(self.text_reads(text, image))
        return x + fused, update


class Reader(nn.Module):
    """A transformer layer that asks the other modality: cross-attention (8 heads), then an MLP of 128, both residual.

    Its inputs are layer-normed already.
    """

    def __init__(self, channels: int, heads: int = 8, hidden: int = 128):
        super().__init__()
        self.attention = Attention(channels, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)
        )

    def forward(self, asking: Tensor, answering: Tensor, padding: Tensor | None = None) -> Tensor:
        """asking ``[B, N, C]``, answering ``[B, M, C]``, padding ``[B, M]`` true where nothing can answer."""
        x = asking + self.attention(asking, answering, padding=padding)
        return x + self.mlp(x)


class Up(nn.Module):
    """Transposed convolution, the skip beside it, 3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, 2)
        self.body = nn.Sequential(
            nn.Conv2d(2 * outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``[B, inputs, h, w]`` and ``[B, outputs, 2h, 2w]`` to ``[B, outputs, 2h, 2w]``."""
        return self.body(torch.cat([self.up(x), skip], 1))
