"""The two encoders of the paper's networks: a four-stage image backbone and a BERT, both from transformers.

They are built from a configuration, with random weights; :mod:`.pretrained` loads pretrained weights.
"""

from __future__ import annotations

import torch
import transformers
from torch import Tensor, nn

from semimedref_core.errors import SemiMedRefError

BACKBONES = ("convnext", "convnextv2", "swin")
STRIDES = (4, 8, 16, 32)
TEXT_POSITIONS = 64  # default largest number of tokens of a text, for the small BERT


class EncoderError(SemiMedRefError, ValueError):
    """An encoder cannot be built or loaded. The message names the source and the cure."""


def small_bert(vocabulary: int, width: int = 96, positions: int = TEXT_POSITIONS) -> dict:
    """Configuration of the two-layer BERT that is trained from scratch on report texts.

    Args:
        vocabulary: number of token ids; id 0 is padding.
        width: of its hidden states.
        positions: largest number of tokens of a text.
    """
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 2 * width,
        "max_position_embeddings": positions,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def backbone_config(image: str | dict) -> transformers.PretrainedConfig:
    """The configuration of a backbone with one stage at each of the strides 4, 8, 16 and 32.

    Args:
        image: a name of ``BACKBONES``, for the tiny version (ConvNeXt-Tiny and so on), or a configuration of
            transformers as a dict with ``model_type``.

    Raises:
        EncoderError: if the backbone has other stages.
    """
    settings = {"model_type": image} if isinstance(image, str) else dict(image)
    kind = settings.pop("model_type", None)
    if kind not in BACKBONES:
        raise EncoderError(f"model_type {kind!r} is no backbone for this network; choose {', '.join(BACKBONES)}")
    config = transformers.AutoConfig.for_model(kind, **settings)
    if len(config.depths) != len(STRIDES) or config.patch_size != STRIDES[0]:
        raise EncoderError(
            f"a {kind} of {len(config.depths)} stages and patch size {config.patch_size} has no stage at each of the "
            f"strides {', '.join(map(str, STRIDES))}; choose one with four stages and patch size 4"
        )
    return config


class ImageEncoder(nn.Module):
    """A backbone that runs stage by stage, so that text can be fused in between.

    Args:
        image: see :func:`backbone_config`.

    Attributes:
        widths: channels at strides 4, 8, 16 and 32.

    Raises:
        EncoderError: if the backbone has no such stages.
    """

    def __init__(self, image: str | dict):
        super().__init__()
        config = backbone_config(image)
        self.backbone: transformers.PreTrainedModel = transformers.AutoModel.from_config(config)
        self._is_swin = config.model_type == "swin"
        first = config.embed_dim if self._is_swin else None
        self.widths = tuple(first * 2**k for k in range(4)) if self._is_swin else tuple(config.hidden_sizes)
        self.channels = config.num_channels

    def stage(self, k: int, x: Tensor) -> Tensor:
        """Stage k = 0 to 3, from the map of the stage before it (for k = 0, from images ``[B, 1 or 3, H, W]``).

        Returns:
            ``[B, widths[k], H / STRIDES[k], W / STRIDES[k]]``, the output of the stage without a norm.
        """
        if k == 0:
            x = x.expand(-1, self.channels, -1, -1)
        if self._is_swin:
            return self._swin_stage(k, x)
        return self.backbone.encoder.stages[k](self.backbone.embeddings(x) if k == 0 else x)

    def _swin_stage(self, k: int, x: Tensor) -> Tensor:
        layers = self.backbone.encoder.layers
        if k == 0:
            x, (height, width) = self.backbone.embeddings(x)
        else:  # Swin merges patches at the end of a stage; here this starts the next stage, as in ConvNeXt
            height, width = x.shape[2:]
            x = layers[k - 1].downsample(x.flatten(2).transpose(1, 2), (height, width))
            height, width = (height + 1) // 2, (width + 1) // 2
        window = self.backbone.config.window_size
        for i, block in enumerate(layers[k].blocks):
            # Set each time: otherwise a block changes permanently when its map is not larger than its window.
            block.shift_size = window // 2 if i % 2 and min(height, width) > window else 0
            x = block(x, (height, width), always_partition=True)[0]
        return x.transpose(1, 2).unflatten(2, (height, width))

    def pool(self, x: Tensor) -> Tensor:
        """The backbone's own pooled output ``[B, widths[3]]``, from the map of the last stage."""
        if self._is_swin:
            return self.backbone.layernorm(x.flatten(2).transpose(1, 2)).mean(1)
        return self.backbone.layernorm(x.mean((2, 3)))


class TextEncoder(nn.Module):
    """A BERT that returns the hidden states of layers 1, 2 and last.

    Args:
        text: a ``BertConfig`` as a dict.
        frozen: keep the weights: no gradient and no dropout, even in training.

    Attributes:
        width: of its hidden states.

    Raises:
        EncoderError: if it has fewer than two layers.
    """

    def __init__(self, text: dict, frozen: bool = False):
        super().__init__()
        config = transformers.BertConfig(**text)
        if config.num_hidden_layers < 2:
            raise EncoderError(
                f"num_hidden_layers is {config.num_hidden_layers}, but layers 1 and 2 are needed; use a deeper BERT"
            )
        self.bert = transformers.BertModel(config, add_pooling_layer=False)
        self.width = config.hidden_size
        self.frozen = frozen
        self.requires_grad_(not frozen)
        self.train()

    def train(self, mode: bool = True) -> TextEncoder:
        """As in any module; a frozen encoder stays in eval mode."""
        return super().train(mode and not self.frozen)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Reads token ids ``[B, L]``.

        Returns:
            Hidden states ``[3, B, L, width]`` of layers 1, 2 and last, and ``[B, L]``, true for padding tokens.

        Raises:
            EncoderError: if there are more tokens than the encoder has positions.
        """
        config = self.bert.config
        if input_ids.shape[1] > config.max_position_embeddings:
            raise EncoderError(
                f"the texts have {input_ids.shape[1]} tokens, but the text encoder has "
                f"{config.max_position_embeddings} positions; shorten the texts, or use a larger encoder"
            )
        padding = input_ids == config.pad_token_id
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            # A mask of four dimensions: with two, transformers reads it on the host to look for padding.
            mask = ~padding[:, None, None, :]
            hidden = self.bert(input_ids=input_ids, attention_mask=mask, output_hidden_states=True).hidden_states
            return torch.stack([hidden[1], hidden[2], hidden[-1]]), padding

    def read(self, input_ids: Tensor) -> Tensor:
        """All that a network needs of token ids ``[B, L]``, in one tensor whose rows can be stored and selected.

        Returns:
            ``[B, 1 + L, width]``: the mean over words and over the three layers, then the words of the last layer, with
            0 for padding.
        """
        hidden, padding = self(input_ids)
        present = ~padding.unsqueeze(2)
        mean = (hidden.mean(0) * present).sum(1, keepdim=True) / present.sum(1, keepdim=True)
        return torch.cat([mean, hidden[-1] * present], 1)


class TextProjection(nn.Module):
    """The text embedding v of ITCL: Linear-LayerNorm-GELU-Linear on the mean over words and three hidden layers.

    Args:
        width: width of the hidden states.
        embedding: D.
    """

    def __init__(self, width: int, embedding: int):
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(width, embedding), nn.LayerNorm(embedding), nn.GELU(), nn.Linear(embedding, embedding)
        )

    def forward(self, mean: Tensor) -> Tensor:
        """``[B, width]`` to ``[B, D]``."""
        return self.project(mean)
