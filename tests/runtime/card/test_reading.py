"""Dataclasses of parsed JSON: what fits comes through, what does not is named with its path."""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from prunus.runtime.card import reading
from prunus.runtime.card.reading import Range, build, parse_json
from prunus.runtime.errors import ArtifactError
from prunus.runtime.limits import JSON_DEPTH


@dataclass(frozen=True)
class Inner:
    n: int


@dataclass(frozen=True)
class Outer:
    whole: int = 0
    real: float = 0.0
    word: str = ""
    flag: bool = False
    some: Annotated[int, Range(1, 8)] = 1
    share: Annotated[float, Range(0, 1)] = 0.0
    kind: Literal["one", "two"] = "one"
    pair: tuple[int, float] = (0, 0.0)
    many: tuple[int, ...] = ()
    inner: Inner | None = None
    maybe: int | None = None
    own: Annotated[str, lambda raw, path: f"{path}={raw}"] = ""


@dataclass(frozen=True)
class Needed:
    a: int
    b: int = 1
    c: list = field(default_factory=list)


def _read(**raw):
    return build(Outer, raw, "card")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ({"whole": -5}, -5),
        ({"whole": (1 << 63) - 1}, (1 << 63) - 1),
        ({"whole": -(1 << 63)}, -(1 << 63)),
        ({"real": 2}, 2.0),
        ({"real": 2.5}, 2.5),
        ({"word": "w"}, "w"),
        ({"flag": True}, True),
        ({"some": 1}, 1),
        ({"some": 8}, 8),
        ({"share": 0}, 0.0),
        ({"share": 1}, 1.0),
        ({"kind": "two"}, "two"),
        ({"pair": [3, 4]}, (3, 4.0)),
        ({"many": []}, ()),
        ({"many": list(range(1000))}, tuple(range(1000))),
        ({"inner": {"n": 3}}, Inner(3)),
        ({"inner": None}, None),
        ({"maybe": 7}, 7),
        ({"own": 3}, "card.own=3"),
    ],
)
def test_what_fits(raw, value) -> None:
    (name,) = raw
    found = getattr(_read(**raw), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"whole": 1.0}, r"card\.whole is 1\.0; expected int\."),
        ({"whole": True}, r"card\.whole is True; expected int\."),
        ({"whole": 1 << 63}, r"card\.whole is .*; expected .* to 9\.22337e\+18\."),
        ({"whole": -(1 << 63) - 1}, r"card\.whole is .*; expected -9\.22337e\+18 to"),
        ({"real": "1"}, r"card\.real is '1'; expected float\."),
        ({"real": False}, r"card\.real is False; expected float\."),
        ({"real": float("inf")}, r"card\.real"),
        ({"real": 10**400}, r"card\.real"),
        ({"word": 1}, r"card\.word is 1; expected str\."),
        ({"flag": 1}, r"card\.flag is 1; expected bool\."),
        ({"some": 0}, r"card\.some is 0; expected 1 to 8\."),
        ({"some": 9}, r"card\.some is 9; expected 1 to 8\."),
        ({"share": 1.5}, r"card\.share is 1\.5; expected 0 to 1\."),
        ({"share": -0.1}, r"card\.share is -0\.1; expected 0 to 1\."),
        ({"kind": "twoo"}, r"card\.kind is 'twoo'; expected one of \['one', 'two'\].*two"),
        ({"pair": [3]}, r"card\.pair has 1 entries; expected 2\."),
        ({"pair": [3, 4, 5]}, r"card\.pair has 3 entries; expected 2\."),
        ({"pair": [3, "x"]}, r"card\.pair\[1\] is 'x'; expected float\."),
        ({"pair": "34"}, r"card\.pair is '34'; expected a list\."),
        ({"many": [1, 2, "x"]}, r"card\.many\[2\] is 'x'; expected int\."),
        ({"inner": 3}, r"card\.inner is a int; expected an object\."),
        ({"inner": {"n": "x"}}, r"card\.inner\.n is 'x'; expected int\."),
        ({"maybe": "x"}, r"card\.maybe is 'x'; expected int\."),
        ({"wole": 1}, r"Unknown key 'wole' in card.*whole"),
    ],
)
def test_what_does_not_fit_is_named(raw, said) -> None:
    with pytest.raises(ArtifactError, match=said):
        _read(**raw)


def test_only_what_has_no_default_is_needed() -> None:
    assert build(Needed, {"a": 1}, "x") == Needed(1)
    with pytest.raises(ArtifactError, match="Key 'a' is missing in x"):
        build(Needed, {"b": 1}, "x")


def test_json_of_any_origin() -> None:
    assert parse_json('{"a": [1, 2.5, "é", null]}', "It") == {"a": [1, 2.5, "é", None]}
    assert parse_json(b"[]", "It") == []
    for text, said in (
        ("{", "It is not JSON"), (b"\xff", "It is not JSON"), ("[NaN]", "NaN, which is not a"),
        ("-Infinity", "-Infinity, which is not a"),
    ):  # fmt: skip
        with pytest.raises(ArtifactError, match=said):
            parse_json(text, "It")


def test_depth_counts_open_brackets_outside_of_words() -> None:
    most = int(JSON_DEPTH.most)
    for opened, closed in (("[", "]"), ('{"a":', "}")):
        fits = opened * (most - 1) + "[1]" + closed * (most - 1)
        assert parse_json(fits, "It")
        with pytest.raises(ArtifactError, match="It"):
            parse_json(opened + fits + closed, "It")
    assert parse_json("[" + "[1]," * 5000 + "1]", "It")[-1] == 1
    words = '["' + "[" * 5000 + r"\"[[" + '"]'
    assert parse_json(words, "It") == ["[" * 5000 + '"[[']


def test_what_numbers_of_a_card_can_be() -> None:
    names = ("Size", "SizeOrNone", "Count", "Positive", "Operations", "SampleRate", "FrameRate",
             "Byte", "Share", "Level", "Deviation", "Factor")  # fmt: skip
    bounds = [typing.get_args(getattr(reading, name))[1] for name in names]
    assert [(b.low, b.high) for b in bounds] == [
        (1, 65536), (0, 65536), (0, 2**31), (1, 2**31), (0, 2**62), (1, 768000), (1, 1000),
        (0, 255), (0, 1), (-1e6, 1e6), (1e-6, 1e6), (0.01, 100),
    ]  # fmt: skip
