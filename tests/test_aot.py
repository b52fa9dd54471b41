"""Every shipped kernel configuration, compiled for GPUs that need not be there."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is for Linux alone")

from semimedref_kernels import aot
from semimedref_kernels.choices import CANDIDATES

# Beside the shipped rows, two that must be caught: planes of 225 x 225 px begin anywhere, and 32 registers
# a thread are too few, so it spills.
PROGRAM = """
import json, torch
from dataclasses import asdict, replace
from semimedref_kernels import aot

odd, good = (aot.patch_mix_launches(torch.empty(2, 1, w, w, device="meta"))[0] for w in (225, 224))
cramped = replace(good, options=good.options | {"maxnreg": 32})
caught = [aot.check("odd width", odd, "sm_90"), aot.check("few registers", cramped, "sm_90")]
print(json.dumps([[asdict(row) for row in rows] for rows in (aot.check_all(), caught)]))
"""


@pytest.fixture(scope="module")
def compiled():
    """Shipped rows and caught rows, from a process that does not interpret kernels."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [[aot.Row(**row) for row in rows] for rows in json.loads(done.stdout)]


def narrow(row: aot.Row) -> set[str]:
    """Stores of pixels below 16 bytes. Flags are bytes (b8), pixels never are. (The gate reads its box as it lies.)"""
    return {*row.stores} - {"v4.b32", "v2.b64", "b8"}


def wide(accesses: dict[str, int]) -> int:
    """Those of 16 bytes."""
    return accesses.get("v4.b32", 0) + accesses.get("v2.b64", 0)


def test_every_configuration_compiles_for_every_target(compiled):
    shipped, _ = compiled
    print("\n" + aot.table(shipped))
    assert {(row.name, row.target) for row in shipped} == {
        (name, target) for target in aot.TARGETS for name in aot.configurations(target)
    }
    assert {row.target for row in shipped} == {"sm_80", "sm_90", "sm_100", "gfx942"}
    assert {(row.name, row.target) for row in shipped if not (row.registers and row.stores)} == set()


def test_nothing_spills(compiled):
    """Nor would anything that a device's table may choose, on sm_90."""
    shipped, (_, cramped) = compiled
    assert sum("candidate" in row.name for row in shipped) >= sum(map(len, CANDIDATES.values()))
    assert cramped.spill_bytes > 0, "the check would not notice"
    assert {(row.name, row.target): row.spill_bytes for row in shipped if row.spill_bytes} == {}


def test_patch_mix_reads_and_writes_pixels_sixteen_bytes_at_a_time(compiled):
    shipped, (odd, _) = compiled
    assert narrow(odd), "the check would not notice"
    mixing = aot.patch_mix_configurations()
    rows = [row for row in shipped if row.name in mixing and row.target.startswith("sm_")]
    assert len(rows) == 4 * 2 * 2 * 3  # dtypes, layouts, passes, targets
    assert {(row.name, row.target): narrow(row) for row in rows if narrow(row)} == {}
    chosen = [row for row in shipped if row.name.startswith("patch_mix") and "candidate" in row.name]
    assert {row.name: narrow(row) for row in chosen if narrow(row)} == {}
    # Image and map, own pixels and donors: as many wide loads each as there are wide stores.
    assert all(wide(row.loads) == 2 * wide(row.stores) for row in rows)


def test_tiles_are_multiplied_by_the_matrix_units(compiled):
    """bfloat16 as it is, on an H100 as wide as the tile; float32 in TF32, but on AMD's."""
    shipped, _ = compiled
    found = {(row.name, row.target): "".join(row.products) for row in shipped}
    for kernel in ("sums_of_exp", "pushes"):
        assert "m64n128k16.f32.bf16" in found[f"{kernel} bf16 D=256", "sm_90"]
        assert "m64n64k8.f32.tf32" in found[f"{kernel} fp32 D=256", "sm_90"]
        for target, of_bf16, of_fp32 in (
            ("sm_80", "bf16", "tf32"), ("sm_100", "tcgen05.mma", "kind::tf32"), ("gfx942", "bf16", "_f32")
        ):  # fmt: skip
            assert of_bf16 in found[f"{kernel} bf16 D=256", target]
            assert of_fp32 in found[f"{kernel} fp32 D=256", target]
    assert found["patch_mix fp32", "sm_90"] == ""
