"""Steps as CUDA graphs, as far as a CPU shows them: what could be recorded, what a replay is given, and when steps run
as they are. A recording that repeats the work stands in for the graph."""

from functools import partial

import pytest
import torch
from accelerate import Accelerator

from semimedref_core import preparing, training
from semimedref_core.config import Config
from semimedref_core.data.datasets import Training
from semimedref_core.data.phantom import phantom
from semimedref_core.methods import METHODS
from semimedref_core.networks import build_network
from semimedref_core.networks.mmi_unet import Fusion
from semimedref_core.preparing import prepare
from semimedref_core.runtime.graphed import WARM_UP, Graphed, why_not
from semimedref_core.step import learned, schedule, training_step
from semimedref_core.tools.launches import Operations, on_meta, operations, operations_of_replay

SETTINGS = {"image_size": 32, "batch_size": 2, "steps": 16, "burn_in": 0.3, "ramp": 0.25}
FEW = 20  # launches of a step that is a graph; as it is it has more than 500

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pairs():
    train = phantom("train", 12, size=32)
    return Training(train.subset(range(6)), phantom("valid", 4, size=32), train.subset(range(6, 12), masks=False))


def again(work):
    """In place of a graph: nothing is done until it is replayed, and results always lie in the same place."""
    lie = {}

    def replay():
        for name, value in work().items():
            lie.setdefault(name, torch.empty(())).copy_(value)
        return dict(zip(lie, torch.stack(list(lie.values())).unbind(), strict=True))

    return replay


def after_burn_in(**settings):
    return Config(**SETTINGS | {"burn_in": 0.0, "ramp": 0.0} | settings), 2


@pytest.mark.parametrize("method", METHODS)
def test_a_step_asks_no_device_for_a_value_and_brings_none_from_the_host(method, pairs):
    """Of any method: a tensor of the device ``meta`` has no values, and does not mix with those of the CPU."""
    config, step = after_burn_in(method=method)
    losses = on_meta(prepare(config, "cpu", pairs), config, step)()
    assert {value.device.type for value in losses.values()} == {"meta"}


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({}, 0),
        ({"method": "cps"}, 0),
        ({"ispg": "on"}, 15),
        ({"network": "lite", "patch_mode": "probability", "strong_view": "clamped"}, 15),
        ({"network": "mmi_unet"}, 15),
    ],
    ids=str,
)
def test_nor_does_one_in_burn_in_or_with_other_settings(settings, step, pairs):
    config = Config(**SETTINGS | settings)
    on_meta(prepare(config, "cpu", pairs), config, step)()


ASK = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x[0]),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "cpu": lambda x: x.cpu(),
    "from the host": lambda x: x + torch.ones(3),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
def test_one_that_did_would_be_found(ask):
    with pytest.raises((RuntimeError, NotImplementedError)):
        ask(torch.ones(3, device="meta"))


def steps(config, pairs, learn=None, state=None, first=0, last=SETTINGS["steps"]):
    """The losses of a run's steps as numbers, and its state."""
    run = prepare(config, "cpu", pairs)
    if state:
        run.state.restore(state)
    learn = learn and learn(partial(learned, run.state, config, run.accelerator))
    found = [training_step(run.state, run.batches(step), config, run.accelerator, learn) for step in range(first, last)]
    return [{name: value.item() for name, value in each.items()} for each in found], run.state


@pytest.mark.parametrize("method", ["semi_medref", "ad_mt"])
def test_replayed_steps_give_the_numbers_of_plain_ones(method, pairs, tmp_path):
    """From burn-in through the ramp, and resumed. Each result is kept until the end."""
    config = Config(**SETTINGS, method=method)
    recorded = []

    def replayed(learn):
        return Graphed(learn, None, lambda work: recorded.append(work) or again(work))

    plain, ended = steps(config, pairs)
    found, state = steps(config, pairs, replayed, last=14)
    assert len(recorded) == 2  # five steps are burn-in: three, a recording, its replays; then the same again
    state.save(tmp_path / "checkpoint")
    rest, state = steps(config, pairs, replayed, tmp_path / "checkpoint", first=14)
    for ours, theirs in zip([*found, *rest], plain, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    for name, network in state.networks.items():
        for ours, theirs in zip(network.parameters(), ended.networks[name].parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_what_a_step_launches_becomes_a_handful(pairs):
    config, step = after_burn_in()
    whole = operations(config, step, pairs)
    assert whole.total > 500
    assert operations_of_replay(config, step, pairs).total <= FEW
    # Every weight is read by the student and by the teacher, and its gradient is written.
    assert whole.bytes > 3 * sum(p.nbytes for p in build_network("compact").parameters())


def test_only_where_a_fusion_of_mmi_unet_reads_one_pixel_the_size_changes_what_is_launched():
    """So the counts of mmi_unet are smaller below 128 px, where its deepest map has at most three rows."""
    fusion, words, padding = Fusion(16, 8).to("meta"), torch.empty(2, 5, 8, device="meta"), torch.empty(2, 5) > 0
    counts = []
    for side in (2, 3, 4, 7):
        x = torch.empty(2, 16, side, side, device="meta")
        with Operations() as found:
            fusion(x, words, padding.to("meta"))
        counts.append(found.total)
    assert counts[0] == counts[1] < counts[2] == counts[3]


def test_a_step_that_cannot_be_recorded_runs_as_it_is_and_one_line_says_so(pairs, capsys):
    def refuse(work):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    config = Config(**SETTINGS)
    plain, _ = steps(config, pairs, last=6)
    tried, _ = steps(config, pairs, lambda learn: Graphed(learn, None, refuse), last=6)
    for ours, theirs in zip(tried, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    told = capsys.readouterr().out.strip()
    assert told.endswith("run without a graph (operation not permitted when stream is capturing).")
    assert len(told.splitlines()) == 1


def test_new_shapes_are_recorded_anew():
    recorded = []
    step = Graphed(
        lambda batch, now: {"sum": (batch["x"] * now.lr).sum()}, None, lambda w: recorded.append(w) or again(w)
    )
    now = schedule(Config(**SETTINGS), 1)
    for size in (3, 5):
        for _ in range(WARM_UP + 2):
            assert step({"x": torch.ones(size)}, now)["sum"].item() == pytest.approx(size * now.lr)
    assert len(recorded) == 2


def test_on_a_cpu_nothing_changes_but_a_line(pairs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(preparing, "load_training", lambda *about: pairs)
    for name in ("off", "graph"):
        training.train(Config(**SETTINGS | {"steps": 6}, compile=name), tmp_path / name, device="cpu")
        assert capsys.readouterr().out.count(
            "note: compile 'graph': steps run without a graph (CUDA graphs need a GPU"
        ) == (name == "graph")
    for file in ("metrics.jsonl", "student/model.safetensors", "teacher/model.safetensors"):
        assert (tmp_path / "off" / file).read_bytes() == (tmp_path / "graph" / file).read_bytes()


def test_runs_that_have_no_graphs_say_why():
    class OnGPU:
        device, num_processes = torch.device("cuda"), 1

    class OfTwo(OnGPU):
        num_processes = 2

    assert why_not(OnGPU, None) is None
    assert "CPU" in why_not(Accelerator(cpu=True), None)
    assert "processes" in why_not(OfTwo, None)
    assert "fp16" in why_not(OnGPU, torch.amp.GradScaler("cpu"))
