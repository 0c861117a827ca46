"""LLaMA-VID's tokens against their formula."""

import numpy as np
import pytest

from prunus.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("words", "keep", "cell"),
    [("llamavid", 2, (4, 6)), ("llamavid(queries=3)", 7, (2, 2)), ("llamavid", 13, (1, 2))],
)
def test_equals_the_formula(case, equals, counts, exports, restores, again, words, keep, cell):
    def restated(patches, levels, weights):
        context = np.zeros(8)
        for query in weights["task"]:
            share = again.softmax(patches @ query / np.sqrt(8))
            context += sum(w * p for w, p in zip(share, patches, strict=True))
        content = [own.mean(0) for own in again.cells(patches, *cell)]
        return np.stack([context / len(weights["task"]), *content])

    one = case(words, keep)
    equals(one, keep, restated)
    counts(one)
    exports(one)
    restores(one, "delta")


def test_two_tokens_need_no_grid(case):
    assert case("llamavid", 2, grid=None).reducer.place.grid is None
    with pytest.raises(UsageError, match=r"(?s)and 1 more; no such cells make 6.*2, 3, 4, 5, 7, 9"):
        case("llamavid", 6)
    with pytest.raises(UsageError, match="'queries' of method 'llamavid' is 0"):
        case("llamavid(queries=0)", 2)
