"""Click prediction on MovieLens-1M: one multiplexed table, a hash table per feature, and tables without collisions.

    .venv/bin/python benchmarks/multiplexing_auc.py --data ../shared/datasets --plot pareto.png

The study is that of "Unified Embedding" (arXiv 2305.12102, table 1). Features: user, movie, gender, age, occupation,
zip. Ratings 1 and 2 become 0, 4 and 5 become 1, 3 is dropped. Random split, 80/10/10. Every feature has a vector of 30
floats; the head is DCN-V2: one cross layer of full rank, then one dense layer of 192, no normalisation. Budget 1.0 is
13,653 rows x 30 x 4 bytes = 1.6 MB, as published. The arms share everything but the table:

- collisionless: a row a value. Its vocabulary map counts as no bytes.
- hashed: a table a feature, the budget's rows split in proportion to the vocabularies.
- multiplexed: one table, one salted look-up a feature. `2 look-ups` are two of half the width in twice the rows;
  `one salt` is the control in which every feature has the same salt.

The split is that of the public replication (lilyungg/unified-embeddings, its seed 42), so the test rows are those of
the published figures; a seed decides start and order, as theirs. `--vary-split` draws a split a seed as well. All arms
have the same seeds, so differences are paired. Training: Adam on the head, row-wise Adagrad on the table, a moving
average of all weights, the epoch with the best AUC on validation. Learning rates and decays are the same for all arms
and were chosen on validation (`--tune`). The second data set joins in what movies_extra.dat knows of a film: year,
genres, directors, the words of its cast, and two crossed features; vectors of 16 floats, budget 1.0 is as many rows as
there are values.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import polars as pl
import torch
from common import answer, options, say, table
from torch import Tensor, nn
from torch.nn import functional

from features.collisions import angle, overlap, projections
from features.encode import FeatureEncoder
from features.hashing import lookup_rows
from features.multiplexed import Feature, FeatureBatch
from features.precision import native_bf16
from features.rowwise import RowWiseAdagrad
from features.tables import MultiplexedTable

BUDGETS = (1.0, 0.5, 0.1)
FEW_SEEDS = 2  # of the controls and of the second data set
PUBLISHED = {
    "multiplexed": {"1.0": 0.8872, "0.5": 0.8759, "0.1": 0.8263},
    "hashed": {"1.0": 0.8684, "0.5": 0.8407, "0.1": 0.7712},
    "collisionless": {"1.0": 0.8985},
}
BASE = tuple(Feature(name=name) for name in ("user", "movie", "gender", "age", "occupation", "zip"))
LARGE = (
    *BASE,
    Feature(name="year"),
    Feature(name="age x movie", kind="crossed", of=("age", "movie")),
    Feature(name="occupation x movie", kind="crossed", of=("occupation", "movie")),
    Feature(name="genres", kind="multi"),
    Feature(name="directors", kind="multi"),
    Feature(name="cast", kind="multi"),
)
FEATURES = {"ml-1m": BASE, "ml-1m-extra": LARGE}
ROWS = {"ml-1m": 13_653, "ml-1m-extra": None}  # of budget 1.0; None: as many as there are values
WIDTH = {"ml-1m": 30, "ml-1m-extra": 16}  # of a feature's vector
TUNED = {"table_rate": (0.1, 0.2, 0.4), "table_decay": (1e-4, 2e-4, 4e-4)}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training."""

    data: str
    arm: str
    budget: float = 1.0
    seed: int = 0  # of start and order
    split: int = 42  # seed of the split
    lookups: int = 1
    one_salt: bool = False
    aligned: bool = False  # the head of the angle control
    share: float = 1.0  # of the ratings
    epochs: int = 12  # at most
    patience: int = 1  # epochs without a gain on validation
    batch: int = 1024
    table_rate: float = 0.2
    table_decay: float = 2e-4
    head_rate: float = 1e-3
    average: float = 4.0  # power of the weights' average: step t counts in proportion to t ** average

    @property
    def name(self) -> str:
        """How tables call its arm."""
        name = self.arm + (f", {self.lookups} look-ups" if self.lookups > 1 else "")
        return name + (", one salt" if self.one_salt else "")


# --- data ------------------------------------------------------------------------------------------------------------


def fields(path: Path, names: Sequence[str], encoding: str = "utf-8") -> pl.DataFrame:
    """A file of fields between double colons; further fields of a line are left out."""
    lines = pl.Series("line", path.read_text(encoding=encoding).splitlines())
    parts = lines.filter(lines != "").str.split("::").list
    return pl.DataFrame([parts.get(place).alias(name) for place, name in enumerate(names)])


def ratings(folder: Path) -> pl.DataFrame:
    """A row a rating other than 3: label, features of user and film."""
    users = fields(folder / "users.dat", ["user", "gender", "age", "occupation", "zip"], "latin-1")
    frame = fields(folder / "ratings_without_timestamps.dat", ["user", "movie", "rating"])
    frame = frame.filter(pl.col("rating") != "3").with_columns(label=(pl.col("rating") > "3").cast(pl.Float32))
    names = ["movie", "title", "year", "mpaa", "released", "genres", "directors", "writers", "cast"]
    films = fields(folder / "movies_extra.dat", names).with_columns(
        pl.col("genres", "directors").str.split(", "),
        pl.col("cast").str.to_lowercase().str.extract_all(r"\w+").list.unique(),
    )
    films = films.select("movie", "year", "genres", "directors", "cast")
    return frame.join(users, on="user", how="left", maintain_order="left").join(
        films, on="movie", how="left", maintain_order="left"
    )


@dataclass(frozen=True, eq=False)
class Ratings:
    """Hashed features, and labels float32 [N]."""

    features: FeatureBatch
    labels: Tensor


@cache
def prepared(folder: Path, data: str) -> Ratings:
    """A data set, hashed; kept for the next job of the process."""
    frame = ratings(folder)
    return Ratings(FeatureEncoder.fit(FEATURES[data], frame).encode(frame), frame["label"].to_torch())


def split(count: int, seed: int, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of training, validation and test: 80/10/10 of a share of all."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count)[: round(share * count)])
    cuts = [int(0.8 * len(order)), int(0.9 * len(order))]
    return order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :]


# --- rows of the arms ------------------------------------------------------------------------------------------------


def columns_of(batch: FeatureBatch, features: Sequence[Feature]) -> Iterator[tuple[str, Tensor]]:
    """Each feature with all its hashes: the single-valued ones first, then the multi-valued ones."""
    for place, feature in enumerate(f for f in features if f.kind != "multi"):
        yield feature.name, batch.values[:, place]
    for place, feature in enumerate(f for f in features if f.kind == "multi"):
        start, stop = batch.offsets[place * len(batch)], batch.offsets[(place + 1) * len(batch)]
        yield feature.name, batch.bags[int(start) : int(stop)]


def rows_of(job: Job, batch: FeatureBatch) -> tuple[FeatureBatch, int]:
    """The batch with rows of the arm's table in place of hashes, a column or bag a look-up; and the table's size."""
    features = FEATURES[job.data]
    found = {name: hashes.unique(return_inverse=True) for name, hashes in columns_of(batch, features)}
    vocabulary = {name: len(distinct) for name, (distinct, _) in found.items()}
    total = sum(vocabulary.values())
    size = round((ROWS[job.data] or total) * job.budget)
    looked_up, before = {}, 0
    for name, (distinct, places) in found.items():
        if job.arm == "multiplexed":
            rows = lookup_rows(distinct, "every" if job.one_salt else name, job.lookups, size * job.lookups)
        elif job.arm == "hashed":
            own = max(1, round(size * vocabulary[name] / total))
            rows, before = lookup_rows(distinct, name, 1, own) + before, before + own
        else:
            rows, before = torch.arange(len(distinct))[:, None] + before, before + len(distinct)
        looked_up[name] = rows[places]
    single = [looked_up[f.name] for f in features if f.kind != "multi"]
    bags = [column for f in features if f.kind == "multi" for column in looked_up[f.name].unbind(1)]
    offsets = [batch.offsets[:1]]
    for place in range((len(batch.offsets) - 1) // len(batch)):
        bounds = batch.offsets[place * len(batch) : (place + 1) * len(batch) + 1]
        for _ in range(job.lookups):
            offsets.append(bounds[1:] - bounds[0] + offsets[-1][-1])
    mapped = FeatureBatch(
        values=torch.cat(single, 1), bags=torch.cat([batch.bags[:0], *bags]), offsets=torch.cat(offsets)
    )
    return mapped, size * job.lookups if job.arm == "multiplexed" else before


# --- model -----------------------------------------------------------------------------------------------------------


class DeepCross(nn.Module):
    """DCN-V2 (Wang et al., 2021): a cross layer of full rank, a dense layer, one logit."""

    def __init__(self, width: int, hidden: int = 192) -> None:
        super().__init__()
        self.cross, self.dense, self.logit = nn.Linear(width, width), nn.Linear(width, hidden), nn.Linear(hidden, 1)
        for linear in (self.cross, self.dense, self.logit):
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width] to [B]."""
        x = x * self.cross(x) + x
        return self.logit(functional.relu(self.dense(x))).squeeze(1)


class Aligned(nn.Module):
    """One vector of weights a feature, all equal at first: the worst start for telling features apart."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(functional.normalize(torch.randn(1, width)).repeat(features, 1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, features * width] to [B]."""
        return x @ self.weight.flatten() + self.bias

    def mean_angle(self) -> float:
        """Of every two features' weights, degrees."""
        weights = self.weight.detach().float()
        return mean(angle(a, b) for i, a in enumerate(weights) for b in weights[:i])


class Model(nn.Module):
    """A table of an arm's rows under the head."""

    def __init__(self, job: Job, rows: int, batch: FeatureBatch) -> None:
        super().__init__()
        self.table = MultiplexedTable(rows, WIDTH[job.data] // job.lookups, spread=0.05, sparse=True)
        width, features = WIDTH[job.data], len(FEATURES[job.data])
        self.head = Aligned(features, width) if job.aligned else DeepCross(width * features)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """Logits [B]."""
        vectors = self.table.single(batch.values)
        bags = (len(batch.offsets) - 1) // len(batch)
        if bags:
            pooled = self.table.reduce(batch.bags, batch.offsets, "mean").view(bags, len(batch), -1)
            vectors = torch.cat([vectors, pooled.transpose(0, 1).flatten(1)], 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
            return self.head(vectors).float()


def fit(job: Job, folder: Path) -> dict[str, Any]:
    """Train one arm; its measures on test in the epoch that is best on validation."""
    began = time.perf_counter()
    data = prepared(folder, job.data)
    batch, rows = rows_of(job, data.features)
    training, validation, test = split(len(batch), job.split, job.share)
    torch.manual_seed(job.seed)
    model = Model(job, rows, batch)
    averaged = copy.deepcopy(model)
    head = averaged.head
    pairs = [(a.detach(), p.detach()) for a, p in zip(averaged.parameters(), model.parameters(), strict=True)]
    optimizers = [
        RowWiseAdagrad(model.table.parameters(), job.table_rate, weight_decay=job.table_decay),
        torch.optim.Adam(model.head.parameters(), job.head_rate, fused=True),
    ]
    best: dict[str, float] = {"validation": 0.0}
    steps, since = 0, 0
    for epoch in range(1, job.epochs + 1):
        for chosen in training[torch.randperm(len(training))].split(job.batch):
            logits = model(batch.take(chosen))
            functional.binary_cross_entropy_with_logits(logits, data.labels[chosen]).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            steps += 1
            share = (job.average + 1) / (steps + job.average)  # of the newest weights in their average
            torch._foreach_lerp_([a for a, _ in pairs], [p for _, p in pairs], share)
        auc, _ = measures(averaged, batch, data.labels, validation)
        if auc > best["validation"]:
            on_test, loss = measures(averaged, batch, data.labels, test)
            best, since = {"validation": auc, "auc": on_test, "log_loss": loss, "epoch": epoch}, 0
            best |= {"angle": head.mean_angle()} if job.aligned else {"overlap": mean_overlap(head.cross.weight, job)}
        else:
            since += 1
        if since >= job.patience:
            break
    return best | {
        "rows": rows,
        "bytes": averaged.table.weight.nbytes,
        "seconds": time.perf_counter() - began,
    }


@torch.no_grad()
def measures(model: Model, batch: FeatureBatch, labels: Tensor, rows: Tensor) -> tuple[float, float]:
    """AUC and log loss."""
    logits = torch.cat([model(batch.take(part)) for part in rows.split(8192)])
    return area(logits, labels[rows]), float(functional.binary_cross_entropy_with_logits(logits, labels[rows]))


def area(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve: the share of pairs in the right order, ties counting half."""
    _, inverse, counts = scores.double().unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0).double() - (counts - 1) / 2)[inverse]  # 1..N, means over ties
    positives = labels > 0.5
    p, n = int(positives.sum()), int((~positives).sum())
    return float((ranks[positives].sum() - p * (p + 1) / 2) / (p * n))


def mean_overlap(weight: Tensor, job: Job) -> float:
    """Mean overlap of the cross layer's projections of two features; independent ones have 1 / sqrt(width)."""
    width = WIDTH[job.data]
    columns = {str(i): slice(i * width, (i + 1) * width) for i in range(weight.shape[1] // width)}
    parts = list(projections(weight, columns).values())
    return mean(overlap(a, b) for i, a in enumerate(parts) for b in parts[:i])


# --- the study -------------------------------------------------------------------------------------------------------


def arms(data: str, **common: Any) -> list[Job]:
    """The three arms at their budgets."""
    budgets = [Job(data=data, arm=arm, budget=b, **common) for arm in ("multiplexed", "hashed") for b in BUDGETS]
    return [Job(data=data, arm="collisionless", **common), *budgets]


def study(seeds: int, quick: bool, vary_split: bool) -> list[Job]:
    """All trainings."""
    if quick:
        few = {"share": 0.1, "epochs": 4}
        base = arms("ml-1m", **few)
        return [*base, replace(base[1], lookups=2), replace(base[1], one_salt=True)]
    jobs = []
    for seed in range(seeds):
        one = {"seed": seed} | ({"split": 1000 + seed} if vary_split else {})
        base = arms("ml-1m", **one)
        if seed < FEW_SEEDS:
            jobs += arms("ml-1m-extra", **one)
            multiplexed = [job for job in base if job.arm == "multiplexed"]
            jobs += [replace(job, lookups=2) for job in multiplexed]
            jobs += [replace(job, one_salt=True) for job in multiplexed]
        jobs += base
    # the longest first, so that no process ends alone
    jobs.sort(key=lambda job: job.data == "ml-1m")
    angles = (2.0, 1.0, 0.5, 0.1, 0.05, 0.02)
    jobs += [Job(data="ml-1m", arm="multiplexed", budget=b, aligned=True, epochs=5, patience=5) for b in angles]
    return jobs


def run(jobs: Sequence[Job], folder: Path, workers: int) -> list[tuple[Job, dict[str, Any]]]:
    """Train them in several processes of one thread each."""
    done = []
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for job, result in zip(jobs, pool.map(fit, jobs, [folder] * len(jobs)), strict=True):
            done.append((job, result))
            say(
                f"{len(done)}/{len(jobs)} {job.data}, {job.name}, budget {job.budget}, seed {job.seed}: "
                f"AUC {result['auc']:.4f} on test, {result['validation']:.4f} on validation in epoch "
                f"{result['epoch']}, {result['seconds']:.0f} s"
            )
    return done


Figures = dict[str, dict[str, dict[str, Any]]]  # of an arm, of a budget


def summary(done: Sequence[tuple[Job, dict[str, Any]]], data: str) -> Figures:
    """Means over seeds, deviations, and each seed's AUC."""
    figures: Figures = {}
    for job, result in done:
        if job.data == data and not job.aligned:
            budgets = figures.setdefault(job.name, {})
            seeds = budgets.setdefault(str(job.budget), {"bytes": result["bytes"], "runs": []})
            seeds["runs"].append(result)
    for budgets in figures.values():
        for entry in budgets.values():
            runs = entry.pop("runs")
            for key in ("auc", "log_loss", "overlap"):
                entry[key] = mean(result[key] for result in runs)
            entry["each_auc"] = [result["auc"] for result in runs]
            entry["sd"] = stdev(entry["each_auc"]) if len(runs) > 1 else None
    return figures


def differences(figures: Figures, other: str) -> dict[str, dict[str, float]]:
    """Multiplexed less another arm, seed by seed: mean, deviation."""
    result = {}
    for budget, entry in figures["multiplexed"].items():
        if budget in figures.get(other, {}):
            theirs = figures[other][budget]["each_auc"]
            gaps = [a - b for a, b in zip(entry["each_auc"], theirs, strict=False)]  # of the seeds that both have
            result[budget] = {"mean": mean(gaps)} | ({"sd": stdev(gaps)} if len(gaps) > 1 else {})
    return result


def show(figures: dict[str, Any]) -> None:
    for data, found in figures["data"].items():
        print(f"\n{data}: test AUC, mean and deviation over {figures['seeds']} seeds\n")
        rows = []
        for arm, budgets in found.items():
            for budget, entry in budgets.items():
                known = PUBLISHED.get(arm, {}).get(budget) if data == "ml-1m" else None
                rows.append(
                    {
                        "arm": arm,
                        "budget": budget,
                        "kB": f"{entry['bytes'] / 1000:,.0f}",
                        "AUC": f"{entry['auc']:.4f}" + (f" ± {entry['sd']:.4f}" if entry["sd"] else ""),
                        "log loss": f"{entry['log_loss']:.4f}",
                        "published": f"{known:.4f}" if known else "–",
                        "overlap": f"{entry['overlap']:.3f}",
                    }
                )
        print(table(rows))
        print(f"\noverlap of two features' cross weights; 1 / sqrt(width) = {WIDTH[data] ** -0.5:.3f} by chance")
        for other, gaps in figures["multiplexed_minus"][data].items():
            told = ", ".join(f"{g['mean']:+.4f} ± {g.get('sd', 0):.4f} at {b}" for b, g in gaps.items())
            print(f"multiplexed less {other}, paired by seed: {told}")
    if figures["angles"]:
        print("\nmean angle between features' weights after an aligned start, degrees\n")
        print(table([{"budget": b, "angle": f"{a:.1f}"} for b, a in figures["angles"].items()]))


def plot(figures: dict[str, Any], path: Path) -> None:
    """AUC against bytes for each data set, and the angles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = len(figures["data"]) + bool(figures["angles"])
    drawing, axes = pyplot.subplots(1, panels, figsize=(5.5 * panels, 4.2), squeeze=False, layout="constrained")
    for axis, (data, found) in zip(axes[0], figures["data"].items(), strict=False):
        for arm, budgets in found.items():
            points = sorted(budgets.values(), key=lambda entry: entry["bytes"])
            x, y = [p["bytes"] / 1e6 for p in points], [p["auc"] for p in points]
            axis.errorbar(x, y, [p["sd"] or 0.0 for p in points], marker="o", capsize=3, label=arm)
        axis.set(xscale="log", xlabel="embedding memory (MB)", ylabel="test AUC", title=data)
        axis.grid(alpha=0.3)
        axis.legend()
    if figures["angles"]:
        budgets = [float(b) for b in figures["angles"]]
        axes[0][-1].plot(budgets, list(figures["angles"].values()), marker="o")
        axes[0][-1].set(xscale="log", xlabel="budget", ylabel="degrees", title="mean angle after an aligned start")
        axes[0][-1].grid(alpha=0.3)
    drawing.savefig(path, dpi=150)
    pyplot.close(drawing)


def tune(folder: Path, workers: int) -> list[dict[str, Any]]:
    """Every choice of the training's numbers on the first seed's validation, for each arm at two budgets."""
    chosen = [job for job in arms("ml-1m") if job.budget in (1.0, 0.1)]
    jobs = [
        replace(job, table_rate=rate, table_decay=decay)
        for job in chosen
        for rate in TUNED["table_rate"]
        for decay in TUNED["table_decay"]
    ]
    return [
        {
            "arm": job.name,
            "budget": job.budget,
            "table_rate": job.table_rate,
            "table_decay": job.table_decay,
            "validation": round(result["validation"], 4),
            "epoch": result["epoch"],
        }
        for job, result in run(jobs, folder, workers)
    ]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many; two for controls and the second data set")
    parser.add_argument("--vary-split", action="store_true", help="another random split for each seed")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of one thread each")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw AUC against memory into a PNG")
    parser.add_argument("--tune", action="store_true", help="compare settings of the training on validation instead")
    given = parser.parse_args()
    folder = given.data.resolve() / "ml-1m"
    if given.tune:
        answer(given, {"tuning": tune(folder, given.workers)}, lambda figures: print(table(figures["tuning"])))
        return
    done = run(study(given.seeds, given.quick, given.vary_split), folder, given.workers)
    found = {data: summary(done, data) for data in FEATURES if any(job.data == data for job, _ in done)}
    base = found["ml-1m"]
    figures = {
        arm: {budget: entry["auc"] for budget, entry in base[arm].items()}
        for arm in ("multiplexed", "hashed", "collisionless")
    }
    figures |= {
        "sd": {arm: {budget: entry["sd"] for budget, entry in base[arm].items()} for arm in base},
        "log_loss": {arm: {budget: entry["log_loss"] for budget, entry in base[arm].items()} for arm in base},
        "published": PUBLISHED,
        "seeds": 1 if given.quick else given.seeds,
        "settings": asdict(Job(data="ml-1m", arm="multiplexed")),
        "multiplexed_minus": {
            data: {other: differences(of, other) for other in of if other != "multiplexed"}
            for data, of in found.items()
        },
        "angles": {str(job.budget): result["angle"] for job, result in done if job.aligned},
        "data": found,
    }
    if given.plot:
        plot(figures, given.plot)
        say(f"wrote {given.plot}")
    answer(given, figures, show)


if __name__ == "__main__":
    main()
