"""Every shipped configuration loads and says at its head what it assumes and what to expect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recsys.datasets.fetch import DATA_SETS
from recsys.settings import RunSettings
from recsys.settings.pretrain import load_pretrain_settings
from recsys.settings.read import load_settings

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(FOLDER.glob("*.toml"))


def _head(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    length = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:length])


def _load(path: Path, *overrides: str) -> RunSettings:
    if "\n[catalogues." in path.read_text(encoding="utf-8"):
        return load_pretrain_settings(path, overrides)
    return load_settings(path, overrides)


def test_the_promised_configurations_are_there() -> None:
    assert {path.stem for path in CONFIGS} >= {
        "ml-1m",
        "ml-latest-small",
        "online-retail",
        "amazon-beauty",
        "demo",
        "recformer-pretrain",
        "scientific",
        "scientific-ids",
        "scientific-recformer",
        "scientific-sequence",
        "scientific-text",
        "sequence-pretrain",
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_loads_under_its_own_name(path: Path) -> None:
    settings = _load(path)
    assert settings.name == path.stem
    root = FOLDER.parent.resolve()
    assert Path(settings.data_root).resolve().is_relative_to(root)
    assert Path(settings.state_root).resolve() in (root, root / "demo")
    moved = _load(path, "data_root=/somewhere/else")
    assert moved.data_root == "/somewhere/else"
    assert moved.model_copy(update={"data_root": settings.data_root}) == settings


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_its_head_says_what_a_reader_needs(path: Path) -> None:
    head = _head(path)
    for word in ("Assumes", "Command", "Figures", "Hardware", "Date"):
        assert re.search(rf"^# {word} +\S", head, re.MULTILINE), word
    assert f"configs/{path.name}" in head


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_its_sources_and_checksums_are_those_that_fetch_brings(path: Path) -> None:
    head = _head(path)
    fetched = re.search(r"recsys fetch ([\w-]+)", head)
    if fetched is None:  # what we generate ourselves, or what a reader must bring
        assert "recsys demo" in head or re.search(r"sha256 [0-9a-f]{64}$", head, re.MULTILINE)
        return
    settings = load_settings(path)
    name = fetched.group(1)
    assert Path(settings.data_root) == FOLDER.parent / "data" / name
    files = [part for file in DATA_SETS[name].files for part in (file, *(file.members or {}).values())]
    known = {file.name: file for file in files}
    sources = [settings.interactions.source]
    for table in (settings.items, settings.users):
        if table is not None:
            sources += [table.source, *([table.id_map.source] if table.id_map else [])]
    for source in sources:
        if source in known:
            checksum = known[str(source)].checksum
            if checksum is None:  # the publisher names none
                assert "no checksum" in head
            else:
                assert checksum.removeprefix("sha256:") in head
        else:
            assert "--set items=none" in head  # what cannot be fetched is not needed


def test_the_guide_loads_the_model_from_the_demo_s_store() -> None:
    guide = (FOLDER.parent / "docs" / "mlflow.md").read_text(encoding="utf-8")
    (path,) = re.findall(r'set_tracking_uri\("sqlite:///(.*)"\)', guide)
    store = Path(load_settings(FOLDER / "demo.toml").tracking.uri.removeprefix("sqlite:///"))
    assert store.resolve() == (FOLDER.parent / path).resolve()


def test_amazon_beauty_works_without_its_catalogue() -> None:
    assert load_settings(FOLDER / "amazon-beauty.toml", ["items=none"]).items is None
