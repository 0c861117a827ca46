"""Where the headers of TensorRT and CUDA are that compiling the plugin needs.

Nothing of either is linked; a library made with the headers of TensorRT 10.14 loads into RTX 1.7
as well. A machine without them gets the TensorRT ones from a small package of PyPI and the CUDA
ones from triton, which the build needs anyway.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prunus.runtime.errors import HostError

TENSORRT_VARIABLE = "TENSORRT_INCLUDE_DIR"
_TENSORRT_HEADER = "NvInferRuntime.h"
# The second is missing from some packages of the CUDA runtime, and the first includes it.
_CUDA_HEADERS = ("cuda_runtime_api.h", "crt/host_defines.h")


@dataclass(frozen=True, slots=True)
class Headers:
    """Folders to give to the compiler.

    Attributes:
        tensorrt: Folder of ``NvInferRuntime.h``.
        cuda: Folder of ``cuda_runtime_api.h``.
        version: Version of the TensorRT headers, e.g. ``10.14.1``.
    """

    tensorrt: Path
    cuda: Path
    version: str


def find_headers() -> Headers:
    """Look the headers up: the named folder, the system's, then installed Python packages.

    Raises:
        HostError: none are found, or the folder named by ``TENSORRT_INCLUDE_DIR`` has none.
    """
    named = os.environ.get(TENSORRT_VARIABLE)
    if named:
        if not (Path(named) / _TENSORRT_HEADER).is_file():
            raise HostError(
                f"{TENSORRT_VARIABLE} is {named}, which holds no {_TENSORRT_HEADER}.",
                "Let it name the include folder of a TensorRT 10.3 or later, or unset it.",
            )
        tensorrt: Path | None = Path(named)
    else:
        tensorrt = _first(_tensorrt_folders(), (_TENSORRT_HEADER,))
    if tensorrt is None:
        raise HostError(
            f"Compiling the plugin needs TensorRT's headers; no {_TENSORRT_HEADER} was found.",
            f"Install them: pip install --no-deps kernel-lens==2.0.1 (or set {TENSORRT_VARIABLE}).",
        )
    cuda = _first(_cuda_folders(), _CUDA_HEADERS)
    if cuda is None:
        raise HostError(
            f"Compiling the plugin needs CUDA's headers; no {_CUDA_HEADERS[0]} was found.",
            "Install them with triton: pip install 'prunus[plugin]' (or set CUDA_HOME).",
        )
    return Headers(tensorrt, cuda, _version(tensorrt))


def _tensorrt_folders() -> Iterator[Path]:
    multiarch = sysconfig.get_config_var("MULTIARCH")
    if multiarch:
        yield Path("/usr/include") / str(multiarch)
    yield from (Path(p) for p in ("/usr/include", "/usr/local/tensorrt/include"))
    yield from (folder / "include" / "tensorrt" for folder in _package("kernel_lens"))


def _cuda_folders() -> Iterator[Path]:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        yield Path(home) / "include"
    yield Path("/usr/local/cuda/include")
    for folder in _package("nvidia"):
        yield from sorted(folder.glob("cu*/include"), reverse=True)
    yield from (folder / "backends" / "nvidia" / "include" for folder in _package("triton"))


def _package(name: str) -> list[Path]:
    """Return the folders of an installed package without importing it."""
    spec = importlib.util.find_spec(name)
    return [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []


def _first(folders: Iterator[Path], names: tuple[str, ...]) -> Path | None:
    return next((f for f in folders if all((f / n).is_file() for n in names)), None)


def _version(folder: Path) -> str:
    """Read the version from ``NvInferVersion.h``, whose macros have had two spellings."""
    path = folder / "NvInferVersion.h"
    text = path.read_text(errors="replace") if path.is_file() else ""
    parts = []
    for part in ("MAJOR", "MINOR", "PATCH"):
        found = [re.search(rf"#define {p}_{part}\w* (\d+)", text) for p in ("NV_TENSORRT", "TRT")]
        parts += [match.group(1) for match in found if match][:1]
    return ".".join(parts) or "unknown"
