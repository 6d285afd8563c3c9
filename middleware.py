"""Plain ASGI middleware: the id of each request with its access line, and the limit on its size."""

import logging
import re
import time
import uuid
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from errors import PayloadTooLarge

# A client's own id is kept if it can do no harm in a log line or a header.
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

# Asked for every few seconds by whatever watches the server.
QUIET_PATHS = frozenset({"/health", "/ready"})

MIB = 1024 * 1024

access_log = logging.getLogger("speechd.access")

# The request that the running code works for. Tasks and threads that it starts inherit it.
_request_id: ContextVar[str] = ContextVar("request_id", default="")


class WithRequestId(logging.Filter):
    """Gives each log record `request`: the id of the request that it belongs to, in brackets, or nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        request_id = _request_id.get()
        record.request = f" [{request_id}]" if request_id else ""
        return True


class RequestId:
    """Gives each request an id, on the response as X-Request-ID, and writes one line when it is done."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()
        asked = Headers(scope=scope).get("x-request-id", "")
        request_id = asked if SANE_REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        _request_id.set(request_id)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            milliseconds = (time.perf_counter() - begun) * 1000
            path = scope["path"].encode("unicode_escape").decode("ascii")
            level = logging.DEBUG if path in QUIET_PATHS else logging.INFO
            access_log.log(level, "%s %s %d %.0f ms", scope["method"], path, status, milliseconds)


class BodyLimit:
    """Refuses a body over the limit: by its declared length at once, else as soon as too much has arrived."""

    def __init__(self, app: ASGIApp, max_mib: int) -> None:
        self.app = app
        self.max_mib = max_mib

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        arrived = int(declared) if declared.isdecimal() else 0
        too_large = arrived > self.max_mib * MIB
        arrived = 0

        async def receive_counted() -> Message:
            nonlocal arrived
            if too_large:
                raise self._refusal()
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > self.max_mib * MIB:
                raise self._refusal()
            return message

        await self.app(scope, receive_counted, send)

    def _refusal(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The request is over {self.max_mib} MiB (SPEECHD_MAX_UPLOAD_MB).", param="file")
