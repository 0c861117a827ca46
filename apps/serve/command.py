"""`prunus serve http`: open the model, listen, answer until somebody ends it."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from prunus.apps.serve.options import TOKEN, HttpOptions
from prunus.apps.web.server import is_loopback
from prunus.runtime.command import Console
from prunus.runtime.errors import MissingDependencyError, SourceError, UsageError
from prunus.runtime.json_text import json_text


def serve_http(options: HttpOptions, console: Console) -> None:
    """Serve a model over HTTP.

    Raises:
        UsageError: another address than this machine's without a token, or no such model.
        SourceError: the address cannot be used.
        MissingDependencyError: starlette, uvicorn or prometheus_client is not installed.
    """
    token = os.environ.get(TOKEN, "") if options.token is None else options.token
    if not token and (options.token is not None or not is_loopback(options.host)):
        raise UsageError(
            f"Got --host {options.host} and an empty token; expected one."
            if options.token is not None
            else f"Got --host {options.host} without a token: everybody there could ask.",
            f"Set {TOKEN}, or leave out --host to serve this machine alone.",
        )
    if not token.isascii() or any(sign.isspace() for sign in token):
        raise UsageError("Got a token with blanks or letters beyond ASCII; expected none.")
    uvicorn, application, limits = _library()
    from prunus.api import load
    from prunus.apps.common.model_files import find_model

    name = str(find_model(options.model, options.shape)) if options.shape else options.model
    with _listening(options.host, options.port) as listener, load(
        name, **options.compute.keywords()
    ) as model:  # fmt: skip
        model.name = options.model
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        console.say(
            f"{options.model} answers on {url}predict; Ctrl-C ends it",
            json_text({"model": options.model, "url": url, "batch": model.batch}),
        )
        sys.stdout.flush()  # whoever started this waits for the address
        most = limits(int(options.max_body * 2**20), options.queue, options.wait / 1000)
        config = uvicorn.Config(
            application(model, most, token), log_level="warning", access_log=False,
            server_header=False, lifespan="on",
            timeout_keep_alive=5, limit_concurrency=options.queue + 64,
        )  # fmt: skip
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, UnicodeError) as error:
        listener.close()
        raise SourceError(
            f"Cannot serve on {host}:{port}: {getattr(error, 'strerror', None) or error}.",
            "Choose another port: --port 8090",
        ) from None
    return listener


def _library() -> tuple[Any, Any, Any]:
    try:
        import uvicorn

        from prunus.apps.serve.application import Limits, application
    except ModuleNotFoundError as error:
        raise MissingDependencyError(str(error.name), "web", "Serving over HTTP") from None
    return uvicorn, application, Limits
