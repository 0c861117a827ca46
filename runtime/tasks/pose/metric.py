"""Judge a pose network: how far do joints move, in pixels of its input?"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.tokens import token_output, told_blocks
from prunus.runtime.tasks.limits import Limit
from prunus.runtime.tasks.metrics import Array, Measurement, Outputs, peak, relative_rms, span
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess
from prunus.runtime.tasks.pose.heatmaps import joints_of_heatmaps
from prunus.runtime.tasks.pose.movenet import rows_to_pixels

# Difference of the scores as a share of the scores: users draw and drop joints by them. Of all
# crops together; and of the worst one, which a token that is swapped at a crowded cut may cost a
# little, and a fault in one of many a lot.
_SCORES, _WORST_SCORES = "score_rms_relative", "worst_score_rms_relative"

# Medians over one crop and over one joint: a mean over all hides a crop, or a joint, that is wrong
# altogether, and single joints that jump to the other leg do not move a median.
_CROP, _JOINT = "worst_crop_p50_px", "worst_joint_p50_px"
_FEW = 3  # joints of a crop, and crops of a joint, below which a median says little

# Fewer confident joints than this say nothing about a percentile, so the check refuses to pass.
_ENOUGH_JOINTS = Limit("judged_joints", 10, "at least")

# Pixels of the network's input (192 x 256), over joints whose reference score is confident.
POSE_PIXELS: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (
            Limit("max_px", 0.01),
            _ENOUGH_JOINTS,
            Limit(_SCORES, 1e-3),
            Limit(_WORST_SCORES, 1e-2),
        ),
        "fp16": (
            Limit("mean_px", 0.1),
            Limit("p99_px", 0.5),
            Limit(_CROP, 0.5),
            Limit(_JOINT, 0.5),
            _ENOUGH_JOINTS,
            Limit(_SCORES, 0.02),
            Limit(_WORST_SCORES, 0.1),
        ),
        "int8": (
            Limit("mean_px", 0.5),
            Limit(_CROP, 2.0),
            Limit(_JOINT, 2.0),
            _ENOUGH_JOINTS,
            Limit(_SCORES, 0.1),
            Limit(_WORST_SCORES, 0.3),
        ),
    }
)

# An untrained network has flat heatmaps whose arg-max means nothing: the maps are judged instead,
# by the largest (fp32) and the root mean square difference as shares of the reference's range.
POSE_HEATMAPS: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (Limit("heatmap_max_relative", 1e-4),),
        "fp16": (Limit("heatmap_rms_relative", 1e-2),),
        "int8": (Limit("heatmap_rms_relative", 1e-1),),
    }
)

# What a cut did to each patch of a crop. Lower precisions swap tokens at a crowded cut, and the
# numbers of all tokens behind a swapped one: there, whether a patch is gone is compared.
_TOKENS, _GONE, _WORST_GONE = "tokens_equal", "survivors_equal", "worst_survivors_equal"
_POSE_TOKENS: Mapping[str, tuple[Limit, ...]] = MappingProxyType(
    {
        "fp32": (Limit(_TOKENS, 1.0, "at least"),),
        "fp16": (Limit(_GONE, 0.98, "at least"), Limit(_WORST_GONE, 0.8, "at least")),
        "int8": (Limit(_GONE, 0.95, "at least"), Limit(_WORST_GONE, 0.75, "at least")),
    }
)

HEATMAPS = "heatmaps"
_HEATMAP_STRIDE = 4  # input pixels per cell
CONFIDENT_SCORE = 0.2  # the score above which ViTPose counts a joint when it scores a person again


class PoseMetric:
    """Distance of joints in input pixels; heatmaps instead where the weights are random."""

    def measure(self, reference: Outputs, suspect: Outputs, card: ModelCard) -> Measurement:
        """Measure ``keypoints`` (N, J, 3), pixels and score, and ``heatmaps`` (N, J, h, w)."""
        expected, got = (_joints(outputs, card) for outputs in (reference, suspect))
        distance = np.linalg.norm(got[..., :2] - expected[..., :2], axis=-1)
        judged = np.ones(distance.shape, dtype=bool)
        if _has_confidence(card):
            judged = expected[..., 2] >= CONFIDENT_SCORE
        values = {"judged_joints": float(judged.sum()), **_distances(distance[judged])}
        values |= {
            _CROP: _worst_median(distance, judged),
            _JOINT: _worst_median(distance.T, judged.T),
        }
        values["score_max"] = peak(np.abs(got[..., 2] - expected[..., 2]))
        scores = expected[..., 2], got[..., 2]
        values[_SCORES] = relative_rms(*(s[None] for s in scores))
        values[_WORST_SCORES] = relative_rms(*scores)
        if HEATMAPS in reference and HEATMAPS in suspect:
            values |= _heatmap_errors(reference[HEATMAPS], suspect[HEATMAPS])
        for block in told_blocks(reference):
            name = token_output(block)
            for quantity, share in _same_tokens(reference[name], suspect[name]).items():
                values[quantity] = min(share, values.get(quantity, share))
        return Measurement(values, self._notes(distance, judged, expected, card))

    def limits(self, card: ModelCard, precision: str) -> tuple[Limit, ...]:
        """Return pixel limits, or heatmap limits for a heatmap network with random weights."""
        names = [output.name for output in card.outputs]
        tokens = _POSE_TOKENS[precision] if told_blocks(names) else ()
        if not judges_pixels(card):
            return (*POSE_HEATMAPS[precision], *tokens)
        maps = POSE_HEATMAPS[precision] if HEATMAPS in names else ()
        return (*POSE_PIXELS[precision], *maps, *tokens)

    @staticmethod
    def _notes(distance: Array, judged: Array, expected: Array, card: ModelCard) -> tuple[str, ...]:
        if not judges_pixels(card):
            return (
                "The weights are random, so heatmaps are flat and the place of their maximum means "
                "nothing: pixels are shown for all joints, heatmaps are judged.",
            )
        rule = f"reference score >= {CONFIDENT_SCORE}" if _has_confidence(card) else "all"
        notes = [f"Judged {int(judged.sum())} of {judged.size} joints ({rule})."]
        if judged.any():
            sample, joint = np.unravel_index(
                int(np.argmax(np.where(judged, distance, -1.0))), distance.shape
            )
            notes.append(
                f"Worst: sample {sample}, {_joint_name(card, int(joint))}, "
                f"{distance[sample, joint]:.3g} px at score {expected[sample, joint, 2]:.2f}."
            )
        return tuple(notes)


def _joints(outputs: Outputs, card: ModelCard) -> Array:
    """Return (N, J, 3) joints in pixels and scores, whatever the file returns."""
    raw, before, after = outputs[card.outputs[0].name], card.preprocess, card.postprocess
    if isinstance(before, ImagePreprocess) and isinstance(after, KeypointPostprocess):
        if after.decoder == "heatmaps":
            return joints_of_heatmaps(raw, before.height, before.width)
        if after.decoder == "movenet":
            return rows_to_pixels(raw, before.height, before.width)
    return raw


def judges_pixels(card: ModelCard) -> bool:
    """Return whether joint positions mean something: trained, or regressed without an arg-max."""
    return card.weights.trained or _regresses(card)


def _regresses(card: ModelCard) -> bool:
    post = card.postprocess
    return isinstance(post, KeypointPostprocess) and post.decoder == "regression"


def _has_confidence(card: ModelCard) -> bool:
    """Return whether a joint's score tells if its place means something: trained heatmaps only."""
    return card.weights.trained and not _regresses(card)


def _joint_name(card: ModelCard, index: int) -> str:
    post = card.postprocess
    names = post.joints if isinstance(post, KeypointPostprocess) else ()
    return names[index] if index < len(names) else f"joint {index}"


def _distances(pixels: Array) -> dict[str, float]:
    if not pixels.size:
        return dict.fromkeys(("mean_px", "p50_px", "p99_px", "max_px"), float("nan"))
    p50, p99 = np.percentile(pixels, (50, 99))
    return {
        "mean_px": float(pixels.mean()),
        "p50_px": float(p50),
        "p99_px": float(p99),
        "max_px": float(pixels.max()),
    }


def _worst_median(pixels: Array, judged: Array) -> float:
    """Return the largest median of a row, over what is judged in it; 0 where too little is."""
    rows = [row[kept] for row, kept in zip(pixels, judged, strict=True) if kept.sum() >= _FEW]
    return float(np.max([np.median(row) for row in rows])) if rows else 0.0


def _heatmap_errors(expected: Array, got: Array) -> dict[str, float]:
    gap = got.astype(np.float64) - expected.astype(np.float64)
    width = span(expected)
    return {
        "heatmap_max_relative": peak(np.abs(gap)) / width,
        "heatmap_rms_relative": float(np.sqrt(_sample_means(gap**2).max())) / width,
    }


def _same_tokens(expected: Array, got: Array) -> dict[str, float]:
    gone = _sample_means((expected < 0) == (got < 0))
    return {
        _TOKENS: float(_sample_means(expected == got).min()),
        _GONE: float(gone.mean()),
        _WORST_GONE: float(gone.min()),
    }


def _sample_means(values: Array) -> Array:
    means: Array = values.reshape(len(values), -1).mean(axis=1)
    return means


def hidden_scores(card: ModelCard) -> tuple[str, tuple[int, ...]] | None:
    """Return name and shape of the heatmaps that judge random weights, if the file hides them."""
    if judges_pixels(card) or HEATMAPS in {output.name for output in card.outputs}:
        return None
    batch, height, width = card.inputs[0].shape[:3]
    joints = card.outputs[0].shape[1]
    return HEATMAPS, (batch, joints, height // _HEATMAP_STRIDE, width // _HEATMAP_STRIDE)
