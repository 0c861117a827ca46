"""The task descriptor: speech codec."""

from __future__ import annotations

from prunus.runtime.tasks.registry import Task

TASK = Task(
    name="codec",
    label="speech codec",
    preprocess={"codec": "prunus.runtime.tasks.codec.card:CodecPreprocess"},
    postprocess={"codes": "prunus.runtime.tasks.codec.card:CodecPostprocess"},
    estimators={"codes": "prunus.runtime.tasks.codec.codec:SpeechCodec"},
    metric="prunus.runtime.tasks.codec.metric:CodecMetric",
)
