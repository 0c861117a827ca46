"""What `prunus serve` takes, and its verbs."""

from __future__ import annotations

from dataclasses import dataclass

from prunus.apps.cli.verbs import Verb
from prunus.apps.common import options as shared
from prunus.runtime.options import argument, group, option

TOKEN = "PRUNUS_SERVE_TOKEN"


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """What `prunus serve http` does.

    Without a token only programs of this machine are answered. Ctrl-C or SIGTERM ends it when the
    requests in hand are answered.

    \b
    Examples:
      prunus serve http pose
      prunus serve http edaformer-t.onnx --host 0.0.0.0 --token secret --queue 128
    """

    model: str = argument("ONNX file, engine, listed name, or name of a task.")
    host: str = option("Address to listen on; others than this machine's need a token.",
                       default="127.0.0.1", metavar="ADDRESS")  # fmt: skip
    port: int = option("Port; 0: a free one.", default=8000, minimum=0, maximum=65535)
    token: str | None = option(
        f"Bearer token that callers give; default: the variable {TOKEN}.", default=None
    )
    max_body: float = option(
        "Largest body of a request, MiB.", default=32.0, minimum=0.001, maximum=1024, metavar="MIB"
    )
    queue: int = option(
        "Requests in hand at a time, their bodies in memory; more are refused.",
        default=64, minimum=1, maximum=4096,
    )  # fmt: skip
    wait: float = shared.wait()
    shape: tuple[str, ...] = shared.shape()
    compute: shared.BackendChoice = group(shared.BackendChoice)


_LIVE = """Browsers give cameras to pages of https or of localhost alone.

\b
Examples:
  prunus serve live pose
  prunus serve live segmentation --host 0.0.0.0 --certificate box.pem --key box.key
"""
VERBS = (
    Verb(
        "http",
        "Answer pictures, sounds and arrays over HTTP with a model's results.",
        "prunus.apps.serve.options:HttpOptions",
        "prunus.apps.serve.command:serve_http",
    ),
    Verb(
        "live",
        "Take a browser's camera and microphone, a phone's for example, and show it the results.",
        verbs="prunus.apps.webrtc.options:verbs",
        more=_LIVE,
    ),
)
