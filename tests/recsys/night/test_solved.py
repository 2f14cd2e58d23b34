"""Regressions serve on while little of the log is new: by today's codes, without a leak, and not for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from recsys.bundles.bundle import read_bundle
from recsys.bundles.store import publish_bundle
from recsys.candidates import tables
from recsys.candidates.linear import Linear
from recsys.evaluation.evaluate import evaluate
from recsys.ingestion.ingest import ingest
from recsys.night.fit import FitReport, fit
from recsys.night.refit import refit
from recsys.night.solved import SOLVED
from recsys.serving.recommender import open_bundle
from recsys.settings import Settings
from recsys.settings.read import parse_settings

USERS, EVENTS, ITEMS = 80, 12, 20


def settings(folder: Path, **more: Any) -> Settings:
    tree: dict[str, Any] = {
        "name": "shop",
        "data_root": str(folder),
        "warehouse": str(folder / "warehouse"),
        "interactions": {"source": "log/*.csv"},
        "model": {"dimensions": 8, "blocks": 1, "max_length": 8, "text": False},
        "blend": {"kind": "always", "resolve_share": 0.12},
        "train": {"epochs": 2, "batch_size": 32, "evaluate_every": 2, "warm_start": "previous"},
        "evaluate": {"cutoffs": [10], "baselines": ["popularity"], "exclude_seen": False},
    }
    for key, value in more.items():
        tree[key] |= value
    return parse_settings(tree)


def day(folder: Path, number: int, events: int) -> None:
    """So many events of each user, on a ring that each day begins with a new item."""
    (folder / "log").mkdir(exist_ok=True)
    users = np.repeat(np.arange(USERS), events)
    step = np.tile(np.arange(events), USERS)
    items = np.where(step + users + number == number, 100 + number, (users * 7 + step + number) % ITEMS)
    times = 10**9 + number * 10**5 + step
    pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times}).write_csv(folder / "log" / f"{number}.csv")


def regressions(bundle: str) -> dict[tuple[Any, Any], float]:
    """Weights of `within` by the items' raw ids."""
    opened = open_bundle(bundle)
    assert opened.blended is not None
    source = opened.blended.source(Linear)
    assert source is not None
    entries, ids = source.within.tocoo(), [None, *opened.bundle.vocabulary.items.to_list()]
    return {
        (ids[row], ids[column]): float(value)
        for row, column, value in zip(entries.row, entries.col, entries.data, strict=True)
    }


def night(configured: Settings) -> tuple[FitReport, str]:
    """A day's training, its figures, and the bundle that is served."""
    versions = ingest(configured).versions
    measured = fit(configured, versions)
    evaluate(configured, versions, measured.bundle)  # it refuses a bundle that knows what the split holds out
    served = refit(configured, versions, measured.bundle).bundle
    publish_bundle(configured.warehouse, served)
    return measured, served


def solved(bundle: str) -> dict[str, Any]:
    return dict(read_bundle(bundle).manifest["lineage"][SOLVED])


def test_regressions_serve_on_until_enough_events_came(tmp_path: Path) -> None:
    configured = settings(tmp_path)
    day(tmp_path, 0, EVENTS)
    first, served = night(configured)
    assert solved(first.bundle) == {"events": USERS * (EVENTS - 2), "bundle": None}
    assert solved(served) == {"events": USERS * EVENTS, "bundle": None}

    day(tmp_path, 1, 1)  # training events of a user: from 10 to 11, one in eleven is new
    second, again = night(configured)
    assert regressions(second.bundle) == regressions(first.bundle) and regressions(again) == regressions(served)
    assert solved(second.bundle) == {"events": USERS * (EVENTS - 2), "bundle": Path(first.bundle).name}
    assert second.blend is not None and "serve" not in second.blend.reason
    assert f"The regressions are those of {Path(first.bundle).name}, as 9.09% of" in second.blend.reason

    day(tmp_path, 2, 1)  # now two in twelve, of the same solution
    third, _ = night(configured)
    assert solved(third.bundle) == {"events": USERS * EVENTS, "bundle": None}
    assert regressions(third.bundle) != regressions(first.bundle)


def test_regressions_are_solved_where_the_night_begins_with_nothing_or_the_share_is_none(tmp_path: Path) -> None:
    day(tmp_path, 0, EVENTS)
    night(settings(tmp_path))
    day(tmp_path, 1, 1)
    for more in ({"train": {"warm_start": None}}, {"blend": {"resolve_share": 0}}):
        configured = settings(tmp_path, **more)
        report = fit(configured, ingest(configured).versions)
        assert solved(report.bundle)["bundle"] is None


@given(data=st.data(), size=st.integers(1, 6))
def test_a_recoded_table_is_the_permuted_one(data: st.DataObject, size: int) -> None:
    dense = np.array(
        data.draw(st.lists(st.lists(st.integers(0, 3), min_size=size, max_size=size), min_size=size, max_size=size)),
        dtype=np.float32,
    )
    places = data.draw(st.permutations(range(1, size + 3)))[:size]
    codes = np.array([place if data.draw(st.booleans()) else 0 for place in places])
    table = sparse.csr_array(np.pad(dense, ((1, 0), (1, 0))))
    found = tables.recoded(table, codes, size + 2)
    expected = np.zeros((size + 3, size + 3), dtype=np.float32)
    for row in range(size):
        for column in range(size):
            if codes[row] and codes[column]:
                expected[codes[row], codes[column]] = dense[row, column]
    assert np.array_equal(found.toarray(), expected) and found.has_sorted_indices
    assert (found.dtype, found.indices.dtype) == (table.dtype, table.indices.dtype)
