"""Pretrained encoders and tokenizers, from a folder or the model hub. They are read without pickle and without foreign
code.

A source is a folder with ``config.json`` and ``model.safetensors`` (or ``pytorch_model.bin``). Text encoders also need
``tokenizer.json`` or ``vocab.txt``. Or a source is ``organisation/name@commit`` with the 40 digits of a commit, so that
it always gives the same files. Files in the cache need no network. Other files are downloaded only if the hub answers
at once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from huggingface_hub import constants, get_session, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from tokenizers import Tokenizer
from transformers.utils import logging as transformers_logging

from semimedref_core.networks.encoders import EncoderError, TextEncoder, backbone_config

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
TOKENIZERS = ("tokenizer.json", "vocab.txt")
TOKENIZER_CONFIG = "tokenizer_config.json"  # belongs to vocab.txt; may be missing
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
BERTS = (None, "bert", "cxr-bert")  # values of model_type; the oldest configurations have none
PATIENCE = 1.5  # seconds in which the hub must answer
NOT_THE_SHAPE = ("architectures", "dtype", "id2label", "label2id", "out_features", "out_indices", "stage_names")

_log = logging.getLogger(__name__)


def load_backbone(source: str | Path) -> tuple[transformers.PreTrainedModel, dict]:
    """An image backbone of :func:`.encoders.backbone_config` with pretrained weights, and its configuration.

    Raises:
        EncoderError: if it cannot be found or read, does not have the four stages, or lacks a weight.
    """
    folder = find(source)
    settings = _read_config(folder)
    with _naming(folder):
        config = backbone_config({name: value for name, value in settings.items() if name not in NOT_THE_SHAPE})
    model = _load(transformers.AutoModel, folder, config)
    return model, {"model_type": config.model_type, **_shape(config)}


def load_bert(source: str | Path) -> tuple[transformers.BertModel, dict]:
    """A BERT with pretrained weights, and its configuration. CXR-BERT is one; its two additional heads are ignored.

    Raises:
        EncoderError: if it cannot be found or read, is not a BERT, or lacks a weight.
    """
    folder = find(source)
    settings = _read_config(folder)
    if settings.get("model_type") not in BERTS:
        raise EncoderError(
            f"{folder / CONFIG}: model_type {settings['model_type']!r} is not a BERT; give one of {BERTS[1:]}, such as "
            "CXR-BERT"
        )
    known = transformers.BertConfig().to_dict().keys() - {"model_type", *NOT_THE_SHAPE}
    with _naming(folder), torch.device("meta"):
        config = transformers.BertConfig(**{name: value for name, value in settings.items() if name in known})
        TextEncoder(config.to_dict())  # raises a clear error, at no cost
    return _load(transformers.BertModel, folder, config, add_pooling_layer=False), _shape(config)


def load_tokenizer(source: str | Path) -> transformers.PreTrainedTokenizerFast:
    """The tokenizer of a BERT. It is made from the word list; classes or code named in the files are not used.

    Raises:
        EncoderError: if it cannot be found or read, lacks the special tokens of a BERT, or does not match the encoder.
    """
    folder = find(source, TOKENIZERS)
    path = next((folder / name for name in TOKENIZERS if (folder / name).exists()), None)
    if path is None:
        raise EncoderError(
            f"{folder}: no tokenizer; put one of {', '.join(TOKENIZERS)} beside the text encoder's {CONFIG}"
        )
    try:
        tokenizer = read_tokenizer(path)
    except Exception as error:  # tokenizers raises a bare Exception for a damaged file
        raise EncoderError(f"{path}: cannot be read ({_first_line(error)}); download it again") from None
    settings, words = _read_config(folder), tokenizer.get_vocab()
    vocabulary, padding = settings.get("vocab_size", len(words)), settings.get("pad_token_id", 0)
    if max(words.values()) >= vocabulary or tokenizer.pad_token_id != padding:
        raise EncoderError(
            f"{path}: {len(words)} tokens, padding {tokenizer.pad_token_id}, but the encoder's {CONFIG} has "
            f"{vocabulary} and {padding}; use a tokenizer and an encoder that belong together"
        )
    return tokenizer


def read_tokenizer(path: Path) -> transformers.PreTrainedTokenizerFast:
    """A BERT's tokenizer from its ``tokenizer.json`` or ``vocab.txt``.

    Raises:
        ValueError: if it lacks a special token of a BERT. A damaged file raises an error of the package tokenizers.
    """
    if path.suffix == ".json":
        words = Tokenizer.from_file(str(path))
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL)
        known = words.get_vocab()
    else:
        known = set(path.read_text(encoding="utf-8").split("\n"))
        about = path.with_name(TOKENIZER_CONFIG)
        lower = json.loads(about.read_text(encoding="utf-8")).get("do_lower_case", True) if about.exists() else True
        tokenizer = transformers.BertTokenizer(vocab=str(path), do_lower_case=lower)
    missing = [token for token in SPECIAL.values() if token not in known]
    if missing:
        raise ValueError(f"without {', '.join(missing)} this is not the word list of a BERT")
    return tokenizer


def find(source: str | Path, files: tuple[str, ...] = (WEIGHTS[0], WEIGHTS[-1])) -> Path:
    """The folder of a source, after a download if needed. It has the configuration and the first available one of these
    files.

    Raises:
        EncoderError: if the source is neither a folder nor a pinned model, or cannot be downloaded.
    """
    if Path(source).is_dir():
        return Path(source)
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})", str(source))
    if not match:
        raise EncoderError(
            f"{source}: no such folder; give the folder of an encoder, or organisation/name@commit with all 40 digits "
            "of the commit, so that the weights stay the same"
        )
    name, revision = match.groups()
    try:
        return _download(name, revision, files, local_files_only=True)
    except LocalEntryNotFoundError:
        pass
    cure = "download it on a machine with a network and give its folder"
    if constants.HF_HUB_OFFLINE:
        raise EncoderError(f"{source}: not in the cache, and HF_HUB_OFFLINE is set; unset it, or {cure}")
    if not _hub_answers():
        raise EncoderError(f"{source}: not in the cache, and {constants.ENDPOINT} does not answer; {cure}")
    try:
        return _download(name, revision, files)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise EncoderError(
            f"{source}: cannot be downloaded ({_first_line(error)}); check its name and commit, or {cure}"
        ) from None


def _download(name: str, revision: str, files: tuple[str, ...], **options) -> Path:
    """The folder with the configuration and the first available one of these files.

    Raises:
        LocalEntryNotFoundError: if only the cache is used, and it is incomplete.
    """
    hf_hub_download(name, CONFIG, revision=revision, **options)
    if TOKENIZERS[-1] in files:
        with contextlib.suppress(EntryNotFoundError):
            hf_hub_download(name, TOKENIZER_CONFIG, revision=revision, **options)
    for file in files:
        try:
            return Path(hf_hub_download(name, file, revision=revision, **options)).parent
        except EntryNotFoundError as error:
            missing = error
    raise missing


def _hub_answers() -> bool:
    """Whether the hub answers in time. A thread asks, because the look-up of a host name has no time limit."""
    answers = []

    def ask():
        with contextlib.suppress(Exception):  # any error means that the hub is not available
            answers.append(get_session().head(constants.ENDPOINT, timeout=PATIENCE))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers)


def _read_config(folder: Path) -> dict:
    path = folder / CONFIG
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EncoderError(f"{path}: missing; give the folder that holds the encoder's {CONFIG} and weights") from None
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path}: damaged ({error}); download it again") from None
    if not isinstance(settings, dict):
        raise EncoderError(f"{path}: not a configuration, but a {type(settings).__name__}; download it again")
    return settings


def _load(kind, folder: Path, config: transformers.PretrainedConfig, **options) -> transformers.PreTrainedModel:
    """Reads the weights and checks that all weights of the encoder are found."""
    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise EncoderError(f"{folder}: no weights; put one of {', '.join(WEIGHTS)} there")
    try:
        with _quiet():
            model, found = kind.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=".safetensors" in path.name,
                weights_only=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported below
                output_loading_info=True,
                **options,
            )
    except Exception as error:  # safetensors, zip, pickle and transformers raise different errors for a broken file
        raise EncoderError(
            f"{path}: cannot be read ({_first_line(error)}); it is damaged, incomplete, or holds more than tensors. "
            "Download it again, as safetensors if available"
        ) from None
    unused = sorted(found["unexpected_keys"])
    beyond = [name for name in unused if _of_encoder(name)]
    problems = [
        *(f"{name} is missing" for name in sorted(found["missing_keys"])),
        *(f"{name} has shape {tuple(theirs)}, not {tuple(ours)}" for name, theirs, ours in found["mismatched_keys"]),
        *(f"{name} is not part of the encoder in {CONFIG}" for name in beyond),
    ]
    if problems:
        shown = "; ".join(problems[:5]) + ("" if len(problems) <= 5 else f"; and {len(problems) - 5} more")
        raise EncoderError(
            f"{path}: not the weights of this encoder ({shown}); use a {CONFIG} and weights that belong together"
        )
    if unused:
        _log.warning("%s: %d weights of other heads are ignored: %s", path, len(unused), ", ".join(unused))
    return model


def _of_encoder(name: str) -> bool:
    """Whether an unused weight belongs to the encoder: to a layer or stage that the configuration does not have."""
    return bool(re.search(r"(^|\.)(embeddings|encoder)\.", name)) and not name.endswith("position_ids")


def _shape(config: transformers.PretrainedConfig) -> dict:
    """A configuration as plain values, without entries that do not affect the encoder."""
    plain = config.to_diff_dict()
    return {name: plain[name] for name in plain if name not in {"transformers_version", "model_type", *NOT_THE_SHAPE}}


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # besides ours, errors of transformers and torch for invalid values
        raise EncoderError(f"{folder / CONFIG}: {' '.join(str(error).split())}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the progress bar of transformers and its table of weights. We report missing and unused weights
    ourselves."""
    level, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bar:
            transformers_logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
