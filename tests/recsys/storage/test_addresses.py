from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.storage.addresses import local_database, masked, without_login


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqlite:///mlruns/mlflow.db", "sqlite:///mlruns/mlflow.db"),
        ("postgresql://ann:p@ss/w:ord@db:5432/mlflow", "postgresql://***@db:5432/mlflow"),
        ("https://token@host/path", "https://***@host/path"),
        ("s3://bucket/a@b/file", "s3://bucket/a@b/file"),
        ("abfss://data@account.dfs.core.windows.net/x", "abfss://***@account.dfs.core.windows.net/x"),
        ("https://host/x?sig=abc123&k=1", "https://host/x?sig=***&k=1"),
        ("two http://a:b@c and http://d:e@f", "two http://***@c and http://***@f"),
        ("http://ann:my secret@host/ml is down", "http://***@host/ml is down"),
        ("redis://:hunter2@host/0", "redis://***@host/0"),
        ('uri = "http://a:b c@d/" and "x@y"', 'uri = "http://***@d/" and "x@y"'),
        ("https://h/?key=abc&auth=def&n=1", "https://h/?key=***&auth=***&n=1"),
        ("AccountName=shop;AccountKey=abc==", "AccountName=shop;AccountKey=***"),
        ("https://h/?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=abc", "https://h/?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("client_secret = abc", "client_secret = ***"),
        ('{"client_secret": "a\\"b c", "x": 1}', '{"client_secret": "***", "x": 1}'),
        ("{'password': 'a b'}", "{'password': '***'}"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("got Bearer eyJhbGciOi.J9", "got Bearer ***"),
        ("Basic YW5uOnNlY3JldA==", "Basic ***"),
        ("the key AKIAIOSFODNN7EXAMPLE is", "the key *** is"),
        ("AWS_SECRET_ACCESS_KEY=abc/def+g", "AWS_SECRET_ACCESS_KEY=***"),
        ("accessToken=abc", "accessToken=***"),
        ("down: http://u:99 9@h", "down: http://***@h"),
        ('down: http://ann:x"y z@h', "down: http://***@h"),
        ("http://h/?password=geh eim", "http://h/?password=***"),
        ("'http://h/?password=geh eim' is down", "'http://h/?password=***' is down"),
        ("GET http://h/?access_token=a b&n=1 gave 403", "GET http://h/?access_token=***&n=1 gave 403"),
        ("db_pw=abc, pw=def", "db_pw=*** pw=***"),
        ("at //ann:pw@h/x", "at //***@h/x"),
    ],
)  # fmt: skip
def test_masking(text: str, expected: str) -> None:
    assert masked(text) == expected
    assert masked(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "--set epochs is not of the form key=value",
        "http://host:5000 is down, ask admin@example.com",
        "train.tokens=5 and max_tokens = 7, primary_key=item_id",
        "basic attention over the bearer of news; bypass=1; compass=north; design=a",
        "s3://bucket/part=1/key=7.parquet",
        "user_id=ann, item_id=b, author=c",
    ],
)
def test_harmless_text_stays(text: str) -> None:
    assert masked(text) == text


WORD = st.text(string.ascii_letters + string.digits, min_size=4, max_size=12).map(lambda word: f"q{word}")
PASSWORD = st.lists(WORD, min_size=1, max_size=3).map(" ".join)
NAMES = ["password", "api_key", "apikey", "client_secret", "AccountKey", "token", "access_key", "sas_token", "sig"]


@given(before=WORD, user=WORD, password=PASSWORD, mark=st.sampled_from("!:/?#$&+~^*|"), after=WORD)
def test_no_password_of_a_url_passes(before: str, user: str, password: str, mark: str, after: str) -> None:
    shown = masked(f"{before} http://{user}:{password}{mark}@host:80/{after} failed")
    assert shown == f"{before} http://***@host:80/{after} failed"


@given(secret=WORD, name=st.sampled_from(NAMES), quote=st.sampled_from(["", '"', "'"]), sign=st.sampled_from("=:"))
def test_no_named_secret_passes(secret: str, name: str, quote: str, sign: str) -> None:
    sign = sign if quote else "="
    assert masked(f"{name}{sign}{quote}{secret}{quote}") == f"{name}{sign}{quote}***{quote}"
    assert secret not in masked(f'{{"{name}": "{secret} {secret}"}}')


@given(name=st.sampled_from([*NAMES, "key", "auth", "code"]), secret=WORD, first=st.booleans())
def test_no_secret_of_a_query_passes(name: str, secret: str, first: bool) -> None:
    query = f"?{name}={secret}&page=2" if first else f"?page=2&{name}={secret}"
    shown = masked(f"GET https://host/path{query} gave 403")
    assert secret not in shown and "page=2" in shown and shown.endswith(" gave 403")


@given(st.text(st.characters(exclude_characters="=:@", exclude_categories=("Cs",)), max_size=60))
def test_text_without_addresses_and_assignments_stays(text: str) -> None:
    words = text.lower()
    if not any(word in words for word in ("bearer", "basic", "akia", "asia", "abia", "acca", "a3t")):
        assert masked(text) == text


PIECES = [*'ab1 /:@=?&"\n', "http://", "token", "key", "://"]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_masking_twice_is_masking_once(text: str) -> None:
    assert masked(masked(text)) == masked(text)


def test_a_login_is_taken_out_of_an_address() -> None:
    assert without_login("http://ann:p%40ss@host:5000/ml") == ("http://host:5000/ml", "ann", "p@ss")
    assert without_login("https://ann:a b@c@host/") == ("https://host/", "ann", "a b@c")
    assert without_login("https://token@host") == ("https://host", "token", "")
    for uri in ("http://host:5000/a", "postgresql://ann:pass@db/ml", "sqlite:///mlruns/mlflow.db"):
        assert without_login(uri) == (uri, None, None)


def test_the_file_of_a_database() -> None:
    assert local_database("sqlite:////tmp/a%20b.db?timeout=5") == Path("/tmp/a b.db")
    assert local_database("sqlite:///mlruns/mlflow.db") == Path.cwd() / "mlruns" / "mlflow.db"
    assert local_database("postgresql://db/mlflow") is None
