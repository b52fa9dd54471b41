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

    Padding (the tag PixelPaddingValue, also as a range) is black, and counts for neither end of the scale.

    Raises:
        DataError: if pydicom is missing, or the file is damaged, has colours, holds several pictures, is mirrored or
            upside down, has contradictory tags on what is white, or has only one grey value through its window.
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
        stored = picture.pixel_array
        values = apply_voi_lut(apply_modality_lut(stored, picture), picture).astype(np.float64)
        padding, strange = _padding(picture, stored), _strange(picture)
    except Exception as error:  # pydicom and its decoders raise different errors for broken files
        raise DataError(f"{path}: not a readable DICOM picture ({type(error).__name__}: {error})") from None
    if kind not in ("MONOCHROME1", "MONOCHROME2") or frames > 1 or values.ndim != 2:
        what = f"{frames} pictures" if frames > 1 else f"colours of the kind {kind}"
        raise DataError(f"{path}: holds {what}; save one grey picture as PNG")
    if strange:
        raise DataError(f"{path}: {strange}")
    shown = values[~padding]
    low, high = _window(picture, shown) if shown.size else (0.0, 0.0)
    grey = np.rint(np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
    if len(np.unique(grey[~padding])) < 2:
        raise DataError(
            f"{path}: has one grey value, so it shows nothing; look at its window (WindowCenter, WindowWidth) and its "
            "slope (RescaleSlope), or save it as PNG from a viewer"
        )
    grey = 255 - grey if kind == "MONOCHROME1" else grey  # there the smallest value is white
    grey[padding] = 0
    return grey


def _padding(picture, stored: np.ndarray) -> np.ndarray:
    """Which pixels only fill the picture up to a rectangle."""
    if picture.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, bool)
    ends = picture.PixelPaddingValue, picture.get("PixelPaddingRangeLimit")
    low, high = sorted(int(end if end is not None else ends[0]) for end in ends)
    return (stored >= low) & (stored <= high)


def _strange(picture) -> str:
    """Why a viewer would turn or invert the stored picture, and the cure; empty if it would not."""
    across, down = [*(picture.get("PatientOrientation") or ()), "", ""][:2]
    if str(across).startswith("R") or str(down).startswith("H"):
        what = "upside down" if str(down).startswith("H") else "mirrored"
        return f"is stored {what} (PatientOrientation {across}\\{down}); turn it in a viewer, and save it as PNG"
    # With MONOCHROME1, INVERSE only repeats that small values are white.
    if picture.get("PresentationLUTShape") == "INVERSE" and picture.PhotometricInterpretation == "MONOCHROME2":
        return (
            "says both that small values are black (MONOCHROME2) and that they are white (PresentationLUTShape "
            "INVERSE); save it as PNG from a viewer"
        )
    return ""


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
