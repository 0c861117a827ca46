"""VScan, stage 1, against its steps."""

import numpy as np
import pytest

from prunus.models.tokens.registry import build_reducer


def _select(shallow, deep, grid, windows, keep):
    rows, columns = grid
    tall, wide = rows // windows[0], columns // windows[1]
    kept = []
    for top in range(0, rows, tall):
        for left in range(0, columns, wide):
            window = [
                r * columns + c for r in range(top, top + tall) for c in range(left, left + wide)
            ]
            each = keep // 2 // (windows[0] * windows[1])
            kept += sorted(window, key=lambda patch: -shallow[patch])[:each]
    rest = [int(patch) for patch in np.argsort(-deep) if patch not in kept]
    return sorted(kept + rest[: keep - len(kept)])


@pytest.mark.parametrize(("words", "windows", "keep"), [
    ("vscan", (3, 4), 24),
    ("vscan(windows=2)", (2, 2), 17),
    ("vscan(windows=1)", (1, 1), 12),
    ("vscan", (3, 4), 7),
])  # fmt: skip
def test_windows_then_all_then_merge(words, windows, keep, bench):
    place = bench.place(keep=keep)
    x, side = bench.inputs(place)
    reduced = build_reducer(words, place)(x, side)
    for picture in range(2):
        shallow, deep = (
            bench.probability(side, block)[picture, :, 0, 2:].mean(axis=0) for block in (2, 4)
        )
        kept = _select(shallow, deep, (6, 8), windows, keep)
        unit = bench.unit(x[picture, 2:])
        total = {patch: x[picture, 2 + patch].numpy().copy() for patch in kept}
        count = dict.fromkeys(kept, 1)
        for patch in set(range(48)) - set(kept):
            nearest = max(kept, key=lambda k: unit[k] @ unit[patch])
            total[nearest] += x[picture, 2 + patch].numpy()
            count[nearest] += 1
        means = [total[patch] / count[patch] for patch in kept]
        np.testing.assert_allclose(reduced.x[picture, 2:], means, atol=1e-5)
