"""Refits by backtest: past nights of real logs, served by what was measured, by counts of all events, by all of both.

    .venv/bin/python benchmarks/backtest.py --data DATA --only ml-latest-small online-retail ml-1m-time

DATA holds what the head of each configuration assumes. Each night is trained once, and the three kinds of `train.refit`
make a table of it each. Trainings are shortened as SHORTER says, unless `--whole` is given, so figures are below those
of the configurations; what is compared is equally short. `--warehouse FOLDER` keeps results, so that a run that was
killed goes on; `--quick` replays one night of a training of one epoch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import common

from recsys.backtest.variants import read_variants
from recsys.pipelines.backtest import backtest_alone
from recsys.pipelines.orchestration.launch import watched
from recsys.pipelines.terminal.console import Show

# by configuration: the folder under DATA that is its data_root, and the plan
CONFIGURATIONS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "ml-latest-small": ("ml-latest-small", {"nights": 4, "every": "60d"}),
    "online-retail": ("online-retail-ii", {"nights": 4, "every": "7d"}),
    "ml-1m-time": (".", {"nights": 3, "every": "7d", "until": "2000-12-30"}),
}
SHORTER: Final[dict[str, tuple[str, ...]]] = {
    "ml-latest-small": ("train.epochs=12", "train.evaluate_every=3"),
    "online-retail": ("train.epochs=3", "train.evaluate_every=1"),
    "ml-1m-time": ("train.epochs=4", "train.evaluate_every=2", "model.dimensions=64"),
}
QUICK: Final = ("train.epochs=1", "train.evaluate_every=1", "model.dimensions=16", "items=none", "blend.kind=never")
KINDS: Final = ("none", "counts", "all")


def replay(given: Any, name: str, warehouse: str) -> dict[str, Any]:
    """Backtest one configuration with each kind of refit beside the others."""
    folder, plan = CONFIGURATIONS[name]
    changes = () if given.whole else QUICK if given.quick else SHORTER[name]
    fixed = (f"data_root={given.data}/{folder}", f"warehouse={warehouse}/{name}", "tracking.register_model=false")
    variants = read_variants(
        f"{given.configs}/{name}.toml",
        (*fixed, f"tracking.uri=sqlite:///{warehouse}/mlflow.db", *changes),
        [f"train.refit={kind}" for kind in KINDS],
    )
    first = f"train.refit-{KINDS[0]}"
    ordered = {first: variants.pop(first), **{label: one for label, one in variants.items() if label != "served"}}
    if given.quick:
        plan = plan | {"nights": 1}
    with watched(ordered[first], Show()):
        report = backtest_alone(ordered, **plan)
    return {"name": name, "changes": list(changes), "report": report}


def rows(one: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a ranker: means over all nights, and how far it is above what was measured."""
    report = one["report"]
    found = []
    for ranker, means in report["means"].items():
        test = report["differences"].get(ranker, {}).get(report["metric"])
        above = "" if test is None else f"{-test['mean']:+.4f} [{-test['high']:+.4f}, {-test['low']:+.4f}]"
        values = {metric.replace("_at_", "@"): f"{value['mean']:.4f}" for metric, value in means.items()}
        found.append({"ranker": ranker, **values, f"above {report['reference']}": above})
    return found


def show(figures: dict[str, Any]) -> None:
    """Print a table a configuration."""
    for one in figures["backtests"]:
        report = one["report"]
        shortened = f", {', '.join(one['changes'])}" if one["changes"] else ""
        print(
            f"\n{one['name']}: {report['measured']} nights every {report['every']}, {report['questions']:,} questions "
            f"of users with a history{shortened}; {report['seconds'] / 60:.0f} minutes\n"
        )
        print(common.table(rows(one)))
        print(f"\n{report['verdict']}")


def main() -> None:
    """Replay the named configurations and print what each kind of refit reaches."""
    parser = common.options(__doc__)
    parser.add_argument("--configs", default="configs", help="folder of the configurations")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--warehouse", help="keep results here")
    parser.add_argument("--whole", action="store_true", help="train as the configurations say")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Path(given.warehouse or folder).resolve()
        warehouse.mkdir(parents=True, exist_ok=True)
        backtests = [replay(given, name, str(warehouse)) for name in given.only]
        common.answer(given, {"backtests": backtests}, show)


if __name__ == "__main__":
    common.from_shell(main)
