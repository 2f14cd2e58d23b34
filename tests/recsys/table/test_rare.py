"""Items whose few events [filter] leaves out: the served bundle places them by their text, as it does unseen ones."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.bundles.bundle import read_bundle
from recsys.data.left_out import histories_of
from recsys.data.prepare import prepare
from recsys.evaluation.evaluate import evaluate
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.night.refit import RefitReport, refit
from recsys.serving.histories import recode, served_histories
from recsys.settings import FilterSettings, Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions
from recsys.table.build import read_candidates, retrieve
from recsys.text.represent import represent

NOW = datetime(2026, 5, 1, 4, tzinfo=UTC)
NAMES = [f"{kind} {n}" for kind in ("tea", "cup", "pot") for n in range(6)]
FEW = ["tea rare", "tea once"]  # with one event and with two, where three are needed
NEW = "tea new"  # with none
MORE = ["tea left", "tea seen"]  # of a user with too few events; with an event that does not count
K = 8


def settings_of(root: Path, **sections: dict[str, object]) -> Settings:
    return parse_settings(
        {
            "name": "tea",
            "data_root": str(root),
            "warehouse": str(root / "warehouse"),
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.csv", "text": ["title"]},
            "model": {"dimensions": 16, "max_length": 8, "blocks": 1, "ids": False},
            "train": {"epochs": 2, "batch_size": 16, "evaluate_every": 1},
            "blend": {"kind": "never"},
            "evaluate": {"cutoffs": [10]},
            "retrieve": {"k": K},
        }
        | sections
        | {
            "filter": {
                "events": ["buy"],
                "min_user_interactions": 3,
                "min_item_interactions": 3,
                "rare_items": "by-content",
            }
            | sections.get("filter", {})
        }
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TableVersions, str, RefitReport]:
    """Forty users who keep to one kind of things; three of them have bought something rare in between."""
    root = tmp_path_factory.mktemp("rare")
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user:02d}", NAMES[6 * (user % 3) + int(item)], 10 * step, "buy")
        for user in range(40)
        for step, item in enumerate(rng.permutation(6)[:5])
    ]
    rows += [("u00", FEW[0], 15, "buy"), ("u03", FEW[1], 25, "buy"), ("u06", FEW[1], 5, "buy")]
    rows += [("short", MORE[0], 1, "buy"), ("u01", MORE[1], 1, "view"), ("u04", MORE[1], 1, "view")]
    rows += [(f"u{user:02d}", MORE[1], 2, "view") for user in range(7, 20)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "event"], orient="row")
    log.with_columns(pl.col("timestamp") + 1_700_000_000).write_csv(root / "log.csv")
    items = [*NAMES, *FEW, NEW, *MORE]
    pl.DataFrame({"item_id": items, "title": items}).write_csv(root / "items.csv")
    settings = settings_of(root)
    versions = ingest(settings).versions
    represent(settings, versions)
    measured = fit(settings, versions).bundle
    return root, versions, measured, refit(settings, versions, measured)


def test_figures_rank_no_rare_item_and_the_served_bundle_knows_all(
    shop: tuple[Path, TableVersions, str, RefitReport],
) -> None:
    root, versions, measured, report = shop
    bundle, served = read_bundle(measured), read_bundle(report.bundle)
    assert set(bundle.vocabulary.items) == {*NAMES, NEW}  # the protocol of published figures
    assert evaluate(settings_of(root), versions, measured).report["protocol"]["items"] == len(NAMES) + 1
    assert set(served.vocabulary.items) == {*NAMES, NEW, *FEW, *MORE}
    assert served.vocabulary.items.head(len(bundle.vocabulary.items)).equals(bundle.vocabulary.items)
    assert served.allowed[1:].all() and report.report["new_items"] == 4


def test_rare_items_are_recommended_as_an_unseen_one_is_and_to_nobody_who_had_them(
    shop: tuple[Path, TableVersions, str, RefitReport],
) -> None:
    root, versions, _, report = shop
    done = retrieve(settings_of(root, retrieve={"k": 30}), versions, report.bundle, "run", NOW)
    table = read_candidates(str(root / "warehouse")).collect()
    had = {"u00": FEW[0], "u03": FEW[1], "u06": FEW[1], "short": MORE[0]}
    for user, rows in table.group_by("user_id"):
        listed = {*FEW, NEW, *MORE} & set(rows["item_id"])
        assert listed == {*FEW, NEW, *MORE} - {had.get(str(user[0]))}
    assert done.users == 41 and done.short_lists == 0  # as long as 23 items without what was had allow
    assert set(table["source"]) == {"vector"}


def test_histories_hold_the_events_of_rare_items_in_their_order(
    shop: tuple[Path, TableVersions, str, RefitReport],
) -> None:
    root, versions, _, report = shop
    settings, vocabulary = settings_of(root), read_bundle(report.bundle).vocabulary
    dataset = prepare(settings, versions)
    plain, _ = recode(dataset.split.serving, dataset.vocabulary, vocabulary)
    for at_once in (1, 10_000):
        whole, unknown = served_histories(settings, versions, dataset, vocabulary, at_once)
        assert unknown == 0
        expected = histories_of(settings, versions, vocabulary, plain.users).histories
        assert whole.users.equals(plain.users) and len(whole.items) == len(plain.items) + 3
        assert np.array_equal(whole.items, expected.items) and np.array_equal(whole.offsets, expected.offsets)
        assert whole.times is not None and expected.times is not None and np.array_equal(whole.times, expected.times)
    assert vocabulary.decode(whole.history(0)).to_list()[2] == FEW[0]
    same, _ = served_histories(settings, versions, dataset, dataset.vocabulary)
    assert same is dataset.split.serving  # a bundle that does not know them


def test_they_are_left_out_unless_asked_for(shop: tuple[Path, TableVersions, str, RefitReport]) -> None:
    root, versions, measured, _ = shop
    left_out = settings_of(root, filter={"rare_items": "leave-out"})
    assert left_out.filter.rare_items == FilterSettings().rare_items
    report = refit(left_out, versions, measured)
    assert set(read_bundle(report.bundle).vocabulary.items) == {*NAMES, NEW}


def test_nobody_is_recommended_the_item_of_a_held_out_event_that_no_catalogue_lists(tmp_path: Path) -> None:
    lines = [f"u{user},i{(user + n) % 9},{1_700_000_000 + n}" for user in range(30) for n in range(4)]
    lines += [f"u{user},own {user},1700000009" for user in range(30)]  # known from held-out events alone
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    settings = parse_settings(
        {
            "name": "own",
            "data_root": str(tmp_path),
            "warehouse": str(tmp_path / "warehouse"),
            "interactions": {"source": "log.csv"},
            "model": {"dimensions": 16, "max_length": 8, "blocks": 1},
            "train": {"epochs": 1, "batch_size": 16},
            "blend": {"kind": "never"},
            "retrieve": {"k": 100},
        }
    )
    versions = ingest(settings).versions
    served = refit(settings, versions, fit(settings, versions).bundle)
    report = retrieve(settings, versions, served.bundle, "run", NOW)
    table = read_candidates(settings.warehouse).collect()
    own = pl.col("item_id") == pl.concat_str(pl.lit("own "), pl.col("user_id").str.strip_prefix("u"))
    assert table.filter(own).is_empty() and table["item_id"].str.starts_with("own").any()
    assert report.rows == 30 * (9 + 30 - 5) and report.unknown_events == 0
