"""Where headers are looked for, in which order, and what is said where there are none."""

import types
from pathlib import Path

import pytest

from prunus.runtime.errors import HostError
from prunus.runtime.plugins.local_global_attention import headers
from prunus.runtime.plugins.local_global_attention.headers import Headers, find_headers


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without headers; returns what makes a folder hold some."""
    packages = {}
    for name in ("TENSORRT_INCLUDE_DIR", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)

    def found(name):
        folders = packages.get(name)
        return types.SimpleNamespace(submodule_search_locations=folders) if folders else None

    monkeypatch.setattr(headers.importlib.util, "find_spec", found)
    # Absolute places are those below the machine's root; what lies there already stays.
    def rooted(text):
        return Path(text) if str(tmp_path) in text else tmp_path / text.lstrip("/")

    monkeypatch.setattr(headers, "Path", rooted)

    def hold(folder, *names, package="", version=""):
        place = tmp_path / folder
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("")
        if version:
            (place / "NvInferVersion.h").write_text(version)
        if package:
            packages[package] = [str(tmp_path / "site" / package)]
        return place

    return hold


CUDA = ("cuda_runtime_api.h", "crt/host_defines.h")
NEW = """#define TRT_MAJOR_ENTERPRISE 10
#define TRT_MINOR_ENTERPRISE 14
#define TRT_PATCH_ENTERPRISE 1"""
OLD = """#define NV_TENSORRT_MAJOR 10 //!< Major version.
#define NV_TENSORRT_MINOR 3
#define NV_TENSORRT_PATCH 0"""


@pytest.mark.parametrize(("text", "version"), [(NEW, "10.14.1"), (OLD, "10.3.0"), ("", "unknown")])
def test_both_are_found_and_the_version_read(machine, text, version):
    tensorrt = machine("usr/include", "NvInferRuntime.h", version=text)
    cuda = machine("usr/local/cuda/include", *CUDA)
    assert find_headers() == Headers(tensorrt, cuda, version)


def test_the_systems_come_before_those_of_packages(machine):
    machine("usr/local/cuda/include", *CUDA)
    place, name = "site/kernel_lens/include/tensorrt", "kernel_lens"
    package = machine(place, "NvInferRuntime.h", package=name)
    assert find_headers().tensorrt == package
    for place in ("usr/local/tensorrt/include", "usr/include"):
        folder = machine(place, "NvInferRuntime.h")
        assert find_headers().tensorrt == folder


def test_of_cuda_the_named_home_comes_first_then_the_newest_package(machine, monkeypatch):
    machine("usr/include", "NvInferRuntime.h")
    triton = machine("site/triton/backends/nvidia/include", *CUDA, package="triton")
    assert find_headers().cuda == triton
    for version in (12, 13):
        newest = machine(f"site/nvidia/cu{version}/include", *CUDA, package="nvidia")
        assert find_headers().cuda == newest
    system = machine("usr/local/cuda/include", *CUDA)
    assert find_headers().cuda == system
    for variable in ("CUDA_PATH", "CUDA_HOME"):  # the second wins
        home = machine(f"{variable}/include", *CUDA)
        monkeypatch.setenv(variable, variable)
        assert find_headers().cuda == home


def test_a_folder_with_half_of_the_headers_is_passed_over(machine):
    machine("usr/include", "NvInferRuntime.h")
    machine("usr/local/cuda/include", CUDA[0])
    with pytest.raises(HostError, match=r"no cuda_runtime_api\.h was found") as caught:
        find_headers()
    assert "prunus[plugin]" in caught.value.hint


def test_what_is_missing_is_named(machine, monkeypatch):
    with pytest.raises(HostError, match=r"no NvInferRuntime\.h was found") as caught:
        find_headers()
    assert "kernel-lens" in caught.value.hint
    machine("usr/include", "NvInferRuntime.h")
    machine("usr/local/cuda/include", *CUDA)
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", "elsewhere")
    with pytest.raises(HostError, match="TENSORRT_INCLUDE_DIR is elsewhere"):
        find_headers()  # a name is taken at its word
    named = machine("elsewhere", "NvInferRuntime.h", version=OLD)
    found = find_headers()
    assert (found.tensorrt, found.version) == (named, "10.3.0")
