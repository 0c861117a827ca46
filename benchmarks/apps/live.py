"""People in a live picture: identities, a peer's loop, and a governor beside a fixed network.

    python -m benchmarks.apps.live              # all of it, some five minutes on two idle cores
    python -m benchmarks.apps.live --only ids   # identities on the bundled clip, marked by hand
    python -m benchmarks.apps.live --only loop --model evitpose-tiny-L0.onnx

``ids``: IDF1, switches and identities against `walkers.json`, for several ways to time the finder;
beside SORT, ByteTrack and OC-SORT of the package `trackers` where that is installed (they get the
finder's boxes of every frame, and its scores as thresholds).

``loop``: CPU time per frame of the loop that rtmlib's tracker has (finder each k frames, one crop
at a time, crops from the last joints) and of ours, with the same networks and one thread, frame by
frame in turn; ours in full and with a third of the people read in each frame, with the similarity
of its joints to those of the full run. Ratios above 1: ours is faster.

``governor``: the clip as a live source; fixed and governed take turns, A B A B, each time with a
process that takes a core in the middle of the turn. p50 and p99 of capture to joints, frames within
the budget, frames dropped. Figures of a busy machine say little; the ratios are of one run.

``sources``: the clip twice as two sources of one process with two threads, and in two processes of
one thread each, A B A B: frames a second of both together, CPU time per frame, resident memory.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from prunus.apps.common.media import PEDESTRIANS
from prunus.apps.common.model_files import find_model, pose_models
from prunus.apps.common.options import BackendChoice, Pace
from prunus.apps.io.frames import Frame, SourceInfo
from prunus.apps.io.sources.registry import open_source
from prunus.apps.pose.options import PoseOptions
from prunus.apps.pose.steps import Work, open_steps
from prunus.runtime.measure.latency import environment
from prunus.runtime.pipeline.pipeline import Pipeline, Stage
from prunus.runtime.tasks.pose.estimator import Pose, PoseEstimator
from prunus.runtime.tasks.pose.identities import IdentityScores, score_identities, true_boxes
from prunus.runtime.tasks.pose.people import PeopleFinder
from prunus.runtime.tasks.pose.similarity import box_of_joints, keypoint_similarity
from prunus.runtime.tasks.pose.tracking.finding import Finding
from prunus.runtime.tasks.pose.tracking.tracker import PeopleTracker, TrackerOptions

from ..record import RESULTS, finish, show, write_record

CASES = ("ids", "loop", "governor", "sources")
PEER_EVERY = 7  # frames from one search to the next in rtmlib's example for a camera
CLIP_FPS = 10.0
WALKERS = Path(__file__).with_name("walkers.json")  # who is who, marked by hand

Found = list[dict[int, tuple[float, float, float, float]]]


class Scene:
    """The bundled clip with both networks, one thread each, and who is who."""

    def __init__(self, models: Sequence[str], limit: int) -> None:
        with closing(open_source(str(PEDESTRIANS))) as source:
            self.frames = [frame.image for frame in source][: limit or None]
        marks = json.loads(WALKERS.read_text(encoding="utf-8"))["people"]
        self.truth = true_boxes(marks, len(self.frames))
        self.finder = PeopleFinder.open(find_model("movenet_multipose"), "onnxruntime", 1)
        files = pose_models(models, None)[:1]
        self.estimator = PoseEstimator.open(files, "onnxruntime", 1)

    def tracker(self, **options: Any) -> PeopleTracker:
        """Return a tracker for this clip."""
        post = self.estimator.postprocess
        return PeopleTracker(
            TrackerOptions(**options), post.sigmas, limbs=post.limbs, flip_pairs=post.flip_pairs
        )


def judge_ids(scene: Scene) -> dict[str, Any]:
    """Score identities of several ways to follow, and print them."""
    found = [scene.finder(frame) for frame in scene.frames]
    rows: dict[str, IdentityScores] = {}
    for name, finding in (
        ("time and need", Finding()), ("each frame", Finding(every=1)),
        ("each 4th frame", Finding(every=4)), ("each 8th frame", Finding(every=8)),
    ):  # fmt: skip
        tracker, ids, searches = scene.tracker(finding=finding), [], 0
        for k, frame in enumerate(scene.frames):
            now = k / CLIP_FPS
            if tracker.wants(frame, now):
                tracker.take(found[k], now, now, frame)
                searches += 1
            poses = tracker.follow(frame, scene.estimator, now)
            ids.append({p.track_id: p.box for p in poses})
        rows[f"ours, finder: {name} ({searches})"] = score_identities(scene.truth, ids)
    for name, ids in _peers(scene.frames, found):
        rows[f"{name}, finder: each frame"] = score_identities(scene.truth, ids)
    show(
        "identities on pedestrians.mp4",
        ("tracker", "IDF1", "switches", "ids", "people", "recall"),
        [
            (n, f"{s.idf1:.3f}", str(s.switches), str(s.identities), str(s.people),
             f"{s.recall:.3f}")
            for n, s in rows.items()
        ],
    )  # fmt: skip
    return {name: dataclasses.asdict(s) for name, s in rows.items()}


def _peers(frames: Sequence[Any], found: Sequence[Sequence[Pose]]) -> Iterator[tuple[str, Found]]:
    if importlib.util.find_spec("trackers") is None:
        print("(package trackers 2.6.1 is not installed: no rows of its algorithms)")
        return
    import supervision
    import trackers

    low = {"track_activation_threshold": 0.1, "minimum_iou_threshold": 0.1}
    high = {"high_conf_det_threshold": 0.1, "minimum_iou_threshold": 0.1}
    for name, more in (
        ("SORTTracker", low), ("ByteTrackTracker", low | high), ("OCSORTTracker", high)
    ):  # fmt: skip
        tracker = getattr(trackers, name)(frame_rate=CLIP_FPS, **more)
        ids: Found = []
        for people in found:
            boxes = np.array([p.box for p in people], np.float32).reshape(-1, 4)
            scores = np.array([p.score for p in people], np.float32)
            got = tracker.update(
                supervision.Detections(boxes, confidence=scores, class_id=np.zeros(len(boxes), int))
            )
            pairs = zip(got.tracker_id, got.xyxy, strict=True)
            ids.append({int(i): tuple(map(float, box)) for i, box in pairs if i >= 0})
        yield name, ids


class PeerLoop:
    """The shape of rtmlib's tracking loop: finder each k frames, then one crop after the other."""

    def __init__(self, scene: Scene, every: int = PEER_EVERY) -> None:
        self._scene, self._every, self._boxes, self._frame = scene, every, [], 0

    def __call__(self, frame: Any, now: float) -> list[Pose]:
        """Return the people of a frame."""
        if self._frame % self._every == 0 or not self._boxes:
            self._boxes = [p.box for p in self._scene.finder(frame)]
        self._frame += 1
        people = [
            self._scene.estimator(frame, np.array([box], np.float64))[0] for box in self._boxes
        ]
        self._boxes = [box_of_joints(p) for p in people if p.score >= 0.15]
        return people


def compare_loops(scene: Scene) -> dict[str, Any]:
    """Take CPU time of the loops frame by frame in turn, and print ratios."""
    full, third = scene.tracker(), scene.tracker()
    runs: dict[str, Callable[[Any, float], list[Pose]]] = {
        "rtmlib's loop": PeerLoop(scene),
        "ours": lambda f, t: full.update(f, scene.finder, scene.estimator, t),
        "ours, a third of the people a frame": lambda f, t: third.update(
            f, scene.finder, scene.estimator, t, -(-max(third.people, 1) // 3)
        ),
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    alike: list[float] = []
    sigmas = np.array(scene.estimator.postprocess.sigmas, np.float64)
    seen = dict.fromkeys(runs, 0)
    for k, frame in enumerate(scene.frames):
        shown: dict[str, list[Pose]] = {}
        for name, run in runs.items():
            start = time.process_time_ns()
            shown[name] = run(frame, k / CLIP_FPS)
            taken[name].append((time.process_time_ns() - start) / 1e6)
            seen[name] += len(shown[name])
        dense, sparse = shown["ours"], shown["ours, a third of the people a frame"]
        if dense and sparse:
            alike += keypoint_similarity(dense, sparse, sigmas).max(1).tolist()
    first = sum(taken["rtmlib's loop"])
    per_person = {n: sum(t) / max(seen[n], 1) for n, t in taken.items()}
    show(
        f"CPU time of {len(scene.frames)} frames, one thread",
        ("loop", "mean ms", "p50 ms", "against rtmlib's", "people a frame", "ms a person"),
        [
            (n, f"{statistics.mean(t):.1f}", f"{statistics.median(t):.1f}",
             f"{first / sum(t):.2f}x", f"{seen[n] / len(t):.1f}", f"{per_person[n]:.1f}")
            for n, t in taken.items()
        ],
    )  # fmt: skip
    print(f"similarity (OKS) of joints, a third a frame against all: {np.mean(alike):.3f}\n")
    return {
        "people": {n: seen[n] / len(t) for n, t in taken.items()},
        "ms_a_person": per_person,
        "oks_of_a_third": float(np.mean(alike)),
        "mean_ms": {n: statistics.mean(t) for n, t in taken.items()},
        "ratio": {n: first / sum(t) for n, t in taken.items()},
    }


class Playing:
    """The clip, there and back, as a live source."""

    def __init__(self, frames: Sequence[Any], fps: float, seconds: float) -> None:
        self._frames, self._fps, self._seconds = frames, fps, seconds
        rows, columns = frames[0].shape[:2]
        self.info = SourceInfo("camera", columns, rows, fps, 0, live=True)
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        start, last = time.perf_counter(), len(self._frames) - 1
        for k in range(round(self._seconds * self._fps)):
            time.sleep(max(start + k / self._fps - time.perf_counter(), 0))
            image = self._frames[last - abs(k % (2 * last) - last)].copy()
            yield Frame(k, image, "", time.perf_counter_ns(), seconds=k / self._fps)

    def close(self) -> None:
        """Nothing is open."""


def _spin() -> None:
    while os.getppid() > 1:
        sum(range(10_000))


@contextlib.contextmanager
def _hog(when: tuple[float, float]) -> Iterator[None]:
    """Take a core from one to another second after the start."""
    import threading

    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_spin, daemon=True)
    timers = [
        threading.Timer(when[0], process.start),
        threading.Timer(when[1], lambda: process.is_alive() and process.terminate()),
    ]
    for timer in timers:
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        if process.is_alive():
            process.terminate()


def _play(scene: Scene, models: Sequence[str], fps: float, seconds: float, governed: bool) -> Any:
    source = Playing(scene.frames, fps, seconds)
    options = PoseOptions(
        models=tuple(models),
        compute=BackendChoice(backend="onnxruntime", threads=1),
        pace=Pace(budget=f"{1000 / fps:.3f}ms" if governed else None, governor=governed),
    )
    if not governed:
        options = dataclasses.replace(options, models=tuple(models[:1]))
    ages, spent, people = [], [], []
    with ExitStack() as stack:
        steps = open_steps(options, [source], stack, quiet=True)
        steps({0: Work(Frame(0, scene.frames[0].copy(), "", 0, seconds=0.0))})  # warm
        with (
            _hog((seconds / 3, 2 * seconds / 3)),
            Pipeline(({0: Work(f)} for f in source), [Stage("pose", steps)], live=True) as pipeline,
        ):
            for item in pipeline:
                ages.append(item.age_ms)
                spent.append(item.stage_ms["pose"])
                people.append(len(item.payload[0].poses))
            dropped = pipeline.dropped
    return ages, spent, people, dropped


def compare_governed(
    scene: Scene, models: Sequence[str], fps: float, seconds: float, rounds: int
) -> dict[str, Any]:
    """Play the clip to a fixed network and to a governed one in turns, and print both."""
    names = ("fixed", "governed")
    ages: dict[str, list[float]] = {n: [] for n in names}
    spent: dict[str, list[float]] = {n: [] for n in names}
    people: dict[str, list[int]] = {n: [] for n in names}
    dropped = dict.fromkeys(names, 0)
    for _ in range(rounds):
        for name in names:
            a, s, p, d = _play(scene, models, fps, seconds, name == "governed")
            ages[name] += a
            spent[name] += s
            people[name] += p
            dropped[name] += d
    budget = 1000 / fps
    body: dict[str, Any] = {
        name: {
            "frames": len(ages[name]),
            "p50_ms": float(np.percentile(ages[name], 50)),
            "p99_ms": float(np.percentile(ages[name], 99)),
            "held": float(np.mean(np.array(spent[name]) <= budget)),
            "people": float(np.mean(people[name])),
            "dropped": dropped[name],
            "dropped_share": dropped[name] / max(dropped[name] + len(ages[name]), 1),
        }
        for name in names
    }
    show(
        f"capture to joints at {fps:.0f} frames a second, a hog in the middle third",
        ("run", "p50 ms", "p99 ms", f"within {budget:.0f} ms", "dropped", "people"),
        [
            (n, f"{b['p50_ms']:.0f}", f"{b['p99_ms']:.0f}", f"{b['held']:.0%}",
             f"{b['dropped_share']:.0%}", f"{b['people']:.1f}")
            for n, b in body.items()
        ],
    )  # fmt: skip
    one, two = body["fixed"], body["governed"]
    print(f"fixed / governed: p99 {one['p99_ms'] / two['p99_ms']:.2f}x, "
          f"dropped {one['dropped_share']:.0%} against {two['dropped_share']:.0%}\n")  # fmt: skip
    return body


def _run_app(sources: int, models: Sequence[str], frames: int) -> subprocess.Popen[str]:
    """Begin the app on so many copies of the clip, a thread of the network for each."""
    words = ["--source", str(PEDESTRIANS)] * sources + [w for m in models for w in ("--model", m)]
    return subprocess.Popen(
        [sys.executable, "-m", "prunus", "run", "pose", *words, "--sink", "null:", "--no-overlay",
         "--json", "--quiet", "--backend", "onnxruntime", "--threads", str(sources),
         *(("--max-frames", str(frames)) if frames else ())],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _ended(app: subprocess.Popen[str]) -> tuple[float, float, float, int]:
    """Wait for it; return frames a second, CPU seconds, MiB at most, and frames."""
    assert app.stdout is not None
    run = json.load(app.stdout)
    _, status, used = os.wait4(app.pid, 0)
    app.returncode = os.waitstatus_to_exitcode(status)
    frames: int = run["frames"]
    cpu = used.ru_utime + used.ru_stime
    return frames / run["seconds"], cpu, used.ru_maxrss / 1024, frames


def compare_processes(models: Sequence[str], frames: int, rounds: int) -> dict[str, Any]:
    """Run two sources in one process and in two in turns, and print both."""
    taken: dict[str, list[tuple[float, float, float, int]]] = {}
    for _ in range(rounds):
        for name, each in (("one process", (2,)), ("two processes", (1, 1))):
            ended = [_ended(app) for app in [_run_app(n, models, frames) for n in each]]
            rate, cpu, memory, done = map(sum, zip(*ended, strict=True))
            taken.setdefault(name, []).append((rate, 1000 * cpu / done, memory, int(done)))
    median = {name: np.median(rows, axis=0).tolist() for name, rows in taken.items()}
    show(
        f"the clip twice, {len(taken['one process'])} rounds, medians",
        ("sources in", "frames a second", "CPU ms a frame, start included", "MiB"),
        [(n, f"{r:.1f}", f"{c:.1f}", f"{m:.0f}") for n, (r, c, m, _) in median.items()],
    )
    one, two = median["one process"], median["two processes"]
    print(f"one process / two: {one[0] / two[0]:.2f}x the frames, {one[1] / two[1]:.2f}x the CPU "
          f"time, {one[2] / two[2]:.2f}x the memory\n")  # fmt: skip
    return {"rounds": taken, "ratio": [a / b for a, b in zip(one[:3], two[:3], strict=True)]}


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", choices=CASES, action="append", help="default: all")
    add("--model", action="append", default=[], help="as of prunus run pose; the first is fixed")
    add("--frames", type=int, default=0, help="of the clip; default: all")
    add("--fps", type=float, default=15.0, help="of the live source, and the budget")
    add("--turn", type=float, default=15.0, help="seconds of a turn")
    add("--rounds", type=int, default=2)
    add("-o", "--output", type=Path, default=RESULTS / "live.json")
    options = parser.parse_args()

    def work() -> None:
        only = options.only or CASES
        scene = Scene(options.model, options.frames) if set(only) - {"sources"} else None
        cases: dict[str, Callable[[], dict[str, Any]]] = {
            "ids": lambda: judge_ids(scene),
            "loop": lambda: compare_loops(scene),
            "governor": lambda: compare_governed(
                scene, options.model, options.fps, options.turn, options.rounds
            ),
            "sources": lambda: compare_processes(options.model, options.frames, options.rounds),
        }
        body = {name: run() for name, run in cases.items() if name in only}
        body["load_average"] = os.getloadavg()
        body["environment"] = environment()
        write_record(options.output, body)

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
