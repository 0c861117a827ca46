"""What an index page, a citation and an installer read: one version, bounded needs, no doubles."""

import importlib
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import prunus

tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).parents[1]
TABLE = tomllib.loads((ROOT / "pyproject.toml").read_text())
SISTER = ROOT / "models" / "prunus_models"
PROJECT = TABLE["project"]
EXTRAS = {
    name: [Requirement(text) for text in needs]
    for name, needs in PROJECT["optional-dependencies"].items()
}
CITATION = dict(re.findall(r"^([\w-]+): *(\S.*)$", (ROOT / "CITATION.cff").read_text(), re.M))
# Both write the folder onnxruntime/ of an environment.
RUNTIMES = {"onnxruntime", "onnxruntime-gpu"}


def _brought(extra: str) -> set[str]:
    """Return the packages that an extra installs, through the extras it names."""
    found = set()
    for need in EXTRAS[extra]:
        if need.name == "prunus":
            found |= set().union(*(_brought(other) for other in need.extras))
        else:
            found.add(need.name)
    return found


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"] and "version" not in PROJECT
    assert TABLE["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "prunus.__version__"}
    assert metadata.version("prunus") == prunus.__version__ == CITATION["version"]
    top = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert top is not None and top[1] == prunus.__version__


def test_weights_are_of_the_same_minor_version_and_no_second_copy() -> None:
    table = tomllib.loads((SISTER / "pyproject.toml").read_text())
    assert table["project"]["version"] == prunus.__version__
    assert table["build-system"] == TABLE["build-system"]
    major, minor = map(int, prunus.__version__.split(".")[:2])
    [need] = EXTRAS["weights"]
    assert need.name == table["project"]["name"]
    assert need.specifier == SpecifierSet(f">={major}.{minor},<{major}.{minor + 1}")
    links = {path.name: path.resolve() for path in SISTER.iterdir() if path.is_symlink()}
    assert links == {
        "weights": ROOT / "models" / "weights", "media": ROOT / "apps" / "media",
        **{name: ROOT / name for name in table["project"]["license-files"]},
    }  # fmt: skip


def test_the_citation_says_what_the_package_says() -> None:
    assert CITATION["title"] == PROJECT["name"] and CITATION["license"] == PROJECT["license"]
    assert CITATION["abstract"] == f'"{PROJECT["description"]}"'
    named = re.findall(r'^  - name: "(.+)"$', (ROOT / "CITATION.cff").read_text(), re.M)
    assert named == [author["name"] for author in PROJECT["authors"]]


def test_what_an_index_page_shows_is_there() -> None:
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])
    assert PROJECT["keywords"] and len(PROJECT["description"]) < 200
    assert PROJECT["classifiers"] == sorted(PROJECT["classifiers"])
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {oldest}" in PROJECT["classifiers"]
    packed = (ROOT / "MANIFEST.in").read_text().removeprefix("include ").split()
    assert {"CITATION.cff", "SECURITY.md"} <= set(packed)
    assert all((ROOT / name).is_file() for name in packed)


def test_every_extra_is_explained() -> None:
    page = (ROOT / "docs" / "install.md").read_text()
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.M)) == set(EXTRAS)
    for need in (need for needs in EXTRAS.values() for need in needs if need.name == "prunus"):
        assert need.extras <= set(EXTRAS), need


def test_every_extra_that_a_page_or_a_message_names_exists() -> None:
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docker/*")]
    files += [
        p for part in ("apps", "export", "models", "runtime") for p in ROOT.glob(f"{part}/**/*.py")
    ]
    named = {
        word
        for path in files
        for words in re.findall(r"(?:prunus|\.)\[([a-z-]+(?:,[a-z-]+)*)\]", path.read_text())
        for word in words.split(",")
    }  # fmt: skip
    assert {"apps", "apps-gpu", "trt-rtx"} <= named <= set(EXTRAS), named - set(EXTRAS)


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_extra_brings_both_onnx_runtimes(extra) -> None:
    brought = _brought(extra) & RUNTIMES
    expected = {"apps": "onnxruntime", "ort": "onnxruntime",
                "apps-gpu": "onnxruntime-gpu", "ort-gpu": "onnxruntime-gpu"}  # fmt: skip
    assert brought == ({expected[extra]} if extra in expected else set())


def test_the_two_installs_of_the_command_differ_by_the_runtime_alone() -> None:
    assert _brought("apps") ^ _brought("apps-gpu") == RUNTIMES
    # No index has it: a checkout, which holds the files, must install without.
    assert "prunus-models" not in _brought("apps")


def _needs() -> list[Requirement]:
    texts = [Requirement(text) for text in PROJECT["dependencies"]]
    texts += [need for extra, needs in EXTRAS.items() if extra != "dev" for need in needs]
    return [need for need in texts if need.name != "prunus"]


@pytest.mark.parametrize("need", _needs(), ids=str)
def test_needs_are_bounded_on_both_sides_and_hold_what_was_tested(need) -> None:
    signs = {one.operator for one in need.specifier}
    assert signs == {">=", "<"}, "give the oldest version that works and the major that may break"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    tested = [str(p.specifier).removeprefix("==") for p in pins if p.name == need.name]
    assert all(need.specifier.contains(version) for version in tested), tested
