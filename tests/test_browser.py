"""The widgets in a real browser: JupyterLab in headless Chromium, used by keyboard as a reader would."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page, expect, sync_playwright

IMPORTS = """
from pathlib import Path

from semimedref_core.anatomy import QATA
from semimedref_core.checkpoints import from_pretrained
from semimedref_core.data.phantom import phantom
from semimedref_core.networks import build_texts
from semimedref_core.widgets.prediction import prediction_explorer
from semimedref_core.widgets.replay import training_replay

run = Path({run!r})
"""
EXPLORER = 'prediction_explorer(from_pretrained(run / "teacher")[0], build_texts(), QATA, phantom("valid", 6, size=32))'
REPLAY = 'training_replay(run / "metrics.jsonl")'
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 1000  # playwright counts milliseconds
PATIENCE = 60 * SECONDS


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium. A laptop may lack one; CI may not."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if not found:
        cure = f"none of {', '.join(BROWSERS)} found; install one (Debian: apt-get install chromium)"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"no browser: {cure}")
        pytest.skip(f"no browser, so the widgets are tested without one: {cure}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory, finished_run):
    """The address of a notebook with the widgets, ``address(path)``, in a JupyterLab with settings of its own."""
    folder = tmp_path_factory.mktemp("lab")
    cells = (IMPORTS.format(run=str(finished_run)).strip(), EXPLORER, REPLAY)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(notebook, folder / "widgets.ipynb")
    quiet = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    kinds = ("CONFIG", "DATA", "RUNTIME")
    own = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in kinds}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port=0", f"--ServerApp.root_dir={folder}"]
    with (
        open(folder / "lab.log", "w") as log,
        subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=log) as server,
    ):
        try:
            about = _started(server, folder)
            yield f"{about['url']}lab/tree/widgets.ipynb?token={about['token']}&reset"
        finally:
            server.terminate()


def _started(server: subprocess.Popen, folder: Path) -> dict:
    """Address and token, once the server has noted them."""
    note, deadline = folder / "runtime" / f"jpserver-{server.pid}.json", time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return json.loads(note.read_text())
        except (FileNotFoundError, ValueError):
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{(folder / 'lab.log').read_text()}")


@pytest.fixture(scope="module")
def page(browser, lab, tmp_path_factory):
    """The notebook with all its cells run. What it looks like before and after the tests stays in pytest's folder."""
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.broken = []
    page.on("pageerror", lambda error: page.broken.append(str(error)))
    pictures = tmp_path_factory.mktemp("screenshots")
    try:
        page.goto(lab)
        # Without a kernel the notebook calls itself idle too, and asks for one when it is run.
        page.locator(".jp-Toolbar-kernelName", has_text="Python 3").wait_for()
        page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        expect(page.locator(".widget-html img")).to_have_count(2)
        page.screenshot(path=pictures / "before.png")
        yield page
    finally:
        page.screenshot(path=pictures / "after.png")
        page.close()


class Shown:
    """The parts of an Explorer on the page: ``cell`` is the number of the cell that shows it."""

    def __init__(self, page: Page, cell: int):
        self.area = page.locator(".jp-Cell").nth(cell)
        self.said = self.area.locator(".widget-html").nth(0)
        self.picture = self.area.locator(".widget-html img")
        self.handles = self.area.locator(".noUi-handle")

    def changes(self, act) -> None:
        """Does something and waits for another picture."""
        before = self.picture.get_attribute("src")
        act()
        changed = "([area, before]) => area.querySelector('.widget-html img').src !== before"
        self.area.page.wait_for_function(changed, arg=[self.area.element_handle(), before])


def test_a_slider_moved_by_keyboard_is_answered_by_a_line_and_a_picture(page):
    shown = Shown(page, 1)
    before = shown.said.inner_text()
    assert "lesion pixels predicted" in before and "Dice" in before
    shown.changes(lambda: shown.handles.nth(0).press("ArrowRight"))
    expect(shown.said).not_to_have_text(before)


def test_every_control_is_reached_by_the_tab_key_in_the_order_shown(page):
    shown = Shown(page, 1)
    controls = (
        shown.handles.nth(0),
        shown.area.get_by_role("combobox"),
        shown.area.get_by_role("textbox", name="text"),
    )
    shown.handles.nth(0).focus()
    for control in (*controls[1:], shown.handles.nth(1)):
        for _ in range(3):  # a slider's number can be typed too, so it is a stop of its own
            page.keyboard.press("Tab")
            if control.evaluate("element => element === document.activeElement"):
                break
        expect(control).to_be_focused(timeout=1 * SECONDS)


def test_an_unreadable_report_is_told_and_a_quick_choice_puts_it_right(page):
    shown = Shown(page, 1)
    text, choice = shown.area.get_by_role("textbox", name="text"), shown.area.get_by_role("combobox")
    before = shown.picture.get_attribute("src")
    text.fill("both <b>lungs</b>")
    text.press("Enter")
    expect(shown.said).to_contain_text("cannot read the report 'both <b>lungs</b>'")
    assert shown.picture.get_attribute("src") == before
    expect(choice).to_have_value("as typed")
    choice.focus()
    shown.changes(lambda: [page.keyboard.press(key) for key in ("Space", "ArrowUp", "Enter")])
    expect(text).to_have_value("unilateral pulmonary infection, one infected area, lower right lung.")
    expect(shown.said).to_contain_text("Dice")


def test_the_replay_goes_back_by_keyboard_and_forward_by_its_play_button(page):
    shown = Shown(page, 2)
    expect(shown.said).to_contain_text("step 4 of 4")
    shown.changes(lambda: shown.handles.nth(0).press("ArrowLeft"))
    expect(shown.said).to_contain_text("step 2 of 4")
    shown.changes(lambda: shown.area.locator(".widget-play button").nth(0).press("Enter"))
    expect(shown.said).to_contain_text("step 4 of 4")


def test_pictures_have_words_for_who_cannot_see_them_and_nothing_went_wrong(page):
    for cell in (1, 2):
        assert len(Shown(page, cell).picture.get_attribute("alt")) > 20
    for kind in ("error", "stderr"):
        expect(page.locator(f"[data-mime-type='application/vnd.jupyter.{kind}']")).to_have_count(0)
    assert page.broken == []
