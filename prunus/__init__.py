"""Static token pruning from PyTorch to ONNX and TensorRT, and a light runtime for live models.

``prunus.load(name)`` opens any model by its name or path, ``prunus.prune(network, plan)`` drops
tokens of a transformer at constant places; everything is imported on first use, so that ``import
prunus`` costs nothing.

Example:
    >>> import prunus
    >>> with prunus.load("pose") as pose:  # doctest: +SKIP
    ...     result = pose(frame)           # uint8 (height, width, 3) BGR
    ...     result.to_dict()
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunus.api import load
    from prunus.models.tokens.plan import PruningPlan
    from prunus.models.tokens.prune import prune
    from prunus.runtime.card.card import ModelCard
    from prunus.runtime.errors import PrunusError
    from prunus.runtime.session.base import BackendOptions, Session, open

__version__ = "0.1.0"
__all__ = [
    "BackendOptions",
    "ModelCard",
    "PruningPlan",
    "PrunusError",
    "Session",
    "__version__",
    "load",
    "open",
    "prune",
]

_LAZY = {
    "BackendOptions": "prunus.runtime.session.base",
    "ModelCard": "prunus.runtime.card.card",
    "PruningPlan": "prunus.models.tokens.plan",
    "PrunusError": "prunus.runtime.errors",
    "Session": "prunus.runtime.session.base",
    "load": "prunus.api",
    "open": "prunus.runtime.session.base",
    "prune": "prunus.models.tokens.prune",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'prunus' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
