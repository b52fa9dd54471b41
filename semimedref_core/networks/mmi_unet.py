"""MMI-UNet: image and text are fused inside the encoder, after each of its four stages. The decoder reads no text."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from semimedref_core.networks.blocks import SubPixelHead, TwoEncoders, as_map, pixels


class MMIUNet(TwoEncoders):
    """The second of the paper's two networks. Arguments and errors: see :class:`.blocks.TwoEncoders`.

    Let x be the map of a stage and v its update by the fusion. As in the release, the decoder gets x + v and the next
    stage gets (x + v) + x. A fusion reads the original words plus the update of the previous fusion, not plus all
    updates. Unlike the release, attention ignores padding (Ledger 18). The release's last fusion also updates the
    words, but nothing reads that update, so we leave it out.
    """

    parts: ClassVar = {
        "image encoder": ("image_encoder",),
        "text encoder": ("text_encoder",),
        "text-image fusion": ("fuse4", "fuse8", "fuse16", "fuse32"),
        "decoder": ("up16", "up8", "up4", "head"),
        "ITCL projections": ("image_projection", "text_projection"),
    }
    """Part -> its modules; each module belongs to one part."""

    def __init__(self, vocabulary: int, *, embedding: int = 768, **encoders):
        super().__init__(vocabulary, embedding=embedding, **encoders)
        self.image_encoder.backbone.layernorm = nn.Identity()  # only for the pooled output, which is not used here
        a, b, c, d = self.image_encoder.widths
        self.fuse4 = Fusion(a, self.text_encoder.width)
        self.fuse8 = Fusion(b, self.text_encoder.width)
        self.fuse16 = Fusion(c, self.text_encoder.width)
        self.fuse32 = Fusion(d, self.text_encoder.width, last=True)
        self.up16, self.up8, self.up4 = Up(d, c), Up(c, b), Up(b, a)
        self.head = SubPixelHead(a)
        self.image_projection = nn.Sequential(nn.Linear(d, embedding), nn.LayerNorm(embedding))

    def see(self, images: Tensor, words: Tensor, padding: Tensor) -> tuple[list[Tensor], Tensor]:
        """The fused maps x + v, and the global mean of the last map."""
        x, text, features = images, words, []
        for k, fuse in enumerate((self.fuse4, self.fuse8, self.fuse16, self.fuse32)):
            x = self.image_encoder.stage(k, x)
            fused, update = fuse(x, text, padding)
            features.append(fused)
            if update is not None:
                x, text = fused + x, words + update
        return features, features[-1].mean((2, 3))

    def segment(self, features: list[Tensor], words: Tensor, padding: Tensor) -> Tensor:
        """From stride 32 to stride 4 over the fused maps, then the head. The words are not read again."""
        stride4, stride8, stride16, x = features
        x = self.up16(x, stride16)
        x = self.up8(x, stride8)
        x = self.up4(x, stride4)
        return self.head(x)


class Fusion(nn.Module):
    """Two-way fusion after a stage: pixels attend to words and words attend to pixels, at half the map's size.

    As in the release, a 2x2 convolution of stride 2 halves the map, a Linear projects the words to its width, and both
    are layer-normed. Then each of the two runs through a decoder layer as in DETR: self-attention, cross-attention to
    the other, an MLP of width 128 with ReLU; 8 heads, dropout 0.1, a layer norm after each residual sum. A transposed
    convolution restores the size of the map, and a Linear restores the width of the words.

    A map with an odd side loses its last row or column in the halving: 7 becomes 3. The transposed convolution fills
    the 7th with zeros, so the words do not change it. Unlike the release, attention ignores padding (Ledger 18).

    Args:
        channels: channels of the stage.
        text_width: width of the words.
        last: whether no fusion follows; then the words are not updated.
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
        """x ``[B, C, h, w]``, words ``[B, L, text_width]``, padding ``[B, L]`` true for padding tokens.

        Returns:
            x + v, the map with its update, and the update of the words (None from the last fusion).
        """
        height, width = x.shape[2:]
        whole = pad(x, (0, int(width == 1), 0, int(height == 1)))  # a 2x2 convolution needs two rows and columns
        small = self.reduce(whole)
        image, text = self.image_norm(pixels(small)), self.text_norm(self.words(words))
        told = as_map(self.image_reads(image, text, memory_key_padding_mask=padding), like=small)
        # The size must be given, since 6 and 7 both halve to 3.
        v = self.restore(told, output_size=whole.shape[2:])[:, :, :height, :width]
        if self.text_reads is None:
            return x + v, None
        return x + v, self.text_update(self.text_reads(text, image, tgt_key_padding_mask=padding))


def _decoder_layer(channels: int) -> nn.TransformerDecoderLayer:
    """Tokens ``[B, N, C]`` attend to each other, then to others ``[B, M, C]``: gives ``[B, N, C]``; post-norm, ReLU."""
    return nn.TransformerDecoderLayer(channels, nhead=8, dim_feedforward=128, dropout=0.1, batch_first=True)


class Up(nn.Module):
    """Transposed convolution, concatenation with the skip, 3x3 convolution, batch norm, ReLU."""

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
