"""The site: README, pages, executed notebooks and the API in one, from the checkout as it is. See CONTRIBUTING.md.

The source folder is the checkout, so that a link between pages, notebooks and sources is the same here and there.
Nothing is run, and nothing is fetched: what a page needs is copied into the site.
"""

import importlib.util
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "docs")]
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project, author = _PROJECT["name"], "The semimedref developers"
version = release = _PROJECT["version"]
copyright = "The semimedref developers, Apache-2.0"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "site_pages",
]
root_doc = "README"
include_patterns = [
    "*.md",
    "docs/**.md",
    "notebooks/*.ipynb",
    "notebooks/*/README.md",
    "kernels/README.md",
    "semimedref_core/**/README.md",
]
exclude_patterns = ["build", "runs", "shared", "**/.*", "**/*.egg-info", "**/__pycache__"]
nitpicky = True
# What other projects define; their pages are not read, so that a build needs no network.
nitpick_ignore_regex = [(r"py:.*", r"(?!semimedref).*")]

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # would be fetched; a widget's picture is shown in its place
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_render_markdown_format = "myst"  # so that links in tables that a notebook made are followed
nb_merge_streams = True

autodoc_default_options = {"members": True, "member-order": "bysource"}
toc_object_entries = False  # of some 2000 names; each page would hold them all, and the build take twice as long
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a class stand in its list, and are not defined a second time

viewcode_follow_imported_members = False  # a name that is only handed on has its source elsewhere

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_show_sphinx = False

# MathJax from a pip package, but only what shows TeX: the package as a Sphinx extension copies all its 24 MB.
mathjax_folder = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
mathjax_path = "mathjax/tex-chtml.js"
mathjax3_config = {"options": {"enableMenu": False}}  # its entries would load more
