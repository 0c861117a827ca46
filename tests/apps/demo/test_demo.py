"""The demo: its parts with a shipped model, and the whole chain with random weights."""

from __future__ import annotations

import argparse

import cv2
import pytest

from prunus.apps.common.model_files import segmentation_model, shipped_separator
from prunus.apps.demo import demo
from prunus.apps.demo import voices as demo_voices
from prunus.apps.io.sources.registry import open_source
from prunus.models import zoo
from prunus.runtime.errors import SourceError
from prunus.runtime.tasks.segmentation.segmenter import Segmenter


def test_still_is_the_middle_of_the_video(tmp_path, video, frames_of):
    demo.write_still(video, tmp_path / "still.png")
    still = cv2.imread(str(tmp_path / "still.png"))
    gaps = [abs(still.astype(int) - f).mean() for f in frames_of(video)]
    assert gaps.index(min(gaps)) == 6


def test_still_of_a_broken_video(tmp_path):
    with pytest.raises(SourceError):
        demo.write_still(tmp_path / "missing.mp4", tmp_path / "still.png")


def test_models_are_timed_in_turns():
    path = str(zoo.model_path("movenet_lightning"))
    timings = demo.time_in_turns({"a": path, "b": path}, "onnxruntime")
    assert list(timings) == ["a", "b"]
    assert all(0 < t.p50_ms <= t.p90_ms for t in timings.values())


def test_errors_are_two_lines(tmp_path, capfd):
    words = ["-o", str(tmp_path), "--checkpoint", str(tmp_path / "missing.safetensors")]
    assert demo.main(words) == 2
    assert capfd.readouterr().err.splitlines()[-2].startswith("error: ")


@pytest.mark.slow
def test_whole_chain(tmp_path, capfd, frames_of):
    words = ["-o", str(tmp_path), "--checkpoint", "random", "--frames", "3"]
    assert demo.main([*words, "--backend", "onnxruntime"]) == 0
    out = capfd.readouterr().out
    assert out.count(": ok") == 2
    assert "faster" in out
    assert len(frames_of(tmp_path / "pedestrians-pose.mp4")) == 3
    assert (tmp_path / "pedestrians-pose.png").is_file()
    assert len(frames_of(tmp_path / "portrait-blur.mp4")) == 3
    assert ("gain over the mixture" in out) == (shipped_separator() is not None)


def test_the_portrait_keeps_its_person_before_a_blurred_wall(tmp_path, frames_of):
    options = argparse.Namespace(frames=2, backend="onnxruntime")
    plain = [f.image for f in open_source(demo.PORTRAIT.format(2))]
    blurred = frames_of(demo._blur(options, tmp_path))
    assert len(blurred) == len(plain) == 2

    def detail(image):
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        return cv2.convertScaleAbs(cv2.Laplacian(grey, cv2.CV_32F))

    with Segmenter.open(segmentation_model(None), "onnxruntime", 1) as segment:
        sure = segment(plain[1]).foreground
    person, wall = sure > 0.95, sure < 0.05
    wall[:120] = False  # the panel of numbers
    person[:120] = False
    before, after = detail(plain[1]).astype(float), detail(blurred[1]).astype(float)
    kept = {name: after[m].mean() / before[m].mean() for name, m in (("p", person), ("w", wall))}
    assert kept["w"] < 0.5 and kept["p"] > 1.5 * kept["w"], kept  # the codec blurs both a little


def test_each_face_is_heard_with_its_own_voice(tmp_path, monkeypatch, capfd, lip_gate, frames_of):
    pytest.importorskip("av")
    pair = tuple(lip_gate.with_name(f"{lip_gate.name}-{part}.onnx") for part in ("lips", "voice"))
    monkeypatch.setattr(demo_voices, "shipped_separator", lambda: pair)
    files = demo_voices.hear_each(tmp_path, "onnxruntime")
    names = ["two_voices-face-1.wav", "two_voices-face-1.mp4", "two_voices-face-2.wav"]
    assert [path.name for path in files] == names
    assert len(frames_of(files[1])) >= 200
    rows = [line.split() for line in capfd.readouterr().out.splitlines() if "face " in line]
    gains = [[float(word) for word in row[2:4]] for row in rows]
    assert len(gains) == 2
    for asked, other in gains:  # a gate by the opening of the lips is a poor separator, but one
        assert asked > 1.5 and other < asked - 3


def test_without_a_shipped_separator_the_scene_says_so(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(demo_voices, "shipped_separator", lambda: None)
    assert demo_voices.hear_each(tmp_path) == ()
    assert len(capfd.readouterr().out.splitlines()) == 1
    assert not list(tmp_path.iterdir())
