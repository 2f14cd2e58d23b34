"""Effect of the file's order on amazon-beauty's figures: counting baselines by product code and by day.

    .venv/bin/python benchmarks/order_of_beauty.py --data DATA

DATA holds amazon-beauty/Beauty.txt and items.jsonl with a product code ("asin") an item. The log knows days, not
seconds, and events of one day stand in ascending order of their codes. The script therefore splits the test users by
their last step, from the validation item to the test item: the code ascends, or it descends. Where DATA also holds
timed/amazon-beauty.parquet (user, item, time in seconds; the same rows), it splits them by day as well. A model that
learns from this file learns its order too, so a baseline that is better on ascending steps has learned an artefact.

Protocol: leave-one-out, all items ranked, seen items removed, ties by the lower code; counts of training events only.
`--quick` reads the first 2,000 users.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl

from recsys.candidates.popularity import popularity
from recsys.data.prepare import Dataset, prepare
from recsys.errors import InputError
from recsys.evaluation.baseline_scorers import baseline_scorers
from recsys.evaluation.metrics import per_user
from recsys.evaluation.ranking import rank_targets
from recsys.ingestion.ingest import ingest
from recsys.settings.read import load_settings

CONFIGURATION = "amazon-beauty-ids"
FOLDER, LOG, CATALOGUE, TIMES = "amazon-beauty", "Beauty.txt", "items.jsonl", "timed/amazon-beauty.parquet"
BASELINES = ("popularity", "transitions")
QUICK_USERS = 2000


def last_steps(lines: list[str]) -> pl.DataFrame:
    """Return columns user, before and after (String): the last two items of each line "user item item ..."."""
    events = [line.split() for line in lines]
    return pl.DataFrame(
        [(words[0], words[-2], words[-1]) for words in events], schema=["user", "before", "after"], orient="row"
    )


def by_day(steps: pl.DataFrame, file: Path) -> pl.Series:
    """bool [U]: True where both items of the last step have one time.

    Raises
    ------
    InputError
        The timed file does not hold these events.
    """
    timed = pl.read_parquet(file).with_columns(pl.col("user", "item").cast(pl.String))
    last = timed.group_by("user", maintain_order=True).tail(2).group_by("user", maintain_order=True)
    known = last.agg(pl.col("item").first().alias("first"), pl.col("item").last(), pl.col("time").n_unique() == 1)
    found = steps.join(known, on="user", how="left", maintain_order="left")
    same = pl.col("before").eq_missing(pl.col("first")) & pl.col("after").eq_missing(pl.col("item"))
    if not found.select(same.all()).item():
        raise InputError(f"{file} holds other events than {LOG}; use the timed copy of the same file.")
    return found["time"]


def ranks_of(dataset: Dataset) -> dict[str, np.ndarray]:
    """int64 [U] ranks of the test items by each baseline."""
    test, train = dataset.split.test, dataset.split.train
    counts = popularity(train.items, dataset.vocabulary.size)
    scorers = baseline_scorers(BASELINES, train, test.histories, counts, lambda: None)
    return {
        name: rank_targets(of.score_block, test, of.allowed, exclude_seen=True, top_k=1).ranks
        for name, of in scorers.items()
    }


def figures(data: Path, folder: Path, quick: bool) -> dict[str, Any]:
    """Return all figures, JSON-friendly."""
    lines = (data / FOLDER / LOG).read_text(encoding="utf-8").splitlines()[: QUICK_USERS if quick else None]
    steps = last_steps(lines)
    catalogue = pl.read_ndjson(data / FOLDER / CATALOGUE).with_columns(pl.col("id").cast(pl.String))
    code = dict(zip(catalogue["id"], catalogue["asin"], strict=True))
    timed = (data / TIMES).exists()
    steps = steps.with_columns(
        (pl.col("after").replace_strict(code) > pl.col("before").replace_strict(code)).alias("ascends"),
        **({"same day": by_day(steps, data / TIMES)} if timed else {}),
    )
    (folder / LOG).write_text("\n".join(lines) + "\n", encoding="utf-8")
    overrides = [f"data_root={folder.resolve()}", f"warehouse={folder / 'warehouse'}"]
    settings = load_settings(common.ROOT / "configs" / f"{CONFIGURATION}.toml", overrides)
    dataset = prepare(settings, ingest(settings).versions)
    users = dataset.split.test.histories.users.cast(pl.String).alias("user").to_frame()
    steps = users.join(steps, on="user", how="left", maintain_order="left")
    rising = steps["ascends"].to_numpy()
    groups = {"all": np.ones_like(rising), "code ascends": rising, "code descends": ~rising}
    if timed:
        day = steps["same day"].to_numpy()
        groups |= {
            "same day": day,
            "same day, code ascends": day & rising,
            "another day": ~day,
            "another day, code ascends": ~day & rising,
            "another day, code descends": ~day & ~rising,
        }
    ranks = ranks_of(dataset)
    rows = []
    for name, users in groups.items():
        row: dict[str, Any] = {"last step": name, "users": int(users.sum())}
        for baseline, of in ranks.items():
            for metric in ("hr", "ndcg"):
                values = per_user(of[users], metric, 10)
                row[f"{baseline} {metric}@10"] = float(values.mean()) if len(values) else None
        rows.append(row)
    return {"share_ascending": float(rising.mean()), "timed": timed, "rows": rows}


def show(found: dict[str, Any]) -> None:
    """Print the figures for readers."""
    print(f"\n{found['share_ascending']:.1%} of the last steps ascend in product code.\n")
    cells = [{k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in found["rows"]]
    print(common.table(cells))
    if not found["timed"]:
        print(f"\nWithout {TIMES} nothing is known of days.")


def main(arguments: list[str] | None = None) -> None:
    given = common.options(__doc__).parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="recsys-order-of-beauty-") as folder:
        found = figures(given.data, Path(folder), given.quick)
    common.answer(given, found, show)


if __name__ == "__main__":
    common.from_shell(main)
