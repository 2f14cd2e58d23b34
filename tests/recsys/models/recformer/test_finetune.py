"""Two-stage fine-tuning: what moves, what stands still, and what is learnt."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from recsys.data.consumed import Consumed
from recsys.features.tokens import ItemTokens
from recsys.models.recformer import finetune as recformer_finetune
from recsys.models.recformer.encode import encode, item_table
from recsys.models.recformer.finetune import FineTuning, Targets, Validate
from recsys.models.recformer.loss import contrastive_loss, softmax_loss
from recsys.models.recformer.model import Recformer
from recsys.models.recformer.start import start
from recsys.models.recformer.weights import extended
from recsys.models.repeats import Earlier
from recsys.settings import RecformerSettings, TrainSettings
from recsys.training.checkpoint import Checkpoints
from recsys.training.task import Place

SETTINGS = RecformerSettings(
    dimensions=32,
    heads=2,
    layers=1,
    vocabulary=500,
    max_items=5,
    max_tokens=48,
    dropout=0.0,
    pooling="items",
    second_stage_epochs=3,
)
TRAIN = TrainSettings(epochs=3, batch_size=20, learning_rate=3e-3, evaluate_every=1, patience=3, precision="fp32")
PRIMARY = "val/ndcg_at_10"


class Training:
    """A fine-tuning on a generated shop that keeps what it was validated with."""

    def __init__(self, shops: ModuleType, **changes: Any) -> None:
        self.shops, self.shop = shops, shops.shop(0)
        self.settings = SETTINGS.model_copy(update=changes)
        begun = start(self.settings, [self.shop.frame], seed=0)
        self.model, self.tokens = begun.model, self.shop.corpus(begun.tokenizer).tokens
        self.items, self.offsets, _ = shops.split(self.shop)
        self.tables: list[np.ndarray] = []

    def validate(self, model: Recformer, table: np.ndarray) -> dict[str, float]:
        self.tables.append(table.copy())
        return {PRIMARY: self.shops.last_item_ndcg(model, self.tokens, self.shop, table)}

    def run(self, train: TrainSettings = TRAIN, validate: Validate | None = None, **options: Any) -> Any:
        return self.tuning(train, validate or self.validate).run(**options)

    def again(self, train: TrainSettings, fixed: int, stages: Sequence[int]) -> Any:
        """For a given number of epochs, without validation."""
        return self.tuning(train, None, fixed=fixed, stages=stages).run()[0]

    def tuning(self, train: TrainSettings, validate: Validate | None, **given: Any) -> FineTuning:
        return FineTuning(
            model=self.model,
            catalogue=self.tokens,
            items=self.items,
            offsets=self.offsets,
            train=train,
            settings=self.settings,
            seed=0,
            validate=validate,
            primary=PRIMARY,
            **given,
        )


def test_targets_are_later_events_of_items_with_text_drawn_evenly() -> None:
    tokens = ItemTokens(
        tokens=np.array([5, 6]), types=np.array([2, 2]), offsets=np.array([0, 0, 1, 1, 2])
    )  # 2: no text
    items = np.array([1, 3, 2, 1, 3, 2, 1], dtype=np.int32)
    offsets = np.array([0, 4, 4, 6, 7])
    targets = Targets.of(tokens, items, offsets)
    assert targets.users.tolist() == [0]  # the others have no second event with text
    assert targets.events.tolist() == [1, 3]
    drawn = targets.draw(np.zeros(1000, dtype=np.int64), np.random.default_rng(0))
    assert np.unique(drawn).tolist() == [1, 3]
    assert 400 < (drawn == 1).sum() < 600


def test_the_loss_is_cross_entropy_over_the_items_with_text() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, table = (torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (3, 6))
    labels, allowed = torch.tensor([1, 2, 5]), torch.tensor([False, True, True, False, True, True])
    scores = queries @ table.T / 0.05
    rivals = [1, 2, 4, 5]
    expected = (torch.logsumexp(scores[:, rivals], 1) - scores[torch.arange(3), labels]).mean()
    torch.testing.assert_close(softmax_loss(queries, table, labels, allowed, 0.05), expected)
    every = torch.tensor([0, 1, 2, 3, 4, 5])  # as negatives: the label and what is not allowed drop out
    torch.testing.assert_close(softmax_loss(queries, table, labels, allowed, 0.05, every), expected)
    few = softmax_loss(queries, table, labels, allowed, 0.05, torch.tensor([4]))
    own = torch.stack([scores[torch.arange(3), labels], scores[:, 4]], dim=1)
    torch.testing.assert_close(few, torch.nn.functional.cross_entropy(own, torch.zeros(3, dtype=torch.long)))


def test_what_was_had_counts_by_steps_back_in_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, table = (torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (2, 5))
    repeats = torch.tensor([0.3, -0.2, 0.1], requires_grad=True)
    # the first history ended with 2, 4, 4; the second with 1
    had = Earlier(
        questions=torch.tensor([0, 0, 0, 1]), codes=torch.tensor([4, 4, 2, 1]), back=torch.tensor([0, 1, 2, 0])
    )
    labels, allowed = torch.tensor([4, 3]), torch.tensor([False, True, True, True, True])
    loss = softmax_loss(queries, table, labels, allowed, 0.05, had=(had, repeats))
    scores = queries @ table.T
    scores[0, 4] += 0.3 - 0.2
    scores[0, 2] += 0.1
    scores[1, 1] += 0.3
    expected = torch.nn.functional.cross_entropy(scores[:, 1:] / 0.05, labels - 1)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert repeats.grad is not None
    assert repeats.grad[1] < 0 < repeats.grad[2]  # the label was had a step before; what was not asked for, two


@pytest.mark.parametrize(("times", "sign"), [(1, -1), (2, 1)])
def test_numbers_tell_whether_people_come_back(times: int, sign: int, shops: ModuleType) -> None:
    training = Training(shops, second_stage_epochs=0)
    training.model = extended(training.model, repeats=True, follows=False)
    training.items, training.offsets = np.repeat(training.items, times), training.offsets * times  # each item so often
    better = itertools.count()
    training.run(validate=lambda model, table: {PRIMARY: float(next(better))})
    assert training.model.repeats is not None
    assert sign * training.model.repeats()[0].item() > 0.03


def test_no_gradient_reaches_the_table(shops: ModuleType) -> None:
    training = Training(shops)
    table = torch.from_numpy(item_table(training.model, training.tokens)).requires_grad_(False)
    codes = np.array([1, 2, 3], dtype=np.int32)
    queries = encode(training.model, training.tokens, codes, np.array([0]), np.array([2]))
    loss = softmax_loss(queries, table, torch.tensor([3]), torch.ones(len(table), dtype=torch.bool), 0.05)
    loss.backward()
    assert table.grad is None and not table.requires_grad
    assert training.model.blocks[0].up.weight.grad is not None


def test_stage_one_moves_the_table_and_stage_two_keeps_it_to_the_last_bit(shops: ModuleType) -> None:
    training = Training(shops)
    # the best of stage one is its second epoch; stage two gains in its first and last
    scores = iter([0.1, 0.2, 0.5, 0.3, 0.6, 0.4, 0.7])
    weights: list[dict[str, torch.Tensor]] = []

    def validate(model: Recformer, table: np.ndarray) -> dict[str, float]:
        training.tables.append(table.copy())
        weights.append(copy.deepcopy(model.state_dict()))
        return {PRIMARY: next(scores)}

    outcome, table = training.run(validate=validate)
    assert [entry["stage"] for entry in outcome.history] == [0, 1, 1, 1, 2, 2, 2]
    assert outcome.best_epoch == 6
    zero, first, second, third, *later = training.tables
    assert (zero == first).all()  # encoded before the first step
    assert (first != second).any() and (second != third).any()
    for kept in later:  # the best epoch's table, not the last one's
        np.testing.assert_array_equal(kept, second)
    np.testing.assert_array_equal(table, second)
    best = weights[6]
    for name, value in training.model.state_dict().items():
        assert (value == best[name]).all(), name


@pytest.mark.parametrize(
    ("scores", "best", "stages"),
    [
        ([0.1, 0.5, 0.3, 0.2, 0.6, 0.7, 0.4], 5, (1, 2)),  # patience ends stage one two epochs after its best
        ([0.1, 0.2, 0.5, 0.3, 0.2, 0.4, 0.3, 0.2], 2, (2,)),  # stage two gains nothing
        ([0.3, 0.2, 0.1, 0.6, 0.5, 0.4], 3, (0, 1)),  # nor does stage one
        ([0.9, 0.2, 0.1, 0.6, 0.5, 0.4], 0, ()),
    ],
)
def test_a_refit_has_the_epochs_of_each_stage_that_the_best_weights_went_through(
    scores: list[float], best: int, stages: tuple[int, ...], shops: ModuleType
) -> None:
    train, given = TRAIN.model_copy(update={"epochs": 6, "patience": 2}), iter(scores)
    outcome, _ = Training(shops).run(train=train, validate=lambda model, table: {PRIMARY: next(given)})
    assert (outcome.best_epoch, tuple(outcome.stages)) == (best, stages)
    again = Training(shops).again(train, best, stages)
    assert [entry["stage"] for entry in again.history] == [0, *(n for n, of in enumerate(stages, 1) for _ in range(of))]
    assert sum(again.stages) == sum(stages)
    # an earlier bundle does not say how its epochs divide
    silent = Training(shops).again(train, best, ())
    assert [entry["stage"] for entry in silent.history] == [0, *[1] * best]


def test_live_items_learn_with_the_histories(shops: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(shops, live_items=True, second_stage_epochs=1)
    contrasts: list[float] = []

    def watched(queries: torch.Tensor, live: torch.Tensor, *rest: Any) -> torch.Tensor:
        loss = contrastive_loss(queries, live, *rest)
        (gradient,) = torch.autograd.grad(loss, live, retain_graph=True)
        contrasts.append(float(gradient.abs().max()))
        return loss

    monkeypatch.setattr(recformer_finetune, "contrastive_loss", watched)
    outcome, _ = training.run()
    stages = [entry["stage"] for entry in outcome.history if entry["stage"]]
    assert stages.count(2) and len(contrasts) == stages.count(1) * -(-(len(training.offsets) - 1) // TRAIN.batch_size)
    assert min(contrasts) > 0
    for number in (1, 2, 3):  # validated with the items as they are after the epoch
        assert (training.tables[number] != training.tables[number - 1]).any()
    values = [entry[PRIMARY] for entry in outcome.history]
    assert max(values[1:4]) > values[0] + 0.2


def test_the_probe_counts_as_an_epoch_and_may_be_all(shops: ModuleType) -> None:
    training = Training(shops, probe_epochs=2, second_stage_epochs=0)
    words, recency = training.model.words.weight.clone(), training.model.recency.clone()
    scores = iter([0.1, 0.2])
    outcome, table = training.run(
        train=TRAIN.model_copy(update={"epochs": 0}), validate=lambda model, table: {PRIMARY: next(scores)}
    )
    assert [(entry["epoch"], entry["stage"]) for entry in outcome.history] == [(0, 0), (1, 0)]
    assert (outcome.epochs, outcome.best_epoch) == (1, 1)
    np.testing.assert_array_equal(table, item_table(training.model, training.tokens, dtype=torch.float32))
    assert (training.model.words.weight == words).all() and (training.model.recency != recency).any()


def test_stage_two_begins_with_the_best_weights_of_stage_one(
    shops: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(shops, second_stage_epochs=1)
    scores = iter([0.1, 0.9, 0.5, 0.3, 0.2])
    validated: list[dict[str, torch.Tensor]] = []
    begun: list[dict[str, torch.Tensor]] = []
    batches = FineTuning.batches

    def validate(model: Recformer, table: np.ndarray) -> dict[str, float]:
        validated.append(copy.deepcopy(model.state_dict()))
        return {PRIMARY: next(scores)}

    def watched(self: FineTuning, at: Place) -> Any:
        if at.stage == 2:
            begun.append(copy.deepcopy(self.model.state_dict()))
        return batches(self, at)

    monkeypatch.setattr(FineTuning, "batches", watched)
    outcome, _ = training.run(validate=validate)
    assert outcome.best_epoch == 1 and len(begun) == 1
    for name, value in training.model.state_dict().items():
        assert torch.equal(value, validated[1][name]) and torch.equal(begun[0][name], validated[1][name]), name
    assert any(not torch.equal(value, validated[3][name]) for name, value in begun[0].items())  # not the last ones


def test_it_learns_and_reports_what_it_could_before(shops: ModuleType) -> None:
    training = Training(shops)
    entries: list[dict[str, Any]] = []
    outcome, table = training.run(on_epoch=entries.append)
    before, after = outcome.history[0][PRIMARY], max(entry[PRIMARY] for entry in outcome.history)
    assert entries == outcome.history
    assert outcome.history[0] == {"epoch": 0, "stage": 0, PRIMARY: before}
    assert after > before + 0.2
    assert after > shops.popularity_ndcg(training.shop) + 0.2
    assert shops.last_item_ndcg(training.model, training.tokens, training.shop, table) == pytest.approx(after)
    assert {"loss", "tokens_per_second", "learning_rate"} <= entries[1].keys()


def test_sampled_negatives_and_accumulated_batches_learn_too(shops: ModuleType) -> None:
    training = Training(shops, accumulate=2, second_stage_epochs=0)
    outcome, _ = training.run(train=TRAIN.model_copy(update={"loss": "sampled", "negatives": 20, "batch_size": 10}))
    assert outcome.epochs == 3
    assert max(entry[PRIMARY] for entry in outcome.history) > outcome.history[0][PRIMARY] + 0.15


def test_without_a_gain_a_stage_ends_and_the_beginning_may_be_the_best(shops: ModuleType) -> None:
    training = Training(shops, second_stage_patience=1)
    before = copy.deepcopy(training.model.state_dict())
    scores = iter([0.9, 0.3, 0.2, 0.1])
    outcome, table = training.run(
        train=TRAIN.model_copy(update={"patience": 2}), validate=lambda model, table: {PRIMARY: next(scores)}
    )
    assert [entry["stage"] for entry in outcome.history] == [0, 1, 1, 2]
    assert outcome.best_epoch == 0
    for name, value in training.model.state_dict().items():
        assert (value == before[name]).all(), name
    np.testing.assert_array_equal(table, item_table(training.model, training.tokens, dtype=torch.float32))


@pytest.mark.parametrize("stage", [1, 2])
def test_a_killed_fine_tuning_goes_on_to_the_same_weights(stage: int, shops: ModuleType, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    whole = Training(shops, dropout=0.1, second_stage_epochs=2)
    short = TRAIN.model_copy(update={"epochs": 2, "batch_size": 50})
    expected, table = whole.run(train=short)

    def kill(entry: dict[str, Any]) -> None:
        if entry["stage"] == stage:
            raise Killed

    killed = Training(shops, dropout=0.1, second_stage_epochs=2)
    with pytest.raises(Killed):
        killed.run(train=short, on_epoch=kill, checkpoints=Checkpoints(tmp_path, seconds=0, share=1e9))
    again = Training(shops, dropout=0.1, second_stage_epochs=2)
    resumed: list[tuple[int, int]] = []
    found, its_table = again.run(
        train=short,
        checkpoints=Checkpoints(tmp_path, seconds=1e9),
        on_resume=lambda epoch, step: resumed.append((epoch, step)),
    )
    assert resumed == [(2 * stage - 1, 4)]
    np.testing.assert_array_equal(its_table, table)
    assert found.best_epoch == expected.best_epoch
    for name, value in again.model.state_dict().items():
        assert (value == whole.model.state_dict()[name]).all(), name
    assert [e[PRIMARY] for e in found.history] == [e[PRIMARY] for e in expected.history]


def test_every_step_has_dropout(shops: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables and validation leave the model as it serves; training must not go on like that."""
    training: list[bool] = []

    def watched(model: Recformer, *rest: Any, **named: Any) -> torch.Tensor:
        training.append(model.training)
        return encode(model, *rest, **named)

    monkeypatch.setattr(recformer_finetune, "encode", watched)
    begun = Training(shops, second_stage_epochs=1)
    begun.model.eval()  # as a folder gives it
    begun.run(train=TRAIN.model_copy(update={"epochs": 2}))
    assert len(training) == 3 * 10 and all(training)


def test_what_was_given_is_reported(shops: ModuleType) -> None:
    training = Training(shops, second_stage_epochs=0)
    outcome, _ = training.run(train=TRAIN.model_copy(update={"epochs": 1}))
    assert outcome.trained == Consumed.of(training.items, training.offsets)


def test_without_its_own_embeddings_the_order_is_told_by_tokens_alone(shops: ModuleType) -> None:
    training = Training(shops, embeddings=False, second_stage_epochs=0)
    training.run(train=TRAIN.model_copy(update={"epochs": 1}))
    assert (training.model.item_positions.weight == 0).all()
    assert (training.model.types.weight == training.model.types.weight[0]).all()


def test_a_loss_that_is_no_number_says_what_to_do(shops: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> torch.Tensor:
        return torch.tensor(float("nan"), requires_grad=True)

    monkeypatch.setattr(recformer_finetune, "softmax_loss", broken)
    with pytest.raises(FloatingPointError, match=r"in epoch 1; lower train.learning_rate = 0.003"):
        Training(shops).run()
