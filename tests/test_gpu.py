"""Training on a GPU: the numbers of the CPU, no waiting for the device, every precision, networks that go back."""

import functools
import itertools
import re
from contextlib import nullcontext

import pytest
import torch

from semimedref_core import SemiMedRef, example, preparing, training
from semimedref_core.config import Config
from semimedref_core.data.datasets import load_training
from semimedref_core.evaluation import evaluate
from semimedref_core.methods.registry import METHODS
from semimedref_core.networks import build_texts
from semimedref_core.preparing import prepare
from semimedref_core.runtime.checkpoints import from_pretrained
from semimedref_core.runtime.graphed import tensors_of
from semimedref_core.runtime.interrupts import Interrupted
from semimedref_core.runtime.run_state import RunState
from semimedref_core.step import training_step
from semimedref_core.tools.profiling import profile
from semimedref_core.tools.step_cost import step_costs
from semimedref_core.training import train

pytestmark = pytest.mark.gpu

SETTINGS = {"image_size": 64, "batch_size": 4, "steps": 8, "burn_in": 0.25, "ramp": 0.25, "label_ratio": 0.05}

pairs = functools.cache(functools.partial(load_training, "phantom", SETTINGS["label_ratio"], SETTINGS["image_size"]))


@pytest.fixture(autouse=True)
def drawn_once(monkeypatch):
    """The phantom's pairs are the same in all these runs."""
    monkeypatch.setattr(preparing, "load_training", lambda *about: pairs(unlabelled=about[-1]))


def losses(device, method, steps=3, **settings):
    """Of a run's first steps, as numbers."""
    run = prepare(Config(**SETTINGS | {"burn_in": 0.0, "ramp": 0.0, "method": method} | settings), device)
    found = [training_step(run.state, run.batches(step), run.batches.config, run.accelerator) for step in range(steps)]
    return [{name: value.item() for name, value in each.items()} for each in found]


@pytest.mark.parametrize("method", METHODS)
def test_the_losses_are_those_of_the_cpu(method):
    """But for what is drawn on the device itself (noise of strong views, dropout), and TF32."""
    for on_gpu, on_cpu in zip(losses("cuda", method), losses("cpu", method), strict=True):
        assert on_gpu.keys() == on_cpu.keys()
        assert on_gpu["loss_labelled"] == pytest.approx(on_cpu["loss_labelled"], rel=0.01)
        assert on_gpu == pytest.approx(on_cpu, rel=0.1, abs=0.02)


def test_pictures_lie_on_the_gpu_and_batches_are_those_of_the_cpu():
    """And they are picked without a wait."""
    config = Config(**SETTINGS)
    here, there = (prepare(config, device).batches for device in ("cpu", "cuda"))
    there(0)  # what is allocated once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = [there(step) for step in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert isinstance(there._images.arrays, torch.Tensor) and there._images.arrays.is_cuda
    for step, batch in enumerate(found):
        for ours, theirs in zip(tensors_of(batch), tensors_of(here(step)), strict=True):
            assert ours.is_cuda and torch.equal(ours.cpu(), theirs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_never_makes_the_host_wait(method, precision):
    config = Config(**SETTINGS | {"burn_in": 0.0, "ramp": 0.0, "method": method, "precision": precision})
    run = prepare(config, "cuda")
    batches = [run.batches(step) for step in range(3)]
    training_step(run.state, batches[0], config, run.accelerator)  # what is compiled and allocated once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            training_step(run.state, batch, config, run.accelerator)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("method", "network"),
    [*((method, "compact") for method in METHODS), ("semi_medref", "lite"), ("semi_medref", "mmi_unet")],
)
def test_a_step_that_is_a_graph_gives_the_numbers_of_a_plain_one(method, network, capsys):
    """Noise and dropout included: a replay draws what the plain step would have drawn."""
    settings = {"burn_in": 0.5, "method": method, "network": network, "steps": 12}
    found = []
    for compile in ("off", "graph"):
        run = prepare(Config(**SETTINGS | settings, compile=compile), "cuda")
        about = run.batches.config, run.accelerator, run.learn
        lines = [training_step(run.state, run.batches(step), *about) for step in range(12)]
        found.append([{name: value.item() for name, value in line.items()} for line in lines])
        if compile == "graph":
            assert run.learn.replay is not None and not run.learn.failed
    for graph, plain in zip(*reversed(found), strict=True):
        assert graph.keys() == plain.keys()
        assert graph == pytest.approx(plain, rel=0.02, abs=0.005)
    assert "without a graph" not in capsys.readouterr().out


def test_a_replayed_step_never_makes_the_host_wait():
    config = Config(**SETTINGS | {"burn_in": 0.0, "ramp": 0.0, "compile": "graph", "precision": "bf16"})
    run = prepare(config, "cuda")
    batches = [run.batches(step) for step in range(7)]
    for batch in batches[:5]:
        training_step(run.state, batch, config, run.accelerator, run.learn)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[5:]:
            training_step(run.state, batch, config, run.accelerator, run.learn)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "bf16"}, {"precision": "fp16"}, {"compile": "on"}, {"compile": "graph", "precision": "bf16"}],
    ids=str,
)
def test_a_network_trained_on_a_gpu_gives_the_same_metrics_on_a_cpu(settings, tmp_path):
    config = Config(**SETTINGS | {"steps": 40} | settings)
    results = train(config, tmp_path, device="cuda")
    assert results["device"].startswith("cuda")
    network, _ = from_pretrained(tmp_path / "teacher")
    here = evaluate(network, pairs(False).valid, build_texts())
    assert here == pytest.approx({name: results["teacher"][name] for name in here}, abs=0.02)


@pytest.mark.parametrize("compile", ["off", "graph"])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(compile, tmp_path, monkeypatch):
    """Up to the order in which the device adds."""
    config = Config(**SETTINGS | {"steps": 16, "eval_every": 8, "compile": compile})
    whole = train(config, tmp_path / "whole", device="cuda")

    def save_and_stop(state, path):
        save(state, path)
        raise KeyboardInterrupt

    save = RunState.save
    monkeypatch.setattr(RunState, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "stopped", device="cuda")
    monkeypatch.undo()
    resumed = train(config, tmp_path / "stopped", device="cuda", resume=True)
    assert resumed["step"] == 16 and resumed["student"] == pytest.approx(whole["student"], abs=0.02)


def test_a_run_stopped_by_ctrl_c_between_two_lines_of_the_log_goes_on(tmp_path, monkeypatch):
    """Its checkpoint holds losses of steps that no line tells yet."""
    config = Config(**SETTINGS | {"steps": 20})
    steps = itertools.count(1)
    monkeypatch.setattr(training, "interrupts_noted", lambda alone: nullcontext(lambda: next(steps) == 13))
    with pytest.raises(Interrupted, match="after step 13 of 20"):
        train(config, tmp_path, device="cuda")
    monkeypatch.undo()
    assert train(config, tmp_path, device="cuda", resume=True)["step"] == 20


def test_parts_of_a_step_and_its_cost_are_measured():
    found = profile(Config(**SETTINGS), "cuda", count=3)
    assert torch.cuda.get_device_name() == found.device and found.running > 0 and found.peak_memory > 0
    table = step_costs(Config(**SETTINGS), {}, 2, "cuda")
    assert (table["seconds"] > 0).all() and list(table.index) == ["recipe", "ours"]


def test_a_trained_network_answers_on_the_gpu_as_on_the_cpu(command_line):
    picture, report = next(iter(example.pictures().items()))
    here, there = (SemiMedRef.from_pretrained(device=device) for device in ("cpu", "cuda"))
    assert next(there.network.parameters()).is_cuda
    found = [model.predict(picture, report).probability for model in (here, there)]
    assert abs(found[0] - found[1]).max() < 0.02
    told = [command_line("evaluate", "--checkpoint", example.MODEL, "--device", name) for name in ("cpu", "cuda")]
    numbers = [[float(number) for number in re.findall(r"([\d.]+) %", outcome.text)] for outcome in told]
    assert len(numbers[0]) == 4 and numbers[1] == pytest.approx(numbers[0], abs=0.3)
