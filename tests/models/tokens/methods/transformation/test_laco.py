"""LaCo against a loop over cells."""

import numpy as np
import pytest
import torch

from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.registry import build_reducer
from prunus.runtime.errors import UsageError


@pytest.mark.parametrize(("keep", "cell"), [(6, (2, 2)), (12, (1, 2)), (4, (2, 3))])
def test_equals_the_loop(case, equals, counts, again, keep, cell):
    def restated(patches, levels, weights):
        rows = []
        for own in again.cells(patches, *cell):
            hidden = again.norm(own.reshape(1, -1), weights, "mlp.norm", 1e-5)
            hidden = again.gelu(again.linear(hidden, weights, "mlp.fc1"))
            rows.append(again.linear(hidden, weights, "mlp.fc2")[0] + own.mean(0))
        return np.stack(rows)

    one = case("laco", keep)
    equals(one, keep, restated)
    counts(one)
    assert one.reducer.grid == (4 // cell[0], 6 // cell[1])


def test_graph_and_way_back(case, exports, restores):
    one = case("laco", 6)
    exports(one)
    restores(one, "delta")


def test_starts_as_average_pooling():
    reducer = build_reducer("laco", Place(24, 6, 1, grid=(4, 6), dim=8))
    x = torch.randn(1, 25, 8)
    pooled = torch.nn.functional.avg_pool2d(x[:, 1:].transpose(1, 2).reshape(1, 8, 4, 6), 2)
    reduced = reducer(x, Side())
    torch.testing.assert_close(reduced.x[:, 1:], pooled.flatten(2).transpose(1, 2))
    torch.testing.assert_close(reduced.assign @ x[:, 1:], reduced.x[:, 1:])


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"keep": 7, "grid": (4, 6)}, "no such cells make 7.*Keep one of 1, 2, 3, 4, 6, 8, 12, 24"),
        ({"keep": 6}, "needs the rows and columns"),
        ({"keep": 6, "grid": (4, 6), "dim": 0}, "needs the number of channels; got 0"),
    ],
)
def test_places_where_it_cannot_stand(place, message):
    with pytest.raises(UsageError, match=f"(?s)'laco' at block 5.*{message}"):
        build_reducer("laco", Place(24, **{"special": 1, "dim": 8, "block": 5, **place}))
