"""The command line: ``semimedref COMMAND``, the commands as functions in the order of ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image

from semimedref_core import checkpoints, comparison, notebooks, runs, sweep, tables
from semimedref_core.config import Config
from semimedref_core.data.datasets import data_folder, load_split
from semimedref_core.data.doctor import examine_all
from semimedref_core.data.pairs import Pairs
from semimedref_core.evaluation import evaluate, predict
from semimedref_core.options import add_run, add_settings, run_config
from semimedref_core.presets import preset
from semimedref_core.profiling import profile
from semimedref_core.records import write_json
from semimedref_core.reports import Report
from semimedref_core.training import TrainingError, train

# Told in one line; anything else is a bug and shows its trace.
ERRORS = (ValueError, TrainingError, runs.NotebookError, sweep.SweepError)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0, or 1 after an error that was told in one line."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except ERRORS as error:
        print(f"semimedref {options.name}: {error}", file=sys.stderr)
        return 1


def tutorial(options) -> None:
    """Runs the training notebook on the phantom, start to end."""
    folder = Path(options.output)
    if (folder / "06_train.ipynb").exists():
        raise runs.NotebookError(f"{folder}: holds a tutorial run already; delete it or give another --output")
    print(
        f"Training supervised and Semi-MedRef on the phantom, {options.steps} steps each. Everything goes to {folder}/"
    )
    with runs.follow(folder, 2 * options.steps, "tutorial"):
        parameters = {"steps": options.steps, "eval_every": max(1, options.steps // 5), "seed": options.seed}
        notebook = runs.run_notebook("06_train", folder, {**parameters, "output": "."})
    print((folder / "table.txt").read_text())
    print(f"executed notebook  {notebook}")
    print(f"figures            {folder}/*.png")
    for run in sorted(path.parent for path in folder.glob("*/results.json")):
        print(f"metrics            {run / 'metrics.jsonl'}, results.json")
        print(f"checkpoints        {run}/student, teacher")


def train_command(options) -> None:
    """Trains one network."""
    config = run_config(options)
    folder = options.output or f"runs/{config.dataset}-{config.label_ratio:g}-{config.method}-seed{config.seed}"
    results = train(config, folder, resume=options.resume, device=options.device)
    for network in ("student", "teacher"):
        print(f"{network:8}", _scores(results[network]))
    print(
        f"{config.dataset}, valid split, {results['labelled']} labelled pairs, seed {config.seed}. Written to {folder}/"
    )


def sweep_command(options) -> int:
    """Makes all runs of a plan, in parallel, and their table; started again, it goes on where it was."""
    output = Path(options.output) if options.output else None
    return sweep.carry_out(
        options.plan, output, options.engine, options.jobs, store=options.store, dry_run=options.dry_run
    )


def profile_command(options) -> None:
    """Prints where the time of a training step goes."""
    found = profile(run_config(options), options.device, options.count)
    print(found.render())
    if options.json:
        write_json(Path(options.json), found.to_dict())


def evaluate_command(options) -> None:
    """Scores a trained network on a split."""
    network, about = checkpoints.from_pretrained(options.checkpoint)
    config = Config(dataset=options.dataset, data=options.data, texts=options.texts, image_size=about["image_size"])
    pairs = load_split(config, options.split)
    scores = evaluate(network, pairs, checkpoints.load_texts(options.checkpoint))
    print(_scores(scores), f"on {len(pairs)} pairs of {options.dataset} {options.split}")


def predict_command(options) -> None:
    """Segments one image by its report."""
    network, about = checkpoints.from_pretrained(options.checkpoint)
    report = Report.parse(options.report)
    try:
        picture = Image.open(options.image).convert("L")
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and others for broken files
        raise ValueError(f"{options.image}: cannot be read as an image ({error}); give a PNG or JPEG") from None
    size = (about["image_size"], about["image_size"])
    pairs = Pairs(np.array(picture.resize(size, Image.Resampling.BILINEAR))[None], None, (report,), (options.image,))
    probs = next(predict(network, pairs, checkpoints.load_texts(options.checkpoint)))[0, 0].numpy()
    probs = np.asarray(Image.fromarray(probs).resize(picture.size, Image.Resampling.BILINEAR))
    stem = Path(options.output or Path(options.image).stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    mask, overlay = stem.with_name(f"{stem.name}_mask.png"), stem.with_name(f"{stem.name}_overlay.png")

    # matplotlib takes a second that the other commands need not wait for
    from semimedref_core.figures.pairs import prediction_overlay

    Image.fromarray(((probs >= 0.5) * 255).astype(np.uint8)).save(mask)
    prediction_overlay(np.asarray(picture), probs, report.render()).savefig(overlay, dpi=150)
    print(f"lesion on {100 * (probs >= 0.5).mean():.1f} % of the image\nmask     {mask}\noverlay  {overlay}")


def compare(options) -> None:
    """Prints the results of finished runs as one table, mean and spread over seeds."""
    folders = comparison.run_folders(options.runs)
    finished = comparison.finished_runs(folders)
    print(tables.results_table(finished).to_string())
    if options.keep:
        for folder in folders:
            comparison.keep_metrics(folder, Path(options.keep) / folder.name)
    if options.markdown:
        tables.write_table(options.markdown, tables.markdown_table(finished))
    if options.figure:
        from semimedref_core.differences import learning_curves
        from semimedref_core.figures.results import curve_panels  # matplotlib: as in predict

        bare = learning_curves(comparison.without_help(finished))
        curve_panels(learning_curves(finished), bare=bare).savefig(options.figure, dpi=120)


def notebooks_command(options) -> int:
    """Checks, runs or refreshes the notebooks (for contributors)."""
    problems = 0
    for name in options.names or sorted(source.stem for source in runs.NOTEBOOKS.glob("*.py")):
        print(f"{options.task} {name} ...", flush=True)
        source = runs.NOTEBOOKS / f"{name}.py"
        if options.task == "refresh":
            print(f"    {runs.refresh(name)}")
        if options.task == "run":
            with tempfile.TemporaryDirectory() as folder:
                executed = nbformat.read(runs.run_notebook(name, folder, {}), as_version=4)
            found = notebooks.output_problems(executed, nbformat.read(source.with_suffix(".ipynb"), as_version=4))
        else:
            found = notebooks.style_problems(source) + notebooks.pair_problems(source)
        print("".join(f"    {problem}\n" for problem in found), end="")
        problems += len(found)
    return 1 if problems else 0


def doctor(options) -> int:
    """Looks through a data folder."""
    diagnoses = examine_all(data_folder(options.data))
    print("\n\n".join(diagnosis.render() for diagnosis in diagnoses))
    return 0 if all(diagnosis.ok for diagnosis in diagnoses) else 1


def _scores(scores: dict[str, float]) -> str:
    return "  ".join(f"{name} {100 * value:.1f} %" for name, value in scores.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="semimedref",
        description="Semi-MedRef: semi-supervised medical referring image segmentation, step by step.",
        epilog="Start with `semimedref tutorial`; it needs no data and takes a few minutes on a laptop.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name, function):
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.set_defaults(command=function, name=name)
        return command

    command = add("tutorial", tutorial)
    steps, seed = preset("tutorial")["steps"], preset("tutorial")["seed"]
    command.add_argument(
        "--steps", type=int, default=steps, help="optimiser steps of each method (default %(default)s)"
    )
    command.add_argument("--seed", type=int, default=seed, help="default %(default)s")
    command.add_argument("--output", default="runs/tutorial", metavar="DIR", help="default %(default)s")

    command = add("train", train_command)
    add_run(command)
    command.add_argument("--output", metavar="DIR", help="run folder (default runs/DATASET-RATIO-METHOD-seedN)")
    command.add_argument(
        "--resume", action="store_true", help="go on from the folder's checkpoint; same numbers as without a stop"
    )

    command = add("sweep", sweep_command)
    command.add_argument("plan", metavar="PLAN.yaml", help="methods, label ratios, seeds, settings: see docs/sweeps.md")
    command.add_argument("--jobs", type=int, metavar="N", help="most runs at a time (default: one for each core)")
    command.add_argument("--output", metavar="DIR", help="folder of the sweep (default runs/NAME OF THE PLAN)")
    command.add_argument(
        "--engine",
        choices=sweep.ENGINES,
        default="processes",
        help="processes of this machine (default); an array job on SLURM; or the same through submitit on this machine",
    )
    command.add_argument(
        "--store",
        default="",
        metavar="URL",
        help="also copy notebooks, metrics and settings there: a folder or s3://...",
    )
    command.add_argument("--dry-run", action="store_true", help="run nothing: list the runs, and what they will cost")

    command = add("profile", profile_command)
    add_run(command)
    command.add_argument("--count", type=int, default=20, metavar="N", help="steps to time (default %(default)s)")
    command.add_argument("--json", metavar="FILE", help="writes the numbers there too")

    command = add("evaluate", evaluate_command)
    command.add_argument(
        "--checkpoint", required=True, metavar="DIR", help="folder student/ or teacher/ of a finished run"
    )
    add_settings(command, "dataset", "data", "texts")
    command.add_argument("--split", default="valid", choices=("train", "valid", "test"), help="default %(default)s")

    command = add("predict", predict_command)
    command.add_argument(
        "--checkpoint", required=True, metavar="DIR", help="folder student/ or teacher/ of a finished run"
    )
    command.add_argument("--image", required=True, metavar="PNG", help="chest X-ray or CT slice")
    command.add_argument("--report", required=True, metavar="TEXT", help="its report, in the grammar of the data")
    command.add_argument(
        "--output", metavar="STEM", help="writes STEM_mask.png and STEM_overlay.png (default: the image's name)"
    )

    command = add("compare", compare)
    command.add_argument("runs", nargs="+", metavar="DIR", help="run folders, or folders of them; seeds are averaged")
    command.add_argument(
        "--keep", metavar="DIR", help="copy settings, results, counts and thinned metrics there, without checkpoints"
    )
    command.add_argument(
        "--markdown", metavar="FILE", help="renew the table between <!-- results --> and <!-- /results --> there"
    )
    command.add_argument("--figure", metavar="PNG", help="draw the learning curves there")

    command = add("notebooks", notebooks_command)
    command.add_argument("names", nargs="*", metavar="NAME", help="such as 06_train (default: all)")
    tasks = command.add_mutually_exclusive_group()
    for task, meaning in (
        ("refresh", "run each and put the result beside its source (default)"),
        ("run", "run each and compare what it prints with the committed one"),
        ("check", "run nothing: style, and whether source and executed notebook are in step"),
    ):
        tasks.add_argument(f"--{task}", dest="task", action="store_const", const=task, default="refresh", help=meaning)

    command = add("doctor", doctor)
    add_settings(command, "data")
    return parser


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
