"""Follow the champion: a new bundle is loaded beside the old one and replaces it in one assignment.

Each request reads the serving state once, so one bundle answers it from end to end. A bundle that cannot be loaded is
refused with one sentence in the log, the old one goes on, and the new one is tried again after a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final, Protocol

from recsys.bundles.manifest import read_manifest
from recsys.bundles.mirror import warehouse_of
from recsys.bundles.store import BUNDLES, find_bundle
from recsys.columns import RUN
from recsys.errors import InputError, RecsysError, first_line
from recsys.releases.record import bundle_folder, champion
from recsys.service.metrics import Metrics
from recsys.service.served import Served, Target, load
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.storage.addresses import masked
from recsys.storage.warehouse import commit_metadata, latest_version, table_path
from recsys.table.naming import candidates_table

_LOGGER: Final = logging.getLogger("recsys")
RULES_HOLD: Final = 60.0  # (s) between two renewals of the rules: some depend on the time
REFUSED_FOR: Final = 60.0  # (s) until an unsound target is loaded again: a list may be back, or the bundle repaired


class Source(Protocol):
    """Names the bundle and the table to serve."""

    def target(self) -> Target | None:
        """Return the present target; None: there is no release yet."""


class ChampionSource:
    """Champion of a configuration."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def target(self) -> Target | None:
        """See `Source`."""
        release = champion(self.settings)
        if release is None:
            return None
        root, table, version = self.settings.warehouse, release.table_name, release.version
        if commit_metadata(root, table).get(RUN) == release.run:  # clean-up, forgetting and refresh make versions, too
            version = latest_version(root, table) or version
        return Target(
            bundle=bundle_folder(self.settings, release.bundle),
            root=root,
            settings=self.settings,
            run=release.run,
            released=release.at,
            table=table_path(root, table),
            version=version,
        )


class BundleSource:
    """Bundle of a folder, or the newest of a name, with the warehouse around it where there is one."""

    def __init__(self, path: str | Path) -> None:
        self.path = path

    def target(self) -> Target | None:
        """See `Source`."""
        folder = find_bundle(self.path).resolve()
        if folder.parent.name != BUNDLES:
            return Target(bundle=folder)
        name = str(read_manifest(folder)["name"])
        root = warehouse_of(folder)
        table = candidates_table(root, name)
        version = latest_version(root, table)
        return Target(
            bundle=folder,
            root=root,
            table=None if version is None else table_path(root, table),
            version=version,
        )


class Follower:
    """Holder of the serving state, which it keeps up with its source.

    Attributes
    ----------
    current
        Serving state; None: nothing is served yet.
    """

    def __init__(self, source: Source, metrics: Metrics) -> None:
        self.source, self.metrics = source, metrics
        self.current: Served | None = None
        self._refused: object = None  # unsound target
        self._refused_at = 0.0
        self._told: object = None  # last refusal in the log
        self._renewed = time.monotonic()

    def start(self) -> None:
        """Load the first target.

        Raises
        ------
        RecsysError
            It cannot be loaded.
        """
        target = self.source.target()
        if target is not None:
            self._switch(load(target))

    def check(self) -> None:
        """Poll the source once, and switch to its target; one that cannot be loaded is refused for a minute."""
        seen: object = None
        try:
            target = self.source.target()
            if target is None:
                return
            now = self.current
            seen = (target, target.written, target.versions)
            self._renew_rules()
            if now is not None and seen == (now.target, now.written, now.versions):
                return
            if seen == self._refused and time.monotonic() - self._refused_at < REFUSED_FOR:
                return
            self._switch(load(target, now))
            self._told = None
        except Exception as error:  # of any kind: the old bundle goes on
            expected = isinstance(error, RecsysError)
            reason = masked(str(error) if expected else f"{type(error).__name__}: {first_line(error)}.")
            self._refused, self._refused_at = (seen if isinstance(error, InputError) else None), time.monotonic()
            if self._told == (seen, reason):
                return
            self._told = (seen, reason)
            self.metrics.refused.inc()
            goes_on = "nothing is served yet" if self.current is None else f"{self.current.label} goes on"
            _LOGGER.warning("Refused to switch, %s: %s", goes_on, reason)

    async def follow(self, seconds: float) -> None:
        """Poll every so many seconds, in a thread of its own."""
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self.check)

    def _renew_rules(self) -> None:
        if self.current is not None and time.monotonic() - self._renewed > RULES_HOLD:
            self._renewed = time.monotonic()
            try:
                self.current.policies.renew()
            except RecsysError as error:
                _LOGGER.warning("The rules stay as they were: %s", masked(str(error)))

    def _switch(self, served: Served) -> None:
        before, self.current = self.current, served  # running requests keep the state that they read
        if before is None or before.recommender is not served.recommender:
            self.metrics.answering(served.label, served.recommender.bundle.kind, served.target.run)
            if before is not None:
                self.metrics.switches.inc()
                _LOGGER.info("Switched from %s to %s.", before.label, served.label)


def source_of(name: str, overrides: tuple[str, ...] = ()) -> Source:
    """Return the source of a configuration file, or of a bundle's folder or name.

    Raises
    ------
    InputError
        There is no such configuration or bundle.
    """
    if name.endswith(".toml") or Path(name).is_file():
        return ChampionSource(load_settings(name, overrides))
    find_bundle(name)
    return BundleSource(name)
