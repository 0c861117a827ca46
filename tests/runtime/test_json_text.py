import json
import math

import numpy as np
import pytest

from prunus.runtime.json_text import canonical, json_text


def test_what_is_no_number_becomes_null_at_any_depth():
    value = {"b": [1.5, math.nan, {"c": math.inf}], "a": (-math.inf, np.float64("nan"), 2, True)}
    text = json_text(value)
    assert text == '{"a": [null, null, 2, true], "b": [1.5, null, {"c": null}]}'
    json.loads(text, parse_constant=pytest.fail)


def test_everything_else_stays_as_it_is():
    value = {"x": 0.1, "name": "größe", "none": None, "rows": [[1, 2], []]}
    assert json.loads(json_text(value, indent=1)) == value
    with pytest.raises(TypeError):
        json_text({"array": np.zeros(2)})


def test_equal_values_are_equal_bytes_and_nan_has_none():
    assert canonical({"b": (1, 2.5), "a": None}) == b'{"a":null,"b":[1,2.5]}'
    assert canonical({"a": None, "b": [1, 2.5]}) == canonical({"b": (1, 2.5), "a": None})
    with pytest.raises(ValueError, match="JSON"):
        canonical([math.nan])
