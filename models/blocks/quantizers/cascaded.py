"""Two levels: a frozen codebook gives the code, a trained one its vector (UniCode2, 2506.20214).

Level one is a large table of k-means centres of features that another network gave. It is never
trained, so codes keep their meaning and none of them dies. Level two has one row per code, starts
as level one, and learns what the task needs:

    i = argmin_i |x - A_i|^2  (frozen),     vector = R_i  (trained),  R = A at the start

The paper's outline is followed; how its trainable level is fed is our reading.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from prunus.models.blocks.quantizers.interface import FrameQuantizer
from prunus.models.codec.layers.kmeans import fit_kmeans
from prunus.models.codec.layers.vector_quantizer import nearest_code


class CascadedCodebooks(FrameQuantizer):
    """Frozen anchors, trained vectors.

    Args:
        anchors: (codes, D) float32 frozen code vectors.
    """

    anchors: Tensor

    def __init__(self, anchors: Tensor) -> None:
        super().__init__(anchors.shape[1], (anchors.shape[0],))
        self.register_buffer("anchors", anchors.detach().clone())
        self.refined = nn.Parameter(anchors.detach().clone())

    @classmethod
    def from_frames(cls, frames: Tensor, codes: int, *, seed: int = 0) -> CascadedCodebooks:
        """Cluster frames (N, D) into anchors; same frames and seed, same anchors."""
        return cls(fit_kmeans(frames, codes, seed=seed).centres)

    def search(self, latent: Tensor) -> Tensor:
        """Return the nearest anchors, (..., 1)."""
        return nearest_code(latent, self.anchors).unsqueeze(-1)

    def index(self, vectors: Tensor) -> Tensor:
        """Return the codes of trained vectors (..., D)."""
        self.check_frames(vectors)
        return nearest_code(vectors, self.refined).unsqueeze(-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the trained vectors (..., D)."""
        self.check_codes(codes)
        return functional.embedding(codes.squeeze(-1), self.refined)

    def losses(self, latent: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Return ``commitment`` (to the anchors) and ``codebook`` (trains the second level)."""
        anchors = functional.embedding(self.search(latent.detach()).squeeze(-1), self.anchors)
        return {
            "commitment": functional.mse_loss(latent, anchors),
            "codebook": functional.mse_loss(vectors, latent.detach()),
        }
