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
# # 03 · PosAug: the text, augmented
#
# **What you will see.** A report names the places of the lesions. A network that reads it can be lazy: it marks these
# places and hardly looks at the image. *PosAug* hides some of the places from the student, at random, so that the
# student has to look. After this notebook you
#
# - know which Dice filled boxes of the named places give;
# - can say what PosAug does to a text (Eq. 3), and check its chances by hand;
# - know what the hiding costs;
# - can say why the contrastive loss still uses the whole report;
# - know what PosAug is worth when reports come without positions.
#
# ![Eight draws of PosAug on one report](pictures/posaug.gif)
#
# The animation shows eight draws of PosAug on one report. Watch which phrases the student loses in each draw.
#
# **What you need.** Pairs, reports, zones, decoys and Dice from [01 · Data](01_data.ipynb).
#
# **Time.** About 15 minutes to read, with the exercises and without the appendices; about 20 seconds to run.
#
# Some words in advance. The *student* is the network that learns by gradients. The *teacher* is a moving average of the
# student; it marks the images that have no mask. A *strong view* is an image with changed grey values. Only the student
# reads augmented texts, and only with the strong views of unlabelled pairs. The teacher reads the whole report, and so
# does the student with labelled pairs. The *release* is the code that the authors published. Equations have our numbers
# and, where we know them, the paper's.

# %% tags=["parameters"]
dataset = "phantom"  # or "qata", with SEMIMEDREF_DATA set to the folder that holds QaTa
image_size = 96
label_ratio = 0.05
p = 0.5  # probability that a phrase is hit, in the examples
draws = 4000  # how often the hit rates are measured
seed = 0

# %% tags=["nbval-ignore-output"]
import re
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display

from semimedref_core import (
    Config,
    Report,
    build_texts,
    figures,
    load_split,
    load_training,
    posaug,
    preset,
    reports,
    versions,
)
from semimedref_core.teaching import check, source_of

figures.notebook_style(80)
print(versions("transformers", "tokenizers"))

# %% [markdown]
# ## The shortcut: words alone
#
# A report of these data sets has two parts. Its *frame* says whether one lung is infected or both, and how many
# lesions there are. Its *position phrases* say where, one phrase for each side, such as "lower left lung". How much
# information does each part carry? *Entropy* measures it in bits: 1 bit is the answer to one yes-no question whose
# answers are equally likely.

# %%
config = Config(dataset=dataset, image_size=image_size, label_ratio=label_ratio, seed=seed)
pairs = load_training(dataset, label_ratio, image_size)
all_reports = pairs.labelled.reports + pairs.unlabelled.reports


def bits(values) -> float:
    share = np.array(list(Counter(values).values())) / len(values)
    return float(-(share * np.log2(share)).sum())


frame = bits([(r.laterality, r.lesions) for r in all_reports])
whole, positions = bits([(r.laterality, r.lesions, r.zones) for r in all_reports]), bits([r.zones for r in all_reports])
print(f"{len(all_reports)} reports, such as: {all_reports[0].render()}")
print(f"a whole report: {whole:.3f} bits, its positions alone: {positions:.3f} bits, its frame alone: {frame:.3f} bits")

# %% [markdown]
# The positions carry nearly all information of a report. (The parts add up to more than the whole, because they overlap:
# a report with two phrases is always bilateral.) So a lazy student could read the phrases, fill the boxes of
# the named zones, and never look at the image. We measure the boxes on the masks of the labelled pairs, as in
# training.
#
# The figure shows the lazy answer (*words alone*; orange, dashed) and the true mask (blue) on three validation pairs. Two
# reports name both sides, so their boxes join into one band. The third names one side. **Look at** how much of the orange
# area is no lesion. Each image gives its *Dice*: 100 % if answer and mask are equal, 0 % if they share no pixel.

# %%
from semimedref_core import evaluation, preparing, scores

boxes = preparing.zone_grid(config, pairs).boxes(image_size, image_size)


def coloured_in(zones) -> np.ndarray:
    picture = np.zeros((image_size, image_size), bool)
    for (y0, x0, y1, x1), named in zip(boxes, zones, strict=True):
        picture[y0:y1, x0:x1] |= bool(named)
    return picture


one_sided = next(i for i, r in enumerate(pairs.valid.reports) if len(r.sides) == 1)
shown = pairs.valid.subset([0, 1, one_sided])
answers = np.stack([coloured_in(r.zones) for r in shown.reports]).astype(float)
figures.prediction_gallery(shown, {"words alone": answers})
plt.show()


# %%
def dice_without_looking(zone_vectors) -> float:
    """Mean Dice per image, in per cent, of coloured-in zones on the validation pairs."""
    predicted = torch.from_numpy(np.stack([coloured_in(zones) for zones in zone_vectors]))
    counts = evaluation.overlap(predicted[:, None], torch.from_numpy(pairs.valid.masks)[:, None].bool())
    return 100 * scores(counts.numpy())["dice_image"]


without_looking = dice_without_looking([r.zones for r in pairs.valid.reports])
print(f"Dice per image of words alone: {without_looking:.1f} %")

# %% [markdown]
# This is the mean over the validation pairs. On the phantom the trained network of notebook 02 gets 87.6 % on the same
# pairs (its card says so). Filled boxes give half of that. Without looking, a network could learn a better shape than a
# box. So 43.6 % is a lower bound of what words alone can give. (The network was trained with PosAug at 0.1, so this
# does not show what a student without PosAug does.) PosAug pays off where reports lack their positions, as a later
# section shows.
#
# ## PosAug (Eq. 3)
#
# PosAug *hits* each position phrase with probability $p$, and draws for each phrase independently. It replaces a phrase
# that it hits. In mode *mask* the replacement is the token `[UNK_POS]`. In mode *fuzz* it is "a region of the lung".
# Mode *mix* draws one of the two for each hit, with equal chance. For the phrase $r_s$ of side $s$:
#
# $$r'_s = \begin{cases} \mathtt{[UNK\_POS]}\ \text{or “a region of the lung”} & h_s = 1\\ r_s & h_s = 0 \end{cases}
# \qquad h_s \sim \mathrm{Bernoulli}(p) \qquad (\text{Eq. 3})$$
#
# Two functions do this. `draw_hits` draws the $h_s$ of both sides, and `apply_hits` writes the text. Below their source
# we write the hits ourselves, so that you see each outcome once. The `assert` replaces a phrase with plain string
# operations and compares. In the figure, colours mark what became of each phrase. **Look at** the words without colour:
# they never change.

# %%
display(source_of(posaug.draw_hits, posaug.apply_hits))
report = Report.parse("Bilateral pulmonary infection, two infected areas, all left lung and middle lower right lung.")
outcomes = {
    "no hit": {},
    "left, mask": {"left": posaug.MASK_TOKEN},
    "right, fuzz": {"right": posaug.FUZZY_PHRASE},
    "both, mix": {"left": posaug.FUZZY_PHRASE, "right": posaug.MASK_TOKEN},
}
written = {name: posaug.apply_hits(report, hits) for name, hits in outcomes.items()}
assert written["left, mask"] == report.render().replace("all left lung", "[UNK_POS]")
figures.text_rows([(name, posaug.stretches(text)) for name, text in written.items()])
plt.show()

# %% [markdown]
# ## How often is a report left whole?
#
# The release draws with $p = 0.5$. Our own preset draws with 0.1, because 0.5 costs accuracy when the reports are
# whole (the section "What PosAug is worth" has the numbers). Hits are independent. So a report with two phrases keeps
# both with probability $(1-p)^2$, loses one with $2p(1-p)$ and loses both with $p^2$. The table compares these values
# with the shares in thousands of draws.


# %%
def measured(report: Report, p: float) -> np.ndarray:
    """Shares of the draws that hit no phrase, one phrase, two phrases."""
    rng = np.random.default_rng(seed)
    texts = [posaug.stretches(posaug.posaug(report, rng, p)) for _ in range(draws)]
    hit = [sum(part.kind in ("mask", "fuzz") for part in parts) for parts in texts]
    return np.bincount(hit, minlength=3) / draws


rows, whole_at = {}, {}
for whose, chance in {"release": preset("paper")["posaug_p"], "ours": config.posaug_p}.items():
    expected, found = np.array([(1 - chance) ** 2, 2 * chance * (1 - chance), chance**2]), measured(report, chance)
    assert np.abs(found - expected).max() < 3 / draws**0.5  # six standard deviations or more
    rows[f"{whose}, p = {chance}, by hand"], rows[f"{whose}, p = {chance}, measured"] = expected, found
    whole_at[chance] = expected[0]
(100 * pd.DataFrame(rows, ["no phrase hit (%)", "one hit (%)", "both hit (%)"]).T).round(1)

# %% [markdown]
# ### Exercise 03.1 (predict)
#
# At which $p$ does PosAug leave exactly half of all two-phrase reports whole?
#
# <details><summary>Solution</summary>
#
# Both phrases must be spared: $(1-p)^2 = \tfrac12$, so $p = 1 - \sqrt{1/2} = 0.29$. At this $p$ a report with one
# phrase stays whole in 71 of 100 draws. So a report with two phrases loses a phrase more often.
# </details>

# %%
half_whole = None
check("03.1", half_whole)

# %% [markdown]
# ### Exercise 03.2 (change)
#
# Change PosAug so that a report loses *all* of its phrases with probability $p$ and none otherwise. Write
# `together(report, rng, p)`. It returns the text, with `posaug.MASK_TOKEN` in the place of each hidden phrase.
#
# <details><summary>Solution</summary>
#
# One draw decides for both sides:
#
# ```python
# def together(report, rng, p):
#     hit = rng.random() < p
#     return posaug.apply_hits(report, dict.fromkeys(reports.SIDES, posaug.MASK_TOKEN) if hit else {})
# ```
#
# Now the share of whole reports is $1-p$ for every report. But the student never sees one side named and the other
# hidden, so it never learns to combine a half report with a look at the image.
# </details>

# %%
together = None  # def together(report, rng, p): ...
check("03.2", together)

# %% [markdown]
# ## What PosAug leaves of the shortcut
#
# The lazy student still reads the phrases that are left. If one of two phrases is hidden, it cannot rule out any zone
# of that side. If the only phrase is hidden, it cannot rule out any zone at all. It fills all boxes that it cannot
# rule out. Which Dice does it get now, on the same validation pairs?


# %%
def not_ruled_out(report: Report, hits: dict[str, str]) -> tuple[int, ...]:
    hit = [side for side in report.sides if side in hits]
    if hit and len(report.sides) == 1:
        return (1,) * len(reports.ZONES)
    return tuple(int(bit or zone.split()[0] in hit) for bit, zone in zip(report.zones, reports.ZONES, strict=True))


lazy = {}
for chance in (0.0, config.posaug_p, p, 1.0):
    rng = np.random.default_rng(seed)
    seen = [not_ruled_out(r, posaug.draw_hits(rng, chance)) for r in pairs.valid.reports]
    lazy[f"p = {chance}"] = dice_without_looking(seen)
print("Dice per image of words alone (%):", ", ".join(f"{name}: {dice:.1f}" for name, dice in lazy.items()))

# %% [markdown]
# The larger $p$ is, the less the shortcut is worth. But our $p = 0.1$ hardly changes it: 42.1 % instead of 43.6 %. At
# 0.5 it is 36.1 %. What the words no longer say, the student must see in the image.
#
# ## What the hiding costs
#
# But some things cannot be seen. The phantom has *decoys*: opacities that are drawn exactly as lesions are, in zones
# that the report does not name. The mask (blue) leaves them out. **Look at** the dotted outlines: only the words tell
# these decoys from lesions.

# %%
from semimedref_core.data import phantom

shown = [27, 28, 31]
decoys = phantom.decoys("valid", 32, image_size)[shown]
figures.sample_gallery(load_split("phantom", "valid", image_size).subset(shown), 3, decoys)
plt.show()

# %% [markdown]
# ### Exercise 03.3 (break)
#
# Prove that PosAug can ask for the impossible. Think of one image that could have come with either of two reports.
# Find zones $a$ for the first report and other zones $b$ for the second, and hits that turn both reports into the
# *same* text. Answer with `(a, b, hits)`. Each of `a` and `b` has six bits in the order of `reports.ZONES`, and `hits`
# is a dict such as `{"left": posaug.MASK_TOKEN}`.
#
# <details><summary>Solution</summary>
#
# ```python
# hits = {"left": posaug.MASK_TOKEN, "right": posaug.MASK_TOKEN}
# undecidable = [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1], hits
# ```
#
# Both become "unilateral pulmonary infection, one infected area, [UNK_POS]." Let the image show one opacity in the
# lower left and an equal one in the lower right. Image and text are the same in both cases, and the masks differ. So
# no network can be right in both.
#
# If it marks one opacity, its Dice is 1 in one case and 0 in the other, $1/2$ on average. If it marks both, its Dice is
# $2 \cdot 1 / (2 + 1) = 2/3$ in either case. So if a phrase is hidden, marking the decoy too is the better bet for
# Dice.
# </details>

# %%
undecidable = None
check("03.3", undecidable)

# %% [markdown]
# ## The zones stay those of the whole report
#
# PosAug changes only the texts that the student reads with the strong views of *unlabelled* pairs. The contrastive loss
# ITCL ([notebook 05](05_itcl.ipynb)) asks which zones two reports share. For ITCL the student reads the
# whole reports, and the zones come from them too: the image shows the lesion even if the augmented text hides its place.
#
# The figure shows five reports of one training batch, with the $p$ of the parameters. The *code* at the left is the
# six bits of the whole report as one number. The small maps at the right are the zones that ITCL uses. **Look at** a
# report with a hidden phrase: its map still shows the zones of that phrase.

# %%
from dataclasses import replace

from semimedref_core import Batches

texts, grid = build_texts(), preparing.zone_grid(config, pairs)
batch = Batches(pairs.labelled, pairs.unlabelled, replace(config, posaug_p=p), texts, grid)(0).unlabelled
untouched = [Report.parse(text) for text in texts.decode(batch.input_ids)]
student = texts.decode(batch.text_choices[:, 0])  # what the student reads
assert batch.codes.tolist() == [report.code for report in untouched]  # a code is the six zones as bits
rows = [(f"code {code}", posaug.stretches(text)) for code, text in zip(batch.codes.tolist(), student, strict=True)]
figures.text_rows(rows[:5], [report.zones for report in untouched[:5]])
plt.show()

# %% [markdown]
# Could ITCL use the augmented texts instead? The loss asks how much two pairs share (Eq. 9; paper: 9):
#
# $$P_{ij} = \frac{|a_i \wedge a_j|}{|a_i \vee a_j|}$$
#
# ($P_{ij} = 0$ where neither names a zone, and $P_{ii} = 1$.) An augmented text often names fewer zones, so on average
# two pairs would seem to share less than their images do. The cell measures this on the batch above:

# %%
from semimedref_kernels import jaccard


def code_read_off(text: str) -> int:
    phrases = [part.text for part in posaug.stretches(text) if part.kind == "position"]
    rest = f"Bilateral pulmonary infection, two infected areas, {' and '.join(phrases)}."
    return Report.parse(rest).code if phrases else 0


read_off = torch.tensor([code_read_off(text) for text in student])
others = ~torch.eye(len(read_off), dtype=bool)
print(f"{int((read_off != batch.codes).sum())} of {len(read_off)} reports would lose zones")
for name, codes in {"whole reports": batch.codes, "augmented texts": read_off}.items():
    print(f"mean P of two pairs, zones of the {name}: {jaccard(codes)[others].mean():.2f}")

# %% [markdown]
# ## What PosAug is worth
#
# Some reports do not say where. PosAug prepares the student for them. To measure this, we trained Semi-MedRef with
# PosAug at $p$ = 0, 0.1 and 0.5 (the plan `qata_positions.yaml`: QaTa-COV19, masks for 1 % of the pairs, network
# `compact` from scratch, 64 px, 1800 steps, three seeds). Then we evaluated each teacher on the 1429 validation pairs,
# and cut the positions out of more and more of the reports. A report without its positions reads "bilateral pulmonary
# infection, two infected areas."
#
# A line is the mean of the seeds, and a small dot is one seed. At rate 1 the seeds of one training differ by 7 to 11
# points. Points of one rate are moved sideways a little, so that they do not hide each other. The solid orange line is
# our preset. **Look at** the slopes: a steep line loses much where positions are missing.

# %%
from semimedref_core.experiments import notebooks_folder

kept = pd.read_csv(notebooks_folder() / "results" / "positions.csv")
kept[["training", "seed"]] = kept["run"].str.extract(r"semi_medref-(?:(.*)-)?seed(\d+)$").fillna("")
trained = {"without_PosAug": "PosAug at 0", "": "PosAug at 0.1", "PosAug_at_0.5": "PosAug at 0.5", "ISPG": "ISPG"}
of_seeds = {name: [t for _, t in kept[kept["training"] == key].groupby("seed")] for key, name in trained.items()}
curves = {name: [t[t["reports"] == "removed"] for t in tables] for name, tables in of_seeds.items()}


def losses(curves) -> pd.DataFrame:
    """Dice per image (%) with whole reports and without positions: means of the seeds, and what each seed loses."""
    lost = {}
    for name, tables in curves.items():
        at = [100 * t.set_index("removal_rate")["dice_image"] for t in tables]
        told, untold = (np.array([dice[rate] for dice in at]) for rate in (0.0, 1.0))
        lost[name] = {"whole reports": told.mean(), "no positions": untold.mean(), "lost": (told - untold).mean()}
        lost[name]["lost, by seed"] = ", ".join(f"{x:.1f}" for x in told - untold)
    return pd.DataFrame(lost).T.infer_objects()


without_ispg = {name: tables for name, tables in curves.items() if name != "ISPG"}
figures.removal_curves(without_ispg, "PosAug at 0.1")
plt.show()
(lost := losses(without_ispg)).round(1)

# %% [markdown]
# A network whose reports always named the places does badly when no report names them. PosAug at 0.1 makes this loss
# smaller, and with whole reports it costs less than the seeds differ. PosAug at 0.5 makes the loss smaller still, and
# costs about a point with whole reports, in each of the three seeds. We chose $p = 0.1$ on these validation pairs, so
# its numbers may be a little too good.
#
# But in training a hidden phrase was never cut out: `[UNK_POS]` or a vague phrase took its place. What if we do the
# same with the reports that lack positions? And what if every image gets the same sentence, which names all six zones?

# %%
no_positions = kept[kept["removal_rate"] == 1].assign(training=kept["training"].map(trained))
table = 100 * no_positions.pivot_table(index="training", columns="reports", values="dice_image")
instead = {"removed": "cut out", "masked": "[UNK_POS] instead", "none": "all six zones named"}
at_once = table.loc[list(without_ispg), list(instead)].rename(columns=instead)
at_once.round(1)

# %% [markdown]
# None of these three trainings showed the network a report whose positions were cut out. Without PosAug such a report
# gives less than the sentence of all six zones. With `[UNK_POS]` in the place of the positions it gives still less on
# average (lower in two of three seeds), because this student never read the token. With PosAug it gives more on average
# (at 0.1 in two of three seeds), and `[UNK_POS]` gives still more (in every seed). These are means of three seeds of
# one network on one data set.
#
# ## Try it
#
# Choose a report or type one (try something that is no report), and move p, mode and seed. The text, its tokens and
# the zones for ITCL follow at once. The widget needs a running kernel; without one you see a still of it. The next
# cell shows another answer of the widget. The numbers under the words are token ids. `[UNK_POS]` is one token with an
# embedding of its own. It is not the token for unknown words.

# %%
from semimedref_core.widgets import posaug as explorer

one = Report.parse("Unilateral pulmonary infection, one infected area, lower right lung.")
spelt_out = Report.of([1] * 6, style="release")
samples = {"both lungs": report, "one phrase": one, "everywhere": Report.of([1] * 6, 3)}
samples |= {"release's style": spelt_out, "nothing": Report.of([0] * 6)}
samples = {name: chosen.render() for name, chosen in samples.items()}
explorer.posaug_explorer(samples, texts)

# %%
got = explorer.answer(samples["both lungs"], p, "mix", 2, texts)
figures.reading(got.before, got.after, got.tokens, got.zones)
plt.show()
print("".join(part.text for part in got.after), "| tokens:", len(got.tokens), "| zones:", *got.zones)

# %% [markdown]
# ## What to take away
#
# **To remember.** The cell prints the facts with their numbers: how much of a report is position, how far filled boxes
# get without the image, how often PosAug leaves a report whole, and what it saves and costs. Facts 1 to 3 hold for the
# data set in the parameters. Facts 4 to 6 hold for the training on QaTa with 1 % of the masks, as means of three seeds.

# %%
kept_whole = " and ".join(f"{100 * share:.0f} % at p = {chance}" for chance, share in whole_at.items())
loses = ", ".join(f"{row.lost:.1f} ({name})" for name, row in lost.iterrows())
cost = lost["whole reports"]["PosAug at 0"] - lost["whole reports"]
print(f"1. {100 * positions / whole:.0f} % of the information of a report is position.")
print(f"2. Filled boxes of the named zones get Dice {without_looking:.1f} %, and {lazy['p = 1.0']:.1f} % at p = 1.")
print(f"3. A two-phrase report stays whole in {kept_whole}.")
print(f"4. If positions are cut out, a teacher loses {loses} points of Dice.")
print(
    f"5. With whole reports PosAug costs {cost['PosAug at 0.1']:.1f} points at 0.1, {cost['PosAug at 0.5']:.1f} at 0.5 "
    "(at 0.1 this is less than the seeds differ)."
)
ours = at_once.loc["PosAug at 0.1"]
print(
    f"6. With PosAug at 0.1, [UNK_POS] in the place of a missing position gives {ours['[UNK_POS] instead']:.1f} % "
    f"instead of {ours['cut out']:.1f} %."
)

# %% [markdown]
# **Next:** in [04 · T-PatchMix](04_t_patchmix.ipynb) image, target and text change together. **Back:** [02 · The
# network](02_network.ipynb). **Further on:** [05 · ITCL](05_itcl.ipynb) uses the zones that PosAug leaves alone, and
# [06](06_teacher_student.ipynb) puts both into one training step. Four appendices follow: texts written ahead, token
# limits, phrases that a pattern misses, and a network that looks for missing positions itself.

# %% [markdown]
# ## Appendix: one draw for a report and its six mixtures
#
# T-PatchMix may add a zone to a text. It decides on the GPU, where no text can be written. So we write all possible
# texts beforehand: a sample's own text and six texts with one more zone. **One draw of hits serves all seven.** Then
# PosAug does not depend on what T-PatchMix decides. That is why `draw_hits` draws for both sides, even for a side that
# the report does not name yet. In the figure PosAug hits the left side. **Look at** the rows that name it: each of them
# hides it.

# %%
from semimedref_core import mixed_reports

hits = {"left": posaug.MASK_TOKEN}
choices = [posaug.stretches(posaug.apply_hits(mixed, hits)) for mixed in mixed_reports(one)]
assert not any("left" in part.text for choice in choices for part in choice)
labels = ["own", *(f"+ {zone}" for zone in reports.ZONES)]
figures.text_rows(list(zip(labels, choices, strict=True)), [mixed.zones for mixed in mixed_reports(one)])
plt.show()

# %% [markdown]
# ## Appendix: do 24 tokens suffice (Ledger 7)?
#
# Networks that we train from scratch read with a word-level tokenizer, which we make from the grammar of the reports:
# one word, one token. The paper uses CXR-BERT's word pieces, which may cut a word into several. In the figure count
# the boxes of each text: `[UNK_POS]` replaces three tokens by one.

# %%
tokenizer = texts.tokenizer
figures.token_rows([(name, explorer.read(report, outcomes[name], texts).tokens) for name in ("no hit", "left, mask")])
plt.show()
number = tokenizer.convert_tokens_to_ids(posaug.MASK_TOKEN)
print(f"{len(tokenizer)} tokens in all; {posaug.MASK_TOKEN} is number {number}")
assert tokenizer.tokenize(posaug.MASK_TOKEN) == [posaug.MASK_TOKEN]

# %% [markdown]
# The release cuts texts at 24 tokens. (The *ledger* in [notebook 00](00_start_here.ipynb) lists where the release
# differs from what the paper leads one to expect.) Our mixed texts fit into 24 tokens: a side has one phrase, of at
# most five words. The release writes longer texts. It turns the first phrase A into "A and B", and it keeps the second
# phrase behind it. B is the donor's first phrase; it must differ from A and be of the same side. Its texts also spell
# out three zones word by word. To measure the lengths, we give each report a random partner:

# %%
from semimedref_core.methods import release

rng = np.random.default_rng(seed)
donors = [all_reports[j] for j in rng.permutation(len(all_reports))]
lengths = {}
for style in reports.STYLES:
    styled = [[Report.of(r.zones, r.lesions, style) for r in group] for group in (all_reports, donors)]
    lengths[style, "report"] = [own.render() for own in styled[0]]
    lengths[style, "with one more zone (ours)"] = [m.render() for own in styled[0] for m in mixed_reports(own)[1:]]
    met = [(own.render(), donor.render()) for own, donor in zip(*styled, strict=True)]
    both = [release.mixed_texts(*two) for two in met if release.may_give(*two)]
    lengths[style, '"A and B" (as released)'] = [mixed for own, mixed in both if mixed != own]

# %%
rows = {}
for key, listed in lengths.items():
    length = np.array([len(ids) for ids in tokenizer(listed)["input_ids"]])
    over = {"over 24 (%)": 100 * (length > 24).mean(), "and with [SEP] (%)": 100 * (length + 1 > 24).mean()}
    rows[key] = {"texts": len(length), "longest": length.max(), **over}
pd.DataFrame.from_dict(rows, orient="index").round(1)

# %% [markdown]
# The last column also counts the token `[SEP]`, with which BERT's tokenizer ends a text. That tokenizer makes at least
# one token of each word, so for CXR-BERT the last column is a lower bound. The cut removes the last words of the text.
# In the example below these are the end of the phrase of the right lung. Our `Texts` refuses a text that is too long:

# %%
merged = release.mixed_texts(spelt_out.render(), "middle lower left lung")[1]
print("cut at 24:", tokenizer.decode(tokenizer(merged)["input_ids"][1:24]))
try:
    texts([merged])
except ValueError as error:
    print("ours:", error)

# %% [markdown]
# ## Appendix: phrases that a simpler pattern misses (Ledger 9)
#
# The release finds phrases by a pattern: one or more of *upper, middle, lower*, then the side, then "lung". The pattern
# fits the release's own texts. But the more common version of QaTa-COV19's texts (style `lvit`) writes *all left lung*
# where all three zones are infected, and such phrases are among its most frequent ones. In the 5716 training texts of
# this style the pattern finds nothing in 31 %, and misses a side in 44 %.

# %%
PATTERN = re.compile(rf"(?:(?:{'|'.join(reports.HEIGHTS)})\s+)+(?:{'|'.join(reports.SIDES)})\s+lung", re.IGNORECASE)
print("most frequent:", Counter(phrase for r in all_reports for phrase in r.phrases).most_common(3))
for style in reports.STYLES:
    print(f"{style:8}", PATTERN.findall(Report.of(report.zones, 2, style).render()))

# %%
if dataset == "qata":  # the texts as the tables have them
    from semimedref_core.data import data_folder, find_qata

    written = {style: [e.text for e in find_qata(data_folder()).entries("train", style)] for style in reports.STYLES}
else:
    written = {style: [Report.of(r.zones, r.lesions, style).render() for r in all_reports] for style in reports.STYLES}

# %%
rows = {}
for style, listed in written.items():
    phrases = np.array([len(re.findall(r"\blung\b", text, re.IGNORECASE)) for text in listed])  # each ends so
    readers = {"pattern": [len(PATTERN.findall(text)) for text in listed]}
    readers["our parser"] = [len(Report.parse(text).phrases) for text in listed]
    for name, number in readers.items():
        missed = {"finds nothing (%)": np.equal(number, 0), "misses a side (%)": np.less(number, phrases)}
        rows[style, name] = {what: 100 * share.mean() for what, share in missed.items()}
pd.DataFrame(rows).T.round(1)

# %% [markdown]
# On such texts the pattern raises no error. If it finds nothing, the release's PosAug leaves the text as it is. If it
# misses a side, it always spares that side. The figure shows four texts in style `lvit`. **Look at** the orange
# phrases: the pattern misses every "all".


# %%
def as_pattern_reads(text: str) -> list[posaug.Stretch]:
    found = {True: "found", False: "missed"}
    return [
        x if x.kind == "frame" else posaug.Stretch(x.text, found[bool(PATTERN.fullmatch(x.text))])
        for x in posaug.stretches(text)
    ]


codes = [0b111111, 0b111100, 0b100111, 0b110110]
lvit = [Report.of([code >> k & 1 for k in range(6)]) for code in codes]
figures.text_rows([(f"code {r.code}", as_pattern_reads(r.render())) for r in lvit], [r.zones for r in lvit])
plt.show()

# %% [markdown]
# ## Appendix: reports without positions, and ISPG (Eq. 19)
#
# We can give a trained network reports that lack something, as reports in practice may. The figure shows one report in
# six modes:
#
# - *full* is the report as it is.
# - *removed* has no positions. Laterality and count stay, since "unilateral" says how many lungs are infected and not
#   which.
# - *masked* and *fuzzy* replace the positions as PosAug does.
# - *wrong-side* swaps left and right, as a negative control.
# - *none* is the sentence of all zones, the same for every image. It is true only where all zones are infected.

# %%
from semimedref_core import missing_positions

as_read = {mode: missing_positions.text_at_hand(report, mode) for mode in missing_positions.MODES}
figures.text_rows([(mode, posaug.stretches(text)) for mode, text in as_read.items()])
plt.show()

# %% [markdown]
# The *removal rate* is the probability that we change a report. The draw has a seed, and a larger rate changes the
# same reports and some more. So two rates differ only in the reports that the larger one adds.
# `semimedref evaluate --checkpoint RUN/teacher --reports all` prints Dice for each mode and rate.

# %%
before = np.zeros(len(pairs.valid), bool)
for rate in (0.25, 0.5, 0.75, 1.0):
    changed = missing_positions.draw_changed(np.random.default_rng(seed), len(pairs.valid), rate)
    assert changed[before].all()
    print(f"rate {rate:.2f}: {changed.sum():3} of {len(changed)} reports, {before.sum():3} of them as before")
    before = changed

# %% [markdown]
# A network can also look for the positions itself. **ISPG** (image-derived soft position guidance) belongs to a later
# version of the paper; here it is the setting `ispg`. (That version also has the data set *PosMed*: 38 726 pairs of six
# modalities, with five zones. The release has its classes and splits, and not its data.) A small encoder $E$ predicts
# the six zones from the image alone. It learns them from the reports. Their probabilities $\hat a$ become one more
# token of the text, behind a learnt gate $g$ that starts near 0:
#
# $$\tanh(g)\,(W \hat a + b), \qquad \hat a = \sigma(E(x)) \in [0, 1]^6 \qquad (\text{Eq. 19; paper: 10})$$
#
# This form is ours: we do not know the paper's. The function `append` puts this token behind the words. The cell after it
# computes the token by hand.

# %%
from semimedref_core import build_network

guide = build_network("compact", ispg=True).guide  # untrained
source_of(guide.append)

# %%
words = torch.zeros(1, 3, guide.token.out_features)  # three words
a_hat = guide(torch.randn(1, 1, 64, 64)).sigmoid()  # six probabilities of one picture
by_hand = guide.gate.tanh() * (guide.token.weight @ a_hat[0] + guide.token.bias)
longer, _ = guide.append(words, torch.zeros(1, 3, dtype=bool), a_hat.logit())
assert torch.allclose(longer[0, 3], by_hand, atol=1e-6)
print(f"{words.shape[1]} words become {longer.shape[1]}; the last one is the token of Eq. 19")

# %% [markdown]
# In training we remove the positions from half of the student's reports, labelled ones too, so that the student needs
# the token. The other reports of the strong views get PosAug at 0.1. So the lines *ISPG* below have both. There are two
# ways to use the predicted zones: *soft*, as the token, or *hard*, as a sentence that we write from them. The
# *recovery* is the share of the loss that comes back: (Dice with the predicted zones - Dice without positions) / (Dice
# of whole reports - Dice without positions).

# %%
predicted = np.array([0.1, 0.7, 0.9, 0.2, 0.4, 0.8])  # made up
print(missing_positions.filled_in(report, predicted >= 0.5))

# %% [markdown]
# All numbers that follow come from QaTa with 1 % of the masks and three seeds. In the line *ISPG* the token is hidden
# where a report lacks its positions, so the network has the text alone. In *ISPG, token read* it reads the token there.
# **Look at** the left end: both begin below all other lines.

# %%
curves["ISPG, token read"] = [t[t["reports"] == "soft"] for t in of_seeds["ISPG"]]
figures.removal_curves(curves, "PosAug at 0.1")
plt.show()
losses(curves).round(1)

# %%
from semimedref_core.tools import recoveries

for mode in ("soft", "hard"):
    back = [100 * recoveries(t)[mode] for t in of_seeds["ISPG"]]
    by_seed = ", ".join(f"{x:.0f}" for x in back)
    print(f"recovery of Dice per image by ISPG, {mode}: {np.mean(back):5.1f} % (by seed: {by_seed})")

# %% [markdown]
# Without positions, training with ISPG loses least. That is what one expects, since half of its student's reports had
# none. But with whole reports it is worse than all others. The predicted zones bring little: as a token they recover a
# small share of the loss, and written as a sentence they do harm. Compare ISPG, with its token, to PosAug at 0.5, with
# `[UNK_POS]` in the place of the positions. Where positions are missing it does as well as ISPG. With whole reports it
# does better:

# %%
whole = losses(curves)["whole reports"]
for name, mode, read in (("PosAug at 0.5", "masked", "PosAug at 0.5"), ("ISPG", "soft", "ISPG, token read")):
    print(f"{name}: {table.loc[name, mode]:.1f} % without positions, {whole[read]:.1f} % with whole reports")
