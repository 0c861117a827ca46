"""`prunus serve live` as people start it, with a browser of the tests before it."""

import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from prunus.apps.common.media import PORTRAIT
from prunus.apps.webrtc import command
from prunus.apps.webrtc.options import Door
from prunus.runtime.errors import SourceError, UsageError


@contextmanager
def started(*words):
    """Run the command; yield its port, and end it as a service manager does."""
    program = [sys.executable, "-m", "prunus.apps.cli.main", "serve", "live", *map(str, words)]
    with subprocess.Popen(
        [*program, "--port", "0", "--threads", "1", "--json", "--backend", "onnxruntime"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        told = {}
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said = json.loads(line)
            yield int(re.fullmatch(r"http://localhost:(\d+)/", said["url"])[1]), told
        finally:
            process.send_signal(signal.SIGTERM)
            told["out"], told["err"] = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in told["err"], told["err"]


def post(port, path, message):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", path, json.dumps(message))
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def lines(port):
    """Yield what the page reads."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/live")
    answer = connection.getresponse()
    ended = False
    while not ended:
        line = json.loads(answer.readline())
        answer.read(line["bytes"])
        ended = line["ended"]
        yield line
    connection.close()


def until(found, wanted):
    return next(line for line in found if wanted(line))


def walking(index):
    """Return 320x240 BGR: the portrait, which moves to the right and back."""
    picture = cv2.resize(cv2.imread(str(PORTRAIT)), (200, 240))
    scene = np.full((240, 320, 3), 96, np.uint8)
    left = abs(4 * index % 240 - 120)
    scene[:, left : left + 200] = picture
    return scene


def test_a_phone_is_the_camera_others_wait_and_the_next_one_comes(phone):
    with started("pose") as (port, told):
        page = lines(port)
        assert not next(page)["ended"]
        for bad in ({}, {"sdp": "v=0\r\nm=vid"}, {"sdp": phone(camera=False).offer()}):
            status, answer = post(port, "/offer", bad)
            assert status == 400 and "offer" in answer["error"]
        one = phone(walking)
        status, answer = post(port, "/offer", {"sdp": one.offer(), "camera": "one"})
        assert status == 200
        one.accept(answer)
        line = until(page, lambda line: line.get("overlay"))
        assert (line["width"], line["height"]) == (320, 240)
        nose = line["overlay"][0]["joints"][0]
        assert nose[2] > 0.3 and 20 < nose[1] < 120
        until(page, lambda line: line.get("overlay")
              and abs(line["overlay"][0]["joints"][0][0] - nose[0]) > 15)  # fmt: skip
        status, answer = post(port, "/control", {"conf": 2})
        assert status == 400 and "expected 0 to 1" in answer["error"]
        assert post(port, "/control", {"conf": 1.0})[0] == 200
        until(page, lambda line: line.get("overlay") == [])
        two = phone(walking)
        offer = two.offer()
        assert post(port, "/offer", {"sdp": offer})[0] == 503
        one.hang_up()
        until(page, lambda line: line["ended"])
        status, answer = post(port, "/offer", {"sdp": offer})
        assert status == 200
        two.accept(answer)
        again = itertools.chain.from_iterable(lines(port) for _ in itertools.count())
        until(again, lambda line: line.get("overlay"))  # with the first threshold again
    assert "the camera has gone: the browser ended it" in told["err"]
    first = json.JSONDecoder().raw_decode(told["out"])[0]
    assert first["frames"] > 3 and not first["interrupted"]


def test_one_voice_comes_back(phone, separator, tmp_path):
    with started("separation", "--model", separator) as (port, told):
        one = phone(walking, microphone=True)
        status, answer = post(port, "/offer", {"sdp": phone().offer()})
        assert status == 400 and "microphone" in answer["error"]
        status, answer = post(port, "/offer", {"sdp": one.offer()})
        assert status == 200
        one.accept(answer)
        page = lines(port)
        until(page, lambda line: line.get("overlay"))
        until(page, lambda line: heard_hz(one) is not None)
        assert heard_hz(one) == pytest.approx(440, abs=25)
        assert post(port, "/control", {"face": 0})[0] == 400
        assert post(port, "/control", {"face": 2})[0] == 200
        until(page, lambda line: line.get("facts", {}).get("Voice of face") == "2")
    assert '"chosen": 2' in told["out"]


def heard_hz(one):
    """Return the pitch of what a phone heard last, None where it is silent."""
    sound = np.concatenate([np.zeros(0), *one.heard[-25:]])
    if len(sound) < 24000 or np.abs(sound[:2000]).max() < 500 or np.abs(sound[-2000:]).max() < 500:
        return None
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return np.argmax(power) * 48000 / len(sound)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pose", "--model", "nothing.onnx"), "nothing.onnx"),
        (("pose", "--conf", "7"), "expected 0 to 1"),
        (("pose", "--key", "box.key"), "--key without --certificate"),
        (("pose", "--certificate", "box.pem"), "There is no file box.pem"),
        (("segmentation", "--background", "red"), "--background red with --mode overlay"),
        (("pose", "--token", ""), "an empty token"),
    ],
)
def test_what_is_wrong_is_told_before_any_camera(prunus, words, said):
    ran = prunus("serve", "live", *words, "--port", "0", "--threads", "1")
    assert ran.code == 2 and said in ran.err and "hint:" in ran.err and ran.out == ""


def test_a_port_that_is_taken_is_one_error(prunus):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = prunus("serve", "live", "pose", "--port", taken.getsockname()[1])
    assert ran.code == 2 and "Cannot serve on 127.0.0.1" in ran.err and "--port 8090" in ran.err


def test_a_missing_package_names_its_extra(prunus, monkeypatch):
    monkeypatch.setitem(sys.modules, "prunus.apps.webrtc.desk", None)
    ran = prunus("serve", "live", "pose", "--port", "0")
    assert ran.code == 3 and "prunus[webrtc]" in ran.err


def test_a_certificate_that_is_none_is_one_error(tmp_path):
    bad = tmp_path / "box.pem"
    bad.write_text("no certificate")
    with pytest.raises(SourceError, match="Cannot use"):
        command._tls(Door(certificate=bad))
    assert command._tls(Door()) is None
    with pytest.raises(UsageError, match="--key"):
        command._tls(Door(key=bad))
