"""Ray gives the bytes of one process, whoever dies on the way: an actor, a node, the driver."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("ray")
from prunus.apps.batch.cluster import _actors, _reachable
from prunus.apps.batch.options import Work
from prunus.runtime.errors import SourceError, UsageError

ROOT = Path(__file__).parents[3]
# Raylets and workers take the code of this tree from here.
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
INPUTS = 12
STORE = 100 << 20  # bytes


@pytest.fixture
def many(tmp_path, portrait):
    """Return a folder of pictures, one of them cut off."""
    (inside := tmp_path / "in").mkdir()
    for k in range(INPUTS - 1):
        shutil.copy(portrait, inside / f"{k}.jpg")
    (inside / "cut.jpg").write_bytes(portrait.read_bytes()[:3000])
    return inside


@pytest.fixture
def cluster(monkeypatch):
    """Return the two nodes of a cluster on this machine, one processor each."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        made.add_node(num_cpus=1, object_store_memory=STORE)
        yield made
    finally:
        made.shutdown()


@contextlib.contextmanager
def _driver(inside, out, *words, before=""):
    """Start a batch; what lies in the folder `before` is imported first in all of its processes."""
    command = [sys.executable, "-m", "prunus", "batch", "pose", str(inside), "--out", str(out),
               "--quiet", "--backend", "onnxruntime", *map(str, words)]  # fmt: skip
    environment = {**os.environ, **ENVIRONMENT}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(before), str(ROOT))))
    with subprocess.Popen(
        command,
        env=environment,
        cwd=inside,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def _wait_for(out, count, driver):
    """Wait until so many results are there, and the run goes on."""
    until = time.monotonic() + 400
    while len(list((out / "results").glob("*.parquet"))) < count:
        assert driver.poll() is None and time.monotonic() < until, driver.communicate()
        time.sleep(0.02)


def _raylet(node):
    return node.all_processes["raylet"][0].process.pid


def _actors_of(raylet):
    """Return the processes of a node's actors."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            name = (folder / "cmdline").read_bytes()
            if parent == raylet and name.startswith(b"ray::MapWorker"):
                found.append(int(folder.name))
    return found


def _same_as_one_process(batch, state, inside, out, tmp_path):
    summary, _ = batch("pose", inside, out=tmp_path / "one", code=1)
    assert (summary["done"], len(summary["aside"])) == (INPUTS - 1, 1)
    assert state(out) == state(tmp_path / "one")


@pytest.mark.slow
def test_a_killed_actor_and_a_killed_node_change_no_byte(cluster, batch, many, state, tmp_path):
    out, [second] = tmp_path / "out", cluster.worker_nodes
    words = ("--ray", cluster.address, "--actors", 2)
    with _driver(many, "../out", *words) as driver:
        _wait_for(out, 2, driver)
        head = _actors_of(_raylet(cluster.head_node))
        assert len(head) == 1 and len(_actors_of(_raylet(second))) == 1
        os.kill(head[0], signal.SIGKILL)
        _wait_for(out, 5, driver)
        os.kill(_raylet(second), signal.SIGKILL)
        said = driver.communicate(timeout=400)
        assert driver.returncode == 1, said
    assert not list((out / "_begun").iterdir())
    _same_as_one_process(batch, state, many, out, tmp_path)


@pytest.mark.slow
def test_a_killed_driver_goes_on_on_a_cluster(cluster, batch, many, state, tmp_path):
    out = tmp_path / "out"
    words = ("--ray", cluster.address, "--actors", 2)
    with _driver(many, out, *words) as driver:
        _wait_for(out, 3, driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    raylets = [_raylet(cluster.head_node), *map(_raylet, cluster.worker_nodes)]
    until = time.monotonic() + 60
    while any(map(_actors_of, raylets)):  # Ray ends them with their driver
        assert time.monotonic() < until
        time.sleep(0.1)
    there = {path.name: path.stat().st_mtime_ns for path in (out / "results").iterdir()}
    assert 3 <= len(there) < INPUTS - 1
    with _driver(many, out, *words) as driver:
        said = driver.communicate(timeout=400)
        assert driver.returncode == 1, said
    now = {path.name: path.stat().st_mtime_ns for path in (out / "results").iterdir()}
    assert {name: now[name] for name in there} == there and len(now) == INPUTS - 1
    _same_as_one_process(batch, state, many, out, tmp_path)


@pytest.mark.slow
def test_ray_on_this_machine_gives_the_bytes_of_one_process(batch, many, state, tmp_path):
    with _driver(many, out := tmp_path / "out", "--actors", 1) as driver:
        said = driver.communicate(timeout=400)
        assert driver.returncode == 1 and f"{INPUTS - 1} done" in said[0], said
    _same_as_one_process(batch, state, many, out, tmp_path)


DEADLY = """
import os, pathlib
read = pathlib.Path.read_bytes
pathlib.Path.read_bytes = lambda path: os._exit(9) if path.name == "deadly.jpg" else read(path)
"""


@pytest.mark.slow
def test_an_input_that_kills_its_workers_ends_nobody_else(many, tmp_path, rows_of):
    for path in sorted(many.glob("*.jpg"))[3:]:
        path.unlink()
    shutil.copy(many / "0.jpg", many / "deadly.jpg")
    (site := tmp_path / "site").mkdir()
    (site / "sitecustomize.py").write_text(DEADLY)
    with _driver(many, out := tmp_path / "out", "--actors", 1, before=site) as driver:
        said = driver.communicate(timeout=500)
    assert driver.returncode == 1 and "4 inputs: 3 done" in said[0], said
    [row] = rows_of(out, "quarantine")
    assert row["reason"] == f"The program died 3 times over {many / 'deadly.jpg'}."


@pytest.mark.slow
def test_the_error_of_a_worker_is_told_as_it_is(cluster, many, tmp_path):
    """Memory of one process is a folder that no other process sees."""
    with _driver(many, "memory://out", "--ray", cluster.address) as driver:
        said = driver.communicate(timeout=400)
    assert driver.returncode == 2, said
    assert "is not the folder in which this run began" in said[1]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://127.0.0.1:1", "expected none, auto or HOST:PORT"),
        ("127.0.0.1:x", "expected none, auto or HOST:PORT"),
        ("127.0.0.1:99999", "No Ray cluster answers at 127.0.0.1:99999"),
        ("nobody.invalid", "No Ray cluster answers at nobody.invalid:6379"),
    ],
)
def test_an_address_without_a_cluster_is_one_clear_error(address, said):
    with pytest.raises((UsageError, SourceError), match=said):
        _reachable(address)


def test_nobody_listens(batch, portrait):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _, said = batch("pose", portrait, code=2, how=("--ray", f"127.0.0.1:{port}"))
    assert f"No Ray cluster answers at 127.0.0.1:{port}: Connection refused" in said


@pytest.mark.parametrize(
    ("words", "there", "expected"),
    [
        ({}, {"CPU": 8}, 4),
        ({"actors": 3}, {"CPU": 8}, 3),
        ({"actors": 5}, {"CPU": 8}, "enough for 4"),
        ({"gpus_per_actor": 0.5}, {"CPU": 64, "GPU": 2}, 4),
        ({"gpus_per_actor": 1.0}, {"CPU": 64}, "enough for 0"),
    ],
)
def test_more_actors_than_fit_are_refused_before_they_wait_for_ever(words, there, expected):
    work = Work("out", **words)
    if isinstance(expected, str):
        with pytest.raises(UsageError, match=expected):
            _actors(work, 2, there, 100)
    else:
        assert _actors(work, 2, there, 100) == expected
        assert _actors(work, 2, there, 1) == 1
