"""Names of the TensorRT Python API that prunus relies on, and a checker of an installed binding.

One code path serves TensorRT 10.3 (JetPack 6), 10.16, 11 and TensorRT-RTX, so every name used must
exist in all of them; the few that do not are listed apart and are looked for before use.

Check the binding of this machine, or any by its import name, with::

    python -m prunus.export.engine.api [MODULE]

The real bindings of each version can be checked on a machine without TensorRT and without a GPU:
they are small wheels that load over empty stand-ins of its libraries (``.ci/tensorrt_api.sh``).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

# Used by export/engine/worker.py, export/engine/report.py and runtime/plugins/library.py.
BUILDER_NAMES = (
    "__version__",
    "Builder",
    "Builder.build_serialized_network",
    "Builder.create_builder_config",
    "Builder.create_network",
    "BuilderFlag.TF32",
    "IBuilderConfig.clear_flag",
    "IBuilderConfig.create_timing_cache",
    "IBuilderConfig.get_timing_cache",
    "IBuilderConfig.profiling_verbosity",
    "IBuilderConfig.progress_monitor",
    "IBuilderConfig.set_flag",
    "IBuilderConfig.set_memory_pool_limit",
    "IBuilderConfig.set_timing_cache",
    "IHostMemory",
    "ILayer.get_input",
    "ILayer.get_output",
    "ILayer.num_inputs",
    "ILayer.num_outputs",
    "ILayer.type",
    "ILogger",
    "ILogger.log",
    "INetworkDefinition.get_input",
    "INetworkDefinition.get_layer",
    "INetworkDefinition.num_inputs",
    "INetworkDefinition.num_layers",
    "IPluginRegistry.get_creator",
    "IPluginRegistry.load_library",
    "IProgressMonitor",
    "IProgressMonitor.phase_finish",
    "IProgressMonitor.phase_start",
    "IProgressMonitor.step_complete",
    "ITensor.dtype",
    "ITensor.name",
    "ITensor.shape",
    "ITimingCache.serialize",
    "LayerType.CAST",
    "LayerType.CONVOLUTION",
    "LayerType.DECONVOLUTION",
    "LayerType.DEQUANTIZE",
    "LayerType.EINSUM",
    "LayerType.IDENTITY",
    "LayerType.MATRIX_MULTIPLY",
    "LayerType.PLUGIN_V3",
    "LayerType.SHUFFLE",
    "DataType.BF16",
    "DataType.FP8",
    "DataType.HALF",
    "DataType.INT8",
    "MemoryPoolType.WORKSPACE",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "OnnxParser.get_error",
    "OnnxParser.num_errors",
    "OnnxParser.parse_from_file",
    "ParserError.desc",
    "ParserError.node_name",
    "ParserError.node_operator",
    "ProfilingVerbosity.DETAILED",
    "get_plugin_registry",
)

# Used by runtime/session/tensorrt/session.py.
RUNTIME_NAMES = (
    "EngineInspector.get_engine_information",
    "ICudaEngine.create_engine_inspector",
    "ICudaEngine.create_execution_context",
    "ICudaEngine.get_tensor_dtype",
    "ICudaEngine.get_tensor_mode",
    "ICudaEngine.get_tensor_name",
    "ICudaEngine.get_tensor_shape",
    "ICudaEngine.num_io_tensors",
    "IExecutionContext.execute_async_v3",
    "IExecutionContext.set_tensor_address",
    "ILogger.Severity.ERROR",
    "LayerInformationFormat.JSON",
    "Logger",
    "Runtime",
    "Runtime.deserialize_cuda_engine",
    "TensorIOMode.INPUT",
    "TensorIOMode.OUTPUT",
    "nptype",
)

REQUIRED_NAMES = BUILDER_NAMES + RUNTIME_NAMES

# Looked for with getattr, or compared by name; a version without them does without them.
OPTIONAL_NAMES = (
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "IExecutionContext.is_stream_capturable",
    "LayerType.SQUEEZE",
    "LayerType.UNSQUEEZE",
    "DataType.INT4",
    "DataType.FP4",
)


def missing_names(module: Any, names: tuple[str, ...] = REQUIRED_NAMES) -> list[str]:
    """Return the dotted `names` that `module` does not have.

    Example:
        >>> import math
        >>> missing_names(math, ("pi", "tau.real", "no.such"))
        ['no.such']
    """
    return [name for name in names if not _has(module, name)]


def _has(module: Any, name: str) -> bool:
    holder = module
    for part in name.split("."):
        if not hasattr(holder, part):
            return False
        holder = getattr(holder, part)
    return True


def main(arguments: list[str]) -> int:
    """Check each module named (default: whichever is installed) and write one line per module."""
    modules = arguments or [
        name for name in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(name)
    ]
    failed = not modules
    for name in modules:
        module = importlib.import_module(name)
        missing, absent = missing_names(module), missing_names(module, OPTIONAL_NAMES)
        failed |= bool(missing)
        found = f"{len(REQUIRED_NAMES) - len(missing)}/{len(REQUIRED_NAMES)} required names"
        sys.stdout.write(
            f"{name} {module.__version__}: {found}"
            f"; missing: {', '.join(missing) or 'none'}"
            f"; optional and absent: {', '.join(absent) or 'none'}\n"
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
