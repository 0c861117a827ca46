"""References as text: what is loaded, and what is no reference."""

import math

import pytest

from prunus.runtime.references import load


def test_a_reference_is_what_it_names() -> None:
    assert load("math:pi") is math.pi
    assert load("os.path:join").__name__ == "join"


@pytest.mark.parametrize("text", ["", "math", ":", "math:", ":pi"])
def test_other_forms_are_refused(text) -> None:
    with pytest.raises(ValueError, match="is not module:attribute"):
        load(text)


def test_what_is_missing_is_told_by_its_kind() -> None:
    with pytest.raises(ImportError):
        load("math.nothing:pi")
    with pytest.raises(AttributeError):
        load("math:nothing")
    with pytest.raises(AttributeError):
        load("math:pi:more")
