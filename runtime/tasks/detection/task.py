"""The task descriptor: people and faces."""

from __future__ import annotations

from prunus.runtime.tasks.registry import Task

TASK = Task(
    name="detection",
    label="people and faces",
    preprocess={"image": "prunus.runtime.tasks.pose.card:ImagePreprocess"},
    postprocess={
        "people": "prunus.runtime.tasks.pose.card:PeoplePostprocess",
        "faces": "prunus.runtime.tasks.faces.card:FacesPostprocess",
        "face_mesh": "prunus.runtime.tasks.faces.card:FaceMeshPostprocess",
    },
    estimators={
        "people": "prunus.runtime.tasks.pose.people:PeopleFinder",
        "faces": "prunus.runtime.tasks.faces.boxes:FaceFinder",
        "face_mesh": "prunus.runtime.tasks.faces.mesh:FaceMesh",
    },
    metric="prunus.runtime.tasks.generic.metric:GenericMetric",
)
