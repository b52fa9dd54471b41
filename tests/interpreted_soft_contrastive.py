"""A program for the tests of the contrastive loss: runs its Triton kernels on the CPU, in Triton's interpreter.

``python interpreted_soft_contrastive.py IN OUT``: IN is a file of ``torch.save``, ``{name: {"u", "v", "codes",
"codes_v", "tau", "normalize", "grad"}}``. OUT gets ``{name: [run, run]}``, two runs of ``(loss, grad_u, grad_v,
grad_tau)``. The interpreter must be chosen before the kernels are imported, hence a process of its own.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from semimedref_kernels import soft_contrastive_triton


def run(u, v, codes, codes_v, tau, normalize, grad):
    loss, lse_u, lse_v = soft_contrastive_triton.forward(u, v, codes, codes_v, tau, normalize)
    return loss, *soft_contrastive_triton.backward(grad, u, v, codes, codes_v, tau, normalize, lse_u, lse_v)


if __name__ == "__main__":
    cases = torch.load(sys.argv[1], weights_only=True)
    torch.save({name: [run(**case), run(**case)] for name, case in cases.items()}, sys.argv[2])
