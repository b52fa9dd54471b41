"""Command line options for the settings of a run. Each field of Config is an option, with its meaning as help text."""

from __future__ import annotations

import argparse
from typing import get_args

from semimedref_core.config import FIELDS, GROUPS, Config, Device, choices_of, kind_of
from semimedref_core.presets import PRESETS, about, preset

_KINDS = {"int": int, "float": float, "str": str}
_METAVARS = {"int": "N", "float": "X", "str": "TEXT"}


def add_run(command: argparse.ArgumentParser) -> None:
    """Adds the options of a command for runs: preset, settings, device. See :func:`run_config`."""
    command.add_argument(
        "--preset",
        choices=PRESETS,
        default="compact",
        help="settings to start from; your options override them. "
        + "; ".join(f"{name}: {about(name)}" for name in PRESETS)
        + " (default %(default)s)",
    )
    add_device(command)
    for group in GROUPS:
        add_settings(
            command.add_argument_group(group), *(name for name in FIELDS if FIELDS[name].metadata["group"] == group)
        )


def add_device(command: argparse.ArgumentParser) -> None:
    """Adds the option ``--device``."""
    command.add_argument(
        "--device", choices=get_args(Device), default="auto", help="auto uses a GPU if there is one (default auto)"
    )


def run_config(options: argparse.Namespace) -> Config:
    """The settings for the options of :func:`add_run`: the preset, changed by the given options."""
    return Config(**preset(options.preset) | given(options))


def given(options: argparse.Namespace) -> dict:
    """The settings that were given as options: name -> value."""
    return {name: value for name, value in vars(options).items() if name in FIELDS}


def add_settings(group: argparse._ActionsContainer, *names: str) -> None:
    """Adds options for these fields of Config. Options that are not given are missing in the parsed options."""
    for name in names:
        field, kind = FIELDS[name], kind_of(FIELDS[name])
        shown = f" (default {field.default})" if field.default != "" else ""
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=_KINDS[kind],
            choices=choices_of(field) or None,
            default=argparse.SUPPRESS,
            metavar=None if choices_of(field) else _METAVARS[kind],
            help=field.metadata["meaning"].replace("%", "%%") + shown,
        )
