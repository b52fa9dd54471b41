"""Stores the output of a frozen text encoder. A run has a few hundred distinct texts and reads them many times."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semimedref_core.networks.encoders import TextEncoder
from semimedref_core.networks.text import Texts


class ReadTexts:
    """Replaces :class:`.text.Texts` if the text encoder is frozen. It gives the encoder's output instead of token ids.

    All texts of a batch arrive here as words, also the texts of PosAug and all possible mixed texts. Each row of token
    ids is looked up, and the step only selects rows. So a step does not run the encoder and never waits for the device.

    Args:
        texts: turns texts into token ids.
        encoder: the frozen text encoder; it runs on its own device.
        limit: largest number of stored rows; the least recently used row is dropped first. 2048 rows of 24 tokens of a
            BERT-base take 157 MB.

    Raises:
        ValueError: if the encoder is not frozen.
    """

    def __init__(self, texts: Texts, encoder: TextEncoder, limit: int = 2048):
        if not encoder.frozen:
            raise ValueError("the text encoder is trained, so its output changes from step to step; use Texts")
        self.texts, self.encoder, self.limit = texts, encoder, limit
        self._kept: OrderedDict[tuple, Tensor] = OrderedDict()
        self._one_at_a_time = threading.Lock()  # a thread makes the next batch while validation reads texts

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, texts: Sequence[str], cut: bool = False) -> Tensor:
        """``[N, 1 + L, width]`` of :meth:`.encoders.TextEncoder.read`, without gradients; errors as in
        :class:`.text.Texts`."""
        return torch.stack([self._read(row) for row in self.texts(texts, cut)])

    def require_fit(self, texts: Sequence[str], names: Sequence[str]) -> None:
        """As in :class:`.text.Texts`."""
        self.texts.require_fit(texts, names)

    @torch.no_grad()
    def _read(self, input_ids: Tensor) -> Tensor:
        weight = next(self.encoder.parameters())
        key = input_ids.numpy().tobytes(), weight.device, weight.dtype
        with self._one_at_a_time:
            if key not in self._kept:
                # One text at a time: its bits must not depend on other new texts, so that a resumed run gets the same
                # values. The encoder's own precision is used, in a step of any precision.
                with torch.autocast(weight.device.type, enabled=False):
                    self._kept[key] = self.encoder.read(input_ids[None].to(weight.device))[0]
                if len(self._kept) > self.limit:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


def read_once(network: nn.Module, texts: Texts) -> Texts | ReadTexts:
    """The texts for training and validation of a network: :class:`ReadTexts` if its text encoder is frozen, else
    ``texts``.

    It is ``texts`` too if the network holds several different encoders (:class:`.Twins` without pretrained weights).
    """
    encoders = [module for module in network.modules() if isinstance(module, TextEncoder)]
    if not encoders or not all(encoder.frozen for encoder in encoders):
        return texts
    first = encoders[0].state_dict()
    same = all(value.equal(first[name]) for other in encoders[1:] for name, value in other.state_dict().items())
    return ReadTexts(texts, encoders[0]) if same else texts
