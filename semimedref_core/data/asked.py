"""Reads data for a trained network in the same way as its training data: a picture, a sentence or a split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from semimedref_core.config import Config
from semimedref_core.data.datasets import load_split
from semimedref_core.data.own.zones import layout_of
from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.data.real.dicom import is_dicom
from semimedref_core.data.real.pictures import picture_in_memory, read_colour, read_grey
from semimedref_core.data.real.report_tables import is_whole
from semimedref_core.free_reports import FreeReport
from semimedref_core.positions import NOWHERE, AnyReport
from semimedref_core.reports import Report, ReportError


def split_asked(split: str, config: Config, about: dict) -> Pairs:
    """A split with its masks, upright, with the positions that a network learnt from.

    Args:
        split: ``train``, ``valid`` or ``test``.
        config: the settings of the data.
        about: the network's ``config.json``.

    Raises:
        DataError: names all problems of the files.
    """
    zones = [layout_of(about)] if config.dataset == "folder" else []
    where = config.dataset, split, config.image_size, config.data, config.texts, config.mask_values
    return load_split(*where, *zones)


def as_read(pairs: Pairs, about: dict, channels: int) -> Pairs:
    """Upright pairs as a network with this ``config.json`` reads them: with its number of channels, and on their side
    if it was trained so. :func:`upright` turns its predictions back."""
    pairs = pairs.with_channels(channels)
    return pairs.transposed() if _on_its_side(about) else pairs


def upright(maps: np.ndarray | Tensor, about: dict) -> np.ndarray | Tensor:
    """Predictions ``[..., H, W]`` for pairs of :func:`as_read`, as they lie on the upright pictures."""
    return maps.swapaxes(-2, -1) if _on_its_side(about) else maps


def _on_its_side(about: dict) -> bool:
    return about.get("axes") == "transposed"


def report_asked(text: str, about: dict) -> AnyReport:
    """The report of a text, for a network with this ``config.json``. After training on free texts, any sentence is
    allowed.

    Raises:
        ReportError: if the network was trained on the strict grammar and the text does not follow it, or if it is no
            text that an encoding can write.
    """
    if not isinstance(text, str):
        raise ReportError(f"a report is a text, got {type(text).__name__}; give a sentence about the picture")
    if not is_whole(text):
        raise ReportError("the report holds half a character (a lone surrogate); write it anew")
    if about.get("trained_on") == "folder":
        return FreeReport.of(text, NOWHERE)
    return Report.parse(text, about.get("text_version"))


def picture_asked(image: Path | Image.Image | np.ndarray, channels: int) -> np.ndarray:
    """A picture at its own size: ``[H, W]`` uint8 grey values, or ``[H, W, 3]`` for a network of three channels.

    Args:
        image: a file, a picture of Pillow, or an array ``[H, W]`` or ``[H, W, 3]`` of uint8.
        channels: 1 or 3.

    Raises:
        DataError: if the picture cannot be read.
    """
    if isinstance(image, Path):
        return _file_asked(image, channels)
    if isinstance(image, Image.Image):
        return picture_in_memory(image, channels)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)) or not array.size:
        raise DataError(
            f"a picture must be [H, W] or [H, W, 3] of uint8, got {array.dtype} {list(array.shape)}; or give its file, "
            "which is then read as a viewer shows it"
        )
    return picture_in_memory(Image.fromarray(array), channels)


def _file_asked(path: Path, channels: int) -> np.ndarray:
    read = read_colour if channels == 3 else read_grey
    if is_dicom(path):
        return read(path)  # its errors name a cure of their own
    try:
        return read(path)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").replace("listed but ", "")
        raise DataError(f"{path}: cannot be read as an image ({reason}); give a PNG or JPEG") from None
