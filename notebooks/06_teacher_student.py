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
# # 06 · One step of teacher and student
#
# **What you will see.** One training step of Semi-MedRef, from the batch to the loss, with real tensors. After this
# notebook you
#
# - have read the whole step, which is one function, and can say what each line does;
# - know which loss term trains which part of the student, and where no gradient goes;
# - can tell whether a line of code makes a GPU wait;
# - know how many steps the teacher's memory spans, and why training begins without the teacher.
#
# **What you need.** PyTorch, the network from [02](02_network.ipynb), PosAug from [03](03_posaug.ipynb), T-PatchMix
# from [04](04_t_patchmix.ipynb) and ITCL from [05](05_itcl.ipynb).
#
# **Time.** About 30 minutes to read, with the exercises and without the appendices; about 20 seconds to run.

# %% tags=["parameters"]
dataset = "phantom"  # or "qata", with SEMIMEDREF_DATA set to the folder that holds QaTa
image_size = 64
batch_size = 8
steps = 60  # of the short training in front of the step
seed = 1

# %% tags=["nbval-ignore-output"]
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display

from semimedref_core import Config, Teacher, figures, itcl, losses, patchmix, semi_medref, versions, views
from semimedref_core import teacher as ema
from semimedref_core.teaching import check, source_of
from semimedref_core.tools import HostReads, Passes, gradient_norms, named_tensors, tensor_table

figures.notebook_style(100)
print(versions())

# %% [markdown]
# ## A teacher that knows something
#
# *Student* and *teacher* are two networks with the same architecture. Gradients train the student. The teacher is a
# moving average of the student's weights. It predicts masks for the images that nobody has labelled: the
# *pseudo-labels*.
#
# The pseudo-labels of an untrained teacher are noise. So we first train the student for 60 steps on the phantom, and the
# teacher follows it. We record each step for section 9. Then we take one step apart. This step is the paper's (Eq. 17)
# with our settings; patches lie in the *donor's* zones ([04](04_t_patchmix.ipynb)). The training before it also used
# our additions to the pseudo-labels, which an appendix explains.

# %%
from accelerate import Accelerator
from torch.nn.utils import parameters_to_vector

from semimedref_core import Batches, build_network, build_texts, load_training, preparing, step
from semimedref_core.runtime import run_state

config = Config(dataset=dataset, image_size=image_size, batch_size=batch_size, steps=steps, seed=seed, lr=2e-3)
pairs, texts = load_training(dataset, config.label_ratio, image_size), build_texts()
batches = Batches(pairs.labelled, pairs.unlabelled, config, texts, preparing.zone_grid(config, pairs))
torch.manual_seed(seed)
student = build_network(config.network)
teacher, optimizer = Teacher(student), torch.optim.AdamW(student.parameters(), weight_decay=config.weight_decay)
state, accelerator, history = run_state.RunState(student, teacher, optimizer), Accelerator(cpu=True), []
here = parameters_to_vector(student.parameters()).detach()
while state.step < steps:
    w_u = step.schedule(config, state.step).w_u
    terms = step.training_step(state, batches(state.step), config, accelerator)
    before, here = here, parameters_to_vector(student.parameters()).detach()
    gap = (here - parameters_to_vector(teacher.network.parameters())).norm() / here.norm()
    move = (here - before).norm() / here.norm()
    history.append({name: value.item() for name, value in {**terms, "gap": gap, "move": move}.items()} | {"w_u": w_u})
print(f"{len(pairs.labelled)} labelled and {len(pairs.unlabelled)} unlabelled pairs")
print(f"DiceCE on labelled pairs: {history[0]['loss_labelled']:.2f} at first, {history[-1]['loss_labelled']:.2f} now")

# %% [markdown]
# ## 1 · The whole step (Eq. 17; paper: 3 to 5)
#
# **The paper** (Eq. 17; paper: 3 to 5) adds up four terms: a mask loss and ITCL on labelled pairs, and the same two on
# unlabelled pairs, with a weight $w_u$ that changes with the step $t$:
#
# $$L = \mathrm{DiceCE}(\text{labelled}) + w_l\,\mathrm{ITCL}(\text{labelled}) + w_u(t)\,\big[\mathrm{DiceCE}(\text{student}
# (\text{mixed strong view}), \text{mixed target}) + w_c\,\mathrm{ITCL}(\text{unlabelled weak view})\big]$$
#
# One function computes this. Read it once from top to bottom. In its names, `x` is an image, `y` a mask, `r` a report,
# `p` the teacher's probabilities, `s` a strong view, `u` and `v` are embeddings of image and text. `_l` means labelled,
# `_u` unlabelled, `_mix` mixed. The sections below take the same steps with the same names, and they must end at the
# same loss.
#
# You can skip three things for now. `label`, `weigh`, `mix` and `mask_loss` are functions that can be replaced: our
# additions replace the first two, and the release's step the last two. The lines below `burning_in` are the burn-in,
# which section 9 explains. The lines after `if seen.zones is None` belong to ISPG, an addition that predicts the zones
# from the image (an appendix of [03](03_posaug.ipynb)).

# %%
source_of(semi_medref.semi_medref)

# %% [markdown]
# ## 2 · The teacher's one look
#
# A batch holds $B$ labelled and $B$ unlabelled pairs. The CPU has drawn all random numbers of the step in advance,
# except the white noise. (The appendix lists the batch.) A *weak view* is the image, normalised, moved a little, and
# mirrored in half of the cases. (Then its report swaps "left" and "right". The release does not mirror.) The teacher
# reads the weak view $x_u$ and the report $r_u$, and predicts a lesion probability $p$ for each pixel. The teacher is
# in eval mode and has no gradients.
#
# **Ledger 6: one look is enough.** The *ledger* lists where the released code, the *release*, departs from what one
# expects ([00](00_start_here.ipynb)). A *look* is one forward pass. T-PatchMix pastes a patch of a partner $\pi(i)$
# into sample $i$, so it needs the partner's $p$ as well. To get it, the released code shows the teacher the permuted
# batch in a second pass. But a network in eval mode treats each sample by itself. So the second answer is the first
# one, permuted: $f(x_{\pi}) = f(x)_{\pi}$.

# %%
from semimedref_core import pseudo_labels

batch = batches(steps)
labelled, unlabelled = batch.labelled, batch.unlabelled
x_l, y_l = views.weak_view(labelled.images, labelled.affine), views.place_masks(labelled.masks, labelled.affine)
x_u, r_l, r_u = views.weak_view(unlabelled.images, unlabelled.affine), labelled.input_ids, unlabelled.input_ids
p = pseudo_labels.teacher_probabilities(teacher, x_u, unlabelled, config)
print(f"p: {tuple(p.shape)}, {p.min():.3f} to {p.max():.3f}, requires_grad {p.requires_grad}")
partner = unlabelled.proposal["partner"]
with torch.no_grad():
    again = teacher(x_u[partner], r_u[partner]).logits.sigmoid()
print(f"partners {partner.tolist()}: largest |f(x[partner]) - f(x)[partner]| = {(again - p[partner]).abs().max():.7f}")
assert (again - p[partner]).abs().max() < 1e-5

# %% [markdown]
# ## 3 · Strong view and T-PatchMix
#
# The *strong view* $s$ changes grey values only, so $p$ still fits it. T-PatchMix then mixes image, target and text. If
# its gate accepts the patch, all three change. If the gate refuses, none of them changes. The target is the mixed $p$,
# cut at 0.5 (Eq. 7; paper: 8). The CPU has written seven texts for each sample: its own report, and its own report with
# one of the six zones added. The step picks one of them.
#
# **Look at** one sample on its way, from the upper left to the lower right. The dashed box is the patch, first in the
# partner's strong view. The teacher marks a lesion in it (orange), the target marks the same lesion, and the student's
# text names its zone. (PosAug may hide a position of this text. Here it hides none.) With the settings above, the
# teacher also marks a spot at the lower left that the report does not name. This is a mistake, and the target keeps it.
# The appendix on our additions shows how we remove such mistakes.

# %%
torch.manual_seed(seed)  # for the white noise
s = views.strong_view(x_u, **unlabelled.photometry)
how = unlabelled.proposal, config.block, config.patch_mode, config.gate
s_mix, p_mix, r_mix, accepted = patchmix.t_patchmix(s, p, unlabelled.text_choices, *how)
y_mix = (p_mix >= 0.5).float()
assert torch.equal((s_mix != s).flatten(1).any(1), accepted)  # all or nothing
print(f"{int(accepted.sum())} of {len(p)} samples are mixed")

boxes, zones = patchmix.patch_boxes(
    p, **unlabelled.proposal, block=config.block, mode=config.patch_mode, gate=config.gate
)
added = (unlabelled.codes >> zones.clamp(min=0)) & 1 == 0  # the own report does not name the zone of the patch
gained = (y_mix - (p >= 0.5).float()).clamp(min=0).sum((1, 2, 3))  # pixels of lesion that the patch brings
false = ((p >= 0.5) & (views.place_masks(unlabelled.regions, unlabelled.affine) == 0)).sum(
    (1, 2, 3)
)  # in no named zone
i = int((accepted * (gained - false + 1000 * added)).argmax())
pictures = (each[i, 0].numpy() for each in (x_u, p, s, s[partner], p[partner], s_mix, y_mix))
figures.sample_strip(*pictures, boxes[i].tolist(), texts.decode(torch.stack([r_u[i], r_mix[i]])))
plt.show()

# %% [markdown]
# ## 4 · The student's one look
#
# The student sees labelled, mixed and weak samples in one pass. ITCL needs only the embeddings of the weak samples, so
# these skip the decoder. The argument `decode` is the number of samples, counted from the front, that go through the
# decoder too.
#
# **Look at** the step as a figure, with the shapes of this run. Gradients flow only through the boxes that the legend
# calls *trained by gradient* and *loss*. No gradient reaches anything to the left of the student. The student encodes
# all three groups of images, and decodes two of them.

# %%
images, tokens = torch.cat([x_l, s_mix, x_u]), torch.cat([r_l, r_mix, r_u])
sizes = [len(x_l), len(s_mix), len(x_u)]
seen = student(images, tokens, decode=sizes[0] + sizes[1])
logits_l, logits_mix = seen.logits.split(sizes[:2])
u_l, _, u_u = seen.image_embedding.split(sizes)
v_l, _, v_u = seen.text_embedding.split(sizes)

data = {"x_l": x_l, "y_l": y_l, "x_u": x_u, "p": p, "s": s, "s_mix": s_mix, "y_mix": y_mix, "accepted": accepted}
data |= {"r_mix": r_mix, "images": images, "tokens": tokens}
trained = {"logits_l": logits_l, "logits_mix": logits_mix, "u_l": u_l, "v_l": v_l, "u_u": u_u, "v_u": v_u}
assert not any(tensor.requires_grad for tensor in data.values())
assert all(tensor.requires_grad for tensor in trained.values())
figures.step_flow({**named_tensors(batch), **data, **trained})
plt.show()

# %% [markdown]
# ## 5 · The loss
#
# **The paper** (Eq. 13; paper: 2) sums Dice loss and cross-entropy as the loss of a mask. With $q =
# \sigma(\text{logits})$, for each image of $H \times W$ pixels:
#
# $$\mathrm{DiceCE} = 1 - \frac{2\sum q y}{\sum q + \sum y} \;-\; \frac{1}{HW}\sum \big[\,y\log q + (1-y)\log(1-q)\,\big]$$
#
# The loss of a batch is the mean over its images. The code differs in two points. It adds 1e-5 to numerator and
# denominator, so the Dice loss is 0, and not 0/0, where the mask is empty and all $q$ are 0. If $\sum q$ is far above
# 1e-5 there, the Dice loss is still nearly 1. The code also writes $\sum q + \sum y$ as $2\,(\mathrm{both} +
# \mathrm{wrong}/2 + \mathrm{missed}/2)$. Here *both* is $\sum q y$, *wrong* is $\sum q - \sum q y$, and *missed* is
# $\sum y - \sum q y$. In the source, $q$ is called `p`; it is not the teacher's $p$. The argument `weight` leaves
# pixels out of the loss; this step does not use it. The check is an image of two pixels, $q = (0.8, 0.4)$ and $y = (1,
# 0)$.

# %%
display(source_of(losses.dice_ce_of_images, losses.dice_of_images))
q, truth = torch.tensor([0.8, 0.4]), torch.tensor([1.0, 0.0])
dice_loss = 1 - 2 * 0.8 / (0.8 + 0.4 + 1)
cross_entropy = -(math.log(0.8) + math.log(1 - 0.4)) / 2
computed = losses.dice_ce(q.logit().view(1, 1, 1, 2), truth.view(1, 1, 1, 2)).item()
print(f"by hand: Dice loss {dice_loss:.4f} + cross-entropy {cross_entropy:.4f} = {dice_loss + cross_entropy:.4f}")
print(f"dice_ce: {computed:.4f}")
assert abs(computed - dice_loss - cross_entropy) < 1e-4

# %% [markdown]
# The cell computes the four terms of Eq. 17, each with its weight. It compares their sum with the loss of
# `semi_medref`. `Passes` counts the forward passes of each network.

# %%
w_u, w_l, w_c = step.schedule(config, steps).w_u, config.itcl_weight, config.itcl_unlabelled_weight
itcl_l, itcl_u = itcl.itcl(u_l, v_l, labelled.codes, config.tau), itcl.itcl(u_u, v_u, unlabelled.codes, config.tau)
terms = {"DiceCE labelled": losses.dice_ce(logits_l, y_l), "w_l ITCL labelled": w_l * itcl_l}
terms |= {"w_u DiceCE mixed": w_u * losses.dice_ce(logits_mix, y_mix), "w_u w_c ITCL weak": w_u * w_c * itcl_u}
print("\n".join(f"{name:18} {value.item():.3f}" for name, value in terms.items()))
print(f"with the weights w_l {w_l}, w_c {w_c}, and w_u {w_u} after the ramp")

torch.manual_seed(seed)
asked, taught = Passes(teacher.network), Passes(student)
by_function = semi_medref.semi_medref(student, teacher, batch, w_u, config)["loss"]
looks = {"teacher": len(asked.made), "student": len(taught.made)}
print(f"walked through by hand  L = {sum(terms.values()).item():.5f}")
print(f"semi_medref             L = {by_function.item():.5f}")
assert abs(sum(terms.values()) - by_function) < 1e-5
for name, value, zones in (("labelled", itcl_l, labelled.codes), ("weak", itcl_u, unlabelled.codes)):
    print(f"ITCL {name}: {value.item():.3f}, floor {itcl.loss_floor(zones):.3f}, log B {math.log(batch_size):.3f}")
print(f"passes: {looks}; of the student's {taught.made[0][0]} samples {taught.made[0][1]} go through the decoder")

# %% [markdown]
# The ITCL terms look large, but training can reduce them only a little. Their values are close to $\log B$, which is
# the loss of an even softmax. Their floors are only a little lower, because most reports of a batch share zones
# ([05](05_itcl.ipynb), section 4). The student learns from gradients, and not from values. So we look at the gradients
# next.
#
# ## 6 · What trains what
#
# ### Exercise 06.1 (predict)
#
# The parts of the student are `image encoder`, `text encoder`, `text-to-image fusion`, `decoder` and `ITCL
# projections`. Which of them get no gradient at all from the term *ITCL labelled*? Write a list of names.
#
# <details><summary>Solution</summary>
#
# `["text-to-image fusion", "decoder"]`. ITCL compares embeddings. An embedding is a projection of the output of one
# encoder, image or text. Fusion and decoder come later in the network, so the embeddings do not depend on them.
# </details>

# %%
without_gradient = None
check("06.1", without_gradient)

# %% [markdown]
# The figure shows the norm of the gradient of each weighted term in each part of the student. *none* means that
# autograd finds no path from the term to the part. **Look at** the columns: each part but the projections learns from
# the masks of both kinds, and both encoders learn from all four terms. **Then compare** the rows: the values of ITCL
# were large, but in both encoders its gradients are smaller than those of the masks.

# %%
norms = gradient_norms(terms, student)
figures.gradient_map(norms)
plt.show()
by_function.backward()
touched = sum(parameter.grad is not None for parameter in teacher.network.parameters())
moved = sum(parameter.grad is not None for parameter in student.parameters())
print(norms.round(3).to_string(na_rep="none"))
print(f"tensors of weights with a gradient: student {moved} of {len(list(student.parameters()))}, teacher {touched}")

# %% [markdown]
# ## 7 · Nobody waits
#
# A GPU works through a queue that the CPU fills. When the CPU asks for a *value*, it must wait until the queue is
# empty. This wait is a *host sync*. `x.item()`, `if mask.any()` and `x[mask]` ask for values. Up to the optimiser,
# which we leave out here, the step asks for none: the CPU has drawn its random numbers in advance, and the gate's
# answer stays on the device, where it indexes the seven texts.
#
# `HostReads` counts such requests, here in the forward pass, the backward pass and the update of the teacher. It cannot
# look inside our own two operations, patch mixing and ITCL, which are Triton kernels on a GPU ([09](09_kernels.ipynb)).
# It counts each of them as one operation that reads nothing. Nor does it see `x.cpu()`, which waits on a GPU and does
# nothing here. (On a CPU, patch mixing does read values; its GPU form does not.) In the output
# `aten._local_scalar_dense` is an `if` or an `.item()`, and `aten.index.Tensor` is `x[mask]`.
#
# `operations` counts every call to PyTorch, even a view of a tensor, which costs a GPU nothing. [Notebook
# 10](10_gpu_training.ipynb) counts a whole step with its optimiser, and only what computes something. So its number is
# smaller.

# %%
with HostReads() as step_reads:
    semi_medref.semi_medref(student, teacher, batch, w_u, config)["loss"].backward()
    teacher.update(student, 1.0)  # decay 1 keeps the teacher as it is
with HostReads() as careless:
    brightness = s_mix[accepted].mean().item() if accepted.any() else 0
print(f"host syncs in the step: {len(step_reads.reads)} in {step_reads.operations} operations")
print(f"in one careless line:   {len(careless.reads)} {careless.reads}")
assert step_reads.reads == []

# %% [markdown]
# ### Exercise 06.2 (change)
#
# The argument `label` of `semi_medref` takes a function that replaces `teacher_probabilities`. Write one that returns
# the same $p$ but makes the host wait. Then run the step with `label=` your function under `HostReads`, and look at
# `reads`.
#
# <details><summary>Solution</summary>
#
# ```python
# def waiting_label(teacher, x_u, unlabelled, config):
#     p = pseudo_labels.teacher_probabilities(teacher, x_u, unlabelled, config)
#     if p.max() < 0.5:
#         print("the teacher sees no lesion")
#     return p
# ```
#
# The `if` looks harmless, but it needs a value. `reads` holds `aten._local_scalar_dense.default`, which is what
# `.item()` calls.
# </details>

# %%
waiting_label = None  # def waiting_label(teacher, x_u, unlabelled, config): ...
check("06.2", waiting_label)

# %% [markdown]
# ## 8 · The teacher is a memory (Eq. 14; paper: 5)
#
# **The paper** (Eq. 14; paper: 5): after each step the teacher's weights $\theta'$ move a little towards the weights
# $\theta$ of the student, with a *decay* $d$ below 1, such as 0.99 (in a short run it is smaller, see section 9).
# If we apply the rule again and again, the student of $a$ steps ago gets the weight $(1-d)\,d^{a}$:
#
# $$\theta' \leftarrow d\,\theta' + (1-d)\,\theta, \qquad
# \theta'_t = d^{\,t}\,\theta'_0 + (1-d)\sum_{k=1}^{t} d^{\,t-k}\,\theta_k$$
#
# After one *half-life* the old teacher counts for one half of the new one, and the students since then count for the
# other half.
#
# The code also averages floating-point buffers, such as the running means of batch norm, and copies integer ones. The
# check is a network of one weight.

# %%
display(source_of(Teacher.update, ema.follow, ema.half_life))
tiny = torch.nn.Linear(1, 1, bias=False)
d, path = 0.9, torch.randn(31, generator=torch.Generator().manual_seed(seed)).tolist()
tiny.weight.data.fill_(path[0])
follower = Teacher(tiny)
for weight in path[1:]:
    tiny.weight.data.fill_(weight)
    follower.update(tiny, d)
closed_form = d**30 * path[0] + (1 - d) * sum(d ** (30 - k) * path[k] for k in range(1, 31))
print(f"after 30 updates: Teacher {follower.network.weight.item():.5f}, closed form {closed_form:.5f}")
print(f"half-life: {ema.half_life(0.99):.0f} steps at d = 0.99, {ema.half_life(0.999):.0f} steps at d = 0.999")
assert abs(follower.network.weight.item() - closed_form) < 1e-5

# %% [markdown]
# The animation shows a teacher on three validation images of the phantom while its student learns (64 px, 5 % of the
# masks, seed 0). **Look at** the orange: at first it covers nearly everything, then the lungs, and then the lesions.
#
# ![What a teacher finds on three pictures, from step 0 to step 240](pictures/teacher.gif)
#
# ## 9 · Burn-in and ramps (Eq. 15 and Eq. 16)
#
# **The release** lets the student learn from labelled pairs alone for the first $t_0$ steps, the *burn-in*. Otherwise
# it would learn the noise of an untrained teacher. Then the weight of the unlabelled loss grows linearly over $T$ steps
# to its largest value $w_u^{\max}$ (Eq. 15). The decay of the teacher grows by the same rule (Eq. 16). The release
# gives the decay a longer $T$ than the weight. Here both have the same $T$. ($x^+$ is $x$ if $x$ is positive, and 0
# otherwise.)
#
# $$w_u(t) = w_u^{\max} \min\!\big(1, (t - t_0)^+ / T\big), \qquad d(t) = d_0 + (d_1 - d_0)\,\min\!\big(1, (t - t_0)^+ / T\big)$$
#
# **Ours:** the decay never exceeds $(1+t)/(10+t)$, our *bound*. Without it, the teacher of a short run would keep much
# of the untrained network. With the default settings $d_0 = d_1 = 0.99$, so the ramp of $d$ does nothing, and the $d$
# that the cell prints is the bound.

# %%
display(source_of(ema.ramp, ema.ema_decay, step.schedule))
t_0, T = 9, 12  # burn-in and ramp of a run of 60 steps by the default settings
for t in (0, 9, 15, 59):
    by_hand, decay = min(1, max(0, t - t_0) / T), ema.ema_decay(t, t_0, T, 0.99, 0.99)
    print(f"step {t:2}: w_u / its largest value by hand {by_hand:.2f}, ramp {ema.ramp(t, t_0, T):.2f}; d = {decay:.2f}")
    assert math.isclose(by_hand, ema.ramp(t, t_0, T)) and math.isclose(decay, min(0.99, (1 + t) / (10 + t)))
with_bound = math.prod((1 + t) / (10 + t) for t in range(60))
print(f"untrained share of the teacher after 60 steps: {0.99**60:.2f} without the bound, {with_bound:.0e} with it")
longest = (1 + steps - 1) / (10 + steps - 1)  # the largest decay of our run
print(f"in our run d is at most {longest:.2f}, so the half-life is at most {ema.half_life(longest):.0f} steps")

# %% [markdown]
# The figure shows the 60 steps in front of our step. Dark grey is the burn-in, light grey the ramp. All curves but
# $w_u$ are means of 5 steps. **Left:** both mask losses fall. ITCL begins above $\log B$, because the softmax of an
# untrained network is uneven at random. It falls to $\log B$ in the first steps and stays there. **Middle:** during the
# burn-in nobody asks the teacher. After it, fewer and fewer samples are mixed for some steps. We have not measured why.
# Then the share of mixed samples climbs to about 0.45 to 0.65, and it rises once more at the end. **Right:** one curve
# is the distance from teacher to student, the other is the distance that the student moves in one step. During most of
# the burn-in the bound keeps the teacher less than one step behind. Later the teacher is several steps behind. At the
# end the learning rate goes to 0, the student hardly moves, and the teacher catches up.

# %%
run = pd.DataFrame(history)
figures.trajectory_curves(run, config.burn_in * steps, config.ramp * steps)
plt.show()
smooth = run.rolling(5, min_periods=1, center=True).mean()
passed = smooth.accepted[run.accepted.notna()]
print(f"samples mixed (mean of 5 steps): first {100 * passed.iloc[0]:.0f} %, ", end="")
print(f"lowest {100 * passed.min():.0f} % at step {passed.idxmin()}, last {100 * passed.iloc[-1]:.0f} %")
lag = smooth.gap / smooth.move
print("distance from teacher to student, in steps of the student:", end=" ")
print(", ".join(f"{lag[t]:.1f} at step {t}" for t in (3, steps // 4, steps // 2, steps * 3 // 4)))
print(f"the same distance, as a share of the weights' length: at most {run.gap.max():.1%}, now {run.gap.iloc[-1]:.1%}")

# %% [markdown]
# ### Exercise 06.3 (break)
#
# Find the settings of `Config` with which the student follows the untrained teacher with the full weight from step 0
# on. Write them as a dictionary. Then give them to `Config` in the cell of section *A teacher that knows something*,
# run all cells, and look at the share of mixed samples in the figure above.
#
# <details><summary>Solution</summary>
#
# `{"burn_in": 0, "ramp": 0}`. With `burn_in` 0 alone, $w_u$ is still 0 in step 0, because the ramp starts there.
#
# At first nearly all patches pass the gate. An untrained teacher predicts a medium probability for every pixel. This is
# above the gate almost everywhere, so the student learns noise. Then no patch passes for some steps.
# </details>

# %%
no_burn_in = None
check("06.3", no_burn_in)

# %% [markdown]
# ## What to take away
#
# **To remember.** The cell prints the facts with their numbers. They hold for the phantom with the settings above.

# %%
none = {name: ", ".join(norms.columns[norms.loc[name].isna()]) for name in ("DiceCE labelled", "w_l ITCL labelled")}
print(
    "1. A step is one forward pass of the teacher and one of the student. Outside the optimiser and our two operations"
)
print(f"   it reads no value: {len(step_reads.reads)} host syncs in {step_reads.operations} operations.")
print(f"2. The mask loss trains everything but: {none['DiceCE labelled']}.")
print(f"   ITCL trains everything but: {none['w_l ITCL labelled']}.")

# %%
floors, half = [itcl.loss_floor(zones).item() for zones in (labelled.codes, unlabelled.codes)], ema.half_life
print(f"3. ITCL stands at {itcl_l.item():.2f} and {itcl_u.item():.2f}, its floors at {floors[0]:.2f}", end=" ")
print(f"and {floors[1]:.2f}. An even softmax of {len(labelled.codes)} pairs has {math.log(len(labelled.codes)):.2f}.")
print(f"4. The teacher's half-life is {half(0.99):.0f} steps at d = 0.99, and {half(0.999):.0f} steps at d = 0.999.")
print(f"   In our run d is at most {longest:.2f}, so the half-life is at most {half(longest):.0f} steps.")
print("5. With d = 0.99 from step 0 on, the teacher of this run would still be", end=" ")
print(f"{100 * 0.99**60:.0f} % untrained network.")

# %% [markdown]
# **Next:** [07 · Training](07_train.ipynb) is the whole training. **Back:** [05 · ITCL](05_itcl.ipynb). **Further on:**
# [09 · Kernels](09_kernels.ipynb) has the kernels of patch mixing and ITCL, [docs/methods.md](../docs/methods.md) shows
# the steps of other methods. [docs/additions.md](../docs/additions.md) lists our additions.
#
# You can stop here at a first reading. Four appendices follow: the batch, our additions to the pseudo-labels, the
# release's schedule beside ours, and six differences from the released code.

# %% [markdown]
# ## Appendix: The batch, and what a look costs
#
# The table lists all tensors of a batch. `affine` places the weak views, `photometry` holds the grey-value changes of
# the strong views, `proposal` holds partner and zone of each patch, and `centres` their drawn places. `mirrored_ids`,
# `mirrors`, `regions` and `zone_boxes` serve our additions (next appendix).
#
# A patch adds one of six zones or none, and in mode *probability* the device finds the zone. So `text_choices` holds all
# seven texts that a sample can end with. The seven texts of one sample stand below the table. The number changes also
# where the text named the zone before: an own report counts lesions, a mixed one counts zones
# ([04](04_t_patchmix.ipynb)).

# %%
from semimedref_core import reports

table = tensor_table(named_tensors(batch))
print(table.to_string())
print(f"\none batch: {table['bytes'].sum():,} bytes, {len(table)} tensors, on the device before the step begins\n")
shown = max(map(texts.decode, unlabelled.text_choices), key=lambda seven: len(set(seven)))  # most to see in it
for added, text in zip(["nothing", *reports.ZONES], shown, strict=True):
    print(f"pasted: {added:13} {text}")

# %% [markdown]
# The second look of the teacher in the release (Ledger 6) costs as much as the first. The cell counts the
# floating-point operations of convolutions and matrix products.

# %%
from torch.utils.flop_counter import FlopCounterMode

with FlopCounterMode(display=False) as one_look:
    pseudo_labels.teacher_probabilities(teacher, x_u, unlabelled, config)
with FlopCounterMode(display=False) as whole_step:
    semi_medref.semi_medref(student, teacher, batch, w_u, config)["loss"].backward()
look, step_flops = one_look.get_total_flops(), whole_step.get_total_flops()
print(f"one step {step_flops / 1e9:.2f} GFLOP; a second look would add {100 * look / step_flops:.0f} %")

# %% [markdown]
# ## Appendix: Our additions to the pseudo-labels
#
# Three settings of the pseudo-labels are ours and not the paper's. They are defaults, so the training at the top used
# them. The step that we took apart did not use them. The table of methods (`semimedref_core/methods/registry.py`) gives
# `semi_medref` the functions `label` and `weigh` of `semimedref_core.methods.reported_places`.
#
# **The teacher sees the mirror image** (`teacher_view="mirrored"`; the preset `paper` has `"same"`). In the release the
# student's strong view is made from the weak view that the teacher sees, so the pseudo-labels can repeat what the
# student predicts anyway. Here the teacher sees the mirror image and reads the report with its sides swapped. Then its
# map is mirrored back.

# %%
from dataclasses import replace

from semimedref_core import Report
from semimedref_core.methods import reported_places

one_sided = Report.of((0, 0, 1, 0, 0, 0), 1)
print("the student reads:", one_sided.render())
print("the teacher reads:", one_sided.flip().render())
says = reported_places.label(teacher, x_u, unlabelled, replace(config, pseudo_labels="teacher"))
one, other = says >= 0.5, p >= 0.5
disputed = (one != other).sum() / (one | other).sum()
print(
    f"of the pixels that the teacher calls lesion in either view, {100 * disputed:.0f} % are lesion in one view alone"
)

# %% [markdown]
# **Pseudo-labels end where the reported zones end** (`pseudo_labels="reported"`; the preset `paper` has `"teacher"`;
# Ledger 5). The release cuts $p$ at 0.5 and asks for no confidence. We also set $p$ to 0 outside the zones that the
# report names. **Look at** each place where a pink outline has no orange one: the report removes this part of the
# pseudo-label.

# %%
kept = reported_places.label(teacher, x_u, unlabelled, config)
regions = views.place_masks(unlabelled.regions, unlabelled.affine)
alone, inside = (says >= 0.5).float(), (kept >= 0.5).float()
assert torch.equal(inside, alone * regions)
print(f"lesion by the teacher {100 * alone.mean():.1f} % of the pixels, in reported zones {100 * inside.mean():.1f} %")
cut = (alone - inside).sum((1, 2, 3)).argsort(descending=True)[:4]
figures.pseudo_label_gallery(*(maps[cut, 0].numpy() for maps in (x_u, regions, says, kept)), texts.decode(r_u[cut]))
plt.show()

# %% [markdown]
# **A reported infection that the teacher misses teaches nothing.** If the report names an infection and the target is
# empty, the teacher has missed it. In the release the student then learns that there is no infection. We give such a
# sample the weight 0. The same holds for each zone (`unfound="zone"`): if a zone that the pair's own report names has
# no lesion in the target, its pixels teach nothing. (A zone that only a patch has added is not checked.) The first two
# lines show two empty targets. For the third line we blank the right half of all targets, as if the teacher had found
# nothing there.

# %%
empty, two = torch.zeros_like(p[:2]), torch.tensor([int(unlabelled.codes[0]), 0])
for setting in ("reported", "teacher"):
    weights = reported_places.found_images(empty, two, replace(config, pseudo_labels=setting))
    told = f"weight of the missed infection {weights[0]:.0f}, of the healthy lung {weights[1]:.0f}"
    print(f"pseudo_labels={setting!r}: {told}")
blank = inside.clone()
blank[..., image_size // 2 :] = 0
left_out = reported_places.unfound_zones(blank, unlabelled.codes, unlabelled.zone_boxes)
samples, pixels = left_out.flatten(1).any(1).sum(), 100 * left_out.float().mean()
print(f"right half blank: {samples} of {len(p)} samples miss a named zone, {pixels:.1f} % of all pixels teach nothing")

# %% [markdown]
# ## Appendix: The release's schedule beside ours
#
# The left column shows the default settings. The right column shows the settings of the released code, because we do
# not know the paper's: 5 epochs of burn-in, 15 epochs up to $w_u = 0.3$, decay 0.99 to 0.999 over 20 epochs. An epoch
# of QaTa at 1 % is 5659 unlabelled pairs in batches of 32. The middle row shows $1 - d$, the share that the teacher
# takes from the student in one step. The solid line is the decay with our bound, the dashed line without it. **Look
# at** the middle row. With our defaults (600 steps) the bound sets the decay all the time. With the release's 100
# epochs it would set it in the first five epochs, and again from epoch 22 to 51. In this second span it lowers the
# decay by about 0.001 at most. The two learning rates have different scales.

# %%
from semimedref_core.methods import release

default, epoch = Config(), math.ceil(5659 / 32)  # steps of an epoch
ours = pd.DataFrame([vars(step.schedule(default, t)) for t in range(default.steps)]).rename_axis("step")
theirs = pd.DataFrame([release.schedule(t, epoch) for t in range(100 * epoch)])
ours["unbounded"], theirs["unbounded"] = default.ema_decay, theirs["decay"]
theirs["decay"] = theirs["decay"].clip(upper=(1 + theirs.index) / (10 + theirs.index))  # with our bound
theirs.index = (theirs.index / epoch).rename("epoch")
figures.schedule_curves({f"our defaults, {default.steps} steps": ours, "the release's settings, 100 epochs": theirs})
plt.show()

# %%
print(ours.iloc[[0, 89, 90, 150, 209, 210, 599]].round(4).to_string())
print(theirs.iloc[[0, 5 * epoch, 20 * epoch, 25 * epoch, 100 * epoch - 1]].round(6).to_string())
for decay in (0.99, 0.999):
    print(f"the bound allows a decay of {decay} from step {round((10 * decay - 1) / (1 - decay))}")

# %% [markdown]
# The two schedules have different lengths. Our weight ends at 1, the release's at 0.3. Only our schedule has the bound.
# There are more differences. Our burn-in takes 15 % of the steps and our ramp 20 %; the release's take 5 and 15 of 100
# epochs. Our highest learning rate is 1e-3, and the release's is 3e-4. Our weight and our decay share one ramp, and the
# release has two. Our decay never rises above 0.99 by default, and in 600 steps the bound keeps it lower still. A short
# run has no time for a half-life of 693 steps. Our learning rate begins with a warm-up, and the release's does not. The
# cosine of the release is made for 200 epochs, so after 100 epochs its learning rate is only half-way down. Ours always
# ends at 0.
#
# ## Appendix: Six differences from the released code
#
# Four of the six have a switch here. The preset `release-qata` turns on all four. You can also set each by itself, but
# `mask_loss` acts only with the method `semi_medref_release`, and `choose_by` only with `patience` above 0.
#
# - **The strong view is cut** (`strong_view="clamped"`, Ledger 16). The jitter of the release cuts grey values to the
#   range 0 to 1. But they have mean 0 and standard deviation 1 by then, so everything darker than the mean becomes
#   black.
# - **Pictures lie on their side** (`axes="transposed"`, Ledger 14). The image reader of the release gives width x
#   height, and no later line turns that back. "Left" is then the top of the picture that the network sees, while
#   patches are cut from its left. The last cell counts what that does to the box of *lower left lung*.
# - **DiceCE has no cross-entropy** (`mask_loss="dice"`, Ledger 15). The MONAI version that the release pins takes the
#   softmax of a single class. This is always 1, so the cross-entropy is 0.
# - **The student chooses** (`choose_by="student"`, Ledger 17). The release keeps the weights with the best *micro Dice
#   of the student*, after 20 epochs and in gains of at least 0.001. By default we choose nothing and keep the
#   last weights. With `patience` the teacher's Dice per image chooses, because the teacher is the network that people
#   use.
#
# Two more differences concern how the paper's networks read a text. Ours do not attend to padding, so a prediction does
# not depend on the length of the padding (Ledger 18). `guide_decoder` reads windows of 24 tokens, and the release takes
# exactly 24 (Ledger 19).

# %%
drawn = views.draw_photometry(np.random.default_rng(seed), 400, "clamped")
many, acts = x_u.repeat(50, 1, 1, 1), torch.as_tensor(drawn.jitter)
how_much = (torch.as_tensor(getattr(drawn, name)) for name in ("gain", "spread", "gain_first", "jitter"))
cut = views.clamped_jitter(many, *how_much)[acts]
lost = 1 - cut.var((1, 2, 3)).mean() / many[acts].var((1, 2, 3)).mean()
low, high = (end((1, 2, 3), keepdim=True) for end in (cut.amin, cut.amax))
at_an_end = ((cut == low) | (cut == high)).float().mean()
figures.image_row({"weak view": many[acts][0, 0], "after the release's jitter": cut[0, 0]})
plt.show()
print(f"the jitter acts on {100 * acts.float().mean():.0f} % of the views", end="; ")
print(f"there {100 * at_an_end:.0f} % of the pixels have been cut, and {100 * lost:.0f} % of the variance is gone")

# %%
from semimedref_core import anatomy

lesion = pairs.labelled.masks[[report.phrases == ("lower left lung",) for report in pairs.labelled.reports]]
y0, x0, y1, x1 = anatomy.THIRDS.boxes(image_size, image_size)[2]
for name, masks in {"upright": lesion, "on its side": lesion.swapaxes(1, 2)}.items():
    share = masks[:, y0:y1, x0:x1].sum() / masks.sum()
    print(f"lesions of 'lower left lung', {name:11}: {100 * share:4.1f} % of their pixels lie in the phrase's box")
