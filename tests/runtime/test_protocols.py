"""Every stream of the runtime: cut anywhere it gives the same, and begins anew after `reset`."""

import ast
from pathlib import Path

import numpy as np
import pytest

from prunus.apps.common.model_files import separation_models
from prunus.runtime.audio.packets import Group, Packetizer, Receiver
from prunus.runtime.audio.resample import Resampler
from prunus.runtime.protocols import Stream
from prunus.runtime.tasks.codec.card import CodeStream
from prunus.runtime.tasks.codec.codec import CodecFormat, SpeechCodec
from prunus.runtime.tasks.codec.concealment import LossyDecoder
from prunus.runtime.tasks.faces.mouth import MouthCropper
from prunus.runtime.tasks.separation.card import MouthPreprocess
from prunus.runtime.tasks.separation.separator import SpeechSeparator

RUNTIME = Path(__file__).parents[2] / "runtime"
SOUND = (0.1 * np.random.default_rng(1).standard_normal(9_000)).astype(np.float32)
FORMAT = CodecFormat("toy", 16000, 320, (CodeStream("codes", 2, 64, 1),), 0, "ab" * 32, True)
CODES = np.random.default_rng(2).integers(0, 64, (2, 40))


@pytest.fixture(scope="module")
def codecs(tiny_codec):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    opened = {
        name: SpeechCodec.open(str(tiny_codec(name)), "onnxruntime", threads=1)
        for name in ("wavtokenizer", "fusecodec")  # steps in, windows out; and the other way round
    }
    yield opened
    for codec in opened.values():
        codec.close()


def _sound(cuts):
    return np.split(SOUND, cuts)


def _codes(codec, cuts):
    codes = codec.encode(SOUND).codes
    name = codec.format.streams[0].name
    return [{name: part} for part in np.split(codes[name], [c // 600 for c in cuts], axis=1)]


def _packets(_):
    packetizer = Packetizer(FORMAT, frames=4)
    return [*packetizer.push({"codes": CODES}), *packetizer.flush()]


def _streams(codecs, separator):
    """Yield name, stream, and what gives its pieces for a list of cuts in 9000 samples."""
    for formula in ("soxr", "torchaudio"):
        yield f"resampler {formula}", Resampler(48000, 16000, formula), _sound
    yield "packetizer", Packetizer(FORMAT, frames=4), lambda cuts: [
        {"codes": part} for part in np.split(CODES, [c // 250 for c in cuts], axis=1)
    ]
    yield "receiver", Receiver(FORMAT, depth=2), _packets
    for name, codec in codecs.items():
        for eager in (False, True):
            yield f"{name} encoder {eager}", codec.encoder(eager=eager), _sound
            yield f"{name} decoder {eager}", codec.decoder(eager=eager), (
                lambda cuts, codec=codec: _codes(codec, cuts)
            )
        yield f"{name} lossy", LossyDecoder(codec), lambda cuts, codec=codec: [
            Group(0, 3, None if k == 1 else part)
            for k, part in enumerate(_codes(codec, [3000, 6000]))
        ]
    yield "voice", separator, _sound
    points = np.random.default_rng(3).uniform(20, 80, (468, 2)).astype(np.float32)
    frames = np.random.default_rng(4).integers(0, 255, (30, 100, 100, 3)).astype(np.uint8)

    class Faced(MouthCropper):
        def push(self, frame):
            return super().push(frame, points)

    yield "cropper", Faced(MouthPreprocess(25, reach=2)), lambda cuts: list(frames)


def _flat(pieces):
    """Return what came out as one list of comparable values, whatever a stream gives."""
    out = []
    for piece in pieces:
        values = list(piece.values()) if isinstance(piece, dict) else [piece]
        for value in values:
            if isinstance(value, np.ndarray):
                out += np.moveaxis(value, -1, 0).tolist()
            else:
                out += [v.tobytes() if isinstance(v, np.ndarray) else _plain(v) for v in value]
    return out


def _plain(value):
    if isinstance(value, Group):
        return (value.first, value.frames, value.codes["codes"].tolist() if value.codes else None)
    return value


def _run(stream, pieces):
    return _flat([*map(stream.push, pieces), stream.flush()])


def test_streams_give_the_same_wherever_they_are_cut_and_again_after_reset(codecs) -> None:
    pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    with SpeechSeparator.open(separation_models(None)[1], "onnxruntime", threads=1) as opened:
        seen = set()
        for name, stream, pieces_of in _streams(codecs, opened.stream()):
            assert isinstance(stream, Stream), name
            few, many = [3000], sorted(rng.integers(0, len(SOUND), 12).tolist())
            whole = _run(stream, pieces_of(few))
            assert whole, name
            stream.reset()
            stream.push(pieces_of(few)[0])
            stream.reset()  # in the middle: nothing of it is left
            again = _run(stream, pieces_of(many))
            if name == "packetizer":  # another stream, so that receivers tell them apart
                assert len(again) == len(whole) and again != whole
            else:
                assert again == whole, name
            assert stream.latency_s == stream.latency / stream.sample_rate_hz >= 0.0
            seen |= {c.__name__ for c in type(stream).__mro__}
    assert seen >= _stream_classes() - {"Steps", "Windows"}  # those work inside the codec's


def _stream_classes() -> set[str]:
    """Return the classes of the runtime that say they are streams."""
    found = set()
    for path in RUNTIME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(b).partition("[")[0] for b in node.bases}
                found |= {node.name} if bases & {"Stream", "Flow"} else set()
    return found


def test_whatever_takes_pieces_is_a_stream() -> None:
    """No class of the runtime has names of its own for it; what is underneath streams is told."""
    parts = {"_Filter", "_Soxr", "_Sinc", "Held", "Reblocker", "CodeBlocks", "MouthGrid", "Stream"}
    known = parts | _stream_classes()
    for path in RUNTIME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name not in known:
                methods = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
                assert "push" not in methods, f"{path.name}: {node.name}"
