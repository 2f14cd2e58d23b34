"""What having had an item says about having it next: a learned number for each step since then, added to its score.

An item's own text is the nearest to itself, so a model that reads texts alone places what the user has just had first,
whether people come back for it or not. It could move its queries away, but only together with all that is alike. The
number says it directly; it belongs to no item, so it passes to other catalogues. In kind the copy path of "RepeatNet"
(AAAI 2019, arXiv 1812.02646), reduced to one number a step.

Shapes: U users, L events that the encoder reads, V items, R pairs of a question and an event before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recsys.columns import PADDING
from recsys.features.tokens import spans

# the weight is this many times the parameter, which so moves as fast as a softmax's scores do and not as a matrix's
STEP = 10.0

ScoreBlock = Callable[[int, int], np.ndarray]


class Repeats(nn.Module):
    """The numbers by steps back; they begin at zero."""

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(max_length))

    def forward(self) -> Tensor:
        """float32 [L]: what is added to the score of an item of the history, the newest event's first."""
        return STEP * self.weight


@dataclass(frozen=True, kw_only=True, eq=False)
class Earlier:
    """Events that were read before a question was asked.

    Attributes
    ----------
    questions
        int64 [R], ascending: the number of the question.
    codes
        int64 [R]: the item that the user had.
    back
        int64 [R]: how many steps before the question's own event; 0 is that event.
    """

    questions: Tensor
    codes: Tensor
    back: Tensor

    def entries(self, start: int, stop: int, width: int) -> tuple[Tensor, Tensor]:
        """(place, back): for questions `start` to `stop`, places in their scores [stop - start, width] laid flat."""
        first, last = torch.searchsorted(self.questions, torch.tensor([start, stop], device=self.questions.device))
        part = slice(int(first), int(last))
        return (self.questions[part] - start) * width + self.codes[part], self.back[part]


def earlier_events(tokens: Tensor, asked: Tensor) -> Earlier:
    """Of the questions at which `asked` [B, L] is true, row by row, all events of `tokens` int64 [B, L] up to each."""
    user, place = asked.nonzero(as_tuple=True)
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    read = (columns <= place[:, None]) & (tokens[user] != PADDING)  # [P, L]
    question, column = read.nonzero(as_tuple=True)
    return Earlier(questions=question, codes=tokens[user[question], column], back=place[question] - column)


def newest_events(
    items: np.ndarray, starts: np.ndarray, ends: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The newest events of histories, one after the other, each history's newest first.

    Parameters
    ----------
    items
        int [N] codes, oldest first.
    starts, ends
        int64 [P], the slice of each history.
    most
        Events of a history.

    Returns
    -------
    rows, codes, back
        int64 [R]: which history, the item, and the steps back; 0 is the newest event.
    """
    counts = np.minimum(ends - starts, most)
    rows = np.repeat(np.arange(len(ends)), counts)
    back = spans(np.zeros_like(counts), counts)
    return rows, items[ends[rows] - 1 - back].astype(np.int64), back


def bonuses(items: np.ndarray, offsets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers of each user's newest L events, one entry an event: an item had twice has two.

    Parameters
    ----------
    items, offsets
        int32 [N] and int64 [U + 1], the histories.
    weights
        float32 [L] from `Repeats`.

    Returns
    -------
    users, codes, values
        int64 [R], ascending; int64 [R]; float32 [R].
    """
    users, codes, back = newest_events(items, offsets[:-1], offsets[1:], len(weights))
    return users, codes, weights[back]


def with_repeats(
    score_block: ScoreBlock, items: np.ndarray, offsets: np.ndarray, weights: np.ndarray | None
) -> ScoreBlock:
    """Scores with the numbers of the history's own items added; `weights` None: the scores as they are."""
    if weights is None:
        return score_block
    users, codes, values = bonuses(items, offsets, weights)

    def scores(start: int, stop: int) -> np.ndarray:
        block = score_block(start, stop)
        part = slice(*np.searchsorted(users, [start, stop]))
        np.add.at(block, (users[part] - start, codes[part]), values[part])
        return block

    return scores
