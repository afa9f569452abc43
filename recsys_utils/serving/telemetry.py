"""An id, a line of log and counters for Prometheus for every request.

And what protects the service: a limit of size, headers, no stack traces in answers.
"""

import asyncio
import json
import logging
import re
import sys
import time
from collections import deque
from uuid import uuid4

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys_utils.serving.guard import refusal
from recsys_utils.serving.lanes import Full, Lanes
from recsys_utils.serving.settings import BODY, Settings

log = logging.getLogger("recsys_utils.serving")
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src"
    " 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}  # a new page must not meet old modules, nor a new list an old one
REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")
BODY_SECONDS = 20  # that a body has to arrive in
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Telemetry:
    """Counters of one app, and its latest durations."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.durations = deque(maxlen=1000)
        self.requests = 0
        self.recommendations = Counter(
            "recommendations", "Lists answered", ["model"], registry=self.registry
        )
        self.new_clients = Counter(
            "new_clients", "Lists for users without history", registry=self.registry
        )
        self.fallbacks = Counter(
            "fallbacks", "Lists that popularity had to make", registry=self.registry
        )
        self.events = Counter("events", "Events posted", ["outcome"], registry=self.registry)
        self.cache = Counter(
            "cache_lookups", "Lookups in the cache", ["outcome"], registry=self.registry
        )
        self.refused = Counter(
            "refused", "Requests that found no room to wait", registry=self.registry
        )
        self.seconds = Histogram(
            "request_duration_seconds",
            "Time to answer",
            ["method", "route", "status"],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self.registry)

    def total(self, name: str, **labels: str) -> int:
        """The sum of a counter over its labels, or over those with the values given."""
        return int(
            sum(
                sample.value
                for metric in getattr(self, name).collect()
                for sample in metric.samples
                if sample.name.endswith("_total") and labels.items() <= sample.labels.items()
            )
        )

    def latency(self) -> dict[str, float | None]:
        """Milliseconds of the last requests."""
        seconds = list(self.durations)
        return {
            f"p{q}": round(float(np.percentile(seconds, q)) * 1e3, 3) if seconds else None
            for q in (50, 95, 99)
        }


class TooLarge(Exception):
    """A body above the limit."""


class TooSlow(Exception):
    """A body that did not arrive in time."""


class Gate:
    """The outermost layer.

    It answers what nobody else did: strangers' sites, bodies that are too large or too slow, more
    requests than can be answered soon, and our own mistakes, in a sentence. A request waits for its
    place only when its body is whole, so that nobody holds one by dripping.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, config: Settings) -> None:
        self.app = app
        self.telemetry = telemetry
        self.config = config
        self.lanes = Lanes(config.max_waiting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = Visit(scope, receive, send)
        scope = visit.scope
        refused = refusal(scope, self.config)
        try:
            if refused:
                await visit.problem(*refused)
            else:
                await visit.read_body()
                async with self.lanes.place(scope, visit.read):
                    await self.app(scope, visit.receive, visit.send)
        except TooLarge:
            await visit.problem(
                413, f"the body is larger than {BODY >> 10} KiB: send less at a time"
            )
        except TooSlow:
            await visit.problem(408, f"the body took more than {BODY_SECONDS} s: send it at once")
        except Full:
            self.telemetry.refused.inc()
            await visit.problem(
                503, "more requests than can be answered soon: ask again in a second", "1"
            )
        except Exception:
            log.exception("failed", extra={"fields": {"request_id": visit.id}})
            await visit.problem(
                500, "something went wrong here; the log has it under the request id"
            )
        visit.finish(self.telemetry)


class Visit:
    """One request on its way through.

    HEAD is answered as GET; the server leaves out the body.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method = scope["method"]
        self.scope = scope | {"method": "GET"} if self.method == "HEAD" else scope
        self._receive = receive
        self._send = send
        self.start = time.perf_counter()
        self.status = 0
        self.read = 0
        self._messages: deque[Message] = deque()
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        self.id = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        self.scope.setdefault("state", {})["request_id"] = self.id

    async def read_body(self) -> None:
        """Read the whole body; TooLarge or TooSlow where it is no good, if it says so at once."""
        length = dict(self.scope["headers"]).get(b"content-length")
        if length and length.isdigit() and int(length) > BODY:
            raise TooLarge
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while not self._messages or self._messages[-1].get("more_body"):
                    self._messages.append(await self._receive())
                    self.read += len(self._messages[-1].get("body", b""))
                    if self.read > BODY:
                        raise TooLarge
        except TimeoutError as error:
            raise TooSlow from error

    async def receive(self) -> Message:
        """The next piece of the body that was read, then what the server has to say."""
        return self._messages.popleft() if self._messages else await self._receive()

    async def send(self, message: Message) -> None:
        """Pass an answer on, with the headers that all of them have."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            extra = HEADERS | {"x-request-id": self.id}
            message["headers"] = [
                *message.get("headers", []),
                *((k.encode(), v.encode()) for k, v in extra.items()),
            ]
        await self._send(message)

    async def problem(self, status: int, sentence: str, retry_after: str = "") -> None:
        """Answer with an error, if no answer has begun. retry_after: seconds."""
        if self.status:
            return
        body = json.dumps({"error": sentence, "request_id": self.id}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if retry_after:
            headers.append((b"retry-after", retry_after.encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def finish(self, telemetry: Telemetry) -> None:
        """Count it and write its line."""
        seconds = time.perf_counter() - self.start
        route = getattr(self.scope.get("route"), "path_format", "unmatched")
        telemetry.requests += 1
        telemetry.durations.append(seconds)
        telemetry.seconds.labels(
            self.method if self.method in METHODS else "other", route, self.status
        ).observe(seconds)
        fields = {
            "request_id": self.id,
            "method": self.method,
            "path": self.scope["path"],
            "route": route,
            "status": self.status,
            "ms": round(seconds * 1e3, 2),
        }
        log.info("request", extra={"fields": fields})


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, what happened, and the fields of it."""
        result = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        result |= getattr(record, "fields", {})
        if record.exc_info:
            result["trace"] = self.formatException(record.exc_info)
        return json.dumps(result, default=str)


def log_to_stderr(debug: bool) -> None:
    """Structured logs of the service, its server and the libraries' warnings; debug says more."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.captureWarnings(True)  # a library's warning is a line of JSON too
    for name in ("recsys_utils.serving", "uvicorn.error", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.DEBUG if debug else logging.INFO)
