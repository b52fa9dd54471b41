"""The roofline: what each form reaches, under what the machine can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from semimedref_kernels.benchmark.record import matrix_ceiling

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, safe for the colour-blind; markers differ too. Forms of one kind share a style: the two
# operations lie far apart.
STYLES = {
    "ours": ("ours", "o", "#D55E00"),
    "plain form": ("plain form", "D", "#56B4E9"),
    "where": ("eager (where, dense)", "s", "#0072B2"),
    "dense": ("eager (where, dense)", "s", "#0072B2"),
    "where, compiled": ("the same, compiled", "^", "#009E73"),
    "dense, compiled": ("the same, compiled", "^", "#009E73"),
    "row chunks": ("row chunks", "v", "#CC79A7"),
    "loop, masks": ("loop, a mask a sample", "x", "#000000"),
    "loop, slices": ("loop, slices", "+", "#E69F00"),
    "loop, pairs": ("loop over pairs", "1", "#CC79A7"),
}
STEP = 1.16  # cases of the same intensity stand beside each other, this factor apart


def roofline(record: dict[str, Any]) -> Figure:
    """Operations a second against operations a byte, forward and backward, one row of panels a type.

    The work is what must be done, the same for every form of a case: a point that is twice as high takes half the time.
    Times without launches are taken where there are some.

    Raises:
        ImportError: without matplotlib, which nothing else here needs.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the roofline needs matplotlib: pip install matplotlib") from error
    timed = [row for row in record["rows"] if row["ms"]]
    dtypes = [dtype for dtype in ("fp32", "bf16") if any(row["dtype"] == dtype for row in timed)]
    figure = Figure(figsize=(11, 0.9 + 4.3 * len(dtypes)), layout="constrained")
    axes = figure.subplots(len(dtypes), 2, squeeze=False, sharex=True, sharey=True)
    handles = {}
    for line, dtype in zip(axes, dtypes, strict=True):
        for ax, part in zip(line, ("forward", "backward"), strict=True):
            rows = [row for row in timed if row["dtype"] == dtype and row["part"] == part]
            handles |= points(ax, rows)
            roof(ax, record["ceilings"], dtype)
            ax.set_title(f"{part}, {dtype}", fontsize=11)
    for ax in axes[-1]:
        ax.set_xlabel("operations a byte (cases of equal intensity stand side by side)")
    for ax in axes[:, 0]:
        ax.set_ylabel("operations a second")
    title = record["device"]["name"] + (f" ({record['note']})" if record["note"] else "")
    figure.suptitle(title, fontsize=12)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(6, len(handles)), frameon=False)
    return figure


def points(ax, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Draws the rows of one panel; gives the legend's entries."""
    cases = {}
    for row in rows:
        cases.setdefault((row["op"], *row["sizes"].values()), []).append(row)
    columns = {}
    for key, forms in cases.items():
        columns.setdefault((key[0], f"{intensity(forms[0]):.1g}"), []).append(forms)
    handles = {}
    for (op, _), column in columns.items():
        for k, forms in enumerate(column):
            x = intensity(forms[0]) * STEP ** (k - (len(column) - 1) / 2)
            rates = [row["operations"] / (row["graph_ms"] or row["ms"])["median"] * 1e3 for row in forms]
            ax.plot([x, x], [min(rates), max(rates)], color="0.75", linewidth=0.8, zorder=1)
            for row, rate in zip(forms, rates, strict=True):
                label, marker, colour = STYLES[row["form"]]
                size, depth = (8, 4) if row["form"] == "ours" else (6, 3)
                drawn = ax.plot(x, rate, marker, color=colour, markersize=size, zorder=depth, linestyle="none")
                handles[label] = drawn[0]
        sizes = column[0][0]["sizes"]
        bottom = min(row["operations"] / (row["graph_ms"] or row["ms"])["median"] * 1e3 for f in column for row in f)
        text = "patch_mix" if op == "patch_mix" else f"N={sizes['N']}"
        ax.annotate(text, (intensity(column[0][0]), bottom), (0, -9), textcoords="offset points",
                    ha="center", va="top", fontsize=8)  # fmt: skip
    return handles


def intensity(row: dict[str, Any]) -> float:
    return row["operations"] / row["bytes"]


def roof(ax, ceilings: dict[str, Any], dtype: str) -> None:
    """The two measured ceilings: bytes a second below the ridge, operations a second above."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    copy, rate = ceilings["copy"], matrix_ceiling(ceilings, dtype)
    low, high = ax.get_xlim()
    low, high, ridge = low / 1.3, high * 1.3, rate / copy
    xs = sorted({low, min(max(ridge, low), high), high})
    ax.plot(xs, [min(copy * x, rate) for x in xs], color="black", linewidth=1.4, zorder=2)
    ax.text(low * 1.2, copy * low * 1.9, f"copy {copy / 1e9:.3g} GB/s", fontsize=8)
    ax.text(high, rate * 1.25, f"matrix product {rate / 1e12:.3g} TFLOP/s", ha="right", fontsize=8)
    ax.set_xlim(low, high)
    ax.grid(True, which="major", color="0.92", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
