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
# # 09 · Two operations in Triton
#
# **What you will see.** Two parts of the training step as programs for a GPU, written in
# [Triton](https://triton-lang.org), a dialect of Python. Here they run without a GPU, in Triton's interpreter. After
# this notebook you
#
# - can count the bytes of twenty PyTorch operations and of one fused kernel, and say why the kernel moves fewer;
# - can read and write a small Triton kernel: programs, pointers, masks;
# - have read the kernel of T-PatchMix, and know which program writes which pixels;
# - know how the contrastive loss works without its $N \times N$ matrices, and the least time that a GPU needs for it.
#
# **What you need.** PyTorch, T-PatchMix from [04](04_t_patchmix.ipynb) and ITCL from [05](05_itcl.ipynb). You need no
# Triton, no CUDA and no GPU.
#
# **Time.** About 35 minutes to read, with the exercises; about 20 seconds to run.

# %% tags=["parameters"]
image_size = 224
batch_size = 8
width = 256  # numbers in an embedding, D
seed = 1

# %% tags=["nbval-ignore-output"]
import os

os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when kernels are imported: run them on the CPU, in NumPy

from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import torch
import triton
import triton.language as tl
from IPython.display import display
from torch.nn.functional import normalize

from semimedref_core import Config, anatomy, figures, patchmix, versions
from semimedref_core.data import phantom
from semimedref_core.teaching import check, source_of, stand_in_teacher
from semimedref_core.tools import Meter, bytes_moved, listening
from semimedref_kernels import benchmark, jaccard, patch_mix, patch_mix_triton
from semimedref_kernels.benchmark import baselines

figures.notebook_style(100)
print(versions("triton"))

# %% [markdown]
# ## 1 · A step moves bytes
#
# A *kernel* is a small program that a GPU starts many times at once. Each PyTorch operation that computes something
# launches at least one kernel. The kernel reads its inputs from the GPU's memory and writes its result back. Memory is
# the slow part: while an H100 moves one byte, it can do about twenty additions or products in float32 (section 5). So a
# computation that does little with each number takes as long as its bytes take.
#
# T-PatchMix is such a computation. We take a batch of phantom images whose patches are drawn as in training: their side,
# the gate and the rule for zones are those of `Config`. Grey images stand for the strong views $s$. A stand-in teacher,
# made of blurred masks, gives the probabilities $p$.

# %%
config = Config(image_size=image_size, batch_size=batch_size)
pairs, rng = phantom.phantom("train", batch_size, image_size, seed), np.random.default_rng(seed)
s, masks = (torch.from_numpy(each)[:, None].float() for each in (pairs.images / 255, pairs.masks))
p = stand_in_teacher(masks, rng)
zones = np.tile(anatomy.QATA.boxes(image_size, image_size), (batch_size, 1, 1))
plan = vars(patchmix.propose(rng, pairs.reports, zones, config.patch_mode, config.patch_p, config.patch_zones))
plan = {name: torch.as_tensor(value) for name, value in plan.items()}
boxes, _ = patchmix.patch_boxes(p, **plan, block=config.block, mode=config.patch_mode, gate=config.gate)
partner, offered = plan["partner"], int((boxes[:, 2] > boxes[:, 0]).sum())
print(f"images {tuple(s.shape)} and maps {tuple(p.shape)}: {(s.nbytes + p.nbytes) / 1e6:.2f} MB")
print(f"{offered} patches of at most {config.block} px offered, gate {config.gate}")

# %% [markdown]
# **The paper**, in our words and with our numbers for its equations: with $m$ the box of sample $i$, as a map of zeros
# and ones, and $j$ its partner,
#
# - gate: the mean of $p_j$ over the box is at least $\mathrm{conf\_th}$ (Eq. 5; paper: 7);
# - image: $m\,s_j + (1-m)\,s_i$ (Eq. 6; paper: 8);
# - target: $m\,p_j + (1-m)\,p_i$, which is later cut at 0.5 (Eq. 7; paper: 8).
#
# The cell shows the usual PyTorch code for this. `torch.where(m, a, b)` is $m\,a + (1-m)\,b$ in one PyTorch operation.
# The public function of this project is `patch_mix`. The check mixes one accepted sample by hand.

# %%
display(source_of(baselines.patch_mix_where))
mixed, target, accepted = patch_mix(s, p, partner, boxes, config.gate)  # the public function
i = int(accepted.nonzero()[0])
j, (y0, x0, y1, x1) = int(partner[i]), boxes[i].tolist()
m = torch.zeros_like(p[i])
m[:, y0:y1, x0:x1] = 1
assert all(torch.equal(got[i], m * x[j] + (1 - m) * x[i]) for got, x in ((mixed, s), (target, p)))
print(f"{int(accepted.sum())} of {batch_size} samples are mixed; sample {i} takes a box of {y1 - y0} x {x1 - x0} px")

# %% [markdown]
# ### Exercise 09.1 (predict)
#
# Any code must read each input once and write each output once. How many MB is that for a batch of 32 images of 3 x 224
# x 224 and 32 maps of 1 x 224 x 224, all in float32? (1 MB is a million bytes.)
#
# <details><summary>Solution</summary>
#
# There are $32 \cdot (3 + 1) \cdot 224^2 = 6.4$ million numbers of 4 bytes, which makes 25.7 MB. The code reads them
# and writes as many: 51.4 MB. Boxes and partners add 1280 bytes (int64).
# </details>

# %%
least_megabytes = None
check("09.1", least_megabytes)

# %% [markdown]
# Now we count. `Meter` watches PyTorch and adds up what each PyTorch operation reads and writes. It works on tensors of
# the device `meta`, which have shapes and no memory. `listening` watches Triton's interpreter, which runs the kernel
# here. It notes each address that a program loads or stores. We also run both forms on real numbers: their images and
# targets must equal those of `patch_mix`.
#
# **Look at** the first two bars. The code as written moves images and maps through memory several times. The fused
# kernel moves about the least possible, if a cache keeps what the kernel has read. Without a cache it reads parts of
# the partners' maps several times, because every program that meets a box computes the gate for itself.

# %%
arguments = s, p, partner, boxes, config.gate
on_meta = [x.to("meta") for x in arguments[:4]]
with Meter() as meter:
    baselines.patch_mix_where(*on_meta, config.gate)
calls = {"as written": meter.operations, "fused": 1}
written = baselines.patch_mix_where(*arguments)
with listening() as log:
    fused = patch_mix_triton.patch_mix_fused(*arguments)
assert all(torch.equal(each[0], mixed) and torch.equal(each[1], target) for each in (written, fused))

least, stored = (s.nbytes + p.nbytes) / 1e6, bytes_moved(log, "store") / 1e6
traffic = {"as written": (meter.read / 1e6, meter.written / 1e6)}
traffic["fused"] = bytes_moved(log, "load", once=True) / 1e6, stored
traffic["fused, no cache"] = bytes_moved(log, "load") / 1e6, stored
traffic["least possible"] = least, least
figures.traffic_bars(traffic)
plt.show()
print(f"as written {calls['as written']} PyTorch operations, fused {calls['fused']} launch")
for name, numbers in traffic.items():
    print(f"{name:16} {sum(numbers):5.1f} MB, {sum(numbers) / (2 * least):4.2f} times the least")

# %% [markdown]
# ## 2 · A first kernel
#
# A Triton kernel says what *one program* does. A launch starts a *grid* of programs, and each gets its own number from
# `tl.program_id`. A program works on small blocks of numbers, much as PyTorch works on tensors. But it addresses memory
# by hand: `x` is only the address of the first number, so `x + offsets` is a block of addresses.
#
# A block has a fixed size, which is a power of two. A *mask* marks the numbers of the block that exist. Where the mask
# is false, `tl.load` reads nothing and gives `other`, and `tl.store` writes nothing.
#
# `@triton.jit` marks a kernel, and `tl.constexpr` marks a number that is known when the kernel is compiled. This kernel
# adds up each row of a matrix, with one program for each row. `picture` has 8 rows of 12 numbers. So the
# block has 16 numbers, and the mask hides four of them.


# %%
@triton.jit
def row_sums_kernel(x, out, columns, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    value = tl.load(x + row * columns + column, mask=column < columns, other=0.0)
    tl.store(out + row, tl.sum(value, 0))


def row_sums(x):
    out = torch.empty(len(x))
    row_sums_kernel[(len(x),)](x, out, x.shape[1], BLOCK=triton.next_power_of_2(x.shape[1]))
    return out


picture = torch.zeros(9, 12)[:8]  # the ninth row is memory that nobody else uses
picture[3:6, :3] = 1  # a lesion at the left edge
print("kernel ", row_sums(picture).tolist())
print("PyTorch", picture.sum(1).tolist())
assert torch.equal(row_sums(picture), picture.sum(1))

# %% [markdown]
# ### Exercise 09.2 (change)
#
# The contrastive loss needs $\log\sum_j e^{x_{ij}}$ for each row $i$. Change the kernel so that it computes this, and
# write a function `log_sum_exp(x)` that launches it. The numbers can be as large as 200.
#
# <details><summary>Solution</summary>
#
# ```python
# @triton.jit
# def log_sum_exp_kernel(x, out, columns, BLOCK: tl.constexpr):
#     row, column = tl.program_id(0), tl.arange(0, BLOCK)
#     value = tl.load(x + row * columns + column, mask=column < columns, other=float("-inf"))
#     top = tl.max(value, 0)
#     tl.store(out + row, top + tl.log(tl.sum(tl.exp(value - top), 0)))
#
#
# def log_sum_exp(x):
#     out = torch.empty(len(x))
#     log_sum_exp_kernel[(len(x),)](x, out, x.shape[1], BLOCK=triton.next_power_of_2(x.shape[1]))
#     return out
# ```
#
# Masked numbers must not count. A zero would count as $e^0 = 1$, while $-\infty$ counts as 0. The kernel subtracts the
# largest number first, because $e^x$ exceeds float32 above about $x = 88$.
# </details>

# %%
log_sum_exp = None  # def log_sum_exp(x): ...
check("09.2", log_sum_exp)

# %% [markdown]
# ### Exercise 09.3 (break)
#
# Take `mask=column < columns, other=0.0` out of `row_sums_kernel`. For which rows of `picture` is the sum now wrong?
# Predict the list of rows, counted from 0. Then run the cell with the broken kernel. It prints both lists and stops at
# its last line, the check. At the end put the mask back.
#
# <details><summary>Solution</summary>
#
# `[2, 3, 4]`. The rows follow each other in memory. Without the mask, program $i$ reads 16 numbers instead of 12, and
# the last four are the beginning of row $i + 1$. Row 2 is empty and gets the lesion of row 3. Rows 3 and 4 get the
# lesion of the next row too. Row 5 holds lesion, but the next row is empty, so its sum is right by luck. Because of
# such luck a forgotten mask can stay unnoticed.
# </details>

# %%
wrong_rows = None
check("09.3", wrong_rows)

# %% [markdown]
# ## 3 · The kernel of T-PatchMix
#
# A *plane* is one channel of an image, or one map. The kernel treats a plane as one long line of pixels and cuts it
# into *tiles* of 4096. Each program computes one tile, and `start` is the tile's first pixel.
#
# **Mixing** (Eq. 6 and 7; paper: 8). A program loads its own pixels. If its box is accepted (`mix`), it also loads the
# partner's pixels and chooses between the two. Then it stores. `_places` gives the offsets of the pixels, and `_in_box`
# says which of them lie in the box. `near` marks whole groups of 16 bytes, because a GPU reads such a group in one go.
# (`FLAT` means that rows follow each other without a gap. Otherwise the kernel computes the offsets from the strides.)

# %%
display(source_of(patch_mix_triton._mix_tile, patch_mix_triton._places, patch_mix_triton._in_box))

# %% [markdown]
# **The gate** (Eq. 5; paper: 7). If a tile meets the box (`_touched`), its program must know whether the gate accepts
# the box. Programs cannot wait for each other, so each of them adds up the partner's map over the whole box. All of them
# run the same code on the same numbers, so they agree.
#
# But PyTorch, another GPU or other block sizes add in another order, and a sum of floats depends on the order. Then a box
# at the threshold could pass on one device and fail on another. So the kernel counts each probability in whole steps of
# $2^{-30}$ (`STEPS`), because sums of whole numbers are exact. The check adds up one box in two orders.

# %%
display(source_of(patch_mix_triton._touched, patch_mix_triton._accepted))
box = p[j, 0, y0:y1, x0:x1].flatten().numpy()
for name, numbers in (("floats", box), ("whole steps", np.floor(box * np.float32(2**30)).astype(np.float64))):
    forward, backward = (np.cumsum(one_way)[-1] for one_way in (numbers, numbers[::-1]))
    print(f"{name:11} {forward:.10g} forward, {backward:.10g} backward: {'' if forward == backward else 'not '}equal")
assert forward >= int(config.gate * 2**30) * len(box)  # Eq. 5: so the gate accepted it

# %% [markdown]
# **Which program reads and writes what?** We run the kernel on two small images and record its addresses. They tell the
# tile of each program, and whether the program read its own sample only or its partner as well. (The appendix shows the
# whole kernel.)
#
# **Look at** the orange tiles. The program of such a tile reads the partner's map over the whole box before it stores a
# pixel. The left picture has the built-in tiles. Three programs of this plane compute the gate. On the right, tiles are
# four times smaller. Seven programs compute the gate for their pixels. Program 0 computes it too, because it stores
# `accepted`. In the map's plane three and seven programs compute it again. Larger tiles would need fewer reads. But
# then there are too few programs for the many cores of a GPU, and more pixels wait for the gate.

# %%
few, box = phantom.phantom("train", 2, 128, seed), torch.tensor([[20, 24, 68, 72]] * 2)
images, maps = (torch.tensor(x / x.max(), dtype=torch.float32)[:, None] for x in (few.images, few.masks))


def tiles(pixels):
    """Of sample 0: each program's number, its tile (y0, x0, y1, x1), and whose pixels it reads."""
    with patch.object(patch_mix_triton, "BLOCK", pixels), listening() as log:
        patch_mix_triton.patch_mix_fused(images, maps, torch.tensor([1, 0]), box, 0.0)
    for program in range(128 * 128 // pixels):
        loads = [each for each in log if each.program[:2] == (program, 0) and each.kind == "load"]
        sample, _, y, x = np.unravel_index(np.concatenate([each.inside(images) for each in loads]), images.shape)
        own = sample == 0
        yield program, y[own].min(), x[own].min(), y[own].max() + 1, x[own].max() + 1, "own" if own.all() else "both"


views = {pixels: list(tiles(pixels)) for pixels in (patch_mix_triton.BLOCK, 1024)}
figures.tile_map([(f"tiles of {n} pixels", images[0, 0].numpy(), box[0].tolist(), each) for n, each in views.items()])
plt.show()
for pixels, found in views.items():
    both = sum(kind == "both" for *_, kind in found)
    print(f"tiles of {pixels} pixels: {both} of {len(found)} programs read the partner's pixels")
assert [sum(kind == "both" for *_, kind in found) for found in views.values()] == [3, 7]

# %% [markdown]
# ## 4 · The loss without its matrix (Eq. 12)
#
# **The paper** compares all $N$ images with all $N$ texts of a batch. With $z_{ij} = u_i \cdot v_j / \tau$ (Eq. 10;
# paper: 9) and soft positives $P_{ij}$, the Jaccard index of two zone vectors (Eq. 9; paper: 9), the loss is
#
# $$L = \tfrac12\Big[\operatorname{mean}_i \frac{-\sum_j P_{ij}\,\log \mathrm{softmax}_j\, z_{ij}}{\sum_j P_{ij}}
# + \text{the same on } z^\top\Big] \qquad\text{(Eq. 11; paper: 9)}$$
#
# The usual code holds several matrices of $N \times N$ numbers at once, $P$ and $z$ among them. We measure the memory
# of forward and backward together, again on tensors of the device `meta`. For the fused form we run the Python code
# around the kernels without the kernels, because a kernel allocates nothing.
#
# **Look at** the slopes. For the code as written, four times the pairs take about sixteen times the memory, until a
# card of 80 GB is full (dashed line). For the fused form they take two to six times as much, because it never holds $z$
# or $P$. It does hold the gradient of $z$, in blocks of at most 32 MB. At 1024 pairs one block is the whole gradient.

# %%
from semimedref_kernels import soft_contrastive_plain, soft_contrastive_tiles, soft_contrastive_triton

display(source_of(baselines.loss_dense))
tau, sizes, meters, launches = config.tau, (32, 1024, 4096, 16384, 65536), {}, {}


def as_written(u, v, codes):
    baselines.loss_dense(u, v, codes, tau)[0].backward()


def kernels(u, v, codes):
    loss, *kept = soft_contrastive_triton.forward(u.detach(), v.detach(), codes, codes, tau, True)
    soft_contrastive_triton.backward(loss, u.detach(), v.detach(), codes, codes, tau, True, *kept)


for n in sizes:
    for name, form in (("as written", as_written), ("fused", kernels)):
        u, v = (torch.empty(n, width, device="meta", requires_grad=True) for _ in range(2))
        with Meter() as meters[name, n], patch("semimedref_kernels.launch.Launch.run") as run:
            form(u, v, torch.empty(n, dtype=torch.int64, device="meta"))
        launches[name, n] = meters[name, n].operations + run.call_count
memory = {name: [meters[name, n].peak / 1e9 for n in sizes[1:]] for name in ("as written", "fused")}
figures.memory_curves(sizes[1:], memory, card=80)
plt.show()
print("\n".join(f"{name:10} {', '.join(f'{value:.3f}' for value in row)} GB" for name, row in memory.items()))

# %% [markdown]
# **Tiles of $z$.** A program computes one small tile of $z$. It adds up $e^{z}$ over the rows and over the columns of
# the tile, and then drops the tile. `similarities` computes the tile: it multiplies a few columns of the embeddings at
# a time. `dot` is `tl.dot` with a chosen precision and runs on the GPU's matrix units. `tile_of` gives the place of the
# tile. The GPU computes $2^x$ faster than $e^x$, so $z$ is multiplied by $\log_2 e$ (`LOG2E`). `sums_of_exp` adds up.
# If the numbers could exceed float32, it subtracts the largest one first, as in Exercise 09.2. With unit vectors and
# $\tau > 1/40$ they cannot (`SAFE`).
#
# A second kernel adds up the parts of a row from all tiles. This gives the sum of the whole row. The check does this by
# hand for one row. The backward pass computes the tiles again. This costs one more product, and saves the memory of
# $z$.

# %%
display(source_of(soft_contrastive_triton.similarities, soft_contrastive_triton.sums_of_exp))
u, v = (normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(n)), dim=1) for n in (70, 300))
parts = {"row_parts": torch.empty(3, len(u)), "column_parts": torch.empty(2, len(v))}
launch = soft_contrastive_triton.tile_launch(
    soft_contrastive_triton.sums_of_exp, "ieee", safe=True, u=u, v=v, tau=tau, **parts
)
launch.run()
by_hand, right = parts["row_parts"][:, 0].sum().log(), (u @ v.T / tau).logsumexp(1)[0]
print(f"{launch.grid[0]} programs, each with {launch.constants['ROWS']} rows and {launch.constants['COLS']} columns")
print(f"row 0: parts {', '.join(f'{part:.3f}' for part in parts['row_parts'][:, 0])}")
print(f"log of their sum {by_hand:.4f}, torch.logsumexp {right:.4f}")
assert torch.isclose(by_hand, right, rtol=1e-5)

# %% [markdown]
# **The sums over $P$ without $P$** (Eq. 12). The part of Eq. 11 for one image is
#
# $$\sum_j P_{ij}\log\mathrm{softmax}_j\,z_{ij} = \frac1\tau\,u_i\cdot\sum_j P_{ij} v_j
# - \Big(\sum_j P_{ij}\Big)\log\sum_j e^{z_{ij}}$$
#
# The tiles give the last logarithm. Two sums are left for each image: $\sum_j P_{ij} v_j$ and $\sum_j P_{ij}$. A report
# is six bits, so there are only 64 possible codes, and off the diagonal $P_{ij}$ depends on the two codes alone. So we
# add up the $v_j$ of each code, which gives 64 sums. We multiply them with $J_{64}$, the table of $P$ for all pairs of
# codes. Then each image takes the row of its code. At the end we correct the diagonal, because $P_{ii} = 1$ even for
# reports without infection.
#
# In `tables_kernel`, `total` holds the sums by code and `table` is $J_{64}$. `shared` counts bits. The code below does
# the same by hand. **Look at** the middle panel: with pairs ordered by code, $P$ falls into blocks, and each block
# holds one number. The right panel holds all these numbers.

# %%
display(source_of(soft_contrastive_triton.tables_kernel, soft_contrastive_tiles.shared))
codes = torch.tensor([report.code for report in phantom.phantom("train", 300, 32, seed).reports])
V = torch.randn(300, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
J64 = soft_contrastive_plain.shared(torch.arange(64), 6, torch.float64)
sums = torch.zeros(64, width, dtype=torch.float64).index_add(0, codes, V)  # of the v_j of each code
without_P = (J64 @ sums)[codes] + (1 - J64[codes, codes])[:, None] * V  # the second term is the diagonal
P = soft_contrastive_plain.shared(codes, 6, torch.float64).fill_diagonal_(1)
assert torch.allclose(without_P, P @ V, rtol=1e-12, atol=1e-12) and torch.equal(P.float(), jaccard(codes))
z0 = V @ V[0] / tau  # row 0, with u = v: both sides of the formula above
right = V[0] @ without_P[0] / tau - P[0].sum() * z0.logsumexp(0)
assert torch.isclose((P[0] * z0.log_softmax(0)).sum(), right, rtol=1e-10)
order = codes.argsort(stable=True)
figures.class_blocks(P.numpy(), P[order][:, order].numpy(), J64.numpy())
plt.show()
print(f"{len(codes.unique())} of 64 codes occur in {len(codes)} reports; P has {P.numel()} numbers, J64 {J64.numel()}")

# %% [markdown]
# ## 5 · The least time on a GPU
#
# A GPU has two speeds: bytes a second and operations a second. In this section *operations* are additions and products
# (for patch mixing also choices), and *PyTorch operations* are the calls counted before. The slower of the two speeds
# limits a kernel. This is the *roofline* model. We take the published numbers of an H100, and we count bytes and
# operations. *tf32x3* computes a float32 product as three products of shorter numbers. Our tiles use it. The two
# products of the gradients are the library's, and by PyTorch's default they run in plain float32.
#
# The fused loss does four matrix products, and so $8N^2D$ operations: $z$ in the forward pass, $z$ again in the
# backward pass, and one product for each of the two gradients. Its programs read the same rows of $u$ and $v$ many
# times, and the backward pass writes the gradient of $z$ in blocks of 32 MB. An H100 has 50 MB of cache. The cache may
# serve all repeated reads, or none. These two cases are the two ends of each line in the figure. For the code as
# written we always count every read and write of every PyTorch operation. That is right for the loss, because one
# matrix has 1.07 GB. It is too much for this small patch mixing: its 24.5 MB would fit into the cache.
#
# The output has the least time of the fused forms, and the counted time of the code as written. **Look at** the slope,
# where memory is the limit, and at the flat roofs, where arithmetic is:
#
# - *Patch mixing*, as written and fused, is far down on the slope. So only fewer bytes raise its limit.
# - *The loss as written* is on the slope too, although it consists of matrix products, because its matrices go to memory
#   and come back.
# - *The fused loss in bf16* can reach its roof only with the cache.
# - *The fused loss in float32* can reach its roof even without the cache. Its green line lies between two roofs, because
#   half of its products run as tf32x3 and half as fp32.

# %%
from torch.utils.flop_counter import FlopCounterMode

BANDWIDTH, ROOFS = 3.35e12, {"bf16": 989e12, "tf32x3": 495e12 / 3, "fp32": 67e12}  # bytes, operations a second
area = int((boxes[:, 2:] - boxes[:, :2]).prod(1).sum())
choices = s.numel() + p.numel() + area  # one choice for each pixel, one addition for each pixel of the gate
moved = {name: 1e6 * sum(numbers) for name, numbers in traffic.items()}
bounds = {"patch mixing as written": (choices, *2 * [moved["as written"]], ROOFS["fp32"])}
bounds["patch mixing fused"] = choices, moved["fused, no cache"], moved["fused"], ROOFS["fp32"]
n, meter = 16384, meters["as written", 16384]
u, v = (torch.empty(n, width, device="meta", requires_grad=True) for _ in range(2))
with FlopCounterMode(display=False) as counter:
    as_written(u, v, torch.empty(n, dtype=torch.int64, device="meta"))
bounds["loss as written, fp32"] = counter.get_total_flops(), *2 * [meter.read + meter.written], ROOFS["fp32"]
mean = 2 / (1 / ROOFS["tf32x3"] + 1 / ROOFS["fp32"])  # of the products of tiles and of gradients, as many each
for name, dtype, roof in (("fp32", torch.float32, mean), ("bf16", torch.bfloat16, ROOFS["bf16"])):
    tile, size = soft_contrastive_triton.tile_sizes(u.to(dtype)), dtype.itemsize
    once = n * width * (8 * size + 16)  # u and v in two launches and two products; float32 gradients
    again = 2 * n * n * width * size * (1 / tile["ROWS"] + 1 / tile["COLS"]) + 3 * n * n * size
    bounds[f"loss fused, {name}"] = 8 * n * n * width, once + again, once, roof
figures.gpu_bounds({name: (f / a, f / b, roof) for name, (f, a, b, roof) in bounds.items()}, BANDWIDTH, ROOFS)
plt.show()
least_time = {name: [max(b / BANDWIDTH, f / roof) for b in ab] for name, (f, *ab, roof) in bounds.items()}
print(f"float32 additions or products in the time of a byte: {ROOFS['fp32'] / BANDWIDTH:.0f}")
for name, (slow, fast) in least_time.items():
    print(f"{name:23} {1e6 * fast:8.1f} µs; {1e6 * slow:8.1f} µs if no cache helps")

# %% [markdown]
# The model has no launches. But this batch is small. Notebook 10 guesses that a launch in a graph takes 2.5 µs. If so,
# the 20 PyTorch operations as written need about 50 µs for their launches, and the fused kernel needs 2.5 µs. Both are
# longer than the time of the bytes.
#
# ### Exercise 09.4 (predict)
#
# A kernel that multiplies in bf16 does some number of operations for each byte that it moves. Below which number does
# memory limit it on an H100? Use the numbers at the top of the cell above. Answer with a whole number.
#
# <details><summary>Solution</summary>
#
# The slope meets the roof where both take the same time: 989e12 / 3.35e12 = 295 operations a byte. The fused loss of
# 16384 pairs in bf16 has about 90 without a cache and about 4000 with one. So the cache decides whether memory limits it.
# </details>

# %%
operations_a_byte = None
check("09.4", operations_a_byte)

# %% [markdown]
# ## 6 · What was measured
#
# The numbers above are bounds. `python -m semimedref_kernels.benchmark` measures times, and it first checks every form
# against float64. Its records lie in `kernels/results/`. The record of the H100, of November 2026, is **older than the
# kernels above**. We rewrote the kernels because of this record. No GPU has measured the kernels above yet.
# [docs/kernels.md](../docs/kernels.md) says what to expect of today's kernels.
#
# The figure compares our older kernels with the fastest other form of the same case, mostly `torch.compile` of the code
# as written. Each dot is one size and type. To the right of the line ours was faster. Filled dots leave the launches
# out (the GPU alone, by CUDA graphs), and hollow dots include them.
#
# **Look at** the rows one by one. In the forward pass our patch mixing always won on the GPU alone, and mostly lost
# with its launches. In the backward pass it mostly lost. The rows of the loss are forward and backward together. With a
# training batch ours won or lost on the GPU alone, depending on size and type, and always won with launches. With 1024
# pairs and more it always lost.

# %%
from pathlib import Path

h100 = benchmark.read(Path(baselines.__file__).parents[2] / "results" / "nvidia-h100-80gb-hbm3.json")
print(f"{h100['device']['name']}, {h100['date']}, torch {h100['versions']['torch']}")
rows = {"patch mixing, forward": [], "patch mixing, backward": []}
rows |= {"loss, up to 64 pairs": [], "loss, 1024 pairs or more": []}
for case in benchmark.against_best(h100):
    if case["op"] == "patch_mix" and case["part"] != "both":
        rows[f"patch mixing, {case['part']}"].append(case)
    elif case["op"] == "loss" and case["part"] == "both":
        rows["loss, up to 64 pairs" if case["sizes"]["N"] <= 64 else "loss, 1024 pairs or more"].append(case)
figures.against_best(rows)
plt.show()
won = {name: [sum(case[key] > 1 for case in cases) for key in ("alone", "launched")] for name, cases in rows.items()}
for name, (alone, launched) in won.items():
    print(f"{name:24} ours fastest in {alone} of {len(rows[name])} cases, in {launched} with launches;", end=" ")
    print(f"ratios alone {min(case['alone'] for case in rows[name]):.2f}", end=" ")
    print(f"to {max(case['alone'] for case in rows[name]):.2f}")
of = {(r["form"], r["part"], r["dtype"], *r["sizes"].values()): r for r in h100["rows"]}
forms = "dense", "dense, compiled", "ours"
alone = [of[form, "both", "fp32", 16384, 256]["graph_ms"]["median"] for form in forms]
mixing = of["ours", "both", "fp32", 32, 3, 224, 74]
slower = mixing["ms"]["median"] / mixing["graph_ms"]["median"]
print("H100, ms alone: as written {:.1f}, compiled {:.1f}, our older kernels {:.1f}".format(*alone))
print(f"H100, our older kernels: mixing, 32 images of 224 px, both passes, with launches x {slower:.1f}")

# %% [markdown]
# ## What to take away
#
# The cell below prints or checks these numbers.
#
# **To remember**
#
# - By the roofline, bytes limit the patch mixing of a large batch, and arithmetic does not. If a launch takes 2.5 µs,
#   which is a guess, then the launches of our batch of 8 take longer than its bytes: 50 against 7 µs as written, 2.5
#   against about 2 µs fused. In the record, our older kernels took six times as long with launches as without (32 images
#   of 224 px, float32, forward and backward). The code as written moves 3.8 times the least possible, and the fused
#   kernel 1.00 times, if the cache helps.
# - The loss of 16384 pairs holds 5.40 GB as written and 0.135 GB fused, which is 40 times less. Above 64 pairs the
#   fused form holds neither $z$ nor $P$.
# - The loss of a training batch of 32 pairs has 3 launches fused and 77 PyTorch operations as written. In the record, up
#   to 64 pairs, our older kernels were fastest in 3 of 8 cases on the GPU alone and in 8 of 8 with launches. So launches
#   change the winner of 5 cases there.
# - By these bounds an H100 needs at least 5.8 ms for the fused loss of 16384 pairs, and 14.4 ms for the loss as
#   written, both in float32. In the record the loss as written took 50 ms. With `torch.compile` it took 12.9 ms,
#   because fused PyTorch operations move fewer bytes. Our older kernels took 59 ms.
# - On the H100 of the record, our older patch mixing was fastest in 12 of 12 forward cases on the GPU alone, and in 4
#   of 12 with launches. Our older loss, forward and backward together, was fastest in 0 of 12 cases of 1024 pairs and
#   more.

# %%
for name in memory:
    mixing, loss = (least_time[each][1] for each in (f"patch mixing {name}", f"loss {name}, fp32"))
    print(f"{name}: mixing {sum(traffic[name]) / (2 * least):.2f} times the least bytes, {1e6 * mixing:.1f} µs;")
    print(f"   its launches {2.5 * calls[name]:.1f} µs, if one takes 2.5 µs")
    print(f"   loss: 32 pairs {launches[name, 32]} launches; 16384 pairs {memory[name][2]:.3f} GB, {1e3 * loss:.1f} ms")
print(f"loss: {memory['as written'][2] / memory['fused'][2]:.0f} times less memory fused")
assert [*won.values()] == [[12, 4], [2, 1], [3, 8], [0, 0]] and len(rows["loss, up to 64 pairs"]) == 8
assert [round(each, 1) for each in alone] == [50.3, 12.9, 59.4] and 6 < slower < 7

# %% [markdown]
# **Next:** [10 · What a GPU step costs, counted](10_gpu_training.ipynb) looks at a whole step. **Back:** [08 ·
# Results](08_results.ipynb). **Further on:** [docs/kernels.md](../docs/kernels.md) lists all launches, times on a CPU,
# and the command that measures on a GPU. [04 · T-PatchMix](04_t_patchmix.ipynb) and [05 · ITCL](05_itcl.ipynb) explain
# what the two parts compute.

# %% [markdown]
# ## Appendix: The whole kernel of T-PatchMix
#
# One launch has a program for each tile of each sample (axis 0) and each plane (axis 1). The last plane is the target.
# With the pieces of section 3 you can read the kernel from top to bottom. It uses 64 bits for numbers that can exceed
# $2^{31}$. In the layout `channels_last` the channels of a pixel lie beside each other, and a row has `width *
# PER_PIXEL` numbers.

# %%
source_of(patch_mix_triton.mix_kernel)

# %% [markdown]
# ## Appendix: The loss backward
#
# `pushes` computes each tile of $z$ again. The forward pass has kept the log-sum-exps, so both softmaxes of a tile need
# no second pass over $z$. The gradient of $z$ has two parts, with $S_i = \sum_j P_{ij}$ and a symmetric $P$:
#
# $$\frac{\partial L}{\partial z_{ij}} = \underbrace{\frac{1}{2N}\big(\mathrm{softmax}_j\,z_{ij} + \mathrm{softmax}_i\,z_{ij}\big)}_{\text{push}}
# - \frac{P_{ij}}{2N}\Big(\frac1{S_i} + \frac1{S_j}\Big)$$
#
# The kernel writes *push*. Then two matrix products of the GPU's own library multiply *push* with $v$ for the images,
# and its transpose with $u$ for the texts. A last kernel subtracts the part of $P$, which comes from the tables of
# section 4. No two programs write to the same place, so two runs give the same bits.
#
# A training batch is handled differently. Up to 64 pairs, one program holds all of $z$ and all of $P$. The forward pass
# is then two launches, and the backward pass one. The tests compare all of this with float64, in the interpreter.
# `python -m semimedref_kernels.aot` compiles each kernel for GPUs that this machine does not have.

# %%
source_of(soft_contrastive_triton.pushes)

# %% [markdown]
# We check the formula for one batch in float64, with random embeddings and zones. `share_u` and `share_v` of the kernel
# are $1/(2N)$.

# %%
torch.manual_seed(seed)
z = (torch.randn(8, 8, dtype=torch.float64)).requires_grad_()
P = jaccard(torch.randint(0, 64, (8,))).double()
S = P.sum(1)
(-(((P * z.log_softmax(1)).sum(1) / S).mean() + ((P * z.log_softmax(0)).sum(0) / S).mean()) / 2).backward()
push = (z.softmax(1) + z.softmax(0)).detach() / 16
error = (z.grad - (push - P * (1 / S[:, None] + 1 / S) / 16)).abs().max()
assert error < 1e-12
print(f"largest difference to the gradient of the dense loss: {error:.0e}")

# %% [markdown]
# ## Appendix: The H100's record
#
# The figure shows all sizes under the limits that were *measured* on that machine, for the older kernels. In float32
# the roof is a third of tf32's measured rate, because tf32x3 takes three products. A point that is twice as high takes
# half the time. The black line is the roof, so **look at** the distance of a point from the line. All kernels have
# changed since. *Eager* is the code as written of sections 1 and 4. *Plain form* is this project's code for patch
# mixing in PyTorch. *Row chunks* computes the loss for some rows at a time. [docs/kernels.md](../docs/kernels.md) has a
# table of times.

# %% tags=["nbval-ignore-output"]
figure = benchmark.roofline(h100)
figure.set_dpi(70)
figure.suptitle(f"{h100['device']['name']}, {h100['date']}: older kernels")
display(figure)
