"""What the verbs of a fleet take, and their rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.apps.cli.verbs import Verb
from prunus.apps.common import options as shared
from prunus.runtime.options import argument, group, option


def _plain_http() -> Any:
    """Return the field of ``--plain-http``."""
    return option("Without TLS; always so for this machine itself.", default=False)


def _trusted(help: str) -> Any:
    """Return the field of ``--key`` where signatures are checked."""
    return option(f"{help}, or a folder of them; repeatable.", default=(), metavar="FILE")


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """What `prunus bundle` does.

    The bundle is a folder (an OCI image layout) with the graphs, their TensorRT plans, the plugin,
    the cards, inputs, and what the float32 network answers to them, signed.

    \b
    Examples:
      prunus bundle selfie --key fleet.key -o selfie.bundle
      prunus bundle evitpose-tiny-L2.onnx --plan evitpose-tiny-L2.engine --key fleet.key
    """

    model: tuple[str, ...] = argument("ONNX files, or listed names.")
    key: Path = option("Private key that signs; make one with: prunus fleet key NAME.")
    output: Path | None = shared.output("Its folder; default: the first model's name with .bundle.")
    plan: tuple[Path, ...] = option(
        "TensorRT engine with its sidecar beside it, built from one of the models; repeatable.",
        default=(), metavar="FILE",
    )  # fmt: skip
    plugin: Path | None = option("Plugin library that the plans were built with.", default=None)
    reference: tuple[Path, ...] = option(
        "The float32 file of a model in another number format; repeatable.",
        default=(), metavar="FILE",
    )  # fmt: skip
    samples: int = option("Inputs that devices run.", default=8, minimum=1, maximum=256)
    input: tuple[str, ...] = shared.inputs()
    budget: tuple[str, ...] = option("Own limit, e.g. mean_px=0.2; repeat for more.", default=())
    shape: tuple[str, ...] = shared.shape()
    threads: int | None = shared.threads()


@dataclass(frozen=True, slots=True)
class PushOptions:
    """What `prunus push` does.

    What the registry has already is not sent again, so a push that broke off goes on.

    \b
    Examples:
      prunus push selfie.bundle oras://localhost:5000/models/selfie:1.0
    """

    bundle: Path = argument("Folder of the bundle.")
    address: str = argument("oras://HOST[:PORT]/NAME:TAG.")
    plain_http: bool = _plain_http()


@dataclass(frozen=True, slots=True)
class PullOptions:
    """What `prunus pull` does.

    The folder appears when everything has arrived and was checked; a pull that broke off goes on
    where it stopped.

    \b
    Examples:
      prunus pull oras://localhost:5000/models/selfie:1.0 --key fleet.pub -o selfie.bundle
    """

    address: str = argument("oras://HOST[:PORT]/NAME:TAG, or NAME@sha256:DIGEST.")
    output: Path | None = shared.output("Its folder; default: the last part of NAME with .bundle.")
    key: tuple[Path, ...] = _trusted("Public key that must have signed it")
    plain_http: bool = _plain_http()


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What `prunus verify` does.

    On the device: runs what the bundle holds on the back end that applications get, judges the
    answers in units of the task, names what is wrong, and measures time, memory and heat.

    \b
    Examples:
      prunus verify selfie.bundle --key fleet.pub
      prunus verify selfie.bundle --key fleet.pub --sign device.key --soak 5m -o receipt.json
    """

    bundle: Path = argument("Folder of the bundle.")
    key: tuple[Path, ...] = _trusted("Public key that must have signed it")
    model: tuple[str, ...] = option("Only this model; repeatable.", default=(), metavar="NAME")
    compute: shared.BackendChoice = group(shared.BackendChoice)
    seconds: float = option(
        "Seconds of timing for each model.", default=3.0, minimum=0.05, maximum=3600
    )
    soak: str = option("Run on for so long, as 5m or 90s, to see it throttle.", default="0s")
    drift: float = option(
        "Share by which the median time may rise in the soak.", default=0.15, minimum=0.01
    )
    sign: Path | None = option("Private key of the device, which signs the receipt.", default=None)
    name: str = option("The device's name in the receipt; default: its host name.", default="")
    output: Path | None = shared.output("The receipt; default: NAME-DIGEST.json. Needs --sign.")


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """What `prunus fleet key` does.

    \b
    Examples:
      prunus fleet key fleet
    """

    name: str = argument("NAME of NAME.key, which signs, and NAME.pub, which checks.")


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What `prunus fleet report` does.

    Wrong signatures and failing devices come first. Of several receipts of a device and bundle the
    newest counts. Ends with 1 where a device fails.

    \b
    Examples:
      prunus fleet report receipts/
      prunus fleet report receipts/ --key devices/ -o report.html
    """

    receipts: Path = argument("Folder of receipts, or one of them.")
    key: tuple[Path, ...] = _trusted("Public key of a device; other signers are named as such")
    output: Path | None = shared.output("The report as one HTML page.")


VERBS = (
    Verb(
        "key",
        "Make a pair of keys: one signs, the other checks.",
        "prunus.apps.fleet.options:KeyOptions",
        "prunus.apps.fleet.signing:new_key",
    ),
    Verb(
        "report",
        "Show the receipts of all devices as a table, and as a page.",
        "prunus.apps.fleet.options:ReportOptions",
        "prunus.apps.fleet.report:report",
    ),
)
