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


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_no_gradient_is_longer_than_the_clip(size: float) -> None:
    """One outlier of a batch must not throw the weights away; a short gradient stays as it is."""
    model = torch.nn.Linear(4, 3)
    settings = TrainSettings(clip_norm=0.5)
    learner = loop._Learner(model, settings, steps=10)
    loss = size * model(torch.ones(1, 4)).sum() * 1e-3
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)])
    learner.step(loss)
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert float(found.norm()) == pytest.approx(min(float(wanted.norm()), 0.5), rel=1e-4)
    taken = torch.cat([learner.optimizer.state[p]["exp_avg"].flatten() for p in model.parameters()])
    torch.testing.assert_close(taken, 0.1 * found)  # what the optimizer was told


def test_a_step_forgets_the_gradient_of_the_one_before() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    learner = loop._Learner(model, TrainSettings(clip_norm=100.0), steps=10)
    for inputs in ([1.0, 0.0], [0.0, 3.0]):
        learner.step(model(torch.tensor([inputs])).sum())
        assert model.weight.grad is not None and model.weight.grad.tolist() == [inputs]


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


def test_the_rate_warms_up_and_falls_to_a_tenth() -> None:
    settings = TrainSettings(learning_rate=0.02, warmup_share=0.1, weight_decay=0.0)
    model = torch.nn.Linear(1, 1, bias=False)
    learner = loop._Learner(model, settings, steps=100)
    rates = []
    for _ in range(100):
        rates.append(learner.optimizer.param_groups[0]["lr"])  # of the step that follows
        assert rates[-1] == learner.learning_rate
        learner.step(model(torch.ones(1, 1)).sum())
    assert np.allclose(rates[:10], 0.02 * np.arange(1, 11) / 10)
    assert max(rates) == rates[9] and (np.diff(rates[10:]) < 0).all()
    assert rates[55] == pytest.approx(0.02 * (0.1 + 0.9 / 2), rel=0.01)  # half of the way down
    assert learner.learning_rate == pytest.approx(0.002, rel=1e-3)


def test_a_whole_training_walks_the_whole_schedule() -> None:
    _, outcome = run(epochs=4, evaluate_every=4)
    rates = [entry["learning_rate"] for entry in outcome.history]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(5e-4, rel=1e-3)  # a tenth, after the last step


def test_matrices_alone_decay() -> None:
    """With a loss that moves nothing, the decay is all that does."""
    model = torch.nn.Linear(3, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    learner = loop._Learner(model, TrainSettings(learning_rate=0.1, weight_decay=0.5, warmup_share=0), steps=10)
    learner.step(0.0 * model(torch.ones(1, 3)).sum())
    torch.testing.assert_close(model.weight.detach(), before[0] * (1 - 0.1 * 0.5))
    torch.testing.assert_close(model.bias.detach(), before[1])


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
