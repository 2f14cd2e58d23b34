"""Histories of all users of the log in memory, so that a request with a user id reads no table."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import polars as pl

from recsys.bundles.bundle import Bundle
from recsys.columns import EVENT, INTERACTIONS, USER_ID, WITHDRAWAL
from recsys.data.left_out import histories_of
from recsys.data.sequences import Sequences
from recsys.serving.fallback import Popular
from recsys.storage.warehouse import TableVersions, scan


@dataclass(frozen=True, kw_only=True, eq=False)
class LogHistories:
    """Histories by user.

    Attributes
    ----------
    histories
        Ascending by user, in a bundle's codes: 4 bytes an event, 8 more where the log has times.
    popular
        What sells now by segment, counted of all users of the log; None: there are no segments.
    """

    histories: Sequences
    popular: Popular | None = None

    @classmethod
    def read(cls, root: str, bundle: Bundle, versions: TableVersions, segment: str | None = None) -> LogHistories:
        """Read the log of a warehouse as the bundle understands it.

        Parameters
        ----------
        segment
            User attribute that makes the segments.

        Raises
        ------
        RecsysError
            A table is damaged.
        """
        log = scan(root, INTERACTIONS, versions.interactions)
        users = (
            log.filter(pl.col(EVENT) != WITHDRAWAL)
            .select(pl.col(USER_ID).unique())
            .collect(engine="streaming")[USER_ID]
            .sort()
        )
        settings = bundle.settings.model_copy(update={"warehouse": root})
        histories = histories_of(settings, versions, bundle.vocabulary, users).histories
        popular = None if segment is None else Popular.fit(histories, bundle.vocabulary.size, segment)
        return cls(histories=histories, popular=popular)

    def of(self, user: str) -> Sequences | None:
        """Return the history of one user; None: he is not in the log."""
        users = self.histories.users
        key: str | int = user
        if users.dtype == pl.Int64:
            if not (user.isascii() and user.removeprefix("-").isdigit() and len(user) < 20):
                return None
            key = int(user)
        row = bisect_left(users, key)  # polars' own search takes ten times as long for one value
        if row >= len(users) or users[row] != key:
            return None
        whole, (start, stop) = self.histories, self.histories.offsets[row : row + 2].tolist()
        return Sequences(
            users=users[row : row + 1],
            items=whole.items[start:stop],
            offsets=whole.offsets[row : row + 2] - start,
            times=None if whole.times is None else whole.times[start:stop],
            attributes=None if whole.attributes is None else whole.attributes[row : row + 1],
            context=None if whole.context is None else whole.context[start:stop],
        )
