"""Networks by name. Each takes images and token ids and returns a ``Prediction`` (see :mod:`.compact`)."""

from torch import nn

from semimedref_core.networks.compact import Compact
from semimedref_core.networks.text import Texts, grammar_tokenizer

NETWORKS = {"compact": Compact}


def build_network(name: str) -> nn.Module:
    """A freshly initialised network.

    Raises:
        ValueError: if no network has this name.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name](vocabulary=len(grammar_tokenizer()))


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
