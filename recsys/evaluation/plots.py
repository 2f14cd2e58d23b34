"""Plots of a run as matplotlib figures without pyplot: no display, no global state to clean up.

`figure.savefig(path, dpi=150)` writes one; MLflow's `log_figure` takes one as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

INK: Final = "#333333"
MODEL_COLOUR: Final = "#0b5fa5"
OTHER_COLOURS: Final = ("#8c8c8c", "#d9822b", "#2f9e6e", "#a05195")  # baselines, in their order
FIRST: Final[dict[str, Any]] = {"linewidth": 2.4, "zorder": 3}
OTHERS: Final[dict[str, Any]] = {"linewidth": 1.4}
NAMES: Final = {"hr": "HR", "ndcg": "NDCG", "mrr": "MRR"}


def plot_training(history: Sequence[Mapping[str, float]], *, loss: str, metric: str, best_epoch: int) -> Figure:
    """Plot the training loss and the validation metric over epochs, and mark the kept epoch.

    Parameters
    ----------
    history
        One entry an epoch, with its number under "epoch". Epochs without validation may lack `metric`. Epoch 0, the
        model before any training, may lack `loss`.
    loss, metric
        Keys of loss and metric in the entries.
    best_epoch
        The epoch whose weights were kept.
    """
    figure, (left, right) = _figure(width=9.0, columns=2)
    learnt = [(entry["epoch"], entry[loss]) for entry in history if loss in entry]
    few = "o" if len(learnt) == 1 else ""  # one point draws no line
    left.plot([e for e, _ in learnt], [value for _, value in learnt], few + "-", color=MODEL_COLOUR, linewidth=1.8)
    left.set_title("loss, training", loc="left", color=INK)
    measured = [(entry["epoch"], entry[metric]) for entry in history if metric in entry]
    right.plot(
        [epoch for epoch, _ in measured],
        [value for _, value in measured],
        color=MODEL_COLOUR,
        linewidth=1.8,
        marker="o",
        markersize=3.5,
    )
    title = _metric_label(metric)
    best = dict(measured).get(best_epoch)
    if best is not None:
        right.plot(
            [best_epoch], [best], "o", markersize=10, markerfacecolor="none", color=OTHER_COLOURS[1], clip_on=False
        )
        title += f"; kept: {best:.4f}, epoch {best_epoch}"
    right.set_title(title, loc="left", color=INK)
    right.set_ylim(bottom=0)
    for place in (left, right):
        place.set_xlabel("epoch")
        place.set_xlim(-0.5 if history and history[0]["epoch"] == 0 else 0, len(history) + 1)
        place.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def plot_curves(curves: Mapping[str, Any], metrics: Sequence[str] = ("hr", "ndcg")) -> Figure:
    """Plot metric@k of the served ranker (the first) and of the baselines, from `EvaluationReport.curves`."""
    figure, axes = _figure(width=9.0, columns=len(metrics))
    cutoffs = curves["cutoffs"]
    for place, metric in zip(axes, metrics, strict=True):
        lines = curves[metric]
        for name, colour in _colours(lines).items():
            first = name == next(iter(lines))
            place.plot(cutoffs, lines[name], color=colour, label=name, **(FIRST if first else OTHERS))
        place.set_xscale("log")
        place.xaxis.set_major_locator(
            FixedLocator([k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500) if k <= cutoffs[-1]])
        )
        place.xaxis.set_minor_locator(NullLocator())
        place.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        place.set_ylim(bottom=0)
        place.set_xlim(1, cutoffs[-1])
        place.set_xlabel("k")
        place.set_title(f"{NAMES.get(metric, metric)}@k, test", loc="left", color=INK)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(lines), frameon=False)
    return figure


def plot_popularity(popularity: Mapping[str, Any], names: Sequence[str] = ()) -> Figure:
    """Plot the spread of consumption and of the named recommenders' lists (default: the first) by popularity.

    `popularity` is `EvaluationReport.popularity`. A recommender with too much on the left and too little on the right
    favours popular items.
    """
    figure, axes = _figure(width=7.5, columns=1)
    place = axes[0]
    recommended = popularity["recommended"]
    groups = {"consumed next (test)": popularity["consumed"]} | {
        f"recommended by {name} (first 10)": recommended[name] for name in names or list(recommended)[:1]
    }
    colours = [OTHER_COLOURS[0], MODEL_COLOUR, *OTHER_COLOURS[1:]]
    width = 0.8 / len(groups)
    bands = popularity["bands"]
    for number, (label, shares) in enumerate(groups.items()):
        left = [band - 0.4 + (number + 0.5) * width for band in range(len(bands))]
        bars = place.bar(left, shares, width=width * 0.92, color=colours[number], label=label)
        place.bar_label(bars, [f"{share:.0%}" for share in shares], padding=2, fontsize=7.5, color=INK)
    lower = [0.0, *bands[:-1]]
    place.set_xticks(
        range(len(bands)), [f"{100 * low:g}–{100 * high:g}%" for low, high in zip(lower, bands, strict=True)]
    )
    place.tick_params(axis="x", length=0)
    place.set_xlabel("items from most to least popular in training, share of the catalogue")
    place.set_ylabel("share of consumption, of recommendations")
    place.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.legend(loc="outside upper center", ncols=len(groups), frameon=False)
    return figure


def plot_slices(slices: Sequence[Mapping[str, Any]], metric: str = "ndcg_at_10") -> Figure:
    """Plot a metric of each slice with its 95% interval, from `EvaluationReport.slices`; small slices are grey."""
    figure, axes = _figure(width=8.0, columns=1, height=1.2 + 0.2 * len(slices))
    place = axes[0]
    for row, one in enumerate(slices):
        colour = OTHER_COLOURS[0] if one["small"] else MODEL_COLOUR
        place.plot([one[f"{metric}_low"], one[f"{metric}_high"]], [row, row], color=colour, linewidth=1.6)
        place.plot([one[metric]], [row], "o", color=colour, markersize=4.5)
    names = [f"{one['dimension']}: {one['value']}  (n = {one['n']:,})" for one in slices]
    place.set_yticks(range(len(slices)), [name.replace("$", r"\$") for name in names], fontsize=8)
    for label, one in zip(place.get_yticklabels(), slices, strict=True):
        label.set_color(OTHER_COLOURS[0] if one["small"] else INK)
    place.set_ylim(len(slices) - 0.5, -0.5)
    # the intervals of small slices would leave no room for the others; they may end outside
    ends = [one[metric if one["small"] else f"{metric}_high"] for one in slices]
    place.set_xlim(0, 1.1 * max(ends, default=0.0) or 1.0)
    place.grid(axis="y", visible=False)
    place.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    place.set_title(f"{_metric_label(metric)}, test, by slice; grey: below 100 users", loc="left", color=INK)
    return figure


def plot_nights(
    nights: Sequence[str],
    curves: Mapping[str, Sequence[float | None]],
    differences: Mapping[str, Sequence[Mapping[str, float] | None]],
    metric: str,
) -> Figure:
    """Plot a metric of past nights, the first ranker's beside the others', and its paired differences, 95%.

    Parameters
    ----------
    nights
        Labels, oldest first.
    curves
        By ranker a value a night; None where it served nothing.
    differences
        By what the first ranker is compared with: `mean`, `low`, `high` a night.
    """
    figure, (left, right) = _figure(width=11.0, columns=2)
    places = range(len(nights))
    colours, first = _colours(curves), next(iter(curves))
    for number, (name, values) in enumerate(curves.items()):
        heights = [math.nan if value is None else value for value in values]
        style = (
            FIRST if name == first else OTHERS | {"linestyle": ("-", "--", ":")[(number - 1) // len(OTHER_COLOURS) % 3]}
        )
        left.plot(places, heights, color=colours[name], label=name, marker="o", markersize=3, **style)
    left.set_ylim(bottom=0)
    left.set_title(f"{_metric_label(metric)}, next window", loc="left", color=INK)
    width = 0.5 / max(1, len(differences))
    for number, (name, tests) in enumerate(differences.items()):
        for place, test in enumerate(tests):
            if test is not None:
                at = place + (number - (len(differences) - 1) / 2) * width
                right.plot([at, at], [test["low"], test["high"]], color=colours[name], linewidth=1.6)
                right.plot([at], [test["mean"]], "o", color=colours[name], markersize=4)
    right.axhline(0.0, color=INK, linewidth=0.8)
    right.set_title(f"{first} minus the others, paired, 95%", loc="left", color=INK)
    step = max(1, -(-len(nights) // 8))
    for axes in (left, right):
        axes.set_xticks(list(places)[::step], list(nights)[::step], rotation=30, ha="right")
        axes.set_xlim(-0.5, len(nights) - 0.5)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(names)), frameon=False)
    return figure


def plot_index(index: Mapping[str, Any]) -> Figure:
    """Plot the recall of the indexes that were tried by users a CPU second, from `IndexReport`."""
    figure, (axes,) = _figure(width=7.0, columns=1)
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in index["points"]:
        curves.setdefault(point["factory"], []).append((1e6 / point["cpu"], point["recall"]))
    for name, colour in _colours(curves).items():
        axes.plot(*zip(*sorted(curves[name]), strict=True), color=colour, marker="o", markersize=3, label=name)
    axes.axhline(index["wanted"], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlabel("users a CPU second")
    axes.set_title(f"share of the {index['k']} best items found; dotted: what is asked for", loc="left", color=INK)
    figure.legend(loc="outside upper center", ncols=max(1, min(4, len(curves))), frameon=False)
    return figure


def _figure(*, width: float, columns: int, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for place in axes:
        place.spines[["top", "right"]].set_visible(False)
        place.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        place.set_axisbelow(True)
        place.tick_params(colors=INK)
    return figure, axes


def _colours(names: Mapping[str, Any]) -> dict[str, str]:
    """Return a colour for each name; the first name has its own."""
    first, *others = names
    return {first: MODEL_COLOUR} | {
        name: OTHER_COLOURS[place % len(OTHER_COLOURS)] for place, name in enumerate(others)
    }


def _metric_label(key: str) -> str:
    """Write `val/ndcg_at_10` as "NDCG@10, validation"."""
    part, _, name = key.rpartition("/")
    metric, _, k = name.partition("_at_")
    label = f"{NAMES.get(metric, metric)}@{k}" if k else metric
    return f"{label}, validation" if part == "val" else label
