"""Kernel and engines on a real GPU: are they right, how fast are they?  Run by `make gpu`.

`kernel` measures the local-global attention kernel, `engines` the engines. Writes a JSON
file with the raw samples and prints tables.

Without a GPU or without a package it says what is missing and exits with 0, since nothing is wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import engines
from prunus.runtime.errors import PrunusError
from prunus.runtime.measure.latency import environment
from prunus.runtime.plugins.library import VARIABLE, PluginLibrary
from prunus.runtime.session.tensorrt import cuda

FLAVOURS = ("tensorrt", "tensorrt_rtx")


def missing() -> list[str]:
    """Return what this machine lacks for the engines, one short phrase each."""
    lacks = []
    if why := cuda.why_unusable():
        lacks.append(f"a GPU ({why})")
    if not any(importlib.util.find_spec(name) for name in FLAVOURS):
        lacks.append("TensorRT (pip install 'prunus[trt]' or 'prunus[trt-rtx]')")
    export = dict.fromkeys(("onnx", "onnxscript", "onnxsim"), "export")
    return lacks + _absent({"onnxruntime": "ort", "torch": "models", **export, "cv2": "apps"})


def kernel_missing() -> list[str]:
    """Return what the part about the kernel lacks besides a GPU: triton, and PyTorch with CUDA."""
    lacks = _absent({"triton": "plugin", "torch": "models"})
    if importlib.util.find_spec("torch") is not None:
        import torch

        if not torch.cuda.is_available():
            lacks.append("PyTorch with CUDA (this one was built without, or sees no GPU)")
    return lacks


def _absent(needs: dict[str, str]) -> list[str]:
    return [
        f"{name} (pip install 'prunus[{extra}]')"
        for name, extra in needs.items()
        if importlib.util.find_spec(name) is None
    ]


def plugin_library(folder: Path) -> tuple[PluginLibrary | None, str]:
    """Build the plugin library for this GPU; returns it, or None and why there is none."""
    from prunus.runtime.plugins.local_global_attention import LIBRARY
    from prunus.runtime.plugins.local_global_attention.build import build_library
    from prunus.runtime.plugins.local_global_attention.tiles import ARCHITECTURES, runs_on

    capability = cuda.device_properties().compute_capability
    device = int(capability.replace(".", ""))
    fitting = [a for a in ARCHITECTURES if runs_on(a, device)]
    if not fitting:
        return None, f"no kernels are compiled for compute capability {capability}"
    try:
        library = build_library(folder / LIBRARY, fitting[-1:])
    except PrunusError as error:
        return None, str(error)
    os.environ[VARIABLE] = str(library.path)  # for the processes that open the engines, too
    return library, ""


def run_engines(
    models: Sequence[Path], samples: int, folder: Path, library: PluginLibrary | None
) -> list[engines.Result]:
    """Run every model with every installed flavour, with the plugin library and without."""
    results = []
    for model in models:
        for flavour in (f for f in FLAVOURS if importlib.util.find_spec(f)):
            for plugin in engines.plugin_choices(model, library):
                try:
                    result = engines.run_case(
                        model, flavour, samples, folder, plugin=plugin, library=library
                    )
                except Exception as error:  # the other cases still run, and the report is written
                    words = str(error) if isinstance(error, PrunusError) else repr(error)
                    result = engines.Result(model.stem, flavour, plugin, problems=[words])
                results.append(result)
                sys.stderr.write(f"{result.model} {flavour} {plugin}: {result.problems or 'ok'}\n")
    return results


def table(results: Sequence[engines.Result]) -> str:
    """Return the results as a Markdown table; times are medians and 90th percentiles."""
    lines = [
        "| model | flavour | plugin | mean px | half: network, inspected | session | p50 ms "
        "| p90 ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        pixels = f"{r.effect['mean_px']:.4f}" if "mean_px" in r.effect else ""
        shares = f"{100 * r.half_layer_share:.0f} %, {100 * r.inspected_share:.0f} %"
        start = f"| {r.model} | {r.flavour} | {r.plugin}"
        for t in r.timings:
            times = f"{t.percentile(50):.3f} | {t.percentile(90):.3f}"
            lines.append(f"{start} | {pixels} | {shares} | {t.name} | {times} |")
        lines += [f"{start} | FAILED: {p} | | | | |" for p in r.problems]
    return "\n".join(lines)


def surroundings() -> dict[str, Any]:
    """Return the machine, its GPU and driver, and the versions of TensorRT."""
    versions = {
        name: str(importlib.import_module(name).__version__)
        for name in FLAVOURS
        if importlib.util.find_spec(name)
    }
    return {
        **environment(),
        "gpu": dataclasses.asdict(cuda.device_properties()),
        "tensorrt": versions,
    }


def _engines(options: argparse.Namespace) -> tuple[list[engines.Result], list[str]]:
    """Export, build and run the models; returns their results and what there is to note."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library, why = plugin_library(folder)
        try:
            models = options.models or engines.export_cases(
                options.levels, options.precisions, folder
            )
        except PrunusError as error:
            return [engines.Result("export", "", problems=[str(error)])], []
        notes = [f"engines without the plugin library: {why}"] if why else []
        return run_engines(models, options.samples, folder, library), notes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; 0: fine or nothing to run on, 1: a case failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="artifacts; default: the pose models")
    parser.add_argument("--levels", nargs="+", default=["L0", "L1", "L2", "L3"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "int8"])
    parser.add_argument("--samples", type=int, default=300, help="runs per session")
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu_suite.json"))
    options = parser.parse_args(arguments)
    lacks, kernel_lacks = missing(), [] if (no_gpu := cuda.why_unusable()) else kernel_missing()
    if no_gpu or (lacks and kernel_lacks):
        words = "; ".join(dict.fromkeys(lacks + kernel_lacks))
        sys.stdout.write(f"GPU suite skipped; this machine lacks: {words}.\n")
        return 0
    report: dict[str, Any] = {"environment": surroundings(), "kernel": [], "notes": []}
    failed = False
    if kernel_lacks:
        report["notes"].append(f"kernel skipped; this machine lacks: {'; '.join(kernel_lacks)}")
    else:
        from benchmarks.gpu import kernel

        kernels = kernel.run_kernel(options.samples)
        report["kernel"] = [dataclasses.asdict(r) for r in kernels]
        failed |= any(r.problems for r in kernels)
        sys.stdout.write(kernel.kernel_table(kernels) + "\n\n")
    if lacks:
        report["notes"].append(f"engines skipped; this machine lacks: {'; '.join(lacks)}")
        results: list[engines.Result] = []
    else:
        results, notes = _engines(options)
        report["notes"] += notes
    report["results"] = [dataclasses.asdict(r) for r in results]
    failed |= any(r.problems for r in results)
    options.output.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    notes = "".join(f"note: {note}\n" for note in report["notes"])
    sys.stdout.write(table(results) + f"\n\n{notes}raw samples: {options.output}\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
