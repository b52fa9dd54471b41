"""What a frozen text encoder reads is kept: the same numbers, each text once, no more than the limit, nothing saved."""

from dataclasses import replace

import pytest
import torch

from semimedref_core.anatomy import THIRDS
from semimedref_core.config import Config
from semimedref_core.data.batches import Batches
from semimedref_core.data.datasets import load_training
from semimedref_core.methods.registry import METHODS
from semimedref_core.networks import Twins, build_network, build_texts, text_cache
from semimedref_core.networks.encoders import TextEncoder
from semimedref_core.networks.text import grammar_tokenizer
from semimedref_core.networks.text_cache import ReadTexts, read_once
from semimedref_core.patchmix import mixed_reports
from semimedref_core.posaug import apply_hits
from semimedref_core.reports import Report
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.runtime.checkpoints import load_tensors
from semimedref_core.teacher import Teacher
from semimedref_core.tools.inspection import HostReads

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = Config(image_size=32, batch_size=4, label_ratio=0.05, patch_p=1.0, gate=0.0)
TEXT = {"vocab_size": len(grammar_tokenizer()), "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3}
SMALL = {
    "image": {"model_type": "convnext", "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1]},
    "text": TEXT,
    "embedding": 32,
    "frozen_text": True,
}
REPORTS = [Report.of([0, 0, 1, 0, 0, 0]), Report.of([1, 0, 1, 0, 0, 1]), Report.of([0] * 6)]
TEXTS = [apply_hits(mixed, hits) for report in REPORTS for mixed in mixed_reports(report) for hits in (
    {}, {"left": "[UNK_POS]"}, {"left": "a region of the lung", "right": "[UNK_POS]"}
)]  # fmt: skip


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return TextEncoder(TEXT, frozen=True)


def passes(encoder):
    """Notes the rows of each pass from now on."""
    made = []
    encoder.register_forward_pre_hook(lambda _, given: made.append(len(given[0])))
    return made


def test_each_distinct_text_is_read_once_and_as_without_keeping_it(encoder):
    """Under PosAug and mixing: two texts are told apart by their token ids, whatever report they come from."""
    texts = build_texts()
    ids = texts(TEXTS)
    expected, distinct = encoder.read(ids), len({tuple(row.tolist()) for row in ids})
    known, made = ReadTexts(texts, encoder), passes(encoder)
    for _ in range(2):
        torch.testing.assert_close(known(TEXTS), expected)
    assert made == [1] * distinct and len(known) == distinct < len(TEXTS)
    assert len({row.numpy().tobytes() for row in known(TEXTS)}) == distinct


@pytest.mark.parametrize("size", [1, 8])
def test_its_bits_do_not_depend_on_what_was_read_before(encoder, size, monkeypatch):
    """So a resumed run ends as the uninterrupted one."""
    monkeypatch.setitem(text_cache.PASS, "cpu", size)
    together, alone = ReadTexts(build_texts(), encoder), ReadTexts(build_texts(), encoder)
    read = together(TEXTS)
    for number in (5, 0, 7, len(TEXTS) - 1):
        assert torch.equal(read[[number]], alone([TEXTS[number]]))


def test_new_texts_of_a_batch_are_read_together_where_that_is_quicker(pairs, encoder, monkeypatch):
    """On a GPU a pass takes long to start: 28 texts of mixing and three times four others in five passes."""
    monkeypatch.setitem(text_cache.PASS, "cpu", 16)
    made = passes(encoder)
    batches = Batches(pairs.labelled, pairs.unlabelled, CONFIG, ReadTexts(build_texts(), encoder), THIRDS)
    batches(0)
    assert set(made) == {16} and len(made) <= 5
    made.clear()
    batches(0)
    assert made == []


def test_no_more_than_the_limit_is_kept_and_the_longest_unused_goes_first(encoder):
    a, b, c = (report.render() for report in REPORTS)
    two = ReadTexts(build_texts(), encoder)([a, b]).nbytes
    known, made = ReadTexts(build_texts(), encoder, limit=two), passes(encoder)
    for text, read in ((a, 1), (b, 2), (a, 2), (c, 3), (a, 3), (b, 4), (c, 5)):
        known([text])
        assert (len(made), len(known)) == (read, min(2, read))
    assert torch.equal(known([a, b, c]), ReadTexts(build_texts(), encoder)([a, b, c])), "also a batch beyond the limit"


def test_it_follows_the_encoders_precision_and_not_that_of_the_step(encoder):
    known = ReadTexts(build_texts(), encoder)
    with torch.autocast("cpu", torch.bfloat16):
        single = known(TEXTS[:1])
    assert single.dtype == torch.float32 and torch.equal(single, known(TEXTS[:1]))
    encoder.bfloat16()
    assert known(TEXTS[:1]).dtype == torch.bfloat16


@pytest.fixture(scope="module")
def pairs(small_phantom):
    return load_training(CONFIG.dataset, 0.25, CONFIG.image_size)


@pytest.mark.parametrize(("name", "method"), [("mmi_unet", "semi_medref"), ("guide_decoder", "flip_sync")])
def test_a_step_gives_the_same_losses_and_gradients_and_asks_the_encoder_nothing(pairs, name, method):
    torch.manual_seed(0)
    student = build_network(name, **SMALL).eval()  # batch norm over tiny maps would magnify rounding
    student.head[2].bias.data.fill_(3.0)  # nor is any pixel of the teacher's map so near 0.5 that rounding tips it
    teacher, config, found = Teacher(student), replace(CONFIG, method=method), []
    for texts in (build_texts(), read_once(student, build_texts())):
        batch = Batches(pairs.labelled, pairs.unlabelled, config, texts, THIRDS, plan=METHODS[method].plan)(0)
        made = passes(student.text_encoder), passes(teacher.network.text_encoder)
        student.zero_grad()
        torch.manual_seed(1)  # of the strong view's noise
        with HostReads() as host:
            losses = METHODS[method].step(student, teacher, batch, 0.5, config)
            losses["loss"].backward()
        gradients = torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])
        found.append((losses, gradients, [len(each) for each in made], host.reads))
    (plain, slow, asked, _), (kept, quick, spared, waits) = found
    assert min(asked) > 0 and spared == [0, 0] and waits == []
    torch.testing.assert_close(kept, plain, rtol=1e-4, atol=1e-5)
    assert (quick - slow).norm() < 1e-4 * slow.norm()
    assert plain.get("accepted", 1) > 0


def test_the_free_texts_of_a_thousand_pairs_have_room():
    """A pair has its own text, that of its mirror image, and one for each zone that a patch may add."""
    a_row = 25 * 768 * 4  # of 24 tokens and a mean, by a BERT-base
    assert 9 * 1000 * a_row <= text_cache.LIMIT


def test_only_a_frozen_encoder_is_read_once_and_only_if_twins_agree():
    texts, frozen = build_texts(), build_network("mmi_unet", **SMALL)
    for network in (build_network("compact"), build_network("mmi_unet", **{**SMALL, "frozen_text": False})):
        assert read_once(network, texts) is texts
    with pytest.raises(ValueError, match="the text encoder is trained"):
        ReadTexts(texts, TextEncoder(TEXT))
    twins = Twins("compact")
    twins.first, twins.second = frozen, build_network("mmi_unet", **SMALL)
    assert read_once(twins, texts) is texts, "drawn by chance, each for itself"
    twins.second.load_state_dict(frozen.state_dict())
    assert isinstance(read_once(twins, texts), ReadTexts)


def test_a_run_reads_each_text_once_and_saves_nothing_of_it(train, tmp_path, monkeypatch):
    """Training and validation, against the same run that keeps nothing."""
    from semimedref_core import preparing

    def build(*_):
        network = build_network("mmi_unet", **SMALL)
        made.append(passes(network.text_encoder))
        return network

    made, logs = [], []
    monkeypatch.setitem(METHODS, "semi_medref", replace(METHODS["semi_medref"], build=build))
    for folder, keep in ((tmp_path / "kept", True), (tmp_path / "plain", False)):
        if not keep:
            monkeypatch.setattr(preparing, "read_once", lambda network, texts: texts)
        outcome = train(output=folder, network="mmi_unet")
        assert outcome.status == 0, outcome.errors
        logs.append([line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line])
    assert set(made[0]) == {1} and max(made[1]) > 1
    assert logs[0] == pytest.approx(logs[1], rel=1e-3)
    kept, plain = (load_tensors(tmp_path / name / "student/model.safetensors")[0] for name in ("kept", "plain"))
    assert kept.keys() == plain.keys()
