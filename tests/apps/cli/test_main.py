"""The command line: help, exit codes, two-line errors, and a light start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prunus import __version__
from prunus.apps.cli import doctor as doctor_cmd
from prunus.apps.cli.main import main
from prunus.runtime import command
from prunus.runtime.errors import CheckFailedError, HostError, UsageError

VERBS = [
    "models", "export", "plan", "inspect", "card", "check", "build", "plugin", "bench", "run",
    "eval", "doctor", "serve",
]  # fmt: skip
COMMANDS = [[verb] for verb in VERBS] + [
    ["models", "import"],
    ["export", "evitpose"],
    ["export", "movenet"],
    ["plugin", "build"],
    ["plugin", "info"],
    ["run", "pose"],
    ["run", "tensors"],
    ["serve", "http"],
    ["card", "add"],
    ["eval", "pose"],
]


def test_help_lists_every_verb(prunus):
    ran = prunus("--help")
    assert ran.code == 0
    assert all(f"\n  {verb} " in ran.out for verb in VERBS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_every_verb_shows_two_examples(prunus, words):
    ran = prunus(*words, "--help")
    assert ran.code == 0
    examples = ran.out.split("Examples:")[1].splitlines()[1:3]
    assert all(line.strip().startswith("prunus ") for line in examples), examples


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly"], "No such command 'fly'"),
        (["run", "pose", "--sorce", "0"], "--sorce"),
        (["run", "pose", "--threads", "0"], "--threads"),
        (["inspect"], "model"),
        (["inspect", "nothing.onnx"], "not found: nothing.onnx"),
        (["inspect", "movenet_lightening"], "did you mean 'movenet_lightning'?"),
        (["export", "evitpose", "--precision", "fp61"], "did you mean 'fp16'?"),
        (["export", "evitpose", "--keep", "half"], "a share or a plan"),
        (["models", "import", "missing.pth"], "missing.pth"),
        (["models", "import", "a.pth", "--head", "clasic"], "did you mean 'classic'?"),
        (["check", "a.onnx", "--budget", "tight"], "expected NAME=NUMBER"),
        (["run", "pose", "--source", "synthetic:", "--level", "L9"], "Unknown level 'L9'"),
        (["bench", "movenet_lightning", "--boundary", "motor"], "Unknown boundary 'motor'"),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(prunus, words, said):
    ran = prunus(*words)
    assert ran.code == 2
    assert said in ran.err
    lines = ran.err.strip().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("Got a; expected b.", "Do c."), 2),
        (HostError("No GPU.", "Buy one."), 3),
        (CheckFailedError("Off by 3 px.", "Look."), 1),
    ],
)
def test_own_errors_keep_their_exit_code(prunus, monkeypatch, error, code):
    def fail():
        raise error

    monkeypatch.setattr(doctor_cmd, "examine", fail)
    ran = prunus("doctor")
    assert ran.code == code
    assert ran.err == f"error: {error.message}\nhint: {error.hint}\n"


def test_unexpected_errors_show_no_trace_unless_asked(prunus, monkeypatch):
    def fail():
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(doctor_cmd, "examine", fail)
    ran = prunus("doctor")
    assert ran.code == 1
    assert "Unexpected ZeroDivisionError: a b" in ran.err
    assert "--debug" in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in prunus("doctor", "--debug").err


def test_ctrl_c_is_130(prunus, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor_cmd, "examine", interrupt)
    ran = prunus("doctor")
    assert ran.code == 130
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(("package", "extra"), [("typer", "apps"), ("onnx", "export")])
def test_missing_packages_name_their_extra(prunus, monkeypatch, package, extra):
    def fail():
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    if package == "typer":
        monkeypatch.setitem(sys.modules, "typer", None)
    else:
        monkeypatch.setattr(doctor_cmd, "examine", fail)
    ran = prunus("doctor")
    assert ran.code == 3
    assert f"prunus[{extra}]" in ran.err


def test_start_loads_nothing_heavy():
    code = (
        "import sys; from prunus.apps.cli.main import main; main(['--help']);"
        "print('loaded', *{'numpy', 'cv2', 'torch', 'onnx', 'onnxruntime', 'openvino'}"
        " & set(sys.modules), *(m for m in sys.modules if m.startswith('prunus.apps.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()[1:]
    assert set(loaded) == {"prunus.apps.cli.main", "prunus.apps.cli.verbs"}


LEAVING = """
import atexit, sys, threading, time
import numpy, onnxruntime
from prunus.apps.cli import main

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
(wanted,) = session.get_inputs()
frame = numpy.zeros(wanted.shape, {"tensor(uint8)": "uint8"}.get(wanted.type, "float32"))

def busy():
    while True:
        session.run(None, {wanted.name: frame})

def stopped():
    for _ in range(4):
        threading.Thread(target=busy, daemon=True).start()
    time.sleep(0.3)
    threading.Thread(target=lambda: (time.sleep(0.2), print("waited for"))).start()
    atexit.register(lambda: sys.stdout.write("called at the exit"))
    return 130

main.main = stopped
main.command()
"""


def test_a_thread_that_still_computes_does_not_abort_the_process():
    """Seen after Ctrl-C with a finder beside: all was written, and SIGABRT was the exit code."""
    model = Path(__file__).parents[3] / "models" / "weights" / "selfie.onnx"
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, str(model)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert done.stdout.split("\n") == ["waited for", "called at the exit"]


def test_version(prunus):
    ran = prunus("--version")
    assert (ran.code, ran.out) == (0, f"prunus {__version__}\n")


@pytest.mark.parametrize("words", [[], *COMMANDS, ["encode"], ["decode"]], ids=" ".join)
def test_h_is_help_and_nothing_is_cut_off(prunus, words):
    ran = prunus(*words, "-h")
    assert ran.code == 0
    assert ran.out == prunus(*words, "--help").out
    listed = ran.out.partition("Commands:")[2] or ran.out.partition("Options:")[2]
    assert listed and "..." not in listed


def test_the_shell_completes_verbs_and_options(monkeypatch, capfd):
    def complete(line):
        monkeypatch.setenv("_PRUNUS_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - (not line.endswith(" "))))
        with pytest.raises(SystemExit):
            main([])
        return capfd.readouterr().out.split()

    assert complete("prunus b") == ["build", "bench", "batch", "bundle"]
    assert complete("prunus run seg") == ["segmentation"]
    assert "--max-frames" in complete("prunus run pose --max")


def test_models_alone_lists_them(prunus):
    ran = prunus("models", "list", "--json")
    assert ran.code == 0 and ran.out == prunus("models", "--json").out


def test_every_extra_named_in_a_message_exists():
    import importlib.metadata

    declared = importlib.metadata.metadata("prunus").get_all("Provides-Extra")
    assert set(command._EXTRAS.values()) <= set(declared)


def test_a_name_that_no_file_can_have_is_one_clear_error(prunus):
    for words in (("run", "segmentation", "--source", "x" * 5000, "--sink", "null:"),
                  ("inspect", "x" * 5000)):  # fmt: skip
        ran = prunus(*words)
        assert ran.code == 2
        assert "has 5000 characters, too many for a file's name" in ran.err


def test_the_package_runs_as_the_command():
    words = [sys.executable, "-m", "prunus"]
    told = subprocess.run([*words, "--help"], capture_output=True, text=True, check=True).stdout
    assert told.startswith("Usage: prunus [OPTIONS] COMMAND") and "__main__" not in told
    wrong = subprocess.run([*words, "modls"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "did you mean 'models'" in wrong.stderr.lower()
