"""Measure EViTPose at every level, and MoveNet beside it, on people held out of the training.

``python -m prunus.models.training.pose.evaluate --run runs/tiny --thunder thunder.onnx``

Every model gets the same pictures and the same boxes. On the street set and the portrait the
reference is MoveNet Thunder itself (flip-averaged, at the picture's own resolution), so those rows
say how far a model agrees with that teacher, not how right it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from prunus.models.checkpoints.read import read_checkpoint
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.models.pose.levels import LEVELS, evitpose_plan
from prunus.models.training.pose.augment import box_to_centre_size, udp_matrix
from prunus.models.training.pose.evaluation_sets import HeldOut, held_out_sets
from prunus.models.training.pose.scores import PoseScores, score_poses
from prunus.models.training.pose.state import saved_config
from prunus.models.training.shipping import record_path
from prunus.models.training.state import read_run
from prunus.models.training.teachers.movenet import SinglePose
from prunus.runtime.pictures.crop import warp
from prunus.runtime.tasks.pose.heatmaps import joints_of_heatmaps

Reader = Callable[[HeldOut], np.ndarray]
_BATCH = 16


def crop_people(data: HeldOut, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return crops RGB uint8 (N,h,w,3), sampled as users get them, and matrices picture -> crop."""
    crops, matrices = [], []
    for image, box in zip(data.images, data.boxes, strict=True):
        centre, extent = box_to_centre_size(box, size[1] / size[0])
        matrix = udp_matrix(centre, extent, 0.0, size)
        back = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))[:2]
        crops.append(warp(image, back, size))
        matrices.append(matrix)
    return np.stack(crops), np.stack(matrices)


def to_picture(joints: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Move joints (N,J,3) from crop pixels to picture pixels."""
    moved = joints.copy()
    for i, matrix in enumerate(matrices):
        back = np.linalg.inv(matrix[:, :2])
        moved[i, :, :2] = (joints[i, :, :2] - matrix[:, 2]) @ back.T
    return moved


def network_reader(network: EViTPose) -> Reader:
    """Return a reader that runs a PyTorch network of any level."""
    deployed = DeployedPose(network.eval())
    size = (network.config.height, network.config.width)

    def read(data: HeldOut) -> np.ndarray:
        crops, matrices = crop_people(data, size)
        with torch.no_grad():
            parts = [
                deployed(torch.from_numpy(crops[i : i + _BATCH])).numpy()
                for i in range(0, len(crops), _BATCH)
            ]
        return to_picture(np.concatenate(parts), matrices)

    return read


def onnx_reader(path: Path) -> Reader:
    """Return a reader that runs an exported EViTPose file (input ``image``, any fixed batch).

    A file for NPUs gives heatmaps alone, which are decoded here.
    """
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    batch, height, width = session.get_inputs()[0].shape[:3]
    name = session.get_outputs()[0].name

    def read(data: HeldOut) -> np.ndarray:
        crops, matrices = crop_people(data, (height, width))
        joints = []
        for start in range(0, len(crops), batch):
            part = crops[start : start + batch]
            filled = np.concatenate(
                [part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)]
            )
            found = session.run([name], {"image": filled})[0][: len(part)]
            if name == "heatmaps":
                found = joints_of_heatmaps(found, height, width)
            joints.append(found)
        return to_picture(np.concatenate(joints), matrices)

    return read


def movenet_reader(path: Path) -> Reader:
    """Return a reader that runs a MoveNet single-pose file once on a square around the box."""
    teacher = SinglePose(path)

    def read(data: HeldOut) -> np.ndarray:
        joints = []
        for image, box in zip(data.images, data.boxes, strict=True):
            side = 1.25 * float((box[2:] - box[:2]).max())
            joints.append(teacher.read(image, (box[:2] + box[2:]) / 2, side, flip=False))
        return np.stack(joints)

    return read


def averaged_network(run: Path) -> EViTPose:
    """Return the run's averaged weights as a network of the size it is being trained at."""
    saved = read_run(run)
    network = EViTPose(saved_config(saved))
    state = network.state_dict()
    network.load_state_dict({k: saved.average[k].to(v.dtype) for k, v in state.items()})
    return network.eval()


def shipped_network(path: Path, variant: str) -> EViTPose:
    """Return a network with the weights of a safetensors file."""
    network = EViTPose(evitpose_config(variant))
    network.load_state_dict(read_checkpoint(path))
    return network.eval()


def moved_by_colours(read: Reader, data: HeldOut, share: float = 0.05) -> float:
    """Return the share of labelled joints that move when red and blue change places.

    Args:
        read: Of a model.
        data: People.
        share: Of the longer side of a person's box; joints that move less do not count.
    """
    other = dataclasses.replace(data, images=[image[..., ::-1] for image in data.images])
    moved = np.linalg.norm(read(data)[..., :2] - read(other)[..., :2], axis=-1)
    sides = (data.boxes[:, 2:] - data.boxes[:, :2]).max(axis=1)
    return float((moved > share * sides[:, None])[data.labelled].mean())


def evaluate(readers: dict[str, Reader], sets: list[HeldOut]) -> dict[str, dict[str, PoseScores]]:
    """Return the scores by model and set."""
    return {
        name: {
            data.name: score_poses(read(data)[..., :2], data.joints, data.labelled, data.boxes)
            for data in sets
        }
        for name, read in readers.items()
    }


def as_table(scores: dict[str, dict[str, PoseScores]], sets: list[HeldOut]) -> str:
    """Return a Markdown table: a row per model, OKS / PCK@0.2 / mean pixels per set."""
    head = " | ".join(f"{d.name} (n={len(d.images)}, vs {d.reference})" for d in sets)
    lines = [f"| model: OKS / PCK@0.2 / px | {head} |", "|---" * (len(sets) + 1) + "|"]
    for name, row in scores.items():
        cells = " | ".join(
            f"{row[d.name].oks:.3f} / {row[d.name].pck:.3f} / {row[d.name].pixels:.1f}"
            for d in sets
        )
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def as_data(scores: dict[str, dict[str, PoseScores]], sets: list[HeldOut]) -> dict[str, object]:
    """Return the scores as plain data, each set with its reference and model with its figures."""
    return {
        data.name: {
            "reference": data.reference,
            "models": {
                model: {k: round(v, 4) for k, v in asdict(row[data.name]).items()}
                for model, row in scores.items()
            },
        }
        for data in sets
    }


def level_readers(network: EViTPose) -> dict[str, Reader]:
    """Return a reader per level; inputs smaller than 256x192 have no pruned levels."""
    levels = LEVELS if (network.config.height, network.config.width) == (256, 192) else LEVELS[:1]
    plans = {
        level: evitpose_plan(level, network.config.joints, network.config.depth) for level in levels
    }
    return {
        f"EViTPose-{network.config.variant.title()} {level}": network_reader(
            network.with_plan(plan)
        )
        for level, plan in plans.items()
    }


def main() -> None:
    """Parse the command line, print the table and write the JSON."""
    parser = argparse.ArgumentParser(description="Measure pose models on held-out people.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="training folder: its averaged weights")
    source.add_argument("--weights", type=Path, help="exported .safetensors file")
    parser.add_argument("--variant", default="tiny")
    parser.add_argument("--onnx", type=Path, action="append", default=[], help="exported graph")
    parser.add_argument("--thunder", type=Path)
    parser.add_argument("--lightning", type=Path)
    parser.add_argument("--data", type=Path, default=Path(".cache/training"))
    parser.add_argument("--limit", type=int, help="people per set")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument(
        "--record", action="store_true", help="with --weights: add the figures to their .json"
    )
    parser.add_argument(
        "--colours", action="store_true", help="also say which joints hang on red and blue"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network = (
        averaged_network(args.run) if args.run else shipped_network(args.weights, args.variant)
    )
    readers = level_readers(network)
    readers |= {path.name: onnx_reader(path) for path in args.onnx}
    for name, path in (("MoveNet Thunder", args.thunder), ("MoveNet Lightning", args.lightning)):
        if path is not None:
            readers[name] = movenet_reader(path)
    sets = held_out_sets(args.data, args.limit)
    scores = evaluate(readers, sets)
    print(as_table(scores, sets))
    for data in sets if args.colours else ():
        for name, read in readers.items():
            share = moved_by_colours(read, data)
            print(f"{data.name}: {share:.1%} of {name}'s joints move with red and blue exchanged")
    flat = as_data(scores, sets)
    if args.json:
        args.json.write_text(json.dumps(flat, indent=2) + "\n")
    if args.record and args.weights:
        path = record_path(args.weights)
        path.write_text(
            json.dumps({**json.loads(path.read_text()), "evaluation": flat}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
