"""Which operators of a model OpenVINO's compiler for Intel's NPUs can read, asked without an NPU.

A list of names proves little: not that the compiler of a driver takes these shapes and types, not
that an operator runs on the matrix engine instead of a slow core beside it, not what half
precision, in which the device computes, does to the numbers. A missing name does prove something.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from prunus.runtime.errors import ArtifactError, MissingDependencyError
from prunus.runtime.session.openvino.attention import add_attention
from prunus.runtime.session.openvino.signal_stack import kept_signal_stack

# Names of OpenVINO's operations that the importer of the compiler has a case for: the table of
# NGraphImporter::getParser in src/vpux_compiler/src/frontend/IE.cpp.
SOURCE = "openvinotoolkit/npu_compiler (Apache-2.0), commit 0ccf9bf3faf8 (2025)"
OPERATORS = frozenset("""
Abs Acos Acosh AdaptiveAvgPool AdaptiveMaxPool Add Asin Asinh Assign Atan Atanh AvgPool
BatchNormInference BatchToSpace BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Broadcast Bucketize
CTCGreedyDecoder CTCGreedyDecoderSeqLen Ceiling Clamp Concat Constant Convert ConvertLike
Convolution ConvolutionBackpropData Cos Cosh CumSum DFT DeformableConvolution
DeformablePSROIPooling DepthToSpace DetectionOutput Divide Elu EmbeddingBagOffsetsSum
EmbeddingBagPackedSum EmbeddingSegmentsSum Equal Erf Exp ExperimentalDetectronROIFeatureExtractor
ExtractImagePatches Eye FakeConvert FakeQuantize Floor FloorMod GRN GRUCell GRUSequence Gather
GatherElements GatherND GatherTree Gelu Greater GreaterEqual GridSample GroupConvolution
GroupConvolutionBackpropData GroupNormalization HSigmoid HSwish HardSigmoid I420toBGR I420toRGB
IDFT IRDFT Identity If Interpolate Inverse LRN LSTMCell LSTMSequence Less LessEqual Log LogSoftmax
LogicalAnd LogicalNot LogicalOr LogicalXor Loop MVN MatMul MaxPool Maximum Minimum Mish Mod
Multiply NV12toBGR NV12toRGB Negative NonMaxSuppression NonZero NormalizeL2 NotEqual OneHot PRelu
PSROIPooling Pad Parameter Power Proposal RDFT RMS ROIAlign ROIPooling RandomUniform Range
ReadValue ReduceL1 ReduceL2 ReduceLogicalAnd ReduceLogicalOr ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum RegionYolo Relu ReorgYolo Reshape Result Reverse ReverseSequence RoPE Roll
Round STFT ScaledDotProductAttention ScatterElementsUpdate ScatterNDUpdate ScatterUpdate Select
Selu ShapeOf ShuffleChannels Sigmoid Sign Sin Sinh SoftPlus Softmax SpaceToBatch SpaceToDepth
Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tan Tanh TensorIterator Tile TopK
Transpose Unsqueeze VariadicSplit
""".split())
# Rewritten by the passes that the same file runs first, into operators of the table.
REWRITTEN = frozenset({"Einsum", "GroupQueryAttention", "Slice"})
_BESIDE = frozenset({"Constant", "Parameter", "Result"})  # of every model; no work


@dataclass(frozen=True, slots=True)
class NpuOperators:
    """What a model asks of an NPU's compiler.

    Attributes:
        counts: OpenVINO's operator -> how many, most frequent first.
        unknown: Those of them that are not in the list.
        source: Where the list is from.
    """

    counts: dict[str, int]
    unknown: tuple[str, ...]
    source: str = SOURCE


def npu_operators(path: str | Path) -> NpuOperators:
    """Return the operators of an ONNX file as OpenVINO reads it, held against the list.

    Raises:
        MissingDependencyError: openvino is not installed.
        ArtifactError: it cannot read the file.
    """
    with kept_signal_stack():
        try:
            import openvino as ov
        except ImportError:
            raise MissingDependencyError("openvino", "openvino", "A list for NPUs") from None
        core = ov.Core()
        try:
            add_attention(core)
            model = core.read_model(str(path))
        except Exception as error:  # it raises RuntimeError and its own kinds
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise ArtifactError(f"OpenVINO cannot read {path}: {lines[-1][:300]}.") from None
    found = Counter(op.get_type_name() for op in model.get_ordered_ops())
    counts = {
        name: count
        for name, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))
        if name not in _BESIDE
    }
    unknown = tuple(name for name in counts if name not in OPERATORS | REWRITTEN)
    return NpuOperators(counts, unknown)
