"""The widgets in a real browser: the notebooks in JupyterLab and Notebook 7, in headless Chromium, by keyboard."""

import base64
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from semimedref_core.experiments.shipped import notebooks_folder
from semimedref_core.figures.canvas import GREEN, PREDICTED
from semimedref_core.figures.mixing import COMES, PATCH
from semimedref_core.figures.posaug import KINDS
from semimedref_core.posaug import FUZZY_PHRASE, MASK_TOKEN
from semimedref_core.reports import ZONES, Report

# All cells of each notebook are run; what takes long in them is made small.
SMALL = {
    "03_posaug": {"draws": 200},
    "04_t_patchmix": {"mixes": 40, "steps": 1},
    "05_itcl": {"steps": 4},
    "07_train": {"steps": 12, "image_size": 32, "batch_size": 4, "eval_every": 4},
}
IN_NOTEBOOK_7 = "03_posaug"
SECONDS = 1000  # playwright counts milliseconds
PATIENCE = 240 * SECONDS  # four notebooks start at once
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells that are not on the screen are on the page too
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """``(address, token)`` of a Jupyter server with settings of its own, in a folder with the notebooks of SMALL."""
    folder = tmp_path_factory.mktemp("jupyter")
    for name, parameters in SMALL.items():
        notebook = jupytext.read(notebooks_folder() / f"{name}.py")
        cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        for parameter, value in parameters.items():
            cell.source, found = re.subn(rf"(?m)^{parameter} = .*", f"{parameter} = {value!r}", cell.source)
            assert found == 1, f"{name}: no parameter {parameter}"
        for program in ("lab", "notebook-7")[: 1 + (name == IN_NOTEBOOK_7)]:
            (folder / program).mkdir(exist_ok=True)
            jupytext.write(notebook, folder / program / f"{name}.ipynb")
    for path, values in SETTINGS.items():
        file = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / f"{path}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port=0", f"--ServerApp.root_dir={folder}"]
    with (
        open(folder / "server.log", "w") as log,
        subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log) as process,
    ):
        try:
            yield _started(process, folder)
        finally:
            process.terminate()


def _started(process: subprocess.Popen, folder: Path) -> tuple[str, str]:
    """Address and token, once the server has noted them."""
    note, deadline = folder / "runtime" / f"jpserver-{process.pid}.json", time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            about = json.loads(note.read_text())
            return about["url"], about["token"]
        except (FileNotFoundError, ValueError):
            time.sleep(0.1)
    raise RuntimeError(f"Jupyter did not start:\n{(folder / 'server.log').read_text()}")


@pytest.fixture(scope="module")
def pages(browser, server, tmp_path_factory):
    """Name -> page of each notebook in JupyterLab, and ``notebook-7``; all cells were told to run.

    What each looks like after the tests stays in pytest's folder, as a picture.
    """
    (address, token), pictures, opened = server, tmp_path_factory.mktemp("screenshots"), {}
    expect.set_options(timeout=PATIENCE)
    ways = {name: f"lab/workspaces/{name}/tree/lab/{name}.ipynb?reset&" for name in SMALL}
    ways["notebook-7"] = f"notebooks/notebook-7/{IN_NOTEBOOK_7}.ipynb?"
    try:
        for name, way in ways.items():
            page = opened[name] = browser.new_page(viewport={"width": 1280, "height": 1400})
            page.set_default_timeout(PATIENCE)
            page.broken = []
            page.on("pageerror", lambda error, broken=page.broken: broken.append(str(error)))
            page.goto(f"{address}{way}token={token}")
            # Without a kernel the notebook calls itself idle too, and asks for one when it is run.
            page.locator(".jp-Toolbar-kernelName, .jp-KernelName", has_text="Python 3").first.wait_for()
            page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        yield opened
    finally:
        for name, page in opened.items():
            page.screenshot(path=pictures / f"{name}.png")
            page.close()


class Shown:
    """The parts of the ``nth`` Explorer on a page, once all cells have run: a cell that ends takes the focus away."""

    def __init__(self, page: Page, nth: int = 0):
        self.area = page.locator(".jp-Cell", has=page.locator(".widget-html img")).nth(nth)
        self.area.wait_for()
        page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
        self.said = self.area.locator(".widget-html").nth(0)
        self.picture = self.area.locator(".widget-html img")
        self.picture.scroll_into_view_if_needed()

    def control(self, description: str) -> Locator:
        """What the keyboard moves, by the description beside it: a slider's handle, or a box to choose or type in."""
        box = self.area.locator(".jupyter-widgets", has=self.area.page.get_by_text(description, exact=True)).last
        return box.locator(".noUi-handle, select, input[type=text]").first

    def pixels(self) -> np.ndarray:
        """The picture, ``[H, W, 3]`` from 0 to 255."""
        source = self.picture.get_attribute("src").partition("base64,")[2]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB")).astype(int)

    def press(self, description: str, *keys: str) -> np.ndarray:
        """Presses keys on a control, waits for another picture, and returns it."""
        before, control = self.picture.get_attribute("src"), self.control(description)
        control.focus()
        for key in keys:
            self.area.page.keyboard.press(key)
        changed = "([area, before]) => area.querySelector('.widget-html img').src !== before"
        self.area.page.wait_for_function(changed, arg=[self.area.element_handle(), before])
        return self.pixels()


def of_colour(pixels: np.ndarray, colour: str, opacity: float = 1.0, within: int = 6) -> np.ndarray:
    """Where a picture has this colour, on white."""
    wanted = 255 * (opacity * np.array(to_rgb(colour)) + 1 - opacity)
    return np.abs(pixels - wanted).max(-1) < within


def test_posaug_a_phrase_that_is_hit_changes_in_text_and_picture_while_the_zones_stay(pages):
    shown = Shown(pages["03_posaug"])
    zones = shown.said.inner_text().partition("Zones for ITCL")[2]
    _marks_agree(shown.pixels(), shown.said.inner_text())
    for key, unhit in (("Home", True), ("End", False)):  # p = 0, p = 1
        pixels, line = shown.press("p", key), shown.said.inner_text()
        assert ("all left lung" in line) == ("middle lower right lung" in line) == unhit
        assert line.partition("Zones for ITCL")[2] == zones
        _marks_agree(pixels, line)


def _marks_agree(pixels: np.ndarray, line: str) -> None:
    """What the line says the student reads is what is marked in the picture; letters have a few dark pixels too."""
    for kind, phrase in {"mask": MASK_TOKEN, "fuzz": FUZZY_PHRASE}.items():
        assert (of_colour(pixels, *KINDS[kind][:2]).sum() > 700) == (phrase in line), (kind, line)


def test_notebook_7_shows_the_widget_and_answers_a_number_that_is_typed(pages):
    """Notebook 7 keeps the arrow keys for itself, also on a slider; the number beside it takes any."""
    shown = Shown(pages["notebook-7"])
    line, picture = shown.said.inner_text(), shown.picture.get_attribute("src")
    number = shown.control("seed").locator("xpath=ancestor::*[contains(@class, 'widget-slider')]//*[@contenteditable]")
    number.fill("1")
    number.press("Enter")
    expect(shown.picture).not_to_have_attribute("src", picture)
    expect(shown.said).not_to_have_text(line)
    _marks_agree(shown.pixels(), shown.said.inner_text())


def test_t_patchmix_image_outline_and_text_are_mixed_together_and_refused_together(pages):
    """Eq. 5 to 8: the gate is above the patch's mean, then one step lower, and back."""
    shown = Shown(pages["04_t_patchmix"])
    zone, at_first = ZONES.index(shown.control("zone").input_value()), shown.pixels()
    accepted = shown.press("gate", "ArrowLeft")
    line = shown.said.inner_text()
    assert Report.parse(line.partition("The text now reads: ")[2]).zones[zone] == 1
    rows, columns = np.nonzero(of_colour(_mixed(accepted), PATCH))
    patch = slice(rows.min(), rows.max()), slice(columns.min(), columns.max())
    refused = shown.press("gate", "ArrowRight")
    assert re.match(r"refused: mean probability 0.\d+ below the gate 0.\d+. Image, target and text stay",
                    shown.said.inner_text())  # fmt: skip
    assert np.array_equal(refused, at_first)
    assert not of_colour(_mixed(refused), PATCH).any(), "no frame around what was not pasted"
    assert (_mixed(accepted)[patch] != _mixed(refused)[patch]).mean() > 0.5, "another image"
    pasted, own = (of_colour(_mixed(pixels)[patch], PREDICTED) for pixels in (accepted, refused))
    assert pasted.any() and not np.array_equal(pasted, own), "outline of the pasted lesion, or of the sample's own"
    for pixels, pasted in ((accepted, True), (refused, False)):
        assert of_colour(pixels[int(0.8 * len(pixels)) :], COMES).any() == pasted, "words that came, marked"
    assert np.array_equal(shown.press("gate", "ArrowLeft"), accepted)
    expect(shown.said).to_have_text(line)
    _the_patch_moves_by_hand(shown, pages["04_t_patchmix"])


def _the_patch_moves_by_hand(shown: Shown, page: Page) -> None:
    """By pointer up to the edge of its zone and no further, by keys from there; sliders and picture follow."""
    pad = shown.area.get_by_role("application")
    pad.scroll_into_view_if_needed()
    patch, place, before = pad.locator("rect").last, pad.bounding_box(), shown.picture.get_attribute("src")
    frame = patch.bounding_box()
    page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2)
    page.mouse.down()
    page.mouse.move(place["x"] - 50, place["y"] - 50, steps=4)
    assert patch.bounding_box()["width"] < frame["width"], "the frame follows the pointer, and is cut at the edge"
    assert shown.picture.get_attribute("src") == before, "the answer waits until the patch is let go"
    page.mouse.up()
    for description in ("down in the zone", "across the zone"):
        expect(shown.control(description)).to_have_attribute("aria-valuenow", "0.0")
    expect(shown.area.get_by_role("status")).to_contain_text("at the edge of the zone's box")
    expect(shown.picture).not_to_have_attribute("src", before)
    expect(pad).to_have_attribute("aria-label", re.compile("0% down and 0% across"))
    pad.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(pad).to_have_attribute("aria-label", re.compile("0% down and 4% across"))
    expect(shown.control("down in the zone")).to_have_attribute("aria-valuenow", "0.0")


def _mixed(pixels: np.ndarray) -> np.ndarray:
    """The panel at the upper right: what the student sees."""
    return pixels[: int(0.42 * pixels.shape[0]), int(0.67 * pixels.shape[1]) :]


def test_itcl_hard_positives_leave_the_diagonal_alone_in_picture_and_text(pages):
    shown = Shown(pages["05_itcl"])
    soft = shown.said.inner_text()
    assert "soft positives, tau 0.070" in soft
    pixels = shown.press("positives", "Space", "ArrowDown", "Enter")
    assert "hard positives, tau 0.070" in shown.said.inner_text() and "below 0.000" in shown.said.inner_text()
    wanted = _wanted(pixels)
    assert of_colour(wanted, "#00224e").mean() == pytest.approx(11 / 12, abs=0.02), "12 pairs, each its own text alone"
    given = shown.press("tau", "Home")
    expect(shown.said).to_contain_text("hard positives, tau 0.005")
    assert np.array_equal(_wanted(given), wanted) and not np.array_equal(given, pixels), "the temperature moves softmax"


def _wanted(pixels: np.ndarray) -> np.ndarray:
    """The inside of the left heat map."""
    height, width = pixels.shape[:2]
    return pixels[int(0.12 * height) : int(0.9 * height), int(0.27 * width) : int(0.575 * width)]


def test_prediction_the_outline_shrinks_with_the_number_of_pixels_that_the_line_tells(pages):
    shown = Shown(pages["07_train"], 1)
    size, found = SMALL["07_train"]["image_size"], []
    for keys in (("Home",), ("ArrowRight",) * 6, ("End",)):
        pixels, line = shown.press("threshold", *keys), shown.said.inner_text()
        count = int(re.match(r"(\d+) lesion pixels predicted", line)[1])
        panel = pixels[: int(0.9 * len(pixels)), : pixels.shape[1] // 2]
        rows, columns = np.nonzero(of_colour(panel, PREDICTED))
        assert bool(len(rows)) == bool(0 < count < size**2), "an outline where something is found"
        found.append((count, np.ptp(rows) * np.ptp(columns) if len(rows) else 0))
    assert found[0][0] > found[1][0] > found[2][0], found


def test_an_unreadable_report_is_told_and_a_quick_choice_puts_it_right_in_picture_and_text(pages):
    shown = Shown(pages["07_train"], 1)
    text, choice = shown.control("text"), shown.control("report")
    before = shown.picture.get_attribute("src")
    text.fill("both <b>lungs</b>")
    text.press("Enter")
    expect(shown.said).to_contain_text("cannot read the report 'both <b>lungs</b>'")
    assert shown.picture.get_attribute("src") == before
    expect(choice).to_have_value("as typed")
    pixels = shown.press("report", "Space", "ArrowUp", "Enter")
    expect(text).to_have_value("unilateral pulmonary infection, one infected area, lower right lung.")
    expect(shown.said).to_contain_text("Dice")
    panel = pixels[: int(0.9 * len(pixels)), : pixels.shape[1] // 2]
    _, columns = np.nonzero(of_colour(panel, GREEN, within=40))  # dots on grey, whose edges are blended with it
    assert columns.min() > 0.2 * pixels.shape[1], "the box of the named zone is in the right half"


def test_every_control_is_reached_by_the_tab_key_in_the_order_shown(pages):
    shown = Shown(pages["07_train"], 1)
    shown.control("pair").focus()
    for description in ("report", "text", "threshold", "attention to"):
        for _ in range(3):  # a slider's number can be typed too, so it is a stop of its own
            pages["07_train"].keyboard.press("Tab")
            if shown.control(description).evaluate("element => element === document.activeElement"):
                break
        expect(shown.control(description)).to_be_focused(timeout=1 * SECONDS)


def test_the_replay_plays_to_its_end_and_goes_on_from_where_a_hand_has_put_it(pages):
    """A hand that moves it while it plays is not set back by a step that was on its way."""
    shown = Shown(pages["07_train"])
    steps = SMALL["07_train"]["steps"]
    button, play = shown.area.locator(".widget-play button").nth(0), shown.area.locator(".widget-play .fa-play")
    expect(shown.said).to_contain_text(f"step {steps} of {steps}")
    shown.press("step", "ArrowLeft")
    expect(shown.said).not_to_contain_text(f"step {steps} of {steps}")
    button.press("Enter")
    expect(shown.said).to_contain_text(f"step {steps} of {steps}")
    expect(play).to_be_visible()  # it stopped, and can be played again
    button.press("Enter")
    shown.control("step").press("End")
    expect(play).to_be_visible()
    expect(shown.said).to_contain_text(f"step {steps} of {steps}")


@pytest.mark.parametrize("name", [*SMALL, "notebook-7"])
def test_pictures_have_words_and_fit_a_narrow_window_and_nothing_went_wrong(pages, name):
    page = pages[name]
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
    page.set_viewport_size({"width": 760, "height": 1400})
    for output in page.locator(".jp-OutputArea-output", has=page.locator(".widget-html img")).all():
        assert output.evaluate("area => area.scrollWidth - area.clientWidth") <= 1, "cut, or to be scrolled"
    for picture in page.locator(".widget-html img").all():
        assert len(picture.get_attribute("alt")) > 20
    expect(page.locator("[data-mime-type='application/vnd.jupyter.error']")).to_have_count(0)
    if name != "notebook-7":  # which reports errors of its own plugins, with any notebook
        assert page.broken == []
