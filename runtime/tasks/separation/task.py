"""The task descriptor: speech separation."""

from __future__ import annotations

from prunus.runtime.tasks.registry import Task

TASK = Task(
    name="separation",
    label="speech separation",
    preprocess={
        "mouth": "prunus.runtime.tasks.separation.card:MouthPreprocess",
        "mixture": "prunus.runtime.tasks.separation.card:MixturePreprocess",
    },
    postprocess={"separator": "prunus.runtime.tasks.separation.card:SeparatorPostprocess"},
    estimators={"separator": "prunus.runtime.tasks.separation.separator:SpeechSeparator"},
    metric="prunus.runtime.tasks.separation.metric:SeparationMetric",
)
