from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.bundles.bundle import read_bundle
from recsys.candidates.popularity import popularity
from recsys.data.prepare import prepare
from recsys.data.sequences import Sequences
from recsys.data.splits import leave_one_out
from recsys.data.time_split import time_split
from recsys.errors import InputError, RecsysError
from recsys.evaluation import evaluate as module
from recsys.evaluation.baseline_scorers import baseline_scorers
from recsys.evaluation.evaluate import check_counts, evaluate, item_labels, protocol
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions, current_versions
from tests.recsys.audit.forgetting import forget
from tests.recsys.opened import queries_of

ITEMS = 30


def settings(folder: Path, **sections: Any) -> Settings:
    return parse_settings(
        {
            "name": "ring",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.jsonl", "text": ["title"]},
            "model": {"dimensions": 16, "max_length": 10, "text": False},
            "train": {"epochs": 1, "batch_size": 64, "evaluate_every": 1},
            "evaluate": {"cutoffs": [5, 10], "baselines": ["transitions", "popularity"]},
            "blend": {"kind": "never"},
        }
        | sections
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TableVersions, str]:
    """Users walk a ring of items, one step at a time; one epoch of training."""
    folder = tmp_path_factory.mktemp("ring")
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(120):
        start, length = rng.integers(ITEMS), rng.integers(5, 9)
        lines += [f"{user},i{(start + n) % ITEMS},{1_600_000_000 + 100 * n}" for n in range(length)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    (folder / "items.jsonl").write_text(
        "\n".join(json.dumps({"item_id": f"i{n}", "title": f"Item {n}"}) for n in range(ITEMS))
    )
    configured = settings(folder)
    versions = ingest(configured).versions
    return folder, versions, fit(configured, versions).bundle


def test_a_bundle_is_measured_beside_the_asked_baselines(trained: tuple[Path, TableVersions, str]) -> None:
    folder, versions, bundle = trained
    report = evaluate(settings(folder), versions, bundle)
    assert list(report.baselines) == ["transitions", "popularity"]
    # the next item of the ring is what transitions recommend first
    assert report.baselines["transitions"]["test/hr_at_5"] > 0.95
    assert report.baselines["popularity"]["test/hr_at_5"] < 0.6
    assert report.metrics.keys() == report.baselines["popularity"].keys()
    stated = report.report["protocol"]
    assert stated["users"] == 120
    assert stated["items"] == ITEMS
    assert stated["strategy"] == "leave-one-out"
    assert "future" in stated["caveat"]
    assert all(title.startswith("Item ") for example in report.examples for title in example["recommended"])


def test_a_sample_of_questions_is_ranked_among_all_items_and_stated(trained: tuple[Path, TableVersions, str]) -> None:
    folder, versions, bundle = trained
    frames: list[pl.DataFrame] = []
    asked = {"cutoffs": [5], "baselines": ["transitions"]}
    whole = evaluate(settings(folder, evaluate=asked), versions, bundle, users_to=frames.append)
    some = evaluate(settings(folder, evaluate=asked | {"users": 50}), versions, bundle, users_to=frames.append)
    again = evaluate(settings(folder, evaluate=asked | {"users": 50}), versions, bundle)
    assert "sample" not in whole.report["protocol"]
    assert some.report["protocol"]["sample"].startswith("50 of 120 test questions, drawn by the seed")
    assert some.report["protocol"]["items"] == ITEMS
    everyone, drawn = frames
    assert len(drawn) == 50
    ranks = everyone.join(drawn, on="user_id", how="inner", maintain_order="right")
    assert ranks["rank"].equals(ranks["rank_right"])  # the same user has the same rank
    assert some.metrics == again.metrics
    wide, narrow = (report.intervals["test/hr_at_10"] for report in (some, whole))
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]


def test_a_blend_is_the_headline_and_the_model_alone_stands_beside_it(
    trained: tuple[Path, TableVersions, str],
) -> None:
    """One epoch teaches the model next to nothing; counts know the ring."""
    folder, versions, alone = trained
    blending = settings(folder, blend={"kind": "auto", "text": False, "candidates": 20})
    report = evaluate(blending, versions, fit(blending, versions).bundle)
    model = evaluate(settings(folder), versions, alone)
    assert (report.served, model.served) == ("blend", "model")
    assert list(report.baselines) == ["model", "transitions", "popularity"]
    assert report.baselines["model"] == model.metrics
    assert report.metrics["test/ndcg_at_10"] > model.metrics["test/ndcg_at_10"] + 0.1
    assert report.metrics["test/hr_at_5"] > 0.95
    assert report.differences["model"]["test/ndcg_at_10"]["low"] > 0
    assert list(report.curves["hr"]) == ["blend", "model", "transitions", "popularity"]
    assert "source proposed" in report.report["protocol"]["blend"]


def test_the_model_of_the_report_is_the_bundle(trained: tuple[Path, TableVersions, str]) -> None:
    folder, versions, path = trained
    report = evaluate(settings(folder), versions, path)
    bundle = read_bundle(path)
    example = report.examples[0]
    codes = bundle.vocabulary.encode_text([title.replace("Item ", "i") for title in example["history"]])
    scores = (queries_of(bundle, codes, np.array([0, len(codes)])) @ bundle.vectors.T)[0]
    scores[codes] = -np.inf
    scores[~bundle.allowed] = -np.inf
    best = bundle.vocabulary.decode(np.argsort(-scores, kind="stable")[:3]).to_list()
    assert [title.replace("Item ", "i") for title in example["recommended"][:3]] == best


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_figures_are_those_of_the_test_part_by_hand(
    trained: tuple[Path, TableVersions, str], exclude_seen: bool
) -> None:
    """The bundle's vectors and the counts of training, on each user's last item after all the others."""
    folder, versions, path = trained
    asked = {"cutoffs": [5], "baselines": ["popularity"], "exclude_seen": exclude_seen}
    configured = settings(folder, evaluate=asked)
    report = evaluate(configured, versions, path)
    bundle, serving = read_bundle(path), prepare(configured, versions).split.serving
    histories = [serving.history(user) for user in range(len(serving))]
    counts = np.bincount(np.concatenate([one[:-2] for one in histories]), minlength=ITEMS + 1).astype(np.float32)
    hits: dict[str, list[float]] = {"model": [], "popularity": []}
    for one in histories:
        query = queries_of(bundle, one[:-1], np.array([0, len(one) - 1]))[0]
        for name, scores in (("model", bundle.vectors @ query), ("popularity", counts.copy())):
            scores[0] = -np.inf
            if exclude_seen:
                scores[one[:-1]] = -np.inf
            best = np.argsort(-scores, kind="stable")[:5]
            hits[name].append(float(one[-1] in best))
    assert report.metrics["test/hr_at_5"] == pytest.approx(np.mean(hits["model"]), abs=0.03)  # bf16 may swap two
    assert report.baselines["popularity"]["test/hr_at_5"] == pytest.approx(np.mean(hits["popularity"]))
    assert report.differences["popularity"]["test/hr_at_10"]["mean"] == pytest.approx(
        report.intervals["test/hr_at_10"]["mean"]
        - np.mean([0 if np.isinf(rank) else rank <= 10 for rank in popularity_ranks(histories, counts, exclude_seen)])
    )


def test_baselines_are_counted_on_the_training_part_alone(
    trained: tuple[Path, TableVersions, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, versions, path = trained
    given: list[Sequences] = []

    def watched(names: Any, train: Sequences, *rest: Any) -> Any:
        given.append(train)
        return baseline_scorers(names, train, *rest)

    monkeypatch.setattr(module, "baseline_scorers", watched)
    evaluate(settings(folder), versions, path)
    train = prepare(settings(folder), versions).split.train
    assert [one.items.tolist() for one in given] == [train.items.tolist()]


def popularity_ranks(histories: list[np.ndarray], counts: np.ndarray, exclude_seen: bool) -> list[float]:
    """The place of each user's last item by counts, ties in the order of codes; infinite where it cannot be ranked."""
    ranks = []
    for one in histories:
        scores = counts.copy()
        scores[0] = -np.inf
        if exclude_seen:
            scores[one[:-1]] = -np.inf
        place = np.flatnonzero(np.argsort(-scores, kind="stable") == one[-1])[0] + 1.0
        ranks.append(np.inf if np.isinf(scores[one[-1]]) else place)
    return ranks


def test_evaluating_on_other_data_is_refused(trained: tuple[Path, TableVersions, str]) -> None:
    folder, versions, bundle = trained
    # the same items, but the shorter histories are gone: other training rows
    other = settings(folder, filter={"min_user_interactions": 6})
    with pytest.raises(InputError, match="trained on other data"):
        evaluate(other, versions, bundle)


def test_a_bundle_from_before_users_were_forgotten_is_refused_in_words(
    trained: tuple[Path, TableVersions, str], tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "ring")
    bundle = str(tmp_path / "ring" / Path(trained[2]).relative_to(trained[0]))
    configured = settings(tmp_path / "ring")
    forget(configured, ["7"])
    with pytest.raises(InputError, match=r"Users were forgotten after .* Train again with `recsys train CONFIG`"):
        evaluate(configured, current_versions(configured.warehouse), bundle)
    again = fit(configured, current_versions(configured.warehouse)).bundle
    assert evaluate(configured, current_versions(configured.warehouse), again).report["protocol"]["users"] == 119


SEQUENCES = Sequences(
    users=pl.Series("user_id", ["a", "b"]),
    items=np.array([1, 2, 3, 4, 2, 3, 1], dtype=np.int32),
    offsets=np.array([0, 4, 7]),
)


def test_counts_must_be_those_of_the_training_part() -> None:
    split = leave_one_out(SEQUENCES)
    check_counts(popularity(split.train.items, 4), split)
    with pytest.raises(RecsysError, match="counted 7 events and training has 3"):
        check_counts(popularity(split.serving.items, 4), split)


def test_baselines_do_not_see_held_out_items() -> None:
    split = leave_one_out(SEQUENCES)
    changed = split.serving.items.copy()
    changed[[3, 6]] = [1, 4]  # other targets
    other = leave_one_out(replace(SEQUENCES, items=changed))
    scores = [
        {
            name: scorer.score_block(0, 2)
            for name, scorer in baseline_scorers(
                ("popularity", "transitions"),
                part.train,
                part.test.histories,
                popularity(part.train.items, 4),
                lambda: None,
            ).items()
        }
        for part in (split, other)
    ]
    for name in ("popularity", "transitions"):
        np.testing.assert_array_equal(scores[0][name], scores[1][name])


def test_text_is_asked_for_only_where_it_is_used_and_left_out_where_there_is_none() -> None:
    split = leave_one_out(SEQUENCES)
    counts = popularity(split.train.items, 4)

    def text() -> np.ndarray | None:
        asked.append(True)
        return vectors

    asked: list[bool] = []
    vectors: np.ndarray | None = None
    arguments = (split.train, split.test.histories, counts, text)
    assert list(baseline_scorers(("popularity", "transitions"), *arguments)) == ["popularity", "transitions"]
    assert not asked
    assert list(baseline_scorers(("text+transitions", "popularity"), *arguments)) == ["popularity"]
    vectors = np.eye(5, 3, dtype=np.float32)
    assert list(baseline_scorers(("text+transitions", "popularity"), *arguments)) == [
        "text+transitions",
        "popularity",
    ]


def test_labels_fall_back_to_the_id() -> None:
    catalogue = pl.DataFrame({"item_id": [7, 8], "title": ["Seven", None]})
    assert item_labels(catalogue) == ["(unknown item)", "Seven", "8"]


@pytest.mark.parametrize(
    ("sections", "caveat"),
    [
        ({"filter": {"min_item_interactions": 5}}, "too few interactions"),
        ({"filter": {"repeats": "last"}}, 'repeats = "last"'),
        (
            {"interactions": {"source": "log.csv", "withdraw": [{"column": "invoice", "starts_with": "C"}]}},
            "take back events before it",
        ),
    ],
)
def test_a_time_split_says_where_the_future_decides_what_trains(
    tmp_path: Path, sections: dict[str, Any], caveat: str
) -> None:
    timed = replace(SEQUENCES, times=np.array([1, 2, 3, 4, 1, 3, 4], dtype=np.int64))
    configured = settings(tmp_path, split={"strategy": "time"}, **sections)
    stated = protocol(configured, time_split(timed, configured.split, validation_from=3, test_from=4))
    assert caveat in stated["caveat"]


def test_a_time_split_carries_no_caveat(tmp_path: Path) -> None:
    assert "caveat" in protocol(settings(tmp_path), leave_one_out(SEQUENCES))
    timed = replace(SEQUENCES, times=np.array([1, 2, 3, 4, 1, 3, 4], dtype=np.int64))
    configured = settings(tmp_path, split={"strategy": "time", "target": "last"})
    stated = protocol(configured, time_split(timed, configured.split, validation_from=3, test_from=4))
    assert "caveat" not in stated
    assert (stated["target"], stated["validation"], stated["questions"]) == ("last", "time", 2)


@pytest.fixture(scope="module")
def by_time(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TableVersions, str]:
    """Eighty old users who go on after the cut, and six who come only then; item i0 sells best."""
    folder = tmp_path_factory.mktemp("time")
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(86):
        start = 1_600_000_000 if user < 80 else 1_600_090_000
        bought = [0, *rng.permutation(np.arange(1, ITEMS))[:5]] if user < 83 else [20, 21, 22]
        lines += [f"{user},i{item},{start + 1_000 * user + 10 * n}" for n, item in enumerate(bought)]
        if user < 80:
            lines += [f"{user},i{item},{1_600_100_000 + n}" for n, item in enumerate(rng.permutation(ITEMS)[:3])]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    (folder / "items.jsonl").write_text("\n".join(json.dumps({"item_id": f"i{n}"}) for n in range(ITEMS)))
    configured = timed(folder)
    versions = ingest(configured).versions
    return folder, versions, fit(configured, versions).bundle


def timed(folder: Path, **keys: Any) -> Settings:
    return settings(
        folder,
        items={"source": "items.jsonl"},
        split={"strategy": "time", "test_from": "2020-09-14T13:26:40Z", "validation": "last-event", **keys},
        evaluate={"cutoffs": [5, 10], "baselines": ["popularity", "recent-popularity"], "exclude_seen": False},
    )


def test_users_without_history_are_measured_apart(by_time: tuple[Path, TableVersions, str]) -> None:
    folder, versions, bundle = by_time
    report = evaluate(timed(folder), versions, bundle).report
    apart, stated = report["without_history"], report["protocol"]
    assert (apart["users"], apart["questions"], apart["empty_histories"]) == (6, 6, 6)
    assert "no row" in apart["served_by"]
    # three of the six begin with the item that sells best
    assert apart["metrics"]["popularity"]["ndcg_at_5"] == pytest.approx(0.5)
    assert (stated["users"], stated["questions"], stated["users_without_history"]) == (80, 80, 6)
    assert stated["recent_popularity"].startswith(("the newest", "all"))


def test_successive_targets_are_averaged_over_questions(by_time: tuple[Path, TableVersions, str]) -> None:
    folder, versions, bundle = by_time
    report = evaluate(timed(folder, target="successive"), versions, bundle)
    stated = report.report["protocol"]
    assert (stated["users"], stated["questions"]) == (80, 240)
    assert stated["averages"].startswith("over questions")
    assert report.report["without_history"]["questions"] == 3 * 6 + 3 * 3
    dataset = prepare(timed(folder, target="successive"), versions)
    best = np.argsort(-popularity(dataset.split.train.items, ITEMS)[1:], kind="stable")[:5] + 1
    assert report.baselines["popularity"]["test/hr_at_5"] == pytest.approx(
        np.isin(dataset.split.test.targets, best).mean()
    )
    among = evaluate(timed(folder, target="successive", new_users="from-second-event"), versions, bundle).report
    assert among["protocol"]["questions"] == 240 + 3 * 5 + 3 * 2
    assert "without_history" not in among
