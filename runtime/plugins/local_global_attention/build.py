"""Make the plugin library: kernels compiled ahead of time, then one run of g++. No GPU needed.

The kernels of an architecture are kept in the user's cache under the hash of what they are made
from, so that only what has changed is compiled again (about a second per kernel).
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from prunus.runtime import host
from prunus.runtime.card.artifact import atomic_path, write_error
from prunus.runtime.errors import HostError, MissingDependencyError, UsageError
from prunus.runtime.plugins.library import PluginLibrary, cache_folder, describe
from prunus.runtime.plugins.local_global_attention import NAME, NAMESPACE, VERSION
from prunus.runtime.plugins.local_global_attention.headers import Headers, find_headers
from prunus.runtime.plugins.local_global_attention.kernel_table import kernel_table
from prunus.runtime.plugins.local_global_attention.tiles import ARCHITECTURES, Tile, compiled_tiles
from prunus.runtime.progress import Progress, Silent

_FOLDER = Path(__file__).parent
_WORKER = "prunus.runtime.plugins.local_global_attention.compile_kernels"
# What a compiled kernel depends on, besides triton itself; and what else the library is made from.
_KERNEL_SOURCES = ("kernel.py", "tiles.py", "compile_kernels.py")
_FLAGS = (
    "-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden",
    "-fno-gnu-unique", "-static-libstdc++", "-static-libgcc",
)  # fmt: skip


def build_library(
    target: str | Path,
    architectures: Sequence[int] = ARCHITECTURES,
    *,
    dtypes: Sequence[str] = ("fp16", "bf16", "fp32"),
    cache: Path | None = None,
    progress: Progress | None = None,
) -> PluginLibrary:
    """Build the plugin library; the file appears only when all is well.

    Args:
        target: Path of the library.
        architectures: Compute capabilities times ten, a subset of `tiles.ARCHITECTURES`.
        dtypes: Data types to hold kernels for.
        cache: Folder of compiled kernels; None: the user's cache.
        progress: Told how many kernels are compiled.

    Returns:
        What was built, as the library describes itself.

    Raises:
        UsageError: an architecture that is not known, or none.
        MissingDependencyError: triton is not installed.
        HostError: no g++, no headers, no disk space, or the compiler failed.
        SourceError: the folder of `target` does not exist or cannot be written.
    """
    wanted = _checked(architectures)
    if not Path(target).absolute().parent.is_dir():  # said now, not after minutes of work
        raise write_error(FileNotFoundError(errno.ENOENT, "no such folder"), target)
    compiler = _compiler()
    headers = find_headers()
    identity = library_identity()
    folder = (cache or cache_folder()) / "kernels" / kernel_hash()
    todo = {a: [t for t in compiled_tiles(a) if t.dtype in dtypes] for a in wanted}
    report = progress or Silent()
    total = sum(len(tiles) for tiles in todo.values()) + 1
    _compile_kernels(_jobs(folder, todo), total, report)
    description = {
        "name": NAME,
        "namespace": NAMESPACE,
        "version": VERSION,
        "identity": identity,
        "architectures": list(wanted),
        "tensorrt_headers": headers.version,
        "machine": platform.machine(),
        "triton": importlib.metadata.version("triton"),
    }
    with tempfile.TemporaryDirectory() as name, atomic_path(target) as library:
        table = Path(name) / "kernel_table.cpp"
        table.write_text(kernel_table(todo, folder, identity, json.dumps(description)))
        report.update(total - 1, total, "linking")
        _run_compiler(compiler, headers, table, library)
    report.update(total, total, "done")
    return describe(target)


def kernel_hash() -> str:
    """Return the hash of what the compiled kernels are made from: sources and compiler."""
    return _hash([_FOLDER / name for name in _KERNEL_SOURCES])


def library_identity() -> str:
    """Return the plugin's version and the hash of all its sources, e.g. ``1+0a1b2c3d4e5f``."""
    sources = [_FOLDER / name for name in _KERNEL_SOURCES]
    return f"{VERSION}+{_hash([*sources, *sorted((_FOLDER / 'csrc').iterdir())])}"


def _hash(paths: Sequence[Path]) -> str:
    try:
        compiler = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        raise MissingDependencyError("triton", "plugin", "Building the plugin library") from None
    digest = hashlib.sha256(f"triton {compiler}".encode())
    for path in paths:
        digest.update(f"\n{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _checked(architectures: Sequence[int]) -> tuple[int, ...]:
    unknown = [a for a in architectures if a not in ARCHITECTURES]
    if unknown or not architectures:
        got = ", ".join(str(a) for a in unknown) or "none"
        raise UsageError(
            f"Unknown GPU architecture: {got}.",
            f"Give compute capabilities times ten: {', '.join(str(a) for a in ARCHITECTURES)}",
        )
    return tuple(sorted(set(architectures)))


def _compiler() -> str:
    if importlib.util.find_spec("triton") is None:
        raise MissingDependencyError("triton", "plugin", "Building the plugin library")
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise HostError(
            f"Building the plugin library needs {os.environ.get('CXX', 'g++')}; it was not found.",
            "Install it, e.g.: apt-get install g++ (or let CXX name a C++17 compiler).",
        )
    return compiler


def _is_there(folder: Path, architecture: int, name: str) -> bool:
    place = folder / f"sm{architecture}"
    try:
        size = json.loads((place / f"{name}.json").read_text())["size"]
        return bool((place / f"{name}.cubin").stat().st_size == size)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@dataclass(frozen=True, slots=True)
class _Job:
    """Kernels of one architecture that one child process compiles."""

    architecture: int
    folder: Path
    names: list[str]


def _jobs(folder: Path, todo: Mapping[int, Sequence[Tile]]) -> list[_Job]:
    """Return what is not in the cache, split so that every processor has something to do."""
    jobs = []
    parts = max(host.usable_cpus() // len(todo), 1)
    for architecture, tiles in todo.items():
        names = [t.name for t in tiles if not _is_there(folder, architecture, t.name)]
        place = folder / f"sm{architecture}"
        jobs += [_Job(architecture, place, names[i::parts]) for i in range(parts)]
    return [job for job in jobs if job.names]


def _compile_kernels(jobs: Sequence[_Job], total: int, report: Progress) -> None:
    """Compile in a child process per job, as many at once as there are processors."""
    done, lock = total - 1 - sum(len(job.names) for job in jobs), threading.Lock()
    report.update(done, total, "compiling kernels")

    live: list[subprocess.Popen[str]] = []

    def compile_one(job: _Job) -> None:
        nonlocal done
        # A compiler that fails can say a great deal; what it keeps is of no use afterwards.
        with tempfile.TemporaryFile("w+") as words, tempfile.TemporaryDirectory() as cache:
            child = _start(job, words, cache)
            live.append(child)
            for line in child.stdout or ():
                with lock:
                    done += 1
                    report.update(done, total, f"sm_{job.architecture} {line.strip()}")
            if child.wait() != 0:
                words.seek(0)
                said = [line.strip() for line in words if line.strip()]
                last = said[-1] if said else f"exit status {child.returncode}"
                raise HostError(
                    f"The kernels for sm_{job.architecture} could not be compiled: {last}.",
                    "Install the triton version of constraints.txt, or leave this --arch out.",
                )

    workers = min(len(jobs), host.usable_cpus())
    if not workers:
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(compile_one, jobs))
        except BaseException:  # also Ctrl-C: leave no compiler behind
            pool.shutdown(wait=False, cancel_futures=True)
            for child in live:
                child.kill()
            raise


def _start(job: _Job, words: IO[str], cache: str) -> subprocess.Popen[str]:
    """Start the child of a job; what it complains of goes to `words`, its own files to `cache`."""
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(
            f"The kernel cache {job.folder} cannot be written: {error.strerror}.",
            "Free some space, or let PRUNUS_CACHE_DIR name another folder.",
        ) from None
    child = subprocess.Popen(
        [sys.executable, "-m", _WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=words,
        text=True,
    )
    task = {
        "architecture": job.architecture,
        "folder": str(job.folder),
        "cache": cache,
        "names": job.names,
    }
    if child.stdin is not None:
        with suppress(BrokenPipeError), child.stdin:
            child.stdin.write(json.dumps(task))
    return child


def _run_compiler(compiler: str, headers: Headers, table: Path, library: Path) -> None:
    sources = sorted((_FOLDER / "csrc").glob("*.cpp"))
    command = [
        compiler, *_FLAGS, "-isystem", str(headers.tensorrt), "-isystem", str(headers.cuda),
        "-I", str(_FOLDER / "csrc"), "-o", str(library), *(str(s) for s in (*sources, table)),
        f"-Wl,--version-script={_FOLDER / 'csrc' / 'exports.map'}", "-ldl",
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        errors = [line for line in run.stderr.splitlines() if "error" in line.lower()]
        first = (errors or run.stderr.splitlines() or ["no message"])[0]
        raise HostError(
            f"{Path(compiler).name} could not compile the plugin (TensorRT headers "
            f"{headers.version} in {headers.tensorrt}): {first}.",
            "It needs a C++17 compiler and the headers of TensorRT 10.3 or later.",
        )
