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
# # 04 · ITCL: pairs that show the same zones are no strangers
#
# **What you will see.** A contrastive loss pulls an image towards the text of its own report and pushes it away from all
# other texts of the batch. But many of these others describe the very same zones. ITCL makes them partly positives, by
# the zones that two reports share. Here the loss is taken apart: its positives, a batch of three by hand, what it moves
# where, what the temperature does, how it is computed without the matrix of positives, and what the embeddings look like
# before and after a short training with soft and with hard positives.

# %% tags=["parameters"]
dataset = "phantom"  # or "qata", with SEMIMEDREF_DATA set to the folder that holds QaTa
image_size = 32
batch_size = 16
tau = 0.07
steps = 200  # of each of the two trainings
seed = 0

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy, normalize

from semimedref_core import versions
from semimedref_core.figures.canvas import notebook_style
from semimedref_core.figures.contrast import embedding_space, heat_maps, pulls, short, temperatures
from semimedref_core.itcl import itcl, loss_floor
from semimedref_core.reports import ZONES, Report
from semimedref_kernels import jaccard, soft_contrastive_loss

notebook_style()
print(versions())

# %% [markdown]
# ## Soft positives
#
# Eq. 1 makes six bits of a report, the zone vector $a$. Two reports are as close as the zones they share among those that
# either names, the Jaccard index (Eq. 9):
#
# $$P_{ij} = \frac{|a_i \wedge a_j|}{|a_i \vee a_j|}, \qquad P_{ii} = 1$$
#
# The function is `semimedref_kernels.jaccard`. It takes the zone vectors as numbers, zone $k$ as bit $k$.

# %%
from semimedref_core.config import Config
from semimedref_core.data.datasets import load_split

config = Config(
    dataset=dataset, image_size=image_size, batch_size=batch_size, steps=steps, tau=tau, seed=seed, weak_view="release"
)
train, valid = load_split(config, "train"), load_split(config, "valid").subset(range(200))
codes = torch.tensor([report.code for report in train.reports])
print(f"{len(train)} training pairs with {len(codes.unique())} different zone vectors, {len(valid)} validation pairs")

# %%
reports = train.reports[:12]
P = jaccard(codes[:12])
named = [{zone for zone, bit in zip(ZONES, report.zones, strict=True) if bit} for report in reports]
for i, j in [(0, 1), (0, 2), (1, 2)]:
    both, either = len(named[i] & named[j]), len(named[i] | named[j])
    print(f"{short(reports[i])} | {short(reports[j])}: {both} of {either} zones, P = {P[i, j]:.2f}")
    assert math.isclose(P[i, j], both / max(1, either), rel_tol=1e-6)

# %% [markdown]
# A report without infection names nothing. It shares nothing, not even with its like, so that $0/0$ counts as 0; only the
# diagonal is forced to 1, since an image always has its own text.

# %%
healthy = Report.of([0] * 6)
some = [Report.of([0, 0, 1, 0, 0, 0]), healthy, healthy]
print(pd.DataFrame(jaccard(torch.tensor([report.code for report in some])).numpy(), [short(r) for r in some]))

# %% [markdown]
# ## Hard against soft
#
# The usual contrastive loss (CLIP, InfoNCE) knows one positive: the diagonal. All else is a negative, whatever it shows.

# %%
heat_maps({"soft: P": P.numpy(), "hard: identity": np.eye(12)}, [short(report) for report in reports], "P")
plt.show()

# %% [markdown]
# How many of these "negatives" share a zone with the image? How many name exactly the same zones, or even use the same
# words? Counted over 200 batches:

# %%
rng, off = np.random.default_rng(seed), ~np.eye(batch_size, dtype=bool)
texts = np.array([report.render() for report in train.reports])
shares = np.zeros(3)
for _ in range(200):
    rows = rng.permutation(len(train))[:batch_size]
    p = jaccard(codes[rows]).numpy()
    alike = p > 0, p == 1, texts[rows][:, None] == texts[rows]
    shares += [share[off].mean() / 200 for share in alike]
sharing, same_zones, same_words = shares
print(f"of the {off.sum()} 'negatives' in a batch of {batch_size}: {100 * sharing:.0f} % share a zone, ", end="")
print(f"{100 * same_zones:.0f} % name the same zones, {100 * same_words:.0f} % are the same text")

# %% [markdown]
# A text that occurs twice in a batch has one embedding, and a hard loss wants it near and far at once.
#
# ## The loss by hand
#
# Three pairs: two with overlapping zones, one with another. Image embeddings $u_i$ and text embeddings $v_j$ have length
# 1; here they live in the plane. The logits (Eq. 10) are cosines over the temperature:
#
# $$z_{ij} = \frac{u_i \cdot v_j}{\tau}$$

# %%
three = [Report.of([0, 0, 1, 0, 0, 0]), Report.of([0, 1, 1, 0, 0, 0]), Report.of([0, 0, 0, 1, 0, 0])]
names = [short(report) for report in three]
codes3 = torch.tensor([report.code for report in three])


def on_circle(*degrees):
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], 1)


def table(matrix, title):
    print(f"{title}\n{pd.DataFrame(matrix.numpy(), names, ['v1', 'v2', 'v3']).round(2)}\n")


u3, v3, tau3 = on_circle(140, 80, -20), on_circle(100, 120, -60), 0.5
z = u3 @ v3.T / tau3
table(z, f"z, Eq. 10 (tau = {tau3})")

# %% [markdown]
# Each row of $P$ over its sum says how image $i$ should share its attention among the texts; the softmax of $z$ says how it
# does. The loss (Eq. 11) is the cross-entropy between the two, over texts for each image and over images for each text:
#
# $$L = \tfrac12\Big[\,\tfrac1N\sum_i \Big(-\sum_j \frac{P_{ij}}{\sum_k P_{ik}}\,\log\mathrm{softmax}_j\,z_{ij}\Big)
# + \text{the same on } z^\top\Big]$$

# %%
P3 = jaccard(codes3).double()
target = P3 / P3.sum(1, keepdim=True)
table(P3, "P, Eq. 9")
table(target, "wanted: P over its row sums")
table(z.softmax(1), "given: softmax over texts")
table(-target * z.log_softmax(1), "wanted times -log given: what each entry adds to the loss")

# %%
image_to_text = -(target * z.log_softmax(1)).sum(1).mean()
text_to_image = -(target * z.T.log_softmax(1)).sum(1).mean()  # P is symmetric, z is not
by_hand, op = (image_to_text + text_to_image) / 2, soft_contrastive_loss(u3, v3, codes3, tau3)
print(f"image to text {image_to_text:.4f}, text to image {text_to_image:.4f}: loss {by_hand:.4f}, op {op:.4f}")
assert torch.isclose(by_hand, op, rtol=1e-12)

# %% [markdown]
# **The loss does not go to 0.** A cross-entropy is never below the entropy of what is wanted, and a soft target has some.
# Hard positives have the floor 0, and are what the same op gives when no report names anything: then $P$ is the identity.


# %%
def hard_itcl(u, v, codes, tau):
    z, own = normalize(u, dim=1) @ normalize(v, dim=1).T / tau, torch.arange(len(u))
    return (cross_entropy(z, own) + cross_entropy(z.T, own)) / 2


hard3 = hard_itcl(u3, v3, codes3, tau3)
assert torch.isclose(hard3, soft_contrastive_loss(u3, v3, torch.zeros(3, dtype=torch.long), tau3), rtol=1e-12)
print(f"three pairs: soft {by_hand:.3f} above a floor of {loss_floor(codes3):.3f}, hard {hard3:.3f} above 0")
floor = loss_floor(codes[:batch_size])
print(f"a batch of {batch_size}: floor {floor:.3f}, and an even softmax has log N = {math.log(batch_size):.3f}")

# %% [markdown]
# So in a real batch, soft positives leave the loss little room to fall: most reports share zones, and the wanted shares
# are not far from even. Nor do they ask for much distance. Where the softmax is as wanted, two texts whose $P$ are 1 and
# $1/3$ differ in cosine by $\tau \log 3$:

# %%
print(f"tau log 3 = {tau * math.log(3):.3f}")

# %% [markdown]
# ## Class sums
#
# $P$ depends on the two codes alone, and there are 64 codes. So the texts that an image is drawn to, $PV$, need no
# $N \times N$ matrix: add up the texts of each code, mix these sums, and let each image pick the row of its code (Eq. 12).
# Where the diagonal was forced to 1, a code 0 gets its own text on top.

# %%
from semimedref_kernels.soft_contrastive_plain import CODES, class_sums, shared

N, D = len(codes), 64
generator = torch.Generator().manual_seed(seed)
U, V = (normalize(torch.randn(N, D, dtype=torch.float64, generator=generator), dim=1) for _ in range(2))
J = shared(torch.arange(CODES), 6, torch.float64)  # [64, 64]: every code with every code
sums = torch.zeros(CODES, D, dtype=torch.float64).index_add(0, codes, V)
PV = (J @ sums)[codes] + (codes == 0)[:, None] * V
dense_P = shared(codes, 6, torch.float64).fill_diagonal_(1)
error = (PV - dense_P @ V).abs().max()
print(f"largest difference from P V: below 1e-12 is {bool(error < 1e-12)}")
print(f"multiplications: {N * N * D} with P, {CODES**2 * D} with the sums (N = {N}, D = {D})")

# %% [markdown]
# The op goes this way. What draws the images in both directions at once is $WV$ with $W_{ij} = P_{ij}\,(\tfrac{1}{2N R_i} +
# \tfrac{1}{2N C_j})$, row sums $R$ and column sums $C$. `class_sums` gives it without $W$:

# %%
R = dense_P.sum(1)
W = dense_P * (1 / R[:, None] + 1 / R) / (2 * N)
error = (class_sums(U, V, codes, codes).pull_u - W @ V).abs().max()
assert error < 1e-12
dense = -(dense_P / R[:, None] * (U @ V.T / tau).log_softmax(1)).sum(1).mean() / 2
dense = dense - (dense_P / R[:, None] * (V @ U.T / tau).log_softmax(1)).sum(1).mean() / 2
print(f"loss from P {dense:.6f}, from class sums {soft_contrastive_loss(U, V, codes, tau):.6f}")

# %% [markdown]
# ## What the loss moves where
#
# Five pairs on the unit circle. The first two name the same zones, the third and fourth share some with them, the fifth
# shares none. Image 1 lies beyond the text of pair 2. Arrows are $-\partial L/\partial u_i$ from autograd: where the loss
# moves the images.

# %%
zones = [[0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0]]
five = [Report.of(bits) for bits in zones]
codes5 = torch.tensor([report.code for report in five])
u5, v5 = on_circle(128, 92, 170, 10, -110), on_circle(80, 110, 145, 45, -60)


def descent(loss, tau=0.5):
    u, v = u5.clone().requires_grad_(), v5.clone().requires_grad_()
    gradients = torch.autograd.grad(loss(u, v, codes5, tau), (u, v))
    return [-gradient for gradient in gradients]


steps5 = {"hard positives": descent(hard_itcl), "soft positives": descent(itcl)}
pulls(u5.numpy(), v5.numpy(), {title: 2 * du.numpy() for title, (du, _) in steps5.items()}, five)
plt.show()

# %% [markdown]
# After one such step, by how much is image $i$ nearer to text $j$? The mean change of their cosine:

# %%
P5 = jaccard(codes5)
groups = {"own text": torch.eye(5).bool(), "same zones": (P5 == 1) & ~torch.eye(5).bool()}
groups |= {"some shared": (P5 > 0) & (P5 < 1), "none shared": P5 == 0}
for title, (du, dv) in steps5.items():
    moved = normalize(u5 + du, dim=1) @ normalize(v5 + dv, dim=1).T - u5 @ v5.T
    print(f"{title}: " + ", ".join(f"{name} {moved[rows].mean():+.2f}" for name, rows in groups.items()))

# %% [markdown]
# Both pull an image to its own text. Texts that share some of its zones are where they differ: hard positives push the
# image away from them, soft ones pull it there, and keep their push for those that share none.
#
# ## Temperature
#
# $\tau$ decides how finely the softmax looks. With soft positives a low temperature is worse than useless: the softmax
# becomes one-hot, the wanted shares are not, and the loss grows without bound. The dashed lines are the floors.

# %%
taus = np.geomspace(0.005, 1, 25)
kinds = {"hard": torch.zeros(N, dtype=torch.long)[:batch_size], "soft": codes[:batch_size]}
u, v = U[:batch_size] + 0.3 * V[:batch_size], V[:batch_size]  # images lean towards their own texts
loss, slope = ({kind: np.zeros(len(taus)) for kind in kinds} for _ in range(2))
for kind, kind_codes in kinds.items():
    for t, value in enumerate(taus):
        leaf = u.clone().requires_grad_()
        found = soft_contrastive_loss(leaf, v, kind_codes, float(value), normalize=True)
        loss[kind][t], slope[kind][t] = found.item(), torch.autograd.grad(found, leaf)[0].norm()

# %%
floors = {"loss": {"soft": loss_floor(codes[:batch_size]).item()}}
temperatures(taus, {"loss": loss, "gradient norm": slope}, floors, tau)
plt.show()
for kind in kinds:
    print(
        f"{kind}: loss {loss[kind][0]:.1f} at tau 0.005, {loss[kind][-1]:.2f} at 1; lowest at {taus[loss[kind].argmin()]:.2f}"
    )

# %% [markdown]
# ## The embedding space, before and after
#
# The encoders of the compact network, trained by this loss alone, from the same start, over the same batches, once with
# soft and once with hard positives. `decode=0` asks the network for embeddings only.

# %%
from semimedref_core.anatomy import THIRDS
from semimedref_core.data.batches import Batches
from semimedref_core.data.views import weak_view
from semimedref_core.networks import build_network, build_texts
from semimedref_core.training import learning_rate

to_ids = build_texts()
batches = Batches(train, None, config, to_ids, THIRDS)
valid_codes = torch.tensor([report.code for report in valid.reports])


@torch.no_grad()
def embed(network, pairs):
    x = torch.from_numpy(pairs.images)[:, None]
    x = weak_view(x, torch.eye(2, 3).expand(len(x), -1, -1))
    seen = network(x, to_ids([report.render() for report in pairs.reports]), decode=0)
    return normalize(seen.image_embedding, dim=1), normalize(seen.text_embedding, dim=1)


# %%
def trained(loss):
    torch.manual_seed(seed)
    network = build_network("compact")
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate(config, step)
        labelled = batches(step).labelled
        x = weak_view(labelled.images, labelled.theta)
        seen = network(x, labelled.input_ids, decode=0)
        optimizer.zero_grad()
        loss(seen.image_embedding, seen.text_embedding, labelled.codes, tau).backward()
        optimizer.step()
    return embed(network, valid)


torch.manual_seed(seed)
spaces = {"before": embed(build_network("compact"), valid)}
spaces |= {"soft positives": trained(itcl), "hard positives": trained(hard_itcl)}


# %%
def in_the_plane(u, v):
    both = torch.cat([u, v])
    _, _, axes = torch.pca_lowrank(both, 2, niter=10)
    plane = (both - both.mean(0)) @ axes
    return plane[: len(u)].numpy(), plane[len(u) :].numpy()


torch.manual_seed(seed)  # the decomposition starts from a random guess
embedding_space({name: in_the_plane(*space) for name, space in spaces.items()}, valid.reports)
plt.show()

# %% [markdown]
# On validation pairs: the mean cosine of an image to texts that name the same zones, some of the same, or none; and how
# much of its zones the nearest *other* text shares with it (Jaccard index; by chance, the mean over all).

# %%
shared_zones = jaccard(valid_codes)
others = ~torch.eye(len(valid), dtype=torch.bool)
by_kind = {
    "same": (shared_zones == 1) & others,
    "some": (shared_zones > 0) & (shared_zones < 1),
    "none": shared_zones == 0,
}
rows = {}
for name, (u, v) in spaces.items():
    cosine = u @ v.T
    nearest = cosine.masked_fill(~others, -2).argmax(1)
    rows[name] = {kind: cosine[pairs].mean().item() for kind, pairs in by_kind.items()}
    rows[name]["zones shared with the nearest"] = shared_zones[torch.arange(len(valid)), nearest].mean().item()
rows = pd.DataFrame(rows).T
print(f"zones shared by chance: {shared_zones[others].mean():.2f}")
print(f"zones shared with the nearest text, before: {rows.iloc[0, -1]:.1f}")

# %% tags=["nbval-ignore-output"]
rows.round(2)

# %% [markdown]
# The cosines hardly part, and need not: the wanted shares ask for $\tau \log 3$ here and there. What is learnt shows in
# the order. Both losses find zones, though only one is told of them: pairs with the same words have the same text
# embedding, so what is alike ends together whatever the loss says.

# %%
shared_by = rows["zones shared with the nearest"]
for name in ("soft positives", "hard positives"):
    print(f"{name}: the nearest text shares more zones than before: {shared_by[name] > shared_by['before'] + 0.1}")
print(f"soft positives find more of them than hard ones: {shared_by['soft positives'] > shared_by['hard positives']}")

# %% [markdown]
# ## Explore
#
# Draw a batch, move the temperature, change the positives, and compare the wanted with the given softmax. The figure below
# shows one such setting for readers without a kernel.

# %%
from semimedref_core.widgets.contrast import contrast_explorer

explorer = contrast_explorer(valid.reports, spaces)
explorer

# %%
from semimedref_core.widgets.contrast import contrast

shown = contrast(*(x[:12] for x in spaces["soft positives"]), valid_codes[:12], tau)
maps = {"target: P / row sum": shown.target.numpy(), "given: softmax of z": shown.softmax.numpy()}
heat_maps(maps, [short(report) for report in valid.reports[:12]], "share of text j for image i")
plt.show()

# %% [markdown]
# **To remember:** how many "negatives" are none, that the loss has a floor, and that the positives cost no matrix.

# %%
print(f"'negatives' that share a zone: {100 * sharing:.0f} %, that name the same zones: {100 * same_zones:.0f} %")
print(f"floor of the loss of a batch of {batch_size}: {floor:.2f} of log N = {math.log(batch_size):.2f}")
print(f"numbers for the positives of {N} pairs: {CODES**2} instead of {N * N}")
