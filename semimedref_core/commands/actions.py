"""The actions of the commands. Each imports its packages when it runs, so that no command waits for others."""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from semimedref_core.commands.endings import say
from semimedref_core.commands.options import given, run_config
from semimedref_core.errors import FileError, SemiMedRefError
from semimedref_core.runtime.files import CONFIG, METRICS_LOG, RESULTS

if TYPE_CHECKING:
    from semimedref_core.config import Config

WRITTEN_BY = "semimedref predict"  # a mark in the pictures that predict writes
_NO_SIZE = f"its {CONFIG} has no image_size, the size of the training images; add it there"


class CommandError(SemiMedRefError):
    """A command got an argument that it cannot use."""


def tutorial(options: argparse.Namespace) -> None:
    """Runs notebook 07 on the phantom."""
    from semimedref_core import example
    from semimedref_core.experiments.papermill_run import run_notebook
    from semimedref_core.runtime.progress import follow

    folder = Path(options.output)
    if (folder / "07_train.ipynb").exists():
        raise CommandError(f"{folder}: has a tutorial run already; delete it or give another --output")
    say(f"Training supervised and Semi-MedRef on the phantom, {options.steps} steps each. Results go to {folder}/")
    with follow(folder, options.steps):
        parameters = {"steps": options.steps, "eval_every": max(1, options.steps // 5), "seed": options.seed}
        notebook = run_notebook("07_train", folder, {**parameters, "output": "."})
    say((folder / "table.txt").read_text(encoding="utf-8"))
    say(f"executed notebook  {notebook}")
    say(f"figures            {folder}/*.png")
    for run in sorted(path.parent for path in folder.glob(f"*/{RESULTS}")):
        say(f"metrics            {run / METRICS_LOG}, {RESULTS}")
        say(f"checkpoints        {run}/student, teacher")
    picture, report = next(iter(example.pictures().items()))
    asked = {"checkpoint": folder / "semi_medref", "image": picture, "report": report, "output": folder / "first"}
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    say(f"\nUse the new network:\n{shlex.join(['semimedref', 'predict', *words])}")


def train(options: argparse.Namespace) -> None:
    """Trains one network."""
    from semimedref_core import training
    from semimedref_core.runtime.environment import first_process

    config = run_config(options)
    folder = options.output or f"runs/{_run_name(config)}"
    note, ready = {"variant": options.variant}, Path(folder, RESULTS).is_file()
    how = {"resume": options.resume, "device": options.device, "track": options.track}
    try:
        results = training.train(config, folder, note=note, **how)
    except FileError as error:
        raise CommandError(
            f"{error}\nFiles that were saved before are intact; give the same command with --resume to go on"
        ) from error
    if not first_process():  # the results are those of all processes
        return
    if ready:
        say(f"{folder}: this run was already finished; its results:")
    for network in ("student", "teacher"):
        say(f"{network:8} {_scores(results[network])}")
    say(
        f"{config.dataset}, {results['split']} split, {results['labelled']} labelled pairs, seed {config.seed}, preset "
        f"{options.preset}. Written to {folder}/"
    )


def _run_name(config: Config) -> str:
    """The default name of a run's folder."""
    size = f"{config.image_size}px-{config.steps}steps"
    return f"{config.dataset}-{config.label_ratio:g}-{config.method}-{size}-seed{config.seed}"


def sweep(options: argparse.Namespace) -> int:
    """Makes all runs of a plan, in parallel, and their table."""
    from semimedref_core._lazy import require

    for package in ("submitit", "psutil", "pyarrow"):
        require(package, "sweeps", "semimedref sweep")
    from semimedref_core.experiments.sweep import carry_out

    output = Path(options.output) if options.output else None
    how = {"store": options.store, "track": options.track, "dry_run": options.dry_run}
    return carry_out(options.plan, output, options.engine, options.jobs, **how)


def profile(options: argparse.Namespace) -> None:
    """Prints the times of the parts of a training step."""
    from semimedref_core.runtime.atomic import write_json
    from semimedref_core.tools.profiling import profile

    found = profile(run_config(options), options.device, options.count)
    say(found.render())
    if options.json:
        write_json(Path(options.json), found.to_dict())


def mixing(options: argparse.Namespace) -> None:
    """Prints how often T-PatchMix offers a patch, accepts it and is correct."""
    from semimedref_core.data.datasets import load_split
    from semimedref_core.tools.mixing_rates import release_rates, zone_rules

    config = run_config(options)
    if config.dataset == "folder":
        raise CommandError("mixing needs reports of the strict grammar, but the dataset folder has free texts")
    pairs = load_split(config.dataset, options.split, config.image_size, config.data, config.texts, config.mask_values)
    say(
        f"{len(pairs)} pairs of {config.dataset} {options.split}, {config.image_size} px, the true masks in place of a "
        f"teacher, {options.count} samples for each rule, in per cent\n"
    )
    say(zone_rules(pairs, config, options.count).round(1).to_string() + "\n")
    say("the released code, with its own wording of the reports:\n")
    say(release_rates(pairs, config.image_size, options.count, config.seed).round(1).to_string())


def evaluate(options: argparse.Namespace) -> None:
    """Scores a trained network on a split, with complete reports or with reports without positions."""
    from semimedref_core.commands.score_table import add_rows, other_rows
    from semimedref_core.data.asked import as_read, split_asked
    from semimedref_core.data.content import require_content
    from semimedref_core.runtime.checkpoints import from_pretrained, load_texts, network_folder
    from semimedref_core.runtime.devices import device_named
    from semimedref_core.tools.positions import recoveries, reports_table

    rate = options.removal_rate
    if not 0 <= rate <= 1:
        raise CommandError(f"--removal-rate must be 0 to 1, got {rate:g}")
    if options.reports in ("full", "all") and rate != 1:
        raise CommandError(f"--removal-rate {rate:g} has no effect with --reports {options.reports}; remove it")
    if options.csv and options.reports != "all":
        raise CommandError("--csv keeps the table of --reports all; give both")
    checkpoint = network_folder(options.checkpoint)
    run, network = os.path.split(os.path.abspath(checkpoint))
    scored = {"run": Path(run).name, "network": network, "folder": str(Path(run).parent), "split": options.split}
    if options.csv:
        other_rows(Path(options.csv), scored)  # a foreign file is refused before minutes of scoring
    place = device_named(options.device)
    network, about = from_pretrained(checkpoint)
    network.to(place)
    config = _trained_with(about, checkpoint, given(options))
    pairs = as_read(split_asked(options.split, config, about), about, network.channels)
    require_content(pairs, f"{config.dataset} {options.split}")
    texts, where = load_texts(checkpoint), f"on {len(pairs)} pairs of {config.dataset} {options.split}"
    if options.reports != "all":
        (row,) = reports_table(network, pairs, texts, [options.reports], [rate]).to_dict("records")
        mode, rate = row.pop("reports"), row.pop("removal_rate")
        changed = "" if mode == "full" else f", reports {mode} at a removal rate of {rate:g}"
        say(f"{_scores(row)} {where}{changed}")
        return
    table = reports_table(network, pairs, texts)
    if options.csv:
        add_rows(Path(options.csv), table, scored)
    for metric in ("dice_image", "dice_micro"):
        shown = table.pivot(index="reports", columns="removal_rate", values=metric).loc[table["reports"].unique()]
        say(f"{metric} (%) {where}, by reports and removal rate\n{(100 * shown).round(1).to_string()}")
        for mode, share in recoveries(table, metric).items():
            say(f"recovery, {mode}: {100 * share:.1f} %")


def _trained_with(about: dict, checkpoint: Path, given: dict) -> Config:
    """The data settings of a network's training, with the given settings.

    Args:
        about: its ``config.json``.
        checkpoint: its folder.
        given: given settings; a dataset or texts other than in training are refused.
    """
    from semimedref_core.config import Config
    from semimedref_core.runtime.atomic import read_json

    run = checkpoint.parent / CONFIG
    of_run = read_json(run) if run.is_file() else {}  # older networks have fewer entries
    trained = {
        "dataset": about.get("trained_on", of_run.get("dataset")),
        "texts": about.get("text_version", of_run.get("texts")),
        "mask_values": about.get("mask_values", of_run.get("mask_values")),
        "image_size": about.get("image_size", of_run.get("image_size")),
    }
    known = {name: value for name, value in trained.items() if value is not None}
    for name in ("dataset", "texts"):
        if name in given and given[name] != known.get(name, given[name]):
            raise CommandError(
                f"{checkpoint}: was trained with {name} {known[name]}, not {given[name]}; remove --{name}"
            )
    if "image_size" not in known:
        raise CommandError(f"{checkpoint}: {_NO_SIZE}")
    if "dataset" not in {**known, **given}:
        raise CommandError(f"{checkpoint}: has no record of its training data; give --dataset")
    return Config(**{**known, **given})


def predict(options: argparse.Namespace) -> None:
    """Segments one image with its report."""
    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from semimedref_core import example
    from semimedref_core.inference import SemiMedRef

    if (options.image is None) != (options.report is None):
        raise CommandError("give --image and --report together; without both, a picture of the package is shown")
    image, report = options.image, options.report
    if image is None:
        image, report = next(iter(example.pictures().items()))
        say(f"a picture of the package: {image}\nits report: {report}")
    stem = Path(options.output or Path(image).stem)
    if stem.name in ("", ".."):
        named = f"--output {options.output}" if options.output else f"--image {image}"
        raise CommandError(f"{named}: gives the files no name; give --output a name, such as results/case")
    mask, overlay = stem.with_name(f"{stem.name}_mask.png"), stem.with_name(f"{stem.name}_overlay.png")
    _refuse_to_overwrite(mask, overlay)
    model = SemiMedRef.from_pretrained(options.checkpoint or example.MODEL, options.device)
    found = model.predict(image, report)
    stem.parent.mkdir(parents=True, exist_ok=True)
    about = PngInfo()
    about.add_text("Software", WRITTEN_BY)
    Image.fromarray((found.mask * 255).astype(np.uint8)).save(mask, pnginfo=about)
    found.overlay().savefig(overlay, dpi=150, metadata={"Software": WRITTEN_BY})
    say(f"lesion on {100 * found.mask.mean():.1f} % of the image\nmask     {mask}\noverlay  {overlay}")


def _refuse_to_overwrite(*paths: Path) -> None:
    """Allows a prediction to replace only an earlier prediction: a mask beside an image may be the true one."""
    from PIL import Image

    for path in paths:
        if path.parent.exists() and not path.parent.is_dir():
            raise CommandError(f"{path.parent}: is not a folder; give another --output")
        if not path.exists():
            continue
        try:
            ours = Image.open(path, formats=("PNG",)).info.get("Software") == WRITTEN_BY
        except (OSError, SyntaxError):
            ours = False
        if not ours:
            raise CommandError(f"{path}: exists already and was not written by predict; give another --output")


def demo(options: argparse.Namespace) -> None:
    """Serves a page where the user edits a sentence and the mask follows, until Ctrl-C."""
    import webbrowser

    from semimedref_core import example
    from semimedref_core.demo.answer import Demo
    from semimedref_core.demo.server import PageServer
    from semimedref_core.inference import SemiMedRef

    model = SemiMedRef.from_pretrained(options.checkpoint or example.MODEL, options.device)
    of_phantom = model.about.get("trained_on") == "phantom"  # the package has only pictures of the phantom
    with PageServer(Demo(model, example.pictures() if of_phantom else {}), options.port) as server:
        say(f"{server.address} serves the page to browsers of this machine only. Ctrl-C ends it")
        if not options.no_browser:
            webbrowser.open(server.address)
        server.serve_forever()


def compare(options: argparse.Namespace) -> None:
    """Prints the results of finished runs as one table."""
    from matplotlib.backend_bases import FigureCanvasBase

    from semimedref_core.experiments import results, tables
    from semimedref_core.experiments.pages import page_parts
    from semimedref_core.experiments.verdict import verdict

    if options.figure:
        kinds = FigureCanvasBase.get_supported_filetypes()
        if (kind := Path(options.figure).suffix[1:].lower() or "png") not in kinds:
            raise CommandError(f"{options.figure}: figures are not written as {kind}, only as {', '.join(kinds)}")
    if options.keep:
        results.require_no_runs(options.keep)
    runs = results.finished_runs(options.runs)
    said = verdict(runs)
    say(f"{said.box}\n\n{said.table}\n")
    say(tables.results_table(runs).to_string())
    if options.keep:
        results.keep(runs, options.keep)
    if options.markdown:
        tables.write_between(options.markdown, page_parts(runs, said))
    if options.figure:
        from semimedref_core.experiments.statistics import learning_curves
        from semimedref_core.figures.results import score_panels

        bare = learning_curves(results.without_help(runs))
        score_panels(learning_curves(runs), bare=bare).savefig(options.figure, dpi=120)


def notebooks(options: argparse.Namespace) -> int:
    """Checks, runs or refreshes the notebooks."""
    import nbformat

    from semimedref_core.experiments.papermill_run import refresh, run_notebook
    from semimedref_core.experiments.shipped import notebooks_folder
    from semimedref_core.tools import notebook_checks

    problems, folder = 0, notebooks_folder()
    names = options.names or sorted(source.stem for source in folder.glob("*.py"))
    if not names:
        raise CommandError(f"{folder}: no notebooks here, so nothing was done; use a checkout, or reinstall semimedref")
    if options.task == "check" and (absent := [name for name in names if not (folder / f"{name}.py").is_file()]):
        raise CommandError(f"{folder}: no notebook {', '.join(absent)}, so nothing was checked")
    for name in names:
        say(f"{options.task} {name} ...")
        source = folder / f"{name}.py"
        if options.task == "refresh":
            say(f"    {refresh(name)}")
        if options.task == "run":
            with tempfile.TemporaryDirectory() as temporary:
                executed = nbformat.read(run_notebook(name, temporary, {}), as_version=4)
            found = notebook_checks.output_problems(executed, nbformat.read(source.with_suffix(".ipynb"), as_version=4))
        else:
            found = notebook_checks.style_problems(source) + notebook_checks.pair_problems(source)
        for problem in found:
            say(f"    {problem}")
        problems += len(found)
    return 1 if problems else 0


def doctor(options: argparse.Namespace) -> int:
    """Checks a data folder."""
    from semimedref_core.config import FIELDS, Config
    from semimedref_core.data.datasets import data_folder
    from semimedref_core.data.own.doctor import examine_own
    from semimedref_core.data.own.metadata import is_own
    from semimedref_core.data.real.doctor import examine_all

    settings = Config(**{**given(options), "dataset": "folder"})  # so that all options of the doctor are allowed
    folder = data_folder(settings.data)
    own = is_own(folder)
    for name in ("positions", "text_sides", "text_length"):
        if not own and getattr(settings, name) != FIELDS[name].default:
            raise CommandError(
                f"{folder}: has no table of your own data (metadata.csv), and --{name.replace('_', '-')} has no effect "
                "on other data; leave it out"
            )
    if own:
        how = settings.positions, settings.text_sides, settings.mask_values, settings.text_length
        diagnoses = [examine_own(folder, *how)]
    else:
        diagnoses = examine_all(folder, settings.mask_values)
    say("\n\n".join(diagnosis.render() for diagnosis in diagnoses))
    return 0 if all(diagnosis.ok for diagnosis in diagnoses) else 1


def cache(options: argparse.Namespace) -> None:
    """Describes the cache of decoded pictures, or clears it."""
    from semimedref_core.data.real import cache as pictures

    folder = pictures.cache_folder()
    if folder is None:
        say("SEMIMEDREF_CACHE is empty, so no decoded pictures are stored")
        return
    files, size = pictures.room_taken(folder)
    if options.clear:
        pictures.clear(folder)
    what = "deleted" if options.clear else "decoded pictures kept"
    say(f"{folder}: {files} {what}, {size / 1e6:.1f} MB")


def _scores(scores: dict[str, float]) -> str:
    return "  ".join(f"{name} {100 * value:.1f} %" for name, value in scores.items())
