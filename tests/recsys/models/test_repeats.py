"""What having had an item adds to its score: the loss against plain torch, the numbers by hand, the lists exactly."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch.nn import functional

from recsys.data.sequences import Sequences
from recsys.models.repeats import STEP, Repeats, earlier_events
from recsys.models.sequential.losses import full_cross_entropy
from recsys.retrieval.index import build_index
from recsys.retrieval.repeats import bonuses, with_repeats
from recsys.retrieval.top_k import top_k_with_repeats

TOKENS = torch.tensor([[0, 3, 1, 3], [2, 2, 4, 1]])
LABELS = torch.tensor([[0, 1, 3, 2], [2, 4, 1, 1]])


def plain_loss(queries: torch.Tensor, table: torch.Tensor, bias: torch.Tensor, repeats: torch.Tensor) -> torch.Tensor:
    """Written as the definition says, question by question."""
    losses = []
    for question, (user, place) in enumerate((LABELS > 0).nonzero().tolist()):
        scores = queries[question] @ table.T + bias
        for column in range(place + 1):
            if TOKENS[user, column]:
                scores = scores + repeats[place - column] * functional.one_hot(TOKENS[user, column], len(table))
        losses.append(functional.cross_entropy(scores, LABELS[user, place]))
    return torch.stack(losses).mean()


def test_loss_and_gradients_are_those_of_the_definition() -> None:
    torch.manual_seed(0)
    asked = LABELS > 0
    leaves = [torch.randn(7, 3), torch.randn(6, 3), torch.randn(6), torch.randn(5)]
    found, expected = [[leaf.clone().requires_grad_() for leaf in leaves] for _ in range(2)]
    queries, table, bias, repeats = found
    loss = full_cross_entropy(queries, table, bias, LABELS[asked], had=(earlier_events(TOKENS, asked), repeats))
    reference = plain_loss(*expected)
    torch.testing.assert_close(loss, reference)
    loss.backward()
    reference.backward()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_loss_is_the_same_in_chunks(monkeypatch: object) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(1, 9, (200, 5))
    asked, labels = torch.ones(200, 5, dtype=torch.bool), torch.randint(1, 9, (1000,))
    queries, table, repeats = torch.randn(1000, 3), torch.randn(9, 3), torch.randn(5)
    had = (earlier_events(tokens, asked), repeats)
    whole = full_cross_entropy(queries, table, torch.zeros(9), labels, had=had)
    import recsys.models.sequential.losses as losses

    monkeypatch.setattr(losses, "SCORES_AT_ONCE", 64 * 9)  # type: ignore[attr-defined]
    torch.testing.assert_close(full_cross_entropy(queries, table, torch.zeros(9), labels, had=had), whole)


def histories() -> Sequences:
    items = np.array([1, 2, 1, 5, 4, 3, 2], dtype=np.int32)
    return Sequences(users=pl.Series("user_id", ["a", "b", "c"]), items=items, offsets=np.array([0, 3, 3, 7]))


def test_numbers_count_back_from_the_newest_event_and_end_with_what_is_read() -> None:
    of = histories()
    users, codes, values = bonuses(of.items, of.offsets, np.array([0.5, 2.0, 3.0], dtype=np.float32))
    assert users.tolist() == [0, 0, 0, 2, 2, 2]
    assert codes.tolist() == [1, 2, 1, 2, 3, 4]  # the oldest event of c is beyond the three
    assert values.tolist() == [0.5, 2, 3, 0.5, 2, 3]
    zeros = with_repeats(lambda a, b: np.zeros((b - a, 6)), of.items, of.offsets, np.array([0.5, 2.0, 3.0]))
    assert zeros(0, 3).tolist() == [[0, 3.5, 2, 0, 0, 0], [0] * 6, [0, 0, 0.5, 2, 3, 0]]
    assert zeros(2, 3).tolist() == [[0, 0, 0.5, 2, 3, 0]]


def test_lists_are_those_of_all_scores_sorted() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.integers(-2, 3, (40, 4)).astype(np.float32)  # small whole numbers: many ties
    vectors[0] = 0
    allowed = np.ones(40, dtype=bool)
    allowed[[0, 7, 11]] = False
    lengths = rng.integers(0, 12, 50)
    of = Sequences(
        users=pl.Series("user_id", range(50)),
        items=rng.integers(1, 40, lengths.sum()).astype(np.int32),
        offsets=np.concatenate([[0], lengths.cumsum()]),
    )
    queries, repeats = rng.integers(-2, 3, (50, 4)).astype(np.float32), np.array([-9, 2, 1, 4], dtype=np.float32)
    codes, scores = top_k_with_repeats(build_index(vectors, allowed), queries, of, repeats, k=9)
    every = with_repeats(lambda a, b: queries[a:b] @ vectors.T, of.items, of.offsets, repeats)(0, 50)
    every[:, ~allowed] = -np.inf
    expected = np.lexsort((np.broadcast_to(np.arange(40), every.shape), -every), axis=1)[:, :9]
    assert (codes == expected).all()
    assert (scores == np.take_along_axis(every, expected, axis=1)).all()


def test_they_begin_at_nothing_and_move_in_tens() -> None:
    repeats = Repeats(3)
    assert repeats().tolist() == [0, 0, 0]
    with torch.no_grad():
        repeats.weight[1] = -0.1
    assert repeats()[1].item() == np.float32(-0.1) * STEP
