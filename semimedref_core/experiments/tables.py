"""Readable tables of finished runs: means over seeds, and methods by label ratio. Also writes them into Markdown
pages."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from semimedref_core.experiments.in_words import percent
from semimedref_core.experiments.results import (
    CONDITIONS,
    METRICS,
    PAIRS,
    SETTINGS,
    WITHOUT_HELP,
    differing_pairs,
    without_help,
)
from semimedref_core.runtime.atomic import atomic
from semimedref_core.runtime.checkpoints import CheckpointError


def results_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Metrics in per cent, mean ± standard deviation over seeds.

    Args:
        runs: of :func:`finished_runs`.

    Returns:
        One row for each method and network; the runs of a row differ only in the seed.
    """
    others = [name for name in CONDITIONS if name not in SETTINGS and runs[name].nunique() > 1]
    variant = ["variant"] if runs["variant"].any() else []
    alike = [runs[name] for name in (*SETTINGS, *others)]
    runs = runs.assign(**{name: differing_pairs(runs, name, *alike) for name in PAIRS})
    pairs = [name for name in PAIRS if runs[name].any()]
    groups = runs.groupby([*SETTINGS, *others, *pairs, "method", *variant, "network"], sort=False, dropna=False)
    table = groups[METRICS].agg(_mean_and_spread)
    table.insert(0, "seeds", groups["seed"].nunique())
    return table


def _mean_and_spread(shares: pd.Series) -> str:
    """Mean and spread in per cent; a single value has no spread."""
    spread = f" ± {100 * shares.std():.1f}" if len(shares) > 1 else ""
    return f"{100 * shares.mean():.1f}{spread}"


def methods_by_ratio(runs: pd.DataFrame, metric: str = "dice_image", network: str = "teacher") -> pd.DataFrame:
    """One row for each method, one column for each setting and label ratio: mean ± standard deviation over seeds, in
    per cent.

    Methods are sorted by their mean in the first column. Those without a run there come first, sorted by their average
    distance from the mean of a column. If a method has a single seed, or fewer
    seeds than others in the column, the cell shows their number. If a method has no run there, the cell is empty.
    Variants are left out.
    """
    chosen = runs[(runs["network"] == network) & (runs["variant"] == "")]
    means = chosen.groupby(["setting", "label_ratio", "method"])[metric].mean()
    apart = means - means.groupby(["setting", "label_ratio"]).transform("mean")
    order = apart.groupby("method").mean().to_frame("apart")
    order["first"] = means[tuple(chosen[["setting", "label_ratio"]].iloc[0])] if len(chosen) else float("nan")
    order = order.sort_values(["first", "apart"], na_position="first")
    table = pd.DataFrame("", index=order.index, columns=[])
    for (setting, ratio), group in chosen.groupby(["setting", "label_ratio"], sort=False):
        seeds = group["seed"].nunique()
        cells = {
            method: f"{_mean_and_spread(rows[metric])} {_few_seeds(len(rows), seeds)}".strip()
            for method, rows in group.groupby("method")
        }
        table[f"{setting}, {percent(ratio)}"] = pd.Series(cells)
    return table.fillna("")


def _few_seeds(count: int, most: int) -> str:
    return f"({count} of {most} seeds)" if count < most else "(1 seed)" if count == 1 else ""


def markdown_table(runs: pd.DataFrame) -> str:
    """:func:`methods_by_ratio` for a README: one row for each setting and label ratio, one column for each method.

    Each cell shows Dice per image, below it micro Dice, and the number of seeds if it is one or others in the row have
    more. The best of a row is bold. A row of :func:`without_help` comes before its main row.
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
    """A name as plain text in a Markdown table: it cannot start a tag, a column or a line."""
    return html.escape(" ".join(name.split()), quote=False).replace("|", "\\|")


def _cells(tables: list[pd.DataFrame], column: str, methods: pd.Index) -> list[str]:
    split = [table[column].reindex(methods, fill_value="").str.partition(" (") for table in tables]
    parts = [*(_best_in_bold(table[0]) for table in split), split[0][2].str.strip(")")]
    return ["<br>".join(filter(None, cell)) for cell in zip(*parts, strict=True)]


def _best_in_bold(cells: pd.Series) -> pd.Series:
    means = pd.to_numeric(cells.str.split().str[0])
    return cells.where((means < means.max()) | (means.count() < 2) | (cells == ""), "**" + cells + "**")


def write_between(path: str | Path, parts: Mapping[str, str]) -> None:
    """Replaces the text between the lines ``<!-- name -->`` and ``<!-- /name -->`` of a Markdown file, for each name in
    it.

    Args:
        path: path of the file.
        parts: name -> new text.

    Raises:
        CheckpointError: if the file has none of the names, or only one of the two lines of a name.
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
