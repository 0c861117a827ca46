"""What a service says about itself: OpenAPI 3.1, and a page with a line to try."""

from __future__ import annotations

import html
from typing import Any

import prunus
from prunus.api import Predictor
from prunus.apps.serve.bodies import ANSWERS, BODIES

_REFUSED = {
    400: "A damaged body, or one that does not fit the model.",
    401: "The token is missing or wrong.",
    403: "Without a token: another host or another site asks.",
    406: "No form of the answer is accepted.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is of no kind that the model takes.",
    429: "Too many requests are in hand.",
    500: "The server failed.",
    503: "The server is ending, or its device refused.",
}
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{name} - prunus</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{margin:2em auto;max-width:44em;padding:0 1em;font:16px/1.5 system-ui}}
pre{{background:#eee;padding:1em;overflow-x:auto}}</style>
<h1>{name}</h1><p>Send {media} to <code>/predict</code>:</p>
<pre>curl {token}--data-binary @{file} http://{host}/predict</pre>
<p><a href="openapi.json">openapi.json</a> · <a href="health">health</a> · /metrics</p></html>
"""
_FILES = {
    "picture": "street.jpg", "sound": "talk.wav", "clip": "talk.mp4", "tensors": "inputs.npz"
}  # fmt: skip


def _media(model: Predictor) -> list[str]:
    return [media for body in BODIES if body.takes in model.takes for media in body.media]


def document(model: Predictor, *, guarded: bool) -> dict[str, Any]:
    """Return the OpenAPI document of the service.

    Args:
        model: What answers.
        guarded: Callers need a token.
    """
    binary = {"schema": {"type": "string", "format": "binary"}}
    error = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "hint"],
                "properties": {"message": {"type": "string"}, "hint": {"type": "string"}},
            }
        },
    }
    answers: dict[str, Any] = {
        str(status): {"description": text, "content": {"application/json": {"schema": error}}}
        for status, text in _REFUSED.items()
    }
    answers["200"] = {
        "description": "The result.",
        "content": {
            media: binary if media != "application/json" else {"schema": {"type": "object"}}
            for media in ANSWERS[model.gives]
        },
    }
    body = {"required": True, "content": {media: binary for media in _media(model)}}
    predict: dict[str, Any] = {"operationId": "predict", "requestBody": body, "responses": answers}

    def get(what: str, media: str) -> dict[str, Any]:
        content = {media: {"schema": {"type": "object" if media.endswith("json") else "string"}}}
        return {"get": {"responses": {"200": {"description": what, "content": content}}}}

    said: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": f"prunus: {model.name}", "version": prunus.__version__},
        "paths": {
            "/predict": {"post": predict},
            "/metrics": get("Counts and times, for Prometheus.", "text/plain"),
            "/health": get("The server answers.", "application/json"),
        },
    }
    if guarded:
        said["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        predict["security"] = [{"token": []}]
        said["paths"]["/metrics"]["get"]["security"] = [{"token": []}]
    return said


def page(model: Predictor, host: str, *, guarded: bool) -> str:
    """Return the page at ``/``; `host` is the name that the browser asked for."""
    words = {
        "name": model.name,
        "media": ", ".join(_media(model)),
        "token": '-H "Authorization: Bearer TOKEN" ' if guarded else "",
        "file": _FILES[model.takes[0]],
        "host": host,
    }
    return _PAGE.format(**{key: html.escape(value) for key, value in words.items()})
