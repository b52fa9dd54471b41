"""From the paper to the code: all equations, all differences from the released code, and the place of each.

The numbers are ours, in the order of the method. The paper's number is given if there is one.

Functions, tests and notebook cells have tags, ``Eq. 9`` or ``Ledger 3``, in a comment, a docstring or a text cell.
Tests may have them in their names, ``test_ledger_3_...``. :func:`find_tags` reads them from the sources, so the index
is never out of date. The tests fail if an entry has no function, no test or no cell, or if a tag has no entry.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import jupytext

ROOT = Path(__file__).parents[2]
TAG = re.compile(r"\b(Eq\.|Ledger) (\d+)\b")
NAME = re.compile(r"\bdef test_(eq|ledger)_(\d+)_")
NO_HOME = {"figures", "widgets", "tools", "benchmark", "teaching"}
"""Folders whose functions show, check or time an equation and do not compute it."""


@dataclass(frozen=True)
class Equation:
    """``Eq. number``: what it defines, the formula in TeX, and the paper's number, if there is one."""

    number: int
    title: str
    tex: str
    paper: str = ""

    @property
    def tag(self) -> str:
        return f"Eq. {self.number}"


@dataclass(frozen=True)
class Difference:
    """``Ledger number``: what the paper or the data say, what the released code does, and what we do."""

    number: int
    expected: str
    release: str
    ours: str

    @property
    def tag(self) -> str:
        return f"Ledger {self.number}"


PAPER = {4: "6", 5: "7", 6: "8", 7: "8", 8: "8", 9: "9", 10: "9", 11: "9", 13: "2", 14: "5", 17: "3 to 5", 19: "10"}
"""Our number -> the paper's number, from the comments of the released code. There, 2 is DiceCE of labelled pairs, 3 and
4 are the unlabelled loss, 5 is the teacher and the whole loss, 6 to 8 are T-PatchMix, 9 is the contrastive loss, and 10
of a later version is ISPG."""

EQUATIONS = tuple(
    Equation(number, title, tex, PAPER.get(number, ""))
    for number, (title, tex) in enumerate(
        [
            ("zone vector of a report", r"a \in \{0, 1\}^6"),
            ("labelled and unlabelled pairs", r"|D_L| = \max(1, \mathrm{round}(\rho\, n)),\; D_U = D \setminus D_L"),
            (
                "PosAug",
                r"r'_s = \mathtt{[UNK\_POS]} \text{ or a vague phrase if } h_s = 1,\; h_s \sim \mathrm{Bernoulli}(p)",
            ),
            ("T-PatchMix: proposal", r"m = \text{square} \cap \text{box of a zone } k \text{ that the rule allows}"),
            ("T-PatchMix: gate", r"\langle m, p_j \rangle / |m| \ge \mathrm{conf\_th}"),
            ("T-PatchMix: image", r"m\, s_j + (1 - m)\, s_i"),
            ("T-PatchMix: target", r"\mathbf{1}[m\, p_j + (1 - m)\, p_i \ge 0.5]"),
            ("T-PatchMix: text, in our form", r"a = a_i \lor e_k, \text{ laterality and number rewritten}"),
            ("soft anatomical positives", r"P_{ij} = |a_i \land a_j| / |a_i \lor a_j|,\; P_{ii} = 1"),
            ("similarities", r"z_{ij} = u_i^\top v_j / \tau"),
            (
                "ITCL",
                r"\tfrac12 \big[\tfrac1N \sum_i -\tfrac{\sum_j P_{ij} \log \mathrm{softmax}_j z_{ij}}{\sum_j P_{ij}}"
                r" + (z \to z^\top)\big]",
            ),
            ("class sums", r"P V = S[\text{codes}] + \text{own},\; S = J_{64}\, (\text{sums of } V \text{ by code})"),
            ("loss of a mask", r"\mathrm{DiceCE} = \mathrm{Dice} + \mathrm{CE}"),
            ("EMA teacher", r"\theta' \leftarrow d\, \theta' + (1 - d)\, \theta"),
            ("burn-in and ramp", r"w_u(t) = w_u^{\max} \min(1, (t - t_0)^+ / T)"),
            ("ramp of the EMA decay", r"d(t): d_0 \to d_1"),
            (
                "loss of a step",
                r"L = \mathrm{DiceCE}_L + w_l\, \mathrm{ITCL}_L + w_u(t) [\mathrm{DiceCE}_U + w_c\, \mathrm{ITCL}_U]",
            ),
            ("Dice and mIoU, micro and per image", r"2 |y \cap \hat y| / (|y| + |\hat y|)"),
            ("ISPG: token of the predicted zones", r"\tanh(g)\, (W \hat a + b),\; \hat a = \sigma(E(x)) \in [0, 1]^6"),
        ],
        start=1,
    )
)

LEDGER = tuple(
    Difference(number, *texts)
    for number, texts in enumerate(
        [
            (
                "A refused patch leaves the sample as it was.",
                "The image is mixed before the gate. A refused patch stays in the image, but not in target and text.",
                "Image, target and text are mixed together or not at all.",
            ),
            (
                "The patch lies in a region that the receiver's report names.",
                "It reads only the first phrase: bilateral reports are patched only on the left (but see Ledger 13), "
                "and `upper lower` is one box that includes the middle. A donor without a phrase may give.",
                "Any named zone, one at a time. The setting patch_zones says whose report must name it: the receiver's "
                "(preset `paper`), the donor's (`compact`), or both.",
            ),
            (
                "The mixed text agrees with the mixed image.",
                'The first phrase becomes "A and B", or stays if both are equal. Count word and uni/bilateral do not '
                "change.",
                "Phrases and laterality are rewritten from the zones, and the count word becomes the number of named "
                "zones.",
            ),
            (
                "The text follows the image in every patch mode.",
                "In the probability-driven mode the text does not change.",
                "In every mode, the text gets the zone whose box holds the patch.",
            ),
            (
                "Pseudo-labels are used where the teacher is confident.",
                "After burn-in they are thresholded at 0.5, without a confidence mask. `conf_th` only gates patches.",
                "Thresholded at 0.5, only inside the named zones. An image whose infection is not found is left out, "
                "and by default so is each named zone without a finding.",
            ),
            (
                "The partners' maps are the teacher's maps, permuted.",
                "The teacher runs a second time, on the permuted batch.",
                "The teacher runs once, and its output is permuted.",
            ),
            (
                "The student reads the whole mixed report.",
                "Texts are cut at 24 tokens, which truncates merged reports.",
                "The text is rewritten, so every mixed report fits. A longer text is an error and is never cut.",
            ),
            (
                "Patches of a zone lie where that zone's lesions are.",
                "Upper, middle and lower are equal thirds of the image.",
                "The bands are estimated from the labelled masks.",
            ),
            (
                "Every position phrase can be augmented.",
                "A phrase needs a height word, a side and `lung`. Many LViT texts have none, so nothing happens there.",
                "Reports are parsed, so `all left lung` and `left lung` are phrases too.",
            ),
            (
                "A report describes; it does not count what the mask shows.",
                "The release's texts count active zones; LViT's count the connected lesions of the mask.",
                "We read both versions and measure how much the count word reveals.",
            ),
            (
                "Dice is an average over images.",
                "The release adds up the pixels of the split first (micro).",
                "We report both and always name them.",
            ),
            (
                "No patient is in two splits.",
                "MosMedData+ is split by slice, and most test studies also occur in train.",
                "We keep the splits, so that numbers can be compared. The doctor warns and counts.",
            ),
            (
                "The place of a patch does not depend on the text that the student reads.",
                "PosAug hides phrases before mixing reads them. So fewer patches are offered, and after a hidden first "
                "phrase the second one counts.",
                "Mixing reads the report. Then PosAug hides phrases of the mixed report.",
            ),
            (
                '"Left" is the left of the picture that the network sees.',
                "Its reader gives width x height, and nothing transposes it back. The network sees pictures on their "
                "side, but boxes and words mean upright ones.",
                "Pictures are upright; the setting `axes` can transpose them.",
            ),
            (
                "DiceCE is Dice plus cross-entropy.",
                "MONAI 1.0.1 takes the cross-entropy of a softmax over one class, which is 0. Only Dice is left.",
                "Binary cross-entropy; the setting `mask_loss` can leave it out.",
            ),
            (
                "A strong view changes brightness and contrast.",
                "ColorJitter clips float pictures to 0 to 1, but they are already normalised to mean 0. So most of "
                "the picture becomes 0 or 1.",
                "Nothing is clipped; the setting `strong_view` has `clamped` for it.",
            ),
            (
                "The reported score chooses the weights.",
                "The student's micro Dice chooses, after 20 epochs and with gains of at least 0.001.",
                "The teacher's Dice per image chooses, on pairs that are not reported; `choose_by` can be `student`.",
            ),
            (
                "A prediction does not depend on the padding of its report.",
                "Both networks attend to padding tokens, so other padding gives another mask.",
                "Every attention masks padding. Logits and embeddings are the same for any amount of padding.",
            ),
            (
                "A report may have more or fewer than 24 tokens.",
                "GuideDecoder's convolution over the token axis needs exactly 24, so texts are cut or padded to 24.",
                "It reads windows of 24 tokens with the same weights, so a text may have any length. A text of 24 "
                "tokens is read as in the release.",
            ),
        ],
        start=1,
    )
)


SYMBOLS = (
    ("$x$, $y$, $r$", "image, mask, report; $\\hat y$ is a prediction", "images, masks, reports"),
    ("$x_l$, $y_l$, $r_l$", "weak views of labelled pairs, their masks and reports", "x_l, y_l, r_l"),
    ("$x_u$, $r_u$", "weak views of unlabelled pairs, and their reports", "x_u, r_u"),
    (
        "$a$; $a_l$, $a_u$",
        "zone vector of a report; its code is $a$ as one integer",
        "Report.zones, Report.code; a_l, a_u",
    ),
    ("$k$, $e_k$", "number of a zone, and the vector that names only this zone", "ZONES, zones"),
    ("$i$, $j$", "receiver and donor of a patch, or row and column of a matrix", "partner"),
    ("$p$; $p_j$", "the teacher's lesion probability; the donor's", "p, probs"),
    ("$p$ in Eq. 3", "the probability that PosAug hits a phrase", "posaug_p"),
    ("$r_s$, $r'_s$, $h_s$ in Eq. 3", "phrase of side $s$, what PosAug makes of it, whether it is hit", "draw_hits"),
    ("$s$", "strong views of unlabelled pairs", "s"),
    ("$m$", "the patch: a square of side `block`, clipped to its zone's box", "boxes of patch_mix"),
    ("$c$, $b$", "centre and side of that square", "centres, block"),
    ("$\\mathrm{conf\\_th}$", "the gate", "gate"),
    ("$\\tilde s$, $\\tilde y$, $\\tilde r$", "strong views, targets and reports after mixing", "s_mix, y_mix, r_mix"),
    ("$\\tilde p$", "mixed probabilities; thresholded at 0.5 they are the target", "p_mix"),
    ("$\\tilde a$", "zones that the mixed image shows", "a_mix"),
    ("$u$, $v$", "embedding of an image and of a text, of norm 1", "u, v: image_embedding, text_embedding"),
    ("$u_l$, $v_l$; $u_u$, $v_u$", "embeddings of labelled and of unlabelled pairs", "u_l, v_l, u_u, v_u"),
    ("$z$", "similarities $u^\\top v / \\tau$", "z"),
    ("$\\tau$", "temperature", "tau"),
    ("$P$", "soft positives", "jaccard"),
    (
        "$V$, $S$, $J_{64}$",
        "all text embeddings, their sums by zone code, soft positives of all 64 codes",
        "class_sums",
    ),
    ("$L$", "the loss of a step; the code has its four terms", "L_seg, L_itcl, L_mix, L_itcl_u"),
    (
        "$w_l$, $w_c$",
        "weights of ITCL on labelled and on unlabelled pairs",
        "w_l, w_c: itcl_weight, itcl_unlabelled_weight",
    ),
    ("$w_u(t)$", "weight of the unlabelled loss in step $t$", "w_u: unsupervised_weight"),
    ("$t$, $t_0$, $T$", "step, end of burn-in, length of the ramp", "step, burn_in, ramp"),
    ("$\\theta$, $\\theta'$", "weights of student and teacher", "student, teacher"),
    ("$d$; $d_0$, $d_1$", "decay of the teacher's average; its first and last value", "ema_decay, ema_decay_last"),
    ("$D$, $D_L$, $D_U$", "all training pairs, labelled pairs, unlabelled pairs", "labelled, unlabelled"),
    ("$\\rho$, $n$", "label ratio, number of training pairs", "label_ratio"),
    ("$N$", "pairs of a loss, or images of a score", ""),
    ("$E$, $\\hat a$, $g$", "ISPG: encoder, predicted zones, gate of their token", "ZoneGuide"),
    ("$W$, $b$ in Eq. 19", "weights and bias of that token", "ZoneGuide"),
    ("`B`, `D`, `L` in shapes", "samples of a batch, numbers of an embedding, tokens of a text", ""),
)
"""The table of symbols: symbol, meaning, and names in code."""


def symbol_table() -> str:
    """:data:`SYMBOLS` in Markdown."""
    rows = [f"| {symbol} | {what} | {f'`{name}`' if name else ''} |" for symbol, what, name in SYMBOLS]
    return "\n".join(["| symbol | what it is | in code |", "|---|---|---|", *rows])


@dataclass
class Places:
    """The places of a tag: functions and tests as ``(file, qualified name)``, cells as ``(notebook, heading)``."""

    functions: list[tuple[str, str]] = field(default_factory=list)
    tests: list[tuple[str, str]] = field(default_factory=list)
    cells: list[tuple[str, str]] = field(default_factory=list)


def find_tags(root: Path = ROOT) -> dict[str, Places]:
    """All tags in the sources below ``root``, each place once.

    Only what computes an equation counts as a function, and only what is a test as a test. A tag outside all functions
    and classes has the name ``""``.
    """
    found = defaultdict(Places)
    for folder in ("semimedref_core", "kernels", "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            if path == Path(__file__) or set(path.relative_to(root).parts) & NO_HOME:
                continue
            for tag, name in _tags_of(path):
                if folder == "tests" and not name.startswith("test_"):
                    continue
                places = found[tag].tests if folder == "tests" else found[tag].functions
                if (place := (str(path.relative_to(root)), name)) not in places:
                    places.append(place)
    for path in sorted((root / "notebooks").glob("*.py")):
        heading = ""
        for cell in jupytext.read(path).cells[1:]:  # the first one lists what will come
            headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else []
            heading = headings[-1] if headings else heading
            for tag in dict.fromkeys(" ".join(match) for match in TAG.findall(cell.source)):
                if (path.stem, heading) not in found[tag].cells:
                    found[tag].cells.append((path.stem, heading))
    return dict(found)


def _tags_of(path: Path) -> list[tuple[str, str]]:
    """Tags of a source file with the innermost function or class around each."""
    text = path.read_text(encoding="utf-8")
    scopes = []

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                scopes.append((child.lineno, child.end_lineno, prefix + child.name))
                walk(child, f"{prefix}{child.name}.")

    walk(ast.parse(text), "")
    tags = []
    for number, line in enumerate(text.splitlines(), start=1):
        in_name = [({"eq": "Eq.", "ledger": "Ledger"}[kind], digits) for kind, digits in NAME.findall(line)]
        for match in TAG.findall(line) + in_name:
            around = [scope for scope in scopes if scope[0] <= number <= scope[1]]
            tags.append((" ".join(match), max(around, default=(0, 0, ""))[2]))
    return tags


def equation_table(found: dict[str, Places]) -> str:
    """The equations with links to notebook cells, in Markdown, for a reader in ``notebooks/``."""
    # The formula is last: it is wide, and a narrow page cuts off what stands behind it.
    lines = ["| | paper's | what | notebook | formula |", "|---|---|---|---|---|"]
    for entry in EQUATIONS:
        formula = entry.tex.replace("|", r"\vert ")  # a bar would end the cell of the table
        cells = _cells(found.get(entry.tag, Places()), entry.tag)
        lines.append(f"| {entry.tag} | {entry.paper} | {entry.title} | {cells} | ${formula}$ |")
    return "\n".join(lines)


def code_table(found: dict[str, Places]) -> str:
    """The equations with links to functions and tests. A second table, because one with all columns fits no page."""
    lines = ["| | what | function | test |", "|---|---|---|---|"]
    for entry in EQUATIONS:
        places = found.get(entry.tag, Places())
        lines.append(f"| {entry.tag} | {entry.title} | {_links(places.functions)} | {_links(places.tests)} |")
    return "\n".join(lines)


def ledger_table(found: dict[str, Places]) -> str:
    """The differences from the released code, with links to the cell that shows each and the test that checks it."""
    lines = ["| | one expects | the released code | here | shown in, tested by |", "|---|---|---|---|---|"]
    for entry in LEDGER:
        places = found.get(entry.tag, Places())
        texts = f"{entry.expected} | {entry.release} | {entry.ours}"
        lines.append(f"| {entry.tag} | {texts} | {_cells(places, entry.tag)}<br>{_links(places.tests)} |")
    return "\n".join(lines)


def _links(places) -> str:
    return "<br>".join(f"[`{name}`](../{path})" for path, name in places if name)


def _cells(places: Places, tag: str) -> str:
    """Links to cells: in bold those whose heading has the tag, or else the first one; then the other notebooks."""
    homes = [cell for cell in places.cells if re.search(rf"{re.escape(tag)}\b", cell[1])] or places.cells[:1]
    tags = r" \((Eq\.|Ledger) [^)]*\)"  # the row has them already
    links = [
        f"**[{notebook[:2]}: {re.sub(tags, '', heading.split(' · ')[-1])}]({notebook}.ipynb)**"
        for notebook, heading in homes
    ]
    others = dict.fromkeys(notebook for notebook, _ in places.cells if notebook not in dict(homes))
    also = ", ".join(f"[{notebook[:2]}]({notebook}.ipynb)" for notebook in others)
    return "<br>".join([*links, *([f"also {also}"] if also else [])])
