"""Keys and signatures: ed25519 (RFC 8032), by the package cryptography.

What is signed has a purpose in front, so that a signature of a receipt is none of a bundle. Keys
are PEM files, as openssl reads and writes them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.runtime.card.artifact import atomic_path, write_error
from prunus.runtime.command import Console
from prunus.runtime.errors import ArtifactError, MissingDependencyError, UsageError

_NEW = "Make a pair with: prunus fleet key NAME"


@dataclass(frozen=True, slots=True)
class Signature:
    """What stands beside signed bytes; JSON of it is stored.

    Attributes:
        key: The signer's public key, 32 bytes in Base64.
        signature: 64 bytes in Base64.
        algorithm: ``ed25519``.
    """

    key: str
    signature: str
    algorithm: str = "ed25519"

    @property
    def signer(self) -> str:
        """Short name of the key: the beginning of its SHA-256."""
        return f"ed25519:{hashlib.sha256(self.key.encode()).hexdigest()[:16]}"

    def holds(self, data: bytes, purpose: str) -> bool:
        """Tell whether the key has signed these bytes for this purpose."""
        ed25519 = _library()
        from cryptography.exceptions import InvalidSignature

        try:
            public = ed25519.Ed25519PublicKey.from_public_bytes(_bytes(self.key))
            public.verify(_bytes(self.signature), _signed(data, purpose))
        except (InvalidSignature, ValueError):
            return False
        return self.algorithm == "ed25519"


def sign(data: bytes, purpose: str, private_key: str | Path) -> Signature:
    """Return the signature of some bytes.

    Args:
        data: What is signed.
        purpose: One word, which the check repeats.
        private_key: PEM file.

    Raises:
        ArtifactError: no such file, or no ed25519 key in it.
        MissingDependencyError: cryptography is not installed.
    """
    key = _read(private_key, "private")
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    return Signature(public, base64.b64encode(key.sign(_signed(data, purpose))).decode())


def trusted_keys(files: Sequence[Path]) -> frozenset[str]:
    """Return the public keys of PEM files, or of folders of ``.pub`` files, in Base64.

    Raises:
        ArtifactError: a file that is missing or holds no such key, or a folder without any.
    """
    found = set()
    for place in files:
        paths = sorted(place.glob("*.pub")) if place.is_dir() else [place]
        if not paths:
            raise ArtifactError(f"The folder {place} holds no .pub file.", _NEW)
        for path in paths:
            found.add(base64.b64encode(_read(path, "public").public_bytes_raw()).decode())
    return frozenset(found)


def new_key(options: Any, console: Console) -> None:
    """Write a new pair of keys, NAME.key and NAME.pub; never over another file.

    Raises:
        UsageError: one of the files exists.
        SourceError: the folder cannot be written.
    """
    from cryptography.hazmat.primitives import serialization as s

    private_path, public_path = (Path(f"{options.name}{end}") for end in (".key", ".pub"))
    for path in (private_path, public_path):
        if path.exists():
            raise UsageError(f"{path} exists; a key is never replaced.", "Choose another name.")
    key = _library().Ed25519PrivateKey.generate()
    pem = s.Encoding.PEM
    private = key.private_bytes(pem, s.PrivateFormat.PKCS8, s.NoEncryption())
    public = key.public_key().public_bytes(pem, s.PublicFormat.SubjectPublicKeyInfo)
    try:
        handle = os.open(private_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(private)
    except OSError as error:
        raise write_error(error, private_path) from None
    with atomic_path(public_path) as temporary:
        temporary.write_bytes(public)
    signer = sign(b"", "", private_path).signer
    console.say(
        f"wrote {private_path} (keep it secret) and {public_path} (for whoever checks)\n"
        f"signer {signer}",
        f'{{"private": "{private_path}", "public": "{public_path}", "signer": "{signer}"}}',
    )


def _library() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingDependencyError("cryptography", "fleet", "Signing and checking") from None
    return ed25519


def _read(path: str | Path, kind: str) -> Any:
    """Return the private or public key of a PEM file; raises ArtifactError."""
    ed25519 = _library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as s

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"Cannot read the key {path}: {error.strerror}.", _NEW) from None
    try:
        if kind == "public":
            key: Any = s.load_pem_public_key(data)
        else:
            key = s.load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    wanted = ed25519.Ed25519PublicKey if kind == "public" else ed25519.Ed25519PrivateKey
    if not isinstance(key, wanted):
        raise ArtifactError(
            f"{path} holds no {kind} ed25519 key in PEM without a password.",
            f"Give the file that ends with {'.pub' if kind == 'public' else '.key'}. {_NEW}",
        )
    return key


def _signed(data: bytes, purpose: str) -> bytes:
    return f"prunus {purpose}\n".encode() + data


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
