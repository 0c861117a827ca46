"""The page in a browser without a window: a run that is seen, steered, ended, and comes again."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request

import cv2
import numpy as np
import pytest

from prunus.apps.common.media import PORTRAIT, TWO_VOICES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MODEL = ("--model", "movenet_lightning", "--threads", "1", "--backend", "onnxruntime")
WAIT_MS = 60_000  # for what happens within a second on a machine that is idle
VIEW = "document.getElementById('view')"
FRAME = f"Number({VIEW}.dataset.frame)"
STATUS = "document.getElementById('status').textContent"
PIXELS = f"{VIEW}.toDataURL()"
# How many joints lie under a spot of their colour; others may be covered by their neighbours'.
JOINTS_IN_COLOUR = """state.message.overlay[0].joints.filter(([x, y], k) => {
  const rgb = [...pen.getImageData(Math.floor(x), Math.floor(y), 1, 1).data].slice(0, 3);
  const hex = "#" + rgb.map((v) => v.toString(16).padStart(2, "0")).join("");
  return hex === state.head.skeleton.joint_colours[k];
}).length"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


class Browser:
    """One tab, spoken to in the DevTools protocol."""

    def __init__(self, folder, downloads, *flags):
        from websockets.sync.client import connect

        words = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
                 "--disable-dev-shm-usage", f"--user-data-dir={folder}", "about:blank")  # fmt: skip
        self._process = subprocess.Popen(
            [CHROMIUM, *flags, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        found = (re.search(r"listening on ws://([^/]+)/", line) for line in self._process.stderr)
        address = next(match[1] for match in found if match)
        with urllib.request.urlopen(f"http://{address}/json") as answer:
            page = next(p for p in json.load(answer) if p["type"] == "page")
        self._numbers = itertools.count(1)
        self._socket = connect(page["webSocketDebuggerUrl"], max_size=None)
        self.faults = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))

    def call(self, method, **parameters):
        number = next(self._numbers)
        request = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(request))
        message = self._next(lambda message: message.get("id") == number)
        assert "error" not in message, message
        return message["result"]

    def _next(self, wanted):
        while not wanted(message := json.loads(self._socket.recv(WAIT_MS / 500))):
            parameters = message.get("params", {})
            if message.get("method") == "Runtime.exceptionThrown" or (
                message.get("method") == "Log.entryAdded"
                and parameters["entry"]["source"] in ("security", "javascript")
            ):
                self.faults.append(parameters)
        return message

    def load(self, address):
        """Load a page."""
        self.call("Page.navigate", url=address)
        self._next(lambda message: message.get("method") == "Page.loadEventFired")

    def open(self, address):
        """Load a page and wait until it shows a run that works."""
        self.load(address)
        self.until(f"{STATUS} === 'Live' && state.message.facts")

    def run(self, code):
        """Return what an expression of JavaScript is, promises awaited."""
        found = self.call(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, condition):
        """Wait in the page until an expression is true, and return it."""
        found = self.run(
            f"""new Promise((done) => {{
              const end = performance.now() + {WAIT_MS};
              const look = () => {{
                let value = false;
                try {{ value = {condition}; }} catch {{ /* not there yet, as between two runs */ }}
                if (value || performance.now() > end) done(value);
                else setTimeout(look, 30);
              }};
              look();
            }})"""
        )
        assert found, f"{condition} never came; the page says {self.says()}"
        return found

    def says(self):
        both = "[...document.querySelectorAll('#status, #camera-says')].map((p) => p.textContent)"
        return self.run(both)

    def key(self, letter):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=letter, text=letter)

    def close(self):
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)
        self._process.stderr.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    with contextlib.closing(Browser(folder / "profile", folder / "downloads")) as opened:
        opened.downloads = folder / "downloads"
        yield opened


@contextlib.contextmanager
def started(*words):
    """Run prunus; yield the process and the page's address, which it tells."""
    process = subprocess.Popen(
        [sys.executable, "-m", "prunus.apps.cli.main", *words],
        stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        found = (re.search(r"http://localhost:\d+/", line) for line in process.stdout)
        address = next(match[0] for match in found if match)
        reader = threading.Thread(target=process.stdout.read)  # so that it never waits for us
        reader.start()
        yield process, address
    finally:
        process.kill()
        process.wait()
        reader.join()


def running(port=0):
    """Run poses on a moving portrait without an end."""
    words = ("--source", "synthetic:320x240@15", "--sink", f"web:{port}")
    return started("run", "pose", *words, *MODEL)


def test_a_run_is_seen_steered_ended_and_comes_again(browser):
    with running() as (process, address):
        port = address.rpartition(":")[2].rstrip("/")
        browser.open(address)
        assert browser.run("document.title") == "movenet lightning fp32 - synthetic:320x240@15"
        # The picture changes, and so does the skeleton that came as data.
        browser.until("state.message.overlay && state.message.overlay.length === 1")
        first, frame = browser.run(PIXELS), browser.run(FRAME)
        nose = "JSON.stringify(state.message.overlay.map((p) => p.joints[0]))"
        joint = browser.run(nose)
        browser.until(f"{FRAME} > {frame} + 5 && {nose} !== {json.dumps(joint)}")
        assert browser.run(PIXELS) != first
        assert browser.run("document.querySelectorAll('#times tr').length") >= 4
        assert "Model" in browser.run("document.getElementById('facts').textContent")

        # Pause stands still; what is drawn then is the overlay's doing alone.
        browser.key("p")
        browser.until(f"{STATUS} === 'Paused for everybody'")
        assert browser.run("document.getElementById('pause').ariaPressed") == "true"
        stays = browser.run(
            f"new Promise((done) => setTimeout(() => done({FRAME}), 500))"  # frames on their way
        )
        with_overlay = browser.run(PIXELS)
        assert browser.run(JOINTS_IN_COLOUR) >= 5
        browser.key("o")  # burnt in
        browser.until(f"{PIXELS} !== {json.dumps(with_overlay)} && state.message.drawn")
        burnt = browser.run(PIXELS)
        browser.key("o")  # none
        browser.until(f"![{json.dumps(with_overlay)}, {json.dumps(burnt)}].includes({PIXELS})")
        assert browser.run(JOINTS_IN_COLOUR) == 0
        browser.key("o")
        browser.until(f"{PIXELS} === {json.dumps(with_overlay)}")
        assert browser.run(FRAME) == stays

        # A value out of range is refused in words, and the run goes on.
        browser.run("send('conf', 2)")
        browser.until("document.getElementById('refusal').textContent.includes('expected 0 to 1')")
        browser.key("p")
        browser.until(f"{STATUS} === 'Live' && {FRAME} > {stays} + 3")
        slider = "document.getElementById('control-conf')"
        browser.run(f"{slider}.value = 1; {slider}.dispatchEvent(new Event('input'))")
        browser.until("state.values.conf === 1 && state.message.overlay.length === 0")
        assert browser.run("document.getElementById('refusal').textContent") == ""
        browser.run("send('conf', 0.15)")
        browser.until("state.message.overlay.length === 1")

        process.send_signal(signal.SIGINT)
        browser.until(f"{STATUS} === 'The source has ended'")
    with running(port) as (process, again):
        assert again == address
        browser.until(f"{STATUS} === 'Live' && state.message.overlay.length === 1")
        process.kill()
        browser.until(f"{STATUS} === 'Connection lost; trying again'")
    assert not browser.faults


def test_a_snapshot_and_a_recording_are_saved(browser):
    with running() as (_, address):
        browser.open(address)
        browser.key("s")
        browser.key("r")
        frame = browser.run(FRAME)
        browser.until(f"recorder && {FRAME} > {frame} + 15")
        browser.key("r")
        browser.until("recorder === null")
        for ending, start in (("png", b"\x89PNG"), ("webm", b"\x1aE\xdf\xa3")):
            for _ in range(200):
                browser.run("new Promise((done) => setTimeout(done, 50))")
                found = list(browser.downloads.glob(f"prunus-*.{ending}"))
                if found and found[0].read_bytes()[:4] == start:
                    break
            else:
                pytest.fail(f"no {ending} was saved: {list(browser.downloads.iterdir())}")
    assert not browser.faults


def test_a_phone_shows_all_of_it_and_keys_reach_everything(browser):
    with running() as (_, address):
        size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
        browser.call("Emulation.setDeviceMetricsOverride", **size)
        browser.open(address)
        browser.until("document.querySelectorAll('#times tr').length > 3")
        assert browser.run("document.documentElement.scrollWidth") == 390
        assert browser.run(f"{VIEW}.getBoundingClientRect().width") == 390
        browser.call("Accessibility.enable")
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
        named = {
            (n["role"]["value"], n.get("name", {}).get("value", ""))
            for n in nodes
            if not n["ignored"]
        }
        for role, name in (
            ("button", "Pause"), ("button", "Snapshot"), ("button", "Record"), ("slider", "Thresh"),
            ("button", "Full screen"), ("combobox", "Overlay"), ("image", "Video:"),
        ):  # fmt: skip
            assert any(r == role and n.startswith(name) for r, n in named), (role, name, named)
        order = []
        for _ in range(8):
            for kind in ("keyDown", "keyUp"):
                browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab",
                             windowsVirtualKeyCode=9)  # fmt: skip
            order.append(browser.run("document.activeElement.id || document.activeElement.tagName"))
            ring = browser.run("getComputedStyle(document.activeElement).outlineStyle")
            assert order[-1] == "BODY" or ring != "none"
        wanted = ["pause", "snapshot", "record", "full", "overlay", "control-conf", "SUMMARY"]
        assert [name for name in order if name in wanted] == wanted
        browser.call("Emulation.clearDeviceMetricsOverride")
    assert not browser.faults


SAYS = "document.getElementById('camera-says').textContent"
FAKE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")


@contextlib.contextmanager
def lending(folder, *flags):
    """Open a browser that has the camera and the microphone that the flags say."""
    folder.mkdir()
    with contextlib.closing(Browser(folder / "profile", folder, *FAKE, *flags)) as opened:
        yield opened


def write_y4m(path, pictures, rate):
    """Write (height, width, 3) BGR pictures as a browser's fake camera reads them."""
    height, width = pictures[0].shape[:2]
    half = ((width + 1) // 2, (height + 1) // 2)
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{rate}:1 Ip A1:1 C420jpeg\n".encode())
        for picture in pictures:
            luma, *chroma = cv2.split(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV))
            small = [cv2.resize(c, half, interpolation=cv2.INTER_AREA) for c in chroma]
            file.write(b"FRAME\n" + b"".join(plane.tobytes() for plane in (luma, *small)))


def walking():
    """Return 4 s of the portrait at 10 pictures a second, to the right and back."""
    portrait = cv2.resize(cv2.imread(str(PORTRAIT)), (202, 242))
    pictures = []
    for k in range(40):
        scene = np.full((242, 322, 3), 96, np.uint8)
        left = abs(6 * k - 120)
        scene[:, left : left + 202] = portrait
        pictures.append(scene)
    return pictures


def test_the_browser_is_the_camera_and_the_skeleton_moves_with_it(tmp_path):
    video = tmp_path / "walk.y4m"
    write_y4m(video, walking(), 10)
    with (
        lending(tmp_path / "one", f"--use-file-for-fake-video-capture={video}") as one,
        started("serve", "live", "pose", "--port", "0", *MODEL) as (process, address),
    ):
        one.load(address)
        one.until(f"{STATUS} === 'Waiting for a camera'")
        one.key("c")
        one.until(f"{SAYS} === 'The camera is on.'")
        one.until(f"{STATUS} === 'Live' && state.message.overlay.length === 1")
        assert one.run("document.title") == "movenet lightning fp32 - camera of a browser"
        # Where the skeleton is, the person is: dark around the portrait, and both move.
        shoulder = "state.message.overlay[0].joints[5][0]"
        places = one.run(
            f"""new Promise((done) => {{
              const found = [], end = performance.now() + {WAIT_MS};
              const look = () => {{
                const {{ overlay }} = state.message;
                if (overlay && overlay.length) {{
                  const grey = (x) => pen.getImageData(x, 200, 1, 1).data.slice(0, 3)
                    .every((v) => Math.abs(v - 96) < 12);
                  let left = 0;
                  while (left < view.width && grey(left)) left++;
                  found.push([left, {shoulder}]);
                }}
                const range = found.map(([left]) => left);
                if (Math.max(...range) - Math.min(...range) > 70 && found.length > 60
                    || performance.now() > end) done(found);
                else setTimeout(look, 40);
              }};
              look();
            }})"""
        )
        lefts, joints = np.array(places).T
        assert np.ptp(lefts) > 70 and np.ptp(joints) > 40
        assert np.corrcoef(lefts, joints)[0, 1] > 0.8

        # A browser that scales its pictures to an odd size changes nothing that is seen.
        track, frame = "media.getVideoTracks()[0]", one.run(FRAME)
        odd = "{ width: { exact: 161 }, height: { exact: 121 } }"
        one.run(f"{track}.applyConstraints({odd})")
        assert one.run(f"{track}.getSettings().width") == 161
        one.until(f"{FRAME} > {frame} + 30 && state.message.overlay.length === 1")
        assert one.run("[view.width, view.height]") == [322, 242]

        # A second browser waits its turn, and sees what the first one sends.
        with lending(tmp_path / "two", f"--use-file-for-fake-video-capture={video}") as two:
            two.open(address)
            two.key("c")
            two.until(f"{SAYS} === 'Another camera is on. Trying again.'")
            one.run("send('conf', 2)")
            one.until("document.getElementById('refusal').textContent.includes('expected 0 to 1')")
            one.run("send('conf', 1)")
            one.until("state.values.conf === 1 && state.message.overlay.length === 0")
            one.key("c")
            one.until(f"{SAYS} === 'The camera is off.'")
            two.until(f"{SAYS} === 'The camera is on.'")  # and the threshold is the first again
            two.until(f"{STATUS} === 'Live' && state.message.overlay.length === 1")
            process.send_signal(signal.SIGINT)
            two.until(f"{SAYS}.startsWith('Ended: the run has ended.')")
            assert process.wait(60) == 130
            assert not two.faults
        assert not one.faults


def test_the_chosen_voice_comes_back_to_the_browser(tmp_path, separator):
    """The network gives sound as loud as the chosen mouth is bright; one face is in the dark."""
    import av

    with av.open(str(TWO_VOICES)) as clip:
        pictures = [frame.to_ndarray(format="bgr24") for frame in clip.decode(video=0)]
    for picture in pictures:
        picture[:, :240] = picture[:, :240] // 3
    video, sound = tmp_path / "two.y4m", tmp_path / "tone.wav"
    write_y4m(video, pictures, 25)
    write_tone(sound)
    flags = (
        f"--use-file-for-fake-video-capture={video}",
        f"--use-file-for-fake-audio-capture={sound}",
        "--autoplay-policy=no-user-gesture-required",
    )
    words = ("--port", "0", "--model", str(separator), "--threads", "1", "--backend", "onnxruntime")
    with (
        lending(tmp_path / "one", *flags) as one,
        started("serve", "live", "separation", *words) as (_, address),
    ):
        one.load(address)
        one.run("void (SOUND.echoCancellation = false)")  # it would take the tone for an echo
        one.key("c")
        one.until(f"{STATUS} === 'Live' && state.message.overlay.length === 2")
        faces = "[...state.message.overlay].sort((a, b) => a.box[0] - b.box[0]).map((s) => s.id)"
        dark, bright = one.run(faces)
        one.run(
            """(() => {
              const context = new AudioContext();
              const ear = context.createAnalyser(), power = new Float32Array(4096);
              ear.fftSize = 8192;
              context.createMediaStreamSource($("voice").srcObject).connect(ear);
              window.loudness = () => { // dB of the tone, where that is the loudest
                ear.getFloatFrequencyData(power);
                const best = power.indexOf(Math.max(...power));
                const hertz = best * context.sampleRate / ear.fftSize;
                return Math.abs(hertz - 440) < 15 ? power[best] : -200;
              };
            })()"""
        )
        one.key(str(dark))
        one.until(f"state.message.facts['Voice of face'] === '{dark}'")
        one.until("loudness() > -60")
        most = one.run(
            """new Promise((done) => {
              let most = -200, left = 50;
              const look = () => {
                most = Math.max(most, loudness());
                if (left--) setTimeout(look, 40); else done(most);
              };
              setTimeout(look, 1000); // what was loud before has gone
            })"""
        )
        one.key(str(bright))
        one.until(f"loudness() > {most} + 4")  # sound that is late or lost is never louder
        assert one.run("state.message.facts['Voice of face']") == str(bright)
        one.run("send('face', 0)")
        one.until("document.getElementById('refusal').textContent.includes('expected 1 or more')")
        assert not one.faults


def write_tone(path):
    from prunus.runtime.audio.files import WavWriter

    with WavWriter(path, 48000) as file:
        file.write((0.4 * np.sin(2 * np.pi * 440 * np.arange(96000) / 48000)).astype(np.float32))


def test_what_a_browser_lacks_is_said_plainly(tmp_path, lip_gate):
    words = ("--port", "0", "--model", str(lip_gate), "--threads", "1", "--backend", "onnxruntime")
    folder = tmp_path / "profile"
    with (
        contextlib.closing(Browser(folder, tmp_path, "--use-fake-ui-for-media-stream")) as none,
        started("serve", "live", "separation", *words) as (_, address),
    ):
        none.load(address)
        none.key("c")
        none.until(f"{SAYS} === 'This device has no camera and no microphone.'")
        assert none.run("document.getElementById('start').ariaPressed") == "false"
        for what, said in (
            ("navigator.mediaDevices.enumerateDevices = async () => [{ kind: 'videoinput' }]",
             "This device has no microphone."),
            ("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })",
             "This browser has no way to lend a camera."),
            ("Object.defineProperty(window, 'isSecureContext', { value: false })",
             "Browsers give a camera to pages of https or of localhost alone."),
        ):  # fmt: skip
            none.run(f"void ({what})")
            none.key("c")
            none.until(f"{SAYS}.startsWith({json.dumps(said)})")
        assert not none.faults
