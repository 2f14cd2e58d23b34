"""Seen items that are served and not measured, or measured and not served, are told of."""

from __future__ import annotations

from typing import Any

from recsys.night.seen import check_seen
from recsys.settings import Settings
from recsys.settings.read import parse_settings

AGAIN = {"again": {"kind": "repeat", "where": [{"column": "kind", "one_of": ["coffee"]}]}}


def settings(evaluate: bool, retrieve: bool, **sections: Any) -> Settings:
    return parse_settings(
        {
            "name": "shop",
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.jsonl"},
            "evaluate": {"exclude_seen": evaluate},
            "retrieve": {"exclude_seen": retrieve},
        }
        | sections
    )


def test_a_difference_is_one_sentence_that_says_which_key_is_which() -> None:
    for same in (True, False):
        assert check_seen(settings(same, same)) == ()
    (served,) = check_seen(settings(True, False))
    assert served.startswith("retrieve.exclude_seen = false recommends items that a user had, and evaluate.")
    (measured,) = check_seen(settings(False, True))
    assert measured.startswith("evaluate.exclude_seen = false ranks items that a user had in validation")
    assert all(told.endswith("; set both to the same value.") for told in (served, measured))


def test_a_rule_that_lets_some_come_again_may_be_measured_with_them() -> None:
    assert check_seen(settings(False, True, rules=AGAIN)) == ()
    assert check_seen(settings(True, False, rules=AGAIN))
