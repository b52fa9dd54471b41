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
# # 07 · Results
#
# **What you will see.** Finished runs, read from their folders: every seed of every method, the mean and the spread, the
# difference seed by seed, the way there, and the cost. The committed runs are ours, on real QaTa-COV19 (1 % labels) and on
# the phantom (5 %), with the small network that trains on one CPU core. None of the paper's numbers is shown: its tables
# are for another network, another size and other settings.
#
# **Read with care.** All scores are on the *valid* split. The settings of `semi_medref` were chosen on that split with seed
# 0; supervised training was not tuned. A baseline that also uses unlabelled pairs is not among these runs.

# %% tags=["parameters"]
folder = ""  # of run folders, such as "runs"; empty: the runs that came with the notebooks
method = "semi_medref"
against = "supervised"

# %% tags=["nbval-ignore-output"]
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from semimedref_core import runs as notebook_runs
from semimedref_core import versions
from semimedref_core.comparison import METRICS, finished_runs, paired_differences, results_table, validation_curves
from semimedref_core.figures.canvas import notebook_style
from semimedref_core.figures.results import cost_and_gain, curves_with_spread, seed_by_seed

notebook_style()
pd.set_option("display.width", 160)
print(versions("pandas"))

# %% [markdown]
# ## The runs
#
# A run is a folder with `config.json` (every setting), `metrics.jsonl` (the way) and `results.json` (the end). Those that
# differ in nothing but the seed are repetitions of each other.

# %%
root = Path(folder) if folder else notebook_runs.NOTEBOOKS / "results"
runs = finished_runs(sorted(path.parent for path in root.glob("*/results.json")))
counts = runs.groupby(["dataset", "label_ratio", "weak_view", "steps", "method"], sort=False)["seed"].nunique()
print(f"{runs['folder'].nunique()} finished runs")
counts.to_frame("seeds")

# %% [markdown]
# ## The table
#
# In per cent, mean ± standard deviation over seeds, last weights of each run. *micro* adds up the pixels of all images
# before it divides; *image* averages over images, where a small lesion counts as much as a large one (Eq. 18). The two
# differ by ten points and more, so a number without the word says little (Ledger 11).

# %%
print(results_table(runs).to_string())

# %% [markdown]
# ## Every seed
#
# A grey line joins two runs with the same seed: the same labelled pairs, weak views, order and first weights.

# %%
seed_by_seed(runs)
plt.show()

# %% [markdown]
# ## The difference, seed by seed
#
# What one method is above the other, in points. With three seeds the smallest difference says more than a p-value would.

# %%
differences = paired_differences(runs, method, against)
(100 * differences).round(1)

# %%
spread = 100 * differences.groupby(level=differences.index.names[:-1], sort=False)["dice_image"].agg(
    ["mean", "min", "max"]
)
spread.round(1)

# %% [markdown]
# ## The way there
#
# Mean over seeds, the band from the worst to the best seed; dotted the student, solid the teacher. The learning rate has
# gone to zero at the end, so student and teacher end as one.

# %%
curves_with_spread(validation_curves(runs))
plt.show()

# %%
ends = runs.pivot_table(index=["dataset", "weak_view", "method"], columns="network", values="dice_image", sort=False)
print(f"teacher minus student at the end: at most {100 * (ends['teacher'] - ends['student']).abs().max():.1f} points")

# %% [markdown]
# ## What it costs
#
# A step of Semi-MedRef sees three times as many pictures as a supervised one: labelled, mixed, and weak ones for ITCL and
# the teacher. Minutes on one CPU core, other work beside some of the runs, so the ratio is rough.

# %%
cost_and_gain(runs)
plt.show()

# %%
minutes = runs[runs["network"] == "teacher"].pivot_table(
    index=["dataset", "weak_view", "steps"], columns="method", values="seconds", sort=False
)
print((minutes / 60).round(1).to_string())

# %% [markdown]
# **To remember:** the mean gain per image and micro, and the smallest gain of any seed.

# %%
worst = 100 * differences[METRICS].min()
for name, values in (100 * differences).groupby(level=[0, 2], sort=False):
    print(
        f"{name[0]}, {name[1]} weak view: {values['dice_image'].mean():+.1f} per image, {values['dice_micro'].mean():+.1f} micro"
    )
print(f"smallest gain of any seed: {worst['dice_image']:+.1f} per image, {worst['dice_micro']:+.1f} micro")
