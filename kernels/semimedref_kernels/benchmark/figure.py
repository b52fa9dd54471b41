"""The roofline: the rates of all forms below the ceilings of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semimedref_kernels.benchmark.record import matrix_ceiling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito's colours, which colour-blind readers can use; markers differ too. Similar forms share a style, because
# the two operations are far apart.
STYLES = {
    "ours": ("ours", "o", "#D55E00"),
    "plain form": ("plain form", "D", "#56B4E9"),
    "where": ("eager (where, dense)", "s", "#0072B2"),
    "dense": ("eager (where, dense)", "s", "#0072B2"),
    "cross entropy": ("eager (where, dense)", "s", "#0072B2"),
    "where, compiled": ("the same, compiled", "^", "#009E73"),
    "dense, compiled": ("the same, compiled", "^", "#009E73"),
    "cross entropy, compiled": ("the same, compiled", "^", "#009E73"),
    "gradients at once": ("row chunks, gradients at once", "<", "#CC79A7"),
    "row chunks": ("row chunks", "v", "#CC79A7"),
    "loop, masks": ("loop, a mask a sample", "x", "#000000"),
    "loop, slices": ("loop, slices", "+", "#E69F00"),
    "loop, pairs": ("loop over pairs", "1", "#CC79A7"),
}
STEP = 1.14  # distance factor of cases with the same intensity


def roofline(record: dict[str, Any]) -> Figure:
    """Operations per second over operations per byte, forward and backward, with one row of panels for each type.

    The work is the necessary work and the same for all forms of a case. So a point that is twice as high takes half the
    time. Times without launches are used if there are any.

    Raises:
        ImportError: without matplotlib, which only this function needs.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the roofline needs matplotlib: pip install matplotlib") from error
    timed = [row for row in record["rows"] if row["ms"] and row["part"] != "both"]
    dtypes = [dtype for dtype in ("fp32", "bf16") if any(row["dtype"] == dtype for row in timed)]
    figure = Figure(figsize=(11, 1.1 + 4.2 * len(dtypes)), layout="constrained")
    axes = figure.subplots(len(dtypes), 2, squeeze=False, sharex=True, sharey=True)
    xs, ys = [intensity(row) for row in timed], [rate(row) for row in timed]
    ys += [matrix_ceiling(record["ceilings"], dtype) for dtype in dtypes]
    handles = {}
    for line, dtype in zip(axes, dtypes, strict=True):
        for ax, part in zip(line, ("forward", "backward"), strict=True):
            ax.set(xscale="log", yscale="log", xlim=(min(xs) / 4, max(xs) * 2.5), ylim=(min(ys) / 5, max(ys) * 4))
            handles |= points(ax, [row for row in timed if row["dtype"] == dtype and row["part"] == part])
            roof(ax, record["ceilings"], dtype)
            ax.set_title(f"{part}, {dtype}", fontsize=12)
    for ax in axes[-1]:
        ax.set_xlabel("operations a byte (numbers: pairs N of the loss; sizes spread sideways)", fontsize=10)
    for ax in axes[:, 0]:
        ax.set_ylabel("operations a second", fontsize=10)
    title = record["device"]["name"] + (f" ({record['note']})" if record["note"] else "")
    figure.suptitle(title, fontsize=12)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False)
    return figure


def points(ax: Axes, rows: list[dict[str, Any]]) -> dict[str, Line2D]:
    """Draws the rows of one panel, with a column of forms for each case. Returns the entries of the legend."""
    neighbours = {}  # cases of about the same intensity: all of patch_mix, and the loss's widths at one N
    for row in rows:
        at = row["op"], row["sizes"].get("N")
        neighbours.setdefault(at, {}).setdefault(tuple(row["sizes"].values()), []).append(row)
    handles = {}
    for (op, N), columns in neighbours.items():
        for k, column in enumerate(columns.values()):
            x = intensity(column[0]) * STEP ** (k - (len(columns) - 1) / 2)
            rates = [rate(row) for row in column]
            ax.plot([x, x], [min(rates), max(rates)], color="0.8", linewidth=0.8, zorder=1)
            for row, y in zip(column, rates, strict=True):
                label, marker, colour = STYLES[row["form"]]
                style = {"color": colour, "markersize": 7, "linestyle": "none", "markeredgewidth": 1.4}
                if row["form"] != "ours":
                    style |= {"markerfacecolor": "none", "zorder": 3}
                (handles[label],) = ax.plot(x, y, marker, **style)
        everyone = [row for column in columns.values() for row in column]
        lowest = min(rate(row) for row in everyone)
        text = "patch_mix" if op == "patch_mix" else str(N)
        style = {"textcoords": "offset points", "ha": "center", "va": "top", "fontsize": 10}
        ax.annotate(text, (intensity(everyone[0]), lowest), (0, -8), **style)
    return handles


def intensity(row: dict[str, Any]) -> float:
    return row["operations"] / row["bytes"]


def rate(row: dict[str, Any]) -> float:
    """Operations per second, without launches if known."""
    return row["operations"] / (row["graph_ms"] or row["ms"])["median"] * 1e3


def roof(ax: Axes, ceilings: dict[str, Any], dtype: str) -> None:
    """Draws the two measured ceilings: bytes per second below the ridge, operations per second above."""
    copy, most = ceilings["copy"], matrix_ceiling(ceilings, dtype)
    low, high = ax.get_xlim()
    xs = (low, min(max(most / copy, low), high), high)
    ax.plot(xs, [min(copy * x, most) for x in xs], color="black", linewidth=1.4, zorder=2)
    copy_text, matrix_text = f"copy {copy / 1e9:,.4g} GB/s", f"matrix product {most / 1e9:,.3g} GFLOP/s"
    if most >= 1e12:
        matrix_text = f"matrix product {most / 1e12:.3g} TFLOP/s"
    ridge = xs[1]
    ax.annotate(copy_text, (ridge / 5, copy * ridge / 5), (-8, 2), textcoords="offset points", ha="right", fontsize=10)
    ax.annotate(matrix_text, (high, most), (0, 5), textcoords="offset points", ha="right", fontsize=10)
    ax.grid(True, which="major", color="0.92", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
