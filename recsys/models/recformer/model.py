"""Recformer: a language model that reads a history as text and an item as a history of one.

Source: Li et al., "Text Is All You Need: Learning Language Representations for Sequential Recommendation" (KDD 2023,
arXiv 2305.13731), sections 3.2 and 3.3. The sum of four embeddings (token, token position, token type, item position)
goes through a BERT-like encoder (normalisation after each branch), whose weights may be a BERT's, RoBERTa's or
Longformer's (recsys/models/recformer/weights.py). The score of an item is the cosine of two vectors.

Departures: dropout is not applied to attention weights, and attention is full where no window is set. Four settings
make the most of a language model that has read sentences but never histories, such as MiniLM; with all of them the
model begins near the untrained text recommender (recsys/models/text/model.py), and learns from there: token positions
that begin anew with each item; a learned score, negative at first, that keeps attention within an item; as vector not
the first token's state but the sum of the items' mean states, each a unit vector, with a learned weight for each item
position, at first .7 for each step back; and a linear map of these that begins as the whitening of the catalogue's
vectors. `follows` adds to a history's vector two linear maps, zero at first, of that vector and of its newest item's:
what follows such a history is not what is like it. An item's vector has no part in them.

Shapes: B histories, L tokens, D width of the encoder, E of the vectors, H heads, N codes of all users.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from recsys.features.tokens import TOKEN_TYPES
from recsys.models.layers import Dropout, LayerNorm, Linear
from recsys.models.recformer.inputs import Input, Limits
from recsys.models.repeats import Repeats
from recsys.models.window import window_attention

RECENCY: Final = 0.7  # weight of a step back at first, as of the untrained text recommender
# scalars are learnt as multiples of this: at a language model's rate they would stay where they are
QUICK: Final = 50.0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Everything about a Recformer that its weights do not say.

    Attributes
    ----------
    words
        Rows of the token embedding.
    dimensions, inner
        D, and width inside the feed-forward branch.
    blocks, heads
        Layers of the encoder, H.
    tokens, items
        Read of a history at most: tokens with the first one, items.
    first, padding
        Ids of the token before a history and of padding.
    window
        Tokens that attention sees around each, half to either side; None: all.
    places
        What token positions count, see `Limits`.
    apart
        What the attention between tokens of two items is lowered by at first, learned for each head; None: it is not.
    pooling
        "first": the first token's state; "items": the weighted sum of the items' mean states, each a unit vector.
    global_projections
        The first token asks with projections of its own, as in Longformer.
    follows
        Two linear maps, zero at first, of a history's vector and its newest item's are added to a history's vector.
    repeats
        A learned number by the steps since an item was had is added to its cosine (models/repeats.py).
    projection
        Width of the vectors after a linear map (of each item, in `pooling = "items"`); None: there is none, it is D.
    epsilon
        Of the normalisations.
    """

    words: int
    dimensions: int
    inner: int
    blocks: int
    heads: int
    tokens: int
    items: int
    first: int
    padding: int
    window: int | None = None
    places: Literal["history", "item"] = "history"
    apart: float | None = None
    pooling: Literal["first", "items"] = "first"
    follows: bool = False
    repeats: bool = False
    global_projections: bool = False
    projection: int | None = None
    epsilon: float = 1e-12

    def __post_init__(self) -> None:
        if self.dimensions % self.heads:
            raise ValueError(f"dimensions ({self.dimensions}) must be divisible by heads ({self.heads})")
        if self.apart is not None and self.window is not None:
            raise ValueError(f"apart ({self.apart}) needs attention without a window ({self.window})")
        if self.follows and self.pooling != "items":
            raise ValueError(f'follows maps the newest item and needs pooling = "items", not {self.pooling!r}')

    @property
    def width(self) -> int:
        """E, of the vectors."""
        return self.projection or self.dimensions

    @property
    def limits(self) -> Limits:
        """Limits of what is read of a history."""
        return Limits(items=self.items, tokens=self.tokens, first=self.first, padding=self.padding, places=self.places)


class Recformer(nn.Module):
    """Embeddings and encoder."""

    def __init__(self, shape: Shape, *, dropout: float = 0.1) -> None:
        super().__init__()
        D = shape.dimensions
        self.shape = shape
        self.words = nn.Embedding(shape.words, D)
        self.positions = nn.Embedding(shape.tokens, D)
        self.types = nn.Embedding(TOKEN_TYPES, D)
        self.item_positions = nn.Embedding(shape.items + 1, D)
        self.norm = LayerNorm(D, eps=shape.epsilon)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.blocks))
        if shape.pooling == "items":
            self.recency = nn.Parameter(torch.arange(shape.items) * math.log(RECENCY) / QUICK)
        if shape.projection is not None:
            self.projection = Linear(D, shape.projection)
        if shape.follows:
            self.after_mean, self.after_newest = (Linear(shape.width, shape.width, bias=False) for _ in range(2))
        self.repeats = Repeats(shape.items) if shape.repeats else None
        self.recompute = False  # activations in the backward pass instead of keeping them: half the speed, less memory
        self.apply(_initialise)
        if shape.follows:
            nn.init.zeros_(self.after_mean.weight)
            nn.init.zeros_(self.after_newest.weight)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.words.weight.device

    def states(self, given: Input, *, dtype: torch.dtype = torch.float32, first_only: bool = False) -> Tensor:
        """Last hidden states [B, L, D]; `first_only`: [B, 1, D], those of the first token, for less work.

        The network computes in `dtype`; its weights stay float32.
        """
        tokens, types, places, items = (
            self._on_device(part) for part in (given.tokens, given.types, given.places, given.items)
        )
        width = tokens.shape[1]
        x = self.words(tokens) + self.types(types) + self.item_positions(items) + self.positions(places)
        x = self.dropout(self.norm(x)).to(dtype)
        keep = apart = None
        if int(given.lengths.min(initial=width)) < width:
            keep = torch.arange(width, device=self.device) < self._on_device(given.lengths)[:, None]
        if self.shape.apart is not None:
            others = (items[:, :, None] != items[:, None, :]) & (items[:, None, :] > 0)
            others[:, 0] = False  # the first token sees all alike
            apart = others[:, None].to(dtype)  # [B, 1, L, L]
        for number, block in enumerate(self.blocks, 1):
            last = first_only and number == len(self.blocks)
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, keep, apart, last, use_reentrant=False)
            else:
                x = block(x, keep, apart, last)
        return x

    def forward(self, given: Input, dtype: torch.dtype = torch.float32, *, as_items: bool = False) -> Tensor:
        """Unit vectors float32 [B, E]; zeros for an empty history where items are pooled.

        `as_items`: of items, each given as a history of one; without `follows` these are the same.
        """
        if self.shape.pooling == "first":
            return self.projected(self.states(given, dtype=dtype, first_only=True)[:, 0].float())
        means, there = self.item_means(given, dtype)
        return self.pooled(self.projected(means), there, as_items=as_items)

    def item_means(self, given: Input, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Each item's mean state float32 [B, K, D], newest first, not yet of length 1, and bool [B, K], which exist."""
        states = self.states(given, dtype=dtype).float()
        B, L, D = states.shape
        K = self.shape.items
        real = self._on_device((np.arange(L) < given.lengths[:, None]) & (given.items > 0))  # [B, L]
        place = self._on_device(given.items - 1).clamp(min=0) + K * torch.arange(B, device=self.device)[:, None]
        sums = states.new_zeros(B * K, D).index_add(0, place.flatten(), (states * real[..., None]).flatten(0, 1))
        counts = states.new_zeros(B * K).index_add(0, place.flatten(), real.flatten().float())
        return (sums / counts.clamp(min=1)[:, None]).view(B, K, D), (counts > 0).view(B, K)

    def pooled(self, vectors: Tensor, there: Tensor, *, as_items: bool = False) -> Tensor:
        """A history's unit vector [B, E] of its items' [B, K, E], newest first, where bool [B, K] says they exist."""
        weights = (self.recency * QUICK).exp()[: there.shape[1]] * there
        mean = functional.normalize(torch.einsum("bk,bke->be", weights, vectors), dim=-1)
        if as_items or not self.shape.follows:
            return mean
        newest = vectors[:, 0] * there[:, :1]
        follows = self.after_mean(self.dropout(mean)) + self.after_newest(self.dropout(newest))
        return functional.normalize(mean + follows, dim=-1)

    def projected(self, states: Tensor) -> Tensor:
        """[..., D] to unit vectors [..., E]."""
        vectors = functional.normalize(states, dim=-1)
        if self.shape.projection is None:
            return vectors
        return functional.normalize(self.projection(vectors), dim=-1)

    def _on_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)


class Block(nn.Module):
    """Attention and feed-forward, each added and then normalised."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        D = shape.dimensions
        self.heads = shape.heads
        self.reach = None if shape.window is None else shape.window // 2
        self.apart = None if shape.apart is None else nn.Parameter(torch.full((shape.heads,), -shape.apart / QUICK))
        self.qkv = Linear(D, 3 * D)
        self.global_qkv = Linear(D, 3 * D) if shape.global_projections else None
        self.out = Linear(D, D)
        self.norm = LayerNorm(D, eps=shape.epsilon)
        self.up, self.down = Linear(D, shape.inner), Linear(shape.inner, D)
        self.norm_out = LayerNorm(D, eps=shape.epsilon)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor | None, apart: Tensor | None = None, first_only: bool = False) -> Tensor:
        """[B, L, D] to [B, L, D], or to [B, 1, D] where only the first token's state is wanted.

        `keep` is bool [B, L], False at padding; `apart` [B, 1, L, L], 1 between tokens of two items and 0 elsewhere.
        """
        attended = None if self.global_qkv is None else self._first(x, keep, self.global_qkv)
        if not first_only:
            q, k, v = self._split(self.qkv(x), 3)
            lowered = None  # [B, H, L, L], what is added to the scores
            if apart is not None and self.apart is not None:
                lowered = (self.apart * QUICK).to(x.dtype)[:, None, None] * apart
            others = window_attention(q, k, v, keep, self.reach, lowered)
            attended = others if attended is None else torch.cat([attended, others[:, :, 1:]], dim=2)
        elif attended is None:
            attended = self._first(x, keep, self.qkv)
        x = x[:, : attended.shape[2]]
        x = self.norm(x + self.dropout(self.out(attended.transpose(1, 2).flatten(2))))
        return self.norm_out(x + self.dropout(self.down(functional.gelu(self.up(x)))))

    def _first(self, x: Tensor, keep: Tensor | None, qkv: Linear) -> Tensor:
        """[B, H, 1, d]: what the first token, which sees all, attends to."""
        D, weight, bias = x.shape[-1], qkv.weight.to(x.dtype), qkv.bias.to(x.dtype)
        (q,) = self._split(functional.linear(x[:, :1], weight[:D], bias[:D]), 1)
        k, v = self._split(functional.linear(x, weight[D:], bias[D:]), 2)
        return window_attention(q, k, v, keep, None)

    def _split(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[B, L, parts D] to so many [B, H, L, d]."""
        B, L, _ = projected.shape
        return projected.view(B, L, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


class MaskedHead(nn.Module):
    """States of hidden tokens to logits over all tokens; the output embedding is the input's."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        D = shape.dimensions
        self.dense, self.norm = Linear(D, D), LayerNorm(D, eps=shape.epsilon)
        self.bias = nn.Parameter(torch.zeros(shape.words))

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """[P, D] and the token embedding [W, D] to [P, W], in the precision of the states."""
        dtype = states.dtype
        return functional.linear(self.norm(functional.gelu(self.dense(states))), words.to(dtype), self.bias.to(dtype))


def _initialise(module: nn.Module) -> None:
    """Embeddings as BERT's: normal .02."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
