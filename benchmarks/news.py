"""NDCG@10 of a night that keeps yesterday's work, by the share of its events that are new.

    .venv/bin/python benchmarks/news.py --data DATA

A log is cut at a moment, so that a share of its events comes later. A bundle learns from what came before. Then a night
on the whole log is measured on its test questions four ways: trained from nothing; trained from that bundle for a third
of the epochs; and each with the regressions of that bundle in the place of its own, counts and ranker as they are. The
defaults of `train.warm_share` and `blend.resolve_share` rest on this table.

DATA holds ml-latest-small and online-retail-ii. Users of the first rate most films in one sitting, so its news are new
users; those of the second come back. `--keep FILE` keeps figures between calls; `--quick` trains two epochs.
"""

from __future__ import annotations

import functools
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import common
import numpy as np
import polars as pl

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.candidates.linear import Linear
from recsys.data.asked import test_questions
from recsys.data.prepare import prepare
from recsys.evaluation.evaluate import blend_scorer
from recsys.evaluation.metrics import per_user
from recsys.evaluation.ranking import rank_targets
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.retrieval.repeats import with_repeats
from recsys.serving.recommender import open_bundle
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.text.represent import represent

SHARES: Final = (0.05, 0.2, 0.4, 0.6)
QUICK: Final = ("train.epochs=2", "train.evaluate_every=1", "model.dimensions=16", "items.text=[]")


@dataclass(frozen=True, kw_only=True)
class Log:
    """A shipped configuration whose log has times: the folder under DATA, the log's file, its column of times."""

    folder: str
    file: str
    time: str


LOGS: Final = {
    "ml-latest-small": Log(folder="ml-latest-small", file="ratings.csv", time="timestamp"),
    "online-retail": Log(folder="online-retail-ii", file="transactions.parquet", time="time"),
}


def settings_of(name: str, source: Path, log: Path, warehouse: Path, more: list[str]) -> Settings:
    """The shipped configuration, on another log and in a warehouse of its own."""
    own = [f"data_root={source}", f"interactions.source={log}", f"warehouse={warehouse}", "blend.kind=always"]
    return load_settings(common.ROOT / "configs" / f"{name}.toml", [*own, *more])


def cut(log: pl.DataFrame, column: str, share: float, path: Path) -> Path:
    """Write the events before the moment after which a share of them comes."""
    times = log[column].sort()
    before = log.filter(pl.col(column) < times[int(len(times) * (1 - share))])
    (before.write_csv if path.suffix == ".csv" else before.write_parquet)(path)
    return path


def trained(settings: Settings, label: str) -> tuple[Path, float]:
    """A bundle of the whole log or a part, and the CPU seconds of its training."""
    versions = ingest(settings).versions
    represent(settings, versions)
    began = time.process_time()
    bundle = fit(settings, versions, say=lambda text: common.say(f"{label}: {text}")).bundle
    return Path(bundle), time.process_time() - began


def ndcg(settings: Settings, bundle: Path, regressions: Bundle | None = None) -> np.ndarray:
    """NDCG@10 of each question by the bundle's blend, `regressions` of another bundle in the place of its own."""
    served = open_bundle(bundle)
    dataset = prepare(settings, ingest(settings).versions)
    asked = test_questions(settings, dataset)
    blended = served.blended
    assert blended is not None
    if regressions is not None:
        other = open_bundle(regressions.path).blended
        former = None if other is None else other.source(Linear)
        assert former is not None
        former = former.recoded(dataset.vocabulary.encode(regressions.vocabulary.items), dataset.vocabulary.size)
        kept = tuple(former if isinstance(source, Linear) else source for source in blended.sources)
        blended = replace(blended, sources=kept)
    scorer = blend_scorer(served.bundle, blended, served.encode(asked.histories), asked.histories, settings)
    found = rank_targets(
        scorer.score_block, asked, scorer.allowed, exclude_seen=settings.evaluate.exclude_seen, top_k=1
    )
    return per_user(found.ranks, "ndcg", 10)


def alone(settings: Settings, bundle: Path) -> np.ndarray:
    """NDCG@10 of each question by the bundle's model alone."""
    served = open_bundle(bundle)
    asked = test_questions(settings, prepare(settings, ingest(settings).versions))
    queries, model = served.encode(asked.histories), served.model
    scores = with_repeats(
        lambda start, stop: queries[start:stop] @ model.vectors.T,
        asked.histories.items,
        asked.histories.offsets,
        model.repeats,
    )
    found = rank_targets(scores, asked, model.allowed, exclude_seen=settings.evaluate.exclude_seen, top_k=1)
    return per_user(found.ranks, "ndcg", 10)


def measured(name: str, share: float, data: Path, folder: Path, cold: Any, more: list[str]) -> dict[str, Any]:
    """A line of the table. `cold` gives the bundle from nothing and its CPU seconds, made once a log."""
    of = LOGS[name]
    source = (data / of.folder).resolve()
    whole = source / of.file
    log = pl.read_csv(whole) if whole.suffix == ".csv" else pl.read_parquet(whole)
    earlier = cut(log, of.time, share, folder / f"{name}-{share:g}{whole.suffix}")
    settings = settings_of(name, source, whole, folder / f"{name}-whole", more)
    before = settings_of(name, source, earlier, folder / f"{name}-{share:g}", more)
    previous, _ = trained(before, f"{name}, without {share:.0%}")
    bundle, seconds = cold()
    warm_settings = settings_of(name, source, whole, folder / f"{name}-whole", [*more, f"train.warm_start={previous}"])
    warm, warm_seconds = trained(warm_settings, f"{name}, warm, {share:.0%} new")
    former = read_bundle(previous)
    own, kept = ndcg(settings, bundle), ndcg(settings, bundle, former)
    warm_own, warm_kept = ndcg(settings, warm), ndcg(settings, warm, former)
    nothing = alone(settings, bundle)
    return {
        "from nothing": float(own.mean()),
        "regressions kept": interval(kept - own),
        "warm": interval(warm_own - own),
        "warm, regressions kept": interval(warm_kept - own),
        "model alone, from nothing": float(nothing.mean()),
        "model alone, warm": interval(alone(settings, warm) - nothing),
        "seconds": seconds,
        "warm_seconds": warm_seconds,
        "events": len(log),
    }


def interval(differences: np.ndarray) -> dict[str, float]:
    """Mean of paired differences, and half of its 95% interval."""
    return {"mean": float(differences.mean()), "half": float(1.96 * differences.std() / np.sqrt(len(differences)))}


def show(figures: dict[str, Any]) -> None:
    """Print a table a log."""
    for name, lines in figures["logs"].items():
        first = next(iter(lines.values()))
        print(
            f"\n{name}: blend from nothing {first['from nothing']:.4f}, model alone "
            f"{first['model alone, from nothing']:.4f}; differences of NDCG@10 to it\n"
        )
        keys = ("regressions kept", "warm", "warm, regressions kept", "model alone, warm")
        rows = [
            {"new": f"{float(share):.0%}"}
            | {key: f"{line[key]['mean']:+.4f} ± {line[key]['half']:.4f}" for key in keys}
            | {"CPU s warm / from nothing": f"{line['warm_seconds']:.0f} / {line['seconds']:.0f}"}
            for share, line in lines.items()
        ]
        print(common.table(rows))


def main() -> None:
    """Print the tables."""
    parser = common.options(__doc__)
    parser.add_argument("--only", nargs="*", choices=list(LOGS), default=list(LOGS))
    parser.add_argument("--shares", nargs="*", type=float, default=SHARES)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every training")
    parser.add_argument("--keep", type=Path, help="file of figures that are known already")
    given = parser.parse_args()
    more = [*given.set, *(QUICK if given.quick else ())]
    kept = common.Kept(given.keep)
    logs: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="recsys-news-") as scratch:
        for name in given.only:
            of = LOGS[name]
            source = (given.data / of.folder).resolve()

            @functools.cache
            def cold(name: str = name, source: Path = source, file: str = of.file) -> tuple[Path, float]:
                folder = Path(scratch) / f"{name}-whole"
                return trained(settings_of(name, source, source / file, folder, more), f"{name}, from nothing")

            for share in given.shares[-1:] if given.quick else given.shares:
                line = functools.partial(measured, name, share, given.data, Path(scratch), cold, more)
                logs.setdefault(name, {})[str(share)] = kept.figures(f"{name} {share:g} {more}", line)
    common.answer(given, {"logs": logs}, show)


if __name__ == "__main__":
    common.from_shell(main)
