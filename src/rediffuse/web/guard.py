"""What every request passes: who may ask, how much may be sent, the headers of the answer, the log and the figures."""

import asyncio
import contextlib
import hmac
import logging
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from fastapi import HTTPException, Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rediffuse.web.config import LOCAL, Address, ServerLimits
from rediffuse.web.metrics import Metrics
from rediffuse.web.problems import answer, wants_page

LOGGER = logging.getLogger(__name__)

COOKIE = "rediffuse"
LOGIN, HEALTH = "/login", "/healthz"
OPEN = (LOGIN, HEALTH)
"""The paths that need no token."""
UPLOADS = ("/jobs", "/api/jobs", "/api/detect")
SMALL = 1 << 14
"""Largest body of a request that uploads nothing, in bytes."""
SAFE = ("GET", "HEAD", "OPTIONS")
METHODS = (*SAFE, "POST", "PUT", "PATCH", "DELETE")
"""Those that the log and the figures name; a client can invent others."""
REST_BYTES, REST_SECONDS = 64 << 20, 5.0
"""What is read and thrown away of a request that was refused, so that its client reads the answer."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}


class Guard:
    """The outermost application: it lets requests through to the other one, or answers them itself."""

    def __init__(
        self, app: ASGIApp, *, address: Address, limits: ServerLimits, clock: Callable[[], float], metrics: Metrics
    ) -> None:
        self._app, self._token, self._limits = app, address.token, limits
        self._clock, self._metrics = clock, metrics
        self.session = secrets.token_urlsafe(32)
        """The value of the cookie of those who gave the token to the page; another one after each start."""
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        exchange = _Exchange(receive, send, self._most_bytes(scope["path"]), self._metrics, has_body)
        since = self._clock()
        self._num_open += 1
        self._metrics.clients.set(self._num_open)
        try:
            await self._respond(scope, exchange)
            await exchange.finish()
        finally:
            self._num_open -= 1
            self._metrics.clients.set(self._num_open)
            self._record(scope, exchange.status, self._clock() - since)

    def is_token(self, given: str) -> bool:
        """Whether this is the token of the server. Takes equally long for every wrong one of the same length."""
        return self._token is not None and hmac.compare_digest(given.encode(), self._token.encode())

    async def _respond(self, scope: Scope, exchange: "_Exchange") -> None:
        request = Request(scope)
        refusal = self._refusal(request)
        if refusal is None:
            await self._app(scope, exchange.receive, exchange.send)
        else:
            await refusal(scope, exchange.receive, exchange.send)

    def _refusal(self, request: Request) -> Response | None:
        headers, path = request.headers, request.url.path
        if self._num_open > self._limits.max_clients and path != HEALTH:
            return answer(request, 503, "too many requests at the same time", {"Retry-After": "5"})
        if self._token is None and _host_name(headers.get("host", "")) not in LOCAL:
            return answer(request, 421, f"Host: one of {', '.join(LOCAL)} is needed")
        if request.method not in SAFE and _is_from_elsewhere(headers):
            return answer(request, 403, "the request comes from the page of another site")
        if self._token is not None and path not in OPEN and not self._is_known(headers):
            if wants_page(request):
                return RedirectResponse(LOGIN, 303)
            return answer(request, 401, "the token of this server is needed", {"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._most_bytes(path):
            return answer(request, 413, too_large(self._most_bytes(path)))
        return None

    def _is_known(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.is_token(given.strip())
        with contextlib.suppress(CookieError):
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            return cookie is not None and hmac.compare_digest(cookie.value.encode(), self.session.encode())
        return False

    def _most_bytes(self, path: str) -> int:
        return self._limits.max_request_bytes if path in UPLOADS else SMALL

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        """Log the request by its route: the address of a job is a secret, and is not written."""
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route == HEALTH else logging.INFO
        LOGGER.log(level, "%s %s: %d, %.3f s", method, route, status, seconds)


class _Exchange:
    """A request and its answer: counts the bytes of the one, and adds the headers to the other."""

    def __init__(self, receive: Receive, send: Send, most_bytes: int, metrics: Metrics, has_body: bool) -> None:
        self._receive, self._send = receive, send
        self._most_bytes, self._metrics = most_bytes, metrics
        self._num_bytes = 0
        self._is_read = not has_body
        self._last: Message | None = None
        self.status = 0
        """Of the answer; 0 until there is one."""

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._count(message)
            if self._num_bytes > self._most_bytes:
                raise HTTPException(413, too_large(self._most_bytes))
        else:
            self._is_read = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if self.status >= 400 and not self._is_read:
                headers["Connection"] = "close"
        elif self.status >= 400 and not self._is_read and not message.get("more_body"):
            self._last, message = message, {**message, "more_body": True}
        await self._send(message)

    async def finish(self) -> None:
        """Read a part of what is left of a refused request: closing at once would also discard the answer."""
        if self._last is None:
            return
        limit = self._num_bytes + REST_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REST_SECONDS):
                while not self._is_read and self._num_bytes < limit:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        return
                    self._count(message)
        await self._send({"type": "http.response.body", "body": b""})

    def _count(self, message: Message) -> None:
        size = len(message.get("body", b""))
        self._num_bytes += size
        self._metrics.uploaded.inc(size)
        self._is_read = not message.get("more_body", False)


def too_large(most: int) -> str:
    """The detail of a refused request."""
    return f"the request has more than {most} bytes; send less"


def _host_name(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that the page of another site sends the request."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()
