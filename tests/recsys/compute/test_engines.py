"""Every engine maps as the local one does; a cluster that cannot do the work is refused in one sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.compute.base import Engine
from recsys.compute.choice import check_compute, engine_of
from recsys.compute.local import LOCAL
from recsys.errors import InputError
from recsys.runs import step_key
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from tests.recsys.compute.clusters import Machines


def settings_of(root: Path, **compute: Any) -> Settings:
    return parse_settings(
        {"name": "shop", "warehouse": str(root), "interactions": {"source": "log.csv"}, "compute": compute}
    )


def doubled(shard: int) -> int:
    return 2 * shard


class Failing:
    """Fails for one shard."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, shard: int) -> int:
        if shard == self.at:
            raise InputError(f"Shard {shard} is wrong.")
        return shard


def assert_maps(engine: Engine, shards: list[int], bad: int | None) -> None:
    """The results in order, up to the first error, which is the one that was raised."""
    if bad is None:
        assert list(engine.map(doubled, iter(shards))) == [2 * shard for shard in shards]
        return
    results = engine.map(Failing(bad), iter(shards))
    good = shards.index(bad)
    assert list(islice(results, good)) == shards[:good]
    with pytest.raises(InputError, match=rf"^Shard {bad} is wrong\.$") as caught:
        next(results)
    assert type(caught.value) is InputError


@given(st.lists(st.integers(0, 99), max_size=20), st.data())
def test_the_local_engine_maps(shards: list[int], data: st.DataObject) -> None:
    assert_maps(LOCAL, shards, data.draw(st.sampled_from(shards)) if shards and data.draw(st.booleans()) else None)


def test_the_local_engine_takes_no_shard_ahead_and_copies_none() -> None:
    taken: list[int] = []

    def shards() -> Iterator[np.ndarray]:
        for number in range(3):
            taken.append(number)
            yield np.zeros(1)

    results = LOCAL.map(lambda shard: shard, shards())
    assert not taken
    next(results)
    assert taken == [0]
    whole = np.zeros(3)
    assert next(LOCAL.map(lambda shard: shard, [whole])) is whole


def test_the_engine_is_no_part_of_what_is_made(tmp_path: Path) -> None:
    here, there = settings_of(tmp_path), settings_of(tmp_path, engine="ray", address="10.0.0.5:6379", cores=4)
    assert engine_of(here) is LOCAL
    assert here.digest() == there.digest() and here.model_dump() == there.model_dump()
    assert step_key(here, "represent") == step_key(there, "represent")


@pytest.mark.parametrize("address", ["10.0.0.5", "ray://head", "http://head:6379", "head:port", ""])
def test_an_address_that_names_no_cluster(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match=r"compute\.address.* names no cluster"):
        settings_of(tmp_path, engine="ray", address=address)


def test_ray_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "recsys.compute.ray", raising=False)
    with pytest.raises(InputError, match="needs the package ray; run `pip install ray`"):
        check_compute(settings_of(tmp_path, engine="ray"))


def test_an_address_where_nothing_listens(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        for given_address in (address, f"ray://{address}"):
            with pytest.raises(InputError, match=r"Nothing answers at compute\.address = .*; start the cluster there"):
                check_compute(settings_of(tmp_path, engine="ray", address=given_address))


@pytest.mark.slow
def test_a_cluster_maps_as_this_machine_does(tmp_path: Path, machines: Machines) -> None:
    engine = engine_of(settings_of(tmp_path, engine="ray", address=machines.address))
    for shards, bad in (([], None), ([3], None), (list(range(40)), None), (list(range(40)), 17), ([5], 5)):
        assert_maps(engine, shards, bad)


def where(shard: int) -> str:
    import ray

    time.sleep(0.1)  # so that no machine is through with all before another has begun
    return str(ray.get_runtime_context().get_node_id())


@pytest.mark.slow
def test_a_few_shards_are_taken_ahead_and_every_machine_works(tmp_path: Path, machines: Machines) -> None:
    engine = engine_of(settings_of(tmp_path, engine="ray", address=machines.address))
    taken: list[int] = []

    def shards() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = engine.map(where, shards())
    assert not taken
    found = {next(results)}
    assert len(taken) <= 2 * machines.count + 1
    assert len(found | set(results)) == machines.count and len(taken) == 100


@pytest.mark.slow
def test_a_cluster_that_is_too_small(tmp_path: Path, machines: Machines) -> None:
    with pytest.raises(InputError, match=r"compute\.cores = 2 is more than any machine .* has, which is 1"):
        check_compute(settings_of(tmp_path, engine="ray", address=machines.address, cores=2))


@pytest.mark.slow
def test_machines_that_differ_are_named(tmp_path: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.compute import cluster

    settings = settings_of(tmp_path / "seen", engine="ray", address=machines.address)
    check_compute(settings)
    assert not list((tmp_path / "seen").iterdir())
    facts: Callable[[str | None], dict[str, Any]] = cluster._facts
    for change, sentence in (
        (
            {"versions": {**facts(None)["versions"], "polars": "0.1"}},
            r"has polars [\d.]+, and this process 0\.1; install",
        ),
        ({"versions": {**facts(None)["versions"], "recsys": "other"}}, r"has recsys \w{12}, and this process other"),
    ):
        monkeypatch.setattr(cluster, "_INSPECTED", set())
        with (
            monkeypatch.context() as patch,
            pytest.raises(InputError, match=r"^The machine .* \(127\.0\.0\.1\).*" + sentence),
        ):
            patch.setattr(cluster, "_mine", lambda said=change: {**facts(None), **said})
            check_compute(settings)


@pytest.mark.slow
def test_a_warehouse_that_a_machine_does_not_see(
    tmp_path: Path, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys.compute import cluster

    monkeypatch.setattr(cluster, "_INSPECTED", set())
    # the machines are asked for a file that is nowhere, as they would be for one of another machine's disk
    monkeypatch.setattr(cluster.Path, "touch", lambda self: None)
    with pytest.raises(
        InputError, match=r"does not see the warehouse .*; put it on a file system that all machines mount"
    ):
        check_compute(settings_of(tmp_path, engine="ray", address=machines.address))


@pytest.mark.slow
def test_a_cluster_on_this_machine_alone_ends_with_the_process(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    code = f"""
import os, tempfile
from recsys.compute.choice import engine_of
from tests.recsys.compute.test_engines import doubled, settings_of
engine = engine_of(settings_of({str(tmp_path)!r}, engine="ray", address="local"))
print(sum(engine.map(doubled, range(10))))
import ray
print([node["NodeManagerAddress"] for node in ray.nodes()], os.environ["RAY_USAGE_STATS_ENABLED"])
print(ray._private.worker._global_node.get_session_dir_path())
"""
    root = str(Path(__file__).parents[3])
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    environment = {**os.environ, "PYTHONPATH": root, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    total, said, session = told.stdout.splitlines()
    assert (total, said) == ("90", "['127.0.0.1'] 0") and session.startswith(folder)
    marked = [path for path in Path("/proc").glob("[0-9]*/cmdline") if session.encode() in path.read_bytes()]
    assert not marked
