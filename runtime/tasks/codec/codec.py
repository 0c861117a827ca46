"""Speech codec: sound -> codes -> sound, whole or as a stream, without PyTorch.

A codec is a set of model files of the same weights. Sound is mono float32 at the codec's own rate
(`runtime.resample` changes rates). What follows the end of a sound is silence to an encoder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.reblock import Array, Lane, Reblocker
from prunus.runtime.audio.resample import Formula
from prunus.runtime.audio.stream import Arrays, Steps, Windows
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError, TensorError, UsageError
from prunus.runtime.protocols import Closable, Stream
from prunus.runtime.tasks.calls import OneStream, in_turn
from prunus.runtime.tasks.codec.card import CodecPostprocess, CodecPreprocess, CodeStream, Part

if TYPE_CHECKING:
    from prunus.runtime.session.base import BackendOptions, Session

Audio = npt.NDArray[np.float32]
Codes = Mapping[str, npt.NDArray[np.int64]]
AUDIO, VALID, VOICE = "audio", "valid", "voice"
PARTS: tuple[Part, ...] = ("encoder", "decoder", "speaker")


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no single truth: identity it is
class Speech:
    """A sound as codes.

    Attributes:
        codes: Stream name -> int64 (codebooks, codes).
        samples: Length of the sound.
        voice: float32 (width,) of codecs that send a voice once, else None.
    """

    codes: Mapping[str, npt.NDArray[np.int64]]
    samples: int
    voice: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class CodecFormat:
    """What encoder and decoder agree on.

    Attributes:
        name: For messages.
        sample_rate_hz: Samples per second.
        hop: Samples per frame.
        streams: Sequences of codes.
        voice: Width of the voice vector, 0 for none.
        identity: SHA-256 over all of it and the weights: files of other weights are told apart.
        trained: False for random weights.
        resampler: Formula by which other rates are brought to this one.
    """

    name: str
    sample_rate_hz: int
    hop: int
    streams: tuple[CodeStream, ...]
    voice: int
    identity: str
    trained: bool
    resampler: Formula = "soxr"

    @staticmethod
    def of(card: ModelCard) -> CodecFormat:
        """Return the format of a card; raises ArtifactError when it is not a codec's."""
        pre, post = card.preprocess, card.postprocess
        if not isinstance(pre, CodecPreprocess) or not isinstance(post, CodecPostprocess):
            raise ArtifactError(
                f"The card describes {card.name}; expected a graph of a speech codec.",
                "Make one with: prunus export wavtokenizer",
            )
        about = {
            "model": card.model,
            "variant": card.variant,
            "weights": card.weights.sha256,
            "rate": pre.sample_rate_hz,
            "hop": pre.hop,
            "streams": [asdict(stream) for stream in post.streams],
            "voice": post.voice,
        }
        identity = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        name = f"{card.model} {card.variant}"
        return CodecFormat(name, pre.sample_rate_hz, pre.hop, post.streams, post.voice, identity,
                           card.weights.trained, pre.resampler)  # fmt: skip

    @property
    def stride(self) -> int:
        """Frames after which every stream has given a whole number of codes."""
        return max(stream.stride for stream in self.streams)

    @property
    def bits_per_second(self) -> float:
        """Rate of the codes alone."""
        frames = self.sample_rate_hz / self.hop
        return frames * sum(s.codebooks * s.bits / s.stride for s in self.streams)

    def frames_of(self, samples: int) -> int:
        """Return the frames of a sound: whole strides."""
        return -(-samples // (self.hop * self.stride)) * self.stride


class SpeechCodec(Closable):
    """Encode and decode speech; any number of threads may share it, each with its own streams.

    Args:
        sessions: One session per part: ``encoder``, ``decoder`` or both, and ``speaker``.

    Raises:
        ArtifactError: a session is another part, or they belong to different codecs.

    Example:
        >>> with SpeechCodec.open("wavtokenizer-tok75-fp32") as codec:  # doctest: +SKIP
        ...     speech = codec.encode(sound)
        ...     again = codec.decode(speech)
    """

    def __init__(self, sessions: Mapping[Part, Session]) -> None:
        if not sessions:
            raise UsageError("Got no part of a codec; expected an encoder or a decoder.")
        self.sessions = dict(sessions)
        formats = {part: CodecFormat.of(s.card) for part, s in self.sessions.items()}
        self.format = next(iter(formats.values()))
        for part, session in self.sessions.items():
            found = cast(CodecPostprocess, session.card.postprocess).part
            if found != part:
                raise ArtifactError(f"{session.card.name} is the {found}; expected the {part}.")
            if formats[part].identity != self.format.identity:
                raise ArtifactError(
                    f"The {part} is {formats[part].name} with other weights or codes than the "
                    f"rest, {self.format.name}.",
                    "Use files of one export.",
                )

    @staticmethod
    def open(
        name: str | Path,
        backend: str = "auto",
        *,
        parts: tuple[Part, ...] = PARTS,
        threads: int | None = None,
        device: str = "cpu",
        options: BackendOptions | None = None,
    ) -> SpeechCodec:
        """Open ``NAME-encoder.onnx``, ``NAME-decoder.onnx`` and, where there is one, ``-speaker``.

        Args:
            name: NAME, or the path of any of the files.
            backend: See `prunus.runtime.session.base.open`.
            parts: Which ones are wanted; a speaker encoder only where the codec has one.
            threads: CPU threads.
            device: See `prunus.runtime.session.base.open`.
            options: Switches of the back ends.

        Raises:
            ArtifactError: a file is missing or is not part of this codec.
        """
        from prunus.runtime.session.base import open as open_session

        sessions: dict[Part, Session] = {}
        try:
            for part, path in find_parts(name, parts).items():
                sessions[part] = open_session(
                    path, backend, threads=threads, device=device, options=options
                )
            return SpeechCodec(sessions)
        except BaseException:
            for session in sessions.values():
                session.close()
            raise

    def close(self) -> None:
        """Close the sessions; safe to call twice."""
        for session in self.sessions.values():
            session.close()

    def encode(self, sound: npt.ArrayLike) -> Speech:
        """Encode a whole sound.

        Args:
            sound: (T,) float32 at `format.sample_rate_hz`, nominally in [-1, 1].

        Raises:
            TensorError: not one axis, empty, or not finite.
            UsageError: there is no encoder.
        """
        samples = check_sound(sound)
        stream = self.encoder()
        parts = [stream.push(samples), stream.flush()]
        return Speech(joined(parts), len(samples), self.voice_of(samples))

    def decode(self, speech: Speech) -> Audio:
        """Decode a whole sound.

        Returns:
            (speech.samples,) float32 within [-1, 1].

        Raises:
            TensorError: codes do not fit the codec.
            UsageError: there is no decoder.
        """
        stream = self.decoder(speech.voice)
        parts = [stream.push(speech.codes), stream.flush()]
        sound = np.concatenate(parts)
        if len(sound) < speech.samples:
            raise TensorError(
                f"Got codes for {len(sound)} samples; expected them for {speech.samples}."
            )
        return sound[: speech.samples]

    def encoder(self, *, eager: bool = False) -> StreamEncoder:
        """Begin a stream of sound; `eager` gives codes as early as the network allows."""
        return StreamEncoder(self._session("encoder"), self.format, eager)

    def decoder(self, voice: npt.ArrayLike | None = None, *, eager: bool = False) -> StreamDecoder:
        """Begin a stream of codes, in this voice where the codec has one.

        Raises:
            TensorError: the codec needs a voice, and it is missing or of another width.
        """
        return StreamDecoder(self._session("decoder"), self.format, self._voice(voice), eager)

    def voice_of(self, sound: Audio) -> npt.NDArray[np.float32] | None:
        """Return the voice in the first seconds of a sound, None for codecs without one."""
        if not self.format.voice:
            return None
        session = self._session("speaker")
        wanted = session.card.inputs[0].shape[1]
        # Too short a sound is repeated: silence would count as part of the voice.
        window = np.resize(sound, wanted) if len(sound) else np.zeros(wanted, np.float32)
        return np.array(session.run({AUDIO: window[None].astype(np.float32)})[VOICE][0])

    def _voice(self, voice: npt.ArrayLike | None) -> npt.NDArray[np.float32] | None:
        wanted = self.format.voice
        if not wanted:
            return None
        got = None if voice is None else np.asarray(voice, dtype=np.float32)
        if got is None or got.shape != (wanted,):
            raise TensorError(
                f"Got {'no voice' if got is None else f'a voice of shape {got.shape}'}; "
                f"{self.format.name} expects ({wanted},).",
                "Take it from Speech.voice, or from SpeechCodec.voice_of(sound).",
            )
        return got

    def _session(self, part: Part) -> Session:
        if part not in self.sessions:
            raise UsageError(
                f"This codec was opened without its {part}.", "Open it with that part's file."
            )
        return self.sessions[part]


class StreamEncoder(Stream[npt.ArrayLike, dict[str, npt.NDArray[np.int64]]]):
    """Sound in pieces -> codes in pieces; one object a stream, which it knows all about.

    Attributes:
        samples: Samples taken so far.
    """

    def __init__(self, session: Session, format: CodecFormat, eager: bool) -> None:
        self.format, self.samples, self.sample_rate_hz = format, 0, format.sample_rate_hz
        self._stream: AbstractContextManager[None] = OneStream("A stream encoder")
        lanes = _lanes(format.streams)
        self._flow = _flow(session, {AUDIO: Lane(format.hop)}, lanes, eager=eager)

    @property
    def latency(self) -> int:
        """See `Stream`."""
        return self._flow.latency

    @in_turn
    def reset(self) -> None:
        """See `Stream`."""
        self.samples = 0
        self._flow.reset()

    @in_turn
    def push(self, sound: npt.ArrayLike) -> dict[str, npt.NDArray[np.int64]]:
        """Take (T,) float32 samples; return stream name -> int64 (codebooks, new codes)."""
        samples = check_sound(sound, empty=True)
        self.samples += len(samples)
        return self._named(self._flow.push({AUDIO: samples[None]}))

    @in_turn
    def flush(self) -> dict[str, npt.NDArray[np.int64]]:
        """End the sound; return its last codes."""
        return self._named(self._flow.flush())

    def _named(self, out: Mapping[str, Array]) -> dict[str, npt.NDArray[np.int64]]:
        empty = {s.name: np.zeros((s.codebooks, 0), np.int64) for s in self.format.streams}
        return empty | {name: values[0] for name, values in out.items()}


class StreamDecoder(Stream[Codes, Audio]):
    """Codes in pieces -> sound in pieces; one object a stream, which it knows all about."""

    def __init__(self, session: Session, format: CodecFormat,
                 voice: npt.NDArray[np.float32] | None, eager: bool) -> None:  # fmt: skip
        self.format, self.sample_rate_hz = format, format.sample_rate_hz
        self._stream: AbstractContextManager[None] = OneStream("A stream decoder")
        self._last: dict[str, Array] = {}
        constant = {} if voice is None else {VOICE: voice[None]}
        out = {AUDIO: Lane(format.hop)}
        self._flow = _flow(session, _lanes(format.streams), out, constant, eager=eager)

    @property
    def latency(self) -> int:
        """See `Stream`."""
        return self._flow.latency

    @in_turn
    def reset(self) -> None:
        """See `Stream`; the voice stays."""
        self._last = {}
        self._flow.reset()

    @in_turn
    def push(self, codes: Codes) -> Audio:
        """Take int64 (codebooks, n) codes of every stream; return the sound complete by now.

        Raises:
            TensorError: a stream is missing, or an index lies outside its codebook.
        """
        checked = {s.name: check_codes(codes, s)[None] for s in self.format.streams}
        kept = self._flow.latency // self.format.hop + 1
        for name, values in checked.items():
            before = self._last.get(name, values[..., :0])
            self._last[name] = np.concatenate((before, values), axis=-1)[..., -kept:]
        return _sound(self._flow.push(checked))

    @in_turn
    def flush(self) -> Audio:
        """End the codes; return the rest of the sound."""
        # The published network mirrors its frames at the end; a step graph is shown the mirror.
        mirrored = {n: v[..., -2::-1] for n, v in self._last.items()}
        usable = all(v.shape[-1] for v in mirrored.values()) and bool(mirrored)
        return _sound(self._flow.flush(mirrored if usable else None))


def find_parts(name: str | Path, parts: tuple[Part, ...] = PARTS) -> dict[Part, Path]:
    """Return the files of a codec.

    Raises:
        ArtifactError: one is missing (a speaker encoder is optional).
    """
    path = Path(name)
    suffix = path.suffix if path.suffix in (".onnx", ".engine") else ".onnx"
    base = str(path).removesuffix(suffix)
    for part in PARTS:
        base = base.removesuffix(f"-{part}")
    found: dict[Part, Path] = {}
    for part in parts:
        file = Path(f"{base}-{part}{suffix}")
        if file.is_file():
            found[part] = file
        elif part != "speaker":
            raise ArtifactError(
                f"The codec '{base}' has no {part}: {file} does not exist.",
                "Make it with: prunus export wavtokenizer -o NAME",
            )
    return found


def check_sound(sound: npt.ArrayLike, *, empty: bool = False) -> Audio:
    """Return (T,) float32; raises TensorError for another shape, nothing, NaN or infinity."""
    samples = np.asarray(sound, dtype=np.float32)
    if samples.ndim != 1 or (not len(samples) and not empty):
        raise TensorError(
            f"Got sound of shape {samples.shape}; expected (samples,), mono and not empty.",
            "Average the channels first.",
        )
    if not np.isfinite(samples).all():
        first = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise TensorError(
            f"Sample {first} of the sound is {samples[first]}; expected finite numbers.",
            "Replace it, for example by numpy.nan_to_num.",
        )
    return samples


def check_codes(codes: Mapping[str, Any], stream: CodeStream) -> npt.NDArray[np.int64]:
    """Return one stream's codes; raises TensorError when they are none of its codebooks'."""
    if stream.name not in codes:
        raise TensorError(f"Got codes {sorted(codes)}; expected the stream '{stream.name}'.")
    values = np.asarray(codes[stream.name])
    if values.ndim != 2 or values.shape[0] != stream.codebooks or values.dtype.kind not in "iu":
        raise TensorError(
            f"The codes '{stream.name}' are {values.dtype} {list(values.shape)}; expected integers "
            f"({stream.codebooks}, n)."
        )
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < stream.size:
        raise TensorError(
            f"The codes '{stream.name}' reach from {values.min()} to {values.max()}; expected 0 to "
            f"{stream.size - 1}."
        )
    return values.astype(np.int64)


class CodeBlocks(Reblocker):
    """Codes of every stream in pieces of any length in, out by whole frames.

    Args:
        streams: Of a codec.
    """

    def __init__(self, streams: tuple[CodeStream, ...]) -> None:
        shapes = {s.name: ((s.codebooks, 0), np.int64) for s in streams}
        super().__init__(_lanes(streams), shapes)
        self._streams = streams

    def push(self, pieces: Mapping[str, Any]) -> None:
        """Append codes of every stream.

        Raises:
            TensorError: as of `check_codes`; nothing is appended then.
        """
        super().push({s.name: check_codes(pieces, s) for s in self._streams})

    @property
    def frames(self) -> int:
        """Whole frames that are held."""
        return self.end - self.start


def _lanes(streams: tuple[CodeStream, ...]) -> dict[str, Lane]:
    return {s.name: Lane(1, s.stride) for s in streams}


def joined(parts: list[dict[str, npt.NDArray[np.int64]]]) -> dict[str, npt.NDArray[np.int64]]:
    """Return pieces of codes as one."""
    return {name: np.concatenate([p[name] for p in parts], axis=-1) for name in parts[0]}


def decode_blocks(
    decoder: StreamDecoder, blocks: Iterator[Mapping[str, npt.NDArray[np.int64]]]
) -> Iterator[Audio]:
    """Yield the sound of a stream of codes, the rest of it last."""
    for block in blocks:
        sound = decoder.push(block)
        if len(sound):
            yield sound
    rest = decoder.flush()
    if len(rest):
        yield rest


def _flow(
    session: Session,
    inputs: Mapping[str, Lane],
    outputs: Mapping[str, Lane],
    constant: Arrays | None = None,
    *,
    eager: bool,
) -> Steps | Windows:
    card = session.card
    if card.streaming is not None:
        return Steps(lambda feed: session.run(dict(feed)), card, inputs, outputs)
    masked = any(spec.name == VALID for spec in card.inputs)
    width = cast(CodecPreprocess, card.preprocess).frames

    def run(feed: Arrays, frames: int) -> Arrays:
        extra = dict(constant or {})
        if masked:
            extra[VALID] = (np.arange(width) < frames).astype(np.float32)[None]
        return session.run({**feed, **extra})

    return Windows(run, card, inputs, outputs, eager=eager)


def _sound(out: Mapping[str, Array]) -> Audio:
    if AUDIO not in out:
        return np.zeros(0, np.float32)
    # Speech networks overshoot now and then; what plays or stores sound would wrap or refuse.
    return np.clip(np.asarray(out[AUDIO][0], np.float32), -1.0, 1.0)
