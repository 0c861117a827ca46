"""What runs inside Triton, called as its Python back end calls it; test_server.py asks Triton."""

import importlib.util
import itertools
import json
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

import prunus as library
from prunus.apps.common.media import PORTRAIT
from prunus.apps.deploy.serving import Streams
from prunus.apps.serve.bodies import read_body
from prunus.runtime.errors import TensorError, UsageError

START, END = 1, 2


@dataclass
class Tensor:
    name: str
    array: np.ndarray

    def as_numpy(self):
        return self.array


@dataclass
class Request:
    inputs: dict
    wanted: tuple
    flag: int = 0
    key: object = 0

    def flags(self):
        return self.flag

    def correlation_id(self):
        return self.key

    def requested_output_names(self):
        return list(self.wanted)


class TritonError(Exception):
    INVALID_ARG, INTERNAL = 3, 1

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


@dataclass
class InferenceResponse:
    output_tensors: list = field(default_factory=list)
    error: TritonError | None = None


BACK_END = SimpleNamespace(
    Tensor=Tensor, InferenceResponse=InferenceResponse, TritonError=TritonError,
    get_input_tensor_by_name=lambda request, name: Tensor(name, request.inputs[name]),
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_START=START, TRITONSERVER_REQUEST_FLAG_SEQUENCE_END=END,
)  # fmt: skip


@pytest.fixture
def opened(prunus, tmp_path, monkeypatch, parsed):
    """Return what opens a model of a repository as Triton does, by its own `model.py`."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", BACK_END)
    models = []

    def open_model(name, *words):
        ran = prunus("deploy", "triton", *words, "-o", tmp_path / "r", "--threads", 1)
        assert ran.code == 0, ran.err
        folder = tmp_path / "r" / name
        read = parsed((folder / "config.pbtxt").read_text())
        form = {
            "max_batch_size": read.max_batch_size,
            "input": [{"name": one.name} for one in read.input],
            "parameters": {k: {"string_value": v.string_value} for k, v in read.parameters.items()},
        }
        spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        model.initialize({
            "model_config": json.dumps(form), "model_repository": str(folder), "model_version": "1",
            "model_instance_kind": "CPU", "model_instance_device_id": "0",
        })  # fmt: skip
        models.append(model)
        return model, [one.name for one in read.output]

    yield open_model
    for model in models:
        model.finalize()


def _body(data, wanted):
    return Request({"body": np.array([[data]], np.object_)}, wanted)


def _arrays(response):
    assert response.error is None, response.error
    return {one.name: one.array for one in response.output_tensors}


def test_people_are_what_load_finds(opened):
    model, names = opened("pose", "pose")
    whole, part = model.execute([_body(PORTRAIT.read_bytes(), names),
                                 _body(PORTRAIT.read_bytes(), ["scores"])])  # fmt: skip
    found = _arrays(whole)
    with library.load("pose", threads=1) as pose:
        expected = pose(read_body(PORTRAIT.read_bytes(), pose))
    assert found["json"].shape == (1, 1) and found["json"][0, 0].decode() == expected.to_json()
    [person] = expected.people
    np.testing.assert_array_equal(found["keypoints"], person.keypoints[None, None])
    np.testing.assert_array_equal(found["boxes"][0, 0], np.float32(person.box))
    np.testing.assert_array_equal(found["scores"], np.float32([[person.score]]))
    assert list(_arrays(part)) == ["scores"]


def test_nobody_in_a_picture_is_an_empty_row(opened):
    import cv2

    model, names = opened("people", "people")
    _, data = cv2.imencode(".png", np.full((64, 48, 3), 127, np.uint8))
    found = _arrays(model.execute([_body(data.tobytes(), names)])[0])
    assert json.loads(found["json"][0, 0])["people"] == []
    assert [found[n].shape for n in names[1:]] == [(1, 0, 17, 3), (1, 0, 4), (1, 0)]


def test_masks_are_those_of_load(opened):
    model, names = opened("segmentation", "segmentation")
    found = _arrays(model.execute([_body(PORTRAIT.read_bytes(), names)])[0])
    with library.load("segmentation", threads=1) as segment:
        expected = segment(read_body(PORTRAIT.read_bytes(), segment))
    np.testing.assert_array_equal(found["classes"][0], expected.mask.classes)
    np.testing.assert_array_equal(found["foreground"][0], expected.mask.foreground)
    assert found["classes"].dtype == np.int32
    assert found["json"][0, 0].decode() == expected.to_json()


def test_faces_are_those_of_load(opened):
    model, names = opened("faces", "faces")
    found = _arrays(model.execute([_body(PORTRAIT.read_bytes(), names)])[0])
    with library.load("faces", threads=1) as faces:
        expected = faces(read_body(PORTRAIT.read_bytes(), faces))
    assert found["json"][0, 0].decode() == expected.to_json()
    np.testing.assert_array_equal(found["points"][0], expected.faces[0].points[None])
    assert found["boxes"].shape == (1, 1, 4) and found["scores"][0, 0] > 0.9


def test_one_wrong_request_fails_alone(opened):
    model, names = opened("segmentation", "segmentation")
    good = PORTRAIT.read_bytes()
    two = Request({"body": np.array([[good], [good]], np.object_)}, names)
    bodies = [_body(good, names), _body(good[:900], names), two, _body(b"", names)]
    first, *wrong = model.execute(bodies)
    assert _arrays(first)["classes"].any()
    reasons = ("not a complete picture", "2 bodies", "0 bytes")
    for response, said in zip(wrong, reasons, strict=True):
        assert said in str(response.error) and response.error.code == TritonError.INVALID_ARG


def test_arrays_of_several_requests_share_a_run(opened, batched, monkeypatch):
    model, names = opened("batched", batched)
    runs, together = [], model._model.together
    monkeypatch.setattr(model._model, "together", lambda i: runs.append(len(i)) or together(i))
    rows = [np.full((n, 5), n, np.float32) for n in (1, 2, 1)]
    answers = model.execute([Request({"x": row}, names) for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        np.testing.assert_array_equal(_arrays(answer)["y"], 3 * row)
    assert runs == [3]
    [wrong] = model.execute([Request({"x": np.zeros((1, 6), np.float32)}, names)])
    assert "x" in str(wrong.error) and wrong.error.code == TritonError.INVALID_ARG


def _patch(colour, size=(40, 30)):
    import cv2

    return cv2.imencode(".png", np.full((*size, 3), colour, np.uint8))[1].tobytes()


def test_pictures_of_several_requests_share_a_run(opened, colour_model, monkeypatch):
    model, names = opened("class_ids-4", colour_model(batch=4))
    assert names == ["json", "classes", "foreground"]
    runs, many = [], model._model._many
    monkeypatch.setattr(model._model, "_many", lambda i: runs.append(len(i)) or many(i))
    red, green, grey = (0, 0, 255), (0, 255, 0), (60, 60, 60)
    bodies = [_patch(red), _patch(green, (20, 50)), b"broken", _patch(grey)]
    answers = model.execute([_body(body, ["classes"]) for body in bodies])
    found = [_arrays(answer)["classes"] for k, answer in enumerate(answers) if k != 2]
    assert [one.shape for one in found] == [(1, 40, 30), (1, 20, 50), (1, 40, 30)]
    assert [np.unique(one).tolist() for one in found] == [[1], [2], [0]]
    assert answers[2].error is not None and runs == [3]


def test_a_fault_of_ours_is_told_apart_and_not_told_further(opened, batched, monkeypatch, caplog):
    model, names = opened("batched", batched)
    monkeypatch.setattr(model._model, "together", lambda inputs: 1 / 0)
    [failed] = model.execute([Request({"x": np.zeros((1, 5), np.float32)}, names)])
    assert failed.error.code == TritonError.INTERNAL and "division" not in str(failed.error)
    assert "ZeroDivisionError" in caplog.text


def _sound(count, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def test_streams_in_turns_are_whole_sounds(opened):
    encode, names = opened("codec-encode", "codec")
    decode, [audio] = opened("codec-decode", "codec")
    sounds = {7: _sound(5000), "b": _sound(4321, 1)}
    cuts, parts = [0, 3, 1111, 2000, 9999], {7: [], "b": []}
    for k, (low, high) in enumerate(itertools.pairwise(cuts)):
        flag = START * (k == 0) + END * (high == cuts[-1])
        answers = encode.execute([
            Request({"audio": sound[low:high]}, names, flag, key) for key, sound in sounds.items()
        ])  # fmt: skip
        for key, answer in zip(sounds, answers, strict=True):
            parts[key].append(_arrays(answer))
    assert not encode._streams.open
    with library.load("codec", threads=1) as codec:
        for key, sound in sounds.items():
            speech = codec.estimator.encode(sound)
            for name, codes in speech.codes.items():
                found = np.concatenate([part[name] for part in parts[key]], -1)
                np.testing.assert_array_equal(found, codes)
            heard = []
            for n, part in enumerate(parts[key]):
                flag = START * (n == 0) + END * (n == len(parts[key]) - 1)
                heard.append(_arrays(decode.execute([Request(part, [audio], flag, key)])[0])[audio])
            back = codec.estimator.decode(speech)
            np.testing.assert_array_equal(np.concatenate(heard)[: len(sound)], back)


def test_a_piece_that_does_not_fit_leaves_its_stream(opened):
    model, names = opened("codec-encode", "codec")
    sound = _sound(4000)
    wrong = sound.copy()
    wrong[5] = np.nan

    def ask(piece, flag=0, key=1):
        return model.execute([Request({"audio": piece}, names, flag, key)])[0]

    first = _arrays(ask(sound[:1500], START))
    assert "Sample 5" in str(ask(wrong).error)
    assert "no stream 2" in str(ask(sound, 0, 2).error)
    last = _arrays(ask(sound[1500:], END))
    with library.load("codec", threads=1) as codec:
        expected = codec.estimator.encode(sound).codes
    for name in names:
        found = np.concatenate((first[name], last[name]), -1)
        np.testing.assert_array_equal(found, expected[name])


class Counting:
    """A stream whose outputs are the sums so far; it refuses numbers below zero."""

    def __init__(self):
        self.sum = 0

    def push(self, inputs):
        if inputs["x"] < 0:
            raise TensorError("below zero")
        self.sum += inputs["x"]
        return {"y": self.sum}


def test_silent_streams_are_forgotten_and_the_others_kept():
    now = [0.0]
    streams = Streams(
        Counting, Counting.push, lambda flow, out: {"y": -out["y"]}, 10.0, lambda: now[0]
    )

    def ask(key, x, **flags):
        return streams.answer(key, {"x": x}, **({"first": False, "last": False} | flags))["y"]

    assert ask("a", 1, first=True) == 1 and ask("b", 10, first=True) == 10
    now[0] = 8.0
    assert ask("b", 10) == 20
    now[0] = 12.0
    assert ask("c", 5, first=True) == 5 and set(streams.open) == {"b", "c"}
    with pytest.raises(UsageError, match="no stream a"):
        ask("a", 1)
    assert ask("b", 1, last=True) == -21 and set(streams.open) == {"c"}
    assert ask("c", 7, first=True) == 7  # begun anew
    with pytest.raises(TensorError):
        ask("c", -1, last=True)
    assert not streams.open
