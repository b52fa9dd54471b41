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
# **What you will see.** The task is *medical referring image segmentation*: a network gets an image $x$ and its report
# $r$, and it has to give the mask $y$ of the lesion. This notebook looks at the data. After it you
#
# - can read a report as six bits, one for each zone of the lungs (Eq. 1);
# - know which side "left" is and how high "lower" lies in the image, and how we measured both;
# - know which pairs are the labelled ones (Eq. 2), and what the reports give away about the masks;
# - can say why one prediction has two Dice scores (Eq. 18).
#
# **What you need.** PyTorch or NumPy, and the abstract of the paper.
#
# **Time.** About 20 minutes to read, with the exercises and without the appendices; about 20 seconds to run.
#
# The numbers of the three equations are ours; we do not know the paper's. The *release* is the code that the authors
# published. The *ledger* in [notebook 00](00_start_here.ipynb) is a numbered list of the places where the release
# differs from what the paper leads one to expect.

# %% tags=["parameters"]
dataset = "phantom"  # or "phantom-ct", or "qata" with SEMIMEDREF_DATA set to the folder that holds QaTa
label_ratio = 0.05
image_size = 224  # the real files' own size; smaller ones may join lesions, and then counts no longer agree

# %% tags=["nbval-ignore-output"]
import random
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display
from scipy import ndimage

from semimedref_core import Report, anatomy, estimate_grid, evaluation, figures, load_split, reports, scores, versions
from semimedref_core.data import Lesions, agreement, labelled_indices, phantom
from semimedref_core.teaching import check, source_of

figures.notebook_style(74)
print(versions())

# %% [markdown]
# ## The pairs
#
# A pair is an image and its report. This notebook reads the masks of all pairs, because we want to know the data. Of
# the training pairs, a training run reads only the masks of the labelled ones.
#
# The **phantom** is a data set that a program draws: stylised chest X-rays with lesions, masks and reports. It is free
# to share. It teaches the method; it teaches no medicine.
#
# A report speaks of six **zones**: upper, middle and lower, on each side. The figure shows one pair. Compare the blue
# outlines in the middle with the blue fields at the right: the fields are the zones that the report names.

# %%
pairs = load_split(dataset, "train", image_size)
print(f"{len(pairs)} pairs, images {pairs.images.shape[1:]} {pairs.images.dtype}")
print(f"lesion in {100 * pairs.masks.mean():.1f} % of all pixels")
print(f"reports without infection: {sum(not report.sides for report in pairs.reports)}")
first = next(i for i, report in enumerate(pairs.reports) if len(report.sides) == 2 and sum(report.zones) < 6)
figures.sample_apart(pairs.images[first], pairs.masks[first], pairs.reports[first])
plt.show()

# %% [markdown]
# ## Why the text is needed: decoys
#
# Most phantom images also hold **decoys**. A decoy is an opacity that looks like a lesion, but no report names it and
# no mask marks it.
#
# Not every image has a decoy. A decoy lies in a zone that the report does not name. Three of ten reports name all six
# zones, so their images cannot hold one. The next cell counts decoys on the phantom's X-rays, whatever `dataset` is.
#
# In the figure yellow dotted lines mark decoys, and blue lines mark lesions. Compare the opacities inside them: they
# look alike. A network sees neither line, so only the text can tell it which is which.

# %%
every = phantom.decoys("train", size=64).any((1, 2))
all_named = np.array([all(report.zones) for report in phantom.phantom("train", size=64).reports])
print(f"decoys in {100 * every.mean():.0f} % of {len(every)} images")
print(f"reports that name all six zones: {100 * all_named.mean():.0f} %; their images hold no decoy")
print(f"decoys in {100 * every[~all_named].mean():.0f} % of the other images")
assert not every[all_named].any()

# %%
some = np.flatnonzero(every)[[0, 3, 6]]
count = int(some[-1]) + 1
drawn = phantom.phantom("train", count, image_size)
figures.sample_gallery(drawn.subset(some), 3, phantom.decoys("train", count, image_size)[some])
plt.show()

# %% [markdown]
# ## A report is six bits (Eq. 1)
#
# The paper turns the positions of a report into a vector of six bits, and calls it a positional pseudo-label:
#
# $$a \in \{0,1\}^6:\quad a_k = 1 \text{ if the report names zone } k \qquad (\text{Eq. 1})$$
#
# Left comes before right, and each side goes from top to bottom. `Report.parse` calls the function below, which turns
# the phrases of a report into bits. `_parse_phrase` finds the side and the heights of one phrase. `spelt_out` remembers
# the style of the text. The branch `side is None` handles a phrase that names no side (an appendix shows such slips).
# The last two lines of the cell check one report by hand.

# %%
display(source_of(reports._parse_phrases))

text = "Bilateral pulmonary infection, two infected areas, upper left lung and middle lower right lung."
print("zones:", ", ".join(reports.ZONES))
print(f"{Report.parse(text).zones}  {text}")
by_hand = tuple(int(zone in ("left upper", "right middle", "right lower")) for zone in reports.ZONES)
assert Report.parse(text).zones == by_hand

# %% [markdown]
# ### Two versions of the texts
#
# Two versions of QaTa-COV19's reports are in use. They differ in style:
#
# | style | three zones of one side are written as | the count word counts |
# |---|---|---|
# | `lvit` (the tables of LViT, an earlier method) | `all left lung` | connected lesions in the mask |
# | `release` (the texts of SGSeg, another earlier method; the release uses them) | `upper middle lower left lung` | zones that are named |
#
# On QaTa's validation pairs 16 % of the zone vectors differ too; an appendix compares the bits. The cell shows one
# report in both styles.

# %%
lvit = pairs.reports
if dataset == "qata":
    from semimedref_core.data import data_folder, find_qata

    entries = {entry.name: entry for entry in find_qata(data_folder()).entries("train", "release")}
    release = tuple(entries[name].report("release") for name in pairs.names)
else:  # the phantom has one truth, so its zones are written in the other style
    release = tuple(Report.of(report.zones, style="release") for report in lvit)
print(f"lvit:    {lvit[first]}\nrelease: {release[first]}")

# %% [markdown]
# ### Exercise 01.1 (predict)
#
# Read this report, which is in style `lvit`: `Bilateral pulmonary infection, three infected areas, upper lower left
# lung and all right lung.` What is its vector $a$? And which number would the style `release` write in place of
# "three"? Answer with `(a, number)`, such as `([0, 0, 0, 0, 0, 0], 0)`.
#
# <details><summary>Solution</summary>
#
# `([1, 0, 1, 1, 1, 1], 5)`. The left lung has upper and lower, but no middle. `all right lung` names three zones. So
# the report names five zones, and the style `release` writes "five infected areas". The word "three" in style `lvit`
# says that the mask has three connected lesions: one lesion may fill several zones.
# </details>

# %%
six_bits = None
check("01.1", six_bits)

# %% [markdown]
# ## Which side is "left"?
#
# In a frontal X-ray the patient's right lung is on the left of the image. So "left lung" may mean the patient's left
# or the image's left. The masks decide. We take the reports that name one side only, and measure in which half of the
# image their lesions lie. (Lateral views have `vp-ll` in QaTa's file names, and left and right mean nothing in them.
# `agreement` counts them separately.)
#
# We drew the phantom with "left" on the image's left, so its 100 % is not a finding. With `dataset = "qata"` the same
# cell measures the real data; its number stands below the figure. The figure shows, for each pixel, the share of masks
# with lesion there. **Look at** the dashed midline: each bright spot lies on the side that the reports name.

# %%
found = agreement(pairs)
print("\n".join(line for line in found.lines() if line.startswith(("left", "right"))))
assert not found.mirrored, "most one-sided lesions must lie in the half that the text names"
one_sided = {
    f"{side} only ({len(chosen)} texts)": pairs.masks[chosen].mean(0)
    for side in reports.SIDES
    if (chosen := [i for i, report in enumerate(pairs.reports) if report.sides == (side,)])
}
figures.mean_masks(one_sided)
plt.show()

# %% [markdown]
# Among QaTa's 1429 validation pairs, take the frontal views whose report names only the left lung. On average 98.5 % of
# the lesion lies in the left half of the image. So **"left" is the left half of the image**. For MosMedData+ (CT
# slices) we have not verified it.
#
# ### Exercise 01.2 (change)
#
# Mirror a pair. Write `mirrored(image, mask, report)`. It gets an image and a mask as arrays `[H, W]`, and a `Report`.
# It returns image, mask and report of the mirror image, in this order, and the three must agree.
#
# <details><summary>Solution</summary>
#
# ```python
# def mirrored(image, mask, report):
#     return image[:, ::-1], mask[:, ::-1], report.flip()
# ```
#
# Mirroring is a common augmentation for images. Here it must also swap the words "left" and "right". If you mirror
# half of the images and keep their reports, half of the pairs teach the network that "left" means right.
# </details>

# %%
mirrored = None  # def mirrored(image, mask, report): ...
check("01.2", mirrored)

# %% [markdown]
# ## Where is "lower"?
#
# The method pastes patches where a report says that a lesion is. So it needs a box for each zone. A **grid** gives
# these boxes by four cuts, as shares of the image's height. The two inner cuts separate upper from middle and middle
# from lower. The two outer cuts leave out the rows at top and bottom that contain almost no lesion. The release cuts
# the image into equal thirds (Ledger 8). But lungs do not reach from edge to edge, so many lesions of "lower" lie
# partly above the lowest third. We estimate the cuts from the labelled pairs (`estimate_grid`), and judge them on the
# other pairs.
#
# The table takes lesions that a report places by *one* height word. It says how many per cent of their pixels lie
# inside the band of that word. *Calibrated* is our grid for QaTa. The phantom draws its lesions inside the bands of the
# calibrated grid, so the column *calibrated* must be near 100 %.

# %%
labelled = labelled_indices(pairs.names, label_ratio)
few, others = pairs.subset(labelled), pairs.subset(sorted(set(range(len(pairs))) - set(labelled)))
grids = {"thirds": anatomy.THIRDS, "estimated": estimate_grid(few.masks, few.reports)}
cuts = ", ".join(f"{cut:.2f}" for cut in grids["estimated"].cuts)
print(f"from {len(few)} labelled pairs: cuts at {cuts} of the height (calibrated on QaTa: {anatomy.QATA.cuts})")
rows = anatomy.lesion_rows(others.masks, others.reports)[[1, 2, 4]]  # [3, H]: upper alone, middle alone, lower alone
inside = {name: grid.inside(rows) for name, grid in (grids | {"calibrated": anatomy.QATA}).items()}
display((100 * pd.DataFrame(inside, index=reports.HEIGHTS)).round(1))

# %% [markdown]
# In the next figure each coloured shape shows in which rows the lesions of one word lie; the top of the image is at
# the top. Thick lines are the inner cuts, thin lines the outer ones. **Look at** the lower thick line of the thirds:
# it cuts through the middle of "lower".
#
# In the phantom the shapes of the three words hardly overlap, so one grid fits nearly all lesions. In real data they
# overlap: on QaTa's validation masks only 26 % of the pixels of "lower" lie in the lowest third, and 56 % in the
# calibrated band.

# %%
figures.row_histograms(rows, grids)
plt.show()

# %% [markdown]
# Here are both grids over images. Thin lines are the outer cuts. **Look at** the lesions of "lower": the lower dashed
# line crosses them, and the lower thick yellow line runs above them.

# %%
one_word = [i for i, r in enumerate(others.reports) if any(sum(r.side(side)) == 1 for side in reports.SIDES)]
figures.grids_over(others.subset(one_word[:3]), grids)
plt.show()

# %% [markdown]
# ### Exercise 01.3 (break)
#
# Break the grid of thirds. Make a mask of 96 by 96 pixels, 0 and 1. By a grid, a mask *shows* a zone if the lesion in
# the zone's box covers at least 0.3 % of the image (28 pixels here). By the calibrated grid your mask shows *left
# lower* and nothing else; by the thirds it shows *left middle* and nothing else. `anatomy.QATA.zones_shown(mask)` and
# `anatomy.THIRDS.zones_shown(mask)` give the bits.
#
# <details><summary>Solution</summary>
#
# ```python
# mask = np.zeros((96, 96), np.uint8)
# mask[56:63, 10:40] = 1
# ```
#
# The calibrated grid begins "lower" at 0.57 of the height, which is row 55. The thirds begin it at row 64. A report
# calls a lesion between these rows "lower", and that is right. But the thirds put it into the box of "middle". So a
# patch for "lower" that follows the thirds is taken from below the lesion.
# </details>

# %%
mask = None
check("01.3", mask)

# %% [markdown]
# ## What the count word gives away (Ledger 10)
#
# In style `lvit` the word is the number of connected lesions *in the mask*. On QaTa this holds for all 1429 validation
# texts. The phantom follows the same rule. So the text tells something about the mask that should come from the image.
# On the phantom this is little: in nearly all texts the zones alone already give the number (appendix). In style
# `release` the word only repeats how many zones are named. Each table counts the texts with a given word (rows) and a
# given number of connected lesions (columns). Orange frames mark the fields where the two agree. **Look at** how many
# texts lie outside the frames: on the phantom none at the left, and more than half at the right.

# %%
counts = pd.DataFrame({"connected lesions in the mask": [Lesions.of(mask).count for mask in pairs.masks]})
in_mask = counts["connected lesions in the mask"]
for style, told in {"lvit": lvit, "release": release}.items():
    word = counts[f"{style} word"] = [report.lesions for report in told]
    print(f"{style:8} word = connected lesions in {100 * np.mean(word == in_mask):5.1f} % of the texts")
shown = counts.clip(upper=9)
tables = {
    f"{name} against the mask": pd.crosstab(shown[name], shown["connected lesions in the mask"])
    for name in ("lvit word", "release word")
}
figures.count_tables(tables)
plt.show()

# %% [markdown]
# ## Labelled and unlabelled pairs (Eq. 2)
#
# A share $\rho$ of the $n$ training pairs keeps its masks: $D_L$, the labelled pairs. The others are $D_U$:
#
# $$|D_L| = \max(1, \mathrm{round}(\rho\, n)), \qquad D_U = D \setminus D_L \qquad (\text{Eq. 2})$$
#
# The release shuffles the list once, with seed 42, and takes the first ones. So a smaller labelled set is part of each
# larger one. We label exactly the same pairs. The function has a second branch for MosMedData+, because the release
# sorts its names first and rounds down. (`with_mask` is for your own folders, where some masks are missing from the
# start.)
#
# In the listing read the branch `if dataset in ("qata", ...)` and the last two lines. The table counts labelled pairs.
# In the figure each blue line is a labelled pair of `dataset`. Follow one line downwards: a pair that is labelled at 1
# % stays labelled at every larger share.

# %%
display(source_of(labelled_indices))
order = list(range(len(pairs)))
random.Random(42).shuffle(order)
assert labelled == order[: max(1, round(label_ratio * len(pairs)))]  # by hand

ratios = (0.01, 0.02, 0.05, 0.15)
lists = {dataset: (pairs.names, "qata"), "QaTa-COV19": (range(5716), "qata"), "MosMedData+": (range(2183), "mosmed")}
chosen = {name: {r: labelled_indices(list(items), r, kind) for r in ratios} for name, (items, kind) in lists.items()}
assert all(set(chosen[dataset][a]) < set(chosen[dataset][b]) for a, b in pairwise(ratios))
display(pd.DataFrame({name: {f"{100 * r:g} %": len(c) for r, c in of.items()} for name, of in chosen.items()}))
figures.split_strips(chosen[dataset], len(pairs))
plt.show()

# %% [markdown]
# ## One prediction, two Dice scores (Eq. 18)
#
# Dice compares a prediction $\hat y$ with a mask $y$: twice the common pixels over the sum of both. For $N$ images
# there are two averages. *Micro* adds the pixels of all images first. *Per image* takes the mean of the images' own
# scores:
#
# $$\mathrm{Dice}_\text{micro} = \frac{2\sum_i |\hat y_i \cap y_i|}{\sum_i \big(|\hat y_i| + |y_i|\big)},\qquad
# \mathrm{Dice}_\text{image} = \frac1N \sum_i \frac{2\,|\hat y_i \cap y_i|}{|\hat y_i| + |y_i|} \qquad (\text{Eq. 18})$$
#
# The release reports the first, LViT's code the second (Ledger 11). *mIoU* is averaged in the same two ways; it divides
# the common pixels by the pixels of either. In the mean per image, an image without lesion and without prediction
# scores 1; in the micro score it counts for nothing. The cell computes both averages for two images, one with a large
# lesion and one with a small lesion. We pretend that a network finds the large one perfectly and misses the small one.

# %%
display(source_of(evaluation.dice_and_iou, evaluation.scores))
areas = pairs.masks[:200].sum((1, 2), dtype=np.int64)
large, small = int(areas.max()), int(areas[areas > 0].min())
two = scores(np.array([[large, large, large], [0, 0, small]]))  # common, predicted and true pixels of each image
assert np.isclose(two["dice_micro"], 2 * large / (large + large + small))  # by hand
assert np.isclose(two["dice_image"], (1 + 0) / 2)
print(f"lesions of {large} and {small} pixels")
print(f"Dice micro {100 * two['dice_micro']:.1f} %, Dice per image {100 * two['dice_image']:.1f} %")

# %% [markdown]
# A milder error also separates the two scores. We take the first 200 pairs, let every mask grow by 2 % of the image's
# side, and use the grown mask as the prediction. The outline is wrong by the same few pixels everywhere, but a small
# lesion loses more Dice. In the figure the grey dots fall towards the left, where lesions are small. The dashed line,
# the mean over images, lies below the solid line, the micro score.

# %%
some = pairs.masks[:200]
grown = ndimage.binary_dilation(some, np.ones((1, 3, 3), bool), iterations=max(1, round(0.02 * image_size)))
pixels = evaluation.overlap(*(torch.from_numpy(masks)[:, None].bool() for masks in (grown, some))).numpy()
slip = scores(pixels)
each = evaluation.dice_and_iou(pixels)[0]
figures.dice_by_size(some.mean((1, 2)), each, {"Dice micro": slip["dice_micro"], "Dice per image": slip["dice_image"]})
plt.show()

# %% [markdown]
# ## What to take away
#
# **To remember.** The cell prints the facts with their numbers. Facts 1 to 4 are about the data set and the label ratio
# in the parameters, fact 5 is about the phantom, and fact 6 holds for every data set. Numbers after *QaTa:* are from its
# 1429 validation pairs. On the phantom, facts 1 to 3 hold because we drew it so, and so does fact 5; the findings are
# the numbers after *QaTa:*.

# %%
lower = {name: f"{100 * shares[2]:.0f} %" for name, shares in inside.items()}
dice = {name: f"{100 * value:.1f} %" for name, value in slip.items()}
in_words = f"{100 * np.mean(counts['lvit word'] == in_mask):.0f} %"
print(
    f"1. 'left' is the image's left: {found.on_side['left'].percent} of the left-only lesions lie there (QaTa: 98.5 %)."
)
print(f"2. The lowest third holds {lower['thirds']} of the pixels of 'lower', the estimated band {lower['estimated']}")
print("   (QaTa: 26 %, and 56 % in the calibrated band).")
print(f"3. The count word of `lvit` is the number of lesions in {in_words} of the texts (QaTa: 100 %).")
print(
    f"4. Masks of 200 pairs, grown by 2 % of the side: Dice micro {dice['dice_micro']}, per image {dice['dice_image']}."
)
print(f"5. {100 * every.mean():.0f} % of the phantom's X-rays hold decoys. Only the text tells them from lesions.")
print("6. A report is six bits, left before right, top to bottom. At 1 %", len(chosen["QaTa-COV19"][0.01]), end=" ")
print(f"of QaTa's 5716 pairs are labelled\n   ({dataset}: {len(chosen[dataset][0.01])} of {len(pairs)}),", end=" ")
print("and each smaller labelled set is part of each larger one.")

# %% [markdown]
# **Next:** [02 · The network](02_network.ipynb) reads image and report. **Back:** [00 · Start
# here](00_start_here.ipynb). **Further on:** [04 · T-PatchMix](04_t_patchmix.ipynb) uses the boxes of the zones, [05 ·
# ITCL](05_itcl.ipynb) uses the six bits, and [docs/data.md](../docs/data.md) tells how to get the real data. The
# appendices show CT slices, real slips in reports, both versions of the texts, what the count word is worth, how
# common the phrases are, and digests of the labelled sets.

# %% [markdown]
# ## Appendix: CT slices
#
# The paper uses two data sets: QaTa-COV19 (X-rays) and MosMedData+ (CT slices). The phantom imitates both. Here are
# two of its CT slices.

# %%
figures.sample_gallery(load_split("phantom-ct", "valid", image_size).subset(range(2)), 2)
plt.show()

# %% [markdown]
# ## Appendix: slips in real reports
#
# `Report.parse` also reads the slips that occur in real texts. We wrote one example for each kind. `render` writes the
# canonical text, and reading that text gives the same report again. The second cell checks it for all 64 zone vectors
# in both styles, and for every report of the data set.

# %%
slips = {
    "no infection": "No pulmonary infection, zero infected areas.",
    "bare side": "Unilateral pulmonary infection, three infected areas, left lung.",
    "all and a height": "Unilateral pulmonary infection, one infected area, all lower left lung.",
    "typo": "Unilateral pulmonary infection, one infected areas, lowerl left lung.",
    "capitals, stops": "UNILATERAL PULMONARY INFECTION, ONE INFECTED AREA, UPPER RIGHT LUNG..",
    "a side unsaid": "Bilateral pulmonary infection, two infected areas, all lung and all right lung.",
    "two sides, unilateral": "Unilateral pulmonary infection, two infected areas, left lung and upper right lung.",
}
for name, text in slips.items():
    report = Report.parse(text)
    print(f"{name:22} {''.join(map(str, report.zones))}  {report.render()}")

# %%
vectors = [[code >> k & 1 for k in range(6)] for code in range(64)]
canonical = [Report.of(a, style=style) for a in vectors for style in reports.STYLES]
for report in [*canonical, *pairs.reports]:
    assert Report.parse(report.render()) == report
print(f"{len(canonical)} + {len(pairs)} reports rendered and read back")

# %% [markdown]
# A text that does not fit raises an error, and the error shows the text. The alternative would be to read it as "no
# zone". Then every part of the method would be off for this pair, and nobody would notice.

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
# ## Appendix: both versions of the texts against the masks
#
# The two versions of QaTa's texts differ in their zones too. As in exercise 01.3, a mask shows a zone if its box holds
# enough lesion. The cell compares the bits of the mask with the bits of both texts. On the phantom they all agree,
# because we write its second version from the same zones. Real masks and texts do not agree everywhere. On QaTa's
# validation pairs, where the versions differ, 82 % of the bits of `lvit` and 69 % of the bits of `release` are as the
# mask shows them. So we read `lvit` by default.

# %%
shown = np.array([anatomy.QATA.zones_shown(mask) for mask in pairs.masks])
said = {"lvit": np.array([r.zones for r in lvit]), "release": np.array([r.zones for r in release])}
differ = (said["lvit"] != said["release"]).any(1)
print(f"zone vectors that differ between the versions: {differ.sum()} of {len(pairs)}")
for style, zones in said.items():
    agree = (zones == shown).mean(1)
    where = f", where they differ {100 * agree[differ].mean():.1f} %" if differ.any() else ""
    print(f"{style:8} bits as the mask shows them: {100 * agree.mean():.1f} %{where}")

# %% [markdown]
# ## Appendix: what the count word is worth
#
# Could one guess the number of lesions without the count word? The best guess is the most common number among the
# texts with the same zones. We choose and score this guess on the same texts, so it is an upper limit for a real
# guess. On the phantom the zones alone nearly give the number.

# %%
codes = [report.code for report in pairs.reports]
guessed = (in_mask.groupby(codes).transform(lambda n: n.mode().iloc[0]) == in_mask).mean()
leak = (counts["lvit word"] == in_mask).mean()
print(f"number of lesions right: {100 * guessed:.1f} % guessed from the zones, {100 * leak:.1f} % read off the word")

# %% [markdown]
# ## Appendix: which phrases are common
#
# A few phrases make up most reports, and "upper" alone is rare. The phantom draws its zones with the frequencies of
# the real texts, so a method meets the same imbalance in both. Bars are this data set; dots are all 7145 texts of
# QaTa's train and valid lists. **Look at** the distance from each dot to the end of its bar: it is about one point
# at most, though for rare phrases that can be half of the bar.


# %%
def phrase_shares(weights: dict[int, int]) -> pd.Series:
    """Share of the texts that hold each phrase, from how often each zone code occurs."""
    said = pd.Series(dtype=float)
    for code, times in weights.items():
        for phrase in Report.of(vectors[code]).phrases:
            said[phrase] = said.get(phrase, 0) + times
    return said / sum(weights.values())


here = phrase_shares(pd.Series(codes).value_counts().to_dict())
phrases = pd.DataFrame({dataset: here, "QaTa, train and valid": phrase_shares(phantom.ZONE_CODES)}).fillna(0)
phrases = phrases.sort_values("QaTa, train and valid", ascending=False)
figures.phrase_bars(phrases)
print((100 * phrases.head(4)).round(1).to_string())
plt.show()

# %% [markdown]
# ## Appendix: do others train on the same labelled pairs? Which patients are in two splits?
#
# A digest of the labelled names shows whether two people train on the same pairs. We know the release's digests for
# QaTa at 1 % and 2 %. With `dataset = "qata"` the cell compares them.
#
# All our splits are the published ones. MosMedData+ is split by *slice*: most CT studies of its test split also have
# slices in train (Ledger 12). So its test scores say little about new patients. `semimedref doctor` warns and counts.
# We leave the slices where they are, so that numbers stay comparable.

# %%
from semimedref_core.data import PUBLISHED, digest

for ratio in ratios:
    ours = digest([pairs.names[i] for i in chosen[dataset][ratio]])
    known = f", the release's: {PUBLISHED[ratio]}" if dataset == "qata" and ratio in PUBLISHED else ""
    print(f"{100 * ratio:4g} %: sha256 {ours}{known}")
    assert not known or ours == PUBLISHED[ratio], "another labelled set than the release's"
