"""Pretrained encoders: files as CXR-BERT's and ConvNeXt-Tiny's, all weights used, and what goes wrong."""

import json
import logging
import pickle
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, SwinConfig, SwinForImageClassification
from transformers.models.convnext import ConvNextConfig, ConvNextForImageClassification

from semimedref_core.networks import build_pretrained, pretrained
from semimedref_core.networks.encoders import EncoderError
from semimedref_core.networks.pretrained import find, load_backbone, load_bert
from semimedref_core.runtime.checkpoints import from_pretrained, save_pretrained

COMMIT = "0123456789abcdef" * 2 + "01234567"
BERT_SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
CONVNEXT_SHAPE = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1], "num_stages": 4, "patch_size": 4}


def write_bert(folder, file="pytorch_model.bin"):
    """As CXR-BERT: prefix `bert.`, a masked-LM head, a projection head, and a type and keys of its own."""
    torch.manual_seed(1)
    tensors = {name: torch.randn_like(x) for name, x in BertForMaskedLM(BertConfig(**BERT_SHAPE)).state_dict().items()}
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()  # tied
    assert {"bert.encoder.layer.0.attention.self.query.weight", "cls.predictions.bias"} <= tensors.keys()
    tensors["bert.embeddings.position_ids"] = torch.arange(128)[None]
    tensors["cls_projection_head.dense_to_hidden.weight"] = torch.randn(16, 32)
    tensors["cls_projection_head.dense_to_output.weight"] = torch.randn(16, 16)
    config = {"architectures": ["CXRBertModel"], "model_type": "cxr-bert", "projection_size": 16, **BERT_SHAPE}
    config |= {
        "auto_map": {"AutoModel": "modeling_cxrbert.CXRBertModel"},
        "torch_dtype": "float32",
        "layer_norm_eps": 1e-5,
    }
    return write(folder, config, tensors, file)


def write_convnext(folder, file="model.safetensors"):
    """As ConvNeXt-Tiny: prefix `convnext.`, a classifier, a configuration that names the classes."""
    torch.manual_seed(2)
    network = ConvNextForImageClassification(ConvNextConfig(**CONVNEXT_SHAPE))
    tensors = {name: torch.randn_like(x) for name, x in network.state_dict().items()}
    config = {"architectures": ["ConvNextForImageClassification"], "model_type": "convnext", **CONVNEXT_SHAPE}
    config |= {"id2label": {"0": "tench", "1": "shark"}, "label2id": {"tench": 0, "shark": 1}, "image_size": 224}
    return write(folder, config, tensors, file)


def write(folder, config, tensors, file):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, "transformers_version": "4.17.0"}))
    if file.endswith(".bin"):
        torch.save(tensors, folder / file)
    else:
        save_file({name: x.contiguous() for name, x in tensors.items()}, folder / file, {"format": "pt"})
    return folder


def tensors_of(folder):
    path = folder / "pytorch_model.bin"
    return torch.load(path, weights_only=True) if path.exists() else load_file(folder / "model.safetensors")


def used(module, folder, prefix):
    """Asserts that each weight of the module is the file's and that none of the encoder's in the file is left over."""
    own, file = module.state_dict(), tensors_of(folder)
    assert all(torch.equal(value, file[prefix + name]) for name, value in own.items())
    return {name for name in file if name.startswith(prefix)} - {prefix + name for name in own}


@pytest.fixture
def no_retry(monkeypatch):
    """What sleeps before it tries again, as the hub's client does for 23 seconds, fails here."""
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"sleeps {seconds} s and tries again"))


# What goes right


@pytest.mark.parametrize("name", ["guide_decoder", "mmi_unet"])
@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_all_encoder_weights_are_used_the_text_is_frozen_and_the_network_needs_the_files_no_more(
    name, file, tmp_path, caplog
):
    image, text = write_convnext(tmp_path / "image", file), write_bert(tmp_path / "text", file)
    with caplog.at_level(logging.WARNING):
        network = build_pretrained(name, image, text, embedding=32)
    left = used(network.image_encoder.backbone, image, "convnext.")
    assert left == (set() if name == "guide_decoder" else {"convnext.layernorm.weight", "convnext.layernorm.bias"})
    assert used(network.text_encoder.bert, text, "bert.") == {"bert.embeddings.position_ids"}
    told = [record.message for record in caplog.records if record.name.startswith("semimedref_core")]
    assert len(told) == 2 and "2 weights of other heads" in told[0] and "classifier.weight" in told[0]
    assert "cls.predictions.bias" in told[1] and "cls_projection_head.dense_to_output.weight" in told[1]
    assert network.text_encoder.bert.config.layer_norm_eps == 1e-5 and network.text_encoder.width == 32
    assert not any(parameter.requires_grad for parameter in network.text_encoder.parameters())
    assert all(parameter.requires_grad for parameter in network.image_encoder.parameters())

    save_pretrained(tmp_path / "saved", network)
    shutil.rmtree(image)
    shutil.rmtree(text)
    again, _ = from_pretrained(tmp_path / "saved")
    images, ids = torch.randn(1, 1, 32, 32), torch.randint(1, 50, (1, 100))
    assert torch.equal(again(images, ids).logits, network.eval()(images, ids).logits)
    assert again.text_encoder.frozen


def test_the_hidden_states_are_those_that_transformers_gives(tmp_path):
    folder = write_bert(tmp_path)
    network = build_pretrained("guide_decoder", text_encoder=folder, embedding=32)
    reference = BertForMaskedLM(BertConfig(**BERT_SHAPE, layer_norm_eps=1e-5)).eval()
    reference.load_state_dict(tensors_of(folder), strict=False)
    ids = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
    expected = reference(ids, attention_mask=ids != 0, output_hidden_states=True).hidden_states
    hidden, padding = network.text_encoder(ids)
    for one, layer in zip(hidden, (1, 2, 3), strict=True):
        torch.testing.assert_close(one[~padding], expected[layer][~padding])


def test_swin_loads_by_the_names_that_its_files_use(tmp_path):
    shape = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}
    reference = SwinForImageClassification(SwinConfig(**shape))
    reference.save_pretrained(tmp_path)
    assert any("attention.self.query" in name for name in load_file(tmp_path / "model.safetensors"))
    model, config = load_backbone(tmp_path)
    assert config["model_type"] == "swin" and config["embed_dim"] == 16
    theirs = reference.swin.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())


def test_a_pinned_model_in_the_cache_needs_no_hub(tmp_path, monkeypatch, no_retry):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    folder = write_bert(tmp_path / "models--lab--bert" / "snapshots" / COMMIT)
    assert find(f"lab/bert@{COMMIT}") == folder
    with pytest.raises(EncoderError, match=f"lab/bert@{COMMIT[::-1]}: not in the cache, and HF_HUB_OFFLINE is set"):
        find(f"lab/bert@{COMMIT[::-1]}")


# What goes wrong


def change(folder, change_tensors=None, **settings):
    tensors = tensors_of(folder)
    if change_tensors:
        change_tensors(tensors)
    config = json.loads((folder / "config.json").read_text()) | settings
    return write(folder, config, tensors, next(path.name for path in folder.iterdir() if path.name != "config.json"))


def without(*names):
    return lambda tensors: [tensors.pop(name) for name in names]


def cut(name, keep=0.6):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return damage


def code_in(folder):
    class Trap:
        def __reduce__(self):
            return (open, (str(folder / "trapped"), "w"))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"bert.x": Trap()}, protocol=2))


QUERY = "encoder.layer.1.attention.self.query.weight"
FAULTS = {
    "a missing weight": (lambda f: change(f, without(f"bert.{QUERY}")), rf"pytorch_model.bin: .*{QUERY} is missing"),
    "a missing layer": (lambda f: change(f, num_hidden_layers=4), r"layer.3\..* is missing; .*and 11 more"),
    "a layer too many": (
        lambda f: change(f, num_hidden_layers=2),
        r"layer\.2\..*not part of the encoder in config.json",
    ),
    "another width": (lambda f: change(f, hidden_size=64), r"has shape \(32,\), not \(64,\)"),
    "a half download": (cut("pytorch_model.bin"), "pytorch_model.bin: cannot be read .*incomplete"),
    "an empty file": (cut("pytorch_model.bin", 0), "pytorch_model.bin: cannot be read .*incomplete"),
    "code in the file": (code_in, "pytorch_model.bin: cannot be read .*more than tensors"),
    "no weights": (lambda f: (f / "pytorch_model.bin").unlink(), "no weights; put one of model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: missing; give the folder"),
    "half a config": (cut("config.json"), "config.json: damaged"),
    "a list for a config": (lambda f: (f / "config.json").write_text("[]"), "not a configuration, but a list"),
    "no BERT": (lambda f: change(f, model_type="roberta"), "model_type 'roberta' is not a BERT"),
    "one layer": (lambda f: change(f, num_hidden_layers=1), "config.json: num_hidden_layers is 1"),
    "heads that do not divide": (lambda f: change(f, num_attention_heads=5), "config.json: .*32.*multiple.*5"),
    "a word for a number": (lambda f: change(f, hidden_size="wide"), "config.json: .*hidden_size"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_text_encoder_is_told(fault, tmp_path, no_retry):
    spoil, message = FAULTS[fault]
    folder = write_bert(tmp_path)
    spoil(folder)
    with pytest.raises(EncoderError, match=f"^{folder}.*{message}") as told:
        load_bert(folder)
    assert "\n" not in str(told.value)
    assert not (folder / "trapped").exists()


IMAGE_FAULTS = {
    "a missing weight": (lambda f: change(f, without("convnext.layernorm.bias")), "layernorm.bias is missing"),
    "a half download": (cut("model.safetensors"), "model.safetensors: cannot be read .*incomplete"),
    "only a pointer": (
        lambda f: (f / "model.safetensors").write_text("oid sha256:00"),
        "tensors: cannot be read .*incomplete",
    ),
    "three stages": (lambda f: change(f, depths=[1, 1, 1], hidden_sizes=[8, 8, 8], num_stages=3), "of 3 stages"),
    "patches of 8": (lambda f: change(f, patch_size=8), "config.json: .*4 stages and patch size 8.*4, 8, 16, 32"),
    "no stages at all": (lambda f: change(f, model_type="vit"), "'vit' is no backbone .*choose convnext"),
}


@pytest.mark.parametrize("fault", IMAGE_FAULTS)
def test_a_faulty_backbone_is_told(fault, tmp_path, no_retry):
    spoil, message = IMAGE_FAULTS[fault]
    folder = write_convnext(tmp_path)
    spoil(folder)
    with pytest.raises(EncoderError, match=f"^{folder}.*{message}"):
        load_backbone(folder)


@pytest.mark.parametrize("source", ["nowhere", "lab/bert", "lab/bert@main", f"lab/bert@{COMMIT[:7]}"])
def test_what_is_no_folder_has_to_be_pinned(source, no_retry):
    with pytest.raises(EncoderError, match=f"{source}: no such folder; .*organisation/name@commit"):
        find(source)


# A hub on this machine


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """``hub(status, error code)`` starts one that answers so; a silent one answers when the test is over."""
    servers, over = [], threading.Event()

    def start(status, code="", silent=False):
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                if silent:
                    over.wait()
                self.send_response(status if self.path != "/" else 200)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_HEAD

            def log_message(self, *_):
                pass

        if not silent:
            monkeypatch.setattr(pretrained, "PATIENCE", 60)  # this machine may be busy
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        use(f"http://127.0.0.1:{servers[-1].server_port}")

    def use(address):  # and never a real one
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/{revision}/{filename}")

    use("http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    yield start
    over.set()
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("answer", [(404, "RevisionNotFound"), (401, "RepoNotFound"), (404, "EntryNotFound")])
def test_a_name_or_commit_that_the_hub_does_not_know_is_told(hub, answer, no_retry):
    hub(*answer)
    with pytest.raises(EncoderError, match=f"lab/bert@{COMMIT}: cannot be downloaded .*check its name and commit"):
        find(f"lab/bert@{COMMIT}")


def test_a_hub_that_is_silent_is_not_waited_for(hub, no_retry):
    hub(200, silent=True)
    with pytest.raises(EncoderError, match="does not answer; download it"):
        find(f"lab/bert@{COMMIT}")


def test_a_hub_that_is_not_there_is_not_waited_for(hub, no_retry):
    with pytest.raises(EncoderError, match="127.0.0.1:9 does not answer; download it"):
        find(f"lab/bert@{COMMIT}")
