"""A network of one picture refuses another model's file, and does not leave it open."""

import pytest

from prunus.models import zoo
from prunus.runtime.errors import ArtifactError
from prunus.runtime.session import base
from prunus.runtime.tasks.faces.boxes import FaceFinder
from prunus.runtime.tasks.faces.mesh import FaceMesh
from prunus.runtime.tasks.pose.people import PeopleFinder


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (FaceFinder, "expected a face finder"),
        (FaceMesh, "expected a face mesh"),
        (PeopleFinder, "expected a people finder"),
    ],
)
def test_another_model_is_refused_and_closed(kind, said, monkeypatch):
    opened, stock = [], base.open

    def noted(*words, **how):
        opened.append(stock(*words, **how))
        return opened[-1]

    monkeypatch.setattr(base, "open", noted)
    with pytest.raises(ArtifactError, match=said):
        kind.open(zoo.model_path("movenet_lightning"), "onnxruntime", 1)
    assert len(opened) == 1 and opened[0]._turns.shut() is False


def test_what_opens_closes(monkeypatch):
    with FaceFinder.open(zoo.model_path("blazeface_full"), "onnxruntime", 1) as finder:
        session = finder.session
    assert session._turns.shut() is False  # it had been shut
