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
# # 05 · ITCL: pairs that share zones count as partly alike
#
# **What you will see.** ITCL is the image-text contrastive loss of Semi-MedRef; the released code calls it PACL. It
# compares each image with all reports of a batch. A report that names some of the same zones counts as partly right.
# After this notebook you
#
# - know what the usual contrastive loss gets wrong about reports, and how often;
# - can compute ITCL by hand, with its *soft positives*;
# - can say why this loss does not reach 0, and how little it can fall in a training batch;
# - have seen what soft positives change in a short training.
#
# **What you need.** PyTorch, the six zones of a report from [01 · Data](01_data.ipynb), and for section 6 the network
# from [02](02_network.ipynb).
#
# **Time.** About 25 minutes to read, with the exercises and without the appendices; about 20 seconds to run.
#
# Equations have our numbers and, where we know them, the paper's.

# %% tags=["parameters"]
dataset = "phantom"  # or "qata", with SEMIMEDREF_DATA set to the folder that holds QaTa
image_size = 32
batch_size = 16
tau = 0.07
steps = 200  # of each of the two trainings
seed = 0

# %% tags=["nbval-ignore-output"]
import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from torch.nn.functional import normalize

from semimedref_core import Config, Report, figures, itcl, load_split, reports, versions
from semimedref_core.teaching import check, source_of
from semimedref_kernels import jaccard, soft_contrastive_loss, soft_contrastive_plain

figures.notebook_style(100)
print(versions())

# %% [markdown]
# ## 1 · Negatives that are not negative
#
# One network turns image $i$ into a vector $u_i$, another turns text $j$ into a vector $v_j$. Such vectors are called
# *embeddings*. The loss first scales them to length 1. A *contrastive loss* compares all images of a batch with all
# texts of the batch. The usual one (CLIP, InfoNCE) knows a single *positive* for each image: its own text. The loss
# pulls $u_i$ towards $v_i$. All other texts are *negatives*, and the loss pushes $u_i$ away from them.
#
# But many lungs are infected in the same places, so many reports name the same zones. We draw 200 batches of the
# training pairs, and count how many negatives share something with the image.

# %%
run = {"batch_size": batch_size, "steps": steps, "seed": seed, "weak_view": "release"}
config = Config(dataset=dataset, image_size=image_size, **run)
train, valid = (load_split(dataset, split, image_size) for split in ("train", "valid"))
valid = valid.subset(range(200))
codes = torch.tensor([report.code for report in train.reports])  # zone k of a report is bit k of its code
print(f"{len(train)} training pairs with {len(codes.unique())} different sets of zones, {len(valid)} validation pairs")

# %%
rng, off = np.random.default_rng(seed), ~np.eye(batch_size, dtype=bool)
all_zones, texts = codes.numpy(), np.array([report.render() for report in train.reports])
shares = np.zeros(3)
for _ in range(200):
    rows = rng.permutation(len(train))[:batch_size]
    a, t = all_zones[rows], texts[rows]
    alike = (a[:, None] & a) > 0, (a[:, None] == a) & (a > 0), t[:, None] == t
    shares += [each[off].mean() / 200 for each in alike]
sharing, same_zones, same_words = shares
print(f"of the {off.sum()} negatives in a batch of {batch_size}: {100 * sharing:.0f} % share a zone, ", end="")
print(f"{100 * same_zones:.0f} % name the same zones, {100 * same_words:.0f} % are the same text")

# %% [markdown]
# If a text occurs twice in a batch, both copies have the same embedding. For each of the two images this embedding is
# the positive and also a negative. So the usual loss pulls towards it and pushes away from it at the same time.
#
# ## 2 · Soft positives (Eq. 9; paper: 9)
#
# **The paper** (Eq. 9; paper: 9) says to what degree each text of the batch is a positive, as a number from 0 to 1. It
# is the number of zones that both reports name, over the number of zones that at least one of them names. This is the
# *Jaccard index* of their zone vectors $a_i$ and $a_j$ (Eq. 1, in [01](01_data.ipynb)):
#
# $$P_{ij} = \frac{|a_i \wedge a_j|}{|a_i \vee a_j|}, \qquad P_{ii} = 1$$
#
# A report without infection names no zone. Two such reports give $0/0$, which counts as 0: such a report shares
# nothing, not even with another one of its kind. Only the diagonal is set to 1, because an image always has its own
# text.
#
# The two functions below compute $P$. Then the cell counts three pairs of reports by hand, and prints $P$ of two
# reports without infection.

# %%
display(source_of(jaccard, soft_contrastive_plain.shared))
twelve, P = train.reports[:12], jaccard(codes[:12])
named = [{zone for zone, bit in zip(reports.ZONES, report.zones, strict=True) if bit} for report in twelve]
for i, j in [(0, 1), (0, 2), (1, 2)]:
    both, either = len(named[i] & named[j]), len(named[i] | named[j])
    print(f"{figures.short(twelve[i])} | {figures.short(twelve[j])}: {both} of {either} zones, P = {P[i, j]:.2f}")
    assert math.isclose(P[i, j], both / max(1, either), rel_tol=1e-6)
print(f"two reports without infection: P = {jaccard(torch.zeros(2, dtype=torch.long)).tolist()}")

# %% [markdown]
# The figure shows $P$ for twelve reports on the left. On the right it shows the *hard positives* of the usual loss,
# which form the identity matrix. Rows are images, and columns are their texts in the same order. **Look at** the yellow
# squares off the diagonal in the left map. These texts name exactly the zones of the image, and the usual loss treats
# them as negatives.

# %%
names = [figures.short(report) for report in twelve]
figures.heat_maps({"soft positives: P": P.numpy(), "hard positives": np.eye(12)}, names, "P", top=1)
plt.show()

# %% [markdown]
# ## 3 · The loss by hand (Eq. 10 and Eq. 11; paper: 9)
#
# We take three pairs. The zones of the first two overlap, and the third names another zone. Their embeddings have
# length 1 and lie in the plane, so we can choose each by an angle. The *logits* $z$ are the cosines of images and
# texts, divided by the *temperature* $\tau$ (Eq. 10; paper: 9):
#
# $$z_{ij} = \frac{u_i \cdot v_j}{\tau}$$
#
# In the table rows are images and columns are texts.

# %%
three = [Report.of([0, 0, 1, 0, 0, 0]), Report.of([0, 1, 1, 0, 0, 0]), Report.of([0, 0, 0, 1, 0, 0])]
codes3 = torch.tensor([report.code for report in three])


def on_circle(*degrees):
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], 1)


def table(matrix, title):
    names = [figures.short(report) for report in three]
    print(f"{title}\n{pd.DataFrame(matrix.numpy(), names, ['v1', 'v2', 'v3']).round(2)}\n")


u3, v3, tau3 = on_circle(140, 80, -20), on_circle(100, 120, -60), 0.5
z = u3 @ v3.T / tau3
table(z, f"z, Eq. 10 (tau = {tau3})")

# %% [markdown]
# **The paper** (Eq. 11; paper: 9) divides each row of $P$ by its sum. The row then holds the shares that image $i$
# *should* give to the texts (*wanted*). The softmax of $z$ holds the shares that it *does* give (*given*). The
# cross-entropy compares the two. We compute it over the texts for each image, and over the images for each text. The
# loss is the mean of both:
#
# $$L = \tfrac12\Big[\,\tfrac1N\sum_i \Big(-\sum_j \frac{P_{ij}}{\sum_k P_{ik}}\,\log\mathrm{softmax}_j\,z_{ij}\Big)
# + \text{the same on } z^\top\Big]$$

# %%
P3 = jaccard(codes3).double()
wanted = P3 / P3.sum(1, keepdim=True)
table(P3, "P, Eq. 9")
table(wanted, "wanted: P over its row sums")
table(z.softmax(1), "given: softmax over texts")
table(-wanted * z.log_softmax(1), "wanted times -log given: what each entry adds to the loss")

# %% [markdown]
# The source of Eq. 11 computes this in another order. We have $\log\mathrm{softmax}_j\,z_{ij} = z_{ij} -
# \mathrm{lse}_i$ with $\mathrm{lse}_i = \log\sum_j e^{z_{ij}}$. So the loss is a mean of `lse` minus a weighted mean of
# $z$. The source below has this form. `share_u` and `share_v` are the weights of `lse` for images and texts. `pull_u`
# is, for each image, the weighted sum of the texts that the loss pulls it to; [09](09_kernels.ipynb) shows how it is
# computed. The function computes in this form only if there are more than 1024 x 1024 pairs of an image and a text. For
# smaller batches, so for all of ours, it stops early and calls `whole_forward`, which computes the same with the matrix
# $P$. `offset` and `rows_only` serve a loss over a part of the pairs; here they are 0 and off. The cell checks both
# forms.

# %%
display(source_of(soft_contrastive_plain.forward))
image_to_text = -(wanted * z.log_softmax(1)).sum(1).mean()
text_to_image = -(wanted * z.T.log_softmax(1)).sum(1).mean()  # P is symmetric, z is not
other_order = (z.logsumexp(1) - (wanted * z).sum(1)).mean()
assert torch.isclose(other_order, image_to_text, rtol=1e-12)
by_hand, op = (image_to_text + text_to_image) / 2, soft_contrastive_loss(u3, v3, codes3, tau3)
sums = soft_contrastive_plain.class_sums(u3, v3, codes3, codes3)
as_shown = sums.share_u @ z.logsumexp(1) + sums.share_v @ z.logsumexp(0) - (u3 * sums.pull_u).sum() / tau3
print(f"image to text {image_to_text:.4f}, text to image {text_to_image:.4f}")
print(f"loss by hand {by_hand:.4f}, by soft_contrastive_loss {op:.4f}")
assert torch.isclose(by_hand, op, rtol=1e-12) and torch.isclose(by_hand, as_shown, rtol=1e-12)

# %% [markdown]
# ### Exercise 05.1 (predict)
#
# You may place the six embeddings anywhere, in as many dimensions as you like, and choose $\tau$. Below which value
# can the loss of the three pairs never fall? Work it out from the table *wanted*, with a pencil or in the cell.
#
# <details><summary>Solution</summary>
#
# A cross-entropy is least where the given shares equal the wanted ones. Then it is their entropy. Two rows want
# $2/3$ and $1/3$. The third row wants its own text alone, and has entropy 0. The mean over the three rows is
# $\tfrac23\,(\log 3 - \tfrac23 \log 2) = 0.42$. The loss can come as near to this value as you like.
# </details>

# %%
least_value = None
check("05.1", least_value)

# %% [markdown]
# ## 4 · The floor
#
# A cross-entropy is never below the entropy of the wanted shares. If two reports of the batch share a zone, the entropy
# of the wanted shares is above 0. The mean entropy is the *floor* of ITCL. It depends only on the reports of the batch.
# With hard positives it is 0.
#
# An even softmax needs no knowledge: each of the $N$ texts gets the same share, and the loss is $\log N$. (An untrained
# network is worse than that, because its softmax is uneven in a random way.) So $\log N$ minus the floor is the *room*,
# the most that a network can gain over an even softmax. The cell prints loss and floor of the three pairs. Then it
# prints floor and room of larger batches, as means over 200 batches of training pairs for each size.

# %%
display(source_of(itcl.loss_floor))
print(f"the three pairs: loss {by_hand:.3f}, floor {itcl.loss_floor(codes3):.3f}")
floors = {}
for n in (8, 16, 32):
    some = [codes[rng.permutation(len(train))[:n]] for _ in range(200)]
    floors[n] = np.mean([itcl.loss_floor(batch) for batch in some])
    print(f"{n:2} pairs: log N {math.log(n):.2f}, mean floor {floors[n]:.2f}, room {math.log(n) - floors[n]:.2f}")
print(f"tau log 3 = {tau * math.log(3):.3f}")

# %% [markdown]
# **A training batch leaves little room.** Most reports share zones, so the wanted shares are nearly even. Larger
# batches do not change that. Among texts that share zones, soft positives ask for small differences of cosines only. A
# text with $P = 1$ should get three times the share of a text with $P = 1/3$. So their logits should differ by $\log
# 3$, and their cosines by $\tau\log 3$, which is the last number above. Only a text with $P = 0$ should get no share at
# all, so it should be as far away as possible. That is 7 of 100 negatives here.
#
# ### Exercise 05.2 (break)
#
# Find four reports, as zone vectors, for which ITCL has no room at all: an even softmax is already at the floor.
#
# <details><summary>Solution</summary>
#
# All rows of $P$ must be even. Since $P_{ii} = 1$, every $P_{ij}$ must be 1. So all four reports name the same zones,
# such as `[[0, 0, 1, 0, 0, 0]] * 4`. Four reports without infection do not work. By the rule of section 2 they share
# nothing, so $P$ is the identity and the floor is 0. The loss then asks the network to tell four equal texts apart,
# which it cannot do.
# </details>

# %%
four_zone_vectors = None
check("05.2", four_zone_vectors)

# %% [markdown]
# ### Exercise 05.3 (change)
#
# Write a function `hard(u, v, codes, tau)` that returns the usual loss, with hard positives. Its body is one call of
# `soft_contrastive_loss`. The embeddings already have length 1. Think of the reports without infection.
#
# <details><summary>Solution</summary>
#
# ```python
# def hard(u, v, codes, tau):
#     return soft_contrastive_loss(u, v, torch.zeros_like(codes), tau)
# ```
#
# The code 0 stands for a report without zones. Such reports share nothing, so $P$ is the identity.
# </details>

# %%
hard = None  # def hard(u, v, codes, tau): ...
check("05.3", hard)

# %% [markdown]
# ## 5 · What the loss moves
#
# Training calls the function `itcl`. It takes soft or hard positives, and it first scales the embeddings to length
# 1. As in section 3 we take $\tau = 0.5$, so that the numbers stay easy to read.
#
# We place five pairs on the unit circle, a ring for each image and a square for each text. Pairs 1 and 2 name the same
# zones. Pairs 3 and 4 share one zone with them. Pair 5 shares none. The arrows are $-\partial L/\partial u_i$ from
# autograd, drawn at four times their length: this is where the loss moves each image. Then images and texts take one
# gradient step of size 1. The printed numbers say how much the cosines of images and texts change by it, as means over
# four groups of texts.
#
# **Look at** $u_1$. Both losses pull it to the right, towards its own text $v_1$. $v_2$ lies between them and names the
# same zones. Soft positives count $v_2$ as much as $v_1$, so their pull is weaker. **Then look at** $u_3$. Hard
# positives move it a little away from $v_3$ (the short arrow in its ring). Soft positives pull it to the texts that
# share a zone.

# %%
display(source_of(itcl.itcl))
losses = {f"{kind} positives": partial(itcl.itcl, positives=kind) for kind in ("hard", "soft")}
bits = [[0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 1, 0, 0, 1], [0, 0, 0, 1, 0, 0]]
five = [Report.of(each) for each in bits]
codes5 = torch.tensor([report.code for report in five])
u5, v5 = on_circle(128, 92, 170, 10, -110), on_circle(80, 110, 145, 45, -60)
P5 = jaccard(codes5)
groups = {"own text": torch.eye(5).bool(), "same zones": (P5 == 1) & ~torch.eye(5).bool()}
groups |= {"some shared": (P5 > 0) & (P5 < 1), "none shared": P5 == 0}
arrows = {}
for title, loss in losses.items():
    u, v = u5.clone().requires_grad_(), v5.clone().requires_grad_()
    du, dv = torch.autograd.grad(-loss(u, v, codes5, 0.5), (u, v))
    arrows[title] = 4 * du.numpy()
    moved = normalize(u5 + du, dim=1) @ normalize(v5 + dv, dim=1).T - u5 @ v5.T
    print(f"{title}: " + ", ".join(f"{name} {moved[rows].mean():+.2f}" for name, rows in groups.items()))
figures.pulls(u5.numpy(), v5.numpy(), arrows, five)
plt.show()

# %% [markdown]
# On average over the five pairs, both losses pull an image to its own text, and both push it away from texts that share
# nothing. ($u_3$ is an exception with hard positives: $v_1$ and $v_2$ lie on the same side of it as $v_3$, and the push
# away from them is a little stronger.) The losses differ for texts that share some zones (*some shared*): hard
# positives push the image away from them, soft positives pull it closer.
#
# ## 6 · What training makes of the embeddings
#
# Now we train the two encoders of the network `compact` ([02](02_network.ipynb)) with ITCL alone, without any mask.
# `decode=0` leaves out the decoder. The run with soft and the run with hard positives have the same start, the same
# batches and the same number of steps. It is a short training of a small network on the phantom, with one seed. It
# shows in which direction the losses pull, and not how far they get.

# %%
from tqdm.auto import tqdm

from semimedref_core import Batches, anatomy, build_network, build_texts, step, views

batches = Batches(train, None, config, build_texts(), anatomy.QATA)


def train_encoders(loss, title):
    torch.manual_seed(seed)
    network = build_network("compact")
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    path = []
    for t in tqdm(range(steps), desc=title):
        batch = batches(t).labelled
        seen = network(views.weak_view(batch.images, batch.affine), batch.input_ids, decode=0)
        value = loss(seen.image_embedding, seen.text_embedding, batch.codes, tau)
        optimizer.param_groups[0]["lr"] = step.learning_rate(config, t)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        path.append(value.item())
    print(f"{title}: the loss falls from {path[0]:.2f} to {np.mean(path[-20:]):.2f} (mean of the last 20 steps)")
    return network


# %%
torch.manual_seed(seed)
networks = {"untrained": build_network("compact")}
networks |= {title: train_encoders(loss, title) for title, loss in losses.items()}

# %% [markdown]
# We measure on 200 validation pairs: mean cosines of an image and a text, in four groups.
#
# - *own text*: the image's own text;
# - *same zones*, *some shared*, *none shared*: other texts that name the same zones, share some zones, or share none.
#
# **Look at** the orange line between *some shared* and *none shared*. It rises: texts that share nothing with the image
# have a larger cosine than texts that share some zones. The blue line falls there, as it should, but by little.

# %%
valid_codes, eye = torch.tensor([report.code for report in valid.reports]), torch.eye(len(valid)).bool()
images = views.weak_view(torch.from_numpy(valid.images)[:, None], torch.eye(2, 3).expand(len(valid), -1, -1))
texts_valid = [report.render() for report in valid.reports]
tokens, P_valid = batches.texts(texts_valid), jaccard(valid_codes)
groups = {"own": eye, "same": (P_valid == 1) & ~eye, "some": (P_valid > 0) & (P_valid < 1), "none": P_valid == 0}
embeddings, cosines = {}, {}
for name, network in networks.items():
    with torch.no_grad():
        seen = network(images, tokens, decode=0)
    u, v = embeddings[name] = normalize(seen.image_embedding, dim=1), normalize(seen.text_embedding, dim=1)
    cosines[name] = u @ v.T
means = pd.DataFrame(
    {name: [cosine[group].mean().item() for group in groups.values()] for name, cosine in cosines.items()},
    ["own text", "same zones", "some shared", "none shared"],
)
figures.group_cosines(means)
plt.show()
print(means.T.round(2).to_string())

# %% [markdown]
# Three more measures do not depend on how large the cosines are:
#
# - *order* is the rank correlation of cosine and $P$ over all other texts. It is high if texts with a larger $P$ mostly
#   have a larger cosine. 0 is chance.
# - *beyond* is the same rank correlation without the mean of each text. For each text we subtract its mean cosine over
#   all images from its cosines, and its mean $P$ from its $P$. Some texts name many zones and share some with nearly
#   every image. A network can learn this without looking at an image, and *beyond* does not count it.
# - *nearest* is the mean $P$ of an image and the closest text of another pair.
#
# The first lines of the output say how many different texts, own texts included, are the closest one of some image.
# **Look at** *order* and *beyond*: they rank soft and hard positives differently.

# %%
from scipy.stats import spearmanr

scores = {}
for name, cosine in cosines.items():
    order = spearmanr(cosine[~eye], P_valid[~eye]).statistic
    beyond = spearmanr((cosine - cosine.mean(0))[~eye], (P_valid - P_valid.mean(0))[~eye]).statistic
    nearest = P_valid[range(len(valid)), cosine.masked_fill(eye, -2).argmax(1)].mean().item()
    scores[name] = {"order": order, "beyond": beyond, "nearest": nearest}
    closest = len(set(texts_valid[j] for j in cosine.argmax(1)))
    print(f"{name}: {closest} of {len(set(texts_valid))} different texts are the closest text of an image")
scores, chance = pd.DataFrame(scores).T, {"order": 0.0, "beyond": 0.0, "nearest": P_valid[~eye].mean().item()}
figures.embedding_ranks(scores, chance)
plt.show()
print(scores.round(2).to_string())
print(f"P of a text at random: {chance['nearest']:.2f}")

# %% [markdown]
# **What the figures say.** Hard positives raise the cosines of *all* texts, also of those that share nothing. The own
# text (0.35) ends level with other texts of the same zones (0.36), and only a little above texts that share nothing
# (0.32). A softmax sees differences only, so the common level says nothing. Soft positives keep the cosines of the four
# groups within 0.03 of each other. That is less than the loss asks for (section 4: 0.08 between $P = 1$ and $P = 1/3$).
# So the softmax is nearly even, and the loss ends at 2.75, just below $\log 16 = 2.77$. This short run uses little of
# the room of 0.20. (With hard positives the loss ends at 2.26.) The loss also stays near $\log N$ in our trainings
# ([06](06_teacher_student.ipynb), [07](07_train.ipynb)).
#
# Both losses have improved the order of the cosines. (The orange line can rise at its end and *order* can still be 0.40,
# because only 8 of 100 other texts share nothing.) Soft positives are ahead in *order* and in *nearest*. But they are
# behind in *beyond*, and only 3 texts are ever the closest one. So in this short run a good part of what soft positives
# have learnt is *which texts share zones with many images*, and not what an image shows. The untrained network is below
# chance in *nearest*, probably because its few closest texts share little with other reports.
#
# ## 7 · Explore
#
# The widget draws validation pairs by a seed. The left map has the *wanted* shares, and the right map the shares that
# the embeddings *give*. Both maps have the same colour scale. Move $\tau$, switch the positives, and compare the
# network before and after training. The widget needs a running kernel; without one you see a still of it.
#
# The still shows twelve validation pairs and the network trained with soft positives. **Look at** its right map. It is
# still nearly even. The colours end at three times an even share. The line above the maps gives the loss, 2.46. An even
# softmax has 2.49, and the floor is 2.21.

# %%
from semimedref_core.widgets import contrast

contrast.contrast_explorer(valid.reports, embeddings)

# %% [markdown]
# ## What to take away
#
# **To remember.** The cell prints the facts with their numbers. They hold for the phantom with the settings above. Fact 4
# is from one seed: soft positives are ahead in the first pair of numbers, and behind in the second.

# %%
room = math.log(16) - floors[16]
print(f"1. Of the negatives in a training batch of 16, {100 * sharing:.0f} % share a zone with the image, and", end=" ")
print(f"{100 * same_words:.0f} % are the very same text.")
print(f"2. There the floor of the loss is {floors[16]:.2f} on average, and an even softmax has {math.log(16):.2f}.")
print(f"   So soft positives leave a room of {room:.2f}.")
print(
    f"3. Two texts with P = 1 and P = 1/3 need to differ in their cosine by {tau * math.log(3):.2f} only (tau = {tau})."
)
ranks = {name: " and ".join(f"{scores[name][f'{kind} positives']:.2f}" for kind in ("soft", "hard")) for name in scores}
print(f"4. Rank correlation of cosine and shared zones, soft and hard positives: {ranks['order']};")
print(f"   without the mean of each text: {ranks['beyond']}.")
apart = 100 * (P_valid[~eye] == 0).float().mean()
print(f"5. Of the other texts of the validation pairs, {apart:.0f} of 100 share nothing with the image.")

# %% [markdown]
# **Next:** [06 · Teacher and student](06_teacher_student.ipynb), where ITCL gives two of the four terms of the loss.
# **Back:** [04 · T-PatchMix](04_t_patchmix.ipynb). **Further on:** [09 · Kernels](09_kernels.ipynb) computes the loss
# without the matrix $P$, and in Triton. [08 · Results](08_results.ipynb) measures what ITCL is worth in a full
# training: there its effect cannot be told from chance. Two appendices follow: the temperature, and the space of the
# embeddings.

# %% [markdown]
# ## Appendix: temperature
#
# A small $\tau$ makes the softmax sharp, so few texts count. A large $\tau$ makes it even: cosines lie between -1 and
# 1, so at $\tau = 1$ no text counts more than $e^2$ times as much as another. To see what follows without a network,
# we take the zone vectors themselves as embeddings, $u_i = v_i = a_i / |a_i|$, of one batch of training pairs.
#
# *Texts that count* is $e^{h}$, where $h$ is the mean entropy of the softmax over the images. Blue curves are soft
# positives, orange ones are hard positives. The softmax is the same for both (black). Dashed lines are what $P$ asks
# for, and the dotted line is the $\tau$ in use. (The loss with hard positives could fall to 0, which a logarithmic axis
# cannot show.) **Look at** the blue curves left of the dotted line. Between the dotted line and $\tau = 0.005$, loss
# and gradient of soft positives grow by a factor of ten or more, although the embeddings *are* the zones. Already at
# the $\tau$ in use their loss is 4.22, and an even softmax has only $\log 16 = 2.77$. So at this $\tau$, embeddings
# that hold the zones exactly are worse than an even softmax, which knows nothing: their cosines differ too much. At
# $\tau = 0.3$ the same embeddings have 2.52, nearly the floor.

# %%
rows = slice(0, batch_size)
a = torch.tensor([report.zones for report in train.reports[rows]], dtype=torch.float64)
zones = {"soft": codes[rows], "hard": torch.zeros_like(codes[rows])}
taus = np.geomspace(0.005, 1, 41)


def at_temperature(loss, tau):
    u, v = normalize(a, dim=1).requires_grad_(), normalize(a, dim=1)
    value = soft_contrastive_loss(u, v, zones[loss], float(tau), normalize=True)
    (gradient,) = torch.autograd.grad(value, u)
    entropy = torch.special.entr((u @ v.T / tau).softmax(1)).sum(1).mean()
    return value.item(), entropy.exp().item(), gradient.norm(dim=1).mean().item()


hard_curves, soft_curves = (np.array([at_temperature(kind, t) for t in taus]).T for kind in ("hard", "soft"))

# %%
curves = {"loss": {"hard": hard_curves[0], "soft": soft_curves[0]}, "texts that count": {"both": soft_curves[1]}}
curves["mean length of dL/du"] = {"hard": hard_curves[2], "soft": soft_curves[2]}
least = itcl.loss_floor(codes[rows]).item()
figures.temperatures(
    taus, curves, {"loss": {"soft": least}, "texts that count": {"soft": math.exp(least), "hard": 1}}, tau
)
plt.show()
print("tau    soft loss  hard loss  texts that count  gradient soft  hard")
for t in (0.005, 0.07, 0.3, 1.0):
    (soft_loss, count, soft_slope), (hard_loss, _, hard_slope) = (at_temperature(kind, t) for kind in ("soft", "hard"))
    print(f"{t:<6} {soft_loss:9.2f} {hard_loss:10.2f} {count:17.1f} {soft_slope:14.3f} {hard_slope:5.3f}")
print(f"smallest soft loss {soft_curves[0].min():.2f} at tau {taus[soft_curves[0].argmin()]:.2f}; floor {least:.2f}")

# %% [markdown]
# Soft positives punish a softmax that is too sharp. A network at $\tau = 0.07$ can answer by keeping its cosines close
# together, and the trained one does so. The loss with hard positives falls as the softmax gets sharper. It does not
# fall to 0, because pairs that name the same zones have equal embeddings here, and no $\tau$ can separate them.
#
# ## Appendix: the space of the embeddings
#
# The figure shows the embeddings in their two main directions, before and after training. Images and texts lie apart
# (the *modality gap*), so we centre each kind by itself. The printed *gap* is the distance of the two means. The
# *spread* is the root mean square distance of the embeddings from their mean. **Look at** the right panel and the
# printed spread of the images: with soft positives it falls from 0.66 to 0.05. The images come close together. Then all
# images give nearly the same shares to the texts. Such a softmax uses little of the room, but the room is small (0.20
# in a batch of 16). All panels have the same scale.

# %%
spaces = {}
for name, (u, v) in embeddings.items():
    centred = torch.cat([u - u.mean(0), v - v.mean(0)])
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    spaces[name] = tuple(part.numpy() for part in (centred @ axes.T).split(len(u)))
    print(f"{name}: gap {(u.mean(0) - v.mean(0)).norm():.2f}, spread of images {u.std(0).norm():.2f}, ", end="")
    print(f"of texts {v.std(0).norm():.2f}")

# %%
figures.embedding_space(spaces, valid.reports)
plt.show()
