"""The `prunus` command: assembles the verbs and turns every error into two lines and an exit code.

Exit codes: 0 ok, 1 a check failed (or an unexpected error), 2 wrong usage or input, 3 this machine
lacks something, 130 stopped with Ctrl-C or SIGTERM (whatever was finished by then is kept).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from prunus.runtime.errors import HostError, MissingDependencyError, PrunusError

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: Words after ``prunus``; None takes those of the process.

    Example:
        >>> main(["models", "--quiet"])
        0
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    _stop_on_terminate()
    try:
        result = build_app()(words, standalone_mode=False, prog_name="prunus")
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        return _say(INTERRUPTED, "Stopped with Ctrl-C.", "What was finished by then is kept.")
    except BrokenPipeError:  # the reader of a pipe (head, less) has gone: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PrunusError as error:
        return _trace(debug) or _say(error.exit_code, error.message, error.hint)
    except Exception as error:
        return _trace(debug) or _translate(error)


def build_app() -> typer.Typer:
    """Return the command-line application; imports no back end, no OpenCV and no PyTorch.

    Raises:
        MissingDependencyError: typer is not installed.
    """
    try:
        import typer
    except ImportError:
        raise MissingDependencyError("typer", "apps", "The prunus command") from None
    from prunus.apps.cli import bench as bench_cmd
    from prunus.apps.cli import build as build_cmd
    from prunus.apps.cli import check as check_cmd
    from prunus.apps.cli import doctor as doctor_cmd
    from prunus.apps.cli import eval as eval_cmd
    from prunus.apps.cli import export as export_cmd
    from prunus.apps.cli import inspect as inspect_cmd
    from prunus.apps.cli import models as models_cmd
    from prunus.apps.cli import plugin as plugin_cmd
    from prunus.apps.cli import run as run_cmd
    from prunus.apps.codec import encode_cli as codec_cmd

    app = typer.Typer(
        name="prunus",
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain help: starts faster and reads the same in a log
        pretty_exceptions_enable=False,
    )
    app.add_typer(models_cmd.app, name="models")
    app.add_typer(export_cmd.app, name="export")
    app.command("inspect")(inspect_cmd.inspect)
    app.command("check")(check_cmd.check)
    app.command("build")(build_cmd.build)
    app.add_typer(plugin_cmd.app, name="plugin")
    app.command("bench")(bench_cmd.bench)
    app.command("encode")(codec_cmd.encode)
    app.command("decode")(codec_cmd.decode)
    app.add_typer(run_cmd.app, name="run")
    app.add_typer(eval_cmd.app, name="eval")
    app.command("doctor")(doctor_cmd.doctor)
    return app


_HELP = """Prune tokens of camera models, export them, check them, run them without PyTorch.

\b
Examples:
  prunus run pose --source 0 --sink web:8080
  prunus export evitpose --variant tiny --level L2 -o evitpose-tiny-L2.onnx

\b
Exit codes: 0 ok, 1 a check failed, 2 wrong usage or input, 3 this machine lacks something,
130 stopped with Ctrl-C. Every verb explains itself with --help.
"""


def _stop_on_terminate() -> None:
    """Let SIGTERM (a service manager, a container) end a run as Ctrl-C does: outputs complete."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _as_ctrl_c)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # Ctrl-C is ignored by programs in the background
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def _say(code: int, message: str, hint: str) -> int:
    print(f"error: {message}" if code != INTERRUPTED else message, file=sys.stderr)
    if hint:
        print(f"hint: {hint}" if code != INTERRUPTED else hint, file=sys.stderr)
    return code


def _trace(debug: bool) -> int:
    """Print the trace when asked to; returns 0 so that ``or`` goes on to the two lines."""
    if debug:
        traceback.print_exc()
    return 0


def _translate(error: Any) -> int:
    """Report an error that is not one of ours: of the command line, of the disk, or a fault."""
    if hasattr(error, "format_message"):  # the command-line library's own errors
        return _usage(error)
    if type(error).__name__ == "Abort":  # how that library reports Ctrl-C
        return _say(INTERRUPTED, "Stopped with Ctrl-C.", "What was finished by then is kept.")
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = _missing(error.name)
        return _say(missing.exit_code, missing.message, missing.hint)
    if isinstance(error, OSError) and error.filename:
        from prunus.runtime.card.artifact import write_error

        ours = write_error(error, error.filename)
        return _say(ours.exit_code, ours.message, ours.hint)
    text = " ".join(str(error).split())[:300]
    return _say(1, f"Unexpected {type(error).__name__}: {text}", "Run with --debug to see where.")


def _usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        return 2
    path = context.command_path if context is not None else "prunus"
    return _say(2, error.format_message(), f"See: {path} --help")


_EXTRAS = {
    "cv2": "apps",
    "rich": "apps",
    "onnxruntime": "ort",
    "openvino": "openvino",
    "tensorrt": "trt",
    "tensorrt_rtx": "trt-rtx",
    "torch": "models",
    "safetensors": "models",
    "onnx": "export",
    "onnxscript": "export",
    "onnxsim": "export",
    "polygraphy": "check",
    "faster_coco_eval": "eval",
    "soundfile": "audio",
    "sounddevice": "audio",
    "av": "clips",
    "pesq": "eval-audio",
    "pystoi": "eval-audio",
    "fast_bss_eval": "eval-audio",
    "pocketsphinx": "eval-audio",
    "transformers": "peer",
    "triton": "plugin",
    "anny": "train",
    "moderngl": "train",
}


def _missing(name: str) -> HostError:
    package = name.partition(".")[0]
    if package in _EXTRAS:
        return MissingDependencyError(package, _EXTRAS[package], "This command")
    return HostError(f"The Python package '{package}' is not installed.", f"pip install {package}")


if __name__ == "__main__":
    sys.exit(main())
