"""Open a model by its name and predict: one call for every task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from prunus.results import (
    FacesResult,
    MaskResult,
    PoseResult,
    SpeechResult,
    TensorResult,
    VoicesResult,
)
from prunus.runtime.errors import ArtifactError, TensorError
from prunus.runtime.protocols import Closable
from prunus.runtime.tasks import batches
from prunus.runtime.tasks.registry import task_named

if TYPE_CHECKING:
    from prunus.runtime.session.base import BackendOptions, Session

Result = PoseResult | FacesResult | MaskResult | SpeechResult | VoicesResult | TensorResult
Array = npt.NDArray[Any]

# What a task's name opens: the best of what ships, by the accuracies in the README's table.
DEFAULTS = {
    "pose": "movenet_lightning",
    "people": "movenet_multipose",
    "faces": "blazeface_full",
    "segmentation": "selfie",
    "codec": "nsfcodec",
    "separation": "dolphin_nano",
}
FINDER = "movenet_multipose"


class Predictor(Closable):
    """A loaded model: call it on one input, or `predict` on one, a list or an iterator.

    Attributes:
        name: What was opened.
        estimator: The task object underneath, for everything that this class does not do.
        takes: What it can be called on: ``picture``, ``sound``, ``clip``, ``tensors``.
        gives: Class of its results.
        batch: How many inputs of one item `together` takes at most.
    """

    def __init__(
        self,
        name: str,
        estimator: Any,
        answer: Callable[[Any], Result],
        parts: tuple[Any, ...],
        *,
        takes: tuple[str, ...] = ("picture",),
        gives: type[Result] = PoseResult,
        batch: int = 1,
        many: Callable[[Sequence[Any]], list[Result]] | None = None,
    ) -> None:
        self.name, self.estimator = name, estimator
        self.takes, self.gives, self.batch = takes, gives, batch
        self._answer, self._parts, self._many = answer, parts, many

    def __call__(self, data: Any) -> Result:
        """Return the result of one input.

        Args:
            data: A picture uint8 (height, width, 3) BGR; mono sound float32 (samples,) in [-1, 1]
                at the codec's rate; the path of a clip, or its bytes; for other networks a mapping
                of arrays by input name, or a picture where the card says how it goes in.

        Raises:
            TensorError: a shape, dtype or value does not fit.
        """
        return self._answer(data)

    def items(self, data: Any) -> int:
        """Return how many places of the batch an input takes; raises TensorError as a call does."""
        return 1

    def together(self, inputs: Sequence[Any]) -> list[Result]:
        """Return the result of each input, from one run where the model's batch holds them all."""
        return [self(one) for one in inputs] if self._many is None else self._many(inputs)

    @overload
    def predict(self, data: Array | dict[str, Array] | str | Path | bytes) -> Result: ...
    @overload
    def predict(self, data: list[Any] | tuple[Any, ...]) -> list[Result]: ...
    @overload
    def predict(self, data: Iterator[Any]) -> Iterator[Result]: ...
    def predict(self, data: Any) -> Any:
        """Return a result for one input, a list for a list, and an iterator for an iterator."""
        if isinstance(data, np.ndarray | dict | str | Path | bytes):
            return self(data)
        if isinstance(data, list | tuple):
            return [self(one) for one in data]
        return (self(one) for one in data)

    def close(self) -> None:
        """Free the models."""
        for part in self._parts:
            part.close()


class TensorPredictor(Predictor):
    """A network by its tensors; where its card names a batch, inputs may hold fewer items."""

    def __init__(self, name: str, session: Session) -> None:
        from prunus.runtime.tasks.segmentation.card import ScenePreprocess

        self.card = session.card
        pictures = isinstance(self.card.preprocess, ScenePreprocess)
        super().__init__(
            name, session, lambda data: self.together([data])[0], (session,),
            takes=("tensors", "picture") if pictures else ("tensors",), gives=TensorResult,
            batch=batches.places_of(self.card),
        )  # fmt: skip

    def items(self, data: Any) -> int:
        """Return the length of the first axis where it is a batch, all of it for a picture."""
        return self.batch if isinstance(data, np.ndarray) else batches.items_in(self.card, data)

    def together(self, inputs: Sequence[Any]) -> list[Result]:
        """Return the result of each input, from one run.

        Raises:
            TensorError: an input does not fit, or they are more items than the batch holds.
        """
        from prunus.runtime.tasks.generic.feed import picture_feed

        feeds = [
            picture_feed(self.card, one) if isinstance(one, np.ndarray) else one for one in inputs
        ]
        if self.batch == 1:
            return [TensorResult(self.estimator.run(feed)) for feed in feeds]
        counts = [batches.items_in(self.card, feed) for feed in feeds]
        if sum(counts) > self.batch:
            raise TensorError(
                f"Got {sum(counts)} items; {self.card.name} takes at most {self.batch} at a time."
            )
        outputs = self.estimator.run(batches.join(self.card, feeds))
        return [TensorResult(tensors) for tensors in batches.split(outputs, counts)]


def load(
    model: str | Path,
    *,
    backend: str = "auto",
    threads: int | None = None,
    device: str = "cpu",
    options: BackendOptions | None = None,
    finder: str | Path | None = FINDER,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Predictor:
    """Open a model by path, by the name that ``prunus models`` lists, or by the name of its task.

    Args:
        model: A file, with a card of ours or without; a shipped name such as
            ``movenet_lightning``; or ``pose``, ``people``, ``faces``, ``segmentation``, ``codec``
            or ``separation`` for the best that ships.
        backend: See `prunus.open`.
        threads: CPU threads, None for all usable CPUs.
        device: See `prunus.open`.
        options: Switches of the back end.
        finder: Model that finds the people whose joints a pose network estimates; None: the whole
            picture is one person.
        shapes: Input name -> sizes, for a file whose inputs have no fixed ones; they are fixed in a
            copy, which the user's cache keeps.

    Returns:
        The model; close it, or use it in a `with` statement.

    Raises:
        ArtifactError: no such model, or one that nothing reads.

    Example:
        >>> with prunus.load("segmentation") as segment:  # doctest: +SKIP
        ...     shares = segment(frame).to_dict()["shares"]
    """
    choices = {"backend": backend, "threads": threads, "device": device, "options": options}
    name, files, kind = locate(model, shapes)
    if kind == "codes":
        return _codec(name, str(files), choices)
    return _MAKERS.get(kind, _tensors)(name, files, choices, finder)


def locate(
    model: str | Path, shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[str, Path, str]:
    """Return what `load` would open: its name, its file, and the kind of its post-processing.

    Args:
        model: See `load`.
        shapes: See `load`.

    Returns:
        The file is NAME of ``NAME-encoder.onnx`` and so on where the kind is ``codes``, and of
        ``NAME-lips.onnx`` where it is ``separator``; the kind is empty where the card says none.

    Raises:
        ArtifactError: no such model, or one that nothing reads.
    """
    from prunus.apps.common.model_files import codec_name, find_model, separator_parts
    from prunus.runtime.card.artifact import read_card

    name = DEFAULTS.get(str(model), str(model))
    if (codec := codec_name(name)) != name or Path(f"{name}-encoder.onnx").is_file():
        return name, Path(codec), "codes"
    if (parts := separator_parts(name)) is not None:
        return name, parts[0], "separator"
    words = [f"{n}:{'x'.join(map(str, sizes))}" for n, sizes in (shapes or {}).items()]
    path = find_model(name, words)
    card = read_card(path)
    return name, path, card.postprocess.kind if card.postprocess is not None else ""


def _codec(name: str, files: str, choices: dict[str, Any]) -> Predictor:
    codec = task_named("codec").estimator("codes").open(files, **choices)
    rate, bits = codec.format.sample_rate_hz, codec.format.bits_per_second

    def answer(sound: Any) -> SpeechResult:
        speech = codec.encode(sound)
        return SpeechResult(speech, codec.decode(speech), rate, bits)

    return Predictor(name, codec, answer, (codec,), takes=("sound",), gives=SpeechResult)


def _tensors(
    name: str, path: Path, choices: dict[str, Any], finder: str | Path | None
) -> Predictor:
    from prunus.runtime.session.base import open as open_session

    return TensorPredictor(name, open_session(path, **choices))


def _segmenter(
    name: str, path: Path, choices: dict[str, Any], finder: str | Path | None
) -> Predictor:
    segmenter = task_named("segmentation").estimator("mask").open(path, **choices)
    post = segmenter.postprocess
    return Predictor(
        name, segmenter, lambda picture: MaskResult(segmenter(picture), post), (segmenter,),
        gives=MaskResult, batch=segmenter.places,
        many=lambda pictures: [MaskResult(mask, post) for mask in segmenter.many(pictures)],
    )  # fmt: skip


def _people(name: str, path: Path, choices: dict[str, Any], finder: str | Path | None) -> Predictor:
    find = task_named("detection").estimator("people").open(
        path, choices["backend"], choices["threads"]
    )  # fmt: skip
    joints = find.session.card.postprocess.joints
    return Predictor(name, find, lambda picture: PoseResult(tuple(find(picture)), joints), (find,))


def _faces(name: str, path: Path, choices: dict[str, Any], finder: str | Path | None) -> Predictor:
    from prunus.apps.common.model_files import find_model
    from prunus.apps.separation.models import FACES, open_faces
    from prunus.runtime.tasks.faces.finder import FaceTracker

    with ExitStack() as opening:
        find, mesh = open_faces(path, find_model(FACES[1]), choices, opening)
        parts = opening.pop_all()

    def answer(picture: Any) -> FacesResult:
        return FacesResult(tuple(FaceTracker().update(picture, find, mesh)))

    return Predictor(name, find, answer, (parts,), gives=FacesResult)


def _separator(
    name: str, path: Path, choices: dict[str, Any], finder: str | Path | None
) -> Predictor:
    from prunus.apps.separation.clips import separate_clip
    from prunus.apps.separation.models import open_models
    from prunus.apps.separation.options import SeparationChoice
    from prunus.runtime.card.artifact import file_holding

    choice = SeparationChoice(model=str(path))
    with ExitStack() as opening:
        models = open_models(choice, choices, opening)
        parts = opening.pop_all()

    def answer(clip: Any) -> VoicesResult:
        if isinstance(clip, bytes):
            with file_holding(clip, ".mp4", "The clip") as file:
                return answer(file)
        heard = separate_clip(clip, models, choice)
        return VoicesResult(
            heard.voices, heard.seconds, models.separator.sample_rate_hz, heard.warnings
        )

    return Predictor(
        name, models.separator, answer, (parts,), takes=("clip",), gives=VoicesResult
    )


def _pose(name: str, path: Path, choices: dict[str, Any], finder: str | Path | None) -> Predictor:
    from prunus.apps.common.model_files import find_model

    estimator = task_named("pose").estimator("keypoints").open(path, **choices)
    post = estimator.postprocess

    def opened(boxes_of: Callable[[Any], npt.NDArray[np.float32]], *parts: Any) -> Predictor:
        def many(pictures: Sequence[Any]) -> list[Result]:
            found = estimator.many(pictures, [boxes_of(picture) for picture in pictures])
            return [PoseResult(tuple(people), post.joints, post) for people in found]

        return Predictor(
            name, estimator, lambda picture: many([picture])[0], (estimator, *parts),
            batch=estimator.batch_sizes[-1], many=many,
        )  # fmt: skip

    if finder is None:
        return opened(lambda p: np.array([[0, 0, p.shape[1], p.shape[0]]], np.float32))
    try:
        where = find_model(str(finder))
        find = task_named("detection").estimator("people").open(
            where, choices["backend"], choices["threads"]
        )  # fmt: skip
    except ArtifactError as error:
        estimator.close()
        raise ArtifactError(f"The finder: {error.message}", error.hint) from None

    def found(picture: Any) -> npt.NDArray[np.float32]:
        return np.array([person.box for person in find(picture)], np.float32).reshape(-1, 4)

    return opened(found, find)


_MAKERS: dict[str, Callable[[str, Path, dict[str, Any], str | Path | None], Predictor]] = {
    "keypoints": _pose,
    "mask": _segmenter,
    "people": _people,
    "faces": _faces,
    "separator": _separator,
}
