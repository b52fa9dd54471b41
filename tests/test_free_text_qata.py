"""QaTa-COV19 rewritten into free text: the same pairs and places, in other words."""

import pytest

from semimedref_core.data.datasets import load_training
from semimedref_core.data.pairs import DataError
from semimedref_core.free_reports import FreeReport
from semimedref_core.positions import LUNGS
from semimedref_core.reports import Report, ReportError
from semimedref_core.tools.free_text_qata import CLEAR, INFECTED, main, rewritten, write_folder

REPORTS = [Report.of([code >> k & 1 for k in range(6)], 2 if code else None) for code in range(64)]


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: str(report.code))
def test_a_rewritten_report_tells_of_the_same_zones_or_leaves_them_open(report):
    texts = {rewritten(report, f"covid_{k}.png") for k in range(40)}
    zones = [FreeReport.of(text, LUNGS).zones for text in texts]
    assert {*zones} <= {report.zones, (0,) * 6}
    if any(report.zones):
        assert len(texts) > 10 and zones.count(report.zones) > len(zones) / 2
    for text in texts:
        with pytest.raises(ReportError):
            Report.parse(text)


def test_a_report_without_a_number_is_rewritten_without_one():
    report = Report.of([0, 1, 1, 0, 0, 0], 2)
    texts = {rewritten(report.without_count(), f"covid_{k}.png") for k in range(300)}
    assert len(texts) > 20 and texts < {rewritten(report, f"covid_{k}.png") for k in range(3000)}
    assert not any(word in text.lower().split() for text in texts for word in ("two", "2", "(2", "areas", "lesions"))


def test_there_are_many_templates_and_a_name_always_gets_the_same_one():
    assert len(CLEAR) + len(INFECTED) >= 12
    report = Report.of([0, 0, 1, 0, 1, 0])
    assert rewritten(report, "covid_1.png") == rewritten(report, "COVID_1.png")
    heads = {rewritten(report, f"covid_{k}.png").split("left")[0].split("right")[0] for k in range(300)}
    assert len(heads) >= len(INFECTED)


def test_the_folder_holds_the_same_pairs_in_order_and_the_same_ones_are_labelled(qata_folder, tmp_path, capsys):
    root = qata_folder()
    main([str(tmp_path / "free"), "--data", str(root)])
    told = capsys.readouterr().out
    assert "12 pairs, " in told and "--text-length " in told
    length = int(told.split("--text-length ")[1])
    assert 10 < length < 60
    strict, free = load_training("qata", 0.5, 32, str(root)), load_training("folder", 0.5, 32, str(tmp_path / "free"))
    for part in ("labelled", "unlabelled", "valid"):
        a, b = getattr(strict, part), getattr(free, part)
        assert (a.images == b.images).all() and len(a) == len(b)
        assert all(two.zones in (one.zones, (0,) * 6) for one, two in zip(a.reports, b.reports, strict=True))
    with pytest.raises(DataError, match="is not empty; give another folder"):
        write_folder(root, tmp_path / "free")
