"""Reading checkpoint files: tensors only, whatever wrapped them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.models.checkpoints.compact import restore
from prunus.models.checkpoints.header import SAFETENSORS
from prunus.models.unpack import xz_blocks
from prunus.runtime.errors import ArtifactError, MissingDependencyError

_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "model.")  # DistributedDataParallel and framework wrappers


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a ``.safetensors`` file, or a pickle of tensors (``.pth``, ``.pt``, ``.bin``).

    Shipped files may be ``.safetensors.xz`` (losslessly compressed) or hold weights in eight bits
    (`prunus.models.checkpoints.compact`).

    Returns:
        Name -> tensor on the CPU, wrappers and their prefixes taken off; floating tensors float32.

    Raises:
        ArtifactError: missing, unreadable, or without tensors.
    """
    return unwrap(load_raw(path), str(path))


def load_raw(path: str | Path) -> Any:
    """Read a file as it is, with whatever stands beside the tensors (``meta``, ``epoch``).

    Raises:
        ArtifactError: missing or unreadable.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"Checkpoint not found: {path}.", "Give a .safetensors or .pth file.")
    return _safetensors(path) if path.name.endswith(SAFETENSORS) else _pickle(path)


def unwrap(loaded: Any, title: str = "the checkpoint") -> dict[str, Tensor]:
    """Return the tensors of a loaded file without wrappers (``state_dict``, ``module.``).

    Raises:
        ArtifactError: there are none.
    """
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    items = loaded.items() if isinstance(loaded, Mapping) else ()
    tensors = {str(k): v for k, v in items if isinstance(v, Tensor)}
    if not tensors:
        raise ArtifactError(
            f"No tensors in {title}; expected a state dict.", "Give a model's checkpoint file."
        )
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        from safetensors.torch import load, load_file
    except ImportError:
        raise MissingDependencyError("safetensors", "models", "Reading weights") from None
    try:
        if path.suffix == ".xz":
            return restore(load(b"".join(xz_blocks(path))))
        return restore(load_file(path))
    except Exception as error:  # the library has its own, private error types
        raise _unreadable(path, error) from None


def _pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd protocols: what is wrong is told below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch raise a dozen kinds
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise ArtifactError(
                f"{path} is not a plain checkpoint: it holds Python objects or is damaged.",
                "Objects can run code when loaded; save its state_dict alone, as safetensors.",
            ) from None
        raise _unreadable(path, error) from None


def _numpy_scalars() -> list[Any]:
    """Return what a pickled numpy number is made of: scores stand beside the tensors in old files.

    The names are those of numpy 1 and 2; all of them are plain data.
    """
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")}
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, np.dtype, *kinds]


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    text = error.message if isinstance(error, ArtifactError) else str(error)
    reason = (text.rstrip(".").splitlines() or [type(error).__name__])[0][:250]
    return ArtifactError(f"Cannot read {path}: {reason}.", "Copy or download it again.")
