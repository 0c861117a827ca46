"""`prunus push` and `prunus pull`: a bundle to and from an OCI registry, blob by blob.

The protocol is the OCI distribution specification 1.1
(https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md). What is there already is
not sent again, and blobs come by `models.fetch`, which goes on where it stopped, so either way a
dropped connection costs a blob's rest at most.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import ipaddress
import os
import re
import shutil
import urllib.error
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from prunus.apps.fleet.bundle import (
    BLOBS,
    MANIFEST,
    digest_of,
    open_bundle,
    read_manifest,
    write_index,
)
from prunus.apps.fleet.options import PullOptions, PushOptions
from prunus.apps.fleet.signing import trusted_keys
from prunus.runtime.card.artifact import atomic_folder
from prunus.runtime.card.reading import parse_json
from prunus.runtime.command import Console
from prunus.runtime.errors import ArtifactError, HostError, UsageError
from prunus.runtime.http_client import NETWORK_ERRORS, Answer, open_url
from prunus.runtime.json_text import json_text
from prunus.runtime.limits import MANIFEST_BYTES
from prunus.runtime.progress import Progress

CREDENTIALS = "PRUNUS_REGISTRY_AUTH"  # user:password
_SECONDS = 30.0  # for an answer, and for each block of a blob
_ADDRESS = re.compile(
    r"oras://(?P<host>[^/\s@]+)/(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127})|@sha256:(?P<digest>[0-9a-f]{64}))",
    re.ASCII,
)
_FIELD = re.compile(r'(\w+)="([^"]*)"')


@dataclass(slots=True)
class Registry:
    """One name in a registry.

    Attributes:
        base: ``https://host:port``.
        name: Name in it.
        reference: Tag, or ``sha256:...``.
        headers: What every request sends along: a token, once the registry has asked for one.
    """

    base: str
    name: str
    reference: str
    headers: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(address: str, plain_http: bool = False) -> Registry:
        """Return what an address names; raises UsageError for another form."""
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise UsageError(
                f"Got the address '{address}'; expected oras://HOST[:PORT]/NAME:TAG.",
                "Names are lower case. Example: oras://localhost:5000/models/selfie:1.0",
            )
        scheme = "http" if plain_http or _is_here(found["host"]) else "https"
        reference = found["tag"] or f"sha256:{found['digest']}"
        return Registry(f"{scheme}://{found['host']}", found["name"], reference)

    def url(self, place: str) -> str:
        """Return the address of ``manifests/TAG``, ``blobs/DIGEST`` or the like."""
        return f"{self.base}/v2/{self.name}/{place}"

    def ask(
        self,
        url: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | BinaryIO | None = None,
    ) -> Answer | None:
        """Send a request, with a token where the registry wants one; None where it has no such.

        Raises:
            HostError: no connection, or one that broke off.
            UsageError: the registry refuses.
        """
        said = f"{method} {urllib.parse.urlsplit(url).path}"
        for retry in (True, False):
            try:
                sent = {"User-Agent": "prunus", **self.headers, **(headers or {})}
                return open_url(url, sent, _SECONDS, method=method, body=body)
            except urllib.error.HTTPError as error:
                with error:
                    wanted = error.headers.get("WWW-Authenticate", "")
                    if error.code == http.client.UNAUTHORIZED and retry and self._login(wanted):
                        if body is not None and not isinstance(body, bytes):
                            body.seek(0)
                        continue
                    if error.code == http.client.NOT_FOUND:
                        return None
                    raise UsageError(
                        f"The registry {self.base} answered {error.code} ({error.reason}) to "
                        f"{said}.",
                        f"Check the name, and the rights of user:password in ${CREDENTIALS}.",
                    ) from None
            except NETWORK_ERRORS as error:
                raise _broken(self.base, said, error) from None
        raise AssertionError("the second try returns or raises")

    def _login(self, wanted: str) -> bool:
        """Answer a challenge: a password, or a token that one gets (RFC 6750, as docker does)."""
        own = os.environ.get(CREDENTIALS, "")
        kind, _, rest = wanted.partition(" ")
        if kind.lower() == "basic" and own:
            self.headers = _basic(own)
            return True
        fields = dict(_FIELD.findall(rest))
        realm = urllib.parse.urlsplit(fields.pop("realm", ""))
        if kind.lower() != "bearer" or realm.scheme not in ("https", self.base.partition(":")[0]):
            return False
        fields.setdefault("scope", f"repository:{self.name}:pull,push")
        query = urllib.parse.urlencode({k: fields[k] for k in ("service", "scope") if k in fields})
        try:
            answer = open_url(f"{realm.geturl()}?{query}", _basic(own) if own else {}, _SECONDS)
            with answer.body:
                told = parse_json(_read(answer, MANIFEST_BYTES.most), f"The token of {self.base}")
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except NETWORK_ERRORS as error:
            raise _broken(self.base, "the request for a token", error) from None
        token = told.get("token") or told.get("access_token") if isinstance(told, dict) else None
        self.headers = {"Authorization": f"Bearer {token}"} if isinstance(token, str) else {}
        return bool(self.headers)

    def has(self, digest: str) -> bool:
        """Tell whether a blob is there."""
        answer = self.ask(self.url(f"blobs/sha256:{digest}"), "HEAD")
        if answer is not None:
            answer.body.close()
        return answer is not None

    def send(self, blob: Path, digest: str) -> None:
        """Send a blob; raises as `ask`."""
        answer = self.ask(self.url("blobs/uploads/"), "POST", {"Content-Length": "0"}, b"")
        if answer is None:
            raise UsageError(f"{self.base} is no registry that takes {self.name}.")
        with answer.body:
            place = urllib.parse.urljoin(self.base, answer.body.headers.get("Location", ""))
        joined = "&" if "?" in place else "?"
        size = {"Content-Length": str(blob.stat().st_size)}
        kind = {"Content-Type": "application/octet-stream"}
        with blob.open("rb") as file:
            done = self.ask(f"{place}{joined}digest=sha256:{digest}", "PUT", size | kind, file)
        if done is None:
            raise _broken(self.base, "the upload", ConnectionError("it was forgotten there"))
        done.body.close()

    def manifest(self) -> bytes:
        """Return the manifest; raises ArtifactError when it is none of ours or damaged."""
        answer = self.ask(self.url(f"manifests/{self.reference}"), headers={"Accept": MANIFEST})
        if answer is None:
            raise UsageError(
                f"{self.base} has no {self.name} with the tag or digest {self.reference}.",
                "Check the address, or push it first.",
            )
        try:
            with answer.body:
                data = _read(answer, MANIFEST_BYTES.most)
        except NETWORK_ERRORS as error:
            raise _broken(self.base, "the manifest", error) from None
        MANIFEST_BYTES.check(len(data), f"The manifest of {self.name}", ArtifactError)
        got = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if ":" in self.reference and got != self.reference:
            raise ArtifactError(f"The manifest of {self.name} has the {got}; expected "
                                f"{self.reference}.", "Nothing was kept.")  # fmt: skip
        return data


def push(options: PushOptions, console: Console) -> None:
    """Send a bundle to a registry.

    Raises:
        UsageError: a wrong address, or the registry refuses.
        ArtifactError: the bundle is damaged.
        HostError: no connection, or one that broke off.
    """
    registry = Registry.of(options.address, options.plain_http)
    if ":" in registry.reference:
        raise UsageError(f"Got {options.address}; a push needs a tag.", "Write NAME:TAG.")
    bundle = open_bundle(options.bundle)
    manifest = (bundle.path / BLOBS / bundle.digest).read_bytes()
    raw = read_manifest(manifest, str(bundle.path))
    digests = [digest_of(part, str(bundle.path)) for part in (*raw["layers"], raw["config"])]
    sent = 0
    with console.progress("push") as progress:
        for k, digest in enumerate(dict.fromkeys(digests)):
            progress.update(k, len(digests), digest[:12])
            if not registry.has(digest):
                registry.send(bundle.path / BLOBS / digest, digest)
                sent += 1
    kind = {"Content-Type": MANIFEST, "Content-Length": str(len(manifest))}
    place = registry.url(f"manifests/{registry.reference}")
    answer = registry.ask(place, "PUT", kind, manifest)
    if answer is None:
        raise UsageError(f"{registry.base} takes no manifest of {registry.name}.")
    answer.body.close()
    found = {"address": options.address, "digest": f"sha256:{bundle.digest}", "sent": sent}
    console.say(f"pushed {options.address}  sha256 {bundle.digest[:12]}  {sent} of "
                f"{len(digests)} blobs sent", json_text(found))  # fmt: skip


def pull(options: PullOptions, console: Console) -> None:
    """Bring a bundle from a registry; it appears whole and checked, or not at all.

    Raises:
        UsageError: a wrong address, no such bundle, or something of that name is here.
        ArtifactError: a blob has another hash, or the signature is wrong or of another signer.
        HostError: no connection, or one that broke off; the next call goes on.
    """
    registry = Registry.of(options.address, options.plain_http)
    keys = trusted_keys(options.key)
    target = options.output or Path(f"{registry.name.rpartition('/')[2]}.bundle")
    draft = target.absolute().with_name(f".{target.name}.part")
    with atomic_folder(target, draft):
        manifest = registry.manifest()
        raw = read_manifest(manifest, options.address)
        digests = [digest_of(part, options.address) for part in (raw["config"], *raw["layers"])]
        (draft / BLOBS).mkdir(parents=True, exist_ok=True)
        with console.progress("pull") as progress, _emptied_if_wrong(draft):
            _bring(registry, digests, draft / BLOBS, progress)
            write_index(draft, manifest)
            bundle = open_bundle(draft, keys, options.address)
    by = "" if keys else "; nobody was asked whether the signer is the right one: give --key"
    found = {"bundle": str(target), "digest": f"sha256:{bundle.digest}",
             "signer": bundle.signature.signer, "trusted": bundle.trusted}  # fmt: skip
    said = f"pulled {target}  sha256 {bundle.digest[:12]}  signer {bundle.signature.signer}{by}"
    console.say(said, json_text(found))


def _bring(registry: Registry, digests: list[str], folder: Path, progress: Progress) -> None:
    from prunus.models.fetch import fetch

    for old in folder.iterdir():  # of another bundle that was begun under this name
        if old.name.removesuffix(".part") not in digests:
            old.unlink()
    for digest in dict.fromkeys(digests):
        fetch(registry.url(f"blobs/sha256:{digest}"), digest, folder / digest,
              timeout_s=_SECONDS, progress=progress, headers=registry.headers)  # fmt: skip


@contextlib.contextmanager
def _emptied_if_wrong(draft: Path) -> Iterator[None]:
    """Keep what a later call can go on from, and nothing that was found to be wrong."""
    try:
        yield
    except ArtifactError:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _is_here(host: str) -> bool:
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"


def _basic(credentials: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def _read(answer: Answer, most: int) -> bytes:
    """Return the body, at most one byte more than allowed."""
    answer.wire.allow(_SECONDS)
    data: bytes = answer.body.read(most + 1)
    if answer.length is not None and len(data) < min(answer.length, most):
        raise ConnectionError(f"it ended after {len(data)} of {answer.length} bytes")
    return data


def _broken(base: str, said: str, error: Any) -> HostError:
    reason = getattr(error, "reason", None) or error or type(error).__name__
    return HostError(f"The registry {base} did not answer {said}: {reason}.",
                     "Run the same command again: it goes on where it stopped.")  # fmt: skip
