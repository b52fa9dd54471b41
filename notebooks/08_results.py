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
# # 08 · Results: the verdict first
#
# **What you will see.** What finished runs say about the paper's claims. You can read the verdict in a minute. After
# the whole notebook you
#
# - know at which shares of labels Semi-MedRef is better than other methods, and how sure that is;
# - can compute the difference of two methods, its interval and Holm's correction by hand;
# - know a shortcut that makes nearly every difference look sure, and why the shortcut is wrong;
# - know what each part of the method is worth in these runs.
#
# **What you need.** The abstract of the paper. For the parts, notebook [06](06_teacher_student.ipynb).
#
# **Time.** One minute for the verdict, about 30 minutes for everything with the exercises; about a minute to run.
#
# **Read with care.** All scores are on the *valid* split, with the last weights of each run. We also chose the settings
# on this split, and we made the most trials for Semi-MedRef. So its numbers are probably too good, and we cannot say by
# how much. The committed runs are ours, with small networks, most of them on a CPU. We show none of the paper's
# numbers, because we have not seen its tables.

# %% tags=["parameters"]
folder = ""  # of run folders, such as "runs"; empty: the runs that came with the notebooks
method = "semi_medref"
metric = "dice_image"  # of the figures; or dice_micro, miou_image, miou_micro

# %% tags=["nbval-ignore-output"]
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from semimedref_core import SemiMedRefError, experiments, figures, versions
from semimedref_core.experiments import in_points, method_differences, statistics, verdict
from semimedref_core.teaching import check, kept_comparison, source_of

figures.notebook_style(80)
pd.set_option("display.width", 200)
pd.set_option("display.max_columns", 30)
pd.set_option("display.max_colwidth", None)
print(versions("pandas"))

# %% [markdown]
# ## The verdict
#
# **The claims.** With few masks Semi-MedRef is better than supervised training and than other semi-supervised methods,
# and each of its three parts helps. **Open** here: the test split (scores on QaTa are of the 1429 images of its *valid*
# split), most runs with the network `lite`, above all at 2 and 15 % of the masks, soft positives and the text rule with
# `lite`, MosMedData+, and the paper's encoders.
#
# In the box, *better* and *worse* are points of Dice per image. *Sure* means that p is below 5 % after Holm's
# correction. *May be chance* means that it is not. *One seed* means that there is no p. The first three lines, and the
# start of the fourth, are about methods with additions of ours. The end of the fourth line, where no method gets them,
# comes closest to the paper's own method.

# %%
runs = experiments.finished_runs([folder or experiments.notebooks_folder() / "results"])
said = verdict.verdict(runs, method)
display(Markdown(said.box))

# %% [markdown]
# *Dice* compares a mask $y$ with a prediction $\hat y$, as $2|y \wedge \hat y| / (|y| + |\hat y|)$ (Eq. 18). *Per image*
# means the mean over images, where a small lesion counts as much as a large one. *Micro* adds up the pixels of all
# images before it divides, so that large lesions count most. The two lie far apart, so a number without the word says
# little (Ledger 11; the *ledger* is the list in [00](00_start_here.ipynb) of where the released code differs). A
# *teacher* is the moving average of the trained network. A *pseudo-label* is a mask that it predicts.
#
# `lite` is EfficientNet-Lite0, which starts from ImageNet weights, and `compact` starts from scratch
# ([02](02_network.ipynb)). Our additions: the pseudo-labels of the semi-supervised baselines are cut to the reported
# zones and, except in `cps`, made on the mirror image. So `unimatch` is not the published UniMatch. `flip_sync` is the
# mirror image itself; here its pseudo-labels are also cut. Semi-MedRef has a third addition (below).
#
# A run is a folder with `config.json` (every setting), `metrics.jsonl`, `results.json` and `valid.npz` (the pixel
# counts of each validation image). Runs of one *setting* share data, network, picture size and steps. They differ in
# the method with its own settings, in the share of labels and in the seed. Everything on this page is computed from
# these files. The runs that came with the notebooks are kept as one table, `runs.parquet`, and one file of pixel
# counts, `counts.npz`. The first three lines are about the setting in which the most methods were compared. All runs
# except those of `lite` are older than the code; the section *The methods and the runs* says how they differ.
#
# **Claim by claim.** A claim is
#
# - *supported* if the difference has the sign that the claim says, per image and micro, and Holm's p is below 5 % for
#   both;
# - *contradicted* if one of the two has the opposite sign, with Holm's p below 5 %; if it is only one, the verdict names
#   it; the claim on the share of all masks' Dice has no p, and is contradicted if the mean is below 97 %;
# - *not distinguishable* if neither holds;
# - *untested* if there are no runs with at least two seeds.
#
# Differences are in points of Dice. The brackets hold 95 % intervals over seeds and validation images; *p* is Holm's.
# An interval may exclude 0 although Holm's p is above 5 %: the intervals are not corrected for several comparisons. A
# single seed has no p, and this table gives no interval for it. *Whose*: a claim is the paper's if the paper makes it,
# about its method without our additions or about one of its parts. It is ours if it compares whole methods with our
# additions, or is a goal that we set ourselves. The lines on a part were measured with our additions unless they say
# otherwise. The section *From runs to a verdict* explains all of these words.
#
# PosAug is judged here with whole reports. It is made for reports that lack positions, and
# [03](03_posaug.ipynb) measures what it is worth there.
#
# The table is about the first setting. The claims in the other settings, and two that no setting can test, are in an
# appendix.

# %%
first = said.claims["setting"] == said.claims["setting"].iloc[0]
print(said.claims.loc[first, "setting"].iloc[0])
said.claims[first].drop(columns="setting").set_index(["claim", "labels"])

# %% [markdown]
# **From supervised training to the whole method.** Each bar adds what its name says. *Shared recipe* is what many
# methods have: teacher and student, and pseudo-labels for strong views. *Our additions*: pseudo-labels are cut to the
# reported zones and made on the mirror image, and a named zone that is found empty teaches nothing. Then come the
# paper's three parts. If nobody made the runs between two steps, one bar adds both, and the cell names the missing
# runs.
#
# The order matters: a step shows what a part adds to the steps before it. The section *Without our additions* has the
# method without them. The panel of `lite` has the seeds that all its steps have, so its ends are not the means of the
# table below. For the same reason the gain of `lite` differs a little between the lines of the box: each line uses the
# seeds that its runs share. With one or two seeds a step has no line, and a small one may be chance.
#
# **Look at** which steps are large. Then look at the black line of a step, which is its interval (for three seeds or
# more). If the line crosses the start of the step, the step can be chance. The axis does not begin at 0, so compare the
# numbers and not the lengths. Only settings with runs of *without all three parts* have bars.

# %%
steps = {
    f"{setting}, {100 * ratio:g} % labels": verdict.waterfall(here, ratio, metric)
    for (setting, ratio), here in runs.groupby(["setting", "label_ratio"], sort=False)
}
steps = {title: table for title, table in steps.items() if len(table)}
if steps:
    figures.waterfall_panels(steps, metric)
else:
    print("no setting has supervised training, the method without all three parts and the whole method on one seed")
plt.show()
lacking = [f"{title}: no run of {name}" for title, table in steps.items() for name in table["missing"] if name]
print("\n".join(lacking))

# %% [markdown]
# ## From runs to a verdict
#
# A *seed* fixes the first weights, the order and the augmentations of a run. Another seed gives another Dice, and other
# validation images give another Dice too. So a difference of two methods means something only if it is larger than
# these two effects.
#
# **Paired.** We compare runs of the same seed on the same images. For seed $s$ of $S$ the difference is $d_s$, and the
# mean of these is $\bar d$. Some images are hard for every method, and pairing removes this effect.
#
# **Interval over seeds.** $\bar d \pm t\,\sigma_d/\sqrt{S}$, where $\sigma_d$ is the standard deviation of the $d_s$
# and $t$ the
# 97.5 % point of Student's distribution with $S - 1$ degrees of freedom. For three seeds $t = 4.3$, for six $2.6$.
#
# **Over images as well.** We draw the validation images anew 2000 times, with replacement, the same ones for both
# methods. Each draw gives another $\bar d$. To each we add a random error of the size that the seeds show (a draw from
# Student's distribution, times $\sigma_d/\sqrt{S}$). The interval holds 95 % of the results. The *p value* is twice the
# share of the results on the other side of 0.
#
# **Holm.** If the methods are equal, one of twenty comparisons has p below 5 % by chance, on average. Holm's rule
# corrects this: among $k$ comparisons it multiplies the smallest p by $k$, the next by $k - 1$, and so on. No corrected
# p may be smaller than the one before. Here the $k$ comparisons are those of one setting, one share of labels and one
# metric that have at least two seeds. We say *above* or *below* only if the corrected p is below 5 %, and *not
# distinguishable* otherwise. The box says *better* or *worse* with *sure* for the first two, and *may be chance* for the
# last.
#
# The check computes the interval over seeds and Holm's rule by hand. Below it are eight comparisons from the runs that
# came with the notebooks: QaTa, the compact network, 64 px, 1 % of the masks. The exercises use them.

# %%
from scipy import stats

display(source_of(statistics.interval, statistics.holm))
print(f"t for three seeds {stats.t.ppf(0.975, 2):.3f}, for six {stats.t.ppf(0.975, 5):.3f}")
low, high = statistics.interval(np.array([1.0, 2.0, 3.0]))  # mean 2, s = 1
print(f"differences 1, 2, 3: {low:.2f} to {high:.2f}; by hand 2 - 4.303 / sqrt(3) = {2 - 4.303 / 3**0.5:.2f}")
assert np.allclose(statistics.holm([0.01, 0.04, 0.03]), [3 * 0.01, 2 * 0.03, 2 * 0.03])
kept = kept_comparison()
shown = kept.assign(points=100 * kept["difference"])[["points", "seeds", "p"]]
print(f"Semi-MedRef minus the other, Dice per image:\n{shown.round({'points': 2, 'p': 3}).to_string()}")

# %% [markdown]
# ### Exercise 08.1 (predict)
#
# The table shows p as it stands, without a correction. Over which methods does Semi-MedRef have a sure lead after Holm's
# rule? Write a list of names.
#
# <details><summary>Solution</summary>
#
# Order the p values. `supervised` is the smallest, and 8 times 0.003 is 0.024: sure. `resmatch` is next, and 7 times
# 0.005 is 0.035: sure as well. `unimatch` follows, and 6 times 0.023 is 0.138. From there on no lead is sure, even
# where p in the table is below 5 %. The answer is `["supervised", "resmatch"]`. The interval of `unimatch` leaves out 0
# and still says little: it is one of eight.
# </details>

# %%
surely_above = None
check("08.1", surely_above)

# %% [markdown]
# ### Exercise 08.2 (change)
#
# The cell prints Dice per image of three seeds of two methods. Replace `None` by three numbers in points: the mean
# difference, and the low and high end of its interval over seeds. For three seeds $t$ is 4.303.
#
# <details><summary>Solution</summary>
#
# ```python
# d = 100 * (ours - theirs)
# half = 4.303 * d.std(ddof=1) / len(d) ** 0.5
# by_hand = d.mean(), d.mean() - half, d.mean() + half
# ```
#
# This gives about 8.5, 6.9 and 10.1. In the appendix *The claims in other settings* the interval is over images too, and
# a little wider: 6.8 to 10.2.
# </details>

# %%
ours, theirs = kept.loc["supervised", ["ours", "theirs"]]
print("semi_medref", ours.round(4).tolist(), "supervised", theirs.round(4).tolist())
by_hand = None
check("08.2", by_hand)

# %% [markdown]
# ### Exercise 08.3 (break)
#
# A tempting shortcut puts the differences of all seeds and images into one pile and treats them as independent. Write a
# function `pooled(differences)` that takes an array `[S, N]` and returns the two ends of mean $\pm$ 1.96 standard
# errors of the pile. Then try it on `kept["of_images"]`, which holds an array for each method. How many of the
# intervals exclude 0?
#
# <details><summary>Solution</summary>
#
# ```python
# def pooled(differences):
#     half = 1.96 * differences.std(ddof=1) / differences.size**0.5
#     return differences.mean() - half, differences.mean() + half
#
#
# print({name: pooled(array) for name, array in kept["of_images"].items()})
# ```
#
# All eight leave out 0, and only two of the differences are sure. 1429 images of one trained network share its first
# weights, its order and its luck. They say much about this network and little about the next seed. More images would
# narrow this interval further, and the next seed would be as uncertain as before.
# </details>

# %%
pooled = None  # def pooled(differences): ...
check("08.3", pooled)

# %% [markdown]
# ## The methods and the runs
#
# | method | in one line | from |
# |---|---|---|
# | `supervised` | the labelled pairs alone | |
# | `mean_teacher` | a moving average makes the targets; squared difference as the loss | Tarvainen and Valpola, NeurIPS 2017 |
# | `fixmatch` | pseudo-labels from the weak view teach the strong one; in these runs every pixel teaches | Sohn et al., NeurIPS 2020 |
# | `unimatch` | two strong views with pasted boxes, and a third view with dropped features | Yang et al., CVPR 2023 |
# | `cutmix` | a box of half the picture comes from another pair | French et al., BMVC 2020 |
# | `cps` | two networks label for each other | Chen et al., CVPR 2021 |
# | `resmatch` | in the style of RESMatch: phrases are hidden, and samples have weights | Zang et al., 2024 |
# | `lvit` | a moving average makes the targets, and the mask of the most similar report helps | Li et al., TMI 2023 |
# | `bcp` | copy-paste both ways between labelled and unlabelled | Bai et al., CVPR 2023 |
# | `ad_mt` | two teachers take turns | Zhao et al., ECCV 2024 |
# | `flip_sync` | the teacher sees the mirror image and reads its report | ours |
# | `semi_medref` | T-PatchMix, PosAug and ITCL | Li et al., 2026 |
#
# [The page on methods](../docs/methods.md) says how they differ, and what of each paper is ours.
#
# **Read with care.** Only the runs of `lite` are of the methods as this table describes them. All others are older:
# `unimatch` pasted nothing, `cutmix` pasted a square as large as T-PatchMix's, `cps` labelled only unlabelled images,
# `resmatch` was PosAug at 0.1 without weights, and a mixed report of `semi_medref` counted one lesion more ([all of
# it](../docs/methods.md#kept-runs)).
#
# `phantom` is the drawn data of [01](01_data.ipynb), with 200 validation images. A lead there says nothing about X-rays.
# Its runs at 1 and 2 % have a fault: the estimated grid could make a zone very low ([results](results/README.md)).
#
# Runs that differ only in the seed are repetitions of each other. A *variant* is a run of a method with one or more
# settings changed, such as an *ablation*. Its name says what changed.

# %%
teachers = runs[runs["network"] == "teacher"]
mains = teachers[teachers["variant"] == ""]
counts = mains.groupby(["setting", "label_ratio"], sort=False).agg(methods=("method", "nunique"), runs=("seed", "size"))
print(f"{len(teachers)} finished runs, {len(teachers) - len(mains)} of them variants\n\n{counts}\n")

# %% [markdown]
# ## Every method at every share of labels
#
# Each row is a method, and each colour a share of labels. Bars are intervals of the mean over seeds, where there are
# three seeds or more. They cover order, augmentations and first weights. They do not cover the choice of the labelled
# pairs, because all runs of one label ratio have the same labelled pairs. A small mark is a single seed, which says
# little. Two seeds have a large mark and no bar. Hollow marks are the runs of the section *Without our
# additions*.
#
# In a row the fewest masks are on top. **Look at** the orange marks first: there a method has the fewest masks and the
# most to gain. Then go along a row to the dashed line. This line is supervised training with *all* masks in as many
# steps. (These steps are few for so many masks. Longer training may raise the line. The panel at 224 px has none,
# because nobody ran it with all masks.)

# %%
curves = experiments.learning_curves(runs, metric)
if len(curves):
    figures.score_panels(curves, method, metric, experiments.learning_curves(experiments.without_help(runs), metric))
else:
    print("all runs are variants: nothing to draw over the share of labels")
plt.show()

# %% [markdown]
# ## The table
#
# Mean ± standard deviation over seeds, in per cent, of the teacher. Methods are sorted by Dice per image at the fewest
# masks.


# %%
def scores_of(runs):
    """One table for each setting: methods by label ratios, for both metrics."""
    for setting, here in runs.groupby("setting", sort=False):
        tables = {name: experiments.methods_by_ratio(here, name) for name in ("dice_image", "dice_micro")}
        tables = {name: table.rename(columns=lambda about: about.rsplit(", ", 1)[1]) for name, table in tables.items()}
        print(setting)
        display(pd.concat(tables, axis=1).loc[tables["dice_image"].index])


scores_of(runs)

# %% [markdown]
# ## The difference to each other method
#
# The thick line is the interval over *images* alone. It holds for these trained networks and other images. The thin
# line is the interval over *seeds and images*. It holds for the methods. (A run without kept counts would have the
# interval over seeds alone. All committed runs kept them.) A single seed has the thick line alone.
#
# An orange mark means that Semi-MedRef is ahead, a blue one that the other method is ahead. The filled mark is the best
# other method. (Here hollow marks have nothing to do with our additions.) The figure has the fewest masks of each
# setting; an appendix has the other shares. Each panel has its own scale, and the interval of two seeds may leave it.
# **Look at** `mean_teacher` in the panel of `compact`, 64 px: its thin line is about five times as long as the thick
# one. The shortcut of Exercise 08.3 took the thick line for the thin one.
#
# Each row of the table below compares with the best other method, for one setting, share of labels and metric. *Best*
# is the highest mean among the methods that share the most seeds with Semi-MedRef. Two effects work against each other.
# The best of several methods was partly lucky on these images, which is unfair to Semi-MedRef. But Semi-MedRef's
# settings were chosen on this split, in more trials than the others had, which is unfair to the others.

# %%
differences = method_differences(runs, method)
fewest = differences["label_ratio"] == differences.groupby("setting")["label_ratio"].transform("min")
if len(differences):
    figures.difference_forest(differences[fewest], method, metric)
else:
    print(f"no seed for which {method} and another method both ran")
plt.show()
best = differences[differences["best"] & differences["metric"].isin(["dice_image", "dice_micro"])]
short = in_points(best.set_index(["setting", "label_ratio", "metric", "against"]))
print(short[["points", "95 %", "seeds", "p, Holm", "verdict"]].to_string())

# %% [markdown]
# **Where it wins, and where it does not**, by Holm's p of this one metric. (A claim of the first table needs two: Dice
# per image and micro.)

# %%
judged = differences[differences["metric"] == metric]
for (setting, ratio), rows in judged.groupby(["setting", "label_ratio"], sort=False):
    listed = [f"{words}: {', '.join(names)}" for words, names in rows.groupby("verdict")["against"]]
    print(f"{method} on {setting}, {100 * ratio:g} % labels\n    " + "\n    ".join(listed))

# %% [markdown]
# ## What each part is worth
#
# Each bar is a variant minus the whole method. A bar to the left means that the change costs Dice. If one variant loses
# many times what the others lose, a second panel shows the same bars near zero. All variants read whole reports, except
# *without reports* and *reports without counts*. What PosAug is worth without positions is in [03](03_posaug.ipynb).
#
# **Look at** the lines, which are intervals. They are not corrected for the number of bars, so a line that leaves out 0
# can still be chance. For bars of two seeds or more the cell counts the intervals that leave out 0, and names the bars
# that are sure after Holm's correction.
#
# Some names: *patches anywhere* and *by probability* are the modes *random* and *probability* of
# [04](04_t_patchmix.ipynb). *Mixed, but own text* leaves the text as it was. *Patches in half of the samples*: half of
# the samples get an offer, instead of all. *Patches half as wide*: a quarter of the image's side, instead of a half.
# *Mixed as by the release*: first pasted, then gated, with first phrases only, the release's text rule and equal thirds
# (an older version of it; see the appendix). *Zones as equal thirds* is the grid of the released code. *Hard positives*
# are in [05](05_itcl.ipynb).

# %%
ablated = experiments.ablations(runs, method)
if len(ablated):
    figures.ablation_bars(ablated, metric)
else:
    print(f"no run of {method} differs from the others in a setting: no ablations")
plt.show()
shown = ablated[(ablated["metric"] == metric) & (ablated["seeds"] > 1)]
for setting, rows in shown.groupby("setting", sort=False):
    outside = (rows["low"] > 0) | (rows["high"] < 0)
    sure = [f"*{name}*" for name in rows["variant"][rows["verdict"].isin(["above", "below"])]]
    print(f"{setting}: {len(rows)} bars, {outside.sum()} intervals leave out 0; sure: {' and '.join(sure) or 'none'}")

# %% [markdown]
# ## Without our additions
#
# So far, methods with a teacher have additions that are ours and in none of the papers: pseudo-labels are cut to the
# zones that the report names, and the teacher looks at the mirror image. `cps` has only the first addition, and so has
# `cutmix` in all runs but those of `lite`. Supervised training has none ([the page on methods](../docs/methods.md)
# lists them). In this section no method has them, except that `flip_sync` keeps the mirror image, which is the method
# itself. Semi-MedRef also loses its rule for zones in which the teacher finds nothing. Other settings of ours stay,
# such as the donor's zones, the patch size and the grid. In figures and names these runs are called *without our help*.
#
# **Look at** the tables. With `compact` Semi-MedRef has the highest mean, per image and micro. With `lite` it has the
# highest mean in micro, and per image it is level with `unimatch` to a tenth of a point. But its seeds differ so much
# that all of this may be chance. With neither network is even its lead over supervised training sure. The second cell
# takes the three parts out, with `lite`: it finds nothing that one could tell from chance. So a highest mean is no
# evidence for the parts.

# %%
published = experiments.without_help(runs)
published = published.groupby("setting").filter(lambda here: here.loc[here["variant"] == "", "method"].nunique() > 1)
differences_published = method_differences(published, method)
if len(differences_published):
    scores_of(published)
    figures.difference_forest(differences_published, method, metric)
else:
    print(f"no runs of {method} and another method without our help")
plt.show()

# %%
bare_parts = experiments.ablations(published, method, metrics=verdict.JUDGED_BY)
bare_parts = bare_parts[bare_parts["variant"] == verdict.ALL_PARTS].set_index(["setting", "metric"])
print("the method without its three parts, minus the whole method")
print(in_points(bare_parts)[["points", "95 %", "seeds", "verdict"]].to_string())

# %% [markdown]
# ## What to take away
#
# These facts are about the runs that came with the notebooks (QaTa, Dice per image; 64 px and 1 % of the masks
# where nothing else is said). The cell checks their numbers:
#
# **To remember**
#
# - Where most methods were compared (`lite`, 1 % of the masks), Semi-MedRef is 7.7 points better than supervised
#   training, and 1.0 point worse than `unimatch` with our additions. Both are sure. In Dice micro the difference to
#   `unimatch` is 0.0 [-0.7, +0.7].
# - With `compact` it is 8.5 points better than supervised training, and that is sure: three seeds, p after Holm 0.024.
#   It is 0.5 points ahead of the best other method. With p = 0.14 after Holm, nobody can say that it is better.
# - With `compact`, 7.7 of the 8.5 points come from the shared recipe and our additions.
# - Without our additions no lead of Semi-MedRef is sure, neither over another semi-supervised method nor over supervised
#   training. With `lite` it is 0.0 points from `unimatch`, and its three parts together give -0.1 points.
# - On QaTa no difference to another method is sure at 5 or 15 % of the masks. On the phantom Semi-MedRef has the highest
#   mean at every share of labels.
# - No single part of the method has a sure effect with whole reports. With `compact` the method loses 15.5 points if it
#   reads no reports, and that is sure.
# - Of the eight differences in the exercises five have p below 5 %, and Holm leaves two. The shortcut of Exercise 08.3
#   would call all eight sure.
# - With three seeds an interval is 4.3 standard errors wide to each side, with six 2.6. Where the
#   seeds disagree, more seeds help more than more images.

# %%
assert round(100 * kept.difference.supervised, 1) == 8.5 and round(kept.p_holm.supervised, 3) == 0.024
assert round(100 * kept.difference.min(), 1) == 0.5 and round(kept.p_holm[kept.difference.idxmin()], 2) == 0.14
assert (len(kept), (kept.p < 0.05).sum(), (kept.p_holm < 0.05).sum()) == (8, 5, 2)
assert all(x.shape[1] == 1429 and abs(x.mean()) > 1.96 * x.std(ddof=1) / x.size**0.5 for x in kept.of_images)
if not folder and method == "semi_medref":
    qata = differences[differences["setting"].str.startswith("qata") & (differences["metric"] == "dice_image")]
    (lite, compact) = (
        qata[(qata["label_ratio"] == 0.01) & qata["setting"].str.contains(x)] for x in ("lite", "64 px, compact")
    )
    assert lite.set_index("against")["difference"][["supervised", "unimatch"]].mul(100).round(1).tolist() == [7.7, -1.0]
    assert set(qata["verdict"][qata["label_ratio"].isin([0.05, 0.15])]) <= {"not distinguishable", "one seed"}
    without = published[(published["network"] == "teacher") & (published["variant"] == "")]
    for _, means in without.groupby(["setting", "label_ratio", "method"])["dice_micro"].mean().groupby(level=[0, 1]):
        assert means.idxmax()[2] == method
    bare = differences_published[differences_published["metric"].isin(verdict.JUDGED_BY)]
    assert set(bare["verdict"]) == {"not distinguishable", "one seed"}
    with_lite = bare[bare["setting"].str.contains("lite") & (bare["metric"] == "dice_image")].set_index("against")
    assert abs(with_lite["difference"]["unimatch"]) < 0.0005 and set(bare_parts["verdict"]) == {"not distinguishable"}
    assert bare_parts.xs("dice_image", level="metric")["difference"].mul(100).round(1).tolist() == [0.1]
    assert (differences[differences["setting"].str.startswith("phantom")]["difference"] > 0).all()
    lost = ablated[(ablated["metric"] == "dice_image") & (ablated["setting"] == compact["setting"].iloc[0])]
    lost = lost[lost["label_ratio"] == 0.01].set_index("variant")["difference"].mul(100).round(1)
    assert (lost["without reports"], round(8.5 + lost[verdict.ALL_PARTS], 1)) == (-15.5, 7.7)
print("all numbers above are those of the runs")

# %% [markdown]
# **Next:** [09 · Kernels](09_kernels.ipynb). **Back:** [07 · Training](07_train.ipynb) makes one run. **Further on:**
# [docs/sweeps.md](../docs/sweeps.md) tells how a plan becomes runs and this notebook, [06 · One
# step](06_teacher_student.ipynb) explains the parts, and [docs/results.md](../docs/results.md) holds all tables.

# %% [markdown]
# ## Appendix: The claims in other settings
#
# The columns are those of the first table. An empty *setting* marks a claim that no run can test yet; *measured* says
# why.

# %%
said.claims[~first].set_index(["setting", "claim", "labels"])

# %% [markdown]
# ## Appendix: More numbers
#
# The differences at the other shares of labels:

# %%
if (~fewest).any():
    figures.difference_forest(differences[~fewest], method, metric)
plt.show()

# %% [markdown]
# Runs that some methods have and others lack:

# %%
missing = [f"missing  {line}" for line in experiments.missing_runs(runs)]
print("\n".join(missing) or "no method lacks a seed that another one has")

# %% [markdown]
# The cell prints which share of supervised training with all masks the method reaches, and how far teacher and student
# are apart at the end:

# %%
reached = curves[curves["method"].isin([method, "supervised"]) & (curves["label_ratio"] < 1)].dropna(subset="of_full")
for row in reached.itertuples():
    print(f"{row.method} on {row.setting}, {100 * row.label_ratio:g} % labels: {100 * row.of_full:.1f} % of it")
if reached.empty:
    print("no setting has runs of several label ratios and a supervised one with all masks")
ends = runs.pivot(index="folder", columns="network", values="dice_image")
print(f"teacher and student end at most {100 * (ends['teacher'] - ends['student']).abs().max():.1f} points apart")

# %% [markdown]
# Other methods with a higher mean:

# %%
lower = judged[judged["difference"] < 0]
assert folder or method != "semi_medref" or len(lower)
if len(lower):
    print(in_points(lower.set_index(["setting", "label_ratio", "against"])).to_string())
else:
    print(f"no other method has a higher mean than {method} in the {len(judged)} comparisons")

# %% [markdown]
# The variants of *What each part is worth* as a table:

# %%
if len(ablated):
    shown = ablated[ablated["metric"].isin(["dice_image", "dice_micro"])].set_index(
        ["setting", "label_ratio", "variant", "metric"]
    )
    print(in_points(shown).drop(columns="over").to_string())

# %% [markdown]
# Share of the samples that are mixed:

# %%
for (setting, ratio), rows in mains[mains["method"] == method].groupby(["setting", "label_ratio"], sort=False):
    print(f"{setting}, {100 * ratio:g} % labels: {100 * rows['accepted'].mean():.0f} % of the samples mixed")

# %% [markdown]
# ## Appendix: More numbers without our additions
#
# The method against the best other one, without our additions for any method:

# %%
of_best = differences_published["best"] & differences_published["metric"].isin(["dice_image", "dice_micro"])
best_published = differences_published[of_best].set_index(["setting", "label_ratio", "metric", "against"])
print(in_points(best_published).to_string() if len(best_published) else "no such runs")

# %% [markdown]
# The released code mixes in another order ([04](04_t_patchmix.ipynb)). It first pastes and then asks the gate. It reads
# only the first phrase of a report, and its zones are equal thirds. The cell gives it our patches and our gate, and
# compares it with the method without our additions. In these older runs the patch lay in the donor's first phrase, and
# PosAug came after mixing. In the release the receiver's phrase decides, so these runs are not quite the release:

# %%
ablated_published = experiments.ablations(published, method, metrics=("dice_image", "dice_micro"))
ablated_published = ablated_published.set_index(["setting", "label_ratio", "variant", "metric"])
print(in_points(ablated_published).drop(columns="over").to_string() if len(ablated_published) else "no such runs")

# %% [markdown]
# The method with our additions against the others without:

# %%
whole = runs[(runs["method"] == method) & (runs["variant"] == "")]
crossed = method_differences(pd.concat([published[published["method"] != method], whole]), method, metrics=(metric,))
crossed = crossed[crossed["against"] != "supervised"].set_index(["setting", "label_ratio", "metric", "against"])
print(in_points(crossed).to_string() if len(crossed) else "no such runs")

# %% [markdown]
# ## Appendix: Small and large lesions
#
# Figure and table compare Dice per image with the best other method, by the size of the lesion. Small, middle and large
# are thirds of the images, and `lesion` is the mean share of the image. `area` is the predicted area
# as a multiple of the true one: above 1, the method marks too much. In Dice per image, small lesions count as much as
# large ones. **Look at** the first group: with `lite` the loss against `unimatch` comes mostly from the small lesions,
# and on the large ones both are equal.

# %%
sizes = {}
for row in differences[differences["best"] & (differences["metric"] == "dice_image")].itertuples():
    here = mains[(mains["setting"] == row.setting) & (mains["label_ratio"] == row.label_ratio)]
    table = experiments.by_lesion_size(here[here["method"] == method], here[here["method"] == row.against])
    if len(table):
        sizes[f"{row.setting}, {100 * row.label_ratio:g} %, against {row.against}"] = table
if sizes:
    figures.size_bars(sizes, method)
plt.show()
print(pd.concat(sizes).round(3).to_string() if sizes else "no two runs to compare that kept their counts")

# %% [markdown]
# The variants by the size of the lesion: points above the whole method, and the area that a variant paints as a
# multiple of what is there:

# %%
by_size = {}
variants = teachers[(teachers["method"] == method) & (teachers["variant"] != "")]
for at, rows in variants.groupby(["setting", "label_ratio", "variant"], sort=False):
    whole = mains[(mains["method"] == method) & (mains["setting"] == at[0]) & (mains["label_ratio"] == at[1])]
    table = experiments.by_lesion_size(rows, whole)
    if len(table):
        points = (100 * (table["ours"] - table["theirs"])).round(1)
        by_size[at] = {**points.add_prefix("points, "), **table["area_ours"].round(2).add_prefix("area, ")}
print(pd.DataFrame(by_size).T.to_string() if by_size else "no variant that kept its counts")

# %% [markdown]
# ## Appendix: Other methods with a setting changed
#
# Each is compared with the same method as it is, where such runs are there:

# %%
helped = runs[~runs["variant"].str.startswith(experiments.WITHOUT_HELP)]
others = [name for name in mains["method"].unique() if name != method]
of_others = [
    experiments.ablations(helped, name, metrics=("dice_image", "dice_micro")).assign(of=name) for name in others
]
of_others = [table for table in of_others if len(table)]
if of_others:
    of_others = pd.concat(of_others).set_index(["setting", "label_ratio", "variant", "of", "metric"])
    print(in_points(of_others).drop(columns="over").to_string())
else:
    print("none")

# %% [markdown]
# ## Appendix: What it costs
#
# The figure shows the minutes of a run on one CPU core. Other work ran beside some runs, so the times are rough. On a
# GPU, all runs of one panel ran at the same time and shared it. A supervised step sends one group of images through a
# network, and a step of Semi-MedRef sends four: labelled ones, mixed ones, weak views for ITCL, and the teacher's
# views. So supervised training must be the fastest. If it is not, then other work decided the times, and the setting is
# left out. **Look at** the grey line. It joins the methods for which no other method is both faster and more accurate.

# %%
believed = figures.timed(curves)
if len(believed):
    figures.cost_and_accuracy(believed, method, metric)
plt.show()
for setting in curves["setting"].unique():
    if setting not in set(believed["setting"]):
        print(f"left out: {setting}; supervised training did not run or is not the fastest there")

# %% tags=["nbval-ignore-output"]
minutes = mains.pivot_table(index=["setting", "label_ratio"], columns="method", values="seconds", sort=False) / 60
print(minutes.round(1).to_string(na_rep=""))

# %% [markdown]
# ## Appendix: To look at
#
# The figure shows teachers on validation images: where the method gains most over the best other one, where it loses
# most, and two in between. It needs the trained networks and the data. The committed runs have kept neither.

# %%
kept = [Path(folder, "teacher").is_dir() for folder in mains["folder"]]
if not any(kept):
    print("none of these runs kept its networks; train some, and run this notebook on the folder that they are in")
for (setting, ratio), trained in mains[kept].groupby(["setting", "label_ratio"], sort=False):
    here = differences[(differences["setting"] == setting) & (differences["label_ratio"] == ratio)]
    rival = here.loc[here["best"] & (here["metric"] == "dice_image"), "against"]
    print(f"{setting}, {100 * ratio:g} % labels:", end=" ")
    try:
        figures.prediction_gallery(
            *experiments.gains_and_losses(trained, list(dict.fromkeys(["supervised", *rival, method])))
        )
        print("from the largest gain (left) to the largest loss (right)")
        break
    except SemiMedRefError as error:
        print(error)
plt.show()
