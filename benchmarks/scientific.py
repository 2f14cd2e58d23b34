"""Recformer's Scientific column: text, counting, ids, sequence models and the blend under the paper's protocol.

    .venv/bin/python benchmarks/scientific.py --data DATA
    .venv/bin/python benchmarks/scientific.py --data DATA --part low-resource --plot curve.png

DATA holds the folder recformer-scientific. A row is a configuration of configs/ with the overrides that are printed;
validation chooses epochs and the blend's weights, test is read once. The history's own items stay in the ranking, as in
the paper, and equal scores share the middle of their ranks, which the paper's "strictly higher" rule does not: a row of
sparse scores would look twice as good by that rule. "unseen" is NDCG@10 with the history's items removed, a target
among them being a miss, for comparison with everything else here. `--only` chooses rows, `--seeds` repeats those that
train, `--warehouse` keeps tables and text vectors for the next call, `--zero-shot` names a bundle or a pre-trained
folder for the rows that start from other shops. `--part low-resource` trains on 1 to 100% of the users, by text and by
ids; `--plot` draws the curves, `--mlflow` logs them, drawn and as metrics by per cent of users, to a tracking URI such
as sqlite:///mlruns/mlflow.db.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import common
import numpy as np

from recsys.candidates.popularity import popularity
from recsys.candidates.text import whitened_text
from recsys.columns import SENTENCE
from recsys.data.prepare import Dataset, prepare
from recsys.data.splits import HeldOut
from recsys.evaluation.baseline_scorers import baseline_scorers
from recsys.evaluation.evaluate import blend_scorer
from recsys.evaluation.metrics import per_user
from recsys.evaluation.ranking import ScoreBlock, rank_targets
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.retrieval.repeats import with_repeats
from recsys.serving.recommender import BundleRecommender, open_bundle
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.storage.warehouse import TableVersions
from recsys.text.represent import represent
from recsys.tracking import log as tracking
from recsys.training.validation import PRIMARY

NAMES = ("validation", "ndcg", "recall", "mrr", "cold", "cold_recall", "unseen")


@dataclass(frozen=True)
class Row:
    """A configuration with overrides; `configuration` None: the baseline of this name."""

    configuration: str | None
    overrides: tuple[str, ...] = ()
    trained: bool = True  # the seed matters
    starts: str | None = None  # the setting that `--zero-shot` becomes the value of


MODEL_ALONE = "blend.kind=never"
# as configs/sequence-pretrain.toml has them
ALIGNED = ("text.aligned=true", "model.dimensions=384", "model.temperature=0.1")
LONGER = "train.warm_epochs=60"  # of a few steps each; patience ends them
# as in the paper, but for what was had: everything learns from the first step on, against items that stand still
AT_ONCE = (
    "recformer.probe_epochs=0",
    "recformer.transition_maps=false",
    "recformer.live_items=false",
    "recformer.second_stage_epochs=2",
    "train.epochs=6",
    "train.learning_rate=0.0001",
)
TEXT, SEQUENCE, RECFORMER = "scientific-text", "scientific-sequence", "scientific-recformer"
ROWS: dict[str, Row] = {
    "popularity": Row(None, trained=False),
    "transitions": Row(None, trained=False),
    "text": Row(TEXT, (MODEL_ALONE,), trained=False),
    "text+transitions": Row(None, trained=False),
    "text and what was seen": Row(TEXT, trained=False),
    "ids": Row("scientific-ids"),
    "sequence": Row(SEQUENCE),
    "sequence, zero-shot": Row(SEQUENCE, (*ALIGNED, "train.epochs=0"), trained=False, starts="train.warm_start"),
    "sequence, 1% of users": Row(SEQUENCE, (*ALIGNED, "train.users=0.01", LONGER), starts="train.warm_start"),
    "sequence, 10% of users": Row(SEQUENCE, (*ALIGNED, "train.users=0.1", LONGER), starts="train.warm_start"),
    "sequence, pre-trained": Row(SEQUENCE, ALIGNED, starts="train.warm_start"),
    "Recformer, untrained": Row(RECFORMER, (MODEL_ALONE, "recformer.fine_tune=false"), trained=False),
    "Recformer": Row(RECFORMER, (MODEL_ALONE,)),
    "Recformer, blended": Row(RECFORMER),
    "Recformer, two stages at once": Row(RECFORMER, (MODEL_ALONE, *AT_ONCE)),
    "Recformer, no position or type embeddings": Row(RECFORMER, (MODEL_ALONE, "recformer.embeddings=false")),
    "Recformer, zero-shot": Row(
        RECFORMER,
        (MODEL_ALONE, "recformer.fine_tune=false", "recformer.aligned=true"),
        trained=False,
        starts="recformer.init",
    ),
    "Recformer, pre-trained": Row(RECFORMER, (MODEL_ALONE, "recformer.aligned=true"), starts="recformer.init"),
    "text, blended": Row(TEXT, ("blend.counts=true",), trained=False),
    "best": Row("scientific"),
}
DEFAULT = tuple(
    name
    for name, row in ROWS.items()
    if row.starts is None and not name.startswith(("Recformer, no", "Recformer, two", "Recformer, bl"))
)
SHARES = (0.01, 0.05, 0.1, 0.5, 1.0)
QUICK = ("train.epochs=1", "train.users=0.05", "recformer.second_stage_epochs=0", "recformer.validation_users=200")

Measure = Callable[[ScoreBlock, np.ndarray], dict[str, float]]


def measure(score_block: ScoreBlock, allowed: np.ndarray, held_out: HeldOut, cold: np.ndarray) -> dict[str, float]:
    """The figures of a row.

    Parameters
    ----------
    cold
        bool [U]: targets without training interactions.
    """
    ranks = rank_targets(score_block, held_out, allowed, exclude_seen=False, top_k=1).middle
    removed = rank_targets(score_block, held_out, allowed, exclude_seen=True, top_k=1).middle
    ndcg, recall = per_user(ranks, "ndcg", 10), per_user(ranks, "hr", 10)
    return {
        "ndcg": float(ndcg.mean()),
        "recall": float(recall.mean()),
        "mrr": float((1 / ranks).mean()),  # over all ranks, as the paper has it
        "cold": float(ndcg[cold].mean()) if cold.any() else 0.0,
        "cold_recall": float(recall[cold].mean()) if cold.any() else 0.0,
        "unseen": float(per_user(removed, "ndcg", 10).mean()),
    }


def scorer(served: BundleRecommender, settings: Settings, held_out: HeldOut) -> tuple[ScoreBlock, np.ndarray]:
    """Return what the bundle serves: the blend where it has one, else its vectors."""
    histories = held_out.histories
    queries, model = served.encode(histories), served.model
    if served.blended is not None:
        blended = blend_scorer(served.bundle, served.blended, queries, histories, settings)
        return blended.score_block, blended.allowed

    def scores(start: int, stop: int) -> np.ndarray:
        found: np.ndarray = queries[start:stop] @ model.vectors.T
        return found

    return with_repeats(scores, histories.items, histories.offsets, model.repeats), model.allowed


class Shop:
    """The data set in a warehouse of its own, read once."""

    def __init__(self, data: Path, folder: str) -> None:
        self.places = [f"data_root={(data / 'recformer-scientific').resolve()}", f"warehouse={folder}"]
        settings = self.settings(TEXT)
        self.versions: TableVersions = ingest(settings).versions
        represent(settings, self.versions)
        self.dataset: Dataset = prepare(settings, self.versions)
        self.popular = popularity(self.dataset.split.train.items, self.dataset.vocabulary.size)
        self.held_out = self.dataset.split.test
        self.cold = self.popular[self.held_out.targets] == 0

    def settings(self, configuration: str, overrides: Sequence[str] = ()) -> Settings:
        """Settings of a configuration in configs/."""
        return load_settings(common.ROOT / "configs" / f"{configuration}.toml", [*self.places, *overrides])

    def run(self, configuration: str, overrides: Sequence[str], label: str) -> dict[str, float]:
        """Train, and read the test figures."""
        began, cpu = time.perf_counter(), time.process_time()
        settings = self.settings(configuration, overrides)

        def on_epoch(entry: dict[str, float]) -> None:
            if PRIMARY in entry:
                common.say(f"  {label}, epoch {entry['epoch']}: validation {entry[PRIMARY]:.4f}")

        report = fit(settings, self.versions, on_epoch)
        served = open_bundle(report.bundle)
        found = measure(*scorer(served, settings, self.held_out), self.held_out, self.cold)
        blend = report.blend
        known = blend.validation["blend"] if blend is not None and blend.used and blend.validation is not None else None
        validated = (
            [entry[PRIMARY] for entry in report.history if PRIMARY in entry] if known is None else [known[PRIMARY]]
        )
        return (found | ({"validation": max(validated)} if validated else {})) | {  # of what is served
            "best_epoch": report.best_epoch,
            "minutes": (time.perf_counter() - began) / 60,
            "cpu_minutes": (time.process_time() - cpu) / 60,
        }

    def baseline(self, name: str) -> dict[str, float]:
        """The test figures of one that needs no training."""
        settings, split = self.settings(TEXT), self.dataset.split
        found = baseline_scorers(
            [name],
            split.train,
            self.held_out.histories,
            self.popular,
            lambda: whitened_text(settings, self.dataset.catalogue[SENTENCE]),
        )[name]
        return measure(found.score_block, found.allowed, self.held_out, self.cold)


def overrides_of(row: Row, seed: int, start: str | None, quick: bool) -> list[str]:
    """Return what a row sets; of two values for one setting the later one counts."""
    started = [f"{row.starts}={start}"] if row.starts is not None else []
    return [*(QUICK if quick else ()), *row.overrides, *started, f"seed={seed}"]


def figures_of(shop: Shop, given: Any) -> dict[str, Any]:
    """The table's rows."""
    chosen = given.only or (("popularity", "text") if given.quick else DEFAULT)
    found: dict[str, Any] = {}
    for name in chosen:
        row = ROWS[name]
        if row.configuration is None:
            found[name] = {"overrides": [], "runs": [shop.baseline(name)]}
        else:
            runs = []
            for seed in range(given.seeds if row.trained else 1):
                overrides = overrides_of(row, seed, given.zero_shot, given.quick)
                runs.append(shop.run(row.configuration, overrides, name))
            found[name] = {"configuration": row.configuration, "overrides": list(row.overrides), "runs": runs}
        common.say(f"{name}: {found[name]['runs']}")
    return {"rows": found, "users": len(shop.held_out), "cold_targets": int(shop.cold.sum())}


def low_resource(shop: Shop, given: Any) -> dict[str, Any]:
    """Text against ids by the share of training users."""
    shares = SHARES[1:2] if given.quick else SHARES
    curves: dict[str, Any] = {}
    for label, configuration in (("text", SEQUENCE), ("ids", "scientific-ids")):
        curves[label] = []
        for share in shares:
            # epochs of few users are short, so there are more of them; validation ends them, with patience
            epochs = shop.settings(configuration).train.epochs * min(10, round(1 / share))
            overrides = [MODEL_ALONE, f"train.users={share}", f"train.epochs={1 if given.quick else epochs}"]
            overrides.append("train.patience=10")
            runs = [
                shop.run(configuration, [*overrides, f"seed={s}"], f"{label} {share:.0%}") for s in range(given.seeds)
            ]
            curves[label].append({"share": share, "runs": runs})
            common.say(f"{label} {share:.0%}: {runs}")
    untrained = shop.run(TEXT, [MODEL_ALONE], "text, untrained")
    return {"curves": curves, "untrained": untrained}


def picture(figures: dict[str, Any]) -> Any:
    """The curves as a matplotlib figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.0), layout="constrained")
    axes = figure.subplots()
    for label, points in figures["curves"].items():
        shares = [100 * point["share"] for point in points]
        axes.plot(shares, [mean(run["ndcg"] for run in point["runs"]) for point in points], marker="o", label=label)
    axes.axhline(figures["untrained"]["ndcg"], linestyle="--", color="#8c8c8c", label="text, untrained")
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(shares, labels=[f"{share:g}" for share in shares])
    axes.set_xlabel("training users, %")
    axes.set_ylabel("test NDCG@10")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def track(figures: dict[str, Any], settings: Settings) -> None:
    """The curves as an MLflow run: the picture, and each curve as a metric whose step is per cent of the users."""
    store = tracking.open_store(settings)
    with tracking.step_run(store, "low-resource") as run_id:
        tracking.log_figure(store, run_id, "low-resource.png", picture(figures))
        tracking.log_metrics(store, run_id, {"untrained/test_ndcg_at_10": figures["untrained"]["ndcg"]})
        for label, points in figures["curves"].items():
            for point in points:
                found = {f"{label}/test_ndcg_at_10": mean(run["ndcg"] for run in point["runs"])}
                tracking.log_metrics(store, run_id, found, step=round(100 * point["share"]))


def both(runs: list[dict[str, float]], name: str) -> str:
    """Mean and standard deviation over seeds."""
    values = [run[name] for run in runs if name in run]
    if not values:  # what trains nothing has no figure on validation
        return "–"
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    if "curves" in figures:
        shares = [point["share"] for point in figures["curves"]["text"]]
        rows = [
            {"training users": f"{share:.0%}"}
            | {label: both(points[place]["runs"], "ndcg") for label, points in figures["curves"].items()}
            for place, share in enumerate(shares)
        ]
        print(f"test NDCG@10; text without training: {figures['untrained']['ndcg']:.4f}\n")
        print(common.table(rows))
        return
    print(f"{figures['users']} users, ties in the middle, {figures['cold_targets']} cold targets\n")
    rows = []
    for name, row in figures["rows"].items():
        cells = {column: both(row["runs"], column) for column in NAMES}
        minutes = mean(run.get("cpu_minutes", 0.0) for run in row["runs"])
        rows.append(
            {"row": name, "overrides": " ".join(row["overrides"]) or "-"} | cells | {"CPU min": f"{minutes:.1f}"}
        )
    print(common.table(rows))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--part", choices=("table", "low-resource"), default="table")
    parser.add_argument("--only", nargs="*", help="rows by name")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--warehouse", help="a folder for tables and vectors, kept; a temporary one otherwise")
    parser.add_argument("--zero-shot", help="a bundle or pre-trained folder that rows start from")
    parser.add_argument("--plot", type=Path, help="low-resource: a picture of the curves")
    parser.add_argument("--mlflow", metavar="URI", help="low-resource: log the curves there")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.only or ()) - set(ROWS))
    if unknown:
        sys.exit(f"there is no row {unknown[0]!r}; rows: {'; '.join(ROWS)}")
    lacking = [name for name in given.only or () if ROWS[name].starts is not None and given.zero_shot is None]
    if lacking:
        sys.exit(f"the row {lacking[0]!r} starts from a pre-trained model; name it with --zero-shot")
    with tempfile.TemporaryDirectory(prefix="recsys-scientific-") as folder:
        shop = Shop(given.data, given.warehouse or folder)
        figures = low_resource(shop, given) if given.part == "low-resource" else figures_of(shop, given)
        if given.mlflow is not None and "curves" in figures:
            track(figures, shop.settings(SEQUENCE, [f"tracking.uri={given.mlflow}"]))
    if given.plot is not None and "curves" in figures:
        picture(figures).savefig(given.plot, dpi=150)
    common.answer(given, figures, show)


if __name__ == "__main__":
    common.from_shell(main)
