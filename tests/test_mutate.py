"""The planter of faults: it must tell noticed from missed, and must not touch the checkout."""

import importlib.util
import subprocess
from collections import Counter
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
    above = mutate.tests_of("runtime/tasks/detection/task.py")
    assert "tests/runtime/tasks/test_registry.py" in above


def test_a_sample_is_the_same_for_the_same_seed(mutate) -> None:
    faults = [mutate.Fault("a.py", line, 0, "core/AddNot", line) for line in range(50)]
    once = list(mutate.drawn(faults, 1))
    assert once == list(mutate.drawn(faults, 1)) != list(mutate.drawn(faults, 2))
    assert sorted(once) == faults != once


@pytest.mark.parametrize(("after", "counts"), [
    ("def f(x: int | None, *, y=2) -> int:\n    return x + y\n", True),
    ("def f(x: int & None, *, y=1) -> 3:\n    return x + y  # more\n", False),
    ("def f(x: int | None, /, y=1) -> int:\n    return x + y\n", False),
    ("def f(x: int | None, %, y=1) -> int:\n    return x + y\n", False),
])  # fmt: skip
def test_only_what_compiles_to_something_else_is_a_fault(mutate, after, counts) -> None:
    before = "def f(x: int | None, *, y=1) -> int:\n    return x + y\n"
    assert mutate.differs(before, after) is counts


def test_the_interval_is_wilsons(mutate) -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148 and 29 of 29 (none of 29, turned round).
    for part, total, least, most in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                     (29, 29, 0.8830, 1.0)]:  # fmt: skip
        assert mutate.interval(part, total) == pytest.approx((least, most), abs=5e-5)


def test_only_the_two_parts_are_chosen(mutate) -> None:
    if subprocess.run(["git", "rev-parse", "-q", "--verify", "main"], cwd=ROOT, check=False,
                      capture_output=True).returncode:  # fmt: skip
        pytest.skip("no branch main here")
    assert all(name.startswith(("runtime/", "export/verify/")) for name in mutate.changed())


def test_a_file_without_tests_fails(mutate, capsys) -> None:
    assert mutate.main(["runtime/none.py"]) == 1
    assert "no tests of its own" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("noticed", "hung", "sample", "code"),
    [(10, 0, [], 0), (8, 1, [], 0), (8, 0, [], 1), (8, 0, ["--sample", "10"], 1)],
)
def test_the_score_decides(
    mutate, monkeypatch, capsys, tmp_path, noticed, hung, sample, code
) -> None:
    count = Counter(noticed=noticed, hung=hung, missed=10 - noticed - hung)
    monkeypatch.setattr(mutate, "_copy", lambda tree: None)
    monkeypatch.setattr(mutate, "listed_faults", lambda *_: [])
    monkeypatch.setattr(mutate, "judge", lambda *_: ({"runtime/limits.py": count}, 0))
    assert mutate.main(["runtime/limits.py", "--keep", str(tmp_path), *sample]) == code
    said = capsys.readouterr().out
    assert f"{noticed + hung} of 10 faults noticed" in said and f"{hung} of them" in said
    assert ("95 %: 49.0% to 94.3%" in said) is bool(sample)


@pytest.fixture
def planted(tmp_path):
    """A tree of one file, of which one function is tested and one is not."""
    (tmp_path / "planted.py").write_text(
        "def more(x, *, y=1):\n    return x + y\n\n\ndef one(x):\n    return x == 1\n"
    )
    (tmp_path / "test_planted.py").write_text(
        "from planted import more\n\ndef test_it():\n    assert more(3) == 4\n"
    )
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("cosmic_ray") is None, reason="cosmic-ray: make mutate-deps"
)
def test_faults_in_a_line_that_is_tested_and_in_one_that_is_not(
    mutate, monkeypatch, capsys, planted
) -> None:
    tests = {"planted.py": ["test_planted.py"]}
    found = mutate.listed_faults(["planted.py"], planted, planted)
    counts, failed = mutate.judge(iter(found), 0, tests, mutate.Judge(planted, planted))
    said = capsys.readouterr().out
    assert not failed and min(counts["planted.py"][v] for v in ("noticed", "missed")) > 0
    # x + y and its 1 are tested; the star would not compile otherwise.
    assert said.count("-    return x == 1") == counts["planted.py"]["missed"]
    # What is known is not run again, not even where tests would fail now.
    before = (planted / "verdicts.jsonl").read_text()
    monkeypatch.setattr(mutate.Judge, "_run", None)
    assert mutate.judge(iter(found), 0, tests, mutate.Judge(planted, planted)) == (counts, 0)
    assert (planted / "verdicts.jsonl").read_text() == before
