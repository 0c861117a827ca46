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
import urllib.request

import pytest

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

    def __init__(self, folder, downloads):
        from websockets.sync.client import connect

        words = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
                 "--disable-dev-shm-usage", f"--user-data-dir={folder}", "about:blank")  # fmt: skip
        self._process = subprocess.Popen(
            [CHROMIUM, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
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

    def open(self, address):
        """Load a page and wait until it shows a run that works."""
        self.call("Page.navigate", url=address)
        self._next(lambda message: message.get("method") == "Page.loadEventFired")
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
        assert found, f"{condition} never came; the page says {self.says()!r}"
        return found

    def says(self):
        return self.run("document.getElementById('status').textContent")

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
def running(port=0):
    """Run poses on a moving portrait without an end; yield the process and the page's address."""
    words = ("run", "pose", "--source", "synthetic:320x240@15", "--sink", f"web:{port}", *MODEL)
    process = subprocess.Popen(
        [sys.executable, "-m", "prunus.apps.cli.main", *words],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        found = (re.search(r"-> (http://localhost:\d+/)", line) for line in process.stderr)
        yield process, next(match[1] for match in found if match)
    finally:
        process.kill()
        process.communicate()


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
