"""The blend: one score out of what every source says of a candidate, with a few weights that anyone can read.

    score(user, item) = w · z  +  z' P z  +  c' C z

z are the sources' features of the pair, c what is known of the user, both standardised. The products say when to trust
which source: text more where counts are few, followers more where the newest item has many. Weights maximise the
likelihood of the item that came next among the user's candidates, a conditional logit: D. McFadden, "Conditional logit
analysis of qualitative choice behavior", 1974. A random part of the candidates stands for all of them without bias
(McFadden, "Modelling the choice of residential location", 1978). The problem is convex: Newton's method ends at the one
best answer, the same on every machine but for rounding.

Shapes: P pairs of user and candidate (those of one user side by side), U users, F features, C context values,
K = F + F (F + 1) / 2 + C F weights, less those of the products that are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Self

import numpy as np

from recsys.loops.choice import loops
from recsys.ranking.base import Choices, Columns, Ranker

PENALTY: Final = 30.0  # half of this times the squared weights is added to the loss; a tenth or ten times is the same
LIMIT: Final = 6.0  # standard deviations at which a feature is cut: products of outliers would decide everything
STEPS: Final = 50  # of Newton's method; it takes about six
ENOUGH: Final = 1e-7  # gain in loss, in nats a user, below which it ends
MANY: Final = 500  # candidates of a user, about
_TINY: Final = 1e-6  # a standard deviation that is none


@dataclass(frozen=True, kw_only=True, eq=False)
class LogLinear(Ranker):
    """Fitted weights.

    Attributes
    ----------
    features, context
        Names, F and C of them.
    mean, scale
        float64 [F + C], features first: z = (x - mean) / scale, cut at +-6. `scale` is infinite where nothing varied.
    alone, pairs, given
        float64 weights: w [F], P [F, F] upper triangular, C [C, F].
    """

    name: ClassVar[str] = "loglinear"

    features: tuple[str, ...]
    context: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    alone: np.ndarray
    pairs: np.ndarray
    given: np.ndarray

    @classmethod
    def fit(cls, choices: Choices, columns: Columns, *, penalty: float = PENALTY) -> Self:
        """The weights under which the items that came next were most likely.

        Parameters
        ----------
        choices
            Users' candidates.
        columns
            Names; products of unpaired features get no weight.
        penalty
            Of squared weights.
        """
        F, C = choices.features.shape[1], choices.context.shape[1]
        both = np.concatenate([choices.features, choices.context], axis=1, dtype=np.float64)
        deviation = both.std(axis=0)
        empty = cls(
            features=columns.features,
            context=columns.context,
            mean=both.mean(axis=0),
            scale=np.where(deviation > _TINY, deviation, np.inf),
            alone=np.zeros(F),
            pairs=np.zeros((F, F)),
            given=np.zeros((C, F)),
        )
        z, c = empty._standardised(choices.features, choices.context)
        left_out = {frozenset(pair) for pair in columns.unpaired}
        weighed = [[frozenset((a, b)) not in left_out for b in columns.features] for a in columns.features]
        one, other = np.nonzero(np.triu(weighed))
        design = np.concatenate([z, z[:, one] * z[:, other], *(c[:, [k]] * z for k in range(C))], axis=1)  # [P, K]
        weights = _newton(design, choices.offsets, choices.chosen, penalty)
        pairs = np.zeros((F, F))
        pairs[one, other] = weights[F : F + len(one)]
        return replace(empty, alone=weights[:F], pairs=pairs, given=weights[F + len(one) :].reshape(C, F))

    def scores(self, features: np.ndarray, context: np.ndarray) -> np.ndarray:
        """Scores float32 [P] of pairs with `features` [P, F] and `context` [P, C]; comparable for one user only."""
        with np.errstate(divide="ignore"):
            standard = self.mean, 1.0 / self.scale, LIMIT
        found: np.ndarray = loops(len(features) // MANY).quadratic(
            features, context, standard, (self.alone, self.pairs, self.given)
        )
        return found

    def table(self) -> dict[str, list[Any]]:
        """The weights as columns: `feature`, `alone`, and its product with each feature and context value."""
        products = np.triu(self.pairs) + np.triu(self.pairs, 1).T
        columns: dict[str, list[Any]] = {"feature": list(self.features), "alone": self.alone.tolist()}
        columns |= {f"x {name}": products[place].tolist() for place, name in enumerate(self.features)}
        return columns | {f"x {name}": self.given[place].tolist() for place, name in enumerate(self.context)}

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Return the arrays of a safetensors file, by name."""
        return {f"blend.{name}": getattr(self, name) for name in ("mean", "scale", "alone", "pairs", "given")}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], features: Sequence[str], context: Sequence[str]) -> Self:
        """The inverse of `to_tensors`; other tensors are ignored.

        Raises
        ------
        ValueError
            The tensors are not of these features.
        """
        arrays = {name: tensors[f"blend.{name}"] for name in ("mean", "scale", "alone", "pairs", "given")}
        if arrays["given"].shape != (len(context), len(features)):
            raise ValueError(f"weights {arrays['given'].shape} do not fit {len(context)} x {len(features)} names")
        return cls(features=tuple(features), context=tuple(context), **arrays)

    def _standardised(self, features: np.ndarray, context: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        F = len(self.features)
        z = np.clip((features - self.mean[:F]) / self.scale[:F], -LIMIT, LIMIT)
        return z, (context - self.mean[F:]) / self.scale[F:]


def _newton(design: np.ndarray, offsets: np.ndarray, chosen: np.ndarray, penalty: float) -> np.ndarray:
    """float64 [K] that minimises the conditional logit's loss over `design` [P, K] plus the penalty."""
    starts, lengths = offsets[:-1], np.diff(offsets)
    came = starts + chosen
    # weights of columns that vary little are held back as much as those of columns that vary a lot
    ridge = penalty * np.maximum(design.var(axis=0), _TINY)  # [K]

    def loss_of(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = design @ weights
        logits -= np.repeat(np.maximum.reduceat(logits, starts), lengths)
        odds = np.exp(logits)
        totals = np.add.reduceat(odds, starts)
        loss = float((np.log(totals) - logits[came]).sum() + 0.5 * ridge @ weights**2)
        return loss, odds / np.repeat(totals, lengths)

    weights = np.zeros(design.shape[1])
    loss, shares = loss_of(weights)
    for _ in range(STEPS):
        weighed = design * shares[:, None]
        means = np.add.reduceat(weighed, starts, axis=0)  # [U, K]
        gradient = means.sum(axis=0) - design[came].sum(axis=0) + ridge * weights
        curvature = design.T @ weighed - means.T @ means + np.diag(ridge)
        direction = np.linalg.solve(curvature, gradient)
        step, promised = 1.0, float(gradient @ direction)
        while True:  # halve until the loss falls as it should; near the end rounding may forbid any step
            new_loss, new_shares = loss_of(weights - step * direction)
            if new_loss <= loss - 1e-4 * step * promised or step < 1e-6:
                break
            step /= 2
        if new_loss >= loss:
            break
        gained, weights, loss, shares = loss - new_loss, weights - step * direction, new_loss, new_shares
        if gained < ENOUGH * len(starts):
            break
    return weights
