"""What a bundle holds, and how it lies on a disk: an OCI image layout, every file by its SHA-256.

``NAME.bundle/`` holds ``oci-layout``, ``index.json`` and ``blobs/sha256/``
(https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md), so that a registry takes
and gives the same bytes. The manifest's configuration is `Contents`, which names each file with its
hash; a signature over its bytes, one more file, covers all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from prunus.apps.fleet.signing import Signature, sign
from prunus.runtime.card.artifact import EngineSidecar, atomic_folder, sha256_of
from prunus.runtime.card.reading import Range, build, parse_json
from prunus.runtime.errors import ArtifactError, UsageError, nearest
from prunus.runtime.json_text import canonical
from prunus.runtime.limits import BUNDLE_FILES, DOWNLOAD_BYTES, MANIFEST_BYTES
from prunus.runtime.tasks.limits import Limit

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_TYPE = "application/vnd.prunus.bundle.v1"
_CONFIG, _FILE = f"{_TYPE}.contents+json", f"{_TYPE}.file"
_TITLE = "org.opencontainers.image.title"
SIGNATURE = "signature.json"
BLOBS = Path("blobs", "sha256")
_LAYOUT = {"imageLayoutVersion": "1.0.0"}
_SCHEMA = 1
_PURPOSE = "bundle"
_AGAIN = "Copy or pull the bundle again."


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle.

    Attributes:
        name: Its name, without a folder.
        sha256: Its hash.
        size: In bytes.
    """

    name: str
    sha256: str
    size: Annotated[int, Range(0, DOWNLOAD_BYTES.most)]

    def __post_init__(self) -> None:
        if Path(self.name).name != self.name or self.name in ("", ".", ".."):
            raise ArtifactError(f"The bundle names a file {self.name!r}; expected a plain name.")
        _check_hash(self.sha256)


@dataclass(frozen=True, slots=True)
class Budget:
    """What an output may be off by, in units of the task.

    Attributes:
        row: Number format that a back end computes in: ``fp32``, ``fp16`` or ``int8``.
        limits: Each on one quantity, whose name ends with its unit.
    """

    row: str
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class BundledModel:
    """One model; its parts are names of files.

    Attributes:
        name: Its name.
        graph: ONNX file.
        card: Its card, as JSON.
        golden: Inputs and the reference's outputs (`export.verify.saved`).
        reference: What made these outputs.
        plans: TensorRT engines of this graph; the sidecar of each is ``PLAN.json``.
        budgets: One per number format.
    """

    name: str
    graph: str
    card: str
    golden: str
    reference: str
    plans: tuple[str, ...]
    budgets: tuple[Budget, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a bundle holds; its canonical JSON is what is signed.

    Attributes:
        name: Name of the bundle.
        made_by: Program and version.
        files: Every file but the signature.
        models: One or more.
        plugin: Plugin library that plans need, empty for none.
        schema: Version of this layout.
    """

    name: str
    made_by: str
    files: tuple[BundleFile, ...]
    models: tuple[BundledModel, ...]
    plugin: str = ""
    schema: int = _SCHEMA

    def __post_init__(self) -> None:
        BUNDLE_FILES.check(len(self.files), f"The bundle {self.name}", ArtifactError)
        known = [file.name for file in self.files]
        needed = [self.plugin] if self.plugin else []
        for model in self.models:
            sidecars = [EngineSidecar.path_for(plan).name for plan in model.plans]
            needed += [model.graph, model.card, model.golden, *model.plans, *sidecars]
        missing = [name for name in needed if name not in known]
        if missing or len(set(known)) < len(known) or not self.models:
            raise ArtifactError(
                f"The contents of the bundle {self.name} name {missing or 'two files alike, or no'}"
                f"{' model' if not missing else ', which is not among its files'}.",
                "Make the bundle again: prunus bundle",
            )

    def to_json(self) -> bytes:
        """Return canonical JSON."""
        return canonical(dataclasses.asdict(self))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on the disk whose files are the ones that it names.

    Attributes:
        path: Its folder.
        contents: What it holds.
        digest: SHA-256 of its manifest, by which a registry names it.
        signature: Of its contents.
        trusted: Whether a key that was given has signed it; without one nobody knows the signer.
    """

    path: Path
    contents: Contents
    digest: str
    signature: Signature
    trusted: bool

    def model(self, name: str) -> BundledModel:
        """Return a model by name; raises UsageError with the nearest one."""
        for model in self.contents.models:
            if model.name == name:
                return model
        names = [model.name for model in self.contents.models]
        raise UsageError(
            f"The bundle has no model '{name}'{nearest(name, names)}.",
            f"It holds: {', '.join(names)}.",
        )

    @contextlib.contextmanager
    def unpacked(self) -> Iterator[Path]:
        """Yield a folder in which the files have their names: links to the blobs."""
        with tempfile.TemporaryDirectory(prefix="prunus-bundle-") as folder:
            for file in self.contents.files:
                Path(folder, file.name).symlink_to((self.path / BLOBS / file.sha256).absolute())
            yield Path(folder)


def write_bundle(contents: Contents, sources: Mapping[str, Path], target: Path, key: Path) -> None:
    """Write and sign a bundle: whole, or not at all.

    Args:
        contents: What it holds.
        sources: Name of each of its files -> the file.
        target: Folder that appears.
        key: Private key.

    Raises:
        UsageError: there is something of that name.
        SourceError, HostError: it cannot be written, or the disk is full.
    """
    config = contents.to_json()
    signature = canonical(dataclasses.asdict(sign(config, _PURPOSE, key)))
    made = BundleFile(SIGNATURE, hashlib.sha256(signature).hexdigest(), len(signature))
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": _TYPE,
        "config": _descriptor(hashlib.sha256(config).hexdigest(), len(config), _CONFIG),
        "layers": [
            {**_descriptor(f.sha256, f.size, _FILE), "annotations": {_TITLE: f.name}}
            for f in (*contents.files, made)
        ],
    }
    with atomic_folder(target) as folder:
        blobs = folder / BLOBS
        blobs.mkdir(parents=True)
        for file in contents.files:
            shutil.copyfile(sources[file.name], blobs / file.sha256)
        for data in (config, signature):
            (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
        write_index(folder, canonical(manifest))


def write_index(folder: Path, manifest: bytes) -> None:
    """Write what makes a folder of blobs an image layout with one manifest."""
    digest = hashlib.sha256(manifest).hexdigest()
    (folder / BLOBS / digest).write_bytes(manifest)
    entry = {**_descriptor(digest, len(manifest), MANIFEST), "artifactType": _TYPE}
    index = {"schemaVersion": 2, "manifests": [entry]}
    (folder / "oci-layout").write_bytes(canonical(_LAYOUT))
    (folder / "index.json").write_bytes(canonical(index))


def open_bundle(path: Path, keys: Set[str] = frozenset(), called: str = "") -> Bundle:
    """Open a bundle: signature first, then every file by its hash.

    Args:
        path: Its folder.
        keys: Public keys in Base64 that may have signed it; none: any signer will do.
        called: Its name in messages; empty: the folder.

    Raises:
        ArtifactError: no bundle; a wrong signature, another signer, or a file that is missing or
            not the one that was signed. It is named.
        MissingDependencyError: cryptography is not installed.
    """
    called = called or str(path)
    index = _json(path / "index.json", called)
    entries = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(entries, list) or len(entries) != 1:
        raise ArtifactError(f"{called} is no bundle: its index names no single manifest.", _AGAIN)
    blobs = _Blobs(path / BLOBS, called)
    digest = digest_of(entries[0], called)
    manifest = read_manifest(blobs.read(digest), called)
    config = blobs.read(digest_of(manifest["config"], called))
    signature = _read_signature(blobs, manifest)
    if not signature.holds(config, _PURPOSE):
        raise ArtifactError(
            f"The signature of {called} is wrong: its contents are not what was signed.",
            "Do not use it. Get it again from who made it.",
        )
    if keys and signature.key not in keys:
        raise ArtifactError(
            f"{called} is signed by {signature.signer}, which is none of the keys that were given.",
            "Give the public key of who made it with --key, if you trust it.",
        )
    contents = _read_contents(config, called)
    blobs.check(contents)
    return Bundle(path, contents, digest, signature, bool(keys))


def read_manifest(data: bytes, called: str) -> dict[str, Any]:
    """Return a manifest of ours.

    Args:
        data: Its bytes.
        called: What has it, for messages.

    Raises:
        ArtifactError: it is no manifest of a bundle.
    """
    raw = parse_json(data, f"The manifest of {called}")
    if (
        not isinstance(raw, dict)
        or not isinstance(raw.get("config"), dict)
        or raw["config"].get("mediaType") != _CONFIG
        or not isinstance(raw.get("layers"), list)
    ):
        raise ArtifactError(f"{called} is no bundle of prunus.", "Make one with: prunus bundle")
    BUNDLE_FILES.check(len(raw["layers"]), str(called), ArtifactError)
    return raw


def digest_of(descriptor: Any, called: str) -> str:
    """Return the hex SHA-256 that a descriptor names; raises ArtifactError for any other."""
    text = descriptor.get("digest") if isinstance(descriptor, dict) else None
    algorithm, _, digest = str(text).partition(":")
    if algorithm != "sha256":
        got = str(text)[:80]
        raise ArtifactError(f"{called} names a blob by {got!r}; expected sha256.", _AGAIN)
    return _check_hash(digest)


def _descriptor(digest: str, size: int, media: str) -> dict[str, Any]:
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": size}


def _check_hash(digest: str) -> str:
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        got = digest[:80]
        raise ArtifactError(f"Got the hash {got!r}; expected 64 hexadecimal digits.", _AGAIN)
    return digest


def _json(file: Path, called: str) -> Any:
    try:
        MANIFEST_BYTES.check(file.stat().st_size, str(file), ArtifactError)
        return parse_json(file.read_bytes(), str(file))
    except OSError:
        raise ArtifactError(
            f"{called} is no bundle: it has no {file.name}.",
            "Give the folder that prunus bundle or prunus pull wrote.",
        ) from None


@dataclass(frozen=True, slots=True)
class _Blobs:
    """The folder of blobs, and the bundle's name for messages."""

    folder: Path
    called: str

    def read(self, digest: str) -> bytes:
        """Return a short blob, compared with its hash."""
        blob = self.folder / digest
        if not blob.is_file() or blob.stat().st_size > MANIFEST_BYTES.most:
            raise ArtifactError(f"{self.called} lacks the blob {digest[:12]}.", _AGAIN)
        data = blob.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError(f"The blob {digest[:12]} of {self.called} is damaged.", _AGAIN)
        return data

    def check(self, contents: Contents) -> None:
        """Refuse files that are missing, or not the ones that were signed."""
        plans = {plan for model in contents.models for plan in model.plans}
        for file in contents.files:
            blob = self.folder / file.sha256
            kind = "plan" if file.name in plans else "file"
            if not blob.is_file():
                raise ArtifactError(f"The {kind} {file.name} is missing in {self.called}.", _AGAIN)
            if blob.stat().st_size != file.size or sha256_of(blob) != file.sha256:
                raise ArtifactError(
                    f"The {kind} {file.name} in {self.called} is damaged: its SHA-256 differs.",
                    _AGAIN,
                )


def _read_signature(blobs: _Blobs, manifest: Mapping[str, Any]) -> Signature:
    for layer in manifest["layers"]:
        notes = layer.get("annotations") if isinstance(layer, dict) else None
        if isinstance(notes, dict) and notes.get(_TITLE) == SIGNATURE:
            called = f"The signature of {blobs.called}"
            raw = parse_json(blobs.read(digest_of(layer, blobs.called)), called)
            return build(Signature, raw if isinstance(raw, dict) else {}, "signature")
    raise ArtifactError(f"{blobs.called} is not signed.", "Make it again: prunus bundle --key FILE")


def _read_contents(config: bytes, called: str) -> Contents:
    raw = parse_json(config, f"The contents of {called}")
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if schema != _SCHEMA:
        raise ArtifactError(
            f"{called} has the schema {schema}; this prunus reads {_SCHEMA}.", "Upgrade prunus."
        )
    return build(Contents, raw, "contents")
