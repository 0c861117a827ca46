"""Building the plugin library: what is kept, what is refused, and every architecture (slow)."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from prunus.runtime.errors import (
    HostError,
    MissingDependencyError,
    SourceError,
    UsageError,
)
from prunus.runtime.plugins.library import MARK, describe
from prunus.runtime.plugins.local_global_attention import LIBRARY, build, headers
from prunus.runtime.plugins.local_global_attention.build import build_library, kernel_hash
from prunus.runtime.plugins.local_global_attention.tiles import (
    ARCHITECTURES,
    choose_tile,
    compiled_tiles,
)


class Recorder:
    def __init__(self):
        self.states = []

    def update(self, done, total, note=""):
        self.states.append((done, total, note))


@pytest.fixture
def fake_compilers(tmp_path, monkeypatch):
    """Replace triton by a script that writes kernels of a few bytes; g++ stays what it is."""
    pytest.importorskip("triton", reason="triton is not installed (extra plugin)")
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/sh\n"
        f"exec {sys.executable} -c '\n"
        "import json, sys, pathlib\n"
        "job = json.load(sys.stdin)\n"
        "for name in job[\"names\"]:\n"
        "    place = pathlib.Path(job[\"folder\"]) / name\n"
        "    place.with_name(name + \".cubin\").write_bytes(b\"\\177ELF\")\n"
        "    place.with_name(name + \".json\").write_text(json.dumps("
        "dict(function=\"f\", shared_bytes=0, threads=128, size=4)))\n"
        "    print(name, flush=True)\n"
        "'\n"
    )  # fmt: skip
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(build.sys, "executable", str(script))
    return tmp_path / "kernels"


def test_compiled_kernels_are_kept_and_the_file_appears_at_the_end(
    fake_compilers, tmp_path, monkeypatch
) -> None:
    commands = []

    def compile_cpp(command, **_):
        commands.append(command)
        source = Path(command[-3])
        assert source.name == "kernel_table.cpp"
        text = source.read_text()
        assert text.count(".incbin") == len(compiled_tiles(75)) + len(compiled_tiles(120))
        Path(command[command.index("-o") + 1]).write_bytes(
            b"\177ELF" + MARK.encode() + text.partition(MARK)[2].partition('";')[0]
            .encode().decode("unicode_escape").encode() + b"\0"
        )  # fmt: skip
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(build, "_compiler", lambda: "g++")
    monkeypatch.setattr(build, "find_headers", lambda: headers.Headers(tmp_path, tmp_path, "10.3"))
    monkeypatch.setattr(build.subprocess, "run", compile_cpp)
    progress, target = Recorder(), tmp_path / "out" / LIBRARY
    target.parent.mkdir()
    made = build_library(target, [120, 75, 120], cache=fake_compilers, progress=progress)
    assert made.architectures == (75, 120) and made == describe(target)
    done = [d for d, _, _ in progress.states]
    total = len(compiled_tiles(75)) + len(compiled_tiles(120)) + 1
    assert done == sorted(done) and done[-1] == total and progress.states[0][0] == 0
    assert any("sm_75 fp16" in note for _, _, note in progress.states)
    again = Recorder()
    (fake_compilers / "kernels" / kernel_hash() / "sm75" / "fp16_32x32x64.cubin").write_bytes(b"")
    build_library(target, [75, 120], cache=fake_compilers, progress=again)
    assert [d for d, _, _ in again.states] == [total - 2, total - 1, total - 1, total], "one is new"
    assert [p.name for p in target.parent.iterdir()] == [LIBRARY]


def test_a_compiler_that_fails_leaves_nothing_but_its_first_error(
    fake_compilers, tmp_path, monkeypatch
) -> None:
    script = tmp_path / "g++-broken"
    script.write_text("#!/bin/sh\necho 'x.cpp:1: note: bla' >&2\n"
                      "echo 'x.cpp:3: error: no such type' >&2\nexit 1\n")  # fmt: skip
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setattr(build, "find_headers", lambda: headers.Headers(tmp_path, tmp_path, "10.3"))
    with pytest.raises(HostError, match=r"TensorRT headers 10.3 .*x.cpp:3: error: no such type"):
        build_library(tmp_path / LIBRARY, [80], cache=fake_compilers)
    assert not (tmp_path / LIBRARY).exists() and not list(tmp_path.glob(".lib*"))


def test_a_kernel_that_does_not_compile_names_its_architecture(
    fake_compilers, tmp_path, monkeypatch
) -> None:
    script = tmp_path / "python-broken"
    script.write_text("#!/bin/sh\ncat >/dev/null\necho 'RuntimeError: ptxas failed' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(build.sys, "executable", str(script))
    monkeypatch.setattr(build, "_compiler", lambda: "g++")
    monkeypatch.setattr(build, "find_headers", lambda: headers.Headers(tmp_path, tmp_path, "10.3"))
    with pytest.raises(HostError, match=r"sm_90 could not be compiled: RuntimeError: ptxas failed"):
        build_library(tmp_path / LIBRARY, [90], cache=fake_compilers)


def test_what_a_build_needs_is_named(tmp_path, monkeypatch) -> None:
    with pytest.raises(UsageError, match=r"architecture: 72, 91.*75, 80, 86, 87, 89, 90, 100, 120"):
        build_library(tmp_path / LIBRARY, [72, 80, 91])
    with pytest.raises(UsageError, match="architecture: none"):
        build_library(tmp_path / LIBRARY, [])
    with pytest.raises(SourceError, match="none does not exist"):
        build_library(tmp_path / "none" / LIBRARY, [80])
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(HostError, match=r"needs no-such-compiler; it was not found"):
        build_library(tmp_path / LIBRARY, [80])
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"prunus\[plugin\]"):
        build_library(tmp_path / LIBRARY, [80])


def test_headers_are_looked_up_in_order(tmp_path, monkeypatch) -> None:
    def folder(name, *files):
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("#define NV_TENSORRT_MAJOR 10\n#define NV_TENSORRT_MINOR 3\n"
                            "#define NV_TENSORRT_PATCH 0 //!< patch\n")  # fmt: skip
        return tmp_path / name

    full = folder("trt", "NvInferRuntime.h", "NvInferVersion.h")
    cuda = folder("cuda/include", "cuda_runtime_api.h", "crt/host_defines.h")
    half = folder("half/include", "cuda_runtime_api.h")
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(full))
    monkeypatch.setenv("CUDA_HOME", str(cuda.parent))
    assert headers.find_headers() == headers.Headers(full, cuda, "10.3.0")
    monkeypatch.setattr(headers, "_cuda_folders", lambda: iter([half, cuda]))
    assert headers.find_headers().cuda == cuda, "a folder without all headers is passed over"
    monkeypatch.setattr(headers, "_cuda_folders", lambda: iter([half]))
    with pytest.raises(HostError, match=r"needs CUDA's headers.*prunus\[plugin\]"):
        headers.find_headers()
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    with pytest.raises(HostError, match=r"TENSORRT_INCLUDE_DIR is .* holds no NvInferRuntime.h"):
        headers.find_headers()
    monkeypatch.delenv("TENSORRT_INCLUDE_DIR")
    monkeypatch.setattr(headers, "_tensorrt_folders", lambda: iter([cuda]))
    with pytest.raises(HostError, match="pip install --no-deps kernel-lens"):
        headers.find_headers()


def test_tiles() -> None:
    assert choose_tile(64, 81, 32, "fp16").name == "fp16_64x32x32"
    assert choose_tile(9, 109, 32, "fp16").name == "fp16_16x64x64", "few queries, many keys"
    assert choose_tile(9, 9, 32, "fp16").name == "fp16_64x32x32", "few of both"
    assert choose_tile(64, 81, 36, "fp16").name == "fp16_32x32x128_any", "36 is no multiple of 8"
    assert choose_tile(64, 81, 48, "fp32", aligned=False).name == "fp32_16x32x128_any"
    with pytest.raises(ValueError, match="no kernel for fp16 and a head dimension of 136"):
        choose_tile(64, 64, 136, "fp16")
    for architecture in ARCHITECTURES:
        names = [t.name for t in compiled_tiles(architecture)]
        assert len(set(names)) == len(names) <= 12


@pytest.mark.slow
def test_every_architecture(plugin_library, request, tmp_path) -> None:
    cache = Path(request.config.cache.mkdir("prunus-plugin"))
    made = build_library(tmp_path / LIBRARY, dtypes=("fp16",), cache=cache)
    assert made.architectures == ARCHITECTURES and made.identity == plugin_library.identity
    kernels = sorted((cache / "kernels" / kernel_hash()).glob("sm*/fp16*.json"))
    wanted = [t for a in ARCHITECTURES for t in compiled_tiles(a) if t.dtype == "fp16"]
    assert len(kernels) == len(wanted)
    for path in kernels:
        facts = json.loads(path.read_text())
        # Turing has 64 KiB of shared memory per block, Ada and Blackwell's consumer GPUs 99 KiB.
        assert facts["shared_bytes"] <= (64 if path.parent.name == "sm75" else 99) << 10, path
        assert facts["threads"] in (128, 256)
