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
# **What you will see.** The task is *medical referring image segmentation*: an image $x$ and its report $r$ go in,
# the mask $y$ of the lesion comes out. This notebook looks at the data. After it you
#
# - can read a report as six bits, one for each zone of the lungs (Eq. 1);
# - know which side "left" is and where "lower" lies in the image, and how both were measured;
# - know which pairs are the labelled ones (Eq. 2), and what the reports give away of the masks;
# - can say why one prediction has two Dice scores (Eq. 18).
#
# **What you need.** PyTorch or NumPy, and the abstract of the paper.
#
# **Time.** About 20 minutes to read, with the exercises; about 20 seconds to run.
#
# An equation has our number; we do not know the paper's number of these three. *Ledger* is the list of differences to
# the released code, in [notebook 00](00_start_here.ipynb). The *release* is that code.

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
# Every pair has an image and a report. This notebook reads all masks, because we want to know the data. A training run
# reads the masks of the labelled pairs only.
#
# The **phantom** is a data set that a program draws: stylised chest X-rays with lesions, masks and reports. It is
# free to share. It teaches the method; it teaches no medicine. The figure shows one pair. A report speaks of six
# **zones**: upper, middle and lower, on each side.

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
# ## Why the text is needed: decoys
#
# Most phantom images also hold **decoys**: opacities that look like lesions, but no report names them and no mask
# marks them. Nobody can tell a decoy from a lesion by its look. Only the text tells. In the figure the yellow dotted
# lines mark decoys; a network does not see these lines.
#
# Not every image has one. A decoy lies in a zone that the report does not name. Three of ten reports name all six
# zones, so their images cannot hold a decoy. The cell counts them on the phantom's X-rays, whatever `dataset` is.

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
# Left comes before right, and each side goes from top to bottom. The function below does the work of `Report.parse`: it
# turns phrases into bits. `_parse_phrase` finds the side and the heights of one phrase.

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
# The reports of QaTa-COV19 are in use in two versions, and these differ in style. (The first appendix compares their
# bits.)
#
# | style | three zones of one side are written | the count word counts |
# |---|---|---|
# | `lvit` (the tables of LViT, an earlier method) | `all left lung` | connected lesions in the mask |
# | `release` (SGSeg, and the release) | `upper middle lower left lung` | zones that are named |

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
# Read this report: `Bilateral pulmonary infection, three infected areas, upper lower left lung and all right lung.`
# What is its vector $a$? And which number would the style `release` write in place of "three"? Answer with `(a,
# number)`, such as `([0, 0, 0, 0, 0, 0], 0)`.
#
# <details><summary>Solution</summary>
#
# `([1, 0, 1, 1, 1, 1], 5)`. The left lung has upper and lower, but no middle. `all right lung` names three zones. So
# five zones are named, and the style `release` writes "five infected areas". The mask shows three lesions.
# </details>

# %%
six_bits = None
check("01.1", six_bits)

# %% [markdown]
# ## Which side is "left"?
#
# In a frontal X-ray the patient's right lung is on the left of the image. So "left lung" may mean the patient's left
# or the image's left. The masks know the answer. We take the reports that name one side only, and measure in which
# half of the image their lesions lie. (Lateral views, `vp-ll` in QaTa's file names, are counted apart. There left and
# right mean nothing.)
#
# The phantom was drawn this way. On QaTa the same cell measures it. The figure shows how often each pixel is lesion,
# for both kinds of reports: the bright spots are on the named side of the dashed midline.

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
# So **"left" is the left half of the image**. For MosMedData+ (CT slices) nobody has verified it yet.
#
# ### Exercise 01.2 (change)
#
# Mirror a pair. Write `mirrored(image, mask, report)`. It gets an image and a mask as arrays `[H, W]`, and a
# `Report`. It gives back image, mask and report of the mirror image, in this order, and the three must agree.
#
# <details><summary>Solution</summary>
#
# ```python
# def mirrored(image, mask, report):
#     return image[:, ::-1], mask[:, ::-1], report.flip()
# ```
#
# A mirror is a common augmentation for images. Here it must swap the words too. Whoever forgets the report teaches the
# network that "left" means right in half of all pictures.
# </details>

# %%
mirrored = None  # def mirrored(image, mask, report): ...
check("01.2", mirrored)

# %% [markdown]
# ## Where is "lower"?
#
# The method pastes patches where a report says that a lesion is. So it needs a box for each zone. A **grid** gives
# these boxes: two cuts make upper, middle and lower. The release cuts the image into equal thirds (Ledger 8). But
# lungs do not reach from edge to edge, so many lesions of "lower" lie above the lowest third. We estimate the cuts
# from the labelled pairs (`estimate_grid`), and use the other pairs to judge them.
#
# The table takes lesions that a report places by *one* height word. It tells how many of their pixels, in per cent, lie
# inside the band of that word. *Calibrated* is the grid for QaTa; the phantom is drawn by its bands.
#
# In the first figure each coloured shape shows in which rows the lesions of one word lie, with the top of the image
# on top. Look at the lower dashed line of the thirds: it cuts through the middle of "lower". The second figure lays
# both grids over images. In the phantom the bands hardly overlap. In real data they do, so no grid is right for all.
# There the estimate gives up some of "middle" to win more of "lower".

# %%
labelled = labelled_indices(pairs.names, label_ratio)
few, others = pairs.subset(labelled), pairs.subset(sorted(set(range(len(pairs))) - set(labelled)))
grids = {"thirds": anatomy.THIRDS, "estimated": estimate_grid(few.masks, few.reports)}
cuts = ", ".join(f"{cut:.2f}" for cut in grids["estimated"].cuts)
print(f"from {len(few)} labelled pairs: cuts at {cuts} of the height (calibrated on QaTa: {anatomy.QATA.cuts})")
rows = anatomy.lesion_rows(others.masks, others.reports)[[1, 2, 4]]  # [3, H]: upper alone, middle alone, lower alone
inside = {name: grid.inside(rows) for name, grid in (grids | {"calibrated": anatomy.QATA}).items()}
display((100 * pd.DataFrame(inside, index=reports.HEIGHTS)).round(1))
one_word = [i for i, r in enumerate(others.reports) if any(sum(r.side(side)) == 1 for side in reports.SIDES)]
figures.row_histograms(rows, grids)
figures.grids_over(others.subset(one_word[:3]), grids)
plt.show()

# %% [markdown]
# ### Exercise 01.3 (break)
#
# Break the grid of thirds. Draw a mask of 96 by 96 pixels, 0 and 1. By the calibrated grid it shows *left lower* and
# nothing else; by the thirds it shows *left middle* and nothing else. A grid sees a zone if its box holds lesion on
# 0.3 % of the image or more, which are 28 pixels here. `anatomy.QATA.zones_shown(mask)` and
# `anatomy.THIRDS.zones_shown(mask)` tell the bits.
#
# <details><summary>Solution</summary>
#
# ```python
# mask = np.zeros((96, 96), np.uint8)
# mask[56:63, 10:40] = 1
# ```
#
# The calibrated grid begins "lower" at 0.57 of the height, which is row 55. The thirds begin it at row 64. A lesion in
# between has the right word in its report, and the thirds still look for it in another box. There a patch of "lower"
# is taken below the lesion.
# </details>

# %%
mask = None
check("01.3", mask)

# %% [markdown]
# ## What the count word gives away (Ledger 10)
#
# In style `lvit` somebody counted the lesions *in the mask* and wrote the number into the text. So the text tells a
# bit of the answer. In style `release` the word only repeats how many zones are named. The tables set both words
# against the number of connected lesions in the mask. Framed in red is where the two
# agree: on the phantom these are all texts at the left, and 41 % at the right.

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
# larger one. We label exactly the same pairs. The function has one branch more, because MosMedData+ sorts the names
# first and rounds down. The table counts labelled pairs; in the figure each blue line is one of them.

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
# $$\mathrm{Dice}_\text{micro} = \frac{2\sum_i |\hat y_i \cap y_i|}{\sum_i |\hat y_i| + |y_i|},\qquad
# \mathrm{Dice}_\text{image} = \frac1N \sum_i \frac{2\,|\hat y_i \cap y_i|}{|\hat y_i| + |y_i|} \qquad (\text{Eq. 18})$$
#
# The release reports the first, LViT and its followers report the second (Ledger 11). Take two images, one with a large
# lesion and one with a small lesion. A network finds the large one perfectly and misses the small one.

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
# A milder error does it too. We let every mask grow by 2 % of the image's side, and take it as the prediction. The
# slip is the same everywhere, but a small lesion pays more for it. In the figure the grey dots fall at the left, and
# the dashed mean over images lies below the micro score.

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
# **To remember.** The cell prints the facts with their numbers.
#
# **Next:** [02 · The network](02_network.ipynb) reads image and report. **Back:** [00 · Start
# here](00_start_here.ipynb). **Further on:** [04 · T-PatchMix](04_t_patchmix.ipynb) uses the boxes of the zones, [05
# · ITCL](05_itcl.ipynb) uses the six bits, and [docs/data.md](../docs/data.md) tells how to get the real data. The
# appendices show CT slices, real slips in reports, both versions of the texts, what the count word is worth, how
# common the phrases are, and digests of the labelled sets.

# %%
lower = {name: f"{100 * shares[2]:.0f} %" for name, shares in inside.items()}
dice = {name: f"{100 * value:.1f} %" for name, value in slip.items()}
in_words = f"{100 * np.mean(counts['lvit word'] == in_mask):.0f} %"
print(f"1. 'left' is the image's left: there lie {found.on_side['left'].percent} of the left-only lesions.")
print(f"2. Of 'lower', the lowest third holds {lower['thirds']}, the estimated band {lower['estimated']}.")
print(f"3. The count word of `lvit` is the number of lesions in {in_words} of the texts.")
print(f"4. The same slip costs more per image: Dice micro {dice['dice_micro']}, per image {dice['dice_image']}.")
print(f"5. Of the phantom's X-rays {100 * every.mean():.0f} % hold decoys, which only the text tells from lesions.")

# %% [markdown]
# ## Appendix: CT slices
#
# The paper has two data sets: QaTa-COV19 (X-rays) and MosMedData+ (CT slices). The phantom comes as both.

# %%
figures.sample_gallery(load_split("phantom-ct", "valid", image_size).subset(range(2)), 2)
plt.show()

# %% [markdown]
# ## Appendix: slips in real reports
#
# `Report.parse` also reads the slips that real texts hold. The examples are ours, one for each kind. `render` writes
# the canonical text. Reading it again gives the same report: for all 64 zone vectors, for both styles, and for every
# report of the data set.

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
# zone". That would switch off every part of the method for this pair, and nobody would notice.

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
# The two versions of QaTa's texts differ in their zones too. A mask *shows* a zone if the zone's box holds lesion on
# 0.3 % of the image. The cell compares the bits of the mask with the bits of both texts. The phantom's bits agree by
# construction. Real masks and texts do not agree everywhere.

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
# Could one guess the number of lesions without the word? The best guess is the commonest number among the texts with
# the same zones. (The guess is made from these very texts, so a real guess does no better.)

# %%
codes = [report.code for report in pairs.reports]
guessed = (in_mask.groupby(codes).transform(lambda n: n.mode().iloc[0]) == in_mask).mean()
leak = (counts["lvit word"] == in_mask).mean()
print(f"number of lesions right: {100 * guessed:.1f} % guessed from the zones, {100 * leak:.1f} % read off the word")

# %% [markdown]
# ## Appendix: which phrases are common
#
# A few phrases make up most reports, and "upper" alone is rare. The phantom draws its zones with the frequencies of the
# real texts, so a method meets the same imbalance in both. The dots are all 7145 texts of QaTa's train and valid lists.


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
# ## Appendix: the same labelled pairs as others, and patients in two splits
#
# A digest of the labelled names shows whether two people train on the same pairs. For QaTa the release's digests are
# known.
#
# All splits are the published ones. MosMedData+ is split by *slice*: most CT studies of its test split have slices in
# train too (Ledger 12). So its test scores say little of new patients. `semimedref doctor` warns and counts. The
# slices stay where they are, so that numbers compare.

# %%
from semimedref_core.data import PUBLISHED, digest

for ratio in ratios:
    ours = digest([pairs.names[i] for i in chosen[dataset][ratio]])
    known = f", the release's: {PUBLISHED[ratio]}" if dataset == "qata" and ratio in PUBLISHED else ""
    print(f"{100 * ratio:4g} %: sha256 {ours}{known}")
    assert not known or ours == PUBLISHED[ratio], "another labelled set than the release's"
