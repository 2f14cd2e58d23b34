"""Pre-training on several catalogues at once: what comes next, and which words are hidden.

Source: Li et al., "Text Is All You Need" (KDD 2023, arXiv 2305.13731), section 3.3.2, and its public code. A pair is
a history and the item after it, drawn from the later half of a user's events. Item-item contrast: the softmax over
cosines with the items of all pairs of the batch, in all processes; a pair of the same target is no negative (a
departure). Masked language modelling on both texts: whole words, 15% of them, 80/10/10; by default read for the whole
batch, as published, or for a share of it, which costs that share. Token embeddings of a language model stay as they
are. Which weights are kept is decided by how well the next items of held-out catalogues are told apart.

Shapes: B pairs of a batch, G of all processes, L tokens, E width of the vectors, P hidden tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.features.tokens import FIRST, NAME, ItemTokenizer, ItemTokens, join
from recsys.models.recformer.encode import best_dtype, encode, read_groups
from recsys.models.recformer.inputs import Input, token_lengths
from recsys.models.recformer.loss import contrastive_loss
from recsys.models.recformer.model import Recformer
from recsys.models.recformer.start import Start
from recsys.settings.pretrain import PretrainTrainSettings
from recsys.training.checkpoint import Checkpoints
from recsys.training.distributed import processes
from recsys.training.learner import Learner
from recsys.training.task import Loss, Place, Task
from recsys.training.trainer import Stage, run

OnLook = Callable[[dict[str, Any]], None]  # of an entry of the history
ACCURACY = "val/contrastive_accuracy"


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """Histories over a catalogue.

    Attributes
    ----------
    tokens
        Tokens by item code.
    items, offsets
        int32 [N] codes and int64 [U + 1].
    sizes
        Users of each catalogue, which follow each other.
    """

    tokens: ItemTokens
    items: np.ndarray
    offsets: np.ndarray
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, tokens: ItemTokens, items: np.ndarray, offsets: np.ndarray) -> Corpus:
        """Make a corpus of flat histories, without the events of items that have no text."""
        kept = tokens.lengths[items] > 0
        before = np.concatenate([[0], np.cumsum(kept)])
        return cls(tokens=tokens, items=items[kept], offsets=before[offsets], sizes=(len(offsets) - 1,))

    @property
    def askable(self) -> np.ndarray:
        """int64, users with two events or more: they give pairs."""
        return np.flatnonzero(np.diff(self.offsets) >= 2)

    @property
    def askable_by_catalogue(self) -> list[np.ndarray]:
        """`askable` of each catalogue that has any."""
        users = self.askable
        parts = np.split(users, np.searchsorted(users, np.cumsum(self.sizes[:-1])))
        return [part for part in parts if len(part)]


def merged(corpora: Sequence[Corpus]) -> Corpus:
    """Several corpora as one."""
    shifts = np.cumsum([0, *(corpus.tokens.size for corpus in corpora)])
    events = np.cumsum([0, *(len(corpus.items) for corpus in corpora)])
    return Corpus(
        tokens=join([corpus.tokens for corpus in corpora]),
        items=np.concatenate([c.items + shift for c, shift in zip(corpora, shifts, strict=False)]).astype(np.int32),
        offsets=np.concatenate([[0], *(c.offsets[1:] + start for c, start in zip(corpora, events, strict=False))]),
        sizes=tuple(size for corpus in corpora for size in corpus.sizes),
    )


def draw_users(groups: Sequence[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """So many users of one of the groups, which is drawn in proportion to its size; repeated where it is smaller."""
    sizes = np.array([len(group) for group in groups])
    group = groups[rng.choice(len(groups), p=sizes / sizes.sum())] if len(groups) > 1 else groups[0]
    return rng.choice(group, count, replace=len(group) < count)


def draw_pairs(corpus: Corpus, users: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(starts, ends) int64 [B]: the history is `items[start:end]`, the next item `items[end]`.

    Of n events the next item is one of the places floor((n - 1) / 2) to n - 1, and never the first.
    """
    starts, lengths = corpus.offsets[users], np.diff(corpus.offsets)[users]
    earliest = np.maximum((lengths - 1) // 2, 1)
    return starts, starts + earliest + np.floor(rng.random(len(users)) * (lengths - earliest)).astype(np.int64)


def hide_words(
    given: Input, tokenizer: ItemTokenizer, rng: np.random.Generator, probability: float
) -> tuple[Input, np.ndarray]:
    """An input with whole words hidden, and the int64 [P] places (in the flattened tokens) to be filled.

    Of the hidden tokens 80% become the mask token, 10% another token, 10% stay. The first token never hides, and a
    history with any word hides at least one.
    """
    real = np.arange(given.tokens.shape[1]) < given.lengths[:, None]
    real &= given.types != FIRST
    begins = tokenizer.begins[given.tokens]
    begins[:, 1:] |= (given.types[:, 1:] == NAME) != (given.types[:, :-1] == NAME)
    begins[:, 1:] |= given.items[:, 1:] != given.items[:, :-1]
    word = np.cumsum(begins, axis=1)  # the number of each token's word in its history
    chance = rng.random((len(real), int(word.max(initial=0)) + 1), dtype=np.float32)
    rows = np.arange(len(real))[:, None]
    drawn = np.where(real, chance[rows, word], np.float32(2))  # the same for all tokens of a word
    hidden = real & ((drawn < probability) | (drawn == drawn.min(axis=1, keepdims=True, initial=2)))
    fate = rng.random(given.tokens.shape, dtype=np.float32)
    tokens = np.where(hidden & (fate < 0.8), tokenizer.mask, given.tokens)
    other = rng.integers(0, tokenizer.size, given.tokens.shape)
    tokens = np.where(hidden & (fate >= 0.8) & (fate < 0.9), other, tokens)
    return replace(given, tokens=tokens), np.flatnonzero(hidden)


def masked_loss(
    begun: Start,
    corpus: Corpus,
    starts: np.ndarray,
    ends: np.ndarray,
    rng: np.random.Generator,
    probability: float,
    dtype: torch.dtype,
) -> Tensor:
    """Mean cross-entropy of the hidden tokens of histories, a float32 scalar."""
    model, device = begun.model, begun.model.device
    total, count = torch.zeros((), device=device), 0
    for _, given in read_groups(model, corpus.tokens, corpus.items, starts, ends, exact=False):
        changed, places = hide_words(given, begun.tokenizer, rng, probability)
        states = model.states(changed, dtype=dtype).flatten(0, 1)[torch.from_numpy(places).to(device)]  # [P, D]
        labels = torch.from_numpy(given.tokens.ravel()[places]).to(device)
        logits = begun.head(states, model.words.weight).float()
        total = total + functional.cross_entropy(logits, labels, reduction="sum")
        count += len(places)
    return total / max(count, 1)


@torch.no_grad()
def contrastive_accuracy(
    model: Recformer, corpora: Sequence[Corpus], *, pairs: int, seed: int, dtype: torch.dtype, batch: int = 64
) -> float:
    """Share of histories that are nearest to their own next item among those of a batch from one catalogue.

    `pairs` of each corpus, drawn by the seed; the mean over corpora.
    """
    training = model.training
    model.eval()
    shares = []
    for corpus in corpora:
        rng = np.random.default_rng((seed, 1))
        users = rng.permutation(corpus.askable)[:pairs]
        starts, ends = draw_pairs(corpus, users, rng)
        histories = encode(model, corpus.tokens, corpus.items, starts, ends, dtype=dtype, exact=True)
        items = encode(model, corpus.tokens, corpus.items, ends, ends + 1, dtype=dtype, exact=True, as_items=True)
        codes = torch.from_numpy(corpus.items[ends].astype(np.int64)).to(model.device)
        right = 0
        for first in range(0, len(users), batch):
            part = slice(first, first + batch)
            scores = histories[part] @ items[part].T
            same = codes[part][:, None] == codes[part][None, :]
            right += int((scores.masked_fill(same, -2).amax(1) < scores.diagonal()).sum())
        shares.append(right / max(len(users), 1))
    model.train(training)
    return float(np.mean(shares))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pretrained:
    """Outcome of a pre-training; model and head end with the best weights.

    Attributes
    ----------
    best_step
        The optimizer's, 0: none was better than the beginning.
    history
        An entry each time the held-out catalogues were looked at.
    """

    best_step: int
    steps: int
    history: list[dict[str, Any]]


def pretrain(
    begun: Start,
    corpus: Corpus,
    held_out: Sequence[Corpus],
    settings: PretrainTrainSettings,
    *,
    temperature: float,
    accumulate: int,
    seed: int,
    on_look: OnLook | None = None,
    checkpoints: Checkpoints | None = None,
    on_resume: Callable[[int], None] | None = None,
) -> Pretrained:
    """Pre-train until the steps are over or the held-out catalogues gain nothing.

    Parameters
    ----------
    begun
        Its model and head are changed in place; they end with the best weights.
    corpus
        What is learnt from, several catalogues merged.
    held_out
        Never learnt from; empty: the last weights are the best.
    accumulate
        Batches to a step.
    on_look
        Called with an entry of the history every `settings.evaluate_every` steps and after the last one; after a
        resume first with the earlier entries.
    on_resume
        Called with the steps that were done.

    Raises
    ------
    FloatingPointError
        The loss is no longer finite.
    """
    task = _Pairs(begun, corpus, held_out, settings, temperature, accumulate, seed)
    learner = partial(Learner.of, task.model, settings, steps=settings.steps, accumulate=accumulate)
    done = run(
        task,
        [Stage(-(-settings.steps // settings.evaluate_every), learner, settings.patience)],
        checkpoints=checkpoints,
        on_entry=on_look,
        on_resume=on_resume and (lambda epoch, step: on_resume(task.steps(epoch, step))),
    )
    history = done.history  # its first entry is that of no step
    return Pretrained(best_step=history[done.best_epoch]["step"], steps=history[-1]["step"], history=history)


@dataclass(eq=False)
class _Pairs(Task[int]):
    """Pairs of users that are drawn in each step, without an end: an epoch is the steps between two looks."""

    begun: Start
    corpus: Corpus
    held_out: Sequence[Corpus]
    settings: PretrainTrainSettings
    temperature: float
    accumulate: int
    seed: int

    def __post_init__(self) -> None:
        self.model = nn.ModuleDict({"model": self.begun.model, "head": self.begun.head}).to(self.begun.model.device)
        self.primary, self.dtype = ACCURACY, best_dtype(self.settings.precision)
        every = [self.corpus.askable]
        self.groups = self.corpus.askable_by_catalogue if self.settings.one_catalogue else every

    def steps(self, epoch: int, batches: int) -> int:
        """Count the steps of the optimizer that are done after so many batches of an epoch."""
        return max(epoch - 1, 0) * self.settings.evaluate_every + batches // self.accumulate

    def batches(self, at: Place) -> range:
        left = self.settings.steps - self.steps(at.epoch, 0)
        return range(self.accumulate * min(left, self.settings.evaluate_every))

    def draws(self, at: Place) -> tuple[int, ...]:
        done = at.step - 1
        return self.seed, self.steps(at.epoch, done), done % self.accumulate, processes()[0]

    def loss(self, batch: int, rng: np.random.Generator) -> Loss:
        """The contrastive loss and, if it counts, that of hidden words in histories plus that in next items."""
        model, corpus, settings, dtype = self.begun.model, self.corpus, self.settings, self.dtype
        starts, ends = draw_pairs(corpus, draw_users(self.groups, settings.batch_size, rng), rng)
        histories = encode(model, corpus.tokens, corpus.items, starts, ends, dtype=dtype)
        items = encode(model, corpus.tokens, corpus.items, ends, ends + 1, dtype=dtype, as_items=True)
        codes = torch.from_numpy(corpus.items[ends].astype(np.int64)).to(model.device)
        contrast = contrastive_loss(histories, items, codes, self.temperature)
        learnt, masked = [contrast], torch.zeros_like(contrast)
        if settings.mask_weight:
            few = slice(0, max(1, round(settings.mask_share * len(ends))))
            of_histories, of_items = (
                masked_loss(self.begun, corpus, first, last, rng, settings.mask_probability, dtype)
                for first, last in ((starts[few], ends[few]), (ends[few], ends[few] + 1))
            )
            masked = of_histories + of_items
            learnt.append(settings.mask_weight * masked)
        tokens = int(token_lengths(corpus.tokens, corpus.items, starts, ends, model.shape.limits).sum())
        return Loss(learnt=learnt, told={"contrastive_loss": contrast, "masked_loss": masked}, tokens=tokens)

    def metrics(self, at: Place) -> dict[str, float] | None:
        if not self.held_out:
            return None
        pairs = self.settings.evaluate_pairs
        found = contrastive_accuracy(self.begun.model, self.held_out, pairs=pairs, seed=self.seed, dtype=self.dtype)
        return {ACCURACY: found}

    def beginning(self) -> Iterator[dict[str, Any]]:
        yield {"step": 0}

    def head(self, at: Place) -> dict[str, Any]:
        return {"step": self.steps(at.epoch, at.step)}

    def named(self, at: Place) -> str:
        return f"step {self.steps(at.epoch, at.step + self.accumulate - 1)}"
