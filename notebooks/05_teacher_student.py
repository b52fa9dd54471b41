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
# # 05 · One step of teacher and student
#
# **What you will see.** One training step of Semi-MedRef, taken apart: every tensor with its shape, from the batch to the
# loss; what the teacher looks at and how often; which loss term trains which part of the student; and why a GPU never has
# to wait. Then the three things that change from step to step: the teacher, the weight $w_u$ and the learning rate.
#
# The step is one function that fits on a screen, `semimedref_core.semi_medref.semi_medref`. Here it is walked through by
# hand, with the same building blocks, and must end at the same loss.

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

from semimedref_core import Config, Report, Teacher, anatomy, dice_ce, figures, patchmix, reports, versions, views
from semimedref_core.methods import METHODS, reported_places
from semimedref_core.tools import HostReads, Passes, gradient_norms, named_tensors, tensor_table

figures.notebook_style()
print(versions())

# %% [markdown]
# ## A teacher that knows something
#
# An untrained teacher has nothing to say. So we train first, for a few seconds, and note each step; section 9 shows how
# it went. The step that we then take apart is the next one.

# %%
from semimedref_core import Batches, build_network, build_texts, load_training, training

config = Config(dataset=dataset, image_size=image_size, batch_size=batch_size, steps=steps, seed=seed, lr=2e-3)
pairs, texts = load_training(dataset, config.label_ratio, image_size), build_texts()
batches = Batches(pairs.labelled, pairs.unlabelled, config, texts, training.zone_grid(config, pairs))
print(f"{len(pairs.labelled)} labelled and {len(pairs.unlabelled)} unlabelled pairs")

# %%
from accelerate import Accelerator
from torch.nn.utils import parameters_to_vector

from semimedref_core.runtime import run_state

torch.manual_seed(seed)
student = build_network(config.network)
teacher = Teacher(student)
optimizer = torch.optim.AdamW(student.parameters(), weight_decay=config.weight_decay)
state = run_state.RunState(student, teacher, optimizer)

# %%
accelerator, history = Accelerator(cpu=True), []
here = parameters_to_vector(student.parameters()).detach()
while state.step < steps:
    w_u = training.schedule(config, state.step).w_u
    terms = training.training_step(state, batches(state.step), config, accelerator)
    before, here = here, parameters_to_vector(student.parameters()).detach()
    gap = (here - parameters_to_vector(teacher.network.parameters())).norm() / here.norm()
    move = (here - before).norm() / here.norm()
    history.append({name: value.item() for name, value in {**terms, "gap": gap, "move": move}.items()} | {"w_u": w_u})
print(f"DiceCE on labelled pairs: {history[0]['loss_labelled']:.2f} at first, {history[-1]['loss_labelled']:.2f} now")

# %% [markdown]
# ## 1 · The batch
#
# A batch holds $B$ labelled and $B$ unlabelled pairs. **Everything that is left to chance has been drawn already, on the
# CPU**: where the weak views lie (`affine`), the grey values of the strong views (`photometry`), partner and zone of each
# patch (`proposal`), and what PosAug does to the texts.

# %%
batch = batches(steps)
labelled, unlabelled = batch.labelled, batch.unlabelled
table = tensor_table(named_tensors(batch))
print(table.to_string())
print(f"\none batch: {table['bytes'].sum():,} bytes, {len(table)} tensors, all on the device before the step begins")

# %% [markdown]
# The zone of a patch is known before the gate has spoken. So `text_choices` holds all seven texts that a sample can end
# with: its own, or its own and one of six zones. On the device, the gate's answer only has to pick one.

# %%
choices = [texts.decode(each) for each in unlabelled.text_choices]
shown = max(choices, key=lambda seven: len(set(seven)))  # PosAug leaves more to see in some samples than in others
for added, text in zip(["nothing", *reports.ZONES], shown, strict=True):
    print(f"pasted: {added:13} {text}")

# %% [markdown]
# ## 2 · Weak view and the teacher's one look
#
# Labelled and unlabelled pictures are normalised and moved a little. The teacher reads the *untouched* report and gives
# $p$, a lesion probability for each pixel. It is in eval mode and has no gradients.

# %%
x, y = views.weak_view(labelled.images, labelled.affine), views.place_masks(labelled.masks, labelled.affine)
weak = views.weak_view(unlabelled.images, unlabelled.affine)
p = reported_places.label(teacher, weak, unlabelled, config)
print(f"p: {tuple(p.shape)}, {p.min():.3f} to {p.max():.3f}, requires_grad {p.requires_grad}, grad_fn {p.grad_fn}")

# %% [markdown]
# **Ours: the teacher looks in a mirror.** In the paper both look at the same weak view, so the student hears little that it
# would not have said itself. By default here (`teacher_view="mirrored"`; `"same"` is the paper's way) the teacher sees the
# mirror image and reads the report with its sides swapped; its map is mirrored back. It is the same question, and yet the
# answer differs where the teacher has learnt one lung and not the other:

# %%
from dataclasses import replace

one_sided = Report.of((0, 0, 1, 0, 0, 0), 1)
print("the student reads:", one_sided.render())
print("the teacher reads:", one_sided.flip().render())
as_it_lies = reported_places.label(teacher, weak, unlabelled, replace(config, teacher_view="same"))
one, other = p >= 0.5, as_it_lies >= 0.5
disputed = (one != other).sum() / (one | other).sum()
print(f"of the pixels that either look calls lesion, {100 * disputed:.0f} % are lesion in one look alone")

# %% [markdown]
# **Ledger 5: what counts as a pseudo-label.** The release cuts $p$ at 0.5 once mixing is on, without any mask of
# confidence; `conf_th` gates patches only. Our default does one thing more: outside the zones that the report names, $p$
# is set to 0 (`pseudo_labels="reported"`; `"teacher"` is the paper's way).

# %%
says = reported_places.label(teacher, weak, unlabelled, replace(config, pseudo_labels="teacher"))
regions = views.place_masks(unlabelled.regions, unlabelled.affine)
alone, kept = (says >= 0.5).float(), (p >= 0.5).float()
assert torch.equal(kept, alone * regions)
print(
    f"lesion by the teacher alone {100 * alone.mean():.1f} % of the pixels, in reported zones {100 * kept.mean():.1f} %"
)

# %%
cut = (alone - kept).sum((1, 2, 3)).argsort(descending=True)[:4]
told = texts.decode(unlabelled.input_ids)
maps = (maps[cut, 0].numpy() for maps in (weak, regions, says, p))
figures.pseudo_label_gallery(*maps, [told[i] for i in cut])
plt.show()

# %% [markdown]
# And a second thing. Where the report names an infection and the target is empty, the teacher has missed it. The release
# lets the student learn that there is nothing; our default gives this sample the weight 0. Two empty targets, the first
# with an infection in its report, the second without:

# %%
empty, codes = torch.zeros_like(p[:2]), torch.tensor([int(unlabelled.codes[0]), 0])
for setting in ("reported", "teacher"):
    weights = reported_places.found_images(empty, codes, replace(config, pseudo_labels=setting))
    print(
        f"pseudo_labels={setting:10} weight of the missed infection {weights[0]:.0f}, of the healthy lung {weights[1]:.0f}"
    )

# %% [markdown]
# Zone by zone the same (`unfound="zone"`): where the report names a zone and the target shows nothing in it, the pixels of
# this zone teach nothing, while the rest of the image does. How many named zones does the teacher miss here? (It is cut at
# 0.5; a teacher that asked itself for more would miss more.)

# %%
named = (unlabelled.codes[:, None] >> torch.arange(6)) & 1
for least in (0.5, 0.7, 0.9):
    left_out = reported_places.unfound_zones((p >= least).float(), unlabelled.codes, unlabelled.zone_boxes)
    missed = int(left_out.flatten(1).any(1).sum())
    print(
        f"cut at {least}: of {len(p)} samples that name {int(named.sum())} zones {missed} have one or more without lesion, "
        f"{100 * left_out.float().mean():.1f} % of all pixels are left out"
    )

# %% [markdown]
# **Ledger 6: one look is enough.** T-PatchMix needs the partners' maps $p_j$. The release shows the teacher the permuted
# batch to get them. But an eval-mode network treats every sample for itself, so the answer is the permutation of the first:
# $f(x_{\pi}) = f(x)_{\pi}$.

# %%
partner = unlabelled.proposal["partner"]
with torch.no_grad():
    once = teacher(weak, unlabelled.input_ids).logits.sigmoid()
    again = teacher(weak[partner], unlabelled.input_ids[partner]).logits.sigmoid()
difference = (again - once[partner]).abs().max()
print(f"permutation {partner.tolist()}: max |f(x[perm]) - f(x)[perm]| = {difference:.7f}")
assert difference < 1e-5

# %% [markdown]
# ## 3 · Strong view and T-PatchMix
#
# The strong view changes grey values only, so $p$ still fits. Then image, target and text are mixed as one: where the gate
# accepts, all three change; where it refuses, none does. The target is cut at 0.5 (Eq. 7; paper: 8). Below: one sample on
# its way. The student's text names the pasted zone too, and counts the zones that it names; PosAug may hide where they are.

# %%
torch.manual_seed(seed)  # white noise is the one thing drawn on the device
strong = views.strong_view(weak, **unlabelled.photometry)
plan = unlabelled.text_choices, unlabelled.proposal, config.block, config.patch_mode, config.gate
mixed, soft, input_ids, accepted = patchmix.t_patchmix(strong, p, *plan)
target = (soft >= 0.5).float()
trusted = reported_places.found_images(target, unlabelled.codes, config)
left_out = reported_places.unfound_zones(target, unlabelled.codes, unlabelled.zone_boxes)
changed = (mixed != strong).flatten(1).any(1)
assert torch.equal(changed, accepted)
print(f"{len(p)} samples: {int(accepted.sum())} mixed, {int(trusted.sum())} with a target to learn from")

# %%
how = {"block": config.block, "mode": config.patch_mode, "confident": config.gate}
boxes, _ = patchmix.patch_boxes(p, **unlabelled.proposal, **how)
i = int(((target - kept).clamp(min=0).sum((1, 2, 3)) * accepted).argmax())  # where the patch brought most lesion
pictures = (each[i, 0].numpy() for each in (unlabelled.images, weak, p, strong, mixed, target))
read = texts.decode(torch.stack([unlabelled.input_ids[i], input_ids[i]]))
figures.sample_strip(*pictures, boxes[i].tolist(), read)
plt.show()

# %% [markdown]
# ## 4 · The student's one look
#
# Labelled, mixed and weak samples pass the student together. Of the weak ones only the embeddings are wanted, for ITCL, so
# they leave behind the encoders: `decode` says how many samples from the front are segmented.
#
# Here the student is the compact network. In the paper's two, the attention layers are those of the release, but the text
# is read differently. Padding is not attended, so the prediction does not depend on its length (Ledger 18).
# `guide_decoder` reads windows of 24 tokens, where the release takes exactly 24 (Ledger 19).

# %%
images = torch.cat([x, mixed, weak])
tokens = torch.cat([labelled.input_ids, input_ids, unlabelled.input_ids])
seen = student(images, tokens, decode=len(x) + len(mixed))
logits_labelled, logits_mixed = seen.logits.split([len(x), len(mixed)])
image_labelled, _, image_weak = seen.image_embedding.split(batch_size)
text_labelled, _, text_weak = seen.text_embedding.split(batch_size)

# %%
flow = {"x": x, "y": y, "weak": weak, "p": p, "strong": strong}
flow |= {"mixed": mixed, "target": target, "input_ids": input_ids, "accepted": accepted, "trusted": trusted}
flow["left_out"] = left_out
flow |= {"images": images, "tokens": tokens, "logits_labelled": logits_labelled, "logits_mixed": logits_mixed}
flow |= {"image_labelled": image_labelled, "text_labelled": text_labelled}
flow |= {"image_weak": image_weak, "text_weak": text_weak}
print(tensor_table(flow).to_string())

# %% [markdown]
# The whole step, with the shapes of this run. Only the yellow boxes have gradients; everything to the left of the student
# is data to it.

# %%
figures.step_flow({**named_tensors(batch), **flow})
plt.show()

# %% [markdown]
# ## 5 · The loss
#
# A mask is judged by Dice and cross-entropy (Eq. 13; paper: 2), image by image: with $q = \sigma(\text{logits})$,
#
# $$\mathrm{DiceCE} = 1 - \frac{2\sum q y}{\sum q + \sum y} \;-\; \frac{1}{HW}\sum \big[\,y\log q + (1-y)\log(1-q)\,\big]$$
#
# Two pixels by hand: $q = (0.8, 0.4)$, $y = (1, 0)$.

# %%
q, truth = torch.tensor([0.8, 0.4]), torch.tensor([1.0, 0.0])
dice_loss = 1 - 2 * 0.8 / (0.8 + 0.4 + 1)
cross_entropy = -(math.log(0.8) + math.log(1 - 0.4)) / 2
computed = dice_ce(q.logit().view(1, 1, 1, 2), truth.view(1, 1, 1, 2)).item()
print(f"Dice loss {dice_loss:.4f} + cross-entropy {cross_entropy:.4f} = {dice_loss + cross_entropy:.4f}")
print(f"dice_ce                                    {computed:.4f}")
assert abs(computed - dice_loss - cross_entropy) < 1e-4

# %% [markdown]
# The total (Eq. 17; paper: 3 to 5), with the weights of this step:
#
# $$L = \mathrm{DiceCE}(\text{labelled}) + w_l\,\mathrm{ITCL}(\text{labelled}) + w_u(t)\,\big[\mathrm{DiceCE}(\text{student}
# (\text{mixed strong view}), \text{mixed target}) + w_c\,\mathrm{ITCL}(\text{unlabelled weak view})\big]$$

# %%
from semimedref_core import itcl

w_u, w_l, w_c = training.schedule(config, steps).w_u, config.itcl_weight, config.itcl_unlabelled_weight
terms = {
    "DiceCE labelled": dice_ce(logits_labelled, y),
    "w_l ITCL labelled": w_l * itcl.itcl(image_labelled, text_labelled, labelled.codes, config.tau),
    "w_u DiceCE mixed": w_u * dice_ce(logits_mixed, target, trusted[:, None, None, None] * ~left_out),
    "w_u w_c ITCL weak": w_u * w_c * itcl.itcl(image_weak, text_weak, unlabelled.codes, config.tau),
}
by_hand = sum(terms.values()).item()
print("\n".join(f"{name:18} {value.item():.3f}" for name, value in terms.items()))
print(f"(log B = {math.log(batch_size):.3f}, so w_l log B = {w_l * math.log(batch_size):.3f})")

# %%
torch.manual_seed(seed)
asked, taught = Passes(teacher.network), Passes(student)
step = METHODS["semi_medref"].step  # semi_medref with our additions
losses = step(student, teacher, batch, w_u, config)
looks = {"teacher": len(asked.made), "student": len(taught.made)}
print(f"teacher: {looks['teacher']} pass, (seen, segmented) {asked.made}")
print(f"student: {looks['student']} pass, (seen, segmented) {taught.made}")
print(f"walked through by hand  L = {by_hand:.5f}")
print(f"semi_medref             L = {losses['loss'].item():.5f}")
assert abs(by_hand - losses["loss"].item()) < 1e-5

# %% [markdown]
# ITCL is large because it stands at its early value: an untrained embedding takes all $B$ texts for equally likely, which
# costs $\log B$, times the weight. What counts for learning is its gradient, next.
#
# ## 6 · What trains what
#
# The gradient of each term, taken alone, in each part of the student. *none* means that autograd finds no path at all:
# ITCL ends at the encoders, and no mask trains its projections. Both encoders learn from all four terms.

# %%
norms = gradient_norms(terms, student)
figures.gradient_map(norms)
print(norms.round(3).to_string(na_rep="none"))
plt.show()

# %% [markdown]
# And where no gradient goes. The pseudo-label was made under `no_grad`; cut at 0.5 it could not have had one anyway. The
# gate's answer is a yes or no. The teacher's weights are not parameters of any optimiser.

# %%
losses["loss"].backward()
for name, tensor in {"p": p, "target": target, "accepted (gate)": accepted, "mixed image": mixed}.items():
    print(f"{name:16} requires_grad {tensor.requires_grad}")
touched = sum(parameter.grad is not None for parameter in teacher.network.parameters())
trained = sum(parameter.grad is not None for parameter in student.parameters())
print(f"parameters with a gradient: student {trained} of {len(list(student.parameters()))}, teacher {touched}")

# %% [markdown]
# ## 7 · Nobody waits
#
# A GPU works through a queue that the CPU fills. As soon as the CPU asks for a *value* (`.item()`, `if mask.any()`,
# `x[mask]`), it must wait until the queue is empty. The step asks for none: chance was drawn ahead, and the gate's answer
# picks the text by indexing. `HostReads` counts every such question, in forward pass, backward pass and EMA
# update. Patch mixing and ITCL are operations of our own and count as one each; on a GPU they are Triton kernels. (A test
# goes further: it runs the step on the *meta* device, where tensors have no values that anyone could ask for.)

# %%
with HostReads() as step_reads:
    losses = step(student, teacher, batch, w_u, config)
    losses["loss"].backward()
    teacher.update(student, 1.0)  # decay 1 keeps the teacher as it is
with HostReads() as careless:
    if accepted.any():
        mixed[accepted].mean().item()
print(f"host syncs in the step: {len(step_reads.reads)} in {step_reads.operations} operations")
print(f"in two careless lines:  {len(careless.reads)} {careless.reads}")
assert step_reads.reads == []

# %% [markdown]
# What does the teacher's look cost, and what would the release's second one add (Ledger 6)? Floating-point operations of
# convolutions and matrix products:

# %%
from torch.utils.flop_counter import FlopCounterMode

with FlopCounterMode(display=False) as one_look:
    reported_places.label(teacher, weak, unlabelled, config)
with FlopCounterMode(display=False) as whole_step:
    step(student, teacher, batch, w_u, config)["loss"].backward()
look, step_flops = one_look.get_total_flops(), whole_step.get_total_flops()
print(f"one step {step_flops / 1e9:.2f} GFLOP, of these the teacher {100 * look / step_flops:.1f} %")

# %% [markdown]
# ## 8 · The teacher is a memory
#
# After each step the teacher moves a little towards the student, $\theta' \leftarrow d\,\theta' + (1-d)\,\theta$ (Eq. 14; paper: 5).
# Written out, the student of $a$ steps ago has the weight $(1-d)\,d^{a}$:
#
# $$\theta'_t = d^{\,t}\,\theta'_0 + (1-d)\sum_{k=1}^{t} d^{\,t-k}\,\theta_k$$
#
# Checked on a network of a single weight:

# %%
tiny = torch.nn.Linear(1, 1, bias=False)
d, path = 0.9, torch.randn(31, generator=torch.Generator().manual_seed(seed)).tolist()
tiny.weight.data.fill_(path[0])
follower = Teacher(tiny)
for weight in path[1:]:
    tiny.weight.data.fill_(weight)
    follower.update(tiny, d)
closed_form = d**30 * path[0] + (1 - d) * sum(d ** (30 - k) * path[k] for k in range(1, 31))
print(f"after 30 updates: Teacher {follower.network.weight.item():.5f}, closed form {closed_form:.5f}")
assert abs(follower.network.weight.item() - closed_form) < 1e-5

# %% [markdown]
# Buffers follow too: running statistics are averaged like weights, counters are copied. (The compact network has group
# norm and so no running statistics; others have.)

# %%
norm = torch.nn.BatchNorm1d(1)
follower = Teacher(norm)
norm(torch.full((4, 1), 10.0))  # moves the running mean from 0 to 1, and counts to 1
follower.update(norm, 0.75)
print(f"student: mean {norm.running_mean.item():.2f}, batches {norm.num_batches_tracked.item()}")
print(
    f"teacher: mean {follower.network.running_mean.item():.2f}, batches {follower.network.num_batches_tracked.item()}"
)

# %% [markdown]
# How long is its memory? Half of what it knew is forgotten after $\log\frac12 / \log d$ steps. At the start that is too
# long: the untrained network would stay in it. So the decay is never above $(1+t)/(10+t)$; this bound is ours.

# %%
from semimedref_core import teacher as ema

for decay in (0.99, 0.999):
    since = round((10 * decay - 1) / (1 - decay))
    print(f"decay {decay}: half-life {ema.half_life(decay):.0f} steps; the bound allows it from step {since}")
remains = math.prod(training.schedule(config, t).decay for t in range(steps))
print(f"share of the untrained network in the teacher after {steps} steps:")
print(f"{config.ema_decay**steps:.2f} with decay {config.ema_decay} from the start, {remains:.0e} with the bound")

# %% [markdown]
# So in a run of a few hundred steps the bound decides, not the setting. It gives a teacher whose memory grows with the run:
# on average it looks back over a tenth of the steps so far.
#
# ## 9 · Burn-in and ramps
#
# First the student learns from masks alone. Then $w_u$ rises linearly (Eq. 15), and the teacher's decay with it (Eq. 16).
# Left: the compact defaults. Right: the paper's settings, 5 epochs of burn-in, 15 epochs up to $w_u = 0.3$, decay 0.99 to
# 0.999 over 20 epochs. An epoch of QaTa at 1 % is the 5659 unlabelled pairs in batches of 32.

# %%
default = Config()
span = range(default.steps)
compact = pd.DataFrame([vars(training.schedule(default, t)) for t in span], index=pd.Index(span, name="step"))
compact["unbounded"] = default.ema_decay
print(compact.iloc[[0, 89, 90, 150, 209, 210, 599]].round(4).to_string())

# %%
epoch = math.ceil(5659 / 32)  # in steps
span = pd.Index([t / epoch for t in range(100 * epoch)], name="epoch")
paper = pd.DataFrame({"w_u": [0.3 * ema.ramp(t, 5, 15) for t in span]}, index=span)
decay = (5 * epoch, 20 * epoch, 0.99, 0.999)
paper["decay"] = [ema.ema_decay(t, *decay) for t in range(len(span))]
paper["unbounded"] = [0.99 + (0.999 - 0.99) * ema.ramp(t, 5, 20) for t in span]
paper["lr"] = [1e-6 + (3e-4 - 1e-6) * (1 + math.cos(math.pi * t / 200)) / 2 for t in span]  # T_max 200, no warm-up
print(paper.iloc[[0, 5 * epoch, 20 * epoch, 25 * epoch, 100 * epoch - 1]].round(6).to_string())

# %%
figures.schedule_curves(
    {f"compact defaults, {default.steps} steps": compact, "the paper's settings, 100 epochs": paper}
)
plt.show()

# %% [markdown]
# Three differences. Ours has one ramp for weight and decay, the paper two. Ours holds the decay at 0.99 by default, since a
# short run has no time for a half-life of 693 steps. And the paper's cosine is made for 200 epochs, so after 100 it is
# only half-way down; ours always ends at 0.
#
# Now the training of this notebook. In the burn-in (dark) the teacher is not even asked. When it first is, it is unsure,
# and for a while hardly a patch passes the gate; then more and more do. The teacher follows the student at a distance of
# several steps and catches up when the learning rate goes to 0.

# %%
run = pd.DataFrame(history)
figures.trajectory_curves(run, config.burn_in * steps, config.ramp * steps)
mixed_term = run.loss_mixed.dropna()
print(f"mixed term: none for {mixed_term.index[0]} steps, then {mixed_term.iloc[0]:.2f}, now {mixed_term.iloc[-1]:.2f}")
print(f"from teacher to student, of the weights' length: at most {run.gap.max():.1%}, now {run.gap.iloc[-1]:.1%}")
plt.show()

# %% [markdown]
# ## 10 · Four faults of the released code, each with a switch
#
# The preset `release-qata` has all four; each can be set alone, to see what it does.
#
# - **The strong view is cut** (`strong_view="clamped"`, Ledger 16). Its jitter cuts grey values to 0 to 1. But they have
#   mean 0 and standard deviation 1 by then, so everything darker than the mean becomes black.

# %%
drawn = views.draw_photometry(np.random.default_rng(seed), 400, "clamped")
many = weak.repeat(50, 1, 1, 1)
cut = views.clamped_jitter(
    many, *(torch.as_tensor(getattr(drawn, name)) for name in ("gain", "spread", "gain_first", "jitter"))
)
acts = torch.as_tensor(drawn.jitter)
lost = 1 - cut[acts].var((1, 2, 3)).mean() / many[acts].var((1, 2, 3)).mean()
low, high = (end((1, 2, 3), keepdim=True) for end in (cut[acts].amin, cut[acts].amax))
at_an_end = ((cut[acts] == low) | (cut[acts] == high)).float().mean()
k = int(acts.nonzero()[0])
figures.image_row({"weak view": many[k, 0], "its strong view in the release": cut[k, 0]})
plt.show()
print(
    f"it acts on {100 * acts.float().mean():.0f} % of the views; there {100 * at_an_end:.0f} % of the pixels have been cut,"
)
print(f"and {100 * lost:.0f} % of the variance is gone")

# %% [markdown]
# - **Pictures lie on their side** (`axes="transposed"`, Ledger 14). The reader of the release gives width x height, and nothing
#   turns that back. "Left" is then the top of the picture that the network sees, while patches are cut from its left.
# - **DiceCE has no cross-entropy** (`mask_loss="dice"`, Ledger 15). The version of MONAI that the release pins takes the softmax
#   of a single class, which is always 1, so its cross-entropy is 0.
# - **The student chooses** (`choose_by="student"`, Ledger 17). The weights that are kept are those at the best *micro Dice of the
#   student*, after 20 epochs and in gains of at least 0.001. Ours goes by the teacher, which is the network that is used.

# %%
lesion = pairs.labelled.masks[[report.phrases == ("lower left lung",) for report in pairs.labelled.reports]]
y0, x0, y1, x1 = anatomy.THIRDS.boxes(image_size, image_size)[2]
for name, masks in {"upright": lesion, "on its side": lesion.swapaxes(1, 2)}.items():
    inside = masks[:, y0:y1, x0:x1].sum() / masks.sum()
    print(f"lesions of 'lower left lung', {name:11}: {100 * inside:4.1f} % of their pixels lie in the phrase's box")

# %% [markdown]
# **To remember:** one look of the teacher, one of the student, no wait; the memory of the teacher; and that the untrained
# network must be forgotten first.

# %%
print(f"passes a step: teacher {looks['teacher']}, student {looks['student']}; host syncs {len(step_reads.reads)}")
print(f"the release's second look of the teacher would cost {100 * look / step_flops:.0f} % more")
print(f"half-life of the teacher: {ema.half_life(0.99):.0f} steps at 0.99, {ema.half_life(0.999):.0f} at 0.999")
