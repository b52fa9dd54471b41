"""Training in several processes: each draws its own share, ITCL compares the pairs of all, all end with the same
weights, one of them writes."""

import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from two_processes import EMBEDDINGS, PAIRS, STEP, one_step

from semimedref_core.anatomy import THIRDS
from semimedref_core.batch import Batch
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches
from semimedref_core.data.phantom import phantom
from semimedref_core.itcl import itcl
from semimedref_core.networks import build_texts
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.runtime.checkpoints import load_tensors

RUNS = ("supervised/compact", "semi_medref/compact", "semi_medref/lite")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes leave: all in one program, because they take seconds to start."""
    folder = tmp_path_factory.mktemp("two")
    program = [sys.modules["two_processes"].__file__, folder, *RUNS]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def both(path):
    """What either process has saved under a name."""
    return [torch.load(f"{path}{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_train_one_network(folder):
    for run in (folder / name for name in RUNS):
        weights = both(run / "rank")  # with the running statistics of batch norm
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        saved, _ = load_tensors(run / "student" / "model.safetensors")
        assert all(torch.equal(saved[name], value) for name, value in weights[0].items())
        assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [3, 3, 6, 6]
        assert 0 <= json.loads((run / "results.json").read_text())["teacher"]["dice_image"] <= 1


def test_itcl_of_two_processes_is_that_of_the_whole_batch(folder):
    u, v, codes = EMBEDDINGS()
    loss = itcl(u.requires_grad_(), v.requires_grad_(), codes)
    loss.backward()
    shares = both(folder / "itcl")
    for each in shares:
        torch.testing.assert_close(each["loss"], loss.detach(), rtol=1e-6, atol=0)
    # The mean over processes is what training takes; a process has no gradient for the others' embeddings.
    for name, whole in (("u", u.grad), ("v", v.grad)):
        torch.testing.assert_close(torch.cat([each[name] for each in shares]) / 2, whole, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("step", [0, 1], ids=["burn-in", "after"])
def test_a_step_of_two_processes_is_that_of_one_with_the_whole_batch(step, folder):
    """Where nothing else looks at the batch as a whole: no batch statistics, and every pixel teaches."""
    ours = both(folder / f"step{step}-")
    shares = [Batches(*PAIRS(), STEP, build_texts(), THIRDS, "cpu", rank, 2)(step) for rank in (0, 1)]
    losses, gradients = one_step(whole(*shares), step, Accelerator(cpu=True))
    assert gradients.keys() == ours[0]["gradients"].keys()
    for name, gradient in gradients.items():
        assert torch.equal(ours[0]["gradients"][name], ours[1]["gradients"][name])
        torch.testing.assert_close(ours[0]["gradients"][name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    for name, value in losses.items():
        mean = (ours[0]["losses"][name] + ours[1]["losses"][name]) / 2
        torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-6)
        if "itcl" in name:  # and not only in the mean
            assert torch.equal(ours[0]["losses"][name], ours[1]["losses"][name])


def whole(first, second):
    """A batch of two shares; partners are numbered on."""
    if is_dataclass(first):
        return type(first)(*(whole(getattr(first, f.name), getattr(second, f.name)) for f in fields(first)))
    if isinstance(first, dict):
        size = len(first.get("partner", ()))
        return {name: torch.cat([one, second[name] + size * (name == "partner")]) for name, one in first.items()}
    return torch.cat([first, second])


def test_each_process_draws_noise_of_its_own(folder):
    """Of one batch and one network, the strong views differ by their noise alone."""
    first, second = both(folder / "noise")
    assert first["loss_mixed"] != second["loss_mixed"]
    assert first["loss_labelled"] == second["loss_labelled"]


def test_processes_share_an_epoch_without_seeing_a_pair_twice():
    pairs = phantom("train", 16, size=32)
    config = Config(image_size=32, batch_size=4)
    shares = [Batches(pairs, pairs.subset(range(16), masks=False), config, build_texts(), THIRDS, "cpu", rank, 2)
              for rank in (0, 1)]  # fmt: skip
    batches = [share(step) for step in (0, 1) for share in shares]
    for seen in ([batch.labelled.images for batch in batches], [batch.unlabelled.images for batch in batches]):
        assert len({image.numpy().tobytes() for image in torch.cat(seen)}) == 16
    assert isinstance(batches[0], Batch) and not batches[0].labelled.affine.equal(batches[1].labelled.affine)


def test_the_times_that_the_page_expects_of_eight_gpus_add_up():
    page = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    table = re.search(r"\| a step of one GPU sends .*?\n\n", page, re.DOTALL)[0]
    rows = [re.findall(r"([\d.]+) ms", line) for line in table.splitlines() if " ms" in line]
    *parts, together = [[float(time) for time in row] for row in rows]
    assert [sum(times) for times in zip(*parts, strict=True)] == pytest.approx(together)
