"""What this machine offers: CPUs that may be used, number formats of the CPU, installed packages.

Read from the kernel and from package metadata alone, so that asking costs no import.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from prunus.runtime.errors import HostError

CACHE_VARIABLE = "PRUNUS_CACHE_DIR"
_CPUINFO = Path("/proc/cpuinfo")
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
# Flags that decide about inference speed; the rest would bury them in a report.
TOLD_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile",
    "amx_bf16", "amx_int8", "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip
# Flags of CPUs that multiply bfloat16 matrices in hardware (x86, then ARM).
BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})

# The same of int8, with sums in 32 bits.
INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


@lru_cache(maxsize=1)
def _cpuinfo() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo, empty where there is none."""
    if not _CPUINFO.is_file():
        return {}
    first = _CPUINFO.read_text(errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def user_cache() -> Path:
    """Return the folder for what is made once and kept; it may not exist yet.

    ``PRUNUS_CACHE_DIR`` names it, else it is prunus's in the user's cache.

    Raises:
        HostError: the user has no home, and nothing else is named.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "prunus"
    except RuntimeError:
        raise HostError(
            "There is no home folder to keep files in.",
            f"Set {CACHE_VARIABLE} to a folder that can be written.",
        ) from None


def cpu_model() -> str:
    """Return the CPU's name as the kernel gives it."""
    info = _cpuinfo()
    return info.get("model name") or platform.processor() or platform.machine()


def cpu_flags() -> tuple[str, ...]:
    """Return the CPU features that matter for inference, in a fixed order."""
    info = _cpuinfo()
    present = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(flag for flag in TOLD_FLAGS if flag in present)


def bfloat16_flag() -> str:
    """Return the flag by which this CPU multiplies bfloat16 in hardware, empty when it does not."""
    return next((flag for flag in cpu_flags() if flag in BFLOAT16_FLAGS), "")


def int8_flag() -> str:
    """Return the flag by which this CPU sums products of int8 in 32 bits, empty when it does not.

    Without it, ONNX Runtime sums pairs of products in 16 bits on x86, which saturate: answers of
    int8 models are then off by far more than quantising costs.
    """
    return next((flag for flag in cpu_flags() if flag in INT8_FLAGS), "")


def usable_cpus() -> int:
    """Return how many CPUs this process may use: affinity and the container's quota, at least 1."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        count = os.cpu_count() or 1
    return max(1, min([count, *(round(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield the CPU quotas of this process's control groups and of those around them, in CPUs."""
    for where, names in _control_groups():
        for folder in (where, *where.parents):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                told = " ".join((folder / name).read_text() for name in names)
                quota, period = told.split()
                if quota not in ("max", "-1"):
                    yield int(quota) / int(period)
            if folder == _CGROUPS:
                break


def _control_groups() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield the folder of each group with a CPU quota, and the files that hold quota and period.

    Version 2 of control groups has one file for both, version 1 (and the hybrid) two.
    """
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines or ["0::/"]:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            yield _CGROUPS / path.lstrip("/"), ("cpu.max",)
        elif "cpu" in controllers.split(","):
            yield _CGROUPS / "cpu" / path.lstrip("/"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")


def installed(module: str) -> bool:
    """Tell whether a top-level module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def version_of(*distributions: str) -> str:
    """Return the version of the first of these that is installed, or an empty string."""
    import importlib.metadata  # a third of the import time of the whole runtime

    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
