"""Reads one picture as a viewer shows it: in grey values, in colours or as a mask. Other files are refused by
name."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from semimedref_core.config import MaskValue
from semimedref_core.data.pairs import DataError
from semimedref_core.data.real.dicom import is_dicom, read_dicom

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # only these: for some other formats Pillow starts external programs
DEPTHS = (8, 10, 12, 14, 16)  # bits of a grey value
LESION = 127  # mask values above this are lesion
_OF_8_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262  # of a TIFF
_OF_16_BITS = re.compile(r";16[BLN]")  # in Pillow's name for the bytes of a PNG or TIFF; "BGR;16" of a BMP is 5 + 6 + 5
_ORIENTATION = 0x0112  # of EXIF data
COLOURED = 32  # the channels of a grey pixel differ by less, even in a JPEG
_SOFT = 16  # values this close to black or to the brightest value are not a separate class
_FLAT = 4  # values of a class differ by at most this, even in a JPEG; values of a soft rim differ by more
_RINGING = 64  # a JPEG may have spots with values up to this beside edges
_SPECK = 4  # largest number of pixels that are ignored
NO_VALUES: Mapping[MaskValue, bool] = MappingProxyType({})  # without the setting mask_values
_CURE = "save it with lesion 255 and background 0, or name the lesion values in mask_values"


def read_grey(path: Path) -> np.ndarray:
    """A picture of any mode as ``[H, W]`` uint8 grey values, rotated according to its EXIF data.

    A picture of more than 8 bits is scaled by the smallest bit depth that holds its brightest value. So 12-bit values
    in a 16-bit file keep their contrast. A DICOM file is read by :func:`.dicom.read_dicom`.

    Raises:
        DataError: if the file is missing or corrupt, has several pictures, is partly transparent, or has values outside
            the range from black to white.
    """
    return read_dicom(path) if is_dicom(path) else _grey(_open(path), path)


def read_colour(path: Path) -> np.ndarray:
    """A picture of any mode as ``[H, W, 3]`` uint8: red, green and blue; a grey picture has three equal channels.

    Raises:
        DataError: as in :func:`read_grey`.
    """
    if is_dicom(path):
        return np.repeat(read_dicom(path)[..., None], 3, axis=2)
    return _colours(_open(path), path)


def picture_in_memory(picture: Image.Image, channels: int) -> np.ndarray:
    """A picture of Pillow, by the rules of a file: as :func:`read_grey` (1 channel) or :func:`read_colour` (3) would
    read it.

    Raises:
        DataError: as in :func:`read_grey`.
    """
    name = "the picture"
    return (_colours if channels == 3 else _grey)(_upright(picture, name), name)


def may_have_colours(path: Path) -> bool:
    """Whether the pixels of a file can hold colours, according to its header; False if it cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return picture.mode not in ("1", "L", "LA") and not _is_deep(picture)
    except Exception:  # Pillow raises OSError, SyntaxError and others; reading the picture reports the problem
        return False


def orientation(path: Path) -> int:
    """How a viewer turns the picture of a file, according to its EXIF data: 1 (not at all) to 8; 1 if it cannot be
    read."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # as in may_have_colours
        return 1


def depth_of(path: Path) -> int | None:
    """The depth in bits by which :func:`read_grey` scales a picture of more than 8 bits; None for all other files."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            values = np.asarray(picture) if _is_deep(picture) else None
    except Exception:  # as in may_have_colours
        return None
    if values is None or (np.issubdtype(values.dtype, np.floating) and values.max() <= 1):
        return None
    return _depth(values)


def read_mask(path: Path, lesion: Mapping[MaskValue, bool] = NO_VALUES) -> np.ndarray:
    """A mask as ``[H, W]`` bool, true where the lesion is.

    Args:
        path: the file.
        lesion: the values in the file that mean lesion, and those that do not; see
            :func:`semimedref_core.config.mask_values`. All other values are background, but not all of a mask's values
            may be unlisted. Without values, the mask must have one class: pixels above half of white are lesion, and
            edges may be soft.

    Raises:
        DataError: as in :func:`read_grey`; without values also for a mask with colours or several classes; with values
            also for a mask that is not empty and has no lesion, unless its most frequent value is a listed one.
    """
    picture = _open(path)
    if lesion:
        return _of_values(picture, lesion, path)
    if picture.mode not in ("1", "L", "LA") and not _is_deep(picture):
        _refuse_colours(np.asarray(picture.convert("RGB")), path)
    grey = _grey(picture, path)
    _refuse_classes(grey, path)
    return grey > LESION


def _open(path: Path) -> Image.Image:
    """The only picture of a file, decoded and upright."""
    if not path.is_file():
        raise DataError(f"{path}: listed but missing{_meant(path)}")
    if is_dicom(path):
        raise DataError(f"{path}: is a DICOM file, which may be a picture but not a mask; save the mask as PNG")
    with _faults_named(path):
        data = path.read_bytes()
        Image.open(io.BytesIO(data), formats=FORMATS).verify()  # checks the checksums, which decoding does not
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    return _upright(picture, path)


def _meant(path: Path) -> str:
    """What may be meant by the path of a missing file: the file whose name differs only in letter case."""
    if not path.parent.is_dir():
        return " (as is its folder)"
    meant = _by_small_letters(path.parent, path.parent.stat().st_mtime_ns).get(path.name.lower())
    return f" (did you mean {meant}? Letter case matters)" if meant else ""


@lru_cache(maxsize=8)
def _by_small_letters(folder: Path, changed: int) -> dict[str, str]:
    """The names in a folder by their small letters; none if it cannot be read. It is read again only if it changed."""
    try:
        return {name.lower(): name for name in os.listdir(folder)}
    except OSError:
        return {}


def _upright(picture: Image.Image, name: Path | str) -> Image.Image:
    """A picture, decoded and upright; refuses what viewers show in different ways."""
    with _faults_named(name):
        frames = getattr(picture, "n_frames", 1)
        white_is_zero = picture.format == "TIFF" and picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        cut = any(_OF_16_BITS.search(str(tile.args)) for tile in getattr(picture, "tile", ()))
        picture.load()
        picture = ImageOps.exif_transpose(picture)
    if 0 in picture.size:
        raise DataError(f"{name}: has no pixel ({picture.width} x {picture.height}); give another one")
    if frames > 1:
        raise DataError(f"{name}: holds {frames} pictures; save the right one as a separate file")
    if picture.mode not in _OF_8_BITS and not _is_deep(picture):
        raise DataError(f"{name}: holds colours of the kind {picture.mode}; save it as grey or RGB")
    if cut and not _is_deep(picture):  # Pillow has no such pictures: it drops the lower 8 bits of each value
        raise DataError(
            f"{name}: holds colours or transparency of 16 bits a value, of which only 8 would be read; save it as grey "
            "of 16 bits or as RGB of 8 bits"
        )
    if white_is_zero and _is_deep(picture):  # Pillow inverts them only at 8 bits
        raise DataError(f"{name}: its grey value 0 is white; save it with 0 as black")
    if _is_transparent(picture):
        raise DataError(f"{name}: is partly transparent, so it looks different in each viewer; save it without alpha")
    return picture


@contextmanager
def _faults_named(name: Path | str) -> Iterator[None]:
    """Turns the errors of the system and of Pillow into errors that name the picture."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: corrupt picture, or no {', '.join(FORMATS)}") from error
    except OSError as error:
        if error.errno:
            raise DataError(f"{name}: cannot be read ({error.strerror}); check its rights") from error
        raise DataError(f"{name}: corrupt picture, or no {', '.join(FORMATS)} ({_reason(error)})") from error
    except Exception as error:  # Pillow raises SyntaxError, struct.error and others for broken files
        raise DataError(f"{name}: corrupt picture ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return str(error).partition(" <")[0] or type(error).__name__


def _is_deep(picture: Image.Image) -> bool:
    """Whether the picture has more than 8 bits for each channel of a pixel."""
    return picture.mode.startswith(("I", "F"))


def _is_transparent(picture: Image.Image) -> bool:
    if not picture.has_transparency_data:
        return False
    return _is_deep(picture) or picture.convert("RGBA").getchannel("A").getextrema()[0] < 255


def _grey(picture: Image.Image, name: Path | str) -> np.ndarray:
    return _to_8_bits(np.asarray(picture), name) if _is_deep(picture) else np.asarray(picture.convert("L"))


def _colours(picture: Image.Image, name: Path | str) -> np.ndarray:
    if _is_deep(picture):
        return np.repeat(_to_8_bits(np.asarray(picture), name)[..., None], 3, axis=2)
    return np.asarray(picture.convert("RGB"))


def _to_8_bits(values: np.ndarray, name: Path | str) -> np.ndarray:
    low, high = values.min(), values.max()
    if np.issubdtype(values.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    depth = _depth(values)
    # Fractions beyond 1 have no known white: 0 to 1.02 would be read as the two darkest grey values of 8 bits.
    broken = depth is not None and bool((values != np.rint(values)).any())
    if depth is None or broken:
        raise DataError(
            f"{name}: holds values from {low:g} to {high:g}{' with fractions' if broken else ''}; save it as grey of 8 "
            "or 16 bits, or as numbers from 0 to 1"
        )
    return np.rint(values.astype(np.float64) * (255 / (2**depth - 1))).astype(np.uint8)


def _depth(values: np.ndarray) -> int | None:
    """The smallest of the depths, in bits, that holds all values; None if there is none."""
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all() or low < 0:
        return None
    return next((bits for bits in DEPTHS if high < 2**bits), None)


def _of_values(picture: Image.Image, listed: Mapping[MaskValue, bool], path: Path) -> np.ndarray:
    """The pixels of the lesion values. A mask of other values alone would be empty without a word, such as one of 0 and
    255 in a folder whose other masks have 0 and 1. So it is refused, unless its main value is listed as no lesion."""
    lesion = [value for value, means_lesion in listed.items() if means_lesion]
    deep = _is_deep(picture)
    values = np.asarray(picture if deep else picture.convert("RGB"))
    if deep:
        mask, drawn = np.isin(values, [value for value in lesion if isinstance(value, int)]), values != 0
    else:
        mask = np.any([(values == np.array(value)).all(axis=2) for value in lesion], axis=0)
        drawn = values.any(axis=2)
    if mask.any() or not drawn.any():
        return mask
    found = [each if deep or len({*each}) > 1 else each[0] for each in _most(_plain(values[drawn]))]
    if found[0] not in listed:
        shown, first = ", ".join(map(_shown, found)), _shown(found[0])
        raise DataError(
            f"{path}: holds the values {shown} and none that mask_values lists as lesion; add {first} to mask_values "
            f"if it is lesion too, or {first}=0 if it is something else"
        )
    return mask


def _plain(pixels: np.ndarray) -> Iterable:
    """Pixels as plain numbers or tuples of numbers."""
    return map(tuple, pixels.tolist()) if pixels.ndim > 1 else pixels.tolist()


def _shown(value: float | tuple[int, int, int]) -> str:
    """A value as the setting ``mask_values`` lists it."""
    return "#{:02x}{:02x}{:02x}".format(*value) if isinstance(value, tuple) else f"{value:g}"


def _refuse_colours(rgb: np.ndarray, path: Path) -> None:
    coloured = np.ptp(rgb, axis=2) >= COLOURED
    if coloured.any():
        shown = ", ".join(map(_shown, _most(_plain(rgb[coloured]))))
        raise DataError(f"{path}: mask with colours ({shown}); {_CURE}")


def _refuse_classes(grey: np.ndarray, path: Path) -> None:
    """Refuses a mask with more than background, lesion and soft edges: with flat areas or isolated spots of other
    values."""
    brightest = int(grey.max())
    if brightest == 0:
        return
    if brightest <= LESION:
        raise DataError(f"{path}: brightest value {brightest}; {_CURE}")
    between = (grey > _SOFT) & (grey < brightest - _SOFT)
    if not between.any():
        return
    drawn = grey > _SOFT
    flat = grey[between & (ndimage.maximum_filter(grey, 3) - ndimage.minimum_filter(grey, 3) <= _FLAT)]
    if flat.size and np.count_nonzero(abs(flat - np.median(flat)) <= _FLAT) >= max(_SPECK, drawn.sum() / 200):
        shown = ", ".join(map(str, sorted(_most(flat.tolist()))))
        raise DataError(f"{path}: mask with areas of the values {shown} beside {brightest}; {_CURE}")
    spots, count = ndimage.label(drawn, np.ones((3, 3), int))
    numbers = np.arange(1, count + 1)
    brightest_of = ndimage.maximum(grey, spots, numbers)
    dim = (brightest_of > _RINGING) & (brightest_of <= LESION)
    dim &= ndimage.sum_labels(drawn, spots, numbers) >= _SPECK
    if dim.any():
        shown = ", ".join(map(str, sorted(_most(grey[np.isin(spots, numbers[dim])].tolist()))))
        raise DataError(f"{path}: mask with isolated spots of the values {shown}, which would be lost; {_CURE}")


def _most(values: Iterable) -> list:
    """The three most frequent values."""
    return [value for value, _ in Counter(values).most_common(3)]
