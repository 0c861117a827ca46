"""Small random transformers, one of each form that `prune` knows."""

import torch
from torch import nn

_VIT = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64,
    "image_size": 64, "patch_size": 8,
}  # fmt: skip
FAMILIES = ("vit", "deit", "dinov2", "dinov2-registers", "clip", "siglip", "whisper")


def build(name: str) -> nn.Module:
    """Return a network with random weights that are large enough to matter."""
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    if name == "whisper":
        config = transformers.WhisperConfig(
            d_model=32, encoder_layers=3, encoder_attention_heads=2, encoder_ffn_dim=64,
            max_source_positions=40, num_mel_bins=12,
        )  # fmt: skip
        network: nn.Module = _seeded(WhisperEncoder, config)
        return network
    kind = {
        "vit": ("ViTModel", "ViTConfig"),
        "deit": ("DeiTModel", "DeiTConfig"),
        "dinov2": ("Dinov2Model", "Dinov2Config"),
        "dinov2-registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig"),
        "clip": ("CLIPVisionModel", "CLIPVisionConfig"),
        "siglip": ("SiglipVisionModel", "SiglipVisionConfig"),
    }[name]
    config = getattr(transformers, kind[1])(**_VIT)
    return _seeded(getattr(transformers, kind[0]), config)


def _seeded(kind, config):
    torch.manual_seed(0)
    network = kind(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # as initialised, attention is all but uniform
    return network


def pixels(name: str) -> torch.Tensor:
    """Return two inputs of a network."""
    shape = (2, 12, 80) if name == "whisper" else (2, 3, 64, 64)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class PlainVit(nn.Module):
    """A network of timm's form: blocks, attn.qkv, ls1."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 8, stride=8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 32))
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def embed(self, x):
        patches = self.patch(x).flatten(2).transpose(1, 2)
        return torch.cat((self.cls_token.expand(len(x), -1, -1), patches), 1)

    def _through(self, x, *more):
        tokens = self.embed(x)
        for block in self.blocks:
            tokens = block(tokens, *more)
        return tokens

    def forward(self, x):
        return self._through(x)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 2
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm block with LayerScale."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.attn, self.mlp = _Attention(), nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 32))
        self.ls1, self.ls2 = nn.Identity(), nn.Identity()

    def forward(self, x, mask=None):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))
