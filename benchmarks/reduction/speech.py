"""Speech for `methods`: Whisper tiny.en's encoder, judged by what its decoder hears."""

from __future__ import annotations

import gzip
import re
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.reduction import networks
from benchmarks.reduction.cases import Array, Case, Scores, cut, plain
from prunus.apps.judges.whisper import Whisper
from prunus.apps.judges.words import normalised, word_distance
from prunus.export.common.samples import Samples
from prunus.export.planning.candidates import first_blocks
from prunus.runtime.audio.files import SoundReader
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import SourceError

SPEECH_HINT = (
    "Unpack them with dpkg -x: asterisk-core-sounds-en (the texts) and "
    "asterisk-core-sounds-en-wav, and name the folder with --speech."
)
RATE_HZ, _SECONDS, _PAUSE = 16000, 30, 0.4
LONGEST = 160  # tokens that are written: twice of what is said; some rows repeat themselves forever


def read_prompts(folder: Path) -> list[tuple[Array, str]]:
    """Return studio recordings of one speaker, each with the text that is said in it.

    Args:
        folder: Unpacked Debian packages `asterisk-core-sounds-en` and `-en-wav`.

    Returns:
        (T,) float32 at 16 kHz and its text, of five words or more, in the order of the book.

    Raises:
        SourceError: they are not there.
    """
    book = next(iter(folder.rglob("core-sounds-en.txt*")), None)
    sounds = {p.stem: p for p in sorted(folder.rglob("*.wav")) if "sounds" in p.parts}
    if book is None or not sounds:
        raise SourceError(f"No prompts and texts of Asterisk in {folder}.", SPEECH_HINT)
    raw = book.read_bytes()
    lines = (gzip.decompress(raw) if book.suffix == ".gz" else raw).decode("utf-8", "replace")
    found = []
    for name, text in re.findall(r"(?m)^([\w/-]+): (.+)$", lines):
        path = sounds.get(name.rpartition("/")[2])
        # Tones, digits and abbreviations: what is said is not what is written.
        short = len(normalised(text)) < 5
        if path is None or short or re.search(r"[\[\d<>]|\b[A-Z]{2,}\b", text):
            continue
        with SoundReader(path) as reader:
            sound = np.concatenate([*reader.blocks(), np.zeros(0, np.float32)])
            found.append((resample(sound, reader.sample_rate_hz, RATE_HZ), text))
    return found


def read_speech(folder: Path, limit: int) -> tuple[Array, list[list[str]]]:
    """Return studio recordings joined to nearly thirty seconds, and the words said in each.

    Args:
        folder: See `read_prompts`, which also says what is raised.
        limit: How many at most.

    Returns:
        (n, 480000) float32 at 16 kHz, and the words in order.
    """
    pause = np.zeros(round(_PAUSE * RATE_HZ), np.float32)
    found: list[Array] = []
    said: list[list[str]] = []
    parts: list[Array] = []
    told: list[str] = []
    for sound, text in read_prompts(folder):
        words = normalised(text)
        if sum(map(len, parts)) + len(sound) + len(pause) > _SECONDS * RATE_HZ:
            found.append(np.resize(np.append(np.concatenate(parts), np.zeros(_SECONDS * RATE_HZ)),
                                   _SECONDS * RATE_HZ))  # fmt: skip
            said.append(told)
            parts, told = [], []
        parts += [sound, pause]
        told = [*told, *words]
        if len(found) == limit:
            break
    return np.asarray(found, np.float32), said


def whisper(packages: Path, speech: Path, test: int) -> Case:
    """Return Whisper tiny.en's encoder, judged by the words that its own decoder hears."""
    folder = packages / networks.WHISPER
    tensors = networks.read_ctranslate2(folder / "model.bin")
    tokens = 1500

    def encoder(positions: int = tokens) -> nn.Module:
        return networks.WhisperTrunk(tensors, positions).eval()

    def shorter(depth: int) -> nn.Module:
        return first_blocks(encoder(), depth)

    example = torch.rand(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    words = (
        "tome:0.5@1", "random:0.5@1", "average_pool:0.5@1", "top(by=received):0.5@1",
        "token_transforming:0.5@1", "mergedna:0.5@1", "strided:0.5@1", "tome:0.7@1",
        "strided:0.7@1", "hiprune:0.5@1", "dart:0.5@1",
    )  # fmt: skip
    entries = [plain("dense", "dense", encoder)]
    entries += [
        plain(f"first {k / 50:g} s of 30", "rival", partial(encoder, k)) for k in (1200, 1000)
    ]
    entries += [plain("first 3 blocks", "blocks", partial(shorter, 3))]
    entries += [cut(encoder, w, tokens, example) for w in words]

    @cache
    def spoken() -> tuple[Array, list[list[str]]]:
        return read_speech(speech, test)

    def samples() -> Samples:
        from transformers import WhisperFeatureExtractor

        front = WhisperFeatureExtractor(feature_size=80)
        mels = front(list(spoken()[0]), sampling_rate=RATE_HZ, return_tensors="np").input_features
        return Samples({"mel": np.asarray(mels, np.float32)}, "studio speech")

    def score(encoded: Array) -> Scores:
        decoder, said = Whisper(folder, beams=1, longest=LONGEST), spoken()[1]
        heard = [normalised(decoder.read(tokens)) for tokens in encoded]
        wrong = [word_distance(w, h) for w, h in zip(said, heard, strict=True)]
        whole = np.array([len(w) for w in said], float)
        return Scores(whole - np.array(wrong), whole)

    about = (
        "Its own decoder (CTranslate2, greedy, digits suppressed, at most 160 tokens written) "
        "reads the tokens that are left. "
        "Each sample joins studio prompts of Asterisk, one speaker, to nearly 30 s, with their "
        "true texts; the figure is 1 - word error rate. *first 20 s of 30* is the same network "
        "with a shorter input: words that come later are lost, as speech fills the window."
    )
    return Case("Whisper tiny.en's encoder, trained, 30 s, 1500 tokens", about, "mel:1x80x3000",
                entries, samples, score, "words right")  # fmt: skip
