"""Prepared data are those of a plain definition, however small the parts and blocks that they are made in."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.columns import INTERACTIONS
from recsys.data import baskets, filters, log, parts, prepare, sequences, split_files
from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import MOMENT, SCHEMAS, append, current_versions

START = datetime(2025, 1, 1, tzinfo=UTC)
Event = tuple[int, str, int]  # user, item, second


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of four rows, blocks of three events."""
    monkeypatch.setattr(parts, "PART", 4)
    monkeypatch.setattr(parts, "BATCH", 3)
    for module in (baskets, filters, log, prepare, sequences, split_files):
        monkeypatch.setattr(module, "AT_ONCE", 3)


def table(folder: Path, events: list[Event]) -> None:
    """The table of interactions, in the order in which the events came."""
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "second"], orient="row").select(
        pl.col("user_id").cast(pl.Int64),
        "item_id",
        pl.Series("timestamp", [START + timedelta(seconds=second) for *_, second in events], dtype=MOMENT),
        pl.lit("").alias("event"),
        pl.lit(None, pl.Float64).alias("weight"),
        pl.int_range(pl.len(), dtype=pl.Int64).alias("position"),
    )
    append(str(folder / "warehouse"), INTERACTIONS, frame.select(*SCHEMAS[INTERACTIONS]), expected=None)


def configured(folder: Path, **sections: Any) -> Any:
    return parse_settings(
        {"name": "n", "warehouse": str(folder / "warehouse"), "interactions": {"source": "log.csv"}} | sections
    )


def left(events: list[Event], least_user: int, least_item: int, repeats: str) -> list[Event]:
    """The events that count, sorted by user and time, those of one moment as they came."""
    ordered = sorted(events, key=lambda event: (event[0], event[2]))
    if repeats != "keep":
        seen: set[tuple[int, str]] = set()
        kept = []
        for event in ordered if repeats == "first" else reversed(ordered):
            if event[:2] not in seen:
                kept.append(event)
            seen.add(event[:2])
        ordered = kept if repeats == "first" else kept[::-1]
    while True:
        users, items = Counter(user for user, *_ in ordered), Counter(item for _, item, _ in ordered)
        fewer = [event for event in ordered if users[event[0]] >= least_user and items[event[1]] >= least_item]
        if len(fewer) == len(ordered):
            return ordered
        ordered = fewer


def told(part: Sequences, codes: dict[str, int]) -> list[tuple[int, list[str], list[int]]]:
    """Each user with item ids and seconds."""
    assert part.times is not None
    names = {code: item for item, code in codes.items()}
    start = int(START.timestamp() * 1_000_000)
    return [
        (
            user,
            [names[code] for code in part.items[first:last].tolist()],
            ((part.times[first:last] - start) // 1_000_000).tolist(),
        )
        for user, first, last in zip(
            part.users.to_list(), part.offsets[:-1].tolist(), part.offsets[1:].tolist(), strict=True
        )
    ]


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from("abcdef"), st.integers(0, 6)), min_size=1, max_size=30),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["keep", "first", "last"]),
)
def test_leaving_one_out_is_that_of_a_plain_definition(
    events: list[Event], least_user: int, least_item: int, repeats: str
) -> None:
    limits = {"min_user_interactions": least_user, "min_item_interactions": least_item, "repeats": repeats}
    histories: dict[int, list[tuple[str, int]]] = {}
    for user, item, second in left(events, least_user, least_item, repeats):
        histories.setdefault(user, []).append((item, second))
    asked = {user: events for user, events in histories.items() if len(events) >= 3}
    with tempfile.TemporaryDirectory() as name:
        table(Path(name), events)
        of = configured(Path(name), filter=limits)
        if not asked:
            with pytest.raises(InputError):
                prepare.prepare(of, current_versions(of.warehouse))
            return
        made, mapped = (prepare.prepare(of, current_versions(of.warehouse)) for _ in range(2))
    training = {user: events[:-2] if user in asked else events for user, events in histories.items()}
    codes: dict[str, int] = {}
    for events_of in training.values():
        for item, _ in events_of:
            codes.setdefault(item, len(codes) + 1)

    def plain(chosen: dict[int, list[tuple[str, int]]]) -> list[tuple[int, list[str], list[int]]]:
        known = {user: [event for event in events if event[0] in codes] for user, events in chosen.items()}
        return [(user, [item for item, _ in events], [time for _, time in events]) for user, events in known.items()]

    for dataset in (made, mapped):
        split = dataset.split
        assert dataset.vocabulary.items.to_list() == list(codes)
        assert told(split.train, codes) == plain(training)
        assert told(split.serving, codes) == plain(histories)
        for part, before in ((split.test, 1), (split.validation, 2)):
            assert told(part.histories, codes) == plain({user: events[:-before] for user, events in asked.items()})
            assert part.targets.tolist() == [codes.get(events[-before][0], 0) for events in asked.values()]
            for row, user in enumerate(asked):  # one by one as all together
                assert part.histories.history(row).tolist() == [
                    codes[item] for item, _ in asked[user][:-before] if item in codes
                ]
        assert dataset.report["interactions"] == sum(map(len, histories.values()))
        assert dataset.digest == made.digest and dataset.catalogue.equals(made.catalogue)


LOG: list[Event] = [(user, item, at) for user in (1, 2, 3) for at, item in enumerate("abcab")]


def test_nobody_writes_into_mapped_data_and_each_setting_has_its_own(tmp_path: Path) -> None:
    table(tmp_path, LOG)
    of = configured(tmp_path)
    dataset = prepare.prepare(of, current_versions(of.warehouse))
    for values in (dataset.split.train.items, dataset.split.serving.times):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1  # type: ignore[index]
    fewer = configured(tmp_path, filter={"repeats": "first"})
    assert prepare.prepare(fewer, current_versions(of.warehouse)).report["interactions"] == 9
    more = configured(tmp_path, evaluate={"baselines": ["popularity"]})  # no setting of the data
    prepare.prepare(more, current_versions(of.warehouse))
    found = sorted(path.name.partition("-")[0] for path in (tmp_path / "warehouse" / "prepared").glob("*-*"))
    assert found == ["dataset", "dataset", "log", "log"]


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_too_little_room_is_a_sentence_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    table(tmp_path, LOG)
    of = configured(tmp_path)
    if kind == "memory":
        monkeypatch.setattr(log, "free_on_processor", lambda: 1000)
    else:
        usage = type("Usage", (), {"free": 10})
        monkeypatch.setattr(log.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=rf"^Preparing 15 events takes about .* GiB of {kind}.*; .*\.$"):
        prepare.prepare(of, current_versions(of.warehouse))
    assert not list((tmp_path / "warehouse" / "prepared").glob("*-*"))


def test_files_are_mapped_and_not_read(tmp_path: Path) -> None:
    table(tmp_path, LOG)
    of = configured(tmp_path)
    items = prepare.prepare(of, current_versions(of.warehouse)).split.serving.items
    base = items
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
