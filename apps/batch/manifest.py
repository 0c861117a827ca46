"""What a run is: what its results depend on, kept beside them so that no two runs are mixed."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import prunus
from prunus.apps.batch.storage import Store
from prunus.apps.batch.task import BatchOptions, BatchTask, hash_of
from prunus.apps.registry import App
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.json_text import json_text
from prunus.runtime.references import load

NAME = "run.json"
_FREE = ("work", "coco", "model", "models", "level", "finder")  # change nothing, or are hashed
_FREE_COMPUTE = ("threads", "cuda_graph")


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as every process of it needs to know it.

    Attributes:
        app: Row of the task.
        options: Of its batch, threads filled in.
        model: Hash of the model.
        told: What results depend on: task, options, hashes.
    """

    app: App
    options: Any
    model: str
    told: dict[str, Any]

    @staticmethod
    def of(app: App, options: BatchOptions) -> Run:
        """Return the run of options; raises ArtifactError for a model that is missing."""
        task = task_of(app, options)
        values = dataclasses.asdict(options)  # type: ignore[call-overload]
        compute = {k: v for k, v in values.pop("compute").items() if k not in _FREE_COMPUTE}
        told = {
            "task": app.task,
            "model_sha256": hash_of(task.files()),
            "helpers_sha256": [hash_of([path]) for path in task.helpers()],
            "options": {k: v for k, v in values.items() if k not in _FREE} | compute,
            "media": options.work.media,
        }
        same: dict[str, Any] = json.loads(json.dumps(told, default=str, allow_nan=False))
        return Run(app, options, same["model_sha256"], same)

    @property
    def same(self) -> dict[str, str]:
        """Values that are the same in all rows of all results."""
        return {"model_sha256": self.model, "prunus": prunus.__version__}

    def begin(self, store: Store) -> None:
        """Write down what this run is, or compare with what is there.

        Raises:
            UsageError: the folder holds the results of another run.
            SourceError: the storage cannot be written.
        """
        if not store.there(NAME):
            store.put_text(json_text(self.told, indent=1) + "\n", NAME)
            return
        there = _read(store)
        if different := _differences(self.told, there):
            raise UsageError(
                f"{store.address} holds the results of another run: {'; '.join(different)}.",
                "Choose another folder with --out, or ask for the same again.",
            )

    def require(self, store: Store) -> None:
        """Refuse to work where the run was not begun, or with another model.

        Raises:
            UsageError: this machine sees another storage, or has another model.
        """
        import socket

        here = socket.gethostname()
        if not store.there(NAME):
            raise UsageError(
                f"{store.address} on {here} is not the folder in which this run began.",
                "Give an --out that all nodes share, such as s3://bucket/folder.",
            )
        if different := _differences(self.told, _read(store)):
            raise UsageError(f"{here} would compute something else: {'; '.join(different)}.")


def task_of(app: App, options: BatchOptions) -> BatchTask:
    """Return the task of a row, not yet open."""
    found: BatchTask = load(app.batch)(options)
    return found


def _read(store: Store) -> dict[str, Any]:
    try:
        with store.read(NAME) as path:
            told = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(told, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise ArtifactError(
            f"{store.address}/{NAME} is damaged: {error}.", "Choose another folder with --out."
        ) from None
    return told


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    flat = [{**t, **t.get("options", {}), "options": None} for t in (ours, theirs)]
    names = sorted({*flat[0], *flat[1]})
    pairs = ((name, *(told.get(name) for told in flat)) for name in names)
    return [f"{name} is {_short(b)} there, {_short(a)} here" for name, a, b in pairs if a != b]


def _short(value: Any) -> str:
    text = json_text(value)
    return text if len(text) < 40 else f"{text[:20]}..."
