"""Click prediction on MovieLens-1M: one multiplexed table, a hash table per feature, and tables without collisions.

    .venv/bin/python benchmarks/multiplexing_auc.py --data DATA --plot pareto.png

The study is that of "Unified Embedding" (arXiv 2305.12102, table 1). Features: user, movie, gender, age, occupation,
zip. Ratings 1 and 2 become 0, 4 and 5 become 1, 3 is dropped. Random split, 80/10/10. Every feature has a vector of 30
floats; the head is DCN-V2: one cross layer of full rank, then one dense layer of 192, no normalisation. Budget 1.0 is
13,653 rows x 30 x 4 bytes = 1.6 MB, as published. The arms share everything but the table:

- collisionless: a row a value. Its vocabulary map counts as no bytes.
- hashed: a table a feature, the budget's rows split in proportion to the vocabularies. `published draw`: with the hash
  functions of the published figures, whose seeds share them.
- multiplexed: one table, one salted look-up a feature. `2 look-ups` are two of half the width in twice the rows;
  `one salt` is the control in which every feature has the same salt.

The split is that of the public replication (lilyungg/unified-embeddings, its seed 42), so the test rows are those of
the published figures; a seed decides start, order and hash functions. `--vary-split` draws a split a seed as well. All
arms have the same seeds, so differences are paired. Training: Adam on the head, row-wise Adagrad on the table, a moving
average of all weights, the epoch with the best AUC on validation. Learning rates and decays are the same for all arms
and were chosen by hand; `--tune` compares others on validation.

The second data set joins in what movies_extra.dat knows of a film: year, genres, directors, the words of its cast, and
two crossed features; vectors of 16 floats, budget 1.0 is as many rows as there are values.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from clicks.data import FEATURES, WIDTH, Job
from clicks.model import fit
from common import answer, from_shell, options, say, table

BUDGETS = (1.0, 0.5, 0.1)
FEW_SEEDS = 2  # of the controls and of the second data set
PUBLISHED = {
    "multiplexed": {"1.0": 0.8872, "0.5": 0.8759, "0.1": 0.8263},
    "hashed": {"1.0": 0.8684, "0.5": 0.8407, "0.1": 0.7712},
    "hashed, published draw": {"1.0": 0.8684, "0.5": 0.8407, "0.1": 0.7712},
    "collisionless": {"1.0": 0.8985},
}
TUNED = {"table_rate": (0.1, 0.2, 0.4), "table_decay": (1e-4, 3e-4, 1e-3)}


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
            jobs += [replace(job, one_salt=True, lookups=2) for job in multiplexed]
        jobs += base + [replace(job, published_draw=True) for job in base if job.arm == "hashed"]
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
    for budget, entry in figures.get("multiplexed", {}).items():
        if budget in figures.get(other, {}):
            theirs = figures[other][budget]["each_auc"]
            gaps = [a - b for a, b in zip(entry["each_auc"], theirs, strict=False)]  # of the seeds that both have
            result[budget] = {"mean": mean(gaps)} | ({"sd": stdev(gaps)} if len(gaps) > 1 else {})
    return result


def show(figures: dict[str, Any]) -> None:
    for data, found in figures["data"].items():
        seeds = max(len(entry["each_auc"]) for budgets in found.values() for entry in budgets.values())
        print(f"\n{data}: test AUC, mean and deviation over up to {seeds} seeds\n")
        rows = []
        for arm, budgets in found.items():
            for budget, entry in budgets.items():
                comparable = data == "ml-1m" and not figures["quick"]
                known = PUBLISHED.get(arm, {}).get(budget) if comparable else None
                rows.append(
                    {
                        "arm": arm,
                        "budget": budget,
                        "kB": f"{entry['bytes'] / 1000:,.0f}",
                        "AUC": f"{entry['auc']:.4f}{_deviation(entry['sd'])}",
                        "log loss": f"{entry['log_loss']:.4f}",
                        "published": f"{known:.4f}" if known else "–",
                        "overlap": f"{entry['overlap']:.3f}",
                    }
                )
        print(table(rows))
        print(f"\noverlap of two features' cross weights; 1 / sqrt(width) = {WIDTH[data] ** -0.5:.3f} by chance")
        for other, gaps in figures["multiplexed_minus"][data].items():
            if not gaps:  # without the arm that they are paired with
                continue
            told = ", ".join(f"{g['mean']:+.4f}{_deviation(g.get('sd'))} at {b}" for b, g in gaps.items())
            print(f"multiplexed less {other}, paired by seed: {told}")
    if figures["angles"]:
        print("\nmean angle between features' weights after an aligned start, degrees\n")
        print(table([{"budget": b, "angle": f"{a:.1f}"} for b, a in figures["angles"].items()]))


def _deviation(sd: float | None) -> str:
    return "" if sd is None else f" ± {sd:.4f}"


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
        sizes = [entry["bytes"] / 1e6 for entry in found["multiplexed"].values()]
        axis.minorticks_off()
        axis.set_xticks(sizes, labels=[f"{size:.2g}" for size in sizes])
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
    parser.add_argument("--only", nargs="*", help="arms by name, as the tables call them")
    parser.add_argument("--vary-split", action="store_true", help="another random split for each seed")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of one thread each")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw AUC against memory into a PNG")
    parser.add_argument("--tune", action="store_true", help="compare settings of the training on validation instead")
    given = parser.parse_args()
    folder = given.data.resolve() / "ml-1m"
    if given.tune:
        answer(given, {"tuning": tune(folder, given.workers)}, lambda figures: print(table(figures["tuning"])))
        return
    jobs = study(given.seeds, given.quick, given.vary_split)
    names = {job.name for job in jobs}
    unknown = sorted(set(given.only or ()) - names)
    if unknown:
        sys.exit(f"there is no arm {unknown[0]!r}; arms: {', '.join(sorted(names))}")
    done = run([job for job in jobs if not given.only or job.name in given.only], folder, given.workers)
    found = {data: summary(done, data) for data in FEATURES if any(job.data == data for job, _ in done)}
    base = found.get("ml-1m", {})
    figures = {
        arm: {budget: entry["auc"] for budget, entry in base[arm].items()}
        for arm in ("multiplexed", "hashed", "collisionless")
        if arm in base
    }
    figures |= {
        "sd": {arm: {budget: entry["sd"] for budget, entry in base[arm].items()} for arm in base},
        "log_loss": {arm: {budget: entry["log_loss"] for budget, entry in base[arm].items()} for arm in base},
        "quick": given.quick,
        "published": PUBLISHED,
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
    from_shell(main)
