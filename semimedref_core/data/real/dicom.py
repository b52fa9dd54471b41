"""Reads a DICOM picture as a viewer shows it, with the optional package pydicom (``pip install semimedref[dicom]``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semimedref_core.data.pairs import DataError


def is_dicom(path: Path) -> bool:
    """Whether a file starts like a DICOM file."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom(path: Path) -> np.ndarray:
    """A grey picture as ``[H, W]`` uint8, scaled by the file's window, or else from its smallest to its largest value.

    Raises:
        DataError: if pydicom is missing, or the file is damaged, has colours, or holds several pictures.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise DataError(
            f"{path}: is a DICOM file, but pydicom is not installed; run `pip install pydicom`, or save it as PNG"
        ) from None
    try:
        picture = pydicom.dcmread(path)
        kind, frames = str(picture.PhotometricInterpretation), int(picture.get("NumberOfFrames", 1) or 1)
        values = apply_voi_lut(apply_modality_lut(picture.pixel_array, picture), picture).astype(np.float64)
    except Exception as error:  # pydicom and its decoders raise different errors for broken files
        raise DataError(f"{path}: not a readable DICOM picture ({type(error).__name__}: {error})") from None
    if kind not in ("MONOCHROME1", "MONOCHROME2") or frames > 1 or values.ndim != 2:
        what = f"{frames} pictures" if frames > 1 else f"colours of the kind {kind}"
        raise DataError(f"{path}: holds {what}; save one grey picture as PNG")
    low, high = _window(picture, values)
    grey = np.rint(np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
    return 255 - grey if kind == "MONOCHROME1" else grey  # there the smallest value is white


def _window(picture, values: np.ndarray) -> tuple[float, float]:
    """The values of black and white: the ends of pydicom's window, or else the smallest and largest value."""
    if "VOILUTSequence" in picture:
        return 0.0, float(2 ** int(picture.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    if "WindowWidth" in picture:
        # The window covers the range of the stored bits, after the modality's slope and intercept.
        signed, bits = int(picture.get("PixelRepresentation", 0)), int(picture.BitsStored)
        ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], np.float64)
        ends = ends * float(picture.get("RescaleSlope", 1)) + float(picture.get("RescaleIntercept", 0))
        return float(ends.min()), float(ends.max())
    return float(values.min()), float(values.max())
