"""`prunus verify`: does this device answer as the bundle says, and how fast, and for how long?

Every fault has a name (`VERDICTS`); the receipt lists all that were found, with the place. Nothing
here needs torch or onnx.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prunus
from prunus.apps.cli.doctor import examine
from prunus.apps.fleet import receipt, soak
from prunus.apps.fleet.bundle import Bundle, BundledModel, open_bundle
from prunus.apps.fleet.judge import Subject, judge_outputs
from prunus.apps.fleet.make import run_feeds
from prunus.apps.fleet.options import VerifyOptions
from prunus.apps.fleet.plans import choose_file, examine_parts
from prunus.apps.fleet.receipt import Finding
from prunus.apps.fleet.signing import trusted_keys
from prunus.runtime.card.artifact import read_card
from prunus.runtime.command import Console
from prunus.runtime.errors import (
    ArtifactError,
    CheckFailedError,
    FallbackError,
    TensorError,
    UsageError,
)
from prunus.runtime.json_text import json_text
from prunus.runtime.measure.latency import forget_peak_memory
from prunus.runtime.plugins.library import VARIABLE
from prunus.runtime.progress import Progress
from prunus.runtime.session.base import open as open_session


def verify(options: VerifyOptions, console: Console) -> None:
    """Check a bundle on this device and write a receipt.

    Raises:
        CheckFailedError: this device fails; names the first fault.
        ArtifactError: the bundle is not what was signed, or has no plan for this device.
        HostError: this device lacks the back end that was asked for.
        UsageError: no such model, a receipt without a key, or a plan of an unknown signer.
    """
    if options.output is not None and options.sign is None:
        raise UsageError("Got -o without --sign; a receipt is signed.", "Give --sign FILE.key.")
    soak.read_seconds(options.soak)  # refuses it before the work
    bundle = open_bundle(options.bundle, trusted_keys(options.key))
    models = [bundle.model(name) for name in options.model] or bundle.contents.models
    device = options.name or platform.node() or "unnamed"
    path = options.output or Path(receipt.file_name(device, bundle.digest))
    if options.sign is not None:
        receipt.prepare(options.sign, path)
    findings: list[Finding] = []
    results = []
    with bundle.unpacked() as folder, console.progress("verify") as progress:
        with _bundled_plugin(bundle, folder):
            for k, model in enumerate(models):
                progress.update(k, len(models), model.name)
                result, found = _verify_model(model, bundle, folder, options, progress)
                results.append(result)
                findings += found
    made = receipt.Receipt(
        device=device,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        made_by=f"prunus {prunus.__version__}",
        bundle={"name": bundle.contents.name, "digest": bundle.digest,
                "signer": bundle.signature.signer, "trusted": bundle.trusted},
        findings=tuple(findings), models=tuple(results), machine=examine(),
    )  # fmt: skip
    if options.sign is not None:
        receipt.write(made, options.sign, path)
        if not console.json:
            console.say(f"wrote {path}")
    console.say(receipt.text_of(made), json_text(made.to_dict(), indent=1))
    if findings:
        first = findings[0]
        raise CheckFailedError(
            f"{made.device} fails: {first.verdict} ({first.model}): {first.detail}.",
            "Each verdict is explained in docs/fleet.md.",
        )


@contextlib.contextmanager
def _bundled_plugin(bundle: Bundle, folder: Path) -> Iterator[None]:
    """Let engines find the bundle's plugin; only a signer who is trusted may bring code."""
    if not (bundle.contents.plugin and bundle.trusted):
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder / bundle.contents.plugin)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def _verify_model(
    model: BundledModel, bundle: Bundle, folder: Path, options: VerifyOptions, progress: Progress
) -> tuple[dict[str, Any], list[Finding]]:
    """Return what the receipt says about a model, and its faults."""
    from prunus.export.verify.saved import load_runs

    graph, file = folder / model.graph, choose_file(model, folder, options.compute)
    result: dict[str, Any] = {"name": model.name, "file": file.name, "reference": model.reference}
    runs = load_runs(folder / model.golden)
    if findings := examine_parts(model, bundle, folder, file, runs):
        return result, findings  # what does not belong together is not run
    if file != graph and not bundle.trusted:
        raise UsageError(
            f"{file.name} is a program, and nobody was asked whether its signer is the right one.",
            "Give the signer's public key with --key, or another --backend.",
        )
    subject = Subject(model, graph, file, read_card(graph), runs, options.compute)
    forget_peak_memory()
    try:
        session = open_session(file, **options.compute.keywords())
    except FallbackError as error:
        return result, [subject.finding("cpu-fallback", error.message)]
    except ArtifactError as error:
        return result, [subject.finding("not-opened", error.message)]
    result |= {"backend": session.description, "choice": list(session.choice)}
    with session:
        try:
            outputs = run_feeds(session, subject.feeds)
        except TensorError as error:
            return result, [subject.finding("card-mismatch", error.message)]
        times = soak.measure(session, subject.feeds, options.seconds, options.soak, progress)
    result |= times.to_dict()
    judged, findings = judge_outputs(subject, session, outputs)
    if times.soak is not None and times.soak.drift > options.drift:
        findings.append(subject.finding("throttled", times.soak.told(options.drift)))
    return result | judged, findings
