"""What a frozen text encoder makes of texts, kept: a run has a few hundred distinct texts and reads them many times."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semimedref_core.networks.encoders import TextEncoder
from semimedref_core.networks.text import Texts


class ReadTexts:
    """In place of :class:`.text.Texts` where the text encoder is frozen: gives not token ids but what it reads in them.

    The texts of a batch, PosAug's and all that mixing may end with among them, are words when they come here, so each
    row of token ids is looked up by itself and the step only picks rows: no pass of the encoder, no wait of the device.

    Args:
        texts: turns texts into token ids.
        encoder: frozen; reads them, on its own device.
        limit: of rows kept; the one that was asked for the longest ago goes first. 2048 rows of 24 tokens by a
            BERT-base take 157 MB.

    Raises:
        ValueError: if the encoder is not frozen.
    """

    def __init__(self, texts: Texts, encoder: TextEncoder, limit: int = 2048):
        if not encoder.frozen:
            raise ValueError("the text encoder is trained, so what it reads changes from step to step; use Texts")
        self.texts, self.encoder, self.limit = texts, encoder, limit
        self._kept: OrderedDict[tuple, Tensor] = OrderedDict()
        self._one_at_a_time = threading.Lock()  # the next batch is made while validation reads

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, texts: Sequence[str], cut: bool = False) -> Tensor:
        """``[N, 1 + L, width]`` of :meth:`.encoders.TextEncoder.read`, without a graph; as in :class:`.text.Texts`."""
        return torch.stack([self._read(row) for row in self.texts(texts, cut)])

    @torch.no_grad()
    def _read(self, input_ids: Tensor) -> Tensor:
        weight = next(self.encoder.parameters())
        key = input_ids.numpy().tobytes(), weight.device, weight.dtype
        with self._one_at_a_time:
            if key not in self._kept:
                # Alone, so that its bits do not depend on what else was new: a resumed run reads what the first one
                # read. And in the encoder's own precision, whatever the step runs in.
                with torch.autocast(weight.device.type, enabled=False):
                    self._kept[key] = self.encoder.read(input_ids[None].to(weight.device))[0]
                if len(self._kept) > self.limit:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


def read_once(network: nn.Module, texts: Texts) -> Texts | ReadTexts:
    """``texts`` for a network's training and validation: :class:`ReadTexts` if its text encoder is frozen.

    Not if it holds several encoders that differ (:class:`.Twins` without pretrained weights).
    """
    encoders = [module for module in network.modules() if isinstance(module, TextEncoder)]
    if not encoders or not all(encoder.frozen for encoder in encoders):
        return texts
    first = encoders[0].state_dict()
    same = all(value.equal(first[name]) for other in encoders[1:] for name, value in other.state_dict().items())
    return ReadTexts(texts, encoders[0]) if same else texts
