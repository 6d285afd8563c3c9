"""Text → steps → PCM, over a speech backend. Knows no HTTP and no settings."""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, Iterator

import numpy as np

import text_segmenter
from audio_converter import TimeStretcher
from backends.protocols import SpeechBackend, SpeechOptions, Spoken
from errors import InternalError, InvalidInput
from inference_thread import InferenceThread, Timing

WARM_UP_TEXT = "Ready."

log = logging.getLogger("speechd.tts")


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

    async def speak(
        self, text: str, options: SpeechOptions | None = None, timing: Timing | None = None
    ) -> AsyncGenerator[Spoken]:
        """Yield the sound of a text at `sample_rate`, chunk by chunk, as it is made.

        The model does as much of the speed as it can by itself; the rest is time-stretched, so the pitch stays.
        Raises InvalidInput where nothing in the text can be spoken, InternalError where the model fails.
        """
        options = self._acceptable(options or SpeechOptions())
        slowest, fastest = self.backend.speed_range
        own_speed = min(max(options.speed, slowest), fastest)
        steps = self._steps(text, dataclasses.replace(options, speed=own_speed))
        chunks = self.thread.run(steps, timing)
        has_sound = False
        try:
            async for spoken in _stretched(chunks, self.sample_rate, options.speed / own_speed):
                has_sound = has_sound or spoken.pcm.size > 0
                yield spoken
        finally:
            await chunks.aclose()
        if not has_sound:
            raise InvalidInput("There is nothing in the text that can be spoken.", param="input")

    async def warm_up(self, voice: str | None) -> None:
        """Take the cost of the first request: speak a word and drop it."""
        async for _ in self.speak(WARM_UP_TEXT, SpeechOptions(voice=voice)):
            pass

    def _acceptable(self, options: SpeechOptions) -> SpeechOptions:
        if options.instructions is None or self.backend.takes_instructions:
            return options
        log.info("the model takes no instructions; they are ignored")
        return dataclasses.replace(options, instructions=None)

    def _steps(self, text: str, options: SpeechOptions) -> Iterator[Iterator[Spoken]]:
        language = self.backend.language_of(options.voice) if options.voice is not None else None
        for piece in text_segmenter.segment(text, language):
            yield _checked(self.backend.speak(piece, options))


def _checked(chunks: Iterator[Spoken]) -> Iterator[Spoken]:
    """What a model gives, unless it is not sound."""
    for spoken in chunks:
        if not np.isfinite(spoken.pcm).all():
            raise InternalError("The model made sound that is not a number; try again, or another voice.")
        yield spoken


async def _stretched(chunks: AsyncGenerator[Spoken], sample_rate: int, tempo: float) -> AsyncGenerator[Spoken]:
    if tempo == 1.0:
        async for spoken in chunks:
            yield spoken
        return
    stretcher = TimeStretcher(sample_rate, tempo)
    async for spoken in chunks:
        yield Spoken(await asyncio.to_thread(stretcher.stretch, spoken.pcm), spoken.input_tokens)
    yield Spoken(await asyncio.to_thread(stretcher.finish), input_tokens=0)
