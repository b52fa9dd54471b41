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
kind = {"method": sys.argv[2], "network": sys.argv[3]}
config = Config(**kind, image_size=32, batch_size=2, steps=6, burn_in=0.3, eval_every=3)
networks, original = [], training.RunState
training.RunState = lambda student, *others: networks.append(student) or original(student, *others)
training.train(config, sys.argv[1], device="cpu")
state = PartialState()
assert state.num_processes == 2
torch.save({n: p.detach() for n, p in networks[0].named_parameters()}, f"{sys.argv[1]}/rank{state.process_index}.pt")
"""


def test_two_processes_train_one_network(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    for method, network in (("supervised", "compact"), ("semi_medref", "compact"), ("semi_medref", "lite")):
        run = tmp_path / method / network
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        done = subprocess.run(
            [*command, tmp_path / "program.py", run, method, network], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
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
