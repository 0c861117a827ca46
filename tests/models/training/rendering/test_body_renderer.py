import numpy as np
import pytest

pytest.importorskip("anny", reason="rendering people needs the anny package (extra 'train')")
moderngl = pytest.importorskip("moderngl", reason="rendering people needs moderngl")

from prunus.models.training.rendering.backgrounds import Backgrounds  # noqa: E402
from prunus.models.training.rendering.body_poses import rotation, sample_pose  # noqa: E402
from prunus.models.training.rendering.body_renderer import (  # noqa: E402
    HEIGHT,
    WIDTH,
    Actor,
    BodyModel,
    SceneRenderer,
)
from prunus.models.training.rendering.synthetic_people import (  # noqa: E402
    PeopleStudio,
    frame_points,
    look_at,
    project,
)


@pytest.fixture(scope="module")
def context():
    try:
        moderngl.create_standalone_context(backend="egl").release()
    except Exception as error:  # the driver's own exception types differ by platform
        pytest.skip(f"no EGL device to render on: {error}")


@pytest.fixture(scope="module")
def model():
    return BodyModel()


def test_rotations_are_rotations_and_follow_the_right_hand():
    matrix = rotation((0, 0, 2), 90)
    np.testing.assert_allclose(matrix @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    for joint in sample_pose(np.random.default_rng(0)).values():
        np.testing.assert_allclose(joint @ joint.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(joint) == pytest.approx(1)


def test_framing_puts_the_person_where_it_is_asked_to():
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.3, -0.2, 0], [0.3, 0.2, 1.7], (400, 3))
    view = look_at(points.mean(0), elevation=20.0, distance=6.0)
    matrix = frame_points(points, view, 0.7, np.array([9.0, -7.0]), (HEIGHT, WIDTH))
    seen = project(points, matrix, HEIGHT, WIDTH)
    middle = (seen.min(0) + seen.max(0)) / 2
    np.testing.assert_allclose(middle, [(WIDTH - 1) / 2 + 9, (HEIGHT - 1) / 2 - 7], atol=1e-6)
    assert np.ptp(seen[:, 1]) == pytest.approx(0.7 * HEIGHT, rel=1e-6)
    assert seen[points[:, 2].argmax(), 1] < seen[points[:, 2].argmin(), 1]


def test_drawn_pixels_lie_where_the_projection_says(context, model):
    rng = np.random.default_rng(1)
    bodies = model.sample(rng, 1)
    vertices, look = model.dress(rng, bodies.vertices[0], bodies.normals[0])
    actor = Actor(vertices, bodies.normals[0], bodies.joints[0], look)
    view = look_at(actor.joints.mean(0), 5.0, 4.0)
    matrix = frame_points(vertices, view, 0.7, np.zeros(2), (HEIGHT, WIDTH))
    alpha = SceneRenderer(model).draw([actor], matrix, np.array([0, -1.0, 0]), 0.5)[..., 3]
    rows, cols = np.nonzero(alpha > 127)
    outline = project(vertices, matrix, HEIGHT, WIDTH)
    np.testing.assert_allclose([cols.min(), rows.min()], outline.min(0), atol=1.6)
    np.testing.assert_allclose([cols.max(), rows.max()], outline.max(0), atol=1.6)
    joints = np.rint(project(actor.joints, matrix, HEIGHT, WIDTH)).astype(int)
    covered = alpha[joints[:, 1], joints[:, 0]] > 127
    assert covered[5:].mean() > 0.9


def test_the_left_side_of_the_body_is_on_the_right_of_a_frontal_picture(model):
    rest = model.rest
    assert model.sample(np.random.default_rng(0), 2).joints.shape == (2, 17, 3)
    assert np.abs(rest[:, 0].max() + rest[:, 0].min()) < 0.01


def test_a_studio_is_reproducible_and_labels_what_is_in_the_picture(context):
    shots = [PeopleStudio(5, Backgrounds()).shoot() for _ in range(2)]
    np.testing.assert_array_equal(shots[0].image, shots[1].image)
    np.testing.assert_array_equal(shots[0].keypoints, shots[1].keypoints)
    studio = PeopleStudio(6, Backgrounds())
    for shot in (studio.shoot() for _ in range(12)):
        assert shot.image.shape == (HEIGHT, WIDTH, 3)
        x, y, weight = shot.keypoints.T
        inside = (x >= 0) & (x <= WIDTH - 1) & (y >= 0) & (y <= HEIGHT - 1)
        np.testing.assert_array_equal(weight > 0, inside)
        assert inside.sum() >= 4
        low, high = shot.box[:2] - 8, shot.box[2:] + 8
        assert np.all((shot.keypoints[inside, :2] >= low) & (shot.keypoints[inside, :2] <= high))
