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
# # 10 · What a GPU step costs, counted
#
# **What you will see.** We count, without a GPU, how much work one training step gives to a GPU. There are four cases:
# `compact` at 64 px, `lite` at 96 and 224 px, and `mmi_unet` at 224 px. All but `compact` run in half precision. Only
# four times on this page were measured, all with older code: 36 and 41 ms of `compact` on an H200, and 57 and 67 ms on
# an H100. All other times are predictions. After this notebook you
#
# - know how much work a step is: launches, arithmetic and bytes;
# - can say why a small step waits for launches, and what a *CUDA graph* does about it;
# - have compared the counts with the two times that a GPU gave us;
# - can measure all of it on your GPU.
#
# **What you need.** One training step from [06](06_teacher_student.ipynb), and a whole training from
# [07](07_train.ipynb).
#
# **Time.** About 20 minutes to read, with the exercises; half a minute to run.

# %% tags=["parameters"]
kept = "gpu_training.json"  # what a GPU has measured, in the folder results beside this notebook
steps = 12  # of the small run on the CPU
flops_per_second = 4e14  # a guess, 40 % of what is printed on an H100; 09's record reached 7.0e14 with large products
bytes_per_second = 2.4e12  # what copies reach on an H100, measured
measured = {64: 36, 224: 41}  # ms of a step of compact with 8 + 8 pairs on an H200, by image size in px
host_seconds = 37e-6  # of the host for each launch: 36 ms by about 960 launches
launch_seconds = 2.5e-6  # of a small kernel inside a graph: a guess

# %% tags=["nbval-ignore-output"]
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import display
from torch.utils.flop_counter import FlopCounterMode

from semimedref_core import Config, build_network, build_texts, train, versions
from semimedref_core.data import datasets, phantom
from semimedref_core.experiments import finished_runs, notebooks_folder
from semimedref_core.figures import notebook_style, step_bounds, training_curves
from semimedref_core.runtime import graphed
from semimedref_core.teaching import check, source_of
from semimedref_core.tools import CASES, RUNS, Operations, operations, operations_of_replay

notebook_style(100)
torch.set_num_threads(1)
print(versions("accelerate"))

# %% [markdown]
# ## 1 · What is counted, and what was measured so far
#
# `python -m semimedref_core.tools.gpu_session FOLDER` times the steps of three networks, one of them at two sizes, each
# in three ways: plain, as a graph, and compiled. The table lists these four cases. The script also trains `lite` and
# `mmi_unet` in full, 1500 steps each. It needs a GPU, QaTa-COV19 (`SEMIMEDREF_DATA`) and at most eight minutes. It
# writes one file, and this notebook shows the file in the folder `results`.
#
# We have not run this script on a GPU yet. An H200 gave us two times of `compact` before the script was written: 36 ms
# a step at 64 px, and 41 ms at 224 px, with 8 + 8 pairs and no graph. Older code gave a few times on an H100 (section
# 3). Short trainings on a GPU are in [08](08_results.ipynb). The cell counts them.

# %% tags=["nbval-ignore-output"]
about = ["network", "dataset", "image_size", "batch_size", "precision"]
print(pd.DataFrame({name: vars(RUNS.get(name, case)) for name, case in CASES.items()}).loc[about].T)
path = Path("results") / kept
record = json.loads(path.read_text()) if path.is_file() else None
print(f"\nmeasured on {record['device']}" if record else "\nNo run of this script is kept: no times of it to show.")
on_gpu = finished_runs([notebooks_folder() / "results"]).query("device == 'cuda'")
print(
    f"In 08: {on_gpu['folder'].nunique()} short trainings on a GPU, with {', '.join(on_gpu['architecture'].unique())}"
)

# %% [markdown]
# ## 2 · The work of a step, counted without a GPU
#
# PyTorch has a device `meta`. A tensor there has a shape and no values, so a step at full size takes a second and no
# memory. We run one step there, from after the burn-in. A *launch* is the order of the CPU (the *host*) to a GPU to
# run one operation. We count each operation of PyTorch that computes something as one launch. On a GPU it is one, or a
# few.
#
# **Arithmetic.** Let $F$ be the floating-point operations of a forward pass of one pair, and $E$ those of the encoders
# alone. A backward pass costs two forward passes. Take $n$ labelled and $n$ unlabelled pairs. The student sees $2n$
# samples whole (labelled and mixed ones), and $n$ with its encoders only (weak ones, for ITCL). The teacher sees $n$
# and has no backward pass. So a step takes about $n\,(3\,(2F + E) + F)$ floating-point operations. The cell prints the
# sum of `compact` by hand, and counts a whole step of it. The step has a little less, because nobody needs the gradient
# of the pictures. (PyTorch's counter cannot check `lite` and `mmi_unet` in this way. In the backward pass of a
# convolution that treats each channel alone, it counts the gradient of the weights once for each channel.)


# %%
def flops(name: str, side: int, decode: int | None = None) -> float:
    """Of one forward pass of one pair."""
    network = build_network(name).to("meta")
    images, tokens = torch.zeros(1, 1, side, side, device="meta"), build_texts()(["lung"]).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        network.eval()(images, tokens, decode=decode)
    return counted.get_total_flops()


def step_flops(config: Config) -> float:
    F, E = (flops(config.network, config.image_size, decode) for decode in (None, 0))
    return config.batch_size * (3 * (2 * F + E) + F)


def few_pairs(side: int) -> datasets.Training:
    """Enough for any batch: pairs come again."""
    pairs = phantom.phantom("train", 8, side)
    return datasets.Training(pairs.subset(range(4)), pairs.subset([0]), pairs.subset(range(4, 8), masks=False))


# %%
arithmetic = {name: step_flops(case) for name, case in CASES.items()}
F, E = (flops("compact", 64, decode) / 1e9 for decode in (None, 0))
with FlopCounterMode(display=False) as whole_step:
    operations(CASES["compact"], CASES["compact"].steps - 1, few_pairs(64))
by_hand, counted = 8 * (3 * (2 * F + E) + F), whole_step.get_total_flops() / 1e9
print(f"compact: 8 x (3 x (2 x {F:.3f} + {E:.3f}) + {F:.3f}) = {by_hand:.2f} G; a whole step {counted:.2f} G")
print({name: f"{value / 1e12:.4f} T" for name, value in arithmetic.items()})
assert 0.99 * by_hand < counted < by_hand

# %% [markdown]
# **Launches and bytes** come from the step itself. The method below sees each operation. It leaves out views, counts
# the others, and adds up the bytes of their tensors. The bytes are what the operations read and write, in float32 and
# without the optimiser. Half precision halves most of these bytes. For the three cases in half precision we halve them
# all. We count the launches in float32 too. Half precision adds casts between the types, which we do not count. So the
# launches of these three cases, and the times that follow from them, are somewhat too low.


# %%
source_of(Operations.__torch_dispatch__)


# %%
rows = {}
for name, case in CASES.items():
    small = replace(case, dataset="phantom", precision="fp32")
    found = operations(small, case.steps - 1, few_pairs(case.image_size))
    rows[name] = {"launches": found.total, "TFLOP": arithmetic[name] / 1e12, "GB, float32": found.bytes / 1e9}
work = pd.DataFrame(rows).T
work.round({"launches": 0, "TFLOP": 4, "GB, float32": 1})

# %% [markdown]
# ## 3 · What bounds a step
#
# Four limits are possible, and they overlap. The host launches operations. The GPU starts each of them. Its arithmetic
# units multiply. Its memory moves bytes. A *CUDA graph* (section 4) replaces the host's launches by one, but the GPU
# still starts each operation. We guess 2.5 µs for that: these are the *launches in a graph*. A step has the host's time
# or the time of launches in a graph, never both. We take the longest of its three times as the estimate.
#
# The bytes count every read and write, as if no cache helped ([09](09_kernels.ipynb), section 5). In all cases but
# `mmi_unet` an operation moves about 11 MB or less on average, which fits into a cache of 50 MB. So their time of bytes
# is probably too long.
#
# The predictions below are the counts divided by the rates in the parameters cell. They are computed and not measured.
# Bytes, and the float32 arithmetic of `compact`, have rates that an H100 has shown. The host has the rate of our H200.
# The rates of launches in a graph and of bf16 arithmetic are guesses.
#
# **Look at** the circles: in each row the circle is the mark furthest to the right. Then cover the circles and find the
# next mark. It is the limit that is left after a graph.

# %%
seconds = {"host, one by one": work["launches"] * host_seconds}
seconds["launches in a graph"] = work["launches"] * launch_seconds
seconds["arithmetic"] = work["TFLOP"] * 1e12 / flops_per_second
seconds["bytes"] = work["GB, float32"] * 1e9 / bytes_per_second / 2
predicted = 1000 * pd.DataFrame(seconds)
predicted.loc["compact", "bytes"] *= 2  # it runs in float32
predicted.loc["compact", "arithmetic"] *= flops_per_second / 5.2e13  # of float32 products, measured in 09's record

# %%
print("ms", predicted.round(2), sep="\n")
megabytes = predicted["bytes"] * bytes_per_second / 1e9 / work["launches"]
print("MB of an operation, on average:", megabytes.round(1).to_dict())
labels = {name: f"{c.network}, {c.image_size} px,\n{c.batch_size} + {c.batch_size} pairs" for name, c in CASES.items()}
step_bounds(predicted.rename(labels))
plt.show()

# %% [markdown]
# Each mark is a count divided by a rate, on a logarithmic axis.
#
# - Where the host launches the operations one by one, the host takes longest in all cases: 36 ms for `compact`, 49 ms
#   for `lite` at both sizes, 85 ms for `mmi_unet`. Only the 36 ms are measured. We divided this time by today's count
#   of launches to get the host's rate. So this mark agrees by construction. The others are predictions. The 36 ms are
#   of older code. Another machine has another host: on an H100 a step of `compact` (96 px, 16 + 16 pairs, older code)
#   took 57 ms ([docs/training.md](../docs/training.md)). On the same H100 a step of an older `mmi_unet` (2 + 2 pairs, a
#   frozen BERT whose output was stored, another fusion) took 67 ms. Both H100 times include making the batch on the
#   CPU, which a training does in another thread. So they compare with ours only roughly. The host's times may be wrong
#   by half or more.
# - A graph removes that time. `compact`, and `lite` at 96 px, are then bound by their launches, 2.4 and 3.3 ms.
# - `lite` and `mmi_unet` at 224 px are then bound by bytes, by our count 6 and 34 ms: each of more than a thousand
#   operations reads and writes its own tensors, and those of images are large. A cache makes these times shorter. If it
#   served all reads and writes, 3.3 ms of launches would be left for `lite`, and 11 ms of arithmetic for `mmi_unet`. A
#   graph does not reduce these bytes. Fused operations (`compile="on"`) can.
#
# **Do launches really decide?** If they do, the size of the picture hardly matters. At 224 px a picture has 12 times
# as many pixels as at 64 px. The cell counts a step of `compact` at both sizes, and prints the two times that the H200
# gave us.

# %%
at_size = {}
for side, milliseconds in measured.items():
    counted = operations(replace(CASES["compact"], image_size=side), CASES["compact"].steps - 1, few_pairs(side))
    moved = 1000 * counted.bytes / bytes_per_second
    at_size[f"{side} px"] = {"launches": counted.total, "bytes, ms": moved, "measured, ms": milliseconds}
print(pd.DataFrame(at_size).T.round(2).to_string())

# %% [markdown]
# The number of launches stays the same. The bytes grow 9 times and not 12 times, because weights and texts do not grow
# with the picture. The measured time grows by 5 ms, and at an H100's rate the bytes alone would add 1.3 ms. We cannot
# explain the rest. But a step that waits for bytes would take 9 times as long. So most of the time does not depend on
# the size of the picture, and neither does the number of launches. That the host takes this time, and not the GPU that
# starts the operations, follows only from our guess of 2.5 µs. A measured graph would show it.
#
# ### Exercise 10.1 (predict)
#
# How many times as fast can a graph make a step of `compact` at most, by the table of section 3? Assume that a
# step takes as long as the longest of its times. Answer with a number, to one decimal.
#
# <details><summary>Solution</summary>
#
# Without a graph the host takes longest, with a graph the launches do. Both times are the number of launches times a
# constant: 37 µs and 2.5 µs. The number cancels, so the answer is 37 / 2.5 = 14.8.
# </details>

# %%
times_as_fast = None
check("10.1", times_as_fast)

# %% [markdown]
# ### Exercise 10.2 (change)
#
# The host's time does not depend on the number of pairs. Assume that the bytes are proportional to the number of pairs.
# Section 2 counts `mmi_unet` with 32 labelled and 32 unlabelled pairs. Change both numbers to the same new one. With
# how many pairs of each kind do the bytes take as long as the host? Answer with a number.
#
# <details><summary>Solution</summary>
#
# The bytes of 32 pairs take 33.56 ms, so one pair takes 1.049 ms. The host takes 84.73 ms, and 84.73 / 1.049 is about
# 81 pairs. With fewer pairs a GPU waits for its host, unless the step is a graph.
# </details>

# %%
pairs_in_a_step = None
check("10.2", pairs_in_a_step)

# %% [markdown]
# ## 4 · One launch for the whole step
#
# A **CUDA graph** is a recording: PyTorch notes all launches of a step with the addresses that they read and write, and
# starts them again by one launch. So three things must hold.
#
# - Every tensor keeps its address. A new batch is *copied into* the tensors of the recorded batch.
# - The step reads from the device whatever changes from step to step. Learning rate, $w_u$ and the teacher's decay are
#   scalars there.
# - The step never asks the device for a value. On `meta` such a question fails, and a test runs every method there.
#
# The function below works as follows. A batch of a new *kind* (other shapes, or other numbers that are 0) starts a new
# recording. New values are copied into the recorded tensors. The first calls (`WARM_UP`) run as usual, the next call is
# recorded, and all later ones are replayed.

# %%
display(source_of(graphed.Graphed.__call__))
small = Config(image_size=32, batch_size=2)
left = operations_of_replay(small, small.steps - 1, few_pairs(32))
print(f"left for the host: {left.total} operations, {dict(left.counts)}")

# %% [markdown]
# The last line counts what is left for the host. Four copies bring the batch. Five fills set three scalars (learning
# rate, $w_u$, decay) and the seed and offset of the random numbers. (The function fills the three scalars, and
# PyTorch's replay fills the other two.) One launch starts the graph. One clone saves the losses from the next replay.
#
# Burn-in leaves the unlabelled pairs out. Its launches differ, so it has a recording of its own. Noise needs no care: a
# replayed step uses the current seed of PyTorch, and the training sets that seed before each step.
#
# ### Exercise 10.3 (break)
#
# A recorded step must not ask for a value. `p[p >= threshold]` breaks that rule: run it on the device `meta`, and it
# fails. Write `gate(p, threshold)` that keeps the rule. It takes probabilities `[B]` and a number. It keeps each
# probability that is at least the threshold, and puts 0 in place of the others.
#
# <details><summary>Solution</summary>
#
# `gate = lambda p, threshold: torch.where(p >= threshold, p, 0.0)`. The shape of `p[p >= threshold]` depends on values,
# so the host would have to wait for them.
# </details>

# %%
gate = None
check("10.3", gate)

# %% [markdown]
# ## 5 · Measure it on your GPU
#
# On a GPU, with QaTa-COV19 in `SEMIMEDREF_DATA`, run `python -m semimedref_core.tools.gpu_session FOLDER`. An appendix
# shows the results. The first number to test is a step of `compact` as a graph: we predict 2.4 ms, and a plain step took
# 36 ms.
#
# The setting is `compile="graph"`. A CPU has no CUDA graphs, so a run on a CPU gives the reason and takes its steps
# without one. The cell takes twelve such steps. They show that the code runs, and no more.

# %%
small = replace(CASES["compact"], image_size=32, batch_size=2, steps=steps, eval_every=steps // 3, compile="graph")
with tempfile.TemporaryDirectory() as folder:
    results = train(small, folder, device="cpu")
print(f"{results['step']} steps on the {results['device']}: the code runs")

# %% [markdown]
# ## What to take away
#
# **To remember**
#
# - A step of Semi-MedRef with `compact` has about 960 launches. As a graph it is one launch, with about ten small
#   operations around it. ([06](06_teacher_student.ipynb) counts about 1700, because it also counts views
#   of tensors, which cost a GPU nothing.)
# - A graph helps where the host takes longest. If a launch takes 37 µs one by one and 2.5 µs in a graph, `compact`
#   becomes at most about 15 times as fast. `mmi_unet` with 32 + 32 pairs becomes about 2.5 times as fast, because its
#   bytes take the next longest; with the help of a cache it is more, up to 7.5 times. No GPU has measured this yet.
# - A recorded step may not ask for a value, and every tensor that it reads must keep its address.
# - A prediction is a count divided by a rate. A measured time can test it. With 12 times as many pixels a step took
#   an H200 41 ms instead of 36. So most of that time does not depend on the size of the picture. That the host takes it
#   follows only from our guess of 2.5 µs.

# %%
small_step, large_step = at_size.values()
assert small_step["launches"] == large_step["launches"]
assert 8.5 < large_step["bytes, ms"] / small_step["bytes, ms"] < 9.5
in_graph = predicted.drop(columns="host, one by one")
gain, if_cached = (
    predicted["host, one by one"] / left_over.max(1) for left_over in (in_graph, in_graph.drop(columns="bytes"))
)
assert 900 < work.loc["compact", "launches"] < 1050 and left.total <= 12
assert in_graph.max(1).idxmax() == "mmi_unet" and 14 < gain["compact"] < 16
assert 2.3 < gain["mmi_unet"] < 2.7 and 7.4 < if_cached["mmi_unet"] < 7.6 and megabytes.drop("mmi_unet").max() < 11.5
print(
    f"{work.loc['compact', 'launches']:.0f} launches, {left.total - 1} around a graph; "
    f"estimated gain {gain.round(1).to_dict()}, mmi_unet {if_cached['mmi_unet']:.1f} if a cache served all bytes"
)

# %% [markdown]
# **Back:** [09 · Kernels](09_kernels.ipynb). **Further on:** [docs/training.md](../docs/training.md) tells how to train
# on a GPU, and on several, and [docs/kernels.md](../docs/kernels.md) lists the launches and times of the two kernels.
# [00 · Start here](00_start_here.ipynb) lists all notebooks.

# %% [markdown]
# ## Appendix: To measure
#
# Run the command of section 5, copy `FOLDER/gpu_training.json` to `notebooks/results`, and run this notebook again. The
# next cell then prints the times, the memory and what the graph saves. It also draws the two trainings: the loss on
# labelled pairs at the left, and at the right the Dice of student (dotted) and teacher on validation pairs. Without
# that file it prints nothing.


# %% tags=["nbval-ignore-output"]
def rows_of(record: dict) -> pd.DataFrame:
    rows = pd.DataFrame(record["steps"])
    rows["steps per second"] = 1000 / rows["milliseconds"]
    return rows.set_index(["case", "way"])[["milliseconds", "steps per second", "peak_megabytes"]].round(1)


if record:
    parts = {row["case"]: row["parts"]["milliseconds"] for row in record["steps"] if row.get("parts")}
    print(rows_of(record), "", pd.DataFrame(parts).round(2), sep="\n")
    for name, run in record["runs"].items():
        done = run["results"]
        print(name, f"{done['seconds']} s, {done['teacher']}" if done else "was stopped; see its curves")
    training_curves({name: run["lines"] for name, run in record["runs"].items()})
    plt.show()
