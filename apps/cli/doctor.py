"""`prunus doctor`: what this machine can run, and why it cannot run the rest."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.runtime import host
from prunus.runtime.command import Console
from prunus.runtime.errors import HostError
from prunus.runtime.json_text import json_text
from prunus.runtime.session.registry import distributions, probe

_PACKAGES = (
    "numpy", *distributions(), "opencv-python-headless", "opencv-python", "typer", "rich", "torch",
    "safetensors", "onnx", "onnxscript", "onnxsim", "polygraphy", "faster-coco-eval", "triton",
    "cryptography", "prunus-models",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What `prunus doctor` does.

    \b
    Examples:
      prunus doctor
      prunus doctor --json
    """


def doctor(options: DoctorOptions, console: Console) -> None:
    """Report what is usable; raises HostError when nothing is."""
    facts = examine()
    console.say("\n".join(_report(facts)), json_text(facts, indent=1))
    if not any(b["usable"] for b in facts["backends"]):
        raise HostError(
            "No back end is usable on this machine, so nothing can run.",
            "Install one with: pip install 'prunus[ort]'",
        )


def examine() -> dict[str, Any]:
    """Collect the facts; nothing heavier than the back ends' own probes is loaded."""
    return {
        "prunus": host.version_of("prunus"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": host.cpu_model(),
        "cpus_usable": host.usable_cpus(),
        "cpu_flags": list(host.cpu_flags()),
        "memory_gib": _memory_gib(),
        "disk_free_gib": round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        "gpu": _gpu(),
        "plugin": _plugin(),
        "cameras": _cameras(),
        "backends": _backends(),
        "packages": {name: v for name in _PACKAGES if (v := host.version_of(name))},
    }


def _report(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"prunus {facts['prunus']}, Python {facts['python']}, {facts['system']}",
        f"  processor  {facts['processor']}, {facts['cpus_usable']} usable",
        f"  flags      {' '.join(facts['cpu_flags']) or 'none of ' + ' '.join(host.TOLD_FLAGS)}",
        f"  memory     {facts['memory_gib']} GiB, free disk here {facts['disk_free_gib']} GiB",
        f"  gpu        {facts['gpu']}",
        f"  plugin     {facts['plugin']}",
        f"  cameras    {', '.join(facts['cameras']) or 'none (no /dev/video*)'}",
        "",
        "back ends",
    ]
    for entry in facts["backends"]:
        lines.append(f"  {'ok' if entry['usable'] else '--'} {entry['name']:<12} {entry['reason']}")
    lines += ["", "packages"]
    lines += [f"  {name:<24} {version}" for name, version in facts["packages"].items()]
    return lines


def _backends() -> list[dict[str, Any]]:
    return [{"name": p.name, "usable": p.usable, "reason": p.reason} for p in probe()]


def _memory_gib() -> float:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return 0.0


def _gpu() -> str:
    from prunus.runtime.session.tensorrt import cuda

    problem = cuda.why_unusable()
    if problem:
        return f"none usable: {problem}"
    properties = cuda.device_properties()
    return f"{properties.name}, compute capability {properties.compute_capability}"


def _plugin() -> str:
    """Say which plugin library engines would use, and whether the GPU here can."""
    from prunus.runtime.errors import PrunusError
    from prunus.runtime.plugins.library import BUILD_COMMAND, check_gpu, find_library
    from prunus.runtime.session.tensorrt import cuda

    try:
        library = find_library()
        if library is None:
            return f"none (build it with: {BUILD_COMMAND}); attention runs as standard operators"
        if not cuda.why_unusable():
            gpu = cuda.device_properties()
            check_gpu(library, gpu.name, gpu.compute_capability)
    except PrunusError as error:
        return f"not usable: {error.message}"
    held = ", ".join(f"{a // 10}.{a % 10}" for a in library.architectures)
    return f"{library.name} {library.identity}, compute capability {held} ({library.path})"


def _cameras() -> list[str]:
    return sorted(str(p) for p in Path("/dev").glob("video*"))
