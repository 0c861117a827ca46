"""Hostile bodies: whatever comes, the model's input or one refusal."""

import io
import json
import tracemalloc
import zipfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from prunus.apps.common.media import TWO_VOICES
from prunus.apps.serve.bodies import read_body, write_answer
from prunus.results import VoicesResult
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import UsageError

SPEC = TensorSpec("x", "float32", (2, 3), ("batch", "value"))


class Model(SimpleNamespace):
    name, takes = "net", ("picture", "sound", "clip", "tensors")
    estimator = SimpleNamespace(
        card=SimpleNamespace(inputs=(SPEC,)), format=SimpleNamespace(sample_rate_hz=16000)
    )

    def items(self, feed):
        return 1


def _whole():
    arrays, packed, sound = io.BytesIO(), io.BytesIO(), io.BytesIO()
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(arrays, x=values)
    np.savez_compressed(packed, x=values)
    soundfile.write(sound, np.zeros(100), 16000, format="WAV")
    picture = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    coded = [cv2.imencode(kind, picture)[1].tobytes() for kind in (".png", ".jpg")]
    return [arrays.getvalue(), packed.getvalue(), sound.getvalue(), *coded]


WHOLE = _whole()


@pytest.mark.parametrize("body", WHOLE, ids=["npz", "compressed", "wav", "png", "jpeg"])
def test_whole_bodies_are_read(body) -> None:
    read_body(body, Model())


def test_clips_go_in_whole_and_voices_come_out_as_arrays() -> None:
    clip = TWO_VOICES.read_bytes()
    assert read_body(clip, Model()) == clip
    voices = {1: np.zeros(4, np.float32), 3: np.ones(4, np.float32)}
    result = VoicesResult(voices, {1: 0.1, 3: 0.2}, 16000)
    data, media = write_answer(result, "application/x-npz")
    with np.load(io.BytesIO(data)) as found:
        assert media == "application/x-npz" and sorted(found) == ["voice_1", "voice_3"]
        np.testing.assert_array_equal(found["voice_3"], voices[3])
    data, media = write_answer(result, "")
    assert media == "application/json" and json.loads(data)["faces"][1]["rms"] == 1


@pytest.mark.fuzz
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), max_size=4),
    st.integers(0, 2000) | st.none(),
)
def test_changed_bodies_are_read_or_refused(body, changes, end) -> None:
    data = bytearray(body)
    for place, value in changes:
        at = 4 + place % (len(data) - 4)
        data[at : at + len(value)] = value
    try:
        read_body(bytes(data[:end]), Model())
    except UsageError as error:
        assert len(str(error)) < 1000 and "/tmp" not in str(error)


def test_what_unpacks_to_much_takes_little_memory() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(1 << 26))
    lying = file.getvalue().replace((1 << 26).to_bytes(4, "little"), (152).to_bytes(4, "little"))
    tracemalloc.start()
    try:
        with pytest.raises(UsageError):
            read_body(lying, Model())
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
