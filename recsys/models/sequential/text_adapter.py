"""From a frozen text vector to an item's vector: maps that begin as the identity, so that training starts from text.

With a mean of vectors as the query (models/recency.py), the untrained model is the text recommender
(models/text.py), and each step of training moves it away from there. Nothing in an adapter belongs to an item, so its
weights serve any catalogue whose texts come from the same encoder.

Source of "experts": UniSRec, "Towards Universal Sequence Representation Learning for Recommender Systems", KDD 2022,
arXiv 2206.05941, section 3.1: parametric whitening, mixed by a softmax gate. Departures: the experts add to the
vector instead of replacing it, and the gate has no noise.

Shapes: V items, E width of the text vectors, D of the item's, X experts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDENED = 2  # inner width of the perceptron, in D


class TextAdapter(nn.Module):
    """x I + c I, c zero for a text vector of zeros: what has no text stays without a vector.

    Parameters
    ----------
    inputs, outputs
        E and D; a wider output begins with zeros in its other dimensions, a narrower one drops the weakest.
    kind
        "identity": a linear map. "mlp": it and a perceptron. "experts": it and a gated mixture of linear maps.
    experts
        X.
    """

    def __init__(self, inputs: int, outputs: int, kind: str, experts: int) -> None:
        super().__init__()
        self.kind = kind
        self.straight = nn.Parameter(torch.eye(outputs, inputs))
        if kind == "mlp":
            self.widen = nn.Linear(inputs, WIDENED * outputs)
            self.narrow = nn.Linear(WIDENED * outputs, outputs, bias=False)
            nn.init.zeros_(self.narrow.weight)
        elif kind == "experts":
            self.shifts = nn.Parameter(torch.zeros(experts, inputs))
            self.maps = nn.Parameter(torch.zeros(experts, outputs, inputs))
            self.gate = nn.Linear(inputs, experts, bias=False)  # random: the experts would learn the same otherwise

    def forward(self, text: Tensor) -> Tensor:
        """[V, E] to [V, D]."""
        mapped = functional.linear(text, self.straight)
        if self.kind == "identity":
            return mapped
        if self.kind == "mlp":
            # text vectors have length 1: their entries, of size 1 / sqrt(E), would leave the units linear
            added = self.narrow(functional.gelu(self.widen(text * text.shape[1] ** 0.5)))
        else:
            shares = torch.softmax(self.gate(text * text.shape[1] ** 0.5), dim=-1)  # [V, X]
            added = torch.zeros_like(mapped)
            for share, shift, of_expert in zip(shares.unbind(1), self.shifts, self.maps, strict=True):
                added = added + share[:, None] * functional.linear(text - shift, of_expert)
        return mapped + added * (text != 0).any(-1, keepdim=True)
