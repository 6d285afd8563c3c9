"""The one thread that owns an engine: it loads the model, runs it, and lets it go.

A request is an iterator of steps; a step is an iterator of chunks and stands for one complete model call.
The thread takes one step from each live request in turn, a new request first, so a short request never
waits for a long one. A cancelled request stops at its next chunk. A reader that is slow holds back only
its own request: no further step of it is taken while its chunks lie unread.
"""

import asyncio
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from errors import InternalError, ShuttingDown, SpeechdError

T = TypeVar("T")

MAX_UNREAD_CHUNKS = 4  # over this, the request's next step waits for its reader

log = logging.getLogger("speechd.inference")


@dataclass
class Timing:
    """What one request has taken so far, in seconds. The thread writes it; the request may read it at any time."""

    queue: float = 0.0  # before its first step
    model: float = 0.0  # in its steps


class _Job(Generic[T]):
    """One live request. The thread writes to `outbox` through the event loop; `unread` counts what lies there."""

    def __init__(self, steps: Iterable[Iterable[T]], timing: Timing) -> None:
        self.steps: Iterator[Iterable[T]] = iter(steps)
        self.timing = timing
        self._mark = time.perf_counter()
        self.loop = asyncio.get_running_loop()
        self.context = contextvars.copy_context()  # so that what the step logs belongs to its request
        self.outbox: asyncio.Queue[T | _End] = asyncio.Queue()
        self.unread = 0
        self.cancelled = False

    def begins(self) -> None:
        """Its first step is next: what it waited for that was the queue."""
        self.timing.queue = time.perf_counter() - self._mark

    def steps_in(self) -> None:
        """A step of it starts now."""
        self._mark = time.perf_counter()

    def counts(self) -> None:
        """Add what the step has taken since it started or was counted last."""
        now = time.perf_counter()
        self.timing.model += now - self._mark
        self._mark = now

    def deliver(self, item: "T | _End") -> None:
        """Called on the thread. An event loop that is gone takes its reader with it."""
        try:
            self.loop.call_soon_threadsafe(self.outbox.put_nowait, item)
        except RuntimeError:
            self.cancelled = True


class _End:
    """The last thing in an outbox: the end of the work, or why it failed."""

    def __init__(self, error: SpeechdError | None = None) -> None:
        self.error = error


class InferenceThread:
    """Runs the steps of live requests in turn, on a thread of its own that starts at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._new: deque[_Job[Any]] = deque()  # not begun: they go first, in the order of their coming
        self._begun: deque[_Job[Any]] = deque()
        self._current: _Job[Any] | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def active(self) -> int:
        """How many requests have begun and are not done."""
        return len(self._begun) + (self._current is not None)

    @property
    def waiting(self) -> int:
        """How many requests wait for their first step."""
        return len(self._new)

    async def call(self, function: Callable[[], T]) -> T:
        """Run one function on the thread, as a request of one step, and return what it returns."""

        def step() -> Iterator[T]:
            yield function()

        async for result in self.run([step()]):
            return result
        raise InternalError("The engine ended without a result.")

    async def run(self, steps: Iterable[Iterable[T]], timing: Timing | None = None) -> AsyncGenerator[T]:
        """Run the steps on the thread and yield their chunks. Closing the generator cancels the request.

        `timing` is filled in while the request runs.

        Raises what a step raises if it is a SpeechdError, otherwise InternalError; the engine's words go to the log.
        """
        job: _Job[T] = _Job(steps, timing or Timing())
        self._submit(job)
        try:
            while not isinstance(item := await job.outbox.get(), _End):
                with self._changed:
                    job.unread -= 1
                    self._changed.notify()
                yield item
            if item.error is not None:
                raise item.error
        finally:
            with self._changed:
                job.cancelled = True
                self._changed.notify()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """End the thread after the step it is in. Requests that are not done get ShuttingDown."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_seconds)

    def _submit(self, job: _Job[T]) -> None:
        with self._changed:
            if self._closing:
                raise ShuttingDown("The server is shutting down.")
            self._new.append(job)
            self._changed.notify()

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            job.steps_in()
            done = job.context.run(self._take_step, job)
            job.counts()
            with self._changed:
                self._current = None
                if not done:
                    self._begun.append(job)
        for job in (*self._new, *self._begun):
            job.deliver(_End(ShuttingDown("The server is shutting down.")))

    def _next_job(self) -> _Job[Any] | None:
        """The next request that can go on; waits where there is none. None at the end of the thread."""
        with self._changed:
            while not self._closing:
                if self._new:
                    job = self._new.popleft()
                    job.begins()
                    self._current = job
                    return job
                for job in self._begun:
                    if job.cancelled or job.unread < MAX_UNREAD_CHUNKS:
                        self._begun.remove(job)
                        self._current = job
                        return job
                self._changed.wait()
        return None

    def _take_step(self, job: _Job[Any]) -> bool:
        """Run one step; True where the request is done, failed or cancelled."""
        try:
            step = None if job.cancelled else next(job.steps, None)
            if step is not None:
                self._deliver_chunks(job, step)
            if step is None or job.cancelled:
                _close(job.steps)
                job.deliver(_End())
                return True
        except SpeechdError as error:
            job.deliver(_End(error))
            return True
        except Exception:
            # Whatever a model raises, this request ends and the next one works.
            log.exception("a step failed on thread %s", self.name)
            job.deliver(_End(InternalError("The model failed on this request; the server's log says why.")))
            return True
        return False

    def _deliver_chunks(self, job: _Job[Any], step: Iterable[Any]) -> None:
        for chunk in step:
            if job.cancelled:
                _close(step)
                break
            job.counts()
            with self._changed:
                job.unread += 1
            job.deliver(chunk)


def _close(iterator: Iterable[Any]) -> None:
    """End a generator here, on the thread: what it holds of the model must not be freed on another."""
    if isinstance(iterator, Generator):
        iterator.close()
