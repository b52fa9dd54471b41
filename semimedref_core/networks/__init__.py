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


def build_texts() -> Texts:
    """What turns report texts into the token ids that the networks read."""
    return Texts(grammar_tokenizer())
