"""The task descriptor: human pose."""

from __future__ import annotations

from prunus.runtime.tasks.registry import Task

TASK = Task(
    name="pose",
    label="human pose",
    preprocess={"image": "prunus.runtime.tasks.pose.card:ImagePreprocess"},
    postprocess={"keypoints": "prunus.runtime.tasks.pose.card:KeypointPostprocess"},
    estimators={"keypoints": "prunus.runtime.tasks.pose.estimator:PoseEstimator"},
    metric="prunus.runtime.tasks.pose.metric:PoseMetric",
    hidden_scores="prunus.runtime.tasks.pose.metric:hidden_scores",
)
