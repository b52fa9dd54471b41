"""Notebooks as programs: papermill runs a paired percent-format notebook with parameters, in a separate folder."""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import jupytext
import nbformat
import papermill
from jupyter_client.kernelspec import get_kernel_spec
from papermill.iorw import papermill_io
from PIL import Image

from semimedref_core.errors import SemiMedRefError
from semimedref_core.experiments.shipped import notebooks_folder

KERNEL = "python3"
CELL_TIMEOUT = 3600  # seconds; papermill's default has no limit


class NotebookError(SemiMedRefError, RuntimeError):
    """A notebook could not be run. The message says which one, why, and what to do."""


def run_notebook(name: str, folder: str | Path, parameters: dict, timeout: int | None = CELL_TIMEOUT) -> Path:
    """Executes ``notebooks/<name>.py`` in a folder and keeps the executed notebook there.

    Args:
        name: name of the notebook, such as ``07_train``.
        folder: working directory of the notebook; created if missing.
        parameters: values for the notebook's cell ``parameters``.
        timeout: limit for each cell in seconds; ``None`` if something else stops slow cells.

    Returns:
        The executed notebook, ``<folder>/<name>.ipynb``; after an error it contains all output up to the failing cell.

    Raises:
        NotebookError: if there is no such notebook, it does not know a parameter, or a cell fails.
    """
    notebook, known = _source(name), parameters_of(name)
    unknown = [key for key in parameters if key not in known]
    if unknown:
        raise NotebookError(f"{name}: unknown parameters {', '.join(unknown)}; it has {', '.join(known)}")
    _require_own_kernel()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{name}.ipynb"
    try:
        papermill.execute_notebook(
            notebook,
            _as_it_is(output),
            parameters,
            cwd=str(folder),
            kernel_name=KERNEL,
            progress_bar=False,
            execution_timeout=timeout,
            extra_arguments=["--log-level=ERROR"],  # otherwise the kernel warns of its local sockets
        )
    except papermill.PapermillExecutionError as error:
        raise NotebookError(f"{output}: cell {error.exec_count} failed with {error.ename}: {error.evalue}") from None
    finally:
        _forget_where_it_ran(output)
    return output


def _as_it_is(path: Path) -> str:
    """Escapes the braces of a path; otherwise papermill would replace them by parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _require_own_kernel() -> None:
    """Checks that notebooks run with this Python, so that records describe the Python that executed them.

    Raises:
        NotebookError: if the kernel belongs to another Python.
    """
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    python = get_kernel_spec(KERNEL).argv[0]
    if os.path.isabs(python) and os.path.dirname(os.path.abspath(python)) != os.path.dirname(sys.executable):
        raise NotebookError(
            f"the kernel {KERNEL} starts {python}, but the record would name {sys.executable}; "
            f"run `{sys.executable} -m ipykernel install --sys-prefix`"
        )


def parameters_of(name: str) -> list[str]:
    """The names of a notebook's parameters."""
    return list(papermill.inspect_notebook(_source(name)))


def _source(name: str) -> nbformat.NotebookNode:
    source = notebooks_folder() / f"{name}.py"
    if not source.is_file():
        raise NotebookError(f"{source}: no such notebook; reinstall semimedref, or choose another name")
    return jupytext.read(source)


def put(store: str, folder: Path, names: Iterable[str]) -> None:
    """Copies the existing ones of these text files to ``<store>/<name of the folder>/``.

    Args:
        store: a folder, or an address for which papermill has a handler, such as ``s3://bucket/prefix``.
        folder: its files are copied, but not those of its subfolders.
        names: names of the files.

    Raises:
        NotebookError: if the store cannot be written to.
    """
    place = f"{store.rstrip('/')}/{folder.name}"
    try:
        if "://" not in store:
            Path(place).mkdir(parents=True, exist_ok=True)
        for name in names:
            if (folder / name).is_file():
                path = f"{place}/{name}"
                papermill_io.get_handler(path).write((folder / name).read_text(encoding="utf-8"), path)
    except Exception as error:  # each handler raises different errors
        raise NotebookError(
            f"{place}: cannot be written ({' '.join(str(error).split())}); check the address and the rights, and "
            "install the papermill extra for such addresses, for example papermill[s3]"
        ) from None


def _forget_where_it_ran(notebook: Path) -> None:
    """Removes the paths that papermill stores in the notebook, since they name folders of this machine."""
    if notebook.exists():
        content = nbformat.read(notebook, as_version=4)
        content.metadata.get("papermill", {}).update(input_path=None, output_path=notebook.name)
        nbformat.write(content, notebook)


def _without_kernel(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output for readers without a kernel: the still picture of a widget, or nothing if it has none."""
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        output.data = data = {kind: value for kind, value in data.items() if kind.startswith("image/")}
        if not data:
            return None
    if "image/png" in data:
        data["image/png"] = packed(data["image/png"])
    return output


def packed(picture: str) -> str:
    """Packs a base64 PNG in fewer bytes with the same pixels: unused transparency is dropped, and compression is
    strong."""
    shown, smaller = Image.open(io.BytesIO(base64.b64decode(picture))), io.BytesIO()
    opaque = shown.mode == "RGBA" and shown.getextrema()[3][0] == 255
    (shown.convert("RGB") if opaque else shown).save(smaller, "PNG", optimize=True)
    return min(base64.b64encode(smaller.getvalue()).decode(), picture, key=len)


def refresh(name: str) -> Path:
    """Runs a notebook with its defaults and saves the result beside its source, for readers who do not run it.

    The saved file has no progress bars, which mean nothing without a kernel, no book-keeping of papermill, and no
    standard error, which names folders of the machine. A widget is replaced by its still picture, if it has one.
    Pictures are packed again with the same pixels.

    Returns:
        ``notebooks/<name>.ipynb``.
    """
    with tempfile.TemporaryDirectory() as folder:
        notebook = nbformat.read(run_notebook(name, folder, {}), as_version=4)
    for holder in (notebook, *notebook.cells):
        holder.metadata.pop("papermill", None)
        holder.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = [o for o in map(_without_kernel, cell.outputs) if o and o.get("name") != "stderr"]
    pair = notebooks_folder() / f"{name}.ipynb"
    jupytext.write(notebook, pair)
    return pair
