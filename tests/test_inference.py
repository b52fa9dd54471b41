"""The five-line use of a trained network: from a picture and a sentence to a mask."""

import numpy as np
import pytest
import torch
from PIL import Image

from semimedref_core import Pairs, SemiMedRef, example, from_pretrained, inference, load_split
from semimedref_core.data.asked import picture_asked, report_asked
from semimedref_core.data.pairs import DataError
from semimedref_core.evaluation import image_counts
from semimedref_core.networks.compact import Prediction
from semimedref_core.reports import ReportError
from semimedref_core.runtime.devices import DeviceError

FIRST, REPORT = next(iter(example.pictures().items()))


@pytest.fixture(scope="module")
def model():
    return SemiMedRef.from_pretrained()


def test_the_network_of_the_package_finds_what_the_report_names(model):
    found = model.predict(FIRST, REPORT)
    height, width = found.mask.shape
    assert found.mask[:, width // 2 :].sum() > 0.9 * found.mask.sum() > 0, "the report says right"
    assert found.picture.shape == (height, width) and 0 <= found.probability.min() <= found.probability.max() <= 1
    other = model.predict(FIRST, REPORT.replace("right", "left"))
    assert other.mask[:, : width // 2].sum() > 0.9 * other.mask.sum() > 0
    assert "192 x 192 px" in repr(found) and repr(model) == "SemiMedRef(compact, 96 px, trained on phantom)"


def test_a_file_an_array_and_a_picture_of_pillow_are_the_same_picture(model):
    picture = Image.open(FIRST)
    answers = [model.predict(image, REPORT).probability for image in (FIRST, str(FIRST), picture, np.array(picture))]
    assert all(np.array_equal(answers[0], answer) for answer in answers)
    coloured = np.repeat(np.array(picture)[..., None], 3, 2)
    assert np.abs(model.predict(coloured, REPORT).probability - answers[0]).max() < 0.05


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_picture_of_pillow_is_read_as_its_file_is(model, tmp_path, mode):
    """Palettes and deep pictures too: a picture holds more than the numbers of its array."""
    picture = Image.open(FIRST)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    picture = picture.quantize(64) if mode == "P" else picture if mode == "I;16" else picture.convert(mode)
    picture.save(tmp_path / "picture.png")
    for channels in (1, 3):
        of_file = picture_asked(tmp_path / "picture.png", channels)
        assert np.array_equal(picture_asked(picture, channels), of_file)
        assert np.array_equal(picture_asked(Image.open(tmp_path / "picture.png"), channels), of_file)
    if mode == "P":
        assert np.abs(model.predict(picture, REPORT).mask.mean() - model.predict(FIRST, REPORT).mask.mean()) < 0.003


def test_a_picture_of_pillow_is_turned_as_its_exif_data_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(FIRST).crop((0, 0, 192, 100)).save(tmp_path / "turned.png", exif=exif)
    upright = picture_asked(tmp_path / "turned.png", 1)
    assert upright.shape == (192, 100)
    assert np.array_equal(picture_asked(Image.open(tmp_path / "turned.png"), 1), upright)


def half_transparent():
    picture = Image.open(FIRST).convert("RGBA")
    picture.putalpha(128)
    return picture


@pytest.mark.parametrize("made, told", [
    (half_transparent, "the picture: is partly transparent, .*; save it without alpha"),
    (lambda: Image.open(FIRST).convert("RGB").convert("LAB"), "the picture: holds colours of the kind LAB; save it as"),
    (lambda: Image.fromarray(np.full((8, 8), -5.0, np.float32)), "the picture: holds values from -5 to -5; save it as"),
    (lambda: Image.new("L", (0, 8)), "the picture: has no pixel"),
])  # fmt: skip
def test_a_picture_in_memory_is_refused_as_its_file_would_be(model, made, told):
    with pytest.raises(DataError, match=told):
        model.predict(made(), REPORT)


@pytest.mark.parametrize("image", [np.zeros((8, 8)), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8), np.uint8)])
def test_an_array_that_is_no_picture_is_refused(model, image):
    with pytest.raises(DataError, match="a picture must be"):
        model.predict(image, REPORT)


def test_the_picture_goes_to_the_device_where_the_network_is(monkeypatch):
    """The device ``meta`` stands for a GPU here: tensors of two devices do not mix."""
    model, seen = SemiMedRef.from_pretrained(), []

    def forward(images, ids):
        seen.extend((images.device.type, ids.device.type))
        return Prediction(torch.zeros(1, 1, 96, 96), None, None)

    model.network.to("meta")
    monkeypatch.setattr(model.network, "forward", forward)
    assert (model.predict(FIRST, REPORT).probability == 0.5).all() and seen == ["meta", "meta"]
    counts = image_counts(model.network, load_split("phantom", "valid", 96).subset([0]), model.texts)
    assert counts[0, 1] == 96 * 96 and set(seen) == {"meta"}


def test_a_device_that_is_not_there_is_named_at_once(semimedref, monkeypatch, finished_run):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="'cuda' was chosen, but torch finds no GPU"):
        SemiMedRef.from_pretrained(device="cuda")
    with pytest.raises(DeviceError, match="unknown device 'gpu'"):
        SemiMedRef.from_pretrained(device="gpu")
    told = semimedref("evaluate", checkpoint=finished_run, device="cuda")
    assert told.status == 1 and "torch finds no GPU; use --device auto or cpu" in told.errors
    assert SemiMedRef.from_pretrained(device="auto").predict(FIRST, REPORT).mask.any()


def test_a_sentence_outside_the_grammar_is_refused_by_a_network_that_knows_the_grammar_alone(model):
    with pytest.raises(ReportError, match="cannot read the report"):
        model.predict(FIRST, "patchy opacity in the right lower lobe")


def test_a_run_s_folder_stands_for_its_teacher(finished_run):
    of_run, of_teacher = (SemiMedRef.from_pretrained(folder) for folder in (finished_run, finished_run / "teacher"))
    assert np.array_equal(of_run.predict(FIRST, REPORT).mask, of_teacher.predict(FIRST, REPORT).mask)


def test_what_is_saved_or_pushed_comes_back(model, tmp_path, monkeypatch):
    pushed = {}

    class Hub:
        def __init__(self, *_, **__): ...

        def create_repo(self, **about):
            return type("Url", (), {"repo_id": about["repo_id"]})

        def upload_folder(self, *, folder_path, **_):
            for path in folder_path.iterdir():
                pushed[path.name] = path.read_bytes()

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    model.push_to_hub("somebody/phantom")
    model.save_pretrained(tmp_path / "saved")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    assert pushed == saved and set(saved) == {"config.json", "model.safetensors", "README.md"}
    assert b"not a medical device" in saved["README.md"] and b"dice_image 87.6 %" in saved["README.md"]

    asked = []
    monkeypatch.setattr(inference, "find", lambda source, files: (asked.append((source, files)), tmp_path / "saved")[1])
    pinned = "somebody/phantom@" + "0" * 40
    again = SemiMedRef.from_pretrained(pinned)
    assert [source for source, _ in asked] == [pinned] * 2
    assert np.array_equal(again.predict(FIRST, REPORT).probability, model.predict(FIRST, REPORT).probability)


def test_predict_without_arguments_shows_the_network_of_the_package(semimedref, tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    outcome = semimedref("predict")
    assert outcome.status == 0 and REPORT in outcome.text and "phantom_1_overlay.png" in outcome.text
    mask = np.array(Image.open(tmp_path / "phantom_1_mask.png")) > 0
    assert np.array_equal(mask, model.predict(FIRST, REPORT).mask)
    half = semimedref("predict", image=FIRST)
    assert half.status == 1 and "give --image and --report together" in half.errors


@pytest.mark.parametrize("name", ["compact"])
def test_an_exported_network_gives_what_the_eager_one_gives(name):
    network, _ = from_pretrained(example.MODEL)
    inputs = torch.randn(2, 1, 96, 96), torch.tensor([[2, 5, 7, 8, 0, 0], [2, 6, 7, 8, 16, 0]])
    program = torch.export.export(network, inputs)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*inputs).logits, network(*inputs).logits)


def test_pairs_of_arrays_say_what_they_are():
    pairs = Pairs(np.zeros((2, 8, 8, 3), np.uint8), None, (None, None), ("a", "b"))
    assert repr(pairs) == "Pairs(2 of 8 x 8 px, colour, without masks)"


@pytest.mark.parametrize("text", [None, 7, ["a text"]])
@pytest.mark.parametrize("about", [{}, {"trained_on": "folder"}])
def test_a_report_that_is_no_text_is_refused(text, about):
    with pytest.raises(ReportError, match="a report is a text, got (NoneType|int|list)"):
        report_asked(text, about)


@pytest.mark.parametrize("about", [{}, {"trained_on": "folder"}])
def test_a_report_with_half_a_character_is_refused(about):
    with pytest.raises(ReportError, match="the report holds half a character"):
        report_asked("Haze \ud83d", about)
