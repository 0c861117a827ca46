"""LPCNet and Codec2, as in Debian's codec2 library."""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import HostError

Audio = npt.NDArray[np.float32]
LPCNET_HZ, CODEC2_HZ = 16000, 8000
MODES = {3200: 0, 2400: 1, 1600: 2, 1400: 3, 1300: 4, 1200: 5, 700: 8}  # bit/s -> its number
_AFTER = 8  # frames of silence behind the sound, in which what is late comes out


def lpcnet(sound: Audio) -> tuple[Audio, float]:
    """Send (T,) float32 at 16 kHz through LPCNet at 1733 bit/s: 52 bits per frame of 30 ms.

    With its direct split quantiser; the predictive one (argument 0) talks nonsense in this build:
    STOI 0.50 instead of 0.82 on the same recording.

    Returns:
        What comes out, late and longer, and the kbit/s.

    Raises:
        HostError: the library is not installed, or was built without LPCNet.
    """
    library = _library()
    if not hasattr(library, "lpcnet_freedv_create"):
        raise HostError("This libcodec2 was built without LPCNet.", "Debian's has it.")
    library.lpcnet_freedv_create.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(library.lpcnet_freedv_create(1))
    size = int(library.lpcnet_samples_per_frame(handle))
    bits = int(library.lpcnet_bits_per_frame(handle))
    coded = ctypes.create_string_buffer(bits)
    frames = _frames(sound, size)
    for frame in frames:
        library.lpcnet_enc(handle, _pointer(frame), coded)
        library.lpcnet_dec(handle, coded, _pointer(frame))
    library.lpcnet_freedv_destroy(handle)
    return _floats(frames), bits / size * LPCNET_HZ / 1000


def codec2(sound: Audio, bits_per_second: int) -> tuple[Audio, float]:
    """Send (T,) float32 at 8 kHz through Codec2.

    Args:
        sound: (T,) float32 at 8 kHz.
        bits_per_second: One of `MODES`.

    Returns:
        What comes out, late and longer, and the kbit/s.

    Raises:
        HostError: the library is not installed.
    """
    library = _library()
    library.codec2_create.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(library.codec2_create(MODES[bits_per_second]))
    size = int(library.codec2_samples_per_frame(handle))
    bits = int(library.codec2_bits_per_frame(handle))
    coded = ctypes.create_string_buffer((bits + 7) // 8)
    frames = _frames(sound, size)
    for frame in frames:
        library.codec2_encode(handle, coded, _pointer(frame))
        library.codec2_decode(handle, _pointer(frame), coded)
    library.codec2_destroy(handle)
    return _floats(frames), bits / size * CODEC2_HZ / 1000


def _frames(sound: Audio, size: int) -> npt.NDArray[np.int16]:
    """Return (frames, size) 16-bit samples, with silence behind them."""
    frames = np.zeros((-(-len(sound) // size) + _AFTER, size), np.int16)
    frames.ravel()[: len(sound)] = np.rint(np.clip(sound, -1, 1) * 32767)
    return frames


def _floats(frames: npt.NDArray[np.int16]) -> Audio:
    return (frames.ravel() / 32768.0).astype(np.float32)


def _pointer(frame: npt.NDArray[np.int16]) -> ctypes.c_void_p:
    return frame.ctypes.data_as(ctypes.c_void_p)


@cache
def _library() -> ctypes.CDLL:
    path = ctypes.util.find_library("codec2")
    if path is None:
        raise HostError(
            "LPCNet and Codec2 need libcodec2, which is not installed.",
            "On Debian: apt-get install libcodec2-1.0",
        )
    return ctypes.CDLL(path)
