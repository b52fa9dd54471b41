"""Ahead-of-time check: compiles all shipped kernel configurations for GPUs, without a GPU.

``python -m semimedref_kernels.aot`` prints the cost of each: registers, shared memory, spills, and the widths of its
memory accesses. It does not work with ``TRITON_INTERPRET=1``, because kernels are not compiled then.
"""

from __future__ import annotations

import io
import multiprocessing
import re
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

try:
    import triton
except ImportError:
    if __name__ != "__main__":
        raise
    raise SystemExit("this check compiles Triton's kernels, and Triton is not installed: pip install triton") from None
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from semimedref_kernels import soft_contrastive_triton
from semimedref_kernels.choices import CANDIDATES, Table
from semimedref_kernels.launch import Launch
from semimedref_kernels.patch_mix_triton import mix_launch, returned_launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp64": torch.float64}
TYPE_NAMES = {torch.int64: "i64", torch.int32: "i32", torch.bool: "i1"} | {
    dtype: name for name, dtype in DTYPES.items()
}


@dataclass(frozen=True)
class Row:
    """The cost of one configuration on one target.

    Attributes:
        name, target: name of the configuration and of the target.
        registers: registers of a thread.
        shared_bytes: shared memory of a program, in bytes.
        spill_bytes: bytes of spilled registers of a thread, stores and loads together.
        loads, stores: width -> number of instructions on global memory, such as ``v4.b32`` or ``dwordx4`` (16 bytes).
        products: shape and type -> number of instructions of the matrix units.
    """

    name: str
    target: str
    registers: int
    shared_bytes: int
    spill_bytes: int
    loads: dict[str, int]
    stores: dict[str, int]
    products: dict[str, int]


@cache  # looked up once for each row, also by the processes that check_all forks
def configurations(target: str) -> dict[str, Launch]:
    """All shipped configurations for a target: name -> launch of tensors without memory (``meta``)."""
    precision = "ieee" if TARGETS[target].backend == "hip" else "tf32x3"  # AMD's compiler knows no tf32x3
    found = patch_mix_configurations()
    found |= soft_contrastive_triton.aot_configurations(precision, 256)
    if target == "sm_90":  # D is how often the others loop; these hold whole rows
        whole = ("unit_kernel", "finish_kernel", "gradients_kernel")
        wider = soft_contrastive_triton.aot_configurations(precision, 768)
        found |= {name: launch for name, launch in wider.items() if name.startswith(whole)}
        found |= candidate_configurations(precision)
    return found


def candidate_configurations(precision: str) -> dict[str, Launch]:
    """All candidates of :mod:`semimedref_kernels.choices`; of the 16-bit types, bfloat16."""
    built_in = patch_mix_configurations() | soft_contrastive_triton.aot_configurations(precision, 256)
    found = {}
    for number in range(max(map(len, CANDIDATES.values()))):
        table = {name: candidates[number] for name, candidates in CANDIDATES.items() if number < len(candidates)}
        launches = patch_mix_configurations(table)
        launches |= soft_contrastive_triton.aot_configurations(precision, 256, table)
        for name, launch in launches.items():
            built = built_in[name].constants, built_in[name].options
            if "fp16" not in name and (launch.constants, launch.options) != built:
                found[f"{name} candidate {number}"] = launch
    return found


def patch_mix_configurations(table: Table | None = None) -> dict[str, Launch]:
    """Both passes at 32 images of 224 px, for each dtype and layout."""
    found = {}
    for name, dtype in DTYPES.items():
        three = torch.empty(32, 3, 224, 224, dtype=dtype, device="meta")
        for layout, images in (("", three), (" channels_last", three.contiguous(memory_format=torch.channels_last))):
            forward, backward = patch_mix_launches(images, table)
            found |= {f"patch_mix {name}{layout}": forward, f"patch_mix backward {name}{layout}": backward}
    return found


def patch_mix_launches(images: Tensor, table: Table | None = None) -> tuple[Launch, Launch]:
    """Forward and backward for these images, with maps of their dtype."""
    batch, _, height, width = images.shape
    partner = torch.empty(batch, dtype=torch.int64, device="meta")
    probs, boxes = images.new_empty(batch, 1, height, width), partner.new_empty(batch, 4)
    forward, (_, _, accepted) = mix_launch(images, probs, partner, boxes, 0.55, table)
    return forward, returned_launch(images, probs, partner, boxes, accepted, table)[0]


def source(launch: Launch) -> ASTSource:
    """A launch as a source to compile, specialised as Triton does at run time: integers 1 become constants, and
    multiples of 16 and addresses of tensors are marked as multiples of 16."""
    values = launch.args | launch.constants
    if list(values)[: len(launch.args)] != launch.kernel.arg_names[: len(launch.args)]:
        raise ValueError(f"{launch.kernel.__name__} takes {launch.kernel.arg_names}, not {list(launch.args)}")
    signature, constants, attributes = {}, {}, {}
    for position, name in enumerate(launch.kernel.arg_names):
        value = values[name]
        if name in launch.constants or (isinstance(value, int) and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[name] = f"*{TYPE_NAMES[value.dtype]}"
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if value < 2**31 else "i64"
        if isinstance(value, Tensor) or (signature[name][0] == "i" and value % 16 == 0):
            attributes[position,] = [["tt.divisibility", 16]]
    return ASTSource(launch.kernel, signature, constants, attributes)


def check(name: str, launch: Launch, target: str) -> Row:
    """Compiles one configuration for one target and reads its cost."""
    # The assembler's log has registers and spills. Triton can only print this log, and not from its cache.
    with knobs.nvidia.scope(), knobs.compilation.scope(), redirect_stdout(io.StringIO()) as log:
        knobs.nvidia.dump_ptxas_log = knobs.compilation.always_compile = True
        compiled = triton.compile(source(launch), target=TARGETS[target], options=launch.options)
    if TARGETS[target].backend == "hip":
        text = compiled.asm["amdgcn"]
        registers, spilled = (
            int(re.search(rf"\.{key}:\s*(\d+)", text)[1]) for key in ("vgpr_count", "vgpr_spill_count")
        )
        spilled_bytes = 4 * spilled
    else:
        text = compiled.asm["ptx"]
        registers = int(re.search(r"Used (\d+) registers", log.getvalue())[1])
        spilled_bytes = sum(int(number) for number in re.findall(r"(\d+) bytes spill", log.getvalue()))
    loads, stores = accesses(text, "ld", "load"), accesses(text, "st", "store")
    return Row(name, target, registers, compiled.metadata.shared, spilled_bytes, loads, stores, products(text))


def accesses(text: str, ptx: str, gcn: str) -> dict[str, int]:
    """The numbers of loads or stores of global memory by width, from PTX (``ld.global``) or GCN (``global_load``)."""
    found = re.findall(rf"\b{ptx}\.global[\w.:]*?\.((?:v\d\.)?[bsuf]\d+)\b", text)
    found += re.findall(rf"\b(?:global|buffer)_{gcn}_(\w+)", text)
    return dict(sorted(Counter(found).items()))


def products(text: str) -> dict[str, int]:
    """How often matrices are multiplied, by instruction: PTX ``mma``, ``wgmma``, ``tcgen05.mma``; GCN ``mfma``."""
    found = re.findall(r"\b(?:wgmma\.mma_async|mma)\.sync\.aligned\.[\w.]+|\btcgen05\.mma\.[\w.:]+|\bv_mfma_\w+", text)
    return dict(sorted(Counter(each.replace(".sync.aligned", "") for each in found).items()))


def table(rows: list[Row]) -> str:
    """The rows as aligned text."""
    lines = [f"{'configuration':38} {'target':7} registers shared spills  loads / stores of global memory / products"]
    for row in rows:
        counts = row.loads, row.stores, row.products
        widths = (" ".join(f"{n} {kind}" for kind, n in found.items()) for found in counts if found)
        numbers = f"{row.registers:9} {row.shared_bytes:6} {row.spill_bytes:6}"
        lines.append(f"{row.name:38} {row.target:7} {numbers}  {' / '.join(widths)}")
    return "\n".join(lines)


def check_all() -> list[Row]:
    """Checks all configurations on all targets, with one process for each core."""
    wanted = [(name, target) for target in TARGETS for name in configurations(target)]
    with multiprocessing.get_context("fork").Pool() as pool:
        return pool.starmap(_check_named, wanted, chunksize=8)


def _check_named(name: str, target: str) -> Row:
    return check(name, configurations(target)[name], target)


if __name__ == "__main__":
    print(table(check_all()))
