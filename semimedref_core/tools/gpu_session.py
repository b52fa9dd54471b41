"""Measures training on a GPU in eight minutes: ``python -m semimedref_core.tools.gpu_session FOLDER``.

Each part is a separate process with its own time limit. The most important parts run first. A part writes each result
at once, so a part that hangs or crashes does not affect the others. Notebook 10 reads ``FOLDER/gpu_training.json``.
``--dry`` does the same on a CPU, with small pictures and a few steps.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from semimedref_core.config import Config
from semimedref_core.errors import SemiMedRefError
from semimedref_core.preparing import prepare
from semimedref_core.runtime.atomic import read_json, read_metrics, write_json
from semimedref_core.runtime.environment import environment
from semimedref_core.runtime.files import CONFIG, METRICS_LOG, RESULTS
from semimedref_core.tools.profiling import profile, step_seconds
from semimedref_core.training import train
from semimedref_kernels.benchmark.session import run_phases

BUDGET = 480  # seconds
RECORD = "gpu_training.json"
PARTS = (  # name, largest number of seconds, and content
    ("tests", 50, "tests"),
    ("compact", 30, "compact"),
    ("lite_96", 40, "lite_96"),
    ("lite", 80, "lite"),  # decodes QaTa into the cache for the later parts
    ("mmi_unet", 60, "mmi_unet"),
    ("train_lite", 70, "train lite"),
    ("train_mmi_unet", 150, "train mmi_unet"),
)
_QATA = {"dataset": "qata", "label_ratio": 0.05, "image_size": 224, "precision": "bf16"}
CASES = {
    "compact": Config(image_size=64, batch_size=8),
    "lite_96": Config(image_size=96, batch_size=8, network="lite", precision="bf16"),
    "lite": Config(**_QATA, network="lite", batch_size=16),
    "mmi_unet": Config(**_QATA, network="mmi_unet", batch_size=32),
}
"""The cases whose steps are timed: plain, compiled, and as a graph."""
WAYS = ("off", "graph", "on")
RUNS = {
    "lite": replace(CASES["lite"], compile="graph", steps=1500, eval_every=250),
    "mmi_unet": replace(CASES["mmi_unet"], compile="graph", steps=1500, eval_every=250),
}
"""The full trainings."""


def smaller(config: Config) -> Config:
    """A small version of these settings, which takes seconds on a CPU."""
    return replace(config, dataset="phantom", image_size=32, batch_size=2, precision="fp32", steps=4, eval_every=2)


def time_steps(name: str, folder: Path, dry: bool) -> None:
    """Times the steps of a case in each way, and writes a line after each way."""
    pairs = None  # loaded once, for all ways
    for way in WAYS[: 2 if dry else None]:
        config = replace(smaller(CASES[name]) if dry else CASES[name], compile=way)
        line = {"case": name, "way": way, "config": config.to_dict()}
        prepared = None  # frees the memory of the previous way
        try:
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            prepared = prepare(config, pairs=pairs)
            pairs = prepared.pairs
            line["milliseconds"] = 1000 * step_seconds(prepared, config, 2 if dry else 50)
            if prepared.accelerator.device.type == "cuda":
                line["peak_megabytes"] = torch.cuda.max_memory_allocated() / 2**20
            if way == "off":
                line["parts"] = asdict(profile(config, count=2 if dry else 10, pairs=pairs))
        except (RuntimeError, SemiMedRefError) as error:  # a failed way does not stop the others
            line["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        with (folder / "steps.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        write_json(folder / RECORD, record(folder))  # saves the results so far, in case of a stop
        print({key: value for key, value in line.items() if key != "config"}, flush=True)


def command(part: str, folder: Path, dry: bool) -> list[str]:
    """The command of a part."""
    if part == "tests":
        tests = Path(__file__).parents[2] / "tests" / "test_gpu.py"
        return [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-k", "graph or replayed", str(tests)]
    own = [sys.executable, "-m", "semimedref_core.tools.gpu_session", str(folder), "--part", part]
    return [*own, *(["--dry"] if dry else [])]


def record(folder: Path) -> dict:
    """All measurements of a session so far.

    Returns:
        ``device`` and ``environment``; ``steps``, a row for each case and way; ``runs`` by network, each with its
        ``config``, the ``lines`` of ``metrics.jsonl``, and its ``results`` (None if it is not finished).
    """
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    steps = folder / "steps.jsonl"
    rows = [json.loads(line) for line in steps.read_text(encoding="utf-8").splitlines()] if steps.exists() else []
    runs = {}
    for name in RUNS:
        run = folder / f"run-{name}"
        if (run / METRICS_LOG).exists():
            done = read_json(run / RESULTS) if (run / RESULTS).exists() else None
            runs[name] = {
                "config": read_json(run / CONFIG), "lines": read_metrics(run / METRICS_LOG), "results": done
            }  # fmt: skip
    return {"device": gpu, "environment": environment(), "steps": rows, "runs": runs}


def main(arguments: list[str] | None = None) -> int:
    """Runs all parts; returns 0 if every part succeeded."""
    parser = argparse.ArgumentParser("python -m semimedref_core.tools.gpu_session", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the record, lines, runs and logs; created if missing")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all parts")
    parser.add_argument("--dry", action="store_true", help="a small test on a CPU")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not options.dry and not torch.cuda.is_available():
        raise SystemExit("no GPU found; use --dry for a small test on a CPU")
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.part:
        what, _, name = options.part.rpartition(" ")
        if what == "train":
            config = smaller(RUNS[name]) if options.dry else RUNS[name]
            train(config, options.folder / f"run-{name}", resume=True)
        else:
            time_steps(name, options.folder, options.dry)
        return 0
    ended = run_phases(options.folder, options.budget, options.dry, PARTS, command)
    write_json(options.folder / RECORD, record(options.folder))
    return int(any(how != "done" for how in ended.values()))


if __name__ == "__main__":
    raise SystemExit(main())
