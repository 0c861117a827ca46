"""A tab without a window: its script reports, its clock is ours, and nothing of it is left."""

import subprocess
import threading
import time

import pytest

from prunus.apps.bench import browser
from prunus.apps.bench.browser import Browser
from prunus.runtime.errors import HostError


@pytest.mark.slow
def test_a_script_reports_on_a_clock_that_is_ours(chromium, tmp_path):
    page, told, came = tmp_path / "page.html", [], threading.Event()
    page.write_text("<title>page</title>")

    def take(text):
        told.append((text, time.perf_counter()))
        came.set()

    begun, tab = time.perf_counter(), Browser(take)
    tab.open(page.as_uri(), "report(String(performance.now()))")
    assert came.wait(30)
    tab.read_clock()
    tab.close()
    tab.close()
    (text, arrived), sent = told[0], float(told[0][0]) / 1000 + tab.offset_s
    assert text and 0 < tab.error_s < 1
    assert begun < sent < arrived + tab.error_s
    assert tab._process.poll() is not None


def test_none_and_one_that_ends_at_once_are_refused(monkeypatch):
    started, popen = [], subprocess.Popen

    def noted(*words, **details):
        started.append(popen(*words, **details))
        return started[-1]

    monkeypatch.setattr(browser.subprocess, "Popen", noted)
    monkeypatch.setattr(browser.shutil, "which", lambda name: "/bin/true")
    with pytest.raises(HostError, match="has ended, or does not answer"):
        Browser(lambda text: None)
    assert len(started) == 1 and started[0].poll() is not None
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    with pytest.raises(HostError, match="needs Chromium") as refused:
        Browser(lambda text: None)
    assert "apt-get install chromium" in refused.value.hint and len(started) == 1
