"""Who takes part in a soak: cameras, a viewer, programs with their memory, places that fill up."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

from prunus.apps.bench.picture_delay import draw_number, read_number
from prunus.apps.io.sources.http import open_http
from prunus.apps.io.sources.synthetic import open_synthetic
from prunus.runtime.errors import PrunusError

SIZE = (320, 240)
_TURN = 60  # different pictures
_NUMBERS = 1 << 16
_BOUNDARY = b"frame"
_PROGRESS = re.compile(r"\w+: \d+( %)? \(")


class Camera:
    """MJPEG of the bundled portrait over loopback; each frame carries its number.

    Args:
        fps: Frames a second.

    Attributes:
        sent: When each number was given away, on `time.monotonic`.
        cut: Whether pictures break off in the middle.
    """

    def __init__(self, fps: float) -> None:
        self.fps, self.cut, self.sent = fps, False, np.zeros(_NUMBERS)
        source = open_synthetic(f"synthetic:{SIZE[0]}x{SIZE[1]}@0*{_TURN}")
        self._pictures = [frame.image for frame in source]
        self._began, self._server = time.monotonic(), None
        self.port = 0
        self.plug()

    def plug(self) -> None:
        """Serve, on the same port as before."""
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header(
                    "Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}"
                )
                self.end_headers()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
                with contextlib.suppress(OSError):
                    while camera._server is self.server:
                        data = camera._next()
                        head = b"Content-Type: image/jpeg\r\nContent-Length: %d" % len(data)
                        self.wfile.write(b"--%s\r\n%s\r\n\r\n%s\r\n" % (_BOUNDARY, head, data))

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads, allow_reuse_address = True, True

            def handle_error(self, *_: object) -> None:
                """A client that left is none of our business."""

        server = Server(("127.0.0.1", self.port), Handler)
        self._server, self.port = server, server.server_port
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def unplug(self) -> None:
        """Be gone, in the middle of whatever is being sent."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def _next(self) -> bytes:
        number = int((time.monotonic() - self._began) * self.fps) + 1
        time.sleep(max(self._began + number / self.fps - time.monotonic(), 0.0))
        image = self._pictures[number % _TURN].copy()
        draw_number(image, number % _NUMBERS)
        data: bytes = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        self.sent[number % _NUMBERS] = time.monotonic()
        return data[: len(data) // 2] if self.cut else data


class Viewer:
    """Somebody at the page of a run: reads off each picture how late it is.

    Args:
        port: Of the page.
        camera: Whose numbers are in the pictures.

    Attributes:
        seen: When a picture came, on `time.monotonic`, and its age in seconds.
    """

    def __init__(self, port: int, camera: Camera) -> None:
        self.seen: list[tuple[float, float]] = []
        self._address, self._camera, self._last = f"http://127.0.0.1:{port}", camera, -1
        threading.Thread(target=self._look, daemon=True).start()

    def choose(self, source: str) -> None:
        """Have the page show one source; raises OSError."""
        request = urllib.request.Request(
            f"{self._address}/control", json.dumps({"shown": source}).encode()
        )
        urllib.request.urlopen(request, timeout=20).close()

    def _look(self) -> None:
        while True:
            with contextlib.suppress(PrunusError, OSError):
                for frame in open_http(f"{self._address}/stream"):
                    now, number = time.monotonic(), read_number(frame.image)
                    if number is not None and number != self._last and self._camera.sent[number]:
                        self._last = number
                        self.seen.append((now, now - self._camera.sent[number]))
            time.sleep(0.2)

    def between(self, begin: float, end: float) -> np.ndarray:
        """Return times and ages of the pictures that came meanwhile: (count, 2)."""
        return np.array([s for s in tuple(self.seen) if begin <= s[0] < end]).reshape(-1, 2)


class Program:
    """A `prunus` that runs, what it says, and how much memory it has.

    Attributes:
        memory: Time on `time.monotonic` and resident MiB, each second.
    """

    def __init__(self, folder: Path, name: str, *words: object, **environment: str) -> None:
        self.name, self.memory = name, []
        self._said = (folder / f"{name}.err").open("w+")
        self._out = (folder / f"{name}.out").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prunus", "run", *map(str, words), "--json"],
            stdout=self._out, stderr=self._said,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        threading.Thread(target=self._weigh, daemon=True).start()

    def _weigh(self) -> None:
        page = resource.getpagesize() / 2**20
        while self.process.poll() is None:
            with contextlib.suppress(OSError, IndexError):
                resident = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
                self.memory.append((time.monotonic(), int(resident) * page))
            time.sleep(1.0)

    @property
    def said(self) -> str:
        """What it has told so far, without its progress."""
        lines = Path(self._said.name).read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if not _PROGRESS.match(line))

    @property
    def summary(self) -> dict:
        """What it says in the end."""
        text = Path(self._out.name).read_text()
        return json.loads(text) if text.startswith("{") else {}

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def end(self, patience: float = 60.0) -> int:
        """Stop it as Ctrl-C does; return its exit code, -9 where it has to be killed."""
        self.send(signal.SIGINT)
        return self.wait(patience)

    def wait(self, patience: float) -> int:
        """Wait for its end; return its exit code, -9 where it has to be killed."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Callable[[Program], str]]:
    """Make a folder small; yield what fills it up, and says how.

    Root gets a file system of that size. Without one, files of the program may not grow any more.
    """
    folder.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", folder],
        check=False, capture_output=True,
    ).returncode  # fmt: skip

    def fill(program: Program) -> str:
        if mounted:
            with contextlib.suppress(OSError), (folder / "filler").open("wb", 0) as file:
                while file.write(bytes(1 << 16)):
                    pass
            return f"file system of {mib} MiB"
        least = min((path.stat().st_size for path in folder.iterdir()), default=0)
        resource.prlimit(program.process.pid, resource.RLIMIT_FSIZE, (least, least))
        return "limit of the size of files"

    try:
        yield fill
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=False)


def until(true: Callable[[], object], seconds: float) -> float | None:
    """Wait for something; return how long it took, None where it did not come."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if true():
            return time.monotonic() - begin
        time.sleep(0.05)
    return None
