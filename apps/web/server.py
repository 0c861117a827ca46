"""A page for browsers: the newest frame as MJPEG, from the standard library's HTTP server."""

from __future__ import annotations

import html
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prunus.apps.common.opencv import load_cv2
from prunus.apps.io.sources.registry import Frame, Image
from prunus.runtime.errors import SourceError

_BOUNDARY = "prunusframe"
_QUALITY = 85
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>html,body{{margin:0;height:100%;background:#14161a;color:#cfd3da;font:14px system-ui}}
body{{display:flex;flex-direction:column;align-items:center;justify-content:center}}
img{{max-width:100%;max-height:94vh;object-fit:contain}}</style>
<img src="/stream" alt="live view"><p>{title}</p></html>
"""


class NewestJpeg:
    """The newest frame as JPEG, encoded once for all viewers and only when there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._data, self._number = b"", 0
        self.viewers = 0
        self.closed = False

    def put(self, image: Image) -> None:
        """Offer a frame; the first is encoded even without viewers."""
        if self.viewers == 0 and self._number:
            return
        cv2 = load_cv2()
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if done:
            with self._changed:
                self._data, self._number = data.tobytes(), self._number + 1
                self._changed.notify_all()

    def join(self, change: int) -> None:
        """Count a viewer in (1) or out (-1)."""
        with self._changed:
            self.viewers += change

    def wait(self, seen: int, timeout: float) -> tuple[bytes, int]:
        """Return a frame newer than number `seen`, or the same one after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._number > seen, timeout)
            return self._data, self._number

    def close(self) -> None:
        """Wake all viewers for the last time."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


class WebSink:
    """Serve frames on a port; viewers that are too slow miss frames, the run never waits.

    Args:
        host: Address to listen on.
        port: Port; 0 picks a free one.

    Raises:
        SourceError: the address cannot be used.
    """

    def __init__(self, host: str, port: int) -> None:
        self._newest = NewestJpeg()
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(self._newest))
        except OSError as error:
            raise SourceError(
                f"Cannot serve on {host}:{port}: {error.strerror or error}.",
                "Choose another port: --sink web:8090",
            ) from None
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        shown = "localhost" if host in ("127.0.0.1", "::1") else host
        self.name = f"http://{shown}:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def write(self, frame: Frame, drawn: Image) -> None:
        """Show the frame to whoever is watching."""
        self._newest.put(drawn)

    def close(self) -> None:
        """End the page's stream and free the port."""
        if not self._newest.closed:
            self._newest.close()
            self._server.shutdown()
            self._server.server_close()


def open_web(text: str) -> WebSink:
    """Open ``PORT`` (this machine only) or ``ADDRESS:PORT``.

    Raises:
        SourceError: no port, or one that cannot be used.
    """
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise SourceError(
            f"Got web:{text}; expected a port.",
            "Use --sink web:8080, or web:0.0.0.0:8080 to serve all.",
        )
    return WebSink(host or "127.0.0.1", int(port))


def _part_head(length: int) -> bytes:
    return (
        f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _handler(newest: NewestJpeg) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                self._answer(
                    "text/html; charset=utf-8", _PAGE.format(title=html.escape("prunus")).encode()
                )
            elif self.path == "/frame.jpg":
                self._answer("image/jpeg", newest.wait(0, 5.0)[0])
            elif self.path == "/stream":
                self._stream()
            else:
                self.send_error(404)

        def _answer(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            newest.join(1)
            seen = 0
            try:
                while not newest.closed:
                    data, seen = newest.wait(seen, 5.0)
                    if data:
                        self.wfile.write(_part_head(len(data)) + data + b"\r\n")
                self.wfile.write(f"--{_BOUNDARY}--\r\n".encode())
            except OSError:  # the browser has gone
                pass
            finally:
                newest.join(-1)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the terminal for the progress bar."""

    return Handler
