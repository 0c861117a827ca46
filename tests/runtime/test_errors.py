"""One family of errors, with the exit codes of the command line."""

import pytest

from prunus.runtime import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.PrunusError, 1), (errors.CheckFailedError, 1), (errors.UsageError, 2),
        (errors.ArtifactError, 2), (errors.TensorError, 2), (errors.SourceError, 2),
        (errors.HostError, 3), (errors.MissingDependencyError, 3),
    ],
)  # fmt: skip
def test_exit_codes(kind, code) -> None:
    assert kind.exit_code == code
    assert issubclass(kind, errors.PrunusError)


def test_text_is_message_and_hint() -> None:
    error = errors.UsageError("Got 3; expected 4.", "Give 4.")
    assert (error.message, error.hint, str(error)) == (
        "Got 3; expected 4.",
        "Give 4.",
        "Got 3; expected 4. Give 4.",
    )
    assert str(errors.UsageError("Got 3.")) == "Got 3."


def test_missing_dependency_names_the_command() -> None:
    error = errors.MissingDependencyError("cv2", "apps", "Reading video")
    assert "Reading video needs the package 'cv2'" in str(error)
    assert error.hint == "Install it with: pip install 'prunus[apps]'"


def test_nearest() -> None:
    assert errors.nearest("imge", ["image", "gain"]) == " (did you mean 'image'?)"
    assert errors.nearest("zzz", ["image"]) == ""
    assert errors.nearest("x", []) == ""
