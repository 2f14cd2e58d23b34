"""Logins in URLs of object stores: no setting takes one, and no message shows it."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.errors import InputError
from recsys.logins import hidden, login_problem
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.objects import opened
from recsys.storage.remote import filesystem

KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
URL = "s3://AKIAKEY:hunter2/x@shop/log.csv"
SHOWN = "s3://***@shop/log.csv"


def settings_of(**sections: Any) -> Settings:
    return parse_settings({"name": "shop", "interactions": {"source": "log.csv"}, **sections})


@pytest.mark.parametrize(("url", "told"), [
    (URL, SHOWN),
    ("S3A://key:hunter2@shop/a@b.csv", "S3A://***@b.csv"),
    ("gs://:hunter2@shop/log.csv", "gs://***@shop/log.csv"),
    ("abfss://account:hunter2@shop/log.csv", "abfss://***@shop/log.csv"),
    ("az://shop/log.csv?sv=1&sig=hunter2&x=1", "az://shop/log.csv?sv=1&sig=***&x=1"),
])  # fmt: skip
def test_a_login_is_found_and_hidden(url: str, told: str) -> None:
    problem = login_problem(url)
    assert hidden(url) == told and problem is not None and repr(told) in problem and "hunter2" not in problem


@pytest.mark.parametrize("url", [
    "s3://shop/a:b@c/log.csv", "s3://shop/log-??.csv", "gs://anonymous@shop/log.csv", "log:2@shop.csv",
    "abfss://shop@account.dfs.core.windows.net/log.csv", "postgresql://ann:hunter2@db/shop", "http://a:b@host",
])  # fmt: skip
def test_other_addresses_are_taken(url: str) -> None:
    assert login_problem(url) is None


@pytest.mark.parametrize(("sections", "key"), [
    ({"interactions": {"source": URL}}, "interactions.source"),
    ({"interactions": {"source": ["log.csv", URL]}}, "interactions.source"),
    ({"items": {"source": "i.csv", "id_map": {"source": URL}}}, "items.id_map.source"),
    ({"retrieve": {"users": URL}}, "retrieve.users"),
    ({"data_root": URL}, "data_root"),
    ({"state_root": URL}, "state_root"),
    ({"warehouse": URL}, "warehouse"),
    ({"train": {"warm_start": URL}}, "train.warm_start"),
    ({"export": {"kind": "s3", "path": URL}}, "export"),
    ({"export": {"lake": {"kind": "delta", "path": URL}}}, "export.lake"),
])  # fmt: skip
def test_no_setting_takes_a_login_and_no_message_shows_it(sections: dict[str, Any], key: str) -> None:
    with pytest.raises(InputError) as raised:
        settings_of(**sections)
    said = str(raised.value)
    assert f"the configuration: {key}" in said and f"the login in {SHOWN!r} would be stored" in said and KEYS in said
    assert "hunter2" not in said and "\n" not in said


def test_a_login_of_another_address_stays_out_of_messages() -> None:
    with pytest.raises(InputError, match=r"state_root = 'http://\*\*\*@host': it is a folder of this machine"):
        settings_of(state_root="http://ann:hunter2@host")


def test_a_url_of_a_command_holds_no_login_either() -> None:
    with pytest.raises(InputError, match=KEYS):
        filesystem(URL)
    with pytest.raises(InputError, match=KEYS), opened(URL, "The bundles cannot be reached"):
        pass
