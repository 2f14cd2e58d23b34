"""A new configuration reads the files that it was written for, wherever it and the working directory are."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from recsys.ingestion.declared_sources import check_sources
from recsys.init.guess import guess, write_configuration
from recsys.settings.read import load_settings

LOG = "user_id,item_id,timestamp\n" + "".join(
    f"u{u},i{(u + n) % 7},{1_700_000_000 + n}\n" for u in range(9) for n in range(5)
)
ITEMS = "item_id,title\n" + "".join(f"i{item},A title of {item}\n" for item in range(7))


@pytest.mark.parametrize(
    ("log", "items", "output", "data_root"),
    [
        ("log.csv", "items.csv", "recsys.toml", "."),
        ("log.csv", "items.csv", "conf/recsys.toml", ".."),
        ("data/*.csv", "data/more/items.csv", "conf/recsys.toml", "../data"),
        ("data/log.csv", "items.csv", "recsys.toml", "."),
        (
            "{here}/data/log.csv",
            "{here}/data/items.csv",
            "recsys.toml",
            "data",
        ),  # no folder of this machine in the file
        ("{here}/data/log.csv", "items.csv", "conf/recsys.toml", "."),  # one in full, one not
    ],
)
def test_it_reads_what_it_was_written_for(
    log: str, items: str, output: str, data_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log, items = log.format(here=tmp_path), items.format(here=tmp_path)
    for name, text in ((log.replace("*", "log"), LOG), (items, ITEMS), (output, "")):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    Path(output).unlink()
    write_configuration(guess(log, items, output=output)[0], output)
    assert tomllib.loads(Path(output).read_text())["data_root"] == data_root
    monkeypatch.chdir("/")
    settings = load_settings(tmp_path / output)
    check_sources(settings)
    assert settings.items is not None
    for source in (*settings.interactions.sources, *settings.items.sources):
        assert list(Path("/").glob(str((Path(settings.data_root) / source).relative_to("/")))) != []
    own = (tmp_path / output).parent
    assert Path(settings.warehouse).is_relative_to(own) and not Path(settings.warehouse).exists()
