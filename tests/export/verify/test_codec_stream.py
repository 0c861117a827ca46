"""A stream against the whole: exact where networks are causal, measured where they are not."""

import numpy as np
import pytest

from prunus.export.codec.samples import voice_like
from prunus.export.verify.codec_stream import main, stream_deviation
from prunus.runtime.errors import UsageError
from prunus.runtime.tasks.codec.codec import SpeechCodec

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def _deviation(name, sound):
    with SpeechCodec.open(name, "onnxruntime", threads=1) as codec:
        return stream_deviation(codec, sound)


def test_steps_equal_the_whole_and_windows_are_measured(tiny_codec, small_codecs):
    """WavTokenizer's encoder is exact but for the end, which its network mirrors."""
    sound = voice_like(24000, 2.0)  # 150 frames; the decoder's windows have 48
    found = _deviation(tiny_codec("wavtokenizer"), sound)
    assert found.seconds == 2.0 and found.equal_percent["codes"] >= 100 * 146 / 150
    assert found.snr_db < 90 and found.mel_db > 0
    short = _deviation(tiny_codec("wavtokenizer"), sound[: 320 * 40])
    assert short.snr_db > 90 and short.mel_db < 1e-3
    assert found.snr_db < short.snr_db


def test_decoder_steps_equal_the_whole(tiny_codec, small_codecs):
    found = _deviation(tiny_codec("fusecodec"), voice_like(16000, 2.0))
    assert found.snr_db > 20  # but for the last frame, see the test of the task
    assert 0 < found.equal_percent["codes"] <= 100  # windows around an LSTM of both directions


def test_every_stream_is_counted(tiny_codec, small_codecs, capsys):
    assert main([str(tiny_codec("freecodec")), "--seconds", "1.6"]) == 0
    said = capsys.readouterr().out
    assert "content" in said and "prosody" in said and "dB SNR" in said


def test_the_shipped_codec_streams_what_the_whole_gives(capsys):
    """Causal with a bounded look-ahead on both sides: nothing differs but rounding."""
    assert main(["--seconds", "1"]) == 0
    said = capsys.readouterr().out
    assert "pitch 100.00 %, codes 100.00 %" in said
    assert float(said.split("sound ")[1].split(" dB")[0]) > 100


def test_wrong_requests_are_named(tiny_codec, tmp_path, capsys):
    with pytest.raises(UsageError, match="shorter"):
        _deviation(tiny_codec("wavtokenizer"), np.zeros(100, np.float32))
    assert main([str(tmp_path / "nothing")]) == 2
    assert "no encoder" in capsys.readouterr().err
