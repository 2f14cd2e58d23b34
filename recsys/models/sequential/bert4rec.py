"""BERT4Rec: a bidirectional transformer that fills in hidden items of a history.

Source: "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer", CIKM 2019,
arXiv 1904.06690, sections 3.3 to 3.6. Item vectors come from the item tower and serve as input and output (tied). The
head is Dense + GELU + LayerNorm, then a product with the item table plus a bias an item. To ask for the next item,
[MASK] is appended to the history and its position read. Departures (models/transformer.py): positions count from the
end, dropout is not applied to attention weights, and by default blocks normalise first and attention knows distances.

Shapes: B users, L positions, D width, V items, N events of all users.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.columns import PADDING
from recsys.features.device import is_accelerator
from recsys.features.rows import SparseRead
from recsys.features.tables import Table
from recsys.features.threads import side_by_side
from recsys.models.layers import LayerNorm, Linear
from recsys.models.repeats import Repeats
from recsys.models.sequential.item_tower import ItemFeatures, ItemTower
from recsys.models.sequential.recency import RecencyQuery
from recsys.models.sequential.side import MASK, Side, SideBatch, SideFeatures, SideVectors, unknown_side
from recsys.models.sequential.transformer import Transformer
from recsys.settings import ModelSettings

TABLE = "tower.table.weight"  # among a model's weights: the multiplexed table
NO_SIDE = SideFeatures()
ITEMS_AT_ONCE = 65_536  # whose vectors are computed together
TOKENS_A_CHUNK = 8_192  # positions that a thread encodes at once in inference; half or twice as many are no faster


class Bert4Rec(nn.Module):
    """Item tower, encoder and output."""

    def __init__(
        self, features: ItemFeatures, settings: ModelSettings, table_rows: int, side: SideFeatures = NO_SIDE
    ) -> None:
        super().__init__()
        self.tower = ItemTower(
            features,
            dimensions=settings.dimensions,
            table_rows=table_rows,
            ids=settings.ids,
            id_lookups=settings.id_lookups,
            id_dropout=settings.id_dropout,
            shared=bool(side),
            text_adapter=settings.text_adapter,
            experts=settings.experts,
        )
        self.encoder = SequenceEncoder(settings, side, self.tower.table)
        self.output_bias = nn.Parameter(torch.zeros(features.size), requires_grad=settings.item_bias)
        self.unit_vectors = settings.temperature is not None
        self.objective = settings.objective

    def item_table(self, codes: Tensor | None = None) -> Tensor:
        """[V + 1, D] item vectors (unit vectors where scores are cosines), or the rows of int64 `codes`."""
        table = self.tower(codes)
        return functional.normalize(table, dim=-1) if self.unit_vectors else table

    def item_bias(self) -> Tensor:
        """[V + 1], added to an item's score; minus infinity for padding."""
        return torch.cat([self.output_bias.new_full((1,), -torch.inf), self.output_bias[1:]])

    def bias_of(self, codes: Tensor) -> Tensor:
        """Output bias of int64 `codes`, [C]; 0 for padding."""
        if self.tower.by_row and self.output_bias.requires_grad:
            bias: Tensor = SparseRead.apply(self.output_bias, codes)
            return bias
        return self.output_bias[codes]

    def forward(self, tokens: Tensor, wanted: Tensor | None = None, side: SideBatch | None = None) -> Tensor:
        """Scores of every item at wanted positions, [B, Q, V + 1] float32; column 0, padding, is minus infinity.

        For small data and for tests: training never holds the scores of a whole batch
        (recsys/models/sequential/losses.py).

        Parameters
        ----------
        tokens
            int64 [B, L]: item codes, 0 at padding, MASK where hidden.
        wanted
            int64 [B, Q] positions; None: all.
        side
            As `SequenceEncoder.queries`.
        """
        table = self.item_table()
        return self.encoder.queries(tokens, table, wanted, side=side) @ table.T + self.item_bias()

    @torch.no_grad()
    def item_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """(vectors float32 [V + 1, D + 1] with the bias as last dimension, allowed bool [V + 1])."""
        self.eval()
        vectors = np.empty((len(self.output_bias), self.encoder.mask_vector.shape[0] + 1), dtype=np.float32)
        if len(vectors) <= ITEMS_AT_ONCE:
            vectors[:, :-1] = self.item_table().float().cpu().numpy()
        else:
            for start in range(0, len(vectors), ITEMS_AT_ONCE):
                codes = torch.arange(start, min(start + ITEMS_AT_ONCE, len(vectors)), device=self.output_bias.device)
                vectors[start : start + len(codes), :-1] = self.item_table(codes).float().cpu().numpy()
        vectors[:, -1] = self.output_bias.float().cpu().numpy()
        vectors[0] = 0
        trained = self.tower.trained
        allowed = torch.ones_like(trained) if self.tower.has_content else trained.clone()
        allowed[0] = False
        return vectors, allowed.cpu().numpy()


class SequenceEncoder(nn.Module):
    """Everything between item vectors and query vectors; all that serving needs besides the item table."""

    def __init__(self, settings: ModelSettings, side: SideFeatures = NO_SIDE, side_table: Table | None = None) -> None:
        super().__init__()
        D = settings.dimensions
        self.mask_vector = nn.Parameter(torch.empty(D))
        nn.init.normal_(self.mask_vector, std=0.02)
        self.transformer = Transformer(settings)
        self.head = nn.Sequential(Linear(D, D), nn.GELU(), LayerNorm(D)) if settings.head else nn.Identity()
        self.temperature = settings.temperature
        self.recency = RecencyQuery(settings) if settings.recency_mean else None
        self.repeats = Repeats(settings.max_length) if settings.repeat_bias else None
        # the last one made, so that the others begin with the weights that they have without it
        self.side: SideVectors | None = None
        if side:
            assert side_table is not None
            self.side = SideVectors(side, side_table, D)

    def queries(
        self,
        tokens: Tensor,
        table: Tensor,
        wanted: Tensor | None = None,
        *,
        causal: bool | None = None,
        side: SideBatch | None = None,
    ) -> Tensor:
        """Query vectors of wanted positions.

        Parameters
        ----------
        tokens
            int64 [B, L]: rows of the table, 0 at padding, MASK where hidden.
        table
            [V + 1, D] item vectors; their precision is the encoder's.
        wanted
            int64 [B, Q] positions; None: all.
        causal
            Read each position without the events after it; None: as the objective asks.
        side
            What is known besides the items, for a model that reads it; see `Side.batch`.

        Returns
        -------
        Tensor
            [B, Q, D], to be multiplied with item vectors.
        """
        embedded = functional.embedding(tokens.clamp(min=PADDING), table)
        embedded = torch.where((tokens == MASK)[..., None], self.mask_vector.to(embedded.dtype), embedded)
        items = embedded
        if self.side is not None:
            assert side is not None
            embedded = embedded + self.side(side).to(embedded.dtype)
        states = None
        if len(self.transformer.blocks):
            states = self.head(self.transformer(embedded, tokens != PADDING, wanted, causal))
        if self.recency is not None:
            states = self.recency(items, wanted, states)
        assert states is not None  # ModelSettings has it so
        if self.temperature is None:
            return states
        return functional.normalize(states, dim=-1) / self.temperature


def inference_input(
    items: np.ndarray, offsets: np.ndarray, users: np.ndarray, max_length: int, masked: bool = True
) -> np.ndarray:
    """The input that asks for the next item: the newest events, then [MASK] if so trained, padded on the left.

    The one function for it: validation, evaluation and serving all call it.

    Parameters
    ----------
    items
        int32 [N] item codes of all users, oldest first.
    offsets
        int64 [U + 1].
    users
        int [B] which users.
    max_length
        Positions that the encoder reads, [MASK] included.
    masked
        Append [MASK], whose position is the question (cloze); otherwise the newest event asks (next item).

    Returns
    -------
    ndarray
        int64 [B, L], as narrow as the longest history among `users` allows.
    """
    starts = np.maximum(offsets[users], offsets[users + 1] - (max_length - masked))
    if masked:
        return pad_left(items, starts, offsets[users + 1], last=MASK)
    tokens = pad_left(items, starts, offsets[users + 1])
    return tokens if tokens.shape[1] else np.zeros((len(users), 1), dtype=np.int64)


def pad_left(items: np.ndarray, starts: np.ndarray, ends: np.ndarray, last: int | None = None) -> np.ndarray:
    """Slices `[start, end)` of a flat array as int64 rows, padded on the left to one width, `last` appended."""
    lengths = ends - starts
    width = int(lengths.max(initial=0))
    columns = np.arange(-width, 0)  # distance from the end
    index = ends[:, None] + columns[None, :]
    tokens = np.where(columns[None, :] >= -lengths[:, None], items[np.maximum(index, 0)] if len(items) else 0, PADDING)
    tokens = tokens.astype(np.int64)
    return tokens if last is None else np.pad(tokens, ((0, 0), (0, 1)), constant_values=last)


def encode_queries(
    encoder: SequenceEncoder,
    table: Tensor,
    items: np.ndarray,
    offsets: np.ndarray,
    max_length: int,
    side: Side | None = None,
) -> np.ndarray:
    """Query vectors float32 [U, D + 1], last dimension 1 for the output bias; where the table is, in its arithmetic.

    `side` holds the side features of these histories; without it a model that reads some takes them as missing.

    Users are encoded in chunks of equal width so that a user's vector does not depend on the chunk's other histories
    beyond rounding of the last bit.
    """
    encoder.eval()
    device, masked = table.device, not encoder.transformer.causal
    users = np.arange(len(offsets) - 1)
    numbers = np.arange(1, len(items) + 1)
    if side is None and encoder.side is not None:
        side = unknown_side(encoder.side.features, len(users), len(items))
    lengths = np.minimum(np.diff(offsets), max_length - masked)

    @torch.no_grad()
    def encoded(chunk: np.ndarray) -> np.ndarray:
        tokens = inference_input(items, offsets, chunk, max_length, masked)
        known = None
        if side is not None and encoder.side is not None:
            known = side.batch(tokens, inference_input(numbers, offsets, chunk, max_length, masked), chunk).to(device)
        newest = torch.full((len(chunk), 1), tokens.shape[1] - 1, device=device)
        found = encoder.queries(torch.from_numpy(tokens).to(device), table, newest, side=known)[:, 0]
        vectors: np.ndarray = found.float().cpu().numpy()
        return vectors

    queries = np.ones((len(users), table.shape[1] + 1), dtype=np.float32)
    chunks = _chunks(lengths)
    # an accelerator takes one thing after the other from whichever thread
    parts = map(encoded, chunks) if is_accelerator(device) else side_by_side(encoded, chunks)
    for chunk, vectors in zip(chunks, parts, strict=True):
        queries[chunk, :-1] = vectors
    return queries


def _chunks(lengths: np.ndarray) -> list[np.ndarray]:
    """Users of similar lengths [U], the shortest first, TOKENS_A_CHUNK positions (with [MASK]) or one user together."""
    by_length = np.argsort(lengths, kind="stable")
    chunks, start = [], 0
    while start < len(by_length):
        width = int(lengths[by_length[start]]) + 1
        # as many users as fit the bound at the width of the longest one taken
        stop = start + max(1, TOKENS_A_CHUNK // width)
        stop = start + max(1, TOKENS_A_CHUNK // (int(lengths[by_length[min(stop, len(by_length)) - 1]]) + 1))
        chunks.append(by_length[start:stop])
        start = stop
    return chunks
