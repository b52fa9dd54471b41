"""Alternative texts of figures, for readers who cannot see them. A notebook stores them with the picture, as
``alt``."""

from __future__ import annotations

from IPython import get_ipython
from matplotlib.figure import Figure

MOST = 600  # letters; a screen reader needs half a minute for them


def words_of(figure: Figure) -> str:
    """The texts in a figure, panel by panel: titles, axes and legends, each only once."""
    said = [figure.get_suptitle()]
    for ax in figure.axes:
        said.append(ax.get_title())
        said += [f"{name}: {label}" for name, label in (("across", ax.get_xlabel()), ("up", ax.get_ylabel())) if label]
    for legend in filter(None, (*figure.legends, *(ax.get_legend() for ax in figure.axes))):
        said += [text.get_text() for text in legend.get_texts()]
    lines = dict.fromkeys(" ".join(text.split()) for text in said)
    panels = f"Figure with {len(figure.axes)} panel{'s' * (len(figure.axes) != 1)}"
    text = "; ".join((panels, *filter(None, lines)))
    return text if len(text) <= MOST else f"{text[:MOST]} …"


def speak() -> None:
    """Adds :func:`words_of` a figure to all figures that a notebook shows from now on. Outside notebooks it does
    nothing.

    nbconvert, the site and JupyterLab read ``alt`` from the metadata of an output.
    """
    if get_ipython() is None:
        return
    import matplotlib_inline.backend_inline  # noqa: F401 - its first import sets how figures are shown

    pictures = get_ipython().display_formatter.formatters["image/png"]
    drawn = pictures.for_type(Figure)
    if drawn is not None and not hasattr(drawn, "with_words"):

        def with_words(figure: Figure) -> tuple[str, dict] | None:
            picture = drawn(figure)
            return picture and (picture, {"alt": words_of(figure)})

        with_words.with_words = True
        pictures.for_type(Figure, with_words)
