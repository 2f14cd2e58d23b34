"""Policies: shelf, rules and fallback for each set of rules that requests name.

Rules such as `valid` depend on the time, and lists of ids may change, so the follower renews all policies regularly,
beside the requests.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import numpy as np

from recsys.errors import InputError
from recsys.rules.apply import rules_of
from recsys.rules.base import Shop
from recsys.serving.answers import Policy
from recsys.serving.fallback import Fallback, Popular
from recsys.serving.lists import floor
from recsys.serving.recommender import BundleRecommender
from recsys.serving.shop import shop_of
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions

SETS_HELD: Final = 32  # sets of rules; a client may name any
Names = tuple[str, ...] | None  # of the rules that hold; None: all


class Policies:
    """Policies for a bundle and a catalogue, by names of rules."""

    def __init__(
        self,
        settings: Settings | None,
        recommender: BundleRecommender,
        *,
        versions: TableVersions | None = None,
        allowed: np.ndarray | None = None,
        timed: bool = True,
        popular: Popular | None = None,
    ) -> None:
        """Make the policy of all rules.

        Parameters
        ----------
        settings
            The configuration that has the rules; None: there are none.
        versions
            Tables of its warehouse.
        allowed
            bool [V + 1]: items that may be recommended besides; None: every item.
        timed
            Whether the log has times.
        popular
            What sells now by segment; None: what the bundle has counted.

        Raises
        ------
        InputError
            A rule does not fit the catalogue, or the rules leave no item.
        """
        self._settings, self._recommender, self._allowed = settings, recommender, allowed
        self._fallback = recommender.fallback
        if popular is not None:
            self._fallback = Fallback(popular=popular, allowed=recommender.bundle.allowed)
        self._lock = threading.Lock()
        self._shop: Shop | None = None
        if settings is not None and settings.rules.by_name:
            self._shop = shop_of(settings, recommender, datetime.now(UTC), versions=versions, timed=timed)
        self._held: OrderedDict[Names, Policy] = OrderedDict({None: self._made(None)})

    def of(self, names: Names) -> Policy:
        """Return the policy of the rules of these names; None: all of the configuration.

        Raises
        ------
        InputError
            There is no rule of a name, or they leave no item.
        """
        names = names if names is None else tuple(sorted(set(names)))
        with self._lock:
            if names in self._held:
                self._held.move_to_end(names)
                return self._held[names]
        made = self._made(names)
        with self._lock:
            self._held[names] = made
            while len(self._held) > SETS_HELD:
                self._held.pop(next(key for key in self._held if key is not None))
        return made

    def renew(self) -> None:
        """Make all policies again, for the present time; an error leaves the old ones.

        Raises
        ------
        InputError
            As `of`.
        """
        if self._shop is None:
            return
        self._shop = replace(self._shop, now=datetime.now(UTC))
        made = {names: self._made(names) for names in list(self._held)}
        with self._lock:
            self._held.update({names: policy for names, policy in made.items() if names in self._held})

    def _made(self, names: Names) -> Policy:
        recommender, rules, fallback = self._recommender, None, self._fallback
        if self._settings is not None and self._shop is not None:
            rules = rules_of(self._settings, self._shop, names=names)
        elif names:
            raise InputError(f"There is no rule {names[0]!r}: the configuration has none.")
        if fallback is not None and self._allowed is not None:
            fallback = replace(fallback, allowed=fallback.allowed & self._allowed)
        shelf, fallback = floor(recommender, rules, allowed=self._allowed, fallback=fallback)
        return Policy(rules=rules, shelf=shelf, fallback=fallback)
