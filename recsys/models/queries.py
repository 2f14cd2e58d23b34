"""What every kind of model answers histories with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# items int32 [N], offsets int64 [U + 1] and, where the model reads them, side features, to float32 [U, D]
Queries = Callable[..., np.ndarray]
