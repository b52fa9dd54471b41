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
# # 07 · Training teacher and student
#
# **What you will see.** One network is trained twice with the same few masks, for the same number of steps. The first
# run learns from the labelled pairs alone (*supervised*). The second run also learns from the many pairs whose masks
# nobody drew (*Semi-MedRef*). After this notebook you
#
# - can read the curves of a semi-supervised training, and know which curve misleads;
# - have seen which targets the teacher gives to the student, and which share of the samples is mixed;
# - know how far apart the two runs end, and how much the network relies on the report;
# - can say why two averages of Dice may rank two networks differently.
#
# **What you need.** One training step from [06 · Teacher and student](06_teacher_student.ipynb).
#
# **Time.** About 20 minutes to read, with the exercises; about four minutes to run.
#
# **Read with care.** This is one seed, a small network and the phantom, which is a drawn data set. It shows how a
# training goes. [08 · Results](08_results.ipynb) measures what the method is worth, with several seeds and on real
# data.
#
# You can name other methods in the parameter `methods`, one or several. The notebook looks more closely at the last
# one.

# %% tags=["parameters"]
methods = ["supervised", "semi_medref"]  # any of semimedref_core.methods.METHODS
dataset = "phantom"  # or "qata", with SEMIMEDREF_DATA set to the folder that holds QaTa
label_ratio = 0.05
image_size = 96
steps = 500  # optimiser steps of each method
batch_size = 8
weak_view = "strong"  # or "release"
eval_every = 100  # steps between validations
seed = 0
settings = {}  # further settings of all runs by name, such as {"patch_size": 0.3}
preset = ""  # such as "paper-qata": takes the place of all from `dataset` to `seed`, and `settings` wins over it
device = "auto"
output = "runs/07_train"  # everything is written here, each run into a folder of its own; one run alone: straight here
resume = False  # True: go on with the runs that are there
note = {}  # what else results.json shall say of the runs: a sweep gives plan and variant here

# %% tags=["nbval-ignore-output"]
import json
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Image, display

from semimedref_core import Config, Report, evaluate, load_training, predict, preparing, presets, step, train, versions
from semimedref_core.figures import mixing_gallery, notebook_style, prediction_gallery, sample_gallery, training_curves
from semimedref_core.runtime import atomic
from semimedref_core.teaching import check, source_of

notebook_style(78)
print(versions("transformers"))

# %% [markdown]
# ## The pairs
#
# A few pairs have masks (blue contour). Of the other pairs, the training reads only image and report. The phantom
# makes the reports necessary: about six of ten images hold *decoys*, which look like lesions, but no report names them
# and no mask marks them ([01](01_data.ipynb) counts them). **Look for** a bright patch in a lung outside the blue line.

# %%
data = {"dataset": dataset, "label_ratio": label_ratio, "image_size": image_size, "seed": seed}
budget = {"steps": steps, "batch_size": batch_size, "weak_view": weak_view, "eval_every": eval_every}
common = {**(presets.preset(preset) if preset else data | budget), **settings}
configs = {method: Config(**common | {"method": method}) for method in methods}
focus = methods[-1]
config = configs[focus]
where = {name: getattr(config, name) for name in ("data", "texts", "mask_values", "positions", "text_sides")}
pairs = load_training(config.dataset, config.label_ratio, config.image_size, **where)
print(f"{len(pairs.labelled)} labelled, {len(pairs.unlabelled or ())} unlabelled, {len(pairs.valid)} validation pairs")

# %%
folder = Path(output)
folder.mkdir(parents=True, exist_ok=True)
folders = {method: folder / method for method in configs} if len(configs) > 1 else {focus: folder}
sample_gallery(pairs.labelled, 3).savefig(folder / "pairs.png", dpi=110)
plt.show()

# %% [markdown]
# ### Exercise 07.1 (predict)
#
# All exercises are about the run with the parameters above: 500 steps, and in each step 8 of 40 labelled and 8 of 760
# unlabelled pairs. The first 15 % of the steps are the *burn-in*, in which the student learns from labelled pairs
# alone. How often does the student see each labelled pair, and how often each unlabelled one, on average? Answer with
# `(labelled, unlabelled)`, to one decimal.
#
# <details><summary>Solution</summary>
#
# `(100, 4.5)`. Labelled: $500 \cdot 8 / 40 = 100$ times. Unlabelled: about 425 steps remain after the burn-in, and this
# makes $425 \cdot 8 / 760 = 4.5$. So the student can learn the 40 labelled pairs by heart. It sees each of the others
# fewer than five times.
# </details>

# %%
times_seen = None
check("07.1", times_seen)

# %% [markdown]
# ## Training
#
# The loss of Semi-MedRef is a sum of four terms (Eq. 17; paper: 3 to 5). $w_l$, $w_c$ and $w_u(t)$ are weights. $w_u$
# changes with the step $t$ and is 0 in the burn-in:
#
# $$L = \mathrm{DiceCE}(\text{labelled}) + w_l\,\mathrm{ITCL}(\text{labelled}) + w_u(t)\,\big[
# \mathrm{DiceCE}(\text{student}(\text{mixed strong view}), \text{mixed target})
# + w_c\,\mathrm{ITCL}(\text{unlabelled weak view})\big]$$
#
# DiceCE is the loss of a mask, Dice loss plus cross-entropy. ITCL is the contrastive loss of [05](05_itcl.ipynb). A
# *weak view* is an image, normalised, zoomed (0.8 to 1.25), turned (up to 12 degrees), shifted (up to 8 % of the side),
# and mirrored in half of the cases. A mirrored image gets a report with its sides swapped. A *strong view* is a weak
# view with other brightness and contrast, and often with blur, smooth shading or noise. [06](06_teacher_student.ipynb)
# takes this loss apart.
#
# The code below shows what surrounds this loss in a step. `training_step` sets the schedule and the random seed of the
# step, and `learned` does the work: the method computes the loss, the optimiser moves the student, and the teacher
# follows the student as a moving average (Eq. 14; paper: 5). Everything that is special to a method is behind
# `method_named(...)`. So *supervised* runs through the same lines. `capturing`, `scaler`, `average_over_processes` and
# `learn` serve GPUs. On one CPU they do nothing.
#
# Both runs have the same labelled pairs, weak views, network and number of steps, and they start from the same weights.
# Each run leaves `metrics.jsonl`, `results.json` and its two networks in a folder of its own.

# %%
display(source_of(step.training_step, step.learned))
how = {"resume": resume, "device": device, "note": note}
results = {method: train(configs[method], place, **how) for method, place in folders.items()}
logs = {method: atomic.read_metrics(place / "metrics.jsonl") for method, place in folders.items()}

# %% [markdown]
# The log holds each term, so we can check the sum by hand. A line of the log is a mean over at most ten steps. The cell
# takes the last line, because $w_u$ was constant during its steps. Most of the loss is ITCL, which hardly falls
# ([05](05_itcl.ipynb) says why).

# %%
mixes = focus == "semi_medref"
last = [line for line in logs[focus] if "loss" in line][-1]
if mixes and step.schedule(config, config.steps - 10).w_u == last["w_u"]:
    names = "loss_labelled", "loss_itcl", "loss_mixed", "loss_itcl_unlabelled"
    (mask, itcl, mixed, itcl_u), w_l, w_c = (
        (last[name] for name in names),
        config.itcl_weight,
        config.itcl_unlabelled_weight,
    )
    by_hand = mask + w_l * itcl + last["w_u"] * (mixed + w_c * itcl_u)
    print(f"{mask:.4f} + {w_l} * {itcl:.4f} + {last['w_u']:.2f} * ({mixed:.4f} + {w_c} * {itcl_u:.4f}) = {by_hand:.3f}")
    print(f"in the log: {last['loss']:.3f}")

# %% [markdown]
# ## Curves
#
# Which curve misleads? The left one. In the committed run *supervised* ends with the **lower** loss on labelled pairs,
# and with the **lower** Dice on validation pairs. Semi-MedRef must also fit other terms: ITCL, and the targets of 760
# other images. It ends with a higher loss on the 40 pairs, and it predicts better.
#
# The right panel shows Dice *per image*, the mean over images, so a small lesion counts as much as a large one.
# (*micro* adds up the pixels of all images first; [01](01_data.ipynb), Eq. 18.) **Compare** solid lines (teacher) with
# dotted ones (student). The teacher is an average over the student's past. In this run the student of Semi-MedRef is
# ahead of its teacher from step 200 on: it improves fast, and the average lags behind. The gap is largest in the middle
# of the training. At the end it is 0.3 points: the learning rate has gone to 0, the student hardly moves any more, and
# its average has nearly caught up.

# %%
training_curves(logs).savefig(folder / "curves.png", dpi=110)
plt.show()
for method, lines in logs.items():
    final = [line["loss_labelled"] for line in lines if "loss_labelled" in line][-1]
    dice = ", ".join(f"{name} {100 * results[method][name]['dice_image']:.1f} %" for name in ("student", "teacher"))
    print(f"{method}: loss on labelled pairs {final:.2f} at the end; Dice per image {dice}")

# %% [markdown]
# ## The numbers
#
# The table shows the scores on the validation split: one seed, the last weights, in per cent. *mIoU* divides the common
# pixels of mask and prediction by the pixels of either; it is averaged in the same two ways.

# %%
rows = {(method, network): results[method][network] for method in configs for network in ("student", "teacher")}
table = (100 * pd.DataFrame(rows).T).round(1)
(folder / "table.txt").write_text(table.to_string() + "\n")
table

# %% [markdown]
# ### Exercise 07.2 (break)
#
# Two networks A and B predict masks for the same three images. Invent their pixel counts so that A leads in Dice micro
# by 10 points or more, and B leads in Dice per image by 10 points or more. Answer with `(A, B)`. Each is a table with a
# row `[common, predicted, true]` for each image. `scores(np.array(A))` of `semimedref_core` gives its Dice.
#
# <details><summary>Solution</summary>
#
# ```python
# A = [[900, 900, 900], [0, 0, 10], [0, 0, 10]]
# B = [[300, 300, 900], [10, 10, 10], [10, 10, 10]]
# ```
#
# A finds the large lesion and misses both small ones. B finds the small ones and a third of the large one. Micro: A
# 99 %, B 52 %. Per image: A 33 %, B 83 %. So a paper must say which Dice it reports.
# </details>

# %%
two_winners = None
check("07.2", two_winners)

# %% [markdown]
# ## What the teacher saw, and what the student was given
#
# We take one more batch after the training, with our default settings:
#
# 1. The teacher looks at the mirror image of the weak view and reads the report with its sides swapped. Its answer is
#    mirrored back. It is a probability of lesion for each pixel.
# 2. We set the probability to 0 outside the zones that the report names.
# 3. *T-PatchMix* offers each sample a patch from a partner's strong view, in a zone that the partner's report names. A
#    sample gets no offer if the two reports name opposite sides, if it is its own partner, or if no zone of the
#    partner's report overlaps in the two views. The *gate* asks whether the mean of the partner's map (the teacher's
#    probabilities) in the patch is high enough. If not, the sample stays as it is.
# 4. *PosAug* hits each position phrase of the student's text with probability 0.1 (the release: 0.5). It hides the
#    phrase or makes it vague.
# 5. A zone teaches nothing if the sample's own report names it and the target shows no lesion in it. If the target shows no
#    lesion at all although the report names one, the whole sample teaches nothing.
#
# Steps 1, 2 and 5 are our additions, and so is the zone rule of step 3. In the release the teacher sees the weak view
# itself, and a patch lies in a zone that the *receiver's* report names.
#
# **Look at** the figure from left to right: the weak view with its report, the teacher's probability after steps 1 and
# 2, and what the student gets. (Step 5 is not drawn.) Image, target (orange) and text change together. The text names
# the zone of the pasted patch (dashed pink frame), unless PosAug hid the phrase. The number in a mixed text is the
# number of its zones. `[UNK_POS]` stands for a hidden phrase, and `a region of the lung` for a vague one.

# %%
from semimedref_core import Batches, from_pretrained, load_texts, patchmix, views
from semimedref_core.methods import reported_places

(teacher, _), texts = from_pretrained(folders[focus] / "teacher"), load_texts(folders[focus] / "teacher")
grid = preparing.zone_grid(config, pairs)
if mixes:
    batch = Batches(pairs.labelled, pairs.unlabelled, config, texts, grid)(config.steps).unlabelled
    weak = views.weak_view(batch.images, batch.affine)
    p = reported_places.label(teacher, weak, batch, config)
    strong = views.strong_view(weak, **batch.photometry)
    plan = batch.text_choices, batch.proposal, config.block, config.patch_mode, config.gate
    mixed, target, input_ids, accepted = patchmix.t_patchmix(strong, p, *plan)
    proposed = batch.proposal["zones"] >= 0
    print(f"this batch: {len(p)} pairs, {int(proposed.sum())} patches proposed, {int(accepted.sum())} accepted")
else:
    print(f"this section is about the T-PatchMix of semi_medref; {focus} has another one, or none")

# %%
seen = None
if mixes and accepted.any():
    how = {"block": config.block, "mode": config.patch_mode, "gate": config.gate}
    patches, zones = patchmix.patch_boxes(p, **batch.proposal, **how)
    gains = (batch.codes >> zones.clamp(min=0)) & 1 == 0  # the text gets a new zone; such samples come first
    rows = (accepted * (1 + gains.int())).argsort(descending=True, stable=True)[: min(2, int(accepted.sum()))]
    titles = list(zip(texts.decode(batch.input_ids[rows]), texts.decode(input_ids[rows]), strict=True))
    images = [x[rows, 0].numpy() for x in (weak, p, mixed, (target >= 0.5).float())]
    mixing_gallery(*images, patches[rows].tolist(), titles).savefig(folder / "teacher.png", dpi=94)
    plt.close()
    alt = "Two mixed pairs: weak view and report, the teacher's map, and what the student must segment"
    seen = Image(filename=str(folder / "teacher.png"), alt=alt)
seen

# %% [markdown]
# Which share of the unlabelled samples was mixed after the burn-in? The log holds it. All other samples keep image and
# target, and no zone is added to their text (PosAug may still hide a phrase): they got no offer, or the gate refused
# the patch.

# %%
shares = [line["accepted"] for line in logs[focus] if "accepted" in line]
mean_accepted = sum(shares) / max(1, len(shares))
if mixes:
    print(f"accepted mixes: {100 * mean_accepted:.1f} % of the unlabelled samples after the burn-in")

# %% [markdown]
# ## The run once more, step by step
#
# Move the slider, or press play. The teacher follows the student from the first step. After the burn-in $w_u(t)$ rises
# (Eq. 15), and mixed pairs come in. The line of text gives the share of mixed samples in the last steps, and the Dice
# of the last validation. In the panel at the upper right, $w_u$ and the learning rate are shares of their largest
# values in the run. The widget needs a running kernel. Without a kernel you see a still picture of it.

# %%
from semimedref_core.widgets import training_replay

replay = training_replay(folders[focus] / "metrics.jsonl")
print(replay.said.value)
replay

# %% [markdown]
# ### Exercise 07.3 (change)
#
# The weight of the unlabelled loss is $w_u(t) = w_u \min(1, (t - t_0)^+ / T)$ (Eq. 15). $t_0$ is the end of the
# burn-in, $T$ the length of the ramp, and $x^+$ is $x$ if $x$ is positive, and 0 otherwise. The settings `burn_in` and
# `ramp` are shares of all steps. Which `settings` make $w_u(t)$ one half in step 100 of 500, and bring it to its full 1
# in step 150, not before? Answer with a dict such as `{"burn_in": 0.15, "ramp": 0.2}`, which holds our defaults.
#
# <details><summary>Solution</summary>
#
# `{"burn_in": 0.1, "ramp": 0.2}`. $w_u$ needs 50 steps from half to full, so it needs $T = 100$ steps from 0 to full,
# and $t_0 = 150 - 100 = 50$. As shares of 500 steps these are 0.2 and 0.1. To see the effect, give the parameter
# `settings` this dictionary and run the notebook again.
# </details>

# %%
earlier = None
check("07.3", earlier)

# %% [markdown]
# ## Predictions
#
# Neither network was trained on these validation pairs. The mask is blue and the prediction is orange and dashed. Each
# picture has its own Dice. **Look for** orange contours that reach beyond the blue one, to a height or side that the
# report does not name. In the committed run *supervised* does so in the first and in the third image. In the second
# image it has the higher Dice.

# %%
shown = pairs.valid.subset(range(min(4, len(pairs.valid)))[-3:])
predictions = {
    method: torch.cat(list(predict(from_pretrained(place / "teacher")[0], shown, texts)))[:, 0].numpy()
    for method, place in folders.items()
}
prediction_gallery(shown, predictions).savefig(folder / "predictions.png", dpi=110)
plt.show()

# %% [markdown]
# ## Does it need the report?
#
# We score both teachers on the same images again, but we replace every report by one that names **all six zones**. So
# the network still reads a report, but the report no longer tells where. On most images it is false, because it names
# zones without a lesion. On many images its laterality and its count are false as well. The lost points show how much
# each network relies on a true report. They do not show how a network trained without reports would score. In this run
# both teachers fall to nearly the same Dice, so the lead of Semi-MedRef needs true reports.

# %%
everywhere = replace(pairs.valid, reports=(Report.of([1] * 6),) * len(pairs.valid))
own = {method: found["teacher"]["dice_image"] for method, found in results.items()}
all_zones = {}
for method, place in folders.items():
    all_zones[method] = evaluate(from_pretrained(place / "teacher")[0], everywhere, texts)["dice_image"]
    told = f"{100 * own[method]:.1f} % with the own reports, {100 * all_zones[method]:.1f} % with all zones named"
    print(f"{method}: Dice per image {told}")

# %% [markdown]
# ## Another report for the same image
#
# Edit the text, or take a quick choice, and watch the predicted contour follow. Which lesions does the network find by
# itself? Which ones does it find only because the report names their zone? Choose a word under *attention to*: the
# image shows the attention of each place to it, as in [02](02_network.ipynb). The stronger the colour, the more
# attention. Without a kernel you see a still picture: the first validation pair, with a report that names all zones.
# There the network outlines most of both lungs, because it believes the sentence.

# %%
from semimedref_core.widgets import prediction_explorer

explorer = prediction_explorer(teacher, texts, grid, pairs.valid)
explorer.controls["choice"].value = "all zones"
print(explorer.said.value)
explorer

# %% [markdown]
# ## What to take away
#
# **To remember.** The cell prints the facts of this run. They hold for one seed and one data set, so do not quote the
# margin between the methods. Remember three more things. The first and the last hold for the settings above:
#
# - The loss on labelled pairs misleads: in this run the method with the lower loss has the lower Dice.
# - Dice micro and Dice per image can rank two networks differently. Always name the average.
# - Each run sees each of the 40 labelled pairs 100 times. Semi-MedRef also sees each of the 760 others 4.5 times, on
#   average.

# %%
summary = own | {f"{method}_all_zones": dice for method, dice in all_zones.items()}
if mixes:
    summary["accepted"] = mean_accepted
(folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
for name, value in summary.items():
    print(f"{name:26} {100 * value:5.1f} %")
print(f"\n1. The teachers' Dice per image: {', '.join(f'{m} {100 * summary[m]:.1f} %' for m in configs)}.")
lost = ", ".join(f"{method} {100 * (own[method] - all_zones[method]):.1f}" for method in configs)
print(f"2. With reports that name all zones the teachers lose these points of Dice per image: {lost}.")
if mixes:
    print(f"3. T-PatchMix mixed {100 * mean_accepted:.0f} % of the unlabelled samples.")

# %% [markdown]
# **Next:** [08 · Results](08_results.ipynb) compares all methods, label ratios and seeds, on real data too. **Back:**
# [06 · Teacher and student](06_teacher_student.ipynb). **Further on:** [docs/training.md](../docs/training.md) tells
# how to train on a GPU, and [docs/own_data.md](../docs/own_data.md) how to train on your own pairs.
