"""A BERT on sentences laid end to end: no padding, and on most processors weights packed once and branches fused.

transformers runs a rectangle of padded sentences and lets every product arrange its weights anew. Here the tokens of
sentences of any lengths are the rows of one matrix; only attention looks at sentences, those of one length together.
Packed products are private calls of torch over oneDNN. They are tried on a small product first: a torch without them,
or a processor that they refuse, computes the same with torch's public functions.

BERT is post-norm: J. Devlin et al., "BERT", NAACL 2019 (arXiv 1810.04805); RoBERTa and XLM-R count positions from
another number.

Shapes: T tokens of a batch, B sentences of one length, L their tokens, H width, A heads, d = H / A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_KINDS: Final = {"bert": False, "roberta": True, "xlm-roberta": True}  # do positions begin after the padding's id?


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedBert:
    """The transformer of a sentence encoder, for inference on a CPU.

    Attributes
    ----------
    words
        float32 [vocabulary, H], the model's own.
    places
        float32 [positions, H]: position and token type together, from a sentence's first token on.
    norm
        Of the embeddings.
    blocks
        The layers in order.
    dtype
        Of everything after the embeddings.
    """

    words: Tensor
    places: Tensor
    norm: _Norm
    blocks: tuple[_Block, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, model: Any, dtype: torch.dtype) -> Self | None:
        """The same computation as a BERT, RoBERTa or XLM-R of transformers; None for any other model."""
        if not _is_plain_bert(model):
            return None
        embeddings = model.embeddings
        first = int(model.config.pad_token_id) + 1 if _KINDS[model.config.model_type] else 0
        return cls(
            words=embeddings.word_embeddings.weight.detach(),
            places=(
                embeddings.position_embeddings.weight[first:] + embeddings.token_type_embeddings.weight[0]
            ).detach(),
            norm=_Norm.of(embeddings.LayerNorm, torch.float32),
            blocks=tuple(_Block.of(layer, model.config.num_attention_heads, dtype) for layer in model.encoder.layer),
            dtype=dtype,
        )

    def __call__(self, ids: Tensor, groups: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Last hidden states.

        Parameters
        ----------
        ids
            int64 [T] tokens of all sentences, one sentence after the other.
        groups
            (B, L) of the sentences that follow each other with one length; the products B x L add up to T.

        Returns
        -------
        list of Tensor
            [B, L, H] in `dtype` for each group.
        """
        sizes = [count * length for count, length in groups]
        places = torch.cat([torch.arange(length).repeat(count) for count, length in groups])
        states = self.norm(F.embedding(ids, self.words) + F.embedding(places, self.places)).to(self.dtype)
        for block in self.blocks:
            states = block(states, groups)
        return [part.view(count, length, -1) for part, (count, length) in zip(states.split(sizes), groups, strict=True)]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Block:
    """One layer: attention and feed-forward, each added to what came in and then normalised."""

    heads: int
    asked: Dense  # H -> 3 H: queries (already divided by sqrt(d)), keys, values
    mixed: Dense  # H -> H
    first_norm: _Norm
    widened: Dense
    narrowed: Dense
    second_norm: _Norm

    @classmethod
    def of(cls, layer: Any, heads: int, dtype: torch.dtype) -> Self:
        attention = layer.attention.self
        scale = (attention.query.out_features // heads) ** -0.5
        parts = (attention.query, attention.key, attention.value)
        weight = torch.cat([part.weight * (scale if part is attention.query else 1.0) for part in parts])
        bias = torch.cat([part.bias * (scale if part is attention.query else 1.0) for part in parts])
        kind = FusedDense if fuses(dtype) else Dense

        def dense(linear: nn.Linear) -> Dense:
            return kind(linear.weight, linear.bias, dtype)

        return cls(
            heads=heads,
            asked=kind(weight, bias, dtype),
            mixed=dense(layer.attention.output.dense),
            first_norm=_Norm.of(layer.attention.output.LayerNorm, dtype),
            widened=dense(layer.intermediate.dense),
            narrowed=dense(layer.output.dense),
            second_norm=_Norm.of(layer.output.LayerNorm, dtype),
        )

    def __call__(self, states: Tensor, groups: Sequence[tuple[int, int]]) -> Tensor:
        """[T, H] -> [T, H]."""
        asked = self.asked(states)
        seen = torch.empty_like(states)
        ends = [0]
        for count, length in groups:
            ends.append(ends[-1] + count * length)
        for (start, end), (count, length) in zip(pairwise(ends), groups, strict=True):
            _attend(asked[start:end], seen[start:end], count, length, self.heads)
        states = self.first_norm(self.mixed.added(seen, states))
        return self.second_norm(self.narrowed.added(self.widened.gelu(states), states))


def _attend(asked: Tensor, out: Tensor, count: int, length: int, heads: int) -> None:
    """Attention of B sentences of L tokens: `asked` [B L, 3 H] to `out` [B L, H].

    On a CPU plain products on short sentences are faster than the fused kernel, which works through blocks that are
    longer than they are; and so is a softmax in fp32 than one in bf16.
    """
    query, key, value = (
        asked.view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4).reshape(3, count * heads, length, -1)
    )
    weights = torch.softmax(torch.bmm(query, key.transpose(1, 2)), dim=-1, dtype=torch.float32)  # [B A, L, L]
    mixed = torch.bmm(weights.to(value.dtype), value).view(count, heads, length, -1)
    out.view(count, length, heads, -1).copy_(mixed.transpose(1, 2))


class Dense:
    """`x W' + b` by torch's public functions."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        self.weight = weight.detach().to(dtype).contiguous()
        self.bias = bias.detach().to(dtype).contiguous()

    def __call__(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight, self.bias)

    def gelu(self, inputs: Tensor) -> Tensor:
        """The exact GELU of it."""
        return F.gelu(self(inputs))

    def added(self, inputs: Tensor, residual: Tensor) -> Tensor:
        """It plus `residual`."""
        return self(inputs) + residual


class FusedDense(Dense):
    """The same, with W in the order in which oneDNN reads it and what follows in the same pass, rounded once."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__(weight, bias, dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, inputs: Tensor) -> Tensor:
        return self._run(inputs, "none")

    def gelu(self, inputs: Tensor) -> Tensor:
        """The exact GELU of it."""
        return self._run(inputs, "gelu")

    def added(self, inputs: Tensor, residual: Tensor) -> Tensor:
        """It plus `residual`."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise.binary(inputs, residual, self.weight, self.bias, "add")
        return output

    def _run(self, inputs: Tensor, after: str) -> Tensor:
        output: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, after, [], "none")
        return output


def fuses(dtype: torch.dtype) -> bool:
    """Return whether `FusedDense` works here and gives what `Dense` gives."""
    if not torch.backends.mkldnn.is_available():
        return False
    weight = torch.linspace(-1, 1, 32 * 48).view(32, 48).sin()
    bias, inputs, residual = weight[:, 0], weight[:3].cos(), weight[:3, :32].cos()
    inputs, residual = inputs.to(dtype).contiguous(), residual.to(dtype).contiguous()

    def results(kind: type[Dense]) -> Tensor:
        dense = kind(weight, bias, dtype)
        return torch.stack([dense(inputs), dense.gelu(inputs), dense.added(inputs, residual)]).float()

    try:
        with torch.inference_mode():
            fused, plain = results(FusedDense), results(Dense)
    except Exception:  # the calls are private: another version may lack them, name them or count arguments otherwise
        return False
    # Dense rounds a sum of products twice and FusedDense once, and each may add up in its own order, so they part by a
    # few steps of `dtype`; oneDNN's GELU has five digits. Another computation is off by a whole.
    few = 4 * torch.finfo(dtype).eps
    return torch.allclose(fused, plain, rtol=few, atol=max(1e-4, few))


@dataclass(frozen=True, eq=False)
class _Norm:
    weight: Tensor
    bias: Tensor
    eps: float

    @classmethod
    def of(cls, norm: nn.LayerNorm, dtype: torch.dtype) -> Self:
        return cls(norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), norm.eps)

    def __call__(self, states: Tensor) -> Tensor:
        return F.layer_norm(states, self.weight.shape, self.weight, self.bias, self.eps)


def _is_plain_bert(model: Any) -> bool:
    """Return whether `PackedBert` computes this model: no adapters, no other activation, on the processor."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "model_type", None) not in _KINDS or not hasattr(model, "encoder"):
        return False
    if config.hidden_act != "gelu" or getattr(config, "is_decoder", False):
        return False
    if getattr(config, "position_embedding_type", "absolute") not in (None, "absolute"):
        return False
    linear = [module for name, module in model.named_modules() if name.endswith(("dense", "query", "key", "value"))]
    return model.device.type == "cpu" and all(type(module) is nn.Linear for module in linear)
