"""The phantom: procedural chest X-rays and lung CT slices with lesions, masks and reports.

This is the built-in default dataset. A case is drawn in relative coordinates, so all sizes show the same case. Its
zones have the frequencies of real reports. Lesions fill the zones that the report names, and the count word counts the
lesions. **Decoys** look exactly like lesions but lie in zones that the report does not name. They are not in the mask,
so only the report distinguishes them from lesions. The pictures are stylised: they teach the method, not medicine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from semimedref_core.anatomy import QATA
from semimedref_core.data.pairs import DataError, Pairs
from semimedref_core.reports import ZONES, Report

COUNTS = {"train": 800, "valid": 200, "test": 200}
"""Split -> its default number of pairs."""
MODALITIES = ("xray", "ct")
MIN_SIZE = 32
MAX_LESIONS = 9

# fmt: off
ZONE_CODES = {
    63: 2187, 36: 1244, 32: 541, 4: 418, 39: 342, 38: 336, 54: 268, 55: 200, 16: 143, 52: 107, 62: 105, 2: 98,
    6: 96, 34: 88, 60: 77, 37: 69, 47: 65, 18: 63, 7: 45, 44: 43, 33: 42, 61: 39, 45: 37, 1: 35, 56: 27,
    22: 25, 57: 25, 50: 24, 35: 24, 31: 23, 15: 21, 48: 20, 20: 20, 53: 20, 40: 20, 8: 16, 59: 16, 41: 15,
    58: 14, 9: 14, 5: 12, 46: 10, 13: 10, 23: 10, 51: 9, 3: 9, 12: 9, 49: 8, 27: 8, 17: 7, 24: 7, 43: 6,
    42: 4, 28: 4, 29: 3, 10: 3, 25: 3, 11: 2, 14: 2, 30: 2, 19: 2, 21: 2, 26: 1,
}
# fmt: on
"""How often each :attr:`Report.code` occurs in the 7145 training and validation reports of QaTa-COV19 (LViT)."""

_CODES = np.array(list(ZONE_CODES))
_CODE_SHARES = np.array(list(ZONE_CODES.values())) / sum(ZONE_CODES.values())
_DECOY_SHARES = (0.1, 0.25, 0.35, 0.3)  # probabilities of zero to three decoys, if enough zones are free
_EIGHT_CONNECTED = np.ones((3, 3))
_LUNG_BANDS = ((0.19, 0.37), (0.37, 0.57), (0.57, 0.75))  # inside the bands of QATA, where every case has lung


class _Chest(NamedTuple):
    """Maps ``[size, size]`` float32 of one case: the place of each pixel relative to image, body and lungs."""

    image_y: np.ndarray  # 0 top to 1 bottom of the image; zones depend on it
    right: np.ndarray  # bool, the image's right half
    x: np.ndarray  # body coordinates (turned and shifted), midline at 0
    y: np.ndarray
    t: np.ndarray  # across the lung: 0 at its medial edge, 1 at its lateral edge
    depth: np.ndarray  # distance into the lung, negative outside


def phantom(split: str, count: int | None = None, size: int = 96, seed: int = 0, modality: str = "xray") -> Pairs:
    """Draws pairs of the phantom.

    Each pair is a function of (seed, modality, split, index). A smaller ``count`` gives the first pairs of a larger
    one, and another ``size`` shows the same cases. Only the grain differs, and rarely the count word, when two lesions
    touch at one size but not at the other.

    Args:
        split: ``train``, ``valid`` or ``test``.
        count: number of pairs; by default the number in :data:`COUNTS`.
        size: height and width in pixels, at least 32.
        seed: at least 0; another seed gives another dataset.
        modality: ``xray`` (frontal chest X-ray) or ``ct`` (axial lung slice).

    Returns:
        Images ``[count, size, size]`` uint8, masks 0/1, reports in style ``lvit``.

    Raises:
        DataError: if an argument is out of range; names it and the allowed values.
    """
    cases = _cases(split, count, size, seed, modality)
    images = np.empty((len(cases), size, size), np.uint8)
    masks = np.empty_like(images)
    reports = []
    for index, rng in enumerate(cases):
        images[index], masks[index], report = _pair(rng, size, modality)
        reports.append(report)
    names = tuple(f"phantom_{modality}_{split}_{index:04d}.png" for index in range(len(cases)))
    return Pairs(images, masks, tuple(reports), names)


def decoys(split: str, count: int | None = None, size: int = 96, seed: int = 0, modality: str = "xray") -> np.ndarray:
    """The decoys in the pictures of :func:`phantom`. No report names them and no mask marks them.

    The arguments and errors are those of :func:`phantom`.

    Returns:
        ``[count, size, size]`` uint8, 1 on a decoy.
    """
    drawn = [_outlined(rng, size, modality) for rng in _cases(split, count, size, seed, modality)]
    return np.stack([lookalikes & ~mask for _, _, mask, lookalikes in drawn]).astype(np.uint8)


def _cases(split: str, count: int | None, size: int, seed: int, modality: str) -> list[np.random.Generator]:
    """A random generator for each case."""
    if split not in COUNTS:
        raise DataError(f"unknown split {split!r}; choose one of {', '.join(COUNTS)}")
    if modality not in MODALITIES:
        raise DataError(f"unknown modality {modality!r}; choose one of {', '.join(MODALITIES)}")
    count = COUNTS[split] if count is None else count
    for name, value, least in (("count", count, 1), ("size", size, MIN_SIZE), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"{name} must be at least {least}, got {value}")
    key = (seed, MODALITIES.index(modality), list(COUNTS).index(split))
    return [np.random.default_rng((*key, index)) for index in range(count)]


def _outlined(rng: np.random.Generator, size: int, modality: str) -> tuple[list[int], _Chest, np.ndarray, np.ndarray]:
    """Zones and chest of one case, and the outlines ``[size, size]`` bool of its lesions and its decoys."""
    code = int(rng.choice(_CODES, p=_CODE_SHARES))
    zones = [code >> k & 1 for k in range(len(ZONES))]
    free = [k for k, named in enumerate(zones) if not named]
    chosen = rng.permutation(free)[: rng.choice(len(_DECOY_SHARES), p=_DECOY_SHARES)]
    chest = _RECIPES[modality][0](rng, size)
    mask = _lesions(rng, chest, zones)
    return zones, chest, mask, _lesions(rng, chest, [int(k in chosen) for k in range(len(ZONES))])


def _pair(rng: np.random.Generator, size: int, modality: str) -> tuple[np.ndarray, np.ndarray, Report]:
    """Image, mask and report of one case. Grain is drawn last, because its number of draws depends on the size."""
    _, draw, thickness, gain, gamma = _RECIPES[modality]
    zones, chest, mask, lookalikes = _outlined(rng, size, modality)
    # The opacity is the blurred outline times a smooth thickness, the same for lesions and decoys.
    outline = ndimage.gaussian_filter((mask | lookalikes).astype(np.float32), rng.uniform(0.008, 0.02) * size)
    opacity = outline * rng.uniform(*thickness) * (1 + 0.25 * _noise(rng, 5, size) + 0.15 * _noise(rng, 24, size))
    picture = np.clip(draw(rng, chest, np.clip(opacity, 0, 0.9)), 0, 1)
    picture = rng.uniform(*gain) * picture ** rng.uniform(*gamma)  # exposure
    picture += rng.uniform(0.008, 0.03) * rng.standard_normal((size, size), np.float32)
    report = Report.of(zones, lesions=ndimage.label(mask, _EIGHT_CONNECTED)[1])
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8), mask.astype(np.uint8), report


def _lesions(rng: np.random.Generator, chest: _Chest, zones: list[int]) -> np.ndarray:
    """Irregular areas in these zones, ``[size, size]`` bool: one for each run of adjacent zones, rarely more."""
    size = len(chest.t)
    field = np.full_like(chest.t, -1)
    edge = 0.3 * np.tanh(_noise(rng, 9, size)) + 0.1 * np.tanh(_noise(rng, 24, size))  # bounded: cores stay whole
    for right, first, last in _runs(zones):
        top, bottom = _LUNG_BANDS[first][0], _LUNG_BANDS[last][1]
        half = (bottom - top) / 2
        for satellite in range(1 + rng.choice(4, p=(0.9, 0.06, 0.03, 0.01))):
            if satellite:
                across, tall, sharp = rng.uniform(0.12, 0.2), rng.uniform(0.03, 0.045), 2
                t, y = rng.uniform(0.2, 0.8), rng.uniform(top + tall, bottom - tall)
            elif first == last:
                across, tall, sharp = rng.uniform(0.22, 0.75), half * rng.uniform(0.6, 1.1), 2
                t, y = rng.uniform(0.3, 0.7), rng.uniform(top + 0.8 * half, bottom - 0.8 * half)
            else:  # taller lesions are more box-like, so that they reach all their zones
                across, tall, sharp = rng.uniform(0.3, 0.9), half * rng.uniform(0.9, 1.3), 3
                t, y = rng.uniform(0.3, 0.7), (top + bottom) / 2
            away = np.abs((chest.t - t) / across) ** sharp + np.abs((chest.image_y - y) / tall) ** sharp
            blob = 1 - away ** (1 / sharp) + edge
            beyond = np.maximum(QATA.cuts[first] - chest.image_y, chest.image_y - QATA.cuts[last + 1])
            blob -= 9 * np.maximum(beyond + 0.04, 0)  # fades out at the border of a zone that is not named
            np.maximum(field, np.where(chest.right == right, blob, -1), out=field)
    return _without_specks((field > 0) & (chest.depth > 0.003))


def _runs(zones: list[int]) -> list[tuple[bool, int, int]]:
    """Runs of adjacent zones of one side, as (right side?, first height, last height)."""
    runs = []
    for k, wanted in enumerate(zones):
        if wanted and k % 3 and zones[k - 1]:
            runs[-1] = (*runs[-1][:2], k % 3)
        elif wanted:
            runs.append((k >= 3, k % 3, k % 3))
    return runs


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """The mask without areas below 0.3 % of the image. It keeps at most the nine largest areas, as in real reports."""
    labels, found = ndimage.label(mask, _EIGHT_CONNECTED)
    areas = np.bincount(labels.ravel(), minlength=found + 1)
    areas[0] = 0
    keep = areas >= 0.003 * mask.size
    keep[np.argsort(-areas, kind="stable")[MAX_LESIONS:]] = False
    return keep[labels]


def _xray_chest(rng: np.random.Generator, size: int) -> _Chest:
    """Lungs with a pointed top, a domed bottom, and the heart beside the right one."""
    u = rng.uniform
    image_y, x, y = _body_coordinates(rng, size)
    right, out = x > 0, np.abs(x)
    top, base, width = u(0.10, 0.16), u(0.74, 0.81), u(0.35, 0.41)
    gap, apex, dome = u(0.055, 0.085), u(0.12, 0.15), u(0.01, 0.05)
    v = np.clip((y - top) / (base - top), 0, 1.3)
    heart = np.where(right, u(0.07, 0.14), u(0.01, 0.04)) * np.exp(-(((v - u(0.75, 0.9)) / 0.3) ** 2))
    medial = gap + (apex - gap) * np.exp(-v / 0.07) + heart
    lateral = apex + (width - apex) * (1 - np.clip(1 - v, 0, 1) ** u(1.9, 2.6)) ** 0.8
    bottom = base + dome * right + u(1.5, 2.5) * (out - u(0.12, 0.17)) ** 2  # deepest at the lateral angles
    return _chest(image_y, x, y, medial, lateral, top, bottom)


def _ct_chest(rng: np.random.Generator, size: int) -> _Chest:
    """A round chest, lungs around heart and spine."""
    u = rng.uniform
    image_y, x, y = _body_coordinates(rng, size)
    tall, width, middle = u(0.31, 0.35), u(0.36, 0.41), u(0.48, 0.51)
    v = (y - middle) / tall  # -1 front to 1 back
    heart = u(0.4, 1) * np.where(x > 0, 0.17, 0.07) * np.exp(-(((v + u(0.1, 0.35)) / u(0.3, 0.4)) ** 2))
    spine = u(0.035, 0.06) * np.exp(-(((v - 0.72) / 0.22) ** 2))
    lateral = width * np.sqrt(np.clip(1 - np.abs(v) ** 2.3, 0, 1))
    return _chest(image_y, x, y, u(0.03, 0.05) + heart + spine, lateral, middle - tall, middle + tall)


def _body_coordinates(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image y, and x (midline at 0) and y of the body. The body is shifted, scaled and turned by up to four degrees."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    angle, scale = np.deg2rad(rng.uniform(-4, 4)), rng.uniform(0.96, 1.06)
    y, x = axis[:, None] - 0.5 - rng.uniform(-0.01, 0.01), axis[None] - 0.5 - rng.uniform(-0.02, 0.02)
    cos, sin = np.float32(scale * np.cos(angle)), np.float32(scale * np.sin(angle))
    return np.repeat(axis[:, None], size, 1), cos * x + sin * y, cos * y - sin * x + np.float32(0.5)


def _chest(image_y, x, y, medial, lateral, top, bottom) -> _Chest:
    """Makes the maps of a case from the edges of its lungs, given as distances from the midline."""
    out = np.abs(x)
    width = np.maximum(lateral - medial, 0.02)
    depth = np.minimum(np.minimum(out - medial, lateral - out), np.minimum(y - top, bottom - y))
    right = np.broadcast_to(np.arange(len(x)) >= len(x) // 2, x.shape)
    return _Chest(image_y, right, x, y, ((out - medial) / width).astype(np.float32), depth.astype(np.float32))


def _draw_xray(rng: np.random.Generator, chest: _Chest, opacity: np.ndarray) -> np.ndarray:
    """The X-ray, ``[size, size]`` float32, from about 0 for dark air to 1 for bright bone."""
    u, size = rng.uniform, len(chest.t)
    x, y, out = chest.x, chest.y, np.abs(chest.x)
    shoulder = _ramp(y - u(0.07, 0.12), 0.2)
    trunk = u(0.10, 0.14) + u(0.32, 0.42) * shoulder**0.5 * (1.5 - 0.5 * shoulder) - 0.02 * np.cos(7 * y)
    body = _ramp(trunk - out, 0.05)
    lung = _ramp(chest.depth - 0.006, 0.03)
    tissue = u(0.5, 0.6) + u(0.1, 0.25) * _ramp(y - 0.72, 0.3) + 0.03 * _noise(rng, 4, size)
    tissue += u(0.12, 0.22) * np.exp(-((out / 0.055) ** 2)) * (1 + 0.12 * np.cos(y * (2 * np.pi / u(0.05, 0.06))))
    tissue -= 0.1 * np.exp(-((x / 0.02) ** 2)) * _ramp(0.36 - y, 0.06)  # windpipe
    tissue += 0.1 * _ramp(u(0.04, 0.055) - np.hypot(x - u(0.05, 0.07), y - u(0.30, 0.34)), 0.03)  # aortic knob
    bubble = np.hypot((x - u(0.14, 0.2)) / 0.07, (y - u(0.9, 0.95)) / 0.04)
    tissue -= max(u(-0.2, 0.25), 0) * _ramp(1 - bubble, 0.6)  # gas in the stomach
    air = u(0.5, 0.72) * (1 + 0.1 * _noise(rng, 5, size) + u(-0.12, 0.12) * np.sign(x) + u(-0.4, 0.4) * (y - 0.5))
    picture = tissue * (1 - air * lung)
    hilum = np.exp(-((chest.t / 0.3) ** 2 + ((y - u(0.42, 0.48)) / 0.12) ** 2))
    picture += lung * (u(0.05, 0.16) * hilum + _vessels(rng, size, 0.09) * (1.1 - np.clip(chest.t, 0, 1)))
    breast = np.hypot((out - u(0.2, 0.26)) / u(0.13, 0.18), (y - u(0.62, 0.72)) / u(0.1, 0.15))
    picture += u(0, 0.12) * _ramp(1 - breast, 0.5)
    picture += opacity * (u(0.66, 0.78) - picture)
    cage = _ramp(chest.depth + 0.035, 0.03)
    back = (y - u(1.6, 2.6) * (out - u(0.11, 0.15)) ** 2) / u(0.068, 0.082)
    front = (y + u(0.6, 0.9) * out) / u(0.085, 0.1)
    for turns, strength in ((back - u(0, 1), u(0.03, 0.08)), (front - u(0, 1), u(0.015, 0.04))):
        picture += cage * strength * _ramp(np.cos(2 * np.pi * turns) - 0.35, 0.5)
    collar = y - (u(0.2, 0.24) - u(0.1, 0.3) * out - 0.018 * np.sin(out * 16))
    picture += u(0.06, 0.14) * _ramp(0.013 - np.abs(collar), 0.01) * _ramp(out - 0.04, 0.03) * _ramp(0.36 - out, 0.05)
    return u(0, 0.08) + (picture + 0.02 * _noise(rng, 3, size)) * body


def _draw_ct(rng: np.random.Generator, chest: _Chest, opacity: np.ndarray) -> np.ndarray:
    """The CT slice in a lung window, ``[size, size]`` float32, about 0 for air and 1 for bone."""
    u, size = rng.uniform, len(chest.t)
    x, y = chest.x, chest.y
    radius = ((x / u(0.455, 0.48)) ** 2 + np.abs((y - 0.5) / u(0.40, 0.43)) ** 2.4) ** 0.5  # 1 at the skin
    lung = _ramp(chest.depth - 0.004, 0.015)
    fat = _ramp(radius - u(0.9, 0.94), 0.03)
    picture = u(0.58, 0.66) - u(0.1, 0.2) * fat + 0.025 * _noise(rng, 8, size)
    picture += u(0, 0.1) * _ramp(0.12 - np.hypot(x - u(0, 0.04), y - u(0.38, 0.44)), 0.02)  # heart
    angle = np.arctan2(y - 0.5, x)
    turns = int(rng.integers(7, 11)) * angle + 1.2 * np.sin(2 * angle + u(0, 6)) + u(0, 6)
    ribs = _ramp(np.cos(turns) - 0.3, 0.4) * (1 - lung)
    picture += u(0.2, 0.33) * ribs * _ramp(0.017 - np.abs(radius - 0.86 - 0.025 * np.sin(turns)) * 0.43, 0.015)
    picture += 0.2 * _ramp(1 - np.hypot(x / 0.06, (y - u(0.125, 0.15)) / 0.02), 0.5)  # breastbone
    spine_y = u(0.73, 0.76)
    vertebra = np.hypot(x / 0.055, (y - spine_y) / 0.045)
    arch = np.hypot(x / 0.07, (y - spine_y - 0.07) / 0.035)
    picture += 0.33 * np.maximum(_ramp(1 - vertebra, 0.2), _ramp(0.3 - np.abs(arch - 0.9), 0.2))
    picture += u(0.05, 0.15) * _ramp(0.028 - np.hypot(x - u(0.05, 0.065), y - spine_y + 0.065), 0.012)  # aorta
    bronchi = np.hypot(np.abs(x) - max(u(-0.02, 0.035), 0), y - u(0.5, 0.58) + u(-0.4, 0.4) * x)
    picture -= 0.5 * _ramp(u(0.01, 0.018) - bronchi, 0.01)
    parenchyma = u(0.1, 0.2) + 0.045 * _noise(rng, 6, size) + u(0, 0.14) * _ramp(y - 0.6, 0.4)  # denser behind
    parenchyma += _vessels(rng, size, 0.45) * (1.1 - 0.7 * np.clip(chest.t, 0, 1))
    parenchyma += opacity * (u(0.5, 0.62) - parenchyma)
    picture += lung * (parenchyma - picture)
    picture *= _ramp(1 - radius, 0.02)
    table = y - u(0.955, 0.975) + 0.15 * x**2
    return picture + u(0.15, 0.35) * _ramp(0.006 - np.abs(table), 0.006)


def _vessels(rng: np.random.Generator, size: int, strength: float) -> np.ndarray:
    """Thin winding bright lines, at some of the places where smooth noise crosses zero."""
    return strength * np.exp(-((_noise(rng, 15, size) / 0.22) ** 2)) * np.clip(_noise(rng, 12, size), 0, 1)


def _ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """0 to 1 over ``width`` around distance 0: a soft edge."""
    return np.clip(distance / width + 0.5, 0, 1)


def _noise(rng: np.random.Generator, knots: int, size: int) -> np.ndarray:
    """Smooth noise of about unit deviation, ``[size, size]`` float32; the same picture at any size."""
    basis = _spline_basis(knots, size)
    return basis @ rng.standard_normal((knots + 3, knots + 3), np.float32) @ basis.T


@lru_cache
def _spline_basis(knots: int, size: int) -> np.ndarray:
    """Cubic B-splines ``[size, knots + 3]``, scaled so that white coefficients give about unit deviation."""
    at = (np.arange(size) + 0.5) / size * knots
    away = np.abs(at[:, None] - np.arange(-1, knots + 2))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6
    return (np.where(away < 1, near, far) / np.sqrt(0.479)).astype(np.float32)


_RECIPES = {  # lungs, picture, thickness of opacities, gain and gamma of the exposure
    "xray": (_xray_chest, _draw_xray, (0.15, 0.5), (0.85, 1.25), (0.8, 1.35)),
    "ct": (_ct_chest, _draw_ct, (0.15, 0.5), (0.9, 1.15), (0.9, 1.1)),
}
