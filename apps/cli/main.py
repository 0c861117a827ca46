"""The `prunus` command: assembles the verbs and turns every error into two lines and an exit code.

Exit codes: 0 ok, 1 a check failed (or an unexpected error), 2 wrong usage or input, 3 this machine
lacks something, 130 stopped with Ctrl-C or SIGTERM (whatever was finished by then is kept).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunus.runtime.command import new_app, run_typer

if TYPE_CHECKING:
    import typer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: Words after ``prunus``; None takes those of the process.

    Example:
        >>> main(["models", "--quiet"])
        0
    """
    return run_typer(build_app, sys.argv[1:] if arguments is None else arguments, "prunus")


def build_app() -> typer.Typer:
    """Return the command-line application; imports no back end, no OpenCV and no PyTorch.

    Raises:
        MissingDependencyError: typer is not installed.
    """
    app = new_app("prunus", _HELP)
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


if __name__ == "__main__":
    sys.exit(main())
