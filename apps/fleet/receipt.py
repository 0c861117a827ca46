"""A receipt: what one device said about one bundle, signed by the device."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.apps.fleet.signing import Signature, sign
from prunus.runtime.card.artifact import plain_name, write_error, write_whole
from prunus.runtime.card.reading import build, parse_json
from prunus.runtime.errors import ArtifactError
from prunus.runtime.json_text import canonical, finite, json_text
from prunus.runtime.limits import RECEIPT_BYTES

_PURPOSE, _SCHEMA = "receipt", 1
OK = "ok"
VERDICTS: Mapping[str, str] = {
    "card-mismatch": "the card does not describe the graph",
    "stale-golden": "the golden outputs are of another graph",
    "wrong-plan": "the TensorRT plan is of another graph, or not its sidecar's",
    "stale-plugin": "the plugin library is not the one that the plan was built with",
    "not-opened": "the back end refuses the file",
    "cpu-fallback": "another device computes than the one that was asked for",
    "not-finite": "NaN or infinity",
    "dead-channel": "a channel does not move",
    "swapped-channels": "channels of an output, or colours of the input, are in another order",
    "scaled-output": "an output, or a part of it, is the right one times a factor",
    "number-format": "a coarser number format computes than the one that was asked for",
    "wrong-values": "an output leaves its budget in no known pattern",
    "reference-differs": "the CPU of the device leaves the budget as well",
    "throttled": "the median time rises while the device is busy",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault.

    Attributes:
        verdict: Its name, a key of `VERDICTS`.
        model: Which model.
        detail: What was seen, without a full stop.
    """

    verdict: str
    model: str
    detail: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a device found.

    Attributes:
        device: Its name.
        time: When, UTC.
        made_by: Program and version.
        bundle: Name, digest, signer, and whether that was a trusted one.
        findings: Faults; none: it passes.
        models: What each was measured at.
        machine: What `prunus doctor` says.
        schema: Version of this layout.
    """

    device: str
    time: str
    made_by: str
    bundle: Mapping[str, Any]
    findings: tuple[Finding, ...]
    models: tuple[Mapping[str, Any], ...]
    machine: Mapping[str, Any]
    schema: int = _SCHEMA

    @property
    def verdict(self) -> str:
        """Name of the first fault, ``ok`` for none."""
        return self.findings[0].verdict if self.findings else OK

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping for JSON; NaN and infinity become null."""
        raw: dict[str, Any] = finite(dataclasses.asdict(self))
        return {**raw, "verdict": self.verdict}


def prepare(key: Path, path: Path) -> None:
    """Refuse before the work what `write` would refuse after it; raises as `write`."""
    sign(b"", _PURPOSE, key)
    try:
        tempfile.TemporaryFile(dir=path.absolute().parent).close()
    except OSError as error:
        raise write_error(error, path) from None


def write(made: Receipt, key: Path, path: Path) -> None:
    """Sign a receipt and write it; raises ArtifactError for a wrong key, SourceError, HostError."""
    data = canonical(made.to_dict())
    signature = dataclasses.asdict(sign(data, _PURPOSE, key))
    whole = {"receipt": json.loads(data), "signature": signature}
    write_whole(path, json_text(whole, indent=1) + "\n")


def read(path: Path) -> tuple[dict[str, Any], Signature]:
    """Return a receipt as JSON and its signature, which holds.

    Raises:
        ArtifactError: no receipt, one of another version, or one that was changed.
    """
    try:
        RECEIPT_BYTES.check(path.stat().st_size, str(path), ArtifactError)
        whole = parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise ArtifactError(f"Cannot read {path}: {error.strerror}.", "Check its rights.") from None
    again = "Let the device write it again: prunus verify ... --sign FILE.key"
    try:
        made, signature = whole["receipt"], build(Signature, whole["signature"], "signature")
        holds = signature.holds(canonical(made), _PURPOSE)
        if made["schema"] != _SCHEMA:
            raise ArtifactError(f"{path} has the schema {made['schema']}; expected {_SCHEMA}.")
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(f"{path} is no receipt.", again) from None
    if not holds:
        raise ArtifactError(f"The signature of {path} is wrong: it was changed.", again)
    return made, signature


def file_name(device: str, digest: str) -> str:
    """Return a name for the file: device and bundle."""
    return plain_name(f"{device}-{digest[:12]}") + ".json"


def text_of(made: Receipt) -> str:
    """Return a receipt for people."""
    by = "" if made.bundle["trusted"] else ", signer not checked (no --key)"
    lines = [f"{made.device}: bundle {made.bundle['name']} sha256 {made.bundle['digest'][:12]}{by}"]
    for model in made.models:
        lines += ["", f"{model['name']}  {model['file']}  {model.get('backend', 'not run')}"]
        for limit in model.get("limits", ()):
            bound = limit["limit"]
            sign = "<=" if bound["kind"] == "at most" else ">="
            mark = "ok" if limit["passed"] else "FAILED"
            lines.append(
                f"  {bound['quantity']:<26}{limit['measured']:>12.5g}  {sign} {bound['value']:g}  "
                f"{mark}"
            )
        if latency := model.get("latency"):
            warm = "" if latency["settled"] else ", not settled"
            lines.append(
                f"  p50 {latency['p50_ms']:.2f} ms, p99 {latency['p99_ms']:.2f} ms of "
                f"{latency['n']} calls{warm}; peak memory {model['peak_memory_mib']} MiB"
            )
        if run := model.get("soak"):
            heat = f", hottest {run['hottest_c']:.0f} C" if run["hottest_c"] is not None else ""
            lines.append(f"  soak {run['seconds']:g} s: p50 {run['drift']:+.1%}{heat}")
        lines += [f"  {line}" for line in model.get("bisect", ())]
    lines += ["", *(f"fault: {f.verdict} ({f.model}): {f.detail}" for f in made.findings)]
    return "\n".join([*lines, f"verdict: {made.verdict}"])
