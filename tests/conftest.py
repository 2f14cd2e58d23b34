"""Settings that every test shares: no network, no telemetry, few threads."""

from __future__ import annotations

import os

# before any library reads them
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_URL": "",
        "MPLBACKEND": "Agg",
    }
)

import torch

torch.set_num_threads(1)  # the tests' tensors are small; two threads would mostly wait for each other
