"""Methods of token reduction on trained networks, beside the plain ways to the same latency.

    python -m benchmarks.reduction.methods --packages DIR --people DIR --speech DIR   # all: an hour
    python -m benchmarks.reduction.methods ... --only time      # latency and tables, quiet machine
    python -m benchmarks.reduction.methods --only table         # docs/token-reduction.md alone

`--packages` is a folder into which pip installs the networks on first use. `--people` is the
folder of labelled people of docs/training-pose.md (`.cache/training`), `--speech` holds the Debian
packages asterisk-core-sounds-en and asterisk-core-sounds-en-wav, unpacked with dpkg -x. Files and
what was judged are kept in .cache/bench/token_reduction: a run goes on where it was stopped; remove
the folder when a method has changed. `--only time` judges and exports what is not there yet. On a
machine that others use, `--cpu` measures CPU time with one thread.

Accuracy is judged in ONNX Runtime. A cut's *lead* is over the most accurate plain rival that is no
slower on that back end: fewer blocks, a smaller input, a narrower crop or constant indices.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from benchmarks.reduction import networks
from benchmarks.reduction.cases import Case, Entry, Scores, deit, outputs_of
from benchmarks.reduction.pose import dinov2, evitpose
from benchmarks.reduction.speech import whisper
from benchmarks.reduction.tables import Row, fill, leads, tables, verdict
from benchmarks.reduction.tuned_tables import tuned_table, tuned_verdict
from benchmarks.reduction.turn import smart_turn
from prunus.export.common.pipeline import ExportOptions, export_artifact
from prunus.export.common.samples import Samples
from prunus.export.common.sessions import run_samples
from prunus.export.foreign.options import ModuleOptions
from prunus.export.foreign.samples import load_samples
from prunus.export.module import deploy, describe, noise_examples, read_inputs
from prunus.models.macs import count_macs
from prunus.runtime.card.artifact import write_whole
from prunus.runtime.errors import CheckFailedError, UsageError
from prunus.runtime.measure.compare import compare
from prunus.runtime.measure.latency import environment
from prunus.runtime.measure.runner import RunnerSpec, benchmarked
from prunus.runtime.progress import ConsoleProgress
from prunus.runtime.session.base import open as open_session
from prunus.runtime.tasks.generic.metric import cosines

from ..record import (
    MODELS,
    RESULTS,
    ROOT,
    Settings,
    backends,
    exported,
    finish,
    new_parser,
    settings,
    write_record,
)

PAGE = ROOT / "docs" / "token-reduction.md"
RECORDS = RESULTS / "token_reduction.json", RESULTS / "token_reduction_tuned.json"
FILES = MODELS / "token_reduction"
STEPS = ("judge", "time", "table")
_TOGETHER = 8  # processes in one run, dense in each
_WARM = 4  # windows of the warm-up at most: rows that did not settle say so in the record
_FEEDS = 4  # samples that a network on the clock cycles through


def cases(options: argparse.Namespace) -> dict[str, Callable[[], Case]]:
    """Return the networks by name; each is built when it is called."""
    packages, people, speech = options.packages, options.people, options.speech
    few = 4 if options.quick else 1
    return {
        "dinov2": partial(dinov2, packages, people, 100 // few, 100 // few),
        "whisper": partial(whisper, packages, speech, 20 // few),
        "smart_turn": partial(smart_turn, packages, speech),
        "evitpose": partial(evitpose, people, 160 // few),
        "deit": deit,
    }


def file_of(name: str, entry: Entry) -> Path:
    """Return where the file of an entry lies."""
    words = re.sub(r"[^A-Za-z0-9.]+", "-", entry.candidate.name).strip("-")
    return FILES / name / f"{words}.onnx"


def write_file(case: Case, network: nn.Module, samples: Samples | None, path: Path) -> None:
    """Export a network; raises CheckFailedError where the file computes something else."""
    inputs = read_inputs([case.input])
    told = ModuleOptions("benchmarks/reduction/cases.py", input=(case.input,))
    deployed = deploy(network, told, noise_examples(inputs))
    card = describe(deployed, told, "benchmark", inputs)
    checked = (samples or load_samples(card, None)).first(2)

    def write(_: ConsoleProgress) -> None:
        export_artifact(deployed, card, checked, path, options=ExportOptions(threads=1))

    exported(path, write)


def facts(case: Case, entry: Entry, network: nn.Module, path: Path) -> Row:
    """Return what is known of an entry before it runs: multiply-accumulates and nodes."""
    chosen = entry.candidate
    nodes = len(onnx.load(str(path), load_external_data=False).graph.node)
    macs = count_macs(network, *noise_examples(read_inputs([case.input])))
    return {
        "name": chosen.name, "kind": chosen.kind, "method": chosen.method,
        "blocks": list(chosen.blocks), "keep": list(chosen.keep), "restore": entry.restore,
        "macs": macs, "nodes": nodes,
    }  # fmt: skip


def judge(
    name: str, case: Case, known: Mapping[str, Row] | None = None
) -> tuple[list[Row], list[str]]:
    """Export and judge the entries of a case that were not judged yet; return rows and notes.

    Args:
        name: Of the case.
        case: Its entries.
        known: Rows of a record, by name: they stay as they were judged there.

    Raises:
        CheckFailedError: the dense network's file does not compute what PyTorch does.
    """
    samples = case.samples() if case.samples is not None else None
    told = samples.sha256 if samples is not None else ""
    rows: list[Row] = []
    notes: list[str] = []
    dense = None
    for entry in case.entries:
        path = file_of(name, entry)
        kept = path.with_suffix(".json")
        old = (known or {}).get(entry.candidate.name)
        if old is not None and old["samples"] == told:
            if not path.is_file():
                write_file(case, entry.make(), samples, path)
            rows.append(old)
            continue
        if kept.is_file() and path.is_file():
            row = json.loads(kept.read_text())
            if row["samples"] == told:
                rows.append(row)
                continue
        print(f"{name}: {entry.candidate.name}", flush=True)
        try:
            network = entry.make()
            write_file(case, network, samples, path)
        except CheckFailedError as error:
            if entry.candidate.kind == "dense":
                raise
            notes.append(f"{entry.candidate.name} left out: {error.message}")
            continue
        row = {"samples": told, **facts(case, entry, network, path)}
        if samples is not None and case.score is not None:
            if dense is None:
                dense = outputs_on(file_of(name, case.entries[0]), samples)
            found = dense if entry.candidate.kind == "dense" else outputs_on(path, samples)
            row |= scored(case.score(found), found, dense)
            print(f"  {row['accuracy']:.4f}", flush=True)
        write_whole(kept, json.dumps(row) + "\n")
        rows.append(row)
    return rows, notes


def outputs_on(path: Path, samples: Samples) -> np.ndarray:
    """Return what a file gives for all samples in ONNX Runtime, one thread."""
    with open_session(path, "onnxruntime", threads=1) as session:
        return outputs_of(run_samples(session, samples))


def scored(scores: Scores, found: np.ndarray, dense: np.ndarray) -> Row:
    """Return accuracy, likeness to dense where the shapes are the same, and the samples' scores."""
    same = found.shape == dense.shape
    return {
        "accuracy": round(scores.accuracy, 5),
        "fidelity": round(float(cosines(dense, found).mean()), 4) if same else None,
        "right": " ".join(f"{value:.4g}" for value in scores.right),
        "whole": " ".join(f"{value:g}" for value in scores.whole),
    }


def clock(
    name: str, case: Case, rows: Sequence[Row], how: Settings, places: Sequence[str]
) -> dict[str, dict[str, Row]]:
    """Time the files of a case in turns, each in its own process: back end -> name -> figures.

    In groups that hold the dense file each: shares are of the dense one of the same turn.
    """
    paths = {entry.candidate.name: file_of(name, entry) for entry in case.entries}
    inputs = _feeds(case)
    dense, *others = [row["name"] for row in rows]
    found: dict[str, dict[str, Row]] = {}
    for backend in places:
        word, switches = benchmarked(backend)
        timed: dict[str, Row] = {}
        for start in range(0, max(1, len(others)), _TOGETHER - 1):
            group = [dense, *others[start : start + _TOGETHER - 1]]
            runners = [
                RunnerSpec(n, path=str(paths[n]), backend=word, options=switches,
                           threads=how.threads) for n in group
            ]  # fmt: skip
            with ConsoleProgress(f"{name} on {backend}") as progress:
                result = compare(
                    runners, inputs, rounds=how.rounds, seconds=how.seconds, clock=how.clock,
                    warm_windows=_WARM, progress=progress,
                )  # fmt: skip
            first = result.results[0].latency
            for run in result.results:
                low, high = run.ratio_range
                timed.setdefault(run.spec.name, {
                    "p50_ms": round(run.latency.p50_ms, 3), "p90_ms": round(run.latency.p90_ms, 3),
                    "share_p50": round(1 / run.ratio, 4),
                    "share_p90": round(run.latency.p90_ms / first.p90_ms, 4),
                    "share_range": [round(1 / high, 4), round(1 / low, 4)],
                    "steady": run.warm_up.settled,
                })  # fmt: skip
        found[backend] = timed
        print(f"{name} on {backend}: {len(timed)} files timed", flush=True)
    return found


def _feeds(case: Case) -> dict[str, np.ndarray] | None:
    """Return a few samples of one call each, stacked; None: noise."""
    if case.samples is None:
        return None
    return {n: a[:_FEEDS, None] for n, a in case.samples().first(_FEEDS).arrays.items()}


def run(options: argparse.Namespace, how: Settings) -> None:
    """Do the steps that were asked for; the record is written anew after every network."""
    steps = options.only or list(STEPS)
    output: Path = options.output
    record = json.loads(output.read_text()) if output.is_file() else {"networks": {}}
    if steps == ["table"] and not record["networks"]:
        raise UsageError(f"There is no record {output}.", "Run without --only table first.")
    chosen = [] if steps == ["table"] else options.network or list(cases(options))
    if {"dinov2", "whisper", "smart_turn"} & set(chosen):
        networks.install(options.packages)
    torch.set_num_threads(1)
    for name in chosen:
        case = cases(options)[name]()
        kept = record["networks"].get(name, {})
        old = {row["name"]: row for row in kept.get("rows", [])}
        timing = {key: kept[key] for key in ("environment", "clock", "threads") if key in kept}
        timed = {n: row["latency"] for n, row in old.items() if "latency" in row}
        rows, notes = judge(name, case, {} if "judge" in steps else old)
        if "time" in steps:
            found = clock(name, case, rows, how, options.backend or backends())
            same = (kept.get("clock"), kept.get("threads")) == (how.clock, how.threads)
            keep = timed if options.backend and same else {}  # other back ends stay
            timed = {
                row["name"]: {
                    **keep.get(row["name"], {}),
                    **{b: found[b][row["name"]] for b in found},
                }
                for row in rows
            }
            timing = {"environment": environment(how.threads), "clock": how.clock,
                      "threads": how.threads}  # fmt: skip
        for row in rows:
            if row["name"] in timed:
                row["latency"] = timed[row["name"]]
        if all("latency" in row for row in rows):
            leads(rows)
        record["networks"][name] = {
            "title": case.title, "about": case.about, "metric": case.metric, "notes": notes,
            "rows": rows, **timing,
        }  # fmt: skip
        write_record(output, record)
    if {"time", "table"} & set(steps) and options.output == RESULTS / output.name:
        write_whole(PAGE, page())


def page() -> str:
    """Return the page with its measured parts as the records of both benchmarks have them."""
    record, tuned = (json.loads(path.read_text()) for path in RECORDS)  # in the records' order
    parts = {
        "verdict": f"{verdict(record)} {tuned_verdict(tuned)}",
        "tables": tables(record),
        "tuned": tuned_table(tuned),
    }
    return fill(PAGE.read_text(), parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = new_parser(
        __doc__, "token_reduction.json", STEPS, threads=0, quick="few samples, short turns",
        cpu="CPU time, for a machine that others use; one thread",
    )  # fmt: skip
    names = ("dinov2", "whisper", "smart_turn", "evitpose", "deit")
    add = parser.add_argument
    add("--network", choices=names, action="append", help="default: all")
    add("--backend", choices=backends(), action="append", help="default: all of this machine")
    add("--packages", type=Path, default=MODELS / "packages", metavar="DIR")
    add("--people", type=Path, default=ROOT / ".cache" / "training", metavar="DIR")
    add("--speech", type=Path, default=ROOT / ".cache" / "speech", metavar="DIR")
    options = parser.parse_args(arguments)
    how = settings(options, rounds=(2, 4), seconds=(0.5, 1.5))
    return finish(lambda: run(options, how), options.output)


if __name__ == "__main__":
    sys.exit(main())
