"""Make the bundled clip of two heads that speak at once: one command, from packages.

    python -m prunus.models.training.speech.cache --packages debs --download
    python -m benchmarks.separation.make_two_voices --cache .cache/speech -o two_voices.mp4

Two of Anny's heads (`models/training/rendering/talking_head.py`) say two recordings
that nothing was trained on, mixed at equal power. What the face path reads in the finished file is
measured at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.apps.demo.two_voices import (
    FPS,
    RATE_HZ,
    follow_faces,
    openings,
    read_clean,
    read_moments,
    write_mixture,
)
from prunus.apps.io.sources.clip import load_av
from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.errors import ArtifactError
from prunus.runtime.progress import ConsoleProgress

from ..record import report_errors

if TYPE_CHECKING:
    from prunus.models.training.rendering.talking_head import Person, TalkingHead

Audio = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
SECONDS = 8.0
WIDTH, HEIGHT = 480, 272
# Left and right: the source in the speech cache and the recording in it. Both are test data.
RECORDINGS = (
    ("asterisk_fr", "dictate/play_help.g722"),
    ("festvox_ru_unseen", "ru_0759.wav"),
)
_LEVEL = 0.06  # root mean square of each voice
_MIX_RATE, _CLEAN_RATE = 40_000, 80_000  # bits per second
_WALL = ((0.60, 0.63, 0.66), (0.42, 0.45, 0.50))  # RGB at the top and at the bottom


def find_recording(cache: Path, source: str, file: str) -> Audio:
    """Return one recording of the speech cache: float32 (T,) at 16 kHz.

    Raises:
        ArtifactError: the cache or the recording is not there.
    """
    from prunus.models.training.speech.cache import MANIFEST

    hint = "Make it with: python -m prunus.models.training.speech.cache --packages DIR"
    if not (cache / MANIFEST).is_file():
        raise ArtifactError(f"There is no speech cache in {cache}.", hint)
    rows = {row["name"]: row for row in json.loads((cache / MANIFEST).read_text())}
    clips = {clip["file"]: clip for clip in rows.get(source, {"clips": []})["clips"]}
    if file not in clips:
        raise ArtifactError(f"The speech cache in {cache} has no {source}/{file}.", hint)
    sound = np.load(cache / f"{source}.sound.npy", mmap_mode="r")
    start = clips[file]["start"]
    whole: Audio = sound[start : start + clips[file]["samples"]].astype(np.float32) / 32768
    return whole


def fit(sound: Audio, samples: int) -> Audio:
    """Return a voice of one level in the middle of so many samples."""
    cut = sound[:samples]
    placed = np.zeros(samples, np.float32)
    first = (samples - len(cut)) // 2
    placed[first : first + len(cut)] = cut
    return placed * np.float32(_LEVEL / np.sqrt((placed**2).mean()))


def people() -> tuple[Person, Person]:
    """Return who sits left and who sits right."""
    from prunus.models.training.rendering.talking_head import Person

    left = Person(
        {"gender": 0.0, "age": 0.62, "weight": 0.5, "height": 0.5, "asian": 0.2, "african": 0.3,
         "caucasian": 0.5},
        skin=(0.78, 0.56, 0.44), lips=(0.66, 0.30, 0.30), hair=(0.12, 0.07, 0.05),
        shirt=(0.50, 0.16, 0.20), iris=(0.24, 0.14, 0.08), nape=0.0,
    )  # fmt: skip
    right = Person(
        {"gender": 1.0, "age": 0.68, "weight": 0.55, "height": 0.5, "asian": 0.0, "african": 0.0,
         "caucasian": 1.0},
        skin=(0.93, 0.76, 0.66), lips=(0.76, 0.46, 0.42), hair=(0.42, 0.28, 0.16),
        shirt=(0.20, 0.32, 0.48), iris=(0.25, 0.38, 0.48), nape=0.5,
    )  # fmt: skip
    return left, right


def film(voices: Audio) -> Iterator[Image]:
    """Yield pictures, uint8 (272, 480, 3) RGB, of the two heads that say two voices.

    Args:
        voices: float32 (2, T) at 16 kHz, left and right.
    """
    from prunus.models.training.rendering.drawn_lips import speech_shape
    from prunus.models.training.rendering.talking_head import HeadModel, TalkingHead

    model = HeadModel()
    heads = [TalkingHead(model, person, HEIGHT) for person in people()]
    shapes = [speech_shape(voice) for voice in voices]
    top, bottom = (255 * np.array(colour) for colour in _WALL)
    share = np.linspace(0, 1, HEIGHT)[:, None, None]
    wall = np.broadcast_to((1 - share) * top + share * bottom, (HEIGHT, WIDTH, 3))
    for k in range(len(shapes[0][0])):
        scene = wall.copy()
        for side, (head, (opening, rounding)) in enumerate(zip(heads, shapes, strict=True)):
            drawn = _draw(head, side, k, float(opening[k]), float(rounding[k]))
            edge = (HEIGHT - WIDTH // 2) // 2
            drawn = drawn[:, edge : edge + WIDTH // 2]
            cover = drawn[..., 3:] / 255
            half = scene[:, side * WIDTH // 2 : (side + 1) * WIDTH // 2]
            half[:] = half * (1 - cover) + drawn[..., :3]
        yield np.clip(np.round(scene), 0, 255).astype(np.uint8)


def _draw(head: TalkingHead, side: int, k: int, opening: float, rounding: float) -> Image:
    """Draw one frame: sitting, nodding a little, blinking every few seconds."""
    time = k / FPS + 1.7 * side
    turn = (1.5 * np.sin(1.9 * time), 1.0 * np.sin(1.3 * time + 1), 3.0 * np.sin(0.9 * time + 2))
    blink = max(0.0, 1 - abs((time % 2.9) - 1.5) / 0.09)
    return head.draw(opening, rounding, blink, turn)


def write_clip(path: Path, pictures: Iterator[Image], voices: Audio) -> None:
    """Write pictures, the mixture of the voices, and the voices themselves.

    Args:
        path: An .mp4 file.
        pictures: uint8 (272, 480, 3) RGB, 25 a second.
        voices: float32 (2, T) at 16 kHz.
    """
    av = load_av()
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as file:
        how = {"preset": "veryslow", "crf": "28", "tune": "animation"}
        picture = file.add_stream("libx264", rate=FPS, options=how)
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sounds = []
        for layout, bits in (("mono", _MIX_RATE), ("stereo", _CLEAN_RATE)):
            stream = file.add_stream("aac", rate=RATE_HZ, layout=layout)
            stream.bit_rate = bits
            sounds.append(stream)
        for image in pictures:
            file.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        file.mux(picture.encode(None))
        for stream, channels in zip(sounds, (voices.sum(axis=0)[None], voices), strict=True):
            for start in range(0, channels.shape[1], 1024):
                _encode(file, stream, channels[:, start : start + 1024], start)
            file.mux(stream.encode(None))


def _encode(file: Any, stream: Any, block: Audio, start: int) -> None:
    av = load_av()
    layout = "mono" if len(block) == 1 else "stereo"
    limited = np.ascontiguousarray(np.clip(block, -1, 1))
    frame = av.AudioFrame.from_ndarray(limited, "fltp", layout)
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
    file.mux(stream.encode(frame))


def measure(path: Path) -> list[str]:
    """Return what the face path reads in a clip, a line per face."""
    from prunus.models.training.rendering.drawn_lips import speech_shape
    from prunus.runtime.audio.quality import si_sdr_db

    pictures, mixture = read_moments(path)
    voices = read_clean(path)
    faces = follow_faces(pictures)
    lines = []
    for number, voice in enumerate(voices, 1):
        track, drive = openings(faces, number), speech_shape(voice)[0]
        seen = np.isfinite(track)
        follows = np.corrcoef(track[seen], drive[: len(track)][seen])[0, 1]
        before = si_sdr_db(voice[: len(mixture)], mixture[: len(voice)])
        lines.append(
            f"face {number}: in {seen.mean():.0%} of the pictures, lips {np.nanmin(track):.2f} to "
            f"{np.nanmax(track):.2f} mouth widths apart, follow the voice at r = {follows:.2f}; "
            f"SI-SDR of the mixture {before:.2f} dB"
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, make the clip and measure it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.separation.make_two_voices",
                                     description=__doc__)  # fmt: skip
    parser.add_argument("--cache", type=Path, default=Path(".cache/speech"))
    parser.add_argument("--output", "-o", type=Path, default=Path("two_voices.mp4"))
    parser.add_argument("--mixtures", type=Path, help="also a folder for prunus eval separation")
    parser.add_argument("--drawing", choices=("lips", "picture"), default="lips",
                        help="how mouths are shown in that folder")  # fmt: skip
    options = parser.parse_args(arguments)

    def work() -> None:
        samples = round(SECONDS * RATE_HZ)
        found = [fit(find_recording(options.cache, *place), samples) for place in RECORDINGS]
        voices = np.stack(found)
        count = round(SECONDS * FPS)
        with ConsoleProgress("film") as progress:
            write_clip(options.output, _counted(film(voices), count, progress), voices)
        print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB")
        print("\n".join(measure(options.output)))
        if options.mixtures is not None:
            print(write_mixture(options.output, options.mixtures, options.drawing))

    return report_errors(work)


def _counted(pictures: Iterator[Image], count: int, progress: ConsoleProgress) -> Iterator[Image]:
    for k, picture in enumerate(pictures):
        progress.update(k, count, "pictures")
        yield picture


if __name__ == "__main__":
    sys.exit(main())
