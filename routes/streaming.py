"""What streamed answers have in common: a first part before the status line, headers, work off the event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def started(parts: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Wait for the first part, then give all of them: what fails before it can still be a real 4xx or 5xx."""
    first = await anext(parts)
    return _following(first, parts)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it off the event loop, and to its end even when cancelled: FFmpeg must not be closed under it."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def server_timing(seconds: Mapping[str, float]) -> str:
    """The value of a Server-Timing header, in milliseconds."""
    return ", ".join(f"{name};dur={duration * 1000:.1f}" for name, duration in seconds.items())


async def _following(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    try:
        yield first
        async for part in rest:
            yield part
    finally:
        await rest.aclose()
