"""Reports without positions: what each mode reads, which reports a removal rate changes, and what it costs."""

import itertools
import re
import threading

import numpy as np
import pandas as pd
import pytest
import torch

from semimedref_core import figures
from semimedref_core.commands.score_table import add_rows
from semimedref_core.data.chance import source
from semimedref_core.data.phantom import phantom
from semimedref_core.evaluation import evaluate, recovery
from semimedref_core.experiments.results import METRICS
from semimedref_core.figures.canvas import BLACK
from semimedref_core.figures.training import METHOD_COLOURS
from semimedref_core.missing_positions import MODES, draw_changed, filled_in, text_at_hand, texts_at_hand
from semimedref_core.networks import build_network, build_texts
from semimedref_core.posaug import stretches
from semimedref_core.reports import HEIGHTS, SIDES, STYLES, Report
from semimedref_core.runtime.locks import locked
from semimedref_core.tools import positions
from semimedref_core.tools.positions import RATES, recoveries, reports_table

ONE = Report.parse("Unilateral pulmonary infection, one infected area, lower left lung.")
TWO = Report.parse("Bilateral pulmonary infection, three infected areas, all left lung and middle lower right lung.")
ALL = [Report.of([code >> k & 1 for k in range(6)], style=style) for code in range(64) for style in STYLES]


@pytest.mark.parametrize("mode, one, two", [
    ("full", ", one infected area, lower left lung.",
     ", three infected areas, all left lung and middle lower right lung."),
    ("removed", ", one infected area.", ", three infected areas."),
    ("masked", ", one infected area, [UNK_POS].", ", three infected areas, [UNK_POS] and [UNK_POS]."),
    ("fuzzy", ", one infected area, a region of the lung.",
     ", three infected areas, a region of the lung and a region of the lung."),
    ("wrong-side", ", one infected area, lower right lung.",
     ", three infected areas, middle lower left lung and all right lung."),
])  # fmt: skip
def test_a_mode_changes_the_positions_and_nothing_else(mode, one, two):
    assert text_at_hand(ONE, mode) == f"unilateral pulmonary infection{one}"
    assert text_at_hand(TWO, mode) == f"bilateral pulmonary infection{two}"


def test_without_text_every_report_is_the_sentence_that_the_setting_none_reads():
    texts, of_none = build_texts(), build_texts("none")
    for report in (ONE, TWO, Report.of([0] * 6)):
        assert torch.equal(texts([text_at_hand(report, "none")]), of_none([report.render()]))


def test_a_removed_report_names_no_zone_and_keeps_count_and_laterality():
    for report in (*ALL, TWO, ONE.without_count()):
        text = text_at_hand(report, "removed")
        assert not re.search(rf"\b({'|'.join([*SIDES, *HEIGHTS, 'all', 'lung'])})\b", text)
        assert report.render().startswith(text.rstrip("."))
        assert [part.kind for part in stretches(text)] == ["frame"], "nothing in it is a position phrase"


def test_the_wrong_side_is_the_report_of_the_mirror_image():
    for report in ALL:
        assert text_at_hand(report, "wrong-side") == report.flip().render()


@pytest.mark.parametrize("mode", MODES)
def test_the_tokenizer_knows_every_word_and_every_text_fits(mode):
    texts = build_texts()
    ids = texts([text_at_hand(report, mode) for report in ALL])
    assert not (ids == texts.tokenizer.unk_token_id).any()


def test_an_unknown_mode_is_refused_by_name():
    with pytest.raises(ValueError, match="'gone' of reports; choose one of full, removed"):
        text_at_hand(ONE, "gone")


def test_the_reports_that_a_smaller_rate_changes_are_among_those_of_a_larger_one():
    changed = [draw_changed(np.random.default_rng(3), 1000, rate) for rate in RATES]
    for smaller, larger in itertools.pairwise(changed):
        assert (larger | ~smaller).all()
    np.testing.assert_allclose([hits.mean() for hits in changed], RATES, atol=0.05)
    assert not changed[0].any() and changed[-1].all()


def test_only_the_changed_reports_are_read_in_another_way():
    reports = [ONE, TWO] * 20
    hits = draw_changed(np.random.default_rng(5), 40, 0.5)
    read = texts_at_hand(reports, "removed", 0.5, np.random.default_rng(5))
    for report, hit, text in zip(reports, hits, read, strict=True):
        assert text == (text_at_hand(report, "removed") if hit else report.render())


def test_other_zones_are_written_in_the_words_of_the_report():
    assert filled_in(ONE, [0, 0, 0, 1, 1, 1]) == "unilateral pulmonary infection, one infected area, all right lung."
    released = Report.of([0, 0, 1, 0, 0, 0], style="release")
    assert filled_in(released, [1, 1, 1, 0, 0, 0]).endswith("upper middle lower left lung.")
    assert filled_in(ONE, [0] * 6) == text_at_hand(ONE, "removed")
    nothing = Report.of([0] * 6)
    assert filled_in(nothing, [1] * 6) == nothing.render()


@pytest.fixture(scope="module")
def pairs():
    return phantom("valid", 12, 32)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "ispg"])
def network(request):
    """Not trained, but shaken, so that text and token matter."""
    torch.manual_seed(0)
    network = build_network("compact", ispg=True) if request.param else build_network("compact")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def test_at_rate_0_each_mode_is_the_whole_report_bit_for_bit(network, pairs):
    texts = build_texts()
    whole = evaluate(network, pairs, texts)
    start = reports_table(network, pairs, texts, rates=[0.0]).drop(columns="removal_rate").set_index("reports")
    assert list(start.index[:5]) == list(MODES[1:])
    assert all(row == whole for row in start.to_dict("index").values())


@pytest.mark.parametrize("rate", [0.4, 1.0])
def test_the_table_is_what_a_network_scores_that_reads_these_texts(pairs, rate):
    torch.manual_seed(0)
    network, texts = build_network("compact").eval(), build_texts()
    rows = reports_table(network, pairs, texts, rates=[rate]).set_index("reports")
    for mode in MODES[1:]:
        told = texts_at_hand(pairs.reports, mode, rate, source("reports without positions"))
        assert rows.loc[mode].drop("removal_rate").to_dict() == pytest.approx(
            evaluate(network, pairs, texts, told=told), abs=1e-6
        )


def test_recovery_is_the_share_of_the_loss_that_comes_back():
    assert recovery(0.65, full=0.7, removed=0.6) == pytest.approx(0.5)
    assert recovery(0.7, 0.7, 0.6) == pytest.approx(1) and recovery(0.6, 0.7, 0.6) == 0
    assert recovery(0.55, 0.7, 0.6) == pytest.approx(-0.5), "wrong zones are worse than none"
    assert np.isnan(recovery(0.6, 0.6, 0.6))


def table(**at_rate_1):
    rows = [
        {"reports": mode, "removal_rate": rate, "dice_image": dice if rate else 0.7, "dice_micro": 0.5}
        for mode, dice in at_rate_1.items()
        for rate in (0.0, 1.0)
    ]
    return pd.DataFrame(rows)


def test_recoveries_by_hand():
    found = recoveries(table(removed=0.6, soft=0.68, hard=0.64))
    assert found == pytest.approx({"soft": 0.8, "hard": 0.4, "oracle": 1.0})
    assert recoveries(table(removed=0.6)) == {}, "without ISPG nothing is filled in"


def test_the_figure_has_a_line_a_method_and_says_what_it_shows():
    one, two = table(removed=0.6), table(removed=0.5)
    figure = figures.removal_curves({"PosAug at 0": [one, two], "PosAug at 0.5": [one]}, "PosAug at 0.5")
    (ax,) = figure.axes
    lines = [line for line in ax.lines if line.get_linestyle() != "None"]
    np.testing.assert_allclose([line.get_ydata() for line in lines], [[70, 55], [70, 60]])
    assert {text.get_text() for text in ax.texts} == {"PosAug at 0", "PosAug at 0.5"}
    assert [line.get_color() for line in lines] == [BLACK, METHOD_COLOURS["semi_medref"]]
    assert "removal rate" in ax.get_xlabel() and ax.get_ylabel() == "Dice per image (%)"
    with pytest.raises(ValueError, match="PosAug at 0: a line is of one kind of reports, got removed, soft"):
        figures.removal_curves({"PosAug at 0": [table(removed=0.6, soft=0.7)]})


def test_lines_of_the_figure_differ_without_colour_and_none_has_the_colour_of_supervised_training():
    figure = figures.removal_curves({f"m{k}": [table(removed=0.1 * k)] for k in range(6)}, "m2")
    lines = [line for line in figure.axes[0].lines if line.get_linestyle() != "None"]
    assert len({line.get_marker() for line in lines}) == len({line.get_color() for line in lines}) == 6
    assert METHOD_COLOURS["supervised"] not in {line.get_color() for line in lines}
    assert {text.get_color() for text in figure.axes[0].texts} == {"black"}, "pale colours are hard to read"


def printed(text):
    """Metric -> value, as ``evaluate`` prints them."""
    return {name: float(value) for name, value in re.findall(r"(\w+) ([\d.]+) %", text)}


def test_evaluate_reads_the_reports_as_it_is_told(semimedref, finished_run):
    told = {}
    for mode in MODES:
        outcome = semimedref("evaluate", checkpoint=finished_run / "teacher", reports=mode)
        assert (outcome.status, outcome.errors) == (0, "")
        told[mode] = outcome.text
    assert told["full"] == semimedref("evaluate", checkpoint=finished_run / "teacher").text
    assert told["removed"].endswith("on 6 pairs of phantom valid, reports removed at a removal rate of 1\n")
    never = semimedref("evaluate", checkpoint=finished_run / "teacher", reports="masked", removal_rate=0)
    assert printed(never.text) == printed(told["full"])


def test_evaluate_prints_the_whole_table(semimedref, finished_run):
    outcome = semimedref("evaluate", checkpoint=finished_run / "teacher", reports="all")
    assert (outcome.status, outcome.errors) == (0, "")
    for metric in ("dice_image", "dice_micro"):
        assert f"{metric} (%) on 6 pairs of phantom valid, by reports and removal rate" in outcome.text
    rows = {line.split()[0]: line.split()[1:] for line in outcome.text.splitlines()}
    assert set(MODES[1:]) <= set(rows) and all(len(rows[mode]) == len(RATES) for mode in MODES[1:])
    assert "recovery" not in outcome.text
    whole = printed(semimedref("evaluate", checkpoint=finished_run / "teacher").text)
    assert {rows[mode][0] for mode in MODES[1:]} == {f"{whole['dice_micro']:.1f}"}


@pytest.mark.parametrize("options, told", [
    ({"reports": "removed", "removal_rate": 1.5}, "--removal-rate must be 0 to 1, got 1.5"),
    ({"removal_rate": 0.5}, "--removal-rate 0.5 has no effect with --reports full; remove it"),
    ({"reports": "all", "removal_rate": 0.5}, "--removal-rate 0.5 has no effect with --reports all"),
])  # fmt: skip
def test_a_removal_rate_that_makes_no_sense_is_refused(semimedref, finished_run, options, told):
    outcome = semimedref("evaluate", checkpoint=finished_run / "teacher", **options)
    assert outcome.status == 1 and told in outcome.errors


def test_the_tables_of_several_runs_come_into_one_file_and_a_run_that_comes_again_takes_its_old_place(
    semimedref, finished_run, small_phantom, tmp_path
):
    for name in ("one", "two", "one"):
        (tmp_path / name).mkdir(exist_ok=True)
        if not (tmp_path / name / "teacher").exists():
            (tmp_path / name / "teacher").symlink_to(finished_run / "teacher")
        given = {"checkpoint": tmp_path / name / "teacher", "reports": "all", "csv": tmp_path / "all.csv"}
        outcome = semimedref("evaluate", **given)
        assert outcome.status == 0, outcome.errors
    table = pd.read_csv(tmp_path / "all.csv")
    assert table.groupby("run").size().to_dict() == {name: len(MODES[1:]) * len(RATES) for name in ("one", "two")}
    assert {"reports", "removal_rate", "dice_image", "dice_micro"} < set(table)


@pytest.fixture
def scored_into(semimedref, finished_run, tmp_path):
    """``scored_into(table, place, split)`` scores a network of ``finished_run`` as if it were at this place."""

    def score(table, place, split="valid"):
        network = tmp_path / place
        network.parent.mkdir(parents=True, exist_ok=True)
        if not network.exists():
            network.symlink_to(finished_run / network.name)
        outcome = semimedref("evaluate", checkpoint=network, reports="all", split=split, csv=tmp_path / table)
        assert outcome.status == 0, outcome.errors
        return pd.read_csv(tmp_path / table, keep_default_na=False)

    return score


@pytest.mark.parametrize("first, second", [
    (("A/r0/teacher",), ("A/r0/student",)),
    (("A/r0/teacher",), ("B/r0/teacher",)),
    (("A/r0/teacher", "valid"), ("A/r0/teacher", "test")),
], ids=["student and teacher", "runs of one name in two sweeps", "two splits"])  # fmt: skip
def test_the_table_of_one_network_never_replaces_that_of_another(small_phantom, scored_into, tmp_path, first, second):
    before = scored_into("all.csv", *first)
    both = scored_into("all.csv", *second)
    pd.testing.assert_frame_equal(both[: len(before)], before)
    assert len(both) == 2 * len(before) and len(both[["run", "network", "folder", "split"]].drop_duplicates()) == 2
    assert len(scored_into("all.csv", *first)) == len(both), "scored again, it takes its old place"


def test_two_evaluations_at_the_same_time_both_come_into_the_table(small_phantom, scored_into, monkeypatch, tmp_path):
    begun = []

    def meanwhile(*given):
        if not begun:
            begun.append("A")
            scored_into("all.csv", "B/r0/teacher")
        return reports_table(*given)

    monkeypatch.setattr(positions, "reports_table", meanwhile)
    table = scored_into("all.csv", "A/r0/teacher")
    assert list(table["folder"].unique()) == [str(tmp_path / "B"), str(tmp_path / "A")]


def test_an_evaluation_waits_while_another_one_writes_the_table(tmp_path):
    scored = {"run": "r0", "network": "teacher", "folder": "A", "split": "valid"}
    table = pd.DataFrame({"reports": ["none"], "removal_rate": [1.0], **{name: [0.5] for name in METRICS}})
    writer = threading.Thread(target=add_rows, args=(tmp_path / "all.csv", table, scored))
    with locked(tmp_path, wait=True):
        writer.start()
        writer.join(0.3)
        assert writer.is_alive() and not (tmp_path / "all.csv").exists()
    writer.join(30)
    assert pd.read_csv(tmp_path / "all.csv")["run"].tolist() == ["r0"]


def test_rows_of_an_older_table_are_a_teacher_s(small_phantom, scored_into, tmp_path):
    table = scored_into("all.csv", "A/r0/teacher").drop(columns=["network", "folder", "split"])
    table.to_csv(tmp_path / "all.csv", index=False)
    assert list(scored_into("all.csv", "A/r0/student")["network"].unique()) == ["teacher", "student"]
    table.to_csv(tmp_path / "all.csv", index=False)
    assert list(scored_into("all.csv", "A/r0/teacher")["folder"].unique()) == [str(tmp_path / "A")]


@pytest.mark.parametrize("content, told", [
    ("a,b\n1,2\n", "no table of `evaluate --csv`, it has no column reports"),
    ("", "no readable table"),
    ("a\n1,2\n1,2,3\n", "no readable table"),
    ("\xff\xfe", "no readable table"),
])  # fmt: skip
def test_a_foreign_file_is_refused_before_anything_is_scored(
    semimedref, finished_run, tmp_path, content, told, monkeypatch
):
    monkeypatch.setattr("semimedref_core.tools.positions.image_counts", lambda *_, **__: pytest.fail("scored"))
    path = tmp_path / "mine.csv"
    path.write_bytes(content.encode("latin-1"))
    outcome = semimedref("evaluate", checkpoint=finished_run, reports="all", csv=path)
    assert outcome.status == 1 and f"{path}: {told}" in outcome.errors and "another --csv" in outcome.errors
    assert path.read_bytes() == content.encode("latin-1")


def test_a_run_may_have_a_number_as_its_name(semimedref, finished_run, small_phantom, tmp_path):
    (tmp_path / "0001").mkdir()
    (tmp_path / "0001" / "teacher").symlink_to(finished_run / "teacher")
    for _ in range(2):
        given = {"checkpoint": tmp_path / "0001", "reports": "all", "csv": tmp_path / "new" / "all.csv"}
        assert semimedref("evaluate", **given).errors == ""
    table = pd.read_csv(tmp_path / "new" / "all.csv", dtype=str)
    assert set(table["run"]) == {"0001"} and len(table) == len(MODES[1:]) * len(RATES)


def test_a_table_of_one_mode_is_not_kept(semimedref, finished_run, tmp_path):
    outcome = semimedref("evaluate", checkpoint=finished_run / "teacher", reports="removed", csv=tmp_path / "all.csv")
    assert outcome.status == 1 and "--csv keeps the table of --reports all" in outcome.errors
