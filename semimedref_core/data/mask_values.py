"""The setting ``mask_values``: which values of a mask file are lesion, where a mask has more than one class."""

from __future__ import annotations

import re

from semimedref_core.errors import ConfigError

Value = int | tuple[int, int, int]
"""A grey value as the file holds it, or a colour (red, green, blue)."""


def mask_values(text: str) -> tuple[Value, ...]:
    """The values that a text lists; none for an empty one.

    Args:
        text: whole numbers from 1 to 65535 and colours ``#rrggbb``, with commas between.

    Raises:
        ConfigError: naming the part that is neither.

    >>> from semimedref_core.data.mask_values import mask_values
    >>> mask_values("85, 255"), mask_values("#ff0000"), mask_values("")
    ((85, 255), ((255, 0, 0),), ())
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    return tuple(dict.fromkeys(_value(part) for part in parts))


def _value(part: str) -> Value:
    if re.fullmatch(r"#[0-9a-fA-F]{6}", part):
        return int(part[1:3], 16), int(part[3:5], 16), int(part[5:7], 16)
    if re.fullmatch(r"[0-9]{1,5}", part) and 1 <= int(part) <= 65535:
        return int(part)
    raise ConfigError(
        f"mask_values: {part!r} is no value of a mask; give whole numbers from 1 to 65535 or colours such as #ff0000, "
        "with commas between"
    )
