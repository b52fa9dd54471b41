"""MMI-UNet: image and text are fused inside the encoder, after each of its four stages; a plain decoder follows."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from semimedref_core.networks.blocks import SubPixelHead, TwoEncoders, as_map, pixels


class MMIUNet(TwoEncoders):
    """The second of the paper's two networks. Arguments and errors: see :class:`.blocks.TwoEncoders`.

    As released: with x the map that a stage gives and v what the fusion says of it, the decoder gets x + v and the next
    stage gets (x + v) + x; a fusion reads the original words plus the update of the fusion before it, not plus all
    updates so far. Different: padding is not attended (Ledger 18). The release's last fusion changes the words too,
    which nothing reads; that half is not built here.
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
        """The fused maps x + v, and the global mean of the last."""
        x, text, features = images, words, []
        for k, fuse in enumerate((self.fuse4, self.fuse8, self.fuse16, self.fuse32)):
            x = self.image_encoder.stage(k, x)
            fused, update = fuse(x, text, padding)
            features.append(fused)
            if update is not None:
                x, text = fused + x, words + update
        return features, features[-1].mean((2, 3))

    def segment(self, features: list[Tensor], words: Tensor, padding: Tensor) -> Tensor:
        """From stride 32 up to stride 4 over the fused maps, then the head; the words have had their say already."""
        stride4, stride8, stride16, x = features
        x = self.up16(x, stride16)
        x = self.up8(x, stride8)
        x = self.up4(x, stride4)
        return self.head(x)


class Fusion(nn.Module):
    """Two-way fusion after a stage: pixels read the words, words read the pixels, both at half the map's size.

    As released: a 2x2 convolution of stride 2 halves the map, a Linear brings the words to its width, and both are
    layer-normed. Then comes a decoder layer as in DETR for each of the two: self-attention, cross-attention to the
    other, an MLP of 128 with ReLU; 8 heads, dropout 0.1, a layer norm after each residual sum. A transposed convolution
    brings the pixels back to x, a Linear the words.

    The last row and column of an odd map have no square of four, so the words say nothing of them: 7 becomes 3, and the
    transposed convolution fills the 7th with zeros. Different: padding is not attended (Ledger 18).

    Args:
        channels: of the stage.
        text_width: of the words.
        last: no fusion follows, so the words are not changed.
    """

    def __init__(self, channels: int, text_width: int, last: bool = False):
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels, 2, stride=2, bias=False)
        self.image_norm = nn.LayerNorm(channels)
        self.words = nn.Linear(text_width, channels)
        self.text_norm = nn.LayerNorm(channels)
        self.image_reads = _decoder_layer(channels)
        self.restore = nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)
        self.text_reads = None if last else _decoder_layer(channels)
        self.text_update = None if last else nn.Linear(channels, text_width)

    def forward(self, x: Tensor, words: Tensor, padding: Tensor) -> tuple[Tensor, Tensor | None]:
        """x ``[B, C, h, w]``, words ``[B, L, text_width]``, padding ``[B, L]`` true where there is no word.

        Returns:
            x + v, the map plus what the words say of it, and the update of the words (none from the last).
        """
        height, width = x.shape[2:]
        whole = pad(x, (0, int(width == 1), 0, int(height == 1)))  # a 2x2 convolution needs two rows and columns
        small = self.reduce(whole)
        image, text = self.image_norm(pixels(small)), self.text_norm(self.words(words))
        told = as_map(self.image_reads(image, text, memory_key_padding_mask=padding), like=small)
        # The size is told, since 6 and 7 both halve to 3.
        v = self.restore(told, output_size=whole.shape[2:])[:, :, :height, :width]
        if self.text_reads is None:
            return x + v, None
        return x + v, self.text_update(self.text_reads(text, image, tgt_key_padding_mask=padding))


def _decoder_layer(channels: int) -> nn.TransformerDecoderLayer:
    """Tokens ``[B, N, C]`` look at each other, then at others ``[B, M, C]``, to ``[B, N, C]``; post-norm, ReLU."""
    return nn.TransformerDecoderLayer(channels, nhead=8, dim_feedforward=128, dropout=0.1, batch_first=True)


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
