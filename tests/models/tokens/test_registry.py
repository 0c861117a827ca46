"""Rows of methods: every one can be built, names are unique, options are typed."""

from dataclasses import replace

import pytest
from torch import nn

from prunus.models.tokens import registry
from prunus.models.tokens.reducer import Place, TokenReducer
from prunus.models.tokens.registry import METHODS, build_reducer, find_method
from prunus.runtime import references
from prunus.runtime.errors import UsageError

PLACE = Place(64, 32, 1, class_token=True, grid=(8, 8), dim=32, heads=2, block=4)


def test_names_are_unique_and_told():
    names = [method.name for method in METHODS]
    assert len(set(names)) == len(names)
    assert all(method.help.endswith(".") and method.source for method in METHODS)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_row_names_a_reducer_in_the_folder_of_its_mechanism(method):
    kind = references.load(method.reducer)
    assert issubclass(kind, TokenReducer)
    assert f".methods.{method.mechanism}." in kind.__module__
    assert kind.__doc__


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evti", "did you mean 'evit'"),
        ("evit(mereg=drop)", "did you mean 'merge'"),
        ("evit(merge=dorp)", "expected one of drop, fuse"),
        ("evit(tau=warm)", "'warm'; expected a number"),
        ("evit(tau=-1)", "above 0"),
    ],
)
def test_wrong_methods(words, message):
    with pytest.raises(UsageError, match=message):
        build_reducer(words, PLACE)


def test_options_reach_the_reducer():
    reducer = build_reducer("evit(merge=soft,tau=0.5)", PLACE)
    assert (reducer.merge, reducer.tau) == ("soft", 0.5)


def test_a_method_is_one_row(monkeypatch):
    """What any newcomer does: a class, a row; the rest of the house finds it."""
    row = replace(find_method("evit"), name="mine", reducer=f"{__name__}:Mine")
    monkeypatch.setattr(registry, "METHODS", (*METHODS, row))
    assert isinstance(build_reducer("mine(offset=2)", PLACE), Mine)


class Mine(TokenReducer):
    """Keeps every patch from `offset` on."""

    def __init__(self, place: Place, *, offset: int = 0) -> None:
        super().__init__(place)
        self.offset = offset
        self.layer = nn.Identity()
