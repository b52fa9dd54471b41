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
# # 00 · Start here
#
# **What you will see.** Semi-MedRef is a method that learns to outline a lesion from an image and its report, with few
# masks. These notebooks take it apart. This first one is the map. After it you
#
# - know the task and the method, each in one figure;
# - know which notebook to read for what, and how long that takes;
# - can find the function, the notebook and the test of each equation;
# - can look up every symbol and every term;
# - know where the released code differs from what the paper leads one to expect.
#
# **What "the paper" means here.** *The paper* means its abstract, and the equations whose numbers in the paper we know
# from comments in the released code. *The release* means what that code does. We have not seen the paper's tables, so
# no number here is from them.
#
# **What you need.** PyTorch, and the [abstract of the paper](https://arxiv.org/abs/2605.15720).
#
# **Time.** About 10 minutes to read without the tables, which are for looking up; a few seconds to run.
#
# | notebook | what it is about | minutes to read | time to run |
# |---|---|---|---|
# | [01 · Data](01_data.ipynb) | images, reports, zones; what the texts give away | 20 | 20 s |
# | [02 · The network](02_network.ipynb) | how an image and a sentence become a mask | 15 | 30 s |
# | [03 · PosAug](03_posaug.ipynb) | position phrases are masked or made vague | 15 | 20 s |
# | [04 · T-PatchMix](04_t_patchmix.ipynb) | image, pseudo-label and text are mixed as one | 20 | 30 s |
# | [05 · ITCL](05_itcl.ipynb) | the contrastive loss whose positives are shared zones | 25 | 20 s |
# | [06 · Teacher and student](06_teacher_student.ipynb) | one training step, tensor by tensor | 30 | 20 s |
# | [07 · Training](07_train.ipynb) | all of it, against supervised training | 20 | 4 min |
# | [08 · Results](08_results.ipynb) | the verdict: finished runs on QaTa-COV19 and the phantom | 30 | 1 min |
# | [09 · Kernels](09_kernels.ipynb) | the two heavy operations in Triton | 35 | 20 s |
# | [10 · What a GPU step costs, counted](10_gpu_training.ipynb) | launches, operations and bytes of a step, and what bounds it | 10 | 30 s |
#
# **If you have ten minutes,** look at the figures below and read the verdict in [08](08_results.ipynb). **If you want
# the method,** read 01 to 06 in order. **If you want to train,** go to [07](07_train.ipynb), then to
# [docs/training.md](../docs/training.md) and [docs/own_data.md](../docs/own_data.md). Notebooks 01 to 10 have
# exercises, in which you predict, change or break something. A cell tells whether you are right.
#
# The notebooks need no download. They compute on the *phantom*: drawn chest X-rays with reports in the grammar of the
# real ones. 03 and 08 also show finished runs on real data. The numbers of these runs are stored with the notebooks.
# Notebooks with a parameter `dataset` also take `"qata"`, once `SEMIMEDREF_DATA` names the folder that holds
# QaTa-COV19.

# %% tags=["parameters"]
seed = 0
image_size = 96

# %% tags=["nbval-ignore-output"]
import matplotlib.pyplot as plt
from IPython.display import Markdown

from semimedref_core import versions
from semimedref_core.data import phantom
from semimedref_core.figures import notebook_style, sample_gallery
from semimedref_core.tools import (
    EQUATIONS,
    LEDGER,
    code_table,
    equation_table,
    find_tags,
    glossary_table,
    ledger_table,
    settings_table,
    symbol_table,
)

notebook_style(100)
print(versions())

# %% [markdown]
# ## The task
#
# The input is an image $x$ and its report $r$. The output is the mask $y$ of the infection. A few pairs are labelled
# ($D_L$). For most pairs nobody drew a mask ($D_U$). Every pair has its report.
#
# The report says where to look. It names *zones*: upper, middle or lower, of the left or the right lung. About six of
# ten phantom images also hold *decoys* (yellow, dotted). A decoy looks like a lesion, but no report names it and no
# mask marks it. **Compare** the blue with the yellow outlines in the last three images: both kinds look alike. The
# first image has no decoy.

# %%
decoys = phantom.decoys("train", 6, image_size, seed)
shown = [0, 2, 4, 5]
sample_gallery(phantom.phantom("train", 6, image_size, seed).subset(shown), 4, decoys[shown])
plt.show()
share = phantom.decoys("train", size=64).any((1, 2)).mean()

# %% [markdown]
# ## The method in one figure
#
# The figure shows one training step, with the shapes of the run that [06](06_teacher_student.ipynb) takes apart. A
# *weak view* is the image moved a little, and mirrored in half of the cases (its report then swaps left and right). A
# *strong view* also has other grey values. The *target* is the mask that the student is trained on, and *DiceCE* is the
# loss of a mask. Read the figure from left to right:
#
# 1. The teacher looks at the unlabelled image and reads its report. It predicts a lesion probability $p$ for each
#    pixel. Cut at 0.5, this is the *pseudo-label*.
# 2. T-PatchMix may paste a patch of another pair; then image, target and text change together. The *plan of the mixing* holds a text for each zone that a patch may add, and T-PatchMix picks the one that fits. PosAug, the augmentation of texts, has already masked some position phrases in them, or made them vague.
# 3. The student learns from the labelled pairs and from the mixed ones. It also makes an *embedding*, one vector, of each labelled image, of each unlabelled weak view, and of their reports. ITCL, a contrastive loss, draws those together whose reports share zones.
# 4. The teacher follows the student, as a moving average of its weights.
# 5. $L$ is the weighted sum of the four losses at the right. DiceCE of the labelled pairs has weight 1. The others have $w_l$ (ITCL, labelled), $w_u w_c$ (ITCL, unlabelled) and $w_u$ (DiceCE of the mixed pairs).
#
# ![One training step as boxes and arrows](pictures/step.png)
#
# *16 of 24 decoded:* the student outlines the 8 labelled and the 8 mixed images. The 8 weak views only give embeddings.
# The equations write $\tilde s$ for the figure's $s_{mix}$. *8×7×24:* for each pair a text without a patch, and one for
# each of the six zones. The figure leaves out our additions, which the defaults use: the teacher then sees the mirror
# image, and the pseudo-label ends where the reported zones end (last appendices of [06](06_teacher_student.ipynb)).

# %% [markdown]
# ## The map
#
# The first number is ours, in the order of the method. The second is the paper's, as comments in the released code give
# it. The cell reads the table from tags in the sources, so the table is never out of date. The cell in bold explains
# the equation. A test fails if an equation has no function, no cell or no test.

# %%
found = find_tags()
Markdown(equation_table(found))

# %% [markdown]
# The second table names the functions that compute each equation, and the tests that check it.

# %%
Markdown(code_table(found))

# %% [markdown]
# ## The symbols
#
# The table has the letters of the equations and of the training step. A few letters have a second meaning, which the
# table names. Notebooks 02 and 10 have a few letters of their own.

# %%
Markdown(symbol_table())

# %% [markdown]
# ## The glossary
#
# The table gives each term in one sentence, and the notebook that explains it.

# %%
Markdown(glossary_table())

# %% [markdown]
# ## The ledger
#
# The *ledger* lists where the released code or its data differ from what the paper leads one to expect, and what we do
# instead. A notebook shows each entry, and each has a test: of our own rewriting of that code, of our code, or of the
# data. The ledger does not say that the paper is wrong. It says what the authors' code does, so that you can read
# numbers made with it.

# %%
Markdown(ledger_table(found))

# %% [markdown]
# ## Two sets of settings
#
# The preset `paper` has the method's values of paper and release where we know them; the rule for mixed texts is ours.
# Its picture size, batch, steps, learning rates and texts are those of `compact`; `paper-qata` has the release's. The
# preset `compact` has ours, for few pairs in a batch and short training. Both use the same small network. `compact` is
# the default of all commands but `semimedref tutorial`, which uses the preset `tutorial`. The table shows where they
# differ. The last column says why. *Valid split, seed 0* means: on the validation pairs of QaTa-COV19, in runs with
# seed 0.

# %%
Markdown(settings_table())

# %% [markdown]
# ## What to take away
#
# **To remember.** The cell prints five facts to remember.

# %%
numbered = sum(bool(entry.paper) for entry in EQUATIONS)
print(f"1. {len(EQUATIONS)} equations in all, from data to metrics; for {numbered} of them we know the paper's number.")
print(f"2. {100 * share:.0f} % of the phantom's images hold decoys; only the report tells them from lesions.")
print("3. The teacher labels; the student learns from masks and from mixed pairs; the teacher follows the student.")
print("4. T-PatchMix changes image, target and text together, or none of them.")
print(f"5. The ledger has {len(LEDGER)} entries, and each has a test.")

# %% [markdown]
# **Next:** [01 · Data](01_data.ipynb). **In a hurry:** the verdict is at the top of [08 · Results](08_results.ipynb).
# **Further on:** [docs/code.md](../docs/code.md) tells where the code is, and [docs/additions.md](../docs/additions.md)
# tells what here is ours and not the paper's.
