"""Pre-training: pairs, masks and losses worked out by hand, and what is learnt for a shop never seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from recsys.features.tokens import FIRST, NAME, VALUE, ItemTokens, train_tokenizer
from recsys.models.recformer import pretrain as recformer_pretrain
from recsys.models.recformer.inputs import Input
from recsys.models.recformer.loss import contrastive_loss
from recsys.models.recformer.pretrain import (
    ACCURACY,
    Corpus,
    draw_pairs,
    draw_users,
    hide_words,
    merged,
    pretrain,
)
from recsys.models.recformer.start import Start, start
from recsys.models.recformer.weights import identity
from recsys.settings import RecformerSettings
from recsys.settings.pretrain import PretrainTrainSettings
from recsys.training.checkpoint import Checkpoints

SETTINGS = RecformerSettings(
    dimensions=32, heads=2, layers=1, vocabulary=500, max_items=5, max_tokens=48, dropout=0.0, pooling="items"
)
TRAIN = PretrainTrainSettings(
    steps=60, batch_size=32, learning_rate=3e-3, evaluate_every=20, evaluate_pairs=128, mask_share=0.25
)


def corpus(*histories: list[int]) -> Corpus:
    tokens = ItemTokens(
        tokens=np.arange(3, 9, dtype=np.int32), types=np.full(6, VALUE, np.uint8), offsets=np.arange(8).clip(1) - 1
    )
    items = np.array([code for history in histories for code in history], dtype=np.int32)
    return Corpus(tokens=tokens, items=items, offsets=np.cumsum([0, *map(len, histories)]), sizes=(len(histories),))


def test_the_next_item_is_of_the_later_half_and_the_history_all_before_it() -> None:
    given = corpus([1, 2, 3, 4, 5, 6], [1, 2], [3])
    assert given.askable.tolist() == [0, 1]
    generator = np.random.default_rng(0)
    starts, ends = draw_pairs(given, np.zeros(2000, dtype=np.int64), generator)
    assert (starts == 0).all()
    places, counts = np.unique(ends, return_counts=True)
    assert places.tolist() == [2, 3, 4, 5]  # floor((6 - 1) / 2) to 5
    assert counts.min() > 400
    starts, ends = draw_pairs(given, np.ones(5, dtype=np.int64), generator)
    assert (starts == 6).all() and (ends == 7).all()  # two events: the second, never the first


def test_merged_corpora_keep_their_histories_and_texts() -> None:
    one, other = corpus([1, 2, 3], [4, 5]), corpus([6, 1])
    both = merged([one, other])
    assert both.tokens.size == 12
    assert both.items.tolist() == [1, 2, 3, 4, 5, 12, 7]
    assert both.offsets.tolist() == [0, 3, 5, 7]
    assert both.tokens.lengths[both.items].tolist() == [
        *one.tokens.lengths[one.items],
        *other.tokens.lengths[other.items],
    ]


def test_a_batch_of_one_catalogue_is_of_either_in_proportion_to_its_users() -> None:
    # the second catalogue has three users that give pairs, the first one; a user with one event gives none
    both = merged([corpus([1, 2], [4]), corpus([6, 1], [3], [2, 3], [5, 6])])
    groups = both.askable_by_catalogue
    assert [group.tolist() for group in groups] == [[0], [2, 4, 5]]
    rng = np.random.default_rng(0)
    drawn = [frozenset(draw_users(groups, 3, rng).tolist()) for _ in range(400)]
    assert set(drawn) == {frozenset({0}), frozenset({2, 4, 5})}
    assert 0.65 < drawn.count(frozenset({2, 4, 5})) / 400 < 0.85


def test_events_of_items_without_text_leave_the_corpus() -> None:
    tokens = ItemTokens(tokens=np.array([5, 6]), types=np.array([VALUE] * 2), offsets=np.array([0, 0, 1, 1, 2]))
    found = Corpus.of(tokens, np.array([1, 2, 3, 2, 3], dtype=np.int32), np.array([0, 3, 4, 5]))
    assert found.items.tolist() == [1, 3, 3]
    assert found.offsets.tolist() == [0, 2, 2, 3]


def test_the_contrast_is_cross_entropy_without_pairs_of_the_same_item() -> None:
    generator = torch.Generator().manual_seed(0)
    histories, items = (torch.nn.functional.normalize(torch.randn(4, 8, generator=generator), dim=1) for _ in "ab")
    codes = torch.tensor([7, 8, 7, 9])
    scores = (histories @ items.T / 0.05).double()
    expected = []
    for row in range(4):
        rivals = [j for j in range(4) if j == row or codes[j] != codes[row]]
        expected.append(torch.logsumexp(scores[row, rivals], 0) - scores[row, row])
    found = contrastive_loss(histories, items, codes, 0.05)
    torch.testing.assert_close(found.double(), torch.stack(expected).mean(), rtol=1e-5, atol=1e-6)


def _one_process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    everything = torch.load(f"{folder}/given.pt", weights_only=True)
    own = slice(3 * rank, 3 * rank + 3)
    histories, items = (everything[name][own].clone().requires_grad_() for name in ("histories", "items"))
    loss = contrastive_loss(histories, items, everything["codes"][own], 0.05)
    loss.backward()
    torch.save({"loss": loss.detach(), "histories": histories.grad, "items": items.grad}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.integration
def test_every_process_contrasts_with_the_items_of_all(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    given = {
        name: torch.nn.functional.normalize(torch.randn(6, 8, generator=generator), dim=1)
        for name in ("histories", "items")
    } | {"codes": torch.tensor([1, 2, 3, 1, 5, 6])}
    torch.save(given, tmp_path / "given.pt")
    # no fork: autograd refuses to work in the fork of a process that has used its threads
    mp.start_processes(_one_process, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    histories, items = (given[name].clone().requires_grad_() for name in ("histories", "items"))
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    whole = contrastive_loss(histories, items, given["codes"], 0.05)
    torch.testing.assert_close((found[0]["loss"] + found[1]["loss"]) / 2, whole.detach())
    whole.backward()
    of_all = torch.cat([part["histories"] for part in found]) / 2  # each process's mean is over half the pairs
    torch.testing.assert_close(of_all, histories.grad)
    assert found[0]["items"].abs().sum() > 0  # gradients flow through the own items


def test_whole_words_hide_and_the_first_token_never_does() -> None:
    tokenizer = train_tokenizer(["lamp drill brush valve"] * 30, 290)
    ids = tokenizer.backend.encode("lamp drill zzqqxx brush", add_special_tokens=False).ids
    assert len(ids) > 4  # the unknown word is spelled in pieces
    width = len(ids) + 3
    tokens = np.array([[tokenizer.first, *ids, tokenizer.padding, tokenizer.padding]] * 400)
    types = np.array([[FIRST, NAME, *[VALUE] * (len(ids) - 1), 3, 3]] * 400)
    items = np.array([[0, *[1] * len(ids), 2, 2]] * 400)
    given = Input(tokens=tokens, types=types, places=items, items=items, lengths=np.full(400, width - 2))
    changed, places = hide_words(given, tokenizer, np.random.default_rng(0), 0.3)
    hidden = np.zeros(tokens.size, dtype=bool)
    hidden[places] = True
    hidden = hidden.reshape(tokens.shape)
    assert not hidden[:, 0].any() and not hidden[:, -2:].any()
    assert hidden.any(axis=1).all()  # at least one word of each
    pieces = hidden[:, 3 : 1 + len(ids) - 1]
    assert (pieces.all(axis=1) == pieces.any(axis=1)).all()
    assert 0.2 < pieces.all(axis=1).mean() < 0.5
    fate = changed.tokens[hidden]
    kept = tokens[hidden]
    assert (fate == tokenizer.mask).mean() == pytest.approx(0.8, abs=0.06)
    assert (fate == kept).mean() == pytest.approx(0.1, abs=0.05)
    assert (changed.tokens[~hidden] == tokens[~hidden]).all()
    assert (given.tokens == tokens).all()  # the input itself is left alone


def begin(shops: ModuleType, **changes: Any) -> tuple[Start, list[Corpus]]:
    built = [shops.shop(seed) for seed in range(4)]
    begun = start(SETTINGS.model_copy(update=changes), [s.frame for s in built[:2]], seed=0)
    return begun, [s.corpus(begun.tokenizer) for s in built]


def train(begun: Start, corpora: list[Corpus], **options: Any) -> Any:
    return pretrain(
        begun,
        merged(corpora[:2]),
        [corpora[3]],
        options.pop("settings", TRAIN),
        temperature=0.05,
        accumulate=options.pop("accumulate", 1),
        seed=0,
        **options,
    )


@pytest.mark.parametrize("changes", [{}, {"pooling": "first"}], ids=["items", "first"])
def test_what_two_shops_teach_serves_a_third_one(changes: dict[str, Any], shops: ModuleType) -> None:
    begun, corpora = begin(shops, **changes)
    third = shops.shop(2)
    popular = shops.popularity_ndcg(third)
    untrained = shops.last_item_ndcg(begun.model, corpora[2].tokens, third)
    settings = TRAIN.model_copy(update={"steps": 100, "evaluate_every": 50}) if changes else TRAIN
    outcome = train(begun, corpora, settings=settings)
    zero_shot = shops.last_item_ndcg(begun.model, corpora[2].tokens, third)
    assert zero_shot > popular + 0.2
    assert zero_shot > untrained + 0.1  # by what was learnt, and not by sharing words alone
    assert outcome.history[-1]["contrastive_loss"] < outcome.history[1]["contrastive_loss"]
    assert max(entry[ACCURACY] for entry in outcome.history) > 2 * outcome.history[0][ACCURACY]
    assert outcome.best_step == max(outcome.history, key=lambda entry: entry[ACCURACY])["step"]


def test_a_killed_pretraining_goes_on_to_the_same_weights(tmp_path: Path, shops: ModuleType) -> None:
    settings = TRAIN.model_copy(update={"steps": 12, "evaluate_every": 4})
    begun, corpora = begin(shops, dropout=0.1)
    whole = train(begun, corpora, settings=settings)
    expected = identity(begun.model, begun.tokenizer)

    class Killed(Exception):
        pass

    def kill(entry: dict[str, Any]) -> None:
        if entry["step"] == 8:
            raise Killed

    begun, corpora = begin(shops, dropout=0.1)
    with pytest.raises(Killed):
        train(begun, corpora, settings=settings, on_look=kill, checkpoints=Checkpoints(tmp_path, seconds=0, share=1e9))
    begun, corpora = begin(shops, dropout=0.1)
    resumed: list[int] = []
    again = train(
        begun, corpora, settings=settings, checkpoints=Checkpoints(tmp_path, seconds=0), on_resume=resumed.append
    )
    assert resumed == [8]  # before the look that was not told to its end
    assert identity(begun.model, begun.tokenizer) == expected
    assert [e[ACCURACY] for e in again.history] == [e[ACCURACY] for e in whole.history]


def test_a_step_between_two_looks_is_drawn_again_as_it_was(tmp_path: Path, shops: ModuleType) -> None:
    """Steps of two batches, killed after the fourth of five: one after the look at the third."""
    settings = TRAIN.model_copy(update={"steps": 5, "evaluate_every": 3, "batch_size": 8, "evaluate_pairs": 32})
    begun, corpora = begin(shops, dropout=0.1)
    train(begun, corpora, settings=settings, accumulate=2)
    expected = identity(begun.model, begun.tokenizer)

    class Killed(Exception):
        pass

    class Fragile(Checkpoints):
        left = 4

        def save(self, state: Mapping[str, Any]) -> bool:
            super().save(state)
            self.left -= 1
            if not self.left:
                raise Killed
            return True

    begun, corpora = begin(shops, dropout=0.1)
    with pytest.raises(Killed):
        train(begun, corpora, settings=settings, accumulate=2, checkpoints=Fragile(tmp_path, seconds=0, share=1e9))
    begun, corpora = begin(shops, dropout=0.1)
    resumed: list[int] = []
    train(
        begun,
        corpora,
        settings=settings,
        accumulate=2,
        checkpoints=Checkpoints(tmp_path, seconds=1e9),
        on_resume=resumed.append,
    )
    assert resumed == [4]
    assert identity(begun.model, begun.tokenizer) == expected


def test_a_loss_that_is_no_number_says_in_which_step(shops: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def broken(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return contrastive_loss(*arguments) * (float("nan") if calls == 3 else 1)

    monkeypatch.setattr(recformer_pretrain, "contrastive_loss", broken)
    begun, corpora = begin(shops)
    with pytest.raises(FloatingPointError, match=r"in step 2; lower train.learning_rate = 0.003 or set"):
        train(begun, corpora, accumulate=2)


def test_words_of_a_language_model_stay_as_they_are(shops: ModuleType) -> None:
    begun, corpora = begin(shops)
    begun.model.words.requires_grad_(False)
    words, positions = begun.model.words.weight.clone(), begun.model.positions.weight.clone()
    train(begun, corpora, settings=TRAIN.model_copy(update={"steps": 2, "evaluate_every": 2}))
    assert (begun.model.words.weight == words).all()
    assert (begun.model.positions.weight != positions).any()
