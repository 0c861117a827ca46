"""`prunus serve http` as people start it, with the page's example as the caller."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from prunus.apps.common.media import PORTRAIT
from prunus.apps.serve.options import TOKEN

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"


@contextmanager
def started(*words, **environment):
    """Run the command; yield what it says when it listens, and end it as a service manager does."""
    import os

    command = [sys.executable, "-m", "prunus.apps.cli.main", "serve", "http", *map(str, words)]
    with subprocess.Popen(
        [*command, "--port", "0", "--threads", "1", "--json"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    ) as process:  # fmt: skip
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield json.loads(line)
        finally:
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=60)
    assert process.returncode in (0, 130) and "Traceback" not in told, told


@pytest.fixture(scope="module")
def example():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    [code] = [block for block in blocks if "httpx2" in block]
    names = {}
    exec(compile(code, "serving.md", "exec"), names)
    return names


def test_the_example_of_the_page_asks_32_times_at_once(example):
    with started("pose", **{TOKEN: "s3cret"}) as said:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", said["url"]) and said["model"] == "pose"
        counts = asyncio.run(example["ask_all"](said["url"], [PORTRAIT] * 32, "s3cret"))
    assert counts == [1] * 32


def test_the_load_generator_speaks_to_it(prunus, monkeypatch):
    monkeypatch.setenv(TOKEN, "s3cret")
    with started("segmentation", **{TOKEN: "s3cret"}) as said:
        words = ("--server", said["url"], "--rate", 20, "--seconds", 0.3, "--clients", 4)
        ran = prunus("bench", *words, "--json")
        monkeypatch.setenv(TOKEN, "wrong")
        refused = prunus("bench", *words)
    [load] = json.loads(ran.out)["loads"]
    assert ran.code == 0 and load["refused"] == {} and load["p99_ms"] >= load["p50_ms"] > 0
    assert refused.code == 2 and "answered 401" in refused.err


def test_the_example_for_tensors_fills_part_of_a_batch(example, batched):
    rows = np.arange(10, dtype=np.float32).reshape(2, 5)
    with started(batched) as said:
        assert said["batch"] == 4
        found = example["tensors"](said["url"].rstrip("/"), x=rows)
    np.testing.assert_array_equal(found["y"], 3 * rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pose", "--host", "0.0.0.0"], "without a token"),
        (["pose", "--host", "0.0.0.0", "--token", ""], "empty token"),
        (["pose", "--token", "two words"], "blanks"),
        (["nothing.onnx"], "not found: nothing.onnx"),
        (["pose", "--queue", "0"], "--queue"),
        (["pose", "--host", "no.such.host.invalid", "--token", "x"], "Cannot serve on"),
    ],
)
def test_what_cannot_be_served_is_one_error(prunus, monkeypatch, words, said):
    monkeypatch.delenv(TOKEN, raising=False)
    ran = prunus("serve", "http", *words, *([] if "--host" in words else ["--port", "0"]))
    assert ran.code == 2 and said in ran.err and not ran.out
    assert "Traceback" not in ran.err


def test_a_port_in_use_is_named(prunus):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ran = prunus("serve", "http", "pose", "--port", other.getsockname()[1])
    assert ran.code == 2 and "Cannot serve on 127.0.0.1" in ran.err


def test_a_missing_package_names_its_extra(prunus, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ran = prunus("serve", "http", "pose", "--port", "0")
    assert ran.code == 3 and "prunus[web]" in ran.err
