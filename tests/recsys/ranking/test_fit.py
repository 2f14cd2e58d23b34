"""The blend pays where counting or text knows more than the model, steps back where not, and never sees test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.candidates import pairs
from recsys.candidates.co_occurrence import CoOccurrence
from recsys.candidates.popularity import Popularity
from recsys.candidates.text import Text
from recsys.candidates.transitions import Transitions
from recsys.data.consumed import Consumed
from recsys.data.sequences import Sequences
from recsys.data.splits import leave_one_out
from recsys.errors import InputError
from recsys.evaluation.metrics import MISS, per_user
from recsys.ranking import fit as module
from recsys.ranking import registry
from recsys.ranking.base import Choices, Columns, Ranker
from recsys.ranking.blend import Blended, blend_scores
from recsys.ranking.fit import BlendReport, columns_of, fit_blend, training_sources
from recsys.ranking.loglinear import LogLinear
from recsys.retrieval.index import build_index
from recsys.settings import EvaluateSettings, Settings
from recsys.settings.read import parse_settings
from tests.recsys.ranking.blends import dense_rows

V, D, USERS = 60, 8, 400


def settings(**blend: Any) -> Settings:
    return parse_settings(
        {
            "name": "ring",
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.jsonl", "text": ["title"]},
            "blend": {"candidates": 20, "text": False} | blend,
        }
    )


def walks(new_share: float = 0.0) -> Sequences:
    """Users walk a ring of 50 items with a detour now and then; with a share they end at a new item, 51 to 60.

    Which new item tells the text alone: 51 goes with items 1 to 5, 52 with 6 to 10, ...
    """
    rng = np.random.default_rng(0)
    lists = []
    for _ in range(USERS):
        walk = (rng.integers(50) + np.cumsum(rng.choice([1, 1, 1, 7], size=rng.integers(6, 9)))) % 50 + 1
        for place in (-2, -1):  # validation and test
            if rng.random() < new_share:
                walk[place] = 51 + (walk[-3] - 1) // 5
        lists.append(walk)
    return Sequences(
        users=pl.Series("user_id", np.arange(USERS)),
        items=np.concatenate(lists).astype(np.int32),
        offsets=np.cumsum([0, *map(len, lists)]).astype(np.int64),
    )


def dataset(sequences: Sequences) -> Any:
    titles = pl.DataFrame({"sentence": [f"title: item group{(code - 1) // 5 % 10}" for code in range(1, V + 1)]})
    return SimpleNamespace(split=leave_one_out(sequences), vocabulary=SimpleNamespace(size=V), catalogue=titles)


def noise(of: Sequences) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((len(of), D)).astype(np.float32)


VECTORS = np.random.default_rng(6).standard_normal((V + 1, D)).astype(np.float32) * (np.arange(V + 1) > 0)[:, None]
ALLOWED = np.arange(V + 1) > 0


def test_counting_rescues_a_model_that_knows_nothing() -> None:
    blended, report = fit_blend(settings(), dataset(walks()), noise, VECTORS, ALLOWED)
    assert isinstance(blended, Blended) and report is not None and report.used
    validation = {name: metrics["val/ndcg_at_10"] for name, metrics in (report.validation or {}).items()}
    assert validation["model"] < 0.15
    assert validation["next"] > 0.6
    assert validation["blend"] >= validation["next"] - 0.02
    assert report.proposed > 0.95 and report.users == USERS
    weights = dict(zip(report.weights["feature"], report.weights["alone"], strict=True))
    assert max(weights["next"], weights["followed"]) > 5 * abs(weights["model"])
    assert f"{validation['blend']:.4f}" in report.reason


def test_a_model_that_knows_the_answer_serves_alone() -> None:
    """Unit vectors a code; the queries are those of the ring's next items, better than any count."""
    data = dataset(walks())
    vectors = np.eye(V + 1, dtype=np.float32)
    vectors[0] = 0
    answers = {"validation": data.split.validation, "test": data.split.test}

    def knows(of: Sequences) -> np.ndarray:
        held_out = next(part for part in answers.values() if len(part.histories.items) == len(of.items))
        return 20 * vectors[held_out.targets]

    blended, report = fit_blend(settings(), data, knows, vectors, ALLOWED)
    assert blended is None and report is not None and not report.used
    assert (report.validation or {})["model"]["val/ndcg_at_10"] == 1.0
    always, _ = fit_blend(settings(kind="always"), data, knows, vectors, ALLOWED)
    assert always is not None


def test_the_blend_has_to_beat_what_the_model_serves_alone() -> None:
    """Numbers for what was had are no part of the vectors, and of what the model serves without a blend."""
    alone = {"val/hr_at_10": 1.0, "val/ndcg_at_10": 0.99, "val/mrr_at_10": 0.99}
    blended, report = fit_blend(settings(), dataset(walks()), noise, VECTORS, ALLOWED, lambda _: alone)
    assert blended is None and report is not None
    assert report.reason.endswith("and the model alone 0.9900.")
    assert (report.validation or {})["model"] == alone


def test_no_blend_where_none_is_wanted_or_too_few_can_be_measured() -> None:
    assert fit_blend(settings(kind="never"), dataset(walks()), noise, VECTORS, ALLOWED) == (None, None)
    few = walks().select(np.arange(40))
    blended, report = fit_blend(settings(), dataset(few), noise, VECTORS, ALLOWED)
    assert blended is None and report is not None
    assert report.reason.startswith("The model serves alone: ") and report.reason.endswith("a blend needs 60.")


def test_where_nobody_proposes_anything_the_model_serves_alone() -> None:
    """All items were seen by everybody; no source has anything left, in no block of users."""
    whole = Sequences(
        users=pl.Series("user_id", np.arange(70)),
        items=np.tile(np.arange(1, V + 1, dtype=np.int32), 70),
        offsets=np.arange(71, dtype=np.int64) * V,
    )
    data = dataset(whole)
    data.split = replace(data.split, validation=replace(data.split.validation, histories=whole))
    blended, report = fit_blend(settings(kind="always"), data, noise, VECTORS, ALLOWED)
    assert blended is None and report is not None
    assert report.reason.startswith("The model serves alone: 0 validation users")


@pytest.mark.parametrize("seed", range(3))
def test_a_user_is_measured_with_weights_that_others_gave(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are noise: weights know the users that they were fitted on by heart, and of the others nothing."""
    rng, users, each = np.random.default_rng(seed), 70, 41
    columns = columns_of(training_sources(settings(), dataset(walks()))[0])
    measured = module._Measured(
        offsets=np.arange(users + 1) * each,
        features=rng.standard_normal((users * each, len(columns.features))).astype(np.float32),
        context=rng.standard_normal((users * each, len(columns.context))).astype(np.float32),
        came=np.arange(users) * each + rng.integers(each, size=users),
        asked=Consumed.of(np.zeros(0), np.zeros(1, dtype=np.int64)),
        columns=columns,
    )
    fitted = LogLinear.fit(module._choices(measured, np.arange(users), seed), columns)
    own = fitted.scores(measured.features, measured.context)
    by_heart = per_user(module._ranks(measured, own), "ndcg", 10).mean()
    monkeypatch.setattr(module, "_measure", lambda *_: measured)
    data = dataset(walks())
    data.split = replace(data.split, validation=data.split.validation.select(np.arange(users)))
    _, report = fit_blend(settings().model_copy(update={"seed": seed}), data, noise, VECTORS, ALLOWED)
    assert report is not None and report.validation is not None
    assert by_heart > 0.3  # by chance it is .11
    assert report.validation["blend"]["val/ndcg_at_10"] < 0.2


def test_the_weights_that_serve_are_fitted_on_all_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[set[int]] = []
    choices = module._choices

    def watched(measured: Any, users: np.ndarray, seed: int) -> Any:
        fitted.append(set(users.tolist()))
        return choices(measured, users, seed)

    monkeypatch.setattr(module, "_choices", watched)
    fit_blend(settings(), dataset(walks()), noise, VECTORS, ALLOWED)
    first, second, served = fitted
    assert not first & second and first | second == served
    assert min(len(first), len(second)) > 0.4 * len(served)


def test_of_equal_scores_the_lower_code_ranks_first() -> None:
    """As in evaluation: a source that says the same of everything is no oracle."""
    measured = module._Measured(
        offsets=np.array([0, 4, 7, 9]),
        features=np.zeros((9, 1), dtype=np.float32),
        context=np.zeros((9, 1), dtype=np.float32),
        came=np.array([2, -1, 7]),
        asked=Consumed.of(np.zeros(0), np.zeros(1, dtype=np.int64)),
        columns=Columns(features=("a",), context=("b",)),
    )
    assert module._ranks(measured, np.zeros(9)).tolist() == [3, MISS, 1]
    assert module._ranks(measured, np.array([0.0, 1, 1, 1, 5, 5, 5, 0, 1])).tolist() == [2, MISS, 2]


def test_what_was_had_is_proposed_where_evaluation_ranks_it() -> None:
    """People go to and fro: what comes next was had before."""
    rng = np.random.default_rng(0)
    pairs = [rng.permutation(V)[:2] + 1 for _ in range(USERS)]
    of = Sequences(
        users=pl.Series("user_id", np.arange(USERS)),
        items=np.concatenate([np.tile(pair, 3) for pair in pairs]).astype(np.int32),
        offsets=np.arange(USERS + 1, dtype=np.int64) * 6,
    )
    hidden, kept = (
        fit_blend(
            settings().model_copy(update={"evaluate": EvaluateSettings(exclude_seen=exclude_seen)}),
            dataset(of),
            noise,
            VECTORS,
            ALLOWED,
        )
        for exclude_seen in (True, False)
    )
    assert hidden[0] is None and hidden[1] is not None and "0 validation users" in hidden[1].reason
    assert kept[1] is not None and kept[1].proposed == 1.0 and kept[1].validation is not None
    assert kept[1].validation["blend"]["val/ndcg_at_10"] > 0.9


def test_test_items_change_nothing() -> None:
    data = dataset(walks())
    other = dataset(walks())
    other.split = replace(other.split, test=None, serving=None)
    first, second = (fit_blend(settings(), given, noise, VECTORS, ALLOWED)[0] for given in (data, other))
    assert first is not None and second is not None
    for name, tensor in first.to_tensors().items():
        np.testing.assert_array_equal(tensor, second.to_tensors()[name], err_msg=name)


def test_the_tables_are_counted_on_training_alone() -> None:
    data = dataset(walks(new_share=0.5))
    blended, _ = fit_blend(settings(), data, noise, VECTORS, ALLOWED)
    assert blended is not None
    counted = blended.source(Popularity)
    assert counted is not None
    assert counted.popular.sum() == len(data.split.train.items)
    assert not counted.popular[51:].any()  # new items are only ever held out


def test_it_learns_to_trust_text_where_there_are_no_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of what comes next has no interaction: the same weights rank those by text and the others by counts."""
    data = dataset(walks(new_share=1 / 3))
    rng = np.random.default_rng(0)
    groups = rng.standard_normal((10, 16)) * 0.8
    text = np.zeros((V + 1, 16), dtype=np.float32)
    text[1:] = groups[(np.arange(V) // 5) % 10] / 4 + rng.standard_normal((V, 16)) / 20
    text[51:] = groups / 4
    data.catalogue = pl.DataFrame({"sentence": ["x"] * V})
    monkeypatch.setattr(module, "whitened_text", lambda *_: text)
    blended, report = fit_blend(settings(text=True), data, noise, VECTORS, ALLOWED)
    assert blended is not None and report is not None
    test = data.split.test
    histories = test.histories
    queries = noise(histories)
    pairs = blend_scores(build_index(VECTORS, ALLOWED), queries, blended, histories, n=20)(0, len(test))
    scores = dense_rows(pairs, len(test), V + 1)
    own = scores[np.arange(len(test)), test.targets][:, None]
    ranks = 1 + (scores > own).sum(axis=1)
    unseen = np.isfinite(own[:, 0])  # a detour can come back to the history
    new = test.targets > 50
    assert per_user(ranks[new & unseen], "ndcg", 10).mean() > 0.5
    assert per_user(ranks[~new & unseen], "ndcg", 10).mean() > 0.4


def test_without_counts_it_weighs_texts_and_what_the_history_holds() -> None:
    blended, report = fit_blend(settings(kind="always", counts=False), dataset(walks()), noise, VECTORS, ALLOWED)
    assert blended is not None and report is not None and report.weights is not None
    transitions, together, counted = (blended.source(kind) for kind in (Transitions, CoOccurrence, Popularity))
    assert transitions is not None and together is not None and counted is not None
    assert transitions.followed.nnz == together.table.nnz == 0
    assert not counted.popular.any()
    told = dict(zip(report.weights["feature"], report.weights["alone"], strict=True))
    assert {name for name, weight in told.items() if weight} <= {"model", "seen"}
    found = blend_scores(build_index(VECTORS, ALLOWED), noise(walks())[:1], blended, walks(), n=20)(0, 1)
    assert len(found.scores) == 20  # the model proposes alone


def test_text_that_was_never_encoded_is_said_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise InputError("run `recsys represent` first.")

    monkeypatch.setattr(module, "whitened_text", missing)
    blended, report = fit_blend(settings(text=True), dataset(walks()), noise, VECTORS, ALLOWED)
    assert blended is not None and blended.source(Text) is None
    assert report is not None and report.reason.endswith("It blends without text: run `recsys represent` first.")


def test_many_users_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USERS", 150)
    monkeypatch.setattr(module, "FITTED", 100)
    _, report = fit_blend(settings(), dataset(walks()), noise, VECTORS, ALLOWED)
    assert report is not None and report.users == 150 and report.used


class ByTheModel(Ranker):
    """Ranks by one feature, whatever was chosen."""

    name = "by the model"

    def __init__(self, features: Sequence[str], context: Sequence[str]) -> None:
        self.features, self.context = tuple(features), tuple(context)

    @classmethod
    def fit(cls, choices: Choices, columns: Columns) -> ByTheModel:
        assert choices.features.shape[1:] == (len(columns.features),) and len(choices.chosen)
        return cls(columns.features, columns.context)

    def scores(self, features: np.ndarray, context: np.ndarray) -> np.ndarray:
        return features[:, self.features.index("model")]

    def to_tensors(self) -> dict[str, np.ndarray]:
        return {}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, np.ndarray], features: Sequence[str], context: Sequence[str]
    ) -> ByTheModel:
        return cls(features, context)


def test_a_source_that_leaves_items_out_says_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by hand: with a budget of few pairs, the report tells what no history of the counted events holds."""
    data = dataset(walks())
    everyone = blend_of(data)
    assert everyone.reach is not None and set(everyone.reach) == {"together", "linear"}
    assert everyone.reach["together"] == {"events": 1.0, "targets": 1.0, "pairs": 1.0}
    assert everyone.reason.endswith(".") and "knows the items" not in everyone.reason

    train, lengths = data.split.train, np.minimum(data.split.train.lengths, 50)
    monkeypatch.setattr(pairs, "PAIRS", int((np.minimum(lengths, 2) ** 2).sum()))
    cut = blend_of(data)
    assert cut.reach is not None
    assert cut.reach["together"]["pairs"] == (np.minimum(lengths, 2) ** 2).sum() / (lengths**2).sum() < 1
    counted = np.unique([code for user in range(len(train)) for code in train.history(user)[-2:]])
    assert cut.reach["together"]["events"] == np.isin(train.items, counted).mean()
    assert f"The source 'together' counted {cut.reach['together']['pairs']:.1%} of the pairs of events." in cut.reason


def blend_of(data: Any) -> BlendReport:
    report = fit_blend(settings(), data, noise, VECTORS, ALLOWED)[1]
    assert report is not None
    return report


def test_another_ranker_is_one_class_and_one_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "RANKERS", registry.RANKERS.copy())
    monkeypatch.setattr(module, "RANKERS", registry.RANKERS)
    monkeypatch.setattr("recsys.ranking.blend.RANKERS", registry.RANKERS)
    registry.register(ByTheModel)
    with pytest.raises(ValueError, match="there is a ranker 'loglinear' already"):
        registry.register(type("Other", (ByTheModel,), {"name": "loglinear"}))
    blended, report = fit_blend(
        settings(kind="always"), dataset(walks()), noise, VECTORS, ALLOWED, ranker="by the model"
    )
    assert blended is not None and report is not None and report.validation is not None
    assert report.validation["blend"] == report.validation["model"]
    again = Blended.from_tensors(blended.to_tensors(), blended.declaration())
    assert isinstance(again.ranker, ByTheModel) and again.ranker.features == blended.ranker.features
    registry.RANKERS.pop("by the model")
    with pytest.raises(ValueError, match="ranks by 'by the model', which this program does not know"):
        Blended.from_tensors(blended.to_tensors(), blended.declaration())
