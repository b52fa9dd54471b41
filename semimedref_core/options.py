"""Options of the command line that are settings of a run: each field of Config is one, with the meaning it declares."""

from __future__ import annotations

import argparse
import dataclasses

from semimedref_core.config import Config
from semimedref_core.devices import DEVICES
from semimedref_core.presets import PRESETS, about, preset


def add_run(command: argparse.ArgumentParser) -> None:
    """The options of a command that works on a run: preset, settings, device. See :func:`run_config`."""
    command.add_argument(
        "--preset",
        choices=PRESETS,
        default="compact",
        metavar="NAME",
        help=f"settings to start from; those given here win: {'; '.join(f'{name}, {about(name)}' for name in PRESETS)} "
        "(default %(default)s)",
    )
    add_settings(command, given_only=True)
    command.add_argument("--device", choices=DEVICES, default="auto", help="auto takes a GPU if there is one (default)")


def run_config(options: argparse.Namespace) -> Config:
    """The settings that the options of :func:`add_run` mean: those of the preset, and those given instead."""
    fields = {field.name for field in dataclasses.fields(Config)}
    given = {name: value for name, value in vars(options).items() if name in fields}
    return Config(**preset(options.preset) | given)


def add_settings(command: argparse.ArgumentParser, *names: str, given_only: bool = False) -> None:
    """Options for these fields of Config (all of them if none is named).

    ``given_only`` leaves those that are not given out of the parsed options, so that a preset's value holds.
    """
    group = command.add_argument_group("settings")
    for field in dataclasses.fields(Config):
        if not names or field.name in names:
            kind = {"int": int, "float": float, "str": str}[field.type]
            choices = ", ".join(field.metadata["choices"])
            shown = f" (default {field.default})" if field.default != "" else ""
            group.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=kind,
                default=argparse.SUPPRESS if given_only else field.default,
                metavar={int: "N", float: "X", str: "NAME"}[kind],
                help=f"{field.metadata['meaning']}{': ' if choices else ''}{choices}{shown}",
            )
