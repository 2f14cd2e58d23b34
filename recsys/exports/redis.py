"""A copy as keys of Redis or Valkey, one a user: a JSON object with a list a column, the best item first.

    shop:current              -> v7-3f9a01c2
    shop:v7-3f9a01c2:ann      -> {"item_id": ["x", "y"], "score": [0.9, 0.7]}
    shop:v7-3f9a01c2          -> the same for users that are not known, where the table has a row without a user

A reader asks for the generation and then for the user: two answers, and the second is there as long as the first was
true and a minute more. Keys are written aside, under a generation of their own; the switch sets one key. The
generation of the run before expires after `keep_hours`, and until then `rollback` brings it back. Between nights
`update` sets the keys of some users in the generation that readers see, all of them in one transaction. A generation
that a killed export left is deleted by the next export that finds it idle for ten minutes.

The hash `<prefix>:copies` says of each generation what it is.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import polars as pl
from redis import Redis
from redis import exceptions as failures
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import InputError, RecsysError, first_line
from recsys.exports.base import CandidateTable, ExportReport, RollbackReport, Sink
from recsys.exports.copies import Copy, check_newer, check_owner, copy_of, is_held
from recsys.exports.rows import chosen_columns, rows_of
from recsys.exports.writers import with_words
from recsys.forgetting.sought import Sought
from recsys.settings import RedisExportSettings
from recsys.storage.addresses import masked
from recsys.storage.environment import expanded

USERS_A_COMMAND: Final = 200
COMMANDS_A_ROUND: Final = 20
USERS_AT_ONCE: Final = 10_000  # whose lists change in one transaction, which keeps readers waiting
LEAVE_SECONDS: Final = 60  # in which a reader who knows a generation's name asks for a user
IDLE_SECONDS: Final = 600  # an export that has said nothing for so long was killed
_USER: Final = "\0user"  # column that no configuration can name


@dataclass(frozen=True)
class _Wide:
    """A row a user, with a column for the key."""

    columns: dict[str, str]
    layout: str = "wide"


@dataclass(frozen=True, kw_only=True)
class _Generation:
    """Facts that the server knows of a generation."""

    copy: Copy
    users: int | None  # None: readers have not seen it
    beat: int  # (seconds) the server's time when its export last said something

    def text(self) -> str:
        return json.dumps({"copy": self.copy.text(), "users": self.users, "beat": self.beat})

    @classmethod
    def read(cls, text: str) -> _Generation | None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            given = json.loads(text)
            copy = Copy.read(given["copy"])
            return None if copy is None else cls(copy=copy, users=given["users"], beat=given["beat"])
        return None


class RedisSink(Sink):
    """Keys of Redis; see the module."""

    kind = "redis"
    keys = RedisExportSettings

    @property
    def shape(self) -> RedisExportSettings:
        """The settings."""
        assert isinstance(self.settings, RedisExportSettings)
        return self.settings

    @property
    def prefix(self) -> str:
        """The prefix of all keys."""
        return self.shape.prefix or self.name

    @property
    def place(self) -> str:
        """The keys in words, without a secret."""
        return f"{masked(self._address).partition('?')[0]} {self.prefix}:*"

    @property
    def _address(self) -> str:
        key = f"{self.section}.address"
        address = expanded(self.shape.address, key)
        if not address.startswith(("redis://", "rediss://", "unix://")):
            raise InputError(f"{key} is no address of Redis: it has the form redis://:password@host:port/number.")
        return address

    def check(self) -> None:
        chosen_columns(_Wide(self.shape.columns), self.section)
        with self._server() as server:
            self._seen(server)

    def write(self, candidates: CandidateTable, *, keep: bool = True) -> ExportReport:
        began = time.perf_counter()
        wanted = chosen_columns(_Wide(self.shape.columns), self.section)
        rows = rows_of(candidates, _Wide({USER_ID: _USER, **_without_user(wanted)}), section=self.section)
        copy = copy_of(candidates, rows.files, self.name, self.settings)
        with self._server() as server:
            _, held = self._seen(server)
            check_newer(held, copy, self.place)
            generation = f"v{copy.version}-{uuid.uuid4().hex[:8]}"
            try:
                users = self._load(server, generation, copy, map(members_of(wanted), rows.frames))
                self._switch(server, generation, copy, users, keep)
            except BaseException:
                with contextlib.suppress(failures.RedisError):
                    if server.get(f"{self.prefix}:current") != generation:
                        self._remove(server, generation)
                raise
            self._tidy(server, at_once=not keep)
        return ExportReport(
            path=self.place,
            rows=users,
            format="json",
            layout="wide",
            columns=list(wanted.values()),
            version=copy.version,
            seconds=time.perf_counter() - began,
            kind=self.kind,
        )

    def update(self, candidates: CandidateTable, users: pl.Series, since: CandidateTable) -> ExportReport:
        began = time.perf_counter()
        wanted = chosen_columns(_Wide(self.shape.columns), self.section)
        if len(users) > USERS_AT_ONCE:
            return self.write(candidates)
        shape = _Wide({USER_ID: _USER, **_without_user(wanted)})
        rows = rows_of(candidates, shape, section=self.section, users=users)
        copy = copy_of(candidates, rows.files, self.name, self.settings)
        lists: dict[str, str] = {}
        for frame in map(members_of(wanted), rows.frames):
            lists.update(zip(frame[_USER].cast(pl.String).to_list(), frame["value"].to_list(), strict=True))
        with self._server() as server:
            done = self._replace(server, copy, since, users.cast(pl.String).to_list(), lists)
        if not done:
            return self.write(candidates)
        return ExportReport(
            path=self.place,
            rows=len(lists),
            format="json",
            layout="wide",
            columns=list(wanted.values()),
            version=copy.version,
            seconds=time.perf_counter() - began,
            kind=self.kind,
            updated=len(users),
        )

    def _replace(
        self, server: Any, copy: Copy, since: CandidateTable, users: list[str], lists: Mapping[str, str]
    ) -> bool:
        """Set and delete keys of the generation that readers see, in one transaction; whether it is `since`'s."""
        copies, done = f"{self.prefix}:copies", False

        def replace(pipeline: Any) -> None:
            nonlocal done
            generation, held = self._seen(pipeline)
            check_newer(held, copy, self.place)
            known = self._generations(pipeline).get(generation or "")
            done = known is not None and known.users is not None and is_held(held, since, self.settings)
            if known is None or known.users is None or not done:
                pipeline.multi()
                return
            head = f"{self.prefix}:{generation}:"
            there = sum(pipeline.exists(*(head + user for user in chunk)) for chunk in _chunks(users, 1_000))
            count = known.users - there + len(lists)
            pipeline.multi()
            for pairs in _chunks(lists.items(), USERS_A_COMMAND):
                pipeline.mset({head + user: value for user, value in pairs})
            for gone in _chunks((user for user in users if user not in lists), 1_000):
                pipeline.unlink(*(head + user for user in gone))
            pipeline.hset(copies, generation, _Generation(copy=copy, users=count, beat=0).text())

        server.transaction(replace, f"{self.prefix}:current", copies)
        return done

    def rollback(self) -> RollbackReport:
        with self._server() as server:
            seen, held = self._seen(server)
            if seen is None or held is None:
                raise InputError(f"No export to {self.place} was made yet, so none can be taken back.")
            former = server.get(f"{self.prefix}:former")
            known = self._generations(server).get(former) if former else None
            if former is None or known is None:
                raise self._nothing_older(held)
            back = 0
            for keys in _chunks(self._keys(server, former), 1_000):
                pipeline = server.pipeline(transaction=False)
                for key in keys:
                    pipeline.persist(key)
                pipeline.execute()
                back += server.exists(*keys)
            if back != known.users:
                self._remove(server, former)
                server.delete(f"{self.prefix}:former")
                raise self._nothing_older(held)
            pipeline = server.pipeline(transaction=True)
            pipeline.set(f"{self.prefix}:current", former)
            pipeline.delete(f"{self.prefix}:former")  # doing it again does not undo it
            pipeline.execute()
            self._tidy(server)
        return RollbackReport(path=self.place, version=known.copy.version, instead=held.version, kind=self.kind)

    def present(self) -> bool:
        return self.held() is not None

    def held(self) -> Copy | None:
        with self._server() as server:
            return self._seen(server)[1]

    def _nothing_older(self, held: Copy) -> InputError:
        return InputError(
            f"{self.place} keeps no copy older than that of version {held.version}, or it has expired "
            f"({self.section}.keep_hours = {self.shape.keep_hours:g}); `recsys export CONFIG` writes the newest "
            "candidate table."
        )

    def _load(self, server: Any, generation: str, copy: Copy, frames: Iterator[pl.DataFrame]) -> int:
        """Write the keys of a generation; returns the users."""
        users, head = 0, f"{self.prefix}:{generation}"
        self._note(server, generation, _Generation(copy=copy, users=None, beat=_now(server)))
        for frame in frames:
            names = frame.select((pl.lit(f"{head}:") + pl.col(_USER).cast(pl.String)).fill_null(head)).to_series()
            pairs = zip(names.to_list(), frame["value"].to_list(), strict=True)
            for commands in _chunks(_chunks(pairs, USERS_A_COMMAND), COMMANDS_A_ROUND):
                pipeline = server.pipeline(transaction=False)
                for command in commands:
                    pipeline.mset(dict(command))
                pipeline.execute()
                self._note(server, generation, _Generation(copy=copy, users=None, beat=_now(server)))
            users += len(frame)
        return users

    def _switch(self, server: Any, generation: str, copy: Copy, users: int, keep: bool) -> None:
        """Make a generation the one that readers see, unless a newer one has come in the meantime."""
        copies = f"{self.prefix}:copies"

        def switch(pipeline: Any) -> None:
            seen, held = self._seen(pipeline)
            former = pipeline.get(f"{self.prefix}:former")
            check_newer(held, copy, self.place)
            if not pipeline.hexists(copies, generation):
                raise RecsysError(
                    f"The export to {self.place} said nothing for {IDLE_SECONDS} seconds, and another one has deleted "
                    "its keys; readers see the copy that they saw: run it again."
                )
            if not (held is not None and held.is_release_of(copy)):  # the same release again: the way back stays
                former = seen
            pipeline.multi()
            pipeline.set(f"{self.prefix}:current", generation)
            pipeline.hset(copies, generation, _Generation(copy=copy, users=users, beat=0).text())
            if former and keep:
                pipeline.set(f"{self.prefix}:former", former)
            else:
                pipeline.delete(f"{self.prefix}:former")

        server.transaction(switch, f"{self.prefix}:current", f"{self.prefix}:former")

    def _tidy(self, server: Any, *, at_once: bool = False) -> None:
        """Let the former generation expire, and delete all that is neither it nor the one that readers see.

        Parameters
        ----------
        at_once
            Do not wait for readers that know a generation's name.
        """
        current, former = server.get(f"{self.prefix}:current"), server.get(f"{self.prefix}:former")
        now = _now(server)
        for name, generation in self._generations(server).items():
            if name == former:
                self._expire(server, name, self.shape.keep_hours * 3_600)
            elif name != current and generation.users is not None and not at_once:
                self._expire(server, name, min(LEAVE_SECONDS, self.shape.keep_hours * 3_600))
                server.hdel(f"{self.prefix}:copies", name)
            elif name != current and (generation.users is not None or now - generation.beat > IDLE_SECONDS):
                self._remove(server, name)

        if at_once:
            ours = re.compile(rf"{re.escape(self.prefix)}:(v\d+-[0-9a-f]{{8}})(?::|$)", re.S)
            known = self._generations(server)
            for found in _chunks(map(ours.match, server.scan_iter(match=f"{self.prefix}:v*", count=5_000)), 1_000):
                if waited_for := [of.string for of in found if of and of[1] not in known]:
                    server.unlink(*waited_for)

    def count(self, sought: Sought) -> int | None:
        wanted = chosen_columns(_Wide(self.shape.columns), self.section)
        key_of = re.compile(rf"{re.escape(self.prefix)}:v\d+-[0-9a-f]{{8}}(?::(?P<user>.*))?", re.S)
        found = 0
        with self._server() as server:
            self._seen(server)
            for keys in _chunks(server.scan_iter(match=f"{self.prefix}:v*", count=5_000), 1_000):
                ours = {key: match["user"] for key in keys if (match := key_of.fullmatch(key))}
                theirs = {key for key, user in ours.items() if user in sought.users}
                if sought.items and ITEM_ID in wanted and ours:
                    values = zip(ours, server.mget(list(ours)), strict=True)
                    theirs |= {key for key, value in values if value and _names(value, wanted[ITEM_ID], sought.items)}
                found += len(theirs)
        return found

    def _expire(self, server: Any, generation: str, seconds: float) -> None:
        for keys in _chunks(self._keys(server, generation), 1_000):
            pipeline = server.pipeline(transaction=False)
            for key in keys:
                pipeline.pexpire(key, int(seconds * 1_000))
            pipeline.execute()

    def _remove(self, server: Any, generation: str) -> None:
        for keys in _chunks(self._keys(server, generation), 1_000):
            server.unlink(*keys)
        server.hdel(f"{self.prefix}:copies", generation)

    def _keys(self, server: Any, generation: str) -> Iterator[str]:
        """The keys of a generation that are there, each once."""
        head = f"{self.prefix}:{generation}"
        if server.exists(head):
            yield head
        seen: set[str] = set()
        for key in server.scan_iter(match=f"{head}:*", count=5_000):
            if key not in seen:  # the server may name one twice while its table grows
                seen.add(key)
                yield key

    def _note(self, server: Any, generation: str, known: _Generation) -> None:
        server.hset(f"{self.prefix}:copies", generation, known.text())

    def _generations(self, server: Any) -> dict[str, _Generation]:
        found = {name: _Generation.read(text) for name, text in server.hgetall(f"{self.prefix}:copies").items()}
        return {name: known for name, known in found.items() if known is not None}

    def _seen(self, server: Any) -> tuple[str | None, Copy | None]:
        """Name of the generation that readers see, and which copy it is; refuses what is not ours."""
        current = server.get(f"{self.prefix}:current")
        if current is None:
            return None, None
        text = server.hget(f"{self.prefix}:copies", current)
        known = _Generation.read(text) if text else None
        if known is None:
            raise InputError(
                f"{self.place}: the key {self.prefix}:current holds something that no export has written; choose "
                f"another {self.section}.prefix."
            )
        check_owner(known.copy, self.name, self.place, f"{self.section}.prefix")
        return current, known.copy

    @contextlib.contextmanager
    def _server(self) -> Iterator[Any]:
        address, key = self._address, f"{self.section}.address"
        try:
            server = Redis.from_url(
                address,
                decode_responses=True,
                socket_connect_timeout=15,
                socket_timeout=120,
                retry=Retry(ConstantBackoff(0.1), 1),  # the step has retries of its own
            )
        except ValueError:  # its words repeat what stands at the port's place, which may be of a password
            raise InputError(
                f"{key} is no address of Redis: write signs such as @ and / in a password as %40 and %2F."
            ) from None
        try:
            with contextlib.closing(server):
                yield server
        except (failures.AuthenticationError, failures.AuthorizationError, failures.NoPermissionError) as error:
            raise InputError(f"{self.place}: {_said(error)}; check the user and the password in {key}.") from None
        except (failures.ConnectionError, failures.TimeoutError) as error:
            raise RecsysError(
                f"{self.place} cannot be reached: {_said(error)}; readers see the copy that they saw."
            ) from ConnectionError(type(error).__name__)
        except failures.RedisError as error:
            text = _said(error)
            if text.startswith(("WRONGPASS", "NOAUTH", "NOPERM")):
                raise InputError(f"{self.place}: {text}; check the user and the password in {key}.") from None
            raise RecsysError(f"The export to {self.place} failed, and readers see the old copy: {text}.") from None


def members_of(wanted: dict[str, str]) -> Any:
    """A function of a frame of users: the user, and the JSON object of the columns that are wanted."""

    def shaped(frame: pl.DataFrame) -> pl.DataFrame:
        members = [pl.col(_USER if ours == USER_ID else theirs).alias(theirs) for ours, theirs in wanted.items()]
        return with_words(frame).select(_USER, pl.struct(members).struct.json_encode().alias("value"))

    return shaped


def _names(value: str, member: str, items: Collection[str]) -> bool:
    """Return whether a user's JSON object lists one of the items."""
    return any(str(item) in items for item in json.loads(value).get(member, ()))


def _without_user(columns: dict[str, str]) -> dict[str, str]:
    return {ours: theirs for ours, theirs in columns.items() if ours != USER_ID}


def _now(server: Any) -> int:
    return int(server.time()[0])


def _chunks(values: Any, size: int) -> Iterator[list[Any]]:
    values = iter(values)
    while chunk := list(islice(values, size)):
        yield chunk


def _said(error: BaseException) -> str:
    """Return the server's message, in one line and without the command, which holds users and items."""
    return masked(first_line(error).rpartition("caused error: ")[2])
