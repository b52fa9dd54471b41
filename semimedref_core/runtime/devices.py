"""The device of a run: which one, in what precision, compiled or not.

The CPU in float32 is the default, and the one that is tested bit for bit. On a GPU matrix products of float32 take
TF32; weights, losses and the optimiser's state are float32 in every precision.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import get_args

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import nn

from semimedref_core.config import Compile, Device, Precision
from semimedref_core.errors import SemiMedRefError
from semimedref_core.networks import each_network, pretrained_image_weights
from semimedref_core.networks.compact import Prediction

DEVICES = get_args(Device)
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class DeviceError(SemiMedRefError, ValueError):
    """The device is not there, or cannot do what is asked of it; the message says what to ask for instead."""


def open_device(device: Device, precision: Precision = "fp32", compile: Compile = "off") -> Accelerator:
    """This process's device, and its place among the processes of the run.

    Args:
        device: ``auto`` (a CUDA GPU if there is one, else the CPU), ``cpu`` or ``cuda``.
        precision: of ``PRECISIONS``.
        compile: ``on`` makes sure that :func:`torch.compile` can work.

    Raises:
        DeviceError: if the device is not there, does not know the precision, or has no compiler.
    """
    if device not in DEVICES:
        raise DeviceError(f"unknown device {device!r}; choose one of {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device 'cuda' was asked for, but torch sees no GPU; use --device auto or cpu")
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    known = PartialState() if PartialState._shared_state else None
    if known and known.num_processes == 1 and (known.device.type == "cpu") != on_cpu:
        AcceleratorState._reset_state(reset_partial_state=True)  # or accelerate keeps to the device of its first use
    # The precision is ours to choose: left to accelerate, its launcher's settings would change it unseen.
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="no")
    kind = accelerator.device.type
    if precision == "fp16" and kind == "cpu":
        raise DeviceError("precision 'fp16' needs a GPU, and this run is on the CPU; use --precision bf16 or fp32")
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise DeviceError("precision 'bf16' is not known to this GPU; use --precision fp16 or fp32")
    if kind == "cuda":
        torch.set_float32_matmul_precision("high")
    if compile == "on":
        _try_compiler(accelerator.device)
    return accelerator


def set_forward(
    network: nn.Module, device: torch.device, precision: Precision = "fp32", compile: Compile = "off"
) -> None:
    """Makes a network's forward pass run in a precision, and compiled if asked for; in place, its weights stay.

    Whatever the precision, the prediction is float32, and so is all that is computed from it: probabilities, losses,
    ITCL. With ``fp32`` and ``off`` nothing changes.

    Args:
        network: one network, or :class:`semimedref_core.networks.Several`.
        device: where it is.
        precision: of ``PRECISIONS``.
        compile: ``on``, or what leaves the networks as they are.
    """
    for one in each_network(network):
        if compile == "on":
            one.forward = torch.compile(one.forward)
        if PRECISIONS[precision]:
            one.forward = _autocast(one.forward, device.type, PRECISIONS[precision])


def _autocast(forward: Callable[..., Prediction], kind: str, dtype: torch.dtype) -> Callable[..., Prediction]:
    @functools.wraps(forward)
    def cast(*args, **kwargs) -> Prediction:
        with torch.autocast(kind, dtype):
            seen = forward(*args, **kwargs)
        zones = None if seen.zones is None else seen.zones.float()
        return Prediction(seen.logits.float(), seen.image_embedding.float(), seen.text_embedding.float(), zones)

    return cast


def _try_compiler(device: torch.device) -> None:
    try:
        torch.compile(torch.sin)(torch.ones(8, device=device))
    except Exception as error:  # what is missing (a C++ compiler, Triton, headers) decides which
        reason = str(getattr(error, "inner_exception", error)).strip().splitlines()[0]
        raise DeviceError(f"torch.compile does not work here ({reason}); use --compile off") from error


def grad_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler | None:
    """What keeps small gradients of float16 from vanishing; None where none is needed."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def adamw(
    network: nn.Module, device: torch.device, lr: float, weight_decay: float, encoder_lr: float
) -> torch.optim.AdamW:
    """AdamW over all weights of a network; on a GPU in one fused kernel for each group of weights.

    A pretrained image encoder is a group of its own. Its ``scale`` is ``encoder_lr``: the learning rate of a step is
    multiplied by it.
    """
    fused = True if device.type == "cuda" else None
    encoder = pretrained_image_weights(network)
    known = {id(parameter) for parameter in encoder}
    others = [parameter for parameter in network.parameters() if id(parameter) not in known]
    groups = [{"params": others}, *([{"params": encoder, "scale": encoder_lr}] if encoder else [])]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=fused)


def average_gradients(accelerator: Accelerator, network: nn.Module) -> None:
    """Averages the gradients over processes, in one message.

    Done here and not by DistributedDataParallel, which wants a gradient for all that a forward pass returns: supervised
    training has none for ITCL's projections. Gradients scaled for float16 stay so, and one that is not finite makes
    the average so, for which every process then leaves the step out.
    """
    if accelerator.num_processes > 1:
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        mean = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
        for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
