"""Memory as Linux describes it, in a file system made for the test."""

from pathlib import Path

import pytest
import torch

from howsparse.memory import available_memory, resident_memory

CPU = torch.device("cpu")
GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """With 8 GiB available, and no control groups."""
    write(tmp_path, "proc/meminfo", f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    return tmp_path


def write(root: Path, name: str, text: object) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(f"{text}\n")


def group(root: Path, folder: str, limit: object, usage: int, stat: str) -> None:
    version_1 = "cgroup/memory" in folder
    write(root, f"{folder}/memory.{'limit_in_bytes' if version_1 else 'max'}", limit)
    write(root, f"{folder}/memory.{'usage_in_bytes' if version_1 else 'current'}", usage)
    write(root, f"{folder}/memory.stat", stat)


def test_without_groups_it_is_what_the_machine_has(machine: Path) -> None:
    assert available_memory(CPU, machine) == 8 * GIB


def test_where_nothing_is_said_it_is_modest(tmp_path: Path) -> None:
    assert available_memory(CPU, tmp_path) == 4 * GIB


def test_version_2_counts_old_file_pages_as_free(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/")
    group(machine, "sys/fs/cgroup", 4 * GIB, 3 * GIB, f"anon {2 * GIB}\nactive_file 7\ninactive_file {GIB}")
    assert available_memory(CPU, machine) == 2 * GIB


def test_version_2_without_a_limit(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/job")
    group(machine, "sys/fs/cgroup/job", "max", 3 * GIB, "inactive_file 0")
    assert available_memory(CPU, machine) == 8 * GIB


@pytest.mark.parametrize(("inner", "outer", "expected"), [(5, 3, 2), (3, 6, 2), ("max", 3, 2), (20, 20, 8)])
def test_version_2_the_smallest_of_nested_limits_holds(
    machine: Path, inner: int | str, outer: int, expected: int
) -> None:
    write(machine, "proc/self/cgroup", "0::/outer/inner")
    limit = inner if isinstance(inner, str) else inner * GIB
    group(machine, "sys/fs/cgroup/outer/inner", limit, GIB, "inactive_file 0")
    group(machine, "sys/fs/cgroup/outer", outer * GIB, GIB, "inactive_file 0")
    assert available_memory(CPU, machine) == expected * GIB


@pytest.mark.parametrize("mounted", ["", "/docker/abc"], ids=["container", "host"])
def test_version_1(machine: Path, mounted: str) -> None:
    """In a container the path is the host's, which is not there: the base is the container's own group."""
    write(machine, "proc/self/cgroup", "9:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n1:name=systemd:/x:y\n0::/")
    stat = f"inactive_file 7\ntotal_inactive_file {GIB // 2}"
    group(machine, f"sys/fs/cgroup/memory{mounted}", 2 * GIB, GIB, stat)
    assert available_memory(CPU, machine) == 3 * GIB // 2


def test_version_1_without_a_limit_says_a_number_beyond_all_memory(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "5:memory:/")
    group(machine, "sys/fs/cgroup/memory", 9223372036854771712, GIB, "total_inactive_file 0")
    assert available_memory(CPU, machine) == 8 * GIB


def test_a_group_that_is_full_leaves_nothing(machine: Path) -> None:
    write(machine, "proc/self/cgroup", "0::/")
    group(machine, "sys/fs/cgroup", GIB, 2 * GIB, "inactive_file 0")
    assert available_memory(CPU, machine) == 0


def test_the_memory_of_the_process_grows_with_what_it_holds(tmp_path: Path) -> None:
    before = resident_memory()
    if before is None:
        pytest.skip("the system does not say it")
    held = torch.ones(1 << 24)
    after = resident_memory()
    assert after is not None
    assert after - before > held.nbytes / 2
    assert resident_memory(tmp_path) is None
