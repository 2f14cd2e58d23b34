"""What implementations of these models get wrong, each by a test that such a mistake would fail.

Positions that are never trained, means over something else than the labels, questions in training that differ from
those in serving, predictions that look at the target, at padding or at the batch's company, tokens that are no items
among the recommended, and results that a precision or the state of the world changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from recsys.columns import PADDING
from recsys.data.sequences import Sequences
from recsys.data.split_strategies import split_sequences
from recsys.features.multiplexed import hash_values
from recsys.models.sequential.bert4rec import MASK, Bert4Rec, encode_queries
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.models.sequential.loop import train
from recsys.models.sequential.losses import task_loss
from recsys.models.sequential.objectives import Task, make_task, objective_at
from recsys.retrieval.index import build_index
from recsys.retrieval.top_k import top_k
from recsys.settings import ModelSettings, SplitSettings, TrainSettings

ITEMS, LONGEST = 40, 10
OBJECTIVES = ("cloze", "next-item")
EXACT = TrainSettings(precision="fp32")


def model(objective: str = "cloze", **changes: Any) -> Bert4Rec:
    """Without dropout, and with weights of the size that training reaches."""
    torch.manual_seed(0)
    features = ItemFeatures(
        id_hashes=torch.from_numpy(hash_values(range(ITEMS + 1))), trained=torch.ones(ITEMS + 1, dtype=torch.bool)
    )
    settings = {"dimensions": 32, "max_length": LONGEST, "dropout": 0.0, "id_dropout": 0.0, "objective": objective}
    built = Bert4Rec(features, ModelSettings(**(settings | changes)), table_rows=4 * ITEMS)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return built


def queries(of: Bert4Rec, items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    table = torch.from_numpy(of.item_vectors()[0][:, :-1])
    return encode_queries(of.encoder, table, items.astype(np.int32), offsets, LONGEST)


def scores(of: Bert4Rec, items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """[U, V] of items 1 to V, as serving has them."""
    return queries(of, items, offsets) @ of.item_vectors()[0][1:].T


def loss_of(built: Bert4Rec, task: Task, settings: TrainSettings = EXACT) -> float:
    return float(task_loss(built.train(), task, settings, np.random.default_rng(0)).detach())


@pytest.mark.parametrize("loss", ["full", "sampled", "gbce"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_label_of_every_position_moves_the_loss(objective: str, loss: str) -> None:
    """The first and the last one, too; next-item training has nothing to ask before the first event."""
    built, rng = model(objective, temperature=None), np.random.default_rng(0)
    settings = EXACT.model_copy(update={"loss": loss, "negatives": 5})
    history = np.arange(1, 8)
    moved = set()
    for _ in range(60):
        task = make_task(history[None], rng, settings, objective)
        for place in np.flatnonzero(task.labels[0]):
            label = int(task.labels[0, place])
            changed = task.labels.copy()
            changed[0, place] = 20
            if abs(loss_of(built, task, settings) - loss_of(built, replace(task, labels=changed), settings)) > 1e-4:
                moved.add(label)
        if objective == "next-item":
            break
    assert moved == set(range(1 if objective == "cloze" else 2, 8))


def test_a_label_without_loss_counts_in_the_mean() -> None:
    """Of two labels one is certain: the mean is half of the other's, not all of it."""
    built = model()
    with torch.no_grad():
        built.output_bias[7] = 500.0
        built.output_bias[8] = 400.0
    task = Task(tokens=np.array([[3, MASK, 5, MASK]]), wanted=np.array([[1, 3]]), labels=np.array([[7, 8]]))
    each = [
        loss_of(built, replace(task, labels=np.array([[first, second]])))
        for first, second in ((7, 0), (0, 8))  # 0: not asked
    ]
    assert each[0] == 0.0 and each[1] > 1
    assert loss_of(built, task) == pytest.approx(each[1] / 2)


def test_the_loss_of_a_batch_is_the_mean_over_the_labels_of_its_rows() -> None:
    """Not the mean of the rows' means, and no row looks at another."""
    built = model()
    tokens = np.array([[3, MASK, 5, MASK, 9, MASK], [0, 0, 0, 4, MASK, 6], [0, 7, 8, 7, MASK, 1]])
    wanted = np.array([[1, 3, 5], [4, 5, 5], [4, 0, 5]])
    labels = np.array([[7, 8, 12], [30, 0, 0], [31, 0, 0]])
    together = loss_of(built, Task(tokens=tokens, wanted=wanted, labels=labels))
    alone = [
        loss_of(built, Task(tokens=tokens[i : i + 1], wanted=wanted[i : i + 1], labels=labels[i : i + 1]))
        for i in range(3)
    ]
    assert together == pytest.approx((3 * alone[0] + alone[1] + alone[2]) / 5, rel=1e-5)


@pytest.mark.parametrize("more", [1, 4])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_padding_does_not_change_the_loss(objective: str, more: int) -> None:
    built = model(objective)
    tokens = np.array([[4, 9, 2, MASK if objective == "cloze" else 6], [0, 7, 7, MASK if objective == "cloze" else 1]])
    task = Task(tokens=tokens, wanted=np.array([[3, 3], [3, 3]]), labels=np.array([[11, 0], [12, 0]]))
    assert task.wanted is not None
    padded = replace(task, tokens=np.pad(tokens, ((0, 0), (more, 0))), wanted=task.wanted + more)
    assert loss_of(built, padded) == pytest.approx(loss_of(built, task), rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_serving_asks_what_training_asked(objective: str) -> None:
    """The loss of predicting a history's last item equals the one from the vectors that serving uses."""
    built = model(objective)
    history, target = np.array([5, 1, 9, 3, 3]), 17
    if objective == "cloze":
        task = Task(tokens=np.array([[*history, MASK]]), wanted=np.array([[5]]), labels=np.array([[target]]))
    else:
        task = make_task(np.array([[*history, target]]), np.random.default_rng(0), EXACT, objective)
        last = np.arange(task.labels.shape[1]) == task.labels.shape[1] - 1
        task = replace(task, labels=np.where(last, task.labels, 0))
    trained = loss_of(built, task)
    served = torch.from_numpy(scores(built, history, np.array([0, 5])))
    assert trained == pytest.approx(float(functional.cross_entropy(served, torch.tensor([target - 1]))), rel=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_prediction_does_not_know_the_held_out_items(objective: str) -> None:
    """Validation must not see the last two events, test not the last one: swapping them changes nothing."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 15, 20)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(1, ITEMS + 1, offsets[-1]).astype(np.int32)
    last = items.copy()
    last[offsets[1:] - 1] = last[offsets[1:] - 1] % ITEMS + 1
    last_two = last.copy()
    last_two[offsets[1:] - 2] = last[offsets[1:] - 2] % ITEMS + 1
    built, users = model(objective), pl.Series(range(20))

    def split(of: np.ndarray) -> Any:
        return split_sequences(Sequences(users=users, items=of, offsets=offsets), SplitSettings())

    plain, swapped, both = split(items), split(last), split(last_two)

    def predictions(part: Any) -> np.ndarray:
        return queries(built, part.histories.items, part.histories.offsets)

    assert np.array_equal(predictions(plain.test), predictions(swapped.test))
    assert np.array_equal(predictions(plain.validation), predictions(both.validation))
    assert np.array_equal(plain.train.items, both.train.items)
    assert (plain.test.targets != swapped.test.targets).all()
    assert not np.allclose(predictions(plain.test), predictions(both.test), atol=1e-3)  # the test history has it


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_items_are_recommended(objective: str) -> None:
    """However many are asked for, and however well [MASK] and padding would score."""
    built = model(objective)
    with torch.no_grad():
        built.output_bias[0] = 1000.0
        built.encoder.mask_vector.mul_(1000.0)
    vectors, allowed = built.item_vectors()
    rng = np.random.default_rng(0)
    histories = Sequences(
        users=pl.Series(range(8)),
        items=rng.integers(1, ITEMS + 1, 40).astype(np.int32),
        offsets=np.arange(9) * 5,
    )
    found = queries(built, histories.items, histories.offsets)
    codes, _ = top_k(build_index(vectors, allowed), found, histories, k=ITEMS, exclude_seen=False)
    assert (np.sort(codes, axis=1) == np.arange(1, ITEMS + 1)).all()
    codes, _ = top_k(build_index(vectors, allowed), found, histories, k=ITEMS, exclude_seen=True)
    for user, row in enumerate(codes):
        recommended = set(row[row > 0].tolist())
        assert recommended == set(range(1, ITEMS + 1)) - set(histories.history(user).tolist())


def cycles(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Histories that walk a cycle of all items: the next item is the last one plus one."""
    rng = np.random.default_rng(seed)
    lengths, starts = rng.integers(4, 10, 200), rng.integers(0, ITEMS, 200)
    items = np.concatenate([(s + np.arange(n)) % ITEMS + 1 for s, n in zip(starts, lengths, strict=True)])
    return items.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)])


def trained(objective: str = "cloze", **changes: Any) -> Bert4Rec:
    built = model(objective, dropout=0.1)
    settings = TrainSettings(**({"epochs": 8, "batch_size": 32, "learning_rate": 5e-3, "negatives": 20} | changes))
    train(
        built,
        *cycles(0),
        settings,
        seed=3,
        max_length=LONGEST,
        validate=lambda model: {"none": 0.0},
        primary="none",
    )
    return built


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bf16_ranks_as_fp32_does(objective: str) -> None:
    """A trained model has nine of the ten best items in common on average, and the best one for 90% of users."""
    built = trained(objective)
    items, offsets = cycles(1)
    vectors = built.item_vectors()[0]
    table = torch.from_numpy(vectors[:, :-1])
    exact, rounded = (
        encode_queries(built.encoder, table.to(dtype), items, offsets, LONGEST) @ vectors[1:].T
        for dtype in (torch.float32, torch.bfloat16)
    )
    best = [np.argsort(-found, axis=1)[:, :10] for found in (exact, rounded)]
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(*best, strict=True)]
    assert np.mean(shared) > 0.9
    assert (best[0][:, 0] == best[1][:, 0]).mean() > 0.9


@pytest.mark.parametrize("loss", ["full", "sampled", "gbce"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_seed_gives_one_model(objective: str, loss: str) -> None:
    """Whatever has drawn random numbers before."""
    first = trained(objective, loss=loss, epochs=1, average_decay=0.9)
    np.random.default_rng().random(7)
    torch.rand(7)
    second = trained(objective, loss=loss, epochs=1, average_decay=0.9)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_a_cloze_model_that_begins_with_next_items_trains_them_without_their_future() -> None:
    """The first half of the epochs: a change of the newest event moves the loss of no question before it."""
    settings = EXACT.model_copy(update={"next_item_share": 0.5, "epochs": 4})
    asked = [objective_at(epoch, settings, "cloze") for epoch in range(1, 5)]
    assert asked == ["next-item", "next-item", "cloze", "cloze"]
    assert objective_at(4, settings, "next-item") == "next-item"
    built = model("cloze")
    losses = []
    for newest in (7, 8):
        task = make_task(np.array([[1, 2, 3, 4, newest, 5]]), np.random.default_rng(0), settings, asked[0])
        assert task.causal
        task.labels[0, 3:] = PADDING  # only the questions whose answers stand before the changed event
        losses.append(loss_of(built, task, settings))
    assert losses[0] == losses[1]
