"""The device of a run, its precision and its compilation.

The default is the CPU with float32; tests check it bit for bit. On a GPU, float32 matrix products use TF32. Weights,
losses and the optimiser's state are float32 in every precision.
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
    """The device is missing or does not support a setting. The message names a setting that works."""


def device_named(device: Device) -> torch.device:
    """The device of a name: ``auto`` (a CUDA GPU if there is one, else the CPU), ``cpu`` or ``cuda``.

    Raises:
        DeviceError: if there is no such name, or no GPU.
    """
    if device not in DEVICES:
        raise DeviceError(f"unknown device {device!r}; choose one of {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device 'cuda' was chosen, but torch finds no GPU; use --device auto or cpu")
    return torch.device("cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda")


def open_device(device: Device, precision: Precision = "fp32", compile: Compile = "off") -> Accelerator:
    """Opens the device of this process. The result also knows the other processes of the run.

    Args:
        device: as in :func:`device_named`.
        precision: of ``PRECISIONS``.
        compile: with ``on``, it checks that :func:`torch.compile` works.

    Raises:
        DeviceError: if the device is missing, does not support the precision, or has no compiler.
    """
    on_cpu = device_named(device).type == "cpu"
    known = PartialState() if PartialState._shared_state else None
    if known and known.num_processes == 1 and (known.device.type == "cpu") != on_cpu:
        AcceleratorState._reset_state(reset_partial_state=True)  # or accelerate keeps its first device
    # We set the precision. Otherwise the settings of accelerate's launcher could change it silently.
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="no")
    kind = accelerator.device.type
    if precision == "fp16" and kind == "cpu":
        raise DeviceError("precision 'fp16' needs a GPU, and this run is on the CPU; use --precision bf16 or fp32")
    if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise DeviceError("this GPU does not support precision 'bf16'; use --precision fp16 or fp32")
    if kind == "cuda":
        torch.set_float32_matmul_precision("high")
    if compile == "on":
        _try_compiler(accelerator.device)
    return accelerator


def set_forward(
    network: nn.Module, device: torch.device, precision: Precision = "fp32", compile: Compile = "off"
) -> None:
    """Sets the precision of a network's forward pass, and compiles it if asked. Works in place; the weights do not
    change.

    In every precision the prediction is float32. So are the probabilities, losses and ITCL that are computed from it.
    With ``fp32`` and ``off`` nothing changes.

    Args:
        network: one network, or :class:`semimedref_core.networks.Several`.
        device: the device of the network.
        precision: of ``PRECISIONS``.
        compile: ``on`` compiles; other values do not.
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
    except Exception as error:  # the error depends on what is missing: a C++ compiler, Triton, headers
        reason = str(getattr(error, "inner_exception", error)).strip().splitlines()[0]
        raise DeviceError(f"torch.compile does not work here ({reason}); use --compile off") from error


def grad_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler | None:
    """The scaler that keeps small float16 gradients from vanishing; None for other precisions."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def adamw(
    network: nn.Module, device: torch.device, lr: float, weight_decay: float, encoder_lr: float
) -> torch.optim.AdamW:
    """AdamW over all weights of a network. On a GPU, one fused kernel updates each group of weights.

    A pretrained image encoder has its own group. Its ``scale`` is ``encoder_lr``: a step multiplies the learning
    rate by it.
    """
    fused = True if device.type == "cuda" else None
    encoder = pretrained_image_weights(network)
    known = {id(parameter) for parameter in encoder}
    others = [parameter for parameter in network.parameters() if id(parameter) not in known]
    groups = [{"params": others}, *([{"params": encoder, "scale": encoder_lr}] if encoder else [])]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=fused)


def average_over_processes(accelerator: Accelerator, network: nn.Module) -> None:
    """Averages the gradients and the running statistics of batch norm over all processes, in one message.

    DistributedDataParallel cannot do this: it needs a gradient for every output of a forward pass, and supervised
    training has none for ITCL's projections. Gradients that are scaled for float16 stay scaled. If one is not finite,
    the average is not finite, and every process skips the step.

    Each process normalises its own batch. Without common running statistics the teachers would differ, and so would
    their pseudo-labels and the scores by which ``patience`` ends the run.
    """
    if accelerator.num_processes > 1:
        shared = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                shared += [module.running_mean, module.running_var]
        mean = accelerator.reduce(torch.cat([tensor.flatten() for tensor in shared]), "mean")
        for tensor, part in zip(shared, mean.split([tensor.numel() for tensor in shared]), strict=True):
            tensor.copy_(part.view_as(tensor))
