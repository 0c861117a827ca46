"""`prunus plugin`: the library with which TensorRT executes local-global attention nodes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from prunus.apps.cli.verbs import Verb
from prunus.apps.common import options as shared
from prunus.runtime.command import Console
from prunus.runtime.json_text import json_text
from prunus.runtime.options import argument, option
from prunus.runtime.plugins.library import PluginLibrary, check_usable, default_path, describe
from prunus.runtime.plugins.local_global_attention.tiles import ARCHITECTURES

VERBS = (
    Verb(
        "build",
        "Compile the kernels and the library; needs g++ and triton, no GPU and no CUDA toolkit.",
        f"{__name__}:BuildOptions",
        f"{__name__}:build",
    ),
    Verb(
        "info",
        "Say which version a library is and which GPUs it serves; its code is not run.",
        f"{__name__}:InfoOptions",
        f"{__name__}:info",
    ),
)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What `prunus plugin build` does.

    Without -o it goes where `prunus build` and the runtime look for it.

    \b
    Examples:
      prunus plugin build
      prunus plugin build --arch 87 -o libprunus_local_global_attention.so
    """

    output: Path | None = shared.output("The library.")
    arch: tuple[int, ...] = option(
        f"Compute capability times ten, once per GPU ({', '.join(map(str, ARCHITECTURES))}); "
        "default: all.",
        default=(),
    )


@dataclass(frozen=True, slots=True)
class InfoOptions:
    """What `prunus plugin info` does.

    \b
    Examples:
      prunus plugin info
      prunus plugin info libprunus_local_global_attention.so --json
    """

    library: Path | None = argument("Library; default: the built one.", default=None)


def build(options: BuildOptions, console: Console) -> None:
    """Compile the library."""
    from prunus.runtime.plugins.local_global_attention.build import build_library

    target = options.output or default_path()
    if options.output is None:
        target.parent.mkdir(parents=True, exist_ok=True)
    with console.progress("plugin build") as progress:
        library = build_library(target, options.arch or ARCHITECTURES, progress=progress)
    _tell(library, console, "wrote ")


def info(options: InfoOptions, console: Console) -> None:
    """Describe a library."""
    found = describe(options.library or default_path())
    check_usable(found)
    _tell(found, console)


def _tell(library: PluginLibrary, console: Console, verb: str = "") -> None:
    facts = dataclasses.asdict(library) | {"path": str(library.path)}
    held = ", ".join(f"{a // 10}.{a % 10}" for a in library.architectures)
    size = library.path.stat().st_size / 1e6
    console.say(
        f"{verb}{library.path}  {library.name} {library.identity}, {size:.1f} MB, "
        f"compute capability {held}",
        json_text(facts, indent=1),
    )
