"""What is added to the vectors of items and [MASK]: where, and of which user and event."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.features.declaration import Feature
from recsys.features.hashing import hash_values
from recsys.features.multiplexed import FeatureBatch
from recsys.models.sequential.bert4rec import MASK, Bert4Rec, encode_queries
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.models.sequential.loop import side_of
from recsys.models.sequential.objectives import events_of, make_task
from recsys.models.sequential.side import Side, SideFeatures, unknown_side
from recsys.settings import ModelSettings, TrainSettings
from tests.recsys.opened import sequence_queries

ITEMS = 20
HOUR, GENDER, TAGS = Feature(name="hour", lookups=2), Feature(name="gender"), Feature(name="tags", kind="multi")
BOTH = SideFeatures(users=(GENDER, TAGS), context=(HOUR,))
HISTORIES = [[3, 5, 7], [2, 9], [4, 4, 4, 4, 4, 1]]
ITEMS_FLAT = np.array([i for history in HISTORIES for i in history], dtype=np.int32)
OFFSETS = np.cumsum([0, *map(len, HISTORIES)])


def side(hours: list[int] | None = None, genders: str = "fmf") -> Side:
    """Of `HISTORIES`; every user has one tag, every event an hour of its own."""
    values = hash_values(hours or range(len(ITEMS_FLAT)))
    return Side(
        users=FeatureBatch(
            values=torch.from_numpy(hash_values(genders))[:, None],
            bags=torch.from_numpy(hash_values("xyz")),
            offsets=torch.arange(4),
        ),
        context=torch.from_numpy(np.concatenate([[0], values]))[:, None],
    )


def model(features: SideFeatures = BOTH, **changes: object) -> Bert4Rec:
    torch.manual_seed(0)
    of = ItemFeatures(
        id_hashes=torch.from_numpy(hash_values(range(ITEMS + 1))), trained=torch.ones(ITEMS + 1, dtype=torch.bool)
    )
    settings = ModelSettings(**({"dimensions": 16, "max_length": 8} | changes))  # type: ignore[arg-type]
    return Bert4Rec(of, settings, 64, features).eval()


def grown(of: Bert4Rec) -> Bert4Rec:
    """With weights of the size that training reaches, so that differences show."""
    with torch.no_grad():
        for parameter in of.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return of


def queries(of: Bert4Rec, known: Side | None) -> np.ndarray:
    table = torch.from_numpy(of.item_vectors()[0][:, :-1])
    return encode_queries(of.encoder, table, ITEMS_FLAT, OFFSETS, 8, known)


def test_what_is_not_declared_changes_no_other_weight() -> None:
    plain, more = model(SideFeatures()).state_dict(), model().state_dict()
    assert set(plain) < set(more)
    assert all(torch.equal(tensor, more[name]) for name, tensor in plain.items())
    assert [name for name in more if "table" in name] == ["tower.table.weight"]  # one table, and named once


def test_users_are_added_everywhere_and_context_where_items_are_seen() -> None:
    built = grown(model())
    assert built.encoder.side is not None
    events = np.array([[0, 1, 2, 3], [4, 5, 0, 0]])
    tokens = np.array([[0, 3, MASK, 7], [2, 9, MASK, MASK]])
    of = side()
    added = built.encoder.side(of.batch(tokens, events, np.array([0, 1])))
    assert of.users is not None and built.encoder.side.users is not None
    users = built.encoder.side.users(of.users)
    alone = model(SideFeatures(users=BOTH.users)).encoder.side
    assert alone is not None and alone(of.batch(tokens, events, np.array([0, 1]))).shape == (2, 1, 16)
    for row, place in ((0, 2), (1, 2), (1, 3)):  # [MASK]
        assert torch.allclose(added[row, place], users[row], atol=1e-6)
    for row, place in ((0, 1), (0, 3), (1, 0)):
        assert not torch.allclose(added[row, place], users[row], atol=1e-3)
    assert not torch.allclose(users[0], users[1], atol=1e-3)


def test_the_table_and_every_projection_learn() -> None:
    built = grown(model(SideFeatures(users=(GENDER,), context=(HOUR,)), ids=True)).train()
    tokens, events = np.array([[3, 5, MASK]]), np.array([[1, 2, 3]])
    genders, nothing = torch.from_numpy(hash_values("fmf"))[:, None], torch.zeros(0, dtype=torch.int64)
    of = Side(
        users=FeatureBatch(values=genders, bags=nothing, offsets=nothing.new_zeros(1)),
        context=side().context,
    )
    known = of.batch(tokens, events, np.array([0]))
    scores = built(torch.from_numpy(tokens), torch.tensor([[2]]), known)[0]
    torch.nn.functional.cross_entropy(scores, torch.tensor([7])).backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("objective", ["cloze", "next-item"])
def test_a_query_reads_its_own_user_and_events(objective: str) -> None:
    built = grown(model(objective=objective))
    before = queries(built, side())
    hours = list(range(len(ITEMS_FLAT)))
    hours[4] = 77  # the newest event of the second history
    after = queries(built, side(hours))
    assert np.array_equal(before[[0, 2]], after[[0, 2]]) and not np.allclose(before[1], after[1], atol=1e-4)
    after = queries(built, side(genders="fmm"))
    assert np.array_equal(before[:2], after[:2]) and not np.allclose(before[2], after[2], atol=1e-4)


@pytest.mark.parametrize("objective", ["cloze", "next-item"])
def test_training_reads_at_each_position_what_serving_reads_there(objective: str) -> None:
    """The question of serving, made as training makes its own, has the same side features."""
    of, rng = side(), np.random.default_rng(0)
    numbers = np.array([[0, 0, 0, 4, 5], [0, 0, 1, 2, 3], [7, 8, 9, 10, 11]])
    codes = np.concatenate([[0], ITEMS_FLAT]).astype(np.int64)
    settings = TrainSettings(mask_last_share=0.5)
    assert of.context is not None and of.users is not None
    for _ in range(20):
        task = make_task(codes[numbers], rng, settings, objective)
        events, known = events_of(numbers, task.tokens), side_of(of, numbers, task.tokens, OFFSETS)
        visible = task.tokens > 0
        assert np.array_equal(codes[events][visible], task.tokens[visible])
        assert not events[task.tokens == 0].any()
        assert known.context is not None and known.users is not None
        expected = np.where(visible, of.context[:, 0].numpy()[events], 0)
        assert np.array_equal(known.context[..., 0].numpy(), expected)
        assert torch.equal(known.users.values, of.users.values[[1, 0, 2]])


def test_events_follow_a_cut_history() -> None:
    numbers = np.array([[0, 7, 8, 9], [3, 4, 5, 6]])
    cut = np.array([[0, 0, 2, MASK], [1, 1, 1, MASK]])  # the first history ends one event earlier
    assert events_of(numbers, cut).tolist() == [[0, 0, 7, 8], [3, 4, 5, 6]]
    assert events_of(numbers, np.array([[0, 2, 2], [1, 1, 1]])).tolist() == [[0, 7, 8], [3, 4, 5]]  # next item


def test_without_side_features_they_are_missing() -> None:
    built = grown(model())
    nothing = unknown_side(BOTH, 3, len(ITEMS_FLAT))
    assert np.array_equal(queries(built, None), queries(built, nothing))
    missing = hash_values([None])[0]
    assert nothing.users is not None and nothing.context is not None
    assert (nothing.users.values == missing).all() and (nothing.users.bags == missing).all()
    assert nothing.users.offsets.tolist() == [0, 1, 2, 3]
    assert (nothing.context[1:] == missing).all() and not nothing.context[0].any()


def test_the_encoder_loads_from_weights_alone() -> None:
    built = grown(model())
    vectors, _ = built.item_vectors()
    load = sequence_queries(ModelSettings(dimensions=16, max_length=8), built.state_dict(), vectors, side=BOTH)
    assert np.array_equal(load(ITEMS_FLAT, OFFSETS, side()), queries(built, side()))
    assert np.array_equal(load(ITEMS_FLAT, OFFSETS), queries(built, None))
