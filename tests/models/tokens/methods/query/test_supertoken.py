"""Super-token sampling against a loop over pixels and their nine cells."""

import numpy as np
import torch


def test_equals_the_loop(case, equals, counts, exports, restores):
    def restated(patches, levels, weights):
        image = patches.reshape(4, 6, 8)
        first = image.reshape(2, 2, 3, 2, 8).mean((1, 3))
        sums, mass = np.zeros((2, 3, 8)), np.zeros((2, 3))
        for row, column in np.ndindex(4, 6):
            around = [(row // 2 + y, column // 2 + x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
            inside = [0 <= y < 2 and 0 <= x < 3 for y, x in around]
            logits = np.array(
                [
                    image[row, column] @ first[at] / np.sqrt(8) if real else 0.0
                    for at, real in zip(around, inside, strict=True)
                ]
            )
            share = np.exp(logits) / np.exp(logits).sum()
            for at, real, one in zip(around, inside, share, strict=True):
                if real:
                    sums[at] += one * image[row, column]
                    mass[at] += one
        return (sums / mass[..., None]).reshape(6, 8)

    one = case("supertoken", 6)
    equals(one, 6, restated)
    counts(one)
    exports(one)
    restores(one, "delta")
    assert one.reducer.grid == (2, 3)


def test_far_cells_take_nothing(case):
    one = case("supertoken", 12)  # cells of 1x2: a map of 4x3, whose first and last row are apart
    assign = one.run(one.tokens(1)).assign[0].reshape(4, 3, 4, 6)
    assert torch.count_nonzero(assign[0, :, 2:]) == 0 and (assign[1, 1, :3] > 0).all()
