"""Finished runs side by side: one tidy table of all, what each run is called, what is missing, what is kept.

Means over seeds are in :mod:`.tables`, differences between methods and their intervals in :mod:`.differences`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from semimedref_core import checkpoints
from semimedref_core.checkpoints import CheckpointError
from semimedref_core.config import Config
from semimedref_core.methods import OF_SEMI_MEDREF
from semimedref_core.records import atomic, read_metrics, write_json
from semimedref_core.release import PSEUDO_LABELS
from semimedref_core.runstate import CONFIG, VALID

METRICS = ["dice_image", "miou_image", "dice_micro", "miou_micro"]
SETTINGS = ["dataset", "label_ratio", "weak_view", "steps"]  # always shown

# What all methods of a comparison have in common. Every other setting belongs to a method, save those below.
CONDITIONS = {
    "weak_view": "{} weak view", "steps": "{} steps", "image_size": "{} px", "texts": "{} texts",
    "architecture": "{}", "batch_size": "batches of {}", "lr": "lr {:g}", "weight_decay": "weight decay {:g}",
    "patience": "patience {}", "image_encoder": "image encoder {}", "text_encoder": "text encoder {}",
    "text_length": "texts of {} tokens", "precision": "{}", "compile": "compile {}", "device": "{}",
}  # fmt: skip
_NOT_COMPARED = {"method", "seed", "data", "eval_every"}
_OF_METHODS = [
    field.name
    for field in dataclasses.fields(Config)
    if field.name not in {"dataset", "label_ratio", "network", *CONDITIONS, *_NOT_COMPARED}
] + ["mixing"]
# What was done before there was a setting for it, where that is not the default.
_BEFORE = {"teacher_view": "same", "unfound": "image"}
WITHOUT_HELP = "without our help"
_WORDS = {  # settings in which an ablation differs -> what it is called; of several together first
    (("pseudo_labels", "teacher"), ("teacher_view", "same"), ("unfound", "image")): WITHOUT_HELP,
    (("pseudo_labels", "teacher"), ("teacher_view", "same")): WITHOUT_HELP,
    (("itcl_weight", 0), ("itcl_unlabelled_weight", 0), ("posaug_p", 0), ("patch_p", 0)): "without all three parts",
    (("itcl_weight", 0), ("itcl_unlabelled_weight", 0), ("posaug_p", 0)): "T-PatchMix alone",
    (("itcl_weight", 0), ("itcl_unlabelled_weight", 0), ("patch_p", 0)): "PosAug alone",
    (("posaug_p", 0), ("patch_p", 0)): "ITCL alone",
    (("itcl_weight", 0), ("itcl_unlabelled_weight", 0)): "without ITCL",
    (("mixing", "release"),): "mixed as by the release",
    (("posaug_p", 0),): "without PosAug",
    (("patch_p", 0),): "without T-PatchMix",
    (("gate", 0),): "without the gate",
    (("patch_mode", "random"),): "patches anywhere",
    (("patch_mode", "probability"),): "patches by probability",
    (("mix_text", "keep"),): "mixed, but own text",
    (("positives", "hard"),): "hard positives",
    (("grid", "thirds"),): "zones as equal thirds",
    (("teacher_view", "same"),): "teacher on the student's view",
    (("unfound", "image"),): "unfound zones taught as empty",
    (("pseudo_labels", "teacher"),): "pseudo-labels not cut to zones",
    (("report_text", "none"),): "without reports",
    (("report_text", "no_count"),): "reports without counts",
}


def run_folders(paths: Sequence[str | Path]) -> list[Path]:
    """Run folders as they are; a folder that holds finished runs directly below it stands for all of these."""
    folders = []
    for path in map(Path, paths):
        below = sorted(found.parent for found in path.glob("*/results.json"))
        folders += below if below and not (path / CONFIG).exists() else [path]
    return folders


def finished_runs(folders: Sequence[str | Path]) -> pd.DataFrame:
    """Every finished run as two rows, student and teacher.

    Settings with the most label ratios first, of these the one with the most runs, then by label ratio. Columns: the
    settings (the setting ``network`` as ``architecture``), ``mixing`` (ours or release: where both ran,
    ``semi_medref_release`` is a variant of ``semi_medref``), ``network`` (student or teacher), ``folder``, ``seconds``,
    ``device`` (its kind), the metrics (0 to 1), and two names that depend on the other runs:

    - ``setting``: the dataset and, save the label ratio, what else was not the same for all runs on it.
    - ``variant``: how a run of a method differs from the main one of that method, such as "without PosAug"; empty for
      the main one. That is the one with the most runs, and of several the one nearest to the defaults.

    A setting that a run of an older version did not have stands at what that version did; one that its method does not
    read, at the default of today, or at what the method does instead.

    Args:
        folders: run folders, each with its ``results.json`` and ``config.json``.

    Raises:
        CheckpointError: for folders that hold no finished run, naming all of them, or the same run twice.
    """
    unfinished = [str(folder) for folder in map(Path, folders) if not (folder / "results.json").is_file()]
    if unfinished or not folders:
        which = ", ".join(unfinished) or "no folder given"
        raise CheckpointError(f"{which}: no finished run (results.json is missing); go on with it by --resume")
    rows, defaults = [], Config().to_dict()
    for folder in map(Path, folders):
        results, config = _read(folder / "results.json"), {**defaults, **_BEFORE, **_read(folder / CONFIG)}
        if not config["method"].startswith("semi_medref"):
            config |= {name: defaults[name] for name in OF_SEMI_MEDREF}
        config["mixing"] = "release" if config["method"] == "semi_medref_release" else "ours"
        if config["mixing"] == "release":
            config |= PSEUDO_LABELS
        config["architecture"] = config.pop("network")
        for network in ("student", "teacher"):
            about = {"folder": str(folder), "network": network}
            about |= {"seconds": results["seconds"], "device": results["device"].partition(":")[0]}
            rows.append({**config, **about, **results[network]})
    runs = pd.DataFrame(rows)
    if "semi_medref" in set(runs["method"]):
        runs["method"] = runs["method"].replace("semi_medref_release", "semi_medref")
    runs["setting"] = ""
    for _, of_dataset in runs.groupby("dataset"):
        runs.loc[of_dataset.index, "setting"] = [_setting(run, of_dataset) for _, run in of_dataset.iterrows()]
    runs = _with_variants(runs)
    _refuse_twins(runs)
    in_setting = runs.groupby("setting")["label_ratio"]
    sizes = {"ratios": -in_setting.transform("nunique"), "runs": -in_setting.transform("size")}
    order = runs.assign(**sizes).sort_values([*sizes, "setting", "label_ratio"], kind="stable").index
    return runs.loc[order].reset_index(drop=True)


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); leave this run out, or train it again") from None


def _setting(run: pd.Series, runs: pd.DataFrame) -> str:
    words = [
        words.format("from scratch" if run[name] == "" else run[name])
        for name, words in CONDITIONS.items()
        if runs[name].nunique() > 1
    ]
    return ", ".join([run["dataset"], *words])


def without_help(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs without the help of ours that is in none of the papers, as a comparison of their own.

    That help is the cut of pseudo-labels to reported zones and the teacher's mirrored view. Supervised training, which
    has no pseudo-labels, is part of the comparison wherever it ran beside others.

    Args:
        runs: of :func:`finished_runs`.

    Returns:
        These rows, with ``variant`` as if there were no others; none where all runs have the help, or none has it.
    """
    others = runs[runs["method"] != "supervised"]
    helped = (others["pseudo_labels"] != "teacher") | (others["teacher_view"] != "same")
    bare = others[~helped & _same_column(others, others[helped])]
    return _with_variants(pd.concat([runs[(runs["method"] == "supervised") & _same_column(runs, bare)], bare]))


def _same_column(runs: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """Which runs have a setting and label ratio that some of the others have too."""
    column = ["setting", "label_ratio"]
    return pd.MultiIndex.from_frame(runs[column]).isin(pd.MultiIndex.from_frame(others[column]))


def _with_variants(runs: pd.DataFrame) -> pd.DataFrame:
    named = [pd.Series(_variants(of_method), of_method.index, str) for _, of_method in runs.groupby("method")]
    return runs.assign(variant=pd.concat(named) if named else "")


def _variants(runs: pd.DataFrame) -> list[str]:
    """The variant of each row of one method."""
    defaults = {**Config().to_dict(), "mixing": "ours"}
    kinds = runs.groupby(_OF_METHODS, sort=False).size()
    distance = [
        sum(value != defaults[name] for name, value in zip(_OF_METHODS, kind, strict=True)) for kind in kinds.index
    ]
    main = min(zip(-kinds, distance, range(len(kinds)), strict=True))[2]
    main = dict(zip(_OF_METHODS, kinds.index[main], strict=True))
    names = []
    for _, run in runs.iterrows():
        changed, said = {name: run[name] for name in _OF_METHODS if run[name] != main[name]}, []
        for settings, words in _WORDS.items():
            if all(changed.get(name) == value for name, value in settings):
                said.append(words)
                changed = {name: value for name, value in changed.items() if name not in dict(settings)}
        names.append(", ".join([*said, *(f"{name}={value}" for name, value in changed.items())]))
    return names


def _refuse_twins(runs: pd.DataFrame) -> None:
    same = runs[runs.duplicated(["setting", "label_ratio", "method", "variant", "seed", "network"], keep=False)]
    if len(same):
        raise CheckpointError(
            f"{', '.join(sorted(set(same['folder'])))}: the same run more than once; leave all but one out"
        )


def missing_runs(runs: pd.DataFrame) -> list[str]:
    """What a full comparison lacks, in words: each method of a setting at each ratio, with every seed used there.

    With all masks (ratio 1) nothing is unlabelled, so that no method is missed there. A variant is missed only beside
    other seeds of its own, and only for seeds that some variant has.
    """
    lines = []
    for setting, in_setting in runs.groupby("setting", sort=False):
        mains = dict.fromkeys(in_setting.loc[in_setting["variant"] == "", "method"])
        for ratio, group in in_setting.groupby("label_ratio"):
            seeds = {ablated: set(rows["seed"]) for ablated, rows in group.groupby(group["variant"] != "")}
            found = {key: set(rows["seed"]) for key, rows in group.groupby(["method", "variant"], sort=False)}
            expected = found if ratio == 1 else {**{(method, ""): set() for method in mains}, **found}
            lacking = {}
            for method, variant in expected:
                missing = seeds.get(variant != "", set()) - found.get((method, variant), set())
                if missing:
                    lacking.setdefault(tuple(sorted(missing)), []).append(f"{method} {variant}".strip())
            lacks = [f"{', '.join(names)} (seed {', '.join(map(str, missing))})" for missing, names in lacking.items()]
            if lacks:
                lines.append(f"{setting}, {100 * ratio:g} % labels: {'; '.join(lacks)}")
    return lines


def mean_logged(folders: Sequence[str | Path], name: str) -> float:
    """The mean of a quantity of ``metrics.jsonl`` over all lines of several runs that have it; not a number if none."""
    lines = [line for folder in folders for line in read_metrics(Path(folder) / "metrics.jsonl")]
    return float(np.mean([line[name] for line in lines if name in line] or [np.nan]))


def keep_metrics(run: str | Path, target: str | Path, every: int = 50) -> None:
    """Copies what a comparison needs of a finished run, without checkpoints: settings, results, counts and the way.

    ``metrics.jsonl`` is thinned to validations and each ``every``-th step, five digits a number. The path of the data
    on this machine (``data``) is left out, and of an encoder's absolute path its last part is kept.

    Raises:
        CheckpointError: if the target holds another run.
    """
    run, target = Path(run), Path(target)
    settings = {**_read(run / CONFIG), "data": ""}
    for name in ("image_encoder", "text_encoder"):
        if Path(settings.get(name, "")).is_absolute():
            settings[name] = Path(settings[name]).name
    if (target / CONFIG).exists() and _read(target / CONFIG) != settings:
        raise CheckpointError(f"{target}: holds another run than {run}; rename one of the two folders")
    write_json(target / CONFIG, settings)
    if (run / VALID).exists():
        with np.load(run / VALID) as counts:
            checkpoints.write_arrays(target / VALID, {name: counts[name].astype(np.int32) for name in counts})
    kept = [line for line in read_metrics(run / "metrics.jsonl") if "valid" in line or line["step"] % every == 0]
    with atomic(target / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(_five_digits(line)) + "\n" for line in kept))
    write_json(target / "results.json", _read(run / "results.json"))  # last: it says that all is there


def _five_digits(value):
    if isinstance(value, dict):
        return {name: _five_digits(inner) for name, inner in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value
