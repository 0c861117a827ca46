"""The quantisers by name, in sizes of about ten bits, and what each is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from prunus.models.blocks.quantizers.cascaded import CascadedCodebooks
from prunus.models.blocks.quantizers.dual import SharedIndex
from prunus.models.blocks.quantizers.grouped import MultiCodebook, SphericalGroups
from prunus.models.blocks.quantizers.interface import FrameQuantizer
from prunus.models.blocks.quantizers.lookup_free import SignQuantizer
from prunus.models.blocks.quantizers.residual import ResidualStages
from prunus.models.blocks.quantizers.scalar import ScalarQuantizer
from prunus.models.blocks.quantizers.vector import PlainQuantizer
from prunus.runtime.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the zoo.

    Attributes:
        title: What it is, in words.
        source: Paper.
        build: Makes an example of it; random tables come from PyTorch's global generator.
    """

    title: str
    source: str
    build: Callable[[], FrameQuantizer]


QUANTIZERS = {
    "vq": Entry("one codebook", "arXiv 1711.00937", lambda: PlainQuantizer(16, 1024)),
    "rvq": Entry("residual stages", "arXiv 2107.03312", lambda: ResidualStages(16, 1024, 4)),
    "fsq": Entry("rounded scalars", "arXiv 2309.15505", lambda: ScalarQuantizer((8, 5, 5, 5))),
    "lfq": Entry("signs (MAGVIT-v2)", "arXiv 2310.05737", lambda: SignQuantizer(10)),
    "wetok": Entry("signs in groups", "arXiv 2508.05599", lambda: SignQuantizer(8, 4)),
    "gsq": Entry("groups on a sphere", "arXiv 2412.02632", lambda: SphericalGroups(16, 256, 4)),
    "unitok": Entry(
        "multi-codebook", "arXiv 2502.20321", lambda: MultiCodebook(16, 256, 4, temperature=0.01)
    ),
    "tokenflow": Entry(
        "two codebooks, one index", "arXiv 2412.03069", lambda: SharedIndex(16, 8, 1024)
    ),
    "unicode2": Entry(
        "frozen and trained level", "arXiv 2506.20214",
        lambda: CascadedCodebooks(torch.randn(1024, 16)),
    ),
}  # fmt: skip


def build_quantizer(name: str, seed: int = 0) -> FrameQuantizer:
    """Build an example of a quantiser.

    Args:
        name: A key of `QUANTIZERS`.
        seed: Same seed, same tables; the global generator is left alone.

    Raises:
        UsageError: unknown name.

    Example:
        >>> build_quantizer("fsq").bits_per_frame
        9.965784284662087
    """
    entry = QUANTIZERS.get(name)
    if entry is None:
        raise UsageError(
            f"Unknown quantiser '{name}'{nearest(name, list(QUANTIZERS))}.",
            f"Choose one of {', '.join(QUANTIZERS)}.",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return entry.build()
