"""The glossary: terms of the method, of this project and of the field, and the notebook that explains each."""

from __future__ import annotations

from typing import NamedTuple


class Term(NamedTuple):
    """A term, one sentence, and the notebook that explains the term."""

    name: str
    meaning: str
    notebook: str


GLOSSARY = tuple(
    Term(*entry)
    for entry in [
        ("burn-in", "The first steps, in which the student learns only from labelled pairs.", "06_teacher_student"),
        ("count word", "The number in a report, such as `two infected areas`.", "01_data"),
        (
            "cross-attention",
            "Each place of the image attends to all words and takes up their information.",
            "02_network",
        ),
        ("CutMix", "A patch of one image is pasted into another, at a random place.", "04_t_patchmix"),
        ("decoy", "An opacity of the phantom that looks like a lesion but that no report names.", "01_data"),
        (
            "Dice per image",
            "The mean of the Dice scores of all images, so small lesions count as much as large ones.",
            "01_data",
        ),
        ("DiceCE", "The loss of a mask: one minus a soft Dice, plus cross-entropy.", "06_teacher_student"),
        ("donor", "The pair that gives a patch; the pair that gets it is the *receiver*.", "04_t_patchmix"),
        ("embedding", "A vector of length 1 that represents a whole image or a whole report.", "05_itcl"),
        ("floor", "The smallest possible ITCL of a batch; above 0 if pairs share zones.", "05_itcl"),
        ("gate", "It accepts a patch only if the teacher is confident enough of a lesion in it.", "04_t_patchmix"),
        ("grid", "Two cuts of the image's height, which give each zone a box.", "01_data"),
        ("ISPG", "An addition: the network predicts the zones from the image and reads them as a word.", "03_posaug"),
        ("ITCL", "The contrastive loss that ties each image to its report.", "05_itcl"),
        ("labelled pair", "An image and a report with a mask; *unlabelled* pairs have no mask.", "01_data"),
        (
            "ledger",
            "The list of differences between the expected method and the released code.",
            "00_start_here",
        ),
        ("micro", "Micro Dice adds the pixels of all images before it computes the score.", "01_data"),
        (
            "moving average",
            "An exponential average (EMA): the teacher keeps most of its weights in each step.",
            "06_teacher_student",
        ),
        ("phantom", "The drawn data set of this package; it teaches the method, not medicine.", "01_data"),
        ("PosAug", "Some position phrases of the student's text are hidden or become vague.", "03_posaug"),
        ("pseudo-label", "The teacher's mask for an unlabelled image.", "06_teacher_student"),
        ("purity", "The share of true lesion in the patches that pass the gate.", "04_t_patchmix"),
        ("ramp", "The steps in which the weight of the unlabelled loss grows from 0 to its full value.", "07_train"),
        (
            "referring image segmentation",
            "The task to outline the object of an image that a sentence describes.",
            "01_data",
        ),
        ("release", "The code that the authors of the paper published.", "01_data"),
        ("soft positive", "Another pair that shares zones; ITCL counts it as a partial match.", "05_itcl"),
        ("strong view", "A weak view with strong changes: brightness, blur, noise.", "07_train"),
        ("student", "The network that learns by gradient descent.", "03_posaug"),
        ("T-PatchMix", "It pastes a patch, and image, target and text change together.", "04_t_patchmix"),
        ("target", "The mask that the student learns; for unlabelled pairs it comes from $p$.", "04_t_patchmix"),
        ("teacher", "The moving average of the student; it makes the pseudo-labels.", "03_posaug"),
        (
            "temperature",
            "The number $\\tau$ that divides similarities; a small one makes the softmax sharp.",
            "05_itcl",
        ),
        ("weak view", "The image that the teacher sees: normalised and moved a little.", "06_teacher_student"),
        ("zone", "One of six parts of the lungs: upper, middle or lower, left or right.", "01_data"),
    ]
)


def glossary_table() -> str:
    """:data:`GLOSSARY` in Markdown, for a reader in ``notebooks/``."""
    rows = [f"| **{name}** | {meaning} | [{book[:2]}]({book}.ipynb) |" for name, meaning, book in GLOSSARY]
    return "\n".join(["| term | what it means | explained in |", "|---|---|---|", *rows])
