"""The page for browsers: who may look, and what broken or hostile visitors can do."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.parse

import cv2
import numpy as np
import pytest

from prunus.apps.io.sources.registry import Frame, open_source
from prunus.apps.live.controls import Controls
from prunus.apps.pose.options import PoseOptions
from prunus.apps.web import server
from prunus.apps.web.server import WebServer, WebSink, open_web
from prunus.apps.web.showing import Showing
from prunus.runtime.errors import HostError, SourceError, UsageError
from prunus.runtime.limits import Limit


def show(sink, value):
    image = np.full((24, 32, 3), value, np.uint8)
    sink.write(Frame(0, image, "", 0), image)


@pytest.fixture
def sink():
    with contextlib.closing(WebSink("127.0.0.1", 0)) as opened:
        show(opened, 10)
        yield opened


@pytest.fixture
def shared():
    """A page that listens on all addresses."""
    with contextlib.closing(WebSink("0.0.0.0", 0)) as opened:
        show(opened, 10)
        yield opened


def ask(sink, path="/frame.jpg", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=5)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        for text in value if isinstance(value, tuple) else (value,):
            connection.putheader(name, text)
    connection.endheaders()
    answer = connection.getresponse()
    body = b"" if path.startswith(("/stream", "/live")) else answer.read()
    connection.close()
    return answer.status, body


def test_a_port_alone_listens_to_this_machine_only():
    with contextlib.closing(open_web("0")) as opened:
        assert opened.host == "127.0.0.1" and not opened.token
        others = {a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for address in others - {"127.0.0.1"}:
            if not address.startswith("127."):
                with pytest.raises(OSError):
                    socket.create_connection((address, opened.port), timeout=0.5).close()


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9000", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080"]
)
def test_names_of_this_machine_are_answered(sink, host):
    assert ask(sink, Host=host)[0] == 200
    assert ask(sink, Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example",
     "localhost@evil.example", "192.168.1.5", "", "[", ("localhost", "evil.example"), ()],
)  # fmt: skip
def test_other_names_are_refused(sink, host):
    for path in ("/", "/frame.jpg", "/stream", "/live", "/page.css", "/page.js"):
        assert ask(sink, path, Host=host)[0] == 403


def test_other_sites_are_refused(sink):
    for origin in ("http://evil.example", "null", "http://localhost:1", "http://["):
        assert ask(sink, Host="localhost:8080", Origin=origin)[0] == 403


def test_answers_are_of_no_use_to_other_sites(sink):
    connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=5)
    connection.request("GET", "/frame.jpg")
    headers = connection.getresponse().headers
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["Access-Control-Allow-Origin"] is None
    connection.close()


def test_beyond_loopback_a_token_is_needed(shared):
    token = urllib.parse.parse_qs(urllib.parse.urlsplit(shared.name).query)["token"][0]
    assert len(token) >= 20
    for path in ("/", "/frame.jpg", "/stream", "/live"):
        assert ask(shared, path)[0] == 403
        assert ask(shared, f"{path}?token=")[0] == 403
        assert ask(shared, f"{path}?token={token[:-1]}")[0] == 403
        assert ask(shared, f"{path}?token={token}")[0] == 200
    page = ask(shared, f"/?token={token}", Host="camera.local:8080")[1]
    assert f"/stream?token={token}".encode() in page
    with contextlib.closing(
        open_source(f"http://127.0.0.1:{shared.port}/stream?token={token}")
    ) as source:
        assert abs(int(next(iter(source)).image.mean()) - 10) <= 2
    with contextlib.closing(WebSink("0.0.0.0", 0)) as other:
        assert other.token != token


def test_a_token_may_be_chosen():
    with contextlib.closing(open_web("127.0.0.1:0?token=my%20own")) as opened:
        assert ask(opened, "/?token=my+own")[0] == 200
        assert ask(opened, "/")[0] == 403
    for text in ("8080?token=", "8080?tokn=a", "²", "1:²", "99999", "-1", "8080?token=a&token=b"):
        with pytest.raises(SourceError, match="expected a port"):
            open_web(text)


def test_the_newest_frame_is_served_although_nobody_watched(sink):
    for value in (100, 200):
        show(sink, value)
        image = cv2.imdecode(np.frombuffer(ask(sink)[1], np.uint8), cv2.IMREAD_COLOR)
        assert abs(int(image.mean()) - value) <= 2


def test_before_the_first_frame_there_is_none(monkeypatch):
    monkeypatch.setattr(server, "_WAIT_S", 0.05)
    with contextlib.closing(WebSink("127.0.0.1", 0)) as empty:
        assert ask(empty)[0] == 503


def test_so_many_connections_and_no_more(monkeypatch):
    monkeypatch.setattr(server, "WEB_CONNECTIONS", Limit("connections", 3, "connections"))
    with contextlib.closing(WebSink("127.0.0.1", 0)) as opened, contextlib.ExitStack() as stack:
        show(opened, 10)
        address = ("127.0.0.1", opened.port)
        idle = [stack.enter_context(socket.create_connection(address, 5)) for _ in range(3)]
        fourth = stack.enter_context(socket.create_connection(address, 5))
        with contextlib.suppress(ConnectionError):  # closed, or reset, at once
            assert fourth.recv(1) == b""
        for connection in idle:  # each ends its request, which frees a place
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            while connection.recv(4096):
                pass
        for _ in range(1000):  # the place is free a moment after the answer's end
            with contextlib.suppress(ConnectionError):
                assert ask(opened)[0] == 200
                break
        else:
            pytest.fail("no place became free")


def test_a_request_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    with contextlib.closing(WebSink("127.0.0.1", 0)) as opened:
        started = time.monotonic()
        with socket.create_connection(("127.0.0.1", opened.port), 5) as connection:
            connection.settimeout(0.02)
            connection.sendall(b"GET / HTTP/1.1\r\n")
            while time.monotonic() - started < 4:  # a byte now and then does not help
                try:
                    connection.sendall(b"a")
                    if connection.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
        assert time.monotonic() - started < 3


def test_viewers_that_leave_say_nothing_on_the_terminal(sink, capfd):
    with socket.create_connection(("127.0.0.1", sink.port), 5) as connection:
        connection.sendall(b"GET http://[ HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b"404" in connection.recv(100)
    for path in ("/stream", "/frame.jpg", "/"):
        with socket.create_connection(("127.0.0.1", sink.port), 5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        for value in range(20):
            show(sink, value)
    assert ask(sink)[0] == 200
    sink.close()
    captured = capfd.readouterr()
    assert captured.err == "" and captured.out == ""


@pytest.fixture
def controls(sink):
    """The controls of a run that the page is told about."""
    controls = Controls(PoseOptions(), {"conf": "Threshold"}, {"conf": 0.15})
    sink.introduce({"model": "net", "source": "<street>.mp4", "skeleton": {}}, controls)
    return controls


class Viewer:
    """Reads what a page reads."""

    def __init__(self, sink, path="/live"):
        self.connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=20)
        self.connection.request("GET", path)
        self.answer = self.connection.getresponse()
        self.status = self.answer.status

    def read(self):
        """Return the next line, and the mean of its picture (None without one)."""
        line = json.loads(self.answer.readline())
        assert isinstance(line["ended"], bool)
        data = self.answer.read(line["bytes"])
        assert len(data) == line["bytes"]
        if not data:
            return line, None
        return line, float(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).mean())

    def close(self):
        self.answer.close()
        self.connection.close()

    def until(self, wanted):
        for _ in range(1000):
            line, mean = self.read()
            if wanted(line, mean):
                return line, mean
        pytest.fail("it never came")


@contextlib.contextmanager
def watching(sink, path="/live"):
    with contextlib.closing(Viewer(sink, path)) as viewer:
        yield viewer


def post(sink, body, path="/control", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=20)
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    plain = answer.headers["Content-Type"] != "application/json"
    return answer.status, text if plain else json.loads(text)


def test_the_page_is_whole_and_names_what_runs(sink, controls):
    page = ask(sink, "/")[1].decode()
    assert "<title>net - &lt;street&gt;.mp4</title>" in page and "<street>" not in page
    assert "{title}" not in page and "{stream}" not in page
    assert "<script>" not in page and " style=" not in page and " onclick=" not in page
    for name, kind in (("page.css", "--ground"), ("page.js", "watch();")):
        assert f'"{name}"' in page and kind in ask(sink, f"/{name}")[1].decode()
    for path in ("/index.html", "/page/page.js", "/../server.py", "/page.js/", "/%2e%2e/server.py"):
        assert ask(sink, path)[0] == 404


def test_style_and_script_are_not_secret(shared):
    assert ask(shared, "/page.css")[0] == ask(shared, "/page.js")[0] == 200


def test_a_viewer_gets_data_with_its_picture(sink, controls):
    with watching(sink) as viewer:
        line, mean = viewer.read()
        assert line["head"]["source"] == "<street>.mp4" and line["values"] == controls.values()
        assert [c["name"] for c in line["head"]["controls"]] == ["conf", "paused"]
        assert line["frame"] == 0 and line["drawn"] and abs(mean - 10) <= 2
        assert sink.watched
        clean, drawn = np.full((24, 32, 3), 40, np.uint8), np.full((24, 32, 3), 90, np.uint8)
        sink.tell(clean, {"overlay": [{"id": 1}], "facts": {"People": "1"}})
        sink.write(Frame(7, drawn, "", time.perf_counter_ns()), drawn)
        line, mean = viewer.until(lambda line, _: line.get("frame") == 7)
        assert abs(mean - 40) <= 2 and not line["drawn"] and "head" not in line
        assert line["overlay"] == [{"id": 1}] and (line["width"], line["height"]) == (32, 24)
        assert 0 <= line["latency_ms"] < 60_000
        with watching(sink, "/live?drawn=1") as other:  # another viewer wants it burnt in
            line, mean = other.read()
            assert abs(mean - 90) <= 2 and line["drawn"] and line["overlay"] == [{"id": 1}]
        show(sink, 120)  # no clean picture, no data: what there is
        line, mean = viewer.until(lambda line, _: line["bytes"])
        assert line["drawn"] and "overlay" not in line and abs(mean - 120) <= 2


def test_nobody_watches_when_all_have_left(sink):
    assert not sink.watched
    with watching(sink) as viewer:
        viewer.read()
        assert sink.watched
    for value in range(200):  # the server learns it from writing in vain
        show(sink, value)
        assert ask(sink)[0] == 200
        if not sink.watched:
            return
    pytest.fail("a viewer that left is still counted")


def test_a_page_that_is_opened_early_learns_the_rest_later(monkeypatch):
    monkeypatch.setattr(server, "_WAIT_S", 0.05)
    with contextlib.closing(WebSink("127.0.0.1", 0)) as opened, watching(opened) as viewer:
        for _ in range(3):  # a sign of life while a model is loaded
            assert viewer.read() == ({"bytes": 0, "ended": False}, None)
        assert post(opened, {"conf": 0.5})[0] == 503
        opened.introduce({"model": "net", "source": "a"}, Controls(PoseOptions(), {}))
        assert viewer.until(lambda line, _: "head" in line)[0]["head"]["model"] == "net"


def test_controls_reach_the_run_and_all_viewers(sink, controls):
    with watching(sink) as one, watching(sink) as two:
        for viewer in (one, two):
            viewer.until(lambda line, _: line["bytes"])
        status, values = post(sink, {"conf": 0.4, "paused": True})
        assert status == 200 and values == controls.values() == {"conf": 0.4, "paused": True}
        for viewer in (one, two):
            line, _ = viewer.until(lambda line, _: line["values"] == values)
            assert not line["ended"] and line["bytes"] == 0  # the picture is known


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"conf": 1.5}, "Got --conf 1.5; expected 0 to 1."),
        ({"conf": "high"}, "expected a number"),
        ({"level": "L9"}, "no control 'level'"),
        ([1], "expected a JSON object"),
        (b"", "expected a JSON object"),
        (b"{", "expected a JSON object"),
        (b"[" * 4000, "expected a JSON object"),
        (b"\xff\xfe{}", "expected a JSON object"),
        (b'{"conf": NaN}', "expected a number"),
        (b" " * 4097, "the length is 4097 bytes; expected at most 4096"),
        (b" " * 60_000, "the length is 60000 bytes; expected at most 4096"),
    ],
)
def test_a_control_that_cannot_be_gets_one_clear_answer(sink, controls, body, said):
    before = controls.values()
    status, answer = post(sink, body)
    assert status == 400 and said in answer["error"]
    assert controls.values() == before and post(sink, {"conf": 0.2})[0] == 200


def test_controls_are_as_safe_as_the_picture(sink, controls, shared):
    for origin in ("http://evil.example", "null", "http://localhost:1"):
        assert post(sink, {"conf": 0.5}, Origin=origin)[0] == 403
    assert post(sink, {"conf": 0.5}, Host="evil.example")[0] == 403
    assert post(sink, {"conf": 0.5}, path="/")[0] == 404
    assert controls["conf"] == 0.15
    shared.introduce({"model": "net", "source": "a"}, controls)
    assert post(shared, {"conf": 0.5})[0] == 403
    assert post(shared, {"conf": 0.5}, path="/control?token=guess")[0] == 403
    assert controls["conf"] == 0.15
    assert post(shared, {"conf": 0.5}, path=f"/control?token={shared.token}")[0] == 200
    own = f"http://localhost:{sink.port}"
    assert post(sink, {"conf": 0.6}, Origin=own, Host=f"localhost:{sink.port}")[0] == 200
    assert ask(sink, "/control")[0] == 404


def test_a_body_that_never_comes_is_not_waited_for(sink, controls, monkeypatch):
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    with socket.create_connection(("127.0.0.1", sink.port), 5) as connection:
        connection.sendall(b"POST /control HTTP/1.0\r\nHost: localhost\r\n"
                           b"Content-Length: 20\r\n\r\n{")  # fmt: skip
        assert connection.recv(100) == b""


def test_two_hundred_viewers_are_answered_and_the_run_goes_on(sink, controls):
    answers = []

    def come():
        with contextlib.suppress(ConnectionError):  # where even refusals are too many
            answers.append(Viewer(sink))

    threads = [threading.Thread(target=come) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    statuses = [viewer.status for viewer in answers]
    assert statuses.count(200) == 24 and set(statuses) == {200, 503} and len(statuses) > 30
    assert ask(sink, "/page.js")[0] == 200  # short requests have places of their own
    assert post(sink, {"conf": 0.3})[0] == 200
    watchers = [viewer for viewer in answers if viewer.status == 200]
    show(sink, 77)
    for viewer in watchers:
        viewer.until(lambda line, mean: mean is not None and abs(mean - 77) <= 2)
    for viewer in answers:
        viewer.close()


def test_who_never_reads_holds_up_nobody(sink, controls, monkeypatch):
    monkeypatch.setattr(server, "REQUEST_S", 0.5)
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    with socket.socket() as deaf, watching(sink) as viewer:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", sink.port))
        deaf.sendall(b"GET /live HTTP/1.0\r\nHost: localhost\r\n\r\n")
        for index in range(1, 12):  # some 5 MB, of which the deaf one takes next to nothing
            sink.write(Frame(index, noise, "", 0), noise)
            viewer.until(lambda line, _, index=index: line.get("frame") == index)
        while sink._server.viewers > 1:  # and is let go
            show(sink, 1)
            viewer.read()


def test_the_end_is_told_to_whoever_watches(sink, controls):
    viewers = [Viewer(sink) for _ in range(3)]
    for viewer in viewers:
        viewer.read()
    show(sink, 200)
    sink.close()
    for viewer in viewers:
        viewer.until(lambda line, _: line["ended"])
        assert viewer.answer.read() == b""
        viewer.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", sink.port), 1)


def test_a_port_that_is_taken_is_told(sink):
    with pytest.raises(SourceError, match=f"Cannot serve on 127.0.0.1:{sink.port}.*in use"):
        open_web(str(sink.port))


class Desk:
    """Takes offers: says what came."""

    sound = True

    def take(self, message):
        if "sdp" not in message:
            raise UsageError("Got no description.", "Load the page anew.")
        if message["sdp"] == "second":
            raise HostError("Another camera is on.", "Wait until it has gone.")
        return {"type": "answer", "sdp": message["sdp"][::-1]}


@pytest.fixture
def live():
    with contextlib.closing(WebServer("127.0.0.1", 0, offers=Desk())) as opened:
        yield opened


def test_a_page_that_takes_cameras_says_so_and_others_do_not(live, sink):
    page = ask(live, "/")[1].decode()
    assert 'data-sound="yes"' in page and "camera.js" in page and "{camera}" not in page
    assert "getUserMedia" in ask(live, "/camera.js")[1].decode()
    plain = ask(sink, "/")[1].decode()
    assert "camera.js" not in plain and "{camera}" not in plain
    assert post(sink, {"sdp": "v=0"}, path="/offer")[0] == 404


def test_an_offer_is_answered_refused_or_told_to_wait(live):
    assert post(live, {"sdp": "v=0"}, path="/offer") == (200, {"type": "answer", "sdp": "0=v"})
    assert post(live, {}, path="/offer") == (
        400, {"error": "Got no description.", "hint": "Load the page anew."}
    )  # fmt: skip
    status, told = post(live, {"sdp": "second"}, path="/offer")
    assert status == 503 and told["error"] == "Another camera is on."
    for body in (b"{", b"[1]", b"\xff", b"v=0\r\n"):
        assert post(live, body, path="/offer")[0] == 400
    status, told = post(live, b" " * (32 * 1024 + 1), path="/offer")
    assert status == 400 and "expected at most 32768" in told["error"]
    assert post(live, {"sdp": "v=0", "more": "x" * 8000}, path="/offer")[0] == 200


def test_offers_are_as_safe_as_the_picture(live):
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        assert post(live, {"sdp": "v=0"}, path="/offer", **headers)[0] == 403
    with contextlib.closing(WebServer("0.0.0.0", 0, offers=Desk())) as shared:
        assert post(shared, {"sdp": "v=0"}, path="/offer")[0] == 403
        assert post(shared, {"sdp": "v=0"}, path="/offer?token=guess")[0] == 403
        path = f"/offer?token={shared.token}"
        assert post(shared, {"sdp": "v=0"}, path=path)[0] == 200


def test_a_viewer_waits_for_a_run_sees_its_end_and_that_of_the_server(live):
    with watching(live) as early:
        assert early.read() == ({"bytes": 0, "ended": False}, None)
        run = Showing(live)
        assert run.watched
        run.introduce({"model": "net", "source": "a"}, Controls(PoseOptions(), {}))
        show(run, 60)
        line, mean = early.until(lambda line, _: line["bytes"])
        assert not line["ended"] and abs(mean - 60) <= 2
        run.close()
        assert early.until(lambda line, _: line["ended"])
    Showing(live)
    with watching(live) as late:
        assert late.read() == ({"bytes": 0, "ended": False}, None)
        assert post(live, {"conf": 0.5})[0] == 503
        live.close()
        assert late.until(lambda line, _: line["ended"])
    with contextlib.closing(WebServer("127.0.0.1", live.port)):  # the port is free again
        pass


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Return a context of a server, and one that trusts it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "box.pem"
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(
        made.public_bytes(encoding)
        + key.private_bytes(encoding, form, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, ssl.create_default_context(cafile=str(path))


def test_an_encrypted_page_answers_and_is_not_held_up_by_who_says_nothing(tls, monkeypatch):
    monkeypatch.setattr(server, "REQUEST_S", 0.5)
    with contextlib.closing(WebServer("127.0.0.1", 0, tls=tls[0], offers=Desk())) as opened:
        assert opened.name == f"https://localhost:{opened.port}/"
        address = ("127.0.0.1", opened.port)
        with socket.create_connection(address, 5) as silent:
            for _ in range(2):
                connection = http.client.HTTPSConnection(
                    "localhost", opened.port, timeout=5, context=tls[1]
                )
                connection.request("POST", "/offer", json.dumps({"sdp": "v=0"}),
                                   {"Origin": f"https://localhost:{opened.port}"})  # fmt: skip
                assert json.loads(connection.getresponse().read())["sdp"] == "0=v"
                connection.close()
            assert silent.recv(1) == b""  # let go
        with socket.create_connection(address, 5) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert b"HTTP" not in plain.recv(1000)
