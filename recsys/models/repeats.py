"""Repeats: a learned bias for items already in the history, by the steps since, added to their scores.

An item's own text is the nearest to itself, so a model that reads texts alone places what the user has just had first,
whether people come back for it or not. It could move its queries away, but only together with all that is alike. The
number says it directly; it belongs to no item, so it passes to other catalogues. In kind the copy path of "RepeatNet"
(AAAI 2019, arXiv 1812.02646), reduced to one number a step.

Shapes: U users, L events that the encoder reads, V items, R pairs of a question and an event before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.columns import PADDING

# the weight is this many times the parameter, which so moves as fast as a softmax's scores do and not as a matrix's
STEP = 10.0


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

    def among(self, codes: Tensor) -> Earlier:
        """The events of items that are among `codes`, int64 [C] ascending, each by its place there."""
        place = torch.searchsorted(codes, self.codes).clamp_(max=len(codes) - 1)
        kept = codes[place] == self.codes
        return Earlier(questions=self.questions[kept], codes=place[kept], back=self.back[kept])


def earlier_events(tokens: Tensor, asked: Tensor) -> Earlier:
    """Return all events of `tokens` int64 [B, L] up to each question, where `asked` [B, L] is true, row by row."""
    user, place = asked.nonzero(as_tuple=True)
    columns = torch.arange(tokens.shape[1], device=tokens.device)
    read = (columns <= place[:, None]) & (tokens[user] != PADDING)  # [P, L]
    question, column = read.nonzero(as_tuple=True)
    return Earlier(questions=question, codes=tokens[user[question], column], back=place[question] - column)
