"""A network named in words: a shipped one, or what a function of the user's makes.

``package.module:function`` is looked for from the current folder, too; ``file.py:function`` names a
file. What goes wrong in them is the user's to mend, so all of it comes back as one message.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunus.models.pose.shipped import shipped_names, shipped_network
from prunus.runtime.errors import UsageError, nearest


def build_network(reference: str, seed: int | None = None) -> nn.Module:
    """Return the network of ``package.module:function`` or ``file.py:function``, not in training.

    Args:
        reference: The function, which takes no arguments, or a network itself; or the name of a
            shipped one, ``evitpose_tiny``.
        seed: Of torch's generator, when the function is called; None: left as it is.

    Raises:
        UsageError: no such module or function, or it does not return a network.
    """
    if reference in shipped_names():
        return shipped_network(reference)
    made = find_function(reference)
    if seed is not None:
        torch.manual_seed(seed)
    network = made if isinstance(made, nn.Module) else _call(made, reference)
    if not isinstance(network, nn.Module):
        raise UsageError(f"{reference} returns {type(network).__name__}; expected a torch module.")
    return network.eval()


def find_function(reference: str) -> Any:
    """Return what ``package.module:function`` or ``file.py:function`` names.

    Raises:
        UsageError: another form, or no such module or function.
    """
    module, colon, name = reference.rpartition(":")
    if not (module and colon and name.isidentifier()):
        raise UsageError(
            f"Got '{reference}'; expected package.module:function or file.py:function.",
            f"For example: networks.py:build. Networks that ship: {', '.join(shipped_names())}.",
        )
    holder = _import(module)
    if not hasattr(holder, name):
        known = [word for word in vars(holder) if not word.startswith("_")]
        raise UsageError(f"{module} has no '{name}'{nearest(name, known)}.")
    return getattr(holder, name)


def _call(made: Any, reference: str) -> Any:
    if not callable(made):
        raise UsageError(f"{reference} is a {type(made).__name__}; expected a function.")
    try:
        return made()
    except Exception as error:  # the function is the user's: anything may happen in it
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"{reference} fails: {type(error).__name__}: {reason[:300]}.",
            "It is called without arguments; --debug shows the trace.",
        ) from error


def _import(module: str) -> Any:
    try:
        if module.endswith(".py"):
            path = Path(module)
            if not path.is_file():
                raise UsageError(f"File not found: {module}.", "Give file.py:function.")
            spec = importlib.util.spec_from_file_location(f"_prunus_{path.stem}", path)
            assert spec is not None and spec.loader is not None
            loaded = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = loaded  # dataclasses look their module up
            spec.loader.exec_module(loaded)
            return loaded
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(module)
    except UsageError:
        raise
    except Exception as error:  # the module is the user's: anything may happen in it
        raise UsageError(
            f"{module} cannot be imported: {type(error).__name__}: {error}.",
            "Run where it lies, or give file.py:function.",
        ) from error
