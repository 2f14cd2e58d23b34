"""Bad requests: one sentence each, never a trace, and nothing of it in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.columns import USERS
from recsys.errors import InputError
from recsys.service.app import FAILED
from recsys.service.failures import failure
from recsys.service.following import ChampionSource
from recsys.service.limits import check_address
from recsys.storage.warehouse import overwrite
from tests.recsys.service.conftest import Service, limited, serving, two_nights
from tests.recsys.service.shops import AnsweringShop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> AnsweringShop:
    return two_nights(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def service(shop: AnsweringShop) -> Iterator[Service]:
    yield from limited(shop)


def refused(service: Service, body: Any, path: str = "/recommend") -> tuple[int, str]:
    """Status and sentence; that is all there is."""
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)
    answer = service.client.post(path, content=content, headers={"content-type": "application/json"})
    said = answer.json()
    assert said.keys() == {"error"} and said["error"].endswith(".") and "\n" not in said["error"], said
    assert "Traceback" not in said["error"] and len(said["error"]) < 300
    return answer.status_code, said["error"]


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ("", 422, "The body is missing"),
        ("{", 400, "The body is not JSON"),
        ("nonsense", 400, "The body is not JSON"),
        (b"\xff\xfe{}", 400, "The body is not JSON"),
        ("[" * 1_990, 400, "The body is not JSON"),
        ("[]", 422, "The body is no JSON object"),
        ('"text"', 422, "The body is no JSON object"),
        ('{"k": NaN}', 422, "k: "),
        ('{"k": 1e400}', 422, "k: "),
        ('{"k": ' + "9" * 1500 + "}", 422, "k: input should be less than or equal to 1000000000"),
        ('{"history": [NaN]}', 422, "history.0 is no item id"),
        ('{"history": ["\\ud800"]}', 422, "history.0 is no item id"),
        ('{"history": [{"item": 1, "weight": Infinity}]}', 422, "history.0 is no item id"),
        ({"k": 0}, 422, "k: input should be greater than or equal to 1"),
        ({"k": "3"}, 422, "k: input should be a valid integer"),
        ({"k": 2.5}, 422, "k: "),
        ({"k": True}, 422, "k: "),
        ({"k": 13}, 422, "k = 13 is above this service's limit of 12"),
        ({"kk": 1}, 422, "There is no field 'kk'"),
        ({"history": "abc"}, 422, "history: "),
        ({"history": [None]}, 422, "history.0 is no item id"),
        ({"history": [True]}, 422, "history.0 is no item id"),
        ({"history": [[1]]}, 422, "history.0 is no item id"),
        ({"history": [1, {"id": 1}]}, 422, "history.1 is no item id"),
        ({"history": [{"item": 1, "time": "yesterday"}]}, 422, "history.0 is no item id"),
        ({"history": [{"item": 1, "time": "2026-01-01T00:00:00"}]}, 422, "history.0 is no item id"),  # no zone
        ({"history": [2**63]}, 422, "history.0 is no item id"),
        ({"history": [1] * 5}, 422, "history has 5 entries and this service's limit is 4"),
        ({"exclude": [1] * 5}, 422, "exclude has 5 entries"),
        ({"user": {"a": 1}}, 422, "user: "),
        ({"attributes": {"age": 3}}, 422, "There is no attribute 'age'"),
        ({"attributes": {"age": {"deep": 1}}}, 422, "attributes.age"),
        ({"rules": ["x"]}, 422, "There is no rule 'x'"),
        ({"history": ["x" * 1_990]}, 413, "The body is above this service's limit of 2,000 bytes"),
    ],
)
def test_a_bad_question(service: Service, body: Any, status: int, sentence: str) -> None:
    found, said = refused(service, body)
    assert found == status and said.startswith(sentence), (found, said)


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/similar", {}, "item is missing"),
        ("/similar", {"item": 1, "k": 0}, "k: "),
        ("/similar", {"item": 1.5}, "item: "),
        ("/recommend/batch", {"queries": []}, "queries: "),
        ("/recommend/batch", {"queries": [{}] * 4}, "4 queries are above"),
        ("/recommend/batch", {}, "queries is missing"),
    ],
)
def test_bad_questions_elsewhere(service: Service, path: str, body: Any, sentence: str) -> None:
    found, said = refused(service, body, path)
    assert found == 422 and said.startswith(sentence), (found, said)


def test_wrong_pages_and_methods(service: Service) -> None:
    for method, path, status in (("GET", "/nix", 404), ("GET", "/recommend", 405), ("POST", "/health", 405)):
        answer = service.client.request(method, path)
        assert answer.status_code == status and answer.json().keys() == {"error"}
    assert service.client.get("/users/ann?k=0").status_code == 422
    assert service.client.get("/users/ann?k=x").json()["error"].startswith("query.k: ")


def test_a_body_without_a_length_is_cut_off_at_the_limit(service: Service) -> None:
    chunks = (b"x" * 500 for _ in range(100))
    answer = service.client.post("/recommend", content=chunks, headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_the_token_is_asked_for_everywhere_but_where_it_is_not(shop: AnsweringShop) -> None:
    service = serving(ChampionSource(shop.settings), token="s3cret")
    with service.client as client:
        for path in ("/health", "/ready", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        page = client.get("/openapi.json").json()
        user = next(one for one in page["paths"]["/users/{user}"]["get"]["parameters"] if one["name"] == "user")
        assert user["example"] == "u1"
        schemas = page["components"]["schemas"]
        assert schemas["BatchRequest"]["example"] == {
            "queries": [{"history": ["i1", "i2", "i3"], "k": 5}, {"user": "u1", "k": 5}]
        }
        assert schemas["RecommendRequest"]["example"]["history"] == ["i1", "i2", "i3"]
        assert schemas["SimilarRequest"]["example"]["item"] == "i1"
        for sent in (None, "Bearer wrong", "Bearer ", "s3cret", "Basic s3cret", "Bearer s3cret2", "Bearer \u00e9"):
            headers = {} if sent is None else {"Authorization": sent.encode()}
            answer = client.get("/version", headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert client.post("/recommend", content=b"{", headers=headers).status_code == 401
        for sent in ("Bearer s3cret", "bearer s3cret"):
            assert client.get("/version", headers={"Authorization": sent}).status_code == 200
        assert client.get("/metrics").status_code == 401 == client.get("/users/ann").status_code


@pytest.mark.parametrize(
    ("host", "token", "no_token", "sentence"),
    [
        ("0.0.0.0", None, False, "--host 0.0.0.0 answers other machines"),
        ("::", None, False, "--host :: answers other machines"),
        ("shop.example", None, False, "answers other machines"),
        ("127.0.0.1", "", False, "RECSYS_TOKEN is empty"),
        ("0.0.0.0", " ", True, "RECSYS_TOKEN is empty"),
        ("127.0.0.1", None, False, None),
        ("::1", None, False, None),
        ("localhost", None, False, None),
        ("0.0.0.0", "x", False, None),
        ("0.0.0.0", None, True, None),
    ],
)
def test_other_machines_are_answered_with_a_token_alone(
    host: str, token: str | None, no_token: bool, sentence: str | None
) -> None:
    if sentence is None:
        check_address(host, token, no_token)
        return
    with pytest.raises(InputError, match=sentence):
        check_address(host, token, no_token)


def test_a_failure_of_ours_is_a_sentence_without_what_was_sent(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(questions: Any) -> Any:
        raise ZeroDivisionError("user ann-the-secret")

    monkeypatch.setattr(service.follower.current.__class__, "answer", lambda self, questions: failing(questions))
    with caplog.at_level(logging.INFO, "recsys"):
        assert refused(service, {"user": "ann-the-secret"})[0] == 500
    assert "/recommend failed: ZeroDivisionError: user ***." in caplog.text and "ann-the-secret" not in caplog.text


def test_a_query_of_a_batch_fails_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answer = service.follower.current.__class__.answer

    def failing(self: Any, asked: Any) -> Any:
        if any(one.user == "bob" for one in asked):
            raise ZeroDivisionError("user bob has 7 of 7")
        return answer(self, asked)

    monkeypatch.setattr(service.follower.current.__class__, "answer", failing)
    queries = [{"user": "ann"}, {"user": "bob"}, {"user": "ann"}]
    first, bad, last = service.post("/recommend/batch", queries=queries)["answers"]
    assert first == last and first["items"] and bad == {"error": FAILED}
    assert "/recommend/batch failed at a query: ZeroDivisionError: user *** has 7 of 7." in caplog.text


@pytest.mark.parametrize("country", [["DE", "FR"], ["DE"], [], [None]])
def test_a_list_where_one_value_is_declared(tmp_path: Path, country: list[Any]) -> None:
    shop = AnsweringShop(tmp_path, users={"source": "users.csv", "categorical": {"country": {"kind": "single"}}})
    shop.log()
    shop.items([True] * 6)
    overwrite(shop.settings.warehouse, USERS, pl.DataFrame({"user_id": ["ann"], "country": ["AT"]}), expected=None)
    shop.night("a")
    service = serving(ChampionSource(shop.settings))
    said = "attributes.country is a list and [users] declares it as one value; give one value."
    assert refused(service, {"attributes": {"country": country}}) == (422, said)
    sound = {"history": [1], "attributes": {"country": "DE"}}
    answers = service.post("/recommend/batch", queries=[sound, {"attributes": {"country": country}}])["answers"]
    assert answers[0]["items"] and answers[1] == {"error": said}


@pytest.mark.parametrize(
    ("message", "given", "line"),
    [
        ("no o'neil\nand more", {"user": "o'neil"}, "ValueError: no ***"),
        ("no 'a\\nb'", {"user": "a\nb"}, "ValueError: no '***'"),
        ("no a\nb here", {"user": "a\nb"}, "ValueError: no *** here"),
        ("index 1 of 12", {"history": [1, {"item": 1}]}, "ValueError: index *** of 12"),
        ("postgresql://me:pw@db is away", None, "ValueError: postgresql://***@db is away"),
        ("", {"user": ""}, "ValueError"),
    ],
)
def test_a_line_about_a_failure_says_what_it_was_without_the_request(message: str, given: Any, line: str) -> None:
    assert failure(ValueError(message), given) == line


def test_numbers_of_requests_hold_no_id(shop: AnsweringShop) -> None:
    service = serving(ChampionSource(shop.settings))
    service.client.get("/users/ann")
    service.client.get("/ann")
    service.post("/recommend", history=[1, "nix"])
    numbers = service.client.get("/metrics").text
    assert 'recsys_requests_total{endpoint="/users/{user}",status="200"} 1.0' in numbers
    assert 'recsys_requests_total{endpoint="other",status="404"} 1.0' in numbers
    assert 'recsys_requests_total{endpoint="/recommend",status="200"} 1.0' in numbers
    assert "recsys_unknown_items_total 1.0" in numbers and 'kind="text",run="b"} 1.0' in numbers
    assert "ann" not in numbers
