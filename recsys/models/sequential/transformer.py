"""The sequence encoder: embeddings in, states of the wanted positions out.

"Attention Is All You Need" (2017) blocks; positions are counted from the end, so that padding on the left changes
nothing and the newest event has one place whatever the history's length. Dropout sits on the output of each branch and
not on the attention weights (where BERT4Rec has it): on a CPU it costs twice the attention itself. Attention can know
how far apart two events are, by rotary positions or by a learned bias for each distance: it then finds neighbours from
the first epochs on, where with absolute positions alone every position has to learn where its neighbours are.

The last block works only for the positions that somebody wants to read: the hidden ones in cloze training, one in
serving. The result is the same, and a two-block encoder takes little more than half the time.

Shapes: B users, L positions, Q wanted positions of each user, D width, H heads, E = D / H.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.features.device import fused_attention, is_accelerator
from recsys.models.layers import Dropout, LayerNorm, Linear
from recsys.settings import ModelSettings


class Block(nn.Module):
    """Attention and a feed-forward, each with a residual; normalised before or after the branch.

    With `gated`, a branch's output passes a sigmoid gate that reads the branch's input, channel by channel (LiGR,
    arXiv 2502.03417, as in eSASRec, arXiv 2508.06450).
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        D = settings.dimensions
        self.heads, self.norm_first = settings.heads, settings.norm_first
        self.project_query = Linear(D, D)
        self.project_key_value = Linear(D, 2 * D)
        self.project_out = Linear(D, D)
        self.feed_forward = FeedForward(D, settings.feed_forward, settings.feed_forward_multiple)
        self.attention_norm = LayerNorm(D)
        self.feed_forward_norm = LayerNorm(D)
        self.attention_gate = Linear(D, D) if settings.gated else None
        self.feed_forward_gate = Linear(D, D) if settings.gated else None
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, wanted: Tensor | None, bias: Tensor | None, rotation: Tensor | None) -> Tensor:
        """[B, L, D] to [B, Q, D].

        Parameters
        ----------
        wanted
            int64 [B, Q] positions to work for; None: all.
        bias
            Added to the attention scores, broadcastable to [B, H, Q, L]; minus infinity where a key is not read.
        rotation
            From `rotations`, [2, L, D / 2].
        """
        read = self.attention_norm(x) if self.norm_first else x
        own, asking = (x, read) if wanted is None else (pick(x, wanted), pick(read, wanted))
        y = self.attend(asking, read, wanted, bias, rotation)
        x = self._residual(own, y, self.attention_gate)
        if not self.norm_first:
            x = self.attention_norm(x)
        y = self.feed_forward(self.feed_forward_norm(x) if self.norm_first else x)
        x = self._residual(x, y, self.feed_forward_gate)
        return x if self.norm_first else self.feed_forward_norm(x)

    def _residual(self, x: Tensor, branch: Tensor, gate: Linear | None) -> Tensor:
        branch = self.dropout(branch)
        return x + branch if gate is None else x + torch.sigmoid(gate(x)) * branch

    def attend(
        self, asking: Tensor, read: Tensor, wanted: Tensor | None, bias: Tensor | None, rotation: Tensor | None
    ) -> Tensor:
        """Multi-head attention of [B, Q, D] over [B, L, D].

        Written out: on a CPU, torch's fused attention takes three times as long to differentiate in bfloat16, and a
        third longer without gradients.
        """
        B, _, D = read.shape
        q = self.project_query(asking)  # [B, Q, D]
        k, v = self.project_key_value(read).chunk(2, dim=-1)  # 2 x [B, L, D]
        if rotation is not None:
            q = rotate(q, rotation if wanted is None else rotation[:, wanted])
            k = rotate(k, rotation)
        q, k, v = self._by_head(q), self._by_head(k), self._by_head(v)  # [B, H, Q or L, E]
        q = q * (D // self.heads) ** -0.5
        if is_accelerator(read.device):
            mixed = fused_attention(q, k, v, bias, scale=1.0)
        else:
            scores = q @ k.transpose(-1, -2)
            if bias is not None:
                scores += bias  # in place: the product's gradient does not need its result
            mixed = torch.softmax(scores, dim=-1) @ v
        return self.project_out(mixed.transpose(1, 2).reshape(B, -1, D))

    def _by_head(self, x: Tensor) -> Tensor:
        """[B, L, D] to [B, H, L, E]; a head owns the same columns of both halves, so that halves turn as one."""
        B, L, _ = x.shape
        return x.view(B, L, 2, self.heads, -1).permute(0, 3, 1, 2, 4).reshape(B, self.heads, L, -1)


class FeedForward(nn.Module):
    """Position-wise: GELU of width `multiple` x D, or SwiGLU (arXiv 2002.05202) of the same number of weights."""

    def __init__(self, dimensions: int, kind: str, multiple: int) -> None:
        super().__init__()
        self.swiglu = kind == "swiglu"
        width = 2 * multiple * dimensions // 3 if self.swiglu else multiple * dimensions
        self.widen = Linear(dimensions, 2 * width if self.swiglu else width)
        self.narrow = Linear(width, dimensions)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        x = self.widen(x)
        if self.swiglu:
            gate, x = x.chunk(2, dim=-1)
            return self.narrow(functional.silu(gate) * x)
        return self.narrow(functional.gelu(x))


class Transformer(nn.Module):
    """Encoder over embedded histories: bidirectional, or causal (each position reads itself and older ones)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        D, length = settings.dimensions, settings.max_length
        self.max_length = length
        self.causal = settings.objective == "next-item"
        self.rotation: Tensor | None
        self.register_buffer("rotation", rotations(length, D, settings.heads) if settings.rotary else None, False)
        self.positions = nn.Parameter(torch.zeros(length, D))  # row 0: the last position
        nn.init.trunc_normal_(self.positions, std=0.02, a=-0.04, b=0.04)
        # one score for each block, head and distance (key - query), from -(L - 1) to L - 1
        self.distances = (
            nn.Parameter(torch.zeros(settings.blocks, settings.heads, 2 * length - 1))
            if settings.distance_bias
            else None
        )
        self.input_norm = LayerNorm(D)
        self.output_norm = LayerNorm(D) if settings.norm_first else nn.Identity()
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.blocks))
        self.dropout = Dropout(settings.dropout)

    def forward(
        self, embedded: Tensor, present: Tensor, wanted: Tensor | None = None, causal: bool | None = None
    ) -> Tensor:
        """States of the wanted positions.

        Parameters
        ----------
        embedded
            [B, L, D] item (or [MASK]) vectors, padded on the left; L <= max_length. Its precision is the encoder's.
        present
            bool [B, L], False at padding.
        wanted
            int64 [B, Q] positions; None: all.
        causal
            Each position reads itself and older ones; None: as the objective asks.

        Returns
        -------
        Tensor
            [B, Q, D]; padding positions hold values that mean nothing.

        Raises
        ------
        ValueError
            L exceeds max_length.
        """
        length = embedded.shape[1]
        if length > self.max_length:
            raise ValueError(f"a history of {length} positions exceeds max_length = {self.max_length}")
        x = embedded + self.positions[:length].flip(0).to(embedded.dtype)
        x = self.dropout(self.input_norm(x))
        rotation = None if self.rotation is None else self.rotation[:, -length:].to(x.dtype)
        unread = self._unread(present, self.causal if causal is None else causal)
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            bias = self._bias(number, length, unread, x.dtype)
            asked = wanted if number == last else None
            if asked is not None and bias is not None:
                rows = torch.arange(len(asked), device=asked.device)[:, None] if bias.shape[0] > 1 else 0
                bias = bias.transpose(1, 2)[rows, asked].transpose(1, 2)  # [B, H or 1, Q, L]
            x = block(x, asked, bias, rotation)
        return self.output_norm(x)

    def _unread(self, present: Tensor, causal: bool) -> Tensor | None:
        """bool, broadcastable to [B, 1, L, L]: True where a query must not read a key; None: everything is read."""
        length = present.shape[1]
        # an accelerator would have to be waited for, and masks cost it little
        full = not is_accelerator(present.device) and bool(present.all())
        padding = None if full else ~present[:, None, None, :]
        if not causal:
            return padding
        later = torch.ones(length, length, dtype=torch.bool, device=present.device).triu(1)
        if padding is None:
            return later[None, None]
        # a position of padding reads itself, so that no row is without a key
        return (later | padding) & ~torch.eye(length, dtype=torch.bool, device=present.device)

    def _bias(self, number: int, length: int, unread: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """[B or 1, H or 1, L or 1, L] added to the scores of one block."""
        if self.distances is not None:
            place = torch.arange(length, device=self.distances.device)
            distance = place[None, :] - place[:, None] + self.max_length - 1
            bias = self.distances[number][:, distance][None].to(dtype)  # [1, H, L, L]
            return bias if unread is None else bias.masked_fill(unread, -torch.inf)
        if unread is None:
            return None
        bias = torch.zeros(unread.shape, dtype=dtype, device=unread.device).masked_fill_(unread, -torch.inf)
        return bias.expand(-1, -1, length, -1)


def pick(x: Tensor, wanted: Tensor) -> Tensor:
    """[B, L, D] at int64 [B, Q] to [B, Q, D]."""
    B, L, D = x.shape
    rows = wanted + L * torch.arange(B, device=x.device)[:, None]
    return x.reshape(B * L, D)[rows]


def rotations(length: int, dimensions: int, heads: int) -> Tensor:
    """Cosines and sines of the angles by which each position turns, [2, L, D / 2]; every head has the same angles.

    "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, arXiv 2104.09864, section 3.2; its slowest
    angle is fitted here to histories of hundreds of events, not to texts of thousands of words.
    """
    slowest, pairs = 200.0, dimensions // heads // 2
    rates = slowest ** -(torch.arange(pairs) / pairs)
    angles = (torch.arange(length)[:, None] * rates[None, :]).tile(heads)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn [B, L, D] by position: products of turned vectors depend on how far apart their positions are."""
    cosine, sine = rotation
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cosine - right * sine, left * sine + right * cosine], dim=-1)
