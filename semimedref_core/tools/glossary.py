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
            "Each place of the image weighs all words, and adds their weighted sum to its features.",
            "02_network",
        ),
        ("CutMix", "A patch of one image is pasted into another image at a random place.", "04_t_patchmix"),
        ("decoy", "An opacity of the phantom that looks like a lesion, and that no report names.", "01_data"),
        (
            "Dice per image",
            "The mean of the Dice scores of all images, so small lesions count as much as large ones.",
            "01_data",
        ),
        ("DiceCE", "The loss of a mask: one minus a soft Dice, plus cross-entropy.", "06_teacher_student"),
        ("donor", "The pair that a patch comes from; the one that gets it is the *receiver*.", "04_t_patchmix"),
        ("embedding", "A vector of norm 1 that stands for a whole image or a whole report.", "05_itcl"),
        (
            "floor",
            "The lowest value that ITCL can reach in a batch; it is above 0 where reports share zones.",
            "05_itcl",
        ),
        (
            "gate",
            "The rule that accepts a patch if the teacher's mean probability in it is high enough.",
            "04_t_patchmix",
        ),
        ("grid", "Four cuts of the image's height, which bound the boxes of upper, middle and lower zones.", "01_data"),
        (
            "ISPG",
            "A later addition: the network predicts zones from the image and reads them as one more token.",
            "03_posaug",
        ),
        (
            "ITCL",
            "The contrastive loss between images and reports, in which shared zones make soft positives.",
            "05_itcl",
        ),
        ("labelled pair", "An image and a report with a mask; *unlabelled* pairs have no mask.", "01_data"),
        (
            "ledger",
            "The list of differences between the expected method and the released code.",
            "00_start_here",
        ),
        ("micro", "A Dice that adds up the pixels of all images before it divides.", "01_data"),
        (
            "moving average",
            "EMA, exponential moving average: each step mixes a little of the student into the teacher.",
            "06_teacher_student",
        ),
        (
            "phantom",
            "The drawn data set of the package: it teaches how the method works, and no medicine.",
            "01_data",
        ),
        ("PosAug", "Some position phrases of the student's text are masked or made vague.", "03_posaug"),
        (
            "pseudo-label",
            "The mask that the teacher predicts for an image that nobody has labelled.",
            "06_teacher_student",
        ),
        ("purity", "The share of true lesion in the patches that pass the gate.", "04_t_patchmix"),
        (
            "ramp",
            "The steps in which the weight of the unlabelled loss grows from 0 to its full value.",
            "06_teacher_student",
        ),
        ("referring image segmentation", "A sentence says which object of an image is to be outlined.", "01_data"),
        ("release", "The code that the authors of the paper have published.", "01_data"),
        ("soft positive", "Another pair that shares zones, and so counts as a partial match in ITCL.", "05_itcl"),
        ("strong view", "A weak view with other brightness, contrast, blur and noise.", "06_teacher_student"),
        ("student", "The network that learns by gradients.", "03_posaug"),
        (
            "T-PatchMix",
            "A patch of another pair is pasted in, and image, target and text change together.",
            "04_t_patchmix",
        ),
        (
            "target",
            "The mask that the student is trained on; for unlabelled pairs it is made from $p$.",
            "04_t_patchmix",
        ),
        ("teacher", "The moving average of the student; it makes the pseudo-labels.", "03_posaug"),
        (
            "temperature",
            "The number $\\tau$ that divides the similarities; a small one makes the softmax sharp.",
            "05_itcl",
        ),
        (
            "weak view",
            "The image, normalised, moved a little and sometimes mirrored; strong views are made from it.",
            "06_teacher_student",
        ),
        ("zone", "One of six parts of the lungs: upper, middle or lower, left or right.", "01_data"),
    ]
)


def glossary_table() -> str:
    """:data:`GLOSSARY` in Markdown, for a reader in ``notebooks/``."""
    rows = [f"| **{name}** | {meaning} | [{book[:2]}]({book}.ipynb) |" for name, meaning, book in GLOSSARY]
    return "\n".join(["| term | what it means | explained in |", "|---|---|---|", *rows])
