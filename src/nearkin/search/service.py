"""A service over HTTP: photographs in, embeddings or the nearest photographs of an index out.

    GET  /                a page to drop a photograph on
    POST /search?k=&label=  body: a picture's bytes; the nearest photographs, a label, known or not
    POST /embed           body: a picture's bytes; its embedding
    GET  /thumbnail?path=   a small picture of an item
    GET  /healthz  /metrics  /openapi.json

Pictures are written to a file as they arrive, decoded by a few threads through the one reader
(nearkin.data.pictures), and embedded together with all others that wait at that moment.
"""

from __future__ import annotations

import asyncio
import hmac
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nearkin.data.pictures import BadPicture
from nearkin.names import visible
from nearkin.search.embedder import Embedder
from nearkin.search.index import Index
from nearkin.search.openapi import MOST_HITS, OPENAPI

BODY_BYTES = 32 * 2**20
BODY_SECONDS = 20.0  # in which a body must have arrived
UPLOADS = 64  # bodies that arrive at a time
WAITING = 512  # pictures that wait for the Model; more are turned away
TOGETHER = 32  # pictures in one pass of the Model
DECODERS = 2  # pictures that are decoded at a time
OPEN = {"/", "/page.css", "/page.js", "/healthz"}
"""Paths that want no API key: they tell nothing of the photographs."""
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Refused(Exception):
    """A request that cannot be answered: an HTTP status, and why."""

    def __init__(self, status: int, why: str):
        super().__init__(why)
        self.status, self.why = status, why


@dataclass
class Waiting:
    """A picture that waits to be embedded, and searched for where `k` is not 0."""

    pixels: np.ndarray
    k: int
    label: str | None
    answer: asyncio.Future


class Service:
    """The state of a running service: an embedder, an index or none, a queue, and what is counted.

    Args:
        embedder: of a Model.
        index: that is searched; None: only /embed is answered.
        key: that requests must show; "": none.
        body_bytes: the largest body that is taken.
    """

    def __init__(
        self,
        embedder: Embedder,
        index: Index | None = None,
        *,
        key: str = "",
        hosts: tuple[str, ...] = ("*",),
        body_bytes: int = BODY_BYTES,
    ):
        self.embedder, self.index, self.key, self.body_bytes = embedder, index, key, body_bytes
        self.hosts = hosts
        self.registry = CollectorRegistry()
        counted = partial(Counter, registry=self.registry)
        self.requests = counted("nearkin_requests", "Requests", ["path", "status"])
        self.seconds = Histogram(
            "nearkin_seconds",
            "Seconds from a request to its answer",
            ["path"],
            registry=self.registry,
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 20),
        )
        self.together = Histogram(
            "nearkin_batch",
            "Pictures in one pass",
            registry=self.registry,
            buckets=(1, 2, 4, 8, 16, 32),
        )
        self.items = Gauge("nearkin_items", "Photographs in the index", registry=self.registry)

    def app(self) -> Starlette:
        """The application, for uvicorn or any other ASGI server."""
        pages = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
        routes = [
            Route(path, self._counted(path, partial(page, name))) for path, name in pages.items()
        ]
        for path, method, act in (
            ("/search", "POST", self.search),
            ("/embed", "POST", self.embed),
            ("/thumbnail", "GET", self.thumbnail),
            ("/healthz", "GET", self.health),
            ("/metrics", "GET", self.metrics),
            ("/openapi.json", "GET", self.openapi),
        ):
            routes.append(Route(path, self._counted(path, act), methods=[method]))
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=list(self.hosts))
        return Starlette(routes=routes, lifespan=self._life, middleware=[hosts])

    @asynccontextmanager
    async def _life(self, app: Starlette) -> AsyncIterator[None]:
        self.queue: asyncio.Queue[Waiting] = asyncio.Queue(WAITING)
        self.uploads = asyncio.Semaphore(UPLOADS)
        self.worker = ThreadPoolExecutor(1, "nearkin-model")
        self.decoders = ThreadPoolExecutor(DECODERS, "nearkin-decode")
        task = asyncio.create_task(self._work())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        self.worker.shutdown(cancel_futures=True)
        self.decoders.shutdown(cancel_futures=True)

    def _counted(self, path: str, act: Callable) -> Callable:
        """A route that checks the key, answers errors as JSON, and is counted."""

        async def answer(request: Request) -> Response:
            begun = time.perf_counter()
            try:
                self._admit(path, request)
                response = await act(request)
            except Refused as refused:
                response = JSONResponse({"error": refused.why}, refused.status)
            except ClientDisconnect:
                response = JSONResponse({"error": "the client has left"}, 499)
            except Exception as error:  # such as of an index that was moved away
                why = visible(" ".join(f"{type(error).__name__}: {error}".split()))
                print(f"nearkin: {path}: {why}", file=sys.stderr)
                response = JSONResponse({"error": "the service failed; its log says why"}, 500)
            self.requests.labels(path, str(response.status_code)).inc()
            self.seconds.labels(path).observe(time.perf_counter() - begun)
            response.headers.update(HEADERS)
            return response

        return answer

    def _admit(self, path: str, request: Request) -> None:
        """Refuse a request that does not show the key."""
        if not self.key or path in OPEN:
            return
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(shown.encode(), self.key.encode()):
            raise Refused(401, "wanted the API key: Authorization: Bearer KEY")

    async def search(self, request: Request) -> Response:
        """The nearest photographs of the picture in the body."""
        if self.index is None:
            raise Refused(404, "a Model is served, not an index: only /embed is answered")
        k = whole_number(parameter(request, "k", "10"), "k", MOST_HITS)
        label = parameter(request, "label") or None
        found = await self._answer_to(request, k, label)
        return JSONResponse({**asdict(found), "similarity": self.index.similarity_name})

    async def embed(self, request: Request) -> Response:
        """The embedding of the picture in the body."""
        vector = await self._answer_to(request, 0, None)
        return JSONResponse({"embedding": vector.tolist(), "identity": self.embedder.identity})

    async def thumbnail(self, request: Request) -> Response:
        """The small picture of an item."""
        path = parameter(request, "path")
        index = self.index
        if index is None:
            raise Refused(404, "a Model is served, not an index")
        scan = partial(index.store.scan, ["thumbnail"], None, [path])
        found = (await self._in_worker(scan))["thumbnail"].to_pylist()
        if not found or found[0] is None:
            raise Refused(404, "the index holds no photograph of that path")
        return Response(
            found[0], media_type="image/jpeg", headers={"cache-control": "max-age=3600"}
        )

    async def health(self, request: Request) -> Response:
        """That the service is alive, and what it serves."""
        items = None if self.index is None else await self._in_worker(self.index.store.count)
        return JSONResponse(
            {
                "status": "ok",
                "identity": self.embedder.identity,
                "dim": self.embedder.dim,
                "items": items,
            }
        )

    async def metrics(self, request: Request) -> Response:
        """What was counted, as Prometheus reads it."""
        if self.index is not None:
            self.items.set(await self._in_worker(self.index.store.count))
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """What can be asked, as OpenAPI describes it."""
        return JSONResponse(OPENAPI)

    async def _answer_to(self, request: Request, k: int, label: str | None) -> Any:
        """The body's picture, decoded, queued, and what came of it."""
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory(prefix="nearkin-") as folder:
            path = Path(folder) / f"picture{ending(request)}"
            async with self.uploads:
                await self._receive(request, path)
            try:
                pixels = await loop.run_in_executor(self.decoders, self.embedder.prepare, path)
            except (BadPicture, OSError) as error:
                raise Refused(422, str(error).replace(str(path), "the body")) from None
        waiting = Waiting(pixels, k, label, loop.create_future())
        try:
            self.queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise Refused(503, "too many pictures wait; try again in a second") from None
        return await waiting.answer

    async def _receive(self, request: Request, path: Path) -> None:
        """Write the body to a file, as long as it is not too large and not too slow."""
        length = request.headers.get("content-length", "")
        size, too_large = 0, f"wanted a body of at most {self.body_bytes:,} bytes"
        if length.isdecimal() and int(length) > self.body_bytes:
            raise Refused(413, too_large)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                with path.open("wb") as file:
                    async for piece in request.stream():
                        size += len(piece)
                        if size > self.body_bytes:
                            raise Refused(413, too_large)
                        file.write(piece)
        except TimeoutError:
            raise Refused(408, f"the body took more than {BODY_SECONDS:.0f} s to arrive") from None
        if not size:
            raise Refused(400, "wanted a picture's bytes as the body, got none")

    async def _work(self) -> None:
        """Embed and search what waits, all of it at once, for ever."""
        while True:
            first = await self.queue.get()
            batch = [first]
            while len(batch) < TOGETHER and not self.queue.empty():
                batch.append(self.queue.get_nowait())
            batch = [waiting for waiting in batch if not waiting.answer.cancelled()]
            if not batch:
                continue
            self.together.observe(len(batch))
            try:
                answers = await self._in_worker(partial(self._answers, batch))
            except Exception as error:  # whatever it is, those who wait must hear of it
                answers = [Refused(500, " ".join(str(error).split()))] * len(batch)
            for waiting, answer in zip(batch, answers, strict=True):
                if waiting.answer.done():
                    continue
                if isinstance(answer, Refused):
                    waiting.answer.set_exception(answer)
                else:
                    waiting.answer.set_result(answer)

    def _answers(self, batch: list[Waiting]) -> list[Any]:
        """Embeddings, or what a search finds, of pictures that wait; in the worker's thread."""
        vectors = self.embedder.embed(np.stack([waiting.pixels for waiting in batch]))
        answers: list[Any] = list(vectors)
        for k, label in {(w.k, w.label) for w in batch if w.k}:
            chosen = [i for i, w in enumerate(batch) if (w.k, w.label) == (k, label)]
            try:
                found: list[Any] = self.index.search(vectors[chosen], k, label=label)  # type: ignore[union-attr]
            except ValueError as error:
                found = [Refused(404, str(error))] * len(chosen)
            for i, answer in zip(chosen, found, strict=True):
                answers[i] = answer
        return answers

    async def _in_worker(self, act: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.worker, act)


async def page(name: str, request: Request) -> Response:
    """A file of the page."""
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    text = files("nearkin.search").joinpath("page", name).read_text(encoding="utf-8")
    return Response(text, media_type=kinds[Path(name).suffix])


def parameter(request: Request, name: str, default: str = "") -> str:
    """A parameter of a query; of two nobody knows which counts."""
    given = request.query_params.getlist(name) or [default]
    if len(given) > 1:
        raise Refused(400, f"{name} is given {len(given)} times, wanted once")
    return given[0]


def whole_number(text: str, name: str, most: int) -> int:
    """A number in 1..most from a query's text."""
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 1 <= int(text) <= most):
        raise Refused(400, f"{name} must be in 1..{most}, got {text[:20]!r}")
    return int(text)


def ending(request: Request) -> str:
    """The ending by which the reader knows a phone's format; other formats it knows themselves."""
    return (
        ".heic" if request.headers.get("content-type", "") in ("image/heic", "image/heif") else ""
    )
