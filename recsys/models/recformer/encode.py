"""A Recformer's vectors of histories and items: which are read together, and in what precision.

Shapes: B histories, L tokens, E width of the vectors, V items, N codes of all users.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from recsys.features.device import best_device
from recsys.features.precision import activation_dtype
from recsys.features.tokens import ItemTokens
from recsys.models.recformer.inputs import Input, groups, read, token_lengths
from recsys.models.recformer.model import Recformer


@dataclass(frozen=True)
class Packing:
    """Rules for histories that are encoded at once.

    Attributes
    ----------
    tokens
        At most, padding included.
    filled
        The shortest history as a share of the longest, at least.
    multiple
        The width is one of this.
    exact
        Whether histories of one length alone can be asked for: without padding a vector hardly depends on its company.
    """

    tokens: int
    filled: float
    multiple: int
    exact: bool


# on a CPU what the caches hold and little padding; an accelerator wants few, large products of few different shapes
PACKING: Final = {
    "cpu": Packing(tokens=2048, filled=0.75, multiple=1, exact=True),
    "cuda": Packing(tokens=65_536, filled=0.2, multiple=32, exact=False),
}


def encode(
    model: Recformer,
    catalogue: ItemTokens,
    codes: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    *,
    dtype: torch.dtype = torch.float32,
    exact: bool = False,
    as_items: bool = False,
) -> Tensor:
    """Unit vectors float32 [B, E] of histories, those of similar length together.

    Parameters
    ----------
    catalogue
        Tokens by item code.
    codes
        int [N] item codes of all users, oldest first.
    starts, ends
        int64 [B] slices of `codes`.
    dtype
        What the network computes in.
    exact
        Read only histories of one length together, where that is not far slower (`Packing.exact`).
    as_items
        The histories are of one item each, and its vector is what is wanted.
    """
    parts, rows = [torch.zeros(0, model.shape.width, device=model.device)], [np.zeros(0, dtype=np.int64)]
    for group, given in read_groups(model, catalogue, codes, starts, ends, exact=exact):
        parts.append(model(given, dtype, as_items=as_items))
        rows.append(group)
    back = np.argsort(np.concatenate(rows))
    return torch.cat(parts)[torch.from_numpy(back).to(model.device)]


def read_groups(
    model: Recformer, catalogue: ItemTokens, codes: np.ndarray, starts: np.ndarray, ends: np.ndarray, *, exact: bool
) -> Iterator[tuple[np.ndarray, Input]]:
    """Histories in groups that the model encodes at once where it is; arguments as of `encode`.

    Yields
    ------
    rows, given
        int64, which of the B histories, and these as they are read.
    """
    limits, packing = model.shape.limits, PACKING.get(model.device.type, PACKING["cpu"])
    lengths = token_lengths(catalogue, codes, starts, ends, limits)
    widths = packing.multiple * -(-lengths // packing.multiple)
    for group in groups(widths, packing.tokens, 1.0 if exact and packing.exact else packing.filled):
        yield group, read(catalogue, codes, starts[group], ends[group], limits, packing.multiple)


def encode_histories(
    model: Recformer, catalogue: ItemTokens, items: np.ndarray, offsets: np.ndarray, *, dtype: torch.dtype | None = None
) -> np.ndarray:
    """Unit vectors float32 [U, E] of whole histories, for validation and serving.

    Parameters
    ----------
    items, offsets
        int32 [N] codes, oldest first, and int64 [U + 1].
    dtype
        What the network computes in; None: `best_dtype`.
    """
    return _encoded(model, catalogue, items, offsets, dtype, as_items=False)


@torch.no_grad()
def _encoded(
    model: Recformer,
    catalogue: ItemTokens,
    items: np.ndarray,
    offsets: np.ndarray,
    dtype: torch.dtype | None,
    *,
    as_items: bool,
) -> np.ndarray:
    training = model.training
    model.eval()
    dtype = dtype or best_dtype()
    vectors = encode(model, catalogue, items, offsets[:-1], offsets[1:], dtype=dtype, exact=True, as_items=as_items)
    model.train(training)
    return vectors.cpu().numpy()


def item_table(model: Recformer, catalogue: ItemTokens, *, dtype: torch.dtype | None = None) -> np.ndarray:
    """Unit vectors float32 [V + 1, E] of all items, each a history of one; zeros for padding and items without text."""
    codes, places = np.arange(catalogue.size + 1), np.arange(catalogue.size + 2)
    vectors = _encoded(model, catalogue, codes, places, dtype, as_items=True)
    vectors[catalogue.lengths == 0] = 0
    return vectors


def best_dtype(precision: str = "auto") -> torch.dtype:
    """As asked for ("bf16", "fp32"), or bf16 where an accelerator or this processor multiplies it natively ("auto")."""
    return activation_dtype(precision, best_device())
