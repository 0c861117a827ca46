"""The operator's definition as loops over its indices, and the nine uses that it was made for."""

import numpy as np

FLOATS = ("q", "k", "v", "bias_l", "kg", "vg", "bias_g", "gate")


def softmax(scores, bias):
    """Return softmax of a row; a key whose bias lies below -10000 takes no weight."""
    scores = np.where(bias < -10000, -np.inf, scores + bias)
    if not np.isfinite(scores).any():
        return np.zeros_like(scores)
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def define(inputs, heads, scale, combine):
    """Return Y (B, Nq, C) float64, term by term."""
    x = {n: a.astype(np.float64) if n in FLOATS else a for n, a in inputs.items()}
    y = np.full(x["q"].shape, np.nan)
    batch, _, channels = y.shape
    windows, queries = x["q_index"].shape
    d = channels // heads
    near, far = combine != "global", combine != "local"
    if near:
        keys = x["kv_index"].shape[1]
        bias_l = np.broadcast_to(x["bias_l"], (windows, heads, queries, keys))
    if far:
        sets, count = x["kg"].shape[1:3]
        bias_g = np.broadcast_to(x["bias_g"], (batch, windows, heads, queries, count))
    if combine == "sum":
        gate = np.broadcast_to(x["gate"], (batch, windows, heads, queries, 1))
    for b, w, a, i in np.ndindex(batch, windows, heads, queries):
        part = slice(a * d, (a + 1) * d)
        q = x["q"][b, x["q_index"][w, i], part]
        s, t, bs, bt, values = np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0), []
        if near:
            at = x["kv_index"][w]
            s, bs = scale * x["k"][b, at, part] @ q, bias_l[w, a, i]
            values.append(x["v"][b, at, part])
        if far:
            place = w if sets > 1 else 0
            t, bt = scale * x["kg"][b, place, :, part] @ q, bias_g[b, w, a, i]
            values.append(x["vg"][b, place, :, part])
        if combine == "sum":
            row = softmax(s, bs) @ values[0] + gate[b, w, a, i] * (softmax(t, bt) @ values[1])
        else:
            row = softmax(np.concatenate((s, t)), np.concatenate((bs, bt))) @ np.concatenate(values)
        y[b, x["q_index"][w, i], part] = row
    return y


def window_table(height, width, side, shift=0):
    """Return (W, side^2) positions of square windows on a grid, rolled by `shift`."""
    at = np.roll(np.arange(height * width).reshape(height, width), (-shift, -shift), (0, 1))
    tiles = at.reshape(height // side, side, width // side, side)
    return tiles.transpose(0, 2, 1, 3).reshape(-1, side * side)


def overlapping_table(height, width, side, reach):
    """Return positions of windows that reach over their border, moved inside the grid."""
    rows = []
    for top in range(0, height, side):
        for left in range(0, width, side):
            y = min(max(top - reach, 0), height - side - 2 * reach)
            x = min(max(left - reach, 0), width - side - 2 * reach)
            span = np.arange(side + 2 * reach)
            rows.append(((y + span)[:, None] * width + x + span).ravel())
    return np.stack(rows)


def problem(seed, q_index, kv_index, key_tokens, globals_, heads, d, **shapes):
    """Return the operator's inputs with random values; `shapes` of biases, gate and sets."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    batch, channels = shapes.get("batch", 1), heads * d
    sets = shapes.get("sets", 1)
    tokens = q_index.size
    return {
        "q": normal(batch, tokens, channels),
        "k": normal(batch, key_tokens, channels), "v": normal(batch, key_tokens, channels),
        "q_index": q_index.astype(np.int64), "kv_index": kv_index.astype(np.int64),
        "bias_l": normal(*shapes.get("bias_l", (1, 1, 1, 1))),
        "kg": normal(batch, sets, globals_, channels),
        "vg": normal(batch, sets, globals_, channels),
        "bias_g": normal(*shapes.get("bias_g", (1, 1, 1, 1, 1))),
        "gate": normal(*shapes.get("gate", (1, 1, 1, 1, 1))),
    }  # fmt: skip


def nine_cases():
    """Yield (name, inputs, heads, combine) of the designs that the operator expresses exactly."""
    grid = window_table(8, 8, 4)
    heads, d = 2, 16
    yield (
        "windows",
        problem(1, grid, grid, 64, 1, heads, d, bias_l=(1, heads, 16, 16)),
        heads,
        "local",
    )
    shifted = window_table(8, 8, 4, shift=2)
    region = np.arange(64).reshape(8, 8) // 32 * 2 + np.arange(8)[None, :] // 6
    parts = region.ravel()[shifted]
    masked = problem(2, shifted, shifted, 64, 1, heads, d, bias_l=(4, heads, 16, 16))
    masked["bias_l"][
        np.broadcast_to((parts[:, None, :, None] != parts[:, None, None, :]), (4, heads, 16, 16))
    ] = -30000
    yield "shifted windows with masks", masked, heads, "local"
    yield (
        "windows and shared globals",
        problem(
            3, grid, grid, 64, 17, heads, d, bias_l=(1, heads, 16, 16), bias_g=(1, 1, heads, 1, 17)
        ),
        heads,
        "joint",
    )
    yield (
        "windows and globals of their own",
        problem(4, grid, grid, 64, 9, heads, d, batch=2, sets=4, bias_g=(2, 4, 1, 16, 9)),
        heads,
        "joint",
    )
    yield (
        "gated sum",
        problem(5, grid, grid, 64, 17, heads, d, gate=(1, 4, heads, 16, 1)),
        heads,
        "sum",
    )
    yield (
        "globals alone, per window",
        problem(6, grid, grid, 64, 36, heads, d, sets=4),
        heads,
        "global",
    )
    yield (
        "overlapping keys",
        problem(7, grid, overlapping_table(8, 8, 4, 1), 64, 1, heads, d),
        heads,
        "local",
    )
    cells = window_table(8, 8, 2)
    around = np.array(
        [
            [
                4 * (r + i) + c + j if 0 <= r + i < 4 and 0 <= c + j < 4 else 16
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
            ]
            for r in range(4)
            for c in range(4)
        ]
    )
    scatter = problem(8, cells, around, 17, 1, 1, 32)
    scatter["k"][:, 16] = scatter["v"][:, 16] = 0  # the padding takes part, with a score of 0
    yield "super tokens, nine neighbours", scatter, 1, "local"
    chunks = np.arange(60).reshape(5, 12)
    yield (
        "chunks of a sequence",
        problem(9, chunks, np.concatenate((np.roll(chunks, 1, 0), chunks), 1), 60, 4, heads, d),
        heads,
        "joint",
    )
