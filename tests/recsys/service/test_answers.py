"""Answers of each endpoint, on six items whose order is known by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.columns import USERS
from recsys.service.following import BundleSource, ChampionSource
from recsys.serving.fallback import FEWEST
from recsys.storage.warehouse import overwrite
from tests.recsys.service.conftest import Service, serving
from tests.recsys.service.shops import AnsweringShop


def test_items_after_a_history_and_who_proposed_them(service: Service) -> None:
    answer = service.post("/recommend", history=[1, "2"], k=3)
    assert [item["item_id"] for item in answer["items"]] == [3, 6, 5]
    assert answer["items"][0] == {
        "rank": 1, "item_id": 3, "title": "b 3", "score": answer["items"][0]["score"], "source": "vector",
    }  # fmt: skip
    assert (answer["unknown"], answer["by_fallback"], answer["known_user"]) == ([], False, None)
    assert answer["bundle"] == service.follower.current.label  # type: ignore[union-attr]


def test_a_user_of_the_log_has_his_history_and_what_is_given_comes_after_it(service: Service) -> None:
    answer = service.post("/recommend", user="ann", k=2)
    assert [item["item_id"] for item in answer["items"]] == [3, 6]
    assert answer["known_user"] is True
    assert service.ids(user="ann", k=2) == service.ids(history=[1, 2], k=2)
    # what came this minute outweighs what was, and it was seen
    assert service.ids(user="ann", history=[4, 5], k=2) == service.ids(history=[1, 2, 4, 5], k=2) == [6, 3]


def test_nobody_gets_nothing(service: Service) -> None:
    for body in ({}, {"user": "nobody"}, {"history": ["what", 99]}, {"user": "eve"}):
        answer = service.post("/recommend", k=3, **body)
        assert [item["item_id"] for item in answer["items"]] == [6, 5, 4]
        assert answer["by_fallback"] and {item["source"] for item in answer["items"]} == {"fallback-popularity"}
    assert service.post("/recommend", history=["what", 99])["unknown"] == ["what", "99"]
    assert service.post("/recommend", user="nobody")["known_user"] is False


def test_excluded_items_do_not_come_and_others_fill_their_places(service: Service) -> None:
    assert service.ids(history=[1, 2], exclude=[3, "6", "unknown"], k=2) == [5, 4]
    assert service.ids(history=[1, 2], exclude_seen=False, k=2) == [1, 2]


def test_events_with_times_are_put_in_order(service: Service) -> None:
    events: list[Any] = [{"item": 4, "time": "2026-05-01T10:00:00Z"}, {"item": 1, "time": 1_700_000_000}]
    assert service.ids(history=events, k=3) == service.ids(history=[1, 4], k=3)
    del events[0]["time"]  # of one that has none the place counts
    assert service.ids(history=events, k=3) == service.ids(history=[4, 1], k=3)
    assert service.ids(history=[1, 4], k=3) != service.ids(history=[4, 1], k=3)


def test_a_batch_answers_in_order_and_one_bad_query_costs_nothing(service: Service) -> None:
    queries = [{"history": [1, 2], "k": 2}, {"k": 0}, {"user": "bob", "k": 2, "exclude_seen": False}]
    first, bad, last = service.post("/recommend/batch", queries=queries)["answers"]
    assert first == service.post("/recommend", **queries[0]) and last == service.post("/recommend", **queries[2])
    assert bad == {"error": "k: input should be greater than or equal to 1."}
    bad = service.post("/recommend/batch", queries=[{"k": 1, "rules": ["x"]}, {"k": 13}, {"history": 3}])["answers"]
    assert [one["error"].partition(";")[0].partition(":")[0] for one in bad] == [
        "There is no rule 'x'", "k = 13 is above this service's limit of 12.", "history",
    ]  # fmt: skip


def test_similar_items(service: Service) -> None:
    answer = service.post("/similar", item=1, k=2)
    assert [item["item_id"] for item in answer["items"]] == [2, 3]
    refused = service.client.post("/similar", json={"item": "nix"})
    assert refused.status_code == 404 and "'nix'" in refused.json()["error"]


def test_rows_of_the_table(service: Service) -> None:
    answer = service.client.get("/users/ann").json()
    assert (answer["user"], answer["run"], answer["as_of"]) == ("ann", "b", "2026-05-01T04:00:00+00:00")
    assert [(item["rank"], item["item_id"], item["title"]) for item in answer["items"]] == [
        (1, 1, "b 1"),
        (2, 2, "b 2"),
    ]
    assert len(service.client.get("/users/bob?k=1").json()["items"]) == 1
    missing = service.client.get("/users/a%2Fb")
    assert (missing.status_code, missing.json()["error"]) == (
        404, "The candidate table has no user 'a/b'; ask POST /recommend.",
    )  # fmt: skip


def test_rules_hold_unless_a_request_names_others(ruled: Service) -> None:
    assert ruled.ids(history=[1], k=3) == [2, 6, 5]  # 3 is out of stock, and 4 of 5's brand
    assert ruled.ids(history=[1], k=4, rules=["stock"]) == [2, 6, 5, 4]
    assert ruled.ids(history=[1], k=3, rules=[]) == [2, 3, 6]
    refused = ruled.client.post("/recommend", json={"rules": ["stok"]})
    assert refused.status_code == 422 and "did you mean 'stock'" in refused.json()["error"]


def test_todays_catalogue_counts_as_soon_as_it_is_read(ruled: Service, shop: AnsweringShop) -> None:
    before = ruled.client.get("/version").json()
    shop.items([True, False, True, True, True, True])
    assert ruled.ids(history=[1], k=1) == [2]
    ruled.follower.check()
    assert ruled.ids(history=[1], k=1) == [3]
    after = ruled.client.get("/version").json()
    assert after["items_version"] == before["items_version"] + 1
    assert {key: after[key] for key in ("bundle", "since")} == {key: before[key] for key in ("bundle", "since")}


def test_an_event_that_the_log_has_counts_as_soon_as_it_is_read(service: Service, shop: AnsweringShop) -> None:
    shop.log({"ann": [1, 2, 4, 5]})
    assert service.ids(user="ann", k=2) == [3, 6]
    service.follower.check()
    assert service.ids(user="ann", k=2) == [6, 3]


def test_a_bundle_alone_has_no_log_and_no_table(shop: AnsweringShop, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shop.bundle("alone").rename(copy)
    service = serving(BundleSource(copy))
    with service.client:
        assert service.ids(history=[1, 2], k=1) == [3]
        assert (missing := service.client.get("/users/ann")).status_code == 404 and "table" in missing.json()["error"]
        refused = service.client.post("/recommend", json={"user": "ann"})
        assert refused.status_code == 422 and "without a log" in refused.json()["error"]
        version = service.client.get("/version").json()
        assert version["name"] == "shop" and version["table"] is version["run"] is None


def test_a_bundles_name_has_the_log_and_the_table_of_its_warehouse(shop: AnsweringShop) -> None:
    service = serving(BundleSource(shop.root / "bundles" / "shop"))
    with service.client:
        assert service.ids(user="ann", k=1) == [3]
        assert service.client.get("/users/ann").status_code == 200


def test_before_the_first_release_it_lives_and_is_not_ready(tmp_path: Path) -> None:
    shop = AnsweringShop(tmp_path)
    service = serving(ChampionSource(shop.settings))
    with service.client:
        assert service.client.get("/health").status_code == 200
        for call in ("/ready", "/version", "/users/ann"):
            assert service.client.get(call).status_code == 503
        assert service.client.post("/recommend", json={}).status_code == 503
        shop.night("a")
        service.follower.check()
        assert service.client.get("/ready").json() == {"status": "ok"}
        assert service.ids(k=1) == [6]


def test_a_segment_gets_what_sells_there(tmp_path: Path) -> None:
    """As in the candidate table: a bundle has counted nothing by segment, so the log is counted."""
    users = {"source": "users.csv", "categorical": {"country": {}}}
    shop = AnsweringShop(tmp_path, users=users, retrieve={"k": 2, "segment": "country"})
    germans, others = [f"d{n}" for n in range(FEWEST)], [f"o{n}" for n in range(40)]
    table = pl.DataFrame({"user_id": [*germans, "eve"], "country": "DE"})
    overwrite(shop.settings.warehouse, USERS, table, expected=None)

    def log(items: list[int]) -> dict[str, list[int]]:
        return dict.fromkeys(germans, items) | {user: [3] for user in others} | {"eve": [9]}

    shop.log(log([4, 1]))
    shop.items([True] * 6)
    shop.night("a")
    service = serving(ChampionSource(shop.settings))
    with service.client:
        assert service.ids(k=3) == service.ids(k=3, attributes={"country": "FR"}) == [3, 1, 4]
        assert service.ids(k=3, attributes={"country": "DE"}) == service.ids(k=3, user="eve") == [1, 4, 3]
        assert service.ids(k=1, user="eve", attributes={"country": "FR"}) == [3]
        shop.log(log([4, 5]))
        service.follower.check()
        assert service.ids(k=3, attributes={"country": "DE"}) == [5, 4, 3]
        overwrite(shop.settings.warehouse, USERS, table.with_columns(country=pl.lit("AT")), expected=0)
        service.follower.check()
        assert service.ids(k=3, attributes={"country": "DE"}) == [3, 5, 4]


@pytest.mark.parametrize("user", ["ann", "bob"])
def test_the_table_of_a_forgotten_version_is_not_served(shop: AnsweringShop, user: str) -> None:
    """A version that was made by a clean-up or by forgetting is read, though the list of releases does not name it."""
    from deltalake import DeltaTable

    service = serving(ChampionSource(shop.settings))
    DeltaTable(shop.path("candidates")).delete(f"user_id = '{user}'")
    service.follower.check()
    with service.client:
        found = {name: service.client.get(f"/users/{name}").status_code for name in ("ann", "bob")}
    assert found == {"ann": 200, "bob": 200} | {user: 404}
