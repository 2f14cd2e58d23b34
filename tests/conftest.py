"""Settings that every test shares: no network, no telemetry, few threads; and processors that are not at hand.

Tests whose results come from products of matrices are marked `numeric`: `make test-machines` runs them on such
processors.

RECSYS_TEST_THREADS     torch's threads, 1 unless it says otherwise.
RECSYS_TEST_PROCESSOR   "uneven": every test runs with products as `Uneven` makes them, in bf16 and in fp32.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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

if "PYTEST_XDIST_WORKER" in os.environ:  # the other cores belong to the other workers
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start, too

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import (  # noqa: F401 - fixtures
    object_store,
    object_store_server,
    postgresql,
    postgresql_server,
    redis,
    redis_server,
    scratch,
)

try:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
except ModuleNotFoundError:  # `make test-pythons` runs what needs no torch
    TorchDispatchMode = object
else:
    # the tests' tensors are small; two threads would mostly wait for each other
    torch.set_num_threads(int(os.environ.get("RECSYS_TEST_THREADS", "1")))

# nothing depends on the clock
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


class Uneven(TorchDispatchMode):
    """Products whose last bits depend on their shape, as on processors with AMX: their kernels for many rows add up in
    another order than those for few.

    A sum in another order differs in its last fp32 bits, which changes its rounding to bf16 about once in a thousand
    numbers. So every 1024th number of a product, and at least two, from a place that the shape decides, moves to its
    next neighbour: in bf16 only, or in `dtypes`. Text vectors then part by up to 1.6e-3; with AMX by 6e-4.
    """

    NAMES = ("mm", "bmm", "addmm", "baddbmm", "_linear_pointwise")

    def __init__(self, *dtypes: torch.dtype) -> None:
        super().__init__()
        self.dtypes = dtypes or (torch.bfloat16,)
        self.moved = 0  # products

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in self.NAMES or result.dtype not in self.dtypes:
            return result
        self.moved += 1
        flat = result.reshape(-1)
        for towards in (-torch.inf, torch.inf):
            step = min(2048, max(1, len(flat) // 2))
            some = torch.arange(len(flat))[(hash(result.shape) + 61 * (towards > 0)) % step :: step]
            some = some[flat[some] != 0]  # sums of nothing are nothing everywhere
            flat[some] = torch.nextafter(flat[some], flat.new_full((len(some),), towards))
        return flat.view(result.shape)


NUMERIC = (
    "features/test_packed.py",
    "features/test_rowwise.py",
    "features/test_serving.py",
    "features/test_tables.py",
    "features/test_text.py",
    "features/test_threads.py",
    "features/test_whitening.py",
    "recsys/bundles/",
    "recsys/candidates/",
    "recsys/evaluation/test_ranking.py",
    "recsys/models/recformer/test_inputs.py",
    "recsys/models/recformer/test_model.py",
    "recsys/models/recformer/test_weights.py",
    "recsys/models/sequential/test_against_torch.py",
    "recsys/models/sequential/test_bert4rec.py",
    "recsys/models/sequential/test_item_tower.py",
    "recsys/models/sequential/test_losses.py",
    "recsys/models/sequential/test_recency.py",
    "recsys/models/sequential/test_side.py",
    "recsys/models/sequential/test_text_adapter.py",
    "recsys/models/sequential/test_transformer.py",
    "recsys/models/sequential/test_warm_start.py",
    "recsys/models/test_window.py",
    "recsys/models/test_repeats.py",
    "recsys/models/test_history_mean.py",
    "recsys/ranking/",
    "recsys/retrieval/test_index.py",
    "recsys/retrieval/test_top_k.py",
    "recsys/text/",
    "recsys/training/test_correctness.py",
    "recsys/night/test_fit.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the numeric tests."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).as_posix().startswith(NUMERIC):
            item.add_marker(pytest.mark.numeric)


@pytest.fixture(autouse=True)
def processor() -> Iterator[Any]:
    """The processor that RECSYS_TEST_PROCESSOR names; else this one."""
    if os.environ.get("RECSYS_TEST_PROCESSOR") != "uneven":
        yield None
        return
    with Uneven(torch.bfloat16, torch.float32) as mode:
        yield mode


@pytest.fixture
def uneven(processor: Any) -> Iterator[Any]:
    """For one test, products in bf16 whose last bits depend on their shape."""
    if processor is not None:
        yield processor
        return
    with Uneven() as mode:
        yield mode


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow database to copy: making one takes seconds."""
    from recsys.settings.read import parse_settings
    from recsys.tracking.store import open_store

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_store(
        parse_settings({"name": "other", "interactions": {"source": "x.csv"}, "tracking": {"uri": f"sqlite:///{path}"}})
    )
    return path


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder on a disk of its own, of 2 MB or as the test's parameter says. Only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', 2)}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs a disk to fill, which only root may mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
