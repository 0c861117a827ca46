"""What the machine offers, read from pretended kernel files."""

from pathlib import Path

import pytest

from prunus.runtime import host
from prunus.runtime.errors import HostError


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    def write(text):
        path = tmp_path / "cpuinfo"
        path.write_text(text)
        monkeypatch.setattr(host, "_CPUINFO", path)
        host._cpuinfo.cache_clear()

    yield write
    host._cpuinfo.cache_clear()


def test_x86(cpuinfo) -> None:
    cpuinfo(
        "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: sse avx512_bf16 avx2 avx512f\n\nx: y\n"
    )
    assert host.cpu_model() == "A CPU"
    assert host.cpu_flags() == ("avx2", "avx512f", "avx512_bf16")
    assert host.bfloat16_flag() == "avx512_bf16"


def test_arm(cpuinfo) -> None:
    cpuinfo("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n")
    assert host.bfloat16_flag() == "bf16"


def test_nothing_known(cpuinfo, monkeypatch, tmp_path) -> None:
    cpuinfo("")
    assert host.cpu_flags() == () and host.bfloat16_flag() == ""
    monkeypatch.setattr(host, "_CPUINFO", tmp_path / "none")
    host._cpuinfo.cache_clear()
    assert host.cpu_flags() == ()


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Pretend control groups (file -> text) on a machine of 64 CPUs."""

    def pretend(membership, files):
        monkeypatch.setattr(host, "_CGROUPS", tmp_path)
        monkeypatch.setattr(host, "_MEMBERSHIP", tmp_path / "membership")
        monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: set(range(64)))
        if membership is not None:
            (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    return pretend


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("200000 100000\n", 2),
        ("max 100000\n", 64),
        ("10000 100000\n", 1),
        ("200000 0\n", 64),
        ("nonsense", 64),
        ("", 64),
    ],
)
def test_usable_cpus_respect_the_containers_quota(groups, quota, expected) -> None:
    groups("0::/\n", {"cpu.max": quota})
    assert host.usable_cpus() == expected


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (None, {"cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000", "a/cpu.max": "400000 100000"}, 2),
        ("0::/seen/from/outside\n", {"cpu.max": "500000 100000"}, 5),
        (
            "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n",
            {"cpu/x/cpu.cfs_quota_us": "600000", "cpu/x/cpu.cfs_period_us": "100000"},
            6,
        ),
        (
            "3:cpu,cpuacct:/x\n",
            {"cpu/x/cpu.cfs_quota_us": "-1", "cpu/x/cpu.cfs_period_us": "100000"},
            64,
        ),
    ],
)
def test_quotas_of_outer_groups_and_of_both_versions_count(
    groups, membership, files, expected
) -> None:
    groups(membership, files)
    assert host.usable_cpus() == expected


def test_installed_and_version() -> None:
    assert host.installed("numpy") and not host.installed("no_such_package_xyz")
    assert host.version_of("no-such-package", "numpy").count(".") >= 1
    assert host.version_of("no-such-package") == ""


def test_kept_files_go_where_the_user_says_else_into_the_cache_of_the_home(
    monkeypatch, tmp_path
) -> None:
    monkeypatch.delenv(host.CACHE_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert host.user_cache() == tmp_path / ".cache" / "prunus"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    assert host.user_cache() == tmp_path / "kept" / "prunus"
    monkeypatch.setenv(host.CACHE_VARIABLE, str(tmp_path / "own"))
    assert host.user_cache() == tmp_path / "own"


def test_nobody_without_a_home_loses_files_silently(monkeypatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(host.CACHE_VARIABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(HostError, match="no home folder"):
        host.user_cache()
