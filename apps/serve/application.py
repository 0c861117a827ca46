"""The service itself: who may ask, how much, and what each address answers."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
import urllib.parse
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from prunus.api import Predictor
from prunus.apps.serve.batching import Batcher
from prunus.apps.serve.bodies import NoAnswerError, UnknownBodyError, read_body, write_answer
from prunus.apps.serve.description import document, page
from prunus.apps.web.server import is_local_name
from prunus.runtime.errors import HostError, PrunusError, UsageError
from prunus.runtime.limits import BODY_S

_LOG = logging.getLogger(__name__)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
# The first class that fits; what is left is our own fault.
_STATUS = ((UnknownBodyError, 415), (NoAnswerError, 406), (UsageError, 400), (HostError, 503))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken.

    Attributes:
        body_bytes: Largest body.
        in_hand: Requests that are read, wait or run at a time.
        wait_s: Seconds that a request waits for others to fill the model's batch.
    """

    body_bytes: int = 32 << 20
    in_hand: int = 64
    wait_s: float = 0.002


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, hint: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.hint, self.headers = status, message, hint, headers


class _Service:
    """The answers; one object for all requests, used by the event loop's thread alone."""

    def __init__(self, model: Predictor, limits: Limits, token: str) -> None:
        self.model, self.limits, self.token = model, limits, token
        self.in_hand = 0
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("prunus_requests", "Answers by status.", ["status"], **made)
        self.seconds = Histogram("prunus_predict_seconds", "From request to answer.", **made)
        self.runs = Histogram(
            "prunus_run_inputs", "Inputs in one run.", buckets=(1, 2, 4, 8, 16, 32, 64), **made
        )
        Gauge("prunus_in_hand", "Requests in hand.", **made).set_function(lambda: self.in_hand)
        self.batcher: Batcher | None = None
        # A small file may hold a large picture: one run, and what the next one needs, and no more.
        self.unpacked = anyio.Semaphore(2 * model.batch)

    async def predict(self, request: Request) -> Response:
        self.admit(request)
        if self.in_hand >= self.limits.in_hand:
            raise _RefusedError(
                429, f"{self.in_hand} requests are in hand; expected fewer.", "Ask again later.",
                **{"Retry-After": "1"},
            )  # fmt: skip
        began = time.perf_counter()
        self.in_hand += 1
        try:
            answer = await self.answer(request)
        finally:
            self.in_hand -= 1
        self.seconds.observe(time.perf_counter() - began)
        return answer

    async def answer(self, request: Request) -> Response:
        data = await self.body(request)
        assert self.batcher is not None, "open while the application runs"
        accept = ", ".join(request.headers.getlist("accept"))
        async with self.unpacked:
            given = await run_in_threadpool(read_body, data, self.model)
            result = await asyncio.wrap_future(self.batcher.submit(given))
            content, media = await run_in_threadpool(write_answer, result, accept)
        return Response(content, media_type=media, headers=_HEADERS)

    async def body(self, request: Request) -> bytes:
        """Read the body, however it comes, no further than the limit and no longer than BODY_S."""
        most = self.limits.body_bytes
        text = request.headers.get("content-length", "0")
        declared = int(text) if text.isascii() and text.isdigit() else 0
        data = bytearray()
        try:
            with anyio.fail_after(BODY_S):
                if declared <= most:
                    async for part in request.stream():
                        data += part
                        if len(data) > most:
                            break
        except TimeoutError:
            raise _RefusedError(
                408, f"The body did not come within {BODY_S:g} s.", "Send it at once."
            ) from None
        if (got := max(declared, len(data))) > most:
            raise _RefusedError(
                413, f"The body has {got} bytes or more; expected at most {most}.",
                "Make it smaller, or start the server with --max-body.", Connection="close",
            )  # fmt: skip
        return bytes(data)

    def admit(self, request: Request) -> None:
        """Refuse who has no token, and the web sites that a browser of this machine shows."""
        if self.token:
            given = request.headers.get("authorization", "")
            kind, _, word = given.partition(" ")
            same = hmac.compare_digest(word.strip().encode(), self.token.encode())
            if kind.lower() != "bearer" or not same:
                raise _RefusedError(
                    401, "The token is missing or wrong.", "Send: Authorization: Bearer TOKEN",
                    **{"WWW-Authenticate": "Bearer"},
                )  # fmt: skip
            return
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if not is_local_name(host) or (origin and _host_of(origin) != host):
            raise _RefusedError(403, "Another host or another site asks.", "Use http://127.0.0.1.")

    async def metrics(self, request: Request) -> Response:
        self.admit(request)
        text = generate_latest(self.registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST, **_HEADERS})

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(document(self.model, guarded=bool(self.token)), headers=_HEADERS)

    async def page(self, request: Request) -> Response:
        text = page(self.model, request.headers.get("host", ""), guarded=bool(self.token))
        return HTMLResponse(text, headers=_HEADERS)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.batcher = Batcher(self.model, self.limits.wait_s, self.runs.observe)
        try:
            yield
        finally:
            await run_in_threadpool(self.batcher.close)


def application(model: Predictor, limits: Limits | None = None, token: str = "") -> Starlette:
    """Return the service as an ASGI application, for uvicorn or for a test.

    Args:
        model: An open model; stays open.
        limits: How much is taken.
        token: What callers of ``/predict`` and ``/metrics`` give; empty: only local names are
            answered, so listen on a loopback address.
    """
    service = _Service(model, limits or Limits(), token)

    def told(status: int, message: str, hint: str, headers: dict[str, str]) -> Response:
        body = {"error": {"message": message, "hint": hint}}
        return JSONResponse(body, status_code=status, headers={**_HEADERS, **headers})

    async def predict(request: Request) -> Response:
        try:
            answer = await service.predict(request)
        except _RefusedError as error:
            answer = told(error.status, error.message, error.hint, error.headers)
        except PrunusError as error:
            status = next((s for kind, s in _STATUS if isinstance(error, kind)), 500)
            answer = told(status, error.message, error.hint, {})
        except ClientDisconnect:
            answer = Response(status_code=400)
        except Exception:
            _LOG.exception("A request failed.")
            answer = told(500, "The server failed on this request.", "Its log says more.", {})
        service.requests.labels(str(answer.status_code)).inc()
        return answer

    async def metrics(request: Request) -> Response:
        try:
            return await service.metrics(request)
        except _RefusedError as error:
            return told(error.status, error.message, error.hint, error.headers)

    routes = [
        Route("/predict", predict, methods=["POST"]),
        Route("/metrics", metrics),
        Route("/health", service.health),
        Route("/openapi.json", service.openapi),
        Route("/", service.page),
    ]
    return Starlette(routes=routes, lifespan=service.lifespan)


def _host_of(origin: str) -> str:
    try:
        return urllib.parse.urlsplit(origin).netloc
    except ValueError:
        return ""
