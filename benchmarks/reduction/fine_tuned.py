"""Whether a cut pays once the network is fine-tuned with it: beside plain ways tuned as long.

    python -m benchmarks.reduction.fine_tuned --people DIR --cpu    # all: 70 minutes on one core
    python -m benchmarks.reduction.fine_tuned --only table          # docs/token-reduction.md alone

`--people` is the folder of labelled people of docs/training-pose.md (`.cache/training`), held-out
sets too. EViTPose-dino6 with its shipped weights is fine-tuned once for each way to about the same
latency (`reduction/tuned.py`): at level L2, at a smaller input, at a narrower crop, with fewer
blocks, with constant indices. Dense stands beside them as it is. Each gets the same number of steps
and a folder below `--runs`, and goes on where it was stopped. People are judged in PyTorch, the
latency is that of the exported files in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.reduction import methods
from benchmarks.reduction.cases import Case, Entry, Scores
from benchmarks.reduction.pose import SURE, person_scores
from benchmarks.reduction.tables import Row
from benchmarks.reduction.tuned import (
    CONSTANT,
    DENSE,
    PRUNED,
    RIVALS,
    STEPS,
    Arm,
    fine_tune,
    network_of,
    tuned_network,
)
from benchmarks.reduction.tuned_tables import add_leads
from prunus.export.planning.points import Candidate
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.evitpose import EViTPose
from prunus.models.training.pose.evaluate import network_reader
from prunus.models.training.pose.evaluation_sets import HeldOut, held_out_sets, read_held_out
from prunus.models.training.state import WEIGHTS as SAVED
from prunus.models.training.state import Clock, read_run
from prunus.models.zoo import WEIGHTS
from prunus.runtime.card.artifact import write_whole
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.measure.latency import environment

from ..record import MODELS, RESULTS, ROOT, Settings, finish, new_parser, settings, write_record

START = WEIGHTS / "evitpose_dino6_coco17.safetensors.xz"
BACKEND = "onnxruntime"
NAME = "tuned"  # of the case, and of the folder of its files
_STEPS = ("choose", "train", "judge", "time", "table")
_TRIAL = {"street": (SURE, 200), "synthetic": (0.0, 120)}


def judged(network: EViTPose, people: HeldOut) -> Scores:
    """Return the object keypoint similarity of people that a network reads."""
    return person_scores(network_reader(network)(people)[..., :2], people)


def choose(people: Path) -> dict[str, dict[str, float]]:
    """Judge the constant selections as they start, on people of the training set."""
    sets = [read_held_out(people / n, n, "", *how) for n, how in _TRIAL.items()]
    return {
        arm.name: {s.name: round(judged(network_of(arm, START), s).accuracy, 4) for s in sets}
        for arm in CONSTANT
    }


def arms(record: Row) -> list[Arm]:
    """Return what is compared, dense first: of the constant selections, the best of the trial."""
    trial = record["trial"]
    best = max(CONSTANT, key=lambda arm: sum(trial[arm.name].values()))
    return [DENSE, PRUNED, *RIVALS, best]


def judge(arm: Arm, runs: Path, sets: Sequence[HeldOut]) -> Row:
    """Return an arm's row: what it is, and its scores before and after."""
    before, after = network_of(arm, START), tuned_network(arm, START, runs)
    scores = {}
    for people in sets:
        found = judged(after, people)
        scores[people.name] = {
            "before": round(judged(before, people).accuracy, 4),
            "oks": round(found.accuracy, 4),
            "right": " ".join(f"{value:.3g}" for value in found.right),
            "whole": " ".join(f"{value:g}" for value in found.whole),
        }
        print(f"{arm.name}, {people.name}: {found.accuracy:.4f}", flush=True)
    clock = read_run(runs / arm.folder).clock if arm.tuned else Clock()
    return {
        "name": arm.name, "kind": arm.kind, "plan": arm.plan, "size": list(arm.size),
        "depth": after.config.depth, "steps": clock.step, "looks": clock.samples, "scores": scores,
    }  # fmt: skip


def time_arms(chosen: Sequence[Arm], runs: Path, rows: list[Row], how: Settings) -> None:
    """Export the tuned networks and time them in turns; add size and latency to the rows."""
    entries = []
    for arm in chosen:
        network = DeployedPose(tuned_network(arm, START, runs))
        entries.append(Entry(Candidate(arm.name, arm.kind, 0, arm.plan), lambda n=network: n))
    case = Case(NAME, "", "", entries)
    for arm, entry, row in zip(chosen, entries, rows, strict=True):
        path = methods.file_of(NAME, entry)
        weights = runs / arm.folder / SAVED if arm.tuned else START
        if path.is_file() and path.stat().st_mtime < weights.stat().st_mtime:
            path.unlink()  # of an earlier training
        own = replace(case, input=f"image:1x{arm.size[0]}x{arm.size[1]}x3:uint8")
        network = entry.make()
        methods.write_file(own, network, None, path)
        known = methods.facts(own, entry, network, path)
        row |= {key: known[key] for key in ("macs", "nodes")}
    timed = methods.clock(NAME, case, rows, how, [BACKEND])[BACKEND]
    for row in rows:
        row["latency"] = {BACKEND: timed[row["name"]]}


def run(options: argparse.Namespace, how: Settings) -> None:
    """Do the steps that were asked for; the record is written anew after each."""
    steps, output = options.only or list(_STEPS), options.output
    record = json.loads(output.read_text()) if output.is_file() else {}
    if "choose" not in steps and "trial" not in record:
        raise UsageError(f"There is no record {output}.", "Run without --only first.")
    torch.set_num_threads(1)
    if "choose" in steps:
        record["trial"] = choose(options.people)
    chosen = arms(record)
    if "train" in steps:
        for arm in chosen:
            if not arm.tuned:
                continue
            print(f"fine-tuning: {arm.name}", flush=True)
            fine_tune(arm, START, options.people, options.runs, options.steps)
    if "judge" in steps:
        sets = held_out_sets(options.people)
        if len([people for people in sets if len(people.images) > 1]) < 2:
            raise SourceError(
                f"No two sets of held-out people in {options.people}.",
                "Make them as docs/training-pose.md says, and name their folder with --people.",
            )
        record["rows"] = [judge(arm, options.runs, sets) for arm in chosen]
        record["sets"] = {
            p.name: {"people": len(p.images), "reference": p.reference} for p in sets
        }  # fmt: skip
        record |= {
            "network": "EViTPose-dino6",
            "looks": max(row["looks"] for row in record["rows"]),
        }
    if "time" in steps:
        time_arms(chosen, options.runs, record["rows"], how)
        record |= {"environment": environment(how.threads), "clock": how.clock,
                   "threads": how.threads, "backend": BACKEND}  # fmt: skip
    rows = record.get("rows", [])
    if rows and all("latency" in row for row in rows):
        add_leads(record)
    write_record(output, record)
    if {"time", "table"} & set(steps) and output == RESULTS / output.name:
        write_whole(methods.PAGE, methods.page())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = new_parser(
        __doc__, "token_reduction_tuned.json", _STEPS, threads=0,
        cpu="CPU time, for a machine that others use; one thread",
    )  # fmt: skip
    add = parser.add_argument
    add("--people", type=Path, default=ROOT / ".cache" / "training", metavar="DIR")
    add("--runs", type=Path, default=MODELS / "tuned", metavar="DIR", help="folder of trainings")
    add("--steps", type=int, default=STEPS, help=f"of 24 looks, for each way ({STEPS})")
    options = parser.parse_args(arguments)
    how = settings(options, rounds=(2, 6), seconds=(0.5, 1.5))
    return finish(lambda: run(options, how), options.output)


if __name__ == "__main__":
    sys.exit(main())
