"""The item tower: an item's vector as the sum of channels that can each be switched off.

Id and attributes (categorical, numeric, crossed) are look-ups in one multiplexed table (features/tables.py); the text
vector comes frozen and whitened and passes one map, linear by default. Hiding the id of some items teaches the other
channels to stand alone, so an item nobody has seen gets a useful vector.

The catalogue does not change while a model is trained, so its values are turned into rows of the table once, and not
at every step.

Shapes: V items (row 0 is padding), D width, E width of the text vectors, C look-ups, T values of all items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from recsys.features.declaration import Feature
from recsys.features.hashing import hash_values
from recsys.features.multiplexed import MultiplexedTable, attend, lookup_rows
from recsys.models.sequential.text_adapter import TextAdapter

ID_FEATURE = "item_id"
_OF_MODULES = frozenset({*dir(nn.ModuleDict()), *dir(nn.ParameterDict())})


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribute:
    """One attribute of every item, hashed.

    Attributes
    ----------
    feature
        Its declaration.
    hashes, offsets
        int64 [T] and int64 [V + 2]: item `i` has the values `hashes[offsets[i]:offsets[i + 1]]`, of a feature that is
        not multi-valued one. An item without a value holds the missing value, row 0 none.
    """

    feature: Feature
    hashes: Tensor
    offsets: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemFeatures:
    """Catalogue as the tower knows it; row 0 of every array is padding.

    Attributes
    ----------
    id_hashes
        int64 [V + 1], the hashed raw ids.
    trained
        bool [V + 1], items with at least one training interaction; the others have no id vector to speak of.
    attributes
        By name.
    text
        [V + 1, E] whitened text vectors, zero where an item has no text; None without text. float32, or float16 of a
        large catalogue.
    firsts
        int64 [C + 1], where several catalogues stand one after the other: the first code of each, then V + 1.
        Negatives are drawn from the history's own one. None: one catalogue.
    """

    id_hashes: Tensor
    trained: Tensor
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    text: Tensor | None = None
    firsts: Tensor | None = None

    @property
    def size(self) -> int:
        """Rows of every array, V + 1."""
        return len(self.id_hashes)


class ItemTower(nn.Module):
    """Vectors of all items of a catalogue at once.

    Parameters
    ----------
    features
        The catalogue; kept as buffers that are not part of the weights.
    dimensions
        D.
    table_rows
        M, rows of the multiplexed table.
    ids, id_lookups
        Whether the id is a channel, and its look-ups; D must be divisible by their number.
    id_dropout
        Share of items whose id channel is hidden in a training step.
    shared
        Whether others look up in the table too, so that there must be one.
    text_adapter, experts
        What maps the text vector: "linear", or a kind of `TextAdapter` with so many experts.

    Raises
    ------
    ValueError
        No channel is left.
    """

    trained: Tensor
    firsts: Tensor
    id_rows: Tensor
    text: Tensor

    def __init__(
        self,
        features: ItemFeatures,
        *,
        dimensions: int,
        table_rows: int,
        ids: bool,
        id_lookups: int,
        id_dropout: float,
        shared: bool = False,
        text_adapter: str = "linear",
        experts: int = 4,
    ) -> None:
        super().__init__()
        if not (ids or features.attributes or features.text is not None):
            raise ValueError("the item tower needs at least one channel: ids, attributes or text")
        width = dimensions // id_lookups
        self.ids, self.id_dropout = ids, id_dropout
        self._by_row = False
        self.attribute_names = tuple(features.attributes)
        self.table = MultiplexedTable(table_rows, width) if ids or features.attributes or shared else None
        if ids:
            self._buffer("id_rows", lookup_rows(features.id_hashes, ID_FEATURE, id_lookups, table_rows))
        self._buffer("trained", features.trained)
        self._buffer("firsts", torch.tensor([1, features.size]) if features.firsts is None else features.firsts)
        self.attribute_maps = nn.ModuleDict()
        self.attribute_queries = nn.ParameterDict()  # of attention
        self.pooling = {name: attribute.feature.pooling for name, attribute in features.attributes.items()}
        for name, attribute in features.attributes.items():
            feature, key = attribute.feature, module_key(name)
            self._buffer(f"rows_of_{key}", lookup_rows(attribute.hashes, name, feature.lookups, table_rows))
            self._buffer(f"offsets_of_{key}", attribute.offsets)
            self.attribute_maps[key] = nn.Linear(width * feature.lookups, dimensions, bias=False)
            if feature.pooling == "attention":
                self.attribute_queries[key] = nn.Parameter(torch.zeros(width * feature.lookups))
        self.text_map: nn.Linear | TextAdapter | None = None
        if features.text is not None:
            self._buffer("text", features.text)
            inputs = features.text.shape[1]
            if text_adapter == "linear":
                self.text_map = nn.Linear(inputs, dimensions, bias=False)
            else:
                self.text_map = TextAdapter(inputs, dimensions, text_adapter, experts)
        for linear in (*self.attribute_maps.values(), self.text_map):
            if isinstance(linear, nn.Linear):
                nn.init.normal_(linear.weight, std=0.02)

    def _buffer(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor, persistent=False)

    @property
    def by_row(self) -> bool:
        """Return whether gradients hold only the rows of the table, and the biases, that a step read."""
        return self._by_row

    def learn_by_row(self) -> None:
        """Let gradients hold only what a step reads, for `recsys.training.rows`."""
        self._by_row = True
        if self.table is not None:
            self.table.sparse = True

    @property
    def has_content(self) -> bool:
        """True if an item without training interactions gets a vector of its own."""
        return self.text_map is not None or bool(self.attribute_names)

    def forward(self, codes: Tensor | None = None) -> Tensor:
        """[V + 1, D], row 0 zero; or the rows of `codes`, int64 [C]."""
        x: Tensor | None = None
        if self.ids and self.table is not None:
            rows = self.id_rows if codes is None else self.id_rows[codes]
            x = self.table.single(rows) * self._id_shown(codes)[:, None]
        for name in self.attribute_names:
            mapped = self.attribute_maps[module_key(name)](self._pooled(name, codes))
            x = mapped if x is None else x + mapped
        if self.text_map is not None:
            mapped = self.text_map((self.text if codes is None else self.text[codes]).float())
            x = mapped if x is None else x + mapped
        assert x is not None
        if codes is not None:
            return x * (codes != 0)[:, None]
        return torch.cat([torch.zeros_like(x[:1]), x[1:]])

    def _pooled(self, name: str, codes: Tensor | None) -> Tensor:
        """[V + 1, C * d], or the rows of `codes`: the look-ups of an attribute."""
        assert self.table is not None
        key, pooling = module_key(name), self.pooling[name]
        rows, offsets = getattr(self, f"rows_of_{key}"), getattr(self, f"offsets_of_{key}")
        if codes is not None:
            rows, offsets = _bags(rows, offsets, codes)
        if pooling == "attention":
            return attend(self.table.single(rows), offsets, self.attribute_queries[key])
        return self.table.pooled(rows, offsets, pooling)

    def _id_shown(self, codes: Tensor | None) -> Tensor:
        """float [V + 1] or [C]: 1 where an item's id counts in this step."""
        trained = self.trained if codes is None else self.trained[codes]
        shown = trained.float() if self.has_content else torch.ones_like(trained, dtype=torch.float32)
        if self.training and self.id_dropout and self.has_content:
            shown = shown * (torch.rand_like(shown) >= self.id_dropout)
        return shown


def module_key(name: str) -> str:
    """Name of an attribute's weights: its name, or a hash of it where a module cannot bear the name.

    Parts of a module's name are joined by dots, and names such as "type" are methods of modules.
    """
    if "." not in name and name not in _OF_MODULES:
        return name
    return f"attribute_{int(hash_values([name])[0]) & 0xFFFF_FFFF:08x}"


def _bags(rows: Tensor, offsets: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """The bags of some items: rows [T', C] and offsets [C + 1], in the order of `codes`."""
    starts, lengths = offsets[codes], offsets[codes + 1] - offsets[codes]
    chosen = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    places = torch.arange(int(chosen[-1]), device=codes.device) + (starts - chosen[:-1]).repeat_interleave(lengths)
    return rows[places], chosen
