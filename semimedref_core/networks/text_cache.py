"""Stores the output of a frozen text encoder, because a run reads the same texts many times."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semimedref_core.networks.encoders import TextEncoder
from semimedref_core.networks.text import Texts

LIMIT = 2**30
"""The bytes that the stored rows may take: 13,981 rows of 24 tokens of a BERT-base. The grammar needs a few hundred. Of
free texts each pair has up to nine of its own, and more where PosAug hides positions."""
PASS = {"cuda": 16}
"""The number of texts in one pass of the encoder; 1 on other devices. A GPU is not busy with one text, a CPU is. The
number is fixed, and a pass with fewer texts is filled up. So the bits of a text do not depend on how many are new."""


class ReadTexts:
    """Replaces :class:`.text.Texts` if the text encoder is frozen. It gives the encoder's output instead of token ids.

    All texts of a batch arrive here as words, also the texts of PosAug and all possible mixed texts. Each row of token
    ids is looked up, and the step only selects rows. So a step does not run the encoder and never waits for the device.

    Args:
        texts: turns texts into token ids.
        encoder: the frozen text encoder; it runs on its own device.
        limit: the largest number of bytes of all stored rows; the least recently used row is dropped first.

    Raises:
        ValueError: if the encoder is not frozen.
    """

    def __init__(self, texts: Texts, encoder: TextEncoder, limit: int = LIMIT):
        if not encoder.frozen:
            raise ValueError("the text encoder is trained, so its output changes from step to step; use Texts")
        self.texts, self.encoder, self.limit = texts, encoder, limit
        self._kept: OrderedDict[tuple, Tensor] = OrderedDict()
        self._bytes = 0
        self._one_at_a_time = threading.Lock()  # a thread makes the next batch while validation reads texts

    def __len__(self) -> int:
        return len(self._kept)

    def __call__(self, texts: Sequence[str], cut: bool = False) -> Tensor:
        """``[N, 1 + L, width]`` of :meth:`.encoders.TextEncoder.read`, without gradients; errors as in
        :class:`.text.Texts`."""
        return torch.stack(self._read(self.texts(texts, cut)))

    def require_fit(self, texts: Sequence[str], names: Sequence[str]) -> None:
        """As in :class:`.text.Texts`."""
        self.texts.require_fit(texts, names)

    def _read(self, input_ids: Tensor) -> list[Tensor]:
        """The rows of token ids ``[N, L]``. Those that are not stored are read first."""
        weight = next(self.encoder.parameters())
        keys = [(row.numpy().tobytes(), weight.device, weight.dtype) for row in input_ids]
        with self._one_at_a_time:
            new = {key: row for key, row in zip(keys, input_ids, strict=True) if key not in self._kept}
            read = self._passes(list(new.values()), weight)
            self._kept.update(zip(new, read, strict=True))
            self._bytes += sum(row.nbytes for row in read)
            found = [self._kept[key] for key in keys]
            for key in keys:
                self._kept.move_to_end(key)
            while self._bytes > self.limit:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return found

    @torch.no_grad()
    def _passes(self, rows: list[Tensor], weight: Tensor) -> list[Tensor]:
        """Reads rows of token ids. Their bits must not depend on other new texts, so that a resumed run gets the same
        values. The encoder's own precision is used, in a step of any precision."""
        size, found = PASS.get(weight.device.type, 1), []
        for first in range(0, len(rows), size):
            together = rows[first : first + size]
            filled = torch.stack([*together, *together[-1:] * (size - len(together))])
            with torch.autocast(weight.device.type, enabled=False):
                read = self.encoder.read(filled.to(weight.device))
            found += [row.clone() for row in read[: len(together)]]  # a view would keep the whole pass
        return found


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
