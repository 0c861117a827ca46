"""RTSP: a small camera of our own sends MPEG-TS in RTP over the connection (RFC 2326, RFC 2250)."""

import contextlib
import io
import itertools
import socket
import struct
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from prunus.apps.io.sources.reconnect import ReconnectingSource
from prunus.apps.io.sources.registry import open_source
from prunus.apps.io.sources.stream import StreamSource
from prunus.runtime.errors import SourceError

av = pytest.importorskip("av")
SIZE = (64, 48)


def transport_stream(count: int) -> bytes:
    """`count` pictures, each of one grey level: 20 and four times its number."""
    data = io.BytesIO()
    with av.open(data, "w", "mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.gop_size, stream.max_b_frames = 1, 0
        for k in range(count):
            image = np.full((SIZE[1], SIZE[0], 3), 20 + 4 * k, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, "bgr24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return data.getvalue()


class Camera:
    """Answers connections one after the other.

    Args:
        connections: For each connection what it sends, and whether the camera stays silent
            afterwards instead of hanging up; None: it takes the connection and says nothing.
    """

    def __init__(self, connections) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.uri = f"rtsp://me:secret@127.0.0.1:{self._socket.getsockname()[1]}/door"
        self._connections, self._open = connections, []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for behaviour in self._connections:
            with contextlib.suppress(OSError):
                connection, _ = self._socket.accept()
                self._open.append(connection)
                if behaviour is not None:
                    self._talk(connection, *behaviour)
        self._socket.close()

    def _talk(self, connection, data, silent) -> None:
        file = connection.makefile("rwb")
        sdp = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=door\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n" \
              "m=video 0 RTP/AVP 33\r\na=control:track1\r\n"  # fmt: skip
        while request := file.readline():
            header = {}
            while line := file.readline().strip():
                name, _, value = line.partition(b":")
                header[name.strip().lower()] = value.strip()
            verb = request.split()[0]
            more, body = "", ""
            if verb == b"OPTIONS":
                more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif verb == b"DESCRIBE":
                more, body = f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n", sdp
            elif verb == b"SETUP":
                more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            elif verb == b"PLAY":
                more = "Session: 1\r\n"
            sequence = header.get(b"cseq", b"0").decode()
            file.write(f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{more}\r\n{body}".encode())
            file.flush()
            if verb == b"PLAY":
                break
        for number, start in enumerate(range(0, len(data), 7 * 188)):
            part = data[start : start + 7 * 188]
            packet = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, 90 * number, 7) + part
            file.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
        file.flush()
        if not silent:
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def close(self) -> None:
        for connection in (*self._open, self._socket):
            connection.close()


@pytest.fixture
def camera():
    cameras = []

    def start(*connections):
        cameras.append(Camera(connections))
        return cameras[-1].uri

    yield start
    for each in cameras:
        each.close()


def test_pictures_come_in_order_at_the_camera_s_pace(camera, monkeypatch) -> None:
    uri = camera((transport_stream(50), True))
    monkeypatch.setattr("prunus.apps.io.sources.stream.PICTURE_S", 1.0)
    with contextlib.closing(StreamSource(uri)) as source:
        assert (source.info.kind, source.info.live) == ("stream", True)
        assert (source.info.width, source.info.height) == SIZE
        frames = list(itertools.islice(iter(source), 15))
    levels = [float(frame.image.mean()) for frame in frames]
    assert np.allclose(levels, 20 + 4 * np.arange(15), atol=3.9)
    assert [frame.index for frame in frames] == list(range(15))
    times = np.diff([frame.captured_ns for frame in frames])
    assert (times >= 0).all()


def test_a_camera_that_hangs_up_is_an_error_that_hides_the_password(camera) -> None:
    uri = camera((transport_stream(50), False))
    with contextlib.closing(StreamSource(uri)) as source:
        seen = []
        with pytest.raises(SourceError, match="stopped") as caught:
            seen.extend(iter(source))
        assert "secret" not in str(caught.value) and "me:***@" in caught.value.message


def test_a_camera_that_comes_back_goes_on(camera) -> None:
    uri = camera((transport_stream(30), False), (transport_stream(30), False))
    source = ReconnectingSource(
        StreamSource(uri), lambda: StreamSource(uri), "door", first_wait=0.01, patience=0.05
    )
    frames = []
    with contextlib.closing(source), pytest.raises(SourceError, match="did not come back"):
        for frame in source:
            frames.append(frame)
    assert len(frames) > 50
    assert [frame.index for frame in frames] == list(range(len(frames)))
    times = [frame.captured_ns for frame in frames]
    assert times == sorted(times)
    assert any("was interrupted" in line for line in source.warnings)


@pytest.mark.parametrize("silent", [None, (b"", True), (b"\x00" * 18800, True)])
def test_a_camera_that_says_nothing_is_given_up_in_time(camera, monkeypatch, silent) -> None:
    monkeypatch.setattr("prunus.apps.io.sources.stream.ANSWER_S", 0.3)
    with pytest.raises(SourceError, match="No stream answers at rtsp://me:"):
        open_source(camera(silent))


def test_a_closed_source_ends_quietly(camera) -> None:
    source = StreamSource(camera((transport_stream(50), True)))
    frames = iter(source)
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []


@contextlib.contextmanager
def web(**files):
    """Serve files by name: kind and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            kind, body = files[self.path.strip("/").partition(".")[0]]
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def playlist(name: str) -> tuple[str, bytes]:
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.4,\n{name}\n#EXT-X-ENDLIST\n"
    return "application/vnd.apple.mpegurl", text.encode()


def test_a_playlist_may_not_name_files_of_this_machine(tmp_path) -> None:
    clip = tmp_path / "private.ts"
    clip.write_bytes(transport_stream(10))
    with web(list=playlist(f"file://{clip}")) as address, pytest.raises(SourceError):
        open_source(f"{address}/list.m3u8")


def test_a_film_in_pieces_ends_where_it_ends() -> None:
    files = {"list": playlist("a.ts"), "a": ("video/mp2t", transport_stream(10))}
    with web(**files) as address:
        with contextlib.closing(StreamSource(f"{address}/list.m3u8")) as source:
            assert len(list(source)) == 10
