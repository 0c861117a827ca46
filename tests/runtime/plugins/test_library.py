"""The plugin library: what it says of itself, and how it behaves in the hands of TensorRT.

A small C++ program plays TensorRT, another plays the CUDA driver: nothing is launched, but what
would be is compared with what the tests of the kernel launch.
"""

import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from prunus.runtime.errors import ArtifactError, PrunusError
from prunus.runtime.plugins import library as library_module
from prunus.runtime.plugins.library import (
    MARK,
    check_gpu,
    check_usable,
    describe,
    find_library,
    find_stamped,
)
from prunus.runtime.plugins.local_global_attention import LIBRARY
from prunus.runtime.plugins.local_global_attention.build import library_identity
from prunus.runtime.plugins.local_global_attention.geometry import INPUTS, LOG2_E, geometry
from prunus.runtime.plugins.local_global_attention.headers import find_headers
from prunus.runtime.plugins.local_global_attention.tiles import (
    DTYPES,
    TILES,
    choose_tile,
    runs_on,
)

HERE = Path(__file__).parent
COMBINES = ("joint", "sum", "local", "global")
SHAPES = {
    "q": (2, 48, 64), "k": (2, 40, 64), "v": (2, 40, 64), "q_index": (4, 12), "kv_index": (4, 16),
    "bias_l": (1, 2, 12, 16), "kg": (2, 4, 5, 64), "vg": (2, 4, 5, 64), "bias_g": (1, 1, 2, 1, 5),
    "gate": (1, 4, 1, 12, 1), "o_index": (48,),
}  # fmt: skip


def write_library(path, **changes):
    facts = {"name": "LocalGlobalAttention", "version": "1", "identity": "1+abc",
             "architectures": [80, 87], "machine": os.uname().machine, **changes}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\177ELF..." + (MARK + json.dumps(facts)).encode() + b"\0...")
    return path


def test_lookup_of_a_library(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv(library_module.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert find_library() is None
    cached = write_library(tmp_path / "cache" / "prunus" / "plugins" / LIBRARY, identity="1+cache")
    assert find_library().path == cached
    named = write_library(tmp_path / "named" / LIBRARY)
    for value in (str(named), str(named.parent), f"{tmp_path}/none{os.pathsep}{named.parent}"):
        monkeypatch.setenv(library_module.VARIABLE, value)
        assert find_library().path == named
    chosen = write_library(tmp_path / "chosen.so")
    assert find_library(chosen).path == chosen
    monkeypatch.setenv(library_module.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(ArtifactError, match=r"PRUNUS_PLUGIN_PATH is .*none, where no lib"):
        find_library()
    with pytest.raises(ArtifactError, match="Cannot read the plugin library"):
        find_library(tmp_path / "nothing.so")
    chosen.write_bytes(b"\177ELF" * 100)
    with pytest.raises(ArtifactError, match="not a plugin library of prunus"):
        find_library(chosen)
    write_library(chosen, architectures=None)
    with pytest.raises(ArtifactError, match="not a plugin library of prunus"):
        find_library(chosen)
    write_library(chosen, version="2")
    with pytest.raises(ArtifactError, match=r"holds version 2 of the .* needs version 1"):
        find_library(chosen)
    write_library(chosen, machine="riscv64")
    with pytest.raises(ArtifactError, match=r"built for riscv64; this machine is"):
        check_usable(describe(chosen))


def test_an_engine_finds_the_library_it_was_built_with(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv(library_module.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engine, stamp = tmp_path / "m.engine", "LocalGlobalAttention 1+abc sha256:00"
    with pytest.raises(ArtifactError, match=r"needs the LocalGlobalAttention plugin 1\+abc"):
        find_stamped(stamp, engine)
    write_library(library_module.default_path(), identity="1+old")
    with pytest.raises(ArtifactError, match=r"plugin 1\+abc; .* is 1\+old"):
        find_stamped(stamp, engine)
    library = write_library(library_module.default_path())
    with pytest.raises(ArtifactError, match="built with another file than"):
        find_stamped(stamp, engine)
    found = find_stamped(describe(library).stamp, engine)
    assert found.path == library and found.stamp.startswith("LocalGlobalAttention 1+abc sha256:")
    library.unlink()
    beside = write_library(tmp_path / LIBRARY)
    stamp = describe(beside).stamp
    with pytest.raises(ArtifactError, match=f"If you trust {beside}, set PRUNUS_PLUGIN_PATH"):
        find_stamped(stamp, engine)  # a library that came with an engine is not run unasked
    monkeypatch.setenv(library_module.VARIABLE, str(beside))
    assert find_stamped(stamp, engine).path == beside
    for capability in ("8.0", "8.6", "8.7", "8.9"):
        check_gpu(found, "a GPU", capability)
    with pytest.raises(ArtifactError, match=r"capability 8.0, 8.7; a GPU is 9.0.*--arch 90"):
        check_gpu(found, "a GPU", "9.0")


@pytest.fixture(scope="module")
def harness(plugin_library, tmp_path_factory):
    """Return a function that runs the program and returns its lines."""
    folder, headers = tmp_path_factory.mktemp("harness"), find_headers()
    includes = ["-isystem", str(headers.tensorrt), "-isystem", str(headers.cuda)]
    program, driver = folder / "harness", folder / "libcuda.so"
    subprocess.run(
        ["g++", "-std=c++17", *includes, str(HERE / "harness.cpp"), "-o", str(program), "-ldl"],
        check=True,
    )
    compiler = shutil.which("gcc") or "g++"
    subprocess.run(
        [compiler, "-shared", "-fPIC", str(HERE / "fake_launch.c"), "-o", str(driver)], check=True
    )

    def run(
        combine="joint", *, name="LocalGlobalAttention", heads=2, scale=0.125, kind="half",
        tables="int64", offset=0, capability=86, refuses="", driver=driver, **shapes
    ):  # fmt: skip
        sizes = ["x".join(map(str, {**SHAPES, **shapes}[n])) for n in INPUTS]
        words = [plugin_library.path, name, combine, heads, scale, kind, tables, offset, *sizes]
        variables = {
            "PRUNUS_CUDA_LIBRARY": str(driver),
            "FAKE_CAPABILITY": str(capability),
            "FAKE_REFUSES": refuses,
        }
        done = subprocess.run(
            [str(program), *map(str, words)], capture_output=True, text=True, check=False,
            env={**os.environ, **variables}, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0 and done.stderr == "", done
        return done.stdout.splitlines()

    return run


def starting(lines, word):
    return [line.removeprefix(word).strip() for line in lines if line.startswith(word)]


def test_it_describes_itself_without_being_loaded(plugin_library) -> None:
    assert (plugin_library.name, plugin_library.version) == ("LocalGlobalAttention", "1")
    assert plugin_library.identity == library_identity()
    assert plugin_library.architectures == (80,)
    loaded = ctypes.CDLL(str(plugin_library.path))
    loaded.prunus_plugin_describe.restype = ctypes.c_char_p
    assert plugin_library.identity in loaded.prunus_plugin_describe().decode()
    assert describe(plugin_library.path) == plugin_library


def test_it_shows_what_tensorrt_looks_for_and_links_nothing_of_it(plugin_library) -> None:
    if shutil.which("nm") is None or shutil.which("readelf") is None:
        pytest.skip("no binutils")
    shown = subprocess.run(
        ["nm", "-D", "--defined-only", str(plugin_library.path)],
        capture_output=True, text=True, check=True,
    ).stdout.split()[2::3]  # fmt: skip
    ours = {"prunus_plugin_describe", "prunus_plugin_choose", "prunus_plugin_integers"}
    assert set(shown) == {"getCreators", "setLoggerFinder", *ours}
    needed = subprocess.run(
        ["readelf", "-d", str(plugin_library.path)], capture_output=True, text=True, check=True
    ).stdout
    assert "libc.so" in needed
    assert not [word for word in ("nvinfer", "tensorrt", "cuda", "stdc++") if word in needed]


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize(("kind", "dtype"), [("half", "fp16"), ("bf16", "bf16"), ("float", "fp32")])
def test_life_of_a_plugin(harness, combine, kind, dtype) -> None:
    lines = harness(combine, kind=kind)
    title = "1 LocalGlobalAttention 'block0/attention': "
    assert [line.removeprefix(title) for line in starting(lines, "log")[:-1]] == [
        "the node has another number of inputs or outputs than 11 and 1",
        "enqueue was called before the shapes were given",
    ] * 2
    names = ["", "Sum", "Local", "Global"]
    assert starting(lines, "creator") == [
        f"LocalGlobalAttention{name} 1 prunus: num_heads scale combine" for name in names
    ]
    assert starting(lines, "stored") == ["num_heads scale combine_code library"]
    # Twice: as the builder made it, and as an engine restores it.
    first, second = lines.index("core LocalGlobalAttention 1 prunus"), lines.index("stored" + " " +
        "num_heads scale combine_code library")  # fmt: skip
    again = lines.index("restore 1")
    assert lines[first:second] == lines[again + 1 : again + 1 + second - first]
    for word, value in (
        ("formats", " ".join("1" * 12)), ("packed", "0"), ("shapes", "0 1 -1"),
        ("tactics", "0 workspace 0"), ("configure", "0"), ("early", "-1"), ("change", "0"),
        ("enqueue", "0"),
    ):  # fmt: skip
        assert starting(lines, word) == [value] * 2, word
    problem = geometry(SHAPES, 2, combine)
    tile = choose_tile(problem.queries, problem.keys + problem.globals_, problem.head_dim, dtype)
    launched = starting(lines, "launch")[0].split()
    assert [int(n) for n in launched[:6]] == [
        *problem.grid(tile.rows), 1, 32 * tile.warps, 1, 1
    ]  # fmt: skip
    assert launched[7] == "0x77", "the stream"
    addresses = [f"{0x10000 * (i + 1):#x}" for i in range(10)] + ["0xf00000"]
    assert launched[8:19] == addresses
    assert float(launched[19]) == pytest.approx(0.125 * LOG2_E, rel=1e-6)
    assert tuple(int(n) for n in launched[20:45]) == problem.integers(2)
    assert launched[45:] == ["(nil)", "(nil)"]
    assert starting(lines, "load") == starting(lines, "unload")


def test_an_engine_of_another_library_is_refused(harness) -> None:
    lines = harness()
    assert starting(lines, "restore") == ["1"] and starting(lines, "foreign") == ["0"]
    (complaint,) = [line for line in starting(lines, "log") if "was built with" in line]
    assert "1+000000000000, this one is " + library_identity() in complaint


def test_unaligned_tensors_take_the_general_kernel(harness) -> None:
    (near, _), (far, _) = (
        [line.split()[:7] for line in starting(harness(offset=offset), "launch")]
        for offset in (0, 2)
    )
    general = next(t for t in TILES if t.dtype == "fp16" and not t.aligned)
    assert far[3] == str(32 * general.warps) and far[6] != near[6]


def test_int32_tables(harness) -> None:
    lines = harness("sum", tables="int32")
    assert starting(lines, "formats")[0] == " ".join("1" * 12)
    integers = tuple(int(n) for n in starting(lines, "launch")[0].split()[20:45])
    assert integers == geometry(SHAPES, 2, "sum").integers(1)


@pytest.mark.parametrize(
    ("changes", "step", "words"),
    [
        ({"q_index": (4, 11)}, "configure", "4 x 11 positions for 48 queries"),
        ({"kv_index": (3, 16)}, "configure", "kv_index has shape (3, 16); expected (4, 0)"),
        ({"v": (2, 41, 64)}, "configure", "v has shape (2, 41, 64)"),
        ({"bias_l": (1, 3, 12, 16)}, "configure", "bias_l has shape (1, 3, 12, 16)"),
        ({"kg": (2, 3, 5, 64)}, "configure", "kg has shape (2, 3, 5, 64)"),
        ({"heads": 7}, "configure", "7 heads do not divide 64 channels"),
        ({"heads": 8}, "configure", "head dimension is 8; the kernels take 16 to 128"),
        ({"q": (2, -1, 64)}, "configure", "a dynamic dimension: q"),
        ({"heads": 0}, "create", "num_heads is missing or not a positive number"),
        ({"scale": "nan"}, "create", "scale is missing or not a finite number"),
        ({"combine": "-"}, "create", "attribute combine is missing"),
        ({"combine": "joined"}, "create", "combine is 'joined'; expected joint, sum, local"),
        ({"capability": 75}, "change", "for compute capability 8.0, the GPU has 7.5"),
        ({"capability": 90}, "change", "--plugin off, or the library with --arch 90"),
        ({"capability": 87}, "change", "the GPU has 8.7"),
        ({"refuses": "cuModuleLoadData"}, "change", "cuModuleLoadData: invalid PTX (code 218)"),
        ({"refuses": "cuCtxGetDevice"}, "change", "CUDA refused cuCtxGetDevice"),
        ({"refuses": "cuLaunchKernel"}, "enqueue", "CUDA refused cuLaunchKernel: invalid PTX"),
        ({"driver": "/no/libcuda.so.1"}, "change", "NVIDIA driver cannot be opened"),
    ],
)  # fmt: skip
def test_refusals_go_to_the_log(harness, changes, step, words) -> None:
    lines = harness(**changes)
    wanted = "0" if step == "create" else "-1"
    assert starting(lines, step)[0] == wanted, lines
    logged = starting(lines, "log")
    assert all(line.startswith("1 LocalGlobalAttention 'block0/attention': ") for line in logged)
    assert any(words in line for line in logged), logged


def test_types_that_have_no_kernel_are_refused(harness) -> None:
    lines = harness(kind="int8")
    assert starting(lines, "formats")[0].split()[0] == "0"
    assert "q must be float16, bfloat16 or float32" in starting(lines, "log")[1]


def test_the_same_kernel_is_chosen_as_in_python(plugin_library) -> None:
    choose = ctypes.CDLL(str(plugin_library.path)).prunus_plugin_choose
    choose.argtypes = [ctypes.c_int32, ctypes.c_int32, *[ctypes.c_int64] * 3, ctypes.c_int32]
    for number, dtype in enumerate(DTYPES):
        for queries, keys, d, aligned in np.ndindex(4, 3, 4, 2):
            case = ((1, 16, 17, 64)[queries], (9, 64, 500)[keys], (16, 20, 64, 128)[d])
            chosen = choose_tile(*case, dtype, bool(aligned))
            usable = aligned and case[2] % 8 == 0
            assert TILES[choose(80, number, *case, usable)] == chosen
        assert choose(80, number, 64, 64, 160, 1) == -1
    for device in (70, 75, 80, 86, 87, 89, 90, 100, 120):
        assert (choose(device, 0, 64, 64, 32, 1) >= 0) == runs_on(80, device)


def test_geometry_is_the_same_in_cpp_and_python(plugin_library) -> None:
    integers = ctypes.CDLL(str(plugin_library.path)).prunus_plugin_integers
    integers.restype = ctypes.c_char_p
    rng, refused = np.random.default_rng(0), 0
    for trial in range(300):
        combine = int(rng.integers(4))
        shapes = {n: tuple(1 if rng.random() < 0.1 and n in ("bias_l", "bias_g", "gate") else s
                           for s in shape) for n, shape in SHAPES.items()}  # fmt: skip
        if trial % 3 == 0:
            name = INPUTS[int(rng.integers(11))]
            axis = int(rng.integers(len(shapes[name])))
            sizes = list(shapes[name])
            sizes[axis] = int(rng.integers(0, 9))
            shapes[name] = tuple(sizes)
        if trial % 7 == 0:
            shapes["bias_g"] = (1, 1, 1, 1)
        heads = int(rng.choice([2, 2, 2, 2, 4, 3]))
        ranks = (ctypes.c_int32 * 11)(*(len(shapes[n]) for n in INPUTS))
        flat = [size for n in INPUTS for size in shapes[n]]
        out = (ctypes.c_int32 * 25)()
        sizes = (ctypes.c_int64 * len(flat))(*flat)
        complaint = integers(ranks, sizes, ctypes.c_int64(heads), combine, 2, out)
        try:
            expected = geometry(shapes, heads, COMBINES[combine]).integers(2)
        except PrunusError:
            assert complaint is not None, shapes
            refused += 1
            continue
        assert complaint is None and tuple(out) == expected, (shapes, complaint)
    assert 30 < refused < 200


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)
@pytest.mark.trt
def test_the_registry_of_tensorrt_takes_it(plugin_library, tmp_path) -> None:
    """In a process of its own, as a registry keeps what it has loaded."""
    program = (
        "import sys, tensorrt_rtx as trt\n"
        "from prunus.runtime.errors import PrunusError\n"
        "from prunus.runtime.plugins.library import describe, register\n"
        "library = describe(sys.argv[1])\n"
        "register(trt, library); register(trt, library)\n"
        "registry = trt.get_plugin_registry()\n"
        "names = {c.name for c in registry.all_creators if c.plugin_namespace == 'prunus'}\n"
        "print(*sorted(names))\n"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-c", program, str(plugin_library.path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "LocalGlobalAttention", "LocalGlobalAttentionGlobal", "LocalGlobalAttentionLocal",
        "LocalGlobalAttentionSum",
    ]  # fmt: skip
