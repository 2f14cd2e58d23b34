from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from recsys.data.consumed import Consumed
from recsys.errors import InputError
from recsys.features.multiplexed import hash_values
from recsys.features.precision import activation_dtype
from recsys.models.sequential import loop
from recsys.models.sequential.bert4rec import Bert4Rec, encode_queries
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.models.sequential.loop import Training, train
from recsys.models.sequential.objectives import Task, make_task
from recsys.settings import ModelSettings, TrainSettings

ITEMS, USERS = 40, 300
MODEL = ModelSettings(dimensions=32, blocks=1, max_length=10)


def cycles(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Histories that walk a cycle of all items from a random start: the next item is the last one plus one."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 10, USERS)
    starts = rng.integers(0, ITEMS, USERS)
    items = np.concatenate([(s + np.arange(n)) % ITEMS + 1 for s, n in zip(starts, lengths, strict=True)])
    return items.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)])


def new_model() -> Bert4Rec:
    trained = torch.ones(ITEMS + 1, dtype=torch.bool)
    of = ItemFeatures(id_hashes=torch.from_numpy(hash_values(range(ITEMS + 1))), trained=trained)
    torch.manual_seed(0)
    return Bert4Rec(of, MODEL, table_rows=ITEMS * 4)


def next_item_accuracy(model: Bert4Rec) -> dict[str, float]:
    vectors, allowed = model.item_vectors()
    items, offsets = cycles(seed=1)
    queries = encode_queries(model.encoder, torch.from_numpy(vectors[:, :-1]), items, offsets, MODEL.max_length)
    scores = np.where(allowed, queries @ vectors.T, -np.inf)
    return {"accuracy": float((scores.argmax(1) == items[offsets[1:] - 1] % ITEMS + 1).mean())}


def run(**changes: object) -> tuple[Bert4Rec, Training]:
    model = new_model()
    arguments = {
        "epochs": 35,
        "batch_size": 32,
        "learning_rate": 5e-3,
        "evaluate_every": 5,
        "mask_last_share": 0.2,
    }
    outcome = train(
        model,
        *cycles(),
        TrainSettings(**(arguments | changes)),  # type: ignore[arg-type]
        seed=3,
        max_length=MODEL.max_length,
        validate=next_item_accuracy,
        primary="accuracy",
    )
    return model, outcome


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_what_comes_next(precision: str) -> None:
    model, outcome = run(precision=precision)
    assert next_item_accuracy(model)["accuracy"] > 0.9  # chance is 0.025
    next_items, cloze = outcome.history[:18], outcome.history[18:]
    for part in (next_items, cloze):
        assert part[-1]["loss"] < part[0]["loss"] / 2


def test_the_seed_repeats_the_weights_and_another_state_of_the_world_does_not_matter() -> None:
    first, _ = run(epochs=2)
    torch.manual_seed(99)
    second, _ = run(epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_dropout_is_drawn_by_the_seed_alone() -> None:
    models = []
    for state in (1, 2):
        model = new_model()
        torch.manual_seed(state)  # after the weights were drawn
        train(
            model,
            *cycles(),
            TrainSettings(epochs=1),
            seed=4,
            max_length=10,
            validate=lambda _: {"accuracy": 0.0},
            primary="accuracy",
        )
        models.append(model)
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in models), strict=True))


def test_the_random_state_outside_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    new_state = torch.get_rng_state()
    model = new_model()
    torch.set_rng_state(new_state)
    train(
        model,
        *cycles(),
        TrainSettings(epochs=1),
        seed=1,
        max_length=10,
        validate=lambda _: {"accuracy": 0.0},
        primary="accuracy",
    )
    assert torch.equal(torch.rand(3), expected)


def test_the_best_validation_wins_and_patience_ends_it() -> None:
    values = iter([0.1, 0.5, 0.4, 0.3, 0.2])
    seen: list[list[float]] = []

    def validate(model: Bert4Rec) -> dict[str, float]:
        seen.append(model.output_bias.detach().tolist())
        return {"accuracy": next(values)}

    model = new_model()
    outcome = train(
        model,
        *cycles(),
        TrainSettings(epochs=50, evaluate_every=1, patience=2, next_item_share=0.0, average_decay=0.0),
        seed=0,
        max_length=10,
        validate=validate,
        primary="accuracy",
    )
    assert (outcome.best_epoch, outcome.epochs) == (2, 4)
    assert model.output_bias.detach().tolist() == seen[1]


def test_the_average_of_the_weights_is_what_is_validated_and_kept() -> None:
    averaged, _ = run(epochs=1, average_decay=0.999)
    start = new_model()
    plain, _ = run(epochs=1, average_decay=0.0)

    def distance(a: Bert4Rec, b: Bert4Rec) -> float:
        return sum(float((x - y).detach().norm()) for x, y in zip(a.parameters(), b.parameters(), strict=True))

    # after ten steps the average has left the start, and is not where the weights are
    assert distance(averaged, start) > 0.1 * distance(plain, start)
    assert distance(averaged, plain) > 0.01 * distance(plain, start)


def test_a_number_of_epochs_gives_the_weights_that_validation_would_have_chosen_there() -> None:
    """To the last bit: the same steps of the same schedule, and the same average of the weights."""
    settings = TrainSettings(epochs=4, batch_size=64, evaluate_every=1, next_item_share=0.5)
    scores = iter([2.0, 1.0])  # of the epochs with clozes: the third is best
    chosen, given = new_model(), new_model()
    options: dict[str, Any] = {"seed": 3, "max_length": MODEL.max_length, "primary": "accuracy"}
    outcome = train(chosen, *cycles(), settings, validate=lambda _: {"accuracy": next(scores)}, **options)
    again = train(given, *cycles(), settings, validate=None, epochs=outcome.best_epoch, **options)
    assert outcome.best_epoch == again.epochs == again.best_epoch == 3
    for name, weight in given.state_dict().items():
        assert torch.equal(weight, chosen.state_dict()[name]), name


def test_every_step_of_every_epoch_has_dropout_and_questions_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation leaves the model as it serves; training must not go on like that, nor ask the same again."""
    training: list[bool] = []
    asked: list[bytes] = []
    plain = loop.task_loss

    def watched(model: Bert4Rec, task: Task, *rest: Any) -> torch.Tensor:
        training.append(model.training and model.encoder.training)
        asked.append(task.tokens.tobytes())
        return plain(model, task, *rest)

    monkeypatch.setattr(loop, "task_loss", watched)
    run(epochs=3, evaluate_every=1, next_item_share=0.0)
    assert all(training) and len(training) == 3 * 10
    assert len(set(asked)) == len(asked)


def test_no_step_draws_what_another_drew(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []

    def watched(batch: np.ndarray, rng: np.random.Generator, *rest: Any) -> Task:
        drawn.append(copy.deepcopy(rng).random())
        return make_task(batch, rng, *rest)

    monkeypatch.setattr(loop, "make_task", watched)
    run(epochs=3, evaluate_every=3)
    assert len(drawn) == 30 == len(set(drawn))


def test_batches_have_other_company_in_the_next_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def watched(batch: np.ndarray, *rest: Any) -> Task:
        seen.append(batch)
        return make_task(batch, *rest)

    monkeypatch.setattr(loop, "make_task", watched)
    run(epochs=2, evaluate_every=2)
    epochs = [{tuple(sorted(map(tuple, batch.tolist()))) for batch in part} for part in (seen[:10], seen[10:])]
    assert len(epochs[0] & epochs[1]) <= 1


def test_the_last_epoch_is_validated_whatever_the_rhythm() -> None:
    _, outcome = run(epochs=5, evaluate_every=3, next_item_share=0.0)
    assert ["accuracy" in entry for entry in outcome.history] == [False, False, True, False, True]


def test_a_whole_training_walks_the_whole_schedule() -> None:
    _, outcome = run(epochs=4, evaluate_every=4)
    rates = [entry["learning_rate"] for entry in outcome.history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(5e-4, rel=1e-3)  # a tenth, after the last step


def test_what_was_given_is_reported() -> None:
    items, offsets = cycles()
    _, outcome = run(epochs=1)
    assert outcome.trained == Consumed.of(items, offsets)


def test_a_log_of_single_events_says_that_nothing_can_be_learnt() -> None:
    with pytest.raises(InputError, match="None of the 3 training histories has two events"):
        train(
            new_model(),
            np.array([1, 2, 3], dtype=np.int32),
            np.arange(4),
            TrainSettings(),
            seed=0,
            max_length=10,
            validate=lambda _: {"accuracy": 0.0},
            primary="accuracy",
        )


def test_a_diverging_loss_says_what_to_change() -> None:
    with pytest.raises(FloatingPointError, match=r"train\.learning_rate = 1e\+30"):
        run(learning_rate=1e30, epochs=2)


def test_precision_follows_the_wish() -> None:
    assert activation_dtype("bf16") == torch.bfloat16 and activation_dtype("fp32") == torch.float32
