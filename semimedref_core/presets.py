"""Named settings of whole runs. ``presets.toml`` holds them, with the source of each value."""

from __future__ import annotations

import tomllib
from pathlib import Path

from semimedref_core.errors import ConfigError

_TABLES = tomllib.loads((Path(__file__).parent / "presets.toml").read_text(encoding="utf-8"))
PRESETS = tuple(_TABLES)


def preset(name: str) -> dict:
    """The settings of a preset; the names are those of :class:`semimedref_core.config.Config`.

    Raises:
        ConfigError: if there is no such preset; lists all presets.

    >>> from semimedref_core import Config, preset
    >>> Config(**preset("paper-qata") | {"label_ratio": 0.02}).batch_size
    32
    """
    return {setting: entry["value"] for setting, entry in _entries(name).items()}


def sources(name: str) -> dict[str, str]:
    """The source of each value of :func:`preset`; it raises the same errors."""
    return {setting: entry["source"] for setting, entry in _entries(name).items()}


def about(name: str) -> str:
    """One line that says what a preset is for."""
    return _table(name)["about"]


def _entries(name: str) -> dict[str, dict]:
    table = _table(name)
    own = {setting: entry for setting, entry in table.items() if setting not in ("about", "extends")}
    return {**_entries(table["extends"]), **own} if "extends" in table else own


def _table(name: str) -> dict:
    if name not in _TABLES:
        raise ConfigError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return _TABLES[name]
