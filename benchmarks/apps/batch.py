"""`prunus batch` on Ray beside plain processes, and its memory over many inputs.

    python -m benchmarks.apps.batch --only actors    Ray with two actors against two plain processes
    python -m benchmarks.apps.batch --only nodes     two nodes of a core each against one of them
    python -m benchmarks.apps.batch --only memory    resident memory over 1,000 small inputs

Each run does the same pictures from scratch, runs take turns (A B A B), and a rate counts from the
first result of a run to its last, so that neither Ray's start nor the opening of models is in it;
the whole time stands beside it. Numbers need an idle machine.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2

from prunus.runtime.errors import CheckFailedError

from ..record import PORTRAIT, ROOT, Settings, finish, new_parser, settings, show, write_record

PICTURES, QUICK = 200, 40  # of a run
MANY = 1000  # of the run whose memory is watched
SIZE = 192  # pixels, so that reading is no part of it
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
Run = Callable[[Path, Path], list[subprocess.Popen[bytes]]]


def make_pictures(folder: Path, count: int, parts: int = 1) -> Path:
    """Write small different pictures, shared out into folders; return the folder."""
    whole = cv2.imread(str(PORTRAIT))
    for k in range(count):
        (part := folder / f"part-{k % parts}").mkdir(parents=True, exist_ok=True)
        side = 200 + k % 100
        cv2.imwrite(str(part / f"{k:05d}.jpg"), cv2.resize(whole[:side, -side:], (SIZE, SIZE)))
    return folder


def start(source: Path, out: Path, *words: str, task: str = "pose") -> subprocess.Popen[bytes]:
    """Start `prunus batch` in a process of its own."""
    command = [sys.executable, "-m", "prunus", "batch", task, str(source), "--out", str(out),
               "--quiet", "--backend", "onnxruntime", "--threads", "1", *words]  # fmt: skip
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def timed(run: Run, source: Path, count: int) -> tuple[float, float]:
    """Return results per second from the first to the last, and the seconds of it all."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        codes = [process.wait() for process in run(source, Path(folder))]
        whole = time.perf_counter() - begun
        times = sorted(p.stat().st_mtime_ns for p in Path(folder).rglob("results/*.parquet"))
    if any(codes) or len(times) != count:
        raise CheckFailedError(f"Got exit codes {codes} and {len(times)} of {count} results.")
    return (count - 1) / ((times[-1] - times[0]) / 1e9), whole


def two_processes(source: Path, out: Path) -> list[subprocess.Popen[bytes]]:
    """Start a plain process on each half."""
    return [start(source / f"part-{k}", out / str(k), "--ray", "none") for k in range(2)]


def two_actors(source: Path, out: Path) -> list[subprocess.Popen[bytes]]:
    """Start Ray on this machine with two actors."""
    return [start(source, out, "--actors", "2")]


@contextlib.contextmanager
def nodes(cores: Sequence[int]) -> Iterator[Run]:
    """Yield a run on a cluster of a node for each core, which the node is bound to."""
    os.environ |= ENVIRONMENT
    from ray.cluster_utils import Cluster

    own, cluster = os.sched_getaffinity(0), Cluster()
    try:
        for core in cores:
            os.sched_setaffinity(0, {core})  # what is started inherits it
            cluster.add_node(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False)
        os.sched_setaffinity(0, own)
        yield lambda source, out: [start(source, out, "--ray", cluster.address)]
    finally:
        os.sched_setaffinity(0, own)
        cluster.shutdown()


def beside(title: str, runs: dict[str, Run], source: Path, how: Settings) -> dict[str, Any]:
    """Time runs in turns; print their rates, and the second's as a share of the first's."""
    count = len(list(source.rglob("*.jpg")))
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(how.rounds):
        for name, run in runs.items():
            found[name].append(timed(run, source, count))
    first, second = found.values()
    ratio = statistics.median(b[0] / a[0] for a, b in zip(first, second, strict=True))
    rows = [(name, *(f"{statistics.median(v):.2f}" for v in zip(*pairs, strict=True)))
            for name, pairs in found.items()]  # fmt: skip
    show(f"{title}, {count} pictures", ("run", "results/s", "whole s"), rows)
    print(f"ratio {ratio:.3f}\n", flush=True)
    return {"ratio": round(ratio, 4), "rates_and_seconds": found, "pictures": count}


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB, 0 when it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory(source: Path, count: int) -> dict[str, Any]:
    """Print resident memory of one process as masks come, and its growth over the last 80 %."""
    seen: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        process = start(source, Path(folder), "--ray", "none", task="segmentation")
        results = Path(folder) / "results"
        while process.poll() is None:
            done = len(os.listdir(results)) if results.is_dir() else 0
            mark = done - done % max(count // 10, 1)
            if mark and mark not in seen and (mib := resident_mib(process.pid)):
                seen[mark] = mib
            time.sleep(0.02)
    if process.returncode or not seen:
        raise CheckFailedError(f"Got exit code {process.returncode}.")
    rows = [(str(mark), f"{mib:.1f}") for mark, mib in seen.items()]
    show(f"resident memory over {count} inputs", ("results", "MiB"), rows)
    settled = [mib for mark, mib in seen.items() if mark >= count // 5]
    growth = settled[-1] - settled[0]
    print(f"growth over the last 80 %: {growth:+.1f} MiB\n", flush=True)
    return {"mib_by_results": seen, "growth_mib": round(growth, 2)}


def main() -> int:
    """Run the cases that were asked for and write the record."""
    parser = new_parser(__doc__, "batch.json", ("actors", "nodes", "memory"), threads=1)
    options = parser.parse_args()
    how = settings(options, (1, 3), (0.0, 0.0))
    wanted = options.only or ["actors", "nodes", "memory"]

    def work() -> None:
        body: dict[str, Any] = {}
        count = QUICK if options.quick else PICTURES
        with tempfile.TemporaryDirectory() as folder:
            source = make_pictures(Path(folder) / "pictures", count, 2)
            if "actors" in wanted:
                runs: dict[str, Run] = {"two processes": two_processes, "Ray, 2 actors": two_actors}
                body["actors"] = beside("two cores", runs, source, how)
            if "nodes" in wanted:
                cores = sorted(os.sched_getaffinity(0))[:2]
                with nodes(cores[:1]) as one, nodes(cores) as two:
                    body["nodes"] = beside("nodes", {"one": one, "two": two}, source, how)
            if "memory" in wanted:
                many = QUICK * 2 if options.quick else MANY
                source = make_pictures(Path(folder) / "many", many)
                body["memory"] = memory(source, many)
        write_record(options.output, body)

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
