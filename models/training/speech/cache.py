"""Collect studio speech from Debian packages for the training of a codec: one resumable command.

``python -m prunus.models.training.speech.cache --packages DIR --download``

Every recording becomes mono int16 at 16 kHz, without silence at its ends, joined per speaker, with
a pitch label for each 20 ms. `manifest.json` names speaker, licence and split of each recording.
Splits are by speaker: of a test speaker nothing is trained on. Speech under the GPL would only ever
be evaluated on, and is not in this table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from prunus.models.training.speech.pitch import HOP, SAMPLE_RATE_HZ, track_pitch
from prunus.runtime.card.artifact import atomic_path, sha256_of, write_whole
from prunus.runtime.errors import ArtifactError, HostError, SourceError

Split = Literal["train", "test"]
Audio = npt.NDArray[np.int16]
MANIFEST = "manifest.json"
_SHORTEST = 0.4  # seconds
_MARGIN = int(0.06 * SAMPLE_RATE_HZ)  # kept before and behind what is heard
_HEARD = 10.0 ** (-45.0 / 20.0)  # of the loudest 20 ms


@dataclass(frozen=True)
class SpeechSource:
    """One speaker's recordings inside one Debian package.

    Attributes:
        name: Of the files in the cache.
        package: Debian package.
        version: Of the package when the hash was taken.
        sha256: Of the ``.deb`` file.
        folder: Inside the package.
        pattern: Of the sound files.
        speaker: Who speaks.
        language: ISO 639-1.
        licence: SPDX identifier, or a name where there is none.
        credit: Whom the licence asks to name.
        split: ``train`` or ``test``.
        first: Recordings to take of the sorted list, from here
        last: to here, None for all.
    """

    name: str
    package: str
    version: str
    sha256: str
    folder: str
    pattern: str
    speaker: str
    language: str
    licence: str
    credit: str
    split: Split
    first: int = 0
    last: int | None = None

    @property
    def file(self) -> str:
        """File name of the package."""
        return f"{self.package}_{self.version}_all.deb"


def _asterisk(language: str, folder: str, sha256: str, *about: str, split: Split) -> SpeechSource:
    speaker, licence, credit = about
    place = f"usr/share/asterisk/sounds/{folder}"
    return SpeechSource(
        f"asterisk_{language}", f"asterisk-core-sounds-{language}-g722", "1.6.1-1", sha256,
        place, "**/*.g722", speaker, language, licence, credit, split,
    )  # fmt: skip


_FESTVOX = (
    "festvox-ru",
    "0.5+dfsg-6",
    "21ef3f0f2978ecf2e2eddb367cb0ff4a72572196d28dc69feb84f4177af5e6c4",
    "usr/share/festival/voices/russian/msu_ru_nsh_clunits/wav",
    "*.wav",
    "msu_ru_nsh",
    "ru",
    "BSD-like (festvox-ru)",
    "Nickolay V. Shmyrev",
)
SOURCES: tuple[SpeechSource, ...] = (
    _asterisk("en", "en_US_f_Allison",
              "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
              "Allison", "CC-BY-SA-3.0", "Allison Smith, Digium", split="train"),
    _asterisk("es", "es_MX_f_Allison",
              "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8",
              "Allison", "CC-BY-SA-3.0", "Allison Smith, Digium", split="train"),
    _asterisk("it", "it_IT_m_Carlo",
              "46b4cf7afc508a5fcfc051b7ea233251c0d195dd4ef83cc4b7facb4c6429b016",
              "Carlo", "CC-BY-3.0", "Carlo Flora", split="train"),
    _asterisk("ru", "ru_RU_f_IvrvoiceRU",
              "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b",
              "ivrvoice.ru", "CC-BY-3.0", "Maxim Topal, ivrvoice.ru", split="train"),
    SpeechSource("festvox_ru", *_FESTVOX, "train", 0, 560),
    _asterisk("fr", "fr_CA_f_June",
              "7add61d5e42279ecff1bbdf842a5a946ac3644fac9a0fe44384731aa7270c8e0",
              "June", "CC-BY-SA-3.0", "June Wallack, Digium", split="test"),
    SpeechSource("festvox_ru_unseen", *_FESTVOX, "test", 560, None),
)  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """One recording inside a speaker's joined sound: where it begins, how long it is, its name."""

    start: int
    samples: int
    file: str


def require_package(source: SpeechSource, packages: Path, *, download: bool) -> Path:
    """Return the path of a package, fetched from the distribution where allowed.

    Raises:
        HostError: it is not there and cannot be fetched.
        ArtifactError: it is there, but not what the hash says.
    """
    path = packages / source.file
    if not path.is_file() and download:
        packages.mkdir(parents=True, exist_ok=True)
        command = ["apt-get", "download", "-q", f"{source.package}={source.version}"]
        _run(command, f"cannot download {source.package} {source.version}", cwd=packages)
    if not path.is_file():
        raise HostError(
            f"The Debian package {source.file} is not in {packages}.",
            f"Fetch it there: apt-get download {source.package}, or add --download.",
        )
    if sha256_of(path) != source.sha256:
        raise ArtifactError(
            f"{path} is not the file that this recipe was made for "
            f"(expected sha256 {source.sha256[:12]}...).",
            "Delete it and fetch it again.",
        )
    return path


def trim(sound: Audio) -> Audio:
    """Cut what is not heard off both ends of (T,) int16, but for a margin of 60 ms."""
    frames = len(sound) // HOP
    if not frames:
        return sound
    levels = np.sqrt((sound[: frames * HOP].reshape(frames, HOP).astype(np.float64) ** 2).mean(1))
    heard = np.flatnonzero(levels > max(float(levels.max()) * _HEARD, 1.0))
    if not len(heard):
        return sound[:0]
    first = max(0, int(heard[0]) * HOP - _MARGIN)
    return sound[first : int(heard[-1] + 1) * HOP + _MARGIN]


def join(recordings: Sequence[tuple[str, Audio]]) -> tuple[Audio, list[Clip]]:
    """Trim and join recordings; too short ones are left out, each begins at a whole frame."""
    clips: list[Clip] = []
    parts: list[Audio] = []
    start = 0
    for name, sound in recordings:
        kept = trim(sound)
        kept = kept[: len(kept) // HOP * HOP]
        if len(kept) < _SHORTEST * SAMPLE_RATE_HZ:
            continue
        clips.append(Clip(start, len(kept), name))
        parts.append(kept)
        start += len(kept)
    return (np.concatenate(parts) if parts else np.zeros(0, np.int16)), clips


def read_recordings(folder: Path, source: SpeechSource) -> Iterator[tuple[str, Audio]]:
    """Yield name and int16 samples at 16 kHz of every recording in unpacked data.

    Raises:
        HostError: ffmpeg is not installed.
        SourceError: a recording cannot be read.
    """
    root = folder / source.folder
    files = sorted(p for p in root.glob(source.pattern) if "silence" not in p.parts)
    for path in files[source.first : source.last]:
        yield str(path.relative_to(root)), decode(path)


def decode(path: Path) -> Audio:
    """Return a sound file as (T,) int16 at 16 kHz, through ffmpeg (G.722 needs it)."""
    kind = ["-f", "g722"] if path.suffix == ".g722" else []
    command = ["ffmpeg", "-v", "error", *kind, "-i", str(path), "-ac", "1", "-ar",
               str(SAMPLE_RATE_HZ), "-f", "s16le", "-"]  # fmt: skip
    return np.frombuffer(_run(command, f"cannot read {path}"), np.int16)


def collect(source: SpeechSource, folder: Path, out: Path) -> dict[str, object]:
    """Make the files of one source and return its row of the manifest."""
    sound, clips = join(list(read_recordings(folder, source)))
    if not clips:
        raise SourceError(
            f"No recordings match {source.pattern} in {folder / source.folder}.",
            "Check that the package was unpacked.",
        )
    floats = sound.astype(np.float32) / np.float32(32768)
    pitch = np.concatenate([track_pitch(floats[c.start : c.start + c.samples]) for c in clips])
    for suffix, values in (("sound", sound), ("pitch", pitch)):
        with atomic_path(out / f"{source.name}.{suffix}.npy") as temporary:
            with temporary.open("wb") as file:
                np.save(file, values)
    row = asdict(source)
    row["minutes"] = round(len(sound) / SAMPLE_RATE_HZ / 60, 2)
    row["voiced_share"] = round(float((pitch > 0).mean()), 3)
    row["sound_sha256"] = sha256_of(out / f"{source.name}.sound.npy")
    row["clips"] = [asdict(clip) for clip in clips]
    return row


def build_cache(packages: Path, out: Path, *, download: bool = False) -> list[dict[str, object]]:
    """Make whatever is missing in the cache; return the manifest's rows.

    Args:
        packages: Folder of the Debian packages.
        out: Folder of the cache, outside version control.
        download: Fetch missing packages with apt-get.

    Raises:
        HostError: a package or a program is missing.
        ArtifactError: a package is not what it should be.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for source in SOURCES:
        row_file = out / f"{source.name}.json"
        if not row_file.is_file():
            package = require_package(source, packages, download=download)
            with tempfile.TemporaryDirectory(dir=out) as folder:
                _run(["dpkg-deb", "-x", str(package), folder], f"cannot unpack {package}")
                row = collect(source, Path(folder), out)
            write_whole(row_file, json.dumps(row, sort_keys=True))
        rows.append(json.loads(row_file.read_text()))
    write_whole(out / MANIFEST, json.dumps(rows, indent=1, sort_keys=True) + "\n")
    return rows


def _run(command: list[str], failure: str, cwd: Path | None = None) -> bytes:
    if shutil.which(command[0]) is None:
        raise HostError(f"The program {command[0]} is not installed.", "Install its package.")
    done = subprocess.run(command, capture_output=True, check=False, cwd=cwd)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise SourceError(f"{failure[0].upper()}{failure[1:]}: {reason[-1]}.", "See the message.")
    return done.stdout


def main() -> None:
    """Parse the command line and build the cache."""
    parser = argparse.ArgumentParser(description="Collect speech for the training of a codec.")
    parser.add_argument("--packages", type=Path, required=True, help="folder of .deb files")
    parser.add_argument("--out", type=Path, default=Path(".cache/speech"))
    parser.add_argument("--download", action="store_true", help="fetch missing packages (apt-get)")
    args = parser.parse_args()
    for row in build_cache(args.packages, args.out, download=args.download):
        print(f"{row['name']}: {row['minutes']} min, {row['split']}, {row['licence']}")


if __name__ == "__main__":
    main()
