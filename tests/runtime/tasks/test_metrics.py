"""Every output that a card declares is judged: a fault planted in any of them leaves its budget."""

import dataclasses

import numpy as np
import pytest

from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError
from prunus.runtime.references import load
from prunus.runtime.tasks import registry
from prunus.runtime.tasks.metrics import metric_for
from prunus.runtime.tasks.pose.card import KeypointPostprocess
from prunus.runtime.tasks.segmentation.card import MaskPostprocess
from prunus.runtime.tasks.separation.card import SeparatorPostprocess

RNG = np.random.default_rng(5)
KEYPOINTS = KeypointPostprocess("udp_dark", "four", ("a", "b", "c", "d"), (), (), (0.05,) * 4)
MASK = MaskPostprocess("logits", ("x", "y"), ((0, 0, 0), (255, 0, 0)))


def _card(task, post, **outputs):
    specs = tuple(
        TensorSpec(name, array.dtype.name, array.shape[1:] or (1,), ("n",) * max(array.ndim - 1, 1))
        for name, array in outputs.items()
    )
    return ModelCard(
        task, "m", "v", "p", "Apache-2.0", "e", Weights("made", "0", "Apache-2.0", True),
        (TensorSpec("x", "float32", (1, 4), ("n", "c")),), specs, None, post,
    )  # fmt: skip


def _keypoints():
    places = RNG.uniform(0, 100, (20, 4, 2))
    return np.concatenate([places, RNG.uniform(0.3, 1, (20, 4, 1))], -1).astype(np.float32)


CASES = {
    "pose": (KEYPOINTS, {"keypoints": _keypoints(), "heatmaps": RNG.random((20, 4, 8, 8))}),
    "segmentation": (MASK, {"logits": RNG.standard_normal((4, 2, 16, 16)).astype(np.float32)}),
    "codec": (
        None,
        {
            "codes": RNG.integers(0, 99, (3, 8)),
            "sound": RNG.standard_normal((3, 800)).astype(np.float32),
            "voice": RNG.standard_normal((3, 16)).astype(np.float32),
            "a_next": RNG.standard_normal((3, 16)).astype(np.float32),
        },
    ),
    "separation": (
        SeparatorPostprocess("voice"),
        {"voice": RNG.standard_normal((3, 800)).astype(np.float32)},
    ),
    "lips": (
        SeparatorPostprocess("lips"),
        {
            "lips": RNG.standard_normal((3, 8, 25)).astype(np.float32),
            "codes": RNG.integers(0, 99, (3, 25)),
        },
    ),
    "generic": (
        None,
        {
            "logits": RNG.standard_normal((9, 10)).astype(np.float32),
            "features": RNG.standard_normal((9, 3, 5)).astype(np.float32),
            "ids": RNG.integers(0, 99, (9, 4)),
        },
    ),
}
FAULTS = [(case, name) for case, (_, outputs) in CASES.items() for name in outputs]


def _broken(metric, card, expected, got, precision):
    values = metric.measure(expected, got, card).values
    return [m.quantity for m in metric.limits(card, precision) if not m.holds(values[m.quantity])]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(("case", "name"), FAULTS)
def test_a_fault_in_any_output_is_found(case, name, precision) -> None:
    post, outputs = CASES[case]
    card = _card("separation" if case == "lips" else case, post, **outputs)
    metric = metric_for(card)
    assert _broken(metric, card, outputs, outputs, precision) == []
    halved = outputs[name].copy()
    if name == "keypoints":
        halved[..., 2] /= 2  # joints stay: only the scores are wrong
    elif halved.dtype.kind == "f":
        halved /= 2
    else:
        halved += 1
    assert _broken(metric, card, outputs, {**outputs, name: halved}, precision)


def test_rounding_of_each_precision_passes() -> None:
    post, outputs = CASES["pose"]
    card = _card("pose", post, **outputs)
    near = {n: (v * (1 + 1e-5)).astype(v.dtype) for n, v in outputs.items()}
    assert _broken(metric_for(card), card, outputs, near, "fp32") == []


def test_every_task_lives_up_to_its_descriptor() -> None:
    for name in registry.TASKS:
        task = registry.task_named(name)
        assert task.name == name and task.label and task.judge()
        for kind, reference in {**task.preprocess, **task.postprocess}.items():
            kinds = [f.default for f in dataclasses.fields(load(reference)) if f.name == "kind"]
            assert kinds == [kind], reference
        for kind in task.estimators:
            assert kind in task.postprocess and callable(task.estimator(kind).open)
        for reference in (task.plan_lines, task.plan_summary, task.hidden_scores):
            assert not reference or callable(load(reference))


def test_a_task_is_one_row(monkeypatch) -> None:
    """A new task: its card opens, its metric judges, with one registration."""
    monkeypatch.setitem(registry.TASKS, "sorting", f"{__name__}:SORTING")
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _module())
    card = _card("sorting", None, y=np.zeros((1, 4), np.float32))
    assert ModelCard.from_json(card.to_json()) == card
    assert metric_for(card)


def _module():
    import types

    module = types.ModuleType(__name__)
    module.SORTING = SORTING
    return module


SORTING = registry.Task(
    "sorting", "sorting", {}, {}, metric="prunus.runtime.tasks.generic.metric:GenericMetric"
)


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ArtifactError, match="did you mean 'pose'"):
        registry.task_named("posse")
