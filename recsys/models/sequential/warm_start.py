"""Tomorrow's training starts from yesterday's bundle.

Encoder weights pass as they are. What belongs to an item or to an attribute's value passes by its raw id or text: rows
of the multiplexed table are addressed by a hash, so a value has the same rows as long as the table has the same size.
A table that the catalogue has outgrown becomes two or more times as large, never anything between: row `h mod M` of
the old table is then row `h mod 2M` of the new one, and every vector stays what it was. (Where `model.table_rows` asks
for another size, a row becomes the mean of those it inherits from.) Rows that nothing known looks up start afresh, so a
new item is its attributes and its text, and an id that says next to nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.bundles.store import find_bundle, latest_bundle, measured_bundle
from recsys.errors import InputError
from recsys.features.multiplexed import HASHING, hash_values, lookup_rows
from recsys.models.base import Origin
from recsys.models.sequential.bert4rec import NO_SIDE, TABLE, Bert4Rec
from recsys.models.sequential.feature_encoders import Encoders
from recsys.models.sequential.item_tower import ID_FEATURE, ItemFeatures
from recsys.models.sequential.settings import sequence_settings
from recsys.models.sequential.side import Side
from recsys.settings import KindSettings, Settings
from recsys.settings.train import PREVIOUS

# of model; the rest is fixed
MAY_DIFFER: Final = {
    "dropout",
    "id_dropout",
    "table_rows",
    "ids",
    "attributes",
    "text",
    "user_attributes",
    "context",
    "item_bias",
}
_BIAS, _TEXT = "output_bias", "tower.text_map."
_SIDES: Final = {"users": "encoder.side.users.", "context": "encoder.side.context."}  # where their weights are


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of what passed from one bundle to the next."""

    copied: int
    new: int  # not in the old one
    dropped: int  # in the old one alone

    def __str__(self) -> str:
        return f"{self.copied:,} copied, {self.new:,} new, {self.dropped:,} dropped"


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Report of what a training started from; JSON-friendly by `asdict`.

    Attributes
    ----------
    bundle
        The bundle's label.
    items
        Of the catalogue, by raw id.
    rows
        Of the multiplexed table; copied rows are those that a known id or value looks up.
    fresh
        Weights that the old model has nothing for, such as a new attribute's.
    """

    bundle: str
    items: Counts
    rows: Counts
    fresh: tuple[str, ...] = ()

    def __str__(self) -> str:
        fresh = f"; new weights: {', '.join(self.fresh)}" if self.fresh else ""
        return f"Training starts from {self.bundle}: items {self.items}; table rows {self.rows}{fresh}."

    def report(self) -> dict[str, Any]:
        """For the run's report."""
        return asdict(self)


def earlier_bundle(settings: Settings) -> Origin:
    """The bundle that `train.warm_start` asks for, or the reason why there is none.

    There may be none for "previous" alone: a night must not fail because yesterday's did. In the place of a bundle that
    was refitted on all events stands the measured one, which knows no event that is held out.

    Raises
    ------
    InputError
        A bundle that was named cannot be read, or one that can be read is of another architecture.
    """
    asked = settings.train.warm_start
    if asked is None:
        return Origin()
    try:
        path = latest_bundle(settings.warehouse, settings.name) if asked == PREVIOUS else find_bundle(asked)
        bundle = read_bundle(measured_bundle(path))
    except InputError as error:
        if asked != PREVIOUS:
            raise
        return Origin(reason=str(error))
    _check_architecture(settings.model, bundle)
    return Origin(bundle=bundle)


def _check_architecture(model: KindSettings, bundle: Bundle) -> None:
    old, new = bundle.settings.model.model_dump(), model.model_dump()
    differing = [name for name in new if name not in MAY_DIFFER and old.get(name) != new[name]]
    if differing:
        name = differing[0]
        raise InputError(
            f"The bundle {bundle.place}, from which train.warm_start begins, has model.{name} = {old.get(name)!r} and "
            f"this configuration has {new[name]!r}; set it back, or train once with --set train.warm_start=none."
        )
    if bundle.features()["hashing"] != HASHING:
        raise InputError(
            f"The bundle {bundle.place}, from which train.warm_start begins, hashes values in another way than this "
            "program; train once with --set train.warm_start=none."
        )


def same_text(bundle: Bundle, settings: Settings) -> bool:
    """Return whether sentences and encoder are the bundle's, so that its whitening gives its items the same vectors.

    An adapter that begins as the identity is made to pass from one catalogue to another: there the encoder must be the
    same, and the sentences may be made of other attributes.
    """
    declared = bundle.features()["text"]
    return (
        declared is not None
        and settings.items is not None
        and (
            sequence_settings(settings).text_adapter != "linear" or tuple(declared["attributes"]) == settings.items.text
        )
        and bundle.settings.text.model_copy(update={"batch_size": settings.text.batch_size}) == settings.text
    )


def grown_rows(wanted: int, bundle: Bundle) -> int:
    """Rows of the table: a multiple of the bundle's, the one that is nearest to `wanted`."""
    table = bundle.features()["table"]
    return wanted if table is None else int(table["rows"]) * max(1, round(wanted / int(table["rows"])))


@torch.no_grad()
def start_from(
    bundle: Bundle,
    model: Bert4Rec,
    features: ItemFeatures,
    settings: Settings,
    events: np.ndarray,
    side: Side | None = None,
) -> WarmStart:
    """Put a bundle's weights into a new model.

    Parameters
    ----------
    bundle
        From `earlier_bundle`.
    model
        As initialised; changed in place.
    features
        What the model's tower was built of.
    settings
        This run's.
    events
        int [V + 1], training interactions of each item. Where a row of a table of any other size has several
        heirs, their rows are averaged, weighed by these.
    side
        What the model reads of the training histories besides their items.

    Returns
    -------
    WarmStart
        What was copied.
    """
    old, new = bundle.weights(), model.state_dict()
    hashes = hash_values(bundle.vocabulary.items.to_list())
    codes = _codes(features.id_hashes.numpy(), hashes)  # [V + 1] code in the bundle, 0: unknown
    known = torch.from_numpy(codes > 0)
    text_kept = same_text(bundle, settings)
    declared = Encoders.from_dict(bundle.features()).features()
    side_features = NO_SIDE if model.encoder.side is None else model.encoder.side.features
    # one matrix projects all of them, so it is the old one's only if they are
    changed = tuple(prefix for part, prefix in _SIDES.items() if getattr(side_features, part) != declared[part])
    fresh = []
    for name, tensor in new.items():
        if name == _BIAS:
            tensor[known] = old[name][codes[codes > 0]]
        elif name == TABLE:
            continue
        elif name.startswith(changed):
            fresh.append(name)
        elif name in old and old[name].shape == tensor.shape and (text_kept or not name.startswith(_TEXT)):
            tensor.copy_(old[name])
        else:
            fresh.append(name)
    copied = int(known.sum())
    return WarmStart(
        bundle=bundle.label,
        items=Counts(copied=copied, new=features.size - 1 - copied, dropped=len(hashes) - copied),
        rows=_copy_rows(bundle, old.get(TABLE), model, features, known, torch.from_numpy(events), side),
        fresh=tuple(fresh),
    )


def after_warm_start(settings: Settings, epochs: int | None = None) -> Settings:
    """The settings of a training that does not begin with nothing: fewer epochs, the rate's whole schedule in them.

    Half the share of them asks for next items: weights that answer clozes already are soon back at what they knew. The
    rate itself stays: a lower one keeps the weights from going where the new events want them. `epochs` counts where it
    is given.
    """
    if epochs is None:
        epochs = settings.train.warm_epochs or -(-settings.train.epochs // 3)
    changed = {"epochs": epochs, "next_item_share": settings.train.next_item_share / 2}
    return settings.model_copy(update={"train": settings.train.model_copy(update=changed)})


def _codes(wanted: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """For each hash its place in `hashes`, counted from 1; 0 where it is not there, and for padding."""
    order = np.argsort(hashes)
    place = order[np.minimum(np.searchsorted(hashes, wanted, sorter=order), len(hashes) - 1)]
    codes = np.where(hashes[place] == wanted, place + 1, 0)
    codes[0] = 0
    return codes


def _copy_rows(
    bundle: Bundle,
    old: Tensor | None,
    model: Bert4Rec,
    features: ItemFeatures,
    known: Tensor,
    events: Tensor,
    side: Side | None,
) -> Counts:
    """Rows of known ids, of the attribute values that known items have, and of what is known of users and events."""
    table = model.tower.table
    if table is None or old is None:
        return Counts(copied=0, new=0 if table is None else table.rows, dropped=0 if old is None else len(old))
    declared = {
        feature.name: feature for part in Encoders.from_dict(bundle.features()).features().values() for feature in part
    }
    sources, targets, weights = [], [], []

    def add(hashes: Tensor, feature: str, lookups: int, events: Tensor) -> None:
        sources.append(lookup_rows(hashes, feature, lookups, len(old)).ravel())
        targets.append(lookup_rows(hashes, feature, lookups, table.rows).ravel())
        weights.append((events + 1.0).repeat_interleave(lookups))

    of_ids = bundle.features()["ids"]
    if model.tower.ids and of_ids is not None:
        add(features.id_hashes[known], ID_FEATURE, of_ids["lookups"], events[known])
    for name, attribute in features.attributes.items():
        if declared.get(name) == attribute.feature:
            owner = torch.repeat_interleave(torch.arange(features.size), attribute.offsets.diff())
            kept = known[owner]
            add(attribute.hashes[kept], name, declared[name].lookups, events[owner[kept]])
    if side is not None and model.encoder.side is not None:
        of_side = model.encoder.side.features
        values = side.values(of_side)
        for feature in (*of_side.users, *of_side.context):
            if declared.get(feature.name) == feature:
                add(values[feature.name], feature.name, feature.lookups, torch.zeros(len(values[feature.name])))
    if not sources:
        return Counts(copied=0, new=table.rows, dropped=len(old))
    source, target, weight = torch.cat(sources), torch.cat(targets), torch.cat(weights)
    heirs = target.unique()
    if table.rows % len(old) == 0:
        table.weight[heirs] = old[heirs % len(old)]
    else:
        total = torch.zeros(table.rows).index_add_(0, target, weight)
        mean = torch.zeros_like(table.weight).index_add_(0, target, old[source] * (weight / total[target])[:, None])
        table.weight[heirs] = mean[heirs]
    return Counts(copied=len(heirs), new=table.rows - len(heirs), dropped=len(old) - len(source.unique()))
