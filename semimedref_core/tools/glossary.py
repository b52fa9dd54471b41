"""The one glossary: terms of the method, of this project and of the field, and the notebook that explains each."""

from __future__ import annotations

from typing import NamedTuple


class Term(NamedTuple):
    """A term, one sentence, and the notebook that explains it by this very word."""

    name: str
    meaning: str
    notebook: str


GLOSSARY = tuple(
    Term(*entry)
    for entry in [
        ("burn-in", "The first steps, in which the student learns from labelled pairs alone.", "06_teacher_student"),
        ("count word", "The number in a report, such as `two infected areas`.", "01_data"),
        ("cross-attention", "Each place of the image asks all words, and takes in what they answer.", "02_network"),
        ("CutMix", "A patch of one image is pasted into another, wherever chance puts it.", "04_t_patchmix"),
        ("decoy", "An opacity of the phantom that looks like a lesion, and that no report names.", "01_data"),
        ("Dice per image", "The mean of the images' own Dice scores, so small lesions count as much.", "01_data"),
        ("DiceCE", "The loss of a mask: one minus a soft Dice, plus cross-entropy.", "06_teacher_student"),
        ("donor", "The pair that a patch comes from; the one that gets it is the *receiver*.", "04_t_patchmix"),
        ("embedding", "A vector of length 1 that stands for a whole image or a whole report.", "05_itcl"),
        ("floor", "The least value that ITCL can take in a batch; above 0 where zones are shared.", "05_itcl"),
        ("gate", "A patch is accepted only if the teacher is sure enough of a lesion in it.", "04_t_patchmix"),
        ("grid", "Two cuts of the image's height, which give each zone a box.", "01_data"),
        ("ISPG", "An addition: the network predicts the zones from the image and reads them as a word.", "03_posaug"),
        ("ITCL", "The contrastive loss that ties each image to its report.", "05_itcl"),
        ("labelled pair", "An image and a report with a mask; the *unlabelled* pairs have none.", "01_data"),
        (
            "ledger",
            "The list of differences between what one expects and what the released code does.",
            "00_start_here",
        ),
        ("micro", "Of Dice: the pixels of all images are added up before the score is taken.", "01_data"),
        (
            "moving average",
            "Exponential, EMA: the teacher keeps most of its weights in each step.",
            "06_teacher_student",
        ),
        ("phantom", "The drawn data set that comes along; it teaches the method, and no medicine.", "01_data"),
        ("PosAug", "The student's text loses some of its position phrases, or they become vague.", "03_posaug"),
        ("pseudo-label", "What the teacher marks on an image that nobody has labelled.", "06_teacher_student"),
        ("purity", "The share of true lesion in the patches that pass the gate.", "04_t_patchmix"),
        ("ramp", "The steps in which the weight of the unlabelled loss grows from 0 to its full value.", "07_train"),
        ("referring image segmentation", "A sentence says which object of an image is to be outlined.", "01_data"),
        ("release", "The code that the authors of the paper have published.", "01_data"),
        ("soft positive", "Another pair that shares zones, and so counts as a partial match in ITCL.", "05_itcl"),
        ("strong view", "A weak view that is changed heavily: brightness, blur, noise.", "07_train"),
        ("student", "The network that learns by gradients.", "03_posaug"),
        ("T-PatchMix", "A patch is mixed in, and image, target and text change together.", "04_t_patchmix"),
        ("target", "The mask that the student shall learn; on unlabelled pairs it is made of $p$.", "04_t_patchmix"),
        ("teacher", "The moving average of the student; it makes the pseudo-labels.", "03_posaug"),
        (
            "temperature",
            "The number $\\tau$ that similarities are divided by; a small one makes them sharp.",
            "05_itcl",
        ),
        ("weak view", "The image as the teacher sees it: normalised, and moved a little.", "06_teacher_student"),
        ("zone", "One of six parts of the lungs: upper, middle or lower, left or right.", "01_data"),
    ]
)


def glossary_table() -> str:
    """:data:`GLOSSARY` in Markdown, for a reader in ``notebooks/``."""
    rows = [f"| **{name}** | {meaning} | [{book[:2]}]({book}.ipynb) |" for name, meaning, book in GLOSSARY]
    return "\n".join(["| term | what it means | explained in |", "|---|---|---|", *rows])
