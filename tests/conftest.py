"""What every test may rely on."""

import importlib.util
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C work: a suite started in the background inherits an ignored SIGINT."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def attention_definition():
    """The literal definition of local-global attention and its nine cases, in numpy."""
    path = Path(__file__).parent / "runtime" / "plugins" / "definition.py"
    spec = importlib.util.spec_from_file_location("attention_definition", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    return build_library(tmp_path_factory.mktemp("plugin") / LIBRARY, [80], cache=cache)
