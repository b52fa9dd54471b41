"""From texts to token ids. Text encoders that train from scratch use a word-level tokenizer of the report grammar, or a
vocabulary of free texts (:mod:`.vocabulary`). A pretrained text encoder uses its own tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from semimedref_core.config import ReportText
from semimedref_core.errors import ConfigError
from semimedref_core.missing_positions import EVERYWHERE
from semimedref_core.posaug import FUZZY_PHRASE, MASK_TOKEN
from semimedref_core.reports import COUNT_WORDS, HEIGHTS, SIDES

_FRAME = "no unilateral bilateral pulmonary infection infected area areas all lung and , .".split()
_COUNT = re.compile(r", \w+ infected areas?")
GRAMMAR_WORDS = tuple(dict.fromkeys([*_FRAME, *SIDES, *HEIGHTS, *COUNT_WORDS, *FUZZY_PHRASE.split()]))


def grammar_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A tokenizer that knows only the words of the grammar and PosAug's ``[UNK_POS]``."""
    special = ["[PAD]", "[UNK]", "[CLS]", MASK_TOKEN]
    vocabulary = {word: index for index, word in enumerate([*special, *GRAMMAR_WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        additional_special_tokens=[MASK_TOKEN],
    )


class Texts:
    """Turns report texts into token ids ``[..., length]``; each distinct text is tokenized only once.

    If a tokenizer does not know PosAug's ``[UNK_POS]``, its own mask token replaces it. A pretrained encoder
    understands this token: some word was hidden here. It would have to learn a new token, and a frozen encoder cannot
    learn.

    Args:
        tokenizer: :func:`grammar_tokenizer`, :func:`.vocabulary.free_tokenizer`, or of
            :func:`.pretrained.load_tokenizer`.
        length: number of tokens. A longer text is an error. We never cut a text, because it would then say less than
            its image shows.
        report_text: the part of each text that is read. ``whole``: all; ``no_count``: without ``, <count> infected
            areas``, which leaks the mask (Ledger 10; "area" and "areas" leak it too); ``none``: the same report of all
            zones for every text.

    Attributes:
        own_words: whether the tokenizer belongs to the grammar and knows ``[UNK_POS]``.
    """

    def __init__(
        self, tokenizer: transformers.PreTrainedTokenizerFast, length: int = 24, report_text: ReportText = "whole"
    ):
        self.tokenizer = tokenizer
        self.length = length
        self.report_text = report_text
        self.own_words = MASK_TOKEN in tokenizer.get_vocab()
        self._ids: dict[tuple[str, bool], Tensor] = {}

    def __call__(self, texts: Sequence[str], cut: bool = False) -> Tensor:
        """Token ids ``[N, length]`` int64, padded at the end; ``cut`` clips longer texts, as the release does.

        Raises:
            ConfigError: if a text has more than ``length`` tokens and ``cut`` is not set.
        """
        return torch.stack([self._encode(text, cut) for text in texts])

    def read(self, text: str) -> str:
        """What the tokenizer gets of a text: the part that ``report_text`` names, with the tokenizer's own mask."""
        part = {"whole": text, "no_count": _COUNT.sub("", text), "none": EVERYWHERE}[self.report_text]
        return part if self.own_words else part.replace(MASK_TOKEN, self.tokenizer.mask_token)

    def require_fit(self, texts: Sequence[str], names: Sequence[str]) -> None:
        """Checks that no text is too long.

        Raises:
            ConfigError: names the pair of the longest text and its number of tokens. It shows no text, because a text
                is about a patient.
        """
        distinct = dict(zip(texts, names, strict=True))
        read = [self.read(text) for text in distinct]
        lengths = [len(ids) for ids in self.tokenizer(read)["input_ids"]] if read else [0]
        if max(lengths) > self.length:
            longest = lengths.index(max(lengths))
            raise self._too_long(lengths[longest], f"the text of {list(distinct.values())[longest]}")

    def decode(self, input_ids: Tensor) -> list[str]:
        """The readable texts of token ids ``[N, length]``, without padding."""
        special = {self.tokenizer.pad_token_id, self.tokenizer.cls_token_id, self.tokenizer.sep_token_id}
        words = [[int(i) for i in row if int(i) not in special] for row in input_ids]
        return [self.tokenizer.decode(row).replace(" ,", ",").replace(" .", ".") for row in words]

    def digest(self) -> str:
        """A digest of 16 hex digits over the tokens and their ids."""
        known = repr(sorted(self.tokenizer.get_vocab().items()))
        return blake2b(known.encode(), digest_size=8).hexdigest()

    def _encode(self, text: str, cut: bool) -> Tensor:
        if (text, cut) not in self._ids:
            limit = self.length if cut else None
            ids = self.tokenizer(self.read(text), truncation=cut, max_length=limit)["input_ids"]
            if len(ids) > self.length:
                raise self._too_long(len(ids), "a text")
            padding = [self.tokenizer.pad_token_id] * (self.length - len(ids))
            self._ids[text, cut] = torch.tensor(ids + padding)
        return self._ids[text, cut]

    def _too_long(self, count: int, what: str) -> ConfigError:
        cure = f"train a network with text_length {count}"
        if self.report_text == "none":
            what = "the sentence of all zones, which is read in place of each text,"
        else:
            cure = f"shorten it, or {cure}"
        return ConfigError(f"{what} has {count} tokens, but this network reads at most {self.length}; {cure}")
