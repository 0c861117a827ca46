"""GlobalCom2 with one TopK, against loops over tiles and pixels."""

import numpy as np
import pytest

from prunus.models.tokens.registry import build_reducer

ROWS, COLUMNS, TALL, WIDE = 2, 3, 4, 6
TILES, TILE = 1 + ROWS * COLUMNS, TALL * WIDE


def _bilinear(small, height, width):
    """Sample pixel centres; the rim repeats."""
    large = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            y = max((row + 0.5) * small.shape[0] / height - 0.5, 0)
            x = max((column + 0.5) * small.shape[1] / width - 0.5, 0)
            top, left = int(y), int(x)
            low, right = min(top + 1, small.shape[0] - 1), min(left + 1, small.shape[1] - 1)
            v, u = y - top, x - left
            large[row, column] = (1 - v) * ((1 - u) * small[top, left] + u * small[top, right])
            large[row, column] += v * ((1 - u) * small[low, left] + u * small[low, right])
    return large


@pytest.mark.parametrize(("special", "sharpness"), [(1, 1.0), (TILES, 1.0), (TILES, 0.0)])
def test_thumbnail_and_crops(special, sharpness, bench):
    keep = 40
    place = bench.place(tokens=TILES * TILE, keep=keep, grid=(TILES * TALL, WIDE), special=special)
    x, side = bench.inputs(place)
    words = f"globalcom2(rows={ROWS},columns={COLUMNS},sharpness={sharpness})"
    kept = build_reducer(words, place)(x, side).kept.numpy()
    query, key, _ = (part.numpy().astype(np.float64) for part in side.attention[4])
    for picture in range(2):
        scores = np.zeros((TILES, TILE))
        for tile in range(TILES):
            owner = tile if special > 1 else 0
            for patch in range(TILE):
                logits = [
                    query[picture, head, owner] @ key[picture, head, special + tile * TILE + patch]
                    for head in range(2)
                ]
                scores[tile, patch] = np.mean(logits) / np.sqrt(8)
        small = scores[0].reshape(TALL, WIDE)
        mosaic = _bilinear(small, ROWS * TALL, COLUMNS * WIDE)
        budgets, joint = [], []
        for row in range(ROWS):
            for column in range(COLUMNS):
                high, wide = TALL // ROWS, WIDE // COLUMNS
                cell = small[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
                budgets.append(cell.sum() / 10)
                seen = mosaic[row * TALL : (row + 1) * TALL, column * WIDE : (column + 1) * WIDE]
                own = scores[1 + row * COLUMNS + column]
                joint.append(own / np.linalg.norm(own) + seen.ravel() / np.linalg.norm(seen))
        share = np.exp(budgets) / np.exp(budgets).sum()
        joint = np.concatenate(
            [j + sharpness * np.log(t) for j, t in zip(joint, share, strict=True)]
        )
        first = round(keep / TILES)
        expected = [*np.argsort(-scores[0])[:first], *(TILE + np.argsort(-joint)[: keep - first])]
        assert kept[picture].tolist() == sorted(expected)
