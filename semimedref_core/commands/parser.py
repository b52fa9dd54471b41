"""The commands and their options. Nothing here loads torch."""

from __future__ import annotations

import argparse
import os
from typing import get_args

from semimedref_core.commands.endings import carried_out
from semimedref_core.commands.options import add_device, add_run, add_settings
from semimedref_core.commands.suggestions import Parser
from semimedref_core.config import FIELDS, ReportsAtHand, Tracker
from semimedref_core.presets import preset
from semimedref_core.runtime.environment import version_of


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; without a command it shows the help.

    Returns:
        The exit status, see :func:`.endings.carried_out`.
    """
    options = parser().parse_args(arguments)
    if options.action is None:
        parser().print_help()
        return 0
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from semimedref_core.commands import actions  # imported after parsing, so that --help and typing errors are quick

    return carried_out(getattr(actions, options.action), options)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog="semimedref",
        description="Semi-MedRef, step by step: teacher and student learn to segment a medical image with its report.",
        epilog="Start with `semimedref tutorial`. It needs no data and takes a few minutes on a laptop.",
    )
    top.set_defaults(action=None)
    top.add_argument("--version", action="version", version=f"semimedref {version_of('semimedref')}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.set_defaults(action=name, name=name)
        return command

    _tutorial(add("tutorial", "Run the training notebook on the phantom, from start to end."))
    _train(add("train", "Train one network."))
    _evaluate(add("evaluate", "Score a trained network on a split."))
    _predict(add("predict", "Segment one image with its report."))
    _demo(add("demo", "Open a page where you edit a sentence and the mask follows."))
    _sweep(add("sweep", "Make all runs of a plan and their table. Run it again to continue after a stop."))
    _compare(add("compare", "Show finished runs as one table: mean and spread over seeds."))
    _profile(add("profile", "Show the times of the parts of a training step."))
    _mixing(
        add("mixing", "Measure how often T-PatchMix offers a patch and is correct, for each rule and for the release.")
    )
    doctor = add("doctor", "Check a folder of real data or of your own data, and name all problems.")
    add_settings(doctor, "data", "mask_values", "positions", "text_sides", "text_length")
    _cache(add("cache", "Show the place and size of the cache of decoded pictures, or delete it."))
    _notebooks(add("notebooks", "Check, run or refresh the notebooks (for contributors)."))
    return top


def _count(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1, FIELDS["steps"].metadata["high"])


def _seed(text: str) -> int:
    return _whole(text, 0, 2**32 - 1)


def _port(text: str) -> int:
    return _whole(text, 0, 2**16 - 1)


def _whole(text: str, low: int, high: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}") from None
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, got {text:.40}")
    return number


def _tutorial(command: argparse.ArgumentParser) -> None:
    steps, seed = preset("tutorial")["steps"], preset("tutorial")["seed"]
    command.add_argument(
        "--steps", type=_count, default=steps, help="optimiser steps of each method (default %(default)s)"
    )
    command.add_argument("--seed", type=_seed, default=seed, help="seed of both runs (default %(default)s)")
    command.add_argument("--output", default="runs/tutorial", metavar="DIR", help="folder (default %(default)s)")


def _train(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--output", metavar="DIR", help="run folder (default runs/DATASET-RATIO-METHOD-SIZEpx-STEPSsteps-seedN)"
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="continue from the folder's checkpoint; the numbers are those of one long run",
    )
    command.add_argument(
        "--variant",
        default="",
        metavar="TEXT",
        help="name of the difference of this run, such as 'without PosAug'; `compare` shows it in a separate row",
    )
    _track(command)
    add_run(command)


def _track(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--track",
        choices=get_args(Tracker),
        help="also send the metrics to this tracker; each needs an extra of this package",
    )


def _sweep(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "plan",
        metavar="PLAN",
        help="a YAML file of methods, label ratios, seeds, settings (see docs/sweeps.md), or the name of a "
        "built-in plan, such as phantom",
    )
    command.add_argument("--dry-run", action="store_true", help="list the runs and their estimated time; run nothing")
    command.add_argument("--output", metavar="DIR", help="folder of the sweep (default runs/NAME OF THE PLAN)")
    command.add_argument(
        "--jobs", type=_count, metavar="N", help="largest number of runs at a time (default: one for each GPU, or core)"
    )
    command.add_argument(
        "--engine",
        choices=("local", "slurm"),
        default="local",
        help="this machine, or an array job on SLURM (default %(default)s)",
    )
    command.add_argument(
        "--store",
        default="",
        metavar="URL",
        help="also copy notebooks, metrics and settings to this place: a folder or s3://...",
    )
    _track(command)


def _profile(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--count", type=_count, default=20, metavar="N", help="number of timed steps (default %(default)s)"
    )
    command.add_argument("--json", metavar="FILE", help="also write the numbers to this file")
    add_run(command)


def _mixing(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--count", type=_count, default=1000, metavar="N", help="number of samples (default %(default)s)"
    )
    command.add_argument("--split", default="valid", choices=("train", "valid", "test"), help="default %(default)s")
    add_run(command)


def _evaluate(command: argparse.ArgumentParser) -> None:
    _checkpoint(command)
    command.add_argument("--split", default="valid", choices=("train", "valid", "test"), help="default %(default)s")
    command.add_argument(
        "--reports",
        choices=(*get_args(ReportsAtHand), "all"),
        default="full",
        help="complete reports; or reports with removed, masked, vague or mirrored positions; none: for all images the "
        "sentence that names all zones; all: a table of these over the removal rate (default %(default)s)",
    )
    command.add_argument(
        "--removal-rate",
        type=float,
        default=1.0,
        metavar="X",
        help="share of the reports that --reports changes, 0 to 1 (default %(default)s)",
    )
    command.add_argument(
        "--csv",
        metavar="FILE",
        help="with --reports all: add the table to this file, with its run, network, folder and split; an earlier "
        "table of the same ones is replaced",
    )
    add_device(command)
    add_settings(command, "dataset", "data", "texts", "mask_values")


def _predict(command: argparse.ArgumentParser) -> None:
    _any_checkpoint(command)
    command.add_argument("--image", metavar="PNG", help="PNG, JPEG, TIFF, BMP or DICOM (default: one of the package)")
    command.add_argument(
        "--report",
        metavar="TEXT",
        help="its report: any sentence, or one in the grammar of the network's training data",
    )
    command.add_argument(
        "--output", metavar="STEM", help="write STEM_mask.png and STEM_overlay.png (default: the image's name)"
    )
    add_device(command)


def _demo(command: argparse.ArgumentParser) -> None:
    _any_checkpoint(command)
    command.add_argument(
        "--port",
        type=_port,
        default=8642,
        metavar="N",
        help="port of this machine; 0: any free port (default %(default)s)",
    )
    command.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")
    add_device(command)


def _any_checkpoint(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--checkpoint",
        metavar="DIR",
        help="a finished run, its folder student/ or teacher/, or organisation/name@commit on the hub (default: the "
        "small network of the package, which knows only the phantom)",
    )


def _checkpoint(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--checkpoint",
        required=True,
        metavar="DIR",
        help="a finished run (uses its teacher), or its folder student/ or teacher/",
    )


def _compare(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "runs",
        nargs="+",
        metavar="DIR",
        help="run folders, folders of run folders, or a folder of --keep",
    )
    command.add_argument(
        "--keep", metavar="DIR", help="write the data for comparisons to this folder, in two files and without networks"
    )
    command.add_argument(
        "--markdown",
        metavar="FILE",
        help="replace this file's text between <!-- verdict --> and <!-- /verdict -->; the same for claims, results",
    )
    command.add_argument("--figure", metavar="PNG", help="draw the learning curves to this file")


def _cache(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--clear", action="store_true", help="delete the stored pictures; they are made again when needed"
    )


def _notebooks(command: argparse.ArgumentParser) -> None:
    command.add_argument("names", nargs="*", metavar="NAME", help="such as 07_train (default: all)")
    tasks = command.add_mutually_exclusive_group()
    for task, meaning in (
        ("refresh", "run each and save the result beside its source (default)"),
        ("run", "run each and compare its output with the committed one"),
        ("check", "run nothing: check the style, and that source and executed notebook agree"),
    ):
        tasks.add_argument(f"--{task}", dest="task", action="store_const", const=task, default="refresh", help=meaning)
