"""A service in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from recsys.service.app import create_app
from recsys.service.following import ChampionSource, Follower, Source
from recsys.service.limits import Limits
from recsys.service.metrics import Metrics
from tests.recsys.service.shops import RULES, AnsweringShop


@dataclass
class Service:
    """A service and a client of it."""

    follower: Follower
    client: TestClient

    def post(self, path: str, **body: Any) -> Any:
        """The JSON of an answer that is sound."""
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ids(self, **body: Any) -> list[int]:
        """Items of an answer."""
        return [item["item_id"] for item in self.post("/recommend", **body)["items"]]


def serving(source: Source, *, token: str | None = None, **limits: int) -> Service:
    """A service that has opened what its source says; it looks again when it is told to."""
    metrics = Metrics()
    follower = Follower(source, metrics)
    follower.check()
    app = create_app(follower, metrics, limits=Limits(**limits), token=token, poll=3600)
    return Service(follower, TestClient(app, raise_server_exceptions=False))


def two_nights(folder: Path) -> AnsweringShop:
    """Everything is in stock, and two nights were served."""
    made = AnsweringShop(folder / "w")
    made.log()
    made.items([True] * 6)
    for run in ("a", "b"):
        made.night(run)
    return made


def limited(shop: AnsweringShop) -> Iterator[Service]:
    """Follows the champion of a shop, which has no rules, with low limits."""
    made = serving(ChampionSource(shop.settings), body=2_000, k=12, history=4, queries=3)
    with made.client:
        yield made


@pytest.fixture
def shop(tmp_path: Path) -> AnsweringShop:
    return two_nights(tmp_path)


@pytest.fixture
def service(shop: AnsweringShop) -> Iterator[Service]:
    yield from limited(shop)


@pytest.fixture
def ruled(shop: AnsweringShop) -> Iterator[Service]:
    """The same with rules: what is in stock, and one item of a brand."""
    shop.items([True, True, False, True, True, True])
    settings = AnsweringShop(shop.root, rules=RULES).settings
    made = serving(ChampionSource(settings))
    with made.client:
        yield made
