"""Server-sent events in OpenAI's form: `data:` lines without an `event:`, failures in-band."""

import json
import logging
from collections.abc import AsyncGenerator

from pydantic import BaseModel

from errors import SpeechdError
from openai_api import error_in_openai_form

CONTENT_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # proxies would hold the events back
DONE = b"data: [DONE]\n\n"

log = logging.getLogger("speechd.sse")


def event(body: BaseModel) -> bytes:
    """One event. Fields that are None are left out."""
    return b"data: " + body.model_dump_json(exclude_none=True).encode() + b"\n\n"


async def with_errors_in_band(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The same events; a failure becomes the last one, because the status line is out already."""
    try:
        async for each in events:
            yield each
    except SpeechdError as error:
        log.warning("a stream ended early: %s", error.message)
        yield b"data: " + json.dumps(error_in_openai_form(error)).encode() + b"\n\n"
    finally:
        await events.aclose()
