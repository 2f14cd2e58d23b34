from __future__ import annotations

import numpy as np
import pytest
import torch

from features.multiplexed import hash_values
from features.precision import activation_dtype
from recsys.config import ModelSettings, TrainSettings
from recsys.models.bert4rec import Bert4Rec, encode_queries
from recsys.models.item_tower import ItemFeatures
from recsys.training import loop
from recsys.training.loop import Training, train

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


def test_the_average_reaches_back_a_tenth_of_the_steps_at_first_and_no_further_than_its_decay() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)

    def lag(decay: float, steps: int) -> float:
        """Steps between the newest weights, which are the step's number, and the average."""
        average = loop._Average(model, decay)
        for step in range(1, steps + 1):
            torch.nn.init.constant_(model.weight, float(step))
            average.update(step)
        assert model.weight.detach().item() == steps
        return steps - float(average.shadow[0])

    for steps in (50, 200, 800):
        assert steps / 20 < lag(0.9999, steps) < steps / 5
    assert lag(0.9, 800) == pytest.approx(9, rel=0.01)  # decay / (1 - decay)


def test_a_diverging_loss_says_what_to_change() -> None:
    with pytest.raises(FloatingPointError, match=r"train\.learning_rate = 1e\+30"):
        run(learning_rate=1e30, epochs=2)


def test_precision_follows_the_wish() -> None:
    assert activation_dtype("bf16") == torch.bfloat16 and activation_dtype("fp32") == torch.float32
