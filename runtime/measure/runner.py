"""What is compared: an artifact on a back end, or any function, as a call without arguments."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.matching import check_array
from prunus.runtime.errors import UsageError
from prunus.runtime.measure.latency import Boundary
from prunus.runtime.references import load
from prunus.runtime.session.base import BackendOptions
from prunus.runtime.session.base import open as open_session
from prunus.runtime.session.registry import split_word

Inputs = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """One contestant; exactly one of `path` and `target` is given.

    Attributes:
        name: Its name in tables.
        path: Model file, run through `prunus.runtime.open`.
        backend: Back end for `path`.
        device: Device for `path`.
        options: Switches of the back end for `path`.
        target: ``module:function``, called as ``function(inputs, threads, *arguments)``; it returns
            a call without arguments that runs once. For what the runtime must not import.
        arguments: Strings for `target`.
        threads: CPU threads, None for all usable CPUs.
        boundary: What one call covers.
    """

    name: str
    path: str = ""
    backend: str = "auto"
    device: str = "cpu"
    options: BackendOptions = field(default_factory=BackendOptions)
    target: str = ""
    arguments: tuple[str, ...] = ()
    threads: int | None = None
    boundary: Boundary = "engine"

    def __post_init__(self) -> None:
        if bool(self.path) == bool(self.target):
            raise UsageError(
                f"The runner '{self.name}' has the path '{self.path}' and the target "
                f"'{self.target}'; expected exactly one of them."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> RunnerSpec:
        """Rebuild a spec from `to_dict`, possibly through JSON."""
        values = {**raw, "options": BackendOptions(**raw["options"])}
        return RunnerSpec(**{**values, "arguments": tuple(raw["arguments"])})


def benchmarked(word: str) -> tuple[str, BackendOptions]:
    """Return back end and switches of a word such as ``openvino-bf16``, for one at a time.

    A benchmark has the machine for itself, so idle workers may poll.

    Raises:
        UsageError: no such back end, or it has no such arithmetic.
    """
    backend, arithmetic = split_word(word)
    return backend, BackendOptions(inference_precision=arithmetic, spin=True)


@dataclass(frozen=True, slots=True)
class Runner:
    """An opened runner: the call, a line that describes it, what frees it, and its switches."""

    call: Callable[[], object]
    description: str
    close: Callable[[], None]
    settings: Mapping[str, Any] = field(default_factory=dict)


def open_runner(spec: RunnerSpec, inputs: Inputs) -> Runner:
    """Open a runner on inputs that it cycles through.

    Args:
        spec: What to open.
        inputs: By input name: one array of the graph's shape, or several samples stacked along a
            new first axis. Inputs of a model file that are missing here are filled with noise.

    Raises:
        PrunusError: the file, back end or target cannot be used.
    """
    if spec.target:
        call = _load(spec.target)(inputs, spec.threads, *spec.arguments)
        return Runner(call, spec.target, lambda: None)
    session = open_session(
        spec.path, spec.backend, threads=spec.threads, device=spec.device, options=spec.options
    )
    turns = itertools.cycle(samples(session.card, inputs))
    return Runner(
        lambda: session.run(next(turns)), session.description, session.close, session.settings
    )


def _load(target: str) -> Callable[..., Callable[[], object]]:
    try:
        found: Callable[..., Callable[[], object]] = load(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"Cannot load '{target}': {error}.", "Give it as module:function."
        ) from None
    return found


def samples(card: ModelCard, inputs: Inputs) -> list[dict[str, np.ndarray]]:
    """Cut stacked samples into inputs of the graph's shapes; noise stands in for missing ones.

    Raises:
        TensorError: an array fits neither the shape nor a stack of it.
    """
    noise = example_inputs(card)
    columns: dict[str, list[np.ndarray]] = {}
    for spec in card.inputs:
        array = inputs.get(spec.name, noise[spec.name])
        parts = list(array) if array.ndim == len(spec.shape) + 1 and len(array) else [array]
        for part in parts:
            check_array(spec, part)
        columns[spec.name] = [np.asarray(part, order="C") for part in parts]
    count = max(len(parts) for parts in columns.values())
    return [{k: parts[i % len(parts)] for k, parts in columns.items()} for i in range(count)]


def example_inputs(card: ModelCard, seed: int = 0) -> dict[str, np.ndarray]:
    """Return uniform noise within the bounds of each input (0..1 where the card has none)."""
    generator = np.random.default_rng(seed)
    made = {}
    for spec in card.inputs:
        dtype = np.dtype(spec.dtype)
        low, high = spec.minimum or 0.0, spec.maximum
        top = high if high is not None else (255.0 if dtype == np.uint8 else 1.0)
        made[spec.name] = generator.uniform(low, top, spec.shape).astype(dtype)
    return made
