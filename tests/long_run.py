"""By hand: does a long run keep its memory, files, threads and processes? ``python long_run.py STEPS FOLDER``

Prints what the process holds at a tenth of the steps and at the end. The run is small: 32 px, two pairs a step.
"""

import sys
from pathlib import Path

import psutil
import torch

from semimedref_core import training
from semimedref_core.config import Config
from semimedref_core.data.phantom import COUNTS


def held() -> dict[str, float]:
    """Of this process, now."""
    process = psutil.Process()
    return {
        "memory (MB)": round(process.memory_info().rss / 2**20, 1),
        "open files": process.num_fds(),
        "threads": process.num_threads(),
        "children": len(process.children(recursive=True)),
    }


if __name__ == "__main__":
    steps, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    COUNTS.update(train=24, valid=6)
    step = training.training_step

    def watched(state, *about):
        losses = step(state, *about)
        if state.step in (steps // 10, steps):
            print(state.step, held(), flush=True)
        return losses

    training.training_step = watched
    settings = {"image_size": 32, "steps": steps, "batch_size": 2, "label_ratio": 0.25, "eval_every": 50}
    training.train(Config(**settings), folder, device="cpu")
