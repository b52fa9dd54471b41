"""The compact network: about a million parameters, trained from scratch at 96 to 128 px on a laptop.

It has an image encoder (strides 4, 8, 16), a small BERT over the words of the report, cross-attention from pixels to
words at strides 16 and 8, and a decoder with skips. The decoder ends in a x4 sub-pixel upsampling to one logit. The
lite network (:mod:`.lite`) has another image encoder and shares the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import transformers
from torch import Tensor, nn

from semimedref_core.config import STRIDE
from semimedref_core.networks.encoders import TEXT_POSITIONS, small_bert
from semimedref_core.networks.residual import ResidualBlock, group_norm
from semimedref_core.networks.zone_guide import ZoneGuide


@dataclass
class Prediction:
    """The output of all networks of this project.

    Attributes:
        logits: ``[n, 1, H, W]`` lesion logits of the n decoded samples.
        image_embedding, text_embedding: ``[B, D]`` projections for ITCL, not normalised.
        zones: ``[B, 6]`` logits of the zones that :class:`ZoneGuide` sees in the image; ``None`` without ISPG.

    >>> import torch
    >>> from semimedref_core import Prediction, build_network, build_texts
    >>> ids = build_texts()(["no pulmonary infection, zero infected areas."])
    >>> found = build_network("compact")(torch.zeros(1, 1, 32, 32), ids)
    >>> isinstance(found, Prediction), found.logits.shape, found.image_embedding.shape
    (True, torch.Size([1, 1, 32, 32]), torch.Size([1, 64]))
    """

    logits: Tensor
    image_embedding: Tensor
    text_embedding: Tensor
    zones: Tensor | None = None


torch.export.register_dataclass(Prediction, serialized_type_name="semimedref.Prediction")


class TextCrossAttention(nn.Module):
    """Pixels attend to words: ``x + attention(pixels + position, words)``, then a small residual MLP."""

    def __init__(self, channels: int, text_width: int, heads: int = 4):
        super().__init__()
        self.pixel_norm = nn.LayerNorm(channels)
        self.words = nn.Linear(text_width, channels)
        self.position = nn.Linear(_POSITION_CODES, channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor, words: Tensor, padding: Tensor) -> Tensor:
        """x ``[B, C, h, w]``, words ``[B, L, text_width]``, padding ``[B, L]`` true for padding tokens."""
        batch, channels, height, width = x.shape
        pixels = x.flatten(2).transpose(1, 2)  # [B, hw, C]
        queries = self.pixel_norm(pixels) + self.position(_position_codes(height, width, x.device))
        words = self.words(words)
        answer, _ = self.attention(queries, words, words, key_padding_mask=padding, need_weights=False)
        pixels = pixels + answer
        pixels = pixels + self.mlp(pixels)
        return pixels.transpose(1, 2).reshape(batch, channels, height, width)


_POSITION_CODES = 16


def _position_codes(height: int, width: int, device) -> Tensor:
    """Position codes ``[hw, 16]`` for any image size: sine and cosine of 1, 2, 4 and 8 half-turns along each axis."""
    y, x = (torch.arange(n, device=device).add(0.5).div(n) for n in (height, width))
    turns = torch.pi * 2.0 ** torch.arange(4, device=device)
    y, x = (torch.cat([(axis[:, None] * turns).sin(), (axis[:, None] * turns).cos()], 1) for axis in (y, x))
    return torch.cat([y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)], -1).flatten(0, 1)


class SmallNetwork(nn.Module):
    """The common base of the small networks. Each network builds its own image encoder and calls it in ``see``.

    The base has a text encoder, cross-attention from pixels to words at strides 16 and 8, a decoder, and the ITCL
    projections.
    """

    stride: ClassVar[int]
    parts: ClassVar = {
        "text encoder": ("text",),
        "text-to-image fusion": ("fuse16", "fuse8"),
        "decoder": ("up8", "decode8", "up4", "decode4", "head"),
        "ITCL projections": ("image_projection", "text_projection"),
    }
    """Part -> its modules; each module belongs to one part."""

    def add_text_and_decoder(
        self,
        vocabulary: int,
        widths: Sequence[int],
        text_width: int,
        embedding: int,
        ispg: bool,
        channels: int,
        text_positions: int,
    ) -> None:
        """Builds all other modules. Call it after the image encoder is built, so that the order of random weights does
        not change.

        Args:
            vocabulary: number of token ids; id 0 is padding.
            widths: channels at strides 4, 8 and 16.
            text_width: width of the text encoder.
            embedding: D of the ITCL projections.
            ispg: whether a :class:`.zone_guide.ZoneGuide` adds its token to the words for cross-attention. The text
                embedding of ITCL does not contain this token.
            channels: channels of the images, 1 for grey and 3 for colour.
            text_positions: largest number of tokens of a text.
        """
        a, b, c = widths
        self.channels = channels
        self.text = transformers.BertModel(
            transformers.BertConfig(**small_bert(vocabulary, text_width, text_positions)), add_pooling_layer=False
        )
        self.fuse16 = TextCrossAttention(c, text_width)
        self.fuse8 = TextCrossAttention(b, text_width)
        self.up8 = nn.ConvTranspose2d(c, b, 2, 2)
        self.decode8 = ResidualBlock(2 * b, b)
        self.up4 = nn.ConvTranspose2d(b, a, 2, 2)
        self.decode4 = ResidualBlock(2 * a, 2 * a)
        self.head = nn.Sequential(nn.Conv2d(2 * a, 16 * 8, 1), nn.PixelShuffle(4), nn.SiLU(), nn.Conv2d(8, 1, 3, 1, 1))
        # Zones are places, so pooling keeps a coarse grid of two columns (sides) by three rows.
        self.image_projection = nn.Sequential(nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten(), nn.Linear(6 * c, embedding))
        self.text_projection = nn.Linear(text_width, embedding)
        # Built last, so that all other random weights are the same as without it.
        self.guide = ZoneGuide(text_width, channels) if ispg else None
        if ispg:
            self.parts = {**self.parts, "ISPG": ("guide",)}

    def see(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The maps of images ``[B, C, H, W]`` at strides 4, 8 and 16."""
        raise NotImplementedError

    def forward(
        self,
        images: Tensor,
        input_ids: Tensor,
        decode: int | None = None,
        perturb: Callable[[Tensor], Tensor] | None = None,
    ) -> Prediction:
        """Segments images with the help of their reports.

        Args:
            images: ``[B, C, H, W]`` float, intensity-normalised; H and W multiples of ``stride``.
            input_ids: ``[B, L]`` token ids, 0 is padding.
            decode: number of samples to segment, from the first one on; by default all, 0 for none. The other samples
                run through the encoders only, which is enough for ITCL.
            perturb: a function for the image features ``[n, C, h, w]`` of each stride, between encoder and decoder.
        """
        if images.shape[2] % self.stride or images.shape[3] % self.stride:
            raise ValueError(f"the image sides must be multiples of {self.stride}, got {tuple(images.shape[2:])}")
        padding = input_ids == 0
        # A mask of four dimensions: with two, transformers reads it on the host to look for padding.
        words = self.text(input_ids=input_ids, attention_mask=~padding[:, None, None, :]).last_hidden_state
        stride4, stride8, stride16 = self.see(images)
        present = (~padding).unsqueeze(2)
        text_embedding = self.text_projection((words * present).sum(1) / present.sum(1))
        image_embedding = self.image_projection(stride16)
        zones = None
        if self.guide is not None:
            zones = self.guide(images)
            words, padding = self.guide.append(words, padding, zones)
        if decode == 0:  # attention does not accept an empty batch
            return Prediction(images.new_empty(0, 1, *images.shape[2:]), image_embedding, text_embedding, zones)
        stride4, stride8, stride16, words, padding = (x[:decode] for x in (stride4, stride8, stride16, words, padding))
        if perturb is not None:
            stride4, stride8, stride16 = (perturb(x) for x in (stride4, stride8, stride16))
        x = self.fuse16(stride16, words, padding)
        x = self.decode8(torch.cat([self.up8(x), stride8], 1))
        x = self.fuse8(x, words, padding)
        x = self.decode4(torch.cat([self.up4(x), stride4], 1))
        return Prediction(self.head(x), image_embedding, text_embedding, zones)


class Compact(SmallNetwork):
    """The compact network; see above.

    Args:
        vocabulary: number of token ids; id 0 is padding.
        widths: channels at strides 4, 8 and 16.
        text_width: width of the text encoder.
        embedding: D of the ITCL projections.
        ispg, channels, text_positions: see :meth:`SmallNetwork.add_text_and_decoder`.

    Raises:
        ValueError: from ``forward`` if the image's sides are not multiples of 16.
    """

    stride = STRIDE["compact"]
    parts: ClassVar = {"image encoder": ("stem", "stage4", "stage8", "stage16"), **SmallNetwork.parts}

    def __init__(
        self,
        vocabulary: int,
        widths=(24, 48, 96),
        text_width: int = 96,
        embedding: int = 64,
        ispg: bool = False,
        channels: int = 1,
        text_positions: int = TEXT_POSITIONS,
    ):
        super().__init__()
        a, b, c = widths
        self.stem = nn.Sequential(nn.Conv2d(channels, a, 4, 4, bias=False), group_norm(a), nn.SiLU(inplace=True))
        self.stage4 = nn.Sequential(ResidualBlock(a, a), ResidualBlock(a, a))
        self.stage8 = nn.Sequential(ResidualBlock(a, b, 2), ResidualBlock(b, b))
        self.stage16 = nn.Sequential(ResidualBlock(b, c, 2), ResidualBlock(c, c))
        self.add_text_and_decoder(vocabulary, widths, text_width, embedding, ispg, channels, text_positions)

    def see(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stride4 = self.stage4(self.stem(images))
        stride8 = self.stage8(stride4)
        return stride4, stride8, self.stage16(stride8)
