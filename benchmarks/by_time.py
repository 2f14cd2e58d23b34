"""Splits by time: one training, measured on the first, last, random and successive events after the cut.

    .venv/bin/python benchmarks/by_time.py --data DATA --only ml-1m-time amazon-beauty-time

DATA holds what the head of each configuration assumes. Each configuration is ingested and trained once, because
training and validation do not depend on the target; then the blend, the model alone and all baselines rank the same
questions. `--warehouse FOLDER` keeps tables and bundles; `--bundle PATH` measures a bundle that is there already.
The published rows are of "Time to Split" (arXiv 2507.16289), computed from the result files that its authors released;
they ask the same users about the same events, of the same number of items. A shop's log has none. `--quick` trains one
epoch and asks for the first events only.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final, get_args

import common

from recsys.evaluation.compare import BLEND, MODEL, EvaluationReport
from recsys.evaluation.evaluate import evaluate
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.settings import Settings
from recsys.settings.evaluate import Baseline
from recsys.settings.read import load_settings
from recsys.settings.split import Target
from recsys.text.represent import represent

CONFIGURATIONS: Final = {  # and the folder under DATA that is its data_root
    "ml-1m-time": ".",
    "amazon-beauty-time": ".",
    "online-retail-time": "online-retail-ii",
}
TARGETS: Final[tuple[Target, ...]] = get_args(Target)
HR, NDCG = "test/hr_at_10", "test/ndcg_at_10"
QUICK: Final = ("train.epochs=1", "train.evaluate_every=1", "model.dimensions=16", "items=none")
QUICK_BASELINES: Final = ("popularity", "recent-popularity", "transitions")
# HR@10, NDCG@10 by target
PUBLISHED: Final[dict[str, dict[str, dict[str, tuple[float, float]]]]] = {
    "ml-1m-time": {
        "SASRec+, validation by time": {
            "first": (0.0703, 0.0321),
            "last": (0.1596, 0.0948),
            "random": (0.1944, 0.1019),
            "successive": (0.1983, 0.1083),
        },
        "SASRec+, validation by last event": {
            "first": (0.0562, 0.0259),
            "last": (0.1613, 0.0905),
            "successive": (0.2062, 0.1121),
        },
        "BERT4Rec, validation by time": {
            "first": (0.0703, 0.0374),
            "last": (0.1580, 0.0867),
            "random": (0.2051, 0.1080),
            "successive": (0.1856, 0.0961),
        },
    },
    "amazon-beauty-time": {
        "SASRec+, validation by time": {
            "first": (0.0272, 0.0141),
            "last": (0.0416, 0.0240),
            "random": (0.0380, 0.0209),
            "successive": (0.0479, 0.0278),
        },
        "SASRec+, validation by last event": {
            "first": (0.0573, 0.0306),
            "last": (0.0538, 0.0309),
            "successive": (0.0932, 0.0546),
        },
        "SASRec+, validation by users": {
            "first": (0.0663, 0.0355),
            "last": (0.0633, 0.0369),
            "random": (0.0689, 0.0390),
            "successive": (0.0979, 0.0579),
        },
    },
}


def trained(settings: Settings) -> dict[str, Any]:
    """Train the configuration; say where the bundle is and what training took."""
    versions = ingest(settings).versions
    represent(settings, versions)
    report = fit(settings, versions, on_epoch=lambda metrics: common.say(f"{settings.name}: {metrics}"), say=common.say)
    return {"bundle": report.bundle, "epochs": report.epochs, "best_epoch": report.best_epoch, "fit": report.seconds}


def measured(settings: Settings, bundle: str) -> EvaluationReport:
    """Rank the configured target's questions."""
    versions = ingest(settings).versions  # nothing where the same files were ingested
    represent(settings, versions)
    return evaluate(settings, versions, bundle)


def row(report: EvaluationReport) -> dict[str, Any]:
    """All figures of one target, JSON-friendly."""
    return {
        "served": report.served,
        "protocol": report.report["protocol"],
        "figures": {
            name: {key: metrics[key] for key in (HR, NDCG)}
            for name, metrics in ({report.served: report.metrics} | report.baselines).items()
        },
        "intervals": report.intervals,
        "differences": report.differences,
    }


def figures(name: str, given: Any, folder: Path, targets: tuple[Target, ...]) -> dict[str, Any]:
    """Train one configuration, or take the bundle, and measure it on every target."""
    baselines = QUICK_BASELINES if given.quick else get_args(Baseline)
    asked = ", ".join(f'"{baseline}"' for baseline in baselines)
    overrides = [
        f"data_root={(given.data / CONFIGURATIONS[name]).resolve()}",
        f"warehouse={folder / name}",
        f"evaluate.baselines=[{asked}]",
        *(QUICK if given.quick else ()),
        *given.set,
    ]
    config = common.ROOT / "configs" / f"{name}.toml"
    training = {"bundle": given.bundle} if given.bundle else trained(load_settings(config, overrides))
    found: dict[str, Any] = {}
    for target in targets:
        report = measured(load_settings(config, [*overrides, f"split.target={target}"]), training["bundle"])
        found[target] = row(report)
        common.say(f"{name}, {target}: {found[target]['figures']}")
    apart = measured(
        load_settings(config, [*overrides, "split.target=first", "split.new_users=apart"]), training["bundle"]
    )
    return {"training": training, "targets": found, "without_history": apart.report["without_history"]}


def show(found: dict[str, Any]) -> None:
    """The figures for readers."""
    for name, of in found["configurations"].items():
        print(f"\n{name}: {of['training']}\n")
        print("HR@10 / NDCG@10\n")
        targets = of["targets"]
        rankers = dict.fromkeys(ranker for one in targets.values() for ranker in one["figures"])
        rows = []
        for ranker in sorted(rankers, key=[BLEND, MODEL, *rankers].index):
            own = {target: one["figures"].get(ranker) for target, one in targets.items()}
            rows.append({"": ranker} | {t: _pair((v[HR], v[NDCG])) if v else "–" for t, v in own.items()})
        for ranker, published in PUBLISHED.get(name, {}).items():
            cells = {t: _pair(published[t]) if t in published else "–" for t in targets}
            rows.append({"": f"published: {ranker}"} | cells)
        print(common.table(rows))
        print("\n95% intervals of what is served, and of its lead in NDCG@10\n")
        rows = [
            {"": key} | {target: _interval(one["intervals"][of_key]) for target, one in targets.items()}
            for key, of_key in (("HR@10", HR), ("NDCG@10", NDCG))
        ]
        rows += [
            {"": f"NDCG@10 ahead of {ranker}"}
            | {
                target: _interval(one["differences"][ranker][NDCG]) if ranker in one["differences"] else "–"
                for target, one in targets.items()
            }
            for ranker in rankers
            if any(ranker in one["differences"] for one in targets.values())
        ]
        print(common.table(rows))
        for target, one in targets.items():
            stated = one["protocol"]
            print(
                f"\n{target}: {stated['questions']:,} questions to {stated['asked_users']:,} users, "
                f"{stated['cold_targets']:,} for items without an event before the cut; {stated['averages']}; recent "
                f"popularity: {stated.get('recent_popularity', 'not asked for')}"
            )
        print(f"\nusers without history, first event: {of['without_history']}")


def _pair(figure: tuple[float, float]) -> str:
    return f"{figure[0]:.4f} / {figure[1]:.4f}"


def _interval(of: dict[str, float]) -> str:
    return f"{of['mean']:.4f} ({of['low']:.4f} to {of['high']:.4f})"


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--only", nargs="*", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--targets", nargs="*", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--warehouse", type=Path, help="folder that keeps tables and bundles; else a temporary one")
    parser.add_argument("--bundle", help="folder of a bundle to measure instead of training one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for recsys run")
    given = parser.parse_args(arguments)
    if given.bundle and len(given.only) != 1:
        parser.error("--bundle belongs to one configuration; name it with --only")
    targets = ("first",) if given.quick else tuple(given.targets)
    with tempfile.TemporaryDirectory(prefix="recsys-by-time-") as folder:
        found = {name: figures(name, given, given.warehouse or Path(folder), targets) for name in given.only}
    common.answer(given, {"set": given.set, "configurations": found}, show)


if __name__ == "__main__":
    common.from_shell(main)
