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

# %% tags=["nbval-ignore-output"]
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy, normalize

from semimedref_core import Report, itcl, reports, versions
from semimedref_core.figures import embedding_space, heat_maps, notebook_style, pulls, short, temperatures
from semimedref_core.teaching import check
from semimedref_kernels import jaccard, soft_contrastive_loss

notebook_style()
print(versions())

# %% [markdown]
# ## Soft positives
#
# Eq. 1 makes six bits of a report, the zone vector $a$. Two reports are as close as the zones they share among those that
# either names, the Jaccard index (Eq. 9; paper: 9):
#
# $$P_{ij} = \frac{|a_i \wedge a_j|}{|a_i \vee a_j|}, \qquad P_{ii} = 1$$
#
# The function is `semimedref_kernels.jaccard`. It takes the zone vectors as numbers, zone $k$ as bit $k$.

# %%
from semimedref_core import Config, load_split

config = Config(
    dataset=dataset, image_size=image_size, batch_size=batch_size, steps=steps, tau=tau, seed=seed, weak_view="release"
)
train, valid = (load_split(dataset, split, image_size) for split in ("train", "valid"))
valid = valid.subset(range(200))
codes = torch.tensor([report.code for report in train.reports])
print(f"{len(train)} training pairs with {len(codes.unique())} different zone vectors, {len(valid)} validation pairs")

# %%
twelve = train.reports[:12]
P = jaccard(codes[:12])
named = [{zone for zone, bit in zip(reports.ZONES, report.zones, strict=True) if bit} for report in twelve]
for i, j in [(0, 1), (0, 2), (1, 2)]:
    both, either = len(named[i] & named[j]), len(named[i] | named[j])
    print(f"{short(twelve[i])} | {short(twelve[j])}: {both} of {either} zones, P = {P[i, j]:.2f}")
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
heat_maps({"soft: P": P.numpy(), "hard: identity": np.eye(12)}, [short(report) for report in twelve], "P")
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
# 1; here they live in the plane. The logits (Eq. 10; paper: 9) are cosines over the temperature:
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
# does. The loss (Eq. 11; paper: 9) is the cross-entropy between the two, over texts for each image and over images for each text:
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
# ### Exercise 04.1
#
# Train as long as you like: what is the least value that this loss can have for the three pairs? Work it out from the
# table *wanted*, with a pencil or in the cell.
#
# <details><summary>Solution</summary>
#
# A cross-entropy is least where the softmax equals its target, and then it is the target's entropy. Two rows ask for
# $2/3$ and $1/3$, the third asks for its own text alone: $\tfrac23\,(\log 3 - \tfrac23 \log 2) = 0.42$.
# </details>

# %%
least_value = None
check("04.1", least_value)

# %% [markdown]
# **The loss does not go to 0.** A cross-entropy is never below the entropy of what is wanted, and a soft target has some.
# Hard positives have the floor 0, and are what the same op gives when no report names anything: then $P$ is the identity.


# %%
def hard_itcl(u, v, codes, tau):
    z, own = normalize(u, dim=1) @ normalize(v, dim=1).T / tau, torch.arange(len(u))
    return (cross_entropy(z, own) + cross_entropy(z.T, own)) / 2


hard3 = hard_itcl(u3, v3, codes3, tau3)
assert torch.isclose(hard3, soft_contrastive_loss(u3, v3, torch.zeros(3, dtype=torch.long), tau3), rtol=1e-12)
print(f"three pairs: soft {by_hand:.3f} above a floor of {itcl.loss_floor(codes3):.3f}, hard {hard3:.3f} above 0")
floor = np.mean([itcl.loss_floor(codes[rng.permutation(len(train))[:batch_size]]) for _ in range(200)])
print(f"200 batches of {batch_size}: floor {floor:.3f}, an even softmax has log N = {math.log(batch_size):.3f}")

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


steps5 = {"hard positives": descent(hard_itcl), "soft positives": descent(itcl.itcl)}
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
# Both pull an image to its own text, the soft loss less. Texts that share some of its zones are where they differ: hard
# positives push the image away from them, soft ones pull it there. Both push away what shares nothing.
#
# ## Temperature
#
# A small $\tau$ makes the softmax sharp: few texts count. A large $\tau$ makes it even: cosines lie within $\pm 1$, so at
# $\tau = 1$ no text can count more than $e^2$ times as much as another. To see what follows without any network, take the
# zone vectors themselves as embeddings, $u_i = v_i = a_i / |a_i|$. *Texts that count* is $e^{\text{entropy}}$ of the
# softmax; dashed is what $P$ asks for, soft or hard; dotted is the $\tau$ in use.

# %%
rows = slice(0, batch_size)
a = torch.tensor([report.zones for report in train.reports[rows]], dtype=torch.float64)
taus = np.geomspace(0.005, 1, 41)


def at_temperature(loss, tau):
    u, v = normalize(a, dim=1).requires_grad_(), normalize(a, dim=1)
    value = loss(u, v, codes[rows], float(tau))
    (gradient,) = torch.autograd.grad(value, u)
    entropy = torch.special.entr((u @ v.T / tau).softmax(1)).sum(1).mean()
    return value.item(), entropy.exp().item(), gradient.norm(dim=1).mean().item()


hard_curves, soft_curves = (np.array([at_temperature(loss, t) for t in taus]).T for loss in (hard_itcl, itcl.itcl))

# %%
curves = {"loss": {"hard": hard_curves[0], "soft": soft_curves[0]}, "texts that count": {"both": soft_curves[1]}}
curves["mean length of dL/du"] = {"hard": hard_curves[2], "soft": soft_curves[2]}
least = itcl.loss_floor(codes[rows]).item()
temperatures(taus, curves, {"loss": {"soft": least}, "texts that count": {"soft": math.exp(least), "hard": 1}}, tau)
plt.show()

# %%
print("tau    soft loss  hard loss  texts that count  gradient soft  hard")
for t in (0.005, 0.07, 0.3, 1.0):
    (soft_loss, count, soft_gradient), (hard_loss, _, hard_gradient) = (
        at_temperature(f, t) for f in (itcl.itcl, hard_itcl)
    )
    print(f"{t:<6} {soft_loss:9.2f} {hard_loss:10.2f} {count:17.1f} {soft_gradient:14.3f} {hard_gradient:5.3f}")
best = taus[soft_curves[0].argmin()]
print(f"smallest soft loss: {soft_curves[0].min():.2f} at tau {best:.2f}; floor of this batch {least:.2f}")

# %% [markdown]
# Soft positives punish a softmax that is too sharp: below their best temperature loss and gradient shoot up although the
# embeddings *are* the zones. A network at $\tau = 0.07$ must answer by keeping its cosines close together. The hard loss
# likes it sharp; what is left of it at small $\tau$ are the pairs that name the same zones, which it cannot tell apart.
#
# ## What training makes of the embeddings
#
# The encoders of the compact network, ITCL alone, no mask: `decode=0` leaves the decoder out. The same start, batches and
# steps with soft and with hard positives. It is a short training of a small network on small pictures: it shows which way
# the losses pull, not how far they get.

# %%
from tqdm.auto import tqdm

from semimedref_core import Batches, anatomy, build_network, build_texts, training, views

batches = Batches(train, None, config, build_texts(), anatomy.QATA)


def train_encoders(loss, title):
    torch.manual_seed(seed)
    network = build_network("compact")
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    for step in tqdm(range(steps), desc=title):
        batch = batches(step).labelled
        seen = network(views.weak_view(batch.images, batch.affine), batch.input_ids, decode=0)
        value = loss(seen.image_embedding, seen.text_embedding, batch.codes, tau)
        optimizer.param_groups[0]["lr"] = training.learning_rate(config, step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return network


# %%
torch.manual_seed(seed)
networks = {"before": build_network("compact")}
networks |= {"soft": train_encoders(itcl.itcl, "soft positives"), "hard": train_encoders(hard_itcl, "hard positives")}


@torch.no_grad()
def embed(network):
    images = torch.from_numpy(valid.images)[:, None]
    images = views.weak_view(images, torch.eye(2, 3).expand(len(images), -1, -1))
    seen = network(images, batches.texts([report.render() for report in valid.reports]), decode=0)
    return normalize(seen.image_embedding, dim=1), normalize(seen.text_embedding, dim=1)


embeddings = {name: embed(network) for name, network in networks.items()}

# %% [markdown]
# Validation pairs: the mean cosine of an image with texts that share zones and with texts that do not. *Order* is the rank
# correlation of cosine and $P$ over all other pairs: 1 if the more zones are shared, the nearer. It does not depend on how
# far apart things are, which the two losses want differently. *Nearest* is $P$ with the nearest text of another pair.

# %%
from scipy.stats import spearmanr

valid_codes = torch.tensor([report.code for report in valid.reports])
P_valid, eye = jaccard(valid_codes), torch.eye(len(valid)).bool()
chance = P_valid[~eye].mean()
print("          own  same zones  some shared  none shared    order  nearest")
scores = {}
for name, (u, v) in embeddings.items():
    cosine = u @ v.T
    groups = eye, (P_valid == 1) & ~eye, (P_valid > 0) & (P_valid < 1), P_valid == 0
    own, same, some, none = (cosine[group].mean() for group in groups)
    order = spearmanr(cosine[~eye], P_valid[~eye]).statistic
    nearest = P_valid[range(len(valid)), cosine.masked_fill(eye, -2).argmax(1)].mean()
    scores[name] = {"gap": (cosine[(P_valid > 0) & ~eye].mean() - none).item(), "order": order, "nearest": nearest}
    print(f"{name:6} {own:6.2f} {same:11.2f} {some:12.2f} {none:12.2f} {order:8.2f} {nearest:8.2f}")
print(f"a text at random: {chance:.2f}")

# %% [markdown]
# Read the rows before comparing: hard positives bring image and own text much closer (*own*), for that is all they ask
# for. Whether texts that share *some* zones come out nearer than those that share *none* is left to chance.

# %%
for name, score in scores.items():
    print(f"{name}: zones shared or not, cosine gap {score['gap']:.3f}")
print(f"soft keeps the order of the zones better: {scores['soft']['order'] > scores['hard']['order']}")

# %% [markdown]
# The space in its two main directions. Images and texts keep apart (the modality gap), so each kind is centred by itself
# here; the gap, the length of the difference of the two means, is printed. Soft positives keep images close together:
# cosine differences of some hundredths are all that they ask for.


# %%
def plane(u, v):
    centred = torch.cat([u - u.mean(0), v - v.mean(0)])
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    return tuple(part.numpy() for part in (centred @ axes.T).split(len(u)))


for name, (u, v) in embeddings.items():
    print(f"{name}: gap {(u.mean(0) - v.mean(0)).norm():.2f}, spread of images {u.std(0).norm():.2f}, ", end="")
    print(f"of texts {v.std(0).norm():.2f}")
titles = {"before": "before training", "soft": "soft positives", "hard": "hard positives"}
embedding_space({titles[name]: plane(u, v) for name, (u, v) in embeddings.items()}, valid.reports)
plt.show()

# %% [markdown]
# ## Explore
#
# Validation pairs, drawn by seed. Left what the positives ask for, right what the embeddings give, on the same scale: move
# $\tau$, switch the positives, look at the network before and after. Below, one such answer as a still picture.

# %%
from semimedref_core.widgets import contrast

contrast.contrast_explorer(valid.reports, embeddings)

# %%
u, v = (x[:12] for x in embeddings["soft"])
found = contrast.contrast(u, v, valid_codes[:12], tau)
maps = {"target: P / row sum": found.target.numpy(), "given: softmax of z": found.softmax.numpy()}
heat_maps(maps, [short(report) for report in valid.reports[:12]], "share of text j for image i")
plt.show()
print(f"loss {found.loss:.2f}, floor {found.floor:.2f}")

# %% [markdown]
# **To remember:** most "negatives" of a batch share zones with the image; soft positives leave the loss a floor not far
# below log N; and they order the embeddings by zones, which hard positives do not ask for.

# %%
print(f"'negatives' that share a zone: {100 * sharing:.0f} %")
print(f"floor of the soft loss: {floor:.2f}, log N: {math.log(batch_size):.2f}")
print(f"order of cosines by shared zones: soft {scores['soft']['order']:.2f}, hard {scores['hard']['order']:.2f}")
