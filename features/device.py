"""Where networks compute: on the accelerator if there is one."""

from __future__ import annotations

import torch


def best_device() -> torch.device:
    """The accelerator that torch sees, or the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
