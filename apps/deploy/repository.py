"""`prunus deploy triton`: a model repository, complete or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import prunus
from prunus.api import FINDER, locate
from prunus.apps.common.media import PORTRAIT
from prunus.apps.common.model_files import find_model
from prunus.apps.deploy import config, serving
from prunus.apps.deploy.config import Word
from prunus.apps.deploy.options import TritonOptions
from prunus.runtime.card.artifact import (
    EngineSidecar,
    plain_name,
    read_card,
    sha256_of,
    write_error,
)
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.graph import read_graph
from prunus.runtime.command import Console
from prunus.runtime.errors import ArtifactError, MissingDependencyError, UsageError
from prunus.runtime.json_text import json_text
from prunus.runtime.session.choice import choose
from prunus.runtime.tasks.codec.codec import CodecFormat, find_parts

CONFIG, VERSION, GRAPH = "config.pbtxt", "1", "-graph"
_HASH = "prunus_sha256"
_MODEL_PY = f'''"""Answers as `prunus.load` does; made by prunus {prunus.__version__}."""

from prunus.apps.deploy.serving import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
_ENGINES = (".engine", ".plan")


@dataclass(frozen=True, slots=True)
class Folder:
    """One model of the repository.

    Attributes:
        name: Its name, for callers.
        message: `inference.ModelConfig`, see `apps.deploy.config`; name and hash are added.
        files: Place in the folder -> file to copy, or its content.
    """

    name: str
    message: dict[str, Any]
    files: dict[str, Path | bytes] = field(default_factory=dict)

    def sha256(self) -> str:
        """Return the hash of its copied files, by which another model of its name is told."""
        digest = hashlib.sha256()
        for place, content in sorted(self.files.items()):
            if isinstance(content, Path):
                digest.update(f"{place} {sha256_of(content)}\n".encode())
        return digest.hexdigest()

    def write(self, root: Path) -> None:
        """Write the folder below `root`."""
        settings = [
            *self.message.get("parameters", []), *config.parameters({_HASH: self.sha256()})
        ]  # fmt: skip
        message = {"name": self.name, **self.message, "parameters": settings}
        for place, content in {**self.files, CONFIG: config.text_of(message).encode()}.items():
            target = root / self.name / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, target)
            else:
                target.write_bytes(content)


def deploy_triton(options: TritonOptions, console: Console) -> None:
    """Write a model repository for NVIDIA Triton Inference Server.

    Raises:
        ArtifactError: no such model, one without fixed sizes, or one that the back end cannot open.
        UsageError: no such back end or arithmetic of it, a batch that the graph does not hold, a
            device that Triton does not know, two models of one name, a separator,
            a codec that sends a voice, or a folder that holds another model.
        SourceError: the repository cannot be written.
    """
    folders = [folder for word in options.model for folder in folders_of(word, options)]
    names = [folder.name for folder in folders]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"Got two models named {', '.join(doubled)}.", "Rename one of the files.")
    write_repository(folders, options.output, overwrite=options.overwrite)
    rows = [
        {
            "name": folder.name,
            "backend": str(folder.message["backend"]),
            "inputs": [one["name"] for one in folder.message["input"]],
            "outputs": [one["name"] for one in folder.message["output"]],
        }
        for folder in folders
    ]
    lines = [
        f"{row['name']}  {row['backend']}: {', '.join(row['inputs'])} -> "
        f"{', '.join(row['outputs'])}"
        for row in rows
    ]
    start = f"tritonserver --model-repository={options.output}"
    console.say(
        "\n".join([f"wrote {options.output}", *lines, f"start with: {start}"]),
        json_text({"repository": str(options.output), "models": rows}, indent=1),
    )


def folders_of(word: str, options: TritonOptions) -> list[Folder]:
    """Return the folders of one model; raises as `deploy_triton` does."""
    shapes = {}
    if options.shape:
        from prunus.export.graph.shapes import read_shapes

        shapes = read_shapes(options.shape)
    _, path, kind = locate(word, shapes)
    stem = Path(word).stem if Path(word).suffix in (".onnx", *_ENGINES) else Path(word).name
    name = plain_name(stem)
    if kind == "codes":
        return _codec(name.removesuffix("-encoder").removesuffix("-decoder"), path, options)
    card = read_card(path)
    if kind == "separator":
        raise UsageError(
            f"{word} separates whole clips, which no request here carries.",
            "Serve it by prunus serve http, or run clips with prunus batch separation.",
        )
    graph = _graph(f"{name}{GRAPH}", path, card, options)
    return [_whole(name, path, card, kind, options), graph]


def _graph(name: str, path: Path, card: ModelCard, options: TritonOptions) -> Folder:
    """Return the network alone, by its tensors, with every axis fixed.

    Triton's batcher is left off: it joins requests along an axis of any length alone, and there
    is none in a static graph (``CompareDimsSupported`` in its ONNX Runtime back end).
    """
    engine = path.suffix in _ENGINES
    file = "model.plan" if engine else "model.onnx"
    inputs = config.tensors(card.inputs)
    threads = options.compute.threads
    settings = {"intra_op_thread_count": threads} if threads and not engine else {}
    message = {
        "backend": "tensorrt" if engine else "onnxruntime",
        "default_model_filename": file,
        "max_batch_size": 0,
        "input": inputs,
        "output": config.tensors(card.outputs),
        "instance_group": [_instances(options, engine)],
        "model_warmup": [config.warm_up(inputs, {})],
        "parameters": config.parameters(settings),
    }
    return Folder(name, message, _copied(path, file, sidecar=False))


def _whole(name: str, path: Path, card: ModelCard, kind: str, options: TritonOptions) -> Folder:
    """Return the model that answers as `prunus.load` does."""
    _check_backend(path, card, options)
    answer = serving.ANSWERS.get(kind, serving.TENSORS)
    places, own = answer.places(card), answer is not serving.TENSORS
    batch = places if options.batch is None else options.batch
    if batch > places:
        raise UsageError(
            f"Got --batch {batch}; {card.name} was exported for {places}.",
            f"Export it again with --batch {batch}, or leave out --batch.",
        )
    files = _copied(path, file := f"model{path.suffix}")
    settings: dict[str, object] = {"file": file, "kind": kind}
    if kind == "keypoints":
        files |= _copied(find_model(FINDER), "finder.onnx")
        settings["finder"] = "finder.onnx"
    inputs = answer.inputs(card)
    message = {
        # A picture is a row even where nothing is joined, so that callers need not know.
        "max_batch_size": batch if places > 1 or own else 0,
        "input": inputs,
        "output": answer.outputs(card),
    }
    if batch > 1:
        message["dynamic_batching"] = {"max_queue_delay_microseconds": round(options.wait * 1000)}
    warm: dict[str, str] = {}
    if own:
        picture = PORTRAIT.read_bytes()
        files["warmup/picture"] = len(picture).to_bytes(4, "little") + picture
        warm = {serving.BODY: "picture"}
    message["model_warmup"] = [config.warm_up(inputs, warm)]
    return _python(name, message, settings, files, options, engine=path.suffix in _ENGINES)


def _codec(name: str, path: Path, options: TritonOptions) -> list[Folder]:
    """Return a codec's streams of sound and of codes, and its graphs."""
    if options.batch not in (None, 1):
        raise UsageError(f"Got --batch {options.batch}; a codec's streams run one by one.",
                         "Leave out --batch; --streams says how many are open.")  # fmt: skip
    parts = find_parts(path)
    cards = {part: read_card(file) for part, file in parts.items()}
    for part, file in parts.items():
        _check_backend(file, cards[part], options)
    form = CodecFormat.of(cards["encoder"])
    if form.voice:
        raise UsageError(
            f"{form.name} sends the voice of a sound beside its codes, which no stream here "
            "carries.", "Serve it by prunus serve http, or run its graphs by their tensors.",
        )  # fmt: skip
    sound, codes = serving.stream_tensors(form)
    files: dict[str, Path | bytes] = {}
    for part, file in parts.items():
        files |= _copied(file, f"codec-{part}{file.suffix}")
    rows = {"encode": (sound, codes), "decode": (codes, sound)}
    engine = parts["encoder"].suffix in _ENGINES
    batcher = {
        "max_sequence_idle_microseconds": round(options.idle * 1e6),
        "oldest": {"max_candidate_sequences": options.streams},
    }
    folders = []
    for flow, (inputs, outputs) in rows.items():
        message = {
            "max_batch_size": 0, "input": inputs, "output": outputs, "sequence_batching": batcher
        }  # fmt: skip
        settings = {
            "file": f"codec{parts['encoder'].suffix if engine else ''}", "kind": flow,
            "idle_s": options.idle, "sample_rate_hz": form.sample_rate_hz,
        }  # fmt: skip
        folders.append(
            _python(f"{name}-{flow}", message, settings, dict(files), options, engine=engine)
        )
    graphs = [_graph(f"{name}-{p}{GRAPH}", file, cards[p], options) for p, file in parts.items()]
    return [*folders, *graphs]


def _python(
    name: str,
    message: Mapping[str, Any],
    settings: Mapping[str, object],
    files: dict[str, Path | bytes],
    options: TritonOptions,
    *,
    engine: bool,
) -> Folder:
    compute = options.compute
    said = {
        **settings,
        "backend": compute.backend,
        "device": compute.device,
        "arithmetic": compute.arithmetic,
        "cuda_graph": int(compute.cuda_graph),
        **({"threads": compute.threads} if compute.threads else {}),
        **({"EXECUTION_ENV_PATH": options.environment} if options.environment else {}),
    }
    whole = {
        "backend": "python",
        **message,
        "instance_group": [_instances(options, engine)],
        "parameters": config.parameters(said),
    }
    return Folder(name, whole, {f"{VERSION}/model.py": _MODEL_PY.encode(), **files})


def _instances(options: TritonOptions, engine: bool) -> dict[str, Any]:
    device = re.fullmatch(r"cpu|cuda(?::(\d+))?", options.compute.device)
    if device is None:
        raise UsageError(
            f"Got --device {options.compute.device}; Triton places models on cpu or cuda:0."
        )
    if device[0] == "cpu" and not engine:
        return {"count": options.instances, "kind": Word("KIND_CPU")}
    gpus = (int(device[1] or 0),)
    return {"count": options.instances, "kind": Word("KIND_GPU"), "gpus": gpus}


def _check_backend(path: Path, card: ModelCard, options: TritonOptions) -> None:
    """Refuse what no machine's back end can do; raises UsageError and ArtifactError."""
    compute = options.compute
    with contextlib.suppress(MissingDependencyError):  # the server may have what is not here
        choose(path, card, compute.backend, compute.device, compute.arithmetic)


def _copied(path: Path, name: str, *, sidecar: bool = True) -> dict[str, Path | bytes]:
    """Return a model's file under a new name, and what must lie beside it."""
    files: dict[str, Path | bytes] = {f"{VERSION}/{name}": path}
    if path.suffix not in _ENGINES:
        for other in read_graph(path).data_files:
            files[f"{VERSION}/{other}"] = path.parent / other
        return files
    said = EngineSidecar.read(path)
    if said.flavour != "tensorrt" or said.plugin:
        raise ArtifactError(
            f"{path} is of {said.flavour}{' with a plugin' if said.plugin else ''}; Triton runs "
            "engines of tensorrt without one.",
            "Build it for that: prunus build MODEL.onnx --flavour tensorrt --plugin off",
        )
    if sidecar:
        files[f"{VERSION}/{name}.json"] = EngineSidecar.path_for(path)
    return files


def write_repository(
    folders: Sequence[Folder], repository: Path, *, overwrite: bool = False
) -> None:
    """Write folders of models into a repository: all of them, or none.

    They are made beside the repository, since a server must never meet half a model, and renamed.
    What else the repository holds stays.

    Args:
        folders: Their names differ.
        repository: Made where it is missing; the folder around it must exist.
        overwrite: Replace folders that hold other models; those of the same files always are.

    Raises:
        UsageError: a folder of that name holds another model.
        SourceError: the repository cannot be written.
        HostError: the disk is full.
    """
    for folder in () if overwrite else folders:
        _refuse_another(repository / folder.name, folder)
    around = repository.absolute().parent
    try:
        with tempfile.TemporaryDirectory(prefix=f".{repository.name}-", dir=around) as work:
            new, old = Path(work, "new"), Path(work, "old")
            old.mkdir()
            for folder in folders:
                folder.write(new)
            repository.mkdir(exist_ok=True)
            try:
                for folder in folders:
                    place = repository / folder.name
                    if place.exists():
                        place.rename(old / folder.name)
                    (new / folder.name).rename(place)
            except BaseException:  # wherever it was: the folders themselves say how far
                for folder in folders:
                    place = repository / folder.name
                    if not (new / folder.name).exists():
                        shutil.rmtree(place, ignore_errors=True)
                    if (old / folder.name).exists():
                        (old / folder.name).rename(place)
                with contextlib.suppress(OSError):
                    repository.rmdir()  # where it was made just now, and is empty
                raise
    except OSError as error:
        raise write_error(error, repository) from None


def _refuse_another(place: Path, folder: Folder) -> None:
    if not place.exists():
        return
    try:
        found = re.search(rf'"{_HASH}"\s*value \{{\s*string_value: "(\w+)"',
                          (place / CONFIG).read_text(errors="replace"))  # fmt: skip
    except OSError:
        found = None
    if found is None or found[1] != folder.sha256():
        raise UsageError(
            f"{place} holds another model.",
            "Choose another repository with -o, or replace the model with --overwrite.",
        )
