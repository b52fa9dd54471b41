"""Networks by name. Each takes images and token ids and returns a ``Prediction`` (see :mod:`.compact`).

Import ``transformers`` only as a module, and its models by attribute. The models take seconds to load, and commands
without a network should not wait for them.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from semimedref_core.config import BRING_WEIGHTS
from semimedref_core.errors import ConfigError
from semimedref_core.networks.blocks import TwoEncoders
from semimedref_core.networks.compact import Compact
from semimedref_core.networks.encoders import TEXT_POSITIONS, EncoderError
from semimedref_core.networks.guide_decoder import GuideDecoder
from semimedref_core.networks.imagenet import load_imagenet
from semimedref_core.networks.lite import Lite
from semimedref_core.networks.mmi_unet import MMIUNet
from semimedref_core.networks.pretrained import load_backbone, load_bert, load_tokenizer
from semimedref_core.networks.text import Texts, grammar_tokenizer
from semimedref_core.networks.vocabulary import free_tokenizer

NETWORKS = {"compact": Compact, "lite": Lite, "guide_decoder": GuideDecoder, "mmi_unet": MMIUNet}


def sizes_for(texts: Texts) -> dict[str, int]:
    """The arguments of a network for these texts: the size of their vocabulary, and their length if it is unusual."""
    longer = {"text_positions": texts.length} if texts.length > TEXT_POSITIONS else {}
    return {"vocabulary": len(texts.tokenizer), **longer}


def build_network(name: str, texts: Texts | None = None, **arguments) -> nn.Module:
    """Builds a network with random weights.

    Args:
        name: one of ``NETWORKS``.
        texts: the texts that it will read, if their words are not those of the grammar; see :func:`build_texts`.
        arguments: arguments of its constructor, as plain values; by default the vocabulary of the grammar.
            ``network.arguments`` keeps them for ``config.json``.

    Raises:
        ConfigError: if no network has this name, or an argument is invalid.

    >>> import torch
    >>> from semimedref_core import Report, build_network, build_texts
    >>> network, texts = build_network("compact"), build_texts()
    >>> report = Report.of([0, 0, 1, 0, 0, 0])
    >>> network(torch.zeros(1, 1, 64, 64), texts([report.render()])).logits.shape
    torch.Size([1, 1, 64, 64])
    """
    if name not in NETWORKS:
        raise ConfigError(f"unknown network {name!r}; choose one of {', '.join(NETWORKS)}")
    arguments = {**(sizes_for(texts) if texts else {}), **arguments}
    network = NETWORKS[name](**{"vocabulary": len(grammar_tokenizer()), **arguments})
    network.arguments, network.image_is_pretrained = arguments, False
    return network


def build_pretrained(
    name: str, image_encoder: str | Path = "", text_encoder: str | Path = "", **arguments
) -> nn.Module:
    """Builds a network for training: with its pretrained encoders, if it has any; other weights are random.

    ``lite`` has the ImageNet weights of a pip package (:mod:`.imagenet`). The paper's two networks use the given
    encoders. The ``config.json`` of an encoder sets its shape. A pretrained text encoder is frozen, as in the paper. It
    needs the token ids of its own tokenizer (:func:`build_texts`), not those of the grammar.

    Args:
        name: ``guide_decoder`` or ``mmi_unet``; any network if no encoder is given.
        image_encoder, text_encoder: a folder, or ``organisation/name@commit``, see :mod:`.pretrained`; if empty, the
            encoder trains from scratch.
        arguments: others of the constructor.

    Raises:
        EncoderError: if an encoder cannot be found, read or used as a whole, or the network takes no encoder.
    """
    if (image_encoder or text_encoder) and not issubclass(NETWORKS.get(name, nn.Module), TwoEncoders):
        takers = ", ".join(name for name, kind in NETWORKS.items() if issubclass(kind, TwoEncoders))
        raise EncoderError(f"{name!r} takes no image_encoder or text_encoder; choose one of {takers}")
    if image_encoder:
        backbone, arguments["image"] = load_backbone(image_encoder)
    if text_encoder:
        bert, arguments["text"] = load_bert(text_encoder)
        arguments["frozen_text"] = True
    network = build_network(name, **arguments)
    if image_encoder:
        _copy_weights(backbone, network.image_encoder.backbone)
    if text_encoder:
        _copy_weights(bert, network.text_encoder.bert)
    if name in BRING_WEIGHTS:
        load_imagenet(network.image_encoder)
    network.image_is_pretrained = bool(image_encoder) or name in BRING_WEIGHTS
    return network


class Several(nn.Module):
    """Several networks of one kind in one module; predictions use ``first``."""

    def forward(self, *args, **kwargs):
        return self.first(*args, **kwargs)


def each_network(network: nn.Module) -> list[nn.Module]:
    """The networks in :class:`Several`, ``first`` before the others; for any other network, the network itself."""
    return list(network.children()) if isinstance(network, Several) else [network]


class Twins(Several):
    """Two networks that are trained together.

    Args:
        name, image_encoder, text_encoder: as in :func:`build_pretrained`, which builds both. They have the same
            pretrained encoders and different random weights.
        arguments: others of the constructor.
    """

    def __init__(self, name: str, image_encoder: str | Path = "", text_encoder: str | Path = "", **arguments):
        super().__init__()
        self.first, self.second = (build_pretrained(name, image_encoder, text_encoder, **arguments) for _ in range(2))


def pretrained_image_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights of image encoders that :func:`build_pretrained` loaded, also inside :class:`Several`."""
    starting = [one for one in each_network(network) if one.image_is_pretrained]
    return [parameter for one in starting for parameter in one.image_encoder.parameters()]


def build_texts(
    report_text: str = "whole", text_encoder: str | Path = "", length: int = 24, words_of: Sequence[str] = ()
) -> Texts:
    """Makes the tokenizer that turns report texts into token ids for a network.

    Args:
        report_text, length: as in :class:`Texts`.
        text_encoder: the text encoder that owns the tokenizer, as in :func:`build_pretrained`; if empty, the grammar's
            tokenizer.
        words_of: texts whose words replace the grammar's vocabulary; a text encoder has its own vocabulary. Mixing and
            PosAug add words to free texts, so give the result of :func:`.vocabulary.told_in_training`, and give the
            network these texts: ``build_network(name, texts)``.

    Raises:
        EncoderError: if the tokenizer cannot be found or read.

    >>> from semimedref_core import Report, build_texts
    >>> texts = build_texts()
    >>> ids = texts([Report.of([0, 0, 1, 0, 0, 0]).render()])
    >>> ids.shape, texts.decode(ids)
    (torch.Size([1, 24]), ['unilateral pulmonary infection, one infected area, lower left lung.'])
    """
    if text_encoder:
        return Texts(load_tokenizer(text_encoder), length, report_text)
    return Texts(free_tokenizer(words_of) if words_of else grammar_tokenizer(), length, report_text)


def _copy_weights(source: nn.Module, target: nn.Module) -> None:
    tensors = source.state_dict()  # may also have a norm that the target does not have
    target.load_state_dict({name: tensors[name] for name in target.state_dict()})
