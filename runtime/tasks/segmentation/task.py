"""The task descriptor: segmentation."""

from __future__ import annotations

from prunus.runtime.tasks.registry import Task

TASK = Task(
    name="segmentation",
    label="segmentation",
    preprocess={"scene": "prunus.runtime.tasks.segmentation.card:ScenePreprocess"},
    postprocess={"mask": "prunus.runtime.tasks.segmentation.card:MaskPostprocess"},
    estimators={"mask": "prunus.runtime.tasks.segmentation.segmenter:Segmenter"},
    metric="prunus.runtime.tasks.segmentation.metric:SegmentationMetric",
    plan_lines="prunus.runtime.card.tokens:pooled_keys",
    plan_summary="prunus.runtime.card.tokens:work",
    hidden_scores="prunus.runtime.tasks.segmentation.metric:hidden_scores",
)
