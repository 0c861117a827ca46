"""Frame to drawn frame: numbers survive what is drawn around them, and no wrong one is believed."""

import json

import numpy as np
import pytest

from prunus.apps.bench import browser
from prunus.apps.bench.picture_delay import Glass, draw_number, read_number


def test_numbers_are_read_back_and_damage_is_seen():
    rng, believed = np.random.default_rng(0), 0
    for number in (0, 1, 255, 4096, 65_535, *rng.integers(0, 1 << 16, 40).tolist()):
        image = rng.integers(0, 255, (480, 640, 3)).astype(np.uint8)
        assert read_number(image) != number or number == 0
        draw_number(image, number)
        assert read_number(image) == number
        tinted = (0.5 * image + 0.5 * np.array([200, 30, 90])).astype(np.uint8)  # as masks do
        assert read_number(tinted) == number
        side = 640 // 22
        k = 2 + int(rng.integers(0, 20))
        image[-side:, k * side : (k + 1) * side] = 255 - image[-side:, k * side : (k + 1) * side]
        believed += read_number(image) is not None
    assert believed == 0  # one cell that flips is always seen
    assert read_number(np.zeros((480, 640, 3), np.uint8)) is None


@pytest.mark.parametrize("task", ["pose", "segmentation"])
def test_frames_are_found_again_behind_the_app(prunus, colour_model, tmp_path, task):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "delay.json"
    model = "movenet_lightning" if task == "pose" else colour_model("class_ids")
    ran = prunus("bench", model, "--boundary", "glass_to_glass", "--seconds", 1, "--rounds", 2,
                 "--backend", "onnxruntime", "--threads", 1, "-o", out)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "frame to drawn frame p50/p90/p99" in ran.out
    (one,) = json.loads(out.read_text())
    assert one["frames"] == 50 and one["unreadable"] == 0 and one["seen"] >= 5
    # What a frame waits and goes through is at least what its stages take.
    slowest = max(ms for name, ms in one["stages_ms"].items() if name != "capture")
    assert one["p99_ms"] >= one["p50_ms"] > 0.3 * slowest > 0


def test_a_number_counts_once_and_one_that_nobody_drew_is_unreadable():
    glass = Glass(3)
    try:
        glass.shown[1] = 10.0
        for number, now in ((1, 10.5), (1, 11.0), (2, 12.0), (None, 13.0)):
            glass.see(number, now)
    finally:
        glass.close()
    assert (glass.delays, glass.unreadable) == ([0.5], 2)


@pytest.mark.slow
def test_frames_are_found_again_on_the_canvas_of_a_browser(prunus, chromium, tmp_path):
    out = tmp_path / "delay.json"
    ran = prunus("bench", "movenet_lightning", "--boundary", "glass_to_glass", "--through",
                 "browser", "--seconds", 2, "--rounds", 1, "--backend", "onnxruntime",
                 "--threads", 1, "-o", out)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "frame to canvas of a browser" in ran.out
    (one,) = json.loads(out.read_text())
    assert one["through"] == "browser" and one["seen"] >= 3 >= one["unreadable"]
    # Later than what is drawn, and by clocks that agree.
    assert one["p50_ms"] > one["networks_ms"] and one["clock_error_ms"] < 50


def test_without_a_browser_it_says_what_to_install(prunus, monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    ran = prunus("bench", "movenet_lightning", "--boundary", "glass_to_glass", "--through",
                 "browser", "--backend", "onnxruntime")  # fmt: skip
    assert ran.code == 3 and "apt-get install chromium" in ran.err


def test_other_tasks_and_ends_are_refused(prunus):
    assert "pose and segmentation" in prunus(
        "bench", "selfie", "--boundary", "glass_to_glass", "--through", "a:b"
    ).err  # fmt: skip
    wrong = prunus("bench", "blazeface_full", "--boundary", "glass_to_glass")
    assert wrong.code == 2 and "is of the task" in wrong.err
