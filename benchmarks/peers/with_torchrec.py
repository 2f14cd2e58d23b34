"""TorchRec's side of `multiplexing_speed.py`; runs in the environment of `make peers`, never in ours.

Reads one JSON object from standard input, a case of that script, and prints one: examples a second and peak memory in
MB. Measured as the script measures its own arms, the ids included: one `EmbeddingBagConfig` a feature, TorchRec's
optimizer fused into the backward pass.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
import warnings

import numpy as np
import torch
from ids import power_law

try:
    from torchrec import EmbeddingBagConfig, KeyedJaggedTensor
    from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
    from torchrec.optim import RowWiseAdagrad
except ModuleNotFoundError as error:
    sys.exit(f"TorchRec is not in the peers' environment ({error}); run `make peers` again.")


def main() -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    case = json.load(sys.stdin)
    features, batches = case["features"], case["batches"]
    names = [f"f{i}" for i in range(features)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    collection = FusedEmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=name, embedding_dim=case["width"], num_embeddings=case["rows"] // features, feature_names=[name]
            )
            for name in names
        ],
        optimizer_type=RowWiseAdagrad,
        optimizer_kwargs={"lr": 0.01},
        device=torch.device("cpu"),
    )
    lengths = torch.full((features * case["examples"],), case["values"])
    ids = power_law(rows=case["rows"], features=features, values=case["examples"] * case["values"], batches=batches)
    asked = [KeyedJaggedTensor(keys=names, values=torch.from_numpy(b).flatten(), lengths=lengths) for b in ids]
    gradient = torch.randn(case["examples"], features * case["width"]) / case["examples"]

    def step(number: int) -> None:
        collection(asked[number % batches]).values().backward(gradient)

    for number in range(2):  # the first step makes the optimizer's state
        step(number)
    laps: list[float] = []
    while (sum(laps) < case["seconds"] and len(laps) < 200) or len(laps) < 3:
        began = time.perf_counter()
        step(len(laps))
        laps.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    speed = case["examples"] / float(np.median(laps))
    print(json.dumps({"examples_per_second": speed, "peak_mb": (peak - before) / 1024}))


if __name__ == "__main__":
    main()
