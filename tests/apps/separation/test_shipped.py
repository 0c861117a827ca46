"""The separator that ships: what its cards say, and that it hears whose lips it is shown."""

import json
import subprocess
import sys

import numpy as np
import pytest

from prunus.apps.common.media import TWO_VOICES
from prunus.apps.common.model_files import shipped_separator
from prunus.apps.demo.two_voices import RATE_HZ, read_clean
from prunus.export.dolphin import reference_module
from prunus.export.separation.weights import find_weights, weights_of
from prunus.models import zoo
from prunus.models.separation.config import dolphin_config
from prunus.models.training.rendering.drawn_lips import FPS, Mouth, lip_clip
from prunus.runtime.audio.quality import si_sdr_db
from prunus.runtime.card.artifact import read_card
from prunus.runtime.host import bfloat16_flag
from prunus.runtime.tasks.separation.separator import SpeechSeparator

pytest.importorskip("av")
SECONDS = 4


def test_cards_table_and_record_agree() -> None:
    shipped = [e for e in zoo.entries() if e.task == "separation"]
    assert {e.kind for e in shipped} == {"checkpoint", "artifact"} and len(shipped) == 3
    assert sum(e.size for e in shipped) < 6e6
    checkpoint = zoo.find("dolphin_nano")
    pair = shipped_separator()
    assert pair is not None
    lips, voice = (read_card(path) for path in pair)
    assert lips.weights == voice.weights and lips.weights.trained
    assert lips.weights.sha256 == checkpoint.sha256
    assert lips.preprocess.drawing == "lips" and voice.postprocess.level == "relative"
    record = json.loads((zoo.WEIGHTS / "dolphin_nano.json").read_text())
    assert record["sha256"] == checkpoint.sha256
    assert "June" in {row["speaker"] for row in record["held_out"]}
    assert "June" not in {row["speaker"] for row in record["data"]}


def test_weights_are_found_by_default_and_again_from_a_card() -> None:
    config = dolphin_config("nano")
    found = find_weights(config)
    assert found.spec.trained and found.drawing == "lips" and found.level == "relative"
    assert weights_of(found.spec, config).spec == found.spec
    assert not find_weights(config, "random").spec.trained
    assert not find_weights(dolphin_config("base")).spec.trained  # of another size: none ship


def test_the_lips_choose_the_voice() -> None:
    voices = read_clean(TWO_VOICES)[:, : SECONDS * RATE_HZ]
    mixture = voices.sum(axis=0)
    rng = np.random.default_rng(5)
    lips = [lip_clip(voice, Mouth(), rng) for voice in voices]
    pair = shipped_separator()
    assert pair is not None
    with SpeechSeparator.open(pair[1], "onnxruntime", threads=1) as separator:
        for k, crops in enumerate(lips):
            heard = separator.separate(mixture, [(c, i / FPS) for i, c in enumerate(crops)])
            own, other = (
                si_sdr_db(voice, heard) - si_sdr_db(voice, mixture)
                for voice in (voices[k], voices[1 - k])
            )
            assert own > 2, own
            assert other < 0, other


def test_the_shipped_graph_is_the_checkpoint() -> None:
    pair = shipped_separator()
    assert pair is not None
    card = read_card(pair[0])
    crops = np.random.default_rng(1).integers(0, 255, card.inputs[0].shape, dtype=np.uint8)
    import torch

    from prunus.runtime.session.base import open as open_session

    with torch.no_grad():
        features, codes = reference_module(card)(torch.from_numpy(crops))
    with open_session(pair[0], "onnxruntime", threads=1) as session:
        got = session.run({"mouth": crops})
    np.testing.assert_allclose(got["lips"], features.numpy(), atol=1e-3)
    assert (got["codes"] == codes.numpy()).mean() > 0.99


@pytest.mark.skipif(not bfloat16_flag(), reason="this processor computes no bfloat16")
def test_the_voice_opens_in_bfloat16_with_two_threads() -> None:
    """OpenVINO waited for itself for ever, so another process tries it."""
    pytest.importorskip("openvino")
    pair = shipped_separator()
    assert pair is not None
    code = (
        "from prunus.runtime.session.base import BackendOptions, open; import sys\n"
        "options = BackendOptions(inference_precision='bf16')\n"
        "with open(sys.argv[1], 'openvino', threads=2, options=options) as session:\n"
        "    print(session.description)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(pair[1])],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    assert "bf16 arithmetic" in done.stdout
