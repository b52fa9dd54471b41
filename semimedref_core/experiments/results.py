"""Finished runs side by side: one tidy table, what is missing in it, and its short form that can be kept.

A run says itself what it is: its ``results.json`` holds method, variant, plan, versions and commit, and its
``config.json`` every setting. Means over seeds are in :mod:`.tables`, differences between methods in
:mod:`.statistics`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from semimedref_core._lazy import require
from semimedref_core.config import BRING_WEIGHTS, FIELDS, Config
from semimedref_core.errors import FileError
from semimedref_core.runtime.atomic import atomic, read_json, read_metrics
from semimedref_core.runtime.checkpoints import CheckpointError, read_arrays, write_arrays
from semimedref_core.runtime.run_state import CONFIG, VALID

NETWORKS = ("student", "teacher")
METRICS = ["dice_image", "miou_image", "dice_micro", "miou_micro"]
SETTINGS = ["dataset", "label_ratio", "weak_view", "steps"]  # always shown
TABLE, COUNTS = "runs.parquet", "counts.npz"  # the two files of kept runs
WITHOUT_HELP = "without our help"
"""The variant of a method that has none of our additions; further words may follow after a comma."""

# What all methods of a comparison have in common. Every other setting belongs to a method, save those below.
CONDITIONS = {
    "weak_view": "{} weak view", "steps": "{} steps", "image_size": "{} px", "texts": "{} texts",
    "architecture": "{}", "batch_size": "batches of {}", "lr": "lr {:g}", "encoder_lr": "encoder's lr {:g}",
    "weight_decay": "weight decay {:g}", "patience": "patience {}", "image_encoder": "image encoder {}",
    "text_encoder": "text encoder {}", "text_length": "texts of {} tokens", "precision": "{}",
    "compile": "compile {}", "device": "{}",
}  # fmt: skip
_NOT_COMPARED = {"dataset", "label_ratio", "network", "method", "seed", "data", "eval_every"}
_OF_METHODS = [name for name in FIELDS if name not in {*CONDITIONS, *_NOT_COMPARED}]
_ONE_RUN = ["setting", "label_ratio", "method", "variant", "seed", "network"]
_PATHS = ("image_encoder", "text_encoder")
LARGEST_TABLE = 2**30  # bytes of a kept table, unpacked; that of a few hundred runs has 10 million
_KEPT_EVERY = 50  # steps between two kept log lines


def finished_runs(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Every finished run as two rows, student and teacher.

    Settings that compare the most methods come first, of these the one with the most label ratios, then the one with
    the most runs; within a setting the rows are ordered by label ratio. Columns: the settings (``network`` as
    ``architecture``), ``method``, ``variant`` (how a run differs from the method's main ones, such as "without PosAug";
    empty for these), ``plan``, ``network`` (student or teacher), ``folder``, ``seconds``, ``device`` (its kind),
    ``accepted`` (mean share of mixed samples), the metrics (0 to 1), and ``setting``: the dataset and, save the label
    ratio, what else was not the same for all runs on it.

    Args:
        paths: run folders, folders of run folders, or what :func:`keep` has written.

    Raises:
        CheckpointError: for folders that hold no finished run, naming all of them; for the same run twice; for runs of
            one name whose settings differ.
    """
    folders = run_folders(paths)
    kept = [folder for folder in folders if _is_kept(folder)]
    unfinished = [str(folder) for folder in folders if folder not in kept and not (folder / "results.json").is_file()]
    if unfinished or not folders:
        which = ", ".join(unfinished) or "no folder given"
        raise CheckpointError(f"{which}: no finished run (results.json is missing); go on with it by --resume")
    tables = [_read_kept(folder) for folder in kept]
    rows = [row for folder in folders if folder not in kept for row in _rows(folder)]
    runs = pd.concat([*tables, *([pd.DataFrame(rows)] if rows else [])], ignore_index=True)
    runs["setting"] = ""
    for _, of_dataset in runs.groupby("dataset"):
        runs.loc[of_dataset.index, "setting"] = _settings(of_dataset)
    _refuse_twins(runs)
    _refuse_mixtures(runs)
    in_setting = runs.groupby("setting")
    sizes = {f"number of {name}": -in_setting[name].transform("nunique") for name in ("method", "label_ratio")}
    sizes["runs"] = -in_setting["method"].transform("size")
    order = runs.assign(**sizes).sort_values([*sizes, "setting", "label_ratio"], kind="stable").index
    return runs.loc[order].reset_index(drop=True)


def run_folders(paths: Sequence[str | Path]) -> list[Path]:
    """Run folders as they are; a folder that holds finished runs directly below it stands for all of these."""
    folders = []
    for path in map(Path, paths):
        below = sorted(found.parent for found in path.glob("*/results.json"))
        itself = (path / CONFIG).exists() or _is_kept(path)
        folders += below if below and not itself else [path]
    return folders


def _is_kept(folder: Path) -> bool:
    """Whether :func:`keep` has written a folder. A sweep leaves a table of that name too, beside its runs."""
    return (folder / TABLE).is_file() and (folder / COUNTS).is_file()


def counts_of(folder: str | Path, network: str) -> np.ndarray | None:
    """Pixels ``[N, 3]`` (both, predicted, target) of each validation image of a run; None if they were not kept."""
    folder = Path(folder)
    if (folder / VALID).exists():
        return _counts(read_arrays(folder / VALID), network, folder / VALID)
    path = folder.parent / COUNTS
    if path.exists():
        kept = _kept_counts(path, path.stat().st_mtime_ns)
        if f"{folder.name}/{network}" in kept:
            try:
                found, target = kept[f"{folder.name}/{network}"], kept[str(kept[f"{folder.name}/target"])]
                both = {network: np.column_stack([found, target])}
            except (KeyError, ValueError):
                both = {}
            return _counts(both, network, path)
    return None


def _counts(arrays: Mapping[str, np.ndarray], network: str, path: Path) -> np.ndarray:
    """The pixel counts ``[N, 3]`` of a network. Raises CheckpointError if they are none."""
    counts = arrays[network] if network in arrays else np.zeros(0)
    if counts.ndim != 2 or counts.shape[1] != 3 or counts.dtype.kind not in "iuf":
        raise CheckpointError(f"{path}: holds no pixel counts of the {network}; put the right file back")
    return counts.astype(float)


@lru_cache(maxsize=2)
def _kept_counts(path: Path, changed: int) -> Mapping[str, np.ndarray]:
    """The open file of one state; it holds hundreds of arrays, which are read when they are asked for."""
    return read_arrays(path)


def keep(runs: pd.DataFrame, target: str | Path) -> None:
    """Writes what a comparison needs of finished runs into two files, without networks.

    ``runs.parquet`` is the table, with the log of each run, thinned to validations and each 50th step. ``counts.npz``
    holds the pixel counts of the validation images. Paths of this machine are left out: the ``data`` folder, and all of
    an encoder's absolute path but its last part.

    Args:
        runs: of :func:`finished_runs`.
        target: folder; it is made if missing. What it held is replaced, so name it among the runs to add to it.
    """
    require("pyarrow", "sweeps", "keeping runs")
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    table = runs.drop(columns="setting").assign(data="")
    for name in _PATHS:
        table[name] = [Path(path).name if Path(path).is_absolute() else path for path in table[name]]
    table["log"] = [
        log if isinstance(log, str) else _thin_log(Path(folder))
        for log, folder in zip(table.get("log", [None] * len(table)), table["folder"], strict=True)
    ]
    names = _kept_names(table["folder"])
    arrays: dict[str, np.ndarray] = {}
    targets: dict[bytes, str] = {}
    for folder, network in table[["folder", "network"]].itertuples(index=False):
        counts, name = counts_of(folder, network), names[folder]
        if counts is not None:
            counts = counts.astype(np.uint32 if counts.max(initial=0) >= 2**16 else np.uint16)
            same = targets.setdefault(counts[:, 2].tobytes(), f"target{len(targets)}")
            arrays |= {f"{name}/{network}": counts[:, :2], f"{name}/target": np.array(same), same: counts[:, 2]}
    table["folder"] = table["folder"].map(names)
    write_arrays(target / COUNTS, arrays)
    with atomic(target / TABLE) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd")  # last: it says that all is there


def _kept_names(folders: Iterable[str]) -> dict[str, str]:
    """What each folder is called where runs are kept: its name, with a number if another sweep has it too."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for folder in dict.fromkeys(folders):
        name, number = Path(folder).name, 2
        names[folder] = name
        while names[folder] in taken:
            names[folder], number = f"{name}-{number}", number + 1
        taken.add(names[folder])
    return names


def without_help(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs without our additions, which are in none of the papers, as a comparison of their own.

    Supervised training, which has no pseudo-labels, is part of the comparison wherever it ran beside others.

    Args:
        runs: of :func:`finished_runs`.

    Returns:
        The rows of the variant :data:`WITHOUT_HELP`, as main runs, and those of its own variants; none where no run of
        the same setting and label ratio has our additions.
    """
    bare = runs[runs["variant"].str.startswith(WITHOUT_HELP)]
    bare = bare[_same_column(bare, runs[(runs["method"] != "supervised") & (runs["variant"] == "")])]
    bare = bare.assign(variant=bare["variant"].str.removeprefix(WITHOUT_HELP).str.removeprefix(", "))
    supervised = runs[(runs["method"] == "supervised") & _same_column(runs, bare)]
    return pd.concat([supervised, bare])


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


def _rows(folder: Path) -> list[dict]:
    """Student and teacher of one run."""
    results, config = _read(folder / "results.json"), _read(folder / CONFIG)
    try:
        Config(**{name: value for name, value in config.items() if name in FIELDS})  # each value is one that can be
        about = {
            **config,
            "architecture": config["network"],
            "method": str(results.get("variant_of") or config["method"]),
            "variant": str(results.get("variant", "")),
            "plan": str(results.get("plan", "")),
            "folder": str(folder),
            "seconds": float(results["seconds"]),
            "device": results["device"].partition(":")[0],
            "accepted": _mean_logged(folder, "accepted"),
        }
        scores = {network: {name: float(results[network][name]) for name in METRICS} for network in NETWORKS}
    except FileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder}: results.json or config.json is not of a finished run ({error!r:.200}); leave this run out, or "
            "train it again"
        ) from None
    for network, found in scores.items():
        if not np.isfinite(list(found.values())).all():
            raise CheckpointError(f"{folder / 'results.json'}: scores of the {network} are no numbers; train it again")
    return [{**about, "network": network, **found} for network, found in scores.items()]


def _read(path: Path) -> dict:
    try:
        return read_json(path)
    except FileError as error:
        raise CheckpointError(f"{error}; leave this run out, or train it again") from None


def _read_kept(folder: Path) -> pd.DataFrame:
    path = folder / TABLE
    require("pyarrow", "sweeps", str(path))
    import pyarrow.parquet as pq

    try:
        about = pq.ParquetFile(path).metadata
        if sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups)) > LARGEST_TABLE:
            raise CheckpointError(f"{path}: unpacked it has more than {LARGEST_TABLE} bytes, so it is no table of runs")
        table = pd.read_parquet(path)
    except CheckpointError:
        raise
    except Exception as error:  # pyarrow has errors of its own
        raise CheckpointError(f"{path}: cannot be read ({error}); get the file again") from None
    if absent := [name for name in (*_ONE_RUN, "folder", "dataset", *METRICS) if name not in {*table, "setting"}]:
        raise CheckpointError(f"{path}: is no table of runs, its column {absent[0]} is missing; get the file again")
    return table.assign(folder=[str(folder / Path(str(name)).name) for name in table["folder"]])


def _settings(runs: pd.DataFrame) -> pd.Series:
    """Of runs on one dataset: its name, and the conditions that are not the same for all of them."""
    names = runs["dataset"].copy()
    without_weights = (runs["image_encoder"] == "") & ~runs["architecture"].isin(BRING_WEIGHTS)
    for name, words in CONDITIONS.items():
        means_nothing = without_weights & (name == "encoder_lr")
        if runs.loc[~means_nothing, name].nunique() > 1:
            told = ", " + runs[name].map(lambda value, words=words: words.format(value or "from scratch"))
            names += told.mask(means_nothing, "")
    return names


def _same_column(runs: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """Which runs have a setting and label ratio that some of the others have too."""
    column = ["setting", "label_ratio"]
    return pd.MultiIndex.from_frame(runs[column]).isin(pd.MultiIndex.from_frame(others[column]))


def _refuse_twins(runs: pd.DataFrame) -> None:
    same = runs[runs.duplicated(_ONE_RUN, keep=False)]
    if len(same):
        raise CheckpointError(
            f"{', '.join(sorted(set(same['folder'])))}: the same run more than once; leave all but one out, or say by "
            "--variant when training what is different about one of them"
        )


def _refuse_mixtures(runs: pd.DataFrame) -> None:
    """Seeds are averaged, other differences are not: they must have a name."""
    for (_, _, method, variant, _), group in runs.groupby([name for name in _ONE_RUN if name != "seed"]):
        for name in _OF_METHODS:
            values = group[name].dropna().drop_duplicates() if name in group else ()
            if len(values) > 1:
                first, second = (group["folder"][group[name] == value].iloc[0] for value in values.iloc[:2])
                raise CheckpointError(
                    f"{first}, {second}: both are {f'{method} {variant}'.strip()}, but {name} is {values.iloc[0]!r} "
                    f"and {values.iloc[1]!r}; leave one out, or say what is different about it by --variant"
                )


def _mean_logged(folder: Path, name: str) -> float:
    """The mean of a quantity of ``metrics.jsonl`` over all lines that have it; not a number if none."""
    path = folder / "metrics.jsonl"
    lines = read_metrics(path) if path.is_file() else []
    return float(np.mean([float(line[name]) for line in lines if name in line] or [np.nan]))


def _thin_log(folder: Path) -> str:
    """Validations and each 50th step of ``metrics.jsonl`` as one JSON text, five digits a number."""
    path = folder / "metrics.jsonl"
    lines = read_metrics(path) if path.is_file() else []
    return json.dumps([_five_digits(line) for line in lines if "valid" in line or line["step"] % _KEPT_EVERY == 0])


def _five_digits(value):
    if isinstance(value, dict):
        return {name: _five_digits(inner) for name, inner in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value
