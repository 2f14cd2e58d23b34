"""Section: the price of each rule."""

from __future__ import annotations

from typing import Any

from recsys.report.night import Night, mapping, rows
from recsys.report.wording import count, figure, percent, signed


def rules(night: Night) -> dict[str, Any] | None:
    """Return the rules' prices, and how many lists are short; None where there are no rules."""
    priced = mapping(mapping(night.evaluated.get("report")).get("rules"))
    found = [_price(mapping(row)) for row in rows(priced.get("prices"))]
    if not found:
        return None
    retrieved = night.step("retrieve")
    short, users, denied = (retrieved.get(name) for name in ("short_lists", "users", "denied"))
    facts = []
    if users is not None:
        facts.append(("lists shorter than k and the items left allow", f"{count(short)} of {count(users)}"))
    if denied is not None:
        facts.append(("items that rules recommend to nobody", count(denied)))
    return {
        "rows": found,
        "questions": count(priced.get("questions")),
        "k": count(priced.get("k")),
        "remarks": [str(remark) for remark in rows(priced.get("remarks"))],
        "facts": facts,
    }


def _price(row: Any) -> dict[str, str]:
    ndcg, hr, moved, of = (row.get(name) for name in ("ndcg_at_10", "hr_at_10", "moved", "rows"))
    ndcg = mapping(ndcg)
    return {
        "name": str(row.get("name")),
        "kind": str(row.get("kind") or ""),
        "with": figure(ndcg.get("with")),
        "without": figure(ndcg.get("without")),
        "difference": signed(ndcg.get("difference")),
        "interval": f"{signed(ndcg.get('low'))} to {signed(ndcg.get('high'))}",
        "hr": signed(mapping(hr).get("difference")),
        "moved": count(moved),
        "share": percent(moved / of) if moved is not None and of else "–",
    }
