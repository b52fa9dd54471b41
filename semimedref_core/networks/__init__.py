"""Networks by name. Each takes images and token ids and returns a ``Prediction`` (see :mod:`.compact`)."""

from pathlib import Path

from torch import nn

from semimedref_core.networks.blocks import TwoEncoders
from semimedref_core.networks.compact import Compact
from semimedref_core.networks.guide_decoder import GuideDecoder
from semimedref_core.networks.mmi_unet import MMIUNet
from semimedref_core.networks.pretrained import load_backbone, load_bert
from semimedref_core.networks.text import Texts, grammar_tokenizer

NETWORKS = {"compact": Compact, "guide_decoder": GuideDecoder, "mmi_unet": MMIUNet}


def build_network(name: str, **arguments) -> nn.Module:
    """A freshly initialised network.

    Args:
        name: of ``NETWORKS``.
        arguments: of its constructor, plain values; the vocabulary is the grammar's if left out. They are kept as
            ``network.arguments``, for its ``config.json``.

    Raises:
        ValueError: if no network has this name, or an argument will not do.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; choose one of {', '.join(NETWORKS)}")
    network = NETWORKS[name](**{"vocabulary": len(grammar_tokenizer()), **arguments})
    network.arguments = arguments
    return network


def build_pretrained(
    name: str, image_encoder: str | Path = "", text_encoder: str | Path = "", **arguments
) -> nn.Module:
    """One of the paper's networks with pretrained encoders; its other weights are drawn by chance.

    The shape of an encoder comes from its own ``config.json``. A pretrained text encoder is frozen, as in the paper.
    Its tokenizer is to be loaded beside it: token ids of the grammar mean nothing to it.

    Args:
        name: ``guide_decoder`` or ``mmi_unet``.
        image_encoder, text_encoder: a folder, or ``organisation/name@commit``, see :mod:`.pretrained`; from scratch
            if empty.
        arguments: others of the constructor.

    Raises:
        EncoderError: if an encoder cannot be found, read or used as a whole.
        ValueError: if the network takes none.
    """
    if not issubclass(NETWORKS.get(name, nn.Module), TwoEncoders):
        takers = ", ".join(name for name, kind in NETWORKS.items() if issubclass(kind, TwoEncoders))
        raise ValueError(f"{name!r} takes no pretrained encoders; choose one of {takers}")
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
    return network


class Twins(nn.Module):
    """Two networks of one kind, trained as one; what is used is the first.

    Args:
        name: of the kind. The first starts as :func:`build_network` would have started it, the second otherwise.
    """

    def __init__(self, name: str):
        super().__init__()
        self.first, self.second = build_network(name), build_network(name)

    def forward(self, *args, **kwargs):
        return self.first(*args, **kwargs)


def build_texts(report_text: str = "whole") -> Texts:
    """What turns report texts into the token ids that the networks read; ``report_text`` as in :class:`Texts`."""
    return Texts(grammar_tokenizer(), report_text=report_text)


def _copy_weights(source: nn.Module, target: nn.Module) -> None:
    tensors = source.state_dict()  # has all that the target has, and maybe a norm that the network leaves out
    target.load_state_dict({name: tensors[name] for name in target.state_dict()})
