"""Everybody is served: users whom the filter leaves out, users of unknown items, the user nobody knows, some users."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.data.prepare import prepare
from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.serving.recommender import open_bundle
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions
from recsys.table.build import CandidatesReport, read_candidates, retrieve
from recsys.table.everyone import some_to_serve
from recsys.text.represent import represent
from tests.recsys.service.shops import AnsweringShop

NOW = datetime(2026, 5, 1, 4, tzinfo=UTC)
K = 4
FEW = {"one": ["tea 1"], "view": ["tea 2"], "rare": ["tin of tea"], "odd": ["zzz"], "gone": ["tea 1"]}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, TableVersions, str]:
    """Forty users of five purchases, and five of whom the filter leaves nothing."""
    root = tmp_path_factory.mktemp("shop")
    names = [f"{kind} {n}" for kind in ("tea", "cup", "pot") for n in range(6)]
    rows = [
        (f"u{user:02d}", names[(user * 5 + step * step) % 18], step, "buy") for user in range(40) for step in range(5)
    ]
    rows += [(user, item, 9, "view" if user == "view" else "buy") for user, (item,) in FEW.items()]
    log = pl.DataFrame(rows, schema=["user", "item", "step", "event"], orient="row").with_columns(
        time=pl.lit(1_700_000_000) + pl.col("step") * 86_400
    )
    log.drop("step").write_csv(root / "log.csv")
    texts = [*names, "tin of tea", "zzz"]
    pl.DataFrame({"item": texts, "title": [text if text != "zzz" else None for text in texts]}).write_csv(
        root / "items.csv"
    )
    settings = parse_settings(
        {
            "name": "tea",
            "data_root": str(root),
            "warehouse": str(root / "warehouse"),
            "interactions": {
                "source": "log.csv",
                "columns": {"user_id": "user", "item_id": "item", "timestamp": "time", "event": "event"},
            },
            "items": {"source": "items.csv", "columns": {"item_id": "item"}, "text": ["title"]},
            "filter": {"events": ["buy"], "min_user_interactions": 3, "min_item_interactions": 3},
            "model": {"kind": "text"},
            "blend": {"kind": "never"},
            "retrieve": {"k": K},
        }
    )
    versions = ingest(settings).versions
    represent(settings, versions)
    return settings, versions, fit(settings, versions).bundle


def made(shop: tuple[Settings, TableVersions, str], **more: Any) -> tuple[CandidatesReport, pl.DataFrame]:
    settings, versions, bundle = shop
    changed = settings.model_copy(update={"retrieve": settings.retrieve.model_copy(update=more)})
    report = retrieve(changed, versions, bundle, "run", NOW)
    return report, read_candidates(settings.warehouse).collect()


def test_every_user_of_the_log_gets_k_rows(shop: tuple[Settings, TableVersions, str]) -> None:
    report, table = made(shop)
    assert (report.users, report.log_users, report.rows) == (45, 45, 45 * K)
    assert (report.by_fallback, report.short_lists, report.empty_lists) == (3, 0, 0)
    first = {row["user_id"]: row for row in table.filter(pl.col("rank") == 1).iter_rows(named=True)}
    assert first["one"]["source"] == "vector"  # one event of a known item is enough for the model
    assert first["rare"]["source"] == "fallback-text" and first["rare"]["item_id"].startswith("tea")
    assert first["odd"]["source"] == first["view"]["source"] == "fallback-popularity"
    assert not len(table.join(pl.DataFrame({"user_id": ["one"], "item_id": ["tea 1"]}), on=["user_id", "item_id"]))
    assert table.equals(table.sort("user_id", "rank"))
    assert table.select((pl.col("score").diff().over("user_id") <= 0).all()).item()


def test_users_of_the_model_get_the_same_rows_with_the_others_and_without(
    shop: tuple[Settings, TableVersions, str],
) -> None:
    alone, before = made(shop, fallback=False)
    _, after = made(shop)
    settings, versions, _ = shop
    assert alone.users == len(prepare(settings, versions).split.serving) == 40 and alone.by_fallback == 0
    assert after.join(before, on=["user_id", "rank"], how="semi").drop("as_of").equals(before.drop("as_of"))


def test_a_list_for_the_user_nobody_knows(shop: tuple[Settings, TableVersions, str]) -> None:
    report, table = made(shop, unknown_user="nobody")
    rows = table.filter(pl.col("user_id") == "nobody")
    assert report.users == 46 and len(rows) == K and set(rows["source"]) == {"fallback-popularity"}
    with pytest.raises(InputError, match="'one' is a user of the log"):
        made(shop, unknown_user="one")


def test_some_users_alone(shop: tuple[Settings, TableVersions, str]) -> None:
    settings, *_ = shop
    root = Path(settings.data_root)
    (root / "some.txt").write_text("one\nu07\nstranger\n")
    pl.DataFrame({"name": ["x", "y"], "user_id": ["odd", "u01"]}).write_parquet(root / "some.parquet")
    (root / "none.csv").write_text("id\n1\n2\n")
    for name, users in (("some.txt", {"one", "u07"}), ("some.parquet", {"odd", "u01"})):
        report, table = made(shop, users=name)
        assert set(table["user_id"]) == users and (report.users, report.log_users) == (2, 45)
    report, table = made(shop, users="some.txt", unknown_user="nobody")
    assert set(table["user_id"]) == {"one", "u07", "nobody"} and (report.users, report.log_users) == (3, 45)
    assert len(table.filter(pl.col("user_id") == "nobody")) == K
    with pytest.raises(InputError, match="has 2 ids and none is a user of the log"):
        made(shop, users="none.csv")
    with pytest.raises(InputError, match="there is no such file"):
        made(shop, users="gone.csv")


def test_a_segment_must_be_an_attribute_of_users(shop: tuple[Settings, TableVersions, str]) -> None:
    with pytest.raises(InputError, match=r"retrieve\.segment = 'country' is no categorical attribute of \[users\]"):
        made(shop, segment="country")


@pytest.mark.parametrize(("name", "value"), [("segment", "country"), ("unknown_user", "nobody")])
def test_what_is_of_the_fallback_needs_one(
    shop: tuple[Settings, TableVersions, str], tmp_path: Path, name: str, value: str
) -> None:
    settings, versions, bundle = shop
    with pytest.raises(InputError, match=rf"retrieve\.{name} = '{value}' is of the fallback.*fallback = true\."):
        made(shop, fallback=False, **{name: value})
    changed = settings.retrieve.model_copy(update={"fallback": False, name: value})
    without = settings.model_copy(update={"retrieve": changed})
    with pytest.raises(InputError, match=rf"retrieve\.{name}"):
        some_to_serve(without, versions, open_bundle(bundle), pl.Series("user_id", ["one"]), None)
    old = AnsweringShop(tmp_path, retrieve=changed.model_dump(mode="json")).bundle("old")
    assert getattr(open_bundle(old).bundle.settings.retrieve, name) == value  # what is stored is read
