"""What test_distributed.py runs in two processes, and again in one: ``torchrun ... two_processes.py FOLDER RUN...``."""

import sys
from dataclasses import replace

import torch
from accelerate import Accelerator, PartialState

from semimedref_core import preparing, training
from semimedref_core.anatomy import THIRDS
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches
from semimedref_core.data.datasets import Training
from semimedref_core.data.phantom import phantom
from semimedref_core.itcl import itcl
from semimedref_core.methods import method_named
from semimedref_core.networks import build_network, build_texts
from semimedref_core.runtime.devices import adamw
from semimedref_core.runtime.run_state import RunState
from semimedref_core.step import training_step
from semimedref_core.teacher import Teacher

# No loss of this step is weighed by what the batch holds, and no noise is drawn.
STEP = Config(
    image_size=32, batch_size=2, steps=4, burn_in=0.25, ramp=0.0, strong_view="release", pseudo_labels="teacher",
    unfound="image", gate=0.3, patch_p=1.0, patch_zones="donor",
)  # fmt: skip
NOISY = replace(STEP, strong_view="strong")


def EMBEDDINGS():
    """Of twelve pairs, six for each process: images, texts, codes."""
    random = torch.Generator().manual_seed(0)
    u, v = (torch.randn(12, 16, generator=random) for _ in range(2))
    return u, v, torch.randint(0, 64, (12,), generator=random)


def PAIRS():
    pairs = phantom("train", 12, size=32)
    return pairs.subset(range(6)), pairs.subset(range(6, 12), masks=False)


def one_step(batch, step, accelerator, config=STEP):
    """Its loss terms, and the gradients that the optimiser saw."""
    torch.manual_seed(0)
    student = build_network("compact")
    optimizer = adamw(student, accelerator.device, config.lr, config.weight_decay, config.encoder_lr)
    state = RunState(student, Teacher(student), optimizer, step=step)
    losses = training_step(state, batch, config, accelerator)
    return losses, {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


def train(folder, run):
    method, network = run.split("/")
    config = Config(
        method=method, network=network, image_size=32, batch_size=2, steps=6, burn_in=0.3, eval_every=3, patience=2
    )
    labelled, unlabelled = PAIRS()
    pairs = Training(labelled, phantom("valid", 4, size=32), unlabelled)
    networks = []
    preparing.load_training = lambda *about: pairs
    preparing.RunState = lambda student, *others: networks.append(student) or RunState(student, *others)
    training.train(config, f"{folder}/{run}", device="cpu")
    return networks[-1].state_dict()


def main(folder, *runs):
    for run in runs:
        weights = train(folder, run)
        torch.save(weights, f"{folder}/{run}/rank{PartialState().process_index}.pt")
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    assert accelerator.num_processes == 2

    u, v, codes = (x.chunk(2)[rank] for x in EMBEDDINGS())
    loss = itcl(u.requires_grad_(), v.requires_grad_(), codes)
    loss.backward()
    torch.save({"loss": loss.detach(), "u": u.grad, "v": v.grad}, f"{folder}/itcl{rank}.pt")

    batches = Batches(*PAIRS(), STEP, build_texts(), THIRDS, "cpu", rank, 2, method_named(STEP.method).plan)
    for step in (0, 1):
        losses, gradients = one_step(batches(step), step, accelerator)
        torch.save({"losses": losses, "gradients": gradients}, f"{folder}/step{step}-{rank}.pt")
    same = Batches(*PAIRS(), NOISY, build_texts(), THIRDS)(1)
    torch.save(one_step(same, 1, accelerator, NOISY)[0], f"{folder}/noise{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
