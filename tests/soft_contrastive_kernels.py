"""A program for the tests of the contrastive loss: runs its Triton kernels, on the CPU in Triton's interpreter if
TRITON_INTERPRET is 1, else on a GPU.

``python soft_contrastive_kernels.py IN OUT``: IN is a file of ``torch.save``, ``{name: {"u", "v", "codes",
"codes_v", "tau", "normalize", "grad"}}``, with "offset" and "rows_only" where they are not 0 and False, "needs" where
not both gradients are, "block" where a block of the backward pass shall have so many bytes, and "table" for the choices
of a device. OUT gets ``{name: [run,
run]}``, two runs of ``(loss, grad_u, grad_v)``. The interpreter must be chosen before the kernels are
imported, hence a process of its own.
"""

import os
import sys

import torch

from semimedref_kernels import choices, soft_contrastive_triton


def run(
    u, v, codes, codes_v, tau, normalize, grad, offset=0, rows_only=False, needs=(True, True),
    block=soft_contrastive_triton.BLOCK_BYTES, table=None,
):  # fmt: skip
    soft_contrastive_triton.BLOCK_BYTES, choices.in_use = block, lambda device: table
    loss, kept = soft_contrastive_triton.forward(u, v, codes, codes_v, tau, normalize, offset, rows_only)
    gradients = soft_contrastive_triton.backward(
        grad, u, v, codes, codes_v, tau, normalize, kept, offset, rows_only, needs
    )  # fmt: skip
    return loss, *gradients


if __name__ == "__main__":
    device = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
    cases = torch.load(sys.argv[1], map_location=device, weights_only=True)
    found = {
        name: [[x if x is None else x.cpu() for x in run(**case)] for _ in range(2)] for name, case in cases.items()
    }
    torch.save(found, sys.argv[2])
