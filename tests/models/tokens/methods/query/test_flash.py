"""FLASH's compressor against its formula."""

import numpy as np


def test_equals_the_formula(case, equals, counts, exports, restores, again):
    def restated(patches, levels, weights):
        rows = []
        for query in weights["queries.weight"]:
            share = again.softmax(np.array([query @ patch for patch in patches]))
            rows.append(sum(w * patch for w, patch in zip(share, patches, strict=True)))
        return np.stack(rows)

    one = case("flash", 5)
    equals(one, 5, restated)
    counts(one)
    exports(one)
    restores(one, "delta")
