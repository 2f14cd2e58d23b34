"""Side information of a history: attributes of its user, and the context of each event.

Both are look-ups in the item tower's table, hashed by features/encode.py. The look-ups of a user, and those of an
event, are concatenated and projected, which is the sum of one projection a feature. The user's vector is added to the
encoder's input at every position, [MASK] included; an event's vector is added where its item is visible. Where an item
is hidden, its context is not known either when one asks for what comes next, so nothing is added there. Training,
validation, evaluation and serving all take what they add from `Side.batch`.

Shapes: U users of a data set, N events of all their histories, B users of a batch, L positions, S context features,
D width of the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recsys.features.declaration import Feature
from recsys.features.device import sent
from recsys.features.hashing import PADDING as NO_VALUE
from recsys.features.hashing import hash_values
from recsys.features.multiplexed import FeatureBatch, MultiplexedFeatures, by_feature
from recsys.features.tables import Table
from recsys.models.layers import Linear

MASK = -1  # token of a hidden position; never a row of the item table, so it can never be recommended


@dataclass(frozen=True, kw_only=True)
class SideFeatures:
    """Features that a model reads besides items.

    Attributes
    ----------
    users, context
        Features of users, and of events; none of the latter is multi-valued.
    rows
        Of a table that gives every value of the training part rows of its own.
    """

    users: tuple[Feature, ...] = ()
    context: tuple[Feature, ...] = ()
    rows: int = 0

    def __bool__(self) -> bool:
        return bool(self.users or self.context)

    @property
    def lookups(self) -> int:
        """Number of look-ups of all features together."""
        return sum(feature.lookups for feature in (*self.users, *self.context))


@dataclass(frozen=True, kw_only=True, eq=False)
class SideBatch:
    """Hashed side features of B histories: users, B rows, and the context int64 [B, L, S] of their events."""

    users: FeatureBatch | None
    context: Tensor | None

    def to(self, device: torch.device) -> SideBatch:
        """The same on a device."""
        return SideBatch(
            users=None if self.users is None else self.users.to(device),
            context=None if self.context is None else sent(self.context, device),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """Hashed side features of U histories with N events.

    Attributes
    ----------
    users
        U rows; None: the model reads no attributes of users.
    context
        int64 [N + 1, S]; event `n`, counted from 1, has row `n`, and row 0 is of no event. None: it reads no context.
    """

    users: FeatureBatch | None = None
    context: Tensor | None = None

    def values(self, features: SideFeatures) -> dict[str, Tensor]:
        """Each value of each feature, by its name, once: int64 [T]."""
        found = {} if self.users is None else by_feature(features.users, self.users)
        if self.context is not None:
            found |= by_feature(features.context, _of_events(self.context[1:]))
        return {name: hashes.unique() for name, (hashes, _) in found.items()}

    def batch(self, tokens: np.ndarray, events: np.ndarray, users: np.ndarray) -> SideBatch:
        """Side features of some histories as the encoder reads them.

        Parameters
        ----------
        tokens
            int64 [B, L], MASK where an item is hidden.
        events
            int64 [B, L]: numbers, from 1, of the events at these positions; 0 at padding.
        users
            int64 [B], from 0.
        """
        visible = torch.from_numpy(np.where(tokens == MASK, 0, events))
        return SideBatch(
            users=None if self.users is None else self.users.take(torch.from_numpy(users)),
            context=None if self.context is None else self.context[visible],
        )


def unknown_side(features: SideFeatures, users: int, events: int) -> Side:
    """The side features of histories of which nothing is known but their items: all missing."""
    missing = int(hash_values([None])[0])
    of_users = None
    if features.users:
        several = sum(feature.kind == "multi" for feature in features.users)
        of_users = FeatureBatch(
            values=torch.full((users, len(features.users) - several), missing),
            bags=torch.full((users * several,), missing),
            offsets=torch.arange(users * several + 1),
        )
    context = torch.full((events + 1, len(features.context)), missing)
    context[0] = NO_VALUE
    return Side(users=of_users, context=context if features.context else None)


class SideVectors(nn.Module):
    """Vectors of side features.

    Parameters
    ----------
    features
        At least one.
    table
        The item tower's; its weights are not among this module's.
    dimensions
        D.
    """

    def __init__(self, features: SideFeatures, table: Table, dimensions: int) -> None:
        super().__init__()
        self.features = features
        self.users = _Projected(features.users, table, dimensions) if features.users else None
        self.context = _Projected(features.context, table, dimensions) if features.context else None

    def forward(self, batch: SideBatch) -> Tensor:
        """[B, L, D], or [B, 1, D] where no context is read: what is added to the vectors of items and [MASK].

        At padding, where nothing is read, it means nothing.
        """
        added: Tensor | None = None
        if self.users is not None:
            assert batch.users is not None
            added = self.users(batch.users)[:, None]
        if self.context is not None:
            assert batch.context is not None
            of_events = self.context(_of_events(batch.context))
            added = of_events if added is None else added + of_events
        assert added is not None
        return added


def _of_events(context: Tensor) -> FeatureBatch:
    """int64 [..., S] as a batch without multi-valued features."""
    return FeatureBatch(values=context, bags=context.new_zeros(0), offsets=context.new_zeros(1))


class _Projected(nn.Module):
    """Look-ups of features, side by side, through one matrix."""

    def __init__(self, features: tuple[Feature, ...], table: Table, dimensions: int) -> None:
        super().__init__()
        self.look_ups = MultiplexedFeatures(features, table, owned=False)
        self.project = Linear(self.look_ups.width, dimensions, bias=False)
        nn.init.normal_(self.project.weight, std=0.02)

    def forward(self, batch: FeatureBatch) -> Tensor:
        """[..., D]; zeros where every value is padding."""
        projected: Tensor = self.project(self.look_ups(batch))
        return projected
