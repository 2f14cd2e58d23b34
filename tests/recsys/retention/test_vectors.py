"""Vectors of texts that nobody reads any more go, and those of every configuration stay."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from recsys.retention import vectors
from recsys.retention.collect import collect
from recsys.retention.kept import kept
from recsys.retention.removal import carry_out
from recsys.settings import Settings
from recsys.text.represent import represent, text_vectors
from recsys.text.uses import uses
from tests.recsys.text.test_represent import settings_for, stored, tiny_model, write_items

LATER = datetime.now(UTC) + timedelta(days=40)
TITLES = ["Nail Lacquer", "Cordless Drill", "Toy Story", "Night Cream"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def removed(settings: Settings, now: datetime = LATER, *, dry_run: bool = False) -> dict[str, int]:
    """Clean up at a moment; returns how much of what went."""
    kind = partial(vectors.unused_vectors, settings, kept(settings, [], [], now))
    report = carry_out([kind], "", dry_run=dry_run)
    assert not report.failed
    return report.removed


def short(settings: Settings, name: str) -> Settings:
    """A configuration that reads texts with another encoder."""
    text = settings.text.model_copy(update={"max_tokens": 8})
    return settings.model_copy(update={"name": name, "text": text})


def test_the_vector_of_a_text_that_has_changed_goes_when_it_is_old(tmp_path: Path, tiny: str) -> None:
    settings = settings_for(tmp_path, tiny)
    represent(settings, write_items(tmp_path, TITLES))
    versions = write_items(tmp_path, [*TITLES[:2], "Toy Story 2", "Day Cream"])
    assert represent(settings, versions).encoded == 2
    before = stored(tmp_path)
    assert removed(settings, datetime.now(UTC)) == {}  # each is young
    assert removed(settings, dry_run=True) == {"text vectors": 1} and stored(tmp_path) == before
    report = collect(settings, None, now=LATER)
    assert report.removed["text vectors"] == 1 and not report.failed
    after = stored(tmp_path)
    assert len(before) == 6 and len(after) == 4 and after.items() <= before.items()
    again = represent(settings, versions)
    assert (again.encoded, again.reused) == (0, 4)
    assert text_vectors(settings, pl.Series(["title: Toy Story 2", "title: Nail Lacquer"])).any(axis=1).all()
    assert removed(settings) == {}


def test_vectors_of_an_encoder_that_nobody_reads_any_more_go(tmp_path: Path, tiny: str) -> None:
    settings = settings_for(tmp_path, tiny)
    versions = write_items(tmp_path, TITLES)
    first = represent(settings, versions)
    now = short(settings, settings.name)
    assert removed(now) == {}  # it has not represented its items yet, so what it needs is not noted
    second = represent(now, versions)
    assert removed(now) == {"text vectors": 1}
    assert {encoder for encoder, _ in stored(tmp_path)} == {second.encoder} != {first.encoder}
    assert represent(now, versions).encoded == 0


def test_what_another_configuration_reads_stays(tmp_path: Path, tiny: str) -> None:
    settings = settings_for(tmp_path, tiny)
    other = short(settings, "other")
    first, second = (represent(one, write_items(tmp_path, TITLES)) for one in (settings, other))
    changed = write_items(tmp_path, [TITLES[0], "Toy Story 2", "Day Cream", "Lip Balm"])
    represent(settings, changed)
    assert len(stored(tmp_path)) == 4 + 4 + 3 and removed(settings) == {"text vectors": 1}
    encoders = [encoder for encoder, _ in stored(tmp_path)]
    assert (encoders.count(str(first.encoder)), encoders.count(str(second.encoder))) == (4, 1)
    assert represent(settings, changed).encoded == 0
    report = represent(other, changed)
    assert (report.encoded, report.reused) == (3, 1)


def test_nothing_goes_where_a_need_is_not_known(tmp_path: Path, tiny: str) -> None:
    settings = settings_for(tmp_path, tiny)
    represent(settings, write_items(tmp_path, TITLES))
    represent(settings, write_items(tmp_path, ["Heat", "Jumanji", "Lip Balm", "Drill"]))
    before, (note,) = stored(tmp_path), (tmp_path / "item_vectors").glob("_texts_of_*.json")
    content = note.read_bytes()
    note.write_bytes(b"{}")
    assert removed(settings) == {}
    note.write_bytes(content)
    os.utime(note, (LATER.timestamp(),) * 2)  # perhaps another configuration has not been run since
    assert removed(settings) == {}
    os.utime(note, (0, 0))
    assert stored(tmp_path) == before and removed(settings) == {"text vectors": 1}


def test_what_is_read_is_noted_where_it_changes(tmp_path: Path, tiny: str) -> None:
    settings = settings_for(tmp_path, tiny)
    versions = write_items(tmp_path, TITLES)
    report = represent(settings, versions)
    (note,) = (tmp_path / "item_vectors").glob("_texts_of_*.json")
    written = note.stat().st_ino, note.stat().st_mtime_ns
    represent(settings, versions)
    assert (note.stat().st_ino, note.stat().st_mtime_ns) == written
    represent(short(settings, "other"), versions)
    found = {name: use for name, (use, _) in uses(str(tmp_path)).items()}
    assert set(found) == {"test", "other"} and found["test"] is not None and found["other"] is not None
    assert (found["test"].encoder, found["test"].attributes, found["test"].words) == (report.encoder, ("title",), None)
    assert found["other"].encoder != report.encoder
