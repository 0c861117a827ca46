"""A plugin library as a file: what it is, where it is looked for, how TensorRT gets it.

A library describes itself in a line of JSON behind a mark, which is read from the file without
loading it: a file of another machine or version is named as such before TensorRT sees it.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.runtime.card.reading import parse_json
from prunus.runtime.errors import ArtifactError, HostError
from prunus.runtime.host import user_cache
from prunus.runtime.limits import PLUGIN_BYTES
from prunus.runtime.plugins.local_global_attention import LIBRARY, NAME, NAMESPACE, VERSION
from prunus.runtime.plugins.local_global_attention.tiles import runs_on

MARK = "prunus-plugin:"
VARIABLE = "PRUNUS_PLUGIN_PATH"
BUILD_COMMAND = "prunus plugin build"


@dataclass(frozen=True, slots=True)
class PluginLibrary:
    """What a plugin library says about itself, and where it is.

    Attributes:
        path: The file.
        name: Operator that it executes.
        version: Version of the operator's contract; must equal ours.
        identity: Version and hash of the sources that it was made from.
        architectures: GPU compute capabilities times ten that it holds kernels for.
        machine: Processor architecture, as ``uname -m`` says.
        sha256: Hash of the file.
    """

    path: Path
    name: str
    version: str
    identity: str
    architectures: tuple[int, ...]
    machine: str
    sha256: str

    @property
    def stamp(self) -> str:
        """Return what an engine's sidecar keeps: name, identity and hash."""
        return f"{self.name} {self.identity} sha256:{self.sha256}"


def describe(path: str | Path) -> PluginLibrary:
    """Read what a library says about itself; its code is not run.

    Raises:
        ArtifactError: no such file, or not a plugin library of prunus.
    """
    path = Path(path)
    try:
        PLUGIN_BYTES.check(path.stat().st_size, str(path), ArtifactError)
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"Cannot read the plugin library {path}: {error.strerror}.",
            f"Build it with: {BUILD_COMMAND}",
        ) from None
    start = data.find(MARK.encode() + b"{") + len(MARK)
    try:
        if start < len(MARK):
            raise ValueError("it does not describe itself")
        facts: dict[str, Any] = parse_json(data[start : data.index(b"\0", start)], str(path))
        return PluginLibrary(
            path=path,
            name=str(facts["name"]),
            version=str(facts["version"]),
            identity=str(facts["identity"]),
            architectures=tuple(int(a) for a in facts["architectures"]),
            machine=str(facts["machine"]),
            sha256=hashlib.sha256(data).hexdigest(),
        )
    except (ValueError, KeyError, TypeError, ArtifactError) as error:
        raise ArtifactError(
            f"{path} is not a plugin library of prunus ({error}).",
            f"Build one with: {BUILD_COMMAND}",
        ) from None


def check_usable(library: PluginLibrary) -> None:
    """Refuse a library of another version or machine.

    Raises:
        ArtifactError: names both sides.
    """
    if library.version != VERSION:
        raise ArtifactError(
            f"{library.path} holds version {library.version} of the {library.name} plugin; "
            f"this prunus needs version {VERSION}.",
            f"Build it again with: {BUILD_COMMAND}",
        )
    if library.machine != platform.machine():
        raise ArtifactError(
            f"{library.path} was built for {library.machine}; this machine is "
            f"{platform.machine()}.",
            f"Build it here with: {BUILD_COMMAND}",
        )


def cache_folder() -> Path:
    """Return the folder of the user's cache for plugins; it may not exist yet."""
    return user_cache() / "plugins"


def default_path() -> Path:
    """Return where `prunus plugin build` puts the library unless told otherwise."""
    return cache_folder() / LIBRARY


def find_library(chosen: str | Path | None = None) -> PluginLibrary | None:
    """Look a library up: the one chosen, else ``PRUNUS_PLUGIN_PATH``, else the user's cache.

    Args:
        chosen: File, as given on the command line; nothing else is looked at.

    Returns:
        The library, checked for this machine and version; None when there is none.

    Raises:
        ArtifactError: a chosen or found file is not usable, or the variable names none.
    """
    if chosen is not None:
        candidates: list[Path] = [Path(chosen)]
    elif os.environ.get(VARIABLE):
        candidates = [p for p in _named(os.environ[VARIABLE]) if p.is_file()][:1]
        if not candidates:
            raise ArtifactError(
                f"{VARIABLE} is {os.environ[VARIABLE]}, where no {LIBRARY} lies.",
                f"Let it name that file or its folder, or unset it. Build it with: {BUILD_COMMAND}",
            )
    else:
        candidates = [p for p in (default_path(),) if p.is_file()]
    if not candidates:
        return None
    library = describe(candidates[0])
    check_usable(library)
    return library


def _named(variable: str) -> Iterator[Path]:
    for entry in filter(None, variable.split(os.pathsep)):
        yield Path(entry) / LIBRARY if Path(entry).is_dir() else Path(entry)


def find_stamped(stamp: str, engine: str | Path) -> PluginLibrary:
    """Find the very library that an engine was built with.

    It is looked for as in `find_library`. One that lies beside the engine is loaded only where
    ``PRUNUS_PLUGIN_PATH`` names it: a library runs its code, and engines come from anywhere.

    Args:
        stamp: What the engine's sidecar keeps, see `PluginLibrary.stamp`.
        engine: Plan file.

    Raises:
        ArtifactError: there is none, or it is another one.
    """
    name, identity, digest = (*stamp.split(), "", "", "")[:3]
    rebuild = f"Build it with: {BUILD_COMMAND}; or build the engine again with --plugin off."
    library = find_library()
    if library is None:
        beside = Path(engine).absolute().parent / LIBRARY
        if beside.is_file():
            rebuild = f"If you trust {beside}, set {VARIABLE} to it. {rebuild}"
        raise ArtifactError(f"{engine} needs the {name} plugin {identity}; none is found.", rebuild)
    if library.identity != identity:
        raise ArtifactError(
            f"{engine} was built with the {name} plugin {identity}; "
            f"{library.path} is {library.identity}.",
            f"Build engine and library from the same prunus. {rebuild}",
        )
    if f"sha256:{library.sha256}" != digest:
        raise ArtifactError(
            f"{engine} was built with another file than {library.path}: "
            f"{digest or 'no sha256'}; expected sha256:{library.sha256}.",
            f"Build the engine again, or set {VARIABLE} to the library that it was built with.",
        )
    return library


def check_gpu(library: PluginLibrary, gpu: str, compute_capability: str) -> None:
    """Refuse a GPU that the library holds no kernels for.

    Args:
        library: The library.
        gpu: Name of the GPU, for the message.
        compute_capability: ``major.minor``.

    Raises:
        ArtifactError: names the architectures that it has.
    """
    major, _, minor = compute_capability.partition(".")
    device = 10 * int(major) + int(minor)
    if not any(runs_on(image, device) for image in library.architectures):
        held = ", ".join(f"{a // 10}.{a % 10}" for a in library.architectures)
        raise ArtifactError(
            f"{library.path} holds kernels for compute capability {held}; "
            f"{gpu} is {compute_capability}.",
            f"Build it with: {BUILD_COMMAND} --arch {device}; or the engine with --plugin off.",
        )


def register(trt: Any, library: PluginLibrary) -> None:
    """Load a library into TensorRT's registry, once per process.

    Args:
        trt: The module ``tensorrt`` or ``tensorrt_rtx``.
        library: What to load.

    Raises:
        HostError: TensorRT cannot load it; its log says why.
    """
    registry = trt.get_plugin_registry()
    if registry.get_creator(NAME, VERSION, NAMESPACE) is not None:
        return
    handle = registry.load_library(str(library.path.absolute()))
    if handle is None or registry.get_creator(NAME, VERSION, NAMESPACE) is None:
        raise HostError(
            f"{trt.__name__} {trt.__version__} cannot load the plugin library {library.path} "
            "(its log says why).",
            f"Build it on this machine with: {BUILD_COMMAND}",
        )
