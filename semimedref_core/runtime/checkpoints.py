"""Checkpoints: networks as safetensors and JSON, and arrays of results, all written atomically."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from semimedref_core.config import mask_values, require_valid
from semimedref_core.errors import FileError, SemiMedRefError
from semimedref_core.networks import NETWORKS, Texts, build_network, grammar_tokenizer
from semimedref_core.networks.pretrained import read_tokenizer
from semimedref_core.runtime.atomic import atomic, read_json, write_json
from semimedref_core.runtime.files import CONFIG, METRICS_LOG

TOKENIZER = "tokenizer.json"
LARGEST = 100_000  # largest number in the arguments of a network, except the size of its vocabulary
LARGEST_VOCABULARY = 1_000_000  # tokens; multilingual BERT has 119,547, and the largest BERTs have half a million
HEADER = 10**8  # bytes; safetensors reads no larger header
LARGEST_ARRAYS = 2**30  # bytes of all arrays of a file; a hundred runs on QaTa-COV19 need a few million


class CheckpointError(SemiMedRefError, ValueError):
    """A checkpoint is missing, damaged or of another network. The message names the file and the cure."""


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes named arrays to one compressed ``.npz``, atomically; ``np.load`` reads it."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """The arrays that :func:`write_arrays` wrote, by name; each is read at its first use.

    The sizes in the file are checked before memory is allocated, and no code of the file is executed.

    Raises:
        CheckpointError: if the file is missing, damaged, holds something else, or is far too large when unpacked.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            if sum(member.file_size for member in members) > LARGEST_ARRAYS:
                raise ValueError(f"unpacked it has more than {LARGEST_ARRAYS} bytes")
            for member in members:
                with file.open(member) as stream:
                    _check_array(member, stream)
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # zipfile, zlib and numpy raise different errors
        raise CheckpointError(f"{path}: holds no arrays of a run ({error}); restore the right file") from None


def _check_array(member: zipfile.ZipInfo, stream) -> None:
    """Checks that an array has the size in its header, before numpy allocates memory for it."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{member.filename} is an array of an unknown kind")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds objects instead of numbers")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize != member.file_size - stream.tell():
        raise ValueError(f"{member.filename} is cut short")


def save_tensors(path: Path, tensors: dict[str, Tensor], **metadata) -> None:
    """Writes one safetensors file atomically. Its header stores ``metadata`` as JSON, so both are in one file."""
    tensors = {name: value.detach().to("cpu").contiguous() for name, value in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(tensors, temporary, {name: json.dumps(value) for name, value in metadata.items()})
        except SafetensorError as error:  # it has no error number, only a text such as "no space left on device"
            raise OSError(str(error)) from error


def load_tensors(path: Path, most: int | None = None) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the metadata of :func:`save_tensors`.

    Args:
        path: the file.
        most: largest total size of the tensors in bytes; a larger file is refused before it is read.

    Raises:
        CheckpointError: if the file is missing, damaged or too large.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train first, or name another folder")
    if most is not None and (size := path.stat().st_size) > most + HEADER:
        raise CheckpointError(
            f"{path}: has {size} bytes, but the network has only {most}; choose the network it was trained with"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); check its rights") from None
    except (SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({error}); delete it and train again") from None


def bytes_of(network: nn.Module) -> int:
    """The size of all weights and buffers together, in bytes."""
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())


def load_weights(network: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Loads weights into a network of the same kind.

    Raises:
        CheckpointError: if a weight is missing, unexpected, of another shape or type, or not finite; lists them.
    """
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own.keys() - tensors.keys()]
    problems += [f"{name} is unexpected" for name in tensors.keys() - own.keys()]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if own[name].shape != tensors[name].shape
    ]
    problems += [
        f"{name} is {tensors[name].dtype}, not {own[name].dtype}"
        for name in own.keys() & tensors.keys()
        if own[name].dtype != tensors[name].dtype
    ]
    if problems:
        shown = _listed(problems)
        raise CheckpointError(f"{source}: weights of another network ({shown}); choose the network it was trained with")
    if broken := [name for name, value in tensors.items() if not value.isfinite().all()]:
        raise CheckpointError(f"{source}: weights that are not finite ({_listed(broken)}); delete it and train again")
    network.load_state_dict(tensors)


def _listed(problems: list[str]) -> str:
    return "; ".join(sorted(problems)[:5]) + ("" if len(problems) <= 5 else f"; and {len(problems) - 5} more")


def save_pretrained(folder: str | Path, network: nn.Module, texts: Texts | None = None, **about) -> None:
    """Writes ``model.safetensors`` and ``config.json`` of a network; ``about`` goes into ``config.json``.

    ``config.json`` also gets the arguments of :func:`build_network`, if there were any, and the settings of the
    tokenizer. A tokenizer other than the grammar's goes into ``tokenizer.json``. The folder is all that is needed to
    use the network.

    Raises:
        CheckpointError: if :func:`from_pretrained` would refuse the network, for example because
            :func:`.build_network` did not make it. Then nothing is written.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from semimedref_core import build_network, build_texts, from_pretrained, load_texts, save_pretrained
    >>> folder = Path(tempfile.mkdtemp())
    >>> save_pretrained(folder, build_network("compact"), build_texts(), image_size=64)
    >>> sorted(path.name for path in folder.iterdir())
    ['config.json', 'model.safetensors']
    """
    folder = Path(folder)
    name = next((name for name, kind in NETWORKS.items() if isinstance(network, kind)), None)
    if name is None or not hasattr(network, "arguments"):
        raise CheckpointError(
            f"{folder}: {type(network).__name__} is not a network of build_network, so its arguments are not known; "
            "make it with build_network, or save its state_dict"
        )
    if network.arguments:
        about["arguments"] = network.arguments
    if texts:
        about |= {"report_text": texts.report_text, "text_length": texts.length, "own_words": texts.own_words}
    require_loadable(about, str(folder))
    if texts and not texts.own_words:
        with atomic(folder / TOKENIZER) as temporary:
            texts.tokenizer.backend_tokenizer.save(str(temporary))
    save_tensors(folder / "model.safetensors", network.state_dict())
    write_json(folder / CONFIG, {"network": name, **about})


def require_loadable(about: dict, what: str) -> None:
    """Checks a network's ``config.json`` before it is written, or the network's arguments before it is trained.

    Raises:
        CheckpointError: if :func:`from_pretrained` would refuse it; ``what`` begins the message.
    """
    try:
        _check_about(about)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{what}: the network could not be loaded again ({error}); use a smaller one") from None


def network_folder(folder: str | Path) -> Path:
    """The folder of a network: the given folder, or the teacher's folder of a run.

    Raises:
        CheckpointError: if the run has not finished.
    """
    folder = Path(folder)
    if (folder / "teacher" / CONFIG).is_file():
        return folder / "teacher"
    if (folder / METRICS_LOG).is_file():
        raise CheckpointError(f"{folder}: the run has not finished; continue it with `train --resume`")
    return folder


def from_pretrained(folder: str | Path) -> tuple[nn.Module, dict]:
    """Loads the network that :func:`save_pretrained` wrote, in eval mode on the CPU, and its ``config.json``.

    Args:
        folder: the folder of the network, or of a finished run, which gives its teacher.

    Raises:
        CheckpointError: if a file is missing, damaged or of another network.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from semimedref_core import build_network, build_texts, from_pretrained, load_texts, save_pretrained
    >>> folder = Path(tempfile.mkdtemp())
    >>> save_pretrained(folder, build_network("compact"), build_texts(), image_size=64)
    >>> network, about = from_pretrained(folder)
    >>> network.training, about["network"], about["image_size"]
    (False, 'compact', 64)
    """
    folder = network_folder(folder)
    about = _about(folder)
    try:
        network = build_network(about["network"], **about.get("arguments", {}))
    except Exception as error:  # networks raise different errors for wrong arguments
        raise _no_config(folder, error) from None
    tensors, _ = load_tensors(folder / "model.safetensors", bytes_of(network))
    load_weights(network, tensors, folder / "model.safetensors")
    return network.eval(), about


def load_texts(folder: str | Path) -> Texts:
    """The tokenizer with which the network of :func:`from_pretrained` was trained.

    Raises:
        CheckpointError: if a file is missing or damaged.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from semimedref_core import build_network, build_texts, from_pretrained, load_texts, save_pretrained
    >>> folder = Path(tempfile.mkdtemp())
    >>> save_pretrained(folder, build_network("compact"), build_texts(), image_size=64)
    >>> load_texts(folder).length
    24
    """
    folder = network_folder(folder)
    about, path = _about(folder), folder / TOKENIZER
    how = about.get("text_length", 24), about.get("report_text", "whole")  # the first checkpoints have no such entries
    if about.get("own_words", True):
        return Texts(grammar_tokenizer(), *how)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing, but the network needs its token ids; copy it from the run's other network"
        )
    try:
        return Texts(read_tokenizer(path), *how)
    except Exception as error:  # tokenizers raises a bare Exception for a damaged file
        raise CheckpointError(f"{path}: damaged ({error}); copy it from the run's other network") from None


def _about(folder: Path) -> dict:
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no trained network here; give the folder 'student' or 'teacher' of a finished run"
        )
    try:
        about = read_json(path)
    except FileError as error:
        raise _no_config(folder, str(error).removeprefix(f"{path}: ")) from None
    try:
        _check_about(about)
    except (TypeError, ValueError) as error:
        raise _no_config(folder, error) from None
    return about


def _check_about(about: dict) -> None:
    """Refuses sizes and settings that no network of this project has. What is a setting has the setting's range, so all
    that can be trained can be loaded.

    Raises:
        TypeError, ValueError: names the value and the allowed values.
    """
    arguments = about.get("arguments", {})
    if not isinstance(arguments, dict):
        raise TypeError("arguments must be names with values")
    for name in ("image_size", "text_length", "report_text", "axes", "mask_values", "text_sides"):
        if name in about:
            require_valid(name, about[name])
    mask_values(about.get("mask_values", ""))
    if "text_version" in about:
        require_valid("texts", about["text_version"])
    for name, value in _numbers(arguments):
        most = LARGEST_VOCABULARY if name in ("vocabulary", "vocab_size") else LARGEST
        if not -1 <= value <= most:
            raise ValueError(f"{name} must be at most {most}, got {value!r:.60}")


def _numbers(value, name: str = "arguments") -> Iterator[tuple[str, float]]:
    """Every number in a value, with its name."""
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else ((name, one) for one in value):
            yield from _numbers(one, str(key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def _no_config(folder: Path, error: Exception | str) -> CheckpointError:
    return CheckpointError(f"{folder / CONFIG}: not a network's config.json ({error})")
