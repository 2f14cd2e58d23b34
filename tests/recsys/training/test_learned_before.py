"""Cancellations make an older event the last one; an earlier bundle may have learned from it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recsys.data.prepare import Dataset, prepare
from recsys.ingestion.ingest import ingest
from recsys.settings import Settings, SplitSettings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions
from recsys.training.learned_before import learned_before, said_learned

START = 1_700_000_000
# what each user did, an event a step; "-E" cancels E
BEFORE = {
    "grown": "A B C D E",
    "cancelled": "A B C D E",
    "one": "A B C D E",
    "again": "A B C D E",
    "long ago": "A E -E B C D",
}
AFTER = {"grown": "F", "cancelled": "-D -E", "one": "-E", "again": "-D -E C", "long ago": "F"}


def write(folder: Path, steps: Iterable[tuple[str, int, str]]) -> None:
    lines = [f"{user},{step.strip('-')},{START + at},{'x' if step[0] == '-' else ''}" for user, at, step in steps]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,back", *lines]) + "\n")


def settings_of(folder: Path, split: dict[str, Any]) -> Settings:
    return parse_settings(
        {
            "name": "shop",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.csv", "withdraw": [{"column": "back", "missing": False}]},
            "split": split,
            "model": {"objective": "next-item", "text": False},
        }
    )


def two_nights(folder: Path, split: dict[str, Any]) -> tuple[Settings, TableVersions, TableVersions]:
    settings = settings_of(folder, split)
    first = [(user, at, step) for user, done in BEFORE.items() for at, step in enumerate(done.split())]
    write(folder, first)
    then = ingest(settings).versions
    write(
        folder,
        [*first, *((user, 10 + at, step) for user, done in AFTER.items() for at, step in enumerate(done.split()))],
    )
    return settings, then, ingest(settings).versions


def previous(folder: Path, **lineage: Any) -> Any:
    return SimpleNamespace(manifest={"lineage": lineage}, path=folder / "shop-1", label="shop-1")


def learned(settings: Settings, versions: TableVersions, dataset: Dataset, **lineage: Any) -> set[str]:
    """Users whose test question a bundle with such a lineage learned from."""
    asked = dataset.split.test
    known = learned_before(previous(Path(), **lineage), settings, versions, dataset, asked)
    return set(asked.histories.users.filter(known).to_list())


@pytest.mark.parametrize("split", [{}, {"same_time": "basket"}])
def test_only_targets_of_the_earlier_training_part_count(tmp_path: Path, split: dict[str, Any]) -> None:
    settings, then, now = two_nights(tmp_path, split)
    dataset = prepare(settings, now)
    users, targets = dataset.split.test.histories.users, dataset.vocabulary.decode(dataset.split.test.targets)
    last = dict(zip(users.to_list(), targets.to_list(), strict=True))
    assert (last["cancelled"], last["one"], last["again"]) == ("C", "D", "C")
    # D was held out, and the second C is a new event
    assert learned(settings, now, dataset, interactions_version=then.interactions) == {"cancelled"}


def test_a_log_that_is_gone_leaves_every_user_with_a_cancellation_in_doubt(tmp_path: Path) -> None:
    settings, _, now = two_nights(tmp_path, {})
    dataset = prepare(settings, now)
    for lineage in ({}, {"interactions_version": now.interactions + 1}):
        assert learned(settings, now, dataset, **lineage) == {"cancelled", "one", "again", "long ago"}


def test_a_log_whose_ids_became_text_leaves_every_user_with_a_cancellation_in_doubt(tmp_path: Path) -> None:
    settings, numbers = settings_of(tmp_path, {}), str.maketrans("ABCDEF", "123456")

    def rows(nights: dict[str, str], begin: int) -> list[tuple[str, int, str]]:
        steps = ((number, done.translate(numbers).split()) for number, done in enumerate(nights.values(), 1))
        return [(str(number), begin + at, step) for number, done in steps for at, step in enumerate(done)]

    write(tmp_path, rows(BEFORE, 0))
    then = ingest(settings).versions
    guest = [("guest", at, step) for at, step in enumerate("12345")]
    write(tmp_path, [*rows(BEFORE, 0), *rows(AFTER, 10), *guest])
    now = ingest(settings, rebuild=True).versions
    dataset = prepare(settings, now)
    assert learned(settings, now, dataset, interactions_version=then.interactions) == {"2", "3", "4", "5"}


def test_a_split_by_time_and_a_log_without_cancellations_need_no_look(tmp_path: Path) -> None:
    settings, _, now = two_nights(tmp_path, {})
    by_time = settings.model_copy(update={"split": SplitSettings(strategy="time")})
    assert learned(by_time, now, prepare(settings, now)) == set()
    before = {user: done for user, done in BEFORE.items() if user != "long ago"}
    (tmp_path / "plain").mkdir()
    write(
        tmp_path / "plain", [(user, at, step) for user, done in before.items() for at, step in enumerate(done.split())]
    )
    plain = settings.model_copy(update={"data_root": str(tmp_path / "plain"), "warehouse": str(tmp_path / "plain/wh")})
    versions = ingest(plain).versions
    assert learned(plain, versions, prepare(plain, versions)) == set()


def test_a_warm_start_tells_how_many_questions_its_bundle_learned_from(tmp_path: Path) -> None:
    settings, then, now = two_nights(tmp_path, {})
    dataset = prepare(settings, now)
    here = tmp_path / "warehouse" / "bundles"
    told = said_learned(previous(here, interactions_version=then.interactions), settings, now, dataset)
    assert told is not None and told.startswith(
        "1 of 5 test questions ask for events that the bundle shop-1, from which"
    )
    assert said_learned(previous(here, interactions_version=now.interactions), settings, now, dataset) is None
    # the versions of another warehouse say nothing of this log
    assert said_learned(previous(tmp_path / "other" / "bundles"), settings, now, dataset) is None
