"""Training with pretrained encoders from the command line: their own tokenizer, what is saved, and what goes wrong."""

import json
import os
import re
import shutil

import pytest
import torch
from PIL import Image
from transformers import BertConfig, BertModel
from transformers.models.convnext import ConvNextConfig, ConvNextModel

from semimedref_core.config import Config
from semimedref_core.data.real.qata import QATA_COV19
from semimedref_core.networks import Twins, build_network, build_pretrained, build_texts
from semimedref_core.networks.encoders import EncoderError
from semimedref_core.networks.pretrained import SPECIAL, load_tokenizer
from semimedref_core.networks.text import GRAMMAR_WORDS
from semimedref_core.posaug import FUZZY_PHRASE, apply_hits
from semimedref_core.presets import preset
from semimedref_core.reports import Report
from semimedref_core.runtime import checkpoints
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.runtime.checkpoints import CheckpointError, from_pretrained, load_texts, save_pretrained
from semimedref_core.runtime.files import CHECKPOINT

pytestmark = pytest.mark.usefixtures("one_thread")
PIECES = ["uni", "bi", "##lateral"]  # words that this tokenizer has no entry for, in parts
WORDS = [*SPECIAL.values(), *PIECES, *(word for word in GRAMMAR_WORDS if not word.endswith("lateral"))]
LEFT = Report.of([0, 0, 1, 0, 0, 0])
BOTH = Report.of([1, 0, 1, 0, 0, 1], style="release")


def write_bert(folder, vocabulary: int | None = None):
    """A small BERT with ``vocab.txt``, and a tokenizer class of its own as CXR-BERT's files name one."""
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=vocabulary or len(WORDS), **shape), add_pooling_layer=False).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    foreign = {"tokenizer_class": "CXRBertTokenizer", "auto_map": {"AutoTokenizer": ["trap.CXRBertTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps({**foreign, "do_lower_case": True}))
    (folder / "trap.py").write_text("raise SystemExit('code of the files was run')\n")
    return folder


@pytest.fixture
def text_encoder(tmp_path):
    return write_bert(tmp_path / "text")


@pytest.fixture
def image_encoder(tmp_path):
    shape = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1]}
    ConvNextModel(ConvNextConfig(**shape)).save_pretrained(tmp_path / "image")
    return tmp_path / "image"


@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer.json"])
def test_texts_are_read_by_the_encoders_own_tokenizer_and_a_masked_phrase_by_its_mask(text_encoder, file):
    if file == "tokenizer.json":
        load_tokenizer(text_encoder).backend_tokenizer.save(str(text_encoder / file))
        (text_encoder / "vocab.txt").unlink()
    texts = build_texts(text_encoder=text_encoder)
    words = [texts.tokenizer.convert_ids_to_tokens(row) for row in texts([BOTH.render(), "No Pulmonary Infection."])]
    assert words[0][:4] == ["[CLS]", "bi", "##lateral", "pulmonary"] and words[0][-1] == "[PAD]"
    assert words[1][:6] == ["[CLS]", "no", "pulmonary", "infection", ".", "[SEP]"]
    hidden = apply_hits(BOTH, {"left": "[UNK_POS]", "right": FUZZY_PHRASE})
    assert texts.decode(texts([hidden])) == [hidden.replace("[UNK_POS]", "[MASK]")]
    assert "[UNK]" not in texts.tokenizer.convert_ids_to_tokens(texts([hidden])[0])


def test_a_text_of_more_tokens_is_never_cut(text_encoder):
    everywhere = Report.of([1] * 6, style="release").render()
    with pytest.raises(ValueError, match=r"^a text has 23 tokens, but this network reads at most 20; shorten it"):
        build_texts(text_encoder=text_encoder, length=20)([everywhere])
    (ids,) = build_texts(text_encoder=text_encoder, length=40)([everywhere])
    assert int((ids != 0).sum()) == 23


def spoil(file, content):
    return lambda folder: (folder / file).write_text(content)


FAULTS = {
    "none": (lambda f: (f / "vocab.txt").unlink(), "no tokenizer; put one of tokenizer.json, vocab.txt beside"),
    "half a file": (spoil("tokenizer.json", '{"version": "1.0", "mod'), "tokenizer.json: cannot be read"),
    "words alone": (spoil("vocab.txt", "\n".join(GRAMMAR_WORDS)), r"vocab.txt: .*without \[PAD\], \[UNK\].*BERT"),
    "more words": (spoil("vocab.txt", "\n".join([*WORDS, "more"])), "vocab.txt: .*an encoder that belong together"),
    "other order": (spoil("vocab.txt", "\n".join(reversed(WORDS))), "vocab.txt: .*padding .*that belong together"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_tokenizer_is_told(fault, text_encoder):
    damage, message = FAULTS[fault]
    damage(text_encoder)
    with pytest.raises(EncoderError, match=f"^{text_encoder}.*{message}"):
        load_tokenizer(text_encoder)


def test_a_run_with_pretrained_encoders_needs_them_no_more_once_it_is_done(
    train, semimedref, tmp_path, image_encoder, text_encoder
):
    run, encoders = tmp_path / "run", {"image_encoder": image_encoder, "text_encoder": text_encoder}
    trained = train(output=run, network="guide_decoder", steps=2, **encoders)
    assert trained.status == 0, trained.errors
    first = build_pretrained("guide_decoder", **encoders).text_encoder.state_dict()
    shutil.rmtree(image_encoder), shutil.rmtree(text_encoder)
    for name in ("student", "teacher"):
        after = from_pretrained(run / name)[0].text_encoder.state_dict()
        assert all(torch.equal(after[key], value) for key, value in first.items())
    told = next(line for line in trained.text.splitlines() if line.startswith("student"))
    again = semimedref("evaluate", checkpoint=run / "student")
    assert (again.status, again.text) == (0, f"{told.removeprefix('student').strip()} on 6 pairs of phantom valid\n")
    Image.new("L", (40, 40)).save(tmp_path / "x.png")
    one = {"image": tmp_path / "x.png", "report": LEFT.render(), "output": tmp_path / "x"}
    assert semimedref("predict", checkpoint=run / "teacher", **one).status == 0

    kept = load_texts(run / "teacher")
    assert (kept.length, kept.report_text, kept.own_words) == (24, "whole", False)
    (run / "teacher" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer.json: damaged"):
        load_texts(run / "teacher")
    (run / "teacher" / "tokenizer.json").unlink()
    refused = semimedref("predict", checkpoint=run / "teacher", **one)
    assert refused.status == 1 and re.search(r"teacher/tokenizer.json: missing, .*copy it from", refused.errors)


def test_a_network_with_as_many_words_as_multilingual_bert_can_be_used(train, semimedref, tmp_path):
    encoder, run = write_bert(tmp_path / "text", 119_547), tmp_path / "run"
    told = train(output=run, network="mmi_unet", method="supervised", steps=1, eval_every=0, text_encoder=encoder)
    assert told.status == 0, told.errors
    assert semimedref("evaluate", checkpoint=run).status == 0


def test_a_network_that_could_not_be_loaded_again_is_refused_before_training(
    train, tmp_path, text_encoder, monkeypatch
):
    monkeypatch.setattr(checkpoints, "LARGEST_VOCABULARY", 20)
    told = train(output=tmp_path / "run", network="mmi_unet", text_encoder=text_encoder)
    message = f"could not be loaded again (vocab_size must be at most 20, got {len(WORDS)}); use a smaller one"
    assert told.status == 1 and f"{text_encoder}: the network {message}" in told.errors
    assert not (tmp_path / "run").exists()
    network = build_network("compact", vocabulary=len(WORDS))
    with pytest.raises(CheckpointError, match=r"could not be loaded again \(vocabulary must be at most 20"):
        save_pretrained(tmp_path / "saved", network)
    with pytest.raises(CheckpointError, match=r"could not be loaded again \(text_length must be at most 512"):
        save_pretrained(tmp_path / "saved", build_network("compact"), build_texts(length=513))
    assert not (tmp_path / "saved").exists()


def test_a_run_goes_on_with_the_tokenizer_that_it_began_with_alone(train, stopped, tmp_path, text_encoder):
    options = {"output": tmp_path / "run", "network": "mmi_unet", "steps": 2, "eval_every": 0, "resume": True}
    stopped(text_encoder=text_encoder, **options)
    checkpoint = tmp_path / "run" / CHECKPOINT
    tensors, about = checkpoints.load_tensors(checkpoint)
    of_pairs = " ".join(about["state"]["data"].split()[:3])
    old = {**about, "state": {**about["state"], "data": of_pairs}}
    checkpoints.save_tensors(checkpoint, tensors, **old)  # as it was before it had a digest of the tokenizer
    stopped(text_encoder=text_encoder, **options)
    checkpoints.save_tensors(checkpoint, tensors, **about)
    words = [*SPECIAL.values(), *reversed(WORDS[len(SPECIAL) :])]
    (text_encoder / "vocab.txt").write_text("\n".join(words) + "\n")
    outcome = train(text_encoder=text_encoder, **options)
    assert outcome.status == 1 and "positions or tokens; put those back" in outcome.errors


@pytest.fixture
def few_of_qata(tmp_path, qata_folder):
    """Twelve real pairs to train on and two for validation, in a folder; made-up ones without real data."""
    if not os.environ.get("SEMIMEDREF_DATA"):
        return qata_folder()
    root, annotation = tmp_path / "few" / "QaTa", {}
    found = QATA_COV19.find(os.environ["SEMIMEDREF_DATA"])
    for split, count in {"train": 12, "valid": 2}.items():
        annotation[split] = []
        for entry in found.entries(split, "release")[:count]:
            for kind, path in (("images", entry.image), ("masks", entry.mask)):
                place = root / split / kind / path.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(path.resolve())
            line = {"image_path": entry.mask.name, "caption": entry.text, "pseudo_label": entry.zones}
            annotation[split].append(line)
    (root / "annotation.json").write_text(json.dumps(annotation))
    return root


def test_the_papers_preset_runs_on_qata_at_224_px_with_pretrained_encoders(
    semimedref, tmp_path, few_of_qata, image_encoder, text_encoder
):
    """What is given wins over the preset, and the preset over the defaults."""
    given = {"label_ratio": 0.25, "network": "mmi_unet", "steps": 3, "batch_size": 2, "patch_p": 1.0}
    given |= {"image_encoder": str(image_encoder), "text_encoder": str(text_encoder), "data": str(few_of_qata)}
    run = tmp_path / "run"
    outcome = semimedref("train", preset="paper-qata", output=run, device="cpu", **given)
    assert outcome.status == 0, outcome.errors
    written = json.loads((run / "config.json").read_text())
    assert written == Config(**preset("paper-qata") | given).to_dict()
    assert (written["image_size"], written["lr"]) == (224, 3e-4), "neither was given, nor are they defaults"
    (line,) = [line for line in read_metrics(run / "metrics.jsonl") if "loss" in line]
    assert {"loss_mixed", "loss_itcl_unlabelled", "accepted"} <= line.keys()


def test_what_is_wrong_with_an_encoder_is_told_before_any_data_is_read(train, tmp_path, text_encoder):
    for encoders, message in (
        ({"text_encoder": tmp_path / "none"}, "none: no such folder"),
        (
            {"image_encoder": f"lab/net@{'0' * 40}", "text_encoder": text_encoder},
            "not in the cache, and HF_HUB_OFFLINE",
        ),
    ):
        run = {"network": "mmi_unet", "dataset": "qata", "data": tmp_path / "no data", "output": tmp_path / "run"}
        refused = train(**run, **encoders)
        assert refused.status == 1 and message in refused.errors and not (tmp_path / "run").exists()


def test_twins_share_what_is_pretrained(text_encoder):
    twins = Twins("guide_decoder", text_encoder=text_encoder)
    first, second = twins.first.state_dict(), twins.second.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first if key.startswith("text_encoder."))
    assert not torch.equal(first["head.0.weight"], second["head.0.weight"])
