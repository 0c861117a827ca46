"""The planter of faults: it must tell noticed from missed, and must not touch the checkout."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def mutate():
    spec = importlib.util.spec_from_file_location("mutate", ROOT / "tests" / "mutate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_file_has_its_own_tests(mutate) -> None:
    assert mutate.tests_of("runtime/limits.py") == Path("tests/runtime/test_limits.py")
    assert mutate.tests_of("export/verify/none.py") is None


def test_only_the_two_parts_are_chosen(mutate) -> None:
    if subprocess.run(["git", "rev-parse", "-q", "--verify", "main"], cwd=ROOT, check=False,
                      capture_output=True).returncode:  # fmt: skip
        pytest.skip("no branch main here")
    assert all(name.startswith(("runtime/", "export/verify/")) for name in mutate.changed())


def test_a_file_without_tests_fails(mutate, monkeypatch, capsys) -> None:
    monkeypatch.setattr(mutate, "_copy", lambda tree: None)
    assert mutate.main(["runtime/none.py"]) == 1
    assert "no mirrored tests" in capsys.readouterr().out


@pytest.mark.parametrize(("count", "code"), [(10, 0), (9, 0), (8, 1)])
def test_the_score_decides(mutate, monkeypatch, capsys, count, code) -> None:
    monkeypatch.setattr(mutate, "_copy", lambda tree: None)
    monkeypatch.setattr(mutate, "judge", lambda *_: (10, ["- a\n+ b"] * (10 - count)))
    assert mutate.main(["runtime/limits.py"]) == code
    assert f"{count} of 10 faults noticed" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("cosmic_ray") is None, reason="cosmic-ray: make mutate-deps"
)
def test_faults_in_a_line_that_is_tested_and_in_one_that_is_not(mutate, tmp_path) -> None:
    (tmp_path / "planted.py").write_text("def more(x):\n    return x + 1\n\n\n"
                                         "def one(x):\n    return x == 1\n")  # fmt: skip
    (tmp_path / "test_planted.py").write_text(
        "from planted import more\n\ndef test_it():\n    assert more(3) == 4\n"
    )
    planted, missed = mutate.judge("planted.py", Path("test_planted.py"), tmp_path)
    assert planted > len(missed) > 0
    assert all("x == 1" in difference for difference in missed)
