"""The page of ``semimedref demo``: a sentence is changed, and the mask follows."""

import base64
import io
import json
import re
import threading
import webbrowser
from http.client import HTTPConnection

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from semimedref_core import SemiMedRef, build_network, build_texts, example
from semimedref_core.demo.answer import Demo
from semimedref_core.demo.server import LARGEST, PAGE, PageServer
from semimedref_core.inference import Segmentation
from semimedref_core.reports import ReportError

(FIRST, REPORT), *_ = example.pictures().items()
SWAPPED = REPORT.replace("right", "left")


@pytest.fixture(scope="module")
def demo():
    return Demo(SemiMedRef.from_pretrained(), example.pictures())


@pytest.fixture(scope="module")
def server(demo):
    with PageServer(demo, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def own(about: dict) -> Demo:
    """The page of an untrained network for free texts."""
    about = {"network": "compact", "image_size": 32, "trained_on": "folder", "text_sides": "image", **about}
    return Demo(SemiMedRef(build_network("compact"), build_texts(), about), {})


def ask(server, question, path="/answer", kind="application/json", host="localhost", method="POST") -> tuple[int, dict]:
    """Status and answer, as a browser gets them."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    headers = {"Content-Type": kind, "Host": f"{host}:{server.server_port}"}
    connection.request(method, path, json.dumps(question), headers)
    got = connection.getresponse()
    body, told = got.read(), got.headers.get_content_type() == "application/json"
    connection.close()
    return got.status, json.loads(body) if told else {}


def across(outline: str) -> list[float]:
    """How far from the left each point of an outline lies, in px."""
    return [float(x) for x in re.findall(r"[ML](-?[\d.]+) ", outline)]


def pixels(address: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,")))))


def sent(picture: Image.Image, kind: str) -> str:
    """A file of a picture, as the page sends one."""
    file = io.BytesIO()
    picture.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("body", [b"{bad", b"\xff\xfe", b"[" * 100_000, b""])
def test_a_request_that_is_no_json_gets_a_reason_and_no_traceback(server, capfd, body):
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request("POST", "/answer", body, {"Content-Type": "application/json"})
    got = connection.getresponse()
    assert got.status == 400 and "the request is no JSON" in json.loads(got.read())["error"]
    connection.close()
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_request_of_a_negative_length_is_refused_at_once(server):
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest("POST", "/answer")
    for name, value in (("Content-Type", "application/json"), ("Content-Length", "-1")):
        connection.putheader(name, value)
    connection.endheaders()
    got = connection.getresponse()
    assert got.status == 400 and "does not say its length" in json.loads(got.read())["error"]
    connection.close()


# What the page is told


def test_outline_and_zones_follow_the_sentence(demo):
    answer = demo.answer(FIRST, REPORT)
    assert answer.zones == (0, 0, 0, 0, 1, 0) and answer.said.startswith("Read: right middle. Found on 1.")
    assert min(across(answer.outline)) > answer.size[0] / 2
    assert np.array_equal(pixels(answer.picture), np.array(Image.open(FIRST)))
    height, width, _ = pixels(answer.probability).shape
    assert (width, height) == answer.size
    other = demo.answer(FIRST, answer.swapped)
    assert other.zones == (0, 1, 0, 0, 0, 0) and max(across(other.outline)) < answer.size[0] / 2
    assert other.swapped == REPORT


@pytest.mark.parametrize("value, said, outlined", [
    (0.25, "Found nothing; the highest probability is 0.25.", False),
    (1.0, "Found on 100.0 % of the picture; the highest probability is 1.00.", True),
])  # fmt: skip
def test_there_is_no_outline_of_nothing_and_a_closed_one_of_everything(demo, monkeypatch, value, said, outlined):
    found = Segmentation(np.zeros((8, 8), np.uint8), REPORT, np.full((8, 8), value, np.float32))
    monkeypatch.setattr(demo.model, "predict", lambda *_: found)
    answer = demo.answer(FIRST, REPORT)
    assert answer.said == f"Read: right middle. {said}" and answer.outline.endswith("Z") == outlined
    points = across(answer.outline)
    assert (min(points) <= 0 and max(points) >= 8) if outlined else points == []


def test_a_large_picture_is_shown_smaller_and_a_small_one_as_it_is(demo, tmp_path):
    for size, shown in (((1600, 800), (640, 320)), ((40, 30), (40, 30))):
        Image.open(FIRST).resize(size).save(tmp_path / "x.png")
        answer = demo.answer(tmp_path / "x.png", REPORT)
        assert answer.size == shown
        assert pixels(answer.picture).shape == pixels(answer.probability).shape[:2] == shown[::-1]


def test_the_zones_are_those_of_the_network_s_texts():
    demo = own({"positions": "quadrants"})
    zones = [zone["name"] for zone in demo.start()["zones"]]
    assert zones == ["left upper", "left lower", "right upper", "right lower"]
    answer = demo.answer(FIRST, "Brown spot in the lower right corner")
    assert answer.zones == (0, 0, 0, 1) and answer.said.startswith("Read: right lower. ")
    assert answer.swapped == "Brown spot in the lower left corner"
    assert demo.answer(FIRST, "A brown spot").said.startswith("Read: no zone. ")
    with pytest.raises(ReportError, match="expected"):
        Demo(SemiMedRef.from_pretrained(), {}).answer(FIRST, "Brown spot in the lower right corner")


@pytest.mark.parametrize(
    "positions, note", [("none", ""), ("gone/clock.csv", "Zones are not shown: gone/clock.csv: no ")]
)
def test_a_network_without_zones_or_whose_table_is_gone_is_asked_all_the_same(positions, note):
    demo = own({"positions": positions})
    assert demo.start()["zones"] == [] and demo.start()["note"].startswith(note)
    answer = demo.answer(FIRST, "Brown spot in the lower right corner")
    assert answer.zones == () and answer.said.startswith("Found ")


# The server


def test_a_picture_of_one_s_own_is_read_as_predict_reads_it(server, demo):
    deep = Image.fromarray(np.asarray(Image.open(FIRST)).astype(np.uint16) * 16)
    for kind, picture in (("JPEG", Image.open(FIRST)), ("TIFF", deep), ("PNG", Image.open(FIRST).convert("RGB"))):
        status, answer = ask(server, {"text": REPORT, "name": f"mine.{kind}", "data": sent(picture, kind)})
        assert status == 200 and answer["zones"] == [0, 0, 0, 0, 1, 0], answer
        assert np.abs(pixels(answer["picture"]).astype(int) - np.array(Image.open(FIRST))).mean() < 6  # a JPEG of noise
    status, answer = ask(server, {"text": REPORT, "example": 0})
    assert status == 200 and answer["outline"] == demo.answer(FIRST, REPORT).outline


@pytest.mark.parametrize("question, message", [
    ({"text": "both lungs", "example": 0}, r"cannot read the report 'both lungs': expected"),
    ({"text": REPORT, "name": "../x.png", "data": "AAAA"}, r"^\.\./x\.png: cannot be read .*give a PNG or JPEG"),
    ({"text": REPORT, "name": "x.png", "data": ""}, r"^x\.png: cannot be read as an image"),
    ({"text": REPORT, "name": "x.png", "data": "?"}, "this is not a request of the page"),
    ({"text": REPORT, "name": "x.png", "data": "ä"}, "this is not a request of the page"),
    ({"text": REPORT, "name": "x.png", "data": "\ud800"}, "this is not a request of the page"),
    ({"text": REPORT, "example": 7}, "this is not a request of the page"),
    ({"text": REPORT}, "this is not a request of the page"),
    ([], "this is not a request of the page"),
])  # fmt: skip
def test_what_cannot_be_answered_is_told_in_plain_words(server, question, message):
    status, answer = ask(server, question)
    assert status == 422 and re.search(message, answer["error"]), answer


def test_a_picture_that_is_too_large_is_refused_before_it_is_read(server):
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest("POST", "/answer")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(LARGEST + 1))
    connection.endheaders()
    assert "larger than 100 MB" in json.loads(connection.getresponse().read())["error"]
    connection.close()


@pytest.mark.parametrize("how, status", [
    ({"host": "somewhere.example"}, 403), ({"host": "somewhere.example", "method": "GET", "path": "/start"}, 403),
    ({"kind": "text/plain"}, 400), ({"path": "/"}, 400), ({"method": "GET", "path": "/../server.py"}, 404),
])  # fmt: skip
def test_other_sites_are_not_answered_and_no_file_is_given_away(server, how, status):
    assert ask(server, {"text": REPORT, "example": 0}, **how) == (status, {})


# The command


@pytest.fixture
def opened(monkeypatch):
    """The addresses that were opened. The server ends at once, as by Ctrl-C."""

    def stop(_):
        raise KeyboardInterrupt

    addresses = []
    monkeypatch.setattr(webbrowser, "open", addresses.append)
    monkeypatch.setattr(PageServer, "serve_forever", stop)
    return addresses


def test_the_command_tells_the_address_opens_it_and_ends_by_ctrl_c(command_line, opened):
    outcome = command_line("demo", "--port", 0)
    assert outcome.status == 130 and outcome.errors == "semimedref demo: stopped\n"
    assert opened == re.findall(r"http://127\.0\.0\.1:\d+/", outcome.text)
    assert command_line("demo", "--port", 0, "--no-browser").status == 130 and len(opened) == 1


def test_a_port_that_is_taken_is_told(command_line, opened, server):
    outcome = command_line("demo", "--port", server.server_port)
    assert outcome.status == 1 and f"port {server.server_port} is in use; give another --port" in outcome.errors


def test_a_network_of_one_s_own_begins_with_pictures_of_one_s_own(command_line, opened, monkeypatch, tmp_path):
    begun = []
    monkeypatch.setattr(SemiMedRef, "from_pretrained", lambda source, device: own({"positions": "quadrants"}).model)
    monkeypatch.setattr(PageServer, "serve_forever", lambda server: begun.append(server.demo.start()["examples"]))
    assert command_line("demo", "--checkpoint", tmp_path, "--port", 0).status == 0 and begun == [[]]


# In a browser


def test_in_a_browser_the_outline_follows_what_is_typed_and_nothing_comes_from_elsewhere(browser, server, tmp_path):
    page, asked, broken = browser.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(server.address)
    text, said, outline = page.get_by_label("The sentence"), page.get_by_role("status"), page.locator("#drawn path")
    named = page.locator("#map .named title")
    expect(said).to_contain_text("Read: right middle. Found")
    expect(named).to_have_text("right middle")
    right = across(outline.get_attribute("d"))
    text.fill(SWAPPED)
    expect(said).to_contain_text("Read: left middle. Found")
    assert max(across(outline.get_attribute("d"))) < min(right)
    text.fill("haze in the left lung")
    expect(said).to_contain_text("cannot read the report")
    expect(named).to_have_count(0)
    page.get_by_role("button", name="Its own sentence").click()
    expect(text).to_have_value(REPORT)
    expect(said).to_contain_text("right middle")
    page.get_by_role("button", name="Swap left and right").click()
    expect(text).to_have_value(SWAPPED)
    expect(said).to_contain_text("left middle")
    page.get_by_role("button", name="phantom 2").click()
    expect(said).to_contain_text("Read: left lower, right lower.")

    Image.open(FIRST).resize((300, 200)).save(tmp_path / "mine.tif")
    page.get_by_label("Open a picture").set_input_files(tmp_path / "mine.tif")
    expect(page.locator("#drawn")).to_have_attribute("viewBox", "0 0 300 200")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.get_by_label("Open a picture").set_input_files(tmp_path / "broken.png")
    expect(said).to_contain_text("broken.png: cannot be read as an image")
    assert all(len(picture.get_attribute("alt")) > 8 for picture in page.locator("img").all())
    assert broken == [] and {address.split(":")[0] for address in asked} <= {"http", "data"}
    assert all(address.startswith((server.address, "data:")) for address in asked)
    page.close()


def test_without_a_sentence_the_page_fades_and_shows_no_answer_to_an_older_one(browser, server, tmp_path):
    page = browser.new_page()
    page.goto(server.address)
    said, text, shown = page.get_by_role("status"), page.get_by_label("The sentence"), page.locator("#shown")
    swap, named = page.get_by_role("button", name="Swap left and right"), page.locator("#map .named")
    expect(said).to_contain_text("right middle")
    held = []
    page.route("**/answer", lambda route: held.append(route))
    with page.expect_request("**/answer"):
        text.fill(SWAPPED)
    text.fill(" ")
    expect(said).to_have_text("Now write what the picture shows.")
    with page.expect_response("**/answer") as got:
        held[0].continue_()
    got.value.finished()
    page.wait_for_timeout(100)  # so that a page that shows it would have done so
    expect(said).to_have_text("Now write what the picture shows.")
    Image.open(FIRST).save(tmp_path / "mine.png")
    page.get_by_label("Open a picture").set_input_files(tmp_path / "mine.png")
    expect(page.locator("#opened")).to_have_text("mine.png")
    expect(said).to_have_text("Now write what the picture shows.")
    expect(shown).to_have_class("old")
    expect(swap).to_be_disabled()
    expect(named).to_have_count(0)
    assert len(held) == 1
    page.close()


def test_the_page_names_no_address():
    assert set(re.findall(r"https?://[^\"' ]+", PAGE.read_text(encoding="utf-8"))) == {"http://www.w3.org/2000/svg"}
