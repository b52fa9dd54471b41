"""The vocabulary of free texts: WordPiece trained on the training texts, for text encoders trained from scratch.

Frequent words are one token. Other words are split into pieces, or finally into letters, so any sentence can be read.
The library's WordPiece trainer gives another vocabulary in each process, because it numbers pieces by the order of a
hash table. Its BPE trainer does not do so if a mark starts each word. So we train BPE and write its result as
WordPiece.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from itertools import islice

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from semimedref_core.errors import ConfigError
from semimedref_core.missing_positions import EVERYWHERE
from semimedref_core.networks.pretrained import SPECIAL
from semimedref_core.networks.text import Texts
from semimedref_core.patchmix import mixed_reports
from semimedref_core.positions import AnyReport
from semimedref_core.reports import Report

MOST_TOKENS = 4000
_BEGINS, _GOES_ON = "\u2581", "##"  # BPE marks pieces that begin a word; WordPiece marks pieces that continue one


def free_tokenizer(texts: Iterable[str]) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer trained on these texts, with the special tokens of a BERT. The same texts give the same tokenizer."""
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = [
        f"{_BEGINS}{word}" for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    ]
    letters = sorted({*string.ascii_lowercase, *string.digits, *string.punctuation, *"".join(words)} - {_BEGINS})
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=MOST_TOKENS, min_frequency=2, initial_alphabet=[_BEGINS, *letters], show_progress=False
    )
    trained.train_from_iterator(words, trainer)
    pieces = sorted(trained.get_vocab(), key=lambda piece: (len(piece), piece))
    known = [piece[1:] if piece.startswith(_BEGINS) else _GOES_ON + piece for piece in pieces if piece != _BEGINS]
    tokens = dict.fromkeys([*SPECIAL.values(), *letters, *known])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown, cls = SPECIAL["unk_token"], SPECIAL["cls_token"]
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, continuing_subword_prefix=_GOES_ON))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A", special_tokens=[(cls, vocabulary[cls])]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


def told_in_training(reports: Sequence[AnyReport]) -> list[str]:
    """All texts with their own words that training may read: the reports, the reports of their mirror images, the
    sentences that name a pasted zone, and the replacements of a text or a phrase.

    >>> from semimedref_core import Report, build_network, build_texts, told_in_training
    >>> reports = [Report.of([0, 0, 1, 0, 0, 0])]  # or ``pairs.reports`` of your own data
    >>> texts = build_texts(words_of=told_in_training(reports))
    >>> network = build_network("compact", texts)
    >>> network.arguments["vocabulary"] == len(texts.tokenizer)
    True
    """
    own = [text for report in reports for text in (report.render(), report.flip().render())]
    pasted = [sentence.render() for sentence in _sentences(reports[0])]
    return [*own, *2 * [*pasted, reports[0].layout.vague, EVERYWHERE]]


def tokens_needed(texts: Texts, reports: Sequence[AnyReport]) -> list[int]:
    """The largest number of tokens that training may read of each report. It covers the report and its mirror image,
    with or without a pasted zone (free texts get its sentence and the full stop before it), and with the vague phrase
    for any phrase. If ``report_text`` is ``none``, it covers the sentence of all zones, which alone is read."""

    def tokens(told: Sequence[str]) -> list[int]:
        read = [texts.read(text) for text in told]
        return [len(ids) for ids in texts.tokenizer(read, add_special_tokens=False)["input_ids"]] if read else []

    special = texts.tokenizer.num_special_tokens_to_add()
    if texts.report_text == "none":
        return [special + length for length in tokens([EVERYWHERE])] * len(reports)
    (vague,) = tokens([reports[0].layout.vague])

    def longest(each: Sequence[AnyReport]) -> list[int]:
        phrases = list(dict.fromkeys(phrase for report in each for phrase in report.phrases))
        own = dict(zip(phrases, tokens(phrases), strict=True))
        grows = [sum(max(0, vague - own[phrase]) for phrase in report.phrases) for report in each]
        return [length + more for length, more in zip(tokens([report.render() for report in each]), grows, strict=True)]

    if isinstance(reports[0], Report):  # mixing writes such a report anew
        distinct = {(report.render(), report.style): report for report in reports}
        forms = [[form for one in mixed_reports(each) for form in (one, one.flip())] for each in distinct.values()]
        lengths = iter(longest([form for each in forms for form in each]))
        needed = {key: special + max(islice(lengths, len(each))) for key, each in zip(distinct, forms, strict=True)}
        return [needed[report.render(), report.style] for report in reports]
    added = 1 + max(longest(_sentences(reports[0])), default=-1)
    forms = zip(reports, longest(reports), longest([report.flip() for report in reports]), strict=True)
    return [special + max(lengths) + added * report.located for report, *lengths in forms]


def require_room(texts: Texts, reports: Sequence[AnyReport], names: Sequence[str]) -> None:
    """Checks with :func:`tokens_needed` that all texts fit.

    Raises:
        ConfigError: if a text does not fit; names the length that is needed.
    """
    needed = tokens_needed(texts, reports)
    if max(needed) > texts.length and texts.report_text == "none":
        raise ConfigError(
            f"the sentence of all zones, which report_text none reads in place of each text, needs {max(needed)} "
            f"tokens, more than text_length = {texts.length}; set --text-length {max(needed)}"
        )
    if max(needed) > texts.length:
        many = sum(length > texts.length for length in needed)
        raise ConfigError(
            f"{many} of {len(needed)} texts have more than text_length = {texts.length} tokens, with words that mixing "
            f"may add; the longest, of {names[needed.index(max(needed))]}, needs {max(needed)}; set --text-length "
            f"{max(needed)}"
        )


def _sentences(report: AnyReport) -> list[AnyReport]:
    """The sentences that name a pasted zone, if the zones of the layout have words."""
    zones = [zone for zone, words in enumerate(report.layout.words) if words]
    return [report.naming([int(k == zone) for k in range(len(report.layout))]) for zone in zones]
