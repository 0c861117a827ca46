"""PyTorch module -> ONNX model: dynamo exporter, opset 20, every shape a constant.

The exporter records which submodule each node came from; `naming.scoped_names` turns that into
node names such as ``blocks.3.attn/MatMul_1`` so that bisecting, precision rules and engine reports
can speak of blocks.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from prunus.export.graph.exporter import quick
from prunus.export.graph.functions import add_functions, describe_shapes, translation
from prunus.export.graph.naming import scoped_names
from prunus.runtime.errors import MissingDependencyError, PrunusError

if TYPE_CHECKING:
    import onnx

OPSET = 20
_CHATTY = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "torch.fx", "torch._dynamo")


def trace(
    module: torch.nn.Module,
    example_inputs: Sequence[torch.Tensor],
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> onnx.ModelProto:
    """Trace a module in evaluation mode into a fully static ONNX model.

    Args:
        module: The network; its training flags are restored afterwards.
        example_inputs: One tensor per input; their shapes become the graph's constants.
        input_names: Names of the graph inputs.
        output_names: Names of the graph outputs, in the order in which the module returns them.

    Returns:
        Model with scoped node names, weights inside, no metadata of this machine.

    Raises:
        PrunusError: the module cannot be traced, or its inputs or outputs do not fit the names.
        MissingDependencyError: onnx or onnxscript is not installed.
    """
    _require("onnx")
    _require("onnxscript")
    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        with torch.no_grad(), _quiet(), quick():
            program = torch.onnx.export(
                module,
                tuple(example_inputs),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(input_names),
                output_names=list(output_names),
                custom_translation_table=_translations(),
                verbose=False,
            )
            if program is None:
                raise RuntimeError("the exporter returned nothing")
            model: onnx.ModelProto = program.model_proto
    except Exception as error:
        raise PrunusError(
            f"Cannot trace {type(module).__name__} to ONNX: {_reason(error)}.",
            "The forward pass must not depend on input values; --debug shows the trace.",
        ) from error
    finally:
        for part in training:
            part.training = True
    _match(model, input_names, output_names, type(module).__name__)
    return add_functions(describe_shapes(scoped_names(model)))


def _require(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(package, "export", "Exporting to ONNX")


def _reason(error: BaseException) -> str:
    """Return the innermost cause in one line: the exporter wraps it several times."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text[:200].rstrip(".")


def _match(
    model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str], title: str
) -> None:
    for kind, got, expected in (
        ("inputs", [v.name for v in model.graph.input], list(inputs)),
        ("outputs", [v.name for v in model.graph.output], list(outputs)),
    ):
        if got != expected:
            raise PrunusError(
                f"The trace of {title} has {kind} {got}; expected {expected}.",
                "Give one name per tensor that the module takes and returns.",
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: it prints, warns and logs about packages that are not needed."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        with contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            try:
                yield
            finally:
                for logger, level in zip(loggers, levels, strict=True):
                    logger.setLevel(level)


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return our own lowerings: local-global attention as one node, and plain attention.

    The stock lowering of the latter scales q *and* k and transposes k through two reshapes: three
    passes over memory per block that back ends do not all fold away.
    """
    from onnxscript import opset20 as op
    from onnxscript.function_libs.torch_lib.ops import nn

    stock: Callable[..., Any] = nn.aten_scaled_dot_product_attention

    def attention(  # noqa: PLR0917 - the signature is PyTorch's
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        if attn_mask is not None or is_causal or enable_gqa or len(query.shape) != 4:
            return stock(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
        factor = float(query.shape[-1]) ** -0.5 if scale is None else float(scale)
        scaled = op.Mul(query, op.CastLike(op.Constant(value_float=factor), query))
        weights = op.Softmax(op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2])), axis=-1)
        return op.MatMul(weights, value)

    return {torch.ops.aten.scaled_dot_product_attention.default: attention, **translation()}
