"""The segmenter around a stand-in for the network: geometry, decoding, windows, refusals."""

import threading
from pathlib import Path

import numpy as np
import pytest

import prunus.apps
from prunus.models import zoo
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, TensorError, UsageError
from prunus.runtime.tasks.pose.card import KeypointPostprocess
from prunus.runtime.tasks.segmentation.card import MaskPostprocess, ScenePreprocess
from prunus.runtime.tasks.segmentation.segmenter import Segmenter, best_class
from prunus.runtime.tasks.segmentation.smoothing import MaskSmoothing

cv2 = pytest.importorskip("cv2")
COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0))


def card(decoder="class_ids", *, size=(64, 64), batch=1, task="segmentation", fit=None, **post):
    height, width = size
    stride = 8 if decoder != "class_ids" else 1
    rows, columns = height // stride, width // stride
    shapes = {
        "class_ids": (batch, height, width),
        "logits": (batch, 3, rows, columns),
        "probability": (batch, 1, rows, columns),
    }
    shape = shapes[decoder]
    dtype = "uint8" if decoder == "class_ids" else "float32"
    axes = ("batch", "row", "column") if len(shape) == 3 else ("batch", "class", "row", "column")
    return ModelCard(
        task=task, model="stand-in", variant="x", paper="", licence="Apache-2.0", exporter="test",
        weights=Weights("none", "random:0", "Apache-2.0", False),
        inputs=(TensorSpec("image", "uint8", (batch, *size, 3), ("batch", "row", "col", "rgb")),),
        outputs=(TensorSpec("out", dtype, shape, axes),),
        preprocess=fit or ScenePreprocess(*size, "letterbox"),
        postprocess=MaskPostprocess(decoder, ("back", "red", "green"), COLOURS, stride, **post),
    )  # fmt: skip


class StandIn:
    """A session whose network is a function of the image."""

    def __init__(self, model_card, network) -> None:
        self.card, self.network, self.runs, self.closed = model_card, network, 0, False

    def run(self, inputs):
        self.runs += 1
        return {"out": self.network(inputs["image"])}

    def close(self) -> None:
        self.closed = True


def reddish(image):
    """Class 1 where red is bright, 2 where green is, else 0."""
    return np.where(image[..., 0] > 127, 1, np.where(image[..., 1] > 127, 2, 0)).astype(np.uint8)


def red_logits(image):
    pixels = image.astype(np.float32) / 255
    cells = pixels.reshape(len(image), image.shape[1] // 8, 8, image.shape[2] // 8, 8, 3)
    mean = cells.mean(axis=(2, 4)).transpose(0, 3, 1, 2)  # red, green, blue
    back = 0.4 * np.ones_like(mean[:, :1])
    return np.concatenate([back, mean[:, :1], mean[:, 1:2]], axis=1).astype(np.float32)


def scene(height, width):
    """BGR: left half black, right half red, a green stripe at the bottom quarter."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, width // 2 :, 2] = 255
    frame[height * 3 // 4 :] = (0, 255, 0)
    return frame


@pytest.mark.parametrize(("height", "width"), [(64, 64), (240, 320), (320, 240), (37, 91)])
@pytest.mark.parametrize("decoder", ["class_ids", "logits"])
def test_classes_come_back_where_they_were(height, width, decoder) -> None:
    network = reddish if decoder == "class_ids" else red_logits
    mask = Segmenter(StandIn(card(decoder), network))(scene(height, width))
    assert mask.classes.shape == (height, width) and mask.classes.dtype == np.uint8
    assert mask.foreground is None
    expected = reddish(scene(height, width)[..., ::-1])
    # What lies well inside an area must be right; borders may move by the network's resolution.
    assert (mask.classes == expected).mean() > (0.97 if decoder == "class_ids" else 0.9)
    for y, x in ((0.3, 0.2), (0.3, 0.8), (0.93, 0.5)):
        row, column = int(y * height), int(x * width)
        assert mask.classes[row, column] == expected[row, column]


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
@pytest.mark.parametrize("decoder", ["class_ids", "logits", "probability"])
def test_the_smallest_frames_work(size, decoder) -> None:
    network = {
        "class_ids": reddish, "logits": red_logits,
        "probability": lambda image: np.ones((1, 1, 8, 8), np.float32),
    }[decoder]  # fmt: skip
    frame = np.full((*size, 3), (0, 0, 255), np.uint8)
    mask = Segmenter(StandIn(card(decoder), network))(frame)
    assert mask.classes.shape == size and (mask.classes == 1).all()


def test_the_foreground_is_the_class_that_the_card_names() -> None:
    mask = Segmenter(StandIn(card(foreground=1), reddish))(scene(64, 64))
    np.testing.assert_array_equal(mask.foreground, (mask.classes == 1).astype(np.float32))


def test_probabilities_are_foreground_and_classes() -> None:
    def sure(image):
        return red_logits(image)[:, 1:2]

    mask = Segmenter(StandIn(card("probability", foreground=1), sure))(scene(128, 256))
    assert mask.foreground.dtype == np.float32 and 0 <= mask.foreground.min()
    np.testing.assert_array_equal(mask.classes, mask.foreground >= 0.5)
    assert mask.foreground[20, 240] > 0.95 and mask.foreground[20, 10] < 0.05


@pytest.mark.parametrize("batch", [1, 2])
def test_windows_give_what_one_pass_gives_for_a_local_network(batch) -> None:
    window = ScenePreprocess(64, 64, "sliding", longest=320, shortest=160, stride=(48, 48))
    session = StandIn(card("logits", batch=batch, fit=window), red_logits)
    frame = scene(160, 320)
    mask = Segmenter(session)(frame)
    assert session.runs == -(-3 * 7 // batch)
    assert (mask.classes == reddish(frame[..., ::-1])).mean() > 0.95


def test_a_graph_of_its_own_aspect_refuses_other_frames() -> None:
    fit = ScenePreprocess(64, 64, "keep_ratio", longest=256, shortest=64, multiple=32)
    segment = Segmenter(StandIn(card(fit=fit), reddish))
    assert segment(scene(128, 128)).classes.shape == (128, 128)
    with pytest.raises(UsageError, match="64x128"):
        segment(scene(100, 200))


def test_masks_outlive_later_calls() -> None:
    with Segmenter.open(zoo.model_path("selfie"), "onnxruntime", threads=1) as segment:
        size = segment.fit.size
        first = segment(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
        kept = first.classes.copy(), first.foreground.copy()
        other = segment(np.zeros((*size, 3), np.uint8))
    assert not np.array_equal(other.foreground, kept[1])
    np.testing.assert_array_equal(first.classes, kept[0])
    np.testing.assert_array_equal(first.foreground, kept[1])


def test_a_stream_of_steadied_masks_refuses_a_second_thread() -> None:
    inside, go, told = threading.Event(), threading.Event(), []

    def network(image):
        inside.set()
        go.wait()
        return reddish(image)

    segment = Segmenter(StandIn(card(), network), MaskSmoothing())
    first = threading.Thread(target=lambda: told.append(segment(scene(64, 64))))
    first.start()
    inside.wait()
    with pytest.raises(UsageError, match="serves one stream") as caught:
        segment(scene(64, 64))
    assert "object of its own" in caught.value.hint
    go.set()
    first.join()
    assert len(told) == 1
    segment(scene(64, 64))


def test_what_is_not_a_segmentation_model_is_refused() -> None:
    skeleton = KeypointPostprocess("udp_dark", "x", ("a",), (), (), (0.1,))
    import dataclasses

    with pytest.raises(ArtifactError, match="made for pose"):
        Segmenter(StandIn(card(task="pose"), reddish))
    with pytest.raises(ArtifactError, match="how frames become masks"):
        Segmenter(StandIn(dataclasses.replace(card(), postprocess=skeleton), reddish))
    window = ScenePreprocess(64, 64, "sliding", longest=128, shortest=64, stride=(32, 32))
    with pytest.raises(ArtifactError, match="no logits to average"):
        Segmenter(StandIn(card(fit=window), reddish))


def test_poisoned_numbers_and_wrong_frames_are_refused() -> None:
    def poisoned(image):
        return np.full((1, 3, 8, 8), np.nan, np.float32)

    with pytest.raises(TensorError, match="not finite"):
        Segmenter(StandIn(card("logits"), poisoned))(scene(64, 64))
    for frame in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint16), np.zeros((0, 8, 3))):
        with pytest.raises(TensorError, match="expected uint8"):
            Segmenter(StandIn(card(), reddish))(frame)


def test_closing_closes_the_session() -> None:
    session = StandIn(card(), reddish)
    with Segmenter(session):
        pass
    assert session.closed


@pytest.mark.parametrize(("decoder", "network"), [("class_ids", reddish), ("logits", red_logits)])
def test_several_frames_share_a_run_and_keep_their_masks(decoder, network) -> None:
    frames = [scene(64, 64), scene(240, 320)[:, ::-1], scene(37, 91)]
    session = StandIn(card(decoder, batch=4), network)
    segment = Segmenter(session)
    alone = [segment(frame) for frame in frames]
    assert segment.places == 4 and session.runs == 3
    shared = segment.many(frames)
    assert session.runs == 4 and all(value > 0 for value in segment.stage_ms.values())
    for one, other in zip(shared, alone, strict=True):
        np.testing.assert_array_equal(one.classes, other.classes)
    assert len({mask.classes.tobytes() for mask in shared}) == 3
    for count in (0, 5):
        with pytest.raises(TensorError, match=f"Got {count} frames"):
            segment.many(frames[:1] * count)


def test_frames_of_several_streams_share_a_run_and_are_steadied_apart() -> None:
    def flicker() -> list[np.ndarray]:
        frames = [np.zeros((64, 64, 3), np.uint8) for _ in range(3)]
        frames[1][:, :32] = (0, 0, 255)  # in one frame of each alone
        return frames

    streams = [flicker(), flicker()]
    alone = [Segmenter(StandIn(card(batch=2), reddish), MaskSmoothing()) for _ in streams]
    expected = [
        [one(frame).classes for frame in own] for one, own in zip(alone, streams, strict=True)
    ]
    session, steady = StandIn(card(batch=2), reddish), [MaskSmoothing(), MaskSmoothing()]
    shared = Segmenter(session)
    for k, pair in enumerate(zip(*streams, strict=True)):
        for number, mask in enumerate(shared.many(pair, steady)):
            np.testing.assert_array_equal(mask.classes, expected[number][k])
            assert not mask.classes.any()  # a class must be seen twice
    assert session.runs == 3
    raw = shared.many([streams[0][1]], [None])[0]
    assert raw.classes.any()


def test_frames_that_slide_or_are_steadied_go_alone() -> None:
    sliding = ScenePreprocess(64, 64, "sliding", longest=128, shortest=64, stride=(32, 32))
    assert Segmenter(StandIn(card("logits", batch=4, fit=sliding), red_logits)).places == 1
    assert Segmenter(StandIn(card(batch=4), reddish), MaskSmoothing()).places == 1


def test_many_classes_are_compared_a_few_at_a_time() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((5, 7, 150)).astype(np.float32)
    big = cv2.resize(logits, (21, 15), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(best_class(logits, (15, 21)), big.argmax(2))


def test_a_new_class_must_be_seen_twice() -> None:
    steady = MaskSmoothing(patience=2)
    zero, one = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)
    assert (steady.classes(zero) == 0).all()
    assert (steady.classes(one) == 0).all()  # once: not believed
    assert (steady.classes(zero) == 0).all()  # gone again
    assert (steady.classes(one) == 0).all()
    assert (steady.classes(one) == 1).all()  # twice in a row
    steady.reset()
    assert (steady.classes(zero) == 0).all()
    assert steady.classes(np.ones((3, 3), np.uint8)).all()  # another size begins anew


def test_small_changes_are_averaged_and_large_ones_believed() -> None:
    steady = MaskSmoothing(strength=0.6)
    level = np.array([[0.5, 0.0]], np.float32)
    steady.probability(level)
    out = steady.probability(np.array([[0.6, 1.0]], np.float32))
    assert out[0, 0] == pytest.approx(0.5 * 0.48 + 0.6 * 0.52)
    assert out[0, 1] == 1.0
    off = MaskSmoothing(strength=0.0, patience=1)
    off.probability(level)
    assert (off.probability(1 - level) == 1 - level).all()
    with pytest.raises(UsageError, match="expected 0 <= strength"):
        MaskSmoothing(strength=1.0)


def alike(a, b) -> float:
    """IoU of the people in two class maps."""
    return ((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum()


def test_masks_of_people_go_where_the_picture_goes() -> None:
    """Mirror, scale, noise on every pixel of a large picture, JPEG, light: the person stays."""
    cv2 = pytest.importorskip("cv2")
    frame = cv2.imread(str(Path(prunus.apps.__path__[0]) / "media" / "portrait.jpg"))
    large = cv2.resize(frame, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).integers(-43, 44, large.shape, np.int8)
    noisy = np.clip(large.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    half = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1)
    with Segmenter.open(zoo.model_path("selfie"), "onnxruntime", threads=1) as segment:
        mask = segment(frame).classes
        mirrored = segment(np.ascontiguousarray(frame[:, ::-1])).classes[:, ::-1]
        assert alike(mask, mirrored) > 0.975
        assert alike(mask, segment(large).classes[4::8, 4::8]) > 0.995
        assert alike(mask, segment(noisy).classes[4::8, 4::8]) > 0.995  # 0.988 by four pixels
        assert alike(mask[::2, ::2], segment(half).classes) > 0.99
        assert alike(mask, segment(jpeg).classes) > 0.99
        assert alike(mask, segment(cv2.convertScaleAbs(frame, beta=20)).classes) > 0.99
