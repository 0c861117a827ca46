"""What runs inside Triton's Python back end: `prunus.load`, and its results as tensors.

A folder of the repository says by the parameters of its configuration what to open and how;
``model.py`` there imports `TritonPythonModel` from here. Pictures of several requests that Triton
joined go through the model in one run. The states of a codec's streams stay here, by the
correlation id of the sequence.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.api import Predictor, Result, load
from prunus.apps.deploy import config
from prunus.apps.serve.batching import answers
from prunus.apps.serve.bodies import read_body
from prunus.results import FacesResult, MaskResult, PoseResult, TensorResult
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import PrunusError, TensorError, UsageError
from prunus.runtime.session.base import BackendOptions
from prunus.runtime.tasks import batches
from prunus.runtime.tasks.codec.codec import CodecFormat, joined
from prunus.runtime.tasks.faces.mesh import LANDMARKS

_LOG = logging.getLogger(__name__)
BODY, JSON, AUDIO = "body", "json", "audio"
Arrays = Mapping[str, npt.NDArray[Any]]
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One kind of model: what its tensors are, and how a result becomes them.

    Attributes:
        places: How many requests go through a card's graph at a time.
        inputs: Inputs of a request by the card.
        outputs: Outputs by the card.
        arrays: A result as outputs, without the axis of the batch.
        reads: The inputs of a request, by name -> what the model is called on.
    """

    places: Callable[[ModelCard], int]
    inputs: Callable[[ModelCard], list[Message]]
    outputs: Callable[[ModelCard], list[Message]]
    arrays: Callable[[Any], Arrays]
    reads: Callable[[Arrays, Predictor], Any]


def _text(text: str) -> npt.NDArray[np.object_]:
    return np.array([text.encode()], np.object_)


def _body(inputs: Arrays, model: Predictor) -> Any:
    values = inputs[BODY]
    if values.size != 1:
        raise TensorError(
            f"Got {values.size} bodies in one request; expected one.",
            "Send a request for each: the server joins them.",
        )
    return read_body(bytes(values.reshape(-1)[0]), model)


def _places(card: ModelCard) -> int:
    # Windows that slide over one picture fill the batch themselves.
    return 1 if getattr(card.preprocess, "fit", "") == "sliding" else card.inputs[0].shape[0]


def _body_in(card: ModelCard) -> list[Message]:
    return [config.tensor(BODY, config.TEXT, (1,))]


def _found_out(name: str, points: int) -> list[Message]:
    """Return the outputs of who was found: JSON, so many points of each, boxes, scores."""
    return [
        config.tensor(JSON, config.TEXT, (1,)),
        config.tensor(name, "float32", (config.ANY, points, 3)),
        config.tensor("boxes", "float32", (config.ANY, 4)),
        config.tensor("scores", "float32", (config.ANY,)),
    ]


def _found(result: Result, name: str, points: Sequence[Any], of: int, who: Any) -> Arrays:
    return {
        JSON: _text(result.to_json()),
        name: np.array(points, np.float32).reshape(len(who), of, 3),
        "boxes": np.array([one.box for one in who], np.float32).reshape(-1, 4),
        "scores": np.array([one.score for one in who], np.float32),
    }


def _people_out(card: ModelCard) -> list[Message]:
    return _found_out("keypoints", len(card.postprocess.joints))  # type: ignore[union-attr]


def _people(result: PoseResult) -> Arrays:
    people = result.people
    points = [person.keypoints for person in people]
    return _found(result, "keypoints", points, len(result.joints), people)


def _faces_out(card: ModelCard) -> list[Message]:
    return _found_out("points", LANDMARKS)


def _faces(result: FacesResult) -> Arrays:
    points = [face.points for face in result.faces]
    return _found(result, "points", points, LANDMARKS, result.faces)


def _mask_out(card: ModelCard) -> list[Message]:
    post: Any = card.postprocess
    outputs = [
        config.tensor(JSON, config.TEXT, (1,)),
        config.tensor("classes", "int32", (config.ANY, config.ANY)),
    ]
    if post.decoder == "probability" or post.foreground >= 0:
        outputs.append(config.tensor("foreground", "float32", (config.ANY, config.ANY)))
    return outputs


def _mask(result: MaskResult) -> Arrays:
    mask = result.mask
    arrays = {JSON: _text(result.to_json()), "classes": mask.classes.astype(np.int32)}
    return arrays if mask.foreground is None else arrays | {"foreground": mask.foreground}


def _own_axes(card: ModelCard) -> int:
    return 1 if batches.places_of(card) > 1 else 0


TENSORS = Answer(
    batches.places_of,
    lambda card: config.tensors(card.inputs, _own_axes(card)),
    lambda card: config.tensors(card.outputs, _own_axes(card)),
    lambda result: result.tensors,
    lambda inputs, model: dict(inputs),
)
# By the kind of the card's post-processing; any other network answers by its tensors.
ANSWERS = {
    "keypoints": Answer(_places, _body_in, _people_out, _people, _body),
    "people": Answer(lambda card: 1, _body_in, _people_out, _people, _body),
    "faces": Answer(lambda card: 1, _body_in, _faces_out, _faces, _body),
    "mask": Answer(_places, _body_in, _mask_out, _mask, _body),
}


def stream_tensors(form: CodecFormat) -> tuple[list[Message], list[Message]]:
    """Return the tensors of a codec's sound, and of its codes: a piece of a stream each."""
    codes = [config.tensor(s.name, "int64", (s.codebooks, config.ANY)) for s in form.streams]
    return [config.tensor(AUDIO, "float32", (config.ANY,))], codes


@dataclass(slots=True)
class _Stream:
    flow: Any
    used: float


class Streams:
    """The streams of one codec, encoding or decoding, by correlation id.

    Args:
        begin: Makes a stream: a `StreamEncoder` or a `StreamDecoder`.
        push: Gets a stream and the inputs of a request; returns the outputs so far.
        finish: Gets a stream and the last outputs; returns them with those of the end.
        idle_s: Seconds after which a stream that sends nothing is forgotten, as Triton does.
        clock: Seconds.
    """

    def __init__(
        self,
        begin: Callable[[], Any],
        push: Callable[[Any, Arrays], Arrays],
        finish: Callable[[Any, Arrays], Arrays],
        idle_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._begin, self._push, self._finish = begin, push, finish
        self._idle_s, self._clock = idle_s, clock
        self.open: dict[object, _Stream] = {}

    def answer(self, key: object, inputs: Arrays, *, first: bool, last: bool) -> Arrays:
        """Return the outputs of one piece.

        Raises:
            TensorError: it does not fit; the stream stays as it was, or ends where it was the last.
            UsageError: it belongs to no stream.
        """
        now = self._clock()
        if first:
            old = [k for k, stream in self.open.items() if now - stream.used > self._idle_s]
            for one in old:
                del self.open[one]
            self.open[key] = _Stream(self._begin(), now)
        if key not in self.open:
            raise UsageError(f"There is no stream {key}.", "Begin one: sequence_start=True.")
        stream = self.open[key]
        stream.used = now
        try:
            outputs = self._push(stream.flow, inputs)
            return self._finish(stream.flow, outputs) if last else outputs
        finally:
            if last:
                del self.open[key]


def encoding(model: Predictor, idle_s: float) -> Streams:
    """Return the streams of sound: float32 (samples,) in, codes of each of the codec's streams out.

    The pieces of a stream together are what `SpeechCodec.encode` gives for the whole sound.
    """
    return Streams(
        model.estimator.encoder,
        lambda flow, inputs: flow.push(inputs[AUDIO]),
        lambda flow, outputs: joined([dict(outputs), flow.flush()]),
        idle_s,
    )


def decoding(model: Predictor, idle_s: float) -> Streams:
    """Return the streams of codes: int64 (codebooks, codes) in, float32 (samples,) out.

    The pieces together are as long as the sound, up to the next whole stride of frames.
    """
    return Streams(
        model.estimator.decoder,
        lambda flow, inputs: {AUDIO: flow.push(inputs)},
        lambda flow, outputs: {AUDIO: np.concatenate((outputs[AUDIO], flow.flush()))},
        idle_s,
    )


FLOWS = {"encode": encoding, "decode": decoding}


class TritonPythonModel:
    """What Triton's Python back end calls; one object for each instance, used by one thread."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the model; `args` are those of Triton, all texts."""
        import triton_python_backend_utils

        self._pb = triton_python_backend_utils
        form = json.loads(args["model_config"])
        said = {key: value["string_value"] for key, value in form["parameters"].items()}
        self._inputs = [one["name"] for one in form["input"]]
        self._axis = form["max_batch_size"] > 0
        folder = Path(args["model_repository"], args["model_version"])
        on_gpu = args["model_instance_kind"] == "GPU"
        finder = said.get("finder")
        self._model = load(
            folder / said["file"],
            backend=said["backend"],
            threads=int(said["threads"]) if "threads" in said else None,
            device=f"cuda:{args['model_instance_device_id']}" if on_gpu else said["device"],
            options=BackendOptions(
                inference_precision=said["arithmetic"],  # type: ignore[arg-type]
                cuda_graph=said["cuda_graph"] == "1",
            ),
            finder=folder / finder if finder else None,
        )
        self._answer = ANSWERS.get(said["kind"], TENSORS)
        flow = FLOWS.get(said["kind"])
        self._streams = flow(self._model, float(said["idle_s"])) if flow else None
        if flow:  # Triton's own warm-up begins no stream
            self._model(np.zeros(int(said["sample_rate_hz"]), np.float32))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return the responses to requests, in their order; one that fails, fails alone."""
        if self._streams is not None:
            return [self._responded(request, self._piece(request)) for request in requests]
        found: list[Any] = []
        for request in requests:
            try:
                data = self._answer.reads(self._read(request), self._model)
                self._model.items(data)
                found.append(data)
            except Exception as error:
                found.append(error)
        good = [k for k, one in enumerate(found) if not isinstance(one, Exception)]
        results = answers(self._model, [found[k] for k in good]) if good else []
        for k, result in zip(good, results, strict=True):
            found[k] = self._arrays(result) if not isinstance(result, Exception) else result
        return [self._responded(*pair) for pair in zip(requests, found, strict=True)]

    def finalize(self) -> None:
        """Close the model."""
        self._model.close()

    def _read(self, request: Any) -> Arrays:
        get = self._pb.get_input_tensor_by_name
        return {name: get(request, name).as_numpy() for name in self._inputs}

    def _arrays(self, result: Result) -> Arrays:
        arrays = self._answer.arrays(result)
        if self._axis and not isinstance(result, TensorResult):
            return {name: array[None] for name, array in arrays.items()}
        return arrays

    def _piece(self, request: Any) -> Arrays | Exception:
        assert self._streams is not None
        flags = request.flags()
        try:
            return self._streams.answer(
                request.correlation_id(), self._read(request),
                first=bool(flags & self._pb.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START),
                last=bool(flags & self._pb.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END),
            )  # fmt: skip
        except Exception as error:
            return error

    def _responded(self, request: Any, found: Arrays | Exception) -> Any:
        pb = self._pb
        if isinstance(found, Exception):
            if not isinstance(found, PrunusError):
                _LOG.error("A request failed.", exc_info=found)
            wrong = isinstance(found, UsageError)
            code = pb.TritonError.INVALID_ARG if wrong else pb.TritonError.INTERNAL
            told = str(found) if isinstance(found, PrunusError) else "The server failed; see log."
            return pb.InferenceResponse(error=pb.TritonError(told, code))
        wanted = request.requested_output_names()
        return pb.InferenceResponse(
            [pb.Tensor(name, np.ascontiguousarray(found[name])) for name in wanted]
        )
