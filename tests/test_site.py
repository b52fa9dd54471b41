"""The site that is built from the checkout: every page is there, nothing leads nowhere, and no network is needed."""

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import FunctionType
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = [
    "semimedref_core",
    *(f"semimedref_core.{name}" for name in "data methods experiments figures widgets tools teaching".split()),
    "semimedref_kernels",
]
FETCHED = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}


class Page(HTMLParser):
    """What a page of the site holds: its anchors, where it leads to, what it loads, and its pictures' words."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.anchors, self.leads, self.loads, self.words = path, set(), [], [], []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value)
            elif (tag, name) in FETCHED:
                self.loads.append(value)
            elif (tag, name) == ("a", "href"):
                self.leads.append(value)
        if tag == "img":
            self.words.append(dict(attrs).get("alt") or "")


def dead(page: Page, pages: dict[Path, Page]) -> list[str]:
    """The addresses on a page that lead nowhere within the site; those of the web are left out."""
    found = []
    for address in page.leads + page.loads:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https", "data", "mailto"):
            continue
        target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
        lost = parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
        if not target.is_file() or lost:
            found.append(address)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site's folder, built as CONTRIBUTING.md says; a warning is an error."""
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, *"-m sphinx -W --keep-going -q -c docs .".split(), str(folder)]
    assert " ".join(command[1:-1]) in (ROOT / "CONTRIBUTING.md").read_text()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_the_site_has_a_front_page_and_a_page_of_every_notebook_and_every_text(site):
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    assert [text for text in texts if not (site / text.relative_to(ROOT).with_suffix(".html")).is_file()] == []
    assert (site / "index.html").read_text() == (site / "README.html").read_text()


def test_every_link_leads_to_a_page_and_a_place_on_it(pages):
    assert {page.path: lost for page in pages.values() if (lost := dead(page, pages))} == {}


def test_a_lost_page_or_place_is_noticed(tmp_path):
    (tmp_path / "a.html").write_text('<p id="here"><a href="#here">1</a><a href="#gone">2</a><a href="b.html">3</a>')
    page = Page(tmp_path / "a.html")
    assert dead(page, {page.path: page}) == ["#gone", "b.html"]


def test_a_page_is_read_without_a_network(pages):
    fetched = {address for page in pages.values() for address in page.loads if urlsplit(address).netloc}
    assert fetched == set()


def test_every_picture_has_words_for_who_cannot_see_it(pages):
    assert {page.path.name for page in pages.values() if not all(page.words)} == set()
    assert sum(len(page.words) for page in pages.values()) > 40


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_that_a_package_exports_is_explained(package, pages):
    explained = {anchor for page in pages.values() for anchor in page.anchors}
    module = importlib.import_module(package)
    things = [thing for name in module.__all__ if isinstance(thing := getattr(module, name), type | FunctionType)]
    assert [thing for thing in things if f"{thing.__module__}.{thing.__qualname__}" not in explained] == []


def test_no_page_names_folders_of_the_machine_that_built_it(site, pages):
    folders = re.compile("|".join(re.escape(str(folder)) for folder in (ROOT, Path.home(), site.parent)))
    assert [page.path.name for page in pages.values() if folders.search(page.text)] == []
