"""What ``semimedref compare --markdown`` writes into a page: each part by its name in the page's marks."""

from __future__ import annotations

import pandas as pd

from semimedref_core.config import BRING_WEIGHTS
from semimedref_core.experiments.seed_by_seed import as_list, standing
from semimedref_core.experiments.tables import markdown_table
from semimedref_core.experiments.verdict import Verdict


def page_parts(runs: pd.DataFrame, said: Verdict) -> dict[str, str]:
    """The parts of a page about finished runs: ``verdict``, ``claims``, ``results``, and ``pretrained``, the sentences
    on the first setting with a network that starts from pretrained weights (without such runs there is none).

    Args:
        runs: of :func:`.results.finished_runs`.
        said: the verdict on them.
    """
    parts = {"verdict": said.box, "claims": said.table, "results": markdown_table(runs)}
    pretrained = runs[runs["architecture"].isin(BRING_WEIGHTS)]
    if len(pretrained):
        first = pretrained[pretrained["setting"] == pretrained["setting"].iloc[0]]
        parts["pretrained"] = as_list(standing(first))
    return parts
