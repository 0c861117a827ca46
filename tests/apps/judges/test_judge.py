"""What is not installed is named."""

import pytest

from prunus.apps.judges.judge import file_in, load
from prunus.runtime.errors import MissingDependencyError


def test_files_are_found_inside_packages():
    assert file_in("numpy", "__init__.py", "This").name == "__init__.py"
    with pytest.raises(MissingDependencyError, match=r"'numpy' lacks weights\.bin, which this"):
        file_in("numpy", "weights.bin", "This")
    with pytest.raises(MissingDependencyError, match="'no_such_package', which is not") as missing:
        file_in("no_such_package", "weights.bin", "This", "Bring it.")
    assert missing.value.hint == "Bring it."
    with pytest.raises(MissingDependencyError, match="'no_such_package'") as missing:
        load("no_such_package", "This")
    assert "eval-audio" in missing.value.hint
