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
# # 01 · Data
#
# **What you will see.** What a sample is: an image, its report, and for a few of them a mask. How a report becomes six bits,
# where these zones lie in the image, which side "left" is, what the count word gives away, and which pairs are labelled.
# All is measured on the data at hand, the phantom by default, real QaTa-COV19 with `dataset = "qata"`.

# %% tags=["parameters"]
dataset = "phantom"  # or "phantom-ct", or "qata" with SEMIMEDREF_DATA set to the folder that holds QaTa
image_size = 96

# %%
from dataclasses import replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from semimedref_core import versions
from semimedref_core.config import Config
from semimedref_core.data.datasets import load_split
from semimedref_core.figures import dataset as figures
from semimedref_core.figures.canvas import notebook_style
from semimedref_core.figures.pairs import sample_gallery
from semimedref_core.reports import HEIGHTS, SIDES, ZONES, Report, ReportError

notebook_style()
print(versions("numpy"))

# %% [markdown]
# ## A sample
#
# An image $x$, a report $r$ and, if somebody drew one, a mask $y$ (blue contour). The method's point is that most pairs
# come without the mask, but all come with the report.

# %%
config = Config(dataset=dataset, image_size=image_size)
pairs = load_split(config, "valid")
print(f"{len(pairs)} pairs, images {pairs.images.shape} {pairs.images.dtype}, masks {np.unique(pairs.masks).tolist()}")
sample_gallery(pairs)
plt.show()

# %% [markdown]
# The built-in phantom also draws CT slices. Both hold look-alike opacities that no report names: the picture alone does not
# say what the lesion is.

# %%
from semimedref_core.data.phantom import phantom

sample_gallery(phantom("valid", 4, image_size, modality="ct"))
plt.show()

# %% [markdown]
# ## A report is six bits
#
# The zones that a report names, always in the same order, are the *positional pseudo-label* $a \in \{0,1\}^6$ (Eq. 1).
# Real reports hold slips; these, written in the same grammar, show what is understood.

# %%
texts = """Bilateral pulmonary infection, two infected areas, all left lung and middle lower right lung.
unilateral pulmonary infection, three infected areas, upper middle lower right lung.
No pulmonary infection, zero infected areas.
Unilateral pulmonary infection, one infected areas, left lung.
UNILATERAL PULMONARY INFECTION, ONE INFECTED AREA, LOWERL LEFT LUNG..
Bilateral pulmonary infection, two infected areas, all lung and all right lung.""".splitlines()
bits = {text: "".join(map(str, Report.parse(text).zones)) for text in texts}
print("zones: " + ", ".join(ZONES))
for text, zones in bits.items():
    print(zones, " ", text)

# %%
canonical = Report.parse(texts[4])
print(canonical.render())
assert all(Report.parse(report.render()) == report for report in pairs.reports), "parsing undoes rendering"
print(f"parse(render(r)) = r for {len(pairs)} reports")

# %% [markdown]
# What cannot be read is an error, never an empty vector that trains on.

# %%
try:
    Report.parse("Bilateral pulmonary infection, two infected areas, in the hilum.")
except ReportError as error:
    print(error)

# %% [markdown]
# ## Two versions of the texts
#
# QaTa's reports are in use in two versions. LViT's write "all left lung" and count the connected lesions of the mask; the
# release's write all three zones and count zones. With real data, also the zones differ between the two.

# %%
example = next(report for report in pairs.reports if all(report.side("left")) or all(report.side("right")))
print("lvit    ", Report.of(example.zones, example.lesions, "lvit").render())
print("release ", Report.of(example.zones, example.lesions, "release").render())
if dataset == "qata":
    others = load_split(replace(config, texts="release"), "valid").reports
    differ = np.mean([a.zones != b.zones for a, b in zip(pairs.reports, others, strict=True)])
    print(f"zone vectors that differ between the versions: {100 * differ:.1f} %")

# %% [markdown]
# ## Which zones are named

# %%
zones = np.array([report.zones for report in pairs.reports])
figures.zone_frequencies(zones)
plt.show()
sides = np.array([[any(report.side(side)) for side in SIDES] for report in pairs.reports])
print(
    f"both sides {100 * sides.all(1).mean():.1f} %, one side {100 * (sides.sum(1) == 1).mean():.1f} %, none {100 * (sides.sum(1) == 0).mean():.1f} %"
)

# %% [markdown]
# ## Which side is "left"?
#
# The masks say it: of reports that name one side only, how much of the mask lies in the image's left half. "left" is the
# **image's** left, that is the patient's right lung.

# %%
from semimedref_core.data.doctor import Lesions

lesions = [Lesions.of(mask) for mask in pairs.masks]
in_left_half = {}
for s, side in enumerate(SIDES):
    only = [seen.pixels for seen, named in zip(lesions, sides, strict=True) if named[s] and not named[1 - s]]
    in_left_half[side] = np.mean([left / (left + right) for left, right in only if left + right])
    print(
        f"only {side:5} named: {100 * in_left_half[side]:5.1f} % of the lesion in the image's left half, mean of {len(only)}"
    )

# %% [markdown]
# ## Where is "lower"?
#
# The released code cuts the image into equal thirds (Ledger 8). Lesions do not keep to them: the lungs do not fill the
# image. A grid read off the labelled masks fits better. Here every mask of the split votes; in training, labelled ones only.

# %%
from semimedref_core.anatomy import THIRDS, estimate_grid

grids = {"thirds": THIRDS, "estimated": estimate_grid(pairs.masks, pairs.reports)}
print("estimated cuts of the height:", np.round(grids["estimated"].cuts, 2).tolist())
figures.grid_gallery(pairs, grids)
plt.show()

# %%
rows = np.zeros((3, image_size))
for mask, report in zip(pairs.masks, pairs.reports, strict=True):
    for half, side in zip(np.split(mask, 2, axis=1), SIDES, strict=True):
        if sum(report.side(side)) == 1:
            rows[report.side(side).index(1)] += half.sum(1)
figures.rows_by_band(rows, grids)
plt.show()

# %%
inside = {}
for name, grid in grids.items():
    cuts = np.rint(np.array(grid.cuts) * image_size).astype(int)
    inside[name] = [100 * rows[b, cuts[b] : cuts[b + 1]].sum() / rows[b].sum() for b in range(3)]
print("share of lesion pixels inside the band that the report names (%)")
pd.DataFrame(inside, index=list(HEIGHTS)).round(0).astype(int)

# %% [markdown]
# ## What the count word gives away
#
# In LViT's texts the count word is the number of connected lesions of the mask: the text was made from the answer
# (Ledger 10). A network can learn to draw so many blobs. In the release's texts it is the number of zones, which the
# phrases say anyway. On QaTa the masks here are scaled down, which joins or drops some lesions; `semimedref doctor` counts
# at full size.

# %%
words = [report.lesions for report in pairs.reports]
components = [seen.count for seen in lesions]
named = zones.sum(1).tolist()
figures.count_word({"connected lesions of the mask": (words, components), "zones named": (words, named)})
plt.show()
leak = np.mean(np.equal(words, components))
print(
    f"count word = connected lesions: {100 * leak:.1f} %, = zones named: {100 * np.mean(np.equal(words, named)):.1f} %"
)

# %% [markdown]
# ## Labelled and unlabelled
#
# The names of the train list, in order, are shuffled with a fixed seed; the first $\max(1, \mathrm{round}(\rho n))$ are
# labelled (Eq. 2). So each smaller set is inside every larger one, and the sets are those of the release.

# %%
from semimedref_core.data.datasets import data_folder
from semimedref_core.data.qata import find_qata
from semimedref_core.data.splits import PUBLISHED, digest, labelled_indices

if dataset == "qata":
    names = [entry.name for entry in find_qata(data_folder()).entries("train", config.texts)]
else:
    names = list(load_split(config, "train").names)
chosen = {ratio: set(labelled_indices(names, ratio)) for ratio in (0.01, 0.02, 0.05, 0.15, 1.0)}
for ratio, indices in chosen.items():
    print(f"{100 * ratio:5.1f} %: {len(indices):4} of {len(names)} labelled")

# %%
assert all(a <= b for a, b in pairwise(chosen.values())), "nested"
print("each smaller labelled set is contained in every larger one")
if dataset == "qata":
    for ratio, published in PUBLISHED.items():
        print(f"{100 * ratio:g} %: {digest([names[i] for i in chosen[ratio]])}, published {published}")

# %% [markdown]
# ## Micro or per image?
#
# The release adds up the pixels of all images, then divides (*micro*); others average over images (Ledger 11). A large
# lesion found and a small one missed give two very different numbers (Eq. 18):

# %%
from semimedref_core.evaluation import overlap, scores

truth, predicted = (torch.zeros(2, 1, 32, 32, dtype=torch.bool) for _ in range(2))
truth[0, :, 4:24, 4:24] = predicted[0, :, 4:24, 4:24] = True  # a large lesion, found
truth[1, :, 4:7, 4:7] = True  # a small one, missed
example = scores(overlap(predicted, truth).numpy())
print({name: round(value, 3) for name, value in example.items()})

# %% [markdown]
# **To remember:** which side "left" is, how badly thirds fit the lower zone, and how often the count word tells the answer.

# %%
print(f"of an only-left lesion in the image's left half: {100 * in_left_half['left']:.0f} %")
print(
    f"of lesions called lower inside the lowest third: {inside['thirds'][2]:.0f} %, inside the estimated band: {inside['estimated'][2]:.0f} %"
)
print(f"count word = number of connected lesions: {100 * leak:.0f} %")
