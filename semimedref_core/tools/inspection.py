"""Inspects a step: its tensors, the gradients of each part of a network, the forward passes, and waits of the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def named_tensors(value, name: str = "") -> dict[str, Tensor]:
    """The tensors of a nested dataclass or mapping by their dotted names, in their original order."""
    if isinstance(value, Tensor):
        return {name: value}
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not isinstance(value, Mapping):
        return {}
    parts = (named_tensors(item, f"{name}.{key}" if name else key) for key, item in value.items())
    return {key: tensor for part in parts for key, tensor in part.items()}


def shape_text(tensor: Tensor) -> str:
    """A readable shape, such as ``8 x 1 x 64 x 64``, or ``scalar``."""
    return " x ".join(map(str, tensor.shape)) or "scalar"


def tensor_table(tensors: Mapping[str, Tensor]) -> pd.DataFrame:
    """One row for each tensor: shape, dtype, smallest and largest value, and bytes."""
    rows = {
        name: {
            "shape": shape_text(tensor),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "min": f"{tensor.min().item():.3g}",
            "max": f"{tensor.max().item():.3g}",
            "bytes": tensor.nbytes,
        }
        for name, tensor in ((name, tensor.detach()) for name, tensor in tensors.items())
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def parameter_table(network: nn.Module) -> pd.DataFrame:
    """The number of parameters of each block of a network.

    Args:
        network: with ``parts``, part -> names of its modules.

    Returns:
        One row for each block, in the order of the parts: its part, its parameters, and the number of trained ones.
    """
    rows = {
        name: {
            "part": part,
            "parameters": sum(parameter.numel() for parameter in getattr(network, name).parameters()),
            "trained": sum(p.numel() for p in getattr(network, name).parameters() if p.requires_grad),
        }
        for part, modules in network.parts.items()
        for name in modules
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def gradient_norms(terms: Mapping[str, Tensor], network: nn.Module) -> pd.DataFrame:
    """Shows which loss term trains which part of the network.

    Args:
        terms: name -> scalar; all come from passes of the network and still have their graphs.
        network: with ``parts``, part -> names of its modules.

    Returns:
        Norm of the gradient over a part's parameters; one row for each term, one column for each part. NaN if the term
        does not depend on the part.
    """
    table = pd.DataFrame(index=list(terms), columns=list(network.parts), dtype=float)
    for part, modules in network.parts.items():
        parameters = [p for name in modules for p in getattr(network, name).parameters() if p.requires_grad]
        for term, value in terms.items() if parameters else ():
            found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            squares = [gradient.square().sum() for gradient in found if gradient is not None]
            table.loc[term, part] = torch.stack(squares).sum().sqrt().item() if squares else float("nan")
    return table


class Passes:
    """Records the forward passes of a network of this project from now on.

    Attributes:
        made: (number of samples, number of decoded samples) of each pass.
    """

    def __init__(self, network: nn.Module):
        self.made: list[tuple[int, int]] = []
        network.register_forward_hook(self._note)

    def _note(self, network, arguments, prediction):
        self.made.append((len(prediction.image_embedding), len(prediction.logits)))


class HostReads(TorchDispatchMode):
    """Counts the operations whose result the host needs before it can continue; on a GPU, each of them is a wait.

    These operations read values (``.item()``, ``bool(x)``, ``torch.equal``) or have shapes that depend on values
    (``nonzero``, ``x[mask]``), according to torch's tags. The inside of a custom operation is not seen, nor is a copy
    to the tensor's own device.

    Attributes:
        operations: number of all operations.
        reads: names of the waiting operations.
    """

    def __init__(self):
        super().__init__()
        self.operations = 0
        self.reads: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += 1
        if _waits(function, args):
            self.reads.append(str(function))
        return function(*args, **(kwargs or {}))


def _waits(function, args) -> bool:
    if function.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_):
        # Their shapes depend on values only if one of the indices is a mask.
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(function.tags))
