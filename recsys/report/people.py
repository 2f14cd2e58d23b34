"""Sections: users with histories, lists and what came next; and the worst failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from recsys.columns import USER_ID
from recsys.report.night import Night, mapping, rows
from recsys.report.wording import count, known

SHOWN: Final = 10  # newest events

Called = Callable[[Any], str]  # user id -> the name on the page


def people(night: Night, called: Called) -> list[dict[str, Any]]:
    """Return the drawn users; from records of older programs the few examples that they have."""
    found = rows(mapping(night.evaluated.get("journeys")).get("users")) or rows(night.evaluated.get("examples"))
    return [_person(mapping(one), called) for one in found]


def failures(night: Night, called: Called) -> list[dict[str, Any]]:
    """Return users whose target ranks far behind its place by popularity, the worst first."""
    return [_person(mapping(one), called) for one in rows(mapping(night.evaluated.get("journeys")).get("failures"))]


def _person(one: Mapping[str, Any], called: Called) -> dict[str, Any]:
    history = [str(title) for title in rows(one.get("history"))][-SHOWN:]
    recommended = [str(title) for title in rows(one.get("recommended"))]
    target, rank = str(one.get("target") or ""), one.get("rank")
    hit = one["hit"] if "hit" in one else rank if known(rank) and rank <= len(recommended) else None
    length = one.get("history_length")
    return {
        "user": called(one.get(USER_ID)),
        "history": history[::-1],
        "earlier": length - len(history) if known(length) and length > len(history) else 0,
        "recommended": [{"title": title, "hit": place == hit} for place, title in enumerate(recommended, 1)],
        "target": target,
        "hit": hit,
        "place": f"rank {count(rank)}" if known(rank) else "not ranked",
        "reason": one.get("reason"),
        "popularity": count(one["popularity_place"]) if known(one.get("popularity_place")) else None,
    }
