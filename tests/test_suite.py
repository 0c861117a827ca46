"""What the suite promises of itself: parity everywhere, and no skip without a known reason."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = Path(__file__).parent / "parity"
MODELS = ["audio_resample", "dolphin", "edaformer", "freecodec", "speechtokenizer", "wavtokenizer"]
SKIPS = """
import pytest

@pytest.mark.parametrize("reason", [
    "no EGL device to render on: x", "no EGL device to render on: y", "nobody foresaw this",
    "this CPU has no bfloat16 arithmetic", "this machine lacks: a GPU"])
def test_in_its_body(reason):
    pytest.skip(reason)

@pytest.mark.skipif(True, reason="not today")
def test_by_its_mark():
    pass

@pytest.mark.xfail(reason="known fault")
def test_expected_to_fail():
    assert False

def test_parity(parity):
    numbers = parity("edaformer")
    numbers["preproc/bgr_uint8"]
    with pytest.raises(KeyError):
        numbers["preproc/misspelt"]
    numbers["t_off_128/input"]
"""


def _run(folder, *texts, words=()):
    """Run test files under the suite's own conftest; return the exit code and what was printed."""
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    shutil.copytree(SMALL / "edaformer", folder / "parity" / "edaformer", dirs_exist_ok=True)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for number, text in enumerate(texts):
        (folder / f"test_{number}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", *words]
    environment = os.environ | {"PRUNUS_PARITY_DIR": "parity", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_skips_are_counted_by_reason_and_unknown_ones_fail(tmp_path):
    code, told = _run(tmp_path, SKIPS)
    assert code == pytest.ExitCode.TESTS_FAILED, told
    assert "1 failed, 5 skipped, 1 xfailed, 1 error" in told
    for reason in ("nobody foresaw this", "not today"):
        assert f"{reason} (no row of MAY_SKIP" in told
    assert "2 skipped for want of: make train-deps, OpenGL" in told
    for need in ("bfloat16 arithmetic", "a GPU and what runs on it", "the full parity set"):
        assert f"1 skipped for want of: {need}" in told


def test_modules_may_skip_for_want_of_optional_packages_alone(tmp_path):
    optional = "could not import 'asteroid': No module named 'asteroid'"
    code, told = _run(
        tmp_path,
        "import pytest\npytest.importorskip('no_such_package')\n",
        f"import pytest\npytest.skip({optional!r}, allow_module_level=True)\n",
    )
    assert code == pytest.ExitCode.INTERRUPTED, told
    assert "No module named 'no_such_package' (no row of MAY_SKIP" in told
    assert "1 skipped for want of: make peer-deps" in told


def test_every_model_has_published_numbers_here():
    assert sorted(path.parent.name for path in SMALL.glob("*/cases.npz")) == MODELS
    assert sum(path.stat().st_size for path in SMALL.rglob("*") if path.is_file()) <= 4 * 2**20


MADE = """
import os
from pathlib import Path

LOG = Path(__file__).with_name("made.log")

def test_it(made_once):
    def fill(folder):
        (folder / "file").write_text("whole")
        with LOG.open("a") as log:
            log.write(f"{os.getpid()}\\n")

    folders = [made_once("thing", fill) for _ in range(2)]
    assert folders[0] != folders[1]
    (folders[0] / "file").write_text("edited by its owner")
    assert (folders[1] / "file").read_text() == "whole"
"""


def test_what_takes_long_is_made_once_for_all_workers_and_runs(tmp_path):
    log = tmp_path / "made.log"
    code, told = _run(tmp_path, MADE, MADE, words=["-n", "2", "--dist", "loadfile"])
    assert (code, len(log.read_text().splitlines())) == (0, 1), told
    code, told = _run(tmp_path, MADE, MADE.replace("whole", "of other code"))
    assert (code, len(log.read_text().splitlines())) == (0, 2), told


def test_files_that_are_begun_first_are_there_and_come_first(tmp_path):
    spec = importlib.util.spec_from_file_location("the_conftest", SMALL.parent / "conftest.py")
    spec.loader.exec_module(conftest := importlib.util.module_from_spec(spec))
    assert [name for name in conftest.LONGEST if not (SMALL.parent / name).is_file()] == []
    (late := tmp_path / conftest.LONGEST[0]).parent.mkdir()
    late.write_text("def test_late(): pass\n")
    many = "".join(f"def test_early_{k}(): pass\n" for k in range(9))
    for words in (["-v"], ["-v", "-n", "1", "--dist", "loadfile"]):
        code, told = _run(tmp_path, many, words=words)
        ran = re.findall(r"test_(late|early_0) .*PASSED|PASSED.*::test_(late|early_0)\b", told)
        assert (code, [a or b for a, b in ran]) == (0, ["late", "early_0"]), told
