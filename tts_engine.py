"""Text → steps → PCM, over a speech backend. Knows no HTTP and no settings."""

import asyncio
from collections.abc import AsyncGenerator, Iterator

import numpy as np

import text_segmenter
from audio_converter import TimeStretcher
from backends.protocols import Pcm, SpeechBackend
from errors import InternalError, InvalidInput
from inference_thread import InferenceThread

WARM_UP_TEXT = "Ready."


class TtsEngine:
    """A loaded model that speaks, and the thread that runs it."""

    def __init__(self, backend: SpeechBackend, thread: InferenceThread) -> None:
        self.backend = backend
        self.thread = thread
        self.sample_rate = backend.sample_rate
        self.voices = {voice.id: voice for voice in backend.voices()}

    def default_voice(self, configured: str) -> str | None:
        """The voice of a request that names none: the configured one, else the model's first, else its own choice."""
        if configured in self.voices:
            return configured
        return next(iter(self.voices), None)

    async def speak(self, text: str, voice: str | None, speed: float = 1.0) -> AsyncGenerator[Pcm]:
        """Yield float32 chunks, shape (samples,), in [-1, 1], at `sample_rate`, as they are made.

        The model does as much of `speed` as it can by itself; the rest is time-stretched, so the pitch stays.
        Raises InvalidInput where nothing in the text can be spoken, InternalError where the model fails.
        """
        slowest, fastest = self.backend.speed_range
        own_speed = min(max(speed, slowest), fastest)
        chunks = self.thread.run(self._steps(text, voice, own_speed))
        spoken = False
        try:
            async for pcm in _stretched(chunks, self.sample_rate, speed / own_speed):
                spoken = spoken or pcm.size > 0
                yield pcm
        finally:
            await chunks.aclose()
        if not spoken:
            raise InvalidInput("There is nothing in the text that can be spoken.", param="input")

    async def warm_up(self, voice: str | None) -> None:
        """Take the cost of the first request: speak a word and drop it."""
        async for _ in self.speak(WARM_UP_TEXT, voice):
            pass

    def _steps(self, text: str, voice: str | None, speed: float) -> Iterator[Iterator[Pcm]]:
        language = self.backend.language_of(voice) if voice is not None else None
        for piece in text_segmenter.segment(text, language):
            yield _checked(self.backend.speak(piece, voice, speed))


def _checked(chunks: Iterator[Pcm]) -> Iterator[Pcm]:
    """What a model gives, unless it is not sound."""
    for pcm in chunks:
        if not np.isfinite(pcm).all():
            raise InternalError("The model made sound that is not a number; try again, or another voice.")
        yield pcm


async def _stretched(chunks: AsyncGenerator[Pcm], sample_rate: int, tempo: float) -> AsyncGenerator[Pcm]:
    if tempo == 1.0:
        async for pcm in chunks:
            yield pcm
        return
    stretcher = TimeStretcher(sample_rate, tempo)
    async for pcm in chunks:
        yield await asyncio.to_thread(stretcher.stretch, pcm)
    yield await asyncio.to_thread(stretcher.finish)
