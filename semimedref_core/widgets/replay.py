"""A finished run, step by step: loss, schedules and validation at each moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ipywidgets
import numpy as np

from semimedref_core.figures.training import replay_panels
from semimedref_core.runtime.atomic import read_metrics
from semimedref_core.widgets.base import Explorer


@dataclass(frozen=True)
class Moment:
    """A run at one of its logged steps.

    Attributes:
        step, steps: this step and the last step of the run.
        w_u: the unsupervised weight of the step.
        lr_share: the learning rate of the step, as a share of the highest of the run.
        phase: the pairs from which the student learns at this step.
        accepted: share of the unlabelled samples with a patch; ``None`` before mixing starts.
        validated: the step of the last validation so far; ``None`` before the first.
        dice: the Dice per image of student and teacher there, 0 to 1; ``None`` before the first.
    """

    step: int
    steps: int
    w_u: float
    lr_share: float
    phase: str
    accepted: float | None
    validated: int | None
    dice: dict[str, float] | None

    def line(self) -> str:
        """The moment in one line."""
        parts = [f"step {self.step} of {self.steps}: {self.phase}", f"w_u {self.w_u:.2f}"]
        parts.append(f"learning rate at {100 * self.lr_share:.0f} % of its highest")
        if self.accepted is not None:
            parts.append(f"{100 * self.accepted:.0f} % of the samples were mixed")
        if self.dice:
            shares = ", ".join(f"{network} {100 * dice:.1f} %" for network, dice in self.dice.items())
            parts.append(f"Dice at step {self.validated}: {shares}")
        return "; ".join(parts) + "."


def moment_at(lines: Sequence[dict], step: int) -> Moment:
    """The run at a logged step.

    Args:
        lines: all lines of the run's metrics.jsonl.
        step: the step of a line with losses.
    """
    logged = [line for line in lines if "loss" in line]
    now = next(line for line in logged if line["step"] == step)
    if "loss_mixed" not in now:
        phase = "labelled pairs alone"
    elif now["w_u"] < max(line["w_u"] for line in logged):
        phase = "unlabelled pairs come in (Eq. 15)"
    else:
        phase = "unlabelled pairs at full weight"
    validated = next((line for line in reversed(lines) if "valid" in line and line["step"] <= step), None)
    dice = {name: scores["dice_image"] for name, scores in validated["valid"].items()} if validated else None
    highest = max(line["lr"] for line in logged)
    return Moment(
        step, logged[-1]["step"], now["w_u"], now["lr"] / (highest or 1), phase, now.get("accepted"),
        validated and validated["step"], dice,
    )  # fmt: skip


def curves(lines: Sequence[dict]) -> dict[str, np.ndarray]:
    """The curves for :func:`semimedref_core.figures.training.replay_panels`: name -> ``[n, 2]`` of (step, value)."""

    def curve(value, key="loss"):
        return np.array([(line["step"], value(line)) for line in lines if key in line]).reshape(-1, 2)

    def of_largest(key):
        largest = max(line[key] for line in lines if key in line)
        return curve(lambda line: line[key] / (largest or 1), key)

    logged = {"DiceCE, labelled": "loss_labelled", "DiceCE, mixed": "loss_mixed", "ITCL, labelled": "loss_itcl"}
    logged["samples mixed"] = "accepted"
    return {
        **{name: curve(lambda line, key=key: line[key], key) for name, key in logged.items()},
        "w_u": of_largest("w_u"),
        "learning rate": of_largest("lr"),
        **{
            network: curve(lambda line, network=network: 100 * line["valid"][network]["dice_image"], "valid")
            for network in ("teacher", "student")
        },
    }


def training_replay(metrics: str | Path) -> Explorer:
    """The widget: a slider and a play button over the logged steps of a run.

    Args:
        metrics: the run's ``metrics.jsonl``.

    Raises:
        ValueError: if the run has no logged step.
    """
    lines = read_metrics(metrics)
    steps = [line["step"] for line in lines if "loss" in line]
    if not steps:
        raise ValueError(f"{metrics}: holds no step yet; train for at least one log line")
    slider = ipywidgets.SelectionSlider(
        options=steps, value=steps[-1], description="step", continuous_update=False, layout={"width": "36em"}
    )
    # Slower than an update. During an update the browser keeps only the newest step and sends it afterwards.
    play = ipywidgets.Play(len(steps) - 1, 0, len(steps) - 1, interval=500, description="play")
    # Linked in the browser. Through the kernel, the next step of the player could undo a move by hand.
    ipywidgets.jslink((play, "value"), (slider, "index"))
    drawn = curves(lines)
    explorer = Explorer(
        {"step": slider},
        lambda step: (replay_panels(drawn, step), moment_at(lines, step).line()),
        "curves of losses, schedules and validation Dice up to the chosen step",
    )
    explorer.children = (play, *explorer.children)
    return explorer
