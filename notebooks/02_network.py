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
# # 02 · The network: how an image and a sentence become a mask
#
# **What you will see.** A network reads an image and a report, and outlines the lesion that the report names. You
# follow both from the input to the mask. After this notebook you
#
# - know how a sentence becomes vectors and an image becomes maps;
# - can write cross-attention in five lines of PyTorch, and have read the class that runs;
# - have seen which places of the image attend to each word, and how the outline moves when "right" becomes "left";
# - know how many points of Dice this network loses when its text lacks the places, or is wrong.
#
# **What you need.** PyTorch, and reports, zones, decoys and Dice from [01 · Data](01_data.ipynb).
#
# **Time.** About 15 minutes to read, with the exercises; about 30 seconds to run.
#
# The *release* is the code that the authors of the paper published. The *ledger* in [notebook 00](00_start_here.ipynb)
# lists where it differs from what the paper leads one to expect.

# %% tags=["parameters"]
shown = 11  # number of the validation pair that is looked at closely
checkpoint = ""  # folder of a trained network; the one that comes with the package if empty

# %% tags=["nbval-ignore-output"]
import matplotlib.pyplot as plt
import pandas as pd
import torch

from semimedref_core import evaluate, evaluation, example, from_pretrained, load_split, load_texts, versions
from semimedref_core.data import phantom
from semimedref_core.figures import attention_maps, by_report, notebook_style, sample_gallery
from semimedref_core.teaching import check, source_of
from semimedref_core.tools import attention, inspection

notebook_style(100)
print(versions("transformers"))

# %% [markdown]
# ## What goes in
#
# An image and a sentence go in. We look at a network that comes with the package. We trained it on the phantom, and
# its [card](../semimedref_core/example/model/README.md) says how. The figure shows two opacities. The blue outline
# is the mask of the lesion on the right. The larger opacity on the left (yellow, dotted) is a decoy: no report names it.

# %%
folder = checkpoint or example.MODEL
(network, about), texts = from_pretrained(folder), load_texts(folder)
image_size = about["image_size"]
valid = load_split("phantom", "valid", image_size)
pair = valid.subset([shown])
print(f"{about['network']}, {sum(p.numel() for p in network.parameters()):,} weights")
print(pair.reports[0])
decoys = phantom.decoys("valid", shown + 1, image_size)[[shown]]
sample_gallery(pair, 1, decoys)
plt.show()

# %% [markdown]
# **The sentence** becomes numbers. The tokenizer gives each word of the grammar a number. The number 0 is *padding*:
# it fills each text up to 24 tokens, and the network never reads it. `[CLS]` begins each text. **The image** has one
# channel. Its grey values are normalised to mean 0 and standard deviation 1.

# %%
[(image, input_ids)] = evaluation.network_inputs(pair, texts)
words = texts.tokenizer.convert_ids_to_tokens(input_ids[0])
length = int((input_ids[0] != 0).sum())
print(list(zip(words[:length], input_ids[0, :length].tolist(), strict=True)))
print(inspection.shape_text(image), f"mean {abs(image.mean()):.2f}, deviation {image.std():.2f}")

# %% [markdown]
# ## The way through
#
# Four parts do the work.
#
# - The *image encoder* makes maps of strides 4, 8 and 16. At *stride* 16 one place of the map stands for a square of
#   16 by 16 pixels.
# - The *text encoder*, a small BERT, gives each word a vector that depends on the words around it.
# - The *fusion* is the cross-attention: each place of a map asks all words. It happens at strides 16 and 8.
# - The *decoder* brings the map back to full size. It gives one number for each pixel, the logit of "lesion".
#
# The table counts the weights of each part. ITCL, the contrastive loss of images and texts ([notebook
# 05](05_itcl.ipynb)), uses the two *projections*, in training only.
#
# **The release has two larger networks,** GuideDecoder and MMI-UNet. Both read images with ConvNeXt-Tiny and texts with
# CXR-BERT. In both, places attend to words. In this package they are called `guide_decoder` and `mmi_unet`. This
# notebook reads `compact`, our own small network with the same idea.

# %%
table = inspection.parameter_table(network)
print(table.groupby("part", sort=False)["parameters"].sum().to_string())

# %% [markdown]
# The forward pass is short enough to read as it runs. It is a method of `SmallNetwork`. The networks `compact` and
# `lite` share it and differ in the image encoder, `see`.
#
# Read the first lines up to `stride4, stride8, stride16 = ...`, then the last five, which fuse and decode. You may
# skip the rest now: `decode` limits how many masks are computed, `perturb` disturbs features for other methods, and
# `guide` is an addition of [notebook 03](03_posaug.ipynb).

# %%
source_of(type(network).forward)

# %% [markdown]
# The image encoder is `see`. The stem gives the map at stride 4, and the stages 8 and 16 each halve its side. So 96
# pixels become 24, 12 and 6 places.

# %%
source_of(type(network).see)

# %% [markdown]
# Hooks record the shapes of the tensors while the network reads our pair. Text is batch x tokens x channels. Maps are
# batch x channels x height x width. Numbers in the names are strides: the side shrinks from 24 to 6 and grows back to
# 24. The head then enlarges the map by a factor of four, to 96.

# %%
shapes = {}
steps = ["text", "stem", "stage4", "stage8", "stage16", "fuse16", "up8", "decode8", "fuse8", "up4", "decode4", "head"]


def note(name):
    def keep(module, arguments, output):
        shapes[name] = inspection.shape_text(getattr(output, "last_hidden_state", output))

    return keep


hooks = [getattr(network, name).register_forward_hook(note(name)) for name in steps if hasattr(network, name)]
with torch.no_grad():
    seen = network(image, input_ids)
for hook in hooks:
    hook.remove()
print(pd.Series(shapes).to_string())

# %% [markdown]
# ### Exercise 02.1 (predict)
#
# One place of the map at stride 16 stands for 16 by 16 pixels of the image. An image has 224 by 224 pixels and a text
# has 24 tokens. For one image and one head, how many weights (one for each place and token) does the attention at
# stride 16 compute?
#
# <details><summary>Solution</summary>
#
# The map has $(224/16)^2 = 196$ places, and each asks 24 tokens: $196 \cdot 24 = 4704$. The text is short, so
# attention from pixels to words is cheap. Attention from pixels to pixels would compute $196^2 = 38\,416$ weights.
# </details>

# %%
numbers = None
check("02.1", numbers)

# %% [markdown]
# ## Pixels ask, words answer
#
# The fusion adds a weighted mixture of the words to each place. This is cross-attention: a few matrix products and a
# softmax. $X$ holds a row for each place of the map, and $W$ a row for each word. The learnt matrices $A_q$, $A_k$ and
# $A_v$ make a *query* (a question) of each place, and a *key* and a *value* of each word. The better a query fits a
# key, the more of the word's value the place takes in. $d$ is the width of the keys:
#
# $$X + \mathrm{softmax}\!\Big(\frac{(X A_q)(W A_k)^\top}{\sqrt{d}}\Big)\, W A_v$$


# %%
def attend(X, W, A_q, A_k, A_v):
    questions, keys, values = X @ A_q, W @ A_k, W @ A_v
    fits = questions @ keys.T / keys.shape[1] ** 0.5
    shares = fits.softmax(1)  # of each place: its shares of the words add up to 1
    return X + shares @ values, shares


# %% [markdown]
# Here is the class as it runs. It adds what practice needs: layer norms, four heads, a small MLP, and a padding mask.
# It also adds position codes. They tell each place of the map where it lies. A place must know this before it can react
# to "left".

# %%
source_of(type(network.fuse16))

# %% [markdown]
# Does `attend` compute the same as PyTorch? The cell compares it with PyTorch's module, with one head and without norms
# and positions. PyTorch's module has one more matrix after the values, `out_proj`. We multiply it into $A_v$. PyTorch's
# module does not add $X$, so the cell adds it.

# %%
torch.manual_seed(0)
module = torch.nn.MultiheadAttention(8, 1, bias=False, batch_first=True).eval()
X, W = torch.randn(5, 8), torch.randn(3, 8)
A_q, A_k, A_v = (part.T for part in module.in_proj_weight.chunk(3))
ours, shares = attend(X, W, A_q, A_k, A_v @ module.out_proj.weight.T)
answer, weights = module(X[None], W[None], W[None])
assert torch.allclose(ours, X + answer[0], atol=1e-6) and torch.allclose(shares, weights[0], atol=1e-6)
print(f"largest difference {float((ours - X - answer[0]).detach().abs().max()):.0e}")

# %% [markdown]
# ## Which places attend to which word
#
# The softmax gives each place shares of attention, one for each word. So each word has a map. The figure shows the
# shares at stride 8, as the mean of the four heads, for four of the tokens. The solid line is the lesion, and the
# dotted line the decoy. The lighter a place, the more it takes in of this word. All panels share one colour scale, so
# you can compare places, and words too.
#
# **Look at** "middle": it has the largest shares. They lie in a band at middle height, and in the upper right lung.
# **Then look at** "right", which is stronger in the right half. Words that name no place have uneven maps too:
# "unilateral" and "one" are strongest over the decoy on the left. The table gives the mean and the largest share of
# each token.

# %%
found = attention.word_attention(network, image, input_ids)
picture = pair.images[0]
told = [i for i, word in enumerate(words[:length]) if word in ("unilateral", "one", "middle", "right")]
attention_maps(picture, [words[i] for i in told], found[8][0, told].numpy(), pair.masks[0], decoys[0])
plt.show()
spread = found[8][0, :length].flatten(1)
told = pd.DataFrame({"mean share": spread.mean(1), "largest share": spread.amax(1)}, words[:length])
print(told.round(2).to_string())

# %% [markdown]
# Attention does not explain a mask. A place may attend strongly to a word, and the mask may still not depend on it. To
# know what a word does, we change the word.
#
# ## Right becomes left
#
# The network gets the same image twice: once with its report, and once with the sides swapped. The phantom draws
# lesions and decoys in the same way, and either may be large or small. So the image alone does not tell which one to
# outline. In the figure the dashed line is the prediction. **Look at** where it goes when one word changes: it leaves
# the lesion and goes to the decoy. With its own report the network finds the lesion but outlines too much. With "middle
# left" it outlines only the part of the decoy at the height that the sentence names.

# %%
report = pair.reports[0]
asked = [report.render(), report.flip().render()]
with torch.no_grad():
    probabilities = [network(image, texts([text])).logits.sigmoid()[0, 0].numpy() for text in asked]
by_report(picture, dict(zip(asked, probabilities, strict=True)), pair.masks[0])
plt.show()
half = image_size // 2
for text, p in zip(asked, probabilities, strict=True):
    left, right = (p[:, :half] >= 0.5).sum(), (p[:, half:] >= 0.5).sum()
    print(f"{left:4} px in the left half, {right:4} px in the right half: {text}")

# %% [markdown]
# ### Exercise 02.2 (change)
#
# Change one word: "middle" becomes "upper". By how many of the 96 rows does the centre of the predicted pixels move?
# Guess first, then ask the network. Up is negative. `check` accepts an answer that is off by at most three rows.
#
# <details><summary>Solution</summary>
#
# ```python
# for height in ("middle", "upper"):
#     text = f"unilateral pulmonary infection, one infected area, {height} right lung."
#     predicted = network(image, texts([text])).logits[0, 0] >= 0
#     print(height, predicted.nonzero()[:, 0].float().mean())
# ```
#
# The centre moves from row 44 to row 25, so by $-19$. The network goes where the text sends it, even where no lesion
# is.
# </details>

# %%
rows = None
check("02.2", rows)

# %% [markdown]
# ## What a missing or wrong text costs
#
# We take the validation pairs of the phantom whose report names one side. The network gets each image with four texts:
#
# - its own report;
# - its report with hidden positions;
# - a sentence that names every zone;
# - its report with the sides swapped.
#
# To hide the positions, the token `[UNK_POS]` replaces each phrase; "unilateral" and the count stay. PosAug
# ([03](03_posaug.ipynb)) showed the network this token in training. The sentence of every zone is false for these
# images, because it also names zones without a lesion.
#
# The cell prints Dice per image of this one network (one seed).

# %%
from semimedref_core import missing_positions

one_sided = valid.subset([i for i, report in enumerate(valid.reports) if len(report.sides) == 1])
modes = {"own report": "full", "positions hidden": "masked", "every zone named": "none", "sides swapped": "wrong-side"}
told = {
    name: [missing_positions.text_at_hand(report, mode) for report in one_sided.reports] for name, mode in modes.items()
}
scores = {name: 100 * evaluate(network, one_sided, texts, told=said)["dice_image"] for name, said in told.items()}
print(f"{len(one_sided)} pairs, Dice per image in per cent\n{pd.Series(scores).round(1).to_string()}")
assert scores["own report"] > scores["positions hidden"] > scores["every zone named"] > scores["sides swapped"]
print(
    f"without the positions it loses {scores['own report'] - scores['positions hidden']:.0f} points of Dice per image"
)

# %% [markdown]
# A false text costs more than a text without positions. So this network follows its text. (A network that was trained
# with many texts without positions might lose less without them.) Other notebooks ask the same question of other
# networks, data and texts, so their numbers differ: 03 cuts the positions out of real reports, and 07 names every zone.
# A method must not lose the link from text to image. Notebook 04 pastes patches between images. If the text did not
# change with them, it would no longer say what the image shows. [08](08_results.ipynb) asks whether that costs Dice.
# For this question its differences may be chance.
#
# ### Exercise 02.3 (predict)
#
# Append forty more padding tokens to the text: `torch.cat([input_ids, torch.zeros(1, 40, dtype=torch.long)], 1)`. Does
# the network still predict the same mask? Answer True or False, then try it.
#
# <details><summary>Solution</summary>
#
# True. The padding mask, `input_ids == 0`, keeps these tokens out of the text encoder and of both attentions. So the
# predicted mask stays the same. The released networks attend to padding, so there padding can change the prediction
# (Ledger 18). (The release's GuideDecoder takes exactly 24 tokens, so this test is not possible with it.)
# </details>

# %%
same = None
check("02.3", same)

# %% [markdown]
# ## What to take away
#
# **To remember.** The cell prints the facts. The last one is measured on the one-sided validation pairs of the phantom,
# with this one network.

# %%
sums = found[8].sum(1)
assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5) and float(found[8][0, length:].max()) == 0
million = sum(p.numel() for p in network.parameters()) / 1e6
print("1. The network has two encoders, two places where pixels ask words, and one decoder.")
print(f"   It has {million:.2f} million weights.")
print("2. At each place the shares of the words add up to 1. Padding gets none.")
print("3. Another report gives another mask: the image alone does not decide.")
print("4. Dice per image (%):", ", ".join(f"{name} {score:.1f}" for name, score in scores.items()))

# %% [markdown]
# **Next:** [03 · PosAug](03_posaug.ipynb) changes the text that the network reads. **Back:** [01 ·
# Data](01_data.ipynb). **Further on:** [06 · Teacher and student](06_teacher_student.ipynb) trains the network, and
# [docs/training.md](../docs/training.md) lists the other networks.
