"""Polygraphy runners, and one function that drives them over real samples.

`Comparator.run` brings the activation order, input checks and copies of reused buffers. Its
verdict is not used: it compares elements, and `metrics` judges in task units.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.common import TensorMetadata
from polygraphy.comparator import Comparator
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from prunus.export.common.samples import full_batches
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import MissingDependencyError, PrunusError, TensorError
from prunus.runtime.tasks.metrics import Array

if TYPE_CHECKING:
    import onnx


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


def onnxruntime_session(model: str | Path | bytes, threads: int = 1, optimise: bool = True) -> Any:
    """Open a CPU session of ONNX Runtime on a file or a serialised model.

    Args:
        model: Path, or bytes of a model.
        threads: Threads inside one operator.
        optimise: False keeps the graph as it is written, node by node.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        PrunusError: it refuses the model.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("onnxruntime", "ort", "Running an ONNX file") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings about the graph belong to export, not to a check
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes share no public base
        reason = str(error).splitlines()[0]
        raise PrunusError(f"ONNX Runtime refuses the model: {reason}") from error


def onnxruntime_runner(model: str | Path | bytes, threads: int = 1) -> BaseRunner:
    """Return a runner on the CPU provider of ONNX Runtime, optimised as it is in use."""
    session = onnxruntime_session(model, threads)
    import onnxruntime

    return OnnxrtRunner(lambda: session, name=f"onnxruntime {onnxruntime.__version__}")


class OpenVINORunner(BaseRunner):
    """OpenVINO on the CPU with an explicit precision, so that a check says which one it judged.

    Args:
        model: ONNX model, loaded.
        card: Names and types of the inputs.
        precision: ``f32`` or ``bf16``.
        threads: Threads of inference.
    """

    def __init__(
        self, model: onnx.ModelProto, card: ModelCard, precision: str = "f32", threads: int = 1
    ) -> None:
        try:
            import openvino
        except ImportError:
            raise MissingDependencyError("openvino", "openvino", "The openvino back end") from None
        version = ".".join(openvino.__version__.split("-")[0].split(".")[:3])
        super().__init__(name=f"openvino {version} {precision}")
        self.model, self.card, self.precision, self.threads = model, card, precision, threads
        self.compiled: Any = None

    def activate_impl(self) -> None:
        """Compile the model."""
        import openvino

        from prunus.runtime.session.openvino.attention import add_attention

        core = openvino.Core()
        add_attention(core)
        options = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": self.threads,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # as in the runtime's back end
        }
        try:
            read = core.read_model(self.model.SerializeToString())
            self.compiled = core.compile_model(read, "CPU", options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise PrunusError(f"OpenVINO refuses the model: {reason}") from error

    def get_input_metadata_impl(self) -> TensorMetadata:
        """Return the card's inputs."""
        return metadata_of(self.card)

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> OrderedDict[str, Array]:
        """Run one batch."""
        start = time.perf_counter()
        results = self.compiled(dict(feed_dict))
        self.inference_time = time.perf_counter() - start
        names = [value.name for value in self.model.graph.output]
        return OrderedDict({name: np.array(results[name]) for name in names})

    def deactivate_impl(self) -> None:
        """Free the compiled model."""
        self.compiled = None


class SessionRunner(BaseRunner):
    """Any session of the runtime: judges exactly what an application would run.

    Args:
        session: An open session; closing it stays with the caller.
        name: Name in the report; the session's own description when empty.
    """

    def __init__(self, session: Any, name: str = "") -> None:
        super().__init__(name=name or session.description)
        self.session = session

    def get_input_metadata_impl(self) -> TensorMetadata:
        """Return the inputs of the session's card."""
        return metadata_of(self.session.card)

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> OrderedDict[str, Array]:
        """Run one batch; outputs are copied because a session may reuse its buffers."""
        start = time.perf_counter()
        outputs = self.session.run(feed_dict)
        self.inference_time = time.perf_counter() - start
        return OrderedDict({name: np.array(value) for name, value in outputs.items()})


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
    if not count:
        raise TensorError("Got 0 samples to check with.", "Give at least one real input.")
    batches = [OrderedDict(feed) for feed in full_batches(inputs, batch)]
    with quiet():
        try:
            results = Comparator.run([runner], data_loader=batches)
        except PolygraphyException as error:
            raise TensorError(f"{runner.name} refuses the inputs: {error}") from error
    ((_, iterations),) = results.items()
    return {
        name: np.concatenate([np.array(i[name]) for i in iterations])[:count]
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
    from prunus import runtime
    from prunus.export.engine.build import build_engine

    engine = folder / f"{path.stem}.engine"
    build_engine(path, engine, flavour)
    session = stack.enter_context(runtime.open(engine, "tensorrt"))
    return SessionRunner(session, f"{flavour} {session.description}")
