"""The PosAug explorer: what it answers is what the student would read, and it answers at once."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from semimedref_core.figures.posaug import hit_shares, text_rows, token_rows
from semimedref_core.networks import build_texts
from semimedref_core.posaug import FUZZY_PHRASE, MASK_TOKEN, Stretch, posaug, stretches
from semimedref_core.reports import Report, ReportError
from semimedref_core.widgets.posaug import answer, posaug_explorer, read

TEXT = "Bilateral pulmonary infection, two infected areas, all left lung and middle lower right lung."
CHOICES = {"both": TEXT, "nothing": "No pulmonary infection, zero infected areas."}


@pytest.fixture(scope="module")
def texts():
    return build_texts()


def test_an_answer_is_one_draw_of_posaug_with_its_tokens_and_the_zones_of_the_untouched_report(texts):
    for seed in range(20):
        got = answer(TEXT, 0.5, "mix", seed, texts)
        text = posaug(Report.parse(TEXT), np.random.default_rng(seed), 0.5, "mix")
        assert "".join(part.text for part in got.after) == text
        ids = [number for _, number in got.tokens]
        assert ids == [int(i) for i in texts([text])[0] if i != texts.tokenizer.pad_token_id]
        assert got.zones == Report.parse(TEXT).zones
        assert [part.kind for part in got.before] == ["frame", "position", "frame", "position", "frame"]


def test_tokens_are_of_the_kind_of_their_part(texts):
    got = read(Report.parse(TEXT), {"left": MASK_TOKEN, "right": FUZZY_PHRASE}, texts)
    kinds = {kind: [part.text for part, _ in got.tokens if part.kind == kind] for kind in ("special", "mask", "fuzz")}
    assert kinds == {"special": ["[CLS]"], "mask": [MASK_TOKEN], "fuzz": FUZZY_PHRASE.split()}


def test_every_control_changes_the_answer_and_a_typed_report_goes_before_the_chosen_one(texts):
    explorer = posaug_explorer(CHOICES, texts)
    controls, said = explorer.controls, lambda: explorer.said.value
    assert all(control.description for control in controls.values())
    controls["p"].value = 1.0
    controls["mode"].value = "mask"
    assert f"{MASK_TOKEN} and {MASK_TOKEN}" in said()
    controls["mode"].value = "fuzz"
    assert f"{FUZZY_PHRASE} and {FUZZY_PHRASE}" in said() and "left upper" in said()
    controls["typed"].value = "unilateral pulmonary infection, one infected area, upper right lung."
    assert f"area, {FUZZY_PHRASE}." in said() and "Zones for ITCL: right upper." in said()
    controls["typed"].value = ""
    controls["chosen"].value = CHOICES["nothing"]
    assert "no pulmonary infection" in said() and "ITCL: none" in said()
    controls["chosen"].value, controls["p"].value = TEXT, 0.5
    answers = set()
    for seed in range(30):
        controls["seed"].value = seed
        answers.add(said())
    assert len(answers) == 4, "in mode fuzz: no, left, right or both phrases"
    assert plt.get_fignums() == []


def test_an_unreadable_report_is_told_in_the_widget(texts):
    explorer = posaug_explorer(CHOICES, texts)
    explorer.controls["typed"].value = "the lungs are clear"
    assert "cannot read the report" in explorer.said.value and "the lungs are clear" in explorer.said.value
    with pytest.raises(ReportError, match="the lungs are clear"):
        answer("the lungs are clear", 0.5, "mix", 0, texts)


def drawn(figure) -> list[str]:
    words = [text.get_text() for text in figure.axes[0].texts]
    plt.close(figure)
    return words


def test_the_figures_show_every_word_and_say_what_their_colours_mean(texts):
    masked = read(Report.parse(TEXT), {"left": MASK_TOKEN}, texts)
    words = drawn(text_rows([("a label", masked.after)], [masked.zones]))
    assert words[0] == "a label" and {"masked", "position phrase", "zone named by the report"} <= set(words)
    assert "".join(words[1:]).startswith("".join(part.text for part in masked.after)[:60])
    words = drawn(token_rows([("a label", masked.tokens)]))
    assert {MASK_TOKEN, "[CLS]", *(str(number) for _, number in masked.tokens)} <= set(words)
    rows = [("read", [Stretch(part.text, "missed") for part in stretches(TEXT)])]
    assert "missed" in drawn(text_rows(rows))
    figure = hit_shares([0, 1], {"none": [1, 0]}, {"none": lambda p: 1 - p})
    assert len(figure.axes[0].lines) == 2
    plt.close(figure)


def test_no_stretch_of_a_long_text_runs_over_the_zones_beside_it(texts):
    got = read(Report.of([1] * 6, style="release"), {}, texts)
    figure = text_rows([("long", got.after)], [got.zones])
    figure.canvas.draw()
    ax = figure.axes[0]
    zones = [patch.get_x() for patch in ax.patches if patch.get_height() == 0.63]
    right = max(text.get_window_extent().transformed(ax.transData.inverted()).x1 for text in ax.texts)
    plt.close(figure)
    assert len(zones) == 6 and right < min(zones)
