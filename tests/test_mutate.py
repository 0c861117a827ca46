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
    assert mutate.tests_of("runtime/limits.py") == ["tests/runtime/test_limits.py"]
    assert mutate.tests_of("export/verify/none.py") == []


def test_a_file_without_tests_of_its_own_is_judged_by_those_that_import_it(mutate) -> None:
    found = mutate.tests_of("runtime/tasks/pose/similarity.py")
    assert found and all("similarity" in (ROOT / name).read_text() for name in found)
    folder = mutate.tests_of("runtime/session/turns.py")
    assert folder and all(Path(name).parent == Path("tests/runtime/session") for name in folder)


def test_a_sample_is_the_same_for_the_same_seed(mutate) -> None:
    faults = {f"key {k}": f"file {k % 3}" for k in range(50)}
    once = mutate.drawn(faults, 20, 1)
    assert len(once) == 20 and once == mutate.drawn(faults, 20, 1) != mutate.drawn(faults, 20, 2)
    assert mutate.drawn(faults, 90, 1) == faults


def test_only_the_two_parts_are_chosen(mutate) -> None:
    if subprocess.run(["git", "rev-parse", "-q", "--verify", "main"], cwd=ROOT, check=False,
                      capture_output=True).returncode:  # fmt: skip
        pytest.skip("no branch main here")
    assert all(name.startswith(("runtime/", "export/verify/")) for name in mutate.changed())


def test_a_file_without_tests_fails(mutate, monkeypatch, capsys) -> None:
    monkeypatch.setattr(mutate, "_copy", lambda tree: None)
    assert mutate.main(["runtime/none.py"]) == 1
    assert "no tests of its own" in capsys.readouterr().out


@pytest.mark.parametrize(("count", "code"), [(10, 0), (9, 0), (8, 1)])
def test_the_score_decides(mutate, monkeypatch, capsys, count, code) -> None:
    monkeypatch.setattr(mutate, "_copy", lambda tree: None)
    monkeypatch.setattr(mutate, "plan", lambda names, tree: tree)
    monkeypatch.setattr(mutate, "faults", lambda session: {"a fault": "runtime/limits.py"})
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
    session = mutate.plan(["planted.py"], tmp_path)
    keys = list(mutate.faults(session))
    planted, missed = mutate.judge("planted.py", ["test_planted.py"], keys, session)
    assert planted == len(keys)
    assert planted > len(missed) > 0
    assert all("x == 1" in difference for difference in missed)
