"""The candidate table end to end on a real warehouse: who gets what, lineage, versions, and refusals."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.bundles.bundle import read_bundle
from recsys.bundles.store import write_bundle
from recsys.candidates.transitions import Transitions
from recsys.columns import LISTED
from recsys.data.prepare import prepare
from recsys.data.recency import mean_weights
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.models.sequential.bert4rec import SequenceEncoder
from recsys.ranking.blend import Blended
from recsys.serving import recommender as module
from recsys.serving.histories import recode
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import SCHEMAS, TableVersions, append, commit_metadata, latest_version, overwrite
from recsys.table.build import (
    BuiltCandidates,
    CandidatesReport,
    build,
    can_publish,
    publish,
    read_candidates,
    retrieve,
)
from recsys.table.naming import candidates_table
from tests.recsys.opened import queries_of
from tests.recsys.ranking.blends import blend_of, training

NOW = datetime(2026, 5, 1, 4, tzinfo=UTC)
ITEMS, USERS, K = 60, 50, 10


def settings_of(root: Path, **more: Any) -> Settings:
    tree = {
        "name": "tiny",
        "warehouse": str(root),
        "interactions": {"source": "log.csv"},
        "model": {"dimensions": 8, "blocks": 1, "max_length": 6},
        "retrieve": {"k": K, "batch_size": 7},
    }
    return parse_settings({**tree, **more})


def make_log(root: Path, seed: int = 0, shift: int = 0) -> TableVersions:
    """Users of very different lengths; the last one has seen every item."""
    generator = np.random.default_rng(seed)
    lists = [generator.integers(0, ITEMS, size=generator.integers(3, 25)) for _ in range(USERS - 1)]
    lists.append(np.arange(ITEMS))
    lengths = [len(items) for items in lists]
    rows = sum(lengths)
    schema = {**SCHEMAS["interactions"], "user_id": pl.String(), "item_id": pl.Int64()}
    frame = pl.DataFrame(
        {
            "user_id": [f"user{i:02d}" for i, n in enumerate(lengths) for _ in range(n)],
            "item_id": np.concatenate(lists) * 10 + shift,
            "timestamp": None,
            "event": "",
            "weight": None,
            "position": np.arange(rows),
        },
        schema=schema,
    )
    return TableVersions(interactions=append(root, "interactions", frame, expected=None))


def make_bundle(settings: Settings, vocabulary: Vocabulary, seed: int = 0, blended: Blended | None = None) -> Path:
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    encoder = SequenceEncoder(settings.model)
    vectors = generator.standard_normal((vocabulary.size + 1, 9)).astype(np.float32)
    vectors[0] = 0
    titles = pl.lit("t").alias("title")
    return write_bundle(
        settings.warehouse,
        settings=settings,
        vocabulary=vocabulary,
        catalogue=pl.DataFrame({"item_id": vocabulary.items}).with_columns(titles),
        features={},
        weights={f"encoder.{name}": value for name, value in encoder.state_dict().items()},
        vectors=vectors,
        allowed=np.arange(vocabulary.size + 1) > 0,
        lineage={},
        more={} if blended is None else {"blend": blended},
    )


def run(settings: Settings, versions: TableVersions, bundle: Path, run_id: str = "r1") -> CandidatesReport:
    return retrieve(settings, versions, bundle, run_id, NOW)


@pytest.fixture
def world(tmp_path: Path) -> tuple[Settings, TableVersions, Path]:
    settings = settings_of(tmp_path)
    versions = make_log(tmp_path)
    return settings, versions, make_bundle(settings, prepare(settings, versions).vocabulary)


def test_every_user_gets_the_best_unseen_items(world: tuple[Settings, TableVersions, Path]) -> None:
    settings, versions, path = world
    report = run(settings, versions, path)
    table = read_candidates(settings.warehouse).sort("user_id", "rank").collect()
    bundle, serving = read_bundle(path), prepare(settings, versions).split.serving
    queries = queries_of(bundle, serving.items, serving.offsets)
    for user, name in enumerate(serving.users[:-1]):
        seen = set(serving.history(user).tolist())
        scores = bundle.vectors @ queries[user]
        expected = sorted((-scores[c], c) for c in range(1, len(scores)) if c not in seen)[:K]
        rows = table.filter(pl.col("user_id") == name)
        assert rows["item_id"].to_list() == bundle.vocabulary.decode(np.array([c for _, c in expected])).to_list()
        assert rows["rank"].to_list() == list(range(1, K + 1))
        np.testing.assert_allclose(rows["score"], [-s for s, _ in expected], rtol=1e-4, atol=1e-5)
    assert serving.users[-1] not in table["user_id"]  # has seen everything
    assert (report.rows, report.users, report.k) == (len(table), USERS, K)
    assert (report.short_lists, report.empty_lists, report.unknown_events) == (0, 1, 0)


def test_rules_shape_the_table_and_are_named_in_its_commit(world: tuple[Settings, TableVersions, Path]) -> None:
    settings, versions, path = world
    (Path(settings.warehouse) / "out.txt").write_text("0\n10\n20\n")
    rules = {
        "out": {"kind": "deny", "items": "out.txt"},
        "first": {"kind": "pin", "items": [590, 10]},
    }
    more = {"data_root": settings.warehouse, "rules": rules, "retrieve": {"k": K, "batch_size": 7, "fallback": True}}
    report = run(settings_of(Path(settings.warehouse), **more), versions, path)
    table = read_candidates(settings.warehouse).collect()
    assert not table["item_id"].is_in([0, 10, 20]).any()
    pinned = table.filter(pl.col("source") == "rule-first")
    assert pinned["item_id"].unique().to_list() == [590] and (pinned["rank"] == 1).all()
    serving = prepare(settings, versions).split.serving
    code = read_bundle(path).vocabulary.encode_text(["590"])[0]
    had = {serving.users[user] for user in range(USERS) if code in serving.history(user)}
    assert set(pinned["user_id"]) == set(serving.users) - had
    counts = table.group_by("user_id").len()["len"]
    assert (counts == K).all() and report.short_lists == 0  # nothing is left for who has had everything
    assert (report.rules, report.denied) == (["out", "first"], 3)
    said = commit_metadata(settings.warehouse, "candidates")
    assert said["rules"] == "out, first" and said["rules_digest"] == report.rules_digest


def test_a_list_is_short_where_items_are_left_that_it_could_hold(world: tuple[Settings, TableVersions, Path]) -> None:
    settings, versions, path = world
    rules = {"good": {"kind": "min_score", "score": 1e6}}
    more = {"rules": rules, "retrieve": {"k": K, "batch_size": 7, "fallback": False}}
    report = run(settings_of(Path(settings.warehouse), **more), versions, path)
    assert (report.empty_lists, report.short_lists) == (USERS, USERS - 1)  # one has had everything


def test_lineage_is_on_every_row(world: tuple[Settings, TableVersions, Path]) -> None:
    settings, versions, path = world
    report = run(settings, versions, path)
    table, bundle = read_candidates(settings.warehouse).collect(), read_bundle(path)
    assert table.schema == {**SCHEMAS["candidates"], "user_id": pl.String(), "item_id": pl.Int64()}
    lineage = table.select(
        "run", "source", "bundle", "index", "as_of", "interactions_version", "items_version"
    ).unique()
    assert lineage.rows() == [("r1", "vector", path.name, bundle.index_id, NOW, versions.interactions, None)]
    assert (report.bundle, report.index) == (path.name, bundle.index_id)
    assert commit_metadata(settings.warehouse, "candidates")["run"] == "r1"


def test_a_bundle_with_a_blend_serves_it_and_names_the_sources(
    world: tuple[Settings, TableVersions, Path],
) -> None:
    settings, versions, _ = world
    dataset = prepare(settings, versions)
    data = training(dataset.split.train, dataset.vocabulary.size)
    blended = blend_of(data, alone={"followed": 1.0}, candidates=K)  # nothing else has a say
    transitions = blended.source(Transitions)
    assert transitions is not None
    report = run(settings, versions, make_bundle(settings, dataset.vocabulary, blended=blended))
    table, serving = read_candidates(settings.warehouse).collect(), dataset.split.serving
    assert (report.rows, report.short_lists) == (len(table), 0)
    newest = mean_weights(serving.items, serving.offsets, dataset.vocabulary.size, last=10, decay=0.7)
    scores = (newest @ transitions.followed).toarray()
    for user, name in enumerate(serving.users[:-1]):
        scores[user, serving.history(user)] = 0
        first = table.filter(pl.col("user_id") == name, pl.col("rank") == 1).row(0, named=True)
        if scores[user].max() > 0:
            assert "transitions" in first["source"].split("+")
            code = dataset.vocabulary.encode(pl.Series([first["item_id"]]))[0]
            np.testing.assert_allclose(scores[user, code], scores[user].max(), rtol=1e-5)
            np.testing.assert_allclose(first["score"], np.sqrt(scores[user].max()), rtol=1e-5)
    sources = {"vector", "transitions", "together", "linear", "popularity"}
    assert set(table["source"].str.split("+").explode()) == sources


def test_one_commit_a_run_and_the_old_version_stays(world: tuple[Settings, TableVersions, Path]) -> None:
    settings, versions, path = world
    first = run(settings, versions, path)
    other = make_bundle(settings, read_bundle(path).vocabulary, seed=1)
    second = run(settings, versions, other, "r2")
    assert (first.version, second.version) == (0, 1)
    for version, name in ((0, "r1"), (1, "r2"), (None, "r2")):
        runs = read_candidates(settings.warehouse, version).select("run").unique().collect()
        assert runs["run"].to_list() == [name]
    with pytest.raises(InputError, match="no version 9"):
        read_candidates(settings.warehouse, 9)


def test_twice_is_identical_and_the_batch_size_changes_nothing(
    world: tuple[Settings, TableVersions, Path],
) -> None:
    settings, versions, path = world
    tables = []
    for batch_size in (7, 7, 50):
        sized = settings.model_copy(
            update={"retrieve": settings.retrieve.model_copy(update={"batch_size": batch_size})}
        )
        run(sized, versions, path)
        tables.append(read_candidates(settings.warehouse).collect())
    assert tables[0].equals(tables[1])
    assert tables[0].drop("score").equals(tables[2].drop("score"))
    np.testing.assert_allclose(tables[0]["score"], tables[2]["score"], rtol=1e-5, atol=1e-6)


def test_rows_ascend_by_user_and_rank(world: tuple[Settings, TableVersions, Path]) -> None:
    settings, versions, path = world
    run(settings, versions, path)
    table = read_candidates(settings.warehouse).collect()
    assert table.equals(table.sort("user_id", "rank"))


def test_seen_items_may_stay(world: tuple[Settings, TableVersions, Path]) -> None:
    settings, versions, path = world
    keep = settings.model_copy(update={"retrieve": settings.retrieve.model_copy(update={"exclude_seen": False})})
    report = run(keep, versions, path)
    assert (report.rows, report.short_lists) == (USERS * K, 0)


def test_a_bundle_with_another_vocabulary_codes_the_histories_itself(
    world: tuple[Settings, TableVersions, Path],
) -> None:
    """The bundle's codes are another order of the same items, without ten of them."""
    settings, versions, _ = world
    dataset = prepare(settings, versions)
    ours = Vocabulary(dataset.vocabulary.items.sort(descending=True).head(dataset.vocabulary.size - 10))
    report = run(settings, versions, make_bundle(settings, ours))
    gone = set(dataset.vocabulary.items.to_list()) - set(ours.items.to_list())
    raw = dataset.vocabulary.decode(dataset.split.serving.items)
    assert report.unknown_events == int(raw.is_in(list(gone)).sum()) > 0
    table = read_candidates(settings.warehouse).collect()
    assert not set(table["item_id"]) & gone
    seen = pl.DataFrame(
        {
            "user_id": dataset.split.serving.users[np.repeat(np.arange(USERS), dataset.split.serving.lengths)],
            "item_id": raw,
        }
    )
    assert len(table.join(seen, on=["user_id", "item_id"], how="semi")) == 0


def test_recode_keeps_order_and_counts_what_is_unknown() -> None:
    from recsys.data.sequences import Sequences

    given = Sequences(
        users=pl.Series("user_id", ["a", "b", "c"]),
        items=np.array([1, 2, 3, 3, 1], dtype=np.int32),
        offsets=np.array([0, 3, 4, 5]),
        times=np.array([10, 20, 30, 5, 6]),
    )
    theirs, ours = Vocabulary(pl.Series(["x", "y", "z"])), Vocabulary(pl.Series(["y", "w", "x"]))
    recoded, unknown = recode(given, theirs, ours)
    assert unknown == 2
    assert recoded.items.tolist() == [3, 1, 3] and recoded.items.dtype == np.int32
    assert recoded.offsets.tolist() == [0, 2, 2, 3]
    assert recoded.times is not None and recoded.times.tolist() == [10, 20, 6]
    assert recode(given, theirs, Vocabulary(pl.Series(["x", "y", "z"])))[0] is given


def test_a_bundle_of_other_data_is_refused_and_nothing_is_published(
    world: tuple[Settings, TableVersions, Path],
) -> None:
    settings, versions, _ = world
    foreign = make_bundle(settings, Vocabulary(pl.Series("item_id", ["p", "q"])))
    with pytest.raises(InputError, match="other data"):
        run(settings, versions, foreign)
    assert latest_version(settings.warehouse, "candidates") is None


def test_a_failure_half_way_leaves_yesterdays_table(
    world: tuple[Settings, TableVersions, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, versions, path = world
    run(settings, versions, path)
    searched = module.best_items
    calls = 0

    def failing(*given: Any, **more: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise MemoryError
        return searched(*given, **more)

    monkeypatch.setattr(module, "best_items", failing)
    monkeypatch.setattr("recsys.table.build.kept_rows", lambda *_: None)  # all rows are made anew
    with pytest.raises(MemoryError):
        run(settings, versions, path, "r2")
    assert latest_version(settings.warehouse, "candidates") == 0
    assert set(read_candidates(settings.warehouse).collect()["run"]) == {"r1"}


def test_progress_counts_users(world: tuple[Settings, TableVersions, Path]) -> None:
    settings, versions, path = world
    counted: list[int] = []
    retrieve(settings, versions, path, "r1", NOW, progress=counted.append)
    assert counted == [7] * 7 + [1]


def test_more_candidates_than_items_make_no_room(world: tuple[Settings, TableVersions, Path]) -> None:
    settings, versions, path = world
    many = settings.model_copy(update={"retrieve": settings.retrieve.model_copy(update={"k": 10**15})})
    report = run(many, versions, path)
    assert report.k == 10**15 and report.short_lists == 0  # no list could hold more
    longest = read_candidates(settings.warehouse).select(pl.col("rank").max()).collect().item()
    assert longest < read_bundle(path).vocabulary.size


# --- what may be recommended ---------------------------------------------------------------------------------


def with_catalogue(root: Path, listed: list[int], gone: list[int], **more: Any) -> tuple[Settings, TableVersions, Path]:
    """A log of 60 items, 5 items that nobody has touched, and the bundle of all."""
    settings = settings_of(root, items={"source": "items.csv"}, **more)
    versions = make_log(root)
    rows = pl.DataFrame({"item_id": [*listed, *gone], LISTED: [True] * len(listed) + [False] * len(gone)})
    versions = TableVersions(interactions=versions.interactions, items=append(root, "items", rows, expected=None))
    return settings, versions, make_bundle(settings, prepare(settings, versions).vocabulary)


LISTED_ITEMS = [*range(100, 300, 10), 1001, 1002]  # 20 of the log's, two new ones
GONE_ITEMS = [*range(0, 100, 10), 1003]


def test_what_left_the_catalogue_is_not_recommended_and_lists_stay_long(tmp_path: Path) -> None:
    settings, versions, bundle = with_catalogue(tmp_path, LISTED_ITEMS, GONE_ITEMS)
    report = run(settings, versions, bundle)
    table = read_candidates(settings.warehouse).collect()
    assert set(table["item_id"]) <= set(LISTED_ITEMS)
    assert {1001, 1002} & set(table["item_id"])  # new ones are there
    assert report.unlisted == 60 + 1 - 20  # the log's that are not listed, and 1003
    seen = prepare(settings, versions).split.serving
    lists = dict(table.group_by("user_id").len().iter_rows())
    vocabulary = read_bundle(bundle).vocabulary
    for user, name in enumerate(seen.users):
        left = set(LISTED_ITEMS) - set(vocabulary.decode(seen.history(user)).to_list())
        assert lists.get(name, 0) == min(K, len(left))


def test_all_items_may_be_recommended_if_one_says_so(tmp_path: Path) -> None:
    settings, versions, bundle = with_catalogue(tmp_path, LISTED_ITEMS, GONE_ITEMS, retrieve={"k": K, "items": "all"})
    report = run(settings, versions, bundle)
    assert report.unlisted == 0
    assert not set(read_candidates(settings.warehouse).collect()["item_id"]) <= set(LISTED_ITEMS)


def test_an_items_table_from_before_lists_all_that_it_holds(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, items={"source": "items.csv"})
    versions = make_log(tmp_path)
    rows = pl.DataFrame({"item_id": [*range(0, 600, 10), 1001]})
    versions = TableVersions(interactions=versions.interactions, items=append(tmp_path, "items", rows, expected=None))
    report = run(settings, versions, make_bundle(settings, prepare(settings, versions).vocabulary))
    assert report.unlisted == 0


def test_a_catalogue_of_nothing_that_the_bundle_knows_is_refused(tmp_path: Path) -> None:
    settings, versions, bundle = with_catalogue(tmp_path, LISTED_ITEMS, GONE_ITEMS)
    rows = pl.DataFrame({"item_id": [5001], LISTED: [True]})
    newer = TableVersions(interactions=versions.interactions, items=overwrite(tmp_path, "items", rows, expected=0))
    with pytest.raises(InputError, match=r"None of the .* items .* newest catalogue"):
        run(settings, newer, bundle)
    assert latest_version(tmp_path, "candidates") is None


# --- one warehouse, several names ----------------------------------------------------------------------------


def test_each_name_has_a_candidate_table_of_its_own(world: tuple[Settings, TableVersions, Path]) -> None:
    settings, versions, bundle = world
    first = run(settings, versions, bundle)
    other = settings_of(Path(settings.warehouse), name="other")
    report = run(other, versions, make_bundle(other, prepare(other, versions).vocabulary, seed=1), "r2")
    assert report.path == f"{settings.warehouse}/candidates-other"
    assert latest_version(settings.warehouse, "candidates") == first.version
    assert set(read_candidates(settings.warehouse).collect()["run"]) == {"r1"}
    assert set(read_candidates(settings.warehouse, name="other").collect()["run"]) == {"r2"}
    assert run(settings, versions, bundle, "r3").path == first.path


def test_a_candidate_table_from_before_belongs_to_its_bundles_name(tmp_path: Path) -> None:
    schema = {**SCHEMAS["candidates"], "user_id": pl.Int64(), "item_id": pl.Int64()}
    empty = pl.DataFrame(schema=schema)
    append(tmp_path, "candidates", empty, expected=None, metadata={"run": "r", "bundle": "my-shop-0123456789ab"})
    assert candidates_table(str(tmp_path), "my-shop") == "candidates"
    assert candidates_table(str(tmp_path), "my") == "candidates-my"
    append(tmp_path, "candidates", empty, expected=0)  # one that says nothing at all is free
    append(tmp_path / "other", "candidates", empty, expected=None)
    assert candidates_table(str(tmp_path / "other"), "my") == "candidates"


def test_built_candidates_wait_until_they_are_published_perhaps_by_another_process(
    world: tuple[Settings, TableVersions, Path],
) -> None:
    settings, versions, path = world
    run(settings, versions, path)
    built = build(settings, versions, path, "r2", NOW)
    assert set(read_candidates(settings.warehouse).collect()["run"]) == {"r1"}
    recorded = BuiltCandidates.of({**json.loads(json.dumps(dataclasses.asdict(built))), "mlflow_run": "x"})
    assert recorded == built and can_publish(recorded)
    report = publish(settings, recorded)
    assert (report.version, report.run, report.rows) == (1, "r2", built.rows)
    assert set(read_candidates(settings.warehouse).collect()["run"]) == {"r2"}
    assert publish(settings, recorded) == report  # a kill before the record: nothing is committed twice
    run(settings, versions, path, "r3")
    assert not can_publish(recorded)


def test_no_candidates_at_all_never_replace_some(world: tuple[Settings, TableVersions, Path]) -> None:
    settings, versions, path = world
    run(settings, versions, path)
    with_none = dataclasses.replace(build(settings, versions, path, "r2", NOW), rows=0, unlisted=12)
    nothing = dataclasses.replace(with_none, staged=dataclasses.replace(with_none.staged, files=0, rows=0))
    with pytest.raises(InputError) as caught:
        publish(settings, nothing)
    for words in (
        f"No user of {USERS} has a candidate",
        "version 0",
        'retrieve.items = "all"',
        "retrieve.exclude_seen",
    ):
        assert words in str(caught.value)
    assert set(read_candidates(settings.warehouse).collect()["run"]) == {"r1"}


def test_where_everybody_has_had_everything_an_empty_table_is_not_published_over_another(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    ids = {"user_id": pl.String(), "item_id": pl.Int64()}
    schema = {name: dtype or ids[name] for name, dtype in SCHEMAS["interactions"].items()}
    bought = [(user, item) for user in ("a", "b", "c") for item in range(1, 6)]
    frame = pl.DataFrame(
        {
            "user_id": [user for user, _ in bought],
            "item_id": [item for _, item in bought],
            "timestamp": [NOW] * len(bought),
            "event": "view",
            "weight": None,
            "position": range(len(bought)),
        },
        schema=schema,
    )
    versions = TableVersions(interactions=append(tmp_path, "interactions", frame, expected=None))
    path = make_bundle(settings, prepare(settings, versions).vocabulary)
    allowing = settings.model_copy(update={"retrieve": settings.retrieve.model_copy(update={"exclude_seen": False})})
    first = run(settings, versions, path)
    assert (first.rows, first.empty_lists, first.version) == (0, 3, 0)  # there was nothing to lose
    assert run(allowing, versions, path, "r2").rows > 0
    with pytest.raises(InputError, match=r"retrieve\.exclude_seen = false"):
        run(settings, versions, path, "r3")
    assert set(read_candidates(settings.warehouse).collect()["run"]) == {"r2"}
