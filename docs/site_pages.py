"""What makes a site of a checkout that reads well on its own: the order of pages, the API, and links to sources.

The pages hold nothing that Sphinx alone understands, but for comments in ``docs/api/`` that say whose modules and names
are listed there.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import shutil
from functools import cache
from pathlib import Path

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.fileutil import copy_asset

import semimedref_core
import semimedref_kernels

CONTENTS = {
    "Notebooks": ["notebooks/*"],
    "Pages": [f"docs/{name}" for name in "install data own_data training methods additions results *".split()],
    "API": [f"docs/api/{name}" for name in "index method networks data methods runtime *".split()],
    "Project": ["CONTRIBUTING", "CHANGELOG", "kernels/README", "notebooks/*/README", "semimedref_core/**/README"],
}
MODULES = re.compile(r"<!-- modules: (.+) -->")
PUBLIC_NAMES = re.compile(r"<!-- public names: (\w+) -->")


def setup(app: Sphinx) -> dict:
    app.add_lexer("csv", TextLexer)  # code hosts know this name
    app.add_config_value("mathjax_folder", None, "", types=())
    app.connect("source-read", _write)
    app.connect("autodoc-process-docstring", _as_a_sentence, priority=100)  # before napoleon
    app.connect("object-description-transform", _without_value)
    app.connect("doctree-read", _link_sources, priority=100)  # before Sphinx collects what is to be downloaded
    app.connect("missing-reference", _where_it_is_defined)
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write(app: Sphinx, page: str, source: list[str]) -> None:
    """Gives the front page the table of contents, and each API page what its comments ask for."""
    if page == app.config.root_doc:
        for caption, pages in CONTENTS.items():
            listed = "\n".join(pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:glob:\n:titlesonly:\n:caption: {caption}\n\n{listed}\n```\n"
    elif page.startswith("docs/api/"):
        text = PUBLIC_NAMES.sub(lambda found: _public_names(found[1]), source[0])
        source[0] = MODULES.sub(lambda found: "\n".join(map(_modules, found[1].split())), text)
    elif app.env.doc2path(page).suffix == ".ipynb":
        source[0] = _with_words_for_pictures(source[0])


def _with_words_for_pictures(notebook: str) -> str:
    """Gives each picture that a cell shows its alternative text: its own, or else the heading that it stands under."""
    content, heading = json.loads(notebook), ""
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            heading = (re.findall(r"^#+ (.+)", "".join(cell["source"]), re.MULTILINE) or [heading])[-1]
        pictures = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        if pictures:
            own = [picture["metadata"].get("image/png", {}).get("alt") for picture in pictures]
            words = " ".join(filter(None, own)) or f"Figure of the section {heading}"
            cell["metadata"]["mystnb"] = {"image": {"alt": words}}
    return json.dumps(content)


def _public_names(package: str) -> str:
    """A table of what a package exports: each name with the first sentence of its help, and a link to all of it."""
    module = importlib.import_module(package)
    rows = ["| name | what it is |", "|---|---|"]
    for name in module.__all__:
        thing = getattr(module, name)
        summary = " ".join(thing.__doc__.split("\n\n")[0].split()).replace("|", r"\|")
        summary = re.sub(r":\w+:`~?", "`", summary)
        rows.append(f"| {{py:obj}}`{name} <{thing.__module__}.{thing.__qualname__}>` | {summary} |")
    return "\n".join(rows)


def _modules(name: str) -> str:
    """A section for each module below a package; for ``semimedref_core`` only its own, as its packages have pages."""
    package = importlib.import_module(name)
    alone = name == "semimedref_core"
    find = pkgutil.iter_modules if alone else pkgutil.walk_packages
    found = [module.name for module in find(package.__path__, f"{name}.") if not (alone and module.ispkg)]
    return "\n".join(_section(module) for module in (name, *found) if "._" not in module)


def _section(name: str) -> str:
    title = name.partition(".")[2] or name
    # What a package only hands on is told where it is defined.
    module = importlib.import_module(name)
    members = ":no-members:" if hasattr(module, "__path__") and hasattr(module, "__all__") else ""
    return f"## {title}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   {members}\n```\n"


def _as_a_sentence(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keeps napoleon from reading the words before a colon, in the help of an attribute, as its type."""
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\ ")  # nothing, for a reader


def _without_value(app: Sphinx, domain: str, kind: str, content: addnodes.desc_content) -> None:
    """Leaves out a constant's value: tables fill pages, and a path is one of the machine that builds."""
    for part in [*content.parent.findall(addnodes.desc_annotation)]:
        if part.astext().startswith(" = ") and part.parent in content.parent.children:
            part.parent.remove(part)


def _where_it_is_defined(app: Sphinx, env: BuildEnvironment, link: addnodes.pending_xref, text: nodes.TextElement):
    """Leads a reference to a name, as users import it, to the module that defines it."""
    package, _, name = link["reftarget"].rpartition(".")
    if link.get("refdomain") != "py" or package not in _packages():
        return None
    thing = getattr(importlib.import_module(package), name, None)
    place = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"
    return env.domains["py"].resolve_xref(env, link["refdoc"], app.builder, "obj", place, link, text)


@cache
def _packages() -> set[str]:
    """The names of our packages and of those within."""
    roots = semimedref_core, semimedref_kernels
    below = {module.name for root in roots for module in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")
             if module.ispkg}  # fmt: skip
    return below | {root.__name__ for root in roots}


def _link_sources(app: Sphinx, doctree: nodes.document) -> None:
    """Leads links to Python files to their page among the sources, and links to folders to the page about them."""
    page = app.env.current_document.docname
    for link in [*doctree.findall(addnodes.download_reference), *doctree.findall(addnodes.pending_xref)]:
        path = Path(app.env.relfn2path(link["reftarget"], page)[1]) if link.get("reftype") == "myst" else None
        if link["reftarget"].startswith("notebooks/") and link.get("reftargetid"):
            # Jupyter and code hosts keep capitals and signs in the anchor of a notebook's heading.
            link["reftargetid"] = re.sub(r"[^\w-]", "", link["reftargetid"].lower())
        to = path and _page_of(path.relative_to(app.srcdir), path.is_dir())
        if to:
            link.replace_self(nodes.reference("", "", *link.children, refuri=app.builder.get_relative_uri(page, to)))


def _page_of(path: Path, is_folder: bool) -> str:
    """The page about a folder, or of a module's source; empty for any other file, which is downloaded."""
    if is_folder:
        return f"docs/api/{path.name}" if path.parts[0] == "semimedref_core" else f"{path.as_posix()}/README"
    if path.suffix != ".py" or path.parts[0] not in ("semimedref_core", "kernels"):
        return ""
    parts = path.with_suffix("").parts
    return "/".join(("_modules", *parts[parts[0] == "kernels" :])).removesuffix("/__init__")


def _finish(app: Sphinx, error: Exception | None) -> None:
    """Adds MathJax, and an ``index.html``, which browsers and servers look for: the front page once more."""
    if error is None:
        source, target = app.config.mathjax_folder, app.outdir / "_static" / "mathjax"
        for part in ("tex-chtml.js", "output/chtml/fonts/woff-v2"):
            copy_asset(source / part, (target / part).parent if part.endswith(".js") else target / part)
        shutil.copy(app.outdir / f"{app.config.root_doc}.html", app.outdir / "index.html")
