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
# # 01 · Image, report, mask
#
# **What you will see.** What one sample is, and what its report says: six zones of the lungs, as six bits. Then four
# things to know before trusting a number: which side "left" is, where "lower" lies in the image, what the report's count
# word gives away of the mask, and which pairs are the labelled ones. At the end, why one prediction has two Dice scores.
#
# The task is *medical referring image segmentation*: image $x$ and report $r$ go in, the lesion mask $y$ comes out.

# %% tags=["parameters"]
dataset = "phantom"  # or "phantom-ct", or "qata" with SEMIMEDREF_DATA set to the folder that holds QaTa
label_ratio = 0.05
image_size = 224  # the real files' own size; smaller ones may join lesions, and then counts no longer agree

# %% tags=["nbval-ignore-output"]
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from semimedref_core import Report, figures, load_split, reports, versions

figures.notebook_style()
print(versions())

# %% [markdown]
# ## The pairs
#
# Every pair of the train split has an image and a report. All masks are read here, since we want to know the data; a
# training run reads those of the labelled pairs only. The *phantom* is drawn by `semimedref_core.data.phantom` and free
# to share. It is stylised: good to learn the method with, no use for learning medicine.

# %%
pairs = load_split(dataset, "train", image_size)
print(f"{len(pairs)} pairs, images {pairs.images.shape[1:]} {pairs.images.dtype}")
print(f"lesion in {100 * pairs.masks.mean():.1f} % of all pixels")
print(f"reports without infection: {sum(not report.sides for report in pairs.reports)}")

# %%
first = next(i for i, report in enumerate(pairs.reports) if len(report.sides) == 2 and sum(report.zones) < 6)
figures.sample_apart(pairs.images[first], pairs.masks[first], pairs.reports[first])
plt.show()

# %% [markdown]
# ## X-rays and CT slices
#
# The phantom comes as both, as the two data sets of the paper do: QaTa-COV19 (X-rays) and MosMedData+ (CT slices). Its
# images also hold **decoys**: opacities like lesions that no report mentions and no mask marks. Only the text tells them
# apart.

# %%
figures.sample_gallery(pairs.subset(range(1, 4)), 3)
plt.show()

# %%
ct = load_split("phantom-ct", "valid", image_size).subset(range(3))
figures.sample_gallery(ct, 3)
plt.show()

# %% [markdown]
# ## A report is six bits (Eq. 1)
#
# $$a \in \{0,1\}^6:\quad a_k = 1 \text{ if the report names zone } k$$
#
# `Report.parse` reads the one small grammar that the real texts follow, and also the oddities found in them. The
# examples are ours, one for each oddity.

# %%
examples = {
    "plain": "Bilateral pulmonary infection, two infected areas, upper left lung and middle lower right lung.",
    "all": "Bilateral pulmonary infection, two infected areas, all left lung and lower right lung.",
    "no infection": "No pulmonary infection, zero infected areas.",
    "bare side": "Unilateral pulmonary infection, three infected areas, left lung.",
    "all and a height": "Unilateral pulmonary infection, one infected area, all lower left lung.",
    "typo": "Unilateral pulmonary infection, one infected areas, lowerl left lung.",
    "capitals, stops": "UNILATERAL PULMONARY INFECTION, ONE INFECTED AREA, UPPER RIGHT LUNG..",
    "a side unsaid": "Bilateral pulmonary infection, two infected areas, all lung and all right lung.",
    "two sides, unilateral": "Unilateral pulmonary infection, two infected areas, left lung and upper right lung.",
}
print("zones:", ", ".join(reports.ZONES))

# %%
for name, text in examples.items():
    report = Report.parse(text)
    print(f"{name:22} {''.join(map(str, report.zones))}  {report.render()}")

# %% [markdown]
# Rendering gives the canonical text, and reading that gives the same report again: for all 64 zone vectors, for both
# styles, and for every report of the data set.

# %%
vectors = [[code >> k & 1 for k in range(6)] for code in range(64)]
canonical = [Report.of(a, style=style) for a in vectors for style in ("lvit", "release")]
for report in [*canonical, *pairs.reports]:
    assert Report.parse(report.render()) == report
print(f"{len(canonical)} + {len(pairs)} reports rendered and read back")

# %% [markdown]
# What does not fit the grammar raises an error that shows the text. A report that is silently read as "no zone" would
# switch off every part of the method for its sample.

# %%
for text in (
    "The lungs are clear.",
    "Unilateral pulmonary infection, many infected areas, left lung.",
    "Unilateral pulmonary infection, one infected area, basal left lung.",
    "No pulmonary infection, two infected areas.",
):
    try:
        Report.parse(text)
    except reports.ReportError as error:
        print(f"{error}\n")

# %% [markdown]
# ## Two versions of the texts
#
# QaTa's reports are in use in two versions. They are written in different styles, and they are not even the same labels.
#
# | style | three zones of a side | the count word counts |
# |---|---|---|
# | `lvit` (LViT's tables) | `all left lung` | connected lesions in the mask |
# | `release` (SGSeg, the release) | `upper middle lower left lung` | zones named |
#
# For QaTa both versions are read here. The phantom has one truth, so its zones are rendered in the other style.

# %%
lvit = pairs.reports
if dataset == "qata":
    from semimedref_core.data import data_folder, find_qata

    entries = {entry.name: entry for entry in find_qata(data_folder()).entries("train", "release")}
    release = tuple(entries[name].report("release") for name in pairs.names)
else:
    release = tuple(Report.of(report.zones, style="release") for report in lvit)
print(f"lvit:    {lvit[first]}\nrelease: {release[first]}")

# %% [markdown]
# What the mask *shows* can be held against both: a zone is shown if its box holds lesion on 0.3 % of the image (the
# boxes are those of the calibrated grid, see below). Then the share of the six bits on which text and mask agree. The
# phantom is drawn from its zones, so it agrees by construction; real masks and texts do not.

# %%
from semimedref_core import anatomy

shown = np.array([anatomy.QATA.zones_shown(mask) for mask in pairs.masks])
said = {"lvit": np.array([r.zones for r in lvit]), "release": np.array([r.zones for r in release])}
differ = (said["lvit"] != said["release"]).any(1)
print(f"zone vectors that differ between the versions: {differ.sum()} of {len(pairs)}")
for style, zones in said.items():
    agree = (zones == shown).mean(1)
    where = f", where they differ {100 * agree[differ].mean():.1f} %" if differ.any() else ""
    print(f"{style:8} bits as the mask shows them: {100 * agree.mean():.1f} %{where}")

# %% [markdown]
# ## Which side is "left"?
#
# In a frontal X-ray the patient's right lung is on the image's left. Does "left lung" speak of the patient or of the
# image? The masks know. Take the reports that name one side only, and measure which half the lesion is in. (Lateral
# views, `vp-ll` in QaTa's file names, are counted apart: there left and right mean nothing.) For the phantom this was
# decided when it was drawn; for QaTa it is a finding, and this cell fails should a data set be mirrored.

# %%
from semimedref_core.data import Lesions, agreement

found = agreement(pairs)
print("\n".join(line for line in found.lines() if line.startswith(("left", "right"))))
assert not found.mirrored, "most one-sided lesions must lie in the half that the text names"

# %%
means = {
    f"{side} only ({len(chosen)} texts)": pairs.masks[chosen].mean(0)
    for side in reports.SIDES
    if (chosen := [i for i, report in enumerate(lvit) if report.sides == (side,)])
}
figures.mean_masks(means)
plt.show()

# %% [markdown]
# So **"left" is the left half of the image**, and the patient's right. Code that mirrors an image must swap the words
# (`Report.flip`). For MosMedData+ nobody has verified it yet.
#
# ## Where is "lower"?
#
# The method needs a box for each zone, to paste a patch where a report says the lesion is. The release cuts the image
# into equal thirds. Lungs do not fill an image from edge to edge, so lesions of "lower" end above the lowest third
# (Ledger 8). `estimate_grid` reads better cuts off the labelled pairs; the others are there to judge it.

# %%
from semimedref_core import estimate_grid
from semimedref_core.data import labelled_indices

labelled = labelled_indices(pairs.names, label_ratio)
others = pairs.subset(sorted(set(range(len(pairs))) - set(labelled)))
few = pairs.subset(labelled)
grids = {"thirds": anatomy.THIRDS, "estimated": estimate_grid(few.masks, few.reports)}
cuts = ", ".join(f"{cut:.2f}" for cut in grids["estimated"].cuts)
print(f"from {len(few)} labelled pairs: cuts at {cuts} of the height (calibrated on QaTa: {anatomy.QATA.cuts})")

# %% [markdown]
# Of the pixels of a lesion whose side is named by *one* height word, how many lie inside that word's band? The phantom's
# bands hardly overlap. In real data they do, so no grid is right for all: the estimate gives up some of "middle" to win
# more of "lower".

# %%
rows = anatomy.lesion_rows(others.masks, others.reports)[[1, 2, 4]]  # [3, H]: upper alone, middle alone, lower alone
inside = {name: grid.inside(rows) for name, grid in (grids | {"calibrated": anatomy.QATA}).items()}
(100 * pd.DataFrame(inside, index=reports.HEIGHTS)).round(1)

# %%
figures.row_histograms(rows, grids)
plt.show()

# %%
one_word = [i for i, r in enumerate(others.reports) if any(sum(r.side(side)) == 1 for side in reports.SIDES)]
figures.grids_over(others.subset(one_word[:3]), grids)
plt.show()

# %% [markdown]
# ## What the count word gives away
#
# In style `lvit` the word was counted in the mask, so **the text tells something of the mask that no reader of the image
# has told** (Ledger 10). In style `release` it only repeats how many zones are named. Both words against both counts:

# %%
counts = pd.DataFrame({"connected lesions in the mask": [Lesions.of(mask).count for mask in pairs.masks]})
for style, told in {"lvit": lvit, "release": release}.items():
    word = counts[f"{style} word"] = [r.lesions for r in told]
    of_lesions = np.mean(np.equal(word, counts["connected lesions in the mask"]))
    of_zones = np.mean([r.lesions == sum(r.zones) for r in told])
    print(f"{style:8} word = connected lesions in {100 * of_lesions:5.1f} %, = zones that the text names in "
          f"{100 * of_zones:5.1f} % of the texts")  # fmt: skip

# %%
drawn = counts.clip(upper=9)
tables = {
    f"{word} against the mask": pd.crosstab(drawn[word], drawn["connected lesions in the mask"])
    for word in ("lvit word", "release word")
}
figures.count_tables(tables)
plt.show()

# %% [markdown]
# How much is that worth? Without the word, the best guess of the number of lesions is the commonest one among the texts
# with the same zones (of these very texts, so a real guess would do no better).

# %%
codes = [report.code for report in lvit]
commonest = counts["connected lesions in the mask"].groupby(codes).transform(lambda n: n.mode().iloc[0])
guessed = (commonest == counts["connected lesions in the mask"]).mean()
leak = (counts["lvit word"] == counts["connected lesions in the mask"]).mean()
print(f"number of lesions right: {100 * guessed:.1f} % guessed from the zones, {100 * leak:.1f} % read off the word")

# %% [markdown]
# ## Which phrases are common
#
# Few phrases make up most reports, and "upper" alone is rare. The phantom draws its zones with the frequencies of the
# real texts (dots: all 7145 of QaTa's train and valid lists), so a method meets the same imbalance in both.

# %%
from semimedref_core.data import phantom


def phrase_shares(weights: dict[int, int]) -> pd.Series:
    """Share of the texts that hold each phrase, from how often each zone code occurs."""
    said = pd.Series(dtype=float)
    for code, times in weights.items():
        for phrase in Report.of(vectors[code]).phrases:
            said[phrase] = said.get(phrase, 0) + times
    return said / sum(weights.values())


# %%
here = phrase_shares(pd.Series(codes).value_counts().to_dict())
phrases = pd.DataFrame({dataset: here, "QaTa, train and valid": phrase_shares(phantom.ZONE_CODES)}).fillna(0)
phrases = phrases.sort_values("QaTa, train and valid", ascending=False)
figures.phrase_bars(phrases)
print((100 * phrases.head(4)).round(1).to_string())
plt.show()

# %% [markdown]
# ## Labelled and unlabelled pairs (Eq. 2)
#
# $$D = D_L \cup D_U,\qquad |D_L| = \max(1, \mathrm{round}(\rho\,|D|))$$
#
# The release shuffles the train list once (seed 42) and labels its first part, so a smaller labelled set is part of each
# larger one. MosMedData+ sorts the names first and rounds down. We label exactly the same pairs.
#
# Splits are the published ones. In MosMedData+ they are by *slice*: most CT studies of its test split have slices in train
# too, so its test scores say little of new patients (Ledger 12). `semimedref doctor` warns and counts; the slices stay
# where they are, so that numbers compare.

# %%
ratios = (0.01, 0.02, 0.05, 0.15)
lists = {dataset: pairs.names, "QaTa-COV19": range(5716), "MosMedData+": range(2183)}
kinds = {"MosMedData+": "mosmed"}
chosen = {name: {r: labelled_indices(list(items), r, kinds.get(name, "qata")) for r in ratios}
          for name, items in lists.items()}  # fmt: skip
sizes = pd.DataFrame({name: {f"{100 * r:g} %": len(c) for r, c in of.items()} for name, of in chosen.items()})
assert all(set(chosen[dataset][a]) < set(chosen[dataset][b]) for a, b in pairwise(ratios))
sizes

# %%
figures.split_strips(chosen[dataset], len(pairs))
plt.show()

# %% [markdown]
# A digest of the labelled names shows whether two people train on the same pairs. For QaTa the release's are known.

# %%
from semimedref_core.data import PUBLISHED, digest

for ratio in ratios:
    ours = digest([pairs.names[i] for i in chosen[dataset][ratio]])
    known = f", the release's: {PUBLISHED[ratio]}" if dataset == "qata" and ratio in PUBLISHED else ""
    print(f"{100 * ratio:4g} %: sha256 {ours}{known}")
    assert not known or ours == PUBLISHED[ratio], "another labelled set than the release's"

# %% [markdown]
# ## One prediction, two Dice scores (Eq. 18)
#
# $$\mathrm{Dice}_\text{micro} = \frac{2\sum_i |\hat y_i \cap y_i|}{\sum_i |\hat y_i| + |y_i|},\qquad
# \mathrm{Dice}_\text{image} = \frac1N \sum_i \frac{2\,|\hat y_i \cap y_i|}{|\hat y_i| + |y_i|}$$
#
# The release reports the first, LViT and its heirs the second (Ledger 11). Take two images, one with a large lesion and
# one with a small one; find the large one perfectly and miss the small one.

# %%
from semimedref_core import evaluation, scores

some = pairs.subset(range(200))
areas = some.masks.mean((1, 2))
large, small = int(areas.argmax()), int(np.where(areas > 0, areas, 1).argmin())
y = torch.from_numpy(some.masks[[large, small]])[:, None].bool()
y_hat = y & torch.tensor([True, False])[:, None, None, None]
two = scores(evaluation.overlap(y_hat, y).numpy())
print(f"lesions of {100 * areas[large]:.1f} % and {100 * areas[small]:.1f} % of the image")
print(f"Dice micro {100 * two['dice_micro']:.1f} %, Dice per image {100 * two['dice_image']:.1f} %")

# %% [markdown]
# A milder error does it too. Every mask grown by 2 % of the image's side: the same slip everywhere, and small lesions
# pay more for it.

# %%
grown = ndimage.binary_dilation(some.masks, np.ones((1, 3, 3), bool), iterations=max(1, round(0.02 * image_size)))
y, y_hat = (torch.from_numpy(masks)[:, None].bool() for masks in (some.masks, grown))
pixels = evaluation.overlap(y_hat, y).numpy()
slip = scores(pixels)
print({name: f"{100 * value:.1f} %" for name, value in slip.items()})

# %%
each = 2 * pixels[:, 0] / np.maximum(pixels[:, 1] + pixels[:, 2], 1)
figures.dice_by_size(areas, each, {"Dice micro": slip["dice_micro"], "Dice per image": slip["dice_image"]})
plt.show()

# %% [markdown]
# **To remember:** "left" is the image's left; much of "lower" is not in the lowest third; the count word of the `lvit`
# texts was counted in the mask.

# %%
left = found.on_side["left"]
print(f"left-only lesions in the image's left half   {left.percent}")
print(f"'lower' inside its band, thirds              {100 * inside['thirds'][2]:.1f} %")
print(f"'lower' inside its band, estimated           {100 * inside['estimated'][2]:.1f} %")
print(f"number of lesions read off the count word    {100 * leak:.1f} %")
