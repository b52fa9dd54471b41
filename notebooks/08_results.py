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
# **What you will see.** What finished runs say of the paper's claims: a verdict of five lines, a table with a line for each
# claim, and one figure. Then the details: every method at every share of labels, differences with intervals, what each
# part is worth. An appendix holds the rest.
#
# *You need:* the abstract of the paper; notebook 06 for the parts. *To read:* one minute for the verdict, twenty for all.
# *To run:* a minute on one core.
#
# **Read with care.** All scores are on the *valid* split, with the last weights of each run. The committed runs are ours,
# with small networks, most of them on a CPU. None of the paper's numbers is shown: its tables are for other networks,
# another size and other settings.

# %% tags=["parameters"]
folder = ""  # of run folders, such as "runs"; empty: the runs that came with the notebooks
method = "semi_medref"
metric = "dice_image"  # of the figures; or dice_micro, miou_image, miou_micro

# %% tags=["nbval-ignore-output"]
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from semimedref_core import SemiMedRefError, experiments, figures, versions
from semimedref_core.experiments import in_points, method_differences, verdict

figures.notebook_style()
pd.set_option("display.width", 200)
pd.set_option("display.max_columns", 30)
pd.set_option("display.max_colwidth", None)
print(versions("pandas"))

# %% [markdown]
# ## The verdict
#
# A run is a folder with `config.json` (every setting), `metrics.jsonl`, `results.json` and `valid.npz` (pixel counts of each
# validation image). Everything below is computed from these files.

# %%
runs = experiments.finished_runs([folder or experiments.notebooks_folder() / "results"])
said = verdict.verdict(runs, method)
print(said.box)

# %% [markdown]
# **Claim by claim.** *Supported*: the difference points that way, per image and micro, and Holm's p is below 5 % for both.
# *Contradicted*: one of the two is as sure the other way. *Not distinguishable*: in between. *Untested*: no runs of two
# seeds can say. Differences are points of Dice, with 95 % intervals over seeds and validation images.

# %%
said.claims.set_index(["claim", "labels"])

# %% [markdown]
# **From supervised training to the whole method.** Each bar adds one thing. *Shared recipe*: teacher and student,
# pseudo-labels on strong views. *Our additions*: pseudo-labels cut to the reported zones, made on the mirror image, nothing
# taught where a named zone is empty. Then the paper's three parts.

# %%
setting = runs["setting"].iloc[0]
here = runs[runs["setting"] == setting]
steps = {
    f"{100 * ratio:g} % labels": verdict.waterfall(here, ratio, metric)
    for ratio in sorted(here["label_ratio"].unique())
}
steps = {title: table for title, table in steps.items() if len(table)}
if steps:
    figures.waterfall_panels(steps, metric)
else:
    print("the runs do not hold every step of this figure yet; plans/qata_ablations.yaml makes them")
plt.show()

# %% [markdown]
# ## The methods
#
# | method | in one line | from |
# |---|---|---|
# | `supervised` | the labelled pairs alone | |
# | `mean_teacher` | an average of the student labels; squared difference | Tarvainen and Valpola, NeurIPS 2017 |
# | `fixmatch` | confident pseudo-labels from the weak view teach the strong one | Sohn et al., NeurIPS 2020 |
# | `unimatch` | two strong views with boxes, and dropped features | Yang et al., CVPR 2023 |
# | `cutmix` | a box of half the picture from another pair | French et al., BMVC 2020 |
# | `cps` | two networks label for each other | Chen et al., CVPR 2021 |
# | `resmatch` | in the style of RESMatch: hidden phrases, weighed samples | Zang et al., 2024 |
# | `lvit` | an average labels, and the mask of the most similar report helps | Li et al., TMI 2023 |
# | `bcp` | copy-paste both ways between labelled and unlabelled | Bai et al., CVPR 2023 |
# | `ad_mt` | two teachers take turns | Zhao et al., ECCV 2024 |
# | `flip_sync` | the teacher sees the mirror image and reads its report | ours |
# | `semi_medref` | T-PatchMix, PosAug and ITCL | Li et al., 2026 |
#
# [The page on methods](../docs/methods.md) says what neighbours differ in, and what of each paper is ours.

# %% [markdown]
# ## The runs
#
# Kept runs are one table of all this, `runs.parquet`, and one file of the counts,
# `counts.npz`. Runs that differ in nothing but the seed are repetitions of each other. A *variant* is a run of a method
# with a setting changed: an ablation. Its name is what its run says.

# %%
teachers = runs[runs["network"] == "teacher"]
mains = teachers[teachers["variant"] == ""]
counts = mains.groupby(["setting", "label_ratio"], sort=False).agg(methods=("method", "nunique"), runs=("seed", "size"))
print(f"{len(teachers)} finished runs, {len(teachers) - len(mains)} of them ablations\n\n{counts}")

# %%
print(
    "\n".join(f"missing  {line}" for line in experiments.missing_runs(runs))
    or "no method lacks a seed that another one has"
)

# %% [markdown]
# ## Learning curves
#
# Band and bars are Student's 95 % interval of the mean over seeds, where there are three or more. Hollow marks are explained
# under *As in the papers*. It covers order, augmentations and first weights; the labelled pairs of a ratio are the same for
# all runs, and so are the images.

# %%
curves = experiments.learning_curves(runs, metric)
if len(curves):
    figures.curve_panels(curves, method, metric, experiments.learning_curves(experiments.without_help(runs), metric))
else:
    print("all runs are variants: nothing to draw over the share of labels")
plt.show()

# %% [markdown]
# How much of supervised training with *all* masks is reached, with as many steps? (Those steps are few for so many masks:
# longer training would raise the bar.)

# %%
reached = curves[curves["method"].isin([method, "supervised"]) & (curves["label_ratio"] < 1)].dropna(subset="of_full")
for row in reached.itertuples():
    print(f"{row.method} on {row.setting}, {100 * row.label_ratio:g} % labels: {100 * row.of_full:.1f} % of it")
if reached.empty:
    print("no setting has runs of several label ratios and a supervised one with all masks")

# %% [markdown]
# ## The table
#
# In per cent, mean ± standard deviation over seeds, of the teacher, with the last weights of each run. *micro* adds up the
# pixels of all images before it divides; *image* averages over images, where a small lesion counts as much as a large one
# (Eq. 18). The two differ by ten points and more, so a number without the word says little (Ledger 11).

# %%
for name in ("dice_image", "dice_micro"):
    print(f"{name}\n{experiments.methods_by_ratio(runs, name).to_string()}\n")

# %%
ends = runs.pivot(index="folder", columns="network", values="dice_image")
print(f"teacher and student end at most {100 * (ends['teacher'] - ends['student']).abs().max():.1f} points apart")

# %% [markdown]
# ## The difference to each other method
#
# Paired: run against run of the same seed, image against image. Two intervals of 95 %:
#
# - **images alone** (thick): the validation images are drawn anew, with replacement, 2000 times, the same for both methods
#   and all seeds. It speaks of *these* trained networks on other images.
# - **seeds and images** (thin): the mean is moved, in each of these draws, by Student's t with as many degrees of freedom
#   as there are seeds, less one. It speaks of the *methods*. Three seeds cannot be resampled: their bootstrap is too narrow.
#
# Runs that did not keep their counts have the interval over seeds alone; a single seed has the one over images alone.

# %%
differences = method_differences(runs, method)
if len(differences):
    figures.difference_forest(differences, method, metric)
else:
    print(f"no seed for which {method} and another method both ran")
plt.show()

# %% [markdown]
# Against the best other method of each column. The best of several was partly lucky on these same images, so this
# comparison is a little unfair to the method, not to the others.

# %%
best = differences[differences["best"] & differences["metric"].isin(["dice_image", "dice_micro"])]
print(in_points(best.set_index(["setting", "label_ratio", "metric", "against"])).to_string())

# %% [markdown]
# ## Where it wins, and where it does not
#
# A verdict is given only if the interval over seeds leaves out zero. With three seeds that asks for a lot.

# %%
judged = differences[differences["metric"] == metric]
for (setting, ratio), rows in judged.groupby(["setting", "label_ratio"], sort=False):
    said = [f"{verdict}: {', '.join(names)}" for verdict, names in rows.groupby("verdict")["against"]]
    print(f"{method} on {setting}, {100 * ratio:g} % labels\n    " + "\n    ".join(said))

# %%
lower = judged[judged["difference"] < 0]
if len(lower):
    print(
        f"a higher mean than {method}:\n{in_points(lower.set_index(['setting', 'label_ratio', 'against'])).to_string()}"
    )
else:
    print(f"no other method has a higher mean than {method} in the {len(judged)} comparisons")

# %% [markdown]
# ## What each part is worth
#
# The method with one setting changed, against the whole: a bar to the left says that what was taken away helps. Intervals
# as above.

# %%
ablated = experiments.ablations(runs, method)
if len(ablated):
    figures.ablation_bars(ablated, metric)
else:
    print(f"no run of {method} differs from the others in a setting: no ablations")
plt.show()

# %%
if len(ablated):
    shown = ablated[ablated["metric"].isin(["dice_image", "dice_micro"])].set_index(
        ["setting", "label_ratio", "variant", "metric"]
    )
    print(in_points(shown).drop(columns="over").to_string())

# %% [markdown]
# ## As in the papers
#
# Above, methods with a teacher have additions that are ours and in none of the papers: pseudo-labels are cut to the zones
# that the report names, and the teacher looks at the mirror image. Some methods have only the first, supervised training
# has none; [the page on methods](../docs/methods.md) says who has what. Here nobody has them, nor Semi-MedRef its care for
# unfound zones:

# %%
published = experiments.without_help(runs)
differences_published = method_differences(published, method)
if len(differences_published):
    for name in ("dice_image", "dice_micro"):
        print(f"{name}\n{experiments.methods_by_ratio(published, name).to_string()}\n")
    figures.difference_forest(differences_published, method, metric)
else:
    print(f"no runs of {method} and another method without our help")
plt.show()

# %%
of_best = differences_published["best"] & differences_published["metric"].isin(["dice_image", "dice_micro"])
best_published = differences_published[of_best].set_index(["setting", "label_ratio", "metric", "against"])
print(in_points(best_published).to_string() if len(best_published) else "")

# %% [markdown]
# The released code mixes otherwise: it pastes first and asks the gate after, reads the first phrase of a report alone, and
# has equal thirds for zones (notebook 04). With the patches and the gate that we use, against the method without our help:

# %%
ablated_published = experiments.ablations(published, method, metrics=("dice_image", "dice_micro"))
ablated_published = ablated_published.set_index(["setting", "label_ratio", "variant", "metric"])
print(in_points(ablated_published).drop(columns="over").to_string() if len(ablated_published) else "no such runs")

# %% [markdown]
# And the method with its help against the others without:

# %%
whole = runs[(runs["method"] == method) & (runs["variant"] == "")]
crossed = method_differences(pd.concat([published[published["method"] != method], whole]), method, metrics=(metric,))
crossed = crossed[crossed["against"] != "supervised"].set_index(["setting", "label_ratio", "metric", "against"])
print(in_points(crossed).to_string() if len(crossed) else "")

# %% [markdown]
# **To remember:** how far the method is above the best other one at each label ratio, and how sure that is.

# %%
short = in_points(best.set_index(["setting", "label_ratio", "metric", "against"]))
print(short[["points", "95 %", "over"]].to_string())

# %% [markdown]
# ## Appendix
#
# How many samples are mixed:

# %%
for (setting, ratio), rows in mains[mains["method"] == method].groupby(["setting", "label_ratio"], sort=False):
    print(f"{setting}, {100 * ratio:g} % labels: {100 * rows['accepted'].mean():.0f} % of the samples mixed")

# %% [markdown]
# Dice per image against the best other method, by the size of the lesion. `area` is what a method predicts, as a
# multiple of what is there: above 1 it paints too much.

# %%
sizes = {}
for row in differences[differences["best"] & (differences["metric"] == "dice_image")].itertuples():
    here = mains[(mains["setting"] == row.setting) & (mains["label_ratio"] == row.label_ratio)]
    table = experiments.by_lesion_size(here[here["method"] == method], here[here["method"] == row.against])
    if len(table):
        sizes[f"{row.setting}, {100 * row.label_ratio:g} %, against {row.against}"] = table
print(pd.concat(sizes).round(3).to_string() if sizes else "no two runs to compare that kept their counts")

# %%
if sizes:
    figures.size_bars(sizes, method)
plt.show()

# %% [markdown]
# Other methods with a setting changed, where they ran so, against themselves:

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
# The variants by the size of the lesion: points above the whole method, and the area that a variant paints as a multiple
# of what is there.

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
# ### What it costs
#
# Minutes on one CPU core, other work beside some of the runs, so times are rough; the runs on a GPU shared it, all of
# the panel at once. A step of Semi-MedRef sees three times as many pictures as a supervised one: labelled, mixed, and
# weak ones for ITCL and the teacher. The grey line joins the methods that no other beats in both time and accuracy.

# %%
if len(curves):
    figures.cost_and_accuracy(curves, method, metric)
plt.show()

# %% tags=["nbval-ignore-output"]
minutes = mains.pivot_table(index=["setting", "label_ratio"], columns="method", values="seconds", sort=False) / 60
print(minutes.round(1).to_string(na_rep=""))

# %% [markdown]
# ### To look at
#
# Teachers on validation images: where the method gains most over the best other one, where it loses most, and two in
# between. This needs the trained networks, which the committed runs left behind, and the data.

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
