"""What the machine, a container around the process and its own limits leave to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys import machine
from recsys.machine import free_on_processor, held_by_process


def test_free_memory_is_the_container_s_where_that_is_less(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert free_on_processor(tmp_path) is None
    write("proc/meminfo", "MemTotal:  9 kB\nMemAvailable:    4000 kB\n")
    assert free_on_processor(tmp_path) == 4_096_000
    write("sys/fs/cgroup/memory.max", "max\n")
    write("sys/fs/cgroup/memory.current", "100000\n")
    assert free_on_processor(tmp_path) == 4_096_000
    write("sys/fs/cgroup/memory.max", "1000000\n")
    assert free_on_processor(tmp_path) == 900_000
    write("sys/fs/cgroup/memory.stat", "anon 60000\ninactive_file 40000\n")
    assert free_on_processor(tmp_path) == 940_000
    write("proc/self/cgroup", "0::/shop.slice/night.service\n")
    write("sys/fs/cgroup/shop.slice/memory.max", "600000\n")  # of a group around the process's own
    write("sys/fs/cgroup/shop.slice/memory.current", "50000\n")
    assert free_on_processor(tmp_path) == 550_000
    write(
        "proc/self/limits",
        "Limit   Soft Limit\nMax address space         1000000   unlimited  bytes\n",
    )
    write("proc/self/status", "VmSize:\t   500 kB\nVmRSS:\t   300 kB\nVmData:\t   400 kB\n")
    assert free_on_processor(tmp_path) == 1_000_000 - 512_000
    write(
        "proc/self/limits",
        "Max address space   unlimited   bytes\nMax data size   500000  bytes\n",
    )
    assert free_on_processor(tmp_path) == 500_000 - 409_600
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "700000\n")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "800000\n")
    assert free_on_processor(tmp_path) == 0
    assert held_by_process(tmp_path) == 307_200


def test_a_system_without_proc_tells_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: "")
    free, held = free_on_processor(), held_by_process()
    assert free == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 2**20 < held < free
    monkeypatch.delattr(os, "sysconf")
    assert free_on_processor() is None


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="only Linux tells a process its limits")
def test_a_limit_of_the_shell_is_seen() -> None:
    code = "from recsys.machine import free_on_processor; print(free_on_processor())"
    limited = f"ulimit -v 20000000; exec {sys.executable} -c '{code}'"
    free = int(subprocess.run(["bash", "-c", limited], stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert 0 < free < 20_000_000 * 1024


def test_the_peak_is_what_was_held_in_between() -> None:
    with machine.peak_memory(seconds=0.01) as peak:
        before = peak.look()
        held = bytearray(64 * 2**20)
        held[::4096] = b"x" * len(held[::4096])
        peak.look()
        del held
    assert peak.most - before > 48 * 2**20
