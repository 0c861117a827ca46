"""Who takes part in a soak: cameras, a viewer, programs with their memory, a disk that fills up."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

from prunus.apps.bench.picture_delay import draw_number, read_number
from prunus.apps.io.sources.http import open_http
from prunus.apps.io.sources.synthetic import open_synthetic
from prunus.runtime.errors import PrunusError

_TURN, _NUMBERS = 60, 1 << 16  # different pictures; numbers that they can carry
_PROGRESS = re.compile(r"\w+: \d+( %)? \(")


class _Server(ThreadingHTTPServer):
    daemon_threads = allow_reuse_address = True

    def handle_error(self, *_):
        """A client that left is no fault."""


class Camera:
    """MJPEG over loopback; `sent` says when each number was given away, `cut` halves pictures."""

    def __init__(self, fps):
        self.fps, self.cut, self.sent, self.port = fps, False, np.zeros(_NUMBERS), 0
        self._pictures = [f.image for f in open_synthetic(f"synthetic:320x240@0*{_TURN}")]
        self._began = time.monotonic()
        self.plug()

    def plug(self):
        """Serve, on the same port as before."""
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(OSError):
                    while camera.server is self.server:
                        data = camera._next()
                        self.wfile.write(b"--frame\r\nContent-Length: %d\r\n\r\n" % len(data))
                        self.wfile.write(data + b"\r\n")

            def log_message(self, *_):
                pass

        self.server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def unplug(self):
        """Be gone, without a farewell."""
        server, self.server = self.server, None
        server.shutdown()
        server.server_close()

    def _next(self):
        number = int((time.monotonic() - self._began) * self.fps) + 1
        time.sleep(max(self._began + number / self.fps - time.monotonic(), 0.0))
        image = self._pictures[number % _TURN].copy()
        draw_number(image, number % _NUMBERS)
        data = cv2.imencode(".jpg", image)[1].tobytes()
        self.sent[number % _NUMBERS] = time.monotonic()
        return data[: len(data) // 2] if self.cut else data


class Viewer:
    """Somebody at the page of a run; `seen` has when a picture came, and its age, in seconds."""

    def __init__(self, port, camera):
        self.seen, self._address, self._camera = [], f"http://127.0.0.1:{port}", camera
        threading.Thread(target=self._look, daemon=True).start()

    def choose(self, source):
        """Have the page show one source; return whether it does."""
        body = json.dumps({"shown": source}).encode()
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self._address}/control", body, timeout=20).close()
            return True
        return False

    def _look(self):
        last = None
        while True:
            with contextlib.suppress(PrunusError, OSError):
                for frame in open_http(f"{self._address}/stream"):
                    now, number = time.monotonic(), read_number(frame.image)
                    if number not in (None, last) and self._camera.sent[number]:
                        last = number
                        self.seen.append((now, now - self._camera.sent[number]))
            time.sleep(0.2)

    def between(self, begin, end):
        """Return what was seen meanwhile: (count, 2)."""
        return np.array([s for s in tuple(self.seen) if begin <= s[0] < end]).reshape(-1, 2)

    def sees(self, begin):
        """Tell whether a picture that was taken after a moment has come."""
        return any(now - age > begin for now, age in tuple(self.seen)[-200:])


class Program:
    """A `prunus run`; `memory` has its resident MiB by time, each second."""

    def __init__(self, folder, name, *words, **environment):
        self.memory, self._paths = [], (folder / f"{name}.out", folder / f"{name}.err")
        out, said = (path.open("w") for path in self._paths)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prunus", "run", *map(str, words), "--json"],
            stdout=out, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        threading.Thread(target=self._weigh, daemon=True).start()

    def _weigh(self):
        page = resource.getpagesize() / 2**20
        while self.runs:
            with contextlib.suppress(OSError, IndexError):
                resident = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
                self.memory.append((time.monotonic(), int(resident) * page))
            time.sleep(1.0)

    @property
    def runs(self):
        """Whether it still runs."""
        return self.process.poll() is None

    @property
    def said(self):
        """What it has told people, without its progress."""
        lines = self._paths[1].read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if not _PROGRESS.match(line))

    @property
    def summary(self):
        """What it says in the end; empty before."""
        text = self._paths[0].read_text()
        return json.loads(text) if text.startswith("{") else {}

    def end(self, number=signal.SIGINT, patience=60.0):
        """Send a signal, 0 for none, and wait; return the exit code, -9 where it never ended."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def small_disk(folder, mib):
    """Yield what fills up a folder under a program, and says how.

    Root gets a file system of that size; otherwise files of the program may not grow any more.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", folder]
    done = os.geteuid() == 0 and not subprocess.run(mount, check=False).returncode

    def fill(program):
        if done:
            with contextlib.suppress(OSError), (folder / "filler").open("wb", 0) as file:
                while file.write(bytes(1 << 16)):
                    pass
            return "file system"
        least = min(path.stat().st_size for path in folder.iterdir())
        resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (least, least))
        return "size of files"

    try:
        yield fill
    finally:
        if done:
            subprocess.run(["umount", "-l", folder], check=False)


def until(true, seconds):
    """Wait for something; return how long it took, above 0; None where it did not come."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if true():
            return max(time.monotonic() - begin, 1e-3)
        time.sleep(0.05)
    return None
