"""Work that a copy of it does, as another process would, makes the same tables and figures to the last bit."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import polars as pl
import pytest

import recsys.text.represent as text
from recsys.bundles.mirror import shared_path
from recsys.compute.base import Engine
from recsys.errors import RecsysError
from recsys.evaluation import ranking
from recsys.text.encoding import Encoding
from recsys.text.known import load
from tests.recsys.compute.ring import Ring

# as in Ray's processes: nothing writes to such an array
pytestmark = pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")


class Copying(Engine):
    """Does the work with copies of all, whose arrays are read-only as in Ray's store, some shards ahead."""

    def __init__(self) -> None:
        self.shards = 0

    def map(self, work: Callable[[Any], Any], shards: Iterable[Any]) -> Iterator[Any]:
        done, copy = [], None
        for shard in shards:
            copy = copy or copied(work)
            done.append(copied(copy(copied(shard))))
            self.shards += 1
            if len(done) > 3:
                yield done.pop(0)
        yield from done

    def check(self, warehouse: str, together: int = 1) -> None:
        pass


def copied(value: Any) -> Any:
    buffers: list[pickle.PickleBuffer] = []
    content = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(content, buffers=[bytes(buffer.raw()) for buffer in buffers])


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Copying:
    """In place of the configured one for settings that ask for Ray."""
    made = Copying()
    for module in ("recsys.text.represent", "recsys.table.rows", "recsys.evaluation.evaluate"):
        before = __import__(module, fromlist=["engine_of"]).engine_of
        monkeypatch.setattr(
            f"{module}.engine_of", lambda of, before=before: made if of.compute.engine == "ray" else before(of)
        )
    return made


def test_text_vectors(ring: Ring, engine: Copying, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "CHUNK", 8)
    monkeypatch.setattr(text, "ROWS", 20)
    here, there = (
        ring.vectors(ring.elsewhere(tmp_path / name, ring.with_compute(engine=name))) for name in ("local", "ray")
    )
    assert here.equals(there) and engine.shards >= 8


def test_candidates(ring: Ring, engine: Copying) -> None:
    here, there = (ring.candidates(ring.with_compute(engine=name)) for name in ("local", "ray"))
    assert here.equals(there) and engine.shards == 18


def test_figures(ring: Ring, engine: Copying, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "BLOCK_FLOATS", 1_000)
    monkeypatch.setattr(ranking, "USERS", 16)
    here, there = (ring.measured(ring.with_compute(engine=name)) for name in ("local", "ray"))
    assert here == there and engine.shards == 8 + 5 * 8


def test_another_machine_opens_a_bundle_by_its_whole_path_or_its_url(
    ring: Ring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(ring.bundle).parent)
    assert shared_path(Path(ring.bundle).name) == ring.bundle
    (tmp_path / "origin.json").write_text('{"url": "s3://bucket/shop/bundles"}')
    assert shared_path(tmp_path / "ring-0123456789ab") == "s3://bucket/shop/bundles/ring-0123456789ab"


def test_an_encoder_that_is_another_one_elsewhere_is_refused(ring: Ring) -> None:
    work = Encoding(ring.settings.text, lambda: load(ring.settings.text))
    build, (text, known) = work.__reduce__()
    assert build(text, known)(pl.DataFrame({"sentence": ["tea"]})).vectors.shape == (1, 16)
    other = text.model_copy(update={"max_tokens": 9})  # stands for another kind of processor
    with pytest.raises(RecsysError, match=rf"is another one on the machine .* where the run began \({known}\)"):
        build(other, known)(pl.DataFrame({"sentence": ["tea"]}))


def test_what_is_too_little_to_be_sent_is_done_here(ring: Ring, engine: Copying) -> None:
    settings = ring.with_compute(engine="ray")
    whole = settings.model_copy(update={"retrieve": settings.retrieve.model_copy(update={"batch_size": 1000})})
    ring.candidates(whole)
    ring.measured(settings)
    assert not engine.shards
