"""A generated shop that lives for a year: a log file a day, a catalogue that changes daily, and planted faults.

Items form groups and follow one another inside their group. Users have a group that they drift away from; groups come
into fashion and go out of it. Each day brings new items and users, and some items leave. All of it comes from the seed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

START: Final = datetime(2025, 11, 3, tzinfo=UTC)  # midnight before the first day; a past moment, as files have times
GROUPS: Final = 24
FOLLOW, FASHION = 0.5, 0.3  # shares of events: what follows the last item, what the user's group likes; the rest: any
DRIFT: Final = 1 / 40  # chance that an active user moves to a neighbouring group
CANCELLED: Final = 0.01  # share of a day's events that a later row takes back
WORDS: Final = ("red", "blue", "small", "large", "warm", "light", "soft", "strong", "plain", "new", "old", "fine")
BACK: Final = 3  # (days) a late file is of


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A planted fault: its kind, its day, and words that a sentence which saw it contains."""

    kind: str
    day: int
    seen_by: tuple[str, ...]


# kind, words of the sentence that sees it
KINDS: Final = {
    "corrections": ("corrected the weight",),
    "late file": ("late by more than",),
    "doubled day": ("that repeat",),
    "missing day": ("newest event",),
    "broken day": ("rejected", "rows of interactions"),
    "clock ahead": ("rejected", "rows of interactions"),
    "clock at zero": ("look wrong", "late by more than"),
    "clock in milliseconds": ("milliseconds",),
    "half a day": ("far fewer than", "drift of"),
}


def planted(nights: int) -> dict[int, Fault]:
    """The faults by day: from the third day on in a short run, spread over a long one."""
    first, step = (2, 1) if nights < 40 else (20, max(1, (nights - 25) // len(KINDS)))
    days = {first + step * place: kind for place, kind in enumerate(KINDS)}
    return {day: Fault(kind=kind, day=day, seen_by=KINDS[kind]) for day, kind in days.items() if day <= nights}


@dataclass
class Shop:
    """The shop's state; `write_past` first, then `write_day` for each day.

    Attributes
    ----------
    folder
        Of `log/*.csv` and `items.jsonl`.
    """

    folder: Path
    users: int = 800
    items: int = 300
    events_a_day: int = 200
    past_days: int = 60
    new_users: int = 3  # a day
    new_items: int = 1  # a day
    leaving_items: float = 0.5  # a day
    seed: int = 0
    faults: dict[int, Fault] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng((self.seed, 0))
        self._place = rng.integers(0, GROUPS, self.users).tolist()  # of each user
        self._last: list[int] = [-1] * self.users  # item
        self._active = (rng.pareto(1.5, self.users) + 0.2).tolist()
        self._group: list[int] = []
        self._appeal: list[float] = []
        self._title: list[str] = []
        self._gone: set[int] = set()
        self._held: list[pl.DataFrame] = []  # rows of earlier days that a late file brings
        self._plain: dict[int, pl.DataFrame] = {}
        for _ in range(self.items):
            self._add_item(rng)
        (self.folder / "log").mkdir(parents=True, exist_ok=True)

    def write_past(self) -> int:
        """Write the days before the first night into one file; returns its rows."""
        rows = pl.concat([self._day(day) for day in range(-self.past_days + 1, 1)])
        self._write(rows, 0, "past")
        self._write_catalogue()
        return len(rows)

    def write_day(self, day: int) -> int:
        """Write a day's file, with its fault; returns the sound events that the day had."""
        rows = self._day(day)
        self._plain[day] = rows
        fault = self.faults.get(day)
        kind = None if fault is None else fault.kind
        rng = np.random.default_rng((self.seed, 2, day))
        late_day = next((one.day for one in self.faults.values() if one.kind == "late file"), None)
        if late_day is not None and late_day - BACK <= day < late_day:  # a part of these days is held back
            held = pl.Series(rng.random(len(rows)) < 0.3)
            self._held.append(rows.filter(held))
            rows = rows.filter(~held)
        if kind == "corrections":
            self._write(self._corrections(day, rng), day, "corrections")
            self._title = [f"{title} x" if rng.random() < 0.03 else title for title in self._title]
        elif kind == "late file":
            self._write(pl.concat(self._held), day, "late")
        elif kind == "doubled day":
            self._write(self._plain[day - 1], day, "copy")
        elif kind == "broken day":
            rows = rows.with_columns(user_id=pl.lit(""), timestamp=pl.lit("n/a"))
        elif kind == "clock ahead":
            ahead = pl.Series(rng.random(len(rows)) < 0.4)
            rows = rows.with_columns(
                timestamp=pl.when(ahead).then(pl.col("timestamp") + 40 * 86_400).otherwise("timestamp")
            )
        elif kind == "clock at zero":
            rows = rows.with_columns(
                timestamp=pl.when(pl.int_range(pl.len()) % 10 == 0).then(86_400).otherwise("timestamp")
            )
        elif kind == "clock in milliseconds":
            rows = rows.with_columns(timestamp=pl.col("timestamp") * 1_000)
        elif kind == "half a day":
            rows = rows.head(len(rows) // 2)  # the export ended at noon
        if kind != "missing day":
            self._write(rows, day, "day")
        broken = self.faults.get(day - 1)
        if broken is not None and broken.kind in ("broken day", "clock ahead"):  # the shop sends the file again
            self._write(self._plain[day - 1], day - 1, "day")
        self._write_catalogue()
        self._plain = {known: of for known, of in self._plain.items() if known > day - 4}
        return len(self._plain[day])

    def _day(self, day: int) -> pl.DataFrame:
        """The events of a day, in the order of time."""
        rng = np.random.default_rng((self.seed, 1, day + self.past_days))
        for _ in range(rng.poisson(self.new_items)):
            self._add_item(rng)
        for item in rng.choice(len(self._group), rng.poisson(self.leaving_items), replace=False).tolist():
            self._gone.add(item)
        for _ in range(rng.poisson(self.new_users)):
            self._place.append(int(rng.integers(GROUPS)))
            self._last.append(-1)
            self._active.append(float(rng.pareto(1.5) + 0.2))
        on_sale = np.array([item for item in range(len(self._group)) if item not in self._gone])
        group = np.array(self._group)
        fashion = 1 + np.cos(2 * np.pi * (np.arange(GROUPS) / GROUPS + day / 200))
        appeal = np.array(self._appeal)
        anywhere = appeal * fashion[group]
        of_group = {place: on_sale[group[on_sale] == place] for place in range(GROUPS)}
        weekday = 1 + 0.2 * np.sin(2 * np.pi * day / 7)
        active = np.array(self._active)
        count = int(self.events_a_day * weekday * rng.normal(1, 0.05))
        sessions = rng.choice(len(active), max(1, count // 2), p=active / active.sum())
        moment = int((START + timedelta(days=day - 1)).timestamp())
        times = np.sort(rng.integers(0, 86_000, len(sessions)))
        rows: list[tuple[str, str, int, str, int]] = []
        for user, at in zip(sessions.tolist(), times.tolist(), strict=True):
            if rng.random() < DRIFT:
                self._place[user] = (self._place[user] + int(rng.choice([-1, 1]))) % GROUPS
            for step in range(int(rng.integers(1, 4))):
                item = self._next(user, rng, on_sale, of_group, appeal, anywhere)
                self._last[user] = item
                said = (f"u{user:06}", f"i{item:06}", moment + at + 60 * step)
                rows.append((*said, "buy", int(rng.integers(1, 6))))
                if rng.random() < CANCELLED:
                    rows.append((said[0], said[1], said[2] + 30, "cancel", rows[-1][4]))
        texts, numbers = ("user_id", "item_id", "event"), ("timestamp", "weight")
        kinds = {**dict.fromkeys(texts, pl.String), **dict.fromkeys(numbers, pl.Int64)}
        columns = ("user_id", "item_id", "timestamp", "event", "weight")
        frame = pl.DataFrame(rows, schema={name: kinds[name] for name in columns}, orient="row")
        return frame.sort("timestamp", maintain_order=True)

    def _next(
        self,
        user: int,
        rng: np.random.Generator,
        on_sale: np.ndarray,
        of_group: dict[int, np.ndarray],
        appeal: np.ndarray,
        anywhere: np.ndarray,
    ) -> int:
        """The item that a user takes next."""
        chance, last, place = rng.random(), self._last[user], self._place[user]
        near = of_group[place]
        if chance < FOLLOW and last >= 0 and self._group[last] == place:
            after = near[near > last]
            if len(after):
                return int(after[min(int(rng.geometric(0.6)) - 1, len(after) - 1)])
        if chance < FOLLOW + FASHION and len(near):
            return int(rng.choice(near, p=appeal[near] / appeal[near].sum()))
        return int(rng.choice(on_sale, p=anywhere[on_sale] / anywhere[on_sale].sum()))

    def _add_item(self, rng: np.random.Generator) -> None:
        self._group.append(int(rng.integers(GROUPS)))
        self._appeal.append(float(rng.pareto(1.2) + 0.1))
        words = rng.choice(WORDS, 2, replace=False)
        self._title.append(f"{words[0]} {words[1]} thing {len(self._title)}")

    def _corrections(self, day: int, rng: np.random.Generator) -> pl.DataFrame:
        """Rows of the days before: other weights, events taken back, and events whose item was another one."""
        earlier = pl.concat([self._plain[known] for known in self._plain if known < day])
        bought = earlier.filter(pl.col("event") == "buy").unique(["user_id", "item_id", "timestamp"], keep="none")
        bought = bought.sort("timestamp", "user_id", "item_id")
        some = bought[np.sort(rng.choice(len(bought), min(60, len(bought)), replace=False))]
        weighed, taken, mistaken = (some[place::3] for place in range(3))
        cancel = [pl.lit("cancel").alias("event"), (pl.col("timestamp") + 40)]
        right = mistaken.with_columns(item_id=pl.col("item_id").shift(1).fill_null(mistaken["item_id"][-1]))
        return pl.concat(
            [
                weighed.with_columns(weight=pl.col("weight") + 1),
                pl.concat([taken, mistaken]).with_columns(cancel),
                right.with_columns(timestamp=pl.col("timestamp") + 50),
            ]
        )

    def _write(self, rows: pl.DataFrame, day: int, name: str) -> None:
        rows.write_csv(self.folder / "log" / f"{day:04}-{name}.csv")  # in the order of their days

    def _write_catalogue(self) -> None:
        lines = [
            json.dumps({"item_id": f"i{item:06}", "title": self._title[item], "group": f"g{self._group[item]}"})
            for item in range(len(self._group))
            if item not in self._gone
        ]
        (self.folder / "items.jsonl").write_text("\n".join(lines) + "\n")


def configuration(shop: Shop, name: str, more: dict[str, Any]) -> dict[str, Any]:
    """The settings of the shop's nights, as plain values; `more` by dotted key."""
    folder = shop.folder
    tree: dict[str, Any] = {
        "name": "year",
        "data_root": str(folder),
        "warehouse": str(folder / name),
        "interactions": {
            "source": "log/*.csv",
            "withdraw": [{"column": "event", "one_of": ["cancel"]}],
        },
        "items": {"source": "items.jsonl", "categorical": {"group": {}}},
        "model": {"dimensions": 32, "blocks": 1, "max_length": 20},
        "train": {"epochs": 9, "batch_size": 64, "learning_rate": 3e-3, "evaluate_every": 3, "warm_start": "previous"},
        "evaluate": {"cutoffs": [10]},
        "retrieve": {"k": 20},
        "gate": {"max_age_hours": 24},
        "retention": {"nights": 5, "days": 5},
        "export": {"path": str(folder / "export")},
        "tracking": {"uri": f"sqlite:///{folder / name}-mlflow/mlflow.db"},
    }
    for key, value in more.items():
        section, _, leaf = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[leaf] = value
    return tree
