"""What `prunus deploy` takes, and its verbs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.apps.cli.verbs import Verb
from prunus.apps.common import options as shared
from prunus.runtime.options import argument, group, option


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """What `prunus deploy triton` does.

    A model becomes folders of the repository: NAME answers pictures, sounds or arrays as prunus
    does, through Triton's Python back end; NAME-graph is the network alone, by its tensors.

    \b
    Examples:
      prunus deploy triton pose segmentation codec -o repository
      prunus deploy triton evitpose-tiny-L2-B8.onnx -o repository --instances 2 --threads 1
    """

    model: tuple[str, ...] = argument("ONNX files, engines, listed names, or names of tasks.")
    output: Path = option(
        "Folder of the repository; made where it is missing.",
        default=Path("repository"), flags=("--output", "-o"), metavar="FOLDER",
    )  # fmt: skip
    overwrite: bool = option("Replace folders that hold other models.", default=False)
    batch: int | None = option(
        "Requests that are joined in one run; default: as many as the graph was exported for.",
        default=None, minimum=1,
    )  # fmt: skip
    wait: float = shared.wait()
    instances: int = option("Copies of each model that run side by side.", default=1, minimum=1)
    streams: int = option(
        "Codecs: streams at a time in each instance; more of them wait.",
        default=64, minimum=1, maximum=65536,
    )  # fmt: skip
    idle: float = option(
        "Codecs: seconds after which a stream that sends nothing is forgotten.",
        default=60.0, minimum=0.1, maximum=86400, metavar="SECONDS",
    )  # fmt: skip
    environment: str = option(
        "Where the server finds Python with prunus: a virtual environment, or what conda-pack "
        "made; default: its own Python.", default="", metavar="PATH",
    )  # fmt: skip
    shape: tuple[str, ...] = shared.shape()
    compute: shared.BackendChoice = group(shared.BackendChoice)


VERBS = (
    Verb(
        "triton",
        "Write a model repository for NVIDIA Triton Inference Server.",
        "prunus.apps.deploy.options:TritonOptions",
        "prunus.apps.deploy.repository:deploy_triton",
    ),
)
