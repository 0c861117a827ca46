"""The one family of errors that users see: what was got, what was expected, how to fix it."""

from __future__ import annotations


class PrunusError(Exception):
    """Base of every error that prunus raises on purpose.

    Args:
        message: One sentence naming what was got and what was expected.
        hint: One sentence, or a command, that fixes it; empty when nothing can be advised.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class CheckFailedError(PrunusError):
    """A comparison left its budget (exit code 1)."""


class UsageError(PrunusError):
    """The request or its input is wrong: flags, files, shapes, values (exit code 2)."""

    exit_code = 2


class ArtifactError(UsageError):
    """A model file, card or engine cannot be used as it is."""


class TensorError(UsageError):
    """An array has the wrong name, shape, dtype or values."""


class SourceError(UsageError):
    """A camera, file or stream cannot be read, or a sink cannot be written."""


class HostError(PrunusError):
    """This machine lacks something: a package, a device, a driver, disk space (exit code 3)."""

    exit_code = 3


class FallbackError(HostError):
    """A back end would compute on another device than the one that was asked for."""


class MissingDependencyError(HostError):
    """An optional package is not installed.

    Args:
        package: Import name of the missing package.
        extra: Extra of prunus that installs it.
        purpose: What needs it, in a few words.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed.",
            f"Install it with: pip install 'prunus[{extra}]'",
        )


def nearest(word: str, known: list[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known word closest to `word`, or an empty string."""
    import difflib

    match = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean '{match[0]}'?)" if match else ""
