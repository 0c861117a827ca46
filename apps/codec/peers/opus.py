"""Opus (RFC 6716) through its library, and the enhancing decoders that came with libopus 1.5.

libopus comes inside PyAV's wheel. PyAV itself cannot hold the band: below some 9 kbit/s the encoder
goes to narrow band, where the enhancers stay off. Here OPUS_SET_BANDWIDTH says wide band, and each
packet is asked whether it is so. LACE and NoLACE (Buethe et al., arXiv 2307.06610, 2309.14521) run
in Node, from the npm package `@wasm-audio-decoders/opus-ml`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import HostError

Audio = npt.NDArray[np.float32]
Decoder = Literal["plain", "lace", "nolace"]
RATE_HZ = 48000
LEAST, MOST = 6.0, 256.0  # kbit/s of one channel
FRAME = 960  # 20 ms, the only length that the enhancers take
_VOICE, _WIDE = 2048, 1103  # OPUS_APPLICATION_VOIP, OPUS_BANDWIDTH_WIDEBAND
# Requests of opus_encoder_ctl: bits a second, variable rate, constrained rate, effort, band.
_BITRATE, _VBR, _CONSTRAINED, _COMPLEXITY, _BANDWIDTH = 4002, 4006, 4020, 4010, 4008
_LOOKAHEAD = 4027
_MOST_BYTES = 4000
MODULES = "PRUNUS_NODE_MODULES"
_PACKAGE = "@wasm-audio-decoders/opus-ml"
_SCRIPT = Path(__file__).with_name("opus_ml.mjs")


def opus(
    sound: Audio, kilobits: float, *, wide: bool = False, decoder: Decoder = "plain"
) -> tuple[Audio, float]:
    """Send a sound through Opus in its voice mode, frames of 20 ms, variable rate, full effort.

    Args:
        sound: (T,) float32 at 48 kHz.
        kilobits: Wanted rate.
        wide: Hold wide band (8 kHz of sound) instead of what the encoder chooses.
        decoder: What turns packets into sound again.

    Returns:
        (T,) float32 at 48 kHz, and the kbit/s of the packets alone, without a container.

    Raises:
        HostError: libopus, or for an enhancer Node or its package, is not there or fails.
    """
    packets, late = _encode(sound, kilobits, wide)
    heard = (_decode if decoder == "plain" else _enhance)(packets, decoder)[late:]
    heard = np.pad(heard[: len(sound)], (0, max(0, len(sound) - len(heard))))
    return heard, 8 * sum(map(len, packets)) * 1e-3 * RATE_HZ / len(sound)


def version() -> str:
    """Return what libopus says of itself."""
    return str(_library().opus_get_version_string().decode())


def node_modules() -> Path:
    """Return the folder that holds the enhancing decoders' package.

    Raises:
        HostError: Node or the package is not installed.
    """
    given = os.environ.get(MODULES)
    folder = Path(given) if given else Path(sys.prefix) / "node_modules"
    if shutil.which("node") is None or not (folder / _PACKAGE).is_dir():
        raise HostError(
            f"LACE and NoLACE need Node and its package {_PACKAGE}, looked for in {folder}.",
            f"npm install --prefix {folder.parent} {_PACKAGE}, or name its folder in {MODULES}.",
        )
    return folder


def _encode(sound: Audio, kilobits: float, wide: bool) -> tuple[list[bytes], int]:
    """Return the packets, and the samples by which what they decode to is late."""
    library, failed = _library(), ctypes.c_int()
    encoder = ctypes.c_void_p(
        library.opus_encoder_create(RATE_HZ, 1, _VOICE, ctypes.byref(failed))
    )
    try:
        wanted = {_BITRATE: round(1000 * kilobits), _VBR: 1, _CONSTRAINED: 0, _COMPLEXITY: 10}
        for request, value in (wanted | ({_BANDWIDTH: _WIDE} if wide else {})).items():
            _require(library.opus_encoder_ctl(encoder, request, ctypes.c_int(value)))
        late = ctypes.c_int()
        _require(library.opus_encoder_ctl(encoder, _LOOKAHEAD, ctypes.byref(late)))
        frames = -(-(len(sound) + late.value) // FRAME)
        whole = np.zeros((frames, FRAME), np.float32)
        whole.ravel()[: len(sound)] = sound
        buffer = ctypes.create_string_buffer(_MOST_BYTES)
        packets = []
        for frame in whole:
            size = _require(library.opus_encode_float(
                encoder, frame.ctypes.data_as(ctypes.c_void_p), FRAME, buffer, _MOST_BYTES
            ))  # fmt: skip
            packets.append(buffer.raw[:size])
            if wide and (band := library.opus_packet_get_bandwidth(packets[-1])) != _WIDE:
                raise HostError(f"libopus left the wide band that it was told to hold: {band}.")
    finally:
        library.opus_encoder_destroy(encoder)
    return packets, late.value


def _decode(packets: Sequence[bytes], _: Decoder) -> Audio:
    library, failed = _library(), ctypes.c_int()
    decoder = ctypes.c_void_p(library.opus_decoder_create(RATE_HZ, 1, ctypes.byref(failed)))
    out = np.zeros((len(packets), FRAME), np.float32)
    try:
        for packet, frame in zip(packets, out, strict=True):
            _require(library.opus_decode_float(
                decoder, packet, len(packet), frame.ctypes.data_as(ctypes.c_void_p), FRAME, 0
            ))  # fmt: skip
    finally:
        library.opus_decoder_destroy(decoder)
    return out.ravel()


def _enhance(packets: Sequence[bytes], decoder: Decoder) -> Audio:
    package = node_modules() / _PACKAGE / "index.js"
    data = b"".join(len(packet).to_bytes(2, "little") + packet for packet in packets)
    done = subprocess.run(
        ["node", str(_SCRIPT), str(package), decoder], input=data, capture_output=True, check=False
    )
    found = np.frombuffer(done.stdout[: len(done.stdout) // 4 * 4], "<f4")
    if done.returncode or len(found) != len(packets) * FRAME:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise HostError(
            f"The decoder with {decoder} gave {len(found)} samples of {len(packets) * FRAME}: "
            f"{reason[-1]}.",
            f"Is {_PACKAGE} whole, and Node new enough for WebAssembly SIMD?",
        )
    return found.astype(np.float32)


def _require(code: int) -> int:
    if code < 0:
        raise HostError(f"libopus refused: {_library().opus_strerror(code).decode()}.")
    return code


@cache
def _library() -> ctypes.CDLL:
    """Load libopus: PyAV's, which is newer, or the system's."""
    spec = importlib.util.find_spec("av")
    wheels = [Path(p) for p in (spec and spec.submodule_search_locations) or ()]
    found = [p for w in wheels for f in (w.with_name("av.libs"), w / ".dylibs")
             for p in sorted(f.glob("libopus*"))]  # fmt: skip
    path = str(found[0]) if found else ctypes.util.find_library("opus")
    if path is None:
        raise HostError(
            "The peer Opus needs libopus, and neither PyAV nor the system brings it.",
            "pip install 'prunus[clips]', or on Debian: apt-get install libopus0",
        )
    library = ctypes.CDLL(path)
    library.opus_encoder_create.restype = library.opus_decoder_create.restype = ctypes.c_void_p
    library.opus_encoder_ctl.argtypes = [ctypes.c_void_p, ctypes.c_int]  # the rest is variadic
    library.opus_get_version_string.restype = library.opus_strerror.restype = ctypes.c_char_p
    return library
