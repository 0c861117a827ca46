"""Download one file whose hash is known: resumed where it stopped, checked, and only then named.

Nothing is downloaded unless a user asks for it with an address and a hash. The partial file lies
beside the target as ``<name>.part``; a later call goes on from its end.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.runtime.card.artifact import sha256_of, write_error
from prunus.runtime.errors import ArtifactError, HostError, UsageError
from prunus.runtime.progress import Progress, Silent

_BLOCK = 1 << 20
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
) -> Path:
    """Download a file, unless it is there already.

    Args:
        url: ``https://`` or ``http://`` address.
        sha256: 64 hexadecimal digits; any other content is refused.
        target: Where the file goes; it appears only when complete and checked.
        timeout_s: Seconds without any data after which the server counts as gone.
        progress: Told about bytes.

    Returns:
        `target` as a path.

    Raises:
        UsageError: a wrong address or hash, or the server does not have the file.
        HostError: no connection, a connection that ended early, or a full disk.
        ArtifactError: the file has another hash; nothing is kept.
    """
    target = Path(target)
    sha256 = _checked(url, sha256)
    if target.is_file() and sha256_of(target) == sha256:
        return target
    part = target.with_name(target.name + ".part")
    resumed = _download(url, part, timeout_s, progress or Silent())
    if sha256_of(part) != sha256 and resumed:
        # The beginning came from an earlier call, perhaps of another version of the file.
        part.unlink()
        _download(url, part, timeout_s, progress or Silent())
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


def _download(url: str, part: Path, timeout_s: float, progress: Progress) -> bool:
    """Fill `part`; return True when bytes of an earlier call were kept."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "prunus", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout_s
        ) as answer:
            span = _span(answer, have)
            _store(answer, part, span, progress, url)
            return span.start > 0
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return _past_the_end(error, url, part, timeout_s, progress)
        raise UsageError(
            f"The server answered {error.code} ({error.reason}) for {url}.", "Check the address."
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as e:
        reason = getattr(e, "reason", None) or e or type(e).__name__
        raise HostError(f"The download of {url} failed: {reason}.", _AGAIN) from None


def _past_the_end(
    error: urllib.error.HTTPError, url: str, part: Path, timeout_s: float, progress: Progress
) -> bool:
    """Settle a refused range: the part is whole already, or longer than the file."""
    found = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
    if found and int(found[1]) == part.stat().st_size:
        return True
    part.unlink()
    return _download(url, part, timeout_s, progress)


def _span(answer: Any, have: int) -> _Span:
    """Return what the server sends: the rest (206), or the whole file whatever was asked (200)."""
    length = answer.headers.get("Content-Length")
    count = int(length) if length and length.isdigit() else None
    if answer.status == http.client.PARTIAL_CONTENT:
        found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if found and int(found[1]) == have:
            total = int(found[2]) if found[2] != "*" else None if count is None else have + count
            return _Span(have, total)
        raise HostError(
            f"The server sent another part than asked for (from byte {have}).",
            "Delete the .part file and run the command again.",
        )
    return _Span(0, count)


def _store(answer: Any, part: Path, span: _Span, progress: Progress, url: str) -> None:
    done = span.start
    try:
        with part.open("ab" if span.start else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                done += len(block)
                progress.update(done, span.total or 0, part.stem)
    except (TimeoutError, ConnectionError):
        raise
    except OSError as error:
        raise write_error(error, part) from None
    if span.total is not None and done < span.total:
        raise HostError(
            f"The connection to {url} ended after {done} of {span.total} bytes.", _AGAIN
        )
