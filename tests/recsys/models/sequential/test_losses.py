from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from recsys.features.multiplexed import hash_values
from recsys.models.sequential import losses
from recsys.models.sequential.bert4rec import MASK, Bert4Rec
from recsys.models.sequential.candidates import Candidates
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.models.sequential.losses import draw_negatives, full_cross_entropy, gbce, task_loss
from recsys.models.sequential.objectives import Task, make_task
from recsys.settings import ModelSettings, TrainSettings

ITEMS = 30


def model(objective: str = "cloze", temperature: float | None = 0.07) -> Bert4Rec:
    torch.manual_seed(0)
    features = ItemFeatures(
        id_hashes=torch.from_numpy(hash_values(range(ITEMS + 1))), trained=torch.ones(ITEMS + 1, dtype=torch.bool)
    )
    settings = ModelSettings(
        dimensions=16,
        max_length=8,
        dropout=0,
        id_dropout=0,
        objective=objective,  # type: ignore[arg-type]
        temperature=temperature,
    )
    built = Bert4Rec(features, settings, table_rows=128)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return built


def batch() -> np.ndarray:
    return np.array([[0, 0, 3, 4, 9, 1], [5, 6, 7, 8, 2, 3]])


@pytest.mark.parametrize("rows", [2, 64])
def test_chunked_cross_entropy_equals_the_plain_one_with_its_gradients(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "ROWS_AT_LEAST", rows)
    monkeypatch.setattr(losses, "SCORES_AT_ONCE", 1)
    torch.manual_seed(0)
    parts = torch.randn(9, 8), torch.randn(20, 8), torch.randn(20)
    labels = torch.randint(1, 20, (9,))
    ours = [part.clone().requires_grad_() for part in parts]
    theirs = [part.clone().requires_grad_() for part in parts]
    loss = full_cross_entropy(*ours, labels)
    plain = functional.cross_entropy(theirs[0] @ theirs[1].T + theirs[2], labels)
    assert torch.allclose(loss, plain, atol=1e-6)
    (loss * 3).backward()
    (plain * 3).backward()
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


def test_weights_weigh_the_loss_and_its_gradients() -> None:
    torch.manual_seed(0)
    parts = torch.randn(3, 8), torch.randn(20, 8), torch.randn(20)
    labels = torch.tensor([4, 9, 1])
    ours = [part.clone().requires_grad_() for part in parts]
    theirs = [part.clone().requires_grad_() for part in parts]
    loss = full_cross_entropy(*ours, labels, torch.tensor([1.0, 0.0, 3.0]))
    each = functional.cross_entropy(theirs[0] @ theirs[1].T + theirs[2], labels, reduction="none")
    plain = 0.25 * each[0] + 0.75 * each[2]
    assert torch.allclose(loss, plain, atol=1e-6)
    loss.backward()
    plain.backward()
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


@pytest.mark.parametrize("temperature", [None, 0.07])
@pytest.mark.parametrize("objective", ["cloze", "next-item"])
def test_the_mean_is_over_labels(objective: str, temperature: float | None) -> None:
    built = model(objective, temperature=temperature)
    task = make_task(batch(), np.random.default_rng(0), TrainSettings(), objective)
    scores = built(torch.from_numpy(task.tokens), None if task.wanted is None else torch.from_numpy(task.wanted))
    labels = torch.from_numpy(task.labels)
    expected = functional.cross_entropy(scores[labels > 0], labels[labels > 0])
    loss = task_loss(built, task, TrainSettings(precision="fp32"), np.random.default_rng(0))
    assert torch.allclose(loss, expected, atol=1e-5)


@pytest.mark.parametrize("temperature", [None, 0.07])
def test_bf16_loss_and_gradient_are_near_those_of_fp32(temperature: float | None) -> None:
    task = make_task(batch(), np.random.default_rng(0), TrainSettings(), "cloze")
    gradients = []
    values = []
    for precision in ("bf16", "fp32"):
        built = model(temperature=temperature)
        loss = task_loss(built, task, TrainSettings(precision=precision), np.random.default_rng(0))  # type: ignore[arg-type]
        loss.backward()
        values.append(float(loss.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in built.parameters() if p.grad is not None]))
    assert abs(values[0] - values[1]) < 0.02 * values[1]
    assert functional.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.995


EVERY = 20_000  # drawn of thirty items: each of them is a candidate, and certainly so


@pytest.mark.parametrize("objective", ["cloze", "next-item"])
def test_sampled_softmax_over_all_items_is_the_full_softmax_with_its_gradients(objective: str) -> None:
    task, values, gradients = make_task(batch(), np.random.default_rng(0), TrainSettings(), objective), [], []
    for settings in (TrainSettings(precision="fp32"), TrainSettings(precision="fp32", loss="sampled", negatives=EVERY)):
        built = model(objective)
        with torch.no_grad():
            built.output_bias.copy_(torch.randn(ITEMS + 1, generator=torch.Generator().manual_seed(1)))
        value = task_loss(built, task, settings, np.random.default_rng(0))
        value.backward()
        values.append(float(value.detach()))
        gradients.append({name: p.grad for name, p in built.named_parameters() if p.grad is not None})
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5), name


def test_repeats_are_learned_from_a_sample_as_from_the_catalogue() -> None:
    torch.manual_seed(0)
    settings = ModelSettings(dimensions=16, max_length=8, dropout=0, objective="next-item", repeat_bias=True)
    features = ItemFeatures(
        id_hashes=torch.from_numpy(hash_values(range(ITEMS + 1))), trained=torch.ones(ITEMS + 1, dtype=torch.bool)
    )
    built = Bert4Rec(features, settings, table_rows=128)
    task = make_task(np.array([[3, 4, 3, 4, 5, 3]]), np.random.default_rng(0), TrainSettings(), "next-item")
    found = []
    for loss in (TrainSettings(precision="fp32"), TrainSettings(precision="fp32", loss="sampled", negatives=EVERY)):
        built.zero_grad()
        task_loss(built, task, loss, np.random.default_rng(0)).backward()
        assert built.encoder.repeats is not None and built.encoder.repeats.weight.grad is not None
        found.append(built.encoder.repeats.weight.grad.clone())
    assert found[0].any() and torch.allclose(*found, atol=1e-6)


def test_a_candidate_stands_for_as_many_items_as_are_left_out() -> None:
    """The sum over candidates of what each stands for expects the number of items, popular or not."""
    items, rng = 40, np.random.default_rng(0)
    shares = np.concatenate([[0], np.arange(1, items + 1) ** -1.0])
    shares /= shares.sum()
    stood, draws = np.zeros(items + 1), 4000
    for _ in range(draws):
        asked = np.array([[1, 2, 0], *rng.choice(items + 1, (4, 3), p=shares)])
        task = Task(tokens=np.zeros_like(asked), wanted=None, labels=asked)
        found = Candidates.draw(task, 8, np.array([1, items + 1]), rng, shares)
        assert np.isin(asked[asked > 0], found.codes).all()
        stood[found.codes] += np.exp(found.correction[0])
    assert stood[1:3].tolist() == [draws, draws]  # the history's own labels
    assert np.allclose(stood[3:] / draws, 1, atol=0.12)


def test_candidates_of_another_catalogue_do_not_compete() -> None:
    labels = np.array([[1, 2, 3], [24, 30, 30]])  # catalogues of the codes 1 to 9, 10 to 20 and 21 to 30
    task = Task(tokens=labels, wanted=None, labels=labels)
    found = Candidates.draw(task, 400, np.array([1, 10, 21, 31]), np.random.default_rng(0))
    assert found.codes.tolist() == list(range(1, 31))
    assert np.isfinite(found.correction[0]).tolist() == [code < 10 for code in found.codes]
    assert np.isfinite(found.correction[1]).tolist() == [code > 20 for code in found.codes]


def test_gbce_without_calibration_is_binary_cross_entropy() -> None:
    torch.manual_seed(0)
    positive, negative = torch.randn(5), torch.randn(5, 4)
    scores = torch.cat([positive[:, None], negative], 1)
    truth = torch.zeros(5, 5)
    truth[:, 0] = 1
    plain = functional.binary_cross_entropy_with_logits(scores, truth)
    assert torch.allclose(gbce(positive, negative, 100, 0.0).mean(), plain, atol=1e-6)


@pytest.mark.parametrize(("calibration", "power"), [(0.0, 1.0), (0.5, 0.52), (1.0, 0.04)])
def test_gbce_raises_the_positive_to_the_power_of_the_paper(calibration: float, power: float) -> None:
    """Four of a hundred negatives are drawn: with full calibration the power is that share, without it is 1."""
    positive, negative = torch.tensor([0.3]), torch.tensor([[0.1, -2.0, 1.0, 0.7]])
    others = -torch.log(1 - negative.sigmoid()).sum()
    expected = (-torch.log(positive.sigmoid() ** power) + others) / 5
    torch.testing.assert_close(gbce(positive, negative, 101, calibration), expected)


def drawn_loss(built: Bert4Rec, task: Task, negatives: list[int], patch: pytest.MonkeyPatch) -> float:
    """gBCE of a task when these items were drawn for each history."""
    patch.setattr(losses, "draw_negatives", lambda *_: np.tile(negatives, (len(task.tokens), 1)))
    settings = TrainSettings(precision="fp32", loss="gbce")
    return float(task_loss(built, task, settings, np.random.default_rng(0)).detach())


@pytest.mark.parametrize("loss", ["sampled", "gbce"])
def test_labels_of_sampled_losses_weigh_what_the_task_says(loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = model()
    tokens, wanted = np.array([[3, MASK, 4, MASK]]), np.array([[1, 3]])

    def of(labels: tuple[int, int], weights: list[float] | None = None) -> float:
        weighed = None if weights is None else np.array([weights], dtype=np.float32)
        task = Task(tokens=tokens, wanted=wanted, labels=np.array([labels]), weights=weighed)
        if loss == "gbce":
            return drawn_loss(built, task, [7, 8], monkeypatch)
        settings = TrainSettings(precision="fp32", loss="sampled", negatives=EVERY)
        return float(task_loss(built, task, settings, np.random.default_rng(0)).detach())

    alone = [of((5, 0)), of((0, 6))]
    found = of((5, 6), [1.0, 3.0])
    assert found == pytest.approx(0.25 * alone[0] + 0.75 * alone[1], rel=1e-5)
    assert found != pytest.approx(np.mean(alone), rel=1e-3)


def test_a_label_that_was_drawn_does_not_compete_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The power and the mean count draws; the label itself adds nothing."""
    built = model()
    task = Task(tokens=np.array([[3, 4, MASK]]), wanted=np.array([[2]]), labels=np.array([[5]]))
    with_label = drawn_loss(built, task, [7, 5, 8], monkeypatch)
    scores = built(torch.tensor([[3, 4, MASK]]), torch.tensor([[2]]))[0, 0].detach()
    expected = gbce(scores[[5]], torch.stack([scores[7], torch.tensor(-torch.inf), scores[8]])[None], ITEMS, 0.75)
    assert with_label == pytest.approx(float(expected), rel=1e-4)


def test_scores_against_negatives_are_those_that_serve_with_the_bias_of_each_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = model()
    with torch.no_grad():
        built.output_bias.copy_(torch.randn(ITEMS + 1))
    task = Task(tokens=np.array([[3, 4, MASK]]), wanted=np.array([[2]]), labels=np.array([[5]]))
    scores = built(torch.tensor([[3, 4, MASK]]), torch.tensor([[2]]))[0, 0].detach()
    expected = gbce(scores[[5]], scores[[7, 8, 9]][None], ITEMS, 0.75)
    assert drawn_loss(built, task, [7, 8, 9], monkeypatch) == pytest.approx(float(expected), rel=1e-4)


def test_gbce_stays_finite_for_extreme_scores() -> None:
    positive = torch.tensor([40.0, -40.0], requires_grad=True)
    negative = torch.tensor([[40.0], [-40.0]], requires_grad=True)
    gbce(positive, negative, 100, 0.75).sum().backward()
    assert positive.grad is not None and positive.grad.isfinite().all()
    assert negative.grad is not None and negative.grad.isfinite().all()


def test_negatives_are_items_that_the_history_lacks() -> None:
    task = make_task(batch(), np.random.default_rng(0), TrainSettings(), "cloze")
    drawn = draw_negatives(task, 500, np.array([1, ITEMS + 1]), np.random.default_rng(0))
    assert drawn.min() >= 1 and drawn.max() <= ITEMS
    for row, tokens in zip(drawn, batch(), strict=True):
        assert np.isin(row, tokens).mean() < 0.01
        assert set(range(1, ITEMS + 1)) - set(tokens) == set(row) - set(tokens)


def test_negatives_come_from_the_historys_own_catalogue() -> None:
    tokens = np.array([[0, 1, 2, 3], [21, 24, 30, 30]])  # catalogues of the codes 1 to 9, 10 to 20 and 21 to 30
    task = make_task(tokens, np.random.default_rng(0), TrainSettings(), "next-item")
    first, last = draw_negatives(task, 400, np.array([1, 10, 21, 31]), np.random.default_rng(0))
    assert set(first) - {1, 2, 3} == {4, 5, 6, 7, 8, 9}
    assert set(last) - {21, 24, 30} == {22, 23, 25, 26, 27, 28, 29}


@pytest.mark.parametrize("loss", ["sampled", "gbce"])
@pytest.mark.parametrize("objective", ["cloze", "next-item"])
def test_sampled_losses_fall(loss: str, objective: str) -> None:
    built = model()
    settings = TrainSettings(loss=loss, negatives=20, precision="fp32")  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    optimizer = torch.optim.Adam(built.parameters(), lr=0.01)
    seen = []
    for _ in range(40):
        value = task_loss(built, make_task(batch(), rng, settings, objective), settings, rng)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        seen.append(float(value.detach()))
    assert np.mean(seen[-5:]) < 0.5 * np.mean(seen[:5])


@pytest.mark.parametrize("loss", ["full", "sampled", "gbce"])
def test_items_without_training_compete_or_are_left_out(loss: str) -> None:
    """Left out, nothing that is theirs alone is moved, and the others' loss is what it is without them."""
    task = make_task(batch(), np.random.default_rng(0), TrainSettings(), "cloze")
    moved = {}
    for cold_negatives in (True, False):
        built = model()
        built.tower.trained[20:] = False
        settings = TrainSettings(precision="fp32", loss=loss, negatives=40, cold_negatives=cold_negatives)  # type: ignore[arg-type]
        value = task_loss(built, task, settings, np.random.default_rng(0))
        value.backward()
        gradient = built.output_bias.grad
        assert gradient is not None and torch.isfinite(gradient).all() and gradient[1:20].any()
        moved[cold_negatives] = bool(gradient[20:].any())
        if loss == "full" and not cold_negatives:
            scores = built(torch.from_numpy(task.tokens), torch.from_numpy(task.wanted))[..., :20]  # type: ignore[arg-type]
            labels = torch.from_numpy(task.labels)
            assert torch.allclose(value, functional.cross_entropy(scores[labels > 0], labels[labels > 0]), atol=1e-5)
    assert moved == {True: True, False: False}


def test_a_history_whose_negatives_are_all_cold_has_a_gradient() -> None:
    built = model()
    built.tower.trained[10:] = False
    task = make_task(batch(), np.random.default_rng(0), TrainSettings(), "cloze")
    settings = TrainSettings(precision="fp32", loss="sampled", negatives=1, cold_negatives=False)
    for seed in range(10):
        built.zero_grad()
        task_loss(built, task, settings, np.random.default_rng(seed)).backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in built.parameters())
