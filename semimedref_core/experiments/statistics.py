"""Differences between methods with their uncertainty: paired differences with bootstrap intervals.

There are two sources of randomness, and ``over`` says which of them an interval covers:

- **images**: other validation images of the same kind. They are resampled, with the same images for both methods and
  all seeds (paired). So it does not matter that some images are harder than others.
- **seeds**: other initial weights, order and augmentations. A few seeds cannot be resampled: a bootstrap of three has
  two thirds of the variance and no tails, so its 95 % interval covers far less. Instead, the mean over seeds is moved
  by a draw of Student's t with S - 1 degrees of freedom.

The claim "the method is better" needs both together; images alone describe only these trained networks. Both together
are a sum that counts the interaction of image and seed twice. So the interval is a little too wide, not too narrow. The
labelled pairs are the same in all runs of a ratio, so no interval covers their choice.

If a method is compared with several others at once, one of them may seem different by chance. So the verdicts use
corrected p values (Holm, Scandinavian Journal of Statistics, 1979). The intervals are not corrected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from semimedref_core.evaluation import dice_and_iou
from semimedref_core.experiments.in_words import signed
from semimedref_core.experiments.results import METRICS, counts_of
from semimedref_core.runtime.checkpoints import CheckpointError

DRAWS, LEVEL = 2000, 0.95
_OF_DIFFERENCES = "difference low high low_images high_images by_seed seeds over p p_holm verdict".split()


def resampled_difference(counts: np.ndarray) -> dict[str, np.ndarray]:
    """The difference between two methods, as the mean over seeds, for each bootstrap sample of the images.

    Args:
        counts: ``[S, 2, N, 3]`` pixel counts (both, predicted, target) of S seeds, ours and theirs, N images.

    Returns:
        Metric -> ``[DRAWS]`` differences. All seeds, both methods and all metrics use the same drawn images.
    """
    images = counts.shape[2]
    of_images = [(scores[:, 0] - scores[:, 1]).mean(0) for scores in dice_and_iou(counts)]
    pixels = np.moveaxis(counts, 2, -1).astype(np.float64)  # [S, 2, 3, N]

    def differences(times: np.ndarray) -> np.ndarray:
        over_images = [difference @ times / images for difference in of_images]
        micro = [(scores[:, 0] - scores[:, 1]).mean(0) for scores in dice_and_iou(np.moveaxis(pixels @ times, 2, -1))]
        return np.stack([*over_images, *micro])  # in the order of METRICS

    return dict(zip(METRICS, _resampled(images, differences), strict=True))


def _resampled(images: int, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Statistics ``[K, DRAWS]`` of bootstrap samples of N images. The samples are the same in each call.

    Args:
        images: N, at least 2.
        statistic: from ``[N, b]``, how often each of b samples has each image, to its K values ``[K, b]``.
    """

    def of_drawn(drawn: np.ndarray, axis: int) -> np.ndarray:
        # Only the number of draws of each image matters, so a sum over drawn images is a product with these numbers.
        times = np.stack([np.bincount(row, minlength=images) for row in drawn.reshape(-1, images)], 1)
        return statistic(times).reshape(-1, *drawn.shape[:-1])

    return stats.bootstrap(
        (np.arange(images),),
        of_drawn,
        n_resamples=DRAWS,
        batch=50,
        axis=-1,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).bootstrap_distribution


def interval(by_seed: np.ndarray, by_draw: np.ndarray | None = None) -> tuple[float, float]:
    """A 95 % interval of a mean over seeds.

    Args:
        by_seed: ``[S]``, one value for each seed (trained network), never for each image: images are not independent
            repetitions of training. For scores of images use :func:`paired_scores`.
        by_draw: ``[DRAWS]``, the mean over these seeds for each resample of the images; without it, the interval covers
            only seeds.

    Returns:
        low, high; NaN if there are neither two seeds nor resampled images.
    """
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    if by_draw is None:
        return tuple(np.mean(by_seed) + _standard_error(by_seed) * stats.t.ppf(tails, max(len(by_seed) - 1, 1)))
    return tuple(np.quantile(_moved_by_seeds(by_seed, by_draw), tails))


def p_value(by_seed: np.ndarray, by_draw: np.ndarray | None = None) -> float:
    """The probability that chance alone moves a mean over seeds this far from 0, on either side. Arguments as in
    :func:`interval`. NaN for one seed, which says nothing about others."""
    if len(by_seed) < 2:
        return np.nan
    if by_draw is None:
        return float(stats.ttest_1samp(by_seed, 0).pvalue)
    moved = _moved_by_seeds(by_seed, by_draw)
    beyond = 1 + min((moved <= 0).sum(), (moved >= 0).sum())  # 1: so many draws cannot show that none is beyond
    return min(1.0, 2 * beyond / (len(moved) + 1))


def holm(p: np.ndarray) -> np.ndarray:
    """Corrects the p values of one family of comparisons by Holm's rule: the smallest is multiplied by their number,
    the next by one less, and so on. The results never fall and are at most 1. NaN stays NaN and does not count."""
    p = np.asarray(p, float)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected


def _standard_error(by_seed: np.ndarray) -> float:
    return np.std(by_seed, ddof=1) / np.sqrt(len(by_seed)) if len(by_seed) > 1 else np.nan


def _moved_by_seeds(by_seed: np.ndarray, by_draw: np.ndarray) -> np.ndarray:
    """The draws of the images, each moved by a draw of t for the seeds; for one seed they are not moved."""
    if len(by_seed) < 2:
        return by_draw
    # Evenly spaced quantiles in random order: a sample of t without noise in its tails.
    levels = (np.random.default_rng(1).permutation(len(by_draw)) + 0.5) / len(by_draw)
    return by_draw + _standard_error(by_seed) * stats.t.ppf(levels, len(by_seed) - 1)


def paired_difference(ours: pd.DataFrame, theirs: pd.DataFrame, metric: str) -> dict:
    """The difference of one metric; see :func:`paired_differences`. The verdict is that of a single comparison."""
    (row,) = paired_differences(ours, theirs, (metric,))
    return _judged([row])[0]


def paired_differences(ours: pd.DataFrame, theirs: pd.DataFrame, metrics: Sequence[str]) -> list[dict]:
    """The difference between two groups of runs, as the mean over their common seeds.

    Args:
        ours, theirs: rows of :func:`semimedref_core.experiments.results.finished_runs`, one network, one row for each
            seed.
        metrics: some of the metrics.

    Returns:
        For each metric: ``difference``, ``low`` and ``high`` (shares, -1 to 1), ``low_images`` and ``high_images`` for
        these trained networks and other images, ``by_seed``, the number of ``seeds``, ``over`` (the source of
        randomness), ``p`` over seeds (and images), ``p_holm`` (``p``, until it is one of a family), and the
        ``verdict``. It stays empty until the family is known: "above" or "below" if ``p_holm`` is below 5 %, else "not
        distinguishable", or "one seed".

    Raises:
        ValueError: if several rows of a group have one seed.
        CheckpointError: if two of the runs were scored on different masks.
    """
    pairs = _paired(ours, theirs, metrics).sort_values("seed")
    counts = _paired_counts(pairs)
    by_draws = {} if counts is None else resampled_difference(counts)
    return [_row((pairs[metric] - pairs[f"{metric}_theirs"]).to_numpy(), by_draws.get(metric)) for metric in metrics]


def paired_scores(ours: np.ndarray, theirs: np.ndarray) -> dict:
    """The difference between two methods from a table of your own, with the score of each image.

    Args:
        ours, theirs: ``[S, N]``, a row for each of S seeds, a column for each of N images (at least 2). Both have the
            same seeds and images in the same order.

    Returns:
        The difference of the mean over images, with the entries of :func:`paired_differences`. The verdict is that of a
        single comparison.

    Raises:
        ValueError: if the tables have other shapes, or a score is not finite.

    >>> import numpy as np
    >>> from semimedref_core.experiments import paired_scores
    >>> rng = np.random.default_rng(0)
    >>> theirs = rng.uniform(0.2, 0.9, (3, 100))  # Dice of 3 seeds on 100 images
    >>> found = paired_scores(theirs + rng.normal(0.05, 0.02, (3, 100)), theirs)
    >>> round(float(found["difference"]), 2), found["seeds"], found["over"], found["verdict"]
    (0.05, 3, 'seeds and images', 'above')
    """
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    if ours.ndim != 2 or ours.shape != theirs.shape or len(ours) < 1 or ours.shape[1] < 2:
        raise ValueError(
            f"paired_scores: got shapes {ours.shape} and {theirs.shape}; give two tables of one shape, a row for each "
            "seed and a column for each of at least two images"
        )
    for name, scores in (("ours", ours), ("theirs", theirs)):
        if not np.isfinite(scores).all():
            raise ValueError(f"paired_scores: {name} has a score that is not finite; give each image a number")
    of_images = (ours - theirs).mean(0)
    (by_draw,) = _resampled(len(of_images), lambda times: (of_images @ times / len(of_images))[None])
    return _judged([_row((ours - theirs).mean(1), by_draw)])[0]


def _row(by_seed: np.ndarray, by_draw: np.ndarray | None) -> dict:
    """The entries of :func:`paired_differences`, before the family is known. Arguments as in :func:`interval`."""
    low, high = interval(by_seed, by_draw)
    low_images, high_images = (np.nan, np.nan) if by_draw is None else interval(by_seed[:1], by_draw)
    over = " and ".join(["seeds"] * (len(by_seed) > 1) + ["images"] * (by_draw is not None)) or "nothing"
    p = p_value(by_seed, by_draw)
    values = by_seed.mean(), low, high, low_images, high_images, by_seed, len(by_seed), over, p, p, ""
    return dict(zip(_OF_DIFFERENCES, values, strict=True))


def _paired(ours: pd.DataFrame, theirs: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Two groups of runs side by side, a row for each common seed; the columns of the second end with ``_theirs``.

    Raises:
        ValueError: if several rows of a group have one seed.
    """
    if ours["seed"].duplicated().any() or theirs["seed"].duplicated().any():
        raise ValueError("paired_difference: several rows have one seed; keep one network and one row for each seed")
    needed = ["seed", "folder", "network", *columns]
    return ours[needed].merge(theirs[needed], on="seed", suffixes=("", "_theirs"))


def _paired_counts(pairs: pd.DataFrame) -> np.ndarray | None:
    """The pixel counts ``[S, 2, N, 3]`` of each seed, ours and theirs; None if a run did not keep them."""
    of_runs = [(pair[f"folder{end}"], pair[f"network{end}"]) for _, pair in pairs.iterrows() for end in ("", "_theirs")]
    counts = [counts_of(*run) for run in of_runs]
    if not counts or any(run is None for run in counts):
        return None
    for (folder, _), run in zip(of_runs, counts, strict=True):
        if not np.array_equal(run[:, 2], counts[0][:, 2]):
            raise CheckpointError(
                f"{of_runs[0][0]}, {folder}: were scored on different validation masks, so no difference between them "
                "means anything; compare only runs on the same data"
            )
    return np.array(counts).reshape(len(pairs), 2, *counts[0].shape)


def _judged(family: list[dict]) -> list[dict]:
    """Adds ``p_holm`` and ``verdict`` to the comparisons of one family."""

    def verdict(row: dict, p: float) -> str:
        if row["seeds"] < 2:
            return "one seed"
        if not p < 1 - LEVEL:
            return "not distinguishable"
        return "above" if row["difference"] > 0 else "below"

    corrected = holm([row["p"] for row in family])
    return [{**row, "p_holm": p, "verdict": verdict(row, p)} for row, p in zip(family, corrected, strict=True)]


def in_points(rows: pd.DataFrame) -> pd.DataFrame:
    """Readable differences: points (per cent) with one digit, and intervals as text. The index is the same.

    Args:
        rows: a table with the columns of :func:`paired_difference`.
    """

    def intervals(low: str, high: str) -> list[str]:
        pairs = rows[[low, high]].to_numpy()
        return ["" if np.isnan(pair).any() else f"[{', '.join(map(signed, pair))}]" for pair in pairs]

    return pd.DataFrame(
        {
            "points": [signed(value) for value in rows["difference"]],
            "95 %": intervals("low", "high"),
            "images alone": intervals("low_images", "high_images"),
            "smallest seed": [signed(min(values)) for values in rows["by_seed"]],
            "seeds": rows["seeds"],
            "over": rows["over"],
            "p, Holm": ["" if np.isnan(p) else f"{p:.3f}" for p in rows["p_holm"]],
            "verdict": rows["verdict"],
        },
        index=rows.index,
    )


def method_differences(
    runs: pd.DataFrame, method: str = "semi_medref", network: str = "teacher", metrics: tuple[str, ...] = tuple(METRICS)
) -> pd.DataFrame:
    """The difference between a method and each other one, for each setting and label ratio. Uses main runs, not
    variants.

    Returns:
        ``setting``, ``label_ratio``, ``against``, ``metric``, the columns of :func:`paired_difference` (for ``p_holm``,
        the other methods of a setting, ratio and metric are one family), and ``best``: whether this other method has
        the best mean among those with the most common seeds. The best of several was partly lucky, so the difference
        from it is too small rather than too large.
    """
    rows = []
    chosen = runs[(runs["network"] == network) & (runs["variant"] == "")]
    for (setting, ratio), group in chosen.groupby(["setting", "label_ratio"], sort=False):
        ours = group[group["method"] == method]
        found = {metric: [] for metric in metrics}
        for against, theirs in group[group["method"] != method].groupby("method", sort=False):
            if set(ours["seed"]) & set(theirs["seed"]):
                for metric, row in zip(metrics, paired_differences(ours, theirs, metrics), strict=True):
                    about = {"setting": setting, "label_ratio": ratio, "against": against, "metric": metric}
                    found[metric].append({**about, **row})
        for family in found.values():
            best = min(family, key=lambda row: (-row["seeds"], row["difference"]), default=None)
            rows += [{**row, "best": row["against"] == best["against"]} for row in _judged(family)]
    return pd.DataFrame(rows, columns=["setting", "label_ratio", "against", "metric", *_OF_DIFFERENCES, "best"])


def ablations(
    runs: pd.DataFrame, method: str = "semi_medref", network: str = "teacher", metrics: tuple[str, ...] = tuple(METRICS)
) -> pd.DataFrame:
    """The difference between each variant of a method and the method itself, for each setting and label ratio.

    Returns:
        ``setting``, ``label_ratio``, ``variant``, ``metric`` and the columns of :func:`paired_difference`, where
        ``p_holm`` counts the variants of a setting, ratio and metric as one family.
    """
    rows = []
    chosen = runs[(runs["network"] == network) & (runs["method"] == method)]
    for (setting, ratio), group in chosen.groupby(["setting", "label_ratio"], sort=False):
        full = group[group["variant"] == ""]
        found = {metric: [] for metric in metrics}
        for variant, changed in group[group["variant"] != ""].groupby("variant", sort=False):
            if set(full["seed"]) & set(changed["seed"]):
                for metric, row in zip(metrics, paired_differences(changed, full, metrics), strict=True):
                    about = {"setting": setting, "label_ratio": ratio, "variant": variant, "metric": metric}
                    found[metric].append({**about, **row})
        rows += [row for family in found.values() for row in _judged(family)]
    return pd.DataFrame(rows, columns=["setting", "label_ratio", "variant", "metric", *_OF_DIFFERENCES])


def learning_curves(runs: pd.DataFrame, metric: str = "dice_image", network: str = "teacher") -> pd.DataFrame:
    """The mean of each method over label ratios, with Student's t interval over seeds; main runs only.

    Settings stay in the order of the runs.

    Returns:
        ``setting``, ``label_ratio``, ``method``, ``mean``, ``low``, ``high`` (0 to 1; no interval for one seed),
        ``seeds``, ``minutes`` (mean of a run), and ``of_full``: the mean as a share of the mean of supervised training
        with all masks in this setting (NaN if there is no such run).
    """
    rows = []
    chosen = runs[(runs["network"] == network) & (runs["variant"] == "")]
    for (setting, method, ratio), group in chosen.groupby(["setting", "method", "label_ratio"], sort=False):
        low, high = interval(group[metric].to_numpy())
        about = {"setting": setting, "label_ratio": ratio, "method": method, "mean": group[metric].mean()}
        rows.append({**about, "low": low, "high": high, "seeds": len(group), "minutes": group["seconds"].mean() / 60})
    table = pd.DataFrame(rows, columns="setting label_ratio method mean low high seeds minutes".split())
    places = {setting: place for place, setting in enumerate(dict.fromkeys(chosen["setting"]))}
    table = table.sort_values(
        ["setting", "method", "label_ratio"],
        key=lambda column: column.map(places) if column.name == "setting" else column,
        ignore_index=True,
    )
    full = table[(table["method"] == "supervised") & (table["label_ratio"] == 1)].set_index("setting")["mean"]
    return table.assign(of_full=table["mean"] / table["setting"].map(full))


def by_lesion_size(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Shows where a difference comes from: Dice per image by size of the lesion, as the mean over common seeds.

    Args:
        ours, theirs: as in :func:`paired_difference`; the runs must have kept their pixel counts.

    Returns:
        One row for each third of the images with a lesion, and one for images without: number of ``images``, mean
        ``lesion`` (share of the image), Dice ``ours`` and ``theirs``, and the ratios of predicted to true area,
        ``area_ours`` and ``area_theirs``. Empty if a run did not keep its counts.

    Raises:
        ValueError, CheckpointError: as in :func:`paired_differences`.
    """
    pairs = _paired(ours, theirs, ["image_size"])
    counts = _paired_counts(pairs)
    if counts is None:
        return pd.DataFrame()
    counts = counts.swapaxes(0, 1)  # [2, S, N, 3]
    target = counts[0, 0, :, 2]
    edges = np.quantile(target[target > 0], [1 / 3, 2 / 3]) if (target > 0).any() else [0, 0]
    names = ["no lesion", "small", "middle", "large"]
    group = np.where(target == 0, 0, 1 + np.searchsorted(edges, target))
    dice, rows = dice_and_iou(counts)[0].mean(1), {}
    for number in np.unique(group):
        inside = group == number
        predicted = counts[:, :, inside, 1].mean((1, 2)) / max(target[inside].mean(), 1e-9)
        area = predicted if number else (np.nan, np.nan)
        rows[names[number]] = {
            "images": inside.sum(), "lesion": target[inside].mean() / pairs["image_size"].iloc[0] ** 2,
            "ours": dice[0, inside].mean(), "theirs": dice[1, inside].mean(),
            "area_ours": area[0], "area_theirs": area[1],
        }  # fmt: skip
    return pd.DataFrame(rows).T
