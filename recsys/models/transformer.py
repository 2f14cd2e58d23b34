"""The sequence encoder: embeddings in, one state a position out.

"Attention Is All You Need" (2017) blocks; learned positions counted from the end, so that padding on the left changes
nothing and the newest event has one place whatever the history's length. Dropout sits on the output of each branch and
not on the attention weights (where BERT4Rec has it): on a CPU it costs twice the attention itself. Rotary positions,
on top of the learned ones, let attention find neighbours from the first epochs on; without them every position has to
learn on its own where its neighbours are.

Shapes: B users, L positions, D width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def initialise(linear: nn.Linear) -> None:
    """Weights of variance 1 / inputs, biases zero.

    BERT's fixed deviation of 0.02 suits its width of 768; at 64 it leaves attention uniform for the first epochs.
    """
    nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
    nn.init.zeros_(linear.bias)


class Block(nn.Module):
    """Attention and a feed-forward of width 4 D, each with a residual; normalised before or after the branch."""

    def __init__(self, dimensions: int, heads: int, dropout: float, norm_first: bool) -> None:
        super().__init__()
        self.heads, self.norm_first = heads, norm_first
        self.project_in = nn.Linear(dimensions, 3 * dimensions)
        self.project_out = nn.Linear(dimensions, dimensions)
        self.widen = nn.Linear(dimensions, 4 * dimensions)
        self.narrow = nn.Linear(4 * dimensions, dimensions)
        self.attention_norm = nn.LayerNorm(dimensions)
        self.feed_forward_norm = nn.LayerNorm(dimensions)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, rotation: Tensor | None) -> Tensor:
        """[B, L, D] to [B, L, D].

        `mask` is bool, broadcastable to [B, H, L, L], True where a key may be read; `rotation` is from `rotations`.
        """
        if self.norm_first:
            x = x + self.dropout(self.attend(self.attention_norm(x), mask, rotation))
            return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        x = self.attention_norm(x + self.dropout(self.attend(x, mask, rotation)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))

    def attend(self, x: Tensor, mask: Tensor | None, rotation: Tensor | None) -> Tensor:
        """Multi-head self-attention."""
        B, L, D = x.shape
        q, k, v = (
            self.project_in(x).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        )  # 3 x [B, H, L, D/H]
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.project_out(mixed.transpose(1, 2).reshape(B, L, D))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Position-wise, GELU."""
        return self.narrow(functional.gelu(self.widen(x)))


def rotations(length: int, width: int) -> Tensor:
    """Cosines and sines of the angles by which each position turns, [2, L, width / 2].

    "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, arXiv 2104.09864, section 3.2; its slowest
    angle is fitted here to histories of hundreds of events, not to texts of thousands of words.
    """
    slowest = 200.0
    rates = slowest ** -(torch.arange(width // 2) / (width // 2))
    angles = torch.arange(length)[:, None] * rates[None, :]
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn [B, H, L, width] by position: products of turned vectors depend on how far apart their positions are."""
    cosine, sine = rotation.to(x.dtype)
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cosine - right * sine, left * sine + right * cosine], dim=-1)


class Transformer(nn.Module):
    """Bidirectional encoder over embedded histories.

    Raises
    ------
    ValueError
        Rotary positions need an even width of each head.
    """

    def __init__(
        self,
        *,
        dimensions: int,
        blocks: int,
        heads: int,
        max_length: int,
        dropout: float,
        norm_first: bool,
        rotary: bool,
    ) -> None:
        super().__init__()
        if rotary and dimensions // heads % 2:
            raise ValueError(f"rotary positions need heads of an even width, {dimensions} / {heads} is odd")
        self.max_length = max_length
        self.rotation: Tensor | None
        self.register_buffer(
            "rotation", rotations(max_length, dimensions // heads) if rotary else None, persistent=False
        )
        self.positions = nn.Parameter(torch.zeros(max_length, dimensions))  # row 0: the last position
        self.input_norm = nn.LayerNorm(dimensions)
        self.output_norm = nn.LayerNorm(dimensions) if norm_first else nn.Identity()
        self.blocks = nn.ModuleList(Block(dimensions, heads, dropout, norm_first) for _ in range(blocks))
        self.dropout = nn.Dropout(dropout)
        nn.init.trunc_normal_(self.positions, std=0.02, a=-0.04, b=0.04)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                initialise(module)

    def forward(self, embedded: Tensor, present: Tensor) -> Tensor:
        """States of every position.

        Parameters
        ----------
        embedded
            [B, L, D] item (or [MASK]) vectors, padded on the left; L <= max_length.
        present
            bool [B, L], False at padding.

        Returns
        -------
        Tensor
            [B, L, D]; padding positions hold values that mean nothing.

        Raises
        ------
        ValueError
            L exceeds max_length.
        """
        length = embedded.shape[1]
        if length > self.max_length:
            raise ValueError(f"a history of {length} positions exceeds max_length = {self.max_length}")
        x = embedded + self.positions[:length].flip(0)
        x = self.dropout(self.input_norm(x))
        mask = None if bool(present.all()) else present[:, None, None, :]
        rotation = None if self.rotation is None else self.rotation[:, :length]
        for block in self.blocks:
            x = block(x, mask, rotation)
        return self.output_norm(x)
