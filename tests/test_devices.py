"""Devices and precisions, as far as a CPU shows them; float16 with gradient scaling runs here too, though training
refuses it on a CPU."""

import functools

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from semimedref_core.anatomy import THIRDS
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches, made_ahead
from semimedref_core.data.phantom import phantom
from semimedref_core.evaluation import image_counts
from semimedref_core.methods.registry import method_named
from semimedref_core.networks import build_texts, each_network
from semimedref_core.networks.compact import Prediction
from semimedref_core.runtime import devices
from semimedref_core.runtime.devices import DeviceError, open_device, set_forward
from semimedref_core.runtime.run_state import RunState
from semimedref_core.step import training_step

CPU = torch.device("cpu")
SETTINGS = {"image_size": 32, "batch_size": 2, "steps": 4, "burn_in": 0.25, "ramp": 0.0}


@pytest.fixture(scope="module")
def pairs():
    return phantom("train", 8, size=32)


@pytest.fixture(scope="module")
def batches(pairs):
    return Batches(pairs, pairs.subset(range(8), masks=False), Config(**SETTINGS), build_texts(), THIRDS)


def new_state(precision: str, method: str = "semi_medref", network: str = "compact") -> RunState:
    torch.manual_seed(0)
    student = method_named(method).build(network)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40) if precision == "fp16" else None
    optimizer = devices.adamw(student, CPU, 1e-3, 0.05, 0.3)
    state = RunState(student, method_named(method).teacher(student), optimizer, scaler)
    for one in state.networks.values():
        set_forward(one, CPU, precision)
    return state


def run_to(state: RunState, step: int, batches) -> list[dict]:
    config = Config(**SETTINGS)
    return [training_step(state, batches(state.step), config, Accelerator(cpu=True)) for _ in range(state.step, step)]


@pytest.mark.parametrize(
    ("precision", "network"), [("bf16", "compact"), ("fp16", "compact"), ("fp32", "lite"), ("bf16", "lite")]
)
def test_a_resumed_run_goes_on_exactly(precision, network, batches, tmp_path):
    """In half precision, and with a learning rate for some weights and statistics of batches to keep.

    The scale that float16 has come to is part of what is resumed: with it, the next steps are the same.
    """
    whole = new_state(precision, network=network)
    run_to(whole, 2, batches)
    whole.save(tmp_path / "checkpoint")
    expected = run_to(whole, 4, batches)
    resumed = new_state(precision, network=network)
    resumed.restore(tmp_path / "checkpoint")
    assert run_to(resumed, 4, batches) == expected
    for name, one in whole.networks.items():
        theirs = resumed.networks[name].state_dict()
        assert all(value.equal(theirs[key]) for key, value in one.state_dict().items())
    if whole.scaler:
        assert resumed.scaler.state_dict() == whole.scaler.state_dict()


def test_a_step_whose_scaled_gradients_overflow_is_left_out(batches):
    state = new_state("fp16")
    before = {name: value.clone() for name, value in state.student.state_dict().items()}
    losses = run_to(state, 1, batches)
    assert np.isfinite(losses[0]["loss"].item())
    assert state.scaler.get_scale() == 2.0**39
    assert all(value.equal(before[name]) for name, value in state.student.state_dict().items())
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 128.0})
    run_to(state, 2, batches)
    assert any(not value.equal(before[name]) for name, value in state.student.state_dict().items())


def test_scaling_changes_no_gradient_that_float16_can_hold(batches):
    """A step with scaled gradients is the step without, where nothing over- or underflows: in float32."""
    plain, scaled = new_state("fp32"), new_state("fp32")
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for state in (plain, scaled):
        run_to(state, 2, batches)
    ours, theirs = plain.student.state_dict(), scaled.student.state_dict()
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6) for name in ours)


@pytest.mark.parametrize("method", ["semi_medref", "unimatch", "cps", "ad_mt"])
def test_networks_run_in_bfloat16_and_all_else_in_float32(method, pairs):
    """Also for two networks, for what a method does to features, and in validation."""
    state, kinds, results = new_state("bf16", method), set(), []
    students = each_network(state.student)
    for network in (*students, *each_network(state.teacher.network)):
        network.stage8.register_forward_hook(lambda module, args, out: kinds.add(out.dtype))
        network.register_forward_hook(lambda module, args, out: results.append(out))
    config, unlabelled = Config(**SETTINGS, method=method), pairs.subset(range(8), masks=False)
    batches = Batches(pairs, unlabelled, config, build_texts(), THIRDS, plan=method_named(method).plan)
    state.step = 1  # after burn-in
    losses = training_step(state, batches(1), config, Accelerator(cpu=True))
    counts = image_counts(state.teacher.network, pairs, build_texts())
    assert kinds == {torch.bfloat16}
    assert {value.dtype for seen in results for value in vars(seen).values() if value is not None} == {torch.float32}
    assert {value.dtype for value in losses.values()} == {torch.float32}
    gradients = [parameter.grad for network in students for parameter in network.parameters()]
    assert {gradient.dtype for gradient in gradients if gradient is not None} == {torch.float32}
    assert counts.shape == (8, 3)


def test_bfloat16_says_nearly_what_float32_says(batches):
    losses = {precision: run_to(new_state(precision), 1, batches)[0]["loss"].item() for precision in ("fp32", "bf16")}
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)


class OnePixel(nn.Module):
    """The smallest network: one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, images, input_ids):
        logits = torch.nn.functional.conv2d(images, self.weight.view(1, 1, 1, 1))
        return Prediction(logits, images.mean((2, 3)), input_ids.float())


def test_a_compiled_network_predicts_and_learns_as_before(monkeypatch):
    """Graphs are captured and run; no machine code is made of them, which would take its compiler a while."""
    captured = []

    def backend(graph, inputs):
        captured.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    plain, compiled = OnePixel(), OnePixel()
    set_forward(compiled, CPU, "bf16", "on")
    set_forward(plain, CPU, "bf16")
    images, ids = torch.randn(2, 1, 4, 4), torch.ones(2, 3, dtype=torch.long)
    for network in (plain, compiled):
        network(images, ids).logits.square().sum().backward()
    assert captured
    assert compiled(images, ids).logits.equal(plain(images, ids).logits)
    assert compiled.weight.grad.equal(plain.weight.grad)
    assert list(compiled.state_dict()) == ["weight"]


def test_a_machine_that_cannot_compile_says_so_at_once(monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler found\nsee the manual")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    with pytest.raises(DeviceError, match=r"no C\+\+ compiler found.*--compile off"):
        open_device("cpu", compile="on")


def test_what_a_device_cannot_do_is_refused_with_the_cure(train, tmp_path):
    outcome = train(output=tmp_path / "run", precision="fp16")
    assert outcome.status == 1 and "'fp16' needs a GPU" in outcome.errors and "--precision bf16" in outcome.errors
    assert not (tmp_path / "run").exists()
    with pytest.raises(DeviceError, match="choose one of auto, cpu, cuda"):
        open_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="finds no GPU; use --device auto or cpu"):
            open_device("cuda")
        assert open_device("auto").device == CPU


def test_settings_of_accelerates_launcher_change_no_precision(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert open_device("cpu").mixed_precision == "no"


def test_batches_made_ahead_are_those_of_their_steps(batches):
    ahead = list(made_ahead(batches, range(1, 4)))
    assert len(ahead) == 3
    for step, batch in enumerate(ahead, 1):
        expected = batches(step)
        assert batch.labelled.images.equal(expected.labelled.images)
        assert batch.unlabelled.text_choices.equal(expected.unlabelled.text_choices)
        assert batch.unlabelled.photometry["noise"].equal(expected.unlabelled.photometry["noise"])


def test_an_error_in_a_batch_comes_out_at_its_step(batches, monkeypatch):
    def failing(self, step):
        if step == 2:
            raise ValueError("no such pair")
        return step

    monkeypatch.setattr(Batches, "__call__", failing)
    stream = made_ahead(batches, range(4))
    assert [next(stream), next(stream)] == [0, 1]
    with pytest.raises(ValueError, match="no such pair"):
        next(stream)
