from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recsys.datasets.advice import how_to_get
from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.settings.read import load_settings

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("ml-1m.toml", r"There is no ml-1m.txt .*: correct the path .* `recsys fetch movielens-1m` downloads it\.$"),
        ("ml-latest-small.toml", "`recsys fetch movielens-small` downloads it"),
        ("online-retail.toml", "`recsys fetch online-retail` downloads it"),
        ("amazon-beauty-ids.toml", "`recsys fetch amazon-beauty` downloads it"),
        ("demo.toml", "`recsys demo` generates it"),
    ],
)
def test_a_missing_public_data_set_is_fetched_by_a_command(
    config: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "configs"  # beside which no data lie
    folder.mkdir()
    with pytest.raises(InputError, match=told):
        ingest(load_settings(shutil.copy(CONFIGS / config, folder)))


def test_what_fetch_does_not_bring_is_not_promised(tmp_path: Path) -> None:
    folder = tmp_path / "amazon-beauty"
    told = how_to_get("items", folder / "items.jsonl")
    assert told is not None and "does not bring this file" in told and "--set items=none" in told
    assert how_to_get("interactions", tmp_path / "mine" / "Beauty.txt") is None
