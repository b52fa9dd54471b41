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
# **What you will see.** The same network is trained twice on the same few labelled image-report pairs, for the same
# number of steps: once on these alone (*supervised*), once with the many pairs whose masks nobody drew (*Semi-MedRef*).
# Along the way: the loss, what the teacher tells the student, how often a mixed patch passes the gate, and where the two
# networks differ in the end.
#
# $$L = \mathrm{DiceCE}(\text{labelled}) + w_l\,\mathrm{ITCL}(\text{labelled}) + w_u(t)\,\big[\mathrm{DiceCE}(\text{student}
# (\text{mixed strong view}), \text{mixed target}) + w_c\,\mathrm{ITCL}(\text{unlabelled weak view})\big]$$
#
# The teacher is a moving average of the student. The one function that computes this, top to bottom, is
# `semimedref_core.semi_medref`. Any other method may stand in the parameters, alone or with others; the last one is looked
# at more closely.

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
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from semimedref_core import Config, Report, evaluate, load_training, predict, presets, t_patchmix, train, versions
from semimedref_core.figures import mixing_gallery, notebook_style, prediction_gallery, sample_gallery, training_curves

notebook_style()
print(versions("transformers"))

# %% [markdown]
# ## The pairs
#
# A few pairs have masks (blue contour); of the rest the training reads image and report only. The phantom's reports are
# needed: each picture also holds look-alike opacities that no report mentions, and those are not the lesion.

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
sample_gallery(pairs.labelled).savefig(folder / "pairs.png", dpi=110)
plt.show()

# %% [markdown]
# ## Training
#
# The runs see the same labelled pairs, weak views, network and number of steps, and start from the same weights. Each
# leaves `metrics.jsonl`, `results.json` and its networks in a folder of its own.

# %%
how = {"resume": resume, "device": device, "note": note}
results = {method: train(configs[method], place, **how) for method, place in folders.items()}

# %% [markdown]
# ## Curves
#
# Supervised training soon knows its few pairs by heart: its loss falls while validation Dice stands still. The teacher
# (solid) is an average over the student's past (dotted), so it moves less from one validation to the next.

# %%
from semimedref_core.runtime import atomic

logs = {method: atomic.read_metrics(place / "metrics.jsonl") for method, place in folders.items()}
training_curves(logs).savefig(folder / "curves.png", dpi=110)
plt.show()

# %% [markdown]
# ## What the teacher saw, and what the student was given
#
# The teacher looks at the weak view's mirror image with the whole report, its sides swapped, and gives a probability for
# each pixel, which is mirrored back; what lies outside the zones that the report names is no pseudo-label. *T-PatchMix* pastes a patch of the partner's strong view where the
# partner's report names a lesion and the teacher is sure enough of it, and *PosAug* hides or blurs position phrases.
# Image, target (orange) and text change together: where a patch was pasted, the text names its zone too, unless PosAug
# hid the phrase.

# %%
from semimedref_core import Batches, from_pretrained, load_texts, training, views
from semimedref_core.methods import reported_places

(teacher, _), texts = from_pretrained(folders[focus] / "teacher"), load_texts(folders[focus] / "teacher")
grid = training.zone_grid(config, pairs)
mixes = focus == "semi_medref"
if not mixes:
    print(f"this section is about the T-PatchMix of semi_medref; {focus} has another one, or none")

# %%
if mixes:
    batch = Batches(pairs.labelled, pairs.unlabelled, config, texts, grid)(config.steps).unlabelled
    weak = views.weak_view(batch.images, batch.affine)
    p = reported_places.label(teacher, weak, batch, config)
    strong = views.strong_view(weak, **batch.photometry)
    plan = batch.text_choices, batch.proposal, config.block, config.patch_mode, config.gate
    mixed, target, input_ids, accepted = t_patchmix(strong, p, *plan)
    proposed = batch.proposal["zones"] >= 0
    print(f"this batch: {len(p)} pairs, {int(proposed.sum())} patches proposed, {int(accepted.sum())} accepted")

# %%
if mixes and accepted.any():
    rows = accepted.nonzero().flatten()[:2]
    titles = list(zip(texts.decode(batch.input_ids[rows]), texts.decode(input_ids[rows]), strict=True))
    images = [x[rows, 0].numpy() for x in (weak, p, mixed, (target >= 0.5).float())]
    mixing_gallery(*images, titles).savefig(folder / "teacher.png", dpi=110)
    plt.show()

# %% [markdown]
# ## How many mixes are accepted
#
# A patch is offered wherever the partner's report names a zone that may be pasted, and the gate refuses it where the
# teacher's mean probability is too low. Refused samples keep image, target and text as they were.

# %%
shares = [line["accepted"] for line in logs[focus] if "accepted" in line]
mean_accepted = sum(shares) / max(1, len(shares))
if mixes:
    print(f"accepted mixes: {100 * mean_accepted:.1f} % of all unlabelled samples")

# %% [markdown]
# ## The run once more, step by step
#
# Move the slider, or press play: burn-in on labelled pairs alone, then $w_u(t)$ rises (Eq. 15) while mixed pairs come in,
# and the teacher follows the student. The line says how many samples were mixed and what the last validation gave.

# %%
from semimedref_core.widgets import training_replay

replay = training_replay(folders[focus] / "metrics.jsonl")
print(replay.said.value)
replay

# %% [markdown]
# ## Predictions
#
# Validation pairs that neither network has seen: mask (blue), prediction (orange, dashed), each with its own Dice.

# %%
shown = pairs.valid.subset(range(min(4, len(pairs.valid))))
predictions = {
    method: torch.cat(list(predict(from_pretrained(place / "teacher")[0], shown, texts)))[:, 0].numpy()
    for method, place in folders.items()
}
prediction_gallery(shown, predictions).savefig(folder / "predictions.png", dpi=110)
plt.show()

# %% [markdown]
# ## Does it need the report?
#
# The same teacher, the same images, every report replaced by the one that names all zones: what the text was worth.

# %%
from dataclasses import replace

blank = Report.of([1] * 6)
blanked = replace(pairs.valid, reports=(blank,) * len(pairs.valid))
without_text = evaluate(teacher, blanked, texts)
print(
    f"Dice per image {100 * results[focus]['teacher']['dice_image']:.1f} % with the reports, "
    f"{100 * without_text['dice_image']:.1f} % without"
)

# %% [markdown]
# ## Another report for the same image
#
# Edit the text, or take a quick choice, and see the predicted contour follow. Which lesions does the network find by
# themselves, and which only because the report names their zone?

# %%
from semimedref_core.widgets import prediction_explorer

explorer = prediction_explorer(teacher, texts, grid, pairs.valid)
print(explorer.said.value)
explorer

# %% [markdown]
# ## The numbers
#
# Validation split, one seed, in per cent. *micro* adds up the pixels of all images first, *image* averages over images.

# %%
rows = {(method, network): results[method][network] for method in configs for network in ("student", "teacher")}
table = (100 * pd.DataFrame(rows).T).round(1)
(folder / "table.txt").write_text(table.to_string() + "\n")
table

# %% [markdown]
# **To remember:** what the unlabelled pairs brought, what the reports are worth, and how often a patch is accepted.

# %%
summary = {method: results[method]["teacher"]["dice_image"] for method in configs}
summary[f"{focus}_without_text"] = without_text["dice_image"]
if mixes:
    summary["accepted"] = mean_accepted
(folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
for name, value in summary.items():
    print(f"{name:26} {100 * value:5.1f} %")
