"""Child process of `build.build_library`: compile the kernel's variants for one GPU architecture.

It is a process of its own since the compiler reads its settings from the environment while it is
imported, holds hundreds of megabytes, and should not be able to take a caller down with it. No GPU
is needed: triton brings its own assembler.

Input: one JSON object on stdin, ``architecture`` (compute capability times ten), ``folder`` (where
the results go), ``cache`` (where the compiler may keep files of its own) and ``names`` (tiles to
compile). Output: one line per kernel on stdout, its name.

Runs as ``python -m prunus.runtime.plugins.local_global_attention.compile_kernels``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.plugins.local_global_attention.tiles import (
    VECTOR,
    Tile,
    compiled_tiles,
    precision,
)

_TABLES = ("q_index", "kv_index")
_ACTIVATIONS = ("q", "k", "v", "kg", "vg", "y")
_TENSORS = (*_ACTIVATIONS, "bias_l", "bias_g", "gate")
_MULTIPLES = ("head_dim", "channels", "tokens_by_batch", "tokens_by_window")
# Spaces that a kernel may ask the launcher for; every kernel has them as its last two parameters.
_SCRATCH = ("global_scratch_size", "profile_scratch_size")


def compile_tile(architecture: int, tile: Tile, folder: Path) -> None:
    """Compile one variant into ``<folder>/<name>.cubin`` and ``.json``.

    Raises:
        RuntimeError: the compiled kernel is not launched the way that the library launches it.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from prunus.runtime.plugins.local_global_attention.kernel import local_global_attention

    names = local_global_attention.arg_names
    constants = {
        "tile_rows": tile.rows,
        "tile_keys": tile.keys,
        "tile_dim": tile.dim,
        "precision": precision(architecture, tile.dtype),
    }
    source = ASTSource(
        fn=local_global_attention,
        signature={name: _type(name, tile.dtype, constants) for name in names},
        constexprs=constants,
        attrs=_hints(names) if tile.aligned else {},
    )
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    kernel = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    parameters = len(names) - len(constants) + len(_SCRATCH)
    _check(kernel, parameters)
    facts = {
        "function": kernel.metadata.name,
        "shared_bytes": kernel.metadata.shared,
        "threads": 32 * kernel.metadata.num_warps,
        "size": len(kernel.asm["cubin"]),
    }
    with atomic_path(folder / f"{tile.name}.cubin") as path:
        path.write_bytes(kernel.asm["cubin"])
    with atomic_path(folder / f"{tile.name}.json") as path:
        path.write_text(json.dumps(facts, sort_keys=True) + "\n")


def _type(name: str, dtype: str, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    if name in _TENSORS:
        return f"*{dtype}"
    return "*i32" if name in _TABLES else "fp32" if name == "scale" else "i32"


def _hints(names: list[str]) -> dict[tuple[int], list[list[Any]]]:
    """Promise multiples of 16 bytes and of `VECTOR` elements, so that loads are vectors."""
    alignments = {name: 16 for name in _ACTIVATIONS} | {name: VECTOR for name in _MULTIPLES}
    return {
        (position,): [["tt.divisibility", alignments[name]]]
        for position, name in enumerate(names)
        if name in alignments
    }


def _check(kernel: Any, parameters: int) -> None:
    found = len(set(re.findall(r"\.param [^\n]*_param_(\d+)", kernel.asm["ptx"])))
    wanted = [name for name in _SCRATCH if getattr(kernel.metadata, name, 0)]
    if found != parameters or wanted or getattr(kernel.metadata, "num_ctas", 1) != 1:
        raise RuntimeError(
            f"the kernel has {found} parameters and wants {wanted or 'no scratch'}; the library "
            f"passes {parameters} and no scratch"
        )


def main() -> int:
    """Read the job and compile; a failure is one line on stderr and the exit status 1."""
    job = json.loads(sys.stdin.read())
    # Line tables make the kernels three times as large; an interpreted kernel cannot be compiled.
    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ["TRITON_CACHE_DIR"] = job["cache"]
    try:
        for tile in compiled_tiles(job["architecture"]):
            if tile.name in job["names"]:
                compile_tile(job["architecture"], tile, Path(job["folder"]))
                sys.stdout.write(f"{tile.name}\n")
                sys.stdout.flush()
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())[:400]}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
