"""A server under load: when requests come, whose waiting counts, and where the knee is."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from prunus.apps.bench import load
from prunus.apps.bench.load import Caller, Load, LoadCurve, arrivals, offer
from prunus.apps.common.media import PORTRAIT
from prunus.runtime.progress import Silent


def test_arrivals_are_a_poisson_process():
    times = arrivals(50.0, 400.0, 1)
    gaps = np.diff(times)
    assert abs(len(times) / 400 - 50) < 1.5 and (gaps > 0).all() and times[-1] < 400
    assert abs(gaps.std() / gaps.mean() - 1) < 0.03  # as the exponential distribution
    np.testing.assert_array_equal(times, arrivals(50.0, 400.0, 1))
    assert not np.array_equal(times[:9], arrivals(50.0, 400.0, 2)[:9])
    assert len(arrivals(0.01, 0.1, 0)) == 1


class Clock:
    """A clock that goes on when somebody waits."""

    now = 0.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


def test_a_request_that_was_held_up_has_waited():
    clock = Clock()

    def ask():
        clock.wait(1.0)
        return "200"

    load = offer([ask], np.array([0.5, 0.6, 0.7, 4.5]), clock, clock.wait)
    # Done at 1.5, 2.5, 3.5 and 5.5.
    assert load.p50_ms == pytest.approx(1450) and load.p99_ms == pytest.approx(2800)
    assert load.answered == pytest.approx(4 / 5.5) and load.offered == pytest.approx(4 / 4.5)
    assert not load.refused


def test_what_is_refused_is_counted_and_has_no_latency():
    clock, answers = Clock(), iter(["200", "429", "TimeoutError", "429"])
    load = offer([lambda: next(answers)], np.arange(1.0, 5.0), clock, clock.wait)
    assert load.refused == {"429": 2, "TimeoutError": 1} and load.answered == pytest.approx(1 / 4)
    nothing = offer([lambda: "500"], np.array([1.0]), clock, clock.wait)
    assert np.isnan(nothing.p50_ms) and nothing.answered == 0


def _load(offered, answered, p99, refused=None):
    return Load(offered, answered, p99 / 2, p99, refused or {})


@pytest.mark.parametrize(
    ("loads", "knee", "beyond"),
    [
        ([(1, 1, 10), (2, 2, 12), (4, 3.9, 29), (8, 6, 400)], 4, False),
        ([(1, 1, 10), (2, 2, 31), (4, 4, 12)], 1, False),  # after a bad rate nothing counts
        ([(1, 1, 10), (2, 2, 12, {"429": 1})], 1, False),
        ([(1, 1, 10), (2, 2, 12)], 2, True),
        ([(1, 0.9, 10)], None, False),
        ([(1, 0, float("nan"))], None, False),
    ],
)
def test_the_knee_is_the_last_rate_served_well(loads, knee, beyond):
    curve = LoadCurve("s", 4, 5.0, tuple(_load(*one) for one in loads))
    assert curve.knee() == knee
    told = json.loads(curve.to_json())
    assert told["knee"] == knee and len(told["loads"]) == len(loads)
    told_end = curve.to_text().splitlines()[-1]
    assert told_end.endswith(
        "no rate was served well" if knee is None else f" {knee:.1f} requests/s"
    )
    assert curve.is_open() == told["knee_is_beyond"] == ("no knee up to" in told_end) == beyond


class Seen(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests: list

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append((self.path, dict(self.headers), body))
        self.send_response(404 if "nothing" in self.path else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *words):
        pass


@contextmanager
def _listening():
    seen = type("Own", (Seen,), {"requests": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), seen) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen.requests
        finally:
            server.shutdown()
            thread.join()


def test_a_caller_speaks_to_both_kinds_of_servers():
    with _listening() as (url, seen):
        for model, token in (("", "s3cret"), ("a b", "")):
            caller = Caller(url, model, b"picture", token)
            assert caller() == caller() == "200"
            caller.close()
    (path, headers, body), _, (infer, wrapped, whole), _ = seen
    assert (path, body, headers["Authorization"]) == ("/predict", b"picture", "Bearer s3cret")
    assert infer == "/v2/models/a%20b/infer" and "Authorization" not in wrapped
    size = int(wrapped["Inference-Header-Content-Length"])
    [given] = json.loads(whole[:size])["inputs"]
    assert given["parameters"]["binary_data_size"] == len(whole) - size
    assert whole[size:] == b"\7\0\0\0picture"


def test_the_verb_offers_the_rates_that_it_is_given(prunus, tmp_path):
    with _listening() as (url, seen):
        words = ("--rate", 400, "--rate", 200, "--seconds", 0.1, "--clients", 3)
        ran = prunus("bench", "--server", url, *words, "-o", tmp_path / "load.json", "--json")
    assert ran.code == 0, ran.err
    told = json.loads((tmp_path / "load.json").read_text())
    assert told == json.loads(ran.out) and told["clients"] == 3 and told["server"] == url
    expected = [len(arrivals(rate, 0.1, k)) for k, rate in enumerate((200, 400))]
    assert len(seen) == 1 + 6 + sum(expected)
    assert all(body == PORTRAIT.read_bytes() for _, _, body in seen)
    assert [load["refused"] for load in told["loads"]] == [{}, {}]


def test_rates_rise_until_the_server_falls_behind(monkeypatch):
    tried = []

    def pretend(callers, due):
        if len(tried) < 1:  # as many as come at once
            tried.append(None)
            return _load(1.0, 10.0, 1.0)
        tried.append(due)
        return _load(rate := wanted(len(tried) - 2), min(rate, 19.0), 10.0)

    def wanted(k):
        return 10 * load.SHARES[k] if k < 8 else 12 * load.FURTHER ** (k - 7)

    with _listening() as (url, _):
        monkeypatch.setattr(load, "offer", pretend)
        curve = load.measure_load(url, "", b"x", Silent(), clients=2, seconds=0.01)
    assert [one.offered for one in curve.loads] == pytest.approx([wanted(k) for k in range(11)])
    assert curve.knee() == pytest.approx(12 * 1.25**2) and not curve.is_open()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing argument 'MODEL'"),
        (["--server", "http://127.0.0.1:1"], "answered ConnectionRefusedError to one request"),
        (["--server", "ftp://x"], "expected http://HOST:PORT"),
        (["--server", "http://x:port"], "expected http://HOST:PORT"),
        (["a", "b", "--server", "http://127.0.0.1:1"], "Got 2 models and --server"),
        (["--server", "http://127.0.0.1:1", "--body", "no.jpg"], "Cannot read no.jpg"),
        (["--server", "http://127.0.0.1:1", "--rate", "0"], "--rate"),
        (["--server", "http://127.0.0.1:1", "--backend", "openvino"], "--backend with --server"),
        (["--server", "http://127.0.0.1:1", "--rounds", "2"], "--rounds with --server"),
        (["selfie", "--rate", "5"], "--rate without --server"),
        (["selfie", "--body", "a.jpg"], "--body without --server"),
    ],
)
def test_what_cannot_be_asked_is_one_error(prunus, words, said):
    ran = prunus("bench", *words)
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err


def test_a_model_that_is_not_there_is_told_before_the_load(prunus):
    with _listening() as (url, seen):
        ran = prunus("bench", "nothing", "--server", url)
    assert ran.code == 2 and "answered 404" in ran.err and len(seen) == 1


def test_a_result_that_cannot_be_written_is_told_before_the_load(prunus, tmp_path):
    with _listening() as (url, seen):
        ran = prunus("bench", "--server", url, "-o", tmp_path / "no" / "load.json")
    assert ran.code == 2 and "does not exist" in ran.err and not seen


def test_after_a_stop_no_more_requests_are_sent(monkeypatch):
    asked, begun = [], threading.Event()

    def ask():
        asked.append(None)
        begun.set()
        return "200"

    class Stopped(ThreadPoolExecutor):
        def map(self, *args):
            super().map(*args)
            begun.wait()
            raise KeyboardInterrupt

    monkeypatch.setattr(load, "ThreadPoolExecutor", Stopped)
    with pytest.raises(KeyboardInterrupt):
        offer([ask, ask], np.array([0.0, 20.0]))
    assert len(asked) == 1
