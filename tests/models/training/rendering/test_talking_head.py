"""Rendered heads: the face path sees their mouths open, round and shut."""

import numpy as np
import pytest

from prunus.models import zoo
from prunus.runtime.tasks.faces.boxes import FaceFinder
from prunus.runtime.tasks.faces.finder import FaceTracker
from prunus.runtime.tasks.faces.mesh import OUTER_LIPS, FaceMesh
from prunus.runtime.tasks.faces.mouth import mouth_opening

pytest.importorskip("anny")
pytest.importorskip("moderngl")


def _person(skin):
    from prunus.models.training.rendering.talking_head import Person

    return Person({"gender": 0.5, "caucasian": 1.0, "asian": 0.0, "african": 0.0}, skin,
                  (0.7, 0.4, 0.4), (0.2, 0.1, 0.1), (0.2, 0.3, 0.5))  # fmt: skip


@pytest.mark.slow
def test_the_face_path_reads_what_was_drawn() -> None:
    from prunus.models.training.rendering.talking_head import HeadModel, TalkingHead

    model = HeadModel()
    head = TalkingHead(model, _person((0.9, 0.7, 0.6)), 256)
    dark = TalkingHead(model, _person((0.3, 0.2, 0.15)), 256)

    def picture(*shape):
        drawn = head.draw(*shape)
        assert drawn.shape == (256, 256, 4) and drawn.dtype == np.uint8
        assert drawn[2, 2, 3] == 0 and drawn[128, 128, 3] == 255
        return np.ascontiguousarray(drawn[..., 2::-1])

    with (
        FaceFinder.open(zoo.model_path("blazeface_full"), "onnxruntime", 1) as finder,
        FaceMesh.open(zoo.model_path("facemesh"), "onnxruntime", 1) as mesh,
    ):

        def read(*shape):
            faces = FaceTracker().update(picture(*shape), finder, mesh)
            assert len(faces) == 1
            corners = faces[0].points[[OUTER_LIPS[0], OUTER_LIPS[6]], :2]
            return mouth_opening(faces[0].points), float(np.ptp(corners[:, 0]))

        shut, half, wide, round_ = (read(*s) for s in ((0, 0), (0.5, 0), (1, 0), (0.5, 1)))
    assert shut[0] < 0.05 < half[0] < wide[0] and wide[0] > 0.25
    assert round_[1] < 0.9 * half[1]  # narrower
    assert dark.draw(0, 0)[150, 128, :3].mean() < 0.5 * head.draw(0, 0)[150, 128, :3].mean()
