"""Person segmentation's data, loss and scores, on shapes whose answers are known."""

import json

import numpy as np
import pytest
import torch

from prunus.models.training.pictures import Pools
from prunus.models.training.rendering.panoramas import read_panoramas
from prunus.models.training.schedule import Stage
from prunus.models.training.segmentation.dataset import mask_batches, move, paste
from prunus.models.training.segmentation.evaluate import score_masks
from prunus.models.training.segmentation.hand_masks import draw, hand_masks
from prunus.models.training.segmentation.losses import mask_loss
from prunus.models.training.segmentation.shards import (
    IGNORE,
    MaskImage,
    pack,
    read_masks,
    write_masks,
)
from prunus.models.training.teachers import masks as teacher_masks
from prunus.runtime.errors import ArtifactError, PrunusError, SourceError


def _disc(rng, side=64, unknown=False):
    """A bright disc, the person, on a dark ground."""
    y, x = np.mgrid[:side, :side]
    middle = rng.uniform(side * 0.35, side * 0.65, 2)
    labels = (np.hypot(y - middle[0], x - middle[1]) < side * 0.22).astype(np.uint8)
    image = np.full((side, side, 3), rng.integers(0, 60, 3), np.uint8)
    image[labels > 0] = rng.integers(190, 255, 3)
    if unknown:
        labels[:, :5] = IGNORE
    return MaskImage(image, labels)


@pytest.fixture(scope="module")
def disc_cache(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("discs"), np.random.default_rng(0)
    write_masks(root / "synthetic" / "a.npz", pack([_disc(rng) for _ in range(6)]))
    write_masks(root / "real" / "b.npz", pack([_disc(rng, unknown=True) for _ in range(4)]))
    return root


def test_labels_survive_storage_exactly(tmp_path):
    shots = [_disc(np.random.default_rng(k), unknown=True) for k in range(3)]
    write_masks(tmp_path / "x.npz", pack(shots[:2]))
    write_masks(tmp_path / "y.npz", pack(shots[2:]))
    shard = read_masks(tmp_path)
    assert len(shard) == 3 and len(list(tmp_path.iterdir())) == 2
    for k, shot in enumerate(shots):
        assert np.array_equal(shard[k].labels, shot.labels)
        assert np.abs(shard[k].image.astype(int) - shot.image).mean() < 6  # JPEG
    with pytest.raises(PrunusError, match=r"rendering\.masks"):
        read_masks(tmp_path / "nothing")


def test_a_damaged_shard_is_refused_by_name(broken_npz):
    path = broken_npz("a.npz", images=np.zeros(300, np.uint8), image_lengths=np.array([300]))
    with pytest.raises(SourceError, match=r"a\.npz is not a complete"):
        read_masks(path.parent)


def test_a_step_is_the_same_batch_every_time(disc_cache):
    batches = mask_batches(Pools.read(disc_cache, read_masks), Stage(1.0, (48, 64), 5, 0.5), seed=3)
    images, labels = batches[7]
    again, same = batches[7]
    assert torch.equal(images, again) and torch.equal(labels, same)
    assert images.shape == (5, 3, 48, 64) and labels.shape == (5, 48, 64)
    assert not torch.equal(images, batches[8][0])
    assert set(labels.unique().tolist()) <= {0, 1, IGNORE}


def test_labels_move_with_the_picture():
    rng = np.random.default_rng(1)
    for _ in range(20):
        shot = move(rng, _disc(rng, 96), (64, 64))
        bright = shot.image.mean(2) > 125
        agree = (bright == (shot.labels == 1)).mean()
        assert agree > 0.97, agree


def test_pasted_people_keep_their_labels_and_bring_their_doubts():
    rng = np.random.default_rng(2)
    person, scene = _disc(rng, unknown=True), _disc(rng)
    person.labels[(person.labels == 0) & (np.arange(64)[:, None] < 40)] = IGNORE
    joined = paste(person, scene)
    assert (joined.labels[person.labels == 1] == 1).all()
    inner = (person.labels == 1) & (scene.labels == 0)
    assert np.abs(joined.image[inner].astype(int) - person.image[inner]).mean() < 30
    far = np.zeros_like(scene.labels, bool)
    far[-4:, -4:] = True  # a corner far from both
    assert np.array_equal(joined.image[far], scene.image[far])
    assert (joined.labels == IGNORE).sum() < (person.labels == IGNORE).sum()
    assert (joined.labels == IGNORE).any()  # the seam towards what was not known


def test_loss_knows_right_from_wrong_and_ignores_the_unknown():
    labels = torch.zeros(2, 32, 32, dtype=torch.uint8)
    labels[0, 8:24, 8:24] = 1
    right = torch.zeros(2, 2, 32, 32)
    right[:, 0] = 8
    right[0, 1, 8:24, 8:24] = 16
    assert mask_loss(right, labels) < 0.01 < 1 < mask_loss(-right, labels)
    hidden = labels.clone()
    hidden[0, :8] = IGNORE
    spoiled = right.clone()
    spoiled[0, 1, :8] = 30
    torch.testing.assert_close(mask_loss(spoiled, hidden), mask_loss(right, hidden))
    assert mask_loss(spoiled, labels) > 1


def test_scores_of_known_masks():
    labels = np.zeros((4, 4), np.uint8)
    labels[:2] = 1  # eight of person
    labels[3] = IGNORE
    shot = MaskImage(np.zeros((4, 4, 3), np.uint8), labels)
    found = np.zeros((4, 4), bool)
    found[1:] = True  # four right, four missed, four of background wrong; the last row is unknown
    scores = score_masks(lambda _: found, [shot])
    assert scores.person_iou == pytest.approx(4 / 12)
    assert scores.miou == pytest.approx((4 / 12 + 0) / 2)
    assert scores.accuracy == pytest.approx(4 / 12)
    empty = MaskImage(shot.image, np.zeros((4, 4), np.uint8))
    both = score_masks(lambda _: np.zeros((4, 4), bool), [shot, empty])
    assert both.pictures == 2 and both.picture_iou == 0


def test_teachers_must_agree():
    selfie = np.array([[0.9, 0.9, 0.1, 0.1]], np.float32)
    difference = np.array([[60.0, 3.0, 60.0, 3.0]])
    assert teacher_masks.agree(selfie, difference).tolist() == [[1, IGNORE, IGNORE, 0]]


def test_outlines_lie_on_their_pictures():
    found = hand_masks([])
    if not found:
        pytest.skip("scikit-image is not installed")
    (portrait,) = found
    assert portrait.source == "astronaut.png" and portrait.shot.labels.shape == (512, 512)
    assert portrait.shot.labels[100, 220] == 1  # the face
    assert portrait.shot.labels[450, 400] == IGNORE  # the helmet in the hand
    assert portrait.shot.labels[100, 420] == 0  # the shuttle behind
    row = {"people": [[[1, 1], [3, 1], [3, 3], [1, 3]]], "unknown": [[[0, 0], [0, 0]]]}
    assert draw((5, 5), row).tolist()[0] == [IGNORE, 0, 0, 0, 0]
    assert (draw((5, 5), row) == 1).sum() == 9


def test_panoramas_are_named_when_missing_or_damaged(tmp_path):
    with pytest.raises(ArtifactError, match="holds no panoramas"):
        read_panoramas(tmp_path)
    (tmp_path / "hdri").mkdir()
    (tmp_path / "hdri" / "park.exr.js").write_text("export default 'data:;base64,AAAA'")
    with pytest.raises(ArtifactError, match="no OpenEXR"):
        read_panoramas(tmp_path)


def test_table_of_outlines_is_plain(monkeypatch):
    from prunus.models.training.segmentation.hand_masks import TABLE

    rows = json.loads(TABLE.read_text())["pictures"]
    assert len(rows) == 9
    assert sum(len(row["people"]) for row in rows) == 12
    assert all(row.get("frame", 794) >= 650 for row in rows)  # none from the training part


@pytest.mark.slow
def test_rendered_people_have_exact_masks():
    pytest.importorskip("anny", reason="rendering people needs the anny package (extra 'train')")
    moderngl = pytest.importorskip("moderngl", reason="rendering people needs moderngl")
    try:
        moderngl.create_standalone_context(backend="egl").release()
    except Exception as error:  # the driver's own exception types differ by platform
        pytest.skip(f"no EGL device to render on: {error}")
    from prunus.models.training.rendering.backgrounds import Backgrounds
    from prunus.models.training.rendering.mask_studio import SIZE, MaskStudio, lay_over

    studio = MaskStudio(11, Backgrounds())
    shots = [studio.shoot() for _ in range(12)]
    shares = [float((s.labels == 1).mean()) for s in shots]
    assert all(s.image.shape == (SIZE, SIZE, 3) and s.labels.max() <= 1 for s in shots)
    assert max(shares) > 0.3 and min(shares) < 0.15  # from close by and from afar
    again = MaskStudio(11, Backgrounds()).shoot()
    assert np.array_equal(again.labels, shots[0].labels)
    # The coverage that labels are made of is the renderer's own.
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[8:24, 8:24] = (200, 100, 50, 255)
    scene = np.zeros((32, 32, 3), np.float32)
    image, cover = lay_over(np.random.default_rng(0), rgba, scene, Backgrounds())
    assert cover[12:20, 12:20].min() > 0.99 and cover[:4].max() < 0.01
    assert image[12:20, 12:20].mean() > 10 * max(float(image[:4].mean()), 1.0)
