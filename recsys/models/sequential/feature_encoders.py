"""The features of a run: what is declared of items, users and events, and the encoders that were fitted for them.

Nothing is learned of a value but the edges of numeric buckets, and those from the training part alone; a bundle keeps
declaration and edges, so that whatever is encoded for it later is encoded as its training was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import polars as pl
import torch
from torch.nn import functional

from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.features.collisions import unseen_lookups
from recsys.features.declaration import Feature, require_same
from recsys.features.encode import FeatureEncoder
from recsys.models.sequential.side import Side, SideFeatures
from recsys.settings import ModelSettings, Settings

if TYPE_CHECKING:  # a bundle answers without the tables
    from recsys.data.prepare import Dataset

# before the names of features, so that each salts its look-ups as nothing else does; an item's have none
OF_USERS: Final = "user:"
OF_EVENTS: Final = "context:"
BEFORE_ATTRIBUTES: Final = 3  # columns of a prepared catalogue: item_id, title, sentence


def declared_features(settings: Settings, model: ModelSettings) -> dict[str, tuple[Feature, ...]]:
    """Return what the tables of `settings` are declared to have and a model reads: "attributes", "users", "context"."""
    items, users = settings.items, settings.users
    lookups = model.attribute_lookups
    return {
        "attributes": items.features(lookups) if model.attributes and items is not None else (),
        "users": users.features(lookups, OF_USERS) if model.user_attributes and users is not None else (),
        "context": tuple(_of_event(name, lookups) for name in settings.model.event_context),
    }


def _of_event(name: str, lookups: int) -> Feature:
    return Feature(name=OF_EVENTS + name, lookups=lookups, kind="numeric" if name == "weight" else "single")


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoders:
    """Encoders of the features that a model reads; None where it reads none.

    Attributes
    ----------
    attributes
        Of items: of the catalogue's columns.
    users, context
        Of the columns of `Sequences.attributes` and `Sequences.context`, whose names get a prefix.
    """

    attributes: FeatureEncoder | None = None
    users: FeatureEncoder | None = None
    context: FeatureEncoder | None = None

    def features(self) -> dict[str, tuple[Feature, ...]]:
        """As `declared_features`."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: () if encoder is None else encoder.features for name, encoder in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """Declaration and edges as plain values, for a bundle; null where there is no feature."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: None if encoder is None else encoder.to_dict() for name, encoder in found.items()}

    @classmethod
    def from_dict(cls, declared: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; what is not there is no feature.

        Raises
        ------
        ValueError
            The declaration is damaged.
        """
        names = [field.name for field in fields(cls) if declared.get(field.name) is not None]
        return cls(**{name: FeatureEncoder.from_dict(declared[name]) for name in names})

    def side(self, histories: Sequences) -> Side | None:
        """Return what the model reads of histories besides their items, hashed; None where it reads nothing else."""
        if self.users is None and self.context is None:
            return None
        of_users = None
        if self.users is not None:
            of_users = self.users.encode(_prefixed(histories.attributes, OF_USERS))
        context = None
        if self.context is not None:
            hashes = self.context.encode(_prefixed(histories.context, OF_EVENTS)).values
            context = functional.pad(hashes, (0, 0, 1, 0))  # row 0, padding, is of no event
        return Side(users=of_users, context=context)

    def side_features(self, train: Sequences | None = None) -> SideFeatures:
        """Return which those are; with the training histories also how many rows their values would fill."""
        of = self.features()
        features = SideFeatures(users=of["users"], context=of["context"])
        side = None if train is None else self.side(train)
        if side is None:
            return features
        values = side.values(features)
        rows = sum(len(values[feature.name]) * feature.lookups for feature in (*of["users"], *of["context"]))
        return replace(features, rows=rows)


def fit_encoders(settings: Settings, dataset: Dataset, previous: Encoders | None = None) -> Encoders:
    """Encoders of the declared features, fitted on the training part.

    Parameters
    ----------
    previous
        Of the bundle that a training begins with: where it has the same numeric features, its edges stay, so that a
        bucket is what the weights know.

    Raises
    ------
    InputError
        A feature does not suit its column; names it and says what to do.
    """
    train = dataset.split.train
    assert isinstance(settings.model, ModelSettings)
    of = declared_features(settings, settings.model)
    described = len(dataset.catalogue.columns) > BEFORE_ATTRIBUTES  # False: no catalogue was read
    frames: dict[str, pl.DataFrame | None] = {
        "attributes": dataset.catalogue.filter(pl.Series(dataset.trained_items()[1:])) if described else None,
        "users": train.attributes,
        "context": train.context,
    }
    prefixes = {"attributes": "", "users": OF_USERS, "context": OF_EVENTS}
    fitted = {}
    for name, features in of.items():
        frame = frames[name]
        if features and frame is not None:
            with input_errors():
                encoder = FeatureEncoder.fit(features, _prefixed(frame, prefixes[name]))
            fitted[name] = _with_edges_of(encoder, None if previous is None else getattr(previous, name))
    return Encoders(**fitted)


def _with_edges_of(encoder: FeatureEncoder, previous: FeatureEncoder | None) -> FeatureEncoder:
    if previous is None:
        return encoder
    known = {feature.name: feature for feature in previous.features}
    kept = {
        feature.name: previous.buckets[feature.name]
        for feature in encoder.features
        if feature.kind == "numeric" and known.get(feature.name) == feature
    }
    return replace(encoder, buckets={**encoder.buckets, **kept})


def check_declared(bundled: Encoders, settings: Settings, model: ModelSettings) -> None:
    """Refuse tables whose declared features are not those that a bundle was trained with.

    Parameters
    ----------
    bundled
        The bundle's.
    settings
        Of the tables.
    model
        The bundle's: what it does not read may be declared as one likes.

    Raises
    ------
    InputError
        Names the first feature that differs, both declarations, and what to do.
    """
    current = declared_features(settings, model)
    for name, features in bundled.features().items():
        with input_errors():
            require_same(features, current[name])


def unseen_values(encoders: Encoders, dataset: Dataset) -> dict[str, int]:
    """Look-ups, by feature, of values that the training part does not have.

    Of items: those of the catalogue's items without training interactions. Of users and events: those of the test
    histories.
    """
    counts: dict[str, int] = {}
    if encoders.attributes is not None:
        batch = encoders.attributes.encode(dataset.catalogue)
        trained = torch.from_numpy(np.flatnonzero(dataset.trained_items()[1:]))
        counts |= unseen_lookups(encoders.attributes.features, batch.take(trained), batch)
    train, test = dataset.split.train, dataset.split.test.histories
    if encoders.users is not None:
        known, asked = (encoders.users.encode(_prefixed(part.attributes, OF_USERS)) for part in (train, test))
        counts |= unseen_lookups(encoders.users.features, known, asked)
    if encoders.context is not None:
        known, asked = (encoders.context.encode(_prefixed(part.context, OF_EVENTS)) for part in (train, test))
        counts |= unseen_lookups(encoders.context.features, known, asked)
    return counts


@contextmanager
def input_errors() -> Iterator[None]:
    """Make one sentence of bad input of what the features say of themselves."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        raise InputError(f"{text[0].upper()}{text[1:].rstrip('.')}.") from None


def _prefixed(frame: pl.DataFrame | None, prefix: str) -> pl.DataFrame:
    assert frame is not None
    return frame.rename({name: prefix + name for name in frame.columns})
