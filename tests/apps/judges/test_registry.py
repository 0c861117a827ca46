"""Judges by name; those that are missing."""

import pytest

from prunus.apps.judges import quality, speaker, whisper, words
from prunus.apps.judges.registry import JUDGES, open_judges
from prunus.runtime.errors import HostError, MissingDependencyError, UsageError


def test_missing_judges_are_noted_or_named(monkeypatch):
    def absent(package, *about):
        raise MissingDependencyError(package, "eval-audio", "This")

    for module in (quality, speaker, whisper, words):
        for name in ("load", "file_in"):
            monkeypatch.setattr(module, name, absent, raising=False)
    judges, missing = open_judges()
    assert not judges and len(missing) == len(JUDGES) and "prunus[eval-audio]" in missing[0]
    assert len(open_judges(usual=("pesq", "wer"))[1]) == 2
    with pytest.raises(HostError, match="'pesq'"):
        open_judges(["pesq"])
    with pytest.raises(UsageError, match="did you mean 'pesq'"):
        open_judges(["peqs"])
