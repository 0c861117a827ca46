"""Weights of any task: a file, random ones or shipped ones, and found again by their hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from prunus.export.common.weights import Ways, find, find_again, shipped_entry
from prunus.models import zoo
from prunus.runtime.card.card import Weights
from prunus.runtime.errors import ArtifactError


@dataclass(frozen=True)
class Found:
    spec: Weights
    seed: int = 0


def _of(sha256: str) -> Found:
    return Found(Weights("made up", sha256, "Apache-2.0", True))


WAYS = Ways(lambda path: _of(f"file {path}"), Found, lambda sha256: _of(sha256 or "shipped"))
BARE = Ways(lambda path: _of(f"file {path}"), Found)


def test_a_file_comes_before_what_ships_and_random_is_asked_for() -> None:
    assert find(WAYS, "a.pth", 0).spec.sha256 == "file a.pth"
    assert find(WAYS, None, 0).spec.sha256 == "shipped"
    for ways, checkpoint in ((WAYS, "random"), (BARE, None)):
        found = find(ways, checkpoint, 7)
        assert (found.seed, found.spec.sha256, found.spec.trained) == (7, "random:7", False)
        assert "UNTRAINED" in found.spec.origin
        assert find_again(ways, found.spec) == found


def test_weights_of_a_card_are_found_again_by_their_hash() -> None:
    assert find_again(WAYS, _of("ab" * 32).spec) == _of("ab" * 32)
    assert find_again(BARE, _of("file a.pth").spec, "a.pth") == _of("file a.pth")
    with pytest.raises(ArtifactError, match="not shipped"):
        find_again(BARE, _of("ab" * 32).spec)
    with pytest.raises(ArtifactError, match="not shipped"):
        find_again(Ways(WAYS.read, Found, lambda _: _of("cd" * 32)), _of("ab" * 32).spec)
    with pytest.raises(ArtifactError, match="was exported from"):
        find_again(WAYS, _of("file a.pth").spec, Path("b.pth"))


def test_what_ships_is_found_by_fit_or_by_hash() -> None:
    entry = shipped_entry(None, model="edaformer")
    assert entry is not None and shipped_entry(entry.sha256, model="other") == entry
    assert shipped_entry("ab" * 32, model="edaformer") is None
    assert entry in zoo.entries()
