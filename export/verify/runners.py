"""Polygraphy runners over PyTorch and the runtime's sessions, and one function that drives them.

`Comparator.run` brings the activation order, input checks and copies of reused buffers. Its
verdict is not used: it compares elements, and `metrics` judges in task units.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.comparator import Comparator
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from prunus.export.common.samples import full_batches
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import TensorError
from prunus.runtime.session.base import BackendOptions, BaseSession, InferencePrecision, Source
from prunus.runtime.session.base import open as open_session
from prunus.runtime.session.registry import find
from prunus.runtime.tasks.metrics import Array


def metadata_of(card: ModelCard) -> TensorMetadata:
    """Return the card's inputs in polygraphy's form."""
    metadata = TensorMetadata()
    for spec in card.inputs:
        metadata.add(spec.name, dtype=np.dtype(spec.dtype), shape=spec.shape)
    return metadata


class TorchRunner(BaseRunner):
    """The reference: a PyTorch module in evaluation mode, float32, on the CPU.

    Args:
        module: Takes the card's inputs in order, returns a tensor or a tuple of tensors.
        card: Names of inputs and outputs.
        capture: Submodule path -> output name: what this submodule returns becomes an output.
    """

    def __init__(
        self, module: torch.nn.Module, card: ModelCard, capture: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(name=f"PyTorch {torch.__version__.split('+')[0]}")
        self.module = module.eval()
        self.card = card
        self.capture = dict(capture or {})

    def get_input_metadata_impl(self) -> TensorMetadata:
        """Return the card's inputs."""
        return metadata_of(self.card)

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> OrderedDict[str, Array]:
        """Run one batch."""
        caught: dict[str, Array] = {}
        tensors = [
            torch.from_numpy(np.ascontiguousarray(feed_dict[i.name])) for i in self.card.inputs
        ]
        with ExitStack() as hooks:
            for path, name in self.capture.items():
                hooks.callback(_catch(self.module.get_submodule(path), name, caught).remove)
            start = time.perf_counter()
            with torch.no_grad():
                returned = self.module(*tensors)
            self.inference_time = time.perf_counter() - start
        values = returned if isinstance(returned, tuple) else (returned,)
        named = zip((o.name for o in self.card.outputs), values, strict=True)
        return OrderedDict({name: value.numpy() for name, value in named}, **caught)


def _catch(module: torch.nn.Module, name: str, into: dict[str, Array]) -> Any:
    def hook(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        into[name] = output.detach().numpy()

    return module.register_forward_hook(hook)


class SessionRunner(BaseRunner):
    """Any session of the runtime: judges exactly what an application would run.

    Args:
        session: An open session; closing it stays with the caller.
        name: Name in the report; the session's own description when empty.
    """

    def __init__(self, session: BaseSession, name: str = "") -> None:
        super().__init__(name=name or session.description)
        self.session = session

    def get_input_metadata_impl(self) -> TensorMetadata:
        """Return the inputs of the session's card."""
        return metadata_of(self.session.card)

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> OrderedDict[str, Array]:
        """Run one batch."""
        outputs = self.session.run(feed_dict)
        self.inference_time = self.session.run_ms / 1e3
        return OrderedDict(outputs)


def open_runner(
    source: Source, card: ModelCard, backend: str, arithmetic: InferencePrecision, threads: int
) -> SessionRunner:
    """Open a graph on the CPU with an explicit arithmetic, so that a check says which it judged.

    Args:
        source: The artifact, or the bytes of its graph.
        card: What the graph is.
        backend: Name of a back end.
        arithmetic: One of the back end's.
        threads: CPU threads.

    Raises:
        ArtifactError: the back end refuses the graph.
        MissingDependencyError: it is not installed.
    """
    row = find(backend)
    options = BackendOptions(inference_precision=arithmetic)
    session = open_session(source, backend, threads=threads, options=options, card=card)
    named = f" {arithmetic}" if len(row.arithmetics) > 1 else ""
    return SessionRunner(session, f"{row.name} {row.version}{named}")


def run(runner: BaseRunner, inputs: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """Run all samples through one runner.

    Args:
        runner: Any polygraphy runner.
        inputs: Input name -> (N, ...) array of single samples.
        batch: Samples per call, fixed by the graph; the last batch is filled by repeating.

    Returns:
        Output name -> (N, ...) array.

    Raises:
        TensorError: no samples, or the runner refuses their names, shapes or types.
    """
    count = len(next(iter(inputs.values()), ()))
    feeds = full_batches(inputs, batch) if count else ()
    return {name: values[:count] for name, values in run_feeds(runner, feeds).items()}


def run_feeds(runner: BaseRunner, feeds: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Run whole inputs of a graph, one after the other, through one runner.

    Args:
        runner: Any polygraphy runner.
        feeds: Input name -> array of the graph's own shape, which needs no batch axis.

    Returns:
        Output name -> the outputs along axis 0; single numbers become (feeds,).

    Raises:
        TensorError: no inputs, or the runner refuses their names, shapes or types.
    """
    if not feeds:
        raise TensorError("Got 0 samples to check with.", "Give at least one real input.")
    with quiet():
        try:
            results = Comparator.run([runner], data_loader=[OrderedDict(feed) for feed in feeds])
        except PolygraphyException as error:
            raise TensorError(f"{runner.name} refuses the inputs: {error}") from error
    ((_, iterations),) = results.items()
    return {
        name: np.concatenate([np.atleast_1d(np.array(i[name])) for i in iterations])
        for name in iterations[0]
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep polygraphy from printing: its findings come back as exceptions."""
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        yield


def engine_runner(path: Path, flavour: str, folder: Path, stack: ExitStack) -> BaseRunner:
    """Build an artifact into an engine in `folder` and open it; needs a GPU.

    Args:
        path: ONNX artifact.
        flavour: ``tensorrt`` or ``tensorrt_rtx``.
        folder: Temporary folder that receives the engine.
        stack: Closes the session.

    Raises:
        HostError: no GPU, driver or TensorRT here.
    """
    from prunus.export.engine.build import build_engine

    engine = folder / f"{path.stem}.engine"
    build_engine(path, engine, flavour)
    session = stack.enter_context(open_session(engine, "tensorrt"))
    return SessionRunner(session, f"{flavour} {session.description}")
