"""Report of a backtest: its numbers under names, its curve, a line a night, and what must be known beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recsys.backtest.differences import verdict
from recsys.backtest.measure import FORMER
from recsys.backtest.plan import Plan, labels
from recsys.backtest.tables import Source
from recsys.settings import Settings


def whole(
    found: Sequence[Mapping[str, Any]],
    means: Mapping[str, Any],
    differences: Mapping[str, Any],
    *,
    variants: Sequence[str],
    baselines: Sequence[str],
    metric: str,
    questions: int,
) -> dict[str, Any]:
    """The figures of all nights, their curve, and the verdict; JSON-friendly.

    Parameters
    ----------
    found
        Figures by night, oldest first.
    means, differences
        Over all nights, from `recsys.backtest.differences`.
    questions
        Of users with a history, in all nights.
    """
    full = [figures for figures in found if not figures["empty"]]
    names = list(dict.fromkeys(name for figures in full for name in figures["rankers"]))
    return {
        "nights": list(found),
        "measured": len(full),
        "reference": variants[0],
        "variants": list(variants),
        "baselines": list(baselines),
        "metric": metric,
        "questions": questions,
        "means": means,
        "differences": differences,
        "curve": curve(found, names, metric),
        "verdict": verdict(
            means,
            differences,
            reference=variants[0],
            former=FORMER,
            baselines=baselines,
            metric=metric,
            nights=len(full),
            questions=questions,
        ),
    }


def curve(found: Sequence[Mapping[str, Any]], names: Sequence[str], metric: str) -> dict[str, Any]:
    """Values of a metric over nights, by ranker; None where there was no question or no table."""

    def value(figures: Mapping[str, Any], name: str) -> float | None:
        one = figures["rankers"].get(name, {}).get("metrics", {}).get("known", {}).get(metric)
        return None if one is None else float(one)

    return {
        "nights": [figures["night"] for figures in found],
        "metric": metric,
        "values": {name: [value(figures, name) for figures in found] for name in names},
    }


def notes(
    settings: Settings, source: Source, plan: Plan, found: Sequence[Mapping[str, Any]], *, repeats: bool
) -> list[str]:
    """Sentences on what must be known before anyone reads the figures."""
    said = [
        f"The log was read from the sources for this backtest; {plan.why}."
        if source.ingested
        else f"The log is that of {source.root}, version {source.versions.interactions}, as it was last ingested; "
        f"{plan.why}.",
        "Weights are as they were last corrected; events of users who were forgotten since are in no night.",
    ]
    if source.versions.items is not None:
        said.append(
            "The catalogue has no times: each night knows today's, with items that came later and today's attributes."
        )
    if source.versions.users is not None:
        said.append("The user table has no times: each night knows today's attributes.")
    if settings.split.test_from is not None or settings.split.validation_from is not None:
        said.append("split.test_from and split.validation_from are left out; the fractions of [split] decide.")
    start = settings.train.warm_start
    if start not in (None, "previous"):
        said.append(f"train.warm_start = {start!r} may have learnt from events after a night, which would flatter it.")
    new = sum(figures["window"]["new_users"] for figures in found)
    asked = sum(figures["window"]["asked"] for figures in found)
    if new:
        said.append(
            f"{new:,} of {asked:,} questions are of users without an event before the night, who have no row in the "
            "table: popularity serves them under every name, and figures and differences are of the others."
        )
    again = sum(figures["window"]["repeats"] for figures in found)
    if again:
        kept = "are kept as targets" if repeats else "are no targets, as retrieve.exclude_seen = true"
        said.append(f"{again:,} pairs of a user and an item that the user had before {kept}.")
    empty = [night for night, figures in zip(plan.nights, found, strict=True) if figures["empty"]]
    if empty:
        said.append(f"Windows without a question, which count for nothing: {len(empty)} ({labels(empty)}).")
    return said


def one_line(figures: Mapping[str, Any], reference: str, metric: str) -> str:
    """A night on one line."""
    window = figures["window"]
    if figures["empty"]:
        return f"{figures['night']}: nobody to ask ({window['events']:,} events in the window)."
    shown = {name: one["metrics"].get("known", {}).get(metric) for name, one in figures["rankers"].items()}
    best = sorted((name for name in shown if name != reference and shown[name] is not None), key=lambda n: -shown[n])
    named = [reference, *([FORMER] if FORMER in shown else []), *(name for name in best if name != FORMER)][:4]
    figure = ", ".join(f"{name} {shown[name]:.4f}" for name in named if shown[name] is not None)
    name, _, k = metric.partition("_at_")
    return (
        f"{figures['night']}: {figures['known']['events']:,} events known, {window['asked']:,} users asked "
        f"({window['new_users']:,} new); {name.upper()}@{k} {figure}."
    )


def numbers_of(figures: Mapping[str, Any], *, every: bool) -> dict[str, float]:
    """A night's numbers under names that group by ranker: `served/ndcg_at_10`, `window/asked`, `minus/former/...`."""
    found = {f"window/{name}": value for name, value in figures["window"].items()}
    for name, one in figures["rankers"].items():
        ranker = name.replace("+", "_")
        found |= {f"{ranker}/{metric}": value for metric, value in one["metrics"].get("known", {}).items()}
        found |= {f"{ranker}/{what}": one[what] for what in ("coverage_users", "coverage_items", "new_items")}
        if every:
            found |= {f"{ranker}/all_users/{metric}": value for metric, value in one["metrics"].get("all", {}).items()}
    for name, tests in figures["differences"].items():
        for metric, one in tests.items():
            found[f"minus/{name.replace('+', '_')}/{metric}"] = one["mean"]
    if every:
        found |= {f"known/{name}": value for name, value in figures["known"].items()}
        found |= {
            f"seconds/{label}/{step}": value
            for label, one in figures["built"].items()
            for step, value in one["seconds"].items()
        }
    return found
