"""Shared by all tests: no network, few threads, real data if it is there, and small runs."""

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers
if "PYTEST_XDIST_WORKER" in os.environ:  # each core has tests of its own, with the processes that they start
    os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import own_folders
import pytest
import torch
from hypothesis import settings

from semimedref_core.data import phantom

pytest_plugins = ["qata_folders"]  # a module beside this one

settings.register_profile("semimedref", deadline=None, derandomize=True)
settings.load_profile("semimedref")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FEW_PAIRS = {"train": 24, "valid": 6, "test": 6}
SMALL_RUN = {
    "image_size": 32,
    "steps": 4,
    "batch_size": 2,
    "label_ratio": 0.25,
    "burn_in": 0.25,
    "eval_every": 2,
    "device": "cpu",
}


def pytest_sessionstart():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Decoded pictures are kept in the tests' own folder, also by the processes that tests start, for all workers."""
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMIMEDREF_CACHE", str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds the real QaTa/, if there is one."""
    folder = os.environ.get("SEMIMEDREF_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set SEMIMEDREF_DATA to run on real QaTa")
    return Path(folder)


class Outcome(NamedTuple):
    """What a command left on the terminal."""

    status: int
    text: str
    errors: str

    def one_error(self, command: str, *parts) -> None:
        """Asserts that the command ended with a few lines that name these parts, without a traceback."""
        assert self.status == 1 and self.errors.startswith(f"semimedref {command}: "), self.errors
        assert len(self.errors) < 1500 and "Traceback" not in self.errors
        for part in parts:
            assert str(part) in self.errors, self.errors


@pytest.fixture(scope="module")
def one_thread():
    """For small networks: a second thread would mostly wait, and on a busy machine for long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium. A laptop may lack one; CI may not."""
    from playwright.sync_api import sync_playwright  # for the few tests that need it

    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if not found:
        cure = f"none of {', '.join(BROWSERS)} found; install one (Debian: apt-get install chromium)"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"no browser: {cure}")
        pytest.skip(f"no browser, so what is seen in one is not tested: {cure}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def small_phantom():
    """The phantom has 24 + 6 + 6 pairs in this module's tests."""
    with pytest.MonkeyPatch.context() as patch:
        for split, count in FEW_PAIRS.items():
            patch.setitem(phantom.COUNTS, split, count)
        yield


@pytest.fixture(scope="session")
def command_line():
    """``command_line("predict", "--image", path, ...)`` runs the command line in this process and returns its
    :class:`Outcome`. The phantom has 24 + 6 + 6 pairs meanwhile."""
    from semimedref_core.commands.parser import main  # takes seconds that tests of data alone need not wait for

    def run(*arguments) -> Outcome:
        text, errors = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for split, count in FEW_PAIRS.items():
                patch.setitem(phantom.COUNTS, split, count)
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(errors):
                try:
                    status = main([str(argument) for argument in arguments])
                except SystemExit as exit:  # argparse, after --help or a usage error
                    status = exit.code
        return Outcome(status, text.getvalue(), errors.getvalue())

    return run


@pytest.fixture(scope="session")
def semimedref(command_line):
    """``semimedref("predict", image=path, ...)`` is :func:`command_line` with options; ``True`` makes a flag."""

    def run(command: str, **options) -> Outcome:
        if command in ("evaluate", "predict"):
            options = {"device": "cpu", **options}
        arguments = [command]
        for name, value in options.items():
            arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
        return command_line(*arguments)

    return run


@pytest.fixture(scope="session")
def train(semimedref):
    """``train(output=folder, ...)`` runs the command ``train``: four steps at 32 px, other settings as given."""
    return lambda **options: semimedref("train", **{**SMALL_RUN, **options})


@pytest.fixture(scope="session")
def stopped(train):
    """``stopped(output=folder, ...)`` is :func:`train`, stopped between the last checkpoint and the results."""
    from semimedref_core import training
    from semimedref_core.errors import TrainingError

    def stop(*_):
        raise TrainingError("stopped here")

    def run(**options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "_write_results", stop)
            outcome = train(**options)
        assert "stopped here" in outcome.errors

    return run


@pytest.fixture(scope="session")
def finished_run(train, tmp_path_factory) -> Path:
    """The folder of a finished small run, for reading only."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    outcome = train(output=folder)
    assert outcome.status == 0, outcome.errors
    return folder


@pytest.fixture(scope="session")
def stopped_run(stopped, tmp_path_factory) -> Path:
    """The folder of a small run with its last checkpoint and no results, for reading only."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    stopped(output=folder)
    return folder


@pytest.fixture
def of_qata(finished_run, tmp_path) -> Path:
    """A trained network that says it was trained on QaTa-COV19."""
    folder = shutil.copytree(finished_run / "teacher", tmp_path / "of_qata" / "teacher")
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "trained_on": "qata"}))
    return folder


@pytest.fixture
def run(tmp_path):
    """``run(dice, seed=1, variant=..., counts=..., device=..., pairs=..., ...)`` writes a finished run and returns its
    folder; ``run.folders`` has all. ``pairs`` are digests, which older runs do not have.

    The teacher's metrics are all ``dice`` (its micro Dice is ``micro`` if given), the student's 0.1 below; or both are
    those of ``counts`` ``[N, 3]``.
    """
    from semimedref_core.config import Config
    from semimedref_core.evaluation import scores

    def write(dice, counts=None, device="cpu", variant="", variant_of=None, pairs=None, micro=None, **settings):
        folder = tmp_path / "runs" / f"run{len(write.folders):02}"
        folder.mkdir(parents=True)
        metrics = ("dice_image", "miou_image", "dice_micro", "miou_micro")
        found = {"student": dict.fromkeys(metrics, dice - 0.1), "teacher": dict.fromkeys(metrics, dice)}
        if micro is not None:
            found["teacher"]["dice_micro"] = micro
        if counts is not None:
            np.savez(folder / "valid.npz", student=counts, teacher=counts)
            found = dict.fromkeys(found, scores(counts))
        (folder / "config.json").write_text(json.dumps(Config(**settings).to_dict()))
        about = {"seconds": 60.0, "device": device, "variant": variant, "variant_of": variant_of}
        (folder / "results.json").write_text(json.dumps({**about, **(pairs or {}), **found}))
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 10, "valid": found}) + "\n")
        write.folders.append(folder)
        return folder

    write.folders = []
    return write


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """A test may draw; the next one starts without its figures."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def mine(tmp_path):
    """A folder of twelve chest pictures with free sentences, all with masks."""
    return own_folders.chest(tmp_path / "mine")
