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
# # 02 · PosAug: the text, augmented
#
# **What you will see.** Why a student that may read the report is tempted not to look at the image. How *PosAug* takes
# position phrases away from it, one by one and by chance, and what is left as tokens. What stays as it was: the zones
# that the loss ITCL goes by. And how many texts a simpler pattern of phrases would leave as they are, without a word.
#
# $$r'_s = \begin{cases} \texttt{[UNK\_POS]}\ \text{or “a region of the lung”} & h_s = 1\\ r_s & h_s = 0 \end{cases}
# \qquad h_s \sim \mathrm{Bernoulli}(p)\ \text{for each phrase } r_s \text{ of side } s \qquad (\text{Eq. 3})$$
#
# The function is `semimedref_core.posaug.posaug`. It acts on the student's strong view only; the teacher reads the whole
# report.

# %% tags=["parameters"]
dataset = "phantom"  # or "qata", with SEMIMEDREF_DATA set to the folder that holds QaTa
image_size = 96
label_ratio = 0.05
p = 0.5  # probability of a phrase to be hit
draws = 4000  # how often the hit rates are measured
seed = 0

# %% tags=["nbval-ignore-output"]
import re
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from semimedref_core import Config, Report, build_texts, figures, load_training, posaug, reports, versions

figures.notebook_style()
print(versions("transformers", "tokenizers"))

# %% [markdown]
# ## What a report says besides the position
#
# Little. The grammar is fixed, so a report is a *frame* (uni- or bilateral, a count) and its *position phrases*. How much
# either tells is its entropy: the average number of yes-no questions that the answer is worth.

# %%
config = Config(dataset=dataset, image_size=image_size, label_ratio=label_ratio, posaug_p=p, seed=seed)
pairs = load_training(dataset, label_ratio, image_size)
all_reports = pairs.labelled.reports + pairs.unlabelled.reports
print(f"{len(all_reports)} reports, such as: {all_reports[0].render()}")


# %%
def bits(values) -> float:
    """Entropy of what the values say."""
    share = np.array(list(Counter(values).values())) / len(values)
    return float(-(share * np.log2(share)).sum())


# %%
whole, positions = bits([(r.laterality, r.lesions, r.zones) for r in all_reports]), bits([r.zones for r in all_reports])
print(f"a whole report: {whole:.2f} bits")
print(f"its positions:  {positions:.2f} bits")
print(f"what the frame adds to them: {whole - positions:.2f} bits")

# %% [markdown]
# ## Position words alone
#
# A student could read the phrases and colour in the boxes of the named zones, without a look at the image. How far would
# that get it? The boxes (orange) come from the labelled pairs' masks, as in training.

# %%
from semimedref_core import evaluation, scores, training

boxes = training.zone_grid(config, pairs).boxes(image_size, image_size)
print("upper, middle, lower, rows of pixels:", *(f"{y0} to {y1}" for y0, _, y1, _ in boxes[:3]))


# %%
def coloured_in(zones) -> np.ndarray:
    picture = np.zeros((image_size, image_size), bool)
    for (y0, x0, y1, x1), named in zip(boxes, zones, strict=True):
        picture[y0:y1, x0:x1] |= bool(named)
    return picture


# %%
shown = pairs.valid.subset(range(4))
figures.prediction_gallery(shown, {"boxes": np.stack([coloured_in(r.zones) for r in shown.reports]).astype(float)})
plt.show()


# %% [markdown]
# PosAug takes just that away. A reader of the augmented text cannot rule out any zone of a side whose phrase was hit, and
# if the only phrase was hit, no zone at all. The same boxes, after PosAug:


# %%
def not_ruled_out(report: Report, hits: dict[str, str]) -> tuple[int, ...]:
    hit = [side for side in reports.SIDES if side in hits and any(report.side(side))]
    if hit and len(report.phrases) == 1:
        return (1,) * 6
    return tuple(int(bit or zone.split()[0] in hit) for bit, zone in zip(report.zones, reports.ZONES, strict=True))


# %%
def dice_without_looking(zone_vectors) -> dict[str, float]:
    predicted = torch.from_numpy(np.stack([coloured_in(zones) for zones in zone_vectors]))
    counts = evaluation.overlap(predicted[:, None], torch.from_numpy(pairs.valid.masks)[:, None].bool())
    return scores(counts.numpy())


# %%
rng = np.random.default_rng(seed)
rows = {
    f"p = {share:.1f}": dice_without_looking(
        [not_ruled_out(r, posaug.draw_hits(rng, share)) for r in pairs.valid.reports]
    )
    for share in (0.0, p, 1.0)
}
(100 * pd.DataFrame(rows).T[["dice_image", "dice_micro"]]).round(1)

# %% [markdown]
# (In per cent, validation pairs; *image* averages over images, *micro* adds up all pixels first.) That is a lot for not
# looking. It falls as p grows: what the words no longer say must be seen.

# %% [markdown]
# ## Mask, fuzz, mix
#
# A hit phrase becomes `[UNK_POS]` (*mask*) or "a region of the lung" (*fuzz*); *mix* draws one of the two evenly. Nothing
# else in the text changes. Here the hits are written by hand, so that each outcome is seen once.

# %%
report = Report.parse("Bilateral pulmonary infection, two infected areas, all left lung and middle lower right lung.")
outcomes = {
    "no hit": {},
    "left, mask": {"left": posaug.MASK_TOKEN},
    "right, fuzz": {"right": posaug.FUZZY_PHRASE},
    "both, mix": {"left": posaug.FUZZY_PHRASE, "right": posaug.MASK_TOKEN},
}
figures.text_rows([(name, posaug.stretches(posaug.apply_hits(report, hits))) for name, hits in outcomes.items()])
plt.show()
for name, hits in outcomes.items():
    print(f"{name:12} {posaug.apply_hits(report, hits)}")

# %% [markdown]
# And by chance, as in training: `draw_hits` draws, `apply_hits` writes, `posaug` does both.

# %%
examples = [
    (f"{mode}, p = {p}", posaug.posaug(report, np.random.default_rng(seed + 1), p, mode)) for mode in ("mask", "fuzz")
]
examples += [(f"mix, draw {k}", posaug.posaug(report, np.random.default_rng(seed + k), p, "mix")) for k in range(4)]
figures.text_rows([(label, posaug.stretches(text)) for label, text in examples])
plt.show()
print(*(text for _, text in examples), sep="\n")

# %% [markdown]
# ## What the encoder sees
#
# Tokens. Networks trained from scratch read with a word-level tokenizer made from the grammar: a word, a token. The paper
# uses CXR-BERT's word pieces, which may cut a word into several. `[UNK_POS]` is one token with an embedding of its own
# here, not an unknown word.

# %%
from semimedref_core.widgets import posaug as explorer

texts = build_texts()
tokenizer = texts.tokenizer
figures.token_rows([(name, explorer.read(report, hits, texts).tokens) for name, hits in outcomes.items()])
plt.show()
print(
    f"{len(tokenizer)} tokens in all; {posaug.MASK_TOKEN} is number {tokenizer.convert_tokens_to_ids(posaug.MASK_TOKEN)}"
)
assert tokenizer.tokenize(posaug.MASK_TOKEN) == [posaug.MASK_TOKEN]

# %% [markdown]
# ## Ledger 7: do 24 tokens suffice?
#
# The release cuts texts at 24 tokens. For the texts that T-PatchMix can make here that is enough, for *any* report: a side
# has one phrase, of at most five words. The release instead turns the first phrase A into "A and B", where B is, as we
# read it, the donor's first phrase, and keeps the second phrase behind it. Its texts spell out three zones word by word,
# so that gets long. Here every report meets a partner drawn by chance:

# %%
from semimedref_core import mixed_reports

rng = np.random.default_rng(seed)
donors = [all_reports[j] for j in rng.permutation(len(all_reports))]
lengths = {}
for style in reports.STYLES:
    styled = [[Report.of(r.zones, r.lesions, style) for r in group] for group in (all_reports, donors)]
    lengths[style, "report"] = [own.render() for own in styled[0]]
    lengths[style, "with one more zone (ours)"] = [m.render() for own in styled[0] for m in mixed_reports(own)[1:]]
    lengths[style, '"A and B" (as released)'] = [
        own.render(own.phrases[:1] + donor.phrases[:1] + own.phrases[1:]) for own, donor in zip(*styled, strict=True)
    ]

# %%
rows = {}
for key, written in lengths.items():
    length = np.array([len(ids) for ids in tokenizer(written)["input_ids"]])
    over = {"over 24 (%)": 100 * (length > 24).mean(), "and with [SEP] (%)": 100 * (length + 1 > 24).mean()}
    rows[key] = {"texts": len(length), "longest": length.max(), **over}
pd.DataFrame.from_dict(rows, orient="index").round(1)

# %% [markdown]
# The last column is what BERT's tokenizer gives at least: it ends a text with `[SEP]` and never makes fewer tokens of a
# word than one. Cut off is the end of the text, so the right lung's phrase. Our `Texts` refuses a text that is too long:

# %%
spelt_out = Report.of([1] * 6, style="release")
merged = spelt_out.render((spelt_out.phrases[0], *spelt_out.phrases))
print("cut at 24:", tokenizer.decode(tokenizer(merged)["input_ids"][1:24]))
try:
    texts([merged])
except ValueError as error:
    print("ours:", error)

# %% [markdown]
# ## Is each phrase hit with probability p, and on its own?
#
# Eq. 3 says: a report with one phrase keeps it with probability $1-p$. With two phrases, none is hit with $(1-p)^2$, one
# with $2p(1-p)$, both with $p^2$. Thousands of draws, beside these three.

# %%
one = Report.parse("Unilateral pulmonary infection, one infected area, lower right lung.")


def measured(report: Report, p: float) -> np.ndarray:
    """Shares of the draws that hit no phrase, one, two."""
    rng = np.random.default_rng(seed)
    hit = [
        sum(part.kind in ("mask", "fuzz") for part in posaug.stretches(posaug.posaug(report, rng, p)))
        for _ in range(draws)
    ]
    return np.bincount(hit, minlength=len(report.phrases) + 1) / draws


# %%
rows = {
    "one phrase": (measured(one, p), [1 - p, p]),
    "two phrases": (measured(report, p), [(1 - p) ** 2, 2 * p * (1 - p), p**2]),
}
for name, (shares, wanted) in rows.items():
    print(f"{name:11}, share of draws by number of hits: {np.round(shares, 3)}, expected {np.round(wanted, 3)}")
    assert np.abs(shares - wanted).max() < 3 / draws**0.5  # at least six standard deviations

# %%
ps = [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1]
expected = {
    "no phrase hit": lambda p: (1 - p) ** 2,
    "one hit": lambda p: 2 * p * (1 - p),
    "both hit": lambda p: p**2,
}
shares = np.array([measured(report, p) for p in ps])
figures.hit_shares(ps, dict(zip(expected, shares.T, strict=True)), expected)
plt.show()

# %% [markdown]
# ## One draw for a report and its seven mixtures
#
# Whether T-PatchMix's gate accepts a patch is known only on the device, so all texts that a sample can end with are
# written beforehand: its own and those with one more zone. **One draw serves all seven**, hence PosAug does not depend on
# what the gate decides. That is why `draw_hits` draws for both sides, also for one that the report does not name yet.

# %%
hits = {"left": posaug.MASK_TOKEN}
choices = [posaug.stretches(posaug.apply_hits(mixed, hits)) for mixed in mixed_reports(one)]
labels = ["own", *(f"+ {zone}" for zone in reports.ZONES)]
figures.text_rows(list(zip(labels, choices, strict=True)), [mixed.zones for mixed in mixed_reports(one)])
plt.show()
for label, choice in zip(labels, choices, strict=True):
    assert not any("left" in part.text for part in choice)
    print(f"{label:15} {''.join(part.text for part in choice)}")

# %% [markdown]
# ## The zones stay those of the untouched report
#
# A batch as training gets it. `codes` holds the zones, six bits, that ITCL's soft positives are made of; `text_choices`
# what the student reads. PosAug changes only the latter: the image still shows a lesion in that zone.

# %%
from semimedref_core import Batches

batch = Batches(pairs.labelled, pairs.unlabelled, config, texts, training.zone_grid(config, pairs))(0).unlabelled
untouched = [Report.parse(text) for text in texts.decode(batch.input_ids)]
student = texts.decode(batch.text_choices[:, 0])
assert batch.codes.tolist() == [report.code for report in untouched]
rows = [(f"code {code}", posaug.stretches(text)) for code, text in zip(batch.codes.tolist(), student, strict=True)][:6]
figures.text_rows(rows, [report.zones for report in untouched[:6]])
plt.show()

# %% [markdown]
# Read off the augmented texts instead, the zones would be wrong wherever a phrase was hit, and with them the soft
# positives $P_{ij} = |a_i \cap a_j| / |a_i \cup a_j|$ (Eq. 9; paper: 9).

# %%
from semimedref_kernels import jaccard


def code_read_off(text: str) -> int:
    phrases = [part.text for part in posaug.stretches(text) if part.kind == "position"]
    rest = f"Bilateral pulmonary infection, two infected areas, {' and '.join(phrases)}."
    return Report.parse(rest).code if phrases else 0


read_off = torch.tensor([code_read_off(text) for text in student])
off_diagonal = ~torch.eye(len(read_off), dtype=bool)
print(
    f"{int((read_off != batch.codes).sum())} of {len(read_off)} codes would differ, {int((read_off == 0).sum())} be empty"
)
for name, codes in {"untouched": batch.codes, "read off": read_off}.items():
    print(f"mean soft positive between two pairs, {name}: {jaccard(codes)[off_diagonal].mean():.3f}")

# %% [markdown]
# ## Ledger 9: phrases that a simpler pattern misses
#
# A pattern like the release's: one or more of *upper, middle, lower*, then the side, then "lung". It fits the release's
# own texts. The LViT texts write *all left lung* where all three zones are infected, and such phrases are their most
# frequent ones.

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
# On such texts the pattern raises no error: it does no augmentation, or always spares the same side. A few LViT-style
# texts, what it finds in them and what it misses:


# %%
def as_pattern_reads(text: str) -> list[posaug.Stretch]:
    found = {True: "found", False: "missed"}
    return [
        x if x.kind == "frame" else posaug.Stretch(x.text, found[bool(PATTERN.fullmatch(x.text))])
        for x in posaug.stretches(text)
    ]


# %%
codes = [0b111111, 0b111100, 0b100111, 0b110110]
lvit = [Report.of([code >> k & 1 for k in range(6)]) for code in codes]
figures.text_rows([(f"code {r.code}", as_pattern_reads(r.render())) for r in lvit], [r.zones for r in lvit])
plt.show()
for r in lvit:
    print(f"{len(PATTERN.findall(r.render()))} of {len(r.phrases)} phrases found: {' and '.join(r.phrases)}")

# %% [markdown]
# ## Reports without positions
#
# PosAug prepares the student for texts that say less. Such texts exist: a report at hand may not say where. So a trained
# network can be asked with reports as a reader may have them. Laterality and count stay, since "unilateral" says how many
# lungs are infected and not which; the wrong side is a negative control, and *none* is no text at all, the sentence of all
# zones.

# %%
from semimedref_core import missing_positions

as_read = {mode: missing_positions.text_at_hand(report, mode) for mode in missing_positions.MODES}
figures.text_rows([(mode, posaug.stretches(text)) for mode, text in as_read.items()])
plt.show()
for mode, text in as_read.items():
    print(f"{mode:11} {text}")

# %% [markdown]
# The *removal rate* is the share of the reports that are changed. The draw has a seed, and a larger rate changes the same
# reports and more, so that two rates differ in nothing else.

# %%
before = np.zeros(len(pairs.valid), bool)
for rate in (0.25, 0.5, 0.75, 1.0):
    changed = missing_positions.draw_changed(np.random.default_rng(seed), len(pairs.valid), rate)
    assert changed[before].all()
    print(f"rate {rate:.2f}: {changed.sum():3} of {len(changed)} reports, {before.sum():3} of them as before")
    before = changed

# %% [markdown]
# `semimedref evaluate --checkpoint RUN/teacher --reports all` prints Dice for each mode and rate.
#
# A network can also look for the positions itself. **ISPG** (image-derived soft position guidance, of a later version of
# the paper; the setting `ispg`) predicts the six zones from the image alone, by a small encoder $E$ of its own. It learns
# them from the reports. Their probabilities become one more token of the text, behind a gate $g$ that starts near 0:
#
# $$\tanh(g)\,(W \hat a + b), \qquad \hat a = \sigma(E(x)) \in [0, 1]^6 \qquad (\text{Eq. 19; paper: 10})$$
#
# In training half of the student's reports lose their positions, so that the token is needed. What it brings back is the
# *recovery*: (Dice with the token - Dice without positions) / (Dice of whole reports - Dice without positions). The zones
# can be read in two ways, *soft*, as the token, or *hard*, as a sentence that is written from them:

# %%
predicted = np.array([0.1, 0.7, 0.9, 0.2, 0.4, 0.8])  # made up
print(missing_positions.filled_in(report, predicted >= 0.5))

# %% [markdown]
# **Does PosAug earn its place there?** Semi-MedRef was trained with it at 0, 0.1 and 0.5, and with ISPG, by the plan
# `qata_positions.yaml`: 1 % of QaTa-COV19, 64 px, 1800 steps of 8 and 8 pairs. Each teacher was then asked on the 1429 pairs
# of the valid split, while more and more reports lose their positions. A line is the mean of the seeds, and a dot is a seed.

# %%
from semimedref_core.experiments import notebooks_folder
from semimedref_core.tools import recoveries

kept = pd.read_csv(notebooks_folder() / "results" / "positions.csv")
kept[["training", "seed"]] = kept["run"].str.extract(r"semi_medref-(?:(.*)-)?seed(\d+)$").fillna("")
trained = {"without_PosAug": "PosAug at 0", "": "PosAug at 0.1", "PosAug_at_0.5": "PosAug at 0.5", "ISPG": "ISPG"}
of_seeds = {name: [t for _, t in kept[kept["training"] == key].groupby("seed")] for key, name in trained.items()}

# %%
curves = {name: [t[t["reports"] == "removed"] for t in tables] for name, tables in of_seeds.items()}
curves["ISPG, token read"] = [t[t["reports"] == "soft"] for t in of_seeds["ISPG"]]
figures.removal_curves(curves)
plt.show()

# %%
lost = {}
for name, tables in curves.items():
    at = [100 * t.set_index("removal_rate")["dice_image"] for t in tables]
    told, untold = (np.array([dice[rate] for dice in at]) for rate in (0.0, 1.0))
    means = {"whole reports": told.mean(), "positions removed": untold.mean(), "lost": (told - untold).mean()}
    lost[name] = {what: f"{value:.1f}" for what, value in means.items()}
    lost[name]["lost, by seed"] = ", ".join(f"{x:.1f}" for x in told - untold)
pd.DataFrame(lost).T

# %% [markdown]
# It does. Without PosAug a network that has always been told where to look falls apart when nobody tells it. PosAug at 0.1
# costs nothing with whole reports and saves much of the loss. At 0.5 it saves more and costs a little with whole reports.
# Training with ISPG loses least, since half of its student's reports have no positions at all; but whole reports are worth
# less to it. How much of that is the token's? The same network is read with and without it:

# %%
for mode in ("soft", "hard"):
    back = [100 * recoveries(t)[mode] for t in of_seeds["ISPG"]]
    print(
        f"recovery of Dice per image by ISPG, {mode}: {np.mean(back):5.1f} % (by seed: {', '.join(f'{x:.0f}' for x in back)})"
    )

# %% [markdown]
# ## Try it
#
# Choose a report or type one (try something that is no report), and move p, mode and seed. Text, tokens and the zones for
# ITCL answer at once. Where widgets do not show, the figure below is one such answer.

# %%
samples = {
    "both lungs": report.render(),
    "one phrase": one.render(),
    "everywhere": Report.of([1] * 6, 3).render(),
    "release's style": spelt_out.render(),
    "nothing": Report.of([0] * 6).render(),
}
explorer.posaug_explorer(samples, texts)

# %%
got = explorer.answer(samples["both lungs"], p, "mix", 2, texts)
figures.reading(got.before, got.after, got.tokens, got.zones)
plt.show()
print("".join(part.text for part in got.after), "| tokens:", len(got.tokens), "| zones:", *got.zones)

# %% [markdown]
# **To remember:** how much of a report is its position, what position words alone would score, and in how many LViT texts a
# simple pattern misses a phrase.

# %%
without_looking = dice_without_looking([r.zones for r in pairs.valid.reports])["dice_image"]
print(f"share of the report's information that is position: {100 * positions / whole:.0f} %")
print(f"Dice per image of the named zones' boxes, no look at the image: {100 * without_looking:.1f} %")
print(
    f"LViT texts in which a pattern like the release's misses a side: {rows['lvit', 'pattern']['misses a side (%)']:.1f} %"
)
