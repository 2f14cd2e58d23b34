"""Section: the training's curves, with the switch of its objective marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from recsys.report.charts import Axes, Line, Mark, Phase, line_chart
from recsys.report.night import Night, mapping, rows
from recsys.report.wording import OBJECTIVES, count, figure, known, metric

PRIMARY: Final = "val/ndcg_at_10"


def training(night: Night) -> dict[str, Any] | None:
    """Return charts of loss and validation with what explains them; None where nothing was trained."""
    trained = night.step("train")
    history = [mapping(entry) for entry in rows(trained.get("history"))]
    history = [entry for entry in history if known(entry.get("epoch"))]
    if not history:
        return None
    stretches = phases(history)
    charts = []
    losses = _loss_lines(history, stretches)
    axes = Axes(x="epoch", y_zero=False, whole=True)
    shaded = [
        Phase(start=start - 0.5, end=end + 0.5, label=OBJECTIVES.get(name, name)) for name, start, end in stretches
    ]
    shaded = shaded if len(shaded) > 1 else []
    if any(line.points for line in losses):
        ends = [
            f"{line.name} from {figure(line.points[0][1], 2)} to {figure(line.points[-1][1], 2)}" for line in losses
        ]
        charts.append(
            {
                "title": "loss of training",
                "svg": line_chart(
                    losses, axes, title="Training loss by epoch", description=f"{'; '.join(ends)}.", phases=shaded
                ),
            }
        )
    measured = [(entry["epoch"], entry[PRIMARY]) for entry in history if known(entry.get(PRIMARY))]
    if measured:
        best = trained.get("best_epoch")
        kept = [Mark(x=x, y=y, label=f"kept: {figure(y)}", style=2) for x, y in measured if x == best]
        charts.append(
            {
                "title": f"{metric(PRIMARY)} on validation, the model alone",
                "svg": line_chart(
                    [Line(name=metric(PRIMARY), points=measured, style=1, dots=True)],
                    Axes(x="epoch", whole=True),
                    title=f"{metric(PRIMARY)} on validation by epoch",
                    description=f"From {figure(measured[0][1])} in epoch {measured[0][0]} to {figure(measured[-1][1])} "
                    f"in epoch {measured[-1][0]}; epoch {best} was kept.",
                    marks=kept,
                ),
            }
        )
    return {
        "charts": [chart for chart in charts if chart["svg"]],
        "switch": switch_said(stretches),
        "facts": _facts(trained),
    }


def phases(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """Return the stretches of epochs that share an objective: its name, first and last epoch.

    Records of older programs do not name it; then there is one stretch without a name.

    >>> phases([{"epoch": 1, "objective": "next-item"}, {"epoch": 2, "objective": "cloze"}])
    [('next-item', 1, 1), ('cloze', 2, 2)]
    """
    found = []
    for name, group in groupby(history, key=lambda entry: str(entry.get("objective") or "")):
        epochs = [entry["epoch"] for entry in group]
        found.append((name, epochs[0], epochs[-1]))
    return found


def switch_said(stretches: Sequence[tuple[str, float, float]]) -> str | None:
    """Say that losses before and after a switch are of different questions; None where there is no switch."""
    if len(stretches) < 2:
        return None
    parts = [
        f"epoch{'s' if end > start else ''} {count(start)}{f' to {count(end)}' if end > start else ''} asked for "
        f"{OBJECTIVES.get(name, name)}"
        for name, start, end in stretches
    ]
    return (
        f"The question changed during training: {', '.join(parts)}. The loss jumps there because it measures the "
        "answers to another question, not because training diverges: compare losses within a stretch only. Validation "
        "asks as the model is asked in use, so it begins with the last stretch."
    )


def _loss_lines(history: Sequence[Mapping[str, Any]], stretches: Sequence[tuple[str, float, float]]) -> list[Line]:
    """Return a line for each stretch, so that no line crosses a switch."""
    lines = []
    for style, (name, start, end) in enumerate(stretches, 1):
        points = [
            (entry["epoch"], entry["loss"])
            for entry in history
            if start <= entry["epoch"] <= end and known(entry.get("loss"))
        ]
        if points:
            lines.append(Line(name=OBJECTIVES.get(name, name) or "loss", points=points, style=style))
    return lines


def _facts(trained: Mapping[str, Any]) -> list[tuple[str, str]]:
    warm = mapping(trained.get("warm_start"))
    resumed = mapping(trained.get("resumed"))
    facts = [
        ("epochs trained", count(trained.get("epochs"))),
        ("epoch kept", count(trained.get("best_epoch"))),
        ("parameters", count(trained.get("parameters"))),
        ("started from", str(warm.get("bundle") or warm.get("reason") or "nothing: new weights")),
    ]
    if resumed:
        facts.append(("resumed at", f"epoch {count(resumed.get('epoch'))}, step {count(resumed.get('step'))}"))
    return [(name, value) for name, value in facts if value != "–"]
