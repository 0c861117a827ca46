"""A browser without a window that reads what a page shows: one tab of Chromium, over two pipes.

It is spoken to in the DevTools protocol (--remote-debugging-pipe), so neither a port nor a package
is needed. A script that is put into the page beforehand reports through a binding.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from typing import Any

from prunus.runtime.errors import HostError

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_S = 30.0  # for an answer; a browser that starts on a busy machine takes seconds
_ROUNDS = 20  # of questions about its clock
# No sandbox: it opens nothing but a page of this process, and as root it would refuse to start.
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--window-size=1280,900", "--remote-debugging-pipe",
)  # fmt: skip
# Chromium wants its pipes as the descriptors 3 and 4; this lays them there and becomes it.
_LAUNCH = """import fcntl, os, sys
ends = [fcntl.fcntl(int(word), fcntl.F_DUPFD_CLOEXEC, 10) for word in sys.argv[1:3]]
os.close(int(sys.argv[1])), os.close(int(sys.argv[2]))
os.dup2(ends[0], 3), os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])"""


def find_chromium() -> str:
    """Return the path of Chromium; raises HostError where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise HostError(
            "Measuring through a browser needs Chromium, which is not installed.",
            "Install it, on Debian with: apt-get install chromium; "
            "or measure without: leave out --through browser",
        )
    return found


class Browser:
    """One tab with a fresh profile, which is deleted in the end.

    Args:
        on_report: Takes each text that a page's script gives to ``report(TEXT)``, in a thread of
            its own.

    Attributes:
        offset_s: What is added to the page's ``performance.now() / 1000`` to give
            `time.perf_counter` of this process; see `read_clock`.
        error_s: How wrong that may be.

    Raises:
        HostError: there is no Chromium, or it does not start.
    """

    def __init__(self, on_report: Callable[[str], None]) -> None:
        path = find_chromium()
        self.offset_s = self.error_s = float("nan")
        self._on_report, self._number = on_report, 0
        self._answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            theirs_in, ours_out = os.pipe()
            ours_in, theirs_out = os.pipe()
            self._out = stack.enter_context(open(ours_out, "wb", buffering=0))
            self._in = stack.enter_context(open(ours_in, "rb", buffering=0))
            words = [path, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out), *words],
                pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(self._end)
            os.close(theirs_in)
            os.close(theirs_out)
            self._reader = threading.Thread(target=self._read, name="browser", daemon=True)
            self._reader.start()
            self._session: dict[str, str] = {}
            target = self._call("Target.createTarget", url="about:blank")["targetId"]
            joined = self._call("Target.attachToTarget", targetId=target, flatten=True)
            self._session = {"sessionId": joined["sessionId"]}
            for domain in ("Page", "Runtime"):
                self._call(f"{domain}.enable")
            self._call("Runtime.addBinding", name="report")
            self._stack = stack.pop_all()

    def open(self, address: str, script: str) -> None:
        """Open a page in which a script runs before the page's own."""
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)
        self._call("Page.navigate", url=address)

    def read_clock(self) -> None:
        """Find `offset_s` and `error_s` for the page that is open: ask, and halve the way."""
        best = float("inf")
        for _ in range(_ROUNDS):
            asked = time.perf_counter()
            found = self._call(
                "Runtime.evaluate", expression="performance.now()", returnByValue=True
            )
            answered = time.perf_counter()
            if answered - asked < best:
                best = answered - asked
                self.offset_s = (asked + answered) / 2 - found["result"]["value"] / 1000
        self.error_s = best / 2

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        until = time.monotonic() + _PATIENCE_S
        try:
            self._out.write(json.dumps(message, allow_nan=False).encode() + b"\0")
            while True:
                answer = self._answers.get(timeout=max(0.0, until - time.monotonic()))
                if answer.get("id") == self._number and "result" in answer:
                    result: dict[str, Any] = answer["result"]
                    return result
                if answer.get("id") == self._number or not answer:
                    break
        except (OSError, Empty):
            answer = {}
        said = answer.get("error", {}).get("message") or "it has ended, or does not answer"
        raise HostError(f"Chromium failed at {method}: {said}.", "Does it start by itself?")

    def _read(self) -> None:
        have = b""
        with suppress(OSError, ValueError):  # closed meanwhile
            while data := self._in.read(1 << 16):
                *whole, have = (have + data).split(b"\0")
                for message in map(json.loads, whole):
                    if message.get("method") == "Runtime.bindingCalled":
                        self._on_report(message["params"]["payload"])
                    elif "id" in message:
                        self._answers.put(message)
        self._answers.put({})

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)

    def close(self) -> None:
        """End it; safe to call twice."""
        self._stack.close()
