"""What the machine offers, read from pretended kernel files."""

import pytest

from prunus.runtime import host


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


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("200000 100000\n", 2),
        ("max 100000\n", 64),
        ("10000 100000\n", 1),
        ("nonsense", 64),
        ("", 64),
    ],
)
def test_usable_cpus_respect_the_containers_quota(monkeypatch, tmp_path, quota, expected) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    monkeypatch.setattr(host, "_QUOTA", path)
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda pid: set(range(64)))
    assert host.usable_cpus() == expected


def test_installed_and_version() -> None:
    assert host.installed("numpy") and not host.installed("no_such_package_xyz")
    assert host.version_of("no-such-package", "numpy").count(".") >= 1
    assert host.version_of("no-such-package") == ""
