"""What a container may take, told by trees of files as Linux shows them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from helpers.findings import CPU

from rap_edge.runtime.doctor.machine import machine_section
from rap_edge.runtime.machine.available import available_cores, available_memory
from rap_edge.runtime.machine.cgroup import cpu_quota, memory_limit

MIB = 1 << 20
NO_LIMIT_V1 = 9223372036854771712
Tree = Callable[[Mapping[str, object]], Path]

V1_MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
32 31 0:29 {0} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 {0} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V1_GROUPS = "9:name=systemd:{0}\n4:memory:{0}\n2:cpu,cpuacct:{0}\n0::/\n"
V2_MOUNTS = "30 23 0:26 {0} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    def write(files: Mapping[str, object]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}")
        return tmp_path

    return write


def v1(seen: str, inside: str, quota: int = -1, memory: Mapping[str, object] | None = None) -> dict[str, object]:
    """A process in group `inside` whose container sees the tree from `seen` on."""
    below = inside.removeprefix(seen).lstrip("/")
    cpu, group = (f"sys/fs/cgroup/{name}/{below}" for name in ("cpu,cpuacct", "memory"))
    files: dict[str, object] = {
        "proc/self/mountinfo": V1_MOUNTS.format(seen),
        "proc/self/cgroup": V1_GROUPS.format(inside),
        f"{cpu}/cpu.cfs_quota_us": f"{quota}\n",
        f"{cpu}/cpu.cfs_period_us": "100000\n",
    }
    return files | {f"{group}/memory.{name}": content for name, content in (memory or {}).items()}


def v2(*groups: Mapping[str, object], inside: str = "") -> dict[str, object]:
    """Groups from the topmost that is seen to the process's own, each with its files."""
    names = ["", "a.slice", "b.scope"][: len(groups)]
    path = "/".join(names) or "/"
    files: dict[str, object] = {
        "proc/self/mountinfo": V2_MOUNTS.format("/"),
        "proc/self/cgroup": f"0::{inside or path}\n",
    }
    for depth, group in enumerate(groups):
        folder = "/".join(["sys/fs/cgroup", *names[1 : depth + 1]])
        files |= {f"{folder}/{name}": content for name, content in group.items()}
    return files


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        (v2({"cpu.max": "50000 100000\n"}), 0.5),
        (v2({}, {"cpu.max": "max 100000\n"}), None),
        (v2({}, {"cpu.max": "150000 100000\n"}, {"cpu.max": "400000 100000\n"}), 1.5),
        (v2({}, {"cpu.max": "max 100000\n"}, {"cpu.max": "20000 10000\n"}), 2.0),
        (v2({"cpu.max": "50000 100000\n"}, inside="/../../elsewhere"), 0.5),
        (v1("/", "/docker/f00", quota=50000), 0.5),
        (v1("/docker/f00", "/docker/f00", quota=250000), 2.5),
        (v1("/docker/f00", "/docker/f00", quota=-1), None),
        ({}, None),
        ({"proc/self/cgroup": "0::/\n"}, None),
    ],
)
def test_the_smallest_cpu_quota_on_the_way_up_counts(tree: Tree, files: dict[str, object], quota: float | None) -> None:
    assert cpu_quota(tree(files)) == quota


def test_a_share_of_a_core_is_one_thread_and_the_machine_is_the_most(tree: Tree, monkeypatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5, 7}, raising=False)

    def cores(cpu_max: str) -> int:
        return available_cores(tree(v2({"cpu.max": cpu_max})))

    assert [cores(f"{quota} 100000") for quota in ("max", 5000, 100000, 150000, 300000, 6400000)] == [4, 1, 1, 2, 3, 4]


def test_memory_is_what_the_tightest_group_leaves(tree: Tree) -> None:
    inner = {"memory.max": 512 * MIB, "memory.current": 100 * MIB, "memory.stat": f"anon 1\ninactive_file {40 * MIB}\n"}
    outer = {"memory.max": 600 * MIB, "memory.current": 580 * MIB, "memory.stat": "inactive_file 0\n"}
    assert memory_limit(tree(v2({"memory.max": "max\n"}, inner))) == (512 * MIB, 452 * MIB)
    assert memory_limit(tree(v2({}, outer, inner))) == (512 * MIB, 20 * MIB)


def test_memory_of_version_one_has_a_number_for_no_limit_and_counts_groups_below(tree: Tree) -> None:
    stat = f"inactive_file 0\ntotal_inactive_file {30 * MIB}\n"
    used = {"usage_in_bytes": 200 * MIB, "stat": stat}
    assert memory_limit(tree(v1("/", "/pod", memory=used | {"limit_in_bytes": NO_LIMIT_V1}))) is None
    assert memory_limit(tree(v1("/", "/pod", memory=used | {"limit_in_bytes": 256 * MIB}))) == (256 * MIB, 86 * MIB)


def test_a_limit_above_the_machine_leaves_what_the_machine_has(tree: Tree) -> None:
    machine = {"proc/meminfo": "MemTotal: 1024 kB\nMemAvailable: 512 kB\n"}
    assert available_memory(tree(machine)) == (1 << 20, 1 << 19)
    limited = {"memory.max": 64 * MIB, "memory.current": 0}
    assert available_memory(tree(machine | v2(limited))) == (1 << 20, 1 << 19)
    assert available_memory(tree(machine | v2({"memory.max": 768 << 10, "memory.current": 300 << 10}))) == (
        768 << 10,
        468 << 10,
    )


def test_nobody_tells_where_there_is_no_linux(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
    assert available_cores(tmp_path) >= 1


def test_the_doctor_says_what_the_container_may_take(tree: Tree) -> None:
    limits = {"cpu.max": "50000 100000", "memory.max": 512 * MIB, "memory.current": 112 * MIB}
    root = tree(v2(limits) | {"proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n"})
    told = {finding.topic: finding.text for finding in machine_section(CPU, root).findings}
    assert told["processor"].endswith(", 1 core for this process, whose container has the time of 0.5")
    assert told["memory"] == "512 MiB, 400 MiB free, as far as the container may go"
