"""What notebook 09 teaches, in Triton's interpreter: TRITON_INTERPRET is 1 before kernels are imported, hence a process
of its own. Run by ``test_kernels_notebook.py``."""

from dataclasses import asdict

import jupytext
import pytest
import torch
import triton
import triton.language as tl

from semimedref_core import Config
from semimedref_core.experiments.shipped import notebooks_folder
from semimedref_core.teaching import check, source_of
from semimedref_core.tools import bytes_moved, listening
from semimedref_kernels import patch_mix, patch_mix_triton


@triton.jit
def lse_kernel(x, out, columns, OTHER: tl.constexpr, TOP: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * columns + column, mask=column < columns, other=OTHER)
    top = tl.max(value, 0) if TOP else 0.0
    tl.store(out + row, top + tl.log(tl.sum(tl.exp(value - top), 0)))


def log_sum_exp(x, other=float("-inf"), top=True):
    out = torch.empty(len(x))
    lse_kernel[(len(x),)](x, out, x.shape[1], other, top, BLOCK=triton.next_power_of_2(x.shape[1]))
    return out


def test_a_kernel_of_ones_own_is_right(capsys):
    check("09.2", log_sum_exp)
    assert capsys.readouterr().out == "09.2: right.\n"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda x: log_sum_exp(x, top=False), "take away before"),
        (lambda x: log_sum_exp(x, other=0.0), "Each masked number counts as one"),
        (lambda x: log_sum_exp(x).exp(), "Its logarithm is missing"),
        (lambda x: log_sum_exp(x) + 1, "not the logarithms"),
        (lambda x: log_sum_exp(x).sum(), "one number for each row"),
        (lambda x: x.logsumexp(1), "No kernel has read x"),
        (lambda x: log_sum_exp(torch.zeros(5, 20)) * 0 + x.logsumexp(1), "No kernel has read x"),
        (0.5, "cannot be judged"),
    ],
)
def test_a_wrong_kernel_gets_a_hint(answer, told, capsys):
    check("09.2", answer)
    said = capsys.readouterr().out
    assert said.startswith("09.2: not yet. ") and told in said


def test_listening_knows_every_address_that_a_kernel_touches():
    x, out = torch.randn(3, 5), torch.empty(3)
    with listening() as log:
        lse_kernel[(3,)](x, out, 5, float("-inf"), True, BLOCK=8)
    loads = [access for access in log if access.kind == "load"]
    assert [access.inside(x).tolist() for access in loads] == [list(range(5 * row, 5 * row + 5)) for row in range(3)]
    assert [access.program for access in loads] == [(row, 0, 0) for row in range(3)]
    assert [access.inside(x).tolist() for access in log if access.kind == "store"] == [[]] * 3
    assert (bytes_moved(log, "load"), bytes_moved(log, "store")) == (4 * 15, 4 * 3)
    assert (bytes_moved(log + log, "load"), bytes_moved(log + log, "load", once=True)) == (4 * 30, 4 * 15)
    lse_kernel[(3,)](x, out, 5, float("-inf"), True, BLOCK=8)
    assert len(log) == 6  # afterwards nobody listens


def test_patch_mixing_reads_and_writes_each_number_once_if_a_cache_helps():
    s, p = torch.rand(2, 1, 64, 64), torch.ones(2, 1, 64, 64)
    partner, boxes = torch.tensor([1, 0]), torch.tensor([[0, 0, 40, 40], [0, 0, 0, 0]])
    with listening() as log:
        fused = patch_mix_triton.patch_mix_fused(s, p, partner, boxes, 0.5)
    assert all(map(torch.equal, fused, patch_mix(s, p, partner, boxes, 0.5)))
    least, once = s.nbytes + p.nbytes, bytes_moved(log, "load", once=True)
    assert least <= once < 1.01 * least and least <= bytes_moved(log, "store") < 1.01 * least
    assert bytes_moved(log, "load") > once


def test_a_kernels_source_is_shown_as_it_runs():
    shown = source_of(patch_mix_triton._accepted).data
    assert shown.startswith("@triton.jit\ndef _accepted(") and '"""' not in shown and "tl.floor" in shown


def test_patches_that_stand_for_training_are_those_of_its_settings():
    names = {}
    for cell in jupytext.read(notebooks_folder() / "09_kernels.py").cells[:5]:
        if cell.cell_type == "code":
            exec(cell.source, names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= {"image_size": 64, "batch_size": 4}
    config, ours = names["config"], Config(image_size=64, batch_size=4)
    assert asdict(config) == asdict(ours)
    sides = names["boxes"][:, 2:] - names["boxes"][:, :2]
    assert 0 < sides.max() <= ours.block
    how = {"block": ours.block, "mode": ours.patch_mode, "gate": ours.gate}
    assert torch.equal(names["patchmix"].patch_boxes(names["p"], **names["plan"], **how)[0], names["boxes"])
