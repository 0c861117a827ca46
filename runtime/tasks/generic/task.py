"""The task descriptor: tensors in, tensors out."""

from __future__ import annotations

from prunus.runtime.tasks.registry import Task

TASK = Task(
    name="generic",
    label="tensors in, tensors out",
    preprocess={},
    postprocess={},
    estimators={},
    metric="prunus.runtime.tasks.generic.metric:GenericMetric",
)
