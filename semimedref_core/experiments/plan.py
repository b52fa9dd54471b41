"""A plan lists the runs of a sweep. It is a YAML file, which is checked and expanded before anything runs.

::

    name: baselines                     # the sweep's folder is runs/NAME; default: the file's own name
    settings: {dataset: qata, steps: 1500}                # for all runs; any setting of Config by name
    tuned:                              # for all runs of a method
      fixmatch: {confidence: 0.9}
    runs:                               # blocks; a list of values is an axis, and all axes are combined
      - method: [supervised, fixmatch, semi_medref]
        label_ratio: [0.01, 0.05]
        seed: [0, 1, 2]
      - {method: supervised, label_ratio: 1, seed: [0, 1, 2]}     # all masks, no unlabelled pairs
      - method: semi_medref
        label_ratio: 0.01
        seed: [0, 1, 2]
        variants:                       # one more axis: name -> settings, such as an ablation
          without PosAug: {posaug_p: 0}
          own text: {mix_text: keep}
    threads: 1                          # CPU threads of a run; another number may change the last digits
    notebook: true                      # whether each run keeps an executed notebook; without, short runs start faster
    cluster: {timeout_min: 240}         # parameters that submitit passes to a cluster

The more specific value wins: variants over the block, the block over ``tuned``, ``tuned`` over ``settings``. The name
of a run has its dataset, label ratio, method, variant, seed, and the other axes of its block. Tables show the name of a
variant, so it may have several words. A variant :data:`semimedref_core.experiments.results.WITHOUT_HELP` is a main run
of the comparison without our additions.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from semimedref_core.config import FIELDS, Config, did_you_mean, kind_of
from semimedref_core.errors import SemiMedRefError
from semimedref_core.methods import METHODS

KEYS = ("name", "settings", "tuned", "runs", "threads", "notebook", "cluster")
MOST_RUNS, MOST_THREADS = 10_000, 1024
IN_NAME = ("dataset", "label_ratio", "method", "seed")  # parts of every run's name; other axes are added
_NAME = re.compile(r"[\w.+-]+")  # folder names that work on all systems
_WORDS = re.compile(r"[\w.+-]+(,? [\w.+-]+)*")


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a repeated key: the second value would silently replace the first."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise PlanError(f"the key {key!r} occurs twice below line {node.start_mark.line + 1}; keep one")
        return super().construct_mapping(node, deep)


class PlanError(SemiMedRefError, ValueError):
    """A plan is invalid. The message names the file, the place, the value and the cure."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan.

    Attributes:
        name: name of its folder.
        config: all settings of the run.
        method: method of its block. A variant may use another method and is still shown as a variant of this one.
        variant: its name in the plan; empty for a main run.
    """

    name: str
    config: Config
    method: str
    variant: str = ""


@dataclass(frozen=True)
class Plan:
    """A checked plan: its name, its runs in order, the CPU threads of a run, whether each run is an executed notebook,
    and the parameters that submitit passes to a cluster."""

    name: str
    runs: tuple[PlannedRun, ...]
    threads: int = 1
    notebook: bool = True
    cluster: dict = field(default_factory=dict)


def read_plan(path: str | Path) -> Plan:
    """Reads the plan of a YAML file; this module's docstring describes the format.

    Raises:
        PlanError: if the file is missing or not YAML, or if it has an unknown key, method or setting, a value out of
            range, a semi-supervised method without unlabelled pairs, or the same run twice.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        raise PlanError(f"{path}: cannot be read ({error.strerror}); name a plan, a YAML file") from None
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from None
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from None
    except RecursionError:
        raise PlanError(f"{path}: is nested too deeply") from None
    except yaml.YAMLError as error:
        raise PlanError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    try:
        return _plan(content, path.stem)
    except SemiMedRefError as error:
        raise PlanError(f"{path}: {error}") from None


def find_plan(name: str | Path, folder: Path) -> Path:
    """Finds the file of a plan, from its path or from the name of a built-in plan beside the notebooks.

    Args:
        name: a path, or a plain name such as ``phantom``.
        folder: folder of the built-in plans.

    Raises:
        PlanError: if a plain name is neither a file nor a built-in plan; lists the built-in plans.
    """
    path = Path(name)
    if path.is_file() or path.suffix or len(path.parts) > 1:  # a folder may have the name of a built-in plan
        return path
    found = folder / f"{name}.yaml"
    if not found.is_file():
        known = sorted(plan.stem for plan in folder.glob("*.yaml"))
        raise PlanError(
            f"{name}: neither a file nor a built-in plan; name a YAML file, or one of {', '.join(known)}"
            f"{did_you_mean(str(name), known)}"
        )
    return found


def _plan(content, default_name: str) -> Plan:
    content = _mapping(content, KEYS, "the plan", "key")
    name = str(content.get("name", default_name))
    if not _NAME.fullmatch(name) or not name.strip("."):
        raise PlanError(f"name {name!r} is not a valid folder name; use letters, digits, and any of _ . + -")
    common = _settings(content.get("settings", {}), "settings")
    tuned = {
        method: _settings(settings, f"tuned, {method}")
        for method, settings in _mapping(content.get("tuned", {}), METHODS, "tuned", "method").items()
    }
    blocks = content.get("runs")
    if not isinstance(blocks, list) or not blocks:
        raise PlanError("runs must be a list of blocks, each with its methods, label ratios and seeds")
    runs = [run for number, block in enumerate(blocks, 1) for run in _expand(block, number, common, tuned)]
    _require_distinct(runs)
    threads = content.get("threads", 1)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise PlanError(f"threads must be an integer from 1 to {MOST_THREADS}, got {threads!r}")
    notebook = content.get("notebook", True)
    if not isinstance(notebook, bool):
        raise PlanError(f"notebook must be true or false, got {notebook!r}")
    cluster = content.get("cluster", {})
    if not isinstance(cluster, Mapping):
        raise PlanError(f"cluster must map submitit's parameters to values, got {cluster!r}")
    return Plan(name, tuple(runs), threads, notebook, dict(cluster))


def _expand(block, number: int, common: Mapping, tuned: Mapping[str, Mapping]) -> Iterable[PlannedRun]:
    """The runs of a block: all combinations of its axes."""
    where = f"block {number} of runs"
    block = dict(_mapping(block, [*FIELDS, "variants"], where, "setting"))
    variants = _mapping(block.pop("variants", {}), None, f"{where}, variants", "variant") or {"": {}}
    for variant, settings in variants.items():
        if variant and not _WORDS.fullmatch(str(variant)):
            raise PlanError(
                f"{where}: variant {variant!r} is not a valid name; use letters, digits, _ . + - and spaces"
            )
        _settings(settings, f"{where}, variant {variant}")
    axes = {name: values if isinstance(values, list) else [values] for name, values in block.items()}
    empty = [name for name, values in axes.items() if not values]
    if empty:
        raise PlanError(f"{where}: {empty[0]} is an empty list and makes no run; give a value or remove it")
    for name, values in axes.items():
        for value in values:
            _require_one_value(value, name, where)
    count = math.prod(map(len, [variants, *axes.values()]))
    if count > MOST_RUNS:  # the product of a few short lists may not fit into memory
        raise PlanError(f"{where}: its axes make {count} runs, but at most {MOST_RUNS} are allowed; shorten them")
    shown = [name for name, values in axes.items() if len(values) > 1 and name not in IN_NAME]
    for variant, settings in variants.items():
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            of_block = {**common, **chosen}.get("method", Config.method)
            method = settings.get("method", of_block)
            config = _config(where, {**common, **tuned.get(method, {}), **chosen, **settings, "method": method})
            words = [str(variant).replace(",", "").replace(" ", "_")] if variant else []
            parts = [config.dataset, f"{config.label_ratio:g}", of_block, *words]
            parts += [f"{name}{_in_a_name(chosen[name])}" for name in shown] + [f"seed{config.seed}"]
            yield PlannedRun("-".join(parts), config, of_block, str(variant))


def _in_a_name(value) -> str:
    """A value as part of a folder's name: only the last part of a path, and no path separators."""
    return re.sub(r"[^\w.+-]+", "_", Path(value).name if isinstance(value, str) else str(value))


def _config(where: str, settings: Mapping) -> Config:
    """The settings of one run, checked separately and together."""
    method, typed = settings["method"], {}
    for name, value in settings.items():
        typed[name] = _number(value) if kind_of(FIELDS[name]) == "float" else value
    for name in ("data", "image_encoder", "text_encoder", "positions"):
        place = os.path.expanduser(str(typed.get(name, "")))
        is_table = name == "positions" and place.endswith(".csv") and os.path.isfile(place)
        if is_table or (name != "positions" and os.path.isdir(place)):
            typed[name] = os.path.abspath(place)  # a run has its own working folder
    try:
        config = Config(**typed)
    except SemiMedRefError as error:
        raise PlanError(f"{where}, method {method}: {error}") from None
    if config.label_ratio == 1 and METHODS[method].unlabelled:
        alone = ", ".join(name for name, known in METHODS.items() if not known.unlabelled)
        raise PlanError(
            f"{where}, method {method}: label_ratio 1 leaves no unlabelled pair to learn from; "
            f"give label ratio 1 its own block with method {alone}"
        )
    return config


def _number(value):
    """Converts ``1e-3`` to a number; YAML reads it as text."""
    try:
        return value if isinstance(value, bool) or not isinstance(value, (int, float, str)) else float(value)
    except ValueError:
        return value


def _mapping(value, known: Iterable[str] | None, where: str, kind: str) -> Mapping:
    """The value, if it is a mapping with only known keys (``None``: any keys)."""
    if not isinstance(value, Mapping):
        raise PlanError(f"{where} must map names to values, got {value!r}")
    for name in value if known is not None else ():
        if name not in known:
            raise PlanError(
                f"{where}: unknown {kind} {name!r}; it may be {', '.join(known)}{did_you_mean(name, known)}"
            )
    return value


def _settings(value, where: str) -> Mapping:
    """The value, if it is a mapping of known settings to one value each."""
    settings = _mapping(value, FIELDS, where, "setting")
    for name, given in settings.items():
        _require_one_value(given, name, where)
    return settings


def _require_one_value(value, name: str, where: str) -> None:
    if isinstance(value, list | Mapping | set):  # YAML has sets too
        raise PlanError(
            f"{where}: {name} must be one value, got {value!r}; write one; only a block of runs may list several"
        )


def _require_distinct(runs: Iterable[PlannedRun]) -> None:
    """Requires that no two runs have the same folder, and no two names have the same settings."""
    names: dict[str, PlannedRun] = {}
    settings: dict[Config, str] = {}
    for run in runs:
        if run.config in settings:
            raise PlanError(f"{settings[run.config]} and {run.name} are the same run, with equal settings; remove one")
        if run.name in names:
            raise PlanError(f"two different runs would have the name {run.name}; distinguish them by variants")
        names[run.name], settings[run.config] = run, run.name
