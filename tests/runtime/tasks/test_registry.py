"""Every row of the registry leads somewhere, and what leads nowhere is refused by name."""

import dataclasses

import pytest

from prunus.runtime.errors import ArtifactError
from prunus.runtime.references import load
from prunus.runtime.tasks.registry import (
    TASKS,
    Task,
    read_postprocess,
    read_preprocess,
    read_task,
    require_task,
    task_named,
)

EMPTY = Task("t", "things", {}, {})


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_task_and_all_that_it_names(name) -> None:
    task = task_named(name)
    assert task.name == name == read_task(name, "card.task")
    assert callable(task.judge().measure)
    for kind, reference in {**task.preprocess, **task.postprocess}.items():
        fields = {field.name: field for field in dataclasses.fields(load(reference))}
        assert fields["kind"].default == kind
    assert set(task.estimators) <= set(task.postprocess)
    for kind in task.estimators:
        assert callable(task.estimator(kind).open)
    for reference in filter(None, (task.plan_lines, task.plan_summary, task.hidden_scores)):
        assert callable(load(reference))


def test_a_descriptor_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        EMPTY.name = "u"


def test_what_a_task_lacks_is_refused() -> None:
    with pytest.raises(ArtifactError, match="No estimator reads things of kind 'x'"):
        EMPTY.estimator("x")
    with pytest.raises(ArtifactError, match="No metric compares models of task 't'"):
        EMPTY.judge()


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ArtifactError, match=r"'pos'; no such task.*pose") as caught:
        task_named("pos")
    assert all(name in caught.value.hint for name in TASKS)


def test_a_model_of_another_task_is_refused() -> None:
    require_task("m", "pose", "pose", "hint")
    with pytest.raises(ArtifactError, match=r"m is made for pose; expected codec\.") as caught:
        require_task("m", "pose", "codec", "Take another.")
    assert caught.value.hint == "Take another."


@pytest.mark.parametrize("read", [read_preprocess, read_postprocess])
@pytest.mark.parametrize(
    ("raw", "said"), [(None, "None"), ([], "None"), ({}, "None"), ({"kind": 3}, "3"),
                      ({"kind": ["image"]}, "image"), ({"kind": "nothing"}, "'nothing'")]
)  # fmt: skip
def test_a_kind_that_no_task_brings_is_refused(read, raw, said) -> None:
    with pytest.raises(ArtifactError, match=r"card\.x\.kind is .*; expected one of") as caught:
        read(raw, "card.x")
    assert said in str(caught.value)
