"""Smart Turn 3.2 in PyTorch, with the weights of the int8 file inside a package.

Smart Turn (Daily, BSD-2) tells from the last eight seconds whether a speaker is done: the encoder
of Whisper tiny on 400 tokens, a mean weighted by a small network, and a classifier. `pipecat-ai`
carries it as ONNX with int8 weights and rounded activations. Here weights are what their int8
stands for, and activations are floats.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from prunus.runtime.errors import ArtifactError

FILE = Path("pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx")
POSITIONS, HEADS = 400, 6
_FLOATS = "_DequantizeLinear_Output"  # behind the name of what is kept as int8
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")


class SmartTurn(nn.Module):
    """Log-mel frames in, one logit out: above zero the speaker is done.

    Args:
        tensors: Of `read_smart_turn`.
        positions: Tokens that enter the blocks, counted from the end of the sound.
    """

    def __init__(self, tensors: Mapping[str, Tensor], positions: int = POSITIONS) -> None:
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        super().__init__()
        state = dict(tensors)
        table = state["encoder.embed_positions.weight"]
        state["encoder.embed_positions.weight"] = table[-positions:]
        width, hidden = table.shape[1], state["pool_attention.0.weight"].shape[0]
        inner, last = (state[f"classifier.{k}.weight"].shape[0] for k in (0, 4))
        self.config = WhisperConfig(
            d_model=width, encoder_attention_heads=HEADS, max_source_positions=positions,
            encoder_layers=1 + max(int(n.split(".")[2]) for n in state if ".layers." in n),
            encoder_ffn_dim=state["encoder.layers.0.fc1.weight"].shape[0],
            num_mel_bins=state["encoder.conv1.weight"].shape[1],
        )  # fmt: skip
        self.frames = 2 * positions
        self.encoder = WhisperEncoder(self.config)
        self.pool_attention = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(),
                                            nn.Linear(hidden, 1))  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Linear(width, inner), nn.LayerNorm(inner), nn.GELU(), nn.Dropout(),
            nn.Linear(inner, last), nn.GELU(), nn.Linear(last, 1),
        )  # fmt: skip
        self.load_state_dict(state)

    def forward(self, mel: Tensor) -> Tensor:
        """Map log-mel frames (B, bins, 800) to (B, 1) logits."""
        tokens = self.encoder(mel[:, :, -self.frames :]).last_hidden_state
        weights = self.pool_attention(tokens).softmax(dim=1)
        out: Tensor = self.classifier((tokens * weights).sum(dim=1))
        return out


def read_smart_turn(path: Path) -> dict[str, Tensor]:
    """Return the weights of the int8 file as float32, under the names of `SmartTurn`.

    Biases and norms have their names in the file. Matrices have none: each is called after the bias
    that is added to its product; a product without a bias is that of Whisper's keys.

    Raises:
        ArtifactError: not such a file.
    """
    graph = unrounded(onnx.load(str(path))).graph
    tensors = {i.name: torch.tensor(numpy_helper.to_array(i)) for i in graph.initializer}
    named = {name.removesuffix(_FLOATS): value for name, value in tensors.items()}
    found = {n: v for n, v in named.items() if re.fullmatch(r"inner\..*\.(weight|bias)", n)}
    after = {name: node for node in graph.node for name in node.input}
    keys: dict[str, Tensor] = {}  # by the tokens that they are made of
    queries: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in tensors:
            continue
        matrix = tensors[node.input[1]].T.contiguous()
        bias = next((name for name in after[node.output[0]].input if name in found), "")
        if bias:
            found[f"{bias.removesuffix('.bias')}.weight"] = matrix
        else:
            keys[node.input[0]] = matrix
        if bias.endswith(".q_proj.bias"):
            queries[node.input[0]] = bias
    if not keys or keys.keys() != queries.keys():
        raise ArtifactError(
            f"{path} has {len(keys)} products without a bias beside {len(queries)} queries; "
            "expected one each.", "Give the file of pipecat-ai 1.14.0.",
        )  # fmt: skip
    for tokens, bias in queries.items():
        found[bias.replace(".q_proj.bias", ".k_proj.weight")] = keys[tokens]
    return {name.removeprefix("inner."): value.float() for name, value in found.items()}


def unrounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a QDQ graph whose activations are not rounded, and whose weights are floats.

    Raises:
        ArtifactError: it rounds nothing.
    """
    twin = copy.deepcopy(model)
    graph = twin.graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    same: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        if node.op_type not in _ROUNDING:
            nodes.append(node)
        elif node.input[0] in constants:
            value = dequantised(node, constants)
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        else:
            same[node.output[0]] = same.get(node.input[0], node.input[0])
    if len(nodes) == len(graph.node):
        raise ArtifactError("The graph rounds nothing.", "Expected one with int8 weights.")
    for node in nodes:
        node.input[:] = [same.get(name, name) for name in node.input]
    read = {name for node in nodes for name in node.input}
    kept = [constant for constant in graph.initializer if constant.name in read]
    for values, new in ((graph.node, nodes), (graph.initializer, kept)):
        del values[:]
        values.extend(new)
    return twin


def dequantised(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return what a DequantizeLinear makes of a constant: (q - zero) * scale, along its axis."""
    value, scale, zero = (constants[name] for name in node.input)
    axis = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axis"), 1)
    if scale.ndim:
        shape = [-1 if k == axis % value.ndim else 1 for k in range(value.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return ((value.astype(np.int64) - zero) * scale).astype(np.float32)
