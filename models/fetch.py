"""Download one file whose hash is known: resumed where it stopped, checked, and only then named.

Nothing is downloaded unless a user asks for it with an address and a hash. The partial file lies
beside the target as ``<name>.part``; a later call goes on from its end.
"""

from __future__ import annotations

import functools
import http.client
import os
import re
import stat
import urllib.error
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from prunus.runtime.card.artifact import sha256_of, write_error
from prunus.runtime.errors import ArtifactError, HostError, SourceError, UsageError
from prunus.runtime.http_client import NETWORK_ERRORS, Answer, open_url
from prunus.runtime.limits import DOWNLOAD_BYTES
from prunus.runtime.progress import Progress, Silent

_BLOCK = 1 << 16  # must arrive within the time-out, or the server counts as gone
_AGAIN = "Run the same command again: it goes on where it stopped."


@dataclass(frozen=True, slots=True)
class _Span:
    """The part of the file that the server is about to send."""

    start: int
    total: int | None  # bytes of the whole file, None when the server does not say


def fetch(
    url: str,
    sha256: str,
    target: str | Path,
    *,
    timeout_s: float = 30.0,
    progress: Progress | None = None,
    headers: Mapping[str, str] | None = None,
) -> Path:
    """Download a file, unless it is there already.

    Args:
        url: ``https://`` or ``http://`` address.
        sha256: 64 hexadecimal digits; any other content is refused.
        target: Where the file goes; it appears only when complete and checked.
        timeout_s: Seconds within which the answer and each block of 64 KiB must arrive.
        progress: Told about bytes.
        headers: Sent along, such as a token.

    Returns:
        `target` as a path.

    Raises:
        UsageError: a wrong address or hash, the server does not have the file, leads to an
            unprotected address, or sends more than the limit of a download.
        HostError: no connection, a connection that ended early, or a full disk.
        ArtifactError: the file has another hash; nothing is kept.
    """
    target = Path(target)
    sha256 = _checked(url, sha256)
    if target.is_file() and sha256_of(target) == sha256:
        return target
    part = target.with_name(target.name + ".part")
    ask = functools.partial(_download, url, part, timeout_s, progress or Silent(), headers or {})
    resumed = ask()
    if sha256_of(part) != sha256 and resumed:
        # The beginning came from an earlier call, perhaps of another version of the file.
        part.unlink()
        ask()
    got = sha256_of(part)
    if got != sha256:
        part.unlink()
        raise ArtifactError(
            f"{url} has sha256 {got}; expected {sha256}.",
            "The file changed or the hash is of another one; nothing was kept.",
        )
    try:
        part.replace(target)
    except OSError as error:
        raise write_error(error, target) from None
    return target


def _checked(url: str, sha256: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"Got the address '{url}'; expected https://host/file.")
    sha256 = sha256.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UsageError(
            f"Got a sha256 of {len(sha256)} characters; expected 64 hexadecimal digits.",
            "Compute it on a machine you trust: sha256sum FILE.",
        )
    return sha256


def _download(
    url: str, part: Path, timeout_s: float, progress: Progress, headers: Mapping[str, str]
) -> bool:
    """Fill `part`; return True when bytes of an earlier call were kept."""
    have = _bytes_of(part)
    asked = {"User-Agent": "prunus", "Accept-Encoding": "identity", **headers}
    if have:
        asked["Range"] = f"bytes={have}-"
    try:
        answer = open_url(url, asked, timeout_s)
        with answer.body:
            span = _span(answer, have)
            _store(_blocks(answer, timeout_s), part, span, progress, url)
            return span.start > 0
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if _whole(error, part):
                return True
            part.unlink()
            return _download(url, part, timeout_s, progress, headers)
        raise UsageError(
            f"The server answered {error.code} ({error.reason}) for {url}.", "Check the address."
        ) from None
    except NETWORK_ERRORS as e:
        reason = getattr(e, "reason", None) or e or type(e).__name__
        raise HostError(f"The download of {url} failed: {reason}.", _AGAIN) from None


def _bytes_of(part: Path) -> int:
    """Return how much an earlier call left; refuses what no earlier call can have made."""
    try:
        found = part.lstat()
    except OSError:
        return 0
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(
            f"{part} is not a plain file; expected the start of a download.", "Remove it."
        )
    return found.st_size


def _open_part(part: Path, start: int) -> BinaryIO:
    """Open the partial file; never through a link, which may lead to any file of the user."""
    no_link = getattr(os, "O_NOFOLLOW", 0)
    how = os.O_WRONLY | os.O_CREAT | no_link | (os.O_APPEND if start else os.O_TRUNC)
    try:
        return os.fdopen(os.open(part, how, 0o666), "wb")
    except OSError as error:
        raise write_error(error, part) from None


def _whole(error: urllib.error.HTTPError, part: Path) -> bool:
    """Tell from a refused range whether the part is whole already, or longer than the file."""
    found = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
    return bool(found and int(found[1]) == part.stat().st_size)


def _span(answer: Answer, have: int) -> _Span:
    """Return what the server sends: the rest (206), or the whole file whatever was asked (200)."""
    count = answer.length
    if answer.body.status == http.client.PARTIAL_CONTENT:
        told = answer.body.headers.get("Content-Range", "")
        found = re.match(r"bytes (\d{1,20})-\d+/(\d{1,20}|\*)", told, re.ASCII)
        if found and int(found[1]) == have:
            total = int(found[2]) if found[2] != "*" else None if count is None else have + count
            return _Span(have, total)
        raise HostError(
            f"The server sent another part than asked for (from byte {have}).",
            "Delete the .part file and run the command again.",
        )
    return _Span(0, count)


def _store(blocks: Iterator[bytes], part: Path, span: _Span, progress: Progress, url: str) -> None:
    done = span.start
    DOWNLOAD_BYTES.check(span.total or 0, url)
    with _open_part(part, span.start) as file:
        for block in blocks:
            done += len(block)
            if done > DOWNLOAD_BYTES.most:
                part.unlink()  # it would be refused again
            DOWNLOAD_BYTES.check(done, url)
            try:
                file.write(block)
                file.flush()
            except OSError as error:
                raise write_error(error, part) from None
            progress.update(done, span.total or 0, part.stem)
    if span.total is not None and done < span.total:
        raise HostError(
            f"The connection to {url} ended after {done} of {span.total} bytes.", _AGAIN
        )


def _blocks(answer: Answer, timeout_s: float) -> Iterator[bytes]:
    answer.wire.allow(timeout_s)
    while block := answer.body.read(_BLOCK):
        yield block
        answer.wire.allow(timeout_s)
