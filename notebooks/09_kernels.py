# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 09 · Two kernels in Triton
#
# **What you will see.** Two steps of the training are written twice: in plain PyTorch, and as *fused* kernels in
# [Triton](https://triton-lang.org), a Python dialect for GPU programs. Patch mixing (Eq. 5 to 7; paper: 7 to 8) is all about bytes.
# The contrastive loss (Eq. 9 to 11; paper: 9) is all about a matrix that never needs to exist. You will count what fusing
# saves, read the kernels beside the plain form, run them here without a GPU, see which program writes which tile, and
# see what a GPU can gain at most, and what was measured. You need to know PyTorch; you need no Triton and no CUDA.

# %% tags=["parameters"]
image_size = 224
batch = 32
block = 16  # side of a patch in px
conf_th = 0.55
width = 256  # numbers in an embedding, D
tau = 0.07
seed = 0

# %% tags=["nbval-ignore-output"]
import os

os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when kernels are imported: run them on the CPU, as NumPy

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from torch.nn.functional import normalize

from semimedref_core import figures, versions
from semimedref_kernels import benchmark, jaccard, patch_mix, soft_contrastive_loss, soft_contrastive_plain
from semimedref_kernels.benchmark import baselines

figures.notebook_style()
print(versions("triton"))

# %% [markdown]
# ## 1 · Patch mixing moves bytes
#
# A batch as it comes in training: strong views $s$, the teacher's probabilities $p$ (here the masks, blurred), and
# for each sample a partner and a box. Samples without a patch have an empty box.

# %%
from scipy.ndimage import gaussian_filter

from semimedref_core import anatomy, patchmix
from semimedref_core.data import phantom

pairs = phantom.phantom("train", batch, image_size, seed)
s = torch.tensor(pairs.images / 255, dtype=torch.float32)[:, None]
p = torch.tensor(gaussian_filter(pairs.masks.astype(np.float32), (0, 5, 5)))[:, None]
zone_boxes = np.tile(anatomy.QATA.boxes(image_size, image_size), (batch, 1, 1))
proposal = patchmix.propose(np.random.default_rng(seed), pairs.reports, zone_boxes, p=1.0)
proposal = {name: torch.as_tensor(value) for name, value in vars(proposal).items()}
boxes, _ = patchmix.patch_boxes(p, **proposal, block=block, mode="position", confident=conf_th)
partner = proposal["partner"]
print(f"images {tuple(s.shape)}, {s.nbytes / 1e6:.2f} MB; {int((boxes[:, 2] > boxes[:, 0]).sum())} patches proposed")

# %% [markdown]
# The equations as they stand in the paper, with m the box as a map of zeros and ones:
#
# - Eq. 5, gate: the mean of $p_j$ over the patch is at least `conf_th`
# - Eq. 6, image: $m\,s_j + (1-m)\,s_i$
# - Eq. 7, target: $m\,p_j + (1-m)\,p_i$ (cut at 0.5 later)
#
# As one would write them: `torch.where(m, a, b)` is $m\,a + (1-m)\,b$ in one operation. This form is one of those that
# the benchmark compares with (section 8). Two helpers show code.

# %%
import inspect
import textwrap


def piece(function, first, last):
    """The lines of a function from the one that starts with ``first`` to the one that starts with ``last``."""
    lines = inspect.getsource(getattr(function, "fn", function)).splitlines()
    start, end = (next(k for k, line in enumerate(lines) if line.strip().startswith(mark)) for mark in (first, last))
    return textwrap.dedent("\n".join(lines[start : end + 1]))


def show_code(blocks):
    marked = "\n\n".join(f"**{name}**\n```python\n{code}\n```" for name, code in blocks.items())
    display({"text/markdown": marked, "text/plain": "\n\n".join(blocks.values())}, raw=True)


show_code({"As written": piece(baselines.patch_mix_where, "height, width", "return")})

# %%
mixed, target, accepted = patch_mix(s, p, partner, boxes, conf_th)
written = baselines.patch_mix_where(s, p, partner, boxes, conf_th)
assert torch.equal(written[0], mixed) and torch.equal(written[1], target)
print(f"{int(accepted.sum())} of {batch} samples mixed; the public op gives the same images and targets")

# %% [markdown]
# Each line above is one or more operations, and on a GPU each reads its inputs from memory and writes its result
# back. PyTorch lets us watch: a *dispatch mode* sees every operation. First, what one operation reads and writes. A
# gather reads as many numbers as it returns, what is overwritten is not read, and a broadcast tensor is as large as
# its memory.


# %%
def read_and_written(op, ins, outs):
    name = op.overloadpacket.__name__
    if op.is_view or "empty" in name:
        return [], []
    if name == "index":
        return [*outs, *ins[1:]], outs
    return (ins[1:], ins[-1:]) if name in ("copy_", "index_put_") else (ins, outs)


def size(tensors):
    return sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors)


# %% [markdown]
# Then the mode, which adds it up, and keeps account of the memory that is held at once.

# %%
import weakref

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Meter(TorchDispatchMode):
    operations = read = written = held = peak = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        ins, outs = ([x for x in tree_leaves(t) if isinstance(x, torch.Tensor)] for t in ((args, kwargs), out))
        old = {t.untyped_storage()._cdata for t in ins}
        for storage in {t.untyped_storage() for t in outs}:
            if storage._cdata not in old:
                self.hold(storage.nbytes())
                weakref.finalize(storage, self.hold, -storage.nbytes())
        read, written = read_and_written(op, ins, outs)
        self.operations += bool(read or written)
        self.read, self.written = self.read + size(read), self.written + size(written)
        return out

    def hold(self, nbytes):
        self.held += nbytes
        self.peak = max(self.peak, self.held)


# %%
with Meter() as meter:
    doubled = 2 * s
assert (meter.operations, meter.read, meter.written, meter.held) == (1, s.nbytes, s.nbytes, s.nbytes)
del doubled
assert meter.held == 0
print(f"2 * s reads {meter.read / 1e6:.2f} MB, writes {meter.written / 1e6:.2f} MB, held {meter.peak / 1e6:.2f} MB")

# %% [markdown]
# Tensors on the device `meta` have shapes and no memory. On them the plain form does what it does on a GPU, where
# nobody may ask how large the boxes are (that would make the host wait), so it looks at whole images. On the CPU
# asking is free and only small windows around the boxes are touched: that is the machine the plain form is made for.

# %%
from semimedref_kernels.patch_mix import plain_patch_mix

arguments = s, p, partner, boxes
on_meta = [x.to("meta") for x in arguments]
meters = {}
for name, form, given in (
    ("as written", baselines.patch_mix_where, on_meta),
    ("plain form, GPU", plain_patch_mix, on_meta),
    ("plain form, CPU", plain_patch_mix, arguments),
):
    with Meter() as meters[name]:
        form(*given, conf_th)
    meter = meters[name]
    print(f"{name:16} {meter.operations:3} operations, {(meter.read + meter.written) / 1e6:6.1f} MB")

# %% [markdown]
# The fused form is one kernel, one pass that writes image and target. Triton's interpreter runs a
# kernel in NumPy, one program after the other. It hands every load and store to two functions; listen in there and
# you know each address that a kernel touches.

# %%
from contextlib import contextmanager
from unittest.mock import patch

from triton.runtime.interpreter import interpreter_builder as machine


@contextmanager
def listening():
    """Fills a list with (program, "load" or "store", bytes of one number, addresses)."""
    log, load, store = [], machine.create_masked_load, machine.create_masked_store

    def note(kind, pointers, mask):
        nbytes = -(-pointers.get_element_ty().primitive_bitwidth // 8)  # a flag of 1 bit takes a byte
        log.append((machine.grid_idx, kind, nbytes, pointers.data[mask.data]))

    def loading(pointers, mask, *rest):
        note("load", pointers, mask)
        return load(pointers, mask, *rest)

    def storing(pointers, value, mask, *rest):
        note("store", pointers, mask)
        return store(pointers, value, mask, *rest)

    with patch.multiple(machine, create_masked_load=loading, create_masked_store=storing):
        yield log


# %%
from semimedref_kernels.patch_mix_triton import patch_mix_fused

with listening() as log:
    fused = patch_mix_fused(*arguments, conf_th)
for mine, theirs in zip(fused, (mixed, target, accepted), strict=True):
    assert torch.equal(mine, theirs), "bit for bit"
moved = {kind: sum(n * len(where) for _, k, n, where in log if k == kind) for kind in ("load", "store")}
print(f"the bits of the plain form, with {moved['load'] / 1e6:.1f} MB read, {moved['store'] / 1e6:.1f} MB written")

# %% [markdown]
# No form can do with less than reading each input once and writing each output once. The fused one comes close to
# that: only tiles that a box touches ask the gate, and read of the donor what lies in the box.

# %%
least = 2 * (s.nbytes + p.nbytes)
traffic = {name: (m.read / 1e6, m.written / 1e6) for name, m in meters.items() if name != "plain form, CPU"}
traffic |= {"fused": (moved["load"] / 1e6, moved["store"] / 1e6), "least possible": (least / 2e6, least / 2e6)}
for name, numbers in traffic.items():
    print(f"{name:16} {sum(numbers):6.1f} MB, {1e6 * sum(numbers) / least:4.1f} times the least")
figures.traffic_bars(traffic)
plt.show()

# %% [markdown]
# ## 2 · The patch-mixing kernel, line by line
#
# A Triton kernel describes what *one program* does. The launch starts a grid of them; each asks for its number and
# finds its own tile of the output. Inside a program one writes on small blocks (`tl.arange`), much as on tensors, but
# memory is addressed by hand: a pointer, plus an offset for each element, plus a mask for elements that do not exist.

# %% [markdown]
# **Which program am I?** Plain PyTorch speaks of the whole batch at once. A program knows one sample `i`, its partner
# `j`, and where its tile begins (`start`): a plane is one long line of pixels, whatever its width. Axis 0 of the grid
# counts tiles of all samples, axis 1 the planes: the image's channels, then the target. Numbers that may pass 2³¹ are
# made 64 bits wide.

# %%
from semimedref_kernels.patch_mix import _by_masks, _masks
from semimedref_kernels.patch_mix_triton import _accepted, _clipped_box, _in_box, _mix_tile, _places, mix_kernel


def beside(plain, kernel):
    show_code({"Plain PyTorch": plain, "Triton": kernel})


beside(
    piece(_by_masks, "box, area = _masks", "donor = probs"),
    piece(mix_kernel, "tiles = tl.cdiv", "j = tl.load"),
)

# %% [markdown]
# **The box** is cut to the image; `tl.load(boxes + 4 * i)` is `boxes[i, 0]`, by hand. Whether a pixel lies in it asks
# for row and column, by division: the box's own tiles alone do that. What is read in one go, 16 bytes, is asked for
# together (`near`).

# %%
beside(piece(_masks, "y0, x0, y1, x1", "rows, columns"), piece(_clipped_box, "y0 = ", "return"))
beside(piece(_masks, "return rows", "return rows"), piece(_in_box, "group = at", "return rows"))

# %% [markdown]
# **Reading.** Indexing becomes arithmetic on strides, so any layout will do; most often the pixels of a plane follow
# each other (`FLAT`), and a pixel's number is its place. Where a load's mask is false nothing is loaded and `other`
# stands in.

# %%
show_code({"Triton": piece(_places, "at = start", "return at")})

# %% [markdown]
# **The gate (Eq. 5; paper: 7).** A program whose tile the box touches walks through the box and keeps a tile of partial sums in
# registers. Each probability counts in whole steps of $2^{-30}$. Sums of whole numbers are exact, in whatever order:
# every program decides alike, and so does every device.

# %%
beside(piece(_by_masks, "steps = torch.where", "reached ="), piece(_accepted, "total = tl.zeros", "return tl.where"))

# %% [markdown]
# **Mixing (Eq. 6 and 7; paper: 8).** A tile that no box touches, or whose box the gate refuses, is one load and one store, in
# vectors of 16 bytes. The others read the donor beside their own pixels and choose.

# %%
beside(piece(_by_masks, "mixed, target = ", "torch.where(box, images"), piece(_mix_tile, "value = tl.load", "tl.store"))

# %% [markdown]
# ## 3 · Which program writes what
#
# The kernel runs on two small pictures, and we listen. First with the tile it ships with, then with a smaller one. A
# launch is data (`semimedref_kernels.launch.Launch`), which makes that easy.

# %%
from semimedref_kernels import patch_mix_triton

few = phantom.phantom("train", 2, 128, seed)
images, probs = (torch.tensor(x / x.max(), dtype=torch.float32)[:, None] for x in (few.images, few.masks))
box = torch.tensor([[20, 24, 68, 72]] * 2)


def watched(pixels):
    with patch.object(patch_mix_triton, "BLOCK", pixels), listening() as log:
        mix, outputs = patch_mix_triton.mix_launch(images, probs, torch.tensor([1, 0]), box, 0.0)
        mix.run()
    assert all(map(torch.equal, outputs, plain_patch_mix(images, probs, torch.tensor([1, 0]), box, 0.0)))
    return log, mix.grid


# %% [markdown]
# An address tells which pixel of which sample it is. So for each program of sample 0 we learn its tile, and whether
# it read its own sample alone or the donor too. (The gate reads the maps, not the pictures: it is left out here.)


# %%
def tiles_of_first_sample(log, grid):
    shape, found = images.shape, []
    for program in range(grid[0] // len(images)):
        loads = [at for who, kind, n, at in log if (who[:2], kind, n) == ((program, 0), "load", 4)]
        places = (np.concatenate(loads) - images.data_ptr()) // 4
        sample, _, y, x = np.unravel_index(places[(places >= 0) & (places < images.numel())], shape)
        kind = {(0,): "own", (0, 1): "both"}[tuple(np.unique(sample))]
        own = sample == 0
        found.append((program, y[own].min(), x[own].min(), y[own].max() + 1, x[own].max() + 1, kind))
    return found


views = []
for pixels in (patch_mix_triton.BLOCK, 512):
    title = f"tiles of {pixels} pixels"
    tiles = tiles_of_first_sample(*watched(pixels))
    views.append((title, images[0, 0].numpy(), box[0].tolist(), tiles))
    kinds = [kind for *_, kind in tiles]
    print(f"{title:18} {len(tiles):2} programs:", ", ".join(f"{kinds.count(k)} {k}" for k in figures.TILE_COLOURS))

# %%
figures.tile_map(views)
plt.show()

# %% [markdown]
# The picture is what was measured, and it is what the kernel's condition says:

# %%
y0, x0, y1, x1 = box[0].tolist()
for *_, tiles in views:
    for _, top, _, bottom, _, kind in tiles:
        assert kind == ("both" if y0 < bottom and y1 > top else "own")
rows = {name: sum(kind == "both" for *_, kind in tiles) / len(tiles) for name, *_, tiles in views}
print("share of tiles read twice:", ", ".join(f"{name} {share:.2f}" for name, share in rows.items()))

# %% [markdown]
# Smaller tiles ask the gate less often, but each program then has less to do. The shipped tile holds 18 rows of 224 px
# and a part of one, and a patch of 16 px touches one or two of 13.
#
# ## 4 · The loss: a matrix that need not exist
#
# With $z_{ij} = u_i \cdot v_j / \tau$ (Eq. 10; paper: 9) and soft positives $P_{ij}$, the Jaccard index of two zone codes (Eq.
# 9),
#
# $$L = \tfrac12\Big[\operatorname{mean}_i \frac{-\sum_j P_{ij}\,\log \mathrm{softmax}_j\, z_{ij}}{\sum_j P_{ij}}
# + \text{the same on } z^\top\Big] \qquad\text{(Eq. 11; paper: 9)}$$
#
# As written, several matrices of N x N numbers live at once.

# %%
show_code({"As written": piece(baselines.loss_dense, "p = jaccard", "return")})


# %%
def embeddings(n, D, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    u, v = (torch.randn(n, D, generator=random).to(dtype) for _ in range(2))
    return u, v, torch.tensor([report.code for report in phantom.phantom("train", n, 32, seed).reports])


u, v, codes = embeddings(24, width)
loss, written = soft_contrastive_loss(u, v, codes, tau, normalize=True), baselines.loss_dense(u, v, codes, tau)[0]
print(f"as written {written:.5f}, the op {loss:.5f}")
assert torch.allclose(loss, written, rtol=1e-5)

# %% [markdown]
# Memory of forward and backward together, on tensors without memory, so that even 64k pairs can be counted here. The
# fused form is the host code of the kernels with their launches left out: a kernel allocates nothing.

# %%
from semimedref_kernels import soft_contrastive_triton
from semimedref_kernels.launch import Launch


def by_autograd(u, v, codes, tau):
    baselines.loss_dense(u, v, codes, tau)[0].backward()


def by_hand(form):
    def both_ways(u, v, codes, tau):
        u, v = u.detach(), v.detach()
        loss, *lse = form.forward(u, v, codes, codes, tau, True)
        form.backward(loss, u, v, codes, codes, tau, True, *lse)

    return both_ways


forms = {
    "as written": by_autograd,
    "plain form": by_hand(soft_contrastive_plain),
    "fused": by_hand(soft_contrastive_triton),
}

# %%
sizes = 1024, 4096, 16384, 65536
memory, loss_meters = {name: [] for name in forms}, {}
for n in sizes:
    for name, form in forms.items():
        u, v = (torch.empty(n, width, device="meta", requires_grad=True) for _ in range(2))
        with Meter() as meter, patch.object(Launch, "run"):
            form(u, v, torch.empty(n, dtype=torch.int64, device="meta"), tau)
        memory[name].append(meter.peak / 1e9)
        loss_meters[name, n] = meter
for name, values in memory.items():
    print(f"{name:11}", "  ".join(f"N={n}: {value:6.3f} GB" for n, value in zip(sizes, values, strict=True)))

# %%
figures.memory_curves(sizes, memory, card=80)
plt.show()

# %% [markdown]
# Both forms of the project leave P out (section 6). The plain form still holds z; the fused form holds tiles of it in
# registers and forgets them, and of the gradient for z a block of 32 MB at a time.
#
# ## 5 · The loss kernels, line by line
#
# **A tile of logits** (Eq. 10; paper: 9) is a small matrix product. The embeddings come in chunks of D, since a tile's rows
# would not fit at once. `tl.dot` is where the GPU's matrix units work.

# %%
from semimedref_kernels.soft_contrastive_small import small_forward, small_products, soft_positives
from semimedref_kernels.soft_contrastive_tiles import shared
from semimedref_kernels.soft_contrastive_triton import _log_sums, pushes, similarities, sums_of_exp, tile_launch

beside(piece(soft_contrastive_plain.forward, "z = (u", "z = (u"), piece(similarities, "z = tl.zeros", "return z"))

# %% [markdown]
# **Forward.** A program owns a tile, and from it come the sums of its rows and of its columns at once: z is computed
# one time for both directions. Unit vectors give $|z| \le 1/\tau$; unless tau is below 1/40, $\exp(z)$ can neither
# overflow nor vanish (`SAFE`), and one exponential serves both. Below, or where rows are no unit vectors, each row and
# each column subtracts its largest z first.

# %%
beside(
    piece(soft_contrastive_plain.forward, "lse_u, lse_v", "lse_u, lse_v"),
    piece(sums_of_exp, "z = similarities", "tl.store"),
)

# %% [markdown]
# What the tiles of a row found is then put together. Without `SAFE` that takes two numbers a row: the largest
# $z_{ij}$ so far, and the sum of $\exp(z_{ij} - \text{largest})$. When a larger one comes, the old sum is rescaled.

# %%
show_code({"Triton": piece(_log_sums, "top = tl.full", "return (top")})

# %% [markdown]
# The same recurrence on numbers, with small tiles, beside what the kernel gives. The launch is the shipped one with
# other sizes.

# %%
from dataclasses import replace

u, v = (normalize(x, dim=1) for x in embeddings(64, 32)[:2])
z = u @ v[:56].T / tau
rows, cols, i = 16, 16, 21
top, total, tops, lses = torch.tensor(-torch.inf), torch.tensor(0.0), [], []
for part in z[i].split(cols):
    higher = torch.maximum(top, part.max())
    total = total * torch.exp(top - higher) + torch.exp(part - higher).sum()
    top = higher
    tops.append(top.item())
    lses.append((top + total.log()).item())
    print(f"{len(part):2} more columns: maximum {tops[-1]:.3f}, maximum + log(total) {lses[-1]:.3f}")


# %%
def log_sums(v, t, safe, **tile):
    """Log-sum-exps over the texts v from the shipped launch, with other tiles if given."""
    launch = tile_launch(
        sums_of_exp, "ieee", safe, u=u, v=v.contiguous(), tau=t,
        row_parts=torch.empty(len(v), len(u)), column_parts=torch.empty(len(u), len(v)),
    )  # fmt: skip
    launch.constants |= tile
    down, across = (-(-len(x) // launch.constants[name]) for x, name in ((u, "ROWS"), (v, "COLS")))
    replace(launch, grid=(down * across,)).run()
    parts = launch.args["row_parts"][:across]
    return (parts.sum(0).log() if safe else (parts * np.log(2)).logsumexp(0)), launch


lse, launch = log_sums(v[:56], tau, False, ROWS=rows, COLS=cols)
assert torch.allclose(lse, z.logsumexp(1), rtol=1e-6) and abs(lses[-1] - lse[i]) < 1e-5
print(f"kernel {lse[i]:.3f}, torch.logsumexp {z[i].logsumexp(0):.3f}; shipped tile {launch.constants}")
figures.online_tiles(z.numpy(), (rows, cols), i // rows, i, np.array(tops), np.array(lses))
plt.show()

# %% [markdown]
# **Why a largest z at all?** Plain exponentials have an end: float32 holds $10^{-45}$ to $10^{38}$. Images and texts may
# lie apart, as two clouds; then all cosines are low, at a low temperature every $\exp(z)$ is 0, the sum too, and its
# logarithm infinite.

# %%
u, v = (normalize(x, dim=1) for x in embeddings(64, width)[:2])
away = 0.8 * normalize(torch.ones(width), dim=0)
u, v = normalize(u + away, dim=1), normalize(v - away, dim=1)
print(f"cosines {(u @ v.T).min():.2f} to {(u @ v.T).max():.2f}")
for t in (0.07, 0.02, 0.01, 0.005):
    z, exact = u @ v.T / t, (u.double() @ v.double().T / t).logsumexp(1)
    fixed, shipped = z.exp().sum(1).log(), log_sums(v, t, soft_contrastive_plain.safe(t, True))[0]
    error = (shipped - exact).abs().max()
    print(f"tau {t:5}: exp(max z) = {z.max().exp():.0e}, without a largest z infinite in ", end="")
    print(f"{fixed.isinf().sum():2} of 64 rows, as shipped off by at most {error:.5f}")
    assert error < 1e-4

# %% [markdown]
# **Backward.** The tiles of z are computed again, which is cheaper than keeping them. With both log-sum-exps known, a
# tile of the softmax needs no second pass. What both gradients need of it is one number a pair, *push*. It is written
# for a square block at a time, 32 MB at most, which stay in the GPU's cache, and read by two matrix products, which a
# GPU's own library does best: with v for the gradient of the block's u, and transposed with u for that of its v. No
# program writes where another does, so there are no atomics and two runs give the same bits.

# %%
beside(
    piece(soft_contrastive_plain.backward, "push = ", "torch.addmm(positives.pull_v"),
    piece(pushes, "z = similarities", "tl.store(push +")
    + "\n\n"
    + piece(soft_contrastive_triton.backward, "for rows, columns in", "add_product(pushed[1]"),
)

# %% [markdown]
# **A training batch is small.** Up to 64 pairs z fits in one program, and so does P (Eq. 9; paper: 9): the sets are bits of an
# integer, and the kernel counts bits. The embeddings' lengths are taken care of inside too. First each program
# multiplies some of the D columns; then one adds up, and leaves the gradient for z behind: backward is two products
# with it. What is saved here is not memory but launches.

# %%
beside(
    piece(soft_contrastive_plain.shared, "sets = ", "return"),
    piece(shared, "return count_bits", "return count_bits") + "\n\n" + piece(soft_positives, "p = shared", "return"),
)

# %%
beside(
    piece(soft_contrastive_plain.embeddings, "long = lengths", "return both.div_"),
    piece(small_products, "u_part, v_part = u_part", "of_v +=")
    + "\n\n"
    + piece(small_forward, "if NORMALIZE", "cosine = cosine *"),
)

# %%
u, v, codes = embeddings(batch, width)
counts = {}
for name, form in forms.items():
    given = [x.to("meta").requires_grad_() for x in (u, v)] + [codes.to("meta")]
    with Meter() as meter, patch.object(Launch, "run") as run:
        form(*given, tau)
    counts[name] = meter.operations + run.call_count
    print(f"{name:11} {counts[name]:3} launches, forward and backward, at N = {batch}")

# %% [markdown]
# **Right or not?** Both regimes in the interpreter, against the op in float64. Errors are relative: of the loss to
# itself, of the gradients to their largest number. Numbers in bfloat16 carry 8 bits.


# %%
def fused_loss(u, v, codes, tau):
    loss, *lse = soft_contrastive_triton.forward(u, v, codes, codes, tau, True)
    return loss, *soft_contrastive_triton.backward(torch.ones(()), u, v, codes, codes, tau, True, *lse)


for n, dtype in ((24, torch.float32), (24, torch.bfloat16), (96, torch.float32), (96, torch.bfloat16)):
    u, v, codes = embeddings(n, 64, dtype)
    exact = [x.double().requires_grad_() for x in (u, v)]
    loss = soft_contrastive_loss(*exact, codes, tau, normalize=True)
    wanted = loss, *torch.autograd.grad(loss, exact)
    found = fused_loss(u, v, codes, tau)
    errors = [max(1e-9, (a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True)]
    names = zip(("loss", "du", "dv"), errors, strict=True)
    print(f"N={n} {dtype}: " + ", ".join(f"{name} {error:.0e}" for name, error in names))
    assert max(errors) < (2e-2 if dtype == torch.bfloat16 else 1e-5)

# %% [markdown]
# ## 6 · Class sums: P without P (Eq. 12)
#
# A report is six bits, so there are at most $2^6 = 64$ different rows of P, but for the diagonal. Order a batch by
# code and P falls into blocks of one number each.

# %%
pairs = phantom.phantom("train", 300, 32, seed)
codes = torch.tensor([report.code for report in pairs.reports])
P, order = jaccard(codes), codes.argsort(stable=True)
table = soft_contrastive_plain.shared(torch.arange(64), 6, torch.float64)
print(f"{len(codes)} reports, {len(codes.unique())} different codes")
print(f"P holds {P.numel()} numbers, the table {table.numel()}")
figures.class_blocks(P.numpy(), P[order][:, order].numpy(), table.numpy())
plt.show()

# %% [markdown]
# So $\sum_j P_{ij} v_j$ needs the sum of the $v_j$ of each code, 64 of them, a product with the 64 x 64 table, and
# for each i the row of its own code. The diagonal, forced to 1, is put right after.

# %%
random = torch.Generator().manual_seed(seed)
V = torch.randn(len(codes), width, generator=random, dtype=torch.float64)
sums = torch.zeros(64, width, dtype=torch.float64).index_add(0, codes, V)  # S_c = sum of v_j over a_j = c
PV = (table @ sums)[codes] + (1 - table[codes, codes])[:, None] * V  # Eq. 12
P = soft_contrastive_plain.shared(codes, 6, torch.float64).fill_diagonal_(1)
error = (PV - P @ V).abs().max()
print(f"largest number of P V {PV.abs().max():.2f}, largest difference {error:.0e}")
assert error < 1e-12

# %% [markdown]
# The op's `class_sums` gives this for both directions, already weighted: $W v$ with
# $W_{ij} = P_{ij}\,(\tfrac{1}{2N R_i} + \tfrac{1}{2M C_j})$. It sums by a product with a 64 x N matrix instead of
# `index_add`, which on a GPU adds by atomics, in any order.

# %%
from torch.utils.flop_counter import FlopCounterMode

W = P / (2 * len(P) * P.sum(1, keepdim=True)) + P / (2 * len(P) * P.sum(0))
pull = soft_contrastive_plain.class_sums(V, V, codes, codes).pull_u
assert torch.allclose(pull, W @ V, rtol=1e-12, atol=1e-15)
for n in (1024, 16384, 65536):
    x, c = torch.empty(n, width, device="meta"), torch.empty(n, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as by_class, Meter() as meter:
        soft_contrastive_plain.class_sums(x, x, c, c)
    print(f"N={n:5}: {by_class.get_total_flops() / 1e9:6.2f} GFLOP by classes, {4 * n * n * width / 1e9:8.2f} with W")
print(f"class_sums is {meter.operations} operations of plain PyTorch; the kernels do the same in two launches")

# %% [markdown]
# ## 7 · What a GPU can gain at most
#
# A GPU can move so many bytes a second and do so many operations a second. An operation that does few of them a byte
# waits for memory, whatever its arithmetic: its bound is bandwidth times operations a byte (the *roofline*). Below,
# the published figures of an H100 SXM. Float32 by three TF32 products (`tf32x3`) keeps float32's digits at a third of
# the rate.

# %%
BANDWIDTH = 3.35e12  # bytes a second
ROOFS = {"bf16": 989e12, "tf32x3": 495e12 / 3, "fp32": 67e12}  # operations a second
pixels = s.numel() + p.numel()
work = pixels + int((boxes[:, 2:] - boxes[:, :2]).prod(1).sum())  # a choice a pixel, an addition a pixel of the gate
for name, numbers in traffic.items():
    print(f"patch mixing, {name:16} {work / 1e6 / sum(numbers):.3f} operations a byte, "
          f"at least {1e12 * sum(numbers) / BANDWIDTH:5.1f} µs")  # fmt: skip

# %% [markdown]
# For the loss at 16k pairs: its products, and its bytes. Every program reads many rows of v, which mostly come from
# cache, so there are two limits: every load goes to memory, or each launch reads each tensor once. Counts from the
# interpreter, and of what the two products take and give, are the first: over the number of pairs they are a
# quadratic, so two small sizes give it for all.


# %%
def counted(n, dtype):
    """Operations of the matrix products, and bytes loaded and stored, of forward and backward in the interpreter."""
    operations, moved, multiply, product = [], [], machine.create_dot, soft_contrastive_triton.add_product

    def multiplying(a, b, *rest):
        operations.append(2 * a.data.size * b.data.shape[-1])
        return multiply(a, b, *rest)

    def by_library(total, a, b):
        product(total, a, b)
        operations.append(2 * a.numel() * b.shape[1])
        moved.extend(x.nbytes for x in (a, b, total, total))

    with (
        listening() as log,
        patch.object(machine, "create_dot", multiplying),
        patch.object(soft_contrastive_triton, "add_product", by_library),
    ):
        fused_loss(*embeddings(n, width, dtype), tau)
    return sum(operations), sum(moved) + sum(nbytes * len(where) for _, _, nbytes, where in log)


# %%
def counted_at(n, dtype, few=128):
    one, two = (np.array(counted(k * few, dtype)) for k in (1, 2))
    quadratic = (two - 2 * one) / 2
    return quadratic * (n / few) ** 2 + (one - quadratic) * (n / few)


# %%
n = 16384
x, c = torch.empty(n, width, device="meta", requires_grad=True), torch.empty(n, dtype=torch.int64, device="meta")
with FlopCounterMode(display=False) as written_out:
    by_autograd(x, x, c, tau)
meter = loss_meters["as written", n]
bounds = {"loss as written, fp32": (written_out.get_total_flops(), *2 * [meter.read + meter.written], ROOFS["fp32"])}
for dtype, name, roof in ((torch.float32, "fp32", "tf32x3"), (torch.bfloat16, "bf16", "bf16")):
    operations, loaded = counted_at(n, dtype)
    once = n * width * (8 * dtype.itemsize + 16)  # u and v in two launches and two products; gradients in float32
    once += 3 * n * n * dtype.itemsize  # push, written once and read twice, if no cache holds its blocks
    bounds[f"loss fused, {name}"] = operations, loaded, once, ROOFS[roof]
for name, (operations, most, once, roof) in bounds.items():
    times = [f"{1e3 * max(nbytes / BANDWIDTH, operations / roof):.2f}" for nbytes in (once, most)]
    print(f"{name:22} {operations / 1e12:.2f} T operations, at least {' to '.join(dict.fromkeys(times))} ms")
print(f"u and v together: {2 * n * width * 4 / 1e6:.1f} MB in float32")

# %%
spans = {
    f"patch mixing {name}": 2 * [work / 1e6 / sum(traffic[name])] + [ROOFS["fp32"]] for name in ("as written", "fused")
}
spans |= {name: (operations / most, operations / once, roof) for name, (operations, most, once, roof) in bounds.items()}
figures.gpu_bounds(spans, BANDWIDTH, ROOFS)
plt.show()

# %% [markdown]
# Patch mixing sits on the slope: only fewer bytes help, and the fused form is near the fewest. The loss as written
# sits on the slope too, although it does matrix products: its N x N matrices come and go through memory. The fused
# loss does more operations, since it computes z one time more, and may still be faster, if u and v stay in the cache
# (an H100 has 50 MB of it). These are bounds, not times: what is reached, section 8 has to say.
#
# **Compiled, without a GPU.** The same launches can be compiled ahead of time for a GPU that is not here. That needs
# a process which does not interpret kernels. What to look for: no spills, and 16-byte accesses (`v4.b32`). Tiles that
# are copied to shared memory ahead of their use are no plain loads and are not listed.

# %% tags=["nbval-ignore-output"]
import subprocess
import sys

program = """
from semimedref_kernels import aot
found = aot.configurations("sm_90")
names = "patch_mix fp32", "sums_of_exp bf16 D=256", "pushes bf16 D=256"
print(aot.table([aot.check(name, found[name], "sm_90") for name in names]))
"""
environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
print(done.stdout + done.stderr)
done.check_returncode()

# %% [markdown]
# ## 8 · What was measured
#
# `python -m semimedref_kernels.benchmark` checks every form against float64, times them in turn and writes one JSON for
# each device to `kernels/results/`. Here is what lies there, of GPUs if there is one: forward and backward together,
# of a training step's sizes. A ratio below 1 means that the form is faster than ours.

# %% tags=["nbval-ignore-output"]
from pathlib import Path

results = Path(baselines.__file__).parents[2] / "results"
records = {path.stem: benchmark.read(path) for path in sorted(results.glob("*.json"))}
on_gpu = [name for name, record in records.items() if record["kind"] == "gpu"]
print(f"measured on {', '.join(on_gpu)}" if on_gpu else "not yet measured on a GPU; these are times of a CPU")
shown = {name: records[name] for name in on_gpu or records}
for record in shown.values():
    typical = [r for r in record["rows"] if r["part"] == "both" and 32 in (r["sizes"].get("B"), r["sizes"].get("N"))]
    print("\n" + benchmark.table(record | {"rows": typical}))

# %% [markdown]
# What the H100 says, by the times from CUDA graphs, which leave the launches out. Patch mixing forward, all that
# training needs: ours is fastest at every size; backward, the compiled `where` nearly always is. The loss of a
# training batch, both ways: ours is fastest for 32 pairs of 256 numbers and level for 64; at 768 numbers its one
# program has too much to do, and the compiled dense loss takes half to three quarters of its time. With the launches
# (*median ms*) ours is the fastest form of the loss of a batch; patch mixing of most sizes waits for the host to start
# it, and a little longer than the compiled `where`.
#
# The loss of a thousand pairs and more was slow: a compiled dense loss took between a fourteenth and nine tenths of
# its time, with up to 14 times its memory. Backward computed z again for each 128 or 256 of the D columns, and forward
# kept few programs busy. That is why the kernels above are cut as they are now. The record is older than they are, both
# of patch mixing and of the loss, and nobody has timed them since (`docs/kernels.md` says what to expect). On a CPU
# there is no kernel: "ours" is then the plain form.
#
# Under what the machine itself reaches, all sizes, forward and backward apart:

# %% tags=["nbval-ignore-output"]
for record in shown.values():
    display(benchmark.roofline(record))

# %% [markdown]
# **To remember:** what patch mixing as written moves against the fused form, what the loss holds at 16k pairs, and
# how many launches a training step's loss takes.

# %%
at = sizes.index(16384)
print(f"patch mixing: {sum(traffic['as written']) / sum(traffic['fused']):.1f} times fewer bytes fused than as written")
ratio = memory["as written"][at] / memory["fused"][at]
print(f"loss at N = 16384: {ratio:.0f} times less memory fused than as written")
print(f"loss at N = {batch}: {counts['fused']} launches fused, {counts['as written']} as written")
