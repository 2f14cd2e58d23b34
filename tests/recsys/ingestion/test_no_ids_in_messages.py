"""A log keeps messages, so none of them names a user: what is refused shows its shape where nobody knows the id."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.ingestion.quarantine import without_user
from recsys.settings.read import parse_settings

NOW = datetime(2026, 11, 29, tzinfo=UTC)
WHO = "user-secret-4711"
HEADER = "user_id,item_id,timestamp"
CSV = {"interactions": {"source": "log.csv"}}
LINES = {"interactions": {"source": "log.jsonl"}}
SOUND = {"log.csv": f"{HEADER}\nbob,1,100\nann,2,100\n"}
USERS = {**CSV, "users": {"source": "users.csv"}}
MAP = {"source": "map.txt", "separator": " ", "format": "txt"}
CASES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a wrong time": (CSV, {"log.csv": f"{HEADER}\n{WHO},i3,oops\n"}),
    "too few fields": (CSV, {"log.csv": f"{HEADER}\n{WHO},i3\n"}),
    "too many fields": (CSV, {"log.csv": f"{HEADER}\n{WHO},i3,100,x,{WHO}\n"}),
    "another separator": (CSV, {"log.csv": f"{HEADER}\n{WHO};i3;100\n"}),
    "an open quote": (CSV, {"log.csv": f'{HEADER}\n"{WHO},i3,100\n'}),
    "a quoted quote": (CSV, {"log.csv": f'{HEADER}\n"{WHO}""x",i3,oops\n'}),
    "ids in the wrong column": (CSV, {"log.csv": f"{HEADER}\n,i3,{WHO}\n"}),
    "text among numbers": (CSV, {"log.csv": f"{HEADER}\n1,2,100\n2,3,100\n3,4,100\n{WHO},3,oops\n"}),
    "no object": (LINES, {"log.jsonl": f'["{WHO}", 1, 100]\n'}),
    "cut off": (LINES, {"log.jsonl": f'{{"user_id": "{WHO}", "item_id": 1, "time\n'}),
    "escaped": (LINES, {"log.jsonl": json.dumps({"user_id": f"{WHO}ü", "item_id": 1, "timestamp": "oops"}) + "\n"}),
    "an object as an id": (LINES, {"log.jsonl": f'{{"user_id": {{"{WHO}": 1}}, "item_id": 1, "timestamp": 1}}\n'}),
    "users without an id": (USERS, SOUND | {"users.csv": f"user_id,mail\n,{WHO}\n"}),
    "users of too many fields": (USERS, SOUND | {"users.csv": f"user_id,mail\n{WHO},a,b\n"}),
    "a map of users": (
        {**USERS, "users": {"source": "users.csv", "id_map": MAP}},
        SOUND | {"users.csv": "user_id,mail\nx,a\n", "map.txt": f"bob {WHO} more\n"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refused_row_is_shown_without_its_user(tmp_path: Path, case: str) -> None:
    sections, files = CASES[case]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    tree = {"name": "shop", "data_root": str(tmp_path), "warehouse": str(tmp_path / "warehouse")}
    strict = {name: {**keys, "max_rejected_share": 0.0} for name, keys in sections.items()}
    with pytest.raises(InputError) as refused:
        ingest(parse_settings(tree | strict), now=NOW)
    assert "secret" not in str(refused.value), refused.value


@given(some.text(min_size=1, max_size=9), some.text(max_size=9), some.text(max_size=9))
def test_no_letter_is_left_of_an_id_that_does_not_stand_alone(user: str, before: str, after: str) -> None:
    raw = f"{before},{user},{after}"
    assert without_user(raw, user) == without_user(raw, None) or "<user>" in without_user(raw, user)
    assert not any(sign.isalpha() and sign != "x" for sign in without_user(raw, None))
    assert len(without_user(raw, None)) == len(raw)
