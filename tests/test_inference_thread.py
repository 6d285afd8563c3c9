"""The inference thread: order, fairness, cancellation, failures, and its end."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from errors import InternalError, InvalidInput, ShuttingDown
from inference_thread import MAX_UNREAD_CHUNKS, InferenceThread


@pytest.fixture
def thread() -> Iterator[InferenceThread]:
    thread = InferenceThread("test")
    yield thread
    thread.close()


def recorded_steps(name: str, count: int, order: list[str]) -> Iterator[Iterator[str]]:
    def step(number: int) -> Iterator[str]:
        order.append(f"{name}{number}")
        yield f"{name}{number}"

    return (step(number) for number in range(count))


async def collect(thread: InferenceThread, steps: Iterator[Iterator[str]]) -> list[str]:
    return [chunk async for chunk in thread.run(steps)]


def test_call_runs_on_the_thread_and_returns(thread: InferenceThread) -> None:
    name = asyncio.run(thread.call(lambda: threading.current_thread().name))
    assert name == "test"


def test_chunks_come_in_order(thread: InferenceThread) -> None:
    order: list[str] = []
    assert asyncio.run(collect(thread, recorded_steps("a", 20, order))) == [f"a{n}" for n in range(20)]


def test_live_requests_take_turns_and_a_new_one_goes_first(thread: InferenceThread) -> None:
    order: list[str] = []
    gate, began = threading.Event(), threading.Event()

    def gated() -> Iterator[str]:
        began.set()
        gate.wait(10)
        yield "gate"

    async def main() -> None:
        blocker = asyncio.create_task(collect(thread, iter([gated()])))
        await asyncio.to_thread(began.wait, 10)
        book = asyncio.create_task(collect(thread, recorded_steps("book", 3, order)))
        await asyncio.sleep(0)
        short = asyncio.create_task(collect(thread, recorded_steps("short", 2, order)))
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(blocker, book, short)

    asyncio.run(main())
    assert order == ["book0", "short0", "book1", "short1", "book2"]


def test_a_cancelled_request_stops_at_its_next_chunk_and_closes_its_generators(thread: InferenceThread) -> None:
    made: list[int] = []
    closed_on: list[str] = []
    cancelled = threading.Event()

    def endless() -> Iterator[int]:
        try:
            for number in range(10_000):
                made.append(number)
                yield number
                cancelled.wait(10)
        finally:
            closed_on.append(threading.current_thread().name)

    def steps() -> Iterator[Iterator[int]]:
        try:
            yield endless()
            yield endless()
        finally:
            closed_on.append(threading.current_thread().name)

    async def main() -> None:
        chunks = thread.run(steps())
        async for _ in chunks:
            break
        await chunks.aclose()
        cancelled.set()
        await thread.call(lambda: None)

    asyncio.run(main())
    assert made == [0, 1]
    assert closed_on == ["test", "test"]


def test_a_slow_reader_holds_back_only_itself(thread: InferenceThread) -> None:
    order: list[str] = []

    async def main() -> list[str]:
        unread = thread.run(recorded_steps("slow", 100, order))
        await anext(unread)
        read = await collect(thread, recorded_steps("quick", 10, order))
        await unread.aclose()
        return read

    assert len(asyncio.run(main())) == 10
    assert sum(name.startswith("slow") for name in order) <= MAX_UNREAD_CHUNKS + 1


def test_our_errors_pass_and_others_become_internal(thread: InferenceThread, caplog: pytest.LogCaptureFixture) -> None:
    def raising(error: Exception) -> Iterator[Iterator[str]]:
        def step() -> Iterator[str]:
            raise error
            yield ""

        yield step()

    with pytest.raises(InvalidInput, match="no words"):
        asyncio.run(collect(thread, raising(InvalidInput("no words"))))
    with pytest.raises(InternalError) as caught:
        asyncio.run(collect(thread, raising(ValueError("secret of the model"))))
    assert "secret" not in caught.value.message
    assert "secret of the model" in caplog.text
    assert asyncio.run(thread.call(lambda: 7)) == 7


def test_the_end_of_the_thread_reaches_those_who_wait(thread: InferenceThread) -> None:
    gate, began = threading.Event(), threading.Event()

    def gated() -> Iterator[str]:
        began.set()
        gate.wait(10)
        yield "done"

    async def main() -> list[object]:
        running = asyncio.create_task(collect(thread, iter([gated()])))
        await asyncio.to_thread(began.wait, 10)
        waiting = asyncio.create_task(collect(thread, recorded_steps("late", 1, [])))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(thread.close))
        await asyncio.sleep(0.05)
        gate.set()
        await closing
        return [*await asyncio.gather(running, waiting, return_exceptions=True)]

    results = asyncio.run(main())
    assert all(isinstance(result, ShuttingDown) for result in results)
    with pytest.raises(ShuttingDown):
        asyncio.run(thread.call(lambda: 1))
