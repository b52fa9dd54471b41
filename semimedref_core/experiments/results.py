"""Finished runs in one tidy table. Also lists missing runs and writes a short form of the table for keeping.

A run describes itself: its ``results.json`` has method, variant, plan, versions and commit, and its ``config.json`` has
all settings. Means over seeds are in :mod:`.tables`, differences between methods in :mod:`.statistics`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from semimedref_core._lazy import require
from semimedref_core.config import BRING_WEIGHTS, FIELDS, Config, kind_of
from semimedref_core.errors import ConfigError, FileError
from semimedref_core.experiments.in_words import percent
from semimedref_core.runtime.atomic import atomic, read_json, read_metrics
from semimedref_core.runtime.checkpoints import CheckpointError, read_arrays, write_arrays
from semimedref_core.runtime.files import CONFIG, METRICS_LOG, RESULTS, VALID
from semimedref_core.runtime.run_state import PATHS, without_place

NETWORKS = ("student", "teacher")
METRICS = ["dice_image", "miou_image", "dice_micro", "miou_micro"]
SETTINGS = ["dataset", "label_ratio", "weak_view", "steps"]  # always shown
TABLE, COUNTS = "runs.parquet", "counts.npz"  # the two files of kept runs
WITHOUT_HELP = "without our help"
"""The variant of a method without our additions; more words may follow after a comma."""

# The settings that all methods of a comparison share. All other settings belong to a method, except those below.
CONDITIONS = {
    "weak_view": "{} weak view", "steps": "{} steps", "image_size": "{} px", "texts": "{} texts",
    "architecture": "{}", "batch_size": "batches of {}", "lr": "lr {:g}", "encoder_lr": "encoder's lr {:g}",
    "weight_decay": "weight decay {:g}", "patience": "patience {}", "image_encoder": "image encoder {}",
    "text_encoder": "text encoder {}", "text_length": "texts of {} tokens", "precision": "{}",
    "compile": "compile {}", "device": "{}",
}  # fmt: skip
# Digests of a run's pairs in its results.json. Older runs have none.
PAIRS = {"valid_pairs": "valid pairs {}", "labelled_pairs": "labelled pairs {}"}
_NOT_COMPARED = {"dataset", "label_ratio", "network", "method", "seed", "data", "eval_every"}
_OF_METHODS = [name for name in FIELDS if name not in {*CONDITIONS, *_NOT_COMPARED}]
_ONE_RUN = ["setting", "label_ratio", "method", "variant", "seed", "network"]
_ALWAYS_SAVED = "dataset", "label_ratio", "method", "network", "seed"  # by runs of any age, so they take no default
_OF_RUNS = ("plan.yaml", CONFIG, f"*/{RESULTS}")  # a sweep, a run, a folder of runs
LARGEST_TABLE = 2**30  # bytes of an unpacked table; a few hundred runs need 10 million
_KEPT_EVERY = 50  # steps between two kept log lines


def finished_runs(paths: Sequence[str | Path]) -> pd.DataFrame:
    """All finished runs in one table; each run has two rows, student and teacher.

    Settings that compare the most methods come first, then settings with the most label ratios, then settings with the
    most runs, then smaller label ratios. Columns: the settings (``network`` as ``architecture``), ``method``,
    ``variant`` (the difference from the method's main runs, such as "without PosAug"; empty for main runs), ``plan``,
    ``network`` (student or teacher), ``folder``, ``seconds``, ``device`` (its kind), ``accepted`` (mean share of mixed
    samples), the metrics (0 to 1), ``valid_pairs`` and ``labelled_pairs`` (digests; empty for older runs), and
    ``setting``: the dataset and all settings that differ between its runs, except the label ratio. If runs of the same
    settings have different pairs, the setting also names their digests. A setting that is newer than a run has its
    default. Of the path of an encoder or a table of positions only the last part is kept, because files may move.

    Args:
        paths: run folders, folders of run folders, or folders of :func:`keep`.

    Raises:
        CheckpointError: for folders without a finished run (names all of them), for the same run twice, and for runs of
            one name with different settings.
    """
    folders = run_folders(paths)
    kept = [folder for folder in folders if _is_kept(folder)]
    unfinished = [str(folder) for folder in folders if folder not in kept and not (folder / RESULTS).is_file()]
    if unfinished or not folders:
        which = ", ".join(unfinished) or "no folder given"
        raise CheckpointError(f"{which}: no finished run ({RESULTS} is missing); continue it with --resume")
    tables = [_with_defaults(_read_kept(folder)) for folder in kept]
    rows = [row for folder in folders if folder not in kept for row in _rows(folder)]
    runs = pd.concat([*tables, *([pd.DataFrame(rows)] if rows else [])], ignore_index=True)
    runs = runs.assign(setting="", **{name: [without_place(name, path) for path in runs[name]] for name in PATHS})
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
    """Expands folders: a run folder stays, and a folder with finished runs directly below it gives all these runs."""
    folders = []
    for path in map(Path, paths):
        below = sorted(found.parent for found in path.glob(f"*/{RESULTS}"))
        itself = (path / CONFIG).exists() or _is_kept(path)
        folders += below if below and not itself else [path]
    return folders


def _is_kept(folder: Path) -> bool:
    """Whether :func:`keep` wrote this folder. A sweep also writes a table of this name, beside its runs."""
    return (folder / TABLE).is_file() and (folder / COUNTS).is_file()


def counts_of(folder: str | Path, network: str) -> np.ndarray | None:
    """Pixel counts ``[N, 3]`` (both, predicted, target) of the validation images of a run; None if they were not
    kept."""
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
    """The pixel counts ``[N, 3]`` of a network. Raises CheckpointError if they are invalid."""
    counts = arrays[network] if network in arrays else np.zeros(0)
    if counts.ndim != 2 or counts.shape[1] != 3 or counts.dtype.kind not in "iuf":
        raise CheckpointError(f"{path}: holds no pixel counts of the {network}; restore the right file")
    return counts.astype(float)


@lru_cache(maxsize=2)
def _kept_counts(path: Path, changed: int) -> Mapping[str, np.ndarray]:
    """The open file in its current state. Its hundreds of arrays are read at first use."""
    return read_arrays(path)


def keep(runs: pd.DataFrame, target: str | Path) -> None:
    """Writes the data of finished runs that comparisons need to two files, without networks.

    ``runs.parquet`` is the table. It includes the log of each run, reduced to validations and every 50th step.
    ``counts.npz`` has the pixel counts of the validation images. Paths of this machine are left out: the ``data``
    folder, and that of an encoder or a table of positions except its last part.

    Args:
        runs: of :func:`finished_runs`.
        target: the folder; created if missing. Its old contents are replaced. To add runs to it, also pass its own
            runs.

    Raises:
        CheckpointError: as in :func:`require_no_runs`.
    """
    require("pyarrow", "sweeps", "keeping runs")
    target = Path(target)
    require_no_runs(target)
    target.mkdir(parents=True, exist_ok=True)
    table = runs.drop(columns="setting").assign(data="")
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
        table.to_parquet(temporary, index=False, compression="zstd")  # last, because it marks the folder as complete


def require_no_runs(target: str | Path) -> None:
    """Checks that a folder for :func:`keep` holds no runs: the two files would hide them, and replace a sweep's table.

    Raises:
        CheckpointError: if it is the folder of a run, of a sweep or of other runs.
    """
    if found := next((path for pattern in _OF_RUNS for path in Path(target).glob(pattern)), None):
        raise CheckpointError(
            f"{target}: holds runs ({found.relative_to(target)}), which kept runs would hide; keep them in a folder of "
            "their own"
        )


def _kept_names(folders: Iterable[str]) -> dict[str, str]:
    """Folder -> its name among the kept runs, with a number if another sweep has the same name."""
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
    """The runs without our additions, as a separate comparison. None of the papers has these additions.

    Supervised training has no pseudo-labels. So its runs with our additions are part of this comparison too, if others
    ran beside them, except those that also ran without.

    Args:
        runs: of :func:`finished_runs`.

    Returns:
        The rows of the variant :data:`WITHOUT_HELP`, as main runs, and the rows of its own variants. Settings and label
        ratios without any run with our additions are left out.
    """
    bare = runs[runs["variant"].str.startswith(WITHOUT_HELP)]
    bare = bare[_same_column(bare, runs[(runs["method"] != "supervised") & (runs["variant"] == "")])]
    bare = bare.assign(variant=bare["variant"].str.removeprefix(WITHOUT_HELP).str.removeprefix(", "))
    helped = ~runs["variant"].str.startswith(WITHOUT_HELP)
    both = pd.concat([runs[(runs["method"] == "supervised") & helped & _same_column(runs, bare)], bare])
    return both[~both.duplicated(_ONE_RUN, keep="last")]


def missing_runs(runs: pd.DataFrame) -> list[str]:
    """The missing runs of a full comparison, in words. It has each method of a setting at each ratio, with all seeds of
    that setting.

    With all masks (ratio 1) nothing is unlabelled, so no method is missing there. A variant is missing only if it has
    other seeds, and only for seeds that some variant has.
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
                lines.append(f"{setting}, {percent(ratio)} labels: {'; '.join(lacks)}")
    return lines


def settings_of(folder: str | Path) -> Config:
    """The settings of a run, from its ``config.json``. Settings that are unknown now are left out.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    path = Path(folder) / CONFIG
    try:
        return Config(**{name: value for name, value in _read(path).items() if name in FIELDS})
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}; remove this run, or train it again") from None


def _rows(folder: Path) -> list[dict]:
    """Student and teacher of one run."""
    results, config = _read(folder / RESULTS), _read(folder / CONFIG)
    settings = settings_of(folder)  # checks all values
    if absent := [name for name in _ALWAYS_SAVED if name not in config]:
        raise CheckpointError(
            f"{folder / CONFIG}: the setting {absent[0]} is missing; remove this run, or train it again"
        )
    try:
        about = {
            **settings.to_dict(),
            **config,
            "architecture": config["network"],
            "method": str(results.get("variant_of") or config["method"]),
            "variant": str(results.get("variant", "")),
            "plan": str(results.get("plan", "")),
            "folder": str(folder),
            "seconds": float(results["seconds"]),
            "device": results["device"].partition(":")[0],
            "accepted": _mean_logged(folder, "accepted"),
            **{name: str(results.get(name) or "") for name in PAIRS},
        }
        scores = {network: {name: float(results[network][name]) for name in METRICS} for network in NETWORKS}
    except FileError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder}: {RESULTS} or {CONFIG} is not of a finished run ({error!r:.200}); remove this run, or "
            "train it again"
        ) from None
    for network, found in scores.items():
        if not np.isfinite(list(found.values())).all():
            raise CheckpointError(f"{folder / RESULTS}: scores of the {network} are not numbers; train it again")
    return [{**about, "network": network, **found} for network, found in scores.items()]


def _read(path: Path) -> dict:
    try:
        return read_json(path)
    except FileError as error:
        raise CheckpointError(f"{error}; remove this run, or train it again") from None


def _read_kept(folder: Path) -> pd.DataFrame:
    path = folder / TABLE
    require("pyarrow", "sweeps", str(path))
    import pyarrow.parquet as pq

    try:
        about = pq.ParquetFile(path).metadata
        if sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups)) > LARGEST_TABLE:
            raise CheckpointError(
                f"{path}: unpacked it has more than {LARGEST_TABLE} bytes, so it is not a table of runs"
            )
        table = pd.read_parquet(path)
    except CheckpointError:
        raise
    except Exception as error:  # pyarrow raises different errors
        raise CheckpointError(f"{path}: cannot be read ({error}); get the file again") from None
    needed = *_ONE_RUN, "architecture", "folder", "device", "dataset", *METRICS
    if absent := [name for name in needed if name not in {*table, "setting"}]:
        raise CheckpointError(f"{path}: is not a table of runs: the column {absent[0]} is missing; get the file again")
    digests = {name: table[name].fillna("").astype(str) if name in table else "" for name in PAIRS}
    return table.assign(folder=[str(folder / Path(str(name)).name) for name in table["folder"]], **digests)


def _with_defaults(table: pd.DataFrame) -> pd.DataFrame:
    """A table of kept runs with all settings. Settings that are newer than a run have their defaults."""
    for name, default in Config().to_dict().items():
        if name not in table:
            table = table.assign(**{name: default})
        elif table[name].isna().any():
            filled = table[name].fillna(default)
            table = table.assign(**{name: filled.astype(int) if kind_of(FIELDS[name]) == "int" else filled})
    return table


def _settings(runs: pd.DataFrame) -> pd.Series:
    """For runs on one dataset: its name, and the settings that differ between them."""
    names = runs["dataset"].copy()
    without_weights = (runs["image_encoder"] == "") & ~runs["architecture"].isin(BRING_WEIGHTS)
    for name, words in CONDITIONS.items():
        means_nothing = without_weights & (name == "encoder_lr")
        if runs.loc[~means_nothing, name].nunique() > 1:
            told = ", " + runs[name].replace("", "from scratch").map(words.format)
            names += told.mask(means_nothing, "")
    for name, words in PAIRS.items():
        names += differing_pairs(runs, name, names).map(
            lambda digest, words=words: digest and f", {words}".format(digest)
        )
    return names


def differing_pairs(runs: pd.DataFrame, name: str, *alike: pd.Series) -> pd.Series:
    """The first digits of each run's digest where runs that are alike learnt from or were scored on different pairs;
    elsewhere empty.

    Runs without a digest are ``unknown`` there. If all known digests are the same, runs without one are taken to have
    the same pairs; a paired difference compares their masks too.

    Args:
        runs: of :func:`finished_runs`.
        name: one of :data:`PAIRS`.
        alike: the columns in which runs of the same pairs agree. Labelled pairs are compared only at the same ratio.
    """
    ratio = [runs["label_ratio"]] if name == "labelled_pairs" else []
    known = runs[name].where(runs[name] != "")
    differ = known.groupby([*alike, *ratio], dropna=False).transform("nunique") > 1
    return known.str[:8].fillna("unknown").where(differ, "")


def _same_column(runs: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """Which runs have the setting and the label ratio of one of the others."""
    column = ["setting", "label_ratio"]
    return pd.MultiIndex.from_frame(runs[column]).isin(pd.MultiIndex.from_frame(others[column]))


def _refuse_twins(runs: pd.DataFrame) -> None:
    same = runs[runs.duplicated(_ONE_RUN, keep=False)]
    if len(same):
        raise CheckpointError(
            f"{', '.join(sorted(set(same['folder'])))}: the same run more than once; keep one, or name the difference "
            "by --variant when training"
        )


def _refuse_mixtures(runs: pd.DataFrame) -> None:
    """Refuses unnamed differences: seeds are averaged, but every other difference needs a name."""
    groups = runs.groupby([name for name in _ONE_RUN if name != "seed"])
    names = [name for name in _OF_METHODS if name in runs]
    differ = groups[names].nunique() > 1
    for key, columns in differ[differ.any(axis=1)].iterrows():
        group, name = groups.get_group(key), columns.idxmax()
        values = group[name].dropna().drop_duplicates()
        first, second = (group["folder"][group[name] == value].iloc[0] for value in values.iloc[:2])
        raise CheckpointError(
            f"{first}, {second}: both are {f'{group.method.iloc[0]} {group.variant.iloc[0]}'.strip()}, but {name} is "
            f"{values.iloc[0]!r} and {values.iloc[1]!r}; remove one, or name the difference by --variant"
        )


def _mean_logged(folder: Path, name: str) -> float:
    """The mean of a quantity of ``metrics.jsonl`` over all lines that have it; NaN if there is none."""
    path = folder / METRICS_LOG
    lines = read_metrics(path) if path.is_file() else []
    return float(np.mean([float(line[name]) for line in lines if name in line] or [np.nan]))


def _thin_log(folder: Path) -> str:
    """Validations and every 50th step of ``metrics.jsonl`` as one JSON text, with numbers of five digits."""
    path = folder / METRICS_LOG
    lines = read_metrics(path) if path.is_file() else []
    return json.dumps([_five_digits(line) for line in lines if "valid" in line or line["step"] % _KEPT_EVERY == 0])


def _five_digits(value):
    if isinstance(value, dict):
        return {name: _five_digits(inner) for name, inner in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value
