"""Networks by name. Each takes images and token ids and returns a ``Prediction`` (see :mod:`.compact`).

Here ``transformers`` is imported as a module, and its models by attribute: they take seconds to load, and a command
that builds no network need not wait for them.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from semimedref_core.config import BRING_WEIGHTS
from semimedref_core.errors import ConfigError
from semimedref_core.networks.blocks import TwoEncoders
from semimedref_core.networks.compact import Compact
from semimedref_core.networks.encoders import EncoderError
from semimedref_core.networks.guide_decoder import GuideDecoder
from semimedref_core.networks.imagenet import load_imagenet
from semimedref_core.networks.lite import Lite
from semimedref_core.networks.mmi_unet import MMIUNet
from semimedref_core.networks.pretrained import load_backbone, load_bert, load_tokenizer
from semimedref_core.networks.text import Texts, grammar_tokenizer
from semimedref_core.networks.vocabulary import free_tokenizer

NETWORKS = {"compact": Compact, "lite": Lite, "guide_decoder": GuideDecoder, "mmi_unet": MMIUNet}


def build_network(name: str, **arguments) -> nn.Module:
    """A freshly initialised network, all weights drawn by chance.

    Args:
        name: of ``NETWORKS``.
        arguments: of its constructor, plain values; the vocabulary is the grammar's if left out. They are kept as
            ``network.arguments``, for its ``config.json``.

    Raises:
        ConfigError: if no network has this name, or an argument will not do.

    >>> import torch
    >>> from semimedref_core import Report, build_network, build_texts
    >>> network, texts = build_network("compact"), build_texts()
    >>> report = Report.of([0, 0, 1, 0, 0, 0])
    >>> network(torch.zeros(1, 1, 64, 64), texts([report.render()])).logits.shape
    torch.Size([1, 1, 64, 64])
    """
    if name not in NETWORKS:
        raise ConfigError(f"unknown network {name!r}; choose one of {', '.join(NETWORKS)}")
    network = NETWORKS[name](**{"vocabulary": len(grammar_tokenizer()), **arguments})
    network.arguments, network.image_is_pretrained = arguments, False
    return network


def build_pretrained(
    name: str, image_encoder: str | Path = "", text_encoder: str | Path = "", **arguments
) -> nn.Module:
    """A network as training starts with it: with pretrained encoders, if it has any; other weights are drawn by chance.

    ``lite`` has the ImageNet weights of a pip package (:mod:`.imagenet`). The paper's two networks have the encoders
    that are given. The shape of such an encoder comes from its own ``config.json``. A pretrained text encoder is
    frozen, as in the paper, and reads the token ids of its own tokenizer (:func:`build_texts`): those of the grammar
    mean nothing to it.

    Args:
        name: ``guide_decoder`` or ``mmi_unet``; any network if no encoder is given.
        image_encoder, text_encoder: a folder, or ``organisation/name@commit``, see :mod:`.pretrained`; from scratch
            if empty.
        arguments: others of the constructor.

    Raises:
        EncoderError: if an encoder cannot be found, read or used as a whole, or the network takes none.
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
    """Several networks of one kind, kept as one; what is used is ``first``."""

    def forward(self, *args, **kwargs):
        return self.first(*args, **kwargs)


def each_network(network: nn.Module) -> list[nn.Module]:
    """The networks in :class:`Several`, the one that is used first; any other is one by itself."""
    return list(network.children()) if isinstance(network, Several) else [network]


class Twins(Several):
    """Two networks, trained as one.

    Args:
        name, image_encoder, text_encoder: as in :func:`build_pretrained`. The first starts as that would have started
            it, the second with the same pretrained encoders and other chance.
        arguments: others of the constructor.
    """

    def __init__(self, name: str, image_encoder: str | Path = "", text_encoder: str | Path = "", **arguments):
        super().__init__()
        self.first, self.second = (build_pretrained(name, image_encoder, text_encoder, **arguments) for _ in range(2))


def pretrained_image_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights of image encoders that :func:`build_pretrained` has loaded, also in :class:`Several`."""
    starting = [one for one in each_network(network) if one.image_is_pretrained]
    return [parameter for one in starting for parameter in one.image_encoder.parameters()]


def build_texts(
    report_text: str = "whole", text_encoder: str | Path = "", length: int = 24, words_of: Sequence[str] = ()
) -> Texts:
    """What turns report texts into the token ids that the networks read.

    Args:
        report_text, length: as in :class:`Texts`.
        text_encoder: whose tokenizer it is, as in :func:`build_pretrained`; the grammar's if empty.
        words_of: texts whose words the vocabulary has, in place of the grammar's; a text encoder has its own.

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
    tensors = source.state_dict()  # has all that the target has, and maybe a norm that the network leaves out
    target.load_state_dict({name: tensors[name] for name in target.state_dict()})
