"""Declarations of features: a name, a kind, and the number of look-ups."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

MAX_LOOKUPS: Final = 8
Kind = Literal["single", "multi", "numeric", "crossed"]
Pooling = Literal["mean", "sum", "attention"]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature of a multiplexed table.

    Attributes
    ----------
    name
        The column's name. It salts the hash, so a renamed feature reads other rows.
    lookups
        Rows of the table that a value reads and concatenates, 1 to 8.
    kind
        "single": one value a row of data. "multi": a list of values, pooled. "numeric": a number, which becomes one of
        `buckets` quantile buckets. "crossed": the combination of the values of the features named in `of`.
    pooling
        Pooling of a multi-valued feature. "attention" weighs values by a learned query and starts as the mean.
    buckets
        Buckets of a numeric feature, 2 to 10,000.
    of
        Parts of a crossed feature: two or more single-valued or numeric features.

    Raises
    ------
    ValueError
        A setting is out of range; names the feature.
    """

    name: str
    lookups: int = 1
    kind: Kind = "single"
    pooling: Pooling = "mean"
    buckets: int = 32
    of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.lookups <= MAX_LOOKUPS:
            raise ValueError(
                f"feature {self.name!r} asks for {self.lookups} look-ups; allowed are 1 to {MAX_LOOKUPS}, so change it"
            )
        for field, allowed in (("kind", get_args(Kind)), ("pooling", get_args(Pooling))):
            if getattr(self, field) not in allowed:
                raise ValueError(
                    f"feature {self.name!r} has {field} {getattr(self, field)!r}; choose one of {', '.join(allowed)}"
                )
        if self.kind == "numeric" and not 2 <= self.buckets <= 10_000:
            raise ValueError(f"feature {self.name!r} asks for {self.buckets} buckets; allowed are 2 to 10000")
        if (self.kind == "crossed") != (len(self.of) >= 2):
            raise ValueError(
                f"feature {self.name!r} is of kind {self.kind!r} with of = {list(self.of)}; a crossed feature, "
                "and only that, names two or more others"
            )


def check_features(features: Iterable[Feature]) -> tuple[Feature, ...]:
    """Check that features fit together, and return them as a tuple.

    Raises
    ------
    ValueError
        No feature is declared, a name occurs twice, or a crossed feature names an unknown or multi-valued one.
    """
    known = tuple(features)
    if not known:
        raise ValueError("no feature is declared; name at least one")
    names = [feature.name for feature in known]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"feature {name!r} is declared twice; rename one of the two")
    of_name = {feature.name: feature for feature in known}
    for feature in known:
        for part in feature.of:
            if part not in of_name:
                raise ValueError(f"feature {feature.name!r} crosses {unknown(part, names)}")
            if of_name[part].kind not in ("single", "numeric"):
                raise ValueError(
                    f"feature {feature.name!r} crosses {part!r}, which is of kind {of_name[part].kind!r}; "
                    "only single-valued and numeric features can be crossed"
                )
    return known


def unknown(name: str, known: Sequence[str]) -> str:
    """Return the part of an error message that names an unknown feature and its nearest match."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"the unknown feature {name!r}; " + (f"did you mean {near[0]!r}?" if near else "there is none at all")


def describe(features: Iterable[Feature]) -> list[dict[str, Any]]:
    """Return the declaration as plain values for a bundle; each feature has only the fields of its kind."""
    described = []
    for feature in features:
        entry: dict[str, Any] = {"name": feature.name, "kind": feature.kind, "lookups": feature.lookups}
        if feature.kind == "multi":
            entry["pooling"] = feature.pooling
        if feature.kind == "numeric":
            entry["buckets"] = feature.buckets
        if feature.kind == "crossed":
            entry["of"] = list(feature.of)
        described.append(entry)
    return described


def declared(entries: Iterable[Mapping[str, Any]]) -> tuple[Feature, ...]:
    """Read the output of `describe`.

    Raises
    ------
    ValueError
        An entry has an unknown field, no name, or a value out of range.
    """
    fields = {field.name for field in dataclasses.fields(Feature)}
    features = []
    for entry in entries:
        odd = sorted(set(entry) - fields)
        if odd or "name" not in entry:
            raise ValueError(f"the declaration {dict(entry)} has " + (f"no field {odd[0]!r}" if odd else "no name"))
        features.append(Feature(**{**entry, "of": tuple(entry.get("of", ()))}))
    return check_features(features)


def require_same(bundled: Iterable[Feature], current: Iterable[Feature]) -> None:
    """Refuse data whose features differ from those of a bundle.

    Raises
    ------
    ValueError
        The features differ; the message names the first difference, both declarations, and what to do.
    """
    theirs, ours = ({entry["name"]: entry for entry in describe(part)} for part in (bundled, current))
    for name in [*theirs, *(name for name in ours if name not in theirs)]:
        if name not in ours:
            raise ValueError(f"the bundle was trained with feature {name!r}, which the data lack; add it or train anew")
        if name not in theirs:
            raise ValueError(f"the bundle does not know feature {name!r} of the data; remove it or train anew")
        for field in sorted(theirs[name].keys() | ours[name].keys()):
            then, now = theirs[name].get(field), ours[name].get(field)
            if then != now:
                raise ValueError(
                    f"feature {name!r} has {field} {then!r} in the bundle and {now!r} in the data; "
                    "declare it as in the bundle or train anew"
                )
