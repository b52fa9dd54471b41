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
# **What you will see.** The method in one figure; a map from each equation to the function that computes it, the cell that
# shows it and the test that proves it; and the *ledger*: where the released code does something else than one expects from
# the paper, and what is done here.
#
# | notebook | what it is about | time on a laptop |
# |---|---|---|
# | [01 · Data](01_data.ipynb) | images, reports, zones, the grid; what the texts give away | seconds |
# | [02 · The network](02_network.ipynb) | how an image and a sentence become a mask | a minute |
# | [03 · PosAug](03_posaug.ipynb) | position phrases are masked or made vague | seconds |
# | [04 · T-PatchMix](04_t_patchmix.ipynb) | image, pseudo-label and text are mixed as one | seconds |
# | [05 · ITCL](05_itcl.ipynb) | the contrastive loss whose positives are shared zones | seconds |
# | [06 · Teacher and student](06_teacher_student.ipynb) | one training step, tensor by tensor | seconds |
# | [07 · Training](07_train.ipynb) | all of it, against supervised training | minutes |
# | [08 · Results](08_results.ipynb) | finished runs on real QaTa-COV19 and the phantom | seconds |
# | [09 · Kernels](09_kernels.ipynb) | the two heavy operations in Triton | seconds |
#
# Everything runs on the *phantom*, a procedural chest X-ray with reports in the grammar of the real ones, without any
# download. Notebooks with a parameter `dataset` also take `"qata"`, once `SEMIMEDREF_DATA` names the folder that holds it.

# %% tags=["parameters"]
seed = 0
image_size = 96

# %% tags=["nbval-ignore-output"]
import matplotlib.pyplot as plt
from IPython.display import Markdown

from semimedref_core import versions
from semimedref_core.data import phantom
from semimedref_core.figures import notebook_style, sample_gallery
from semimedref_core.tools import EQUATIONS, LEDGER, equation_table, find_tags, ledger_table, symbol_table

notebook_style()
print(versions())

# %% [markdown]
# ## The task
#
# An image $x$ and its report $r$ go in, the mask $y$ of the infection comes out. A few pairs are labelled ($D_L$), for most
# nobody drew a mask ($D_U$); every pair has its report. The reports say where to look: each of these pictures also holds
# opacities that its report does not name, and those are not the lesion.

# %%
sample_gallery(phantom.phantom("train", 4, image_size, seed))
plt.show()

# %% [markdown]
# ## The method in one figure
#
# One training step, with the shapes of the run that [06](06_teacher_student.ipynb) takes apart: the teacher gives the
# pseudo-label $p$, T-PatchMix changes image, target and text together, the student learns from all of it, and the teacher
# follows as a moving average.
#
# ![One training step as boxes and arrows](pictures/step.png)

# %% [markdown]
# ## The map
#
# The first number is ours, in the order of the method; the second is the paper's, where it has one. The table is read from
# the tags in the sources, so it shows what is there. A test fails if an equation has no function, no cell or no test.

# %%
found = find_tags()
Markdown(equation_table(found))

# %% [markdown]
# ## The symbols
#
# One letter means one thing, in the text, in the formulas and in the docstrings.

# %%
Markdown(symbol_table())

# %% [markdown]
# ## The ledger
#
# Each entry is shown in a notebook and proved by a test. None of this says that the paper is wrong: it says what the code
# does that its authors released, so that numbers made with it can be read.

# %%
Markdown(ledger_table(found))

# %% [markdown]
# **To remember:** how many equations and how many differences there are, and that each has a test.

# %%
tests = {test[:2] for entry in [*EQUATIONS, *LEDGER] for test in found[entry.tag].tests}
print(f"{len(EQUATIONS)} equations and {len(LEDGER)} differences to the released code, in {len(tests)} tests")
