"""Options that every `prunus batch` has."""

from __future__ import annotations

from dataclasses import dataclass

from prunus.apps.common.options import BackendChoice
from prunus.runtime.options import argument, option

AUTO, NONE = "auto", "none"


@dataclass(frozen=True, slots=True)
class Compute(BackendChoice):
    """Which back end computes, in each of several processes."""

    threads: int | None = option(
        "CPU threads of each process; default: 1.", default=None, minimum=1, metavar="N"
    )


@dataclass(frozen=True, slots=True)
class Work:
    """What goes in, where results go, and who computes."""

    out: str = option(
        "Folder of the results, or an address such as s3://bucket/folder.",
        flags=("--out", "--output", "-o"), metavar="FOLDER",
    )  # fmt: skip
    sources: tuple[str, ...] = argument(
        "Files, folders with all below them, patterns in quotes, @LIST of one a line, addresses "
        "such as s3://bucket/videos.", default=(),
    )  # fmt: skip
    media: bool = option(
        "Keep what there is to see or hear as well: drawn videos, voices, .pcodec files.",
        default=False,
    )
    ray: str = option(
        "none: this process alone; HOST:PORT: join a cluster; auto: Ray on this machine where it "
        "is installed.", default=AUTO, metavar="ADDRESS",
    )  # fmt: skip
    actors: int | None = option(
        "Ray: processes with a model each; default: one for each of its CPUs or GPUs.",
        default=None, minimum=1,
    )  # fmt: skip
    gpus_per_actor: float = option(
        "Ray: GPUs that each takes, which may be a share of one.", default=0.0, minimum=0
    )
    retry: bool = option("Try again what was set aside before.", default=False)
