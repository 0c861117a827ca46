"""Measure whether what an artifact keeps in float32 may be computed in bfloat16 by OpenVINO.

bfloat16 keeps eight bits of a product's operands: two to three times faster on CPUs that have it,
and coarser than half precision. So it is allowed per file, by measurement: a float32 file has the
budget of half precision then, an int8 file its own. The card then says so, and the back end `auto`
believes the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from prunus.export.common.sessions import run_samples
from prunus.runtime import host
from prunus.runtime.errors import HostError, MissingDependencyError, UsageError
from prunus.runtime.session.base import BackendOptions
from prunus.runtime.session.base import open as open_session

if TYPE_CHECKING:
    from prunus.export.common.samples import Samples
    from prunus.runtime.card.card import ModelCard

Array = npt.NDArray[Any]


def require_bfloat16(card: ModelCard) -> None:
    """Refuse, before minutes of work, what could not be measured here.

    Raises:
        UsageError: the weights are untrained, so that no joint can be judged.
        MissingDependencyError: OpenVINO is not installed.
        HostError: this CPU has no bfloat16 arithmetic.
    """
    if not card.weights.trained:
        raise UsageError(
            "bfloat16 is judged in pixels, and these weights are untrained.",
            "Leave out --bf16, or give trained weights with --checkpoint.",
        )
    if not host.installed("openvino"):
        raise MissingDependencyError("openvino", "openvino", "Measuring bfloat16")
    if not host.bfloat16_flag():
        raise HostError(
            f"The CPU ({host.cpu_model()}) has no bfloat16 arithmetic (AVX512_BF16 or AMX).",
            "Leave out --bf16, or export on a CPU that has it.",
        )


def run_bfloat16(
    data: bytes, card: ModelCard, samples: Samples, threads: int
) -> Mapping[str, Array]:
    """Return what OpenVINO computes in bfloat16, samples stacked along axis 0.

    Args:
        data: The artifact, card included.
        card: That card.
        samples: Inputs.
        threads: CPU threads.
    """
    switches = BackendOptions(inference_precision="bf16")
    opened = open_session(data, "openvino", threads=threads, options=switches, card=card)
    with opened as session:
        return run_samples(session, samples)
