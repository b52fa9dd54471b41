"""Finished runs as tables to read: means over seeds, methods against label ratios, and those in its pages."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from semimedref_core.experiments.results import CONDITIONS, METRICS, SETTINGS, WITHOUT_HELP, without_help
from semimedref_core.runtime.atomic import atomic
from semimedref_core.runtime.checkpoints import CheckpointError


def results_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Metrics in per cent, mean ± standard deviation over seeds.

    Args:
        runs: of :func:`finished_runs`.

    Returns:
        One row for each method and network of runs that differ in nothing but the seed.
    """
    others = [name for name in CONDITIONS if name not in SETTINGS and runs[name].nunique() > 1]
    variant = ["variant"] if runs["variant"].any() else []
    groups = runs.groupby([*SETTINGS, *others, "method", *variant, "network"], sort=False)
    table = groups[METRICS].agg(_mean_and_spread)
    table.insert(0, "seeds", groups["seed"].nunique())
    return table


def _mean_and_spread(shares: pd.Series) -> str:
    """In per cent; no spread where there is one value only."""
    spread = f" ± {100 * shares.std():.1f}" if len(shares) > 1 else ""
    return f"{100 * shares.mean():.1f}{spread}"


def methods_by_ratio(runs: pd.DataFrame, metric: str = "dice_image", network: str = "teacher") -> pd.DataFrame:
    """One row a method, one column for each setting and label ratio: mean ± standard deviation over seeds, in per cent.

    Methods stand in the order of how far they are from the mean of a column, on average. Where a method has fewer seeds
    than others of the column, their number is added; a method that did not run there has an empty cell. Variants are
    left out.
    """
    chosen = runs[(runs["network"] == network) & (runs["variant"] == "")]
    means = chosen.groupby(["setting", "label_ratio", "method"])[metric].mean()
    apart = means - means.groupby(["setting", "label_ratio"]).transform("mean")
    table = pd.DataFrame("", index=apart.groupby("method").mean().sort_values().index, columns=[])
    for (setting, ratio), group in chosen.groupby(["setting", "label_ratio"], sort=False):
        seeds = group["seed"].nunique()
        cells = {
            method: _mean_and_spread(rows[metric]) + (f" ({len(rows)} of {seeds} seeds)" if len(rows) < seeds else "")
            for method, rows in group.groupby("method")
        }
        table[f"{setting}, {100 * ratio:g} %"] = pd.Series(cells)
    return table.fillna("")


def markdown_table(runs: pd.DataFrame) -> str:
    """:func:`methods_by_ratio` for a README, one row for each setting and label ratio, one column a method.

    In each cell Dice per image, below it micro, and how many seeds where others of the row have more; the best of a row
    in bold. A row of :func:`without_help` stands before the one that it belongs to.
    """
    metrics = "dice_image", "dice_micro"
    helped, bare = ([methods_by_ratio(some, metric) for metric in metrics] for some in (runs, without_help(runs)))
    methods = helped[0].index
    lines = [["", *map(_plain, methods)], ["---"] * (1 + len(methods))]
    for name in helped[0]:
        if name in bare[0]:
            lines.append([f"{_plain(name)}, {WITHOUT_HELP}", *_cells(bare, name, methods)])
        lines.append([_plain(name), *_cells(helped, name, methods)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(name: str) -> str:
    """A name as text of a Markdown table: no tag, no column and no line of its own."""
    return html.escape(" ".join(name.split()), quote=False).replace("|", "\\|")


def _cells(tables: list[pd.DataFrame], column: str, methods: pd.Index) -> list[str]:
    split = [table[column].reindex(methods, fill_value="").str.partition(" (") for table in tables]
    parts = [*(_best_in_bold(table[0]) for table in split), split[0][2].str.strip(")")]
    return ["<br>".join(filter(None, cell)) for cell in zip(*parts, strict=True)]


def _best_in_bold(cells: pd.Series) -> pd.Series:
    means = pd.to_numeric(cells.str.split().str[0])
    return cells.where((means < means.max()) | (means.count() < 2) | (cells == ""), "**" + cells + "**")


def write_between(path: str | Path, parts: Mapping[str, str]) -> None:
    """Renews a Markdown file between the lines ``<!-- name -->`` and ``<!-- /name -->``, for each name that it has.

    Args:
        path: of the file.
        parts: name -> the text that goes there.

    Raises:
        CheckpointError: if the file has none of the names, or one only half.
    """
    path, written = Path(path), 0
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    for name, text in parts.items():
        before, first, rest = page.partition(f"<!-- {name} -->\n")
        _, last, after = rest.partition(f"<!-- /{name} -->")
        if first and last:
            page, written = f"{before}{first}{text}\n{last}{after}", written + 1
        elif first or f"<!-- /{name} -->" in page:
            raise CheckpointError(
                f"{path}: has only one of the lines <!-- {name} --> and <!-- /{name} -->; add the other"
            )
    if not written:
        lines = ", ".join(f"<!-- {name} --> and <!-- /{name} -->" for name in parts)
        raise CheckpointError(f"{path}: no place for the results; add the lines {lines}, or one of these pairs")
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
