"""What each command does. Each imports what it needs when it runs, so that no command waits for another's packages."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from semimedref_core.commands.options import given, run_config
from semimedref_core.errors import SemiMedRefError

if TYPE_CHECKING:
    import pandas

WRITTEN_BY = "semimedref predict"  # in the pictures that predict writes


class CommandError(SemiMedRefError):
    """A command that was given something it cannot use."""


def tutorial(options: argparse.Namespace) -> None:
    """Runs notebook 06 on the phantom."""
    from semimedref_core.experiments.papermill_run import follow, run_notebook

    folder = Path(options.output)
    if (folder / "06_train.ipynb").exists():
        raise CommandError(f"{folder}: holds a tutorial run already; delete it or give another --output")
    print(
        f"Training supervised and Semi-MedRef on the phantom, {options.steps} steps each. Everything goes to {folder}/"
    )
    with follow(folder, 2 * options.steps, "tutorial"):
        parameters = {"steps": options.steps, "eval_every": max(1, options.steps // 5), "seed": options.seed}
        notebook = run_notebook("06_train", folder, {**parameters, "output": "."})
    print((folder / "table.txt").read_text(encoding="utf-8"))
    print(f"executed notebook  {notebook}")
    print(f"figures            {folder}/*.png")
    for run in sorted(path.parent for path in folder.glob("*/results.json")):
        print(f"metrics            {run / 'metrics.jsonl'}, results.json")
        print(f"checkpoints        {run}/student, teacher")


def train(options: argparse.Namespace) -> None:
    """Trains one network."""
    from semimedref_core import training

    config = run_config(options)
    folder = options.output or f"runs/{config.dataset}-{config.label_ratio:g}-{config.method}-seed{config.seed}"
    note = {"variant": options.variant}
    results = training.train(config, folder, resume=options.resume, device=options.device, note=note)
    for network in ("student", "teacher"):
        print(f"{network:8}", _scores(results[network]))
    print(
        f"{config.dataset}, {results['split']} split, {results['labelled']} labelled pairs, seed {config.seed}, preset "
        f"{options.preset}. Written to {folder}/"
    )


def sweep(options: argparse.Namespace) -> int:
    """Makes all runs of a plan, in parallel, and their table."""
    from semimedref_core.experiments.sweep import carry_out

    output = Path(options.output) if options.output else None
    return carry_out(options.plan, output, options.engine, options.jobs, store=options.store, dry_run=options.dry_run)


def profile(options: argparse.Namespace) -> None:
    """Prints where the time of a training step goes."""
    from semimedref_core.runtime.atomic import write_json
    from semimedref_core.tools.profiling import profile

    found = profile(run_config(options), options.device, options.count)
    print(found.render())
    if options.json:
        write_json(Path(options.json), found.to_dict())


def mixing(options: argparse.Namespace) -> None:
    """Prints how often T-PatchMix offers, accepts and tells the truth."""
    from semimedref_core.data.datasets import load_split
    from semimedref_core.tools.mixing_rates import release_rates, zone_rules

    config = run_config(options)
    pairs = load_split(config.dataset, options.split, config.image_size, config.data, config.texts, config.mask_values)
    print(
        f"{len(pairs)} pairs of {config.dataset} {options.split}, {config.image_size} px, the true masks in place of a "
        f"teacher, {options.count} samples for each rule, in per cent\n"
    )
    print(zone_rules(pairs, config, options.count).round(1).to_string(), "\n")
    print("the released code, with its own wording of the reports:\n")
    print(release_rates(pairs, config.image_size, options.count, config.seed).round(1).to_string())


def evaluate(options: argparse.Namespace) -> None:
    """Scores a trained network on a split, with whole reports or with reports that lack their positions."""
    from semimedref_core.config import Config
    from semimedref_core.data.content import require_content
    from semimedref_core.data.datasets import load_split
    from semimedref_core.runtime.checkpoints import from_pretrained, load_texts
    from semimedref_core.tools.positions import recoveries, reports_table

    rate = options.removal_rate
    if not 0 <= rate <= 1:
        raise CommandError(f"--removal-rate must be 0 to 1, got {rate:g}")
    if options.reports in ("full", "all") and rate != 1:
        raise CommandError(f"--removal-rate {rate:g} changes nothing with --reports {options.reports}; leave it out")
    if options.csv and options.reports != "all":
        raise CommandError("--csv keeps the table of --reports all; give both")
    network, about = from_pretrained(options.checkpoint)
    config = Config(**given(options), image_size=about["image_size"])
    pairs = load_split(config.dataset, options.split, config.image_size, config.data, config.texts, config.mask_values)
    require_content(pairs, f"{config.dataset} {options.split}")
    if about.get("axes") == "transposed":
        pairs = pairs.transposed()
    texts, where = load_texts(options.checkpoint), f"on {len(pairs)} pairs of {config.dataset} {options.split}"
    if options.reports != "all":
        (row,) = reports_table(network, pairs, texts, [options.reports], [rate]).to_dict("records")
        mode, rate = row.pop("reports"), row.pop("removal_rate")
        changed = "" if mode == "full" else f", reports {mode} at a removal rate of {rate:g}"
        print(f"{_scores(row)} {where}{changed}")
        return
    table = reports_table(network, pairs, texts)
    if options.csv:
        _add_rows(Path(options.csv), table.assign(run=Path(options.checkpoint).absolute().parent.name))
    for metric in ("dice_image", "dice_micro"):
        shown = table.pivot(index="reports", columns="removal_rate", values=metric).loc[table["reports"].unique()]
        print(f"{metric} (%) {where}, by reports and removal rate\n{(100 * shown).round(1).to_string()}")
        for mode, share in recoveries(table, metric).items():
            print(f"recovery, {mode}: {100 * share:.1f} %")


def _add_rows(path: Path, table: pandas.DataFrame) -> None:
    """Adds a run's rows to a CSV file; rows that the file has of this run are replaced."""
    import pandas as pd

    if path.exists():
        kept = pd.read_csv(path)
        table = pd.concat([kept[~kept["run"].isin(table["run"])], table])
    table.round(4).to_csv(path, index=False)


def predict(options: argparse.Namespace) -> None:
    """Segments one image by its report."""
    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from semimedref_core.data.pairs import DataError, Pairs
    from semimedref_core.data.real.pictures import read_grey
    from semimedref_core.evaluation import predict
    from semimedref_core.figures.pairs import prediction_overlay
    from semimedref_core.reports import Report
    from semimedref_core.runtime.checkpoints import from_pretrained, load_texts

    stem = Path(options.output or Path(options.image).stem)
    mask, overlay = stem.with_name(f"{stem.name}_mask.png"), stem.with_name(f"{stem.name}_overlay.png")
    _refuse_to_overwrite(mask, overlay)
    network, about = from_pretrained(options.checkpoint)
    report = Report.parse(options.report)
    try:
        picture = Image.fromarray(read_grey(Path(options.image)))
    except DataError as error:
        reason = str(error).removeprefix(f"{options.image}: ").replace("listed but ", "")
        raise CommandError(f"{options.image}: cannot be read as an image ({reason}); give a PNG or JPEG") from None
    size = (about["image_size"], about["image_size"])
    pairs = Pairs(np.array(picture.resize(size, Image.Resampling.BILINEAR))[None], None, (report,), (options.image,))
    on_its_side = about.get("axes") == "transposed"
    pairs = pairs.transposed() if on_its_side else pairs
    probs = next(predict(network, pairs, load_texts(options.checkpoint)))[0, 0].numpy()
    probs = probs.T if on_its_side else probs
    probs = np.asarray(Image.fromarray(probs).resize(picture.size, Image.Resampling.BILINEAR))
    stem.parent.mkdir(parents=True, exist_ok=True)
    about = PngInfo()
    about.add_text("Software", WRITTEN_BY)
    Image.fromarray(((probs >= 0.5) * 255).astype(np.uint8)).save(mask, pnginfo=about)
    prediction_overlay(np.asarray(picture), probs, report.render()).savefig(
        overlay, dpi=150, metadata={"Software": WRITTEN_BY}
    )
    print(f"lesion on {100 * (probs >= 0.5).mean():.1f} % of the image\nmask     {mask}\noverlay  {overlay}")


def _refuse_to_overwrite(*paths: Path) -> None:
    """Lets a prediction replace an earlier prediction alone: a mask beside an image may be the true one."""
    from PIL import Image

    for path in paths:
        if path.parent.exists() and not path.parent.is_dir():
            raise CommandError(f"{path.parent}: is no folder; give another --output")
        if not path.exists():
            continue
        try:
            ours = Image.open(path, formats=("PNG",)).info.get("Software") == WRITTEN_BY
        except (OSError, SyntaxError):
            ours = False
        if not ours:
            raise CommandError(f"{path}: is there already and was not written by predict; give another --output")


def compare(options: argparse.Namespace) -> None:
    """Prints the results of finished runs as one table."""
    from semimedref_core.experiments import results, tables
    from semimedref_core.experiments.verdict import verdict

    runs = results.finished_runs(options.runs)
    said = verdict(runs)
    print(f"{said.box}\n\n{said.table}\n")
    print(tables.results_table(runs).to_string())
    if options.keep:
        results.keep(runs, options.keep)
    if options.markdown:
        parts = {"verdict": said.box, "claims": said.table, "results": tables.markdown_table(runs)}
        tables.write_between(options.markdown, parts)
    if options.figure:
        from semimedref_core.experiments.statistics import learning_curves
        from semimedref_core.figures.results import curve_panels

        bare = learning_curves(results.without_help(runs))
        curve_panels(learning_curves(runs), bare=bare).savefig(options.figure, dpi=120)


def notebooks(options: argparse.Namespace) -> int:
    """Checks, runs or refreshes the notebooks."""
    import nbformat

    from semimedref_core.experiments.papermill_run import notebooks_folder, refresh, run_notebook
    from semimedref_core.tools import notebook_checks

    problems, folder = 0, notebooks_folder()
    names = options.names or sorted(source.stem for source in folder.glob("*.py"))
    if not names:
        raise CommandError(f"{folder}: no notebooks here, so nothing was done; use a checkout, or reinstall semimedref")
    if options.task == "check" and (absent := [name for name in names if not (folder / f"{name}.py").is_file()]):
        raise CommandError(f"{folder}: no notebook {', '.join(absent)}, so nothing was checked")
    for name in names:
        print(f"{options.task} {name} ...", flush=True)
        source = folder / f"{name}.py"
        if options.task == "refresh":
            print(f"    {refresh(name)}")
        if options.task == "run":
            with tempfile.TemporaryDirectory() as temporary:
                executed = nbformat.read(run_notebook(name, temporary, {}), as_version=4)
            found = notebook_checks.output_problems(executed, nbformat.read(source.with_suffix(".ipynb"), as_version=4))
        else:
            found = notebook_checks.style_problems(source) + notebook_checks.pair_problems(source)
        print("".join(f"    {problem}\n" for problem in found), end="")
        problems += len(found)
    return 1 if problems else 0


def doctor(options: argparse.Namespace) -> int:
    """Looks through a data folder."""
    from semimedref_core.config import Config
    from semimedref_core.data.datasets import data_folder
    from semimedref_core.data.real.doctor import examine_all

    settings = Config(**given(options))
    diagnoses = examine_all(data_folder(settings.data), settings.mask_values)
    print("\n\n".join(diagnosis.render() for diagnosis in diagnoses))
    return 0 if all(diagnosis.ok for diagnosis in diagnoses) else 1


def _scores(scores: dict[str, float]) -> str:
    return "  ".join(f"{name} {100 * value:.1f} %" for name, value in scores.items())
