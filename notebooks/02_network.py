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
# **What you will see.** One network reads a picture and a report, and outlines what the report speaks of. You will follow
# both from the input to the mask:
#
# - how the sentence becomes vectors, and the picture becomes maps;
# - how pixels ask and words answer: cross-attention, in six lines and as it runs;
# - where each word is listened to, and how the outline moves when "left" becomes "right";
# - what the text is worth, in points of Dice.
#
# *You need:* notebook 01. *To read:* 15 minutes. *To run:* half a minute on one core. *Next:*
# [03 · PosAug](03_posaug.ipynb), which changes the text that the network reads.

# %% tags=["parameters"]
shown = 11  # number of the validation pair that is looked at closely
checkpoint = ""  # folder of a trained network; the one that comes with the package if empty

# %% tags=["nbval-ignore-output"]
import matplotlib.pyplot as plt
import pandas as pd
import torch

from semimedref_core import evaluate, evaluation, example, from_pretrained, load_split, load_texts, versions
from semimedref_core.figures import attention_maps, by_report, notebook_style, sample_gallery
from semimedref_core.teaching import check, source_of
from semimedref_core.tools import attention, inspection

notebook_style(100)
print(versions("transformers"))

# %% [markdown]
# ## What goes in
#
# A picture and a sentence. The network that we look at comes with the package. It was trained on the phantom, and its
# [card](../semimedref_core/example/model/README.md) says how.

# %%
folder = checkpoint or example.MODEL
(network, about), texts = from_pretrained(folder), load_texts(folder)
image_size = about["image_size"]
valid = load_split("phantom", "valid", image_size)
pair = valid.subset([shown])
print(f"{about['network']}, {sum(p.numel() for p in network.parameters()):,} weights")
print(pair.reports[0])
sample_gallery(pair)
plt.show()

# %% [markdown]
# **The sentence** becomes numbers. Each word of the grammar has one; 0 fills up to the common length and is never read.
# **The picture** has one channel, grey values with mean 0 and standard deviation 1.

# %%
[(image, input_ids)] = evaluation.network_inputs(pair, texts)
words = texts.tokenizer.convert_ids_to_tokens(input_ids[0])
length = int((input_ids[0] != 0).sum())
print(list(zip(words[:length], input_ids[0, :length].tolist(), strict=True)))
print(inspection.shape_text(image), f"mean {abs(image.mean()):.2f}, deviation {image.std():.2f}")

# %% [markdown]
# ## The way through
#
# Four parts do the work. The *image encoder* makes maps at a quarter, an eighth and a sixteenth of the size. The *text
# encoder*, a small BERT, gives each word a vector that depends on the words around it. The *fusion* lets each place of a map
# ask all words. The *decoder* brings the map back to full size, and one number for each pixel says how likely it is
# lesion. Two *projections* are used in training alone, by ITCL (notebook 05).

# %%
table = inspection.parameter_table(network)
print(table.groupby("part", sort=False)["parameters"].sum().to_string())

# %% [markdown]
# The forward pass is short enough to read as it runs. It is a method of `SmallNetwork`, which the networks `compact` and
# `lite` share; they differ in the image encoder, `see`.

# %%
source_of(type(network).forward)

# %% [markdown]
# Here are the shapes on the way, noted by hooks while the network looks at our pair:

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
# A pixel of the map at stride 16 stands for a square of the picture. At 224 px, how many numbers does the attention at
# stride 16 compute for one picture, one head and a text of 24 tokens?
#
# <details><summary>Solution</summary>
#
# The map has $(224/16)^2 = 196$ places, and each asks 24 tokens: $196 \cdot 24 = 4704$. The text is short, so attention
# from pixels to words is cheap. From pixels to pixels it would be $196^2 = 38\,416$.
# </details>

# %%
numbers = None
check("02.1", numbers)

# %% [markdown]
# ## Pixels ask, words answer
#
# Cross-attention in six lines. $X$ holds a row for each place of the map, $W$ a row for each word. Each place asks a question,
# each word has a key and a value. How well a question fits a key decides how much of the word's value the place gets:
#
# $$X + \mathrm{softmax}\!\Big(\frac{(X A_q)(W A_k)^\top}{\sqrt{d}}\Big)\, W A_v$$


# %%
def attend(X, W, A_q, A_k, A_v):
    questions, keys, values = X @ A_q, W @ A_k, W @ A_v
    fits = questions @ keys.T / keys.shape[1] ** 0.5
    shares = fits.softmax(1)  # of each place: its shares of the words add up to 1
    return X + shares @ values, shares


# %% [markdown]
# And the class as it runs. It adds what practice needs: norms, four heads, positions (a place must know where it is before it
# can care for "left"), a small MLP, and padding that nobody hears.

# %%
source_of(type(network.fuse16))

# %% [markdown]
# Do the six lines compute the same? With one head, without norms and positions, PyTorch's module gives the same numbers:

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
# ## Where each word is listened to
#
# The shares of attention are a map for each word. Yellow: these places listen to this word. "middle" is heard most, in a
# band at the height that it names. Other words are heard unevenly too: look at "unilateral" and "one", over the decoy on
# the left.

# %%
found = attention.word_attention(network, image, input_ids)
picture = pair.images[0]
attention_maps(picture, words[:length], found[8][0, :length].numpy())
plt.show()
spread = found[8][0, :length].flatten(1)
told = pd.DataFrame({"mean share": spread.mean(1), "largest share": spread.amax(1)}, words[:length])
print(told.round(2).to_string())

# %% [markdown]
# Attention is not the explanation of a mask. A word may be heard and change nothing. What a word does is seen when we change
# it.
#
# ## Left becomes right
#
# The same picture, once with its report and once with its sides swapped. Most phantom pictures hold decoys: opacities of the same
# look that the report does not name. So the network cannot find the lesion without reading.

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
# Change one word: "middle" becomes "upper". Guess first, then ask the network: by how many rows of the 96 does the centre of
# the predicted pixels move? Up is negative. A guess within three rows counts.
#
# <details><summary>Solution</summary>
#
# `found = network(image, texts(["unilateral pulmonary infection, one infected area, upper right lung."])).logits[0, 0] >= 0`
# and `found.nonzero()[:, 0].float().mean()`: the centre moves from row 44 to row 25, so by $-19$. The network goes where the
# text sends it, also where no lesion is.
# </details>

# %%
rows = None
check("02.2", rows)

# %% [markdown]
# ## What the text is worth
#
# Over all validation pairs whose report names one side: with their own report, with one text that names every zone, so that
# it says nothing of places, and with the sides swapped.

# %%
one_sided = valid.subset([i for i, report in enumerate(valid.reports) if len(report.sides) == 1])
everywhere = ["bilateral pulmonary infection, two infected areas, all left lung and all right lung."]
told = {
    "own report": None,
    "every zone named": everywhere * len(one_sided),
    "sides swapped": [report.flip().render() for report in one_sided.reports],
}
scores = {name: 100 * evaluate(network, one_sided, texts, told=said)["dice_image"] for name, said in told.items()}
print(f"{len(one_sided)} pairs, Dice per image in per cent\n{pd.Series(scores).round(1).to_string()}")
assert scores["own report"] > scores["every zone named"] > scores["sides swapped"]
print(f"the text is worth {scores['own report'] - scores['every zone named']:.0f} points of Dice per image")

# %% [markdown]
# A wrong side costs more than no side. That is why the method takes such care that image and text stay together: a patch
# that is pasted without its words teaches the network not to believe the text.
#
# ### Exercise 02.3 (break)
#
# Break it. Add forty more padding tokens to the text: `torch.cat([input_ids, torch.zeros(1, 40, dtype=torch.long)], 1)`. Is
# the prediction of this network still the same? Answer True or False, then try it.
#
# <details><summary>Solution</summary>
#
# True. `padding = input_ids == 0` keeps these tokens out of the text encoder, of the attention and of the mean. The
# released code attends to padding, so there the answer depends on how far a text is filled up (Ledger 18).
# </details>

# %%
same = None
check("02.3", same)

# %% [markdown]
# ## **To remember**
#
# - Two encoders, two places where pixels ask words, one decoder: about a million weights.
# - At each place the words' shares add up to 1. Padding gets none.
# - Another report, another mask: the picture alone does not decide.
#
# *Back:* [01 · Data](01_data.ipynb). *On:* [03 · PosAug](03_posaug.ipynb) changes the text, [06 · Teacher and
# student](06_teacher_student.ipynb) trains the network, [docs/training.md](../docs/training.md) lists the other networks.

# %%
sums = found[8].sum(1)
assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5) and float(found[8][0, length:].max()) == 0
print(
    f"Dice per image: {scores['own report']:.0f} % with the own report, {scores['sides swapped']:.0f} % with the sides swapped"
)
