"""The common parts of the paper's two networks: the forward pass and some blocks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from semimedref_core.networks.compact import Prediction
from semimedref_core.networks.encoders import (
    STRIDES,
    TEXT_POSITIONS,
    EncoderError,
    ImageEncoder,
    TextEncoder,
    TextProjection,
    small_bert,
)


class TwoEncoders(nn.Module):
    """An image encoder and a text encoder. Each network fuses their outputs in its ``see`` or ``segment``.

    Each class says what is as in the release. We changed two things: attention ignores padding (Ledger 18), and
    ``guide_decoder`` reads texts of any length (Ledger 19).

    Args:
        vocabulary: number of token ids of the small BERT; ignored if ``text`` is given.
        image: backbone, see :func:`.encoders.backbone_config`.
        text: ``BertConfig`` as a dict; by default the small BERT, which is trained with the network.
        frozen_text: freeze the text encoder. Use it for pretrained weights; random weights must learn.
        embedding: D of the ITCL projections.
        channels: channels of the images, 1 for grey and 3 for colour.
        text_positions: largest number of tokens of a text, for the small BERT.

    Raises:
        EncoderError: if an encoder cannot be built or does not accept colour images.
        ValueError: from ``forward``, if the image's sides are not multiples of 32 or the texts are too long.
    """

    stride = STRIDES[-1]

    def __init__(
        self,
        vocabulary: int,
        image: str | dict = "convnext",
        text: dict | None = None,
        frozen_text: bool = False,
        embedding: int = 768,
        channels: int = 1,
        text_positions: int = TEXT_POSITIONS,
    ):
        super().__init__()
        self.image_encoder = ImageEncoder(image)
        if channels not in (1, self.image_encoder.channels):
            raise EncoderError(
                f"the pictures have {channels} channels, the image encoder needs {self.image_encoder.channels}; use "
                "another encoder"
            )
        self.channels = channels
        self.text_encoder = TextEncoder(text or small_bert(vocabulary, positions=text_positions), frozen_text)
        self.text_projection = TextProjection(self.text_encoder.width, embedding)

    def forward(
        self,
        images: Tensor,
        input_ids: Tensor,
        decode: int | None = None,
        perturb: Callable[[Tensor], Tensor] | None = None,
    ) -> Prediction:
        """Segments images with the help of their reports.

        In the release, attention reads padding tokens. Here no word and no pixel attends to padding, so logits and
        embeddings do not depend on the length of the padding (Ledger 18).

        Args:
            images: ``[B, C, H, W]`` float, intensity-normalised; H and W multiples of 32.
            input_ids: ``[B, L]`` token ids; or ``[B, 1 + L, width]``, a stored output of the text encoder for them.
            decode: number of samples to segment, from the first one on; by default all, 0 for none. The other samples
                run through the encoders only, which is enough for ITCL.
            perturb: a function for the image features ``[n, C, h, w]`` of each stride, between encoder and decoder.
        """
        if images.shape[2] % self.stride or images.shape[3] % self.stride:
            raise ValueError(f"the image sides must be multiples of {self.stride}, got {tuple(images.shape[2:])}")
        read = input_ids if input_ids.is_floating_point() else self.text_encoder.read(input_ids)
        words = read[:, 1:]
        padding = (words == 0).all(2)
        features, pooled = self.see(images, words, padding)
        image_embedding, text_embedding = self.image_projection(pooled), self.text_projection(read[:, 0])
        if decode == 0:  # attention does not accept an empty batch
            return Prediction(images.new_empty(0, 1, *images.shape[2:]), image_embedding, text_embedding)
        features = [x[:decode] if perturb is None else perturb(x[:decode]) for x in features]
        logits = self.segment(features, words[:decode], padding[:decode])
        return Prediction(logits, image_embedding, text_embedding)

    def see(self, images: Tensor, words: Tensor, padding: Tensor) -> tuple[list[Tensor], Tensor]:
        """Four maps at strides 4, 8, 16 and 32, and the pooled features ``[B, C]`` for the image embedding."""
        raise NotImplementedError

    def segment(self, features: list[Tensor], words: Tensor, padding: Tensor) -> Tensor:
        """Logits ``[n, 1, H, W]`` from the four maps and the words ``[n, L, width]``."""
        raise NotImplementedError


class SubPixelHead(nn.Sequential):
    """x4 sub-pixel upsampling to 24 channels, then a 1x1 convolution: ``[B, C, H/4, W/4] -> [B, 1, H, W]`` logits."""

    def __init__(self, inputs: int, channels: int = 24):
        super().__init__(nn.Conv2d(inputs, channels * 16, 3, padding=1), nn.PixelShuffle(4), nn.Conv2d(channels, 1, 1))


def pixels(x: Tensor) -> Tensor:
    """Turns a map ``[B, C, h, w]`` into tokens ``[B, hw, C]``."""
    return x.flatten(2).transpose(1, 2)


def as_map(tokens: Tensor, like: Tensor) -> Tensor:
    """Turns tokens ``[B, hw, C]`` into a map of the height and width of ``like``."""
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:])
