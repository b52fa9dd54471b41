"""Training in several processes: each draws its own share, all end with the same weights, one of them writes."""

import json
import subprocess
import sys

import torch

from semimedref_core.anatomy import THIRDS
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches
from semimedref_core.data.phantom import phantom
from semimedref_core.networks import build_texts
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.runtime.checkpoints import load_tensors

PROGRAM = """
import sys
import torch
from accelerate import PartialState
from semimedref_core import training
from semimedref_core.config import Config
from semimedref_core.data.datasets import Training
from semimedref_core.data.phantom import phantom

train = phantom("train", 12, size=32)
pairs = Training(train.subset(range(6)), phantom("valid", 4, size=32), train.subset(range(6, 12), masks=False))
training.load_training = lambda *about: pairs
networks, original = [], training.RunState
training.RunState = lambda student, *others: networks.append(student) or original(student, *others)
for run in sys.argv[2:]:  # all in one program: two processes take seconds to start
    method, network = run.split("/")
    config = Config(method=method, network=network, image_size=32, batch_size=2, steps=6, burn_in=0.3, eval_every=3)
    training.train(config, f"{sys.argv[1]}/{run}", device="cpu")
    state = PartialState()
    assert state.num_processes == 2
    weights = {name: parameter.detach() for name, parameter in networks[-1].named_parameters()}
    torch.save(weights, f"{sys.argv[1]}/{run}/rank{state.process_index}.pt")
"""
RUNS = ("supervised/compact", "semi_medref/compact", "semi_medref/lite")


def test_two_processes_train_one_network(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, tmp_path / "program.py", tmp_path, *RUNS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for run in (tmp_path / name for name in RUNS):
        weights = [torch.load(run / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        saved, _ = load_tensors(run / "student" / "model.safetensors")
        assert all(torch.equal(saved[name], value) for name, value in weights[0].items())
        assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [3, 3, 6, 6]
        assert 0 <= json.loads((run / "results.json").read_text())["teacher"]["dice_image"] <= 1


def test_processes_share_an_epoch_without_seeing_a_pair_twice():
    pairs = phantom("train", 16, size=32)
    config = Config(image_size=32, batch_size=4)
    shares = [Batches(pairs, None, config, build_texts(), THIRDS, "cpu", rank, 2) for rank in (0, 1)]
    seen = [share(step).labelled.images for step in (0, 1) for share in shares]
    assert len({image.numpy().tobytes() for image in torch.cat(seen)}) == 16
