"""What the paper's two networks share: their way from images and texts to a prediction, and their blocks."""

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
    """An image encoder and a text encoder whose outputs meet in ``see`` or in ``segment``, which a network defines.

    What is as released stands with each class. Two things differ by choice: padding is not attended (Ledger 18), and
    ``guide_decoder`` reads texts of any length (Ledger 19).

    Args:
        vocabulary: number of token ids of the small BERT; of no meaning if ``text`` is given.
        image: backbone, see :func:`.encoders.backbone_config`.
        text: ``BertConfig`` as a dict; the small BERT that is trained along if left out.
        frozen_text: the text encoder keeps its weights. For pretrained weights: those drawn by chance must learn.
        embedding: D of the ITCL projections.
        channels: of the images, 1 for grey ones and 3 for colours.
        text_positions: most tokens of a text, for the small BERT.

    Raises:
        EncoderError: if an encoder cannot be built, or takes no colours.
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
                f"the pictures have {channels} channels, the image encoder takes {self.image_encoder.channels}; take "
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
        """Segments images by their reports.

        The release attends to padding tokens. Here no word and no pixel does, so logits and embeddings do not depend on
        how far a text is padded (Ledger 18).

        Args:
            images: ``[B, C, H, W]`` float, intensity-normalised; H and W multiples of 32.
            input_ids: ``[B, L]`` token ids; or ``[B, 1 + L, width]``, what the text encoder has read in them before.
            decode: how many samples, from the front, are segmented; all if left out, none if 0. The others pass the
                encoders only, which is all that ITCL needs.
            perturb: what becomes of the image features ``[n, C, h, w]`` of each stride between encoder and decoder.
        """
        if images.shape[2] % self.stride or images.shape[3] % self.stride:
            raise ValueError(f"the image sides must be multiples of {self.stride}, got {tuple(images.shape[2:])}")
        read = input_ids if input_ids.is_floating_point() else self.text_encoder.read(input_ids)
        words = read[:, 1:]
        padding = (words == 0).all(2)
        features, pooled = self.see(images, words, padding)
        image_embedding, text_embedding = self.image_projection(pooled), self.text_projection(read[:, 0])
        if decode == 0:  # attention cannot be asked about no sample at all
            return Prediction(images.new_empty(0, 1, *images.shape[2:]), image_embedding, text_embedding)
        features = [x[:decode] if perturb is None else perturb(x[:decode]) for x in features]
        logits = self.segment(features, words[:decode], padding[:decode])
        return Prediction(logits, image_embedding, text_embedding)

    def see(self, images: Tensor, words: Tensor, padding: Tensor) -> tuple[list[Tensor], Tensor]:
        """Four maps at strides 4, 8, 16 and 32, and what the image embedding is made from, ``[B, C]``."""
        raise NotImplementedError

    def segment(self, features: list[Tensor], words: Tensor, padding: Tensor) -> Tensor:
        """Logits ``[n, 1, H, W]`` from the four maps and the words ``[n, L, width]``."""
        raise NotImplementedError


class SubPixelHead(nn.Sequential):
    """x4 sub-pixel upsampling to 24 channels, then a 1x1 convolution: ``[B, C, H/4, W/4] -> [B, 1, H, W]`` logits."""

    def __init__(self, inputs: int, channels: int = 24):
        super().__init__(nn.Conv2d(inputs, channels * 16, 3, padding=1), nn.PixelShuffle(4), nn.Conv2d(channels, 1, 1))


def pixels(x: Tensor) -> Tensor:
    """A map ``[B, C, h, w]`` as tokens ``[B, hw, C]``."""
    return x.flatten(2).transpose(1, 2)


def as_map(tokens: Tensor, like: Tensor) -> Tensor:
    """Tokens ``[B, hw, C]`` as a map of the height and width of ``like``."""
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:])
