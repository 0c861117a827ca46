"""The judges, a row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from prunus.apps.judges.judge import Judge
from prunus.apps.judges.quality import Dnsmos, Pesq, Plcmos, Stoi
from prunus.apps.judges.speaker import Speaker
from prunus.apps.judges.whisper import Whisper
from prunus.apps.judges.words import Sphinx, WordErrors
from prunus.runtime.errors import MissingDependencyError, UsageError, nearest

JUDGES: Mapping[str, Callable[[], Judge]] = {
    "pesq": Pesq,
    "stoi": Stoi,
    "dnsmos": Dnsmos,
    "plcmos": Plcmos,
    "wer": lambda: WordErrors(Whisper(), "WER %"),
    "wer-sphinx": lambda: WordErrors(Sphinx(), "WER % (pocketsphinx)"),
    "speaker": Speaker,
}


def open_judges(
    names: Sequence[str] = (), usual: Sequence[str] = tuple(JUDGES)
) -> tuple[list[Judge], list[str]]:
    """Return judges, and a line about each that is not installed.

    Args:
        names: Out of `JUDGES`, all of them wanted.
        usual: Without names, those of these that are installed.

    Raises:
        UsageError: an unknown name.
        MissingDependencyError: a judge that was asked for is not installed.
    """
    judges: list[Judge] = []
    missing = []
    for name in names or usual:
        if name not in JUDGES:
            raise UsageError(
                f"Unknown judge '{name}'{nearest(name, list(JUDGES))}.",
                f"Known: {', '.join(JUDGES)}.",
            )
        try:
            judges.append(JUDGES[name]())
        except MissingDependencyError as error:
            if names:
                raise
            missing.append(f"{error.message} {error.hint}")
    return judges, missing
