"""What a task is: one frozen descriptor each, found by the name on the card.

A descriptor says how cards of the task describe their pre- and post-processing, which class turns
arrays into results, which metric judges a file against its reference, and how a plan of tokens is
told. Everything is a lazy ``module:attribute`` reference, so that reading a card imports the parts
of its own task and nothing else. A new task is a folder with a ``task.py`` and one row here.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from prunus.runtime.card.reading import build
from prunus.runtime.errors import ArtifactError, nearest
from prunus.runtime.references import load

if TYPE_CHECKING:
    from prunus.runtime.tasks.metrics import TaskMetric

# Name on the card -> descriptor.
TASKS: dict[str, str] = {
    "codec": "prunus.runtime.tasks.codec.task:TASK",
    "detection": "prunus.runtime.tasks.detection.task:TASK",
    "generic": "prunus.runtime.tasks.generic.task:TASK",
    "pose": "prunus.runtime.tasks.pose.task:TASK",
    "segmentation": "prunus.runtime.tasks.segmentation.task:TASK",
    "separation": "prunus.runtime.tasks.separation.task:TASK",
}


class Processing(Protocol):
    """A frozen dataclass on the card; its `kind` tells it from the others."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def kind(self) -> str:
        """Discriminator in JSON."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Attributes:
        name: Name on the card.
        label: Name for people.
        preprocess: Kind on the card -> dataclass that says how inputs are made.
        postprocess: Kind on the card -> dataclass that says how outputs are read.
        estimators: Kind of post-processing -> class with ``open(path, ...)`` that works on arrays.
        metric: `TaskMetric` that compares a file with its reference.
        plan_lines: Function from a `TokenPlan` to lines that tell it, for ``prunus inspect``.
        plan_summary: Function from a `TokenPlan` to a few words, for a panel on the picture.
        hidden_scores: Function from a card to (name, shape) of the scores inside the graph by which
            a network with random weights is judged, or None; empty where there are none.
    """

    name: str
    label: str
    preprocess: Mapping[str, str]
    postprocess: Mapping[str, str]
    estimators: Mapping[str, str] = field(default_factory=dict)
    metric: str = ""
    plan_lines: str = "prunus.runtime.card.tokens:dropped_tokens"
    plan_summary: str = "prunus.runtime.card.tokens:counts"
    hidden_scores: str = ""

    def estimator(self, kind: str) -> Any:
        """Return the class that works on arrays with models of that kind of post-processing.

        Raises:
            ArtifactError: there is none.
        """
        if kind not in self.estimators:
            raise ArtifactError(
                f"No estimator reads {self.label} of kind '{kind}'.",
                "Run the file by its tensors: prunus.runtime.open",
            )
        return load(self.estimators[kind])

    def judge(self) -> TaskMetric:
        """Return the metric of the task; raises ArtifactError when it has none."""
        if not self.metric:
            raise ArtifactError(f"No metric compares models of task '{self.name}'.")
        return cast("TaskMetric", load(self.metric)())


def task_named(name: str) -> Task:
    """Return a task by the name on the card.

    Raises:
        ArtifactError: no such task; names the nearest one.
    """
    if name not in TASKS:
        known = sorted(TASKS)
        raise ArtifactError(
            f"card.task is {name!r}; no such task{nearest(name, known)}.",
            f"Tasks: {', '.join(known)}. A card of a newer prunus needs that version.",
        )
    return cast(Task, load(TASKS[name]))


def require_task(name: str, task: str, wanted: str, hint: str) -> None:
    """Refuse a model of another task.

    Args:
        name: Of the model, for the message.
        task: What its card says.
        wanted: What is expected.
        hint: How to get such a model.

    Raises:
        ArtifactError: they differ.
    """
    if task != wanted:
        raise ArtifactError(f"{name} is made for {task}; expected {wanted}.", hint)


def read_task(raw: object, path: str) -> str:
    """Return the name of a task as a card gives it; raises ArtifactError for an unknown one."""
    return task_named(str(raw)).name


def read_preprocess(raw: object, path: str) -> Processing:
    """Return how inputs are made, from parsed JSON; raises ArtifactError."""
    return _read("preprocess", raw, path)


def read_postprocess(raw: object, path: str) -> Processing:
    """Return how outputs are read, from parsed JSON; raises ArtifactError."""
    return _read("postprocess", raw, path)


def _read(field: str, raw: object, path: str) -> Processing:
    """Build the dataclass that the kind names, whichever task brings it."""
    known: dict[str, str] = {}
    for name in TASKS:
        known.update(getattr(task_named(name), field))
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(kind, str) or kind not in known:
        raise ArtifactError(
            f"{path}.kind is {reprlib.repr(kind)}; expected one of {sorted(known)}."
        )
    return cast(Processing, build(load(known[kind]), raw, path))
