"""Settings of two presets side by side, with the reason of each difference."""

from __future__ import annotations

from semimedref_core.config import FIELDS
from semimedref_core.presets import preset, sources


def settings_table(theirs: str = "paper", ours: str = "compact") -> str:
    """The settings that differ between two presets, in Markdown: both values, and the source of the second one.

    Raises:
        ConfigError: if there is no such preset.
    """
    a, b, why = preset(theirs), preset(ours), sources(ours)
    lines = [f"| setting | {theirs} | {ours} | why `{ours}` has this value |", "|---|---|---|---|"]
    lines += [
        f"| `{name}`: {FIELDS[name].metadata['meaning']} | {_shown(a[name])} | {_shown(b[name])} "
        f"| {why[name].removeprefix('here: ')} |"
        for name in FIELDS
        if name in a and name in b and a[name] != b[name]
    ]
    return "\n".join(lines)


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
