"""Reads one picture and one sentence for a trained network, in the same way as its training data."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.dicom import is_dicom, read_dicom
from semimedref_core.data.real.pictures import read_colour, read_grey
from semimedref_core.free_reports import FreeReport
from semimedref_core.positions import NOWHERE, AnyReport
from semimedref_core.reports import Report


def report_asked(text: str, about: dict) -> AnyReport:
    """The report of a text, for a network with this ``config.json``. After training on free texts, any sentence is
    allowed.

    Raises:
        ReportError: if the network was trained on the strict grammar and the text does not follow it.
    """
    if about.get("trained_on") == "folder":
        return FreeReport.of(text, NOWHERE)
    return Report.parse(text, about.get("text_version"))


def picture_asked(path: Path, channels: int) -> np.ndarray:
    """A picture at its own size: ``[H, W]`` uint8 grey values, or ``[H, W, 3]`` for a network of three channels.

    Raises:
        DataError: if the file cannot be read.
    """
    if is_dicom(path):
        grey = read_dicom(path)
        return np.repeat(grey[..., None], 3, axis=2) if channels == 3 else grey
    try:
        return read_colour(path) if channels == 3 else read_grey(path)
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ").replace("listed but ", "")
        raise DataError(f"{path}: cannot be read as an image ({reason}); give a PNG or JPEG") from None
